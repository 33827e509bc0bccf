# SPDX-License-Identifier: Apache-2.0
"""Intraclass correlation of numeric ratings: six forms with intervals.

Axes: R raters, N units.
"""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from fulcra_jax import _check
from fulcra_jax.scoring import _distributions, _em
from fulcra_jax.scoring._ratings import ratio

Form = Literal["1,1", "2,1", "3,1", "1,k", "2,k", "3,k"]


class Icc(NamedTuple):
    """An intraclass correlation with its F test and interval, each `[]`."""

    coefficient: jax.Array
    low: jax.Array
    high: jax.Array
    f: jax.Array
    df1: jax.Array
    df2: jax.Array


class MeanSquares(NamedTuple):
    """The two-way analysis of variance of a table of ratings, each `[]`."""

    units: jax.Array
    """MSB, between units."""
    raters: jax.Array
    """MSJ, between raters."""
    within: jax.Array
    """MSW, within units."""
    error: jax.Array
    """MSE, within units less the raters' levels."""
    num_units: jax.Array
    """Units that every rater rated."""


def icc(
    scores: jax.Array,
    *,
    form: Form = "2,1",
    where: jax.Array | None = None,
    unit_weights: jax.Array | None = None,
) -> jax.Array:
    """The intraclass correlation of numeric ratings.

    With the mean squares of units (B), raters (J), within units (W) and error (E):
    (1,1) (B - W) / (B + (R-1) W); (2,1) (B - E) / (B + (R-1) E + R (J - E) / N);
    (3,1) (B - E) / (B + (R-1) E); (1,k) (B - W) / B; (2,k) (B - E) / (B + (J - E) / N);
    (3,k) (B - E) / B.

    Args:
      scores: `[R, N]` int or float ratings.
      form: Shrout and Fleiss' name. First: 1 other raters on every unit, 2 a sample of
        raters who all rate every unit (absolute agreement), 3 these raters only
        (consistency). Then: 1 for the reliability of one rating, k of the mean of R.
      where: `[R, N]` bool, False where a rating is missing. A unit that lacks one is
        left out (listwise).
      unit_weights: `[N]` non-negative float, taken as counts.

    Returns:
      `[]` float in (-inf, 1]; NaN with fewer than two raters or two complete units, if
      nothing varies, or where the denominator is not positive: (1,k) and (3,k) if the
      units do not differ (B = 0), (2,k) if B + (J - E) / N, an estimate of a variance,
      comes out at 0 or below, as when the raters contradict each other.

    Raises:
      ValueError: if shapes disagree or the weight of a complete unit is negative,
        infinite or NaN.
      KeyError: if the form is unknown.

    Reference:
      Shrout and Fleiss 1979, "Intraclass correlations: uses in assessing rater
      reliability", table 4.

    >>> scores = jnp.array([[9, 6, 8, 7, 10, 6], [2, 1, 4, 1, 5, 2],
    ...                     [5, 3, 6, 2, 6, 4], [8, 2, 8, 6, 9, 7]])
    >>> print(f"{icc(scores, form='1,1'):.2f} {icc(scores, form='3,k'):.2f}")
    0.17 0.91
    """
    _check.known("icc.icc", "form", form, get_args(Form))
    square = mean_squares(scores, where=where, unit_weights=unit_weights)
    return _coefficient(square, scores.shape[0], form)


