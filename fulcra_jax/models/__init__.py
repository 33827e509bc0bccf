# SPDX-License-Identifier: Apache-2.0
"""Encoders and value heads as Linen modules; a model returns logits, never a loss."""

from fulcra_jax import _extras
from fulcra_jax.configs import DebertaConfig as DebertaConfig
from fulcra_jax.configs import EvaluatorConfig as EvaluatorConfig
from fulcra_jax.configs import SharedHead as SharedHead

try:
    from fulcra_jax.models.deberta import Deberta as Deberta
except ModuleNotFoundError as error:
    raise _extras.missing("fulcra_jax.models", "models", error) from error
from fulcra_jax.models.composed_heads import aggregate_items as aggregate_items
from fulcra_jax.models.deberta import PositionTables as PositionTables
from fulcra_jax.models.deberta import position_tables as position_tables
from fulcra_jax.models.evaluator import Evaluator as Evaluator
from fulcra_jax.models.evaluator import apply_evaluator as apply_evaluator
from fulcra_jax.models.head_modules import load_registered as load_registered
from fulcra_jax.models.head_modules import register_head as register_head
from fulcra_jax.models.heads import HeadModule as HeadModule
from fulcra_jax.models.heads import HeadOutput as HeadOutput
from fulcra_jax.models.heads import SharedHeadModule as SharedHeadModule
from fulcra_jax.models.heads import probs as probs
from fulcra_jax.models.heads import score as score
from fulcra_jax.models.inputs import check_ids as check_ids
from fulcra_jax.models.lora import init_lora as init_lora
from fulcra_jax.models.lora import merge_lora as merge_lora
from fulcra_jax.models.pretraining import MaskedLm as MaskedLm
from fulcra_jax.models.pretraining import MaskedLmHead as MaskedLmHead
from fulcra_jax.models.pretraining import ReplacedTokenHead as ReplacedTokenHead
