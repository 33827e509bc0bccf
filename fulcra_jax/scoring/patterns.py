# SPDX-License-Identifier: Apache-2.0
"""A table of rating patterns: each distinct column of ratings once, with its count.

Five annotators, three labels and missing make 1,024 patterns, whatever the number of
units. Coefficients, resamples and Dawid-Skene depend on the units through these counts
only, so the table is an exact stand-in for any number of units: pass its `counts` as
`unit_weights`.

Axes: R raters, N units, P patterns, K categories.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from fulcra_jax import _check
from fulcra_jax.scoring import _ratings, _sums

FIXED = 4096
"""The largest table of all possible patterns; beyond it only those that occur."""


class PatternTable(NamedTuple):
    """Distinct columns of ratings and how often they occur."""

    ratings: jax.Array
    """`[R, P]` int32 category ids, 0 where missing."""
    where: jax.Array
    """`[R, P]` bool, False where missing."""
    counts: jax.Array
    """`[P]` float, how often the pattern occurs; 0 for one that does not."""
    pattern_of_unit: jax.Array
    """`[N]` int32, to gather results per pattern back to the units."""


def pattern_table(
    ratings: jax.Array,
    num_categories: int,
    *,
    where: jax.Array | None = None,
    unit_weights: jax.Array | None = None,
    anonymous: bool = False,
    num_patterns: int | None = None,
) -> PatternTable:
    """The patterns of a table of ratings.

    If all (K + 1)^R possible patterns are at most 4,096, the table holds all of them:
    its shape depends on R and K alone, one compilation serves every N, and the function
    works under `jit` and `vmap` (one table per value, of equal shape). Otherwise it is
    made on the host of the patterns that occur, and padded with patterns of count 0 to
    a power of two, so that few shapes are compiled.

    Who rated matters to Cohen, Light, Conger and Dawid-Skene only. For all others
    `anonymous` patterns do, of which there are far fewer: C(R + K, K), 56 instead of
    1,024 for five raters and three categories, 455 for twelve raters.

    Args:
      ratings: `[R, N]` int category ids in `[0, K)`; others count as missing.
      num_categories: K.
      where: `[R, N]` bool, False where a rating is missing.
      unit_weights: `[N]` non-negative float, how often a unit counts.
      anonymous: True forgets who rated: a pattern is how many raters gave each
        category, and its ratings stand in the first rows. Where no unit has two
        ratings, the reason is then `Reason.ONE_RATER`, whoever gave them.
      num_patterns: P of a table made on the host, to give several tables one shape.

    Returns:
      A `PatternTable`. In float32 counts are exact up to 2**24.

    Raises:
      ValueError: if shapes disagree, `num_patterns` is too small, or the function is
        traced though there are more than 4,096 possible patterns: then make the table
        outside `jit`, or use the ratings themselves (the dense path).

    Reference:
      Sufficiency of the counts: every statistic in this room is a function of the
      empirical distribution of rating columns, which they are.

    >>> table = pattern_table(jnp.array([[0, 1, 0, 0], [0, 1, 0, 1]]), 2)
    >>> occurs = table.counts > 0
    >>> table.ratings[:, occurs].tolist(), table.counts[occurs].tolist()
    ([[0, 0, 1], [0, 1, 1]], [2.0, 1.0, 1.0])
    """
    caller = "patterns.pattern_table"
    _check.shapes(
        caller,
        ratings=(ratings, "R N"),
        where=(where, "R N"),
        unit_weights=(unit_weights, "N"),
    )
    _ratings.categories(caller, num_categories)
    _ratings.integers(caller, "ratings", ratings)
    _check.ids(caller, "ratings", ratings, num_categories, where)
    unit_weights = _ratings.weights_of_units(
        caller, ratings, num_categories, where, unit_weights
    )
    raters = ratings.shape[0]
    if anonymous:
        possible = (raters + 1) ** num_categories
        if possible <= FIXED:
            return _all_counts(ratings, num_categories, where, unit_weights)
    else:
        possible = (num_categories + 1) ** raters
        if possible <= FIXED:
            return _all_patterns(ratings, num_categories, where, unit_weights)
    if any(isinstance(x, Tracer) for x in (ratings, where, unit_weights)):
        raise ValueError(
            f"{caller}: {raters} raters and {num_categories} categories have "
            f"{possible} patterns, more than {FIXED}, and cannot be tabulated while "
            "tracing; make the table outside jit or use the ratings themselves."
        )
    return _found_patterns(
        caller, ratings, num_categories, where, unit_weights, anonymous, num_patterns
    )


def ratings_of_labels(labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Category ids of labels -1, 0, +1, which the functions of this room want.

    A label of -1 passed on as it is would count as missing, without a word.

    Args:
      labels: `[...]` int or float: -1, 0, +1; anything else, NaN too, is missing.

    Returns:
      `ratings [...]` int32 ids 0, 1, 2 (0 where missing) and `where [...]` bool.

    Raises:
      ValueError: if `labels` is no array.

    Reference:
      The class order (-1, 0, +1) of this project.

    >>> ratings, where = ratings_of_labels(jnp.array([[-1.0, 0.0], [1.0, jnp.nan]]))
    >>> ratings.tolist(), where.tolist()
    ([[0, 1], [2, 0]], [[True, True], [True, False]])
    """
    _check.shapes("patterns.ratings_of_labels", labels=(labels, "..."))
    labels = jnp.asarray(labels)
    where = (labels == -1) | (labels == 0) | (labels == 1)
    return jnp.where(where, labels, -1).astype(jnp.int32) + 1, where


