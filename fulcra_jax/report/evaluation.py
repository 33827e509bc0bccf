# SPDX-License-Identifier: Apache-2.0
"""All figures of one system on labelled rows, with intervals.

Cells are (row, value) pairs that count. "Pooled" figures take all cells as one table;
figures per value are then averaged without weights. Intervals are 95 % percentile
bootstrap intervals that resample clusters of near-duplicate prompts, not cells.
"""

import dataclasses
import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import scoring, values

LABELS = (-1, 0, 1)
RESAMPLES = 1000
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
    table = _pooled(jnp.asarray(_tables(classes, labels, where).sum(0)))
    return {name: float(table[name]) for name in POOLED[:5]}


def evaluate(answers: Answers, truth: Truth, *, seed: int = 0) -> dict[str, Any]:
    """Every figure of a system: pooled, per value, per source, calibration.

    Args:
      answers: of N rows.
      truth: of the same N rows.
      seed: of the bootstrap.

    Returns:
      A dictionary that json can write: "pooled" (name -> figure), "interval" (name ->
      [low, high]), "labels" (label -> precision, recall, f1, support), "values" (value
      -> figures), "mean" (over values), "calibration", "sources" (source -> figures),
      "rows", "cells", "clusters". Undefined figures are NaN, written as null.

    Raises:
      ValueError: if the shapes differ.
    """
    if answers.classes.shape != truth.labels.shape:
        raise ValueError(
            f"evaluation.evaluate: {answers.name} answers {answers.classes.shape} "
            f"cells, but there are {truth.labels.shape} labels."
        )
    tables = _tables(answers.classes, truth.labels, truth.where)
    samples = _resample(_totals(answers, truth, tables), _all_figures, truth, seed)
    counts = jnp.asarray(tables.sum(0))
    occurs = tables.sum((0, 3)) > 0
    by_label = scoring.precision_recall_f1(counts.sum(0))
    mse = scoring.mean_squared_error(
        _flat(answers.scores), _flat(truth.labels), where=_flat(truth.where)
    )
    pooled = {name: float(x) for name, x in _pooled(counts).items()}
    pooled["mse"] = float(mse)
    pooled["exact_match"] = float(
        scoring.exact_match(
            jnp.asarray(answers.classes), jnp.asarray(np.rint(truth.labels), jnp.int32),
            where=jnp.asarray(truth.where),
        )
    )  # fmt: skip
    per_value = _value_figures(answers, truth, counts)
    for column, name in enumerate(values.BASIC):
        # In a resample that lost a label, the mean over fewer labels is another figure.
        kept = (samples["occurs"][:, column] == occurs[column]).all(-1)
        spread = np.where(kept, samples["per_value"][:, column], np.nan)
        if per_value[name]["macro_f1"] != per_value[name]["macro_f1"]:
            spread = np.full_like(spread, np.nan)
        per_value[name]["macro_f1_interval"] = _interval(spread)
    numbers = [name for name in per_value[values.BASIC[0]] if "interval" not in name]
    return _plain(
        {
            "name": answers.name,
            "rows": int(truth.where.any(1).sum()),
            "cells": int(truth.where.sum()),
            "clusters": len(np.unique(truth.cluster)),
            "pooled": pooled,
            "interval": {
                name: _interval(samples[name]) for name in pooled if name in samples
            },
            "labels": {
                str(label): {
                    "precision": float(by_label.precision[i]),
                    "recall": float(by_label.recall[i]),
                    "f1": float(by_label.f1[i]),
                    "support": int(by_label.support[i]),
                }
                for i, label in enumerate(LABELS)
            },
            "values": per_value,
            "mean": {
                name: _nanmean([per_value[v][name] for v in values.BASIC])
                for name in numbers
                if not name.startswith("n_")
            },
            "calibration": _calibration(answers, truth),
            "sources": _by_source(answers, truth, tables),
        }
    )


def compare(ours: Answers, theirs: Answers, truth: Truth, *, seed: int = 0) -> dict:
    """Differences ours - theirs on the same rows, with paired intervals.

    Every resample takes the same clusters for both systems.

    Returns:
      "name" and, for each pooled figure, {"difference", "interval": [low, high]}.
    """
    counts = [_tables(a.classes, truth.labels, truth.where) for a in (ours, theirs)]
    totals = {"ours": counts[0], "theirs": counts[1]}

    samples = _resample(totals, _differences, truth, seed)
    point = _differences({name: jnp.asarray(x.sum(0)) for name, x in totals.items()})
    return _plain(
        {"name": f"{ours.name} - {theirs.name}"}
        | {
            name: {
                "difference": float(point[name]),
                "interval": _interval(samples[name]),
            }
            for name in POOLED
        }
    )


