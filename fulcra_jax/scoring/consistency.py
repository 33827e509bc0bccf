# SPDX-License-Identifier: Apache-2.0
"""How consistent repeated answers to the same question are.

A language model labels a text several times. Within one cell (a text and a value) the
answers are counts of categories; within a text they are vectors of labels or sets of
signed values. The paper behind this project says "consistency above 80 %" and not of
what, so several measures stand here under names of their own.

**The default is the signed Jaccard** (`pass_consistency`): the mean over pairs of
passes of |A & B| / |A | B| for the sets of (value, sign) that the two passes name.
Three labels in four are 0, so that the share of equal cells (`kind="cell"`) is 73 % for
two passes that know nothing but the base rates, and "80 % consistent" is a kappa of
0.25; zeros that both leave out do not enter the Jaccard. Whatever is chosen, print it
beside what chance gives and the base rate: `consistency_summary`.

Axes: R passes, N texts, V values, K categories. Class ids are label + 1.
"""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from fulcra_jax import _check
from fulcra_jax.scoring import _chance, _ratings, sets, standard_errors
from fulcra_jax.scoring._ratings import divide, ratio

Measure = Literal["jaccard", "cell", "vector"]


class ConsistencySummary(NamedTuple):
    """The agreement of passes beside chance and base rate; each `[V]`, or `[]`."""

    observed: jax.Array
    """`[V]` the share of agreeing pairs of passes."""
    expected: jax.Array
    """`[V]` the share that passes with these base rates agree on by chance (Fleiss)."""
    base_rate: jax.Array
    """`[V]` the share of labels that are not 0."""
    alpha: jax.Array
    """`[V]` Krippendorff's alpha, nominal."""
    ac1: jax.Array
    """`[V]` Gwet's AC1."""
    reason: jax.Array
    """`[V]` int32 code of `Reason`: why alpha and AC1 are NaN."""
    jaccard: jax.Array
    """`[]` the mean over texts of the signed Jaccard."""
    jaccard_by_chance: jax.Array
    """`[]` the same between passes over different texts."""


def majority_share(
    ratings: jax.Array, num_categories: int, *, where: jax.Array | None = None
) -> jax.Array:
    """The share of the most frequent answer: max_k c_k / n.

    Biased upward as a measure of agreement: five passes and three categories make it
    at least 0.4 (see `pair_agreement`).

    Args:
      ratings: `[R, N]` int category ids in `[0, K)`; others count as missing.
      num_categories: K.
      where: `[R, N]` bool, False where a pass has no answer.

    Returns:
      `[N]` float in [1/K, 1]; NaN without an answer. `majority_vote` gives the label,
      and none for a tie.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Wang et al. 2023, "Self-consistency improves chain of thought reasoning".

    >>> majority_share(jnp.array([[0, 1], [0, 1], [2, 1], [0, 0]]), 3).tolist()
    [0.75, 0.75]
    """
    count_nk, total_n = _counts(
        "consistency.majority_share", ratings, num_categories, where
    )
    return ratio(count_nk.max(-1), total_n)


def majority_margin(
    ratings: jax.Array, num_categories: int, *, where: jax.Array | None = None
) -> jax.Array:
    """The lead of the most frequent answer: (c_1 - c_2) / n.

    Args:
      ratings: `[R, N]` int category ids in `[0, K)`; others count as missing.
      num_categories: K.
      where: `[R, N]` bool, False where a pass has no answer.

    Returns:
      `[N]` float in [0, 1]: 0 is a tie; NaN without an answer.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Scheffer, Decomain and Wrobel 2001, "Active hidden Markov models" (margin).

    >>> majority_margin(jnp.array([[0, 1], [0, 1], [2, 0], [0, 0]]), 3).tolist()
    [0.5, 0.0]
    """
    caller = "consistency.majority_margin"
    count_nk, total_n = _counts(caller, ratings, num_categories, where)
    if num_categories == 1:
        return ratio(count_nk[:, 0], total_n)
    first_n, second_n = jax.lax.top_k(count_nk, 2)[0].T
    return ratio(first_n - second_n, total_n)


