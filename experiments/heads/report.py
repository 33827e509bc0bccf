# SPDX-License-Identifier: Apache-2.0
"""The summary of a comparison as Markdown, CSV and a picture of cost and quality."""

import csv
import pathlib
from collections.abc import Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only: no display is needed
import matplotlib.pyplot as plt
import numpy as np

from experiments.heads.summary import FIGURES, VISIBLE, Summary

_NAMES = ("accuracy", "macro-F1", "F1 -1", "F1 0", "F1 +1")


def write(
    summary: Summary, folder: pathlib.Path, title: str, notes: Sequence[str] = ()
) -> str:
    """Writes NAME.md, NAME.csv, NAME-differences.csv and NAME.png into a folder.

    Args:
      summary: of systems on the same rows.
      folder: made if it does not exist.
      title: "NAME: more".
      notes: sentences below the tables.

    Returns:
      The Markdown.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = title.split(":")[0].replace(" ", "-")
    text = markdown(summary, title)
    if notes:
        text += "\n" + "\n".join(notes) + "\n"
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    _write_csv(summary, folder / f"{name}.csv")
    _write_differences(summary, folder / f"{name}-differences.csv")
    cost_quality(summary, folder / f"{name}.png", title)
    return text


def markdown(summary: Summary, title: str) -> str:
    """Two tables: figures with intervals, and paired differences."""
    lines = [
        f"## {title}",
        "",
        f"{summary.rows} rows in {summary.clusters} clusters of near-duplicate "
        f"prompts, {summary.opposed} cells labelled -1. Means over seeds +- their "
        "standard deviation, [95 % interval over clusters].",
        "",
        "| recipe | seeds | macro-F1 | F1 -1 | F1 0 | F1 +1 | accuracy | GFLOPs "
        "| passes | train s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    first = ("macro_f1", "f1_opposed", "f1_none", "f1_supported", "accuracy")
    order = [FIGURES.index(name) for name in first]
    for place, system in enumerate(summary.systems):
        shown = [_figure(summary, place, column) for column in order]
        cells = system.cells
        lines.append(
            f"| {system.recipe} | {len(system.seeds)} | {' | '.join(shown)} | "
            f"{np.mean([c.gflops for c in cells]):.3g} | {cells[0].passes} | "
            f"{np.median([c.seconds for c in cells]):.0f} |"
        )
    if summary.differences:
        lines += [
            "",
            "Paired differences in the same resamples; p is two-sided, q Benjamini-"
            "Hochberg's over all rows of the table; visible is the smallest difference "
            f"that would be seen four times of five ({VISIBLE} standard errors).",
            "",
            "| recipe | against | macro-F1 | p | q | visible | F1 -1 | p | q "
            "| visible |",
            "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for entry in summary.differences:
            shown = [
                part for f in ("macro_f1", "f1_opposed") for part in _paired(entry[f])
            ]
            lines.append(
                f"| {entry['recipe']} | {entry['against']} | {' | '.join(shown)} |"
            )
    return "\n".join(lines) + "\n"


def _figure(summary: Summary, place: int, column: int) -> str:
    low, high = summary.interval[place, column]
    spread = summary.spread[place, column]
    more = f" +- {_short(spread)}" if np.isfinite(spread) else ""
    middle = _short(summary.mean[place, column])
    return f"{middle}{more} [{_short(low)}, {_short(high)}]"


def _paired(entry: dict[str, Any]) -> list[str]:
    low, high = entry["interval"]
    return [
        f"{entry['difference']:+.3f} [{low:+.3f}, {high:+.3f}]",
        *(f"{entry[name]:.3f}" for name in ("p", "q", "visible")),
    ]


def _short(number: float) -> str:
    return f"{number:.3f}"


def _write_csv(summary: Summary, path: pathlib.Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        ends = [
            f"{figure}_{end}" for figure in FIGURES for end in ("sd", "low", "high")
        ]
        writer.writerow(["recipe", "seeds", *FIGURES, *ends, "gflops", "passes"])
        for place, system in enumerate(summary.systems):
            spread = [
                number
                for column in range(len(FIGURES))
                for number in (
                    summary.spread[place, column],
                    *summary.interval[place, column],
                )
            ]
            numbers = [*summary.mean[place], *spread]
            writer.writerow(
                [
                    system.recipe,
                    len(system.seeds),
                    *(f"{number:.4f}" for number in numbers),
                    f"{np.mean([c.gflops for c in system.cells]):.4f}",
                    system.cells[0].passes,
                ]
            )


def _write_differences(summary: Summary, path: pathlib.Path) -> None:
    columns = ("difference", "low", "high", "p", "q", "visible")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["recipe", "against", "figure", *columns])
        for entry in summary.differences:
            for figure in ("macro_f1", "f1_opposed"):
                found = entry[figure]
                numbers = [found["difference"], *found["interval"]]
                numbers += [found[name] for name in ("p", "q", "visible")]
                named = [entry["recipe"], entry["against"], figure]
                writer.writerow([*named, *(f"{number:.5f}" for number in numbers)])


def cost_quality(summary: Summary, path: pathlib.Path, title: str) -> None:
    """FLOPs of judging a response against macro-F1, with intervals; trained systems
    alone, as what is made of them costs the same."""
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    column = FIGURES.index("macro_f1")
    costs = [0.0]
    for place, system in enumerate(summary.systems):
        if system.recipe != system.cells[0].recipe:
            continue
        cost = float(np.mean([cell.gflops for cell in system.cells]))
        costs.append(cost)
        middle = summary.mean[place, column]
        low, high = summary.interval[place, column]
        if not cost:
            axes.axhline(middle, color="#9aa5b1", linestyle="--", linewidth=1)
            axes.annotate(
                system.recipe, (0.01, middle), xycoords=("axes fraction", "data"),
                fontsize=8, va="bottom",
            )  # fmt: skip
            continue
        error = np.maximum(0.0, [[middle - low], [high - middle]])
        axes.errorbar(cost, middle, yerr=error, fmt="o", color="#1b6ca8", capsize=2)
        axes.annotate(
            system.recipe, (cost, middle), fontsize=8,
            textcoords="offset points", xytext=(5, 3),
        )  # fmt: skip
    axes.set_xscale("log")
    if max(costs):  # a wide axis: costs that differ in the fourth digit are equal
        axes.set_xlim(min(c for c in costs if c) / 2, max(costs) * 3)
    axes.set_xlabel("GFLOPs to judge one response, forward")
    axes.set_ylabel("macro-F1, pooled cells")
    axes.grid(alpha=0.3)
    axes.set_title(title, fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)