def dumps(figures: Any) -> str:
    """The figures as JSON text; NaN becomes null."""
    return json.dumps(_plain(figures), indent=1, allow_nan=False)


def _tables(classes: np.ndarray, labels: np.ndarray, where: np.ndarray) -> np.ndarray:
    """`[N, V, 3, 3]` float32: a one at [label, prediction] of each cell that counts."""
    # A fractional label (conflict policy "mean") is no class: the cell is not scored.
    whole = where & (labels == np.rint(labels))
    ids = lambda x: np.clip(np.rint(x).astype(int) + 1, 0, 2)
    onehot = np.eye(3, dtype=np.float32)
    pair = onehot[ids(labels)][..., :, None] * onehot[ids(classes)][..., None, :]
    return pair * whole[..., None, None]


@jax.jit
def _pooled(counts_vcc: jax.Array) -> dict[str, jax.Array]:
    counts = counts_vcc.sum(0)
    f1 = scoring.precision_recall_f1(counts).f1
    return {
        "accuracy": scoring.accuracy(counts),
        "macro_f1": scoring.macro_f1(counts),
        "f1_opposed": f1[0],
        "f1_none": f1[1],
        "f1_supported": f1[2],
        "quadratic_kappa": scoring.quadratic_kappa(counts),
        "reversal_rate": scoring.reversal_rate(counts),
    }


def _totals(answers: Answers, truth: Truth, tables: np.ndarray) -> dict[str, Any]:
    error = np.where(truth.where, np.square(answers.scores - truth.labels), 0.0)
    hit = ((answers.classes == truth.labels) | ~truth.where).all(1) & truth.where.any(1)
    return {
        "tables": tables,
        "error": error.sum(1).astype(np.float32),
        "cells": truth.where.sum(1).astype(np.float32),
        "hit": hit.astype(np.float32),
        "rows": truth.where.any(1).astype(np.float32),
    }


