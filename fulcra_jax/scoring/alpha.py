# SPDX-License-Identifier: Apache-2.0
"""Krippendorff's alpha: observed over expected disagreement.

Axes: R raters, N units, K categories.
"""

from collections.abc import Sequence
from typing import get_args

import jax
import jax.numpy as jnp

from fulcra_jax import _check
from fulcra_jax.scoring import _chance, _ratings, categories
from fulcra_jax.scoring._ratings import divide
from fulcra_jax.scoring.categories import Level
from fulcra_jax.scoring.reasons import Reason


def krippendorff_alpha(
    ratings: jax.Array,
    num_categories: int,
    *,
    level: Level = "nominal",
    category_values: Sequence[float] | None = None,
    where: jax.Array | None = None,
    unit_weights: jax.Array | None = None,
) -> jax.Array:
    """Krippendorff's alpha, for any number of raters and missing ratings.

    alpha = 1 - (n - 1) sum_kl o_kl d_kl / sum_kl n_k n_l d_kl, with the coincidences
    o_kl = sum_u n_uk (n_ul - [k = l]) / (r_u - 1) over units with r_u >= 2, their
    margins n_k and total n. Every rating of a pair counts, not every unit.

    Labels -1/0/+1 are ordinal with a special 0 ("not expressed"): print the nominal and
    the interval level, and both on `mention_view` and `polarity_view`, to see which of
    the two the raters disagree on.

    Args:
      ratings: `[R, N]` int category ids in `[0, K)`; others count as missing.
      num_categories: K.
      level: "nominal" d = [k != l]; "ordinal" d = (sum of n_g from k to l -
        (n_k + n_l) / 2)^2; "interval" (x_k - x_l)^2; "ratio"
        ((x_k - x_l) / (x_k + x_l))^2. The ordinal level is not `weights="ordinal"` of
        the other coefficients.
      category_values: K increasing numbers x for interval and ratio; None stands for
        0 ... K-1. Needed and positive for ratio: labels with 0 have no ratio scale.
      where: `[R, N]` bool, False where a rating is missing.
      unit_weights: `[N]` non-negative float, taken as counts: n is the weighted total
        and must be above 1.

    Returns:
      `[]` float in (-inf, 1]: 1 is perfect, 0 is chance. NaN if no unit has two ratings
      or only one category occurs in those that have, or n <= 1.

    Raises:
      ValueError: if shapes disagree, or `ratio` is asked of values that are not all
        positive.
      KeyError: if the level is unknown.

    Reference:
      Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section E.

    >>> ratings = jnp.array([[0, 1, 2, 2], [0, 1, 2, 1]])
    >>> print(f"{krippendorff_alpha(ratings, 3):.3f}")
    0.667
    """
    caller = "alpha.krippendorff_alpha"
    _check.known(caller, "level", level, get_args(Level))
    table = _ratings.counted(caller, ratings, num_categories, where, unit_weights)
    coincidence_kk = _chance.coincidences(table)
    if level == "ordinal":
        distance_kk = ordinal_distance(coincidence_kk.sum(-1))
    else:
        distance_kk = jnp.asarray(
            categories.level_distance(level, num_categories, category_values),
            table.weight.dtype,
        )
    alpha = alpha_of_coincidences(coincidence_kk, distance_kk)
    # An exact 0/0 is NaN already; the reason catches what rounding leaves of it.
    reason = _chance.reason_of(_chance.pairable(table), distance=distance_kk)
    return jnp.where(reason == Reason.OK, alpha, jnp.nan)


def ordinal_distance(margin: jax.Array) -> jax.Array:
    """Krippendorff's ordinal distance, which depends on how often categories occur.

    d_kl = (sum_{g = k..l} n_g - (n_k + n_l) / 2)^2.

    Args:
      margin: `[K]` float, how often each category occurs in pairs.

    Returns:
      `[K, K]` float, symmetric, 0 on the diagonal.

    Raises:
      ValueError: if `margin` is no vector.

    Reference:
      Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section E.

    >>> ordinal_distance(jnp.array([2.0, 4.0, 2.0])).tolist()
    [[0.0, 9.0, 36.0], [9.0, 0.0, 9.0], [36.0, 9.0, 0.0]]
    """
    _check.shapes("alpha.ordinal_distance", margin=(margin, "K"))
    margin = jnp.asarray(margin)
    margin = margin.astype(jnp.promote_types(margin.dtype, jnp.float32))
    middle_k = jnp.cumsum(margin) - 0.5 * margin
    return (middle_k[:, None] - middle_k[None, :]) ** 2


def alpha_of_coincidences(coincidence: jax.Array, distance: jax.Array) -> jax.Array:
    """Alpha of a coincidence table and a distance.

    alpha = 1 - (n - 1) sum_kl o_kl d_kl / sum_kl n_k n_l d_kl.

    Args:
      coincidence: `[K, K]` non-negative float, symmetric, o_kl.
      distance: `[K, K]` float, d_kl.

    Returns:
      `[]` float; NaN where no disagreement is expected, or n is 1 or less.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section E.

    >>> coincidence = jnp.array([[2.0, 0.0, 0.0], [0.0, 2.0, 1.0], [0.0, 1.0, 2.0]])
    >>> print(f"{alpha_of_coincidences(coincidence, 1.0 - jnp.eye(3)):.3f}")
    0.667
    """
    _check.shapes(
        "alpha.alpha_of_coincidences",
        coincidence=(coincidence, "K K"),
        distance=(distance, "K K"),
    )
    dtype = jnp.promote_types(
        jnp.promote_types(coincidence.dtype, distance.dtype), jnp.float32
    )
    coincidence, distance = coincidence.astype(dtype), distance.astype(dtype)
    margin_k = coincidence.sum(-1)
    total = margin_k.sum()
    # Shares, not products of counts, which would lose digits in float32.
    share_k = divide(margin_k, total)
    observed = divide((coincidence * distance).sum(), total)
    expected = (jnp.outer(share_k, share_k) * distance).sum()
    rest = divide(jnp.maximum(total - 1.0, 0.0), total)
    usable = (rest > 0.0) & (expected != 0.0)
    alpha = 1.0 - rest * observed / jnp.where(usable, expected, 1.0)
    return jnp.where(usable, alpha, jnp.nan)
