# SPDX-License-Identifier: Apache-2.0
"""Coefficients with their analytic standard errors.

A coefficient is a smooth function of means over units; its standard error is that of
the mean of the unit's linearised values (Gwet's linearisation, the delta method). One
pass over the units or their patterns; `bootstrap` makes no such approximation.

Axes: R raters, N units, K categories.
"""

from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp

from fulcra_jax import _check
from fulcra_jax.scoring import _chance, _distributions, _ratings
from fulcra_jax.scoring._chance import Kind, Weights
from fulcra_jax.scoring._ratings import Counted, divide, ratio
from fulcra_jax.scoring.reasons import Reason
from fulcra_jax.scoring.resampling import Interval


class Agreement(NamedTuple):
    """A coefficient and what stands behind it, each `[]`."""

    coefficient: jax.Array
    observed: jax.Array
    """The agreement that was seen."""
    expected: jax.Array
    """The agreement that chance would give: print it beside the observed."""
    standard_error: jax.Array
    units: jax.Array
    """How many units count: degrees of freedom + 1 of a t interval."""
    reason: jax.Array
    """int32 code of `Reason`; not OK where the coefficient is NaN."""


def chance_corrected(
    ratings: jax.Array,
    num_categories: int,
    *,
    kind: Kind = "krippendorff",
    weights: Weights = "identity",
    ddof: int = 1,
    where: jax.Array | None = None,
    unit_weights: jax.Array | None = None,
) -> Agreement:
    """A chance-corrected coefficient with observed, expected and standard error.

    se^2 = sum_u v_u (x_u - mean x)^2 / (n (n - ddof)), n = sum_u v_u, with x_u the
    linearised value of a unit. Coefficient = (observed - expected) / (1 - expected).

    Args:
      ratings: `[R, N]` int category ids in `[0, K)`; others count as missing.
      num_categories: K.
      kind: "cohen" and "scott" (two raters, units that both rated), "conger", "fleiss",
        "brennan_prediger", "gwet" (AC1; AC2 with weights), "krippendorff" (alpha with
        the distance 1 - weights: identity is nominal, quadratic is interval, and
        "ordinal" is not Krippendorff's ordinal level).
      weights: a name of `category_weights`, or `[K, K]` symmetric.
      ddof: 1 for a sample of units. 0 gives the formulas for contingency tables
        (Fleiss, Cohen and Everitt 1969), which divide by n.
      where: `[R, N]` bool, False where a rating is missing.
      unit_weights: `[N]` non-negative float, taken as counts: the error shrinks with
        their sum. For sampling weights use `bootstrap`.

    Returns:
      `Agreement`. For alpha, observed and expected are on its own scale: observed holds
      the correction (1 - 1/n) p_a + 1/n over n ratings. NaN with a reason as in the
      plain functions; the standard error also with a single unit. A standard error of 0
      (no unit differs from another) says that the approximation has broken down.

    Raises:
      ValueError: if shapes disagree, or there are not two raters for cohen and scott.
      KeyError: if the kind is unknown.

    Reference:
      Gwet 2014, "Handbook of Inter-Rater Reliability", 4th edition, chapters 5 and 6.

    >>> ratings, counts = scoring.ratings_of_table(jnp.array([[40, 9], [6, 45]]))
    >>> found = chance_corrected(
    ...     ratings, 2, kind="cohen", ddof=0, unit_weights=counts
    ... )
    >>> print(f"{found.coefficient:.3f} {found.standard_error:.4f}")
    0.700 0.0714
    """
    caller = "standard_errors.chance_corrected"
    _check.known(caller, "kind", kind, get_args(Kind))
    table = _ratings.counted(caller, ratings, num_categories, where, unit_weights)
    weights_kk = _chance.weight_matrix(caller, weights, table)
    if kind == "krippendorff":
        return _alpha(table, weights_kk, ddof)
    whole = table
    table = _chance.usable(caller, kind, table)
    distance_kk = _chance.disagreement(weights_kk)
    observed = _chance.observed_disagreement(table, distance_kk)
    expected = _chance.expected_disagreement(kind, table, weights_kk)
    reason = _chance.reason_of(whole, table, distance=distance_kk, expected=expected)
    coefficient = _chance.corrected(observed, expected, reason)
    seen, chance = _chance.defined(reason, observed, expected)
    center = 1.0 - seen / chance
    weight_n = jnp.where(table.rated, table.weight, 0.0)
    units = weight_n.sum()
    paired_n = table.paired.astype(weight_n.dtype)
    share_paired = divide((paired_n * weight_n).sum(), units)
    beyond_n = paired_n * chance - _chance.disagreeing_share(table, distance_kk)
    expected_n = _unit_expected(kind, table, weights_kk, chance)
    linear_n = (
        divide(beyond_n, share_paired) + 2.0 * (1.0 - center) * (expected_n - chance)
    ) / chance
    return Agreement(
        coefficient=coefficient,
        observed=1.0 - observed,
        expected=1.0 - expected,
        standard_error=_error(linear_n, center, weight_n, ddof, reason),
        units=units,
        reason=reason,
    )


