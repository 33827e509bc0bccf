# SPDX-License-Identifier: Apache-2.0
"""Eight coefficients from totals that add up over units.

All coefficients are functions of a few sums over units. A resample then costs one
matrix product of its weights with these sums per unit (or per pattern, or per cluster)
instead of a pass over the ratings.

Axes: R raters, N units, K categories.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax.scoring import _chance, _ratings, alpha
from fulcra_jax.scoring._ratings import Counted, divide, ratio


class AgreementTotals(NamedTuple):
    """Sums over units; the sums of parts of the data add up to those of the whole."""

    paired: jax.Array
    """`[]` units with two ratings or more."""
    disagreeing: jax.Array
    """`[]` the sum of their shares of disagreeing pairs of raters."""
    shares: jax.Array
    """`[K]` the sum of the units' category shares, over units with a rating."""
    coincidence: jax.Array
    """`[K, K]` Krippendorff's coincidences."""
    tables: jax.Array
    """`[R, R, K, K]` the contingency table of every two raters."""


class Coefficients(NamedTuple):
    """Eight coefficients of one table of ratings, each `[]`."""

    percent_agreement: jax.Array
    alpha_nominal: jax.Array
    alpha_ordinal: jax.Array
    alpha_interval: jax.Array
    fleiss: jax.Array
    ac1: jax.Array
    brennan_prediger: jax.Array
    light: jax.Array


def agreement_totals(
    ratings: jax.Array,
    num_categories: int,
    *,
    where: jax.Array | None = None,
    unit_weights: jax.Array | None = None,
) -> AgreementTotals:
    """The sums over units that `coefficients` needs.

    Args:
      ratings: `[R, N]` int category ids in `[0, K)`; others count as missing.
      num_categories: K.
      where: `[R, N]` bool, False where a rating is missing.
      unit_weights: `[N]` non-negative float.

    Returns:
      `AgreementTotals`; all 0 without ratings.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      The formulas in `agreement`, `kappa` and `alpha`.

    >>> totals = agreement_totals(jnp.array([[0, 1, 2, 2], [0, 1, 2, 1]]), 3)
    >>> print(totals.paired, totals.disagreeing, totals.shares)
    4.0 1.0 [1.  1.5 1.5]
    """
    caller = "totals.agreement_totals"
    table = _ratings.counted(caller, ratings, num_categories, where, unit_weights)
    paired_n = jnp.where(table.paired, table.weight, 0.0)
    rated_n = jnp.where(table.rated, table.weight, 0.0)
    distance_kk = 1.0 - jnp.eye(num_categories, dtype=table.weight.dtype)
    return AgreementTotals(
        paired=paired_n.sum(),
        disagreeing=(paired_n * _chance.disagreeing_share(table, distance_kk)).sum(),
        shares=jnp.matmul(rated_n, _chance.unit_shares(table), precision=_chance.EXACT),
        coincidence=_chance.coincidences(table),
        tables=_chance.pair_tables(table),
    )


def unit_totals(
    ratings: jax.Array, num_categories: int, *, where: jax.Array | None = None
) -> AgreementTotals:
    """The contribution of every unit to `agreement_totals`, for resampling.

    `weights @ contribution` are the totals of a weighted sample: what
    `cluster_bootstrap` does, or `resampled_coefficients` for many resamples at once.

    Args:
      ratings: `[R, N]` int category ids in `[0, K)`; use patterns if N is large, as
        the tables of pairs of raters take (R K)^2 numbers per unit.
      num_categories: K.
      where: `[R, N]` bool, False where a rating is missing.

    Returns:
      `AgreementTotals` with a leading axis N on every array.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      The formulas in `agreement`, `kappa` and `alpha`.

    >>> per_unit = unit_totals(jnp.array([[0, 1, 2, 2], [0, 1, 2, 1]]), 3)
    >>> per_unit.disagreeing.tolist(), per_unit.tables.shape
    ([0.0, 0.0, 0.0, 1.0], (4, 2, 2, 3, 3))
    """
    caller = "totals.unit_totals"
    table = _ratings.counted(caller, ratings, num_categories, where, None)

    def of_unit(onehot_rk: jax.Array, count_k: jax.Array, total: jax.Array):
        one = Counted(onehot_rk[:, None], count_k[None], total[None], jnp.ones((1,)))
        distance_kk = 1.0 - jnp.eye(num_categories, dtype=one.weight.dtype)
        return AgreementTotals(
            paired=one.paired[0].astype(one.weight.dtype),
            disagreeing=_chance.disagreeing_share(one, distance_kk)[0],
            shares=_chance.unit_shares(one)[0],
            coincidence=_chance.coincidences(one),
            tables=_chance.pair_tables(one),
        )

    return jax.vmap(of_unit, in_axes=(1, 0, 0))(table.onehot, table.counts, table.total)


