# SPDX-License-Identifier: Apache-2.0
"""Figures of single annotators: with the others, and with themselves.

Axes: R raters, N items, V values, P patterns or passes, K labels.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import scoring
from fulcra_jax.report.panel import (
    NAN,
    ONE_LABEL,
    Cells,
    Figure,
    K,
    Panel,
    absent,
    alpha_within,
    figure,
    padded_passes,
)
from fulcra_jax.scoring import aggregation

LABELS = (-1, 0, 1)
THRESHOLDS = (0.6, 0.8)
"""Of self-consistency, below which a text would go to review."""
MIN_CELLS = 5
"""Estimated cells of a label, shared with somebody, below which a sensitivity would be
the prior's or the annotator's own word."""


@dataclasses.dataclass(frozen=True)
class Annotator:
    """One annotator and how he gets on with the others, over all cells."""

    name: str
    kind: str
    passes: int
    judgements: int
    nulls: int
    ties: int
    """Cells without an answer because his passes tie."""
    shares: tuple[float, ...]
    """Of -1, 0, +1 among the labels he gave."""
    kappa: Figure
    """The mean of Cohen's kappa with each of the others."""
    with_majority: Figure
    """The share of cells on which he says what most of the others say."""
    kappa_with_majority: Figure
    alpha_without: Figure
    alpha_change: Figure
    """Alpha without him less alpha with him: above 0 he lowers the agreement."""
    sensitivity: tuple[Figure, ...]
    """Estimated P(says k | k is true) of -1, 0, +1, after Dawid and Skene."""


@dataclasses.dataclass(frozen=True)
class ValueConsistency:
    """The agreement of an annotator's passes on one value."""

    name: str
    observed: Figure
    chance: Figure
    base_rate: Figure
    alpha: Figure
    ac1: Figure


@dataclasses.dataclass(frozen=True)
class Consistency:
    """How an annotator with several passes agrees with himself."""

    name: str
    kind: str
    passes: int
    items: int
    values: tuple[ValueConsistency, ...]
    jaccard: Figure
    """The mean over texts of the signed Jaccard of pairs of passes."""
    jaccard_by_chance: Figure
    equal_vectors: Figure
    """The share of texts on which all passes give the same labels."""
    cells: int
    ties: int
    below: tuple[tuple[float, int], ...]
    """Thresholds, and how many texts are less consistent or have too few passes."""
    too_few: int
    """Texts with fewer than two comparable passes."""
    texts: tuple[tuple[str, float, tuple[str, ...]], ...] = dataclasses.field(
        metadata={"json": False}
    )
    """Item, its signed Jaccard (NaN with too few passes), and the values on which
    passes differ."""


def annotators(
    panel: Panel, cells: Cells, pairs: np.ndarray | None
) -> tuple[Annotator, ...]:
    """Every annotator; `pairs` `[R, R]` holds the kappas, None if he is alone."""
    if pairs is None:
        return tuple(
            _annotator(panel, cells, a, None) for a in range(len(panel.annotators))
        )
    arrays = jax.device_get(
        _among_others(cells.pattern_ratings, cells.pattern_where, _by_value(cells))
    )
    arrays["pairs"] = pairs
    arrays["circle"] = _circle_sizes(cells.pattern_where[:, cells.counts() > 0.0])
    return tuple(
        _annotator(panel, cells, a, arrays) for a in range(len(panel.annotators))
    )


def _circle_sizes(where: np.ndarray) -> np.ndarray:
    """`[R]` int: how many annotators are tied to each by shared cells, him included."""
    present = where.astype(np.float32)
    tied = present @ present.T > 0.0
    np.fill_diagonal(tied, True)
    for _ in range(len(tied).bit_length()):  # every round doubles the path
        tied = tied.astype(np.float32) @ tied > 0.0
    return tied.sum(1)


def _by_value(cells: Cells) -> np.ndarray:
    """`[V, P]` float32 counts of the patterns of every value."""
    size = cells.pattern_ratings.shape[1]
    columns = cells.pattern_of_cell.T
    return np.stack([np.bincount(x, minlength=size) for x in columns]).astype(
        np.float32
    )


