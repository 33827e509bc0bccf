# SPDX-License-Identifier: Apache-2.0
"""Agreement of raters who each give a set, for example the values they see in a text.

Axes: R raters, N units, M elements a set may hold, Q = R * N ratings.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from fulcra_jax import _check
from fulcra_jax.scoring import _em
from fulcra_jax.scoring._ratings import divide, ratio

Distance = Literal["jaccard", "masi"]


def set_distance(
    first: jax.Array, second: jax.Array, *, distance: Distance = "jaccard"
) -> jax.Array:
    """The distance of two sets.

    jaccard 1 - |A & B| / |A | B|; masi 1 - |A & B| / |A | B| * m, with m = 1 for equal
    sets, 2/3 if one holds the other, 1/3 if they overlap, 0 if they are disjoint.

    Args:
      first: `[..., M]` bool, True where the element is in the set.
      second: `[..., M]` bool.
      distance: the name.

    Returns:
      `[...]` float in [0, 1]; 0 for two empty sets: both say the same.

    Raises:
      ValueError: if the shapes disagree.
      KeyError: if the distance is unknown.

    Reference:
      Passonneau 2006, "Measuring agreement on set-valued items (MASI)". Some libraries
      round the factors to 0.67 and 0.33; these are exact.

    >>> first = jnp.array([True, True, False, False])
    >>> second = jnp.array([True, True, True, True])
    >>> print(f"{set_distance(first, second):.3f}")
    0.500
    >>> print(f"{set_distance(first, second, distance='masi'):.3f}")
    0.667
    """
    caller = "sets.set_distance"
    _check.shapes(caller, first=(first, "... M"), second=(second, "... M"))
    _check.known(caller, "distance", distance, get_args(Distance))
    dtype = jnp.zeros(()).dtype
    a, b = (jnp.asarray(x, bool).astype(dtype) for x in (first, second))
    return _distance((a * b).sum(-1), a.sum(-1), b.sum(-1), distance)


def set_alpha(
    sets: jax.Array,
    *,
    distance: Distance = "jaccard",
    where: jax.Array | None = None,
    unit_weights: jax.Array | None = None,
) -> jax.Array:
    """Krippendorff's alpha of set-valued ratings.

    alpha = 1 - D_o / D_e; D_o = (1/n) sum_u sum_{i != j} d / (r_u - 1) within units,
    D_e = sum over all pairs of ratings of d / (n (n - 1)), over units with two ratings.
    The work is Q^2 M multiplications, in blocks: 10,000 units of 5 raters are fine.

    Args:
      sets: `[R, N, M]` bool, True where the rater's set holds the element. For signed
        values see `signed_sets`.
      distance: "jaccard" or "masi", as in `set_distance`.
      where: `[R, N]` bool, False where a rating is missing (an empty set is a rating).
      unit_weights: `[N]` non-negative float.

    Returns:
      `[]` float in (-inf, 1]; NaN if no unit has two ratings or all sets are equal (as
      sets of M = 0 elements are), or if the ratings weigh no more than one.

    Raises:
      ValueError: if shapes disagree, the sets are not bool or the weight of a unit with
        two ratings is negative, infinite or NaN.
      KeyError: if the distance is unknown.

    Reference:
      Passonneau 2006; Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability".

    >>> sets = jnp.array([[[1, 0], [0, 1], [1, 1]], [[1, 0], [0, 1], [0, 1]]], bool)
    >>> print(f"{set_alpha(sets):.3f}")
    0.706
    """
    caller = "sets.set_alpha"
    size = _check.shapes(
        caller,
        sets=(sets, "R N M"),
        where=(where, "R N"),
        unit_weights=(unit_weights, "N"),
    )
    _check.known(caller, "distance", distance, get_args(Distance))
    if sets.dtype != bool:
        raise ValueError(
            f"{caller}: sets has dtype {sets.dtype}; expected bool [R, N, M], True "
            "where the set holds the element (signed_sets makes them of class ids)."
        )
    present_rn = jnp.ones(sets.shape[:2], bool)
    if where is not None:
        present_rn = jnp.asarray(where, bool)
    dtype = _em.work_dtype(unit_weights)
    weight_n = _em.weights(
        caller, "unit_weights", unit_weights, present_rn.sum(0) >= 2, dtype
    )
    total_n = present_rn.sum(0).astype(dtype)
    paired_n = weight_n > 0.0
    present_rn &= paired_n[None]
    x_rnm = (jnp.asarray(sets, bool) & present_rn[..., None]).astype(weight_n.dtype)
    rating_rn = jnp.where(present_rn, weight_n[None], 0.0)
    n = rating_rn.sum()
    observed = ratio(
        (
            divide(jnp.where(paired_n, weight_n, 0.0), total_n - 1.0)
            * _within(x_rnm, present_rn, distance)
        ).sum(),
        n,
    )
    flat_qm = x_rnm.reshape(size["R"] * size["N"], size["M"])
    expected = _between(flat_qm, rating_rn.reshape(-1), distance)
    result = 1.0 - ratio(observed * (n - 1.0), ratio(expected, n))
    return jnp.where(n > 1.0, result, jnp.nan)


def signed_sets(ratings: jax.Array, *, num_categories: int = 3) -> jax.Array:
    """The set of (value, sign) pairs that a vector of labels mentions.

    Args:
      ratings: `[..., V]` int class ids 0, 1, 2 of labels -1, 0, +1.
      num_categories: 3; only ternary labels have signs.

    Returns:
      `[..., 2 V]` bool: first the V values with label -1, then those with +1.

    Raises:
      ValueError: if `num_categories` is not 3.

    Reference:
      The label lists of the released data, which name a value with its sign.

    >>> signed_sets(jnp.array([0, 1, 2])).tolist()
    [True, False, False, False, False, True]
    """
    if num_categories != 3:
        raise ValueError(
            f"sets.signed_sets: num_categories is {num_categories}; expected 3, the "
            "labels -1, 0, +1."
        )
    ratings = jnp.asarray(ratings)
    _check.ids("sets.signed_sets", "ratings", ratings, 3)
    return jnp.concatenate([ratings == 0, ratings == 2], axis=-1)


def _distance(
    both: jax.Array, size_a: jax.Array, size_b: jax.Array, distance: Distance
) -> jax.Array:
    either = size_a + size_b - both
    jaccard = jnp.where(either > 0.0, divide(both, either), 1.0)
    if distance == "jaccard":
        return 1.0 - jaccard
    smaller = jnp.minimum(size_a, size_b)
    factor = jnp.where(both == smaller, 2.0 / 3.0, 1.0 / 3.0)
    factor = jnp.where(size_a == size_b, jnp.where(both == size_a, 1.0, factor), factor)
    return 1.0 - jaccard * factor


def _within(x_rnm: jax.Array, present_rn: jax.Array, distance: Distance) -> jax.Array:
    """`[N]` the sum of distances over ordered pairs of a unit's ratings."""
    size_rn = x_rnm.sum(-1)
    both_ghn = jnp.einsum("gnm,hnm->ghn", x_rnm, x_rnm)
    shape = both_ghn.shape
    distance_ghn = _distance(
        both_ghn,
        jnp.broadcast_to(size_rn[:, None], shape),
        jnp.broadcast_to(size_rn[None], shape),
        distance,
    )
    pair_ghn = present_rn[:, None] & present_rn[None]
    return jnp.where(pair_ghn, distance_ghn, 0.0).sum((0, 1))


def _between(x_qm: jax.Array, weight_q: jax.Array, distance: Distance) -> jax.Array:
    """The weighted sum of distances over all ordered pairs of ratings."""
    size_q = x_qm.sum(-1)

    def row(one: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        x_m, size, weight = one
        both_q = x_qm @ x_m
        distance_q = _distance(
            both_q, jnp.broadcast_to(size, both_q.shape), size_q, distance
        )
        return weight * (weight_q * distance_q).sum()

    rows = jax.lax.map(row, (x_qm, size_q, weight_q), batch_size=256)
    return rows.sum()