def agreement_interval(found: Agreement, *, level: float = 0.95) -> Interval:
    """The t interval of a coefficient.

    coefficient -+ t_{n - 1} se, cut at 1.

    Args:
      found: of `chance_corrected`; any shape.
      level: in (0, 1).

    Returns:
      `low` and `high` of the shape of `found.coefficient`; NaN where that is NaN or
      there is one unit only.

    Raises:
      ValueError: if `level` is not between 0 and 1.

    Reference:
      Gwet 2014, "Handbook of Inter-Rater Reliability", 4th edition, chapter 5.

    >>> ratings = jnp.array([[0, 1, 2, 2, 0], [0, 1, 2, 1, 0]])
    >>> low, high = agreement_interval(chance_corrected(ratings, 3, kind="gwet"))
    >>> print(f"{low:.2f} {high:.2f}")
    -0.14 1.00
    """
    if not 0.0 < level < 1.0:
        raise ValueError(
            f"standard_errors.agreement_interval: level is {level}; expected "
            "0 < level < 1."
        )
    dtype = jnp.promote_types(found.coefficient.dtype, jnp.float32)
    center = found.coefficient.astype(dtype)
    error = found.standard_error.astype(dtype)
    freedom = jnp.maximum(found.units.astype(dtype) - 1.0, 1.0)
    tail = jnp.asarray(0.5 + 0.5 * level, dtype)
    half = _distributions.student_t_quantile(tail, freedom) * error
    return Interval(center - half, jnp.minimum(center + half, 1.0))


def cohen_null_error(
    ratings: jax.Array,
    num_categories: int,
    *,
    weights: Weights = "identity",
    where: jax.Array | None = None,
    unit_weights: jax.Array | None = None,
) -> jax.Array:
    """The standard error of Cohen's kappa if the true kappa is 0, to test against 0.

    se0^2 = (sum_kl p_k. p_.l (w_kl - (w_k. + w_.l))^2 - p_e^2) / (n (1 - p_e)^2), where
    w_k. = sum_l w_kl p_.l and w_.l = sum_k w_kl p_k. are mean weights.

    Args:
      ratings: `[2, N]` int category ids in `[0, K)`.
      num_categories: K.
      weights: a name of `category_weights` or `[K, K]`.
      where: `[2, N]` bool, False where a rating is missing.
      unit_weights: `[N]` non-negative float, taken as counts.

    Returns:
      `[]` non-negative float; z = kappa / se0. NaN where kappa is.

    Raises:
      ValueError: if there are not two raters or shapes disagree.

    Reference:
      Fleiss, Cohen and Everitt 1969, "Large sample standard errors of kappa and
      weighted kappa", equation 9.

    >>> ratings, counts = scoring.ratings_of_table(jnp.array([[40, 9], [6, 45]]))
    >>> print(f"{cohen_null_error(ratings, 2, unit_weights=counts):.4f}")
    0.0998
    """
    caller = "standard_errors.cohen_null_error"
    table = _ratings.counted(caller, ratings, num_categories, where, unit_weights)
    table = _chance.usable(caller, "cohen", table)
    weights_kk = _chance.weight_matrix(caller, weights, table)
    share_rk, count_r = _chance.rater_shares(table)
    product_kl = jnp.outer(share_rk[0], share_rk[1])
    distance_kk = _chance.disagreement(weights_kk)
    expected = (distance_kk * product_kl).sum()
    mean_k = _product(distance_kk, share_rk[1])
    mean_l = _product(share_rk[0], distance_kk)
    # A variance around the mean: the same for weights and distances, and not a
    # difference of two numbers close to 1.
    spread_kl = (distance_kk - (mean_k[:, None] + mean_l[None, :]) + expected) ** 2
    variance = (product_kl * spread_kl).sum()
    reason = _chance.reason_of(table, distance=distance_kk, expected=expected)
    variance, expected = _chance.defined(reason, variance, expected)
    error = _root(divide(variance, count_r[0] * expected**2))
    return jnp.where(reason == Reason.OK, error, jnp.nan)


