# SPDX-License-Identifier: Apache-2.0
"""LLMs against humans: kappas, confusion tables and the alternative annotator test.

Axes: R raters, H of them human, N items, V values, P patterns, K labels.
"""

import dataclasses

import jax
import numpy as np

from fulcra_jax import scoring
from fulcra_jax.report.panel import (
    Cells,
    Figure,
    K,
    Panel,
    absent,
    figure,
    with_analytic,
)
from fulcra_jax.scoring import aggregation

EPSILON = 0.2
"""What a human costs in the alternative annotator test; 0.2 stands for experts."""
MIN_ITEMS, MIN_HUMANS = 30, 3
"""What the test advises at least."""


@dataclasses.dataclass(frozen=True)
class AltHuman:
    """One human in the alternative annotator test."""

    name: str
    cells: int
    items: int
    p_value: Figure
    beaten: bool
    """Whether the LLM fits the other humans about as well as this one does."""


@dataclasses.dataclass(frozen=True)
class AltTest:
    """The verdict of the alternative annotator test."""

    winning_rate: Figure
    advantage: Figure
    passes: bool | None
    """None if it could not be computed or says nothing."""
    verdict: str
    """In words; "" if it could not be computed."""
    zeros_winning_rate: Figure
    """Of a model that always says 0, on the same cells."""
    zeros_pass: bool | None
    """Whether that model passes; None if it could not be computed."""
    humans: tuple[AltHuman, ...]
    conditions: tuple[str, ...]
    """Which advised conditions the data do not meet."""


@dataclasses.dataclass(frozen=True)
class AgainstHumans:
    """An LLM's majority against the humans' majority."""

    name: str
    values: tuple[tuple[str, Figure, tuple[tuple[int, ...], ...]], ...]
    """All cells, then every value: name, Cohen's kappa, counts [human, LLM]."""
    kappa_with_humans: Figure
    """The mean of Cohen's kappa with each human, over all cells."""
    human_kappa: Figure
    """The same among the humans themselves: what can be hoped for."""
    human_ties: int
    """Cells without a human majority, which do not count here."""
    alt_test: AltTest


def against_humans(
    panel: Panel, cells: Cells, pairs: np.ndarray, level: float
) -> tuple[AgainstHumans, ...]:
    """Every LLM against the majority of the humans, and the alternative annotator
    test."""
    human = np.array([kind == "human" for kind in panel.kinds])
    values = ("all cells", *panel.values)
    of_value = np.arange(len(panel.values))
    counts = np.stack(
        [cells.counts()]
        + [
            cells.counts(np.broadcast_to(of_value == v, cells.pattern_of_cell.shape))
            for v in of_value
        ]
    )
    majority_p, reason_p = jax.device_get(
        _majority(cells.pattern_ratings[human], cells.pattern_where[human])
    )
    own_prompts = len(set(panel.prompts)) == len(panel.items)
    among = pairs[np.triu(human[:, None] & human[None], 1)]
    tied_p = reason_p == aggregation.VoteReason.TIE
    found = []
    for a in np.flatnonzero(~human).tolist():
        both = np.stack([majority_p, cells.pattern_ratings[a]]).astype(np.int32)
        where = np.stack([majority_p >= 0, cells.pattern_where[a]])
        kappa = jax.device_get(_against(both, where, counts))
        with_humans = _mean(
            pairs[a, human], "no cells of two labels are shared with a human"
        )
        entries = []
        for x, name in enumerate(values):
            one = figure(kappa.coefficient[x], kappa.reason[x])
            # Cells of one item or prompt hang together: no analytic interval then.
            if x and own_prompts:
                one = with_analytic(one, kappa, x, level)
            entries.append((name, one, _table(both, where, counts[x])))
        found.append(
            AgainstHumans(
                name=panel.annotators[a],
                values=tuple(entries),
                kappa_with_humans=with_humans,
                human_kappa=_mean(among, "no two humans share cells of two labels"),
                human_ties=int(counts[0][tied_p & cells.pattern_where[a]].sum()),
                alt_test=_alt_test(panel, cells, a, human, with_humans),
            )
        )
    return tuple(found)


