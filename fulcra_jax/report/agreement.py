# SPDX-License-Identifier: Apache-2.0
"""The agreement of annotators: every figure of an annotated file.

Raw agreement always stands beside what chance alone would give: most labels are 0, and
two annotators who know nothing but that agree on most cells.

Axes: R raters, N items, V values, P patterns.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import numpy as np

from fulcra_jax import scoring
from fulcra_jax.report import agreement_groups
from fulcra_jax.report.against_humans import AgainstHumans, against_humans
from fulcra_jax.report.agreement_groups import Group
from fulcra_jax.report.annotators import (
    Annotator,
    Consistency,
    annotators,
    consistency,
    pair_figures,
)
from fulcra_jax.report.panel import Cells, Figure, K, Panel, cells_of, figure

MOST_RESAMPLES = 100_000
LEVELS = 0.5, 0.9999
"""The least and the largest level of an interval."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How the report is made."""

    resamples: int = 1000
    level: float = 0.95
    """Of the intervals."""
    disputed: int = 20
    """How many of the most disputed items are listed."""
    seed: int = 0
    """From 0 to 2^32 - 1: beyond, JAX repeats itself."""

    def __post_init__(self) -> None:
        if not 100 <= self.resamples <= MOST_RESAMPLES:
            raise ValueError(
                f"agreement.Options: resamples is {self.resamples}; expected at least "
                f"100 and at most {MOST_RESAMPLES}."
            )
        low, high = LEVELS
        if not low <= self.level <= high:
            raise ValueError(
                f"agreement.Options: level is {self.level}; expected {low} <= level "
                f"<= {high}."
            )
        # An end of the interval should not lie beyond all resamples.
        least = 2.0 / (1.0 - self.level)
        if self.resamples < least - 1e-6:
            raise ValueError(
                f"agreement.Options: level {self.level} takes at least "
                f"{math.ceil(least - 1e-6)} resamples, but resamples is "
                f"{self.resamples}."
            )
        if self.disputed < 0:
            raise ValueError(
                f"agreement.Options: disputed is {self.disputed}; expected at least 0."
            )
        if not 0 <= self.seed < 1 << 32:
            raise ValueError(
                f"agreement.Options: seed is {self.seed}; expected 0 <= seed < 2^32."
            )


@dataclasses.dataclass(frozen=True)
class Disputed:
    """An item on which raters disagree."""

    item: str
    source: str
    score: float
    """The mean over values of the share of disagreeing pairs of raters."""
    values: tuple[tuple[str, float, tuple[int | None, ...]], ...]
    """Value, its share of disagreeing pairs, and the label of every rater."""
    reversed: tuple[str, ...]
    """Values of which somebody says -1 and somebody +1."""


@dataclasses.dataclass(frozen=True)
class Report:
    """All figures of an annotated file."""

    file: str
    items: int
    prompts: int
    values: tuple[str, ...]
    judgements: int
    nulls: int
    annotators: tuple[Annotator, ...]
    pooled: Group | None
    """None with one annotator only."""
    mean_alpha: Figure
    """The mean of the values' alphas, where they are defined."""
    per_value: tuple[Group, ...]
    per_source: tuple[Group, ...]
    left_out_sources: int
    pairs: tuple[tuple[Figure, ...], ...]
    """Cohen's kappa of every two annotators over all cells."""
    shared: tuple[tuple[int, ...], ...]
    """How many cells two annotators both rated."""
    consistency: tuple[Consistency, ...]
    against_humans: tuple[AgainstHumans, ...]
    disputed: tuple[Disputed, ...]
    disputed_items: int
    """How many items there is any disagreement on."""
    options: Options


def report(
    panel: Panel,
    options: Options = Options(),
    *,
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Every figure of the report.

    Args:
      panel: the judgements.
      options: how many resamples, which level, which seed.
      say: told what is being done.

    Returns:
      The report. What cannot be computed is NaN with a reason; with one annotator only
      his self-consistency is reported.
    """
    say("collapsing passes")
    cells = cells_of(panel)
    say("self-consistency")
    with_himself = consistency(panel, cells)
    alone = len(panel.annotators) == 1
    groups, pairs, left_out = [], None, 0
    if not alone:
        say(f"coefficients and {options.resamples} resamples")
        groups, pairs, left_out = agreement_groups.groups(
            panel,
            cells,
            resamples=options.resamples,
            level=options.level,
            seed=options.seed,
        )
    say("annotators")
    people = annotators(panel, cells, pairs)
    against = ()
    if pairs is not None and set(panel.kinds) == {"human", "llm"}:
        say("humans against LLMs")
        against = against_humans(panel, cells, pairs, options.level)
    v = len(panel.values)
    present = (cells.ratings >= 0).reshape(len(cells.ratings), -1)
    shared = present.astype(np.float32) @ present.astype(np.float32).T
    disputed, disputed_items = _disputed(panel, cells, options.disputed)
    return Report(
        file=panel.file,
        items=len(panel.items),
        prompts=len(set(panel.prompts)),
        values=panel.values,
        judgements=int(panel.asked.sum()),
        nulls=int((panel.asked & (panel.ratings < 0)).sum()),
        annotators=people,
        pooled=groups[0] if groups else None,
        mean_alpha=_mean([group.alpha.value for group in groups[1 : v + 1]]),
        per_value=tuple(groups[1 : v + 1]),
        per_source=tuple(groups[v + 1 :]),
        left_out_sources=left_out,
        pairs=() if pairs is None else pair_figures(pairs, shared),
        shared=tuple(tuple(int(x) for x in row) for row in shared),
        consistency=with_himself,
        against_humans=against,
        disputed=disputed,
        disputed_items=disputed_items,
        options=options,
    )


def _mean(alphas: list[float]) -> Figure:
    defined = [x for x in alphas if not np.isnan(x)]
    mean = float(np.mean(defined)) if defined else np.nan
    return figure(mean, clause="alpha of no value is defined")


def _disputed(
    panel: Panel, cells: Cells, most: int
) -> tuple[tuple[Disputed, ...], int]:
    """The items with the largest mean disagreement, and how many have any."""
    agree_p = np.asarray(_pair_agreement(cells.pattern_ratings, cells.pattern_where))
    apart_nv = (1.0 - agree_p)[cells.pattern_of_cell]
    known = ~np.isnan(apart_nv)
    apart_nv = np.where(known, apart_nv, 0.0)
    score_n = apart_nv.sum(1) / np.maximum(known.sum(1), 1)
    order = np.lexsort((-(apart_nv > 0.0).sum(1), -score_n))
    order = order[score_n[order] > 0.0]
    reversed_nv = (cells.ratings == 0).any(0) & (cells.ratings == K - 1).any(0)
    return tuple(
        Disputed(
            item=panel.items[n],
            source=panel.sources[n],
            score=float(score_n[n]),
            values=tuple(
                (
                    panel.values[v],
                    float(apart_nv[n, v]),
                    tuple(
                        int(k) - 1 if k >= 0 else None for k in cells.ratings[:, n, v]
                    ),
                )
                for v in np.argsort(-apart_nv[n], kind="stable")
                if apart_nv[n, v] > 0.0
            ),
            reversed=tuple(panel.values[v] for v in np.flatnonzero(reversed_nv[n])),
        )
        for n in order[:most].tolist()
    ), len(order)


@jax.jit
def _pair_agreement(ratings: jax.Array, where: jax.Array) -> jax.Array:
    return scoring.pair_agreement(ratings, K, where=where)
