# SPDX-License-Identifier: Apache-2.0
"""A trained evaluator -> scores for texts."""

from fulcra_jax.inference.predictor import Predictor as Predictor
from fulcra_jax.inference.predictor import Scores as Scores
