# SPDX-License-Identifier: Apache-2.0
"""Does a bag of words add to an evaluator? Late fusion with TF-IDF + LR, out of sample.

python -m experiments.fusion RUN

python -m experiments.fusion RUN RUN --out DIR              an ensemble of runs

python -m experiments.fusion RUN --write DIR     and an evaluator that has both

"run" is the evaluator, "words" TF-IDF + LR, fitted on the rows that the first run was
trained on, "both" the mean of their log-probabilities (--weight moves it): nothing is
fitted on the rows that are judged. "decided": each of the three calibrated, the weight
fitted, and classes named with a fitted bias, all on the other folds of prompt clusters.
Prints tables, writes report.md and figures.json to RUN/fusion-SPLIT/ (or the folder of
--out).

--write makes DIR an evaluator with the first way: `fulcra score --run DIR`, `fulcra
evaluate`, experiments.evaluate and experiments.calibrate take it. DIR names the runs,
which must stay where they are, and holds the bag of words itself.
"""

import dataclasses
import pathlib
import shutil
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import jax.numpy as jnp
import numpy as np
import tyro

from experiments import floors, prepare, rundir
from experiments.calibrate import folds_of
from experiments.evaluate import Arguments as EvaluateArguments
from experiments.evaluate import held_out, truth_of
from experiments.exits import exit_code
from experiments.prepare import read_corpus
from experiments.seen import changed, trained_on
from fulcra_jax import scoring
from fulcra_jax.inference import (
    BagOfWords,
    Decisions,
    Ensemble,
    bag_of_words,
    load_predictor,
    members_of,
    save_ensemble,
)
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
    write: str = ""
    """A new directory for an evaluator that has both, with the weight below."""
    weight: float = 0.5
    """Of the bag of words in the mean that is not fitted, and in what is written."""
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
    names = ("run, decided", "words, decided", "both, decided")
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
    runs = [*arguments.runs]
    if len(runs) > 1 and not arguments.out:
        raise ValueError(
            f"fusion: {len(runs)} runs are one ensemble, whose report needs "
            "a new directory: --out DIR."
        )
    if not 0.0 <= arguments.weight <= 1.0:
        raise ValueError(
            f"fusion: weight is {arguments.weight}; it should be in [0, 1]."
        )
    members, home = members_of(runs), pathlib.Path(runs[0])
    config = rundir.reopen(members[0])
    if config.control != "none":
        raise ValueError(
            f"fusion: {members[0]} was trained with --control {config.control}; words "
            "would be counted with the true labels."
        )
    for new in (arguments.out, arguments.write):
        if new:
            rundir.check_free(pathlib.Path(new))
            pathlib.Path(new).mkdir(parents=True, exist_ok=True)  # fails at once or not
    corpus = read_corpus(config)
    wanted = EvaluateArguments((str(members[0]),), arguments.split)
    split, held = held_out(wanted, corpus, config.policy)
    for sentence in filter(None, [changed(members[0], config, corpus)]):
        raise ValueError(f"fusion: {sentence}")
    for sentence in trained_on(runs, held):
        raise ValueError(f"fusion: {sentence}; a run that has not seen them is needed.")
    truth = truth_of(held)
    fold = folds_of(held, truth.cluster, arguments.folds, "fusion")
    predictor = load_predictor(runs, decisions=False)
    one: Any = predictor
    if isinstance(predictor, Ensemble):
        one = predictor.members[0]
        if predictor.words is not None:
            raise ValueError(f"fusion: {home} has a bag of words beside it already.")
    if arguments.write and one.config.link == "tanh":
        raise ValueError(
            "fusion: the link 'tanh' gives no probabilities; --write needs another."
        )
    texts = [row.prompt for row in held], [row.response for row in held]
    print(f"scoring {len(held)} rows ...", flush=True)
    said = predictor.score(*texts)
    train = prepare.trained_on(config, corpus.rows["train"])
    print(f"fitting TF-IDF + LR on {len(train)} rows ...", flush=True)
    bag = floors.fit_words(train)
    words = bag.score(*texts).probs
    answers, weights = fuse(said.base(), words, truth, fold)
    even = bag_of_words.pooled(said.base(), words, arguments.weight)
    plain = [
        _answers("both", even),
        _answers("run", said.base()),
        _answers("words", words),
    ]
    names = "both, decided", "run, decided", "words, decided"
    fitted = [answers[name] for name in names]
    print("resampling clusters of prompts ...", flush=True)
    report = {
        "split": split,
        "runs": runs,
        "weight": arguments.weight,
        "weights": weights,
        "systems": [evaluation.evaluate(x, truth) for x in (*plain, *fitted)],
        "differences": [
            evaluation.compare(three[0], x, truth)
            for three in (plain, fitted)
            for x in three[1:]
        ],
    }
    folder = pathlib.Path(arguments.out or home / f"fusion-{split}")
    folder.mkdir(parents=True, exist_ok=True)
    shown = [
        tables.systems_table(report["systems"]),
        tables.differences_table(report["differences"]),
    ]
    tables.show(shown[0], most=6)  # what fits 80 characters; report.md has all
    for pair in (report["differences"][:2], report["differences"][2:]):
        tables.show(tables.differences_table(pair))
    told = ", ".join(f"{weight:.2f}" for weight in weights)
    note = f"weights of the words that were fitted, by fold: {told}"
    text = "\n".join(map(tables.markdown, shown))
    (folder / "report.md").write_text(
        f"# Fusion on {split}\n\nOf {', '.join(runs)}.\n\n{text}\n{note}\n"
    )
    (folder / "figures.json").write_text(evaluation.dumps(report) + "\n")
    print(f"{note}\nwritten to {folder}/: report.md, figures.json")
    if arguments.write:
        _write(pathlib.Path(arguments.write), members, bag, arguments.weight)
        print(f"an evaluator with both: fulcra score --run {arguments.write}")
    return report


def _answers(name: str, probs: np.ndarray) -> evaluation.Answers:
    classes = probs.argmax(-1).astype(np.int32) - 1
    return evaluation.Answers(name, classes, probs[..., 2] - probs[..., 0], probs)


def _write(
    folder: pathlib.Path,
    members: Sequence[pathlib.Path],
    bag: BagOfWords,
    weight: float,
) -> None:
    """Writes the evaluator; the configuration beside the bag says of which rows."""
    words = folder / "words"
    try:
        bag.save(words)
        shutil.copy(members[0] / "config.py", words / "config.py")
        save_ensemble(folder, members, words=words, weight=weight)
    except BaseException:  # also Ctrl-C: half an evaluator would be in the way
        shutil.rmtree(words, ignore_errors=True)
        raise


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = tyro.cli(
        Arguments, args=argv, prog="python -m experiments.fusion", description=__doc__
    )
    return exit_code(lambda: measure(arguments))


if __name__ == "__main__":
    sys.exit(main())
