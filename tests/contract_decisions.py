# SPDX-License-Identifier: Apache-2.0
"""Calls for what turns probabilities into calibrated ones, classes and sets."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from contract_arrays import C, Generator, N, V, ids, probs, score, where


def shares(rng: Generator) -> Any:
    return jnp.asarray(rng.dirichlet([5.0] * C), jnp.float32)


def labelled(rng: Generator) -> dict[str, Any]:
    return {"probs": probs(rng, N), "labels": ids(rng, N), "where": where(rng, N)}


CASES: dict[str, Callable[[Generator], dict[str, Any]]] = {
    "temperature.temper": lambda rng: {
        "probs": probs(rng, N, V),
        "temperature": 1.0 + jnp.abs(score(rng, V)),
        "shift": score(rng, C),
    },
    "temperature.log_probs": lambda rng: {"probs": probs(rng, N)},
    "temperature.fit_temperature": lambda rng: {
        **labelled(rng),
        "shift": score(rng, C),
    },
    "temperature.fit_temperature_shift": labelled,
    "temperature.shrink": lambda rng: {
        "own": score(rng, V, C),
        "shared": score(rng, C),
        "support": jnp.asarray(rng.integers(0, 50, V)),
    },
    "temperature.correct_prior": lambda rng: {
        "probs": probs(rng, N),
        "trained": shares(rng),
        "target": shares(rng),
    },
    "temperature.score_probs": lambda rng: {"score": score(rng, N, V)},
    "class_bias.biased_classes": lambda rng: {
        "probs": probs(rng, N, V),
        "bias": score(rng, V, C),
    },
    "class_bias.fit_class_bias": labelled,
    "fusion.log_pool": lambda rng: {
        "first": probs(rng, N, V),
        "second": probs(rng, N, V),
        "weight": jnp.asarray(rng.random(), jnp.float32),
    },
    "fusion.fit_log_pool": lambda rng: {
        "first": probs(rng, N),
        "second": probs(rng, N),
        "labels": ids(rng, N),
        "where": where(rng, N),
    },
    "conformal.conformal_quantiles": labelled,
    "conformal.conformal_sets": lambda rng: {
        "probs": probs(rng, N, V),
        "quantiles": jnp.abs(score(rng, C)),
    },
}

STATIC: dict[str, dict[str, Any]] = {
    "class_bias.fit_class_bias": {"steps": 5, "smooth": 1},
    "conformal.conformal_quantiles": {"alpha": 0.3},
}

HOST: set[str] = set()
