# SPDX-License-Identifier: Apache-2.0
"""Floors that need no neural network; a figure without one says nothing.

majority: the most frequent label of each value among the training rows, for every row.
TF-IDF + LR: words and pairs of words, and 3 to 5 letters within words, of the response
alone; one balanced logistic regression per value. A bag of words with exact statistics
is hard to beat on a thousand rows.
TF-IDF + ridge, for another evaluator's scores: the same features of prompt and response
in one text, and a linear regression. Beside a run it is also averaged with it: does
the run know what the words do not? Of a run the classes are its own, without decisions.

python -m experiments.floors --data FOLDER              on labels and on scores
python -m experiments.floors --data FOLDER --run RUN    a run beside them, paired

FOLDER holds files in FULCRA's format, files official_scores.NAME.SPLIT.jsonl, or both.
The floors are fitted on train and judged on test, where there is one, else on dev.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import tyro
from sklearn.linear_model import Ridge

from experiments import seen
from experiments.exits import exit_code
from fulcra_jax import inference
from fulcra_jax.data import source, splits
from fulcra_jax.data.formats import sniff
from fulcra_jax.data.official import OfficialRow, read_official
from fulcra_jax.data.rows import Row
from fulcra_jax.data.source import label_arrays
from fulcra_jax.inference import BagOfWords, bag_of_words
from fulcra_jax.report import evaluation, tables, teacher
from fulcra_jax.report.evaluation import Answers


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to fit and judge the floors on."""

    data: str
    """A folder."""
    run: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Runs or models to put beside the floors; several are one ensemble."""
    seed: int = 0
    """Of the split, for files that are not split already, and of the bootstrap."""


def majority(train: Sequence[Row], held: Sequence[Row]) -> Answers:
    """The most frequent label of each value; 0 for a value without labels."""
    labels, where = label_arrays(list(train))
    most = np.zeros(labels.shape[1], int)
    for column in range(len(most)):
        seen = np.rint(labels[where[:, column], column]).astype(int)
        counts = [(seen == label).sum() for label in (-1, 0, 1)]
        most[column] = int(np.argmax(counts)) - 1 if len(seen) else 0
    classes = np.tile(most, (len(held), 1))
    return Answers("majority", classes, classes.astype(np.float32))


def tfidf(train: Sequence[Row], held: Sequence[Row]) -> Answers:
    """TF-IDF of the response and a balanced logistic regression per value; rows of a
    teacher's scores are no part of it."""
    said = fit_words(train).score([""] * len(held), [row.response for row in held])
    return Answers("TF-IDF + LR", said.classes(), said.scores, said.probs)


def fit_words(train: Sequence[Row]) -> BagOfWords:
    """The TF-IDF + LR floor, fitted."""
    train = [row for row in train if row.teacher is None]
    return BagOfWords.fit([row.response for row in train], *label_arrays(train))


def train_mean(train: Sequence[OfficialRow], held: Sequence[OfficialRow]) -> np.ndarray:
    """`[N, 10]` the mean scores of the training rows, for each of N held-out rows."""
    return np.tile(np.stack([row.scores for row in train]).mean(0), (len(held), 1))


def tfidf_ridge(
    train: Sequence[OfficialRow], held: Sequence[OfficialRow]
) -> np.ndarray:
    """`[N, 10]` float32 in [-1, 1] of N held-out rows: a ridge regression of the scores
    on TF-IDF of prompt and response in one text."""
    features = bag_of_words.features()
    texts = lambda rows: [f"{row.prompt}\n{row.response}" for row in rows]
    x_train = features.fit_transform(texts(train))
    model = Ridge(alpha=1.0).fit(x_train, np.stack([row.scores for row in train]))
    predicted = model.predict(features.transform(texts(held)))
    return np.clip(predicted, -1.0, 1.0).astype(np.float32)


