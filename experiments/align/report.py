# SPDX-License-Identifier: Apache-2.0
"""The report of a toy study, and the pictures of both halves."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.align import tables
from experiments.align.settings import Study
from fulcra_jax import values
from fulcra_jax.inference import ScoredAnswers, read_scores
from fulcra_jax.report import shift_figures
from fulcra_jax.report.tables import Table, markdown, show

_WATCHED = {
    "reward": "reward of the arm",
    "kl": "KL to the start, k1 estimate",
    "no_connection": "no connection, targeted",
    "distinct_2": "distinct-2 of a step",
}


def write(out: pathlib.Path, study: Study, figures: Mapping[str, Any]) -> None:
    """Writes report.md and the pictures, and prints the main tables."""
    main = [tables.arms_table(figures), tables.specificity_table(figures)]
    rest = [
        tables.changes_table(figures),
        tables.distances_table(figures),
        tables.second_table(figures),
        tables.best_of_n_table(figures),
        seconds_table(figures),
    ]
    show(tables.short_table(figures))
    for sentence in tables.verdicts(figures):
        print(sentence)
    folders = {name: out / "arms" / name for name in figures["arms"]}
    pictures(out, figures, folders, _WATCHED)
    parts = [
        f"# Alignment of the toy language model to {study.target}",
        _account(study, figures),
        "\n".join(f"- {sentence}" for sentence in tables.verdicts(figures)),
        tables.LEGEND,
        *(markdown(table) for table in [*main, *rest]),
        "![Change per value](change.png)",
        "![In the eyes of the second evaluator](change-second.png)",
        *(["![While training](curves.png)"] if (out / "curves.png").is_file() else []),
        "![On the theory's axes](map.png)",
        tables.examples(_answers(out, figures)),
    ]
    (out / "report.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def metrics(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of an arm's metrics.jsonl."""
    if not (path / "metrics.jsonl").is_file():
        return []
    found = []
    text = (path / "metrics.jsonl").read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        try:
            found.append(json.loads(line))
            if not isinstance(found[-1]["step"], int):
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(
                f"{path}/metrics.jsonl: line {number} is damaged; delete it."
            ) from None
    return found


def seconds_table(figures: Mapping[str, Any]) -> Table:
    """How long the arms trained."""
    body = [
        [name.replace("-", " "), "-" if seconds is None else f"{seconds:.0f} s"]
        for name, seconds in figures["seconds"].items()
    ]
    return "Training, without the time it stood still", ["arm", "time"], body


def _account(study: Study, figures: Mapping[str, Any]) -> str:
    held, training = study.held_out, study.training
    return (
        f"{training.steps} steps of {training.prompts} prompts x {training.answers} "
        f"answers, {training.advantage}; measured on {held.prompts} prompts of the "
        f"test split x {held.answers} answers; {figures['device']}. The control asks "
        f"for {figures['control']}, the target for {figures['target']}."
    )


def pictures(
    out: pathlib.Path,
    figures: Mapping[str, Any],
    folders: Mapping[str, pathlib.Path],
    watched: Mapping[str, str],
) -> None:
    """Writes change.png, change-second.png, curves.png and map.png, as far as known.

    Args:
      out: where to.
      figures: as in `tables`.
      folders: where the metrics.jsonl of each arm stands.
      watched: fields of its lines, with the titles of their panels.
    """
    target = np.array(figures["target"])
    by_arm: dict[str, list[Any]] = {}
    for name, entry in figures["arms"].items():
        by_arm.setdefault(entry["arm"], []).append((name, entry))
    for who, file, title in (
        ("evaluator", "change.png", "Change of the mean score"),
        ("second", "change-second.png", "The same, second evaluator"),
    ):
        if who not in figures["start"]:
            continue
        shift_figures.change_per_value(
            {
                arm: [
                    [entry["change"][who][k] for k in values.ABBREVIATIONS]
                    for _, entry in entries
                ]
                for arm, entries in by_arm.items()
            },
            target,
            out / file,
            title=f"{title}, 95 % interval over prompts",
        )
    lines = {
        arm: [metrics(folders[name]) for name, _ in entries]
        for arm, entries in by_arm.items()
    }
    every = [line for seeds in lines.values() for one in seeds for line in one]
    shown = {
        field: title
        for field, title in watched.items()
        if all(line.get(field) is not None for line in every)
    }
    if shown and all(line for seeds in lines.values() for line in seeds):
        shift_figures.curves(lines, shown, out / "curves.png")
    mean = lambda entry: np.array(
        [entry["evaluator"][k].mean for k in values.ABBREVIATIONS]
    )
    after: dict[str, Sequence[np.ndarray]] = {
        arm: [mean(entry) for _, entry in entries] for arm, entries in by_arm.items()
    }
    shift_figures.shift_map(mean(figures["start"]), after, target, out / "map.png")


def _answers(out: pathlib.Path, figures: Mapping[str, Any]) -> dict[str, ScoredAnswers]:
    """The answers of the start and of the first seed of each arm."""
    first = min(entry["seed"] for entry in figures["arms"].values())
    kept = [name for name, x in figures["arms"].items() if x["seed"] == first]
    return {
        name: read_scores(out / "scores" / f"{name}.jsonl") for name in ("start", *kept)
    }
