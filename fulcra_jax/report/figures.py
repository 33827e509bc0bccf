# SPDX-License-Identifier: Apache-2.0
"""Pictures of an evaluation, written to files."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only: no display is needed
import matplotlib.pyplot as plt
import numpy as np

from fulcra_jax import values

_COLOURS = ("#1b6ca8", "#9aa5b1", "#d1903c", "#6a994e", "#8e5572")
_DASHES = ("-", "--", ":", "-.")


def per_value(systems: Sequence[Mapping[str, Any]], path: str | pathlib.Path) -> None:
    """Macro-F1 per value as dots with intervals, one colour per system, support below.

    Args:
      systems: from `evaluation.evaluate`, the one of interest first.
      path: of the picture to write; the ending names the format.
    """
    figure, axes = plt.subplots(figsize=(9, 4.2), layout="constrained")
    offsets = np.linspace(-0.22, 0.22, len(systems)) if len(systems) > 1 else [0.0]
    for place, figures in enumerate(systems):
        entries = [figures["values"][name] for name in values.BASIC]
        middle = np.array([_nan(entry["macro_f1"]) for entry in entries])
        spread = np.array(
            [[_nan(end) for end in entry["macro_f1_interval"]] for entry in entries]
        )
        axes.errorbar(
            np.arange(len(entries)) + offsets[place],
            middle,
            # A percentile interval may leave the point estimate just outside.
            yerr=np.maximum(0.0, [middle - spread[:, 0], spread[:, 1] - middle]),
            fmt="o",
            color=_COLOURS[place % len(_COLOURS)],
            label=figures["name"],
            capsize=2,
        )
    counts = [systems[0]["values"][name] for name in values.BASIC]
    axes.set_xticks(
        range(len(counts)),
        [
            f"{name}\n+{entry['n_supported']} -{entry['n_opposed']}"
            for name, entry in zip(values.BASIC, counts, strict=True)
        ],
        rotation=35,
        ha="right",
        fontsize=8,
    )
    axes.set_ylabel("macro-F1 over labels that occur")
    axes.set_ylim(0, 1.02)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="lower left", fontsize=8, ncols=len(systems))
    axes.set_title("Per value, 95 % interval by prompt-cluster bootstrap", fontsize=10)
    _write(figure, path)


def training_curve(
    lines: Sequence[Mapping[str, Any]], path: str | pathlib.Path
) -> None:
    """Training loss and dev macro-F1 over the steps of a run.

    Args:
      lines: of the run's metrics.jsonl.
      path: of the picture to write.
    """
    train = [line for line in lines if line.get("split") == "train"]
    dev = [line for line in lines if line.get("split") == "dev"]
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    axes.plot(
        [line["step"] for line in train],
        [line["loss"] for line in train],
        color=_COLOURS[1],
        label="training loss",
    )
    axes.set_xlabel("step")
    axes.set_ylabel("training loss")
    right = axes.twinx()
    right.plot(
        [line["step"] for line in dev],
        [line["macro_f1"] for line in dev],
        "o-",
        color=_COLOURS[0],
        label="dev macro-F1",
    )
    right.set_ylabel("dev macro-F1")
    right.set_ylim(0, 1)
    _write(figure, path)


_PANELS = (
    ("train", "loss", "training loss"),
    ("dev", "macro_f1", "dev macro-F1"),
    ("train", "learning_rate", "learning rate"),
    ("train", "examples_per_s", "examples/s"),
)
_LINES = 10
"""Lines of metrics.jsonl whose losses are averaged."""


def training_curves(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], path: str | pathlib.Path
) -> None:
    """Loss, dev macro-F1, learning rate and speed of several runs over their steps.

    A figure that a line lacks, or that is null, is left out; a panel without any says
    so. The loss of a line is that of one batch: from twenty lines on it is pale, and
    the mean of ten lines is drawn over it.

    Args:
      runs: name -> the lines of the run's metrics.jsonl.
      path: of the picture to write; the ending names the format.

    Raises:
      ValueError: if there is no run, or the ending is no format.
    """
    if not runs:
        raise ValueError("figures.training_curves: runs is empty; give at least one.")
    figure, panels = plt.subplots(2, 2, figsize=(9, 5.6), layout="constrained")
    handles: dict[str, Any] = {}
    for axes, (split, field, title) in zip(panels.flat, _PANELS, strict=True):
        for number, (name, lines) in enumerate(runs.items()):
            points = [
                (line["step"], line[field])
                for line in lines
                if line.get("split") == split and line.get(field) is not None
            ]
            if not points:
                continue
            colour = _COLOURS[number % len(_COLOURS)]
            if field == "loss" and len(points) >= 2 * _LINES:
                axes.plot(
                    *zip(*points, strict=True), color=colour, linewidth=0.6, alpha=0.5
                )
                points = _means(points)
                axes.set_ylabel(f"mean of {_LINES} lines; pale: each", fontsize=7)
            [handles[name]] = axes.plot(
                *zip(*points, strict=True),
                marker="o" if split == "dev" else None,
                markersize=3,
                linewidth=1.2,
                color=colour,
                # Colours come again from the sixth run on.
                linestyle=_DASHES[number // len(_COLOURS) % len(_DASHES)],
            )
        if not axes.lines:
            axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center")
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    figure.legend(
        list(handles.values()), list(handles), fontsize=8, loc="outside lower center"
    )
    _write(figure, path)


def _means(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Each point as the mean of the last ten, or of as many as there are."""
    sums = np.cumsum([0.0, *(number for _, number in points)])
    ends = np.arange(1, len(sums))
    starts = np.maximum(ends - _LINES, 0)
    means = (sums[ends] - sums[starts]) / (ends - starts)
    return [(step, float(mean)) for (step, _), mean in zip(points, means, strict=True)]


def _nan(number: float | None) -> float:
    return float("nan") if number is None else number


def _write(figure: Any, path: str | pathlib.Path) -> None:
    # No date in the file, so that equal figures give equal files.
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)
