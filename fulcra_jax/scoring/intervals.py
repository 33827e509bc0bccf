# SPDX-License-Identifier: Apache-2.0
"""Leave-one-out values and the intervals that need them, as pure functions.

Axes: N items judged (or patterns with counts), R raters, S resamples.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from fulcra_jax import _check
from fulcra_jax.scoring import _distributions
from fulcra_jax.scoring.resampling import Interval


class Jackknife(NamedTuple):
    """Leave-one-out values `[N, ...]` or `[R, ...]`, and a standard error `[...]`."""

    values: jax.Array
    standard_error: jax.Array


def jackknife(
    statistic: Callable[[jax.Array], jax.Array],
    unit_weights: jax.Array,
    *,
    batch_size: int = 100,
) -> Jackknife:
    """A statistic without each of its items in turn.

    SE^2 = (n - 1) / n sum_i c_i (theta_(i) - mean)^2, n = sum_i c_i

    Args:
      statistic: from the weights `[N]` to an array; pure and traceable, for example
        `lambda w: fleiss_kappa(ratings, 3, unit_weights=w)`.
      unit_weights: `[N]` whole numbers c_i >= 0, how often an item counts: ones, or the
        counts of a table of patterns. One of the c_i equal items is left out.
      batch_size: how many values are computed at once.

    Returns:
      `values` `[N, ...]`, the statistic with c_i - 1; NaN where c_i is 0.
      `standard_error` `[...]` weights the values by c_i; NaN for fewer than two items
      or if a value is undefined, 0 if all are equal.

      One item of very many moves a float32 statistic by less than its rounding. So from
      about 3,000 items on (in float64 67 million), h = n sqrt(eps) of the items of a
      pattern are left out at once, at most half of them, and an h-th of the change is
      taken: the standard error keeps three digits however large the counts are.

    Raises:
      ValueError: if `unit_weights` is not `[N]` or holds anything but whole numbers of
        at least 0, or if `batch_size` is below 1.

    Reference:
      Efron and Tibshirani 1993, "An introduction to the bootstrap", chapter 11.

    >>> x = jnp.array([1.0, 2.0, 6.0])
    >>> result = jackknife(lambda w: (w * x).sum() / w.sum(), jnp.ones(3))
    >>> result.values.tolist(), round(float(result.standard_error), 4)
    ([4.0, 3.5, 1.5], 1.5275)
    """
    caller = "intervals.jackknife"
    _check.shapes(caller, unit_weights=(unit_weights, "N"))
    _whole_counts(caller, unit_weights)
    if not batch_size >= 1:
        raise ValueError(f"{caller}: batch_size is {batch_size}; expected at least 1.")
    c_n = _work(unit_weights)
    if c_n.size == 0:
        return _of_nobody(jax.eval_shape(statistic, c_n))
    share = float(np.sqrt(jnp.finfo(c_n.dtype).eps))
    most_n = jnp.minimum(jnp.floor(c_n.sum() * share), jnp.floor(0.5 * c_n))
    # An item that is not there: none left out, so that nothing divides by zero.
    left_n = jnp.where(c_n > 0.0, jnp.maximum(most_n, 1.0), 0.0)
    whole = _work(statistic(c_n))
    middle = jnp.where(jnp.isfinite(whole), whole, 0.0)

    def without(i: jax.Array) -> tuple[jax.Array, jax.Array]:
        value = _work(statistic(c_n.at[i].add(-left_n[i])))
        one = left_n[i] == 1.0
        change = jnp.where(
            one, value - middle, (value - whole) / jnp.maximum(left_n[i], 1.0)
        )
        value = jnp.where(one, value, whole + change)
        present = c_n[i] > 0.0
        return jnp.where(present, value, jnp.nan), jnp.where(present, change, jnp.nan)

    values, changes = jax.lax.map(without, jnp.arange(c_n.size), batch_size=batch_size)
    return Jackknife(values, _standard_error(changes, c_n))


def jackknife_raters(
    statistic: Callable[[jax.Array], jax.Array], where: jax.Array
) -> Jackknife:
    """A statistic without each of the raters in turn: who moves it, and how far.

    Args:
      statistic: from a mask `[R, N]` to an array; pure and traceable, for example
        `lambda where: krippendorff_alpha(ratings, 3, where=where)`.
      where: `[R, N]` bool, False where a rating does not count.

    Returns:
      `values` `[R, ...]`; NaN for a rater without ratings. `standard_error` `[...]`,
      as of raters drawn from a population of raters; NaN for fewer than two raters with
      ratings or if one of their values is undefined.

    Raises:
      ValueError: if `where` is not `[R, N]`.

    Reference:
      Gwet 2008 (doi 10.1348/000711006X126600), section 5: variance due to the raters.

    >>> where = jnp.array([[True, True], [True, False], [True, True]])
    >>> result = jackknife_raters(lambda where: where.mean(), where)
    >>> [round(float(x), 4) for x in result.values], round(float(result[1]), 4)
    ([0.5, 0.6667, 0.5], 0.1111)
    """
    _check.shapes("intervals.jackknife_raters", where=(where, "R N"))
    where = jnp.asarray(where, bool)
    if where.shape[0] == 0:
        return _of_nobody(jax.eval_shape(statistic, where))
    counts_r = where.any(1)

    def without(r: jax.Array) -> jax.Array:
        value = statistic(where & (jnp.arange(len(where)) != r)[:, None])
        value = _work(value)
        return jnp.where(counts_r[r], value, jnp.nan)

    values = jax.vmap(without)(jnp.arange(len(where)))
    return Jackknife(values, _standard_error(values, counts_r.astype(values.dtype)))


def bca_interval(
    samples: jax.Array,
    estimate: jax.Array,
    jackknife_values: jax.Array,
    *,
    level: float = 0.95,
    jackknife_weights: jax.Array | None = None,
) -> Interval:
    """Efron's interval, corrected for bias and for a standard error that varies.

    The ends are the quantiles Phi(z0 + (z0 + z) / (1 - a (z0 + z))) of the samples,
    z = Phi^-1((1 -+ level) / 2), Phi(z0) = share of samples below the estimate (ties
    count half), a = sum d^3 / (6 (sum d^2)^(3/2)), d = mean - leave-one-out value.

    Args:
      samples: `[S, ...]` float resampled statistics.
      estimate: `[...]` float, the statistic of the data.
      jackknife_values: `[N, ...]` float, for example `jackknife(...).values`.
      level: the confidence in (0, 1).
      jackknife_weights: `[N]` how often each value counts: the counts where values are
        per pattern. A value of weight 0 is never read. None counts each once.

    Returns:
      `low` and `high`, each `[...]`. Samples that are NaN are left out. NaN if all
      samples lie on one side of the estimate or the leave-one-out values are all equal
      (up to rounding: none farther from their mean than 4 eps of the largest) or
      undefined: there is nothing to correct with; take `confidence_interval` then. NaN
      also where 1 - a (z0 + z) is not positive at one
      of the ends: beyond that pole the ends would cross.

    Raises:
      ValueError: if `level` is not between 0 and 1, the shapes disagree or a weight is
        negative.

    Reference:
      Efron 1987 (doi 10.1080/01621459.1987.10478410), "Better bootstrap confidence
      intervals".

    >>> samples = jnp.linspace(-1.0, 1.0, 2001)
    >>> low, high = bca_interval(samples, jnp.array(0.0), jnp.array([-1.0, 1.0]))
    >>> print(f"{low:.2f} {high:.2f}")
    -0.95 0.95
    """
    if not 0.0 < level < 1.0:
        raise ValueError(
            f"intervals.bca_interval: level is {level}; expected 0 < level < 1."
        )
    _check.shapes(
        "intervals.bca_interval",
        samples=(samples, "..."),
        estimate=(estimate, "..."),
        jackknife_values=(jackknife_values, "..."),
    )
    shape = estimate.shape
    for name, x in (("samples", samples), ("jackknife_values", jackknife_values)):
        if x.shape[1:] != shape or x.ndim == 0:
            raise ValueError(
                f"intervals.bca_interval: {name} has shape {x.shape}; expected its "
                f"axes after the first to be {shape} as in estimate."
            )
    if jackknife_weights is None:
        jackknife_weights = jnp.ones(jackknife_values.shape[0])
    if jackknife_weights.shape != jackknife_values.shape[:1]:
        raise ValueError(
            f"intervals.bca_interval: jackknife_weights has shape "
            f"{jackknife_weights.shape}; expected [N] with "
            f"N={jackknife_values.shape[0]} as in jackknife_values."
        )
    if not isinstance(jackknife_weights, Tracer):
        weight_n = np.asarray(jackknife_weights).astype(float)
        wrong_n = ~((weight_n >= 0.0) & (weight_n < np.inf))
        if wrong_n.any():
            raise ValueError(
                f"intervals.bca_interval: jackknife_weights holds "
                f"{weight_n[wrong_n][0]}; expected finite numbers of at least 0."
            )
    samples, estimate = _work(samples), _work(estimate)
    valid = ~jnp.isnan(samples)
    below = (samples < estimate[None]) + 0.5 * (samples == estimate[None])
    size = valid.sum(0).astype(samples.dtype)
    share = jnp.where(valid, below, 0.0).sum(0) / jnp.maximum(size, 1.0)
    z0 = _distributions.normal_quantile(share.astype(samples.dtype))
    a = _acceleration(_work(jackknife_values), _work(jackknife_weights))
    tails = jnp.asarray([0.5 * (1.0 - level), 0.5 * (1.0 + level)], samples.dtype)
    z = [z0 + tail for tail in _distributions.normal_quantile(tails)]
    defined = jnp.isfinite(z0) & (1.0 - a * z[0] > 0.0) & (1.0 - a * z[1] > 0.0)

    def end(z: jax.Array) -> jax.Array:
        below = jnp.where(defined, 1.0 - a * z, 1.0)
        at = _distributions.normal_cdf(z0 + z / below)
        return _quantile(samples, size, jnp.where(defined, at, jnp.nan))

    return Interval(end(z[0]), end(z[1]))


def _work(x: jax.Array) -> jax.Array:
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _of_nobody(like: jax.ShapeDtypeStruct) -> Jackknife:
    """Of an empty table: no values and no standard error."""
    dtype = jnp.promote_types(like.dtype, jnp.float32)
    return Jackknife(jnp.zeros((0, *like.shape), dtype), jnp.full(like.shape, jnp.nan))


def _whole_counts(caller: str, unit_weights: jax.Array) -> None:
    if isinstance(unit_weights, Tracer):
        return
    count_n = np.asarray(unit_weights).astype(float)
    wrong_n = ~((count_n >= 0.0) & (count_n == np.floor(count_n)))
    wrong_n |= count_n == np.inf
    if wrong_n.any():
        raise ValueError(
            f"{caller}: unit_weights holds {count_n[wrong_n][0]}; expected whole "
            "numbers of at least 0, how often each item counts."
        )


def _spread(values: jax.Array, weights: jax.Array) -> tuple[jax.Array, ...]:
    """Weights as a column, their sum and the distances from the mean; 0 at weight 0."""
    column = weights.astype(values.dtype).reshape(-1, *(1,) * (values.ndim - 1))
    present = column > 0.0
    column = jnp.where(present, column, 0.0)
    total = column.sum()
    values = jnp.where(present, values, 0.0)
    # From the middle of their range, so that equal values are equal to their mean and
    # large sums do not drown the distances.
    least = jnp.where(present, values, jnp.inf).min(0, initial=jnp.inf)
    most = jnp.where(present, values, -jnp.inf).max(0, initial=-jnp.inf)
    middle = jax.lax.stop_gradient(least + 0.5 * (most - least))
    values = jnp.where(present, values - middle[None], 0.0)
    mean = (column * values).sum(0) / jnp.where(total > 0.0, total, jnp.nan)
    return column, total, jnp.where(present, mean[None] - values, 0.0)


def _standard_error(values: jax.Array, weights: jax.Array) -> jax.Array:
    column, total, distance = _spread(values, weights)
    square = (column * distance**2).sum(0) * (total - 1.0) / jnp.maximum(total, 1.0)
    root = jnp.sqrt(jnp.where(square == 0.0, 1.0, square))
    return jnp.where(total > 1.0, jnp.where(square == 0.0, 0.0, root), jnp.nan)


def _acceleration(values: jax.Array, weights: jax.Array) -> jax.Array:
    column, _, distance = _spread(values, weights)
    # In units of the largest distance: its cube would underflow for a large N.
    unit = jnp.abs(distance).max(0, initial=0.0)
    ratio = distance / jnp.where(unit > 0.0, unit, 1.0)[None]
    square, cube = (column * ratio**2).sum(0), (column * ratio**3).sum(0)
    largest = jnp.where(column > 0.0, jnp.abs(values), 0.0).max(0, initial=0.0)
    # Values that differ by rounding only would give a skewness of rounding.
    some = unit > 4.0 * jnp.finfo(values.dtype).eps * largest
    return jnp.where(some, cube / (6.0 * jnp.where(some, square, 1.0) ** 1.5), jnp.nan)


def _quantile(samples: jax.Array, size: jax.Array, at: jax.Array) -> jax.Array:
    """The quantile at a place that differs per column; NaN samples sort to the end."""
    place = jnp.where(jnp.isnan(at), 0.0, at) * jnp.maximum(size - 1.0, 0.0)
    low = jnp.floor(place)
    last = jnp.maximum(size - 1.0, 0.0)
    ordered = jnp.sort(samples, axis=0)
    first, second = (
        jnp.take_along_axis(ordered, i.astype(jnp.int32)[None], axis=0)[0]
        for i in (low, jnp.minimum(low + 1.0, last))
    )
    result = first + (second - first) * (place - low)
    return jnp.where(jnp.isnan(at) | (size == 0.0), jnp.nan, result)
