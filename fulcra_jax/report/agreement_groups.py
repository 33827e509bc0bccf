# SPDX-License-Identifier: Apache-2.0
"""Coefficients of groups of cells with intervals that resample prompts.

Axes: R raters, N items, V values, P patterns, G prompts, S resamples, X groups of
cells: all of them, each value, each source.
"""

import dataclasses
import functools
from collections import Counter
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
    with_analytic,
)
from fulcra_jax.scoring import AgreementTotals

FEW = 10
"""With fewer labels that are not 0, nothing is said of a value."""
LEAST_UNITS, LEAST_PROMPTS = 20, 10
"""With fewer there is no verdict."""
LEAST_POLARITY = 10
"""Units; with fewer nothing is said of polarity."""
MOST_SOURCES = 20
"""Sources with the most items that are reported; the rest is counted."""
ACCEPTABLE, GOOD = 0.667, 0.8
"""Krippendorff's limits for tentative and for firm conclusions."""


@dataclasses.dataclass(frozen=True)
class Group:
    """The agreement on a group of cells."""

    name: str
    cells: int
    """With a rating."""
    units: int
    """Cells with two ratings or more."""
    prompts: int
    """That have such a cell."""
    labels: tuple[int, int, int]
    """How many ratings are -1, 0, +1."""
    base_rate: Figure
    """The share of ratings that are not 0."""
    observed: Figure
    chance: Figure
    """What raters with these label shares agree on by chance: Fleiss for one value,
    within each value (as in `alpha`) over several."""
    alpha: Figure
    """Krippendorff, nominal, with an interval; over several values `alpha_within`."""
    human_alpha: Figure
    """The same of the humans alone; undefined without an LLM and two humans."""
    alpha_interval: Figure
    """At the interval level: a -1 against a +1 counts four times."""
    ac1: Figure
    light: Figure
    """The mean of Cohen's kappa over pairs of annotators."""
    mention: Figure
    """Alpha of 0 against -1 and +1."""
    polarity: Figure
    """Alpha of -1 against +1, among those that mention the value."""
    polarity_units: int
    human_kappa: Figure
    """Light's kappa among the humans alone."""
    undefined_resamples: int
    few: bool
    """Too few labels that are not 0 to say anything."""

    @property
    def too_small(self) -> bool:
        """Too few units or prompts for a verdict."""
        return self.units < LEAST_UNITS or self.prompts < LEAST_PROMPTS

    def needed(self, alpha: float) -> float:
        """The observed agreement that an alpha would take at this chance agreement."""
        return self.chance.value + alpha * (1.0 - self.chance.value)


def groups(
    panel: Panel, cells: Cells, *, resamples: int, level: float, seed: int
) -> tuple[list[Group], np.ndarray, int]:
    """All cells, values, sources; Cohen's kappas of pairs; sources left out."""
    counted = Counter(source for source in panel.sources if source)
    sources = sorted(name for name, _ in counted.most_common(MOST_SOURCES))
    of_item = np.array(
        [sources.index(s) if s in sources else -1 for s in panel.sources]
    )
    names = ["all cells", *panel.values, *sources]
    counts = _counts(panel, cells, of_item, len(sources))
    arrays = jax.device_get(
        _coefficients(cells.pattern_ratings, cells.pattern_where, counts)
    )
    human = np.array([kind == "human" for kind in panel.kinds])
    place: dict[str, int] = {}
    prompt = np.array([place.setdefault(p, len(place)) for p in panel.prompts])
    sums = _cluster_sums(cells, human, prompt, len(place), of_item, len(sources))
    arrays |= jax.device_get(_whole(jax.tree.map(_total, sums)))
    arrays["prompts"] = np.asarray(sums[0].paired > 0.0).sum(0)
    spread = None
    if len(place) >= 2:
        spread = jax.device_get(
            _resampled(jax.random.key(seed), sums, resamples, level)
        )
    upper = np.triu(np.ones((len(human), len(human)), bool), 1)
    humans = upper & human[:, None] & human[None]
    people = int(human.sum())
    no_humans = "fewer than two humans" if people < 2 else ""
    if people == len(human):
        no_humans = "there is no LLM"
    own_prompt = len(place) == len(panel.items)
    # Cells of one item or prompt hang together: no analytic interval then.
    single = [own_prompt and 0 < x <= len(panel.values) for x in range(len(names))]
    found = [
        _group(
            name,
            x,
            arrays,
            spread,
            humans,
            level if single[x] else None,
            0 < x <= len(panel.values),
            no_humans,
        )
        for x, name in enumerate(names)
    ]
    return found, arrays["kappa"][0], len(counted) - len(sources)


