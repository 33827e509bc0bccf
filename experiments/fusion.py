# SPDX-License-Identifier: Apache-2.0
"""Does a bag of words add to an evaluator? Late fusion with TF-IDF + LR, out of sample.

python -m experiments.fusion RUN

python -m experiments.fusion RUN RUN --out DIR              an ensemble of runs

Both systems are calibrated, their log-probabilities averaged with a fitted weight, and
classes named with a fitted bias: all on the other folds of prompt clusters. TF-IDF is
fitted on the rows that the first run was trained on. Prints a table, writes report.md
and figures.json to RUN/fusion-SPLIT/ (or DIR). It measures; no model is written.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import jax.numpy as jnp
import numpy as np
import tyro

from experiments import floors, rundir
from experiments.calibrate import folds_of
from experiments.evaluate import Arguments as EvaluateArguments
from experiments.evaluate import held_out, truth_of
from experiments.exits import exit_code
from experiments.prepare import read_corpus
from fulcra_jax import scoring
from fulcra_jax.inference import Decisions, load_predictor
from fulcra_jax.report import evaluation, tables


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Which runs, and the rows to measure on."""

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN")]
    """Finished runs; several are one ensemble."""
    split: Literal["held-out", "dev", "test"] = "dev"
    """Rows that no run was trained on."""
    out: str = ""
    """A new directory for the report; empty takes one in the first run."""
    folds: int = 5
    """Folds of prompt clusters."""


def fuse(
    first: np.ndarray, second: np.ndarray, truth: evaluation.Truth, fold: np.ndarray
) -> tuple[dict[str, evaluation.Answers], list[float]]:
    """Both systems and their fusion, each decided on by the other folds.

    Args:
      first: `[N, V, 3]` float, of the evaluator.
      second: `[N, V, 3]` float, of the other system.
      truth: of the same rows.
      fold: `[N]` ids of folds.

    Returns:
      Answers by name, and the weight of the second system in each fold.
    """
    names = ("evaluator", "TF-IDF + LR", "fusion")
    N, V = truth.labels.shape
    probs = {name: np.zeros((N, V, 3), np.float32) for name in names}
    classes = {name: np.zeros((N, V), np.int32) for name in names}
    whole = truth.where & (truth.labels == np.rint(truth.labels))
    ids = np.where(whole, np.rint(truth.labels), 0).astype(np.int32) + 1
    weights = []
    for one in np.unique(fold):
        own = fold == one
        fit = truth.where & ~own[:, None]
        decided = [
            Decisions.fit(x, truth.labels, fit).decide(x) for x in (first, second)
        ]
        a, b = (jnp.asarray(x.probs) for x in decided)
        weight = scoring.fit_log_pool(
            a.reshape(-1, 3),
            b.reshape(-1, 3),
            jnp.asarray(ids.reshape(-1)),
            where=jnp.asarray((whole & fit).reshape(-1)),
        )
        weights.append(float(weight))
        pooled = np.asarray(scoring.log_pool(a, b, weight))
        decided.append(Decisions.fit(pooled, truth.labels, fit).decide(pooled))
        for name, x in zip(names, decided, strict=True):
            probs[name][own], classes[name][own] = x.probs[own], x.classes[own]
    answers = {
        name: evaluation.Answers(
            name, classes[name], probs[name][..., 2] - probs[name][..., 0], probs[name]
        )
        for name in names
    }
    return answers, weights


def measure(arguments: Arguments) -> dict[str, Any]:
    """Fits both, fuses and reports; returns the figures."""
    if not arguments.runs:
        raise ValueError("fusion: give the directory of at least one run.")
    run = pathlib.Path(arguments.runs[0])
    config = rundir.reopen(run)
    if arguments.out:
        rundir.check_free(pathlib.Path(arguments.out))
    corpus = read_corpus(config)
    wanted = EvaluateArguments(str(run), arguments.split)
    split, held = held_out(wanted, corpus, config.policy)
    truth = truth_of(held)
    fold = folds_of(held, truth.cluster, arguments.folds)
    predictor = load_predictor(arguments.runs, decisions=False)
    said = predictor.score([row.prompt for row in held], [row.response for row in held])
    train = corpus.rows["train"]
    print(f"fitting TF-IDF + LR on {len(train)} rows ...", flush=True)
    words = floors.tfidf(train, held).probs
    if words is None:
        raise ValueError("fusion: TF-IDF + LR gave no probabilities.")
    answers, weights = fuse(said.base(), words, truth, fold)
    fused, alone, bag = (
        answers[name] for name in ("fusion", "evaluator", "TF-IDF + LR")
    )
    report = {
        "split": split,
        "weights": weights,
        "systems": [evaluation.evaluate(x, truth) for x in (fused, alone, bag)],
        "differences": [evaluation.compare(fused, x, truth) for x in (alone, bag)],
    }
    folder = pathlib.Path(arguments.out or run / f"fusion-{split}")
    folder.mkdir(parents=True, exist_ok=True)
    shown = [
        tables.systems_table(report["systems"]),
        tables.differences_table(report["differences"]),
    ]
    for table in shown:
        tables.show(table, most=9)
    note = f"weights of TF-IDF + LR by fold: {', '.join(f'{w:.2f}' for w in weights)}"
    text = "\n".join(map(tables.markdown, shown))
    (folder / "report.md").write_text(f"# Fusion on {split}\n\n{text}\n{note}\n")
    (folder / "figures.json").write_text(evaluation.dumps(report) + "\n")
    print(f"{note}\nwritten to {folder}/: report.md, figures.json")
    return report


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = tyro.cli(
        Arguments, args=argv, prog="python -m experiments.fusion", description=__doc__
    )
    return exit_code(lambda: measure(arguments))


if __name__ == "__main__":
    sys.exit(main())