def icc_interval(
    scores: jax.Array,
    *,
    form: Form = "2,1",
    level: float = 0.95,
    where: jax.Array | None = None,
    unit_weights: jax.Array | None = None,
) -> Icc:
    """The intraclass correlation with its F test and confidence interval.

    Args:
      scores: `[R, N]` int or float ratings.
      form: as in `icc`.
      level: of the interval, in (0, 1).
      where: `[R, N]` bool, False where a rating is missing; listwise.
      unit_weights: `[N]` non-negative float, taken as counts.

    Returns:
      `Icc`: the coefficient, the interval's ends, and F = B / W or B / E with its
      degrees of freedom. NaN where `icc` is. If the raters agree perfectly (W = 0; for
      the forms 3 E = 0) F is inf and the interval its limit [1, 1]: there is no error
      to draw another sample from. The lower end of (2,k) is -inf where (2,1)'s is at or
      below -1 / (R - 1). The interval of the forms 2 is an approximation, which for few
      units and a negative coefficient may end below it.

    Raises:
      ValueError: if shapes disagree, `level` is not between 0 and 1 or the weight of a
        complete unit is negative, infinite or NaN.
      KeyError: if the form is unknown.

    Reference:
      Shrout and Fleiss 1979; McGraw and Wong 1996, "Forming inferences about some
      intraclass correlation coefficients", table 7.

    >>> scores = jnp.array([[9, 6, 8, 7, 10, 6], [2, 1, 4, 1, 5, 2],
    ...                     [5, 3, 6, 2, 6, 4], [8, 2, 8, 6, 9, 7]])
    >>> found = icc_interval(scores, form="2,1")
    >>> print(f"{found.coefficient:.2f} [{found.low:.2f}, {found.high:.2f}]")
    0.29 [0.02, 0.76]
    """
    caller = "icc.icc_interval"
    _check.known(caller, "form", form, get_args(Form))
    if not 0.0 < level < 1.0:
        raise ValueError(f"{caller}: level is {level}; expected 0 < level < 1.")
    square = mean_squares(scores, where=where, unit_weights=unit_weights)
    raters = scores.shape[0]
    model, single = form.split(",")[0], form.endswith("1")
    rest = square.within if model == "1" else square.error
    f = _over(square.units, rest)
    units = jnp.where(square.num_units > 1.0, square.num_units, 2.0)
    df1 = units - 1.0
    df2 = (df1 if model != "1" else units) * (raters - 1.0)
    coefficient = _coefficient(square, raters, form)
    if model == "2":
        low, high = _interval_absolute(square, coefficient, raters, single, level)
    else:
        low, high = _interval_f(f, df1, df2, raters, single, level)
    perfect = (rest == 0.0) & (square.units > 0.0)
    f = jnp.where(perfect, jnp.inf, f)
    # A perfect order with other levels has an error in the forms 2.
    perfect &= coefficient == 1.0
    low, high = (jnp.where(perfect, 1.0, x) for x in (low, high))
    low, high = (jnp.where(jnp.isnan(coefficient), jnp.nan, x) for x in (low, high))
    df1, df2 = (jnp.where(square.num_units > 1.0, x, jnp.nan) for x in (df1, df2))
    return Icc(coefficient, low, high, f, df1, df2)


def mean_squares(
    scores: jax.Array,
    *,
    where: jax.Array | None = None,
    unit_weights: jax.Array | None = None,
) -> MeanSquares:
    """The mean squares of the two-way analysis of variance without replication.

    Args:
      scores: `[R, N]` int or float ratings.
      where: `[R, N]` bool, False where a rating is missing; listwise.
      unit_weights: `[N]` non-negative float, taken as counts.

    Returns:
      `MeanSquares`; NaN with fewer than two raters or two complete units. A mean square
      that could come of rounding alone is 0.

    Raises:
      ValueError: if shapes disagree or the weight of a complete unit is negative,
        infinite or NaN.

    Reference:
      Shrout and Fleiss 1979, table 2.

    >>> scores = jnp.array([[9, 6, 8, 7, 10, 6], [2, 1, 4, 1, 5, 2],
    ...                     [5, 3, 6, 2, 6, 4], [8, 2, 8, 6, 9, 7]])
    >>> print([round(float(x), 2) for x in mean_squares(scores)])
    [11.24, 32.49, 6.26, 1.02, 6.0]
    """
    caller = "icc.mean_squares"
    _check.shapes(
        caller,
        scores=(scores, "R N"),
        where=(where, "R N"),
        unit_weights=(unit_weights, "N"),
    )
    scores = jnp.asarray(scores)
    dtype = jnp.zeros(()).dtype
    if jnp.issubdtype(scores.dtype, jnp.floating):
        dtype = jnp.promote_types(scores.dtype, jnp.float32)
    if unit_weights is not None:
        dtype = jnp.promote_types(unit_weights.dtype, dtype)
    complete_n = jnp.ones(scores.shape[1:], bool)
    if where is not None:
        complete_n = jnp.asarray(where, bool).all(0)
        scores = jnp.where(complete_n[None], scores, 0)
    weight_n = _em.weights(caller, "unit_weights", unit_weights, complete_n, dtype)
    x_rn = jnp.where(weight_n > 0.0, scores.astype(dtype), 0.0)
    raters = x_rn.shape[0]
    units = weight_n.sum()
    # Around the grand mean, as sums of squares of raw scores cancel in float32.
    grand = ratio((x_rn.mean(0) * weight_n).sum(), units)
    counts_n = weight_n[None] > 0.0
    least = jnp.where(counts_n, x_rn, jnp.inf).min(initial=jnp.inf)
    most = jnp.where(counts_n, x_rn, -jnp.inf).max(initial=-jnp.inf)
    # The mean of equal numbers is off by rounding, which would pass for variation.
    # A sum of squares below this could be made of the rounding of the scores.
    largest = jnp.where(counts_n, jnp.abs(x_rn), 0.0).max(initial=0.0)
    nothing = raters * units * (2.0 * jnp.finfo(dtype).eps * largest) ** 2
    x_rn = jnp.where(counts_n & (most > least), x_rn - grand, 0.0)
    unit_n = x_rn.mean(0)
    rater_r = ratio(x_rn @ weight_n, units)
    between = raters * (weight_n * unit_n**2).sum()
    judges = units * (rater_r**2).sum()
    within = (weight_n[None] * (x_rn - unit_n[None]) ** 2).sum()
    residual_rn = x_rn - unit_n[None] - rater_r[:, None]
    error = (weight_n[None] * residual_rn**2).sum()
    between, judges, within, error = (
        jnp.where(x <= nothing, 0.0, x) for x in (between, judges, within, error)
    )
    free_units = jnp.where(units > 1.0, units - 1.0, 0.0)
    free_raters = jnp.asarray(raters - 1.0, dtype)
    return MeanSquares(
        units=ratio(between, free_units),
        raters=ratio(judges, free_raters),
        within=ratio(within, units * free_raters),
        error=ratio(error, free_units * free_raters),
        num_units=units,
    )