def ratings_of_table(table: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The ratings that a two-rater contingency table stands for.

    Args:
      table: `[K, K]` counts, rows = first rater, columns = second rater.

    Returns:
      `ratings [2, K * K]` int32 and `unit_weights [K * K]` float, the arguments of the
      coefficients.

    Raises:
      ValueError: if the table is not square.

    Reference:
      Cohen 1960, "A coefficient of agreement for nominal scales".

    >>> ratings, counts = ratings_of_table(jnp.array([[20, 5], [10, 15]]))
    >>> ratings.tolist(), counts.tolist()
    ([[0, 0, 1, 1], [0, 1, 0, 1]], [20.0, 5.0, 10.0, 15.0])
    """
    size = _check.shapes("patterns.ratings_of_table", table=(table, "K K"))
    ids_kk = np.indices((size["K"], size["K"])).reshape(2, -1).astype(np.int32)
    table = jnp.asarray(table)
    dtype = jnp.promote_types(table.dtype, jnp.zeros(()).dtype)
    if jnp.issubdtype(table.dtype, jnp.floating):
        dtype = jnp.promote_types(table.dtype, jnp.float32)
    return jnp.asarray(ids_kk), table.reshape(-1).astype(dtype)


def ratings_of_counts(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ratings with the category counts of Fleiss' form; who rated is not known.

    Args:
      counts: `[N, K]` whole numbers, how many raters gave the category. A host array:
        the number of raters is its largest row sum.

    Returns:
      `ratings [R, N]` int32 and `where [R, N]` bool. Only coefficients that do not ask
      who rated make sense: percent agreement, Fleiss, AC1, AC2, Brennan-Prediger and
      alpha; not Cohen, Conger, Light or Dawid-Skene.

    Raises:
      ValueError: if a count is negative or no whole number.

    Reference:
      Fleiss 1971, "Measuring nominal scale agreement among many raters".

    >>> ratings, where = ratings_of_counts(np.array([[2, 1], [0, 2]]))
    >>> ratings.tolist(), where.tolist()
    ([[0, 1], [0, 1], [1, 0]], [[True, True], [True, True], [True, False]])
    """
    caller = "patterns.ratings_of_counts"
    counts = np.asarray(counts)
    _check.shapes(caller, counts=(counts, "N K"))
    whole = counts.astype(np.int64)
    if (whole != counts).any() or (whole < 0).any():
        raise ValueError(f"{caller}: counts must be whole numbers of at least 0.")
    upto_nk = whole.cumsum(1)
    total_n = whole.sum(1)
    place_r = np.arange(max(int(total_n.max(initial=0)), 1))
    # The category of a place is how many cumulated counts it has passed.
    ratings = (place_r[:, None, None] >= upto_nk[None]).sum(-1)
    where = place_r[:, None] < total_n[None]
    return np.where(where, ratings, 0).astype(np.int32), where


def _all_patterns(
    ratings: jax.Array,
    num_categories: int,
    where: jax.Array | None,
    unit_weights: jax.Array | None,
) -> PatternTable:
    raters, base = ratings.shape[0], num_categories + 1
    size = base**raters
    digit_rn = _digits(ratings, num_categories, where)
    # The first rater is the slowest digit, so that patterns stand in reading order.
    index_n = jnp.zeros(ratings.shape[1:], jnp.int32)
    for r in range(raters):
        index_n = index_n * base + digit_rn[r]
    counts_p = _histogram(index_n, size, unit_weights)
    grid_rp = np.indices((base,) * raters).reshape(raters, size)
    return _table(grid_rp, num_categories, counts_p, index_n)


def _all_counts(
    ratings: jax.Array,
    num_categories: int,
    where: jax.Array | None,
    unit_weights: jax.Array | None,
) -> PatternTable:
    raters = ratings.shape[0]
    digit_rn = _digits(ratings, num_categories, where)
    code_n = jnp.zeros(ratings.shape[1:], jnp.int32)
    for k in range(num_categories):
        code_n = code_n * (raters + 1) + (digit_rn == k).sum(0).astype(jnp.int32)
    shape = (raters + 1,) * num_categories
    count_pk = np.indices(shape).reshape(num_categories, -1).T
    possible = count_pk.sum(1) <= raters
    place_c = np.cumsum(possible) - 1
    count_pk = count_pk[possible]
    grid_rp, where_rp = ratings_of_counts(count_pk)
    grid_rp = np.where(where_rp, grid_rp, num_categories)
    index_n = jnp.asarray(place_c, jnp.int32)[code_n]
    counts_p = _histogram(index_n, len(count_pk), unit_weights)
    return _table(grid_rp, num_categories, counts_p, index_n)


def _digits(
    ratings: jax.Array, num_categories: int, where: jax.Array | None
) -> jax.Array:
    """`[R, N]` int32 category ids, K where missing."""
    digit_rn = jnp.asarray(ratings)
    present_rn = (digit_rn >= 0) & (digit_rn < num_categories)
    if where is not None:
        present_rn &= jnp.asarray(where, bool)
    return jnp.where(present_rn, digit_rn, num_categories).astype(jnp.int32)


def _table(
    grid_rp: np.ndarray, num_categories: int, counts_p: jax.Array, index_n: jax.Array
) -> PatternTable:
    present_rp = grid_rp < num_categories
    return PatternTable(
        ratings=jnp.asarray(np.where(present_rp, grid_rp, 0), jnp.int32),
        where=jnp.asarray(present_rp),
        counts=counts_p,
        pattern_of_unit=index_n,
    )


def _histogram(
    index_n: jax.Array, size: int, unit_weights: jax.Array | None
) -> jax.Array:
    if unit_weights is None:
        counts_p = jnp.zeros((size,), jnp.int32).at[index_n].add(1)
        return counts_p.astype(jnp.zeros(()).dtype)
    return _sums.segment_sum(unit_weights, index_n, size)


def _found_patterns(
    caller: str,
    ratings: jax.Array,
    num_categories: int,
    where: jax.Array | None,
    unit_weights: jax.Array | None,
    anonymous: bool,
    num_patterns: int | None,
) -> PatternTable:
    digit_rn = np.asarray(ratings).astype(np.int64)
    present_rn = (digit_rn >= 0) & (digit_rn < num_categories)
    if where is not None:
        present_rn &= np.asarray(where, bool)
    digit_rn = np.where(present_rn, digit_rn, num_categories)
    if anonymous:
        digit_rn = np.sort(digit_rn, axis=0)
    columns_nr = np.ascontiguousarray(digit_rn.T.astype(np.int32))
    found_pr, index_n = np.unique(columns_nr, axis=0, return_inverse=True)
    found = found_pr.shape[0]
    size = num_patterns or 1 << max(found - 1, 0).bit_length()
    if size < found:
        raise ValueError(
            f"{caller}: num_patterns is {size}, but {found} patterns occur."
        )
    grid_rp = np.full((digit_rn.shape[0], size), num_categories)
    grid_rp[:, :found] = found_pr.T
    index_n = jnp.asarray(index_n.reshape(-1), jnp.int32)
    counts_p = _histogram(index_n, size, unit_weights)
    return _table(grid_rp, num_categories, counts_p, index_n)