def judge(arguments: Arguments) -> dict[str, Any]:
    """Prints the floors on a folder, and returns their figures: "labels" and
    "official_scores", each with "systems" and "differences"."""
    folder = pathlib.Path(arguments.data)
    if not folder.is_dir():
        raise FileNotFoundError(f"floors: --data {folder} is no folder.")
    kinds = {file: sniff(file) for file in sorted(folder.glob("*.json*"))}
    if not {"fulcra", "official_scores"} & set(kinds.values()):
        raise ValueError(
            f"floors: {folder} holds no file in FULCRA's format or of official scores."
        )
    runs = [*arguments.run]
    # Not what was decided on held-out rows: they may be these.
    predictor = inference.load_predictor(runs, decisions=False) if runs else None
    found = {}
    if "fulcra" in kinds.values():
        found["labels"] = _judge_labels(arguments, predictor)
    scored = [file for file, kind in kinds.items() if kind == "official_scores"]
    if scored:
        found["official_scores"] = _judge_scores(arguments, scored, predictor)
    return found


def _judge_labels(arguments: Arguments, predictor: Any) -> dict[str, Any]:
    corpus = source.read_folder(source.Folder(arguments.data, arguments.seed))
    train = corpus.rows["train"]
    split = corpus.held_out()
    held = [row for row in corpus.rows[split] if row.where.any()]
    systems = [majority(train, held), tfidf(train, held)]
    if predictor is not None:
        seen.warn_of(arguments.run, held)
        said = predictor.score(
            [row.prompt for row in held], [row.response for row in held]
        )
        ours = Answers("run", said.classes(), said.scores, said.calibrated())
        systems.insert(0, ours)
    clusters = splits.prompt_components([row.prompt for row in held])
    truth = evaluation.Truth(*label_arrays(held), clusters)
    figures = [evaluation.evaluate(one, truth, seed=arguments.seed) for one in systems]
    print(f"labels: {len(train)} rows of train, {len(held)} of {split}")
    tables.show(tables.systems_table(figures), most=9)
    differences = []
    if predictor is not None:
        differences = [
            evaluation.compare(systems[0], floor, truth, seed=arguments.seed)
            for floor in systems[1:]
        ]
        tables.show(tables.differences_table(differences))
    return {"systems": figures, "differences": differences}


def _judge_scores(
    arguments: Arguments, files: Sequence[pathlib.Path], predictor: Any
) -> dict[str, Any]:
    held_out = "test" if any(".test." in file.name for file in files) else "dev"
    rows: dict[str, list[OfficialRow]] = {"train": [], held_out: []}
    for split, known in rows.items():
        for file in files:
            if file.name.endswith(f".{split}.jsonl"):
                known += read_official(file)[0]
    train, held = rows.values()
    if not train or not held:
        raise ValueError(
            f"floors: {arguments.data} needs official_scores.NAME.train.jsonl and "
            f"official_scores.NAME.{held_out}.jsonl; one has no row."
        )
    truth = teacher.Taught(
        np.stack([row.scores for row in held]),
        splits.prompt_components([row.prompt for row in held]),
        teacher.repeated_answers([row.response for row in held]),
        train_mean(train, held)[0],
    )
    systems = {"TF-IDF + ridge": tfidf_ridge(train, held)}
    if predictor is not None:
        seen.warn_of(arguments.run, held)
        said = predictor.score(
            [row.prompt for row in held], [row.response for row in held]
        )
        ridge = systems["TF-IDF + ridge"]
        systems = {"run": said.scores} | systems
        systems["run & TF-IDF + ridge"] = (said.scores + ridge) / 2
    seed = arguments.seed
    figures = [
        teacher.evaluate(name, x, truth, seed=seed) for name, x in systems.items()
    ]
    print(f"official scores: {len(train)} rows of train, {len(held)} of {held_out}")
    for one in figures:
        tables.show(teacher.agreement_table([one]))
    differences = []
    if predictor is not None:
        run, floor, both = systems
        for pair in ((run, floor), (both, floor), (both, run)):
            ours, theirs = (systems[name] for name in pair)
            differences.append(teacher.compare(pair, ours, theirs, truth, seed=seed))
            tables.show(teacher.differences_table(differences[-1:]))
    return {"systems": figures, "differences": differences}


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""

    def work() -> None:
        arguments = tyro.cli(
            Arguments, args=argv, prog="python -m experiments.floors",
            description=__doc__,
        )  # fmt: skip
        judge(arguments)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