def _coefficient(square: MeanSquares, raters: int, form: Form) -> jax.Array:
    model, single = form.split(",")[0], form.endswith("1")
    rest = square.within if model == "1" else square.error
    extra = jnp.zeros_like(rest)
    if model == "2":
        extra = _over(square.raters - square.error, square.num_units)
    below = square.units + extra
    if single:
        below = square.units + (raters - 1.0) * rest + raters * extra
    return _over(square.units - rest, below)


def _over(part: jax.Array, whole: jax.Array) -> jax.Array:
    """The quotient, NaN where a part is or the denominator is not positive; finite
    gradients there."""
    some = (whole > 0.0) & ~jnp.isnan(part)
    part, whole = jnp.where(some, part, 0.0), jnp.where(some, whole, 1.0)
    return jnp.where(some, part / whole, jnp.nan)


def _interval_f(
    f: jax.Array,
    df1: jax.Array,
    df2: jax.Array,
    raters: int,
    single: bool,
    level: float,
) -> tuple[jax.Array, jax.Array]:
    tail = jnp.asarray(0.5 + 0.5 * level, f.dtype)
    one = jnp.ones_like(f)
    lower = f / _distributions.f_quantile(tail, df1, df2)
    upper = f * _distributions.f_quantile(tail, df2, df1)
    if single:
        return (
            _over(lower - 1.0, lower + raters - 1.0),
            _over(upper - 1.0, upper + raters - 1.0),
        )
    return 1.0 - _over(one, lower), 1.0 - _over(one, upper)


def _interval_absolute(
    square: MeanSquares,
    coefficient: jax.Array,
    raters: int,
    single: bool,
    level: float,
) -> tuple[jax.Array, jax.Array]:
    """Satterthwaite's degrees of freedom for the two-way random forms."""
    tail = jnp.asarray(0.5 + 0.5 * level, coefficient.dtype)
    n, b, j, e = square.num_units, square.units, square.raters, square.error
    # Where there are none the caller says NaN; here they would spoil the gradients.
    known = ~jnp.isnan(b + j + e)
    n, b, j, e = (jnp.where(known, x, 2.0) for x in (n, b, j, e))
    one = coefficient
    if not single:
        # Spearman-Brown: the reliability of one rating behind that of their mean.
        one = _over(b - e, b + (raters - 1.0) * e + _over(raters * (j - e), n))
    a = _over(raters * one, n * (1.0 - one))
    c = 1.0 + _over(raters * one * (n - 1.0), n * (1.0 - one))
    freedom = _over(
        (a * j + c * e) ** 2,
        _over((a * j) ** 2, jnp.full_like(a, raters - 1.0))
        + _over((c * e) ** 2, (n - 1.0) * (raters - 1.0)),
    )
    safe = jnp.where(freedom > 0.0, freedom, 1.0)
    free = jnp.maximum(n - 1.0, 1.0)
    f_low = _distributions.f_quantile(tail, free, safe)
    f_high = _distributions.f_quantile(tail, safe, free)
    spread = raters * j + (raters * n - raters - n) * e
    # Divided by the quantile, which is inf for few degrees of freedom.
    least = b / f_low
    low = _over(n * (least - e), spread + n * least)
    high = _over(n * (f_high * b - e), spread + n * f_high * b)
    if single:
        return low, high
    below = 1.0 + (raters - 1.0) * low
    return (
        jnp.where(below <= 0.0, -jnp.inf, _over(raters * low, below)),
        _over(raters * high, 1.0 + (raters - 1.0) * high),
    )
