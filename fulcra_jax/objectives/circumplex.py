# SPDX-License-Identifier: Apache-2.0
"""A regulariser from the circle of values: neighbours go together."""

import jax
import jax.numpy as jnp

from fulcra_jax import _check
from fulcra_jax.objectives._classes import present, work

DEPENDENT = 1e-6
"""Mean square of a column below which it says nothing that those before do not."""


def circumplex_penalty(
    score: jax.Array, angles: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """What of a vector of scores is no level plus one wave around the ring of values.

    penalty = min_{a, b, c} mean_v (s_v - a - b cos(angle_v) - c sin(angle_v))^2

    The theory says that each motive conflicts with the opposite one and goes together
    with its neighbours: a profile of values is then a level and a cosine, whose rest is
    penalised. It is a hypothesis about the texts as well; FULCRA's labels follow it
    loosely (refusals support Security, Conformity and Benevolence together).

    Args:
      score: `[..., V]` float in [-1, 1].
      angles: `[V]` radians, as `values.ring_angles()`.
      where: `[..., V]` bool, False where a value does not count; the wave is then
        fitted to the others, and its gradient is 0.

    Returns:
      `[...]` in [0, 1] for scores in [-1, 1]. 0 where at most three values count, at
      angles that differ, as a wave goes through them, and where none counts.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      Schwartz 1992, "Universals in the content and structure of values", figure 1;
      Gurtman and Balakrishnan 1998, "Circular measurement redux" (level and cosine of a
      profile, and what they leave).

    >>> angles = jnp.radians(jnp.arange(0.0, 360.0, 36.0))
    >>> round(float(circumplex_penalty(0.2 + 0.5 * jnp.cos(angles - 1.0), angles)), 6)
    0.0
    >>> opposites = jnp.array([1, 0, 0, 0, 0, 1, 0, 0, 0, 0])  # both ends at once
    >>> round(float(circumplex_penalty(opposites, angles)), 3)
    0.16
    """
    _check.shapes(
        "circumplex.circumplex_penalty", score=(score, "... V"), angles=(angles, "V")
    )
    if where is not None and tuple(where.shape) != tuple(score.shape):
        raise ValueError(
            f"circumplex.circumplex_penalty: where has shape {tuple(where.shape)}; "
            f"expected that of score, {tuple(score.shape)}."
        )
    score, where = work(score), present(where, score)
    rest = jnp.where(where, score, 0.0)
    angles = jnp.broadcast_to(jnp.asarray(angles, rest.dtype), rest.shape)
    count = jnp.maximum(where.sum(-1, keepdims=True), 1).astype(rest.dtype)
    # Gram-Schmidt over the values that count, which may be others in each vector.
    basis: list[jax.Array] = []
    for column in (jnp.ones_like(rest), jnp.cos(angles), jnp.sin(angles)):
        new = jnp.where(where, column, 0.0)
        for unit in basis:
            new = new - unit * (unit * new).sum(-1, keepdims=True)
        left = (new**2).sum(-1, keepdims=True)
        some = left > DEPENDENT * count
        basis.append(
            new * jnp.where(some, jax.lax.rsqrt(jnp.where(some, left, 1.0)), 0)
        )
        rest = rest - basis[-1] * (basis[-1] * rest).sum(-1, keepdims=True)
    return (rest**2).sum(-1) / count[..., 0]
