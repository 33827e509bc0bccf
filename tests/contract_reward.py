# SPDX-License-Identifier: Apache-2.0
"""Calls of distances, rewards and moments; merged in contract_cases.py."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from contract_arrays import Generator, N, V, score, weights, where

from fulcra_jax.objectives.moments import RunningMoments


def answers(rng: Generator) -> dict[str, Any]:
    return {
        "score": score(rng, N, V),
        "target": score(rng, N, V),
        "where": where(rng, N, V),
    }


def moments(rng: Generator) -> dict[str, Any]:
    """Of zeros and ones only: a batch in which nothing counts leaves them as they are.

    test_reward.py goes on from other moments.
    """
    zero, one = jnp.zeros((), jnp.float32), jnp.ones((), jnp.float32)
    return {
        "state": RunningMoments(zero, one, one),
        "x": score(rng, N),
        "where": where(rng, N),
    }


CASES: dict[str, Callable[[Generator], dict[str, Any]]] = {
    "distance.value_distance": lambda rng: {**answers(rng), "weights": weights(rng)},
    "distance.value_gaps": lambda rng: {**answers(rng), "weights": weights(rng)},
    "reward.baselign_reward": answers,
    "reward.reward_per_value": answers,
    "reward.relative_reward": lambda rng: {
        **answers(rng),
        "reference_score": score(rng, N, V),
    },
    "reward.guard_reward": lambda rng: {
        "reward": score(rng, N).at[3].set(jnp.nan),
        "worst": jnp.abs(score(rng, N)) - 4.0,
        "where": where(rng, N),
    },
    "reward.worst_reward": lambda rng: {"target": score(rng, N, V)},
    "moments.update_moments": moments,
    "moments.scale_scores": lambda rng: {
        "x": score(rng, N),
        "state": RunningMoments(
            *jnp.asarray(rng.uniform((-1, 0.5, 3), (1, 2, 9)), jnp.float32)
        ),
    },
}

STATIC: dict[str, dict[str, Any]] = {
    "distance.value_distance": {"kind": "l2", "center": True},
    "distance.value_gaps": {"kind": "huber", "gate": "official", "softness": 0.2},
}

HOST: set[str] = {"distance.circumplex_similarity", "moments.initial_moments"}
