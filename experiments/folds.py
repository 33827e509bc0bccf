# SPDX-License-Identifier: Apache-2.0
"""The cluster folds of train + dev: their sizes, and the floors on them.

python -m experiments.folds --data FOLDER
python -m experiments.folds --data FOLDER --floors

Rows whose prompts are near duplicates (token-set Jaccard of 0.7 or more, linked through
others too) stand in one fold; the largest such cluster comes first, into the emptiest
fold. --floors trains the majority rule and TF-IDF + LR on the other folds and judges
each fold once; figures are of the cells of all folds together (minutes).
"""

import dataclasses
import sys
from collections.abc import Sequence

import numpy as np
import tyro

from experiments import floors
from experiments.exits import exit_code
from fulcra_jax.data import source, splits
from fulcra_jax.data.rows import Row
from fulcra_jax.report import evaluation, tables


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Which rows, in how many folds."""

    data: str
    """A folder of files in FULCRA's format."""
    count: int = 5
    seed: int = 0
    """Of the order of equally large clusters."""
    floors: bool = False
    """Also train and judge the floors."""


def folds(arguments: Arguments) -> None:
    """Prints the tables."""
    held = [
        source.read_fold(
            source.Fold(arguments.data, fold, arguments.count, arguments.seed)
        ).rows["dev"]
        for fold in range(arguments.count)
    ]
    tables.show(sizes_table(held))
    if arguments.floors:
        tables.show(floors_table(held))


def sizes_table(held: Sequence[Sequence[Row]]) -> tables.Table:
    """Rows, clusters and labels of each fold, and of all."""
    named = {str(fold): list(rows) for fold, rows in enumerate(held)}
    named["all"] = [row for rows in held for row in rows]
    lines = []
    for name, rows in named.items():
        labels, where = source.label_arrays(rows)
        clusters = splits.prompt_components([row.prompt for row in rows])
        counts = [int((where & (np.rint(labels) == sign)).sum()) for sign in (-1, 0, 1)]
        labelled = sum(bool(row.where.any()) for row in rows)
        numbers = [len(rows), labelled, int(clusters.max()) + 1, *counts]
        lines.append([name, *map(str, numbers)])
    header = ["fold", "rows", "labelled", "clusters", "cells -1", "cells 0", "cells +1"]
    return f"{len(held)} cluster folds", header, lines


def floors_table(held: Sequence[Sequence[Row]]) -> tables.Table:
    """Figures of the floors on each fold, and on the cells of all folds together."""
    lines = []
    for fit in (floors.majority, floors.tfidf):
        name, truth, classes = "", [], []
        for fold, rows in enumerate(held):
            train = [row for n, rest in enumerate(held) if n != fold for row in rest]
            judged = [row for row in rows if row.where.any()]
            answers = fit([row for row in train if row.where.any()], judged)
            name = answers.name
            classes.append(answers.classes)
            truth += judged
            lines.append([name, str(fold), *_figures(answers.classes, judged)])
        lines.append([name, "all", *_figures(np.concatenate(classes), truth)])
    header = ["system", "fold", "accuracy", "macro-F1", "F1 -1", "F1 0", "F1 +1"]
    return "Floors, each fold judged by a training on the others", header, lines


def _figures(classes: np.ndarray, rows: list[Row]) -> list[str]:
    found = evaluation.quick_figures(classes, *source.label_arrays(rows))
    return [f"{number:.3f}" for number in found.values()]


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""

    def work() -> None:
        arguments = tyro.cli(
            Arguments, args=argv, prog="python -m experiments.folds",
            description=__doc__,
        )  # fmt: skip
        folds(arguments)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
