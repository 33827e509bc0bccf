# SPDX-License-Identifier: Apache-2.0
"""Losses, rewards and their reductions: pure functions of arrays."""

from fulcra_jax.objectives.evaluator import sqrt_class_weights as sqrt_class_weights
from fulcra_jax.objectives.evaluator import tanh_mse as tanh_mse
from fulcra_jax.objectives.evaluator import (
    ternary_cross_entropy as ternary_cross_entropy,
)
from fulcra_jax.objectives.reduce import masked_mean as masked_mean
from fulcra_jax.objectives.reduce import masked_total as masked_total
