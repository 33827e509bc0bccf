# SPDX-License-Identifier: Apache-2.0
"""Figures as tables: on a terminal, and in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import rich.box
import rich.console
import rich.table

from fulcra_jax import values

_POOLED = (
    ("accuracy", "accuracy"),
    ("f1_opposed", "F1 -1"),
    ("f1_none", "F1 0"),
    ("f1_supported", "F1 +1"),
    ("macro_f1", "macro-F1"),
    ("quadratic_kappa", "QWK"),
    ("mse", "MSE"),
    ("exact_match", "exact"),
    ("reversal_rate", "reversed"),
)
_PER_VALUE = (
    ("n_opposed", "n -1"),
    ("n_supported", "n +1"),
    ("macro_f1", "macro-F1"),
    ("f1_opposed", "F1 -1"),
    ("f1_supported", "F1 +1"),
    ("auroc_opposed", "AUC -1"),
    ("auroc_supported", "AUC +1"),
    ("spearman", "Spearman"),
    ("pearson", "Pearson"),
    ("quadratic_kappa", "QWK"),
)

_LABELS = {"-1": "opposed -1", "0": "none 0", "1": "supported +1"}

Table = tuple[str, list[str], list[list[str]]]
"""Title, header and rows; the first column holds names, the others figures."""


def number(figure: Any, interval: Sequence[Any] | None = None) -> str:
    """A figure with three digits, its interval with two; a dash when undefined.

    >>> number(0.12345, [0.1, 0.2]), number(None), number(7)
    ('.123 [.10, .20]', '-', '7')
    """
    if figure is None or figure != figure:
        return "-"
    if isinstance(figure, int):
        return str(figure)
    text = _short(figure)
    if interval is not None and None not in interval:
        text += f" [{_short(interval[0], 2)}, {_short(interval[1], 2)}]"
    return text


def systems_table(systems: Sequence[Mapping[str, Any]]) -> Table:
    """One row per system: the pooled figures, macro-F1 and MSE with intervals."""
    header = ["system", *(title for _, title in _POOLED)]
    body = []
    for figures in systems:
        cells = [str(figures["name"])]
        for key, _ in _POOLED:
            spread = figures["interval"].get(key) if key == "macro_f1" else None
            cells.append(number(figures["pooled"][key], spread))
        body.append(cells)
    first = systems[0]
    title = (
        f"{first['rows']} rows, {first['cells']} cells pooled over ten values "
        f"[95 % interval over {first['clusters']} prompt clusters]"
    )
    return title, header, body


def labels_table(figures: Mapping[str, Any]) -> Table:
    """Precision, recall, F1 and support of each label."""
    body = []
    for label, key in (("-1", "f1_opposed"), ("0", "f1_none"), ("1", "f1_supported")):
        entry = figures["labels"][label]
        body.append(
            [
                _LABELS[label],
                number(entry["precision"], entry["precision_interval"]),
                number(entry["recall"], entry["recall_interval"]),
                number(entry["f1"], figures["interval"][key]),
                number(entry["support"]),
            ]
        )
    header = ["label", "precision", "recall", "F1", "support"]
    return f"{figures['name']}: figures per label", header, body


def values_table(figures: Mapping[str, Any]) -> Table:
    """One row per value with support, and the unweighted mean."""
    header = ["value", *(title for _, title in _PER_VALUE)]
    body = []
    for name in values.BASIC:
        entry = figures["values"][name]
        cells = [name]
        for key, _ in _PER_VALUE:
            spread = entry["macro_f1_interval"] if key == "macro_f1" else None
            cells.append(number(entry[key], spread))
        body.append(cells)
    mean = figures["mean"]
    body.append(["mean", *(number(mean.get(key)) for key, _ in _PER_VALUE)])
    title = f"{figures['name']}: figures per value (- is undefined)"
    return title, header, body


def differences_table(differences: Sequence[Mapping[str, Any]]) -> Table:
    """Paired differences between systems."""
    header = ["figure", *(str(entry["name"]) for entry in differences)]
    body = [
        [
            title,
            *(
                number(entry[key]["difference"], entry[key]["interval"])
                for entry in differences
            ),
        ]
        for key, title in _POOLED
        if key in differences[0]
    ]
    return "paired differences on the same rows [95 % interval]", header, body


def markdown(table: Table) -> str:
    """The table in Markdown."""
    title, header, body = table
    rows = [header, ["---"] + ["---:"] * (len(header) - 1), *body]
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    return f"{title}\n\n" + "\n".join(lines) + "\n"


def show(
    table: Table,
    console: rich.console.Console | None = None,
    *,
    most: int = 10,
    longest: int | None = None,
) -> None:
    """Prints the table on a terminal of 80 characters or more.

    Args:
      table: what to print.
      console: where; None takes the standard output.
      most: the first so many columns are printed.
      longest: characters of a name in the first column; longer ones are cut.
    """
    title, header, body = table
    grid = rich.table.Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=rich.box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for place, name in enumerate(header[:most]):
        grid.add_column(
            name,
            justify="right" if place else "left",
            no_wrap=True,
            max_width=None if place else longest,
        )
    for cells in body:
        grid.add_row(*cells[:most])
    (console or rich.console.Console()).print(grid)


def value_bars(
    scores: np.ndarray,
    probs: np.ndarray,
    width: int = 21,
    *,
    classes: np.ndarray | None = None,
) -> rich.table.Table:
    """The value vector of one response as a table with bars.

    Args:
      scores: `[10]` in [-1, 1].
      probs: `[10, 3]` of (-1, 0, +1); NaN when the evaluator has none.
      width: characters of a bar; the middle is zero.
      classes: `[10]` in {-1, 0, 1}, the labels that are shown; None takes the
        likeliest.

    Returns:
      A table: value, score, bar, label and its probability.
    """
    grid = rich.table.Table(box=None, pad_edge=False)
    grid.add_column("value")
    grid.add_column("score", justify="right")
    grid.add_column("-1    0    +1", justify="center")
    grid.add_column("label", justify="left")
    shown = probs.argmax(-1) - 1 if classes is None else classes
    rows = zip(values.BASIC, scores, probs, shown, strict=True)
    for name, score, chance, decided in rows:
        label = ""
        if not np.isnan(chance).any():
            best = int(decided) + 1
            label = f"{('-1', ' 0', '+1')[best]} ({chance[best]:.0%})"
        style = "green" if score > 0.3 else "red" if score < -0.3 else "dim"
        grid.add_row(
            name, f"{score:+.2f}", bar(float(score), width), label, style=style
        )
    return grid


def bar(score: float, width: int = 21) -> str:
    """A bar from the middle to the left or the right.

    >>> bar(0.5, 9), bar(-1.0, 9)
    ('    |##  ', '####|    ')
    """
    half = width // 2
    filled = round(min(1.0, abs(score)) * half)
    if score < 0:
        return " " * (half - filled) + "#" * filled + "|" + " " * half
    return " " * half + "|" + "#" * filled + " " * (half - filled)


def _short(figure: float, digits: int = 3) -> str:
    # Adding 0 makes a plain one of the negative zero that rounding leaves.
    text = f"{round(figure, digits) + 0.0:.{digits}f}"
    return text.replace("0.", ".", 1) if abs(float(text)) < 1 else text
