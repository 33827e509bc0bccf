# SPDX-License-Identifier: Apache-2.0
"""Aligns a language model by the learners of google-tunix 0.1.7.

Everything that this project imports of tunix stands here. What 0.1.7 does otherwise
than one would expect, and what is done about it:

| tunix 0.1.7 | here |
| --- | --- |
| its PPO learner rounds rewards to integers towards zero | there is no way to it here |
| a reward that is NaN becomes 0 | `ValueReward` gives the worst reward there is |
| the KL penalty of `GRPOConfig` has no gradient on average | `kl_loss` |
| the sampler draws with the same noise at every step | `Rollout`: a key per call |
| the end of an answer never reaches the loss | `Rollout` keeps it |
| of several ends it does not say which one was drawn | `Rollout` looks |
| padding may be drawn, and makes a hole in the answer | `Rollout` never draws it |
| old log-probabilities are those of temperature 1 | `Rollout` takes the sampling's |
| padding that is also the end is left out of the loss | `PolicyTokenizer` refuses it |
| the rotary base of Llama and Qwen3 is not read | `checkpoint_rope` |
"""

from fulcra_jax.alignment.tunix.divergence import answer_kl as answer_kl
from fulcra_jax.alignment.tunix.learner import make_learner as make_learner
from fulcra_jax.alignment.tunix.learner import make_mesh as make_mesh
from fulcra_jax.alignment.tunix.learner import place as place
from fulcra_jax.alignment.tunix.models import checkpoint_rope as checkpoint_rope
from fulcra_jax.alignment.tunix.models import end_tokens as end_tokens
from fulcra_jax.alignment.tunix.models import load_policy as load_policy
from fulcra_jax.alignment.tunix.models import random_qwen3 as random_qwen3
from fulcra_jax.alignment.tunix.models import read_config as read_config
from fulcra_jax.alignment.tunix.registry import RewardManager as RewardManager
from fulcra_jax.alignment.tunix.registry import gdpo_config as gdpo_config
from fulcra_jax.alignment.tunix.registry import grpo_config as grpo_config
from fulcra_jax.alignment.tunix.registry import register as register
from fulcra_jax.alignment.tunix.rollout import Answers as Answers
from fulcra_jax.alignment.tunix.rollout import Rollout as Rollout
from fulcra_jax.alignment.tunix.rollout import Sampling as Sampling
from fulcra_jax.alignment.tunix.rollout import answer as answer
