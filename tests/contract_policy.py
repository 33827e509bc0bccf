# SPDX-License-Identifier: Apache-2.0
"""Calls of KL, advantages and policy losses; merged in contract_cases.py."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from contract_arrays import Generator, V, ids, score, where

B, T, G, W = 4, 6, 5, 7


def log_probs(rng: Generator) -> dict[str, jax.Array]:
    """Two log-probabilities near each other, as clipping wants them."""
    log_prob = score(rng, B, T) - 1.5
    return {"log_prob": log_prob, "old_log_prob": log_prob + 0.4 * score(rng, B, T)}


def per_token(rng: Generator) -> dict[str, Any]:
    return {
        **log_probs(rng),
        "advantages": score(rng, B, T),
        "where": where(rng, B, T),
    }


def per_answer(rng: Generator) -> dict[str, Any]:
    return {**log_probs(rng), "advantages": score(rng, B), "where": where(rng, B, T)}


def estimate(rng: Generator) -> dict[str, Any]:
    return {
        "log_prob": score(rng, B, T),
        "reference_log_prob": score(rng, B, T),
        "where": where(rng, B, T),
    }


def group(rng: Generator) -> dict[str, Any]:
    return {"rewards": score(rng, B, G), "where": where(rng, B, G)}


CASES: dict[str, Callable[[Generator], dict[str, Any]]] = {
    "kl.kl_estimate": estimate,
    "kl.kl_loss": lambda rng: {
        **estimate(rng),
        "behavior_log_prob": score(rng, B, T),
    },
    "kl.full_kl": lambda rng: {
        "logits": 2.0 * score(rng, B, T, W),
        "reference_logits": 2.0 * score(rng, B, T, W),
        "where": where(rng, B, T),
    },
    "kl.adaptive_kl_coefficient": lambda rng: {
        "coefficient": jnp.abs(score(rng)),
        "kl": 6.0 + score(rng),
    },
    "advantage.token_rewards": lambda rng: {
        "score": score(rng, B),
        "kl": score(rng, B, T),
        "coefficient": jnp.abs(score(rng)),
        "where": where(rng, B, T),
    },
    "advantage.generalized_advantage": lambda rng: {
        "rewards": score(rng, B, T),
        "values": score(rng, B, T),
        "where": where(rng, B, T),
    },
    "advantage.whiten": lambda rng: {
        "x": score(rng, B, T),
        "counts": jnp.asarray(rng.integers(0, 4, (B, T))),
        "where": where(rng, B, T),
    },
    "advantage.reinforce_plus_plus": lambda rng: {
        "rewards": score(rng, B, T),
        "where": where(rng, B, T),
    },
    "advantage.reinforce_plus_plus_baseline": lambda rng: {
        "rewards": score(rng, B, G),
        "where": where(rng, B, G, T),
    },
    "group.group_advantage": group,
    "group.length_weighted_advantage": lambda rng: {
        **group(rng),
        "lengths": jnp.asarray(rng.integers(0, 9, (B, G))),
    },
    "group.gdpo_advantage": lambda rng: {
        "rewards": score(rng, B, G, V),
        "weights": jnp.abs(score(rng, V)),
        "lengths": jnp.asarray(rng.integers(0, 9, (B, G))),
        "where": where(rng, B, G),
    },
    "group.greedy_baseline_advantage": lambda rng: {
        **group(rng),
        "greedy_reward": score(rng, B),
    },
    "policy.token_log_probs": lambda rng: {
        "logits": 2.0 * score(rng, B, T, W),
        "tokens": ids(rng, B, T),
        "where": where(rng, B, T),
    },
    "policy.token_entropy": lambda rng: {
        "logits": 2.0 * score(rng, B, T, W),
        "where": where(rng, B, T),
    },
    "policy.ppo_policy_loss": per_token,
    "policy.clip_fraction": per_token,
    "policy.approximate_kl": lambda rng: {
        **log_probs(rng),
        "where": where(rng, B, T),
    },
    "policy.ppo_value_loss": lambda rng: {
        "values": score(rng, B, T),
        "old_values": score(rng, B, T),
        "returns": score(rng, B, T),
        "where": where(rng, B, T),
    },
    "policy.reinforce_loss": lambda rng: {
        "log_prob": score(rng, B, T),
        "advantages": score(rng, B, T),
        "where": where(rng, B, T),
    },
    "grpo.aggregate_tokens": lambda rng: {
        "x": score(rng, B, T),
        "where": where(rng, B, T),
        "size": jnp.asarray(20.0),
    },
    "grpo.grpo_loss": lambda rng: {
        **per_answer(rng),
        "reference_log_prob": score(rng, B, T) - 1.5,
        "num_tokens": jnp.asarray(40),
    },
    "grpo.rloo_loss": per_answer,
}

STATIC: dict[str, dict[str, Any]] = {
    "kl.kl_estimate": {"kind": "k3"},
    "kl.adaptive_kl_coefficient": {"batch_size": 32},
    "advantage.generalized_advantage": {"discount": 0.97, "decay": 0.9},
    "advantage.whiten": {"center": False},
    "advantage.reinforce_plus_plus": {"discount": 0.97},
    "group.gdpo_advantage": {"whiten": "tokens"},
    "policy.token_log_probs": {"temperature": 0.7},
    "policy.token_entropy": {"temperature": 0.7},
    "policy.ppo_policy_loss": {
        "clip_high": 0.28,
        "dual_clip": 1.1,
        "ratio_threshold": 5.0,
    },
    "policy.clip_fraction": {"clip_high": 0.28},
    "grpo.grpo_loss": {"clip_high": 0.28, "kl_coefficient": 0.3},
}

HOST: set[str] = set()
