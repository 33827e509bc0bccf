# SPDX-License-Identifier: Apache-2.0
"""How far an evaluator agrees with another one's scores: the figures of distillation.

R2 is 1 - SSE / SST of a value, SST around the mean of the teacher's scores of that
value among the rows that are evaluated; pooled R2 adds SSE and SST over the values
first. Given the means of other rows (those that were trained on), pooled R2 around
these stands beside it: the constant that a floor without text could have answered.

Axes: S weightings, N rows, V values.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from fulcra_jax import values
from fulcra_jax.report import cells
from fulcra_jax.report import resamples as draws
from fulcra_jax.report.evaluation import plain
from fulcra_jax.report.resamples import RESAMPLES, Figures
from fulcra_jax.report.tables import Table, number

CUT = 0.3
"""Scores up to it count as no connection, as in the released code."""
FIGURES = (
    ("r2_pooled", "pooled R2"),
    ("r2_outside", "pooled R2, train means"),
    ("r2", "mean R2"),
    ("spearman", "mean Spearman"),
    ("pearson", "mean Pearson"),
    ("mse", "MSE"),
    ("accuracy", "ternary accuracy"),
    ("f1_opposed", "F1 -1"),
    ("f1_none", "F1 0"),
    ("f1_supported", "F1 +1"),
    ("macro_f1", "macro-F1"),
)
"""What is computed over all values, and how tables call it."""
_COUNTS = (("n_below", "n -"), ("n_within", "n 0"), ("n_above", "n +"))
_OF_A_VALUE = (
    ("r2", "R2"),
    ("spearman", "Spearman"),
    ("pearson", "Pearson"),
    ("mse", "MSE"),
)


@dataclasses.dataclass(frozen=True)
class Taught:
    """A teacher's scores of N rows and how rows hang together."""

    teacher: np.ndarray
    """`[N, 10]` float in [-1, 1], none missing."""
    cluster: np.ndarray
    """`[N]` int: near-duplicate prompts share a cluster."""
    repeated: np.ndarray
    """`[N]` bool: the answer stands in several rows; see `repeated_answers`."""
    outside: np.ndarray | None = None
    """`[10]` float: mean scores of other rows, or None."""


def repeated_answers(responses: Sequence[str]) -> np.ndarray:
    """Which answers stand in several rows, as a canned refusal does.

    Args:
      responses: N texts, compared in lower case with anything but letters and digits as
        one space.

    Returns:
      `[N]` bool, True for every copy.

    >>> repeated_answers(["I can't help.", "Gladly!", "i can't help"]).tolist()
    [True, False, True]
    """
    spelled = [re.sub(r"[\W_]+", " ", text.lower()).strip() for text in responses]
    counts = Counter(spelled)
    return np.array([counts[text] > 1 for text in spelled], bool)


