# SPDX-License-Identifier: Apache-2.0
"""The figures of a study as tables, sentences and pictures."""

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.align import measure
from experiments.align.settings import Study
from fulcra_jax import values
from fulcra_jax.inference import read_scores
from fulcra_jax.report import shift_figures, tables
from fulcra_jax.report.tables import Table, number

_WATCHED = {
    "reward": "reward of the arm",
    "kl": "KL to the start, nats",
    "no_connection": "no connection, targeted",
    "distinct_2": "distinct-2 of a step",
}


def write(out: pathlib.Path, study: Study, figures: Mapping[str, Any]) -> None:
    """Writes report.md and the pictures, and prints the main tables."""
    main = [arms_table(figures), specificity_table(figures)]
    rest = [
        changes_table(figures),
        distances_table(figures),
        second_table(figures),
        best_of_n_table(figures),
        seconds_table(figures),
    ]
    for table in main:
        tables.show(table)
    for sentence in verdicts(figures):
        print(sentence)
    _pictures(out, study, figures)
    parts = [
        f"# Alignment of the toy language model to {study.target}",
        _account(study, figures),
        "\n".join(f"- {sentence}" for sentence in verdicts(figures)),
        *(tables.markdown(table) for table in [*main, *rest]),
        "![Change per value](change.png)",
        "![In the eyes of the second evaluator](change-second.png)",
        "![While training](curves.png)",
        "![On the theory's axes](map.png)",
        examples(out, figures),
    ]
    (out / "report.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def metrics(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of an arm's metrics.jsonl."""
    if not (path / "metrics.jsonl").is_file():
        return []
    lines = (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def arms_table(figures: Mapping[str, Any]) -> Table:
    """One row for the start and each arm: what moved, and at what price."""
    header = [
        "arm",
        "toward the target",
        "... second evaluator",
        "reward",
        "no connection",
        "against",
        "KL",
        "tokens",
        "distinct-2",
    ]
    start = figures["start"]
    body = [
        [
            "start",
            number(start["evaluator"]["toward"].mean),
            number(start["second"]["toward"].mean),
            number(start["evaluator"]["reward"].mean),
            number(start["evaluator"]["no connection, targeted"].mean),
            number(start["evaluator"]["against, targeted"].mean),
            "0",
            f"{start['text']['tokens']:.0f}",
            number(start["text"]["distinct_2"]),
        ]
    ]
    for name, entry in figures["arms"].items():
        change, text = entry["change"], entry["text"]
        body.append(
            [
                name.replace("-", " "),
                signed(change["evaluator"]["toward"]),
                signed(change["second"]["toward"]),
                signed(change["evaluator"]["reward"]),
                signed(change["evaluator"]["no connection, targeted"]),
                signed(change["evaluator"]["against, targeted"]),
                f"{text['kl']:.2f}",
                f"{text['tokens']:.0f}",
                f"{text['distinct_2'] / start['text']['distinct_2']:.2f} x",
            ]
        )
    title = (
        "Held-out prompts; the arms' figures are changes from the start [95 % interval "
        "over prompts]"
    )
    return title, header, body


def specificity_table(figures: Mapping[str, Any]) -> Table:
    """Change under the target minus change under the control."""
    body = [
        [seed.replace("seed", "seed "), signed(x["evaluator"]), signed(x["second"])]
        for seed, x in figures["specificity"].items()
    ]
    title = "Toward the target: change under the target - change under the control"
    if not figures["control_is_disjoint"]:
        title += " (the control shares values with the target: no test)"
    return title, ["", "evaluator", "second evaluator"], body


def changes_table(figures: Mapping[str, Any]) -> Table:
    """The change of every value."""
    header = ["arm", *values.ABBREVIATIONS]
    start = figures["start"]["evaluator"]
    body = [["start", *(number(start[name].mean) for name in values.ABBREVIATIONS)]]
    for name, entry in figures["arms"].items():
        change = entry["change"]["evaluator"]
        body.append(
            [name.replace("-", " "), *(signed(change[k]) for k in values.ABBREVIATIONS)]
        )
    body.append(["target", *(number(float(t)) for t in figures["target"])])
    return "Mean score of each value, and its change", header, body


def distances_table(figures: Mapping[str, Any]) -> Table:
    """All distances to the target, before and after."""
    header = ["arm", *measure.DISTANCES]
    body = [["start", *_distances(figures["start"]["evaluator"])]]
    for name, entry in figures["arms"].items():
        body.append([name.replace("-", " "), *_distances(entry["evaluator"])])
    title = "Mean distance to the target; the released one is lowest for silence"
    return title, header, body


def second_table(figures: Mapping[str, Any]) -> Table:
    """What the second evaluator saw, and what the texts look like."""
    header = [
        "arm",
        "reward, second",
        "no connection, second",
        "distinct-1",
        "distinct-2",
        "distinct-3",
        "alike",
        "empty",
    ]
    rows = {"start": figures["start"], **figures["arms"]}
    body = [
        [
            name.replace("-", " "),
            number(entry["second"]["reward"].mean),
            number(entry["second"]["no connection, targeted"].mean),
            *(number(entry["text"][f"distinct_{n}"]) for n in (1, 2, 3)),
            number(entry["text"]["alike"]),
            number(entry["text"]["empty"]),
        ]
        for name, entry in rows.items()
    ]
    title = (
        "Texts, and the second evaluator (alike: Jaccard of answers to one prompt by "
        "pairs of words)"
    )
    return title, header, body


def best_of_n_table(figures: Mapping[str, Any]) -> Table:
    """Each aligned model beside the best of n answers of the start."""
    header = ["", "n", "KL", "reward", "toward", "... second evaluator"]
    body = []
    for name, entry in figures["arms"].items():
        if "best_of_n" not in entry:
            continue
        best = entry["best_of_n"]
        sides = (
            (name.replace("-", " "), "-", f"{best['kl']:.2f}", entry),
            (
                "best of n, equal KL" if best["equal_kl"] else "best of n, largest n",
                str(best["n"]),
                f"<= {best['kl_bound']:.2f}",
                best,
            ),
        )
        for who, n, kl, x in sides:
            body.append(
                [
                    who,
                    n,
                    kl,
                    interval(x["evaluator"]["reward"]),
                    interval(x["evaluator"]["toward"]),
                    interval(x["second"]["toward"]),
                ]
            )
    title = (
        "The best of n answers of the start, n where log n - (n - 1)/n, which is an "
        "upper bound, reaches the KL"
    )
    return title, header, body


def seconds_table(figures: Mapping[str, Any]) -> Table:
    """How long the arms trained."""
    body = [
        [name.replace("-", " "), f"{seconds:.0f} s"]
        for name, seconds in figures["seconds"].items()
    ]
    return "Training, first step to last", ["arm", "time"], body


def verdicts(figures: Mapping[str, Any]) -> list[str]:
    """What the figures say, each with its numbers."""
    found = []
    for seed, x in figures["specificity"].items():
        what = "moved" if x["evaluator"].low > 0.0 else "did not clearly move"
        same = x["second"].low > 0.0
        found.append(
            f"{seed}: the model {what} toward the target beyond the control: "
            f"{signed(x['evaluator'])}; the second evaluator "
            f"{'agrees' if same else 'does not clearly agree'}: {signed(x['second'])}."
        )
    for name, entry in figures["arms"].items():
        found += [f"ALARM, {name.replace('-', ' ')}: {a}." for a in entry["alarms"]]
    return found


def examples(out: pathlib.Path, figures: Mapping[str, Any], n: int = 3) -> str:
    """The first answers of the start and of one seed of each arm."""
    kept = ["start"]
    for name, entry in figures["arms"].items():
        if entry["seed"] == min(x["seed"] for x in figures["arms"].values()):
            kept.append(name)
    sets = {name: read_scores(out / "scores" / f"{name}.jsonl") for name in kept}
    first = next(iter(sets.values()))
    step = len(first.prompts) // len(set(first.prompts))
    lines = ["## Answers", ""]
    for i in range(0, min(n * step, len(first.prompts)), step):
        lines.append(f"**{first.prompts[i]}**\n")
        lines += [f"- {name}: {x.responses[i]}" for name, x in sets.items()]
        lines.append("")
    return "\n".join(lines)


def signed(x: measure.Mean) -> str:
    """A change with its sign and interval.

    >>> signed(measure.Mean(0.1234, 0.1, 0.15))
    '+.123 [+.10, +.15]'
    """
    return f"{_plus(x.mean, 3)} [{_plus(x.low, 2)}, {_plus(x.high, 2)}]"


def interval(x: measure.Mean) -> str:
    """A figure with its interval."""
    return number(x.mean, [x.low, x.high])


def _plus(x: float, digits: int) -> str:
    if not math.isfinite(x):
        return "-"
    text = f"{abs(x):.{digits}f}"
    sign = "-" if x < 0 and float(text) else "+"
    return sign + (text[1:] if text.startswith("0") else text)


def _distances(means: Mapping[str, measure.Mean]) -> list[str]:
    return [number(means[name].mean) for name in measure.DISTANCES]


def _account(study: Study, figures: Mapping[str, Any]) -> str:
    held, training = study.held_out, study.training
    return (
        f"{training.steps} steps of {training.prompts} prompts x {training.answers} "
        f"answers, {training.advantage}; measured on {held.prompts} prompts of the "
        f"test split x {held.answers} answers; {figures['device']}. The control asks "
        f"for {figures['control']}, the target for {figures['target']}."
    )


def _pictures(out: pathlib.Path, study: Study, figures: Mapping[str, Any]) -> None:
    target = np.array(figures["target"])
    by_arm: dict[str, list[Any]] = {}
    for name, entry in figures["arms"].items():
        by_arm.setdefault(entry["arm"], []).append((name, entry))
    for who, file, title in (
        ("evaluator", "change.png", "Change of the mean score"),
        ("second", "change-second.png", "The same, second evaluator"),
    ):
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
        arm: [metrics(out / "arms" / name) for name, _ in entries]
        for arm, entries in by_arm.items()
    }
    if all(line for seeds in lines.values() for line in seeds):
        shift_figures.curves(lines, _WATCHED, out / "curves.png")
    mean = lambda entry: np.array(
        [entry["evaluator"][k].mean for k in values.ABBREVIATIONS]
    )
    after: dict[str, Sequence[np.ndarray]] = {
        arm: [mean(entry) for _, entry in entries] for arm, entries in by_arm.items()
    }
    shift_figures.shift_map(mean(figures["start"]), after, target, out / "map.png")
