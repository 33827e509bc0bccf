# SPDX-License-Identifier: Apache-2.0
"""Alignment targets: vectors `[V]` in [-1, 1], in the order of `values.BASIC`."""

from fulcra_jax.targets.check import CircleFit as CircleFit
from fulcra_jax.targets.check import TargetCheck as TargetCheck
from fulcra_jax.targets.check import check_target as check_target
from fulcra_jax.targets.control import Control as Control
from fulcra_jax.targets.control import control_target as control_target
from fulcra_jax.targets.ess import EssTarget as EssTarget
from fulcra_jax.targets.ess import from_ess as from_ess
from fulcra_jax.targets.explicit import EXPLICIT as EXPLICIT
from fulcra_jax.targets.explicit import Target as Target
from fulcra_jax.targets.explicit import parse_target as parse_target
from fulcra_jax.targets.explicit import target as target
from fulcra_jax.targets.importance import PAN_CULTURAL_ORDER as PAN_CULTURAL_ORDER
from fulcra_jax.targets.importance import PAN_CULTURAL_RANKS as PAN_CULTURAL_RANKS
from fulcra_jax.targets.importance import blend as blend
from fulcra_jax.targets.importance import importance_weights as importance_weights
from fulcra_jax.targets.importance import interpolate as interpolate
from fulcra_jax.targets.importance import value_ranks as value_ranks
from fulcra_jax.targets.keys import PVQ21 as PVQ21
from fulcra_jax.targets.keys import PVQ40 as PVQ40
from fulcra_jax.targets.keys import PVQ_RR as PVQ_RR
from fulcra_jax.targets.keys import PVQ_RR_REFINED as PVQ_RR_REFINED
from fulcra_jax.targets.keys import Questionnaire as Questionnaire
from fulcra_jax.targets.profile import GroupTarget as GroupTarget
from fulcra_jax.targets.profile import from_profile as from_profile
from fulcra_jax.targets.profile import from_responses as from_responses
from fulcra_jax.targets.profile import scale_to_largest as scale_to_largest
from fulcra_jax.targets.questionnaires import ItemScores as ItemScores
from fulcra_jax.targets.questionnaires import from_pvq21 as from_pvq21
from fulcra_jax.targets.questionnaires import from_pvq40 as from_pvq40
from fulcra_jax.targets.questionnaires import from_pvq_rr as from_pvq_rr
from fulcra_jax.targets.questionnaires import item_scores as item_scores
from fulcra_jax.targets.questionnaires import valid_respondents as valid_respondents