def _annotator(panel: Panel, cells: Cells, a: int, arrays: Any) -> Annotator:
    rows = panel.rows_of(a)
    asked, ratings = panel.asked[rows], panel.ratings[rows]
    given = np.array([(ratings == k).sum() for k in range(K)])
    alone = absent("there is no other annotator")
    kappa = with_majority = kappa_with_majority = without = change = alone
    sensitivity: tuple[Figure, ...] = (alone,) * K
    if arrays is not None:
        row = arrays["pairs"][a]
        defined = row[~np.isnan(row)]
        clause = "no cells of two labels are shared with anybody"
        kappa = figure(defined.mean() if len(defined) else NAN, clause=clause)
        reason = arrays["reason"][a]
        with_majority = figure(arrays["observed"][a], reason)
        kappa_with_majority = figure(arrays["kappa"][a], reason)
        without = figure(arrays["alpha"][a], arrays["alpha_reason"][a], ONE_LABEL)
        change = without
        if not without.reason:
            clause = "alpha of all annotators is undefined"
            moved = arrays["alpha"][a] - arrays["whole"]
            change = figure(moved, clause=clause)
        sensitivity = _sensitivity(a, arrays)
    return Annotator(
        name=panel.annotators[a],
        kind=panel.kinds[a],
        passes=len(rows),
        judgements=int(asked.sum()),
        nulls=int((asked & (ratings < 0)).sum()),
        ties=int(cells.ties[a]),
        shares=tuple(float(n) for n in given / given.sum())
        if given.sum()
        else (NAN,) * K,
        kappa=kappa,
        with_majority=with_majority,
        kappa_with_majority=kappa_with_majority,
        alpha_without=without,
        alpha_change=change,
        sensitivity=sensitivity,
    )


def _sensitivity(a: int, arrays: Any) -> tuple[Figure, ...]:
    if arrays["circle"][a] == 1:
        return (absent("no cell is shared with another annotator"),) * K
    if arrays["circle"][a] == 2:
        return (absent("two annotators cannot tell which of them errs"),) * K
    few = "fewer than {} cells shared with others are estimated to be {:+d}"
    return tuple(
        Figure(float(arrays["confusion"][a, k, k]))
        if arrays["expected"][a, k] >= MIN_CELLS
        else absent(few.format(MIN_CELLS, label).replace("+0", "0"))
        for k, label in enumerate(LABELS)
    )


@jax.jit
def _among_others(
    ratings: jax.Array, where: jax.Array, counts_vp: jax.Array
) -> dict[str, Any]:
    counts = counts_vp.sum(0)
    by = functools.partial(scoring.chance_corrected, unit_weights=counts)

    def alpha(present: jax.Array) -> jax.Array:
        of_patterns = scoring.unit_totals(ratings, K, where=present).coincidence
        of_values = jnp.einsum(
            "vp,pjk->vjk",
            counts_vp,
            of_patterns,
            precision=jax.lax.Precision.HIGHEST,
        )
        return alpha_within(of_values)[0]

    def one(r: jax.Array) -> dict[str, jax.Array]:
        others = where & (jnp.arange(len(where)) != r)[:, None]
        vote = aggregation.majority_vote(ratings, K, where=others)
        both = jnp.stack([ratings[r], vote.labels])
        present = jnp.stack([where[r], vote.labels >= 0])
        cohen = by(both, K, kind="cohen", where=present)
        return {
            "observed": cohen.observed,
            "kappa": cohen.coefficient,
            "reason": cohen.reason,
            "alpha": alpha(others),
            "alpha_reason": by(ratings, K, where=others).reason,
        }

    # One rater after the other: memory does not grow with their number.
    each = jax.lax.map(one, jnp.arange(len(where)))
    fit = scoring.dawid_skene(ratings, K, where=where, unit_weights=counts)
    weighted = jnp.where(jnp.isnan(fit.probs), 0.0, fit.probs) * counts[:, None]
    return {
        **each,
        "whole": alpha(where),
        "confusion": fit.confusion,
        # What nobody else rated says nothing of an annotator's errors.
        "expected": (where & (where.sum(0) >= 2)[None]).astype(counts.dtype) @ weighted,
    }