def _mean(kappas: np.ndarray, clause: str) -> Figure:
    defined = kappas[~np.isnan(kappas)]
    return figure(defined.mean() if len(defined) else np.nan, clause=clause)


@jax.jit
def _majority(ratings: jax.Array, where: jax.Array) -> tuple[jax.Array, jax.Array]:
    vote = aggregation.majority_vote(ratings, K, where=where)
    return vote.labels, vote.reason


@jax.jit
def _against(both: jax.Array, where: jax.Array, counts: jax.Array) -> scoring.Agreement:
    one = lambda counts_p: scoring.chance_corrected(
        both, K, kind="cohen", where=where, unit_weights=counts_p
    )
    return jax.lax.map(one, counts)


def _table(
    both: np.ndarray, where: np.ndarray, counts: np.ndarray
) -> tuple[tuple[int, ...], ...]:
    present = where.all(0)
    pair = both[0, present] * K + both[1, present]
    table = np.bincount(pair, weights=counts[present], minlength=K * K)
    return tuple(tuple(int(n) for n in row) for row in table.reshape(K, K))


def _alt_test(
    panel: Panel, cells: Cells, a: int, human: np.ndarray, kappa: Figure
) -> AltTest:
    places = np.flatnonzero(human)
    if len(places) < 2:
        missing = absent("it takes two humans at least")
        return AltTest(missing, missing, None, "", missing, None, (), ())
    llm = cells.ratings[a].reshape(-1).astype(np.int32)
    humans = cells.ratings[human].reshape(len(places), -1).astype(np.int32)
    zeros = np.where(llm >= 0, 1, -1).astype(np.int32)
    result, dull = jax.device_get(
        (_alternative(llm, humans), _alternative(zeros, humans))
    )
    # An item counts where the LLM, this human and another one share a cell.
    present = (cells.ratings[human] >= 0) & (cells.ratings[a] >= 0)
    shared = present & (present.sum(0) >= 2)
    people = tuple(
        AltHuman(
            name=panel.annotators[place],
            cells=int(result.items[j]),
            items=int(shared[j].any(1).sum()),
            p_value=figure(result.p_values[j], clause="too few cells, or no spread"),
            beaten=bool(result.rejected[j]),
        )
        for j, place in enumerate(places.tolist())
    )
    conditions = []
    if len(people) < MIN_HUMANS:
        conditions.append(f"{len(people)} humans; {MIN_HUMANS} or more are advised")
    conditions += [
        f"{one.name:.60} shares {one.items} items with the LLM and another human; "
        f"{MIN_ITEMS} or more are advised"
        for one in people
        if one.items < MIN_ITEMS
    ]
    nobody = "nobody could be tested"
    tested = not np.isnan(result.winning_rate)
    zeros_pass = bool(dull.passes) if not np.isnan(dull.winning_rate) else None
    verdict = _verdict(bool(result.passes), zeros_pass, kappa) if tested else ""
    return AltTest(
        winning_rate=figure(result.winning_rate, clause=nobody),
        advantage=figure(result.advantage_probability, clause=nobody),
        passes={"passes": True, "does not pass": False}.get(verdict),
        verdict=verdict,
        zeros_winning_rate=figure(dull.winning_rate, clause=nobody),
        zeros_pass=zeros_pass,
        humans=people,
        conditions=tuple(conditions),
    )


def _verdict(passes: bool, zeros_pass: bool | None, kappa: Figure) -> str:
    if not passes:
        return "does not pass"
    if zeros_pass:
        return "says nothing here: always saying 0 passes as well"
    if kappa.reason:
        return "says nothing here: the kappa with the humans is undefined"
    if kappa.value <= 0.0:
        return "says nothing here: the kappa with the humans is not above 0"
    return "passes"


@jax.jit
def _alternative(llm: jax.Array, humans: jax.Array) -> scoring.AltTest:
    return scoring.alt_test(
        llm, humans, epsilon=EPSILON, where=humans >= 0, llm_where=llm >= 0
    )
