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
from fulcra_jax.report.agreement_groups import ACCEPTABLE, GOOD

# Okabe and Ito's palette, which colour-blind readers can tell apart.
_BLUE, _ORANGE, _GREY = "#0072b2", "#d55e00", "#7f7f7f"
_LONGEST = 28


def per_value(report: Report, path: str | pathlib.Path) -> None:
    """Observed beside chance agreement, and alpha with its interval, per value.

    Args:
      report: with two annotators or more.
      path: of the picture to write; the ending names the format.
    """
    assert report.pooled is not None
    groups = [*report.per_value, report.pooled]
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
    drawn = np.isfinite([low, high]).all(0)
    right.hlines(y[drawn], low[drawn], high[drawn], color=_BLUE, linewidth=2)
    few = np.array([g.few for g in groups])
    right.plot(alpha[~few], y[~few], "o", color=_BLUE, label="alpha")
    if few.any():
        right.plot(
            alpha[few], y[few], "o", color=_BLUE, mfc="white", label="too few labels"
        )
    for limit, style in ((ACCEPTABLE, ":"), (GOOD, "--")):
        right.axvline(limit, color=_ORANGE, linestyle=style, label=f"{limit:g}")
    right.axvline(0.0, color=_GREY, linewidth=0.8)
    ends = np.concatenate([low[drawn], alpha[np.isfinite(alpha)], [0.0]])
    right.set_xlim(max(-1.0, min(-0.05, ends.min() - 0.05)), 1.02)
    right.set_xlabel(f"Krippendorff's alpha, {report.options.level:.0%} interval")
    right.set_title("Agreement beyond chance", fontsize=10)
    right.axhline(0.5, color=_GREY, linewidth=0.5)
    right.legend(loc="best", fontsize=8)
    for axes in (left, right):
        axes.grid(axis="x", alpha=0.3)
    _write(figure, path)


def pair_kappas(report: Report, path: str | pathlib.Path) -> None:
    """Cohen's kappa of every two annotators as a heatmap with numbers.

    Args:
      report: with two annotators or more.
      path: of the picture to write.
    """
    kappas = np.array([[one.value for one in row] for row in report.pairs])
    names = [_short(one.name) for one in report.annotators]
    size = max(3.6, 1.6 + 0.62 * len(names))
    figure, axes = plt.subplots(figsize=(size + 1.0, size), layout="constrained")
    known = kappas[np.isfinite(kappas)]
    low = min(0.0, known.min()) if len(known) else 0.0
    colours = plt.get_cmap("cividis").with_extremes(bad="#e8e8e8")
    image = axes.imshow(np.ma.masked_invalid(kappas), cmap=colours, vmin=low, vmax=1.0)
    for g, h in np.ndindex(kappas.shape):
        text = "" if g == h else "n/a"
        if np.isfinite(kappas[g, h]):
            text = f"{round(float(kappas[g, h]), 2) + 0.0:.2f}".replace("0.", ".", 1)
        bright = np.isfinite(kappas[g, h]) and kappas[g, h] < low + 0.55 * (1.0 - low)
        colour = "white" if bright else "black"
        axes.text(h, g, text, ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_title("Cohen's kappa of pairs, all cells", fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.8)
    _write(figure, path)


def _short(name: str) -> str:
    # A dollar sign would begin a formula.
    name = " ".join(name.split()).replace("$", r"\$")
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


def _write(figure: Any, path: str | pathlib.Path) -> None:
    # No date in the file, so that equal figures give equal files.
    with warnings.catch_warnings():
        # A name in a script that the font does not have is drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)
