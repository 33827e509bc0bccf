# SPDX-License-Identifier: Apache-2.0
"""Scores of predictions and annotators: pure functions of arrays."""

from fulcra_jax.scoring.bootstrap import cluster_bootstrap as cluster_bootstrap
from fulcra_jax.scoring.bootstrap import confidence_interval as confidence_interval
from fulcra_jax.scoring.bootstrap import sum_by_cluster as sum_by_cluster
from fulcra_jax.scoring.calibration import brier as brier
from fulcra_jax.scoring.calibration import (
    classwise_calibration_error as classwise_calibration_error,
)
from fulcra_jax.scoring.calibration import (
    expected_calibration_error as expected_calibration_error,
)
from fulcra_jax.scoring.calibration import (
    negative_log_likelihood as negative_log_likelihood,
)
from fulcra_jax.scoring.calibration import reliability_curve as reliability_curve
from fulcra_jax.scoring.correlation import auroc as auroc
from fulcra_jax.scoring.correlation import pearson as pearson
from fulcra_jax.scoring.correlation import spearman as spearman
from fulcra_jax.scoring.prediction import accuracy as accuracy
from fulcra_jax.scoring.prediction import classes_from_score as classes_from_score
from fulcra_jax.scoring.prediction import confusion as confusion
from fulcra_jax.scoring.prediction import exact_match as exact_match
from fulcra_jax.scoring.prediction import macro_f1 as macro_f1
from fulcra_jax.scoring.prediction import mean_squared_error as mean_squared_error
from fulcra_jax.scoring.prediction import precision_recall_f1 as precision_recall_f1
from fulcra_jax.scoring.prediction import quadratic_kappa as quadratic_kappa
from fulcra_jax.scoring.prediction import reversal_rate as reversal_rate
