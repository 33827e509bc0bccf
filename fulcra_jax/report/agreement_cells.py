# SPDX-License-Identifier: Apache-2.0
"""How figures of an agreement report are written, and why some are dashes."""

import re
from collections.abc import Iterable, Sequence

from fulcra_jax.report import tables
from fulcra_jax.report.agreement_groups import (
    ACCEPTABLE,
    GOOD,
    LEAST_POLARITY,
    Group,
)
from fulcra_jax.report.panel import Figure
from fulcra_jax.report.tables import Table


def number(figure: float | None, interval: Sequence[float] | None = None) -> str:
    """As `tables.number`, but what is rounded to 0 has no sign.

    >>> number(-0.0001, [-0.001, 0.2])
    '.000 [.00, .20]'
    """
    return re.sub(r"-(\.0+)(?!\d)", r"\1", tables.number(figure, interval))


def cell(figure: Figure) -> str:
    """A figure with its interval; a dash where it is undefined."""
    if figure.interval:
        return number(figure.value, [figure.low, figure.high])
    return number(figure.value)


def polarity(group: Group) -> str:
    """Alpha of polarity and its units; with few of them, only how many."""
    units = f"{group.polarity_units} unit" + "s" * (group.polarity_units != 1)
    if group.polarity_units < LEAST_POLARITY:
        return f"({units})"
    return f"{cell(group.polarity)} ({units})"


def reading(group: Group) -> str:
    """What alpha and its interval allow to say."""
    alpha = group.alpha
    if group.few:
        return "too few labels"
    if group.too_small:
        return "too few items"
    if alpha.reason:
        return "-"
    if not alpha.interval:
        return "no interval"
    if alpha.low >= GOOD:
        return "good"
    if alpha.low >= ACCEPTABLE:
        return "tentative"
    return "too low" if alpha.high < ACCEPTABLE else "open"


def reasons(entries: Iterable[tuple[str, str, Figure]]) -> list[str]:
    """Why figures are dashes: one line per reason."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, title, figure in entries:
        if figure.reason:
            found.setdefault(figure.reason, {}).setdefault(name, []).append(title)
    lines = [
        f"- undefined, because {reason}: "
        + safe("; ".join(f"{n} ({', '.join(t)})" for n, t in names.items()))
        for reason, names in found.items()
    ]
    return ["\n".join(lines) + "\n"] if lines else []


def safe_markdown(table: Table) -> str:
    """The table in Markdown, whatever the names in it."""
    title, header, body = table
    row = lambda cells: [safe(text) for text in cells]
    return tables.markdown((safe(title), row(header), [row(cells) for cells in body]))


def safe(text: str) -> str:
    """Names from a file must not break a table, nor become a tag."""
    text = " ".join(text.split())
    return text.replace("|", "\\|").replace("<", "&lt;")


def plain_number(figure: float) -> str:
    """A number as short as it goes: .8."""
    return f"{figure:g}".removeprefix("0")