def _counts(
    panel: Panel, cells: Cells, of_item: np.ndarray, sources: int
) -> np.ndarray:
    """`[X, P]` float32."""
    rows = [cells.counts()]
    for v in range(len(panel.values)):
        where = np.zeros(cells.pattern_of_cell.shape, bool)
        where[:, v] = True
        rows.append(cells.counts(where))
    for s in range(sources):
        where = np.broadcast_to((of_item == s)[:, None], cells.pattern_of_cell.shape)
        rows.append(cells.counts(where))
    return np.stack(rows)


@jax.jit
def _coefficients(
    ratings: jax.Array, where: jax.Array, counts: jax.Array
) -> dict[str, Any]:
    """Point estimates of every group, `[X, ...]`."""
    mention = scoring.mention_view(ratings, where=where)
    polarity = scoring.polarity_view(ratings, where=where)

    def one(counts_p: jax.Array) -> dict[str, Any]:
        by = functools.partial(scoring.chance_corrected, unit_weights=counts_p)
        fleiss = by(ratings, K, kind="fleiss", where=where)
        alpha = by(ratings, K, where=where)
        given = jax.nn.one_hot(jnp.where(where, ratings, -1), K, dtype=counts_p.dtype)
        # What is not returned is not compiled: of two records only these fields.
        return {
            "observed": fleiss.observed,
            "chance": fleiss.expected,
            "cells": fleiss.units,
            "alpha": alpha.coefficient,
            "units": alpha.units,
            "reason": alpha.reason,
            "gwet": by(ratings, K, kind="gwet", where=where),
            "mention": _alpha_of(by(mention.ratings, 2, where=mention.where)),
            "polarity": _alpha_of(by(polarity.ratings, 2, where=polarity.where)),
            "alpha_interval": scoring.krippendorff_alpha(
                ratings, K, level="interval", where=where, unit_weights=counts_p
            ),
            "kappa": scoring.pairwise_kappa(
                ratings, K, where=where, unit_weights=counts_p
            ),
            "labels": jnp.einsum("rpk,p->k", given, counts_p),
        }

    # One group after the other: many raters have large tables of pairs.
    return jax.lax.map(one, counts)


def _alpha_of(found: scoring.Agreement) -> tuple[jax.Array, jax.Array, jax.Array]:
    return found.coefficient, found.reason, found.units


_sum_by_cluster = jax.jit(scoring.sum_by_cluster, static_argnames="num_clusters")


@jax.jit
def _per_pattern(ratings: jax.Array, where: jax.Array) -> AgreementTotals:
    # Without the tables of pairs, which the compiler then leaves out.
    return scoring.unit_totals(ratings, K, where=where)._replace(tables=jnp.zeros(()))


Sums = tuple[AgreementTotals, jax.Array]
"""Totals `[G, X, ...]`, and coincidences `[G, 2 + sources, V, K, K]` of all raters, of
the humans, and of all raters on every source."""


def _cluster_sums(
    cells: Cells,
    human: np.ndarray,
    prompt: np.ndarray,
    prompts: int,
    of_item: np.ndarray,
    sources: int,
) -> Sums:
    """The totals of every prompt."""
    per_pattern = _per_pattern(cells.pattern_ratings, cells.pattern_where)
    humans = _per_pattern(
        cells.pattern_ratings, cells.pattern_where & human[:, None]
    ).coincidence
    mine = (of_item[:, None] == np.arange(sources)).astype(np.float32)

    def of(x: jax.Array) -> np.ndarray:
        per_cell = np.asarray(x)[cells.pattern_of_cell]  # [N, V, ...]
        total = per_cell.sum(1, keepdims=True)
        own = mine.reshape(*mine.shape, *(1,) * (per_cell.ndim - 2))
        return np.concatenate([total, per_cell, total * own], 1)

    all_nvkk, human_nvkk = (
        np.asarray(x)[cells.pattern_of_cell][:, None]
        for x in (per_pattern.coincidence, humans)
    )
    parts = [all_nvkk, human_nvkk, all_nvkk * mine[..., None, None, None]]
    kept = per_pattern._replace(tables=jnp.zeros(len(per_pattern.paired)))
    sums, within = _sum_by_cluster(
        (jax.tree.map(of, kept), np.concatenate(parts, 1)), prompt, prompts
    )
    # A rater alone: Light's kappa is not resampled.
    tables = jnp.zeros((*sums.paired.shape, 1, 1, K, K))
    return sums._replace(tables=tables), within


def _total(x: jax.Array) -> jax.Array:
    return x.sum(0)


