# SPDX-License-Identifier: Apache-2.0
"""The kappas: chance with the category shares that the raters themselves show.

Each is (p_a - p_e) / (1 - p_e), as in `agreement`, where the arguments and the rules
for missing and undefined stand. Cohen, Light and Conger keep the shares of every rater
apart, Scott and Fleiss pool them.

Axes: R raters, N units, K categories.
"""

import jax
import jax.numpy as jnp

from fulcra_jax.scoring import _chance, _ratings
from fulcra_jax.scoring._chance import Weights


def cohen_kappa(
    ratings: jax.Array,
    num_categories: int,
    *,
    weights: Weights = "identity",
    where: jax.Array | None = None,
    unit_weights: jax.Array | None = None,
) -> jax.Array:
    """Cohen's kappa of two raters.

    p_e = sum_kl w_kl p_k. p_.l, each rater keeping his own category shares. Units that
    only one of the two rated are left out (pairwise deletion).

    Args:
      ratings: `[2, N]` int category ids in `[0, K)`.
      num_categories: K.
      weights: a name of `category_weights` ("linear", "quadratic", ...) or `[K, K]`.
      where: `[2, N]` bool, False where a rating is missing.
      unit_weights: `[N]` non-negative float.

    Returns:
      `[]` float in [-1, 1]: 1 is perfect, 0 is chance. NaN if no unit has both ratings
      or only one category occurs in them.

    Raises:
      ValueError: if there are not two raters or shapes disagree.

    Reference:
      Cohen 1960, "A coefficient of agreement for nominal scales"; Cohen 1968.

    >>> ratings, counts = scoring.ratings_of_table(jnp.array([[20, 5], [10, 15]]))
    >>> print(f"{cohen_kappa(ratings, 2, unit_weights=counts):.2f}")
    0.40
    """
    return _chance.coefficient(
        "kappa.cohen_kappa",
        "cohen",
        ratings,
        num_categories,
        weights,
        where,
        unit_weights,
    )


def light_kappa(
    ratings: jax.Array,
    num_categories: int,
    *,
    weights: Weights = "identity",
    where: jax.Array | None = None,
    unit_weights: jax.Array | None = None,
) -> jax.Array:
    """Light's kappa: the mean of Cohen's kappa over the pairs of raters.

    Args:
      ratings: `[R, N]` int category ids in `[0, K)`.
      num_categories: K.
      weights: a name of `category_weights` or `[K, K]`.
      where: `[R, N]` bool, False where a rating is missing; every pair keeps the units
        that both rated.
      unit_weights: `[N]` non-negative float.

    Returns:
      `[]` float in [-1, 1]. Pairs whose kappa is undefined are left out of the mean
      (see `pairwise_kappa` for which they are); NaN if none is left.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Light 1971, "Measures of response agreement for qualitative data".

    >>> ratings = jnp.array([[0, 1, 2, 2, 0], [0, 1, 2, 1, 0], [0, 1, 1, 2, 0]])
    >>> print(f"{light_kappa(ratings, 3):.3f}")
    0.596
    """
    kappa_rr = pairwise_kappa(
        ratings,
        num_categories,
        weights=weights,
        where=where,
        unit_weights=unit_weights,
    )
    return _chance.mean_of_defined(kappa_rr)


def pairwise_kappa(
    ratings: jax.Array,
    num_categories: int,
    *,
    weights: Weights = "identity",
    where: jax.Array | None = None,
    unit_weights: jax.Array | None = None,
) -> jax.Array:
    """Cohen's kappa of every pair of raters.

    Args:
      ratings: `[R, N]` int category ids in `[0, K)`.
      num_categories: K.
      weights: a name of `category_weights` or `[K, K]`.
      where: `[R, N]` bool, False where a rating is missing.
      unit_weights: `[N]` non-negative float.

    Returns:
      `[R, R]` float, symmetric; NaN on the diagonal and for a pair that has no unit in
      common or one category only.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Cohen 1960, "A coefficient of agreement for nominal scales".

    >>> pairwise_kappa(jnp.array([[0, 1, 0, 1], [0, 1, 0, 0]]), 2).tolist()
    [[nan, 0.5], [0.5, nan]]
    """
    caller = "kappa.pairwise_kappa"
    table = _ratings.counted(caller, ratings, num_categories, where, unit_weights)
    weights_kk = _chance.weight_matrix(caller, weights, table)
    return _chance.kappa_of_tables(_chance.pair_tables(table), weights_kk)


def conger_kappa(
    ratings: jax.Array,
    num_categories: int,
    *,
    weights: Weights = "identity",
    where: jax.Array | None = None,
    unit_weights: jax.Array | None = None,
) -> jax.Array:
    """Conger's kappa: Cohen's idea of chance for any number of raters.

    p_e = the mean over pairs of raters g != h of sum_kl w_kl p_gk p_hl. With two raters
    and no missing rating it is Cohen's kappa.

    Args:
      ratings: `[R, N]` int category ids in `[0, K)`.
      num_categories: K.
      weights: a name of `category_weights` or `[K, K]`.
      where: `[R, N]` bool, False where a rating is missing.
      unit_weights: `[N]` non-negative float.

    Returns:
      `[]` float in (-inf, 1]; NaN if no unit has two ratings or only one category
      occurs. A rater without any rating does not count.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Conger 1980, "Integration and generalization of kappas for multiple raters".

    >>> ratings = jnp.array([[0, 1, 2, 2, 0], [0, 1, 2, 1, 0], [0, 1, 1, 2, 0]])
    >>> print(f"{conger_kappa(ratings, 3):.3f}")
    0.600
    """
    return _chance.coefficient(
        "kappa.conger_kappa",
        "conger",
        ratings,
        num_categories,
        weights,
        where,
        unit_weights,
    )


