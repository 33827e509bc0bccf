# SPDX-License-Identifier: Apache-2.0
"""Fits what an evaluator decides by on held-out rows, and says what that changes.

python -m experiments.calibrate RUN                         into RUN/model/

python -m experiments.calibrate RUN RUN --out DIR           an ensemble in DIR

python -m experiments.calibrate DIR                         an ensemble that there is

python -m experiments.calibrate MODEL --data FOLDER         a model without a run

Per value a temperature, pulled to a shared one; a shift per class, by likelihood; one
bias per class for macro-F1; class-conditional conformal sets. The figures are
out-of-sample: rows are judged by decisions that were fitted on the other folds of
prompt clusters; the decisions.json that is written is fitted on all rows. On few rows a
bias may cost more than it brings: --bias auto keeps it only if macro-F1 on the folds
that it was not fitted on is higher with it. For the figures each fold's choice is made
on the others (with two folds there is no other pair: the better of both is shown).

Writes decisions.json beside the weights or the ensemble.json (or, with --out, to DIR,
which several runs need: `fulcra score --run DIR` takes it), and report.md,
figures.json, reliability.png to RUN/calibration-SPLIT/ (or DIR). Rows that a run was
trained on are refused.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from experiments import rundir
from experiments.evaluate import Arguments as EvaluateArguments
from experiments.evaluate import held_out, truth_of
from experiments.exits import exit_code
from experiments.prepare import read_corpus
from experiments.seen import changed, trained_on
from fulcra_jax.data import splits
from fulcra_jax.data.rows import Policy, Row
from fulcra_jax.data.source import Corpus
from fulcra_jax.inference import (
    Decided,
    Decisions,
    Scores,
    cross_fit,
    load_predictor,
    members_of,
    save_ensemble,
    words_of,
)
from fulcra_jax.report import calibration, evaluation, tables


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Which evaluators, and the rows to fit on."""

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN")]
    """Finished runs or model directories; several are one ensemble. Or the directory of
    an ensemble."""
    data: str = ""
    """A folder or file in FULCRA's format; empty takes the rows of the first run."""
    split: Literal["held-out", "dev", "test"] = "dev"
    """Rows that no evaluator here was trained on."""
    out: str = ""
    """A new directory for everything; needed for several evaluators."""
    alpha: float = 0.1
    """The share of cells of each class whose set may miss it."""
    strength: float = 20.0
    """How many labels of a value weigh as much as all values together."""
    per_value: bool = False
    """Whether to fit a bias per value too, pulled to the shared one."""
    bias: Literal["auto", "always", "never"] = "auto"
    """Whether classes are named with a fitted bias; never names the likeliest."""
    folds: int = 5
    """Folds of prompt clusters for the figures."""


def calibrate(arguments: Arguments) -> dict[str, Any]:
    """Fits, writes and reports; returns the figures."""
    check(arguments)
    out = pathlib.Path(arguments.out) if arguments.out else None
    if out is not None:
        rundir.check_free(out)
    name, held = _rows(arguments)
    members = members_of(arguments.runs)
    for sentence in trained_on(arguments.runs, held):
        raise ValueError(f"calibrate: {sentence}; give rows that it has not seen.")
    predictor = load_predictor(arguments.runs, decisions=False)
    said = predictor.score([row.prompt for row in held], [row.response for row in held])
    truth = truth_of(held)
    options = {
        "alpha": arguments.alpha,
        "strength": arguments.strength,
        "per_value": arguments.per_value,
        "from_score": bool(np.isnan(said.probs).any()),
        "data": f"{name}@{rundir.fingerprint(held)[:12]}",
    }
    folds = folds_of(held, truth.cluster, arguments.folds)
    kept, crossed, gain = _with_bias(arguments.bias, said, truth, folds, options)
    options["bias"] = kept
    report = figures_of(said, crossed, truth) | {"rows": options["data"]}
    report |= {"bias_kept": kept, "bias_gain": gain}
    decisions = Decisions.fit(said.base(), truth.labels, truth.where, **options)
    first = pathlib.Path(arguments.runs[0])
    model = first / "model"
    home = out or (model if model.is_dir() else first)
    folder = out or first / f"calibration-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    decisions.save(home / "decisions.json")
    if out is not None:
        words, weight = words_of(arguments.runs)
        save_ensemble(out, members, words=words, weight=weight)
    systems = report["before"], report["after"]
    table = calibration.calibration_table(
        *systems, report["difference"], report["cells"]
    )
    tables.show(table, most=3)  # what fits 80 characters; report.md has all
    told = _told(arguments.bias, kept, gain)
    print(told)
    prose = f"{_PROSE}{told}\n"
    text = f"# Calibration on {name}\n\n{prose}\n{tables.markdown(table)}\n"
    (folder / "report.md").write_text(text + described(decisions), encoding="utf-8")
    (folder / "figures.json").write_text(evaluation.dumps(report) + "\n")
    calibration.reliability(
        answers_of(said, crossed), truth, folder / "reliability.png"
    )
    print(f"written: {home}/decisions.json; {folder}/: report.md, figures.json, *.png")
    return report


