# SPDX-License-Identifier: Apache-2.0
"""Random arrays of the calls in the contract_*.py files."""

import jax
import jax.numpy as jnp
import numpy as np

N, V, C, G = 24, 3, 3, 6

Generator = np.random.Generator


def ids(rng: Generator, *shape: int) -> jax.Array:
    return jnp.asarray(rng.integers(0, C, shape))


def labels(rng: Generator, *shape: int) -> jax.Array:
    return ids(rng, *shape) - 1


def score(rng: Generator, *shape: int) -> jax.Array:
    return jnp.asarray(rng.uniform(-1.0, 1.0, shape), jnp.float32)


def probs(rng: Generator, *shape: int) -> jax.Array:
    return jnp.asarray(rng.dirichlet(np.ones(C), shape), jnp.float32)


def where(rng: Generator, *shape: int) -> jax.Array:
    return jnp.asarray(rng.random(shape) < 0.8)


def weights(rng: Generator) -> jax.Array:
    return jnp.asarray(rng.uniform(0.5, 2.0, 3), jnp.float32)
