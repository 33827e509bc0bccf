# SPDX-License-Identifier: Apache-2.0
"""Does it learn? Each seed against the majority rule and a shuffled-label control.

python -m experiments.controls                       recipe demo, the embedded corpus

python -m experiments.controls --data FOLDER         recipe demo-real, real rows

python -m experiments.controls --seeds 0 1 2 --out runs/controls

The control is the same run with the label vectors of the training rows permuted: what
it reaches owes nothing to the texts. Differences are paired on the held-out rows, with
intervals over clusters of near-duplicate prompts. Finished runs are not repeated, an
interrupted one is resumed. Writes OUT/controls.md and OUT/controls.json.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import tyro

from experiments import floors
from experiments.config import Config
from experiments.evaluate import truth_of
from experiments.exits import exit_code
from experiments.prepare import read_corpus
from experiments.recipes import RECIPES
from experiments.train import train
from fulcra_jax.data.rows import Row
from fulcra_jax.data.source import Folder
from fulcra_jax.inference import Predictor
from fulcra_jax.report import evaluation, tables


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Which recipe to put to the test."""

    data: str = ""
    """A folder of files in FULCRA's format; empty takes the embedded corpus."""
    recipe: str = ""
    """A recipe of experiments/config.py; empty takes demo, or demo-real with data."""
    seeds: tuple[int, ...] = (0, 1, 2)
    out: str = "runs/controls"
    """Directory of the runs and of the table."""


def controls(arguments: Arguments) -> dict[str, Any]:
    """Trains what is missing and compares."""
    recipe = arguments.recipe or ("demo-real" if arguments.data else "demo")
    if recipe not in RECIPES:
        raise KeyError(
            f"controls: recipe {recipe!r} is unknown; known are: {', '.join(RECIPES)}."
        )
    config = RECIPES[recipe][1]
    if arguments.data:
        config = dataclasses.replace(config, source=Folder(arguments.data))
    corpus = read_corpus(config)
    split = corpus.held_out()
    held = [row for row in corpus.rows[split] if row.where.any()]
    truth = truth_of(held)
    majority = floors.majority(corpus.rows["train"], held)
    tfidf = floors.tfidf(corpus.rows["train"], held)
    systems, differences = [majority, tfidf], []
    for seed in arguments.seeds:
        ours = answers_of(config, seed, "none", recipe, arguments, held)
        shuffled = answers_of(config, seed, "shuffled-labels", recipe, arguments, held)
        systems += [ours, shuffled]
        differences += [
            evaluation.compare(ours, other, truth)
            for other in (majority, shuffled, tfidf)
        ]
    report = {
        "recipe": recipe,
        "split": split,
        "systems": [evaluation.evaluate(system, truth) for system in systems],
        "differences": differences,
    }
    table = tables.systems_table(report["systems"])
    tables.show(table, most=9)
    paired = (
        "macro-F1, paired on the same rows [95 % interval]",
        ["difference", "macro-F1"],
        [
            [
                entry["name"],
                tables.number(
                    entry["macro_f1"]["difference"], entry["macro_f1"]["interval"]
                ),
            ]
            for entry in differences
        ],
    )
    tables.show(paired)
    out = pathlib.Path(arguments.out)
    text = f"# Controls of {recipe} on {split}\n\n"
    text += "\n".join(map(tables.markdown, (table, paired)))
    (out / "controls.md").write_text(text)
    (out / "controls.json").write_text(evaluation.dumps(report) + "\n")
    print(f"written to {out}/: controls.md, controls.json")
    return report


def answers_of(
    config: Config,
    seed: int,
    control: Any,
    recipe: str,
    arguments: Arguments,
    held: Sequence[Row],
) -> evaluation.Answers:
    """The answers of one run, trained if it is not there yet."""
    name = f"{recipe}-seed{seed}" + ("-shuffled" if control != "none" else "")
    run = pathlib.Path(arguments.out) / name
    if not (run / "model").is_dir():
        print(f"== {name}", flush=True)
        config = dataclasses.replace(config, seed=seed, control=control)
        train(config, run, resume=(run / "run.json").is_file())
    answer = Predictor.load(run).score(
        [row.prompt for row in held], [row.response for row in held]
    )
    label = f"seed {seed}" + (" shuffled" if control != "none" else "")
    return evaluation.Answers(
        label, answer.classes(), answer.scores, answer.calibrated()
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = tyro.cli(
        Arguments, args=argv, prog="python -m experiments.controls", description=__doc__
    )
    return exit_code(lambda: controls(arguments))


if __name__ == "__main__":
    sys.exit(main())
