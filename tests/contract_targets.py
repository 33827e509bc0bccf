# SPDX-License-Identifier: Apache-2.0
"""Calls of the alignment targets; merged in contract_cases.py."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from contract_arrays import Generator, N, V, score, where

M, ITEMS = 5, 21

TABLE = np.zeros((ITEMS, V), np.int8)
TABLE[np.arange(ITEMS - 1), np.arange(ITEMS - 1) % V] = 1  # The last is of no value.


def answers(rng: Generator, items: int) -> jax.Array:
    """Halves among them: an answer may be the mean of several."""
    return jnp.asarray(rng.integers(2, 13, (N, items)) / 2, jnp.float32)


def group(items: int) -> Callable[[Generator], dict[str, Any]]:
    return lambda rng: {
        "responses": answers(rng, items),
        "weights": jnp.asarray(rng.uniform(0.2, 2.0, N), jnp.float32),
        "where": where(rng, N, items),
    }


CASES: dict[str, Callable[[Generator], dict[str, Any]]] = {
    "questionnaires.item_scores": lambda rng: {
        "responses": answers(rng, ITEMS),
        "where": where(rng, N, ITEMS),
    },
    "questionnaires.valid_respondents": lambda rng: {
        "responses": jnp.asarray(rng.integers(1, 7, (N, ITEMS))),
        "where": where(rng, N, ITEMS),
    },
    "questionnaires.from_pvq21": group(21),
    "questionnaires.from_pvq40": group(40),
    "questionnaires.from_pvq_rr": group(57),
    "profile.from_profile": lambda rng: {"profile": 10.0 * score(rng, N, V)},
    "profile.from_responses": lambda rng: {
        "scores": score(rng, N, V),
        "weights": jnp.abs(score(rng, N)),
        "where": where(rng, N, V),
    },
    "profile.scale_to_largest": lambda rng: {"target": score(rng, N, V)},
    "importance.interpolate": lambda rng: {
        "start": score(rng, V),
        "end": score(rng, V),
        "share": jnp.abs(score(rng)),
    },
    "importance.blend": lambda rng: {
        "targets": score(rng, M, V),
        "weights": jnp.abs(score(rng, M)),
        "where": where(rng, M, V),
    },
    "importance.value_ranks": lambda rng: {
        "priorities": score(rng, N, V),
        "where": where(rng, N, V),
    },
    "importance.importance_weights": lambda rng: {
        "priorities": score(rng, N, V),
        "where": where(rng, N, V),
    },
}

STATIC: dict[str, dict[str, Any]] = {
    "questionnaires.item_scores": {"table": TABLE, "center": True},
    "questionnaires.valid_respondents": {"max_same": 5},
    "questionnaires.from_pvq21": {"center": True, "max_missing": 8, "max_same": None},
    "profile.from_profile": {"low": -10.0, "high": 10.0},
    "profile.from_responses": {"scale": "largest"},
    "importance.importance_weights": {"kind": "softmax"},
}

HOST: set[str] = {
    "explicit.target",
    "explicit.parse_target",
    "ess.from_ess",
    "check.check_target",
    "control.control_target",
}
