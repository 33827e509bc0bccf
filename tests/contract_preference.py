# SPDX-License-Identifier: Apache-2.0
"""Calls of preferences, objectives of many values, best-of-n and soft tokens.

Merged in contract_cases.py.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from contract_arrays import Generator, N, V, score, where

B, T, W, X, D = 6, 5, 7, 4, 3


def log_probs(rng: Generator, *shape: int) -> jax.Array:
    return jnp.asarray(-rng.uniform(0.2, 6.0, shape), jnp.float32)


def lengths(rng: Generator) -> jax.Array:
    return jnp.asarray(rng.integers(1, 9, B))


def labels(rng: Generator) -> jax.Array:
    return jnp.asarray(rng.random(B), jnp.float32)


def present(rng: Generator, *shape: int) -> jax.Array:
    """A mask with at least one entry of each kind."""
    return where(rng, *shape).at[..., 0].set(False).at[..., 1].set(True)


def mean_pair(rng: Generator) -> dict[str, Any]:
    return {
        "chosen": log_probs(rng, B),
        "rejected": log_probs(rng, B),
        "where": present(rng, B),
    }


def pair(rng: Generator) -> dict[str, Any]:
    return {
        **mean_pair(rng),
        "reference_chosen": log_probs(rng, B),
        "reference_rejected": log_probs(rng, B),
    }


def answers(rng: Generator) -> dict[str, Any]:
    return {
        "log_prob": log_probs(rng, B),
        "reference_log_prob": log_probs(rng, B),
        "where": present(rng, B),
    }


def costs(rng: Generator) -> dict[str, Any]:
    return {
        "costs": jnp.abs(score(rng, B, V)),
        "multipliers": jnp.abs(score(rng, V)),
        "limits": jnp.abs(score(rng, V)),
    }


def gram(rng: Generator) -> jax.Array:
    gradients = rng.normal(size=(V, 5))
    return jnp.asarray(gradients @ gradients.T, jnp.float32)


def tree(rng: Generator) -> dict[str, Any]:
    return {"kernel": score(rng, 2, 3), "bias": score(rng, 3)}


CASES: dict[str, Callable[[Generator], dict[str, Any]]] = {
    "preference.sequence_log_prob": lambda rng: {
        "token_log_prob": log_probs(rng, B, T),
        "where": present(rng, B, T),
    },
    "preference.dpo_rewards": pair,
    "preference.dpo_loss": lambda rng: {**pair(rng), "labels": labels(rng)},
    "preference.ipo_loss": lambda rng: {
        **pair(rng),
        "chosen_lengths": lengths(rng),
        "rejected_lengths": lengths(rng),
    },
    "preference.slic_loss": pair,
    "preference.robust_dpo_loss": pair,
    "preference.modpo_loss": lambda rng: {
        **pair(rng),
        "margins": score(rng, B, V),
        "weights": jnp.asarray(rng.dirichlet(jnp.ones(V + 1))[:V], jnp.float32),
    },
    "odds.simpo_loss": mean_pair,
    "odds.orpo_loss": mean_pair,
    "anchored.kto_anchor": answers,
    "anchored.kto_loss": lambda rng: {
        **answers(rng),
        "desirable": jnp.asarray(rng.random(B) < 0.5),
        "anchor": jnp.abs(score(rng)),
    },
    "anchored.apo_zero_loss": pair,
    "anchored.sppo_loss": lambda rng: {**pair(rng), "labels": labels(rng)},
    "pairs.preference_labels": lambda rng: {
        "chosen_distance": jnp.abs(score(rng, B)),
        "rejected_distance": jnp.abs(score(rng, B)),
    },
    "pairs.value_pairs": lambda rng: {
        "distances": jnp.abs(score(rng, B, N)),
        "where": where(rng, B, N),
    },
    "multiobjective.target_weights": lambda rng: {"target": score(rng, V)},
    "multiobjective.scalarize": lambda rng: {
        "rewards": -jnp.abs(score(rng, B, V)),
        "weights": labels(rng)[:V],
    },
    "multiobjective.direction_reward": lambda rng: {
        "score": score(rng, B, V),
        "target": score(rng, V),
    },
    "multiobjective.chebyshev_reward": lambda rng: {
        "score": score(rng, B, V),
        "target": score(rng, V),
        "weights": labels(rng)[:V],
    },
    "multiobjective.lagrangian_reward": lambda rng: {
        "reward": score(rng, B),
        **costs(rng),
    },
    "multiobjective.dual_step": lambda rng: {**costs(rng), "where": present(rng, B)},
    "multiobjective.min_norm_weights": lambda rng: {"gram": gram(rng)},
    "multiobjective.rewarded_soup": lambda rng: {
        "parameters": [tree(rng), tree(rng)],
        "weights": jnp.asarray(rng.dirichlet([1.0, 1.0]), jnp.float32),
    },
    "best_of_n.best_of_n": lambda rng: {
        "rewards": score(rng, B, N),
        "where": where(rng, B, N),
    },
    "best_of_n.expected_best_of_n": lambda rng: {
        "rewards": score(rng, B, N),
        "n": jnp.asarray(rng.integers(1, 5, B)),
        "where": where(rng, B, N),
    },
    "best_of_n.best_of_n_kl_bound": lambda rng: {
        "n": 1.0 + 9.0 * jnp.abs(score(rng, B))
    },
    "best_of_n.soft_best_of_n": lambda rng: {
        "rewards": score(rng, B, N),
        "where": where(rng, B, N),
    },
    "soft_tokens.gumbel_softmax": lambda rng: {
        "key": jax.random.key(int(rng.integers(1000))),
        "logits": score(rng, B, T, W),
        "where": present(rng, B, T),
    },
    "soft_tokens.soft_embeddings": lambda rng: {
        "soft": labels(rng)[:, None, None] * jnp.abs(score(rng, B, T, W)),
        "embedding": score(rng, X, D),
        "vocabulary": jnp.asarray(rng.integers(-1, X, W)),
    },
    "soft_tokens.value_matching_loss": lambda rng: {
        "score": score(rng, B, V),
        "target": score(rng, B, V),
        "kl": jnp.abs(score(rng, B)),
        "weights": labels(rng)[:V],
        "where": present(rng, B),
    },
}

STATIC: dict[str, dict[str, Any]] = {
    "preference.sequence_log_prob": {"average": True},
    "preference.robust_dpo_loss": {"label_smoothing": 0.2},
    "pairs.preference_labels": {"temperature": 0.5},
    "pairs.value_pairs": {"margin": 0.1},
    "multiobjective.chebyshev_reward": {"augmentation": 0.1, "sharpness": 5.0},
    "multiobjective.dual_step": {"step_size": 0.1},
    "best_of_n.soft_best_of_n": {"temperature": 0.5},
    "soft_tokens.gumbel_softmax": {"temperature": 0.7},
    "soft_tokens.value_matching_loss": {"coefficient": 0.1, "kind": "l1"},
}

HOST: set[str] = {"best_of_n.n_of_kl_bound"}
