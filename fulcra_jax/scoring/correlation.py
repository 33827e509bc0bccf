# SPDX-License-Identifier: Apache-2.0
"""How well a column of scores orders the items, as pure functions.

Axes: N items judged. An entry with `where=False` is never read. Undefined is NaN. Ranks
are sums of place numbers, exact up to 2**23 items in float32.
"""

import jax
import jax.numpy as jnp

from fulcra_jax import _check


def pearson(x: jax.Array, y: jax.Array, *, where: jax.Array | None = None) -> jax.Array:
    """Pearson's correlation of two columns.

    Args:
      x: `[N]` numbers, for example scores.
      y: `[N]` numbers, for example labels.
      where: `[N]` bool, False where the pair does not count.

    Returns:
      `[]` in [-1, 1]; NaN if fewer than two pairs count or a column is constant.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      Pearson 1895, "Note on regression and inheritance in the case of two parents".

    >>> print(f"{pearson(jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, 3.0, 2.0])):.2f}")
    0.50
    """
    _check.shapes("correlation.pearson", x=(x, "N"), y=(y, "N"), where=(where, "N"))
    dtype = _work_dtype(x, y)
    x, y = jnp.asarray(x, dtype), jnp.asarray(y, dtype)
    return _correlation(x, y, _present(where, x))


def spearman(
    x: jax.Array, y: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """Spearman's rank correlation; tied entries share the mean of their ranks.

    Args:
      x: `[N]` numbers, for example scores.
      y: `[N]` numbers, for example labels.
      where: `[N]` bool, False where the pair does not count.

    Returns:
      `[]` in [-1, 1]; NaN if fewer than two pairs count, a column is constant or an
      entry that counts is NaN. Its gradient is zero.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      Spearman 1904, "The proof and measurement of association between two things".

    >>> print(f"{spearman(jnp.array([0.1, 0.2, 9.0]), jnp.array([1, 1, 2])):.3f}")
    0.866
    """
    _check.shapes("correlation.spearman", x=(x, "N"), y=(y, "N"), where=(where, "N"))
    where = _present(where, x)
    dtype = _work_dtype(x, y)
    x, y = _average_ranks(x, where, dtype), _average_ranks(y, where, dtype)
    return _correlation(x, y, where)


def auroc(
    score: jax.Array, positive: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """The chance that a positive entry scores above a negative one; a tie is half.

    AUROC = 1/2 + (mean rank of the positives - mean rank of the negatives) / N, which
    loses no digits when one side is rare. O(N log N).

    Args:
      score: `[N]` float, for example P(+1).
      positive: `[N]` bool, for example `labels == 2`.
      where: `[N]` bool, False where the entry does not count.

    Returns:
      `[]` in [0, 1], 1/2 is chance; NaN if either side is empty or a score that counts
      is NaN. Its gradient is zero.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      Hanley and McNeil 1982, "The meaning and use of the area under a ROC curve".

    >>> auroc(jnp.array([0.1, 0.4, 0.4, 0.8]), jnp.array([0, 0, 1, 1])).item()
    0.875
    """
    _check.shapes(
        "correlation.auroc",
        score=(score, "N"),
        positive=(positive, "N"),
        where=(where, "N"),
    )
    where = _present(where, score)
    positive = jnp.asarray(positive, bool)
    rank_n = _average_ranks(score, where, _work_dtype(score))
    share_n = rank_n / jnp.maximum(where.sum().astype(rank_n.dtype), 1.0)
    return 0.5 + _mean(share_n, where & positive) - _mean(share_n, where & ~positive)


def _work_dtype(*arrays: jax.Array) -> jnp.dtype:
    return jnp.promote_types(jnp.result_type(*arrays), jnp.float32)


def _present(where: jax.Array | None, like: jax.Array) -> jax.Array:
    return jnp.ones(like.shape, bool) if where is None else jnp.asarray(where, bool)


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    """The share, NaN where the whole is 0; the gradient stays finite there."""
    safe = jnp.where(whole > 0.0, whole, 1.0)
    return jnp.where(whole > 0.0, part / safe, jnp.nan)


def _mean(x_n: jax.Array, where_n: jax.Array) -> jax.Array:
    return _ratio(jnp.where(where_n, x_n, 0.0).sum(), where_n.sum().astype(x_n.dtype))


def _correlation(x_n: jax.Array, y_n: jax.Array, where_n: jax.Array) -> jax.Array:
    defined = where_n.sum() >= 2
    unit = []
    for z_n in (jnp.where(where_n, x_n, 0.0), jnp.where(where_n, y_n, 0.0)):
        # The mean of equal numbers may be off by an ulp and must not look like spread.
        top = jnp.max(z_n, where=where_n, initial=-jnp.inf)
        spread = top != jnp.min(z_n, where=where_n, initial=jnp.inf)
        off_n = jnp.where(where_n, z_n - _mean(z_n, where_n), 0.0)
        variance = (off_n**2).sum()
        defined &= spread & (variance != 0.0)
        unit.append(off_n * jax.lax.rsqrt(jnp.where(defined, variance, 1.0)))
    r = jnp.clip((unit[0] * unit[1]).sum(), -1.0, 1.0)
    return jnp.where(defined, r, jnp.nan)


def _average_ranks(x: jax.Array, where: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Ranks 1, 2, ... among the entries that count; all NaN if one of them is NaN."""
    x_n = jax.lax.stop_gradient(jnp.where(where, x, jnp.zeros((), x.dtype)))
    place_n = jnp.arange(x_n.shape[0])
    # Masked entries sort behind all others, so that they share no tie with them.
    masked, x_sorted, order = jax.lax.sort((~where, x_n, place_n), num_keys=2)
    new = (masked != jnp.roll(masked, 1)) | (x_sorted != jnp.roll(x_sorted, 1))
    new |= place_n == 0
    last = jnp.roll(new, -1) | (place_n == x_n.shape[0] - 1)
    first_of_tie = jax.lax.cummax(jnp.where(new, place_n, 0))
    last_of_tie = jax.lax.cummin(jnp.where(last, place_n, x_n.shape[0]), reverse=True)
    rank = 0.5 * (first_of_tie + last_of_tie).astype(dtype) + 1.0
    rank_n = jnp.zeros(x_n.shape, dtype).at[order].set(rank)
    return jnp.where((jnp.isnan(x_n) & where).any(), jnp.nan, rank_n)
