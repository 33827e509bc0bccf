# SPDX-License-Identifier: Apache-2.0
"""ValueEval'23: what a run, or the floors alone, reach on its twenty categories.

python -m experiments.valueeval --data FOLDER               the floors, on validation

python -m experiments.evaluate --run RUN                    a run, beside the floors

python -m experiments.evaluate --run RUN --run RUN --out DIR    the mean of several

FOLDER holds arguments-SPLIT.tsv and labels-SPLIT.tsv. Of a run it writes to
RUN/evaluation-SPLIT/ (or DIR): figures.json, report.md, predictions.tsv (0 and 1, as a
file of labels), probabilities.tsv, for the test arguments submission.tsv and, of one
run, curve.png.

A threshold is never judged on the arguments it was fitted on: for validation it is
fitted on four fifths of the conclusions and used on the fifth. The test arguments get
the thresholds of all of validation, by the rule that was ahead there.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments import curves, floors, seen
from experiments.config import Config
from experiments.exits import exit_code
from fulcra_jax import scoring
from fulcra_jax.data import source, splits, valueeval
from fulcra_jax.data.rows import Row
from fulcra_jax.inference import Ensemble, Predictor, load_predictor, members_of
from fulcra_jax.report import evaluation, presence, tables

FOLDS = 5
Rule = Literal["one cut", "a cut each"]
RULES: tuple[Rule, ...] = ("one cut", "a cut each")
"""A threshold for all categories, or one for each that is drawn to the common one."""


_ONE, _EACH = jax.jit(scoring.fit_threshold), jax.jit(scoring.fit_thresholds)


class Held(NamedTuple):
    """Labelled arguments to judge, and those that thresholds are fitted on."""

    name: str
    rows: list[Row]
    fitted_on: list[Row]
    """Validation; the same list where it is judged on."""


def evaluate(
    runs: Sequence[str],
    config: Config,
    *,
    split: str,
    data: str,
    tfidf: bool,
    out: pathlib.Path | None = None,
) -> dict[str, Any]:
    """All figures of a run, beside the floors; see the module.

    Args:
      runs: directories of finished runs, or the one of an ensemble.
      config: of the first run.
      split: "held-out" and "dev" are validation, "test" needs labels.
      data: an arguments-SPLIT.tsv, or a folder, to judge on instead; empty is the
        run's own.
      tfidf: whether to fit that floor.
      out: the folder of the report; None takes one in the first directory.
    """
    corpus = source.read_valueeval(_source(config))
    held = held_out(corpus, split, data)
    seen.warn_of(runs, held.rows)
    seen.warn_of_change(members_of(runs)[0], config, corpus)
    predictor = load_predictor(runs, names=valueeval.CATEGORIES, decisions=False)
    print(f"scoring {len(held.rows)} arguments ...", flush=True)
    ours = fitted = probs_of(predictor, held.rows)
    if held.rows is not held.fitted_on:
        print(
            f"scoring {len(held.fitted_on)} arguments of validation, for thresholds "
            "...", flush=True,
        )  # fmt: skip
        fitted = probs_of(predictor, held.fitted_on)
    systems = decided("evaluator", ours, fitted, held)
    report = judge(systems, floor_systems(corpus.rows["train"], held, tfidf), held)
    folder = out or pathlib.Path(runs[0]) / f"evaluation-{held.name}"
    folder.mkdir(parents=True, exist_ok=True)
    best = max(
        (1, 2), key=lambda place: report["systems"][place]["macro"]["official_f1"]
    )
    report["rule"] = RULES[best - 1]
    report["runs"] = [str(run) for run in runs]
    valueeval.write_labels(folder / "predictions.tsv", ids(held.rows),
                           systems[best].there)  # fmt: skip
    write_probabilities(folder / "probabilities.tsv", ids(held.rows), ours)
    write(folder, report, held)
    told = ["report.md", "figures.json", "*.tsv"]
    trained = curves.alone(runs)
    if trained is not None:
        curves.write(trained, folder / "curve.png")
        told.append("curve.png")
    if corpus.rows["test"] and not data:
        print(f"scoring {len(corpus.rows['test'])} test arguments ...", flush=True)
        submit(
            folder / "submission.tsv", corpus.rows["test"], predictor, fitted, held,
            RULES[best - 1],
        )  # fmt: skip
    print(f"written to {folder}/: {', '.join(told)}")
    return report


def floors_only(data: str) -> dict[str, Any]:
    """The figures of the floors on validation."""
    corpus = source.read_valueeval(source.ValueEval(data))
    for note in corpus.notes:
        print(f"data: {note}")
    held = held_out(corpus, "dev", "")
    report = judge([], floor_systems(corpus.rows["train"], held, True), held)
    show(report)
    return report


def held_out(corpus: source.Corpus, split: str, data: str) -> Held:
    """The labelled arguments to judge on, and a name for them.

    Raises:
      ValueError: if there is none.
    """
    dev = [row for row in corpus.rows["dev"] if row.where.any()]
    name = "dev" if split == "held-out" else split
    found = corpus.rows[name]
    if data:
        path = pathlib.Path(data)
        if path.is_dir():
            found = source.read_valueeval(source.ValueEval(data)).rows[name]
            name = f"{path.name}-{name}"
        else:
            found, rejects, _ = valueeval.read_file(path)
            name = path.stem
            if rejects:
                print(f"data: {len(rejects)} lines set aside; the first is "
                      f"{rejects[0]}")  # fmt: skip
    elif name == "dev":
        return Held("dev", dev, dev)
    rows = [row for row in found if row.where.any()]
    judged = {(row.prompt, row.response) for row in rows}
    others = [row for row in dev if (row.prompt, row.response) not in judged]
    if len(others) < len(dev):
        kept = f"the other {len(others)}" if others else "other conclusions of these"
        print(
            f"data: {len(dev) - len(others)} of the {len(dev)} arguments that "
            f"thresholds are fitted on are judged; they are fitted on {kept} instead"
        )
    if not rows:
        raise ValueError(
            f"evaluate: no argument of {name} has labels"
            + ("; they are not released, and evaluating dev writes a submission."
               if name == "test" else ".")
        )  # fmt: skip
    # None is judged under a threshold that it was fitted on.
    return Held(name, rows, others or rows)


def probs_of(predictor: Predictor | Ensemble, rows: Sequence[Row]) -> np.ndarray:
    """`[N, 20]` probability that a category is there."""
    found = predictor.score([r.prompt for r in rows], [r.response for r in rows])
    return found.probs[..., 2]


def decided(
    name: str, probs: np.ndarray, fitted: np.ndarray, held: Held
) -> list[presence.Predictions]:
    """A system under the cut .5 and under each rule, in this order.

    Args:
      name: of the system.
      probs: `[N, 20]` of the rows to judge.
      fitted: `[M, 20]` of the rows that thresholds are fitted on.
      held: both.
    """
    found = [presence.Predictions(f"{name}, cut .5", probs >= 0.5, probs)]
    for rule in RULES:
        if held.rows is held.fitted_on:
            there = cross_fitted(rule, probs, held.rows)
        else:
            there = probs >= thresholds(rule, fitted, held.fitted_on)
        found.append(presence.Predictions(f"{name}, {rule}", there, probs))
    return found


def thresholds(
    rule: Rule, probs: np.ndarray, rows: Sequence[Row], kept: np.ndarray | None = None
) -> np.ndarray:
    """`[20]` thresholds fitted on rows, or on those of them that are kept, `[N]`."""
    labels, where = source.label_arrays(list(rows))
    if kept is not None:
        where &= kept[:, None]
    fit = _ONE if rule == RULES[0] else _EACH
    found = fit(jnp.asarray(probs), jnp.asarray(labels), where=jnp.asarray(where))
    return np.broadcast_to(np.asarray(found), labels.shape[1:])


def cross_fitted(rule: Rule, probs: np.ndarray, rows: Sequence[Row]) -> np.ndarray:
    """`[N, 20]` bool: every fifth of the conclusions under the others' thresholds.

    Raises:
      ValueError: if there is one conclusion only.
    """
    told = [conclusion(row) for row in rows]
    component = splits.prompt_components(told)
    shares = {str(fold): 1.0 for fold in range(FOLDS)}
    fold = np.array(splits.assign_components(component, told, shares))
    if len(set(fold.tolist())) < 2:
        raise ValueError(
            f"evaluate: all {len(rows)} arguments have the conclusion "
            f"{told[0]!r:.60}; thresholds are fitted on other conclusions than they "
            "are used on, so there should be two at least."
        )
    there = np.zeros(probs.shape, bool)
    for name in sorted(set(fold.tolist())):
        cut = thresholds(rule, probs, rows, fold != name)
        there[fold == name] = probs[fold == name] >= cut
    return there


def floor_systems(
    train: Sequence[Row], held: Held, tfidf: bool
) -> list[presence.Predictions]:
    """All-ones, and TF-IDF + LR under the same rules as a run."""
    everything = np.ones((len(held.rows), len(valueeval.CATEGORIES)), bool)
    found = [presence.Predictions("all-ones", everything)]
    if not tfidf:
        return found
    train = [row for row in train if row.where.any()]
    print(f"fitting TF-IDF + LR on {len(train)} arguments ...", flush=True)
    same = held.rows is held.fitted_on
    answers = floors.tfidf(train, [*held.rows, *([] if same else held.fitted_on)])
    assert answers.probs is not None
    probs = answers.probs[..., 2]
    n = len(held.rows)
    return found + decided("TF-IDF + LR", probs[:n], probs if same else probs[n:], held)


def judge(
    ours: Sequence[presence.Predictions],
    theirs: Sequence[presence.Predictions],
    held: Held,
) -> dict[str, Any]:
    """Figures of all systems, and of each of ours against each floor."""
    truth = truth_of(held.rows)
    print("resampling clusters of conclusions ...", flush=True)
    return {
        "split": held.name,
        "rule": RULES[-1],
        "systems": [presence.evaluate(system, truth) for system in [*ours, *theirs]],
        "differences": [
            presence.compare(mine, floor, truth)
            for mine in ours[1:]
            for floor in theirs
        ],
    }


def truth_of(rows: Sequence[Row]) -> presence.Truth:
    """Labels of arguments, and clusters of near-duplicate conclusions."""
    labels, where = source.label_arrays(list(rows))
    cluster = splits.prompt_components([conclusion(row) for row in rows])
    return presence.Truth(labels, where, cluster, valueeval.CATEGORIES)


def submit(
    path: pathlib.Path,
    rows: Sequence[Row],
    predictor: Predictor | Ensemble,
    fitted: np.ndarray,
    held: Held,
    rule: Rule,
) -> None:
    """Writes the predictions for the test arguments, in the format of labels."""
    cut = thresholds(rule, fitted, held.fitted_on)
    valueeval.write_labels(path, ids(rows), probs_of(predictor, rows) >= cut)
    print(
        f"{path.name}: {len(rows)} test arguments under {rule}, fitted on "
        f"{len(held.fitted_on)} arguments of validation"
    )


def write(folder: pathlib.Path, report: dict[str, Any], held: Held) -> None:
    """Prints the tables and writes them."""
    shown = show(report)
    (folder / "figures.json").write_text(evaluation.dumps(report) + "\n")
    (folder / "report.md").write_text(
        f"# ValueEval'23, {held.name}\n\nOf {', '.join(report['runs'])}.\n\n"
        + "\n".join(map(tables.markdown, shown)),
        encoding="utf-8",
    )


def show(report: dict[str, Any]) -> list[tables.Table]:
    """Prints the tables; returns them."""
    systems, differences = report["systems"], report["differences"]
    shown = [presence.systems_table(systems)]
    for name in dict.fromkeys(entry["ours"] for entry in differences):
        shown.append(
            presence.differences_table([d for d in differences if d["ours"] == name])
        )
    best = next((s for s in systems if s["name"].endswith(report["rule"])), systems[-1])
    shown += [presence.categories_table(best), presence.published_table()]
    for table in shown:
        tables.show(table, most=3 if table[0].startswith("paired") else 7)
    return shown


def write_probabilities(
    path: pathlib.Path, names: Sequence[str], probs: np.ndarray
) -> None:
    """Writes `[N, 20]` probabilities as a table with tabs."""
    lines = ["\t".join(("Argument ID", *valueeval.CATEGORIES))]
    lines += [
        "\t".join((name, *(f"{p:.5f}" for p in row)))
        for name, row in zip(names, probs, strict=True)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def ids(rows: Sequence[Row]) -> list[str]:
    """The Argument IDs of rows."""
    return [row.argument_id for row in rows if isinstance(row, valueeval.Argument)]


def conclusion(row: Row) -> str:
    """What is argued for or against."""
    return row.conclusion if isinstance(row, valueeval.Argument) else row.prompt


def _source(config: Config) -> source.ValueEval:
    assert isinstance(config.source, source.ValueEval)
    return config.source


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Where the arguments are."""

    data: str
    """A folder of arguments-SPLIT.tsv and labels-SPLIT.tsv."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = tyro.cli(
        Arguments, args=argv, prog="python -m experiments.valueeval",
        description=__doc__,
    )  # fmt: skip
    return exit_code(lambda: floors_only(arguments.data))


if __name__ == "__main__":
    sys.exit(main())