def fleiss_null_error(
    ratings: jax.Array,
    num_categories: int,
    *,
    where: jax.Array | None = None,
    unit_weights: jax.Array | None = None,
) -> jax.Array:
    """The standard error of Fleiss' kappa if the true kappa is 0, to test against 0.

    se0^2 = 2 (s^2 - sum_k p_k q_k (q_k - p_k)) / (s^2 N n (n - 1)), s = sum_k p_k q_k,
    q = 1 - p.

    Args:
      ratings: `[R, N]` int category ids in `[0, K)`.
      num_categories: K.
      where: `[R, N]` bool, False where a rating is missing.
      unit_weights: `[N]` non-negative float, taken as counts.

    Returns:
      `[]` non-negative float; z = kappa / se0. NaN where kappa is, and if the units do
      not all have the same number n of ratings, for which the formula was derived.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Fleiss, Nee and Landis 1979, "Large sample variance of kappa in the case of
      different sets of raters".

    >>> ratings = jnp.array([[0, 1, 2, 2, 0], [0, 1, 2, 1, 0], [0, 1, 1, 2, 0]])
    >>> print(f"{fleiss_null_error(ratings, 3):.3f}")
    0.184
    """
    caller = "standard_errors.fleiss_null_error"
    table = _ratings.counted(caller, ratings, num_categories, where, unit_weights)
    p_k = _chance.category_shares(table)
    same_kk = jnp.eye(num_categories, dtype=bool)
    q_k = jnp.where(same_kk, 0.0, p_k[None]).sum(1)
    s = (p_k * q_k).sum()
    # sum p q (p - q) around the most frequent category, without what cancels there.
    rare_k = jnp.arange(num_categories) != p_k.argmax()
    q_most = jnp.where(rare_k, 0.0, q_k).sum()
    excess_k = 3.0 * (p_k - q_most) + 2.0 * (q_most**2 - p_k**2)
    excess = jnp.where(rare_k, p_k * excess_k, 0.0).sum()
    most = jnp.where(table.rated, table.total, 0.0).max(initial=0.0)
    least = jnp.where(table.rated, table.total, jnp.inf).min(initial=jnp.inf)
    units = jnp.where(table.rated, table.weight, 0.0).sum()
    variance = 2.0 * (s**2 + excess)
    balanced = (most == least) & (_chance.reason_of(table) == Reason.OK)
    scale = s**2 * units * most * (most - 1.0)
    scale = jnp.where(balanced, scale, 1.0)
    error = _root(jnp.where(balanced, variance, 1.0) / scale)
    return jnp.where(balanced, error, jnp.nan)


def _unit_expected(
    kind: Kind, table: Counted, weights_kk: jax.Array, expected: jax.Array
) -> jax.Array:
    """`[N]` what each unit adds to the expected disagreement; their mean is that."""
    k = weights_kk.shape[0]
    match kind:
        case "brennan_prediger":
            return jnp.broadcast_to(expected, table.total.shape)
        case "gwet":
            pi_k = _chance.category_shares(table)
            scale = weights_kk.sum() / (k * max(k - 1, 1))
            return 1.0 - scale * _product(_chance.unit_shares(table), 1.0 - pi_k)
        case "fleiss" | "scott":
            pi_k = _chance.category_shares(table)
            return _product(
                _chance.unit_shares(table), _product(_symmetric(weights_kk), pi_k)
            )
        case _:
            return _unit_expected_conger(table, _symmetric(weights_kk))