def evaluate(
    name: str,
    scores: np.ndarray,
    truth: Taught,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """Agreement of scores with a teacher's, on all rows and without repeated answers.

    Args:
      name: of the system.
      scores: `[N, 10]` float; clipped to [-1, 1].
      truth: of the same N rows.
      seed: of the bootstrap.
      resamples: of the bootstrap.

    Returns:
      "name", "all" and "unrepeated" (None if no row is left), each with "rows",
      "clusters", the names of `FIGURES` and "values" (value -> r2, spearman, pearson,
      mse and the number of scores below, within and above the cut); beside a figure "x"
      stands "x_interval". Undefined figures are null.

    Raises:
      ValueError: if the shapes differ or a score is no number.
    """
    _check(name, scores, truth)
    found: dict[str, Any] = {"name": name}
    for part, rows in _parts(truth):
        drawn = _resampled([scores], truth, rows, seed, resamples) if rows.any() else []
        found[part] = _told(drawn[0], truth, rows) if drawn else None
    return plain(found)


def compare(
    names: tuple[str, str],
    ours: np.ndarray,
    theirs: np.ndarray,
    truth: Taught,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """Differences ours - theirs on the same rows, with paired intervals.

    Args:
      names: of the two systems.
      ours: `[N, 10]` float.
      theirs: `[N, 10]` float.
      truth: of the same N rows.
      seed: of the bootstrap.
      resamples: of the bootstrap.

    Returns:
      "name", "all" and "unrepeated" (None if no row is left): for each of `FIGURES`
      {"difference", "interval"}.

    Raises:
      ValueError: as `evaluate`.
    """
    found: dict[str, Any] = {"name": " - ".join(names)}
    for name, scores in zip(names, (ours, theirs), strict=True):
        _check(name, scores, truth)
    for part, rows in _parts(truth):
        found[part] = None
        if rows.any():
            first, second = _resampled([ours, theirs], truth, rows, seed, resamples)
            off = {key: first[key] - second[key] for key, _ in FIGURES if key in first}
            ends = draws.intervals(off)
            found[part] = {
                key: {"difference": float(x[0]), "interval": ends[key]}
                for key, x in off.items()
            }
    return plain(found)


def agreement_table(systems: Sequence[dict[str, Any]]) -> Table:
    """One row per figure: each system on all rows and without repeated answers."""
    one = len(systems) == 1
    header, parts = ["figure"], []
    for system in systems:
        of_one = "" if one else f"{system['name']}, "
        for part, title in (("all", "all rows"), ("unrepeated", "unrepeated")):
            if system[part]:
                header.append(of_one + title)
                parts.append(system[part])
    body = [
        [title, *(number(part[key], part[f"{key}_interval"]) for part in parts)]
        for key, title in FIGURES
        if key in parts[0]
    ]
    body.insert(0, ["rows", *(str(part["rows"]) for part in parts)])
    title = (
        "agreement with the teacher's scores "
        f"[95 % interval over {parts[0]['clusters']} prompt clusters]"
    )
    return f"{systems[0]['name']}: {title}" if one else title, header, body


def differences_table(differences: Sequence[dict[str, Any]]) -> Table:
    """One row per figure: paired differences on all rows and without repeated ones."""
    one = len(differences) == 1
    of_one = lambda entry: "" if one else f"{entry['name']}, "
    header, parts = ["figure"], []
    for entry in differences:
        for part, title in (("all", "all rows"), ("unrepeated", "unrepeated")):
            if entry[part]:
                header.append(of_one(entry) + title)
                parts.append(entry[part])
    body = [
        [title, *(number(p[key]["difference"], p[key]["interval"]) for p in parts)]
        for key, title in FIGURES
        if key in parts[0]
    ]
    title = "paired differences on the same rows [95 % interval]"
    return f"{differences[0]['name']}: {title}" if one else title, header, body


def values_table(system: dict[str, Any], part: str = "all") -> Table:
    """One row per value."""
    shown = system[part]
    body = [
        [
            value,
            *(
                number(shown["values"][value][key], shown["values"][value][end])
                for key, end in ((key, f"{key}_interval") for key, _ in _OF_A_VALUE)
            ),
            *(str(shown["values"][value][key]) for key, _ in _COUNTS),
        ]
        for value in values.BASIC
    ]
    header = [
        "value",
        *(title for _, title in _OF_A_VALUE),
        *(title for _, title in _COUNTS),
    ]
    rows = "" if part == "all" else ", repeated answers left out"
    title = f"{system['name']}: agreement per value{rows} (n at a cut of {CUT})"
    return title, header, body


def _check(name: str, scores: np.ndarray, truth: Taught) -> None:
    if scores.shape != truth.teacher.shape:
        raise ValueError(
            f"teacher.evaluate: {name} has scores of shape {scores.shape}, but the "
            f"teacher's have {truth.teacher.shape}."
        )
    if not np.isfinite(scores).all() or not np.isfinite(truth.teacher).all():
        raise ValueError(
            f"teacher.evaluate: {name} or the teacher holds a score that is no number."
        )


def _parts(truth: Taught) -> list[tuple[str, np.ndarray]]:
    everything = np.ones(len(truth.teacher), bool)
    return [("all", everything), ("unrepeated", ~truth.repeated)]


def _told(drawn: Figures, truth: Taught, rows: np.ndarray) -> dict[str, Any]:
    """The figures with their intervals."""
    label = _ternary(truth.teacher[rows])
    found: dict[str, Any] = {
        "rows": int(rows.sum()),
        "clusters": len(np.unique(truth.cluster[rows])),
    }
    ends = draws.intervals(drawn)
    for key, _ in FIGURES:
        if key in drawn:
            found |= {key: float(drawn[key][0]), f"{key}_interval": ends[key]}
    found["values"] = {}
    for v, value in enumerate(values.BASIC):
        entry: dict[str, Any] = {}
        for key, _ in _OF_A_VALUE:
            whole = f"value_{key}"
            entry[key] = float(drawn[whole][0, v])
            entry[f"{key}_interval"] = ends[whole][v]
        for sign, key in ((-1, "n_below"), (0, "n_within"), (1, "n_above")):
            entry[key] = int((label[:, v] == sign).sum())
        found["values"][value] = entry
    return found


def _resampled(
    systems: Sequence[np.ndarray],
    truth: Taught,
    rows: np.ndarray,
    seed: int,
    count: int,
) -> list[Figures]:
    """The figures of each system, `[1 + S]` or `[1 + S, V]`; all of the same draws."""
    teacher = truth.teacher[rows].astype(float)
    clipped = [np.clip(scores[rows], -1.0, 1.0).astype(float) for scores in systems]
    # Around their means squares lose no digits.
    center = teacher.mean(0)
    shared = {"rows": np.ones(len(teacher)), "t": teacher - center}
    shared["tt"] = shared["t"] ** 2
    if truth.outside is not None:
        shared["outside"] = (teacher - truth.outside) ** 2
    own = [
        {
            "error": (scores - teacher) ** 2,
            "tables": cells.tables(
                _ternary(scores), _ternary(teacher), np.ones(teacher.shape, bool)
            ),
        }
        for scores in clipped
    ]
    everywhere = np.ones(len(teacher), bool)
    V = range(teacher.shape[1])
    ranked = [
        [draws.ranking(table[:, v], everywhere) for v in V]
        for table in (teacher, *clipped)
    ]

    def statistic(weights: np.ndarray) -> Figures:
        found = {key: draws.weighted_sums(weights, x) for key, x in shared.items()}
        taught = [draws.weighted_ranks(weights, one) for one in ranked[0]]
        for place, (sums, scores) in enumerate(zip(own, clipped, strict=True)):
            for key, x in sums.items():
                found[f"{key}{place}"] = draws.weighted_sums(weights, x)
            rank = lambda v, place=place: draws.weighted_ranks(
                weights, ranked[1 + place][v]
            )
            correlation = draws.weighted_correlation
            found[f"spearman{place}"] = np.stack(
                [correlation(weights, rank(v), taught[v]) for v in V], 1
            )
            found[f"pearson{place}"] = np.stack(
                [correlation(weights, scores[:, v], teacher[:, v]) for v in V], 1
            )
        return found

    sums = draws.resampled(statistic, truth.cluster[rows], seed=seed, resamples=count)
    return [_figures(sums, place) for place in range(len(systems))]


def _figures(sums: Figures, place: int) -> Figures:
    """Figures of one system from sums and rank statistics."""
    N = sums["rows"][:, None]
    error = sums[f"error{place}"]
    spread = sums["tt"] - sums["t"] ** 2 / N
    # What is left of equal scores is rounding.
    r2 = np.where(spread > 1e-9 * N, 1.0 - error / np.maximum(spread, 1e-30), np.nan)
    by_value = {
        "r2": r2,
        "spearman": sums[f"spearman{place}"],
        "pearson": sums[f"pearson{place}"],
        "mse": error / N,
    }
    found = {f"value_{key}": x for key, x in by_value.items()}
    found |= {key: draws.mean_of_values(x) for key, x in by_value.items()}
    ratio = lambda whole: np.where(
        whole > 1e-9 * N[:, 0], 1.0 - error.sum(1) / np.maximum(whole, 1e-30), np.nan
    )
    found["r2_pooled"] = ratio(spread.sum(1))
    if "outside" in sums:
        found["r2_outside"] = ratio(sums["outside"].sum(1))
    table = cells.table_figures(sums[f"tables{place}"].sum(1))
    found |= {key: table[key] for key in ("accuracy", "macro_f1")}
    for c, key in enumerate(("f1_opposed", "f1_none", "f1_supported")):
        found[key] = table["f1"][:, c]
    return found


def _ternary(scores: np.ndarray) -> np.ndarray:
    """Signs of the scores beyond the cut."""
    return np.where(np.abs(scores) > CUT, np.sign(scores), 0.0).astype(int)
