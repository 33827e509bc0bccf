# SPDX-License-Identifier: Apache-2.0
"""Weighted means over the members of a group, per value."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def floats(x: jax.Array) -> jax.Array:
    """At least float32; the default float for whole numbers."""
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x.astype(jnp.zeros(()).dtype)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def present(like: jax.Array, where: jax.Array | None) -> jax.Array:
    """The mask, True everywhere if there is none."""
    return jnp.ones(like.shape, bool) if where is None else jnp.asarray(where, bool)


def ratio(a: jax.Array, b: jax.Array) -> jax.Array:
    """a / b, NaN with gradient 0 where b is 0."""
    some = b != 0.0
    return jnp.where(some, a / jnp.where(some, b, 1.0), jnp.nan)


def check_weights(caller: str, weights: jax.Array | None) -> None:
    """Raises if a weight that can be read is negative."""
    if weights is None or isinstance(weights, Tracer):
        return
    given = np.asarray(weights, float)
    if (given < 0.0).any():
        raise ValueError(
            f"{caller}: weights holds {given[given < 0.0][0]}; expected none below 0."
        )


def weights_of(
    scores: jax.Array, weights: jax.Array | None, where: jax.Array
) -> jax.Array:
    """`[N, V]` weights, 0 where masked; unread where a whole row is masked."""
    if weights is None:
        return where.astype(scores.dtype)
    given = jnp.where(where.any(1), weights, 0.0).astype(scores.dtype)
    return jnp.where(where, given[:, None], 0.0)


def mean(scores: jax.Array, weights: jax.Array) -> jax.Array:
    """`[V]` means of scores `[N, V]`; weights are 0 where masked, scores finite."""
    return ratio((weights * scores).sum(0), weights.sum(0))


def standard_error(scores: jax.Array, weights: jax.Array) -> jax.Array:
    """`[V]` of the weighted mean, n / (n - 1) corrected; NaN for fewer than two."""
    n = (weights > 0.0).sum(0).astype(scores.dtype)
    total = weights.sum(0)
    middle = jnp.where(total > 0.0, mean(scores, weights), 0.0)
    square = ((weights * (scores - middle[None])) ** 2).sum(0)
    some = square > 0.0
    root = jnp.where(some, jnp.sqrt(jnp.where(some, square, 1.0)), square)
    bessel = jnp.sqrt(jnp.where(n > 1.0, n / jnp.maximum(n - 1.0, 1.0), jnp.nan))
    return jnp.where(n > 1.0, ratio(root, total) * bessel, jnp.nan)


def effective_size(weights: jax.Array) -> jax.Array:
    """`[V]` (sum w)^2 / sum w^2, Kish's effective number; 0 without an entry."""
    square = (weights * weights).sum(0)
    return jnp.where(square > 0.0, ratio(weights.sum(0) ** 2, square), square)


def largest(t: jax.Array) -> jax.Array:
    """`[..., 1]`: the largest |t_k| that is known, 1 if that is 0."""
    size = jnp.where(jnp.isnan(t), 0.0, jnp.abs(t)).max(-1, keepdims=True)
    return jnp.where(size > 0.0, size, 1.0)