def scott_pi(
    ratings: jax.Array,
    num_categories: int,
    *,
    weights: Weights = "identity",
    where: jax.Array | None = None,
    unit_weights: jax.Array | None = None,
) -> jax.Array:
    """Scott's pi of two raters.

    p_e = sum_kl w_kl pi_k pi_l with pi the mean of the two raters' shares. Units that
    only one of the two rated are left out.

    Args:
      ratings: `[2, N]` int category ids in `[0, K)`.
      num_categories: K.
      weights: a name of `category_weights` or `[K, K]`.
      where: `[2, N]` bool, False where a rating is missing.
      unit_weights: `[N]` non-negative float.

    Returns:
      `[]` float in [-1, 1]; NaN if no unit has both ratings or only one category occurs
      in them.

    Raises:
      ValueError: if there are not two raters or shapes disagree.

    Reference:
      Scott 1955, "Reliability of content analysis: the case of nominal scale coding".

    >>> ratings, counts = scoring.ratings_of_table(jnp.array([[20, 20], [10, 50]]))
    >>> print(f"{scott_pi(ratings, 2, unit_weights=counts):.3f}")
    0.341
    """
    return _chance.coefficient(
        "kappa.scott_pi",
        "scott",
        ratings,
        num_categories,
        weights,
        where,
        unit_weights,
    )


def fleiss_kappa(
    ratings: jax.Array,
    num_categories: int,
    *,
    weights: Weights = "identity",
    where: jax.Array | None = None,
    unit_weights: jax.Array | None = None,
) -> jax.Array:
    """Fleiss' kappa, for any number of raters and missing ratings.

    p_e = sum_kl w_kl pi_k pi_l, pi_k = the mean over rated units of n_uk / r_u. With
    the same number of ratings on every unit it is the original of 1971.

    Args:
      ratings: `[R, N]` int category ids in `[0, K)`; who rated does not matter.
      num_categories: K.
      weights: a name of `category_weights` or `[K, K]`.
      where: `[R, N]` bool, False where a rating is missing. A unit with one rating
        counts for pi, not for p_a.
      unit_weights: `[N]` non-negative float.

    Returns:
      `[]` float in (-inf, 1]; NaN if no unit has two ratings or only one category
      occurs.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Fleiss 1971, "Measuring nominal scale agreement among many raters"; Gwet 2014,
      chapter 2, for missing ratings.

    >>> ratings = jnp.array([[0, 1, 2, 2, 0], [0, 1, 2, 1, 0], [0, 1, 1, 2, 0]])
    >>> print(f"{fleiss_kappa(ratings, 3):.3f}")
    0.595
    """
    return _chance.coefficient(
        "kappa.fleiss_kappa",
        "fleiss",
        ratings,
        num_categories,
        weights,
        where,
        unit_weights,
    )


def fleiss_kappa_by_category(
    ratings: jax.Array,
    num_categories: int,
    *,
    where: jax.Array | None = None,
    unit_weights: jax.Array | None = None,
) -> jax.Array:
    """Fleiss' kappa of every category against all others.

    kappa_k = 1 - mean_u n_uk (r_u - n_uk) / (r_u (r_u - 1)) / (pi_k (1 - pi_k)), over
    the units with two ratings in the first mean and all rated units in pi.

    Args:
      ratings: `[R, N]` int category ids in `[0, K)`.
      num_categories: K.
      where: `[R, N]` bool, False where a rating is missing.
      unit_weights: `[N]` non-negative float.

    Returns:
      `[K]` float in (-inf, 1]; NaN for a category that never or always occurs.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Fleiss 1971, "Measuring nominal scale agreement among many raters", equation 15.

    >>> ratings = jnp.array([[0, 1, 2, 2, 0], [0, 1, 2, 1, 0], [0, 1, 1, 2, 0]])
    >>> print([round(float(k), 3) for k in fleiss_kappa_by_category(ratings, 3)])
    [1.0, 0.4, 0.318]
    """
    caller = "kappa.fleiss_kappa_by_category"
    table = _ratings.counted(caller, ratings, num_categories, where, unit_weights)
    weight_n = jnp.where(table.paired, table.weight, 0.0)
    r_n = jnp.where(table.paired, table.total, 2.0)[:, None]
    split_nk = (
        table.counts * (table.total[:, None] - table.counts) / (r_n * (r_n - 1.0))
    )
    split_k = jnp.matmul(weight_n, split_nk, precision=_chance.EXACT)
    observed_k = _ratings.ratio(split_k, weight_n.sum())
    pi_k = _chance.category_shares(table)
    # The sum of the others, not 1 - pi, which has no digits for a frequent category.
    others_k = jnp.where(jnp.eye(num_categories, dtype=bool), 0.0, pi_k[None]).sum(1)
    expected_k = pi_k * others_k
    defined_k = (expected_k > 0.0) & (weight_n.sum() > 0.0)
    observed_k = jnp.where(defined_k, observed_k, 0.0)
    kappa_k = 1.0 - observed_k / jnp.where(defined_k, expected_k, 1.0)
    return jnp.where(defined_k, kappa_k, jnp.nan)
