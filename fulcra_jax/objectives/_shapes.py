# SPDX-License-Identifier: Apache-2.0
"""What the distances and rewards of value vectors do first."""

import jax
import jax.numpy as jnp

from fulcra_jax import _check


def score_and_target(
    caller: str,
    score: jax.Array,
    target: jax.Array,
    weights: jax.Array | None,
    where: jax.Array | None,
) -> None:
    """Raises unless the target is `[V]` or of the score's shape, and the rest fits."""
    _check.shapes(
        caller, score=(score, "... V"), target=(target, "... V"), weights=(weights, "V")
    )
    if target.ndim > 1 and target.shape != score.shape:
        raise ValueError(
            f"{caller}: target has shape {target.shape}; expected [V] or the shape of "
            f"score, {score.shape}."
        )
    if where is not None and tuple(where.shape) != tuple(score.shape):
        raise ValueError(
            f"{caller}: where has shape {where.shape}; expected that of score, "
            f"{score.shape}."
        )


def prepared(
    score: jax.Array, target: jax.Array, where: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Score and target `[..., V]` in the work dtype, 0 where masked, and the mask."""
    score, target = jnp.asarray(score), jnp.asarray(target)
    dtype = jnp.promote_types(jnp.promote_types(score.dtype, target.dtype), jnp.float32)
    present = jnp.ones(score.shape, bool)
    if where is not None:
        present = jnp.asarray(where, bool)
    score = jnp.where(present, score.astype(dtype), 0.0)
    target = jnp.broadcast_to(target.astype(dtype), score.shape)
    return score, jnp.where(present, target, 0.0), present
