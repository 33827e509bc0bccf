# SPDX-License-Identifier: Apache-2.0
"""Schwartz's basic human values of what a language model says, in JAX.

This module names the pure rooms only; it needs jax and numpy and starts no backend.
"""

from fulcra_jax import objectives as objectives
from fulcra_jax import scoring as scoring
from fulcra_jax import targets as targets
from fulcra_jax import values as values

__version__ = "0.1.0"