def coefficients(totals: AgreementTotals) -> Coefficients:
    """Eight coefficients of the totals.

    Args:
      totals: of `agreement_totals`, or any sum or weighted sum of such.

    Returns:
      `Coefficients`, each `[]`: percent agreement, alpha (nominal, ordinal, interval),
      Fleiss' kappa, AC1, Brennan-Prediger and Light's kappa, equal to the functions of
      these names. All but percent agreement are NaN if only one category occurs; all
      are without a pair.

    Reference:
      The formulas in `agreement`, `kappa` and `alpha`.

    >>> totals = agreement_totals(jnp.array([[0, 1, 2, 2], [0, 1, 2, 1]]), 3)
    >>> found = coefficients(totals)
    >>> print(f"{found.percent_agreement:.2f} {found.alpha_nominal:.3f}")
    0.75 0.667
    """
    totals = AgreementTotals(*(_work(x) for x in totals))
    k = totals.shares.shape[-1]
    unlike = ratio(totals.disagreeing, totals.paired)
    seen = divide(totals.disagreeing, totals.paired)
    pi_k = divide(totals.shares, totals.shares.sum())
    # Chance agrees with itself only where a second category occurs.
    varied = ((totals.shares > 0.0).sum() >= 2) & (totals.paired > 0.0)

    def beyond(expected: jax.Array) -> jax.Array:
        """Of the expected disagreement."""
        coefficient = 1.0 - seen / jnp.where(varied, expected, 1.0)
        return jnp.where(varied, coefficient, jnp.nan)

    margin_k = totals.coincidence.sum(-1)
    varied_pairs = (margin_k > 0.0).sum() >= 2
    c = np.arange(k)

    def alpha_at(distance_kk: jax.Array) -> jax.Array:
        value = alpha.alpha_of_coincidences(totals.coincidence, distance_kk)
        return jnp.where(varied_pairs, value, jnp.nan)

    identity_kk = jnp.eye(k, dtype=pi_k.dtype)
    squares_kk = jnp.asarray(np.subtract.outer(c, c) ** 2, pi_k.dtype)
    return Coefficients(
        percent_agreement=1.0 - unlike,
        alpha_nominal=alpha_at(1.0 - identity_kk),
        alpha_ordinal=alpha_at(alpha.ordinal_distance(margin_k)),
        alpha_interval=alpha_at(squares_kk),
        fleiss=beyond(((1.0 - identity_kk) * jnp.outer(pi_k, pi_k)).sum()),
        ac1=beyond(1.0 - (pi_k * (1.0 - pi_k)).sum() / max(k - 1, 1)),
        brennan_prediger=beyond(jnp.asarray(1.0 - 1.0 / k, pi_k.dtype)),
        light=_chance.mean_of_defined(
            _chance.kappa_of_tables(totals.tables, identity_kk)
        ),
    )


def agreement_coefficients(
    ratings: jax.Array,
    num_categories: int,
    *,
    where: jax.Array | None = None,
    unit_weights: jax.Array | None = None,
) -> Coefficients:
    """Eight coefficients of one table of ratings in one pass.

    Args:
      ratings: `[R, N]` int category ids in `[0, K)`; others count as missing.
      num_categories: K.
      where: `[R, N]` bool, False where a rating is missing.
      unit_weights: `[N]` non-negative float.

    Returns:
      `Coefficients`; NaN as in `coefficients`.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      The formulas in `agreement`, `kappa` and `alpha`.

    >>> found = agreement_coefficients(jnp.array([[0, 1, 2, 2], [0, 1, 2, 1]]), 3)
    >>> print(f"{found.fleiss:.3f} {found.brennan_prediger:.3f} {found.light:.3f}")
    0.619 0.625 0.636
    """
    return coefficients(
        agreement_totals(
            ratings, num_categories, where=where, unit_weights=unit_weights
        )
    )


def resampled_coefficients(
    per_unit: AgreementTotals, unit_weights: jax.Array
) -> Coefficients:
    """Eight coefficients of many weightings of the same units at once.

    Args:
      per_unit: of `unit_totals`, on units or on patterns.
      unit_weights: `[S, N]` non-negative float, a row per resample, for example of
        `resample_counts`.

    Returns:
      `Coefficients`, each `[S]`.

    Raises:
      ValueError: if the weights have another N than the totals.

    Reference:
      Davison and Hinkley 1997, "Bootstrap methods and their application", section 3.8.

    >>> per_unit = unit_totals(jnp.array([[0, 1, 2, 2], [0, 1, 2, 1]]), 3)
    >>> twice = jnp.array([[1.0, 1.0, 1.0, 1.0], [2.0, 0.0, 0.0, 2.0]])
    >>> resampled_coefficients(per_unit, twice).percent_agreement.tolist()
    [0.75, 0.5]
    """
    n = per_unit.paired.shape[0]
    if unit_weights.ndim != 2 or unit_weights.shape[1] != n:
        raise ValueError(
            f"totals.resampled_coefficients: unit_weights has shape "
            f"{unit_weights.shape}; expected [S, N] with N={n} as in per_unit."
        )
    weight_sn = _work(unit_weights)

    def weighted(x: jax.Array) -> jax.Array:
        flat = _work(x).reshape(n, -1)
        total = jnp.matmul(weight_sn, flat, precision=_chance.EXACT)
        return total.reshape(-1, *x.shape[1:])

    return jax.vmap(coefficients)(jax.tree.map(weighted, per_unit))


def _work(x: jax.Array) -> jax.Array:
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
