# SPDX-License-Identifier: Apache-2.0
"""Many tests at once, as a pure function. Axes: N hypotheses."""

import jax
import jax.numpy as jnp

from fulcra_jax import _check


def benjamini_hochberg(p: jax.Array, *, where: jax.Array | None = None) -> jax.Array:
    """The false discovery rate at which each hypothesis would just be rejected.

    q_(i) = min over j >= i of m p_(j) / j, with the p in ascending order. Rejecting
    where q <= 0.05 keeps the expected share of false rejections at 5 %, of tests that
    are independent or positively dependent.

    Args:
      p: `[N]` p-values in [0, 1].
      where: `[N]` bool, False where a hypothesis does not count.

    Returns:
      `[N]` at least float32 in [0, 1], never below p; NaN where a hypothesis does not
      count.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      Benjamini and Hochberg 1995, "Controlling the false discovery rate".

    >>> q = benjamini_hochberg(jnp.array([0.01, 0.04, 0.03, 0.5]))
    >>> [round(float(x), 4) for x in q]
    [0.04, 0.0533, 0.0533, 0.5]
    """
    _check.shapes("significance.benjamini_hochberg", p=(p, "N"), where=(where, "N"))
    p = jnp.asarray(p)
    p = p.astype(jnp.promote_types(p.dtype, jnp.float32))
    counts = jnp.ones(p.shape, bool) if where is None else jnp.asarray(where, bool)
    order = jnp.argsort(jnp.where(counts, p, jnp.inf))
    ranked = jnp.where(counts, p, 1.0)[order]
    rank = jnp.arange(1, len(p) + 1, dtype=p.dtype)
    scaled = jnp.where(counts[order], ranked * counts.sum() / rank, 1.0)
    least = jax.lax.cummin(scaled, reverse=True)
    q = jnp.zeros_like(p).at[order].set(jnp.minimum(least, 1.0))
    return jnp.where(counts, q, jnp.nan)
