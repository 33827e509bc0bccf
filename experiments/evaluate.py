# SPDX-License-Identifier: Apache-2.0
"""Evaluates a trained evaluator on held-out rows, beside two floors.

python -m experiments.evaluate --run runs/demo-20260101-120000

python -m experiments.evaluate --run RUN --split dev

python -m experiments.evaluate --run RUN --data FOLDER --no-tfidf

python -m experiments.evaluate --run DIR             an ensemble, of calibrate or fusion

python -m experiments.evaluate --run RUN --run RUN --out DIR    the mean of several

Of runs on ValueEval'23 it prints another report and writes a submission for the test
arguments: see experiments/valueeval.py.

Where `python -m experiments.calibrate` has put a decisions.json beside the weights, the
classes and probabilities are as decided there; --no-decisions takes the raw ones.

Prints and writes to RUN/evaluation-SPLIT/ (or DIR): figures.json, report.md,
per_value.png, predictions.jsonl and, of one run, curve.png. The floors are fitted on
the rows that the run, or an ensemble's first, was trained on. Rows that it was trained
on are told.
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, Literal

import tyro

from experiments import curves, floors, rundir, seen, valueeval
from experiments.exits import exit_code
from experiments.prepare import read_corpus
from fulcra_jax import inference
from fulcra_jax.data import source, splits
from fulcra_jax.data.rows import Row
from fulcra_jax.inference import Decisions
from fulcra_jax.report import evaluation, figures, tables


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to evaluate, and on which rows."""

    run: tyro.conf.UseAppendAction[tuple[str, ...]]
    """The directory of a finished run, or of an ensemble of runs; given several times,
    one evaluator, the mean of all."""
    split: Literal["held-out", "dev", "test"] = "held-out"
    """held-out is test where there is one, else dev."""
    data: str = ""
    """A folder or file in FULCRA's format; empty takes the rows of the run. Of a single
    file all labelled rows are evaluated."""
    tfidf: bool = True
    """Whether to fit the TF-IDF + logistic regression floor."""
    decisions: bool = True
    """Whether to use a decisions.json in the model's directory."""
    out: str = ""
    """A new directory for the report; empty takes one in the run. Several need it."""


def evaluate(arguments: Arguments) -> dict[str, Any]:
    """All figures of a run on held-out rows, beside the floors."""
    runs = arguments.run
    if not runs:
        raise ValueError("evaluate: give a finished run with --run.")
    home = pathlib.Path(runs[0])
    if len(runs) > 1 and not arguments.out:
        raise ValueError(
            f"evaluate: {len(runs)} runs are one ensemble, whose report needs a new "
            "directory: --out DIR."
        )
    out = pathlib.Path(arguments.out) if arguments.out else None
    if out is not None:
        rundir.check_free(out)
    members = inference.members_of(runs)
    config = rundir.reopen(members[0])
    if isinstance(config.source, source.ValueEval):
        return valueeval.evaluate(
            runs, config, split=arguments.split, data=arguments.data,
            tfidf=arguments.tfidf, out=out,
        )  # fmt: skip
    predictor = inference.load_predictor(runs, decisions=arguments.decisions)
    corpus = read_corpus(config)
    train = corpus.rows["train"]
    split, held = held_out(arguments, corpus, config.policy)
    seen.warn_of(runs, held)
    seen.warn_of_change(members[0], config, corpus)
    if predictor.decisions is not None:
        tell_decisions(predictor.decisions, held)
    print(f"scoring {len(held)} rows ...", flush=True)
    answers = predictor.score(
        [row.prompt for row in held], [row.response for row in held]
    )
    ours = evaluation.Answers(
        "evaluator", answers.classes(), answers.scores, answers.calibrated()
    )
    systems = [ours, floors.majority(train, held)]
    if arguments.tfidf:
        print(f"fitting TF-IDF + LR on {len(train)} rows ...", flush=True)
        systems.append(floors.tfidf(train, held))
    truth = truth_of(held)
    report = {
        "split": split,
        "runs": [str(run) for run in runs],
        "systems": [evaluation.evaluate(system, truth) for system in systems],
        "differences": [
            evaluation.compare(ours, floor, truth) for floor in systems[1:]
        ],
    }
    folder = out or home / f"evaluation-{split}"
    write(folder, report, held, ours, curves.alone(runs))
    return report