def _with_bias(
    wish: str,
    said: Scores,
    truth: evaluation.Truth,
    folds: np.ndarray,
    options: dict[str, Any],
) -> tuple[bool, Decided, float | None]:
    """Whether a bias is fitted, what is decided of the rows so, and what it adds."""
    cross = lambda bias: cross_fit(
        said.base(), truth.labels, truth.where, folds, bias=bias, **options
    )
    plain = cross(False)
    if wish == "never":
        return False, plain, None
    biased = cross(True)
    with_it, without = (
        evaluation.quick_figures(one.classes, truth.labels, truth.where)["macro_f1"]
        for one in (biased, plain)
    )
    gain = float(with_it - without)
    kept = wish == "always" or gain > 0
    if wish == "always" or len(np.unique(folds)) < 3:
        return kept, biased if kept else plain, gain
    parts = Decided(*(np.copy(part) for part in plain))
    for one in np.unique(folds):
        own = folds == one
        others = evaluation.Truth(
            truth.labels[~own], truth.where[~own], truth.cluster[~own]
        )
        inside = said._replace(scores=said.scores[~own], probs=said.probs[~own])
        _, _, inner = _with_bias("always", inside, others, folds[~own], options)
        if inner is not None and inner > 0:
            for part, other in zip(parts, biased, strict=True):
                part[own] = other[own]
    return kept, parts, gain


def _told(wish: str, kept: bool, gain: float | None) -> str:
    """A sentence about the bias."""
    if gain is None:
        return "The likeliest class is named: no bias was fitted."
    fate = "kept" if kept else "not kept"
    why = "" if wish == "auto" else f", as --bias is {wish}"
    return (
        f"The bias moves macro-F1 by {gain:+.3f} on folds that it was not fitted on: "
        f"{fate}{why}."
    )


_PROSE = """\
After: every row is judged by decisions fitted on the other folds of prompt clusters.
A set holds the classes that cannot be ruled out; several are "unsure".
"""


def check(arguments: Arguments) -> None:
    """Raises ValueError if the arguments make no sense."""
    if not arguments.runs:
        raise ValueError("calibrate: give the directory of at least one run.")
    if len(arguments.runs) > 1 and not arguments.out:
        raise ValueError("calibrate: several evaluators need --out DIR.")
    alpha, strength, folds = arguments.alpha, arguments.strength, arguments.folds
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"calibrate: alpha is {alpha}; it should be in (0, 1).")
    if not strength > 0.0:
        raise ValueError(f"calibrate: strength is {strength}; it should be above 0.")
    if folds < 2:
        raise ValueError(f"calibrate: folds is {folds}; it should be at least 2.")


def folds_of(
    held: Sequence[Row], cluster: np.ndarray, folds: int, caller: str = "calibrate"
) -> np.ndarray:
    """`[N]` the fold of each row; near-duplicate prompts share one.

    Raises:
      ValueError: if there are fewer than two folds, or fewer clusters than folds.
    """
    if folds < 2:
        raise ValueError(f"{caller}: folds is {folds}; it should be 2 or more.")
    found = len(np.unique(cluster))
    if found < folds:
        raise ValueError(
            f"{caller}: there are {found} clusters of prompts for {folds} folds; give "
            "more rows or fewer --folds."
        )
    shares = {str(fold): 1.0 for fold in range(folds)}
    prompts = [row.prompt for row in held]
    return np.array(splits.assign_components(cluster, prompts, shares), int)


def answers_of(said: Scores, crossed: Decided) -> list[evaluation.Answers]:
    """The evaluator as trained, and as decided out of sample."""
    before = evaluation.Answers("as trained", said.classes(), said.scores, said.base())
    after = evaluation.Answers(
        "calibrated", crossed.classes, said.scores, crossed.probs
    )
    return [before, after]


def figures_of(said: Scores, crossed: Decided, truth: evaluation.Truth) -> dict:
    """All figures before and after, and paired differences."""
    before, after = answers_of(said, crossed)
    return {
        "before": evaluation.evaluate(before, truth),
        "after": evaluation.evaluate(after, truth),
        "difference": evaluation.compare(after, before, truth),
        "cells": [
            calibration.cell_figures(before, truth),
            calibration.cell_figures(after, truth, crossed.sets),
        ],
    }


def described(decisions: Decisions) -> str:
    """The numbers of the decisions in words."""
    three = lambda x: ", ".join(f"{number:+.2f}" for number in x)
    low, high = min(decisions.temperature), max(decisions.temperature)
    return (
        f"\nFitted on all {decisions.rows} rows ({decisions.data}): temperatures "
        f"{low:.2f} to {high:.2f}; shift of (-1, 0, +1) {three(decisions.shift)}; bias "
        f"{three(decisions.bias)}; quantiles {three(decisions.quantiles)} at alpha "
        f"{decisions.alpha}.\n"
    )


def _rows(arguments: Arguments) -> tuple[str, list[Row]]:
    """The name of the rows to fit on, and the rows."""
    first = members_of(arguments.runs)[0]
    wanted = EvaluateArguments((str(first),), arguments.split, arguments.data)
    if (first / "config.py").is_file():
        config = rundir.reopen(first)
        if arguments.data:
            return held_out(wanted, Corpus({}, [], []), config.policy)
        corpus = read_corpus(config)
        for sentence in filter(None, [changed(first, config, corpus)]):
            raise ValueError(f"calibrate: {sentence}")
        return held_out(wanted, corpus, config.policy)
    if not arguments.data:
        raise ValueError(f"{first}: is no run of experiments.train; give --data.")
    return held_out(wanted, Corpus({}, [], []), Policy())


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = tyro.cli(
        Arguments,
        args=argv,
        prog="python -m experiments.calibrate",
        description=__doc__,
    )
    return exit_code(lambda: calibrate(arguments))


if __name__ == "__main__":
    sys.exit(main())
