# SPDX-License-Identifier: Apache-2.0
"""Losses, rewards and their reductions: pure functions of arrays."""

from fulcra_jax.objectives.advantage import Advantage as Advantage
from fulcra_jax.objectives.advantage import (
    generalized_advantage as generalized_advantage,
)
from fulcra_jax.objectives.advantage import reinforce_plus_plus as reinforce_plus_plus
from fulcra_jax.objectives.advantage import (
    reinforce_plus_plus_baseline as reinforce_plus_plus_baseline,
)
from fulcra_jax.objectives.advantage import token_rewards as token_rewards
from fulcra_jax.objectives.advantage import whiten as whiten
from fulcra_jax.objectives.anchored import apo_zero_loss as apo_zero_loss
from fulcra_jax.objectives.anchored import kto_anchor as kto_anchor
from fulcra_jax.objectives.anchored import kto_loss as kto_loss
from fulcra_jax.objectives.anchored import sppo_loss as sppo_loss
from fulcra_jax.objectives.best_of_n import best_of_n as best_of_n
from fulcra_jax.objectives.best_of_n import best_of_n_kl_bound as best_of_n_kl_bound
from fulcra_jax.objectives.best_of_n import expected_best_of_n as expected_best_of_n
from fulcra_jax.objectives.best_of_n import n_of_kl_bound as n_of_kl_bound
from fulcra_jax.objectives.best_of_n import soft_best_of_n as soft_best_of_n
from fulcra_jax.objectives.circumplex import circumplex_penalty as circumplex_penalty
from fulcra_jax.objectives.distance import (
    circumplex_similarity as circumplex_similarity,
)
from fulcra_jax.objectives.distance import value_distance as value_distance
from fulcra_jax.objectives.distance import value_gaps as value_gaps
from fulcra_jax.objectives.distillation import distillation_loss as distillation_loss
from fulcra_jax.objectives.evaluator import (
    balanced_class_weights as balanced_class_weights,
)
from fulcra_jax.objectives.evaluator import sqrt_class_weights as sqrt_class_weights
from fulcra_jax.objectives.evaluator import tanh_mse as tanh_mse
from fulcra_jax.objectives.evaluator import (
    ternary_cross_entropy as ternary_cross_entropy,
)
from fulcra_jax.objectives.focal import focal_loss as focal_loss
from fulcra_jax.objectives.group import gdpo_advantage as gdpo_advantage
from fulcra_jax.objectives.group import (
    greedy_baseline_advantage as greedy_baseline_advantage,
)
from fulcra_jax.objectives.group import group_advantage as group_advantage
from fulcra_jax.objectives.group import (
    length_weighted_advantage as length_weighted_advantage,
)
from fulcra_jax.objectives.grpo import aggregate_tokens as aggregate_tokens
from fulcra_jax.objectives.grpo import grpo_loss as grpo_loss
from fulcra_jax.objectives.grpo import rloo_loss as rloo_loss
from fulcra_jax.objectives.kl import adaptive_kl_coefficient as adaptive_kl_coefficient
from fulcra_jax.objectives.kl import full_kl as full_kl
from fulcra_jax.objectives.kl import kl_estimate as kl_estimate
from fulcra_jax.objectives.kl import kl_loss as kl_loss
from fulcra_jax.objectives.moments import RunningMoments as RunningMoments
from fulcra_jax.objectives.moments import initial_moments as initial_moments
from fulcra_jax.objectives.moments import scale_scores as scale_scores
from fulcra_jax.objectives.moments import update_moments as update_moments
from fulcra_jax.objectives.multiobjective import chebyshev_reward as chebyshev_reward
from fulcra_jax.objectives.multiobjective import direction_reward as direction_reward
from fulcra_jax.objectives.multiobjective import dual_step as dual_step
from fulcra_jax.objectives.multiobjective import lagrangian_reward as lagrangian_reward
from fulcra_jax.objectives.multiobjective import min_norm_weights as min_norm_weights
from fulcra_jax.objectives.multiobjective import rewarded_soup as rewarded_soup
from fulcra_jax.objectives.multiobjective import scalarize as scalarize
from fulcra_jax.objectives.multiobjective import target_weights as target_weights
from fulcra_jax.objectives.odds import orpo_loss as orpo_loss
from fulcra_jax.objectives.odds import simpo_loss as simpo_loss
from fulcra_jax.objectives.ordinal import ordinal_log_probs as ordinal_log_probs
from fulcra_jax.objectives.ordinal import ordinal_loss as ordinal_loss
from fulcra_jax.objectives.pairs import Pairs as Pairs
from fulcra_jax.objectives.pairs import preference_labels as preference_labels
from fulcra_jax.objectives.pairs import value_pairs as value_pairs
from fulcra_jax.objectives.policy import approximate_kl as approximate_kl
from fulcra_jax.objectives.policy import clip_fraction as clip_fraction
from fulcra_jax.objectives.policy import ppo_policy_loss as ppo_policy_loss
from fulcra_jax.objectives.policy import ppo_value_loss as ppo_value_loss
from fulcra_jax.objectives.policy import reinforce_loss as reinforce_loss
from fulcra_jax.objectives.policy import token_entropy as token_entropy
from fulcra_jax.objectives.policy import token_log_probs as token_log_probs
from fulcra_jax.objectives.preference import Rewards as Rewards
from fulcra_jax.objectives.preference import dpo_loss as dpo_loss
from fulcra_jax.objectives.preference import dpo_rewards as dpo_rewards
from fulcra_jax.objectives.preference import ipo_loss as ipo_loss
from fulcra_jax.objectives.preference import modpo_loss as modpo_loss
from fulcra_jax.objectives.preference import robust_dpo_loss as robust_dpo_loss
from fulcra_jax.objectives.preference import sequence_log_prob as sequence_log_prob
from fulcra_jax.objectives.preference import slic_loss as slic_loss
from fulcra_jax.objectives.presence import presence_loss as presence_loss
from fulcra_jax.objectives.reduce import masked_mean as masked_mean
from fulcra_jax.objectives.reduce import masked_total as masked_total
from fulcra_jax.objectives.reward import baselign_reward as baselign_reward
from fulcra_jax.objectives.reward import guard_reward as guard_reward
from fulcra_jax.objectives.reward import relative_reward as relative_reward
from fulcra_jax.objectives.reward import reward_per_value as reward_per_value
from fulcra_jax.objectives.reward import worst_reward as worst_reward
from fulcra_jax.objectives.soft_tokens import gumbel_softmax as gumbel_softmax
from fulcra_jax.objectives.soft_tokens import soft_embeddings as soft_embeddings
from fulcra_jax.objectives.soft_tokens import value_matching_loss as value_matching_loss
