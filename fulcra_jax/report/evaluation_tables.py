# SPDX-License-Identifier: Apache-2.0
"""The tables of one evaluated system: every figure with its interval, in 80 columns."""

import csv
import io
from collections.abc import Mapping
from typing import Any

from fulcra_jax import values
from fulcra_jax.report.tables import Table, labels_table, number

_POOLED = (
    ("accuracy", "accuracy"),
    ("macro_f1", "macro-F1"),
    ("quadratic_kappa", "QWK"),
    ("mse", "MSE of the clipped score"),
    ("reversal_rate", "reversal rate"),
    ("exact_match", "exact match of a row"),
)
_CALIBRATION = (
    ("ece", "ECE"),
    ("classwise_ece", "class-wise ECE"),
    ("brier", "Brier"),
    ("nll", "NLL"),
)
_PER_VALUE = (
    (("macro_f1", "macro-F1"), ("f1_opposed", "F1 -1"), ("f1_supported", "F1 +1")),
    (
        ("spearman", "Spearman"),
        ("pearson", "Pearson"),
        ("quadratic_kappa", "QWK"),
    ),
    (("auroc_opposed", "AUROC -1"), ("auroc_supported", "AUROC +1")),
)
_SUPPORT = (("n_opposed", "n -1"), ("n_none", "n 0"), ("n_supported", "n +1"))


def all_tables(figures: Mapping[str, Any]) -> list[Table]:
    """Every table of a system but that of its sources.

    Args:
      figures: of `evaluation.evaluate`.
    """
    return [pooled_table(figures), labels_table(figures), *value_tables(figures)]


def pooled_table(figures: Mapping[str, Any]) -> Table:
    """Pooled figures and calibration errors, one a row."""
    pooled, spread = figures["pooled"], figures["interval"]
    body = [[title, number(pooled[key], spread[key])] for key, title in _POOLED]
    errors, spread = figures["calibration"], figures["calibration_interval"]
    body += [[title, number(errors[key], spread[key])] for key, title in _CALIBRATION]
    title = (
        f"{figures['rows']} rows, {figures['cells']} cells pooled over ten values "
        f"[95 % interval over {figures['clusters']} prompt clusters]"
    )
    return title, ["figure", str(figures["name"])], body


def value_tables(figures: Mapping[str, Any]) -> list[Table]:
    """Three tables with a row per value and the mean over the values; the last has the
    support."""
    found = []
    for columns in _PER_VALUE:
        support = _SUPPORT if columns is _PER_VALUE[-1] else ()
        body = []
        for name in values.BASIC:
            entry = figures["values"][name]
            cells = [number(entry[k], entry[f"{k}_interval"]) for k, _ in columns]
            body.append([name, *cells, *(number(entry[k]) for k, _ in support)])
        mean, spread = figures["mean"], figures["mean_interval"]
        cells = [number(mean[key], spread[key]) for key, _ in columns]
        body.append(["mean", *cells, *("" for _ in support)])
        header = ["value", *(title for _, title in (*columns, *support))]
        found.append((f"{figures['name']}: per value (- is undefined)", header, body))
    return found


def sources_table(figures: Mapping[str, Any]) -> Table:
    """Pooled figures by the response's source."""
    shown = (
        ("accuracy", "accuracy"),
        ("macro_f1", "macro-F1"),
        ("f1_opposed", "F1 -1"),
    )
    body = []
    for name, entry in figures["sources"].items():
        cells = [number(entry[key], entry[f"{key}_interval"]) for key, _ in shown]
        body.append([name, str(entry["rows"]), str(entry["n_opposed"]), *cells])
    header = ["responses by", "rows", "n -1", *(title for _, title in shown)]
    return f"{figures['name']}: by the response's source", header, body


def values_csv(figures: Mapping[str, Any]) -> str:
    """A line per value and one of the means: every figure and the ends of its interval.

    Args:
      figures: of `evaluation.evaluate`, or a part of `teacher.evaluate`; a figure that
        is undefined is left empty.
    """
    of_value = figures["values"][values.BASIC[0]]
    counts = [key for key in of_value if key.startswith("n_")]
    shown = [key for key in of_value if f"{key}_interval" in of_value]
    means = figures
    if "mean" in figures:
        ends = figures["mean_interval"].items()
        means = figures["mean"] | {f"{key}_interval": pair for key, pair in ends}
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    ends = [end for key in shown for end in (key, f"{key}_low", f"{key}_high")]
    writer.writerow(["value", *counts, *ends])
    for value in (*values.BASIC, "mean"):
        entry = figures["values"].get(value, means)
        row: list[Any] = [value, *(entry.get(key) for key in counts)]
        for key in shown:
            row += [entry[key], *entry[f"{key}_interval"]]
        writer.writerow(row)  # None is written as nothing
    return lines.getvalue()
