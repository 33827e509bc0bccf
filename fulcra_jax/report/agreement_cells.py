# SPDX-License-Identifier: Apache-2.0
"""How figures of an agreement report are written, and why some are dashes."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence

from fulcra_jax.report import tables
from fulcra_jax.report.agreement import Report
from fulcra_jax.report.agreement_groups import (
    ACCEPTABLE,
    GOOD,
    LEAST_POLARITY,
    Group,
)
from fulcra_jax.report.panel import Figure
from fulcra_jax.report.tables import Table

LONGEST = 60
"""Characters of a name in tables and sentences; report.json holds it as it is."""
MOST_NAMES = 12
"""Names in a list."""
MOST_DRAWN = 60
"""Annotators in the table and picture of pairs, and values in their picture."""
POOLED = "all cells"

_JOINERS = "\u200c\u200d"  # part of words in some scripts


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
        + safe(listed([f"{n} ({', '.join(t)})" for n, t in names.items()], "; "))
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


def percent(share: float) -> str:
    """A share that 100 % must not swallow: 99.9 %.

    >>> percent(0.95), percent(0.999)
    ('95%', '99.9%')
    """
    return f"{100.0 * share:.6g}%"


def listed(names: Sequence[str], between: str = ", ") -> str:
    """The first names, and how many others there are."""
    text = between.join(names[:MOST_NAMES])
    rest = len(names) - MOST_NAMES
    return text + (f" and {rest} other{'s' * (rest > 1)}" if rest > 0 else "")


def one_line(text: str, most: int = LONGEST) -> str:
    """A name from a file as one short line that is safe to print.

    >>> one_line("a\\nb\\x1b[2J"), one_line("x" * 50 + "yz", 8)
    ('a b\\\\x1b[2J', 'xxxx…xyz')
    """
    text = " ".join(text.split())
    if len(text) > most:
        end = (most - 1) // 2
        text = text[: most - 1 - end] + "…" + text[len(text) - end :]
    return "".join(
        c if c.isprintable() or c in _JOINERS else ascii(c)[1:-1] for c in text
    )


def literal(text: str) -> str:
    """A name that Markdown must not take for emphasis, code, a link or a picture.

    >>> print(literal("*a* [b](c) __init__ model_x &lt;"))
    \\*a\\* \\[b\\](c) \\_\\_init\\_\\_ model_x &amp;lt;
    """
    text = re.sub(r"([\\`*\[\]]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", text)
    return re.sub(r"&(?=#?\w+;)", "&amp;", text)


def presentable(report: Report, write: Callable[[str], str] = str) -> Report:
    """The report with names for readers: `one_line`, still different, then `write`."""

    def distinct(names: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
        found, times = {}, dict.fromkeys(taken, 1)
        for name in dict.fromkeys(names):
            text = short = one_line(name)
            while text in times:
                times[short] = times.get(short, 1) + 1
                text = f"{short} ({times[short]})"
            times[text] = 1
            found[name] = text
        return {name: write(text) for name, text in found.items()}

    people = distinct(one.name for one in report.annotators)
    # A value of the same name would be taken for all of them.
    names = distinct(report.values, [POOLED])
    sources = distinct(
        [group.name for group in report.per_source]
        + [one.source for one in report.disputed]
    )
    items = distinct(one.item for one in report.disputed)
    renamed = lambda ones, by: tuple(
        dataclasses.replace(one, name=by[one.name]) for one in ones
    )
    return dataclasses.replace(
        report,
        file=write(one_line(report.file, 2 * LONGEST)),
        values=tuple(names.values()),
        annotators=renamed(report.annotators, people),
        per_value=renamed(report.per_value, names),
        per_source=renamed(report.per_source, sources),
        consistency=tuple(
            dataclasses.replace(one, values=renamed(one.values, names))
            for one in renamed(report.consistency, people)
        ),
        against_humans=tuple(
            dataclasses.replace(
                one,
                values=tuple(
                    (names[name] if place else name, *rest)
                    for place, (name, *rest) in enumerate(one.values)
                ),
                alt_test=dataclasses.replace(
                    one.alt_test,
                    humans=renamed(one.alt_test.humans, people),
                    conditions=tuple(
                        write(one_line(text, 200)) for text in one.alt_test.conditions
                    ),
                ),
            )
            for one in renamed(report.against_humans, people)
        ),
        disputed=tuple(
            dataclasses.replace(
                one,
                item=items[one.item],
                source=sources[one.source],
                values=tuple((names[name], *rest) for name, *rest in one.values),
                reversed=tuple(names[name] for name in one.reversed),
            )
            for one in report.disputed
        ),
    )


def most_rated(report: Report) -> list[int]:
    """The annotators whose pairs are shown: all, or those with the most cells."""
    order = sorted(range(len(report.shared)), key=lambda r: -report.shared[r][r])
    return sorted(order[:MOST_DRAWN])


def left_out(report: Report) -> str:
    """What is said where not all pairs are shown; "" where they are."""
    if len(report.annotators) <= MOST_DRAWN:
        return ""
    return (
        f"only the {MOST_DRAWN} annotators with the most cells of "
        f"{len(report.annotators)}; all pairs stand in report.json"
    )


def plain_number(figure: float) -> str:
    """A number as short as it goes: .8."""
    return f"{figure:g}".removeprefix("0")


def pairs(report: Report) -> list[str]:
    """The kappas of pairs as a table, with reasons, and their picture."""
    names = [one.name for one in report.annotators]
    drawn = most_rated(report)
    body = [
        [
            names[g],
            *(
                "" if g == h else f"{cell(report.pairs[g][h])} ({report.shared[g][h]})"
                for h in drawn
            ),
        ]
        for g in drawn
    ]
    title = (
        "Cohen's kappa of pairs over all cells, values pooled (cells that both rated)"
    )
    if left_out(report):
        title += f"; {left_out(report)}"
    parts = [safe_markdown((title, ["", *(names[g] for g in drawn)], body))]
    parts += reasons(
        (f"{names[g]} and {names[h]}", "kappa", report.pairs[g][h])
        for g in drawn
        for h in drawn
        if h < g
    )
    shown = f", {left_out(report)}" if left_out(report) else ""
    parts.append(f"![Kappa of pairs{shown}](kappas.png)\n")
    return parts
