# SPDX-License-Identifier: Apache-2.0
"""All figures of one system on labelled rows, with intervals.

Cells are (row, value) pairs that count. "Pooled" figures take all cells as one table;
figures per value are then averaged without weights. Intervals are 95 % percentile
bootstrap intervals that resample clusters of near-duplicate prompts, not cells.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from fulcra_jax import values
from fulcra_jax.report import cells
from fulcra_jax.report.resamples import RESAMPLES as RESAMPLES
from fulcra_jax.report.resamples import (
    Figures,
    intervals,
    mean_of_values,
    resampled,
    weighted_sums,
)

LABELS = (-1, 0, 1)
_F1 = ("f1_opposed", "f1_none", "f1_supported")
CALIBRATION = ("ece", "classwise_ece", "brier", "nll")
MOST_SOURCES = 20
"""Sources of responses that are told apart; rarer ones are others."""
POOLED = (
    "accuracy",
    "macro_f1",
    "f1_opposed",
    "f1_none",
    "f1_supported",
    "quadratic_kappa",
    "reversal_rate",
)
"""Pooled figures that follow from the confusion table."""


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a system says of N rows."""

    name: str
    classes: np.ndarray
    """`[N, 10]` int in {-1, 0, 1}."""
    scores: np.ndarray
    """`[N, 10]` float in [-1, 1]."""
    probs: np.ndarray | None = None
    """`[N, 10, 3]` float, or None for a system without probabilities."""


@dataclasses.dataclass(frozen=True)
class Truth:
    """The labels of N rows and how rows hang together."""

    labels: np.ndarray
    """`[N, 10]` in [-1, 1]; only whole labels are scored as classes."""
    where: np.ndarray
    """`[N, 10]` bool."""
    cluster: np.ndarray
    """`[N]` int in [0, G): near-duplicate prompts share a cluster."""
    group: tuple[str, ...] = ()
    """N names of the response's source, or none."""

    def __post_init__(self) -> None:
        if not self.where.any():
            raise ValueError(
                "evaluation.Truth: no cell is labelled; nothing to evaluate."
            )


def quick_figures(
    classes: np.ndarray, labels: np.ndarray, where: np.ndarray
) -> dict[str, float]:
    """Accuracy, macro-F1 and the three F1 of pooled cells, without intervals."""
    found = _pooled(cells.tables(classes, labels, where).sum((0, 1)))
    return {name: float(found[name]) for name in POOLED[:5]}


