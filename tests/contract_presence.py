# SPDX-License-Identifier: Apache-2.0
"""Calls of the functions of `scoring.presence`; see contract_cases."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from contract_arrays import Generator, N, V, where


def flags(rng: Generator) -> jax.Array:
    return jnp.asarray(rng.random((N, V)) < 0.4)


def counts(rng: Generator) -> dict[str, Any]:
    hits = rng.integers(1, 9, (V, 1))
    return {
        "counts": jnp.asarray(hits + [[0, 2, 5]] * rng.integers(1, 5, (V, 1)), "f4")
    }


def table(rng: Generator) -> dict[str, Any]:
    return {
        "probs": jnp.asarray(rng.uniform(size=(N, V)), jnp.float32),
        "labels": flags(rng),
        "where": where(rng, N, V),
    }


CASES: dict[str, Callable[[Generator], dict[str, Any]]] = {
    "presence.presence_counts": lambda rng: {
        "predicted": flags(rng),
        "labels": flags(rng),
        "where": where(rng, N, V),
    },
    "presence.presence_scores": counts,
    "presence.macro_scores": counts,
    "presence.fit_threshold": table,
    "presence.fit_thresholds": table,
}

STATIC: dict[str, dict[str, Any]] = {
    "presence.fit_threshold": {"steps": 21},
    "presence.fit_thresholds": {"steps": 21},
}

HOST: set[str] = set()
