# SPDX-License-Identifier: Apache-2.0
"""All figures of one system that says which categories are there, with intervals.

Two averages are called macro-F1 and both are given: "official F1" is 2PR/(P+R) of the
macro-averaged precision and recall, the measure of ValueEval'23; "mean F1" is the mean
of the categories' F1. Intervals are 95 % percentile bootstrap intervals that resample
conclusions, not arguments: many arguments share a conclusion, so that arguments are
far from independent.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import scoring
from fulcra_jax.report.tables import Table, number

RESAMPLES = 1000
MACRO = scoring.MacroScores._fields
"""official_f1, mean_f1, precision, recall."""
_TITLES = ("official F1", "mean F1", "P", "R")

PUBLISHED: tuple[tuple[str, float], ...] = (
    ("all-ones", 0.25),
    ("TF-IDF + LR", 0.35),
    ("BERT, the organisers' baseline", 0.42),
    ("ensemble of twelve, the winner", 0.56),
)
"""Official F1 on the test arguments, whose labels are not released with them. Recalled
from the task's overview and the data's description, not recomputed here."""

REPORTED: tuple[tuple[str, float], ...] = (
    ("SVM", 0.37),
    ("DistilBERT", 0.43),
    ("BERT-base", 0.42),
    ("BERT-large", 0.44),
    ("RoBERTa-base", 0.47),
    ("RoBERTa-large", 0.50),
)
"""Mean F1 on validation, as github.com/alessiococchieri/human-values-detection reports
of models trained on the training arguments; how they choose cuts was not checked."""


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a system says of N arguments."""

    name: str
    there: np.ndarray
    """`[N, V]` bool."""
    probs: np.ndarray | None = None
    """`[N, V]` float in [0, 1], or None for a system without probabilities."""


@dataclasses.dataclass(frozen=True)
class Truth:
    """The labels of N arguments and how they hang together."""

    labels: np.ndarray
    """`[N, V]` of 0 and 1."""
    where: np.ndarray
    """`[N, V]` bool."""
    cluster: np.ndarray
    """`[N]` int: arguments for or against near-duplicate conclusions share one."""
    names: tuple[str, ...]
    """V categories."""

    def __post_init__(self) -> None:
        if self.labels.shape != (len(self.cluster), len(self.names)):
            raise ValueError(
                f"presence.Truth: labels has shape {self.labels.shape}; expected "
                f"[{len(self.cluster)}, {len(self.names)}], arguments by categories."
            )
        if not self.where.any():
            raise ValueError("presence.Truth: no cell is labelled; nothing to judge.")


def quick_figures(
    there: np.ndarray, labels: np.ndarray, where: np.ndarray
) -> dict[str, float]:
    """Accuracy of the cells and the averages over categories, without intervals.

    Args:
      there: `[N, V]` bool.
      labels: `[N, V]` of 0 and 1.
      where: `[N, V]` bool.

    Returns:
      accuracy, macro_f1 (the mean of the categories' F1), official_f1, precision and
      recall.
    """
    counts = _cells(there, labels, where).sum(0)
    found = scoring.macro_scores(jnp.asarray(counts))
    hit = (there == (labels > 0)) & where
    return {
        "accuracy": float(hit.sum() / max(1, where.sum())),
        "macro_f1": float(found.mean_f1),
        "official_f1": float(found.official_f1),
        "precision": float(found.precision),
        "recall": float(found.recall),
    }


def evaluate(system: Predictions, truth: Truth, *, seed: int = 0) -> dict[str, Any]:
    """Every figure of a system: averages, and every category.

    Args:
      system: of N arguments.
      truth: of the same N arguments.
      seed: of the bootstrap.

    Returns:
      "name", "rows", "cells", "clusters"; "macro" (official_f1, mean_f1, precision,
      recall, auroc) and their "interval"; "categories" (name -> precision, recall, f1,
      f1_interval, auroc, support, predicted). In a resample without a label of some
      category, averages are over the others. Undefined is NaN.

    Raises:
      ValueError: if the shapes differ.
    """
    _check(system, truth)
    cells = _cells(system.there, truth.labels, truth.where)
    counts = jnp.asarray(cells.sum(0))
    scores = scoring.presence_scores(counts)
    samples = _resample({"counts": cells}, _averages, truth, seed)
    auroc = np.full(len(truth.names), np.nan)
    if system.probs is not None:
        auroc = np.asarray(_auroc(system.probs, truth.labels > 0, truth.where))
    macro = scoring.macro_scores(counts)._asdict()
    categories = {}
    for v, name in enumerate(truth.names):
        categories[name] = {
            "precision": float(scores.precision[v]),
            "recall": float(scores.recall[v]),
            "f1": float(scores.f1[v]),
            "f1_interval": _interval(samples["f1"][:, v]),
            "auroc": float(auroc[v]),
            "support": int(scores.support[v]),
            "predicted": int(counts[v, 1]),
        }
    known = auroc[~np.isnan(auroc)]
    return {
        "name": system.name,
        "rows": int(truth.where.any(1).sum()),
        "cells": int(truth.where.sum()),
        "clusters": len(np.unique(truth.cluster[truth.where.any(1)])),
        "macro": {name: float(x) for name, x in macro.items()}
        | {"auroc": float(known.mean()) if len(known) else float("nan")},
        "interval": {name: _interval(samples[name]) for name in MACRO},
        "categories": categories,
    }


