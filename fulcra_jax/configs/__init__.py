# SPDX-License-Identifier: Apache-2.0
"""What a model is made of: frozen, validated, free of jax and flax."""

from fulcra_jax.configs.encoder import DebertaConfig as DebertaConfig
from fulcra_jax.configs.evaluator import HEADS as HEADS
from fulcra_jax.configs.evaluator import NUM_CLASSES as NUM_CLASSES
from fulcra_jax.configs.evaluator import EvaluatorConfig as EvaluatorConfig
from fulcra_jax.configs.evaluator import Link as Link
from fulcra_jax.configs.evaluator import Pool as Pool
from fulcra_jax.configs.evaluator import SharedHead as SharedHead
from fulcra_jax.configs.families import Activation as Activation
from fulcra_jax.configs.families import Family as Family
from fulcra_jax.configs.reading import read_json as read_json