def _statistics(total: Sums) -> dict[str, jax.Array]:
    """Of whole totals: alpha and AC1 `[X]`, alpha of the humans `[1 + V]`."""
    found = jax.vmap(scoring.coefficients)(total[0])
    _, human_vkk, *_ = within = total[1]
    alpha, chance = alpha_within(within)
    of_values = jax.vmap(lambda kk: alpha_within(kk[None])[0])(human_vkk)
    v = len(human_vkk)
    values = found.alpha_nominal[1 : v + 1]
    return {
        "alpha": jnp.concatenate([alpha[:1], values, alpha[2:]]),
        "ac1": found.ac1,
        "human_alpha": jnp.concatenate([alpha[1:2], of_values]),
        "within_chance": jnp.concatenate(
            [chance[:1], jnp.full_like(values, NAN), chance[2:]]
        ),
    }


_whole = jax.jit(
    lambda total: {f"whole_{key}": value for key, value in _statistics(total).items()}
)


@functools.partial(jax.jit, static_argnames=("resamples", "level"))
def _resampled(
    key: jax.Array, sums: Sums, resamples: int, level: float
) -> dict[str, Any]:
    """Intervals over prompts of alpha and AC1 of the groups and of the humans' alpha,
    one after the other: `[X + X + 1 + V]`."""

    def statistic(total: Sums) -> jax.Array:
        found = _statistics(total)
        return jnp.concatenate([found[x] for x in ("alpha", "ac1", "human_alpha")])

    samples = scoring.cluster_bootstrap(key, sums, statistic, num_resamples=resamples)
    whole = jax.tree.map(_total, sums)
    without = jax.lax.map(
        lambda one: statistic(jax.tree.map(jnp.subtract, whole, one)),
        sums,
        batch_size=4096,
    )
    return {
        "bca": scoring.bca_interval(samples, statistic(whole), without, level=level),
        "percentile": scoring.confidence_interval(samples, level=level),
        "undefined": jnp.isnan(samples).sum(0),
    }


def _group(
    name: str,
    x: int,
    arrays: Any,
    spread: Any,
    humans: np.ndarray,
    analytic: float | None,
    one_value: bool,
    no_humans: str,
) -> Group:
    gwet, reason = arrays["gwet"], arrays["reason"][x]
    mention, polarity = ([y[x] for y in arrays[key]] for key in ("mention", "polarity"))
    kappa_rr = arrays["kappa"][x]
    pairs = kappa_rr[np.triu(np.ones(kappa_rr.shape, bool), 1)]
    groups = len(arrays["labels"])
    labels = [int(n) for n in np.rint(arrays["labels"][x])]
    ac1 = figure(gwet.coefficient[x], gwet.reason[x])
    if analytic is not None:
        ac1 = with_analytic(ac1, gwet, x, analytic)
    elif not ac1.reason:
        ac1 = _with_interval(ac1, spread, groups + x)
    chance, alpha = figure(arrays["chance"][x], reason), arrays["alpha"][x]
    if not one_value:
        chance = figure(arrays["whole_within_chance"][x], reason)
        alpha = arrays["whole_alpha"][x]
    humans_alone = absent(no_humans or "not computed per source")
    if not no_humans and x < len(arrays["whole_human_alpha"]):
        humans_alone = _with_interval(
            figure(arrays["whole_human_alpha"][x], clause=ONE_LABEL),
            spread,
            2 * groups + x,
        )
    few_humans = "fewer than two humans" if not humans.any() else ""
    return Group(
        name=name,
        cells=int(arrays["cells"][x]),
        units=int(arrays["units"][x]),
        prompts=int(arrays["prompts"][x]),
        labels=(labels[0], labels[1], labels[2]),
        base_rate=figure(1.0 - labels[1] / sum(labels) if sum(labels) else NAN, reason),
        observed=figure(arrays["observed"][x], reason),
        chance=chance,
        alpha=_with_interval(figure(alpha, reason, ONE_LABEL), spread, x),
        human_alpha=humans_alone,
        alpha_interval=figure(arrays["alpha_interval"][x], reason),
        ac1=ac1,
        light=_mean(pairs, reason),
        mention=figure(mention[0], mention[1]),
        polarity=figure(polarity[0], polarity[1]),
        polarity_units=int(polarity[2]),
        human_kappa=absent(few_humans)
        if few_humans
        else _mean(kappa_rr[humans], reason),
        undefined_resamples=int(spread["undefined"][x]) if spread else 0,
        few=labels[0] + labels[2] < FEW,
    )


def _mean(kappas: np.ndarray, reason: Any) -> Figure:
    defined = kappas[~np.isnan(kappas)]
    if len(defined):
        return Figure(float(defined.mean()))
    return figure(NAN, reason, "no two annotators share cells of two labels")


def _with_interval(found: Figure, spread: Any, place: int) -> Figure:
    if found.reason or not spread:
        return found
    for name, title in (("bca", "bootstrap, BCa"), ("percentile", "bootstrap")):
        low, high = (float(end[place]) for end in spread[name])
        if np.isfinite([low, high]).all() and low < high:
            return dataclasses.replace(found, low=low, high=high, interval=title)
    return found
