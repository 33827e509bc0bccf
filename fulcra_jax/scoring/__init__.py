# SPDX-License-Identifier: Apache-2.0
"""Scores of predictions and annotators: pure functions of arrays."""

from fulcra_jax.scoring.aggregation import PseudoAnnotator as PseudoAnnotator
from fulcra_jax.scoring.aggregation import Vote as Vote
from fulcra_jax.scoring.aggregation import VoteReason as VoteReason
from fulcra_jax.scoring.aggregation import Wawa as Wawa
from fulcra_jax.scoring.aggregation import clamp as clamp
from fulcra_jax.scoring.aggregation import collapse_passes as collapse_passes
from fulcra_jax.scoring.aggregation import majority_vote as majority_vote
from fulcra_jax.scoring.aggregation import wawa as wawa
from fulcra_jax.scoring.agreement import brennan_prediger as brennan_prediger
from fulcra_jax.scoring.agreement import gwet_ac1 as gwet_ac1
from fulcra_jax.scoring.agreement import gwet_ac2 as gwet_ac2
from fulcra_jax.scoring.agreement import percent_agreement as percent_agreement
from fulcra_jax.scoring.alpha import alpha_of_coincidences as alpha_of_coincidences
from fulcra_jax.scoring.alpha import krippendorff_alpha as krippendorff_alpha
from fulcra_jax.scoring.alpha import ordinal_distance as ordinal_distance
from fulcra_jax.scoring.alt_test import AltTest as AltTest
from fulcra_jax.scoring.alt_test import alt_test as alt_test
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
from fulcra_jax.scoring.categories import category_weights as category_weights
from fulcra_jax.scoring.categories import level_distance as level_distance
from fulcra_jax.scoring.class_bias import biased_classes as biased_classes
from fulcra_jax.scoring.class_bias import fit_class_bias as fit_class_bias
from fulcra_jax.scoring.conformal import conformal_quantiles as conformal_quantiles
from fulcra_jax.scoring.conformal import conformal_sets as conformal_sets
from fulcra_jax.scoring.consistency import ConsistencySummary as ConsistencySummary
from fulcra_jax.scoring.consistency import consistency_summary as consistency_summary
from fulcra_jax.scoring.consistency import label_entropy as label_entropy
from fulcra_jax.scoring.consistency import majority_margin as majority_margin
from fulcra_jax.scoring.consistency import majority_share as majority_share
from fulcra_jax.scoring.consistency import pair_agreement as pair_agreement
from fulcra_jax.scoring.consistency import pass_consistency as pass_consistency
from fulcra_jax.scoring.consistency import set_consistency as set_consistency
from fulcra_jax.scoring.correlation import auroc as auroc
from fulcra_jax.scoring.correlation import pearson as pearson
from fulcra_jax.scoring.correlation import spearman as spearman
from fulcra_jax.scoring.dawid_skene import DawidSkene as DawidSkene
from fulcra_jax.scoring.dawid_skene import dawid_skene as dawid_skene
from fulcra_jax.scoring.dawid_skene import dawid_skene_counts as dawid_skene_counts
from fulcra_jax.scoring.dawid_skene import one_coin as one_coin
from fulcra_jax.scoring.estimation import Estimate as Estimate
from fulcra_jax.scoring.estimation import dsl_mean as dsl_mean
from fulcra_jax.scoring.estimation import ppi_mean as ppi_mean
from fulcra_jax.scoring.fusion import fit_log_pool as fit_log_pool
from fulcra_jax.scoring.fusion import log_pool as log_pool
from fulcra_jax.scoring.glad import Glad as Glad
from fulcra_jax.scoring.glad import glad as glad
from fulcra_jax.scoring.icc import Icc as Icc
from fulcra_jax.scoring.icc import icc as icc
from fulcra_jax.scoring.icc import icc_interval as icc_interval
from fulcra_jax.scoring.intervals import Jackknife as Jackknife
from fulcra_jax.scoring.intervals import bca_interval as bca_interval
from fulcra_jax.scoring.intervals import jackknife as jackknife
from fulcra_jax.scoring.intervals import jackknife_raters as jackknife_raters
from fulcra_jax.scoring.kappa import cohen_kappa as cohen_kappa
from fulcra_jax.scoring.kappa import conger_kappa as conger_kappa
from fulcra_jax.scoring.kappa import fleiss_kappa as fleiss_kappa
from fulcra_jax.scoring.kappa import (
    fleiss_kappa_by_category as fleiss_kappa_by_category,
)
from fulcra_jax.scoring.kappa import light_kappa as light_kappa
from fulcra_jax.scoring.kappa import pairwise_kappa as pairwise_kappa
from fulcra_jax.scoring.kappa import scott_pi as scott_pi
from fulcra_jax.scoring.mace import Mace as Mace
from fulcra_jax.scoring.mace import mace as mace
from fulcra_jax.scoring.mace import mace_from as mace_from
from fulcra_jax.scoring.patterns import PatternTable as PatternTable
from fulcra_jax.scoring.patterns import pattern_table as pattern_table
from fulcra_jax.scoring.patterns import ratings_of_counts as ratings_of_counts
from fulcra_jax.scoring.patterns import ratings_of_labels as ratings_of_labels
from fulcra_jax.scoring.patterns import ratings_of_table as ratings_of_table
from fulcra_jax.scoring.power import LabelsNeeded as LabelsNeeded
from fulcra_jax.scoring.power import labels_needed as labels_needed
from fulcra_jax.scoring.prediction import accuracy as accuracy
from fulcra_jax.scoring.prediction import classes_from_score as classes_from_score
from fulcra_jax.scoring.prediction import confusion as confusion
from fulcra_jax.scoring.prediction import exact_match as exact_match
from fulcra_jax.scoring.prediction import macro_f1 as macro_f1
from fulcra_jax.scoring.prediction import mean_squared_error as mean_squared_error
from fulcra_jax.scoring.prediction import precision_recall_f1 as precision_recall_f1
from fulcra_jax.scoring.prediction import quadratic_kappa as quadratic_kappa
from fulcra_jax.scoring.prediction import reversal_rate as reversal_rate
from fulcra_jax.scoring.presence import MacroScores as MacroScores
from fulcra_jax.scoring.presence import PresenceScores as PresenceScores
from fulcra_jax.scoring.presence import fit_threshold as fit_threshold
from fulcra_jax.scoring.presence import fit_thresholds as fit_thresholds
from fulcra_jax.scoring.presence import macro_scores as macro_scores
from fulcra_jax.scoring.presence import presence_counts as presence_counts
from fulcra_jax.scoring.presence import presence_scores as presence_scores
from fulcra_jax.scoring.reasons import Reason as Reason
from fulcra_jax.scoring.reasons import reason_text as reason_text
from fulcra_jax.scoring.resampling import Interval as Interval
from fulcra_jax.scoring.resampling import bootstrap as bootstrap
from fulcra_jax.scoring.resampling import cluster_bootstrap as cluster_bootstrap
from fulcra_jax.scoring.resampling import confidence_interval as confidence_interval
from fulcra_jax.scoring.resampling import resample_counts as resample_counts
from fulcra_jax.scoring.resampling import sum_by_cluster as sum_by_cluster
from fulcra_jax.scoring.review import AuditSample as AuditSample
from fulcra_jax.scoring.review import audit_probability as audit_probability
from fulcra_jax.scoring.review import audit_sample as audit_sample
from fulcra_jax.scoring.review import needs_review as needs_review
from fulcra_jax.scoring.review import poisson_sample as poisson_sample
from fulcra_jax.scoring.risk import RiskCoverage as RiskCoverage
from fulcra_jax.scoring.risk import risk_coverage as risk_coverage
from fulcra_jax.scoring.sets import set_alpha as set_alpha
from fulcra_jax.scoring.sets import set_distance as set_distance
from fulcra_jax.scoring.sets import signed_sets as signed_sets
from fulcra_jax.scoring.significance import benjamini_hochberg as benjamini_hochberg
from fulcra_jax.scoring.standard_errors import Agreement as Agreement
from fulcra_jax.scoring.standard_errors import agreement_interval as agreement_interval
from fulcra_jax.scoring.standard_errors import chance_corrected as chance_corrected
from fulcra_jax.scoring.standard_errors import cohen_null_error as cohen_null_error
from fulcra_jax.scoring.standard_errors import fleiss_null_error as fleiss_null_error
from fulcra_jax.scoring.temperature import TemperatureShift as TemperatureShift
from fulcra_jax.scoring.temperature import correct_prior as correct_prior
from fulcra_jax.scoring.temperature import fit_temperature as fit_temperature
from fulcra_jax.scoring.temperature import (
    fit_temperature_shift as fit_temperature_shift,
)
from fulcra_jax.scoring.temperature import log_probs as log_probs
from fulcra_jax.scoring.temperature import score_probs as score_probs
from fulcra_jax.scoring.temperature import shrink as shrink
from fulcra_jax.scoring.temperature import temper as temper
from fulcra_jax.scoring.totals import AgreementTotals as AgreementTotals
from fulcra_jax.scoring.totals import Coefficients as Coefficients
from fulcra_jax.scoring.totals import agreement_coefficients as agreement_coefficients
from fulcra_jax.scoring.totals import agreement_totals as agreement_totals
from fulcra_jax.scoring.totals import coefficients as coefficients
from fulcra_jax.scoring.totals import resampled_coefficients as resampled_coefficients
from fulcra_jax.scoring.totals import unit_totals as unit_totals
from fulcra_jax.scoring.views import mention_view as mention_view
from fulcra_jax.scoring.views import polarity_view as polarity_view