def label_entropy(
    ratings: jax.Array,
    num_categories: int,
    *,
    normalise: bool = True,
    where: jax.Array | None = None,
) -> jax.Array:
    """The entropy of the answers: -sum_k p_k log2 p_k, over log2 K if normalised.

    Args:
      ratings: `[R, N]` int category ids in `[0, K)`; others count as missing.
      num_categories: K.
      normalise: False for bits.
      where: `[R, N]` bool, False where a pass has no answer.

    Returns:
      `[N]` float, 0 if all answers are equal and 1 (or log2 K bits) if all categories
      are equally frequent; NaN without an answer.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Shannon 1948, "A mathematical theory of communication".

    >>> label_entropy(jnp.array([[0, 1], [0, 0]]), 2).tolist()
    [0.0, 1.0]
    """
    caller = "consistency.label_entropy"
    count_nk, total_n = _counts(caller, ratings, num_categories, where)
    p_nk = divide(count_nk, total_n[:, None])
    safe_nk = jnp.where(p_nk > 0.0, p_nk, 1.0)
    bits_n = -(p_nk * jnp.log2(safe_nk)).sum(-1)
    if normalise and num_categories > 1:
        bits_n = bits_n / jnp.log2(jnp.asarray(num_categories, bits_n.dtype))
    # The sum is -0.0 for equal answers.
    return jnp.where(total_n > 0.0, jnp.maximum(bits_n, 0.0), jnp.nan)


def pair_agreement(
    ratings: jax.Array, num_categories: int, *, where: jax.Array | None = None
) -> jax.Array:
    """The share of agreeing pairs of passes: sum_k c_k (c_k - 1) / (n (n - 1)).

    The unbiased estimate of how often two fresh passes would agree.

    Args:
      ratings: `[R, N]` int category ids in `[0, K)`; others count as missing.
      num_categories: K.
      where: `[R, N]` bool, False where a pass has no answer.

    Returns:
      `[N]` float in [0, 1]; NaN with fewer than two answers.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Simpson 1949, "Measurement of diversity" (the unbiased form); Fleiss 1971.

    >>> pair_agreement(jnp.array([[0, 1], [0, 1], [2, 1]]), 3).tolist()
    [0.3333333432674408, 1.0]
    """
    caller = "consistency.pair_agreement"
    count_nk, total_n = _counts(caller, ratings, num_categories, where)
    pairs_n = jnp.where(total_n >= 2.0, total_n * (total_n - 1.0), 0.0)
    return ratio((count_nk * (count_nk - 1.0)).sum(-1), pairs_n)


def pass_consistency(
    ratings: jax.Array,
    *,
    kind: Measure = "jaccard",
    where: jax.Array | None = None,
) -> jax.Array:
    """The consistency of the passes over each text.

    The mean over pairs of passes of "jaccard" |A & B| / |A | B| of the sets of signed
    values (two empty sets agree: 1); "cell" the share of values with equal labels;
    "vector" 1 if all labels are equal, else 0. Why "jaccard" is the default stands at
    the top of this module.

    Args:
      ratings: `[R, N, V]` int class ids 0, 1, 2 of labels -1, 0, +1, one pass a row.
      kind: the measure.
      where: `[R, N, V]` bool, False where a pass has no label for a value. A pair of
        passes is compared on the values that both have; a pair without any does not
        count.

    Returns:
      `[N]` float in [0, 1]; NaN for a text with fewer than two comparable passes. A
      mean of ratios, right to a few units in the last place: compare it with a
      threshold by `needs_review`, which allows for that.

    Raises:
      ValueError: if shapes disagree.
      KeyError: if the kind is unknown.

    Reference:
      Yao et al. 2024 (arXiv 2311.10766), section 3.3: consistency of repeated answers,
      without the formula.

    >>> passes = jnp.array([[[2, 1, 1]], [[2, 1, 1]], [[2, 1, 0]]])
    >>> [f"{pass_consistency(passes, kind=k)[0]:.2f}" for k in ("jaccard", "cell")]
    ['0.67', '0.78']
    """
    caller = "consistency.pass_consistency"
    _check.known(caller, "kind", kind, get_args(Measure))
    return _mean_over_pairs(*_compare(caller, ratings, where, kind))


def set_consistency(ratings: jax.Array, *, where: jax.Array | None = None) -> jax.Array:
    """The mean signed Jaccard of pairs of passes: `pass_consistency(kind="jaccard")`.

    Args:
      ratings: `[R, N, V]` int class ids 0, 1, 2 of labels -1, 0, +1, one pass a row.
      where: `[R, N, V]` bool, False where a pass has no label for a value.

    Returns:
      `[N]` float in [0, 1]; NaN for a text with fewer than two comparable passes.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Jaccard 1912, "The distribution of the flora in the alpine zone".

    >>> set_consistency(jnp.array([[[2, 1], [1, 1]], [[2, 2], [1, 1]]])).tolist()
    [0.5, 1.0]
    """
    return pass_consistency(ratings, kind="jaccard", where=where)


