# SPDX-License-Identifier: Apache-2.0
"""The summary of a comparison as Markdown, CSV and a picture of cost and quality."""

import csv
import pathlib
from collections.abc import Sequence
from typing import Any

import matplotlib
import matplotlib.ticker

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
    """Left, macro-F1 of all systems with intervals, the best on top; right, FLOPs of
    judging a response against macro-F1 of the trained ones, by their numbers."""
    column = FIGURES.index("macro_f1")
    order = np.argsort(summary.mean[:, column], kind="stable")
    rows = len(order)
    figure, (forest, plane) = plt.subplots(
        1, 2, figsize=(11, max(3.5, 0.8 + 0.28 * rows)), layout="constrained",
        width_ratios=[3, 2],
    )  # fmt: skip
    trained: list[tuple[float, int]] = []  # cost, system
    for row, place in enumerate(order):
        system = summary.systems[place]
        middle, error = _with_error(summary, place, column)
        plain = system.recipe == system.cells[0].recipe
        cost = float(np.mean([cell.gflops for cell in system.cells]))
        color = "#1b6ca8" if plain and cost else "#9aa5b1"
        forest.errorbar(middle, row, xerr=error, fmt="o", color=color, capsize=2)
        if plain and cost:
            trained.append((cost, int(place)))
    forest.set_yticks(
        range(rows),
        [f"{summary.systems[p].recipe}  {rows - row}" for row, p in enumerate(order)],
        fontsize=8,
    )
    forest.set_xlabel("macro-F1, pooled cells")
    for place, shown in _dodged(trained):
        middle, error = _with_error(summary, place, column)
        plane.errorbar(shown, middle, yerr=error, fmt="o", color="#1b6ca8", capsize=2)
        number = rows - int(np.flatnonzero(order == place)[0])
        plane.annotate(
            str(number), (shown, middle + error[1][0]), fontsize=8, ha="center",
            textcoords="offset points", xytext=(0, 3),
        )  # fmt: skip
    for place, system in enumerate(summary.systems):
        if not system.cells[0].gflops and system.recipe == system.cells[0].recipe:
            level = summary.mean[place, column]
            plane.axhline(level, color="#9aa5b1", linestyle="--", linewidth=1)
            plane.annotate(
                system.recipe, (0.99, level), xycoords=("axes fraction", "data"),
                fontsize=8, ha="right", va="bottom",
            )  # fmt: skip
    if trained:  # a wide axis: costs that differ in the fourth digit are equal
        costs = [cost for cost, _ in trained]
        plane.set_xscale("log")
        plane.set_xlim(min(costs) / 2, max(costs) * 2)
        for axis in (plane.xaxis.set_major_formatter, plane.xaxis.set_minor_formatter):
            axis(matplotlib.ticker.FormatStrFormatter("%.3g"))
        plane.tick_params(axis="x", which="both", labelsize=7)
    plane.set_xlabel("GFLOPs to judge one response, forward")
    plane.set_ylabel("macro-F1")
    for axes in (forest, plane):
        axes.grid(alpha=0.3)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _with_error(
    summary: Summary, place: int, column: int
) -> tuple[float, list[list[float]]]:
    """A figure, and how far its interval reaches down and up."""
    middle = float(summary.mean[place, column])
    low, high = (float(end) for end in summary.interval[place, column])
    return middle, [[max(0.0, middle - low)], [max(0.0, high - middle)]]


def _dodged(trained: Sequence[tuple[float, int]]) -> list[tuple[int, float]]:
    """(system, where it is drawn): costs within a tenth stand side by side."""
    groups: list[list[tuple[float, int]]] = []
    for entry in sorted(trained):
        if groups and entry[0] < 1.1 * groups[-1][0][0]:
            groups[-1].append(entry)
        else:
            groups.append([entry])
    found = []
    for group in groups:
        for number, (_, place) in enumerate(group):
            step = 1.06 ** (number - (len(group) - 1) / 2)
            found.append((place, group[0][0] * step))
    return found