def evaluate(
    answers: Answers, truth: Truth, *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Every figure of a system: pooled, per value, per source, calibration.

    Args:
      answers: of N rows.
      truth: of the same N rows.
      seed: of the bootstrap.
      resamples: of the bootstrap.

    Returns:
      A dictionary that json can write: "pooled" (name -> figure), "interval" (name ->
      [low, high]), "labels" (label -> precision, recall, f1, support), "values" (value
      -> figures), "mean" (over values), "calibration", "sources" (source -> figures),
      "rows", "cells", "clusters". Beside a figure "x" of labels, values and sources
      stands "x_interval", beside "mean" and "calibration" "mean_interval" and
      "calibration_interval". Undefined figures are NaN, written as null. A mean is over
      the values whose figure is defined, in each resample again.

    Raises:
      ValueError: if the shapes differ.
    """
    if answers.classes.shape != truth.labels.shape:
        raise ValueError(
            f"evaluation.evaluate: {answers.name} answers {answers.classes.shape} "
            f"cells, but there are {truth.labels.shape} labels."
        )
    names, source = _sources(truth)
    probs = answers.probs
    if probs is not None and np.isnan(probs).any():
        probs = None
    prepared = cells.prepare(
        answers.classes, answers.scores, probs, truth.labels, truth.where, source
    )
    sums = resampled(prepared.sums, truth.cluster, seed=seed, resamples=resamples)
    pooled = _pooled(sums["tables"].sum(1)) | {
        "mse": _ratio(sums["error"], sums["cells"]),
        "exact_match": _ratio(sums["hit"], sums["rows"]),
    }
    undefined = np.full(len(sums["cells"]), np.nan)
    calibration: Figures = {name: undefined for name in CALIBRATION}
    if probs is not None:
        calibration = cells.calibration_figures(sums)
    by_value = _value_figures(sums)
    counted = {
        name: by_value.pop(name) for name in ("n_opposed", "n_none", "n_supported")
    }
    means = {name: mean_of_values(figure) for name, figure in by_value.items()}
    ends = intervals(by_value)
    per_value = {
        value: {name: int(counts[0, v]) for name, counts in counted.items()}
        | {name: float(figure[0, v]) for name, figure in by_value.items()}
        | {f"{name}_interval": pairs[v] for name, pairs in ends.items()}
        for v, value in enumerate(values.BASIC)
    }
    return plain(
        {
            "name": answers.name,
            "rows": int(truth.where.any(1).sum()),
            "cells": int(truth.where.sum()),
            "clusters": len(np.unique(truth.cluster)),
            "pooled": _point(pooled),
            "interval": intervals(pooled),
            "labels": _label_figures(sums["tables"].sum(1)),
            "values": per_value,
            "mean": _point(means),
            "mean_interval": intervals(means),
            "calibration": _point(calibration),
            "calibration_interval": intervals(calibration),
            "sources": _source_figures(names, source, truth, sums),
        }
    )


def compare(
    ours: Answers,
    theirs: Answers,
    truth: Truth,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict:
    """Differences ours - theirs on the same rows, with paired intervals.

    Every resample takes the same clusters for both systems.

    Returns:
      "name" and, for each pooled figure, {"difference", "interval": [low, high]}.
    """
    both = np.stack(
        [
            cells.tables(system.classes, truth.labels, truth.where).sum(1)
            for system in (ours, theirs)
        ],
        1,
    )
    sums = resampled(
        lambda weights: {"tables": weighted_sums(weights, both)},
        truth.cluster,
        seed=seed,
        resamples=resamples,
    )
    figures = _pooled(sums["tables"])
    off = {name: figures[name][:, 0] - figures[name][:, 1] for name in POOLED}
    ends = intervals(off)
    return plain(
        {"name": f"{ours.name} - {theirs.name}"}
        | {
            name: {"difference": float(x[0]), "interval": ends[name]}
            for name, x in off.items()
        }
    )


def dumps(figures: Any) -> str:
    """The figures as JSON text; NaN becomes null."""
    return json.dumps(plain(figures), indent=1, allow_nan=False)


def _pooled(counts: np.ndarray) -> Figures:
    """The figures of `POOLED` of tables `[..., 3, 3]`."""
    found = cells.table_figures(counts)
    for name, column in zip(_F1, range(3), strict=True):
        found[name] = found["f1"][..., column]
    return {name: found[name] for name in POOLED}


def _label_figures(counts: np.ndarray) -> dict[str, dict[str, Any]]:
    """Precision, recall, F1 and support of each label, from tables `[1 + S, 3, 3]`."""
    found = cells.table_figures(counts)
    shown = ("precision", "recall", "f1")
    return {
        str(label): _beside({name: found[name][:, c] for name in shown})
        | {"support": int(found["support"][0, c])}
        for c, label in enumerate(LABELS)
    }


def _value_figures(sums: Figures) -> Figures:
    """Figures of every value, `[1 + S, V]` each."""
    found = cells.table_figures(sums["tables"])
    support = found["support"]
    # In a resample that lost a label, the mean over fewer labels is another figure.
    kept = ((support > 0) == (support[:1] > 0)).all(-1)
    # F1 of a label that does not occur is undefined, not 0.
    f1 = np.where(support > 0, found["f1"], np.nan)
    return {
        "n_opposed": support[..., 0],
        "n_none": support[..., 1],
        "n_supported": support[..., 2],
        "macro_f1": np.where(kept, found["macro_f1_present"], np.nan),
        "f1_opposed": f1[..., 0],
        "f1_supported": f1[..., 2],
        "accuracy": found["accuracy"],
        "quadratic_kappa": found["quadratic_kappa"],
    } | {
        name: sums[name]
        for name in ("spearman", "pearson", "auroc_opposed", "auroc_supported")
    }


def _sources(truth: Truth) -> tuple[list[str], np.ndarray | None]:
    """Names of the sources, the most frequent first, and the number of each row's."""
    labelled = np.asarray(truth.where.any(1))
    counts = Counter(
        group
        for group, counts in zip(truth.group, labelled.tolist(), strict=False)
        if counts
    )
    if not counts:
        return [], None
    names = [name for name, _ in counts.most_common(MOST_SOURCES)]
    place = {name: number for number, name in enumerate(names)}
    numbers = np.array([place.get(group, len(names)) for group in truth.group])
    shown = [name or "(unnamed)" for name in names]
    if len(counts) > len(names):
        shown.append(f"({len(counts) - len(names)} others)")
    return shown, np.minimum(numbers, len(shown))


def _source_figures(
    names: Sequence[str], source: np.ndarray | None, truth: Truth, sums: Figures
) -> dict[str, dict[str, Any]]:
    """Pooled figures for the responses of each source: a confounder to look at."""
    if source is None:
        return {}
    figures = _pooled(sums["sources"])
    found = {}
    for place, name in enumerate(names):
        rows = (source == place) & truth.where.any(1)
        found[name] = {
            "rows": int(rows.sum()),
            "cells": int(truth.where[rows].sum()),
            "n_opposed": int((truth.labels[rows] == -1)[truth.where[rows]].sum()),
        } | _beside({figure: figures[figure][:, place] for figure in POOLED})
    return dict(sorted(found.items()))


def _beside(figures: Figures) -> dict[str, Any]:
    """Figures `[1 + S]` and, under their names with "_interval", their intervals.

    A figure that is undefined has no interval, whatever its resamples say.
    """
    point, spread = _point(figures), intervals(figures)
    return point | {f"{name}_interval": ends for name, ends in spread.items()}


def _point(figures: Figures) -> dict[str, float]:
    return {name: float(x[0]) for name, x in figures.items()}


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1.0), np.nan)


def plain(figures: Any) -> Any:
    """Dictionaries, lists, numbers and None: NaN has no place in JSON."""
    if isinstance(figures, dict):
        return {key: plain(entry) for key, entry in figures.items()}
    if isinstance(figures, list | tuple):
        return [plain(entry) for entry in figures]
    if isinstance(figures, float) and not np.isfinite(figures):
        return None
    return figures