def consistency_summary(
    ratings: jax.Array, *, where: jax.Array | None = None
) -> ConsistencySummary:
    """Agreement of passes per value, with what chance gives and the base rate.

    Args:
      ratings: `[R, N, V]` int class ids 0, 1, 2 of labels -1, 0, +1, one pass a row.
      where: `[R, N, V]` bool, False where a pass has no label for a value.

    Returns:
      `ConsistencySummary`; NaN where a value has no text with two labels. The Jaccard
      by chance compares every pass of a text with the other passes of the text half the
      table away; NaN for a single text.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Fleiss 1971; Krippendorff 2011; Gwet 2008.

    >>> passes = jnp.array([[[2, 1], [1, 1], [1, 1]], [[2, 1], [1, 1], [1, 2]]])
    >>> summary = consistency_summary(passes)
    >>> [f"{x:.2f}" for x in summary.observed], [f"{x:.2f}" for x in summary.expected]
    (['1.00', '0.67'], ['0.56', '0.72'])
    """
    caller = "consistency.consistency_summary"
    _check.shapes(caller, ratings=(ratings, "R N V"), where=(where, "R N V"))
    present = jnp.ones(ratings.shape, bool)
    if where is not None:
        present = jnp.asarray(where, bool)

    def of_value(ratings_rn: jax.Array, where_rn: jax.Array):
        fleiss = standard_errors.chance_corrected(
            ratings_rn, 3, kind="fleiss", where=where_rn
        )
        alpha = standard_errors.chance_corrected(
            ratings_rn, 3, kind="krippendorff", where=where_rn
        )
        gwet = standard_errors.chance_corrected(
            ratings_rn, 3, kind="gwet", where=where_rn
        )
        onehot_rnk, _ = _ratings.checked(caller, ratings_rn, 3, where_rn, None)
        count_k = onehot_rnk.sum((0, 1))
        base_rate = ratio(count_k[0] + count_k[2], count_k.sum())
        return (
            fleiss.observed,
            fleiss.expected,
            base_rate,
            alpha.coefficient,
            gwet.coefficient,
            alpha.reason,
        )

    per_value = jax.vmap(of_value, in_axes=(2, 2))(ratings, present)
    jaccard_n = pass_consistency(ratings, where=present)
    by_chance_n = _jaccard_of_strangers(caller, ratings, present)
    return ConsistencySummary(
        *per_value,
        jaccard=_chance.mean_of_defined(jaccard_n),
        jaccard_by_chance=_chance.mean_of_defined(by_chance_n),
    )


def _counts(
    caller: str, ratings: jax.Array, num_categories: int, where: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    table = _ratings.counted(caller, ratings, num_categories, where, None)
    return table.counts, table.total


def _compare(
    caller: str,
    ratings: jax.Array,
    where: jax.Array | None,
    kind: Measure,
    others: tuple[jax.Array, jax.Array] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """`[R, R, N]` likeness of every two passes, and which pairs can be compared."""
    _check.shapes(caller, ratings=(ratings, "R N V"), where=(where, "R N V"))
    _ratings.integers(caller, "ratings", ratings)
    _check.ids(caller, "ratings", ratings, 3, where)
    present = (ratings >= 0) & (ratings <= 2)
    if where is not None:
        present &= jnp.asarray(where, bool)
    ratings_b, present_b = others if others is not None else (ratings, present)
    both = present[:, None] & present_b[None]
    first, second = ratings[:, None], ratings_b[None]
    equal = both & (first == second)
    dtype = jnp.zeros(()).dtype
    some_ghn = both.any(-1)
    if kind == "vector":
        same_ghn = (equal | ~both).all(-1).astype(dtype)
    elif kind == "cell":
        same_ghn = divide(equal.sum(-1).astype(dtype), both.sum(-1).astype(dtype))
    else:
        first, second = (
            sets.signed_sets(jnp.where(both, x, 1)) for x in (first, second)
        )
        same_ghn = 1.0 - sets.set_distance(first, second)
    return same_ghn, some_ghn


def _jaccard_of_strangers(
    caller: str, ratings: jax.Array, present: jax.Array
) -> jax.Array:
    """`[N]` the mean Jaccard of a text's passes and another text's other passes."""
    n = ratings.shape[1]
    if n < 2:
        return jnp.full((n,), jnp.nan)
    inside = present & (ratings >= 0) & (ratings <= 2)
    # Half a file away: neighbours may answer the same prompt.
    others = (jnp.roll(ratings, n // 2, axis=1), jnp.roll(inside, n // 2, axis=1))
    return _mean_over_pairs(*_compare(caller, ratings, present, "jaccard", others))


def _mean_over_pairs(same_ghn: jax.Array, pair_ghn: jax.Array) -> jax.Array:
    """`[N]` over two different passes; NaN without any."""
    pair_ghn &= ~jnp.eye(pair_ghn.shape[0], dtype=bool)[..., None]
    total_n = jnp.where(pair_ghn, same_ghn, 0.0).sum((0, 1))
    return ratio(total_n, pair_ghn.sum((0, 1)).astype(same_ghn.dtype))
