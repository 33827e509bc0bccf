# SPDX-License-Identifier: Apache-2.0
"""From unreduced losses `[...]` to one number, over the entries that count."""

import jax
import jax.numpy as jnp

from fulcra_jax import _check


def masked_total(
    x: jax.Array, where: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """The sum and the number of the entries that count.

    total = sum_i w_i x_i, count = sum_i w_i. Means that cross devices or micro-batches
    travel in this form: add both parts up, divide once. A mean of means would weigh a
    part with few entries too much.

    Args:
      x: `[...]` numbers.
      where: `[...]` of the same shape, bool, or float weights w of at least 0. An entry
        that is False or 0 does not count: it reaches neither the sum nor a gradient,
        even if it is NaN or inf.

    Returns:
      total, count: `[]` each, float32 at least; both 0 if no entry counts.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      McMahan et al. 2017 (arXiv 1602.05629), algorithm 1: parts weigh as their counts.

    >>> total, count = masked_total(jnp.array([1.0, 2.0]), jnp.array([True, False]))
    >>> total.item(), count.item()
    (1.0, 1.0)
    """
    return _total("reduce.masked_total", x, where)


def masked_mean(x: jax.Array, where: jax.Array | None = None) -> jax.Array:
    """The mean of the entries that count.

    mean = sum_i w_i x_i / sum_i w_i

    Args:
      x: `[...]` numbers, for example unreduced losses.
      where: `[...]` of the same shape, bool, or float weights w of at least 0. An entry
        that is False or 0 does not count: it has gradient 0, even if it is NaN or inf.

    Returns:
      `[]` float32 at least; 0 if no entry counts: a loss then has nothing to teach.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      Little and Rubin 2002, "Statistical analysis with missing data", chapter 3
      (available-case mean).

    >>> loss = jnp.array([1.0, 2.0, jnp.nan])
    >>> masked_mean(loss, jnp.array([True, True, False])).item()
    1.5
    >>> masked_mean(loss, jnp.array([0.75, 0.25, 0.0])).item()
    1.25
    """
    total, count = _total("reduce.masked_mean", x, where)
    return total / jnp.where(count == 0.0, 1.0, count)


def _total(
    caller: str, x: jax.Array, where: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    axes = " ".join(f"A{i}" for i in range(x.ndim))
    _check.shapes(caller, x=(x, axes), where=(where, axes))
    x = jnp.asarray(x)
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if where is None:
        return x.sum(), jnp.asarray(x.size, x.dtype)
    where = jnp.asarray(where)
    if not jnp.issubdtype(where.dtype, jnp.floating):
        where = where.astype(bool)
        return jnp.where(where, x, 0.0).sum(), where.sum().astype(x.dtype)
    weight = where.astype(x.dtype)
    counted = jnp.where(weight != 0.0, x, 0.0)
    return (weight * counted).sum(), weight.sum()