def _unit_expected_conger(table: Counted, distance_kk: jax.Array) -> jax.Array:
    """Through the share of each rater: how far a unit moves it from where it is."""
    share_rk, count_r = _chance.rater_shares(table)
    raters = (count_r > 0.0).sum().astype(share_rk.dtype)
    others_rk = share_rk.sum(0)[None] - share_rk
    units = jnp.where(table.rated, table.weight, 0.0).sum()
    present_rn = table.onehot.sum(-1)
    moved_rnk = table.onehot - present_rn[..., None] * share_rk[:, None]
    moved_rnk = divide(units, count_r)[:, None, None] * moved_rnk + share_rk[:, None]
    partner_rk = _product(others_rk, distance_kk)
    total_n = jnp.einsum("rnk,rk->n", moved_rnk, partner_rk, precision=_chance.EXACT)
    return divide(total_n, raters * (raters - 1.0))


def _alpha(whole: Counted, weights_kk: jax.Array, ddof: int) -> Agreement:
    """Gwet's form of alpha, in disagreements: see `_chance.disagreement`."""
    table = _chance.pairable(whole)
    distance_kk = _chance.disagreement(weights_kk)
    weight_n = jnp.where(table.paired, table.weight, 0.0)
    units = weight_n.sum()
    ratings = (weight_n * table.total).sum()
    mean_total = divide(ratings, units)
    pi_k = divide(_chance.coincidences(table).sum(-1), ratings)
    unlike_n = (table.counts * _product(table.counts, distance_kk)).sum(-1)
    unlike_n = divide(divide(unlike_n, table.total - 1.0), mean_total)
    plain = ratio((weight_n * unlike_n).sum(), units)
    observed = plain * divide(ratings - 1.0, ratings)
    expected = (distance_kk * jnp.outer(pi_k, pi_k)).sum()
    reason = _chance.reason_of(whole, table, distance=distance_kk, expected=expected)
    few = (reason == Reason.OK) & (ratings <= 1.0)
    reason = jnp.where(few, Reason.TOO_FEW_RATINGS, reason).astype(jnp.int32)
    seen, chance = _chance.defined(reason, observed, expected)
    # The coefficient before the correction for the finite number of ratings.
    large = 1.0 - _chance.defined(reason, plain, chance)[0] / chance
    size_n = divide(table.total, mean_total)
    expected_n = _product(table.counts, _product(_symmetric(weights_kk), pi_k))
    expected_n = divide(expected_n, mean_total)
    linear_n = (
        chance
        - unlike_n
        + seen * (size_n - 1.0)
        + 2.0 * (1.0 - large) * (expected_n - chance * size_n)
    ) / chance
    return Agreement(
        coefficient=_chance.corrected(observed, expected, reason),
        observed=1.0 - observed,
        expected=1.0 - expected,
        standard_error=_error(linear_n, large, weight_n, ddof, reason),
        units=units,
        reason=reason,
    )


def _symmetric(weights_kk: jax.Array) -> jax.Array:
    return _chance.disagreement(0.5 * (weights_kk + weights_kk.T))


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=_chance.EXACT)


def _error(
    linear_n: jax.Array,
    center: jax.Array,
    weight_n: jax.Array,
    ddof: int,
    reason: jax.Array,
) -> jax.Array:
    units = weight_n.sum()
    freedom = units * (units - ddof)
    usable = (reason == Reason.OK) & (freedom > 0.0)
    away_n = jnp.where((weight_n > 0.0) & usable, linear_n - center, 0.0)
    # Units that are all alike differ by rounding, which is no error of the mean.
    scale = jnp.abs(jnp.where(weight_n > 0.0, linear_n, 0.0)).max(initial=1.0)
    alike = (
        jnp.abs(away_n).max(initial=0.0) <= 32.0 * jnp.finfo(scale.dtype).eps * scale
    )
    squares = jnp.where(alike, 0.0, (weight_n * away_n**2).sum())
    error = _root(squares / jnp.where(usable, freedom, 1.0))
    return jnp.where(usable, error, jnp.nan)


def _root(x: jax.Array) -> jax.Array:
    """The square root with a finite gradient at 0; rounding below 0 is 0."""
    positive = x > 0.0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0 * x)