def tell_decisions(decisions: Decisions, held: Sequence[Row]) -> None:
    """Says that decisions are used, and whether they have seen these rows."""
    print(f"decisions.json is used: fitted on {decisions.rows} rows, {decisions.data}")
    if decisions.data.endswith(f"@{rundir.fingerprint(held)[:12]}"):
        print(
            "warning: these are the rows the decisions were fitted on, so the figures "
            "flatter; the report of experiments.calibrate has out-of-sample ones."
        )


def held_out(
    arguments: Arguments, corpus: source.Corpus, policy: Any
) -> tuple[str, list[Row]]:
    """The rows to evaluate on, and a name for them."""
    if arguments.data:
        path = pathlib.Path(arguments.data)
        if path.is_file():
            found, rejects = source.read_rows(path, policy)
            if rejects:
                print(f"data: {len(rejects)} rows set aside; the first is {rejects[0]}")
            held = [row for row in found if row.where.any()]
            name = path.stem
        else:
            other = source.read_folder(source.Folder(arguments.data), policy)
            name = (
                other.held_out() if arguments.split == "held-out" else arguments.split
            )
            held = [row for row in other.rows[name] if row.where.any()]
            name = f"{path.name}-{name}"
    else:
        name = corpus.held_out() if arguments.split == "held-out" else arguments.split
        held = [row for row in corpus.rows[name] if row.where.any()]
    if not held:
        raise ValueError(f"evaluate: there is no labelled row in {name}.")
    return name, held


def truth_of(held: Sequence[Row]) -> evaluation.Truth:
    """Labels, clusters of near-duplicate prompts and response sources of rows."""
    labels, where = source.label_arrays(list(held))
    cluster = splits.prompt_components([row.prompt for row in held])
    return evaluation.Truth(
        labels, where, cluster, tuple(row.response_source for row in held)
    )


def write(
    folder: pathlib.Path,
    report: dict[str, Any],
    held: Sequence[Row],
    ours: evaluation.Answers,
    trained: pathlib.Path | None,
) -> None:
    """Prints the tables and writes everything to a folder; `trained` is the run whose
    training is drawn."""
    folder.mkdir(parents=True, exist_ok=True)
    systems = report["systems"]
    shown = [
        tables.systems_table(systems),
        tables.differences_table(report["differences"]),
        tables.labels_table(systems[0]),
        tables.values_table(systems[0]),
    ]
    for table, columns in zip(shown, (9, 9, 9, 8), strict=True):
        tables.show(table, most=columns)  # what fits 80 characters; report.md has all
    (folder / "figures.json").write_text(evaluation.dumps(report) + "\n")
    (folder / "report.md").write_text(
        f"# Evaluation on {report['split']}\n\nOf {', '.join(report['runs'])}.\n\n"
        + "\n".join(map(tables.markdown, shown))
    )
    with (folder / "predictions.jsonl").open("w", encoding="utf-8") as file:
        for place, row in enumerate(held):
            entry = {
                "file": row.file,
                "line": row.line,
                "prompt": row.prompt,
                "response": row.response,
                "labels": row.labels.tolist(),
                "where": row.where.tolist(),
                "classes": ours.classes[place].tolist(),
                "scores": [round(float(x), 6) for x in ours.scores[place]],
            }
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
    figures.per_value(systems, folder / "per_value.png")
    if trained is not None:
        curves.write(trained, folder / "curve.png")
    print(f"written to {folder}/: report.md, figures.json, predictions.jsonl, *.png")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = tyro.cli(
        Arguments, args=argv, prog="python -m experiments.evaluate", description=__doc__
    )
    return exit_code(lambda: evaluate(arguments))


if __name__ == "__main__":
    sys.exit(main())
