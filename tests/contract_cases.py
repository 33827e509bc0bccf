# SPDX-License-Identifier: Apache-2.0
"""One small valid call for every public pure function, by "module.function".

A case is a function of a numpy generator that returns the arrays of one call; two calls
with different generators are compared under `jax.vmap`. `STATIC` holds the arguments
that are no arrays. Leave optional arrays in, so that they are checked too. A file of
cases that has grown goes to a file of its own and is merged at the end.
"""

from collections.abc import Callable
from typing import Any

import contract_aggregation
import contract_agreement
import contract_decisions
import contract_estimation
import contract_policy
import contract_preference
import contract_presence
import contract_reward
import contract_targets
import jax
import jax.numpy as jnp
from contract_arrays import (
    C,
    G,
    Generator,
    N,
    V,
    ids,
    labels,
    probs,
    score,
    weights,
    where,
)


def counts(rng: Generator) -> dict[str, Any]:
    return {"counts": jnp.asarray(rng.integers(1, 20, (C, C)), jnp.float32)}


def probabilities(rng: Generator) -> dict[str, Any]:
    return {"probs": probs(rng, N), "labels": ids(rng, N), "where": where(rng, N)}


CASES: dict[str, Callable[[Generator], dict[str, Any]]] = {
    "significance.benjamini_hochberg": lambda rng: {
        "p": jnp.asarray(rng.uniform(size=N), jnp.float32),
        "where": where(rng, N),
    },
    "prediction.classes_from_score": lambda rng: {"score": score(rng, N, V)},
    "prediction.confusion": lambda rng: {
        "predicted": ids(rng, N),
        "labels": ids(rng, N),
        "where": where(rng, N),
    },
    "prediction.precision_recall_f1": counts,
    "prediction.accuracy": counts,
    "prediction.macro_f1": counts,
    "prediction.quadratic_kappa": counts,
    "prediction.reversal_rate": counts,
    "prediction.exact_match": lambda rng: {
        "predicted": ids(rng, N, V) // 2,
        "labels": ids(rng, N, V) // 2,
        "where": where(rng, N, V),
    },
    "prediction.mean_squared_error": lambda rng: {
        "score": score(rng, N),
        "labels": labels(rng, N),
        "where": where(rng, N),
    },
    "correlation.pearson": lambda rng: {
        "x": score(rng, N),
        "y": labels(rng, N),
        "where": where(rng, N),
    },
    "correlation.spearman": lambda rng: {
        "x": score(rng, N),
        "y": labels(rng, N),
        "where": where(rng, N),
    },
    "correlation.auroc": lambda rng: {
        "score": score(rng, N),
        "positive": ids(rng, N) == 2,
        "where": where(rng, N),
    },
    "calibration.reliability_curve": lambda rng: {
        "confidence": jnp.abs(score(rng, N)),
        "correct": ids(rng, N) == 2,
        "where": where(rng, N),
    },
    "calibration.expected_calibration_error": probabilities,
    "calibration.classwise_calibration_error": probabilities,
    "calibration.brier": probabilities,
    "calibration.negative_log_likelihood": probabilities,
    "resampling.sum_by_cluster": lambda rng: {
        "values": score(rng, N, V),
        "cluster": jnp.asarray(rng.integers(-1, G, N)),
    },
    "resampling.cluster_bootstrap": lambda rng: {
        "key": jax.random.key(int(rng.integers(1000))),
        "totals": jnp.asarray(rng.uniform(1.0, 5.0, (G, 2)), jnp.float32),
    },
    "resampling.confidence_interval": lambda rng: {"samples": score(rng, 40, V)},
    "evaluator.ternary_cross_entropy": lambda rng: {
        "logits": 3.0 * score(rng, N, V, 3),
        "labels": score(rng, N, V),
        "class_weights": weights(rng),
        "where": where(rng, N, V),
    },
    "evaluator.tanh_mse": lambda rng: {
        "logits": 3.0 * score(rng, N, V),
        "labels": labels(rng, N, V),
        "class_weights": weights(rng),
        "where": where(rng, N, V),
    },
    "evaluator.sqrt_class_weights": lambda rng: {
        "labels": score(rng, N, V),
        "where": where(rng, N, V),
    },
    "evaluator.balanced_class_weights": lambda rng: {
        "labels": score(rng, N, V),
        "where": where(rng, N, V),
    },
    "ordinal.ordinal_log_probs": lambda rng: {"logits": 3.0 * score(rng, N, V, 2)},
    "ordinal.ordinal_loss": lambda rng: {
        "logits": 3.0 * score(rng, N, V, 2),
        "labels": score(rng, N, V),
        "class_weights": weights(rng),
        "where": where(rng, N, V),
    },
    "focal.focal_loss": lambda rng: {
        "logits": 3.0 * score(rng, N, V, 3),
        "labels": score(rng, N, V),
        "class_weights": weights(rng),
        "where": where(rng, N, V),
    },
    "presence.presence_loss": lambda rng: {
        "logits": 3.0 * score(rng, N, V),
        "labels": jnp.abs(score(rng, N, V)),
        "positive_weight": weights(rng),
        "where": where(rng, N, V),
    },
    "distillation.distillation_loss": lambda rng: {
        "log_probs": jnp.log(probs(rng, N, V)),
        "teacher": score(rng, N, V),
        "where": where(rng, N, V),
    },
    "circumplex.circumplex_penalty": lambda rng: {
        "score": score(rng, N, 6),
        "angles": jnp.asarray(rng.permutation(6), jnp.float32),
        "where": where(rng, N, 6),
    },
    "reduce.masked_total": lambda rng: {
        "x": score(rng, N, V),
        "where": where(rng, N, V),
    },
    "reduce.masked_mean": lambda rng: {
        "x": score(rng, N, V),
        "where": where(rng, N, V),
    },
}

STATIC: dict[str, dict[str, Any]] = {
    "prediction.classes_from_score": {"cut": 0.3},
    "prediction.confusion": {"num_classes": C},
    "calibration.reliability_curve": {"num_bins": 5},
    "resampling.sum_by_cluster": {"num_clusters": G},
    "resampling.cluster_bootstrap": {
        "statistic": lambda total: total[0] / total[1],
        "num_resamples": 20,
        "batch_size": 10,
    },
    "evaluator.ternary_cross_entropy": {"label_smoothing": 0.1},
    "ordinal.ordinal_loss": {"label_smoothing": 0.1},
    "focal.focal_loss": {"gamma": 1.5, "label_smoothing": 0.1},
    "distillation.distillation_loss": {"kind": "soft"},
}

HOST: set[str] = set()
"""Functions of names, static sizes or shapes that depend on data: not traceable."""

TABLES = {"patterns.pattern_table", "multiobjective.dual_step"}
"""Functions that return a table or a state: it is there without data."""

for part in (
    contract_aggregation,
    contract_agreement,
    contract_decisions,
    contract_estimation,
    contract_policy,
    contract_preference,
    contract_presence,
    contract_reward,
    contract_targets,
):
    CASES |= part.CASES
    STATIC |= part.STATIC
    HOST |= part.HOST