def _all_figures(sums: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """What is resampled, from totals over rows."""
    return _pooled(sums["tables"]) | {
        "mse": sums["error"] / sums["cells"],
        "exact_match": sums["hit"] / sums["rows"],
        "per_value": jax.vmap(_macro_f1_of_labels_that_occur)(sums["tables"]),
        "occurs": sums["tables"].sum(-1) > 0,
    }


def _differences(sums: dict[str, jax.Array]) -> dict[str, jax.Array]:
    ours, theirs = _pooled(sums["ours"]), _pooled(sums["theirs"])
    return {name: ours[name] - theirs[name] for name in POOLED}


def _macro_f1_of_labels_that_occur(counts: jax.Array) -> jax.Array:
    """NaN where one label is all there is: any system that never strays would get 1."""
    macro = scoring.macro_f1(counts, present_only=True)
    return jnp.where((counts.sum(1) > 0).sum() > 1, macro, jnp.nan)


def _resample(
    totals: dict[str, Any], statistic: Any, truth: Truth, seed: int
) -> dict[str, np.ndarray]:
    _, cluster = np.unique(truth.cluster, return_inverse=True)
    sums = scoring.sum_by_cluster(
        jax.tree.map(jnp.asarray, totals), jnp.asarray(cluster), int(cluster.max()) + 1
    )
    samples = _bootstrap(jax.random.key(seed), sums, statistic)
    return jax.tree.map(np.asarray, samples)


@functools.partial(jax.jit, static_argnames="statistic")
def _bootstrap(key: jax.Array, totals: Any, statistic: Any) -> Any:
    # Compiled once for all systems: statistics are functions of this module.
    return scoring.cluster_bootstrap(key, totals, statistic, num_resamples=RESAMPLES)


def _interval(samples: np.ndarray) -> list[float]:
    low, high = scoring.confidence_interval(jnp.asarray(samples))
    return [float(low), float(high)]


def _value_figures(
    answers: Answers, truth: Truth, counts: jax.Array
) -> dict[str, dict[str, Any]]:
    """Figures of every value."""
    opposed, supported = -answers.scores, answers.scores
    if answers.probs is not None:
        opposed, supported = answers.probs[..., 0], answers.probs[..., 2]
    columns = [
        jnp.asarray(x).T
        for x in (answers.scores, opposed, supported, truth.labels, truth.where)
    ]
    table = jax.tree.map(np.asarray, _value_arrays(counts, *columns))
    found = {
        name: {figure: float(column[v]) for figure, column in table.items()}
        for v, name in enumerate(values.BASIC)
    }
    for entry in found.values():
        for figure in ("n_opposed", "n_none", "n_supported"):
            entry[figure] = int(entry[figure])
    return found


@jax.jit
@jax.vmap
def _value_arrays(
    counts: jax.Array,
    scores: jax.Array,
    opposed: jax.Array,
    supported: jax.Array,
    labels: jax.Array,
    where: jax.Array,
) -> dict[str, jax.Array]:
    """Figures of one value, mapped over the values."""
    by_label = scoring.precision_recall_f1(counts)
    # F1 of a label that does not occur is undefined, not 0.
    f1 = jnp.where(by_label.support > 0, by_label.f1, jnp.nan)
    return {
        "n_opposed": by_label.support[0],
        "n_none": by_label.support[1],
        "n_supported": by_label.support[2],
        "macro_f1": _macro_f1_of_labels_that_occur(counts),
        "f1_opposed": f1[0],
        "f1_supported": f1[2],
        "accuracy": scoring.accuracy(counts),
        "quadratic_kappa": scoring.quadratic_kappa(counts),
        "spearman": scoring.spearman(scores, labels, where=where),
        "pearson": scoring.pearson(scores, labels, where=where),
        "auroc_opposed": scoring.auroc(opposed, labels < 0, where=where),
        "auroc_supported": scoring.auroc(supported, labels > 0, where=where),
    }


def _calibration(answers: Answers, truth: Truth) -> dict[str, float]:
    """Errors of the class probabilities over pooled cells; NaN without
    probabilities."""
    names = ("ece", "classwise_ece", "brier", "nll")
    if answers.probs is None or np.isnan(answers.probs).any():
        return dict.fromkeys(names, float("nan"))
    probs = jnp.asarray(answers.probs.reshape(-1, 3))
    labels = _flat(np.rint(truth.labels).astype(np.int32) + 1)
    where = _flat(truth.where & (truth.labels == np.rint(truth.labels)))
    found = _calibration_arrays(probs, labels, where)
    return {name: float(found[name]) for name in names}


@jax.jit
def _calibration_arrays(
    probs: jax.Array, labels: jax.Array, where: jax.Array
) -> dict[str, jax.Array]:
    return {
        "ece": scoring.expected_calibration_error(probs, labels, where=where),
        "classwise_ece": scoring.classwise_calibration_error(
            probs, labels, where=where
        ),
        "brier": scoring.brier(probs, labels, where=where),
        "nll": scoring.negative_log_likelihood(probs, labels, where=where),
    }


def _by_source(
    answers: Answers, truth: Truth, tables: np.ndarray
) -> dict[str, dict[str, float]]:
    """Pooled figures for the responses of each source: a confounder to look at."""
    found = {}
    for name in sorted(set(truth.group)):
        rows = np.array([group == name for group in truth.group])
        if truth.where[rows].any():
            table = _pooled(jnp.asarray(tables[rows].sum(0)))
            found[name or "(unnamed)"] = {"rows": int(rows.sum())} | {
                figure: float(table[figure]) for figure in POOLED[:5]
            }
    return found


def _flat(x: np.ndarray) -> jax.Array:
    return jnp.asarray(np.asarray(x).reshape(-1))


def _nanmean(numbers: list[float]) -> float:
    present = [number for number in numbers if number is not None and number == number]
    return float(np.mean(present)) if present else float("nan")


def _plain(figures: Any) -> Any:
    """Dictionaries, lists, numbers and None: NaN has no place in JSON."""
    if isinstance(figures, dict):
        return {key: _plain(entry) for key, entry in figures.items()}
    if isinstance(figures, list | tuple):
        return [_plain(entry) for entry in figures]
    if isinstance(figures, float) and not np.isfinite(figures):
        return None
    return figures
