# SPDX-License-Identifier: Apache-2.0
"""The short version of an agreement report, on a terminal."""

import rich.console
import rich.markup

from fulcra_jax.report import tables
from fulcra_jax.report.agreement import Report
from fulcra_jax.report.agreement_cells import cell, number, presentable, reading
from fulcra_jax.report.agreement_prose import NOTHING, SetAside, summary
from fulcra_jax.report.tables import Table

_SIGNED = ("-1", "0", "+1")


def show(report: Report, rejects: SetAside = NOTHING) -> None:
    """Prints the short version on a terminal of 80 characters or more."""
    console = rich.console.Console()
    report = presentable(report)
    for line in summary(report, rejects):
        bold = line.startswith("**")
        text = rich.markup.escape(line.replace("**", ""))
        console.print("- " + text, highlight=False, style="bold" if bold else "")
    console.print()
    if report.pooled is not None:
        for table in (_short_values(report), _short_annotators(report)):
            title, header, body = table
            body = [[rich.markup.escape(text) for text in cells] for cells in body]
            tables.show((title, header, body), console)


def _short_values(report: Report) -> Table:
    assert report.pooled is not None
    body = [
        [
            group.name,
            str(group.units),
            number(group.base_rate.value),
            cell(group.observed),
            cell(group.chance),
            cell(group.alpha),
            number(group.ac1.value),
            reading(group),
        ]
        for group in (*report.per_value, report.pooled)
    ]
    header = "value", "units", "not 0", "obs.", "chance", "alpha", "AC1", "reading"
    title = "agreement per value; alpha of all cells: chance within each value"
    return title, list(header), body


def _short_annotators(report: Report) -> Table:
    body = [
        [
            one.name,
            one.kind,
            number(1.0 - one.shares[1]),
            cell(one.kappa),
            cell(one.kappa_with_majority),
            cell(one.alpha_without),
            *map(cell, one.sensitivity),
        ]
        for one in report.annotators
    ]
    header = ["annotator", "kind", "not 0", "kappa", "w. others", "alpha w/o"]
    title = "annotators; -1, 0, +1: how often each label is given when it is true"
    return title, [*header, *_SIGNED], body
