# SPDX-License-Identifier: Apache-2.0
"""From an evaluator and a target to what a rollout loop asks for.

`fulcra_jax.alignment.tunix` is the adapter to google-tunix; it needs
`pip install "fulcra_jax[align]"` and is imported by name. The rest needs jax only.
"""

from fulcra_jax.alignment.policy_tokenizer import PolicyTokenizer as PolicyTokenizer
from fulcra_jax.alignment.rope import rope_frequencies as rope_frequencies
from fulcra_jax.alignment.rope import rotate as rotate
from fulcra_jax.alignment.value_reward import Evaluator as Evaluator
from fulcra_jax.alignment.value_reward import Judged as Judged
from fulcra_jax.alignment.value_reward import ValueReward as ValueReward
from fulcra_jax.alignment.value_reward import target_column as target_column
