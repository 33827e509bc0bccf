# SPDX-License-Identifier: Apache-2.0
"""What a model is made of: frozen, validated, free of jax and flax."""

from fulcra_jax.configs.composed_heads import FactoredHead as FactoredHead
from fulcra_jax.configs.composed_heads import HierarchicalHead as HierarchicalHead
from fulcra_jax.configs.composed_heads import MixtureHead as MixtureHead
from fulcra_jax.configs.encoder import DebertaConfig as DebertaConfig
from fulcra_jax.configs.evaluator import HEADS as HEADS
from fulcra_jax.configs.evaluator import NUM_CLASSES as NUM_CLASSES
from fulcra_jax.configs.evaluator import EvaluatorConfig as EvaluatorConfig
from fulcra_jax.configs.evaluator import Link as Link
from fulcra_jax.configs.families import Activation as Activation
from fulcra_jax.configs.families import Family as Family
from fulcra_jax.configs.heads import NUM_ITEMS as NUM_ITEMS
from fulcra_jax.configs.heads import ByDefinition as ByDefinition
from fulcra_jax.configs.heads import ConditionedHead as ConditionedHead
from fulcra_jax.configs.heads import Head as Head
from fulcra_jax.configs.heads import IndependentHead as IndependentHead
from fulcra_jax.configs.heads import Pool as Pool
from fulcra_jax.configs.heads import PooledHead as PooledHead
from fulcra_jax.configs.heads import QueryHead as QueryHead
from fulcra_jax.configs.heads import SharedHead as SharedHead
from fulcra_jax.configs.heads import dense as dense
from fulcra_jax.configs.reading import read_json as read_json
from fulcra_jax.configs.reading_heads import PromptedHead as PromptedHead
from fulcra_jax.configs.reading_heads import TokenHead as TokenHead