def pair_figures(
    pairs: np.ndarray, shared: np.ndarray
) -> tuple[tuple[Figure, ...], ...]:
    """Cohen's kappas `[R, R]` as figures with reasons."""

    def one(g: int, h: int) -> Figure:
        if g == h:
            return absent("an annotator and himself")
        clause = "the two use one label only on the cells that both rated"
        return figure(
            pairs[g, h], clause=clause if shared[g, h] else "no cell that both rated"
        )

    size = range(len(pairs))
    return tuple(tuple(one(g, h) for h in size) for g in size)


def consistency(panel: Panel, cells: Cells) -> tuple[Consistency, ...]:
    """The self-consistency of every annotator with two passes or more."""
    found = []
    for a in range(len(panel.annotators)):
        rows = panel.rows_of(a)
        if len(rows) < 2:
            continue
        asked_n = np.asarray(panel.asked[rows].any((0, 2)))
        arrays = jax.device_get(_with_himself(padded_passes(panel, a), asked_n))
        found.append(_consistency(panel, a, arrays, asked_n, int(cells.ties[a])))
    return tuple(found)


def _consistency(
    panel: Panel, a: int, arrays: Any, asked_n: np.ndarray, ties: int
) -> Consistency:
    summary, jaccard_n = arrays["summary"], arrays["jaccard"]
    rows, items = panel.rows_of(a), int(asked_n.sum())
    given = panel.ratings[rows]
    lowest = np.where(given >= 0, given, K).min(0)
    differ_nv = (given.max(0) > lowest) & (lowest < K)
    nothing = "no text has two comparable passes"
    equal_n = arrays["vector"][~np.isnan(arrays["vector"])]

    def of_value(v: int, name: str) -> ValueConsistency:
        cell = lambda x: figure(x[v], summary.reason[v])
        return ValueConsistency(
            name,
            observed=cell(summary.observed),
            chance=cell(summary.expected),
            base_rate=cell(summary.base_rate),
            alpha=cell(summary.alpha),
            ac1=cell(summary.ac1),
        )

    return Consistency(
        name=panel.annotators[a],
        kind=panel.kinds[a],
        passes=len(rows),
        items=items,
        values=tuple(of_value(v, name) for v, name in enumerate(panel.values)),
        jaccard=figure(summary.jaccard, clause=nothing),
        # With one text the next text is the same one.
        jaccard_by_chance=figure(
            summary.jaccard_by_chance if len(panel.items) > 1 else NAN,
            clause="there is no second text to compare with",
        ),
        equal_vectors=figure(
            (equal_n >= 1.0).mean() if len(equal_n) else NAN, clause=nothing
        ),
        cells=int((panel.ratings[rows] >= 0).any(0).sum()),
        ties=ties,
        below=tuple(
            (threshold, int(count))
            for threshold, count in zip(THRESHOLDS, arrays["below"], strict=True)
        ),
        too_few=items - int((~np.isnan(jaccard_n)).sum()),
        texts=tuple(
            (
                panel.items[n],
                float(jaccard_n[n]),
                tuple(panel.values[v] for v in np.flatnonzero(differ_nv[n])),
            )
            for n in np.flatnonzero(asked_n)
        ),
    )


@jax.jit
def _with_himself(passes: jax.Array, asked: jax.Array) -> dict[str, Any]:
    ratings, where = passes.astype(jnp.int32), passes >= 0
    jaccard_n = scoring.pass_consistency(ratings, where=where)
    return {
        "summary": scoring.consistency_summary(ratings, where=where),
        "jaccard": jaccard_n,
        "vector": scoring.pass_consistency(ratings, kind="vector", where=where),
        "below": jnp.stack(
            [
                scoring.needs_review(jaccard_n, threshold=threshold, where=asked).sum()
                for threshold in THRESHOLDS
            ]
        ),
    }
