# SPDX-License-Identifier: Apache-2.0
"""Pictures of an agreement report, written to files."""

import pathlib
import warnings
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only: no display is needed
import matplotlib.pyplot as plt
import numpy as np

from fulcra_jax.report.agreement import Report
from fulcra_jax.report.agreement_cells import (
    MOST_DRAWN,
    left_out,
    most_rated,
    one_line,
    percent,
    presentable,
)
from fulcra_jax.report.agreement_groups import ACCEPTABLE, GOOD

# Okabe and Ito's palette, which colour-blind readers can tell apart.
_BLUE, _ORANGE, _GREY = "#0072b2", "#d55e00", "#7f7f7f"
_LONGEST = 28
_MOST_NUMBERS = 30
"""Annotators up to which the heatmap has numbers."""


def per_value(report: Report, path: str | pathlib.Path) -> None:
    """Observed beside chance agreement, and alpha with its interval, per value.

    Args:
      report: with two annotators or more. Of more than `MOST_DRAWN` values those are
        drawn that have the most labels beside 0.
      path: of the picture to write; the ending names the format.
    """
    assert report.pooled is not None
    report = presentable(report)
    assert report.pooled is not None
    some = report.per_value
    mentioned = lambda v: -(some[v].labels[0] + some[v].labels[2])
    drawn = sorted(sorted(range(len(some)), key=mentioned)[:MOST_DRAWN])
    groups = [*(some[v] for v in drawn), report.pooled]
    y = np.arange(len(groups))[::-1]
    observed, chance, alpha, low, high = (
        np.array(column)
        for column in zip(
            *(
                (
                    g.observed.value,
                    g.chance.value,
                    g.alpha.value,
                    g.alpha.low,
                    g.alpha.high,
                )
                for g in groups
            ),
            strict=True,
        )
    )
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 1.6 + 0.36 * len(groups)), layout="constrained", sharey=True
    )
    left.hlines(y, chance, observed, color=_GREY, linewidth=2, zorder=1)
    left.plot(chance, y, "D", color=_ORANGE, mfc="white", label="by chance")
    left.plot(observed, y, "o", color=_BLUE, label="observed")
    left.set_xlim(0, 1.02)
    left.set_xlabel("share of agreeing pairs")
    left.set_title("Raw agreement, and what chance alone gives", fontsize=10)
    left.legend(loc="lower left", fontsize=8)
    left.set_yticks(
        y, [f"{_short(g.name)}  ({g.base_rate.value:.0%} not 0)" if not
            g.base_rate.reason else _short(g.name) for g in groups], fontsize=8
    )  # fmt: skip
    left.axhline(0.5, color=_GREY, linewidth=0.5)
    known = np.isfinite([low, high]).all(0)
    right.hlines(y[known], low[known], high[known], color=_BLUE, linewidth=2)
    few = np.array([g.few for g in groups])
    right.plot(alpha[~few], y[~few], "o", color=_BLUE, label="alpha")
    if few.any():
        right.plot(
            alpha[few], y[few], "o", color=_BLUE, mfc="white", label="too few labels"
        )
    for limit, style in ((ACCEPTABLE, ":"), (GOOD, "--")):
        right.axvline(limit, color=_ORANGE, linestyle=style, label=f"{limit:g}")
    right.axvline(0.0, color=_GREY, linewidth=0.8)
    ends = np.concatenate([low[known], alpha[np.isfinite(alpha)], [0.0]])
    right.set_xlim(max(-1.0, min(-0.05, ends.min() - 0.05)), 1.02)
    right.set_xlabel(f"Krippendorff's alpha, {percent(report.options.level)} interval")
    right.set_title("Agreement beyond chance", fontsize=10)
    right.axhline(0.5, color=_GREY, linewidth=0.5)
    right.legend(loc="best", fontsize=8)
    for axes in (left, right):
        axes.grid(axis="x", alpha=0.3)
    if len(drawn) < len(some):
        figure.suptitle(
            f"the {len(drawn)} values of {len(some)} with the most labels beside 0",
            fontsize=9,
        )
    _write(figure, path)


def pair_kappas(report: Report, path: str | pathlib.Path) -> None:
    """Cohen's kappa of every two annotators as a heatmap, with numbers if they are few.

    Args:
      report: with two annotators or more. Of more than `MOST_DRAWN` those with the
        most cells are drawn, and the title says so.
      path: of the picture to write.
    """
    report = presentable(report)
    drawn = most_rated(report)
    kappas = np.array([[report.pairs[g][h].value for h in drawn] for g in drawn])
    names = [_short(report.annotators[g].name) for g in drawn]
    numbers = len(names) <= _MOST_NUMBERS
    size = max(3.6, 1.6 + (0.62 if numbers else 0.3) * len(names))
    figure, axes = plt.subplots(figsize=(size + 1.0, size), layout="constrained")
    known = kappas[np.isfinite(kappas)]
    low = min(0.0, known.min()) if len(known) else 0.0
    colours = plt.get_cmap("cividis").with_extremes(bad="#e8e8e8")
    image = axes.imshow(np.ma.masked_invalid(kappas), cmap=colours, vmin=low, vmax=1.0)
    for g, h in np.ndindex(kappas.shape if numbers else (0, 0)):
        text = "" if g == h else "n/a"
        if np.isfinite(kappas[g, h]):
            text = f"{round(float(kappas[g, h]), 2) + 0.0:.2f}".replace("0.", ".", 1)
        bright = np.isfinite(kappas[g, h]) and kappas[g, h] < low + 0.55 * (1.0 - low)
        colour = "white" if bright else "black"
        axes.text(h, g, text, ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    title = "Cohen's kappa of pairs, all cells"
    if left_out(report):
        title += f"\n{left_out(report)}"
    axes.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.8)
    _write(figure, path)


def _short(name: str) -> str:
    # A dollar sign would begin a formula.
    return one_line(name, _LONGEST).replace("$", r"\$")


def _write(figure: Any, path: str | pathlib.Path) -> None:
    # No date in the file, so that equal figures give equal files.
    with warnings.catch_warnings():
        # A name in a script that the font does not have is drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)
