# SPDX-License-Identifier: Apache-2.0
"""All that this project imports of google-tunix 0.1.7, so that a rename is one line."""

# ruff: noqa: F401
# pyright: reportMissingImports=false, reportUnusedImport=false
try:
    import tunix
except ModuleNotFoundError as error:
    if error.name != "tunix":
        raise
    raise ImportError(
        "fulcra_jax.alignment.tunix needs google-tunix 0.1.7, which is not installed; "
        'pip install "fulcra_jax[align]" installs it.'
    ) from None

from tunix.models.llama3 import model as llama
from tunix.models.llama3 import params as llama_params
from tunix.models.qwen2 import model as qwen2
from tunix.models.qwen2 import params as qwen2_params
from tunix.models.qwen3 import model as qwen3
from tunix.models.qwen3 import params as qwen3_params
from tunix.rl.common import compute_per_token_logps
from tunix.rl.function_registry import default_registry
from tunix.rl.grpo.grpo_learner import GRPOConfig, GRPOLearner
from tunix.rl.reward_manager import AbstractRewardManager
from tunix.rl.rl_cluster import ClusterConfig, RLCluster, RLTrainingConfig, Role
from tunix.rl.rollout.base_rollout import CacheConfig, RolloutConfig, RolloutOutput
from tunix.rl.rollout.vanilla_rollout import VanillaRollout
from tunix.sft.metrics_logger import MetricsLoggerOptions
