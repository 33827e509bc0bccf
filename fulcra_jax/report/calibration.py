# SPDX-License-Identifier: Apache-2.0
"""A calibration before and after: figures of the sets, one table, one picture."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")  # files only: no display is needed
import matplotlib.pyplot as plt
import numpy as np

from fulcra_jax import scoring
from fulcra_jax.report.evaluation import LABELS, RESAMPLES, Answers, Truth
from fulcra_jax.report.tables import Table, number

_POOLED = (
    ("accuracy", "accuracy"),
    ("f1_opposed", "F1 -1"),
    ("f1_none", "F1 0"),
    ("f1_supported", "F1 +1"),
    ("macro_f1", "macro-F1"),
)
_CALIBRATION = (
    ("ece", "ECE"),
    ("classwise_ece", "class-wise ECE"),
    ("brier", "Brier"),
    ("nll", "NLL"),
)
_NAMES = ("P(-1)", "P(0)", "P(+1)")


def cell_figures(answers: Answers, truth: Truth, sets: Any = None) -> dict[str, Any]:
    """Means over cells with intervals: Brier, NLL; with sets what they promise.

    Args:
      answers: with probabilities.
      truth: of the same N rows.
      sets: `[N, V, 3]` bool, or None.

    Returns:
      "brier", "nll", and with sets "unsure" (share of cells with several classes),
      "size" (mean number of classes) and "coverage -1", "coverage 0", "coverage 1"
      (share of the label's cells whose set holds it), each {"figure", "interval"}.
      Intervals are 95 % percentile intervals over clusters of prompts.
    """
    whole = truth.where & (truth.labels == np.rint(truth.labels))
    ids = np.where(whole, np.rint(truth.labels), 0).astype(int) + 1
    true_nvc = np.eye(3)[ids] * whole[..., None]
    probs = np.asarray(answers.probs, np.float64)
    chance = np.where(whole, (probs * np.eye(3)[ids]).sum(-1), 1.0)
    with np.errstate(divide="ignore"):
        parts = {
            "brier": ((probs - np.eye(3)[ids]) ** 2).sum(-1) * whole,
            "nll": -np.log(chance),
        }
    counts = dict.fromkeys(parts, whole)
    if sets is not None:
        size = np.asarray(sets).sum(-1)
        parts |= {"unsure": (size > 1) & whole, "size": size * whole}
        counts |= {"unsure": whole, "size": whole}
        for c, label in enumerate(LABELS):
            parts[f"coverage {label}"] = sets[..., c] * true_nvc[..., c]
            counts[f"coverage {label}"] = true_nvc[..., c]
    _, cluster = np.unique(truth.cluster, return_inverse=True)
    rows = [
        {name: jnp.asarray(x.sum(1), jnp.float32) for name, x in table.items()}
        for table in (parts, counts)
    ]
    totals = scoring.sum_by_cluster(rows, jnp.asarray(cluster), int(cluster.max()) + 1)
    samples = scoring.cluster_bootstrap(
        jax.random.key(0), totals, _ratios, num_resamples=RESAMPLES
    )
    point = _ratios(jax.tree.map(lambda x: x.sum(0), totals))
    found = {}
    for name in parts:
        low, high = scoring.confidence_interval(samples[name])
        interval = [float(low), float(high)]
        found[name] = {"figure": float(point[name]), "interval": interval}
    return found


def _ratios(sums: Sequence[Mapping[str, jax.Array]]) -> dict[str, jax.Array]:
    parts, counts = sums
    return {name: parts[name] / counts[name] for name in parts}


def calibration_table(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    difference: Mapping[str, Any],
    cells: Sequence[Mapping[str, Any]],
) -> Table:
    """One row per figure: before, after and the paired difference.

    Args:
      before: of `evaluation.evaluate`.
      after: of `evaluation.evaluate`.
      difference: after - before, of `evaluation.compare`.
      cells: of `cell_figures`, before and after.
    """
    body = []
    for key, title in _POOLED:
        change = difference[key]
        body.append(
            [
                title,
                *(
                    number(s["pooled"][key], s["interval"][key])
                    for s in (before, after)
                ),
                number(change["difference"], change["interval"]),
            ]
        )
    for key, title in _CALIBRATION:
        figures = [s["calibration"][key] for s in (before, after)]
        known = [x for x in figures if x is not None]
        change = known[1] - known[0] if len(known) == 2 else None
        shown = [
            number(figure, own[key]["interval"] if key in own else None)
            for figure, own in zip(figures, cells, strict=True)
        ]
        body.append([title, *shown, number(change)])
    titles = {"unsure": "share unsure", "size": "classes in a set"}
    for key, entry in cells[1].items():
        if key not in ("brier", "nll"):
            shown = number(entry["figure"], entry["interval"])
            body.append([titles.get(key, key), "-", shown, "-"])
    title = (
        f"{after['rows']} rows, {after['cells']} cells pooled over ten values "
        f"[95 % interval over {after['clusters']} prompt clusters]"
    )
    return title, ["figure", before["name"], after["name"], "after - before"], body


def reliability(
    systems: Sequence[Answers], truth: Truth, path: str | pathlib.Path
) -> None:
    """What each class's probability claims, and how often the class came true.

    A panel per class, a line per system (usually before and after), the number of cells
    in a bin as the size of its point; on the diagonal claims are kept.

    Args:
      systems: with probabilities.
      truth: of the same rows.
      path: of the picture to write; the ending names the format.

    Raises:
      ValueError: if a system has no probabilities.
    """
    for system in systems:
        if system.probs is None or np.isnan(system.probs).any():
            raise ValueError(
                f"calibration.reliability: {system.name} has no probabilities to show."
            )
    whole = jnp.asarray((truth.where & (truth.labels == np.rint(truth.labels))).ravel())
    figure, panels = plt.subplots(1, 3, figsize=(9.6, 3.6), layout="constrained")
    for c, axes in enumerate(panels):
        axes.plot([0, 1], [0, 1], color="#9aa5b1", linewidth=0.8, linestyle=":")
        of_class = jnp.asarray((truth.labels == LABELS[c]).ravel())
        for place, system in enumerate(systems):
            probs = np.asarray(system.probs, np.float32)[..., c].ravel()
            curve = scoring.reliability_curve(
                jnp.asarray(probs), of_class, num_bins=10, where=whole
            )
            counts = np.asarray(curve.counts)
            seen = counts > 0
            x, y = (np.asarray(one)[seen] for one in curve[:2])
            colour = ("#d1903c", "#1b6ca8", "#6a994e")[place % 3]
            axes.plot(x, y, color=colour, linewidth=1.2, label=system.name)
            axes.scatter(x, y, s=4.0 + 3.0 * np.sqrt(counts[seen]), color=colour)
        axes.set_title(
            f"{_NAMES[c]}, {int((of_class & whole).sum())} cells", fontsize=9
        )
        axes.set_xlabel("claimed", fontsize=8)
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("came true", fontsize=8)
    panels[0].legend(fontsize=8, loc="upper left")
    # No date in the file, so that equal figures give equal files.
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)
