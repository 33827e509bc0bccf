# SPDX-License-Identifier: Apache-2.0
"""What the losses over the classes -1, 0, +1 have in common."""

import jax
import jax.numpy as jnp

EDGE = 1e-3
"""How far rounding may take the mean of several labels out of [-1, 1]."""


def work(x: jax.Array) -> jax.Array:
    """In the work dtype: its own, at least float32."""
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def axes(labels: jax.Array) -> str:
    """The letters of any number of axes, for `_check.shapes`."""
    return " ".join(f"A{i}" for i in range(labels.ndim))


def present(where: jax.Array | None, like: jax.Array) -> jax.Array:
    """`where` as bool, all True for None."""
    return jnp.ones(like.shape, bool) if where is None else jnp.asarray(where, bool)


def inside(labels: jax.Array, low: float = -1.0) -> jax.Array:
    """Labels in [low, 1], NaN for others."""
    near = (labels >= low - EDGE) & (labels <= 1.0 + EDGE)
    return jnp.where(near, jnp.clip(labels, low, 1.0), jnp.nan)


def soft_target(labels: jax.Array) -> jax.Array:
    """`[..., 3]` of labels `[...]`; NaN outside [-1, 1] but for rounding of a mean."""
    y = inside(labels)
    return jnp.stack([jnp.maximum(-y, 0.0), 1.0 - jnp.abs(y), jnp.maximum(y, 0.0)], -1)


def weighted_target(
    labels: jax.Array,
    where: jax.Array,
    dtype: jnp.dtype,
    class_weights: jax.Array | None,
    label_smoothing: float,
) -> jax.Array:
    """`[..., 3]`: w_c ((1 - eps) t_c + eps / 3); of the label 0 where masked."""
    target = soft_target(jnp.where(where, labels, 0).astype(dtype))
    target = (1.0 - label_smoothing) * target + label_smoothing / 3.0
    if class_weights is not None:
        weights = jnp.asarray(class_weights, dtype)
        target *= jnp.broadcast_to(weights, target.shape)
    return target
