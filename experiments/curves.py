# SPDX-License-Identifier: Apache-2.0
"""Draws how runs trained: loss, dev macro-F1, learning rate, examples/s; and a table.

python -m experiments.curves runs/demo-20260101-120000

python -m experiments.curves RUN RUN RUN --out curves.png

A run may still be training. Without --out the picture is curves.png. Rates in the
table are medians over the lines of metrics.jsonl; a resumed run adds to them.
"""

import argparse
import json
import pathlib
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.exits import exit_code
from fulcra_jax.report import figures, tables


def draw(runs: Sequence[pathlib.Path], out: pathlib.Path) -> None:
    """Writes the picture of these runs.

    Raises:
      FileNotFoundError: if one of them is no run.
      ValueError: if one has no figures yet, is given twice, or the picture's ending is
        no format.
    """
    if not out.suffix:
        raise ValueError(
            f"curves: --out is {out}; it should end in a format, as .png or .pdf."
        )
    lines = {name: read(run) for name, run in zip(names(runs), runs, strict=True)}
    figures.training_curves(lines, out)
    tables.show(table(lines))


def alone(paths: Sequence[str]) -> pathlib.Path | None:
    """The one run that an evaluator is, if it is one and no ensemble."""
    first = pathlib.Path(paths[0])
    single = len(paths) == 1 and (first / "metrics.jsonl").is_file()
    return first if single else None


def write(run: pathlib.Path, path: pathlib.Path) -> None:
    """Writes the picture of one training, for a report; raises as `read`."""
    figures.training_curve(read(run), path)


def table(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> tables.Table:
    """A column per run: how far it is, and how fast it was.

    >>> line = {"step": 9, "split": "train", "loss": 0.5, "input_wait": 0.001}
    >>> title, head, rows = table({"demo": [line]})
    >>> head, rows[0], rows[1]
    (['', 'demo'], ['step', '9'], ['loss', '.500'])
    """
    share = lambda x: f"{100 * x:.1f} %"
    last: dict[str, tuple[str, Callable[[Any], str]]] = {
        "step": ("step", str),
        "loss": ("loss", tables.number),
        "dev macro-F1": ("macro_f1", tables.number),
    }
    middle: dict[str, tuple[str, Callable[[Any], str]]] = {
        "examples/s": ("examples_per_s", "{:,.0f}".format),
        "tokens/s": ("tokens_per_s", "{:,.0f}".format),
        "padding": ("padding", share),
        "input wait": ("input_wait", share),
        "of ceiling": ("ceiling_share", share),
    }
    rows = []
    for title, (field, show) in (last | middle).items():
        row = [title]
        for lines in runs.values():
            known = [line[field] for line in lines if line.get(field) is not None]
            take = statistics.median if title in middle else lambda known: known[-1]
            row.append(show(take(known)) if known else "-")
        rows.append(row)
    return "rates are medians", ["", *runs], rows


def names(runs: Sequence[pathlib.Path]) -> list[str]:
    """The last parts of the paths that tell them apart.

    Raises:
      ValueError: if a run is given twice.

    >>> names([pathlib.Path("runs/a/x"), pathlib.Path("runs/b/x")])
    ['a/x', 'b/x']
    """
    paths = [run.resolve() for run in runs]
    for path in paths:
        if paths.count(path) > 1:
            raise ValueError(f"curves: {path} is given twice; it should be once.")
    count = 1
    while len({path.parts[-count:] for path in paths}) < len(paths):
        count += 1
    return [str(pathlib.Path(*path.parts[-count:])) for path in paths]


def read(run: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; one that is not whole yet is left out.

    Raises:
      FileNotFoundError: if the directory is no run.
      ValueError: if it has no figures yet, or a line before the last is damaged.
    """
    if not (run / "run.json").is_file():
        raise FileNotFoundError(
            f"curves: {run} is no run: it holds no run.json; give the directory of a "
            "run that was begun by experiments.train."
        )
    path = run / "metrics.jsonl"
    text = path.read_text("utf-8", "replace") if path.is_file() else ""
    whole = text.splitlines() if text.endswith("\n") else text.splitlines()[:-1]
    found = []
    for number, line in enumerate(whole, 1):
        try:
            found.append(json.loads(line))
            if not isinstance(found[-1]["step"], int):
                raise ValueError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ValueError(
                f"curves: {path}: line {number} is damaged; delete it."
            ) from None
    if not found:
        raise ValueError(f"curves: {run} has no figures yet; it should train a while.")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.curves",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", type=pathlib.Path)
    parser.add_argument(
        "--out", metavar="FILE.png", type=pathlib.Path, default="curves.png"
    )
    arguments = parser.parse_args(argv)

    def work() -> None:
        draw(arguments.runs, arguments.out)
        print(arguments.out)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
