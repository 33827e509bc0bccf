# SPDX-License-Identifier: Apache-2.0
"""Contract calls of the aggregation modules, merged in contract_cases.py."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from contract_arrays import C, Generator, N, ids, probs, where

R = 4


def rated(rng: Generator) -> dict[str, Any]:
    return {
        "ratings": ids(rng, R, N),
        "where": where(rng, R, N),
        "unit_weights": jnp.asarray(rng.uniform(0.5, 2.0, N), jnp.float32),
    }


def clamped(rng: Generator) -> dict[str, Any]:
    # 0 and 1 only: without ratings the result may hold no other number.
    known = np.where(rng.random(N) < 0.2, rng.integers(0, 2, N), -1)
    return {**rated(rng), "clamped": jnp.asarray(known)}


def pseudo_counts(rng: Generator, *shape: int) -> jax.Array:
    return jnp.asarray(rng.uniform(0.5, 2.0, shape), jnp.float32)


def dawid_skene(rng: Generator) -> dict[str, Any]:
    return {**clamped(rng), "pseudo_counts": pseudo_counts(rng, R, C, C)}


def dawid_skene_counts(rng: Generator) -> dict[str, Any]:
    case = dawid_skene(rng)
    del case["ratings"], case["where"]
    return {"counts": jnp.asarray(rng.integers(0, 3, (R, N, C)), jnp.float32), **case}


def mace(rng: Generator) -> dict[str, Any]:
    return {"key": jax.random.key(int(rng.integers(1000))), **rated(rng)}


def mace_from(rng: Generator) -> dict[str, Any]:
    return {
        "trust": jnp.asarray(rng.uniform(0.3, 0.7, R), jnp.float32),
        "spam": probs(rng, R),
        **rated(rng),
    }


CASES: dict[str, Callable[[Generator], dict[str, Any]]] = {
    "aggregation.majority_vote": lambda rng: {
        "ratings": ids(rng, R, N),
        "where": where(rng, R, N),
        "rater_weights": jnp.asarray(rng.uniform(0.5, 2.0, R), jnp.float32),
    },
    "aggregation.wawa": rated,
    "aggregation.collapse_passes": lambda rng: {
        "ratings": ids(rng, R, N),
        "where": where(rng, R, N),
    },
    "aggregation.clamp": lambda rng: {
        "probs": probs(rng, N),
        "known": ids(rng, N) - 1,
    },
    "dawid_skene.dawid_skene": dawid_skene,
    "dawid_skene.dawid_skene_counts": dawid_skene_counts,
    "dawid_skene.one_coin": clamped,
    "glad.glad": rated,
    "mace.mace": mace,
    "mace.mace_from": mace_from,
}

STATIC: dict[str, dict[str, Any]] = {
    "aggregation.majority_vote": {"num_categories": C},
    "aggregation.wawa": {"num_categories": C},
    "aggregation.collapse_passes": {"num_categories": C},
    "dawid_skene.dawid_skene": {
        "num_categories": C,
        "num_iterations": 5,
        "tolerance": 1e-3,
    },
    "dawid_skene.dawid_skene_counts": {"num_iterations": 5},
    "dawid_skene.one_coin": {"num_categories": C, "num_iterations": 5},
    "glad.glad": {"num_categories": C, "num_iterations": 3},
    "mace.mace": {"num_categories": C, "num_restarts": 3, "num_iterations": 5},
    "mace.mace_from": {"num_categories": C, "num_iterations": 5, "method": "em"},
}

HOST: set[str] = set()
