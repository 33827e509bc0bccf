# SPDX-License-Identifier: Apache-2.0
"""Pictures of what alignment moved, written to files."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only: no display is needed
import matplotlib.pyplot as plt
import numpy as np

from fulcra_jax import values

COLOURS = ("#1b6ca8", "#d1903c", "#9aa5b1", "#6a994e", "#8e5572")
Intervals = Sequence[Sequence[float]]
"""`[V]` times mean, low, high."""


def change_per_value(
    changes: Mapping[str, Sequence[Intervals]],
    target: np.ndarray,
    path: str | pathlib.Path,
    *,
    title: str = "Change of the mean score, 95 % interval over prompts",
) -> None:
    """The change of each value, a colour for each arm and a dot for each seed.

    Args:
      changes: name of an arm -> one entry a seed, each ten (mean, low, high).
      target: `[10]`; values that it asks for are shaded.
      path: of the picture to write; the ending names the format.
      title: above the picture.
    """
    figure, axes = plt.subplots(figsize=(9, 4.2), layout="constrained")
    places = np.arange(len(values.BASIC))
    for k in np.flatnonzero(target):
        colour = "#6a994e" if target[k] > 0 else "#b23a48"
        axes.axvspan(k - 0.45, k + 0.45, color=colour, alpha=0.15 * abs(target[k]))
    total = sum(len(seeds) for seeds in changes.values())
    offsets = iter(np.linspace(-0.34, 0.34, total) if total > 1 else [0.0])
    for number, (name, seeds) in enumerate(changes.items()):
        for place, entry in enumerate(seeds):
            x = np.asarray(entry, np.float64)
            axes.errorbar(
                places + next(offsets),
                x[:, 0],
                yerr=np.maximum(0.0, [x[:, 0] - x[:, 1], x[:, 2] - x[:, 0]]),
                fmt="o",
                markersize=3.5,
                capsize=1.5,
                color=COLOURS[number % len(COLOURS)],
                label=name if place == 0 else None,
            )
    axes.axhline(0.0, color="black", linewidth=0.8)
    axes.set_xticks(places, values.BASIC, rotation=35, ha="right", fontsize=8)
    axes.set_ylabel("after - before")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8, ncols=max(len(changes), 1))
    axes.set_title(f"{title}; shaded: what the target asks for", fontsize=10)
    _write(figure, path)


def curves(
    arms: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]],
    fields: Mapping[str, str],
    path: str | pathlib.Path,
    *,
    smooth: int = 10,
) -> None:
    """What was watched while training, one panel a quantity and one line a seed.

    Args:
      arms: name of an arm -> one entry a seed, each the lines of its metrics.jsonl.
      fields: field of a line -> title of its panel.
      path: of the picture to write.
      smooth: steps in the running mean.
    """
    figure, panels = plt.subplots(
        1, len(fields), figsize=(3.1 * len(fields), 3.0), layout="constrained"
    )
    for axes, (field, title) in zip(np.atleast_1d(panels), fields.items(), strict=True):
        for number, (name, seeds) in enumerate(arms.items()):
            for place, lines in enumerate(seeds):
                step = np.array([line["step"] for line in lines])
                x = _running_mean(np.array([line[field] for line in lines]), smooth)
                axes.plot(
                    step,
                    x,
                    color=COLOURS[number % len(COLOURS)],
                    alpha=0.8,
                    linewidth=1.2,
                    label=name if place == 0 else None,
                )
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    np.atleast_1d(panels)[0].legend(fontsize=7)
    _write(figure, path)


def shift_map(
    before: np.ndarray,
    after: Mapping[str, Sequence[np.ndarray]],
    target: np.ndarray,
    path: str | pathlib.Path,
) -> None:
    """Arrows on Schwartz's two axes, fixed by theory, so that runs compare.

    Right: openness to change, left: conservation; up: self-transcendence, down:
    self-enhancement. A pole is the mean of its values; Hedonism counts for openness.

    Args:
      before: `[10]` mean score of the start.
      after: name of an arm -> one mean score `[10]` a seed.
      target: `[10]`; only its direction is drawn.
      path: of the picture to write.
    """
    figure, axes = plt.subplots(figsize=(5.2, 4.8), layout="constrained")
    start = theory_axes(before)
    ends = {name: [theory_axes(x) for x in seeds] for name, seeds in after.items()}
    reach = max(
        [0.05]
        + [float(np.abs(end - start).max()) for seeds in ends.values() for end in seeds]
    )
    goal = theory_axes(target)
    length = float(np.hypot(*goal))
    if length > 1e-9:
        tip = start + goal / length * reach
        axes.plot(*np.stack([start, tip], 1), ":", color="#6a994e", label="asked for")
    for number, (name, seeds) in enumerate(ends.items()):
        for place, end in enumerate(seeds):
            colour = COLOURS[number % len(COLOURS)]
            axes.annotate(
                "", xy=tuple(end), xytext=tuple(start),
                arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 1.4},
            )  # fmt: skip
            axes.plot(*end, "o", markersize=3, color=colour,
                      label=name if place == 0 else None)  # fmt: skip
    axes.plot(*start, "ko", markersize=5, label="start")
    axes.set_xlim(start[0] - 1.3 * reach, start[0] + 1.3 * reach)
    axes.set_ylim(start[1] - 1.3 * reach, start[1] + 1.3 * reach)
    axes.set_xlabel("conservation  <->  openness to change", fontsize=9)
    axes.set_ylabel("self-enhancement  <->  self-transcendence", fontsize=9)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    axes.set_title("Mean value vector before and after", fontsize=10)
    _write(figure, path)


def theory_axes(score: np.ndarray) -> np.ndarray:
    """`[..., 2]`: openness - conservation, self-transcendence - self-enhancement.

    Args:
      score: `[..., 10]` in the order of `values.BASIC`.

    >>> theory_axes(np.array([1, 1, 1, 0, 0, 0, 0, 0, 1, 1])).tolist()
    [1.0, 1.0]
    """
    poles = values.basic_to_higher_order(hedonism="openness")
    means = np.asarray(score, np.float64) @ (poles / poles.sum(0))
    by_name = dict(zip(values.HIGHER_ORDER, np.moveaxis(means, -1, 0), strict=True))
    return np.stack(
        [
            by_name["Openness to change"] - by_name["Conservation"],
            by_name["Self-transcendence"] - by_name["Self-enhancement"],
        ],
        -1,
    )


def _running_mean(x: np.ndarray, width: int) -> np.ndarray:
    sums = np.cumsum(np.concatenate([[0.0], x]))
    last = np.arange(1, len(x) + 1)
    first = np.maximum(last - width, 0)
    return (sums[last] - sums[first]) / (last - first)


def _write(figure: Any, path: str | pathlib.Path) -> None:
    # No date in the file, so that equal figures give equal files.
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)
