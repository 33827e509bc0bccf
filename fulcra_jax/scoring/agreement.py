# SPDX-License-Identifier: Apache-2.0
"""Agreement of raters beyond chance, as pure functions of a table of ratings.

Every coefficient is (p_a - p_e) / (1 - p_e): the share p_a of agreeing pairs of raters,
corrected by the share p_e that chance would give; they differ in what chance is.

Axes: R raters, N units, K categories. `ratings` are category ids: labels -1/0/+1 go
through `ratings_of_labels` first, because an id outside `[0, K)` counts as missing. An
entry with `where=False` is never read. K is declared, because Brennan-Prediger, AC1 and
the weighted coefficients change when a category that exists does not occur.
`unit_weights` say how often a unit counts, so that a `PatternTable` gives the same
figures as the units it was made of.

Undefined is NaN; `chance_corrected` says why, and gives standard errors.
"""

import jax

from fulcra_jax.scoring import _chance, _ratings
from fulcra_jax.scoring._chance import Weights


def percent_agreement(
    ratings: jax.Array,
    num_categories: int,
    *,
    weights: Weights = "identity",
    where: jax.Array | None = None,
    unit_weights: jax.Array | None = None,
) -> jax.Array:
    """The share of agreeing pairs of raters, averaged over units.

    p_a = mean over units with r_u >= 2 of sum_kl w_kl n_uk (n_ul - [k = l]) /
    (r_u (r_u - 1)). Mostly-zero labels agree often by chance alone: never print it
    without `expected` of `chance_corrected` beside it.

    Args:
      ratings: `[R, N]` int category ids in `[0, K)`.
      num_categories: K.
      weights: agreement of two categories: a name of `category_weights`, or `[K, K]`
        symmetric with 1 on the diagonal.
      where: `[R, N]` bool, False where a rating is missing.
      unit_weights: `[N]` non-negative float.

    Returns:
      `[]` float in [0, 1]; NaN if no unit has two ratings.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Gwet 2014, "Handbook of Inter-Rater Reliability", 4th edition, chapter 2.

    >>> ratings = jnp.array([[0, 1, 2, 2], [0, 1, 2, 1]])
    >>> print(f"{percent_agreement(ratings, 3):.2f}")
    0.75
    """
    caller = "agreement.percent_agreement"
    table = _ratings.counted(caller, ratings, num_categories, where, unit_weights)
    weights_kk = _chance.weight_matrix(caller, weights, table)
    distance_kk = _chance.disagreement(weights_kk)
    return 1.0 - _chance.observed_disagreement(table, distance_kk)


def brennan_prediger(
    ratings: jax.Array,
    num_categories: int,
    *,
    weights: Weights = "identity",
    where: jax.Array | None = None,
    unit_weights: jax.Array | None = None,
) -> jax.Array:
    """Brennan-Prediger (Randolph's free-marginal kappa; S for two raters).

    p_e = sum_kl w_kl / K^2: chance chooses among the declared categories evenly.

    Args:
      ratings: `[R, N]` int category ids in `[0, K)`.
      num_categories: K, declared: 3 for -1/0/+1 also where no -1 occurs.
      weights: a name of `category_weights` or `[K, K]`.
      where: `[R, N]` bool, False where a rating is missing.
      unit_weights: `[N]` non-negative float.

    Returns:
      `[]` float in (-inf, 1]; NaN if no unit has two ratings, or only one category
      occurs (the formula would give 1, whatever the raters are worth).

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Brennan and Prediger 1981, "Coefficient kappa: some uses, misuses, alternatives";
      Randolph 2005.

    >>> ratings, counts = scoring.ratings_of_table(jnp.array([[20, 20], [10, 50]]))
    >>> print(f"{brennan_prediger(ratings, 2, unit_weights=counts):.2f}")
    0.40
    """
    return _chance.coefficient(
        "agreement.brennan_prediger",
        "brennan_prediger",
        ratings,
        num_categories,
        weights,
        where,
        unit_weights,
    )


def gwet_ac1(
    ratings: jax.Array,
    num_categories: int,
    *,
    where: jax.Array | None = None,
    unit_weights: jax.Array | None = None,
) -> jax.Array:
    """Gwet's AC1, which a rare category does not pull to zero.

    p_e = sum_k pi_k (1 - pi_k) / (K - 1), pi as in `fleiss_kappa`.

    Args:
      ratings: `[R, N]` int category ids in `[0, K)`.
      num_categories: K.
      where: `[R, N]` bool, False where a rating is missing.
      unit_weights: `[N]` non-negative float.

    Returns:
      `[]` float in (-inf, 1]; NaN if no unit has two ratings, or only one category
      occurs (the formula would give 1, whatever the raters are worth).

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Gwet 2008, "Computing inter-rater reliability and its variance in the presence of
      high agreement".

    >>> ratings, counts = scoring.ratings_of_table(jnp.array([[118, 5], [2, 0]]))
    >>> print(f"{gwet_ac1(ratings, 2, unit_weights=counts):.3f}")
    0.941
    """
    return _chance.coefficient(
        "agreement.gwet_ac1",
        "gwet",
        ratings,
        num_categories,
        "identity",
        where,
        unit_weights,
    )


def gwet_ac2(
    ratings: jax.Array,
    num_categories: int,
    *,
    weights: Weights = "quadratic",
    where: jax.Array | None = None,
    unit_weights: jax.Array | None = None,
) -> jax.Array:
    """Gwet's AC2: AC1 with partial agreement between categories.

    p_e = sum_kl w_kl / (K (K - 1)) * sum_k pi_k (1 - pi_k).

    Args:
      ratings: `[R, N]` int category ids in `[0, K)`.
      num_categories: K.
      weights: a name of `category_weights` or `[K, K]`.
      where: `[R, N]` bool, False where a rating is missing.
      unit_weights: `[N]` non-negative float.

    Returns:
      `[]` float in (-inf, 1]; NaN as for `gwet_ac1`.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Gwet 2014, "Handbook of Inter-Rater Reliability", 4th edition, chapter 4.

    >>> ratings = jnp.array([[0, 1, 2, 2, 0], [0, 1, 2, 1, 0], [0, 1, 1, 2, 0]])
    >>> print(f"{gwet_ac2(ratings, 3):.3f}")
    0.805
    """
    return _chance.coefficient(
        "agreement.gwet_ac2",
        "gwet",
        ratings,
        num_categories,
        weights,
        where,
        unit_weights,
    )
