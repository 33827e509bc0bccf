# SPDX-License-Identifier: Apache-2.0
"""What moves a language model toward a target.

Choosing among its answers, preference pairs for trainers of others, and from an
evaluator and a target to what a rollout loop asks for. `fulcra_jax.alignment.tunix` is
the adapter to google-tunix; it needs `pip install "fulcra_jax[align]"` and is imported
by name. The rest needs jax only.
"""

from fulcra_jax.alignment.groups import AnswerGroups as AnswerGroups
from fulcra_jax.alignment.groups import group_by_prompt as group_by_prompt
from fulcra_jax.alignment.policy_tokenizer import PolicyTokenizer as PolicyTokenizer
from fulcra_jax.alignment.preference_lines import PreferencePairs as PreferencePairs
from fulcra_jax.alignment.preference_lines import UnpairedAnswers as UnpairedAnswers
from fulcra_jax.alignment.preference_lines import read_pairs as read_pairs
from fulcra_jax.alignment.preference_lines import read_unpaired as read_unpaired
from fulcra_jax.alignment.preference_lines import write_pairs as write_pairs
from fulcra_jax.alignment.preference_lines import write_unpaired as write_unpaired
from fulcra_jax.alignment.preferences import PairCounts as PairCounts
from fulcra_jax.alignment.preferences import preference_pairs as preference_pairs
from fulcra_jax.alignment.preferences import unpaired_answers as unpaired_answers
from fulcra_jax.alignment.rerank import BestOfN as BestOfN
from fulcra_jax.alignment.rerank import Reranked as Reranked
from fulcra_jax.alignment.rerank import best_of_n_table as best_of_n_table
from fulcra_jax.alignment.rerank import rerank as rerank
from fulcra_jax.alignment.rerank import selection_probs as selection_probs
from fulcra_jax.alignment.rope import rope_frequencies as rope_frequencies
from fulcra_jax.alignment.rope import rotate as rotate
from fulcra_jax.alignment.value_reward import Evaluator as Evaluator
from fulcra_jax.alignment.value_reward import Judged as Judged
from fulcra_jax.alignment.value_reward import ValueReward as ValueReward
from fulcra_jax.alignment.value_reward import target_column as target_column
