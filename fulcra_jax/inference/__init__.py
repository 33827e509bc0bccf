# SPDX-License-Identifier: Apache-2.0
"""A trained evaluator -> scores for texts."""

from fulcra_jax.inference.bag_of_words import BagOfWords as BagOfWords
from fulcra_jax.inference.decisions import Decided as Decided
from fulcra_jax.inference.decisions import Decisions as Decisions
from fulcra_jax.inference.decisions import cross_fit as cross_fit
from fulcra_jax.inference.definitions import with_definitions as with_definitions
from fulcra_jax.inference.ensemble import Ensemble as Ensemble
from fulcra_jax.inference.ensemble import ensemble_id as ensemble_id
from fulcra_jax.inference.ensemble import load_predictor as load_predictor
from fulcra_jax.inference.ensemble import members_of as members_of
from fulcra_jax.inference.ensemble import save_ensemble as save_ensemble
from fulcra_jax.inference.ensemble import words_of as words_of
from fulcra_jax.inference.predictor import Predictor as Predictor
from fulcra_jax.inference.predictor import Scores as Scores
from fulcra_jax.inference.predictor import evaluator_id as evaluator_id
from fulcra_jax.inference.score_lines import ScoredAnswers as ScoredAnswers
from fulcra_jax.inference.score_lines import format_scores as format_scores
from fulcra_jax.inference.score_lines import read_scores as read_scores
from fulcra_jax.inference.score_lines import write_scores as write_scores