def compare(
    ours: Predictions, theirs: Predictions, truth: Truth, *, seed: int = 0
) -> dict[str, Any]:
    """Differences ours - theirs on the same arguments, with paired intervals.

    Every resample takes the same conclusions for both systems.

    Returns:
      "ours" and "theirs" (names) and, for each average, {"difference", "interval":
      [low, high]}.

    Raises:
      ValueError: if the shapes differ.
    """
    totals = {}
    for key, system in (("ours", ours), ("theirs", theirs)):
        _check(system, truth)
        totals[key] = _cells(system.there, truth.labels, truth.where)
    samples = _resample(totals, _differences, truth, seed)
    point = _differences({key: jnp.asarray(x.sum(0)) for key, x in totals.items()})
    return {"ours": ours.name, "theirs": theirs.name} | {
        name: {
            "difference": float(point[name]),
            "interval": _interval(samples[name]),
        }
        for name in MACRO
    }


def systems_table(systems: Sequence[Mapping[str, Any]]) -> Table:
    """One row per system: the averages, the two F1 with intervals."""
    body = []
    for figures in systems:
        cells = [str(figures["name"])]
        for key in MACRO:
            spread = figures["interval"][key] if key.endswith("f1") else None
            cells.append(number(figures["macro"][key], spread))
        body.append([*cells, number(figures["macro"]["auroc"])])
    first = systems[0]
    title = (
        f"{first['rows']} arguments, {len(first['categories'])} categories [95 % "
        f"interval over {first['clusters']} clusters of conclusions]; official F1 = "
        "2PR/(P+R) of the averaged P and R, mean F1 = mean of the categories' F1"
    )
    return title, ["system", *_TITLES, "AUROC"], body


def categories_table(figures: Mapping[str, Any]) -> Table:
    """One row per category."""
    keys = ("support", "predicted", "precision", "recall", "f1", "auroc")
    body = [
        [
            name,
            *(
                number(entry[key], entry["f1_interval"] if key == "f1" else None)
                for key in keys
            ),
        ]
        for name, entry in figures["categories"].items()
    ]
    header = ["category", "n", "told", "P", "R", "F1", "AUROC"]
    return f"{figures['name']}: figures per category (- is undefined)", header, body


def differences_table(differences: Sequence[Mapping[str, Any]]) -> Table:
    """What one system has over each of several others: one row per other system."""
    body = [
        [
            str(entry["theirs"]),
            *(
                number(entry[key]["difference"], entry[key]["interval"])
                for key in MACRO
            ),
        ]
        for entry in differences
    ]
    title = (
        f"paired differences: {differences[0]['ours']} minus the system of the row "
        "[95 % interval]"
    )
    return title, ["minus", *_TITLES], body


def published_table() -> Table:
    """What others report: on the test arguments, and on validation."""
    title = (
        "published, recalled and not recomputed: official F1 on TEST, which does not "
        "compare with figures on validation; mean F1 on validation, as others report it"
    )
    tested = [[name, number(f1), ""] for name, f1 in PUBLISHED]
    validated = [[name, "", number(f1)] for name, f1 in REPORTED]
    head = ["system", "official F1, test", "mean F1, validation"]
    return title, head, tested + validated


def _check(system: Predictions, truth: Truth) -> None:
    if system.there.shape != truth.labels.shape:
        raise ValueError(
            f"presence: {system.name} answers {system.there.shape} cells; there are "
            f"{truth.labels.shape} labels."
        )


def _cells(there: np.ndarray, labels: np.ndarray, where: np.ndarray) -> np.ndarray:
    """`[N, V, 3]` float32: what `scoring.presence_counts` adds up."""
    said, is_there = (there > 0) & where, (labels > 0) & where
    return np.stack([said & is_there, said, is_there], -1).astype(np.float32)


def _averages(sums: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """What is resampled, from totals over arguments."""
    counts = sums["counts"]
    return scoring.macro_scores(counts)._asdict() | {
        "f1": scoring.presence_scores(counts).f1
    }


def _differences(sums: dict[str, jax.Array]) -> dict[str, jax.Array]:
    ours, theirs = (scoring.macro_scores(sums[key]) for key in ("ours", "theirs"))
    return jax.tree.map(jnp.subtract, ours, theirs)._asdict()


@jax.jit
def _auroc(probs: jax.Array, there: jax.Array, where: jax.Array) -> jax.Array:
    one = lambda p, y, w: scoring.auroc(p, y, where=w)
    return jax.vmap(one, in_axes=1)(probs, there, where)


def _resample(
    totals: dict[str, Any], statistic: Any, truth: Truth, seed: int
) -> dict[str, np.ndarray]:
    # An argument without labels would be a cluster that says nothing.
    kept = truth.where.any(1)
    _, cluster = np.unique(truth.cluster[kept], return_inverse=True)
    sums = scoring.sum_by_cluster(
        {name: jnp.asarray(x[kept]) for name, x in totals.items()},
        jnp.asarray(cluster),
        int(cluster.max()) + 1,
    )
    samples = _bootstrap(jax.random.key(seed), sums, statistic)
    return jax.tree.map(np.asarray, samples)


@functools.partial(jax.jit, static_argnames="statistic")
def _bootstrap(key: jax.Array, totals: Any, statistic: Any) -> Any:
    return scoring.cluster_bootstrap(key, totals, statistic, num_resamples=RESAMPLES)


def _interval(samples: np.ndarray) -> list[float]:
    low, high = scoring.confidence_interval(jnp.asarray(samples))
    return [float(low), float(high)]
