# SPDX-License-Identifier: Apache-2.0
"""`fulcra evaluate`: how well an evaluator judges files it may never have seen."""

import dataclasses
import json
import pathlib
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import tyro

from fulcra_jax import inference, objectives, targets
from fulcra_jax.cli import evaluate_data
from fulcra_jax.cli.evaluate_data import Data, Split
from fulcra_jax.cli.files import check_new
from fulcra_jax.cli.progress import Bar
from fulcra_jax.data import source, splits
from fulcra_jax.data.digest import fingerprint
from fulcra_jax.data.official import OfficialRow
from fulcra_jax.data.rows import write_rejects
from fulcra_jax.objectives.distance import Kind
from fulcra_jax.report import evaluation, evaluation_tables, tables, teacher
from fulcra_jax.report.tables import Table


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Evaluates an evaluator on labelled rows (FULCRA's format: dialogue, value_types)
    and on another evaluator's scores (prompt, answer, value_reward), with intervals."""

    run: tyro.conf.UseAppendAction[tuple[str, ...]]
    """The directory of a finished run, of a model or of an ensemble; given several
    times, the mean of all."""
    data: tyro.conf.UseAppendAction[tuple[str, ...]]
    """A .jsonl file or a folder of them; may be given several times."""
    split: Split = "held-out"
    """Which of a folder's files NAME.SPLIT.jsonl are read; held-out is test where there
    is one, else dev. Files without a split in their name are always read."""
    out: str = ""
    """A new folder for report.md, figures.json, values.csv, predictions.jsonl,
    rejects.jsonl and pictures."""
    seed: int = 0
    """Of the bootstrap."""
    resamples: int = evaluation.RESAMPLES
    """Of the bootstrap: clusters of near-duplicate prompts are drawn."""
    batch_size: int = 32
    """Rows per call of the model."""
    decisions: bool = True
    """Whether a decisions.json beside the weights is used."""


class Shown(NamedTuple):
    """A table, and how it fits 80 characters."""

    table: Table
    columns: int = 9
    """So many are printed."""
    longest: int = 24
    """Characters of a name; longer ones are cut."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What is printed and written."""

    figures: dict[str, Any]
    shown: list[Shown]
    notes: list[str]
    leaks: dict[str, float] = dataclasses.field(default_factory=dict)
    """Share of the rows of a kind that are near training rows, where any is."""


def run(arguments: Evaluate) -> None:
    """Runs `fulcra evaluate`."""
    for name in ("resamples", "batch_size"):
        if getattr(arguments, name) < 1:
            raise ValueError(
                f"evaluate: --{name.replace('_', '-')} is {getattr(arguments, name)}; "
                "it should be at least 1."
            )
    if arguments.seed < 0:
        raise ValueError(
            f"evaluate: --seed is {arguments.seed}; it should be at least 0."
        )
    check_new(arguments.out, "--out")
    data = evaluate_data.read_data(arguments.data, arguments.split)
    for line in data.notes:
        _say(line)
    for reject in data.rejects[:10]:
        _say(f"  {reject!s:.300}")
    if len(data.rejects) > 10:
        print(f"  ... and {len(data.rejects) - 10} more, all in rejects.jsonl of --out")
    predictor = inference.load_predictor(
        arguments.run,
        batch_size=arguments.batch_size,
        decisions=arguments.decisions,
    )
    if predictor.decisions is not None:
        fitted = predictor.decisions
        _say(f"decisions.json is used: fitted on {fitted.rows} rows, {fitted.data}")
        if fitted.data.endswith(f"@{fingerprint(data.labelled)[:12]}"):
            _say(
                "warning: these are the rows the decisions were fitted on, so the "
                "figures flatter; --no-decisions judges without them"
            )
    every = [*data.labelled, *data.unlabelled, *data.scored]
    with Bar(len(every)) as progress:
        answers = predictor.score(
            [row.prompt for row in every],
            [row.response for row in every],
            progress=progress,
        )
    print(f"{arguments.resamples} resamples ...", file=sys.stderr, flush=True)
    train = evaluate_data.training_prompts(arguments.run)
    name = inference.ensemble_id(arguments.run)
    report = _report(arguments, data, answers, train, name)
    for what, share in report.leaks.items():
        _say(
            f"warning: {share:.0%} of the {what} have a prompt near one that this "
            "evaluator was trained on; the figures flatter"
        )
    for table, columns, longest in report.shown:
        tables.show(table, most=columns, longest=longest)
    for line in report.notes:
        _say(line)
    if arguments.out:
        check_new(arguments.out, "--out")  # it may have come meanwhile
        _write(pathlib.Path(arguments.out), data, answers, report)


def _report(
    arguments: Evaluate,
    data: Data,
    answers: inference.Scores,
    train: Sequence[str] | None,
    name: str,
) -> Report:
    """All figures, their tables and what is to be said besides."""
    options = {"seed": arguments.seed, "resamples": arguments.resamples}
    report = Report(
        {
            "evaluator": name,
            "files": data.notes,
            "set_aside": len(data.rejects),
            "unlabelled": len(data.unlabelled),
            **options,
        },
        [],
        [],
    )
    n = len(data.labelled)
    if n:
        ours = evaluation.Answers(
            "evaluator",
            answers.classes()[:n],
            answers.scores[:n],
            answers.calibrated()[:n],
        )
        report.figures["labels"] = _judge_labels(data, ours, train, options, report)
    if data.scored:
        report.figures["official_scores"] = _judge_scores(
            data, answers.scores[-len(data.scored) :], train, options, report
        )
    return report


def _judge_labels(
    data: Data,
    ours: evaluation.Answers,
    train: Sequence[str] | None,
    options: dict[str, int],
    report: Report,
) -> dict[str, Any]:
    """Figures of the labelled rows; adds tables and notes to the report."""
    labels, where = source.label_arrays(data.labelled)
    prompts = [row.prompt for row in data.labelled]
    truth = evaluation.Truth(
        labels,
        where,
        splits.prompt_components(prompts),
        tuple(row.response_source for row in data.labelled),
    )
    found = evaluation.evaluate(ours, truth, **options)
    report.shown.extend(map(Shown, evaluation_tables.all_tables(found)))
    if found["sources"]:
        report.shown.append(Shown(evaluation_tables.sources_table(found), 9, 14))
    leak = _leak(prompts, train, "labelled rows", report)
    if leak is not None and leak.any() and where[~leak].any():
        clean = evaluation.quick_figures(
            ours.classes[~leak], labels[~leak], where[~leak]
        )
        found["without_near_training"] = clean
        report.notes.append(
            f"without them: accuracy {clean['accuracy']:.3f}, macro-F1 "
            f"{clean['macro_f1']:.3f}, F1 -1 {clean['f1_opposed']:.3f}"
        )
    return found | {"near_training": None if leak is None else int(leak.sum())}


def _judge_scores(
    data: Data,
    scores: np.ndarray,
    train: Sequence[str] | None,
    options: dict[str, int],
    report: Report,
) -> dict[str, Any]:
    """Figures of the rows with official scores; adds tables and notes."""
    prompts = [row.prompt for row in data.scored]
    truth = teacher.Taught(
        np.stack([row.scores for row in data.scored]),
        splits.prompt_components(prompts),
        teacher.repeated_answers([row.response for row in data.scored]),
        data.outside,
    )
    found = teacher.evaluate("evaluator", scores, truth, **options)
    report.shown.append(Shown(teacher.agreement_table([found])))
    for part in ("all", "unrepeated"):
        if found[part]:
            report.shown.append(Shown(teacher.values_table(found, part), 4))
    table, found["distances"] = _distances(data.scored, scores)
    report.shown.append(Shown(table))
    leak = _leak(prompts, train, "rows with official scores", report)
    return found | {"near_training": None if leak is None else int(leak.sum())}


def _leak(
    prompts: Sequence[str], train: Sequence[str] | None, what: str, report: Report
) -> np.ndarray | None:
    """Which rows have a near duplicate among the training prompts; tells the report."""
    if train is None:
        report.notes.append(
            f"{what}: the rows this evaluator was trained on are not at hand, so "
            "whether these are near them is not known"
        )
        return None
    found = evaluate_data.near(prompts, train)
    report.notes.append(
        f"{what}: {found.sum()} of {len(found)} ({found.mean():.1%}) have a prompt "
        f"that is a near duplicate of one of {len(set(train))} training prompts"
    )
    if found.any():
        report.leaks[what] = float(found.mean())
    return found


def _distances(
    scored: Sequence[OfficialRow], scores: np.ndarray
) -> tuple[Table, dict[str, Any]]:
    """Mean distances to the target of the released evaluation, by who answered."""
    target = jnp.asarray(targets.parse_target("evaluation"))
    theirs = np.stack([row.scores for row in scored])
    kinds: tuple[tuple[str, Kind], ...] = (("e_distance", "l2"), ("h_distance", "l1"))
    body, found = [], {}
    models = np.array([row.model or "(unnamed)" for row in scored])
    for model in dict.fromkeys(models.tolist()):
        rows = models == model
        means = {
            f"{name}_{whose}": float(
                objectives.value_distance(
                    jnp.asarray(table[rows]), target, kind=kind, gate="target"
                ).mean()
            )
            for name, kind in kinds
            for whose, table in (("teacher", theirs), ("evaluator", scores))
        }
        found[model] = means
        body.append([model, str(rows.sum()), *(f"{x:.3f}" for x in means.values())])
    header = ["answers by", "rows", "e teacher", "e ours", "h teacher", "h ours"]
    title = 'mean distance to the target "evaluation" (e: L2, h: L1)'
    return (title, header, body), found


def _write(
    folder: pathlib.Path, data: Data, answers: inference.Scores, report: Report
) -> None:
    """Writes everything to a new folder."""
    folder.mkdir()
    (folder / "figures.json").write_text(
        evaluation.dumps(report.figures) + "\n", encoding="utf-8"
    )
    parts = [f"# Evaluation of {report.figures['evaluator']}\n"]
    parts.append("".join(f"- {line}\n" for line in (*data.notes, *report.notes)))
    parts += [tables.markdown(table) for table, *_ in report.shown]
    (folder / "report.md").write_text("\n".join(parts), encoding="utf-8")
    labelled = report.figures.get("labels")
    scored = report.figures.get("official_scores")
    for name, figures in (
        ("values.csv", labelled),
        ("values.official_scores.csv", scored and scored["all"]),
    ):
        if figures:
            text = evaluation_tables.values_csv(figures)
            (folder / name).write_text(text, encoding="utf-8")
    with (folder / "predictions.jsonl").open("w", encoding="utf-8") as file:
        for entry in _predictions(data, answers):
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
    write_rejects(folder / "rejects.jsonl", data.rejects)
    if labelled:
        try:
            from fulcra_jax.report import figures as pictures

            pictures.per_value([labelled], folder / "per_value.png")
        except ModuleNotFoundError as error:
            print(f"no picture is drawn: the package {error.name} is missing")
    _say(f"written to {folder}/: {', '.join(sorted(p.name for p in folder.iterdir()))}")


def _predictions(data: Data, answers: inference.Scores) -> Iterator[dict[str, Any]]:
    """One entry a row: its text, what is known of it and what the evaluator says."""
    classes, probs = answers.classes(), answers.calibrated()
    every = [*data.labelled, *data.unlabelled, *data.scored]
    for place, row in enumerate(every):
        entry: dict[str, Any] = {
            "file": row.file,
            "line": row.line,
            "prompt": row.prompt,
            "response": row.response,
        }
        if isinstance(row, OfficialRow):
            entry["teacher"] = _rounded(row.scores)
        else:
            entry |= {"labels": row.labels.tolist(), "where": row.where.tolist()}
        entry["classes"] = classes[place].tolist()
        entry["scores"] = _rounded(answers.scores[place])
        entry["probs"] = (
            None
            if np.isnan(probs[place]).any()
            else [_rounded(chances) for chances in probs[place]]
        )
        yield entry


def _say(line: str) -> None:
    """Prints a line in 80 columns."""
    print(textwrap.fill(line, 80, subsequent_indent="  ", break_on_hyphens=False))


def _rounded(numbers: np.ndarray) -> list[float]:
    return [round(float(x), 6) for x in numbers]
