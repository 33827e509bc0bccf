# SPDX-License-Identifier: Apache-2.0
"""Calls of resampling, intervals and estimation; merged in contract_cases.py."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from contract_arrays import Generator, N, V, ids, score, where

R, P, S = 4, 8, 20


def key(rng: Generator) -> jax.Array:
    return jax.random.key(int(rng.integers(1000)))


def pilot(rng: Generator) -> dict[str, Any]:
    """Labels that the predictions explain in part."""
    predictions = score(rng, N)
    return {
        "labels": predictions + 0.5 * score(rng, N),
        "predictions": predictions,
        "where": where(rng, N),
    }


def ppi(rng: Generator) -> dict[str, Any]:
    predictions = score(rng, N, V)
    return {
        "labels": predictions + 0.5 * score(rng, N, V),
        "predictions_labelled": predictions,
        "predictions_unlabelled": score(rng, 40, V),
        "where": where(rng, N, V),
        "where_unlabelled": where(rng, 40),
    }


CASES: dict[str, Callable[[Generator], dict[str, Any]]] = {
    "resampling.bootstrap": lambda rng: {
        "key": key(rng),
        "cluster": jnp.asarray(rng.integers(-1, P, N)),
    },
    "resampling.resample_counts": lambda rng: {
        "key": key(rng),
        "counts": jnp.asarray(rng.integers(0, 6, P), jnp.float32),
    },
    "intervals.jackknife": lambda rng: {
        "unit_weights": jnp.asarray(rng.integers(0, 4, P), jnp.float32)
    },
    "intervals.jackknife_raters": lambda rng: {"where": where(rng, R, N)},
    "intervals.bca_interval": lambda rng: {
        "samples": score(rng, 40, V),
        "estimate": 0.1 * score(rng, V),
        "jackknife_values": score(rng, N, V),
        "jackknife_weights": jnp.asarray(rng.integers(0, 4, N), jnp.float32),
    },
    "estimation.ppi_mean": ppi,
    "estimation.dsl_mean": lambda rng: {
        "labels": score(rng, N, V),
        "predictions": score(rng, N, V),
        "probability": jnp.asarray(rng.uniform(0.3, 0.9, N), jnp.float32),
        "labelled": jnp.asarray(rng.random(N) < 0.6),
        "where": where(rng, N),
    },
    "risk.risk_coverage": lambda rng: {
        "correct": ids(rng, N) > 0,
        "share": jnp.abs(score(rng, N)),
        "thresholds": jnp.asarray([0.3, 0.6, 0.9], jnp.float32),
        "where": where(rng, N),
    },
    "power.labels_needed": pilot,
    "alt_test.alt_test": lambda rng: {
        "llm": ids(rng, N),
        "humans": ids(rng, R, N),
        "where": where(rng, R, N),
        "llm_where": where(rng, N),
    },
}

STATIC: dict[str, dict[str, Any]] = {
    "resampling.bootstrap": {
        "statistic": lambda w: (w * jnp.arange(N)).sum() / jnp.maximum(w.sum(), 1.0),
        "num_units": N,
        "num_clusters": P,
        "num_resamples": S,
        "batch_size": 10,
    },
    "resampling.resample_counts": {"num_resamples": S},
    "intervals.jackknife": {
        "statistic": lambda w: (w * jnp.arange(P)).sum() / jnp.maximum(w.sum(), 1.0),
        "batch_size": 3,
    },
    "intervals.jackknife_raters": {
        "statistic": lambda where: (where * jnp.arange(N)[None]).sum() / where.sum(),
    },
    "power.labels_needed": {"num_items": 500, "half_width": 0.08},
}

HOST: set[str] = set()
