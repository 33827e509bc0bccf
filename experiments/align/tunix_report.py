# SPDX-License-Identifier: Apache-2.0
"""The report of a run of google-tunix, and its comparison with the run of a control."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments import rundir
from experiments.align import effects, measure, report, tables, tunix_measure
from experiments.align.settings import HeldOut
from experiments.align.tunix_settings import Arguments, Compare
from fulcra_jax import values
from fulcra_jax.report import shift_figures
from fulcra_jax.report.tables import Table, markdown, number, show

_WATCHED = {
    "reward": "reward",
    "kl": "KL to the start, k3, nats per token",
    "no_connection": "no connection, targeted",
    "length": "tokens of an answer",
    "entropy": "entropy, nats per token",
}
_MAY_DIFFER = ("out", "control", "save_every", "devices", "best_of")
_TOLD = (
    "toward",
    "reward",
    "released reward",
    "no connection, targeted",
    "no connection",
    "against, targeted",
)
_TEXT = {
    "tokens": "tokens",
    "empty answers": "empty",
    "distinct-1": "distinct_1",
    "distinct-2": "distinct_2",
    "distinct-3": "distinct_3",
    "alike, by pairs of words": "alike",
}
_EYES = {
    "evaluator": "in the eyes of the evaluator that gave the reward",
    "second": "in the eyes of the second evaluator",
}


def write(out: pathlib.Path, arguments: Arguments, figures: Mapping[str, Any]) -> None:
    """Writes report.md and the pictures, and prints the main tables."""
    (name,) = figures["arms"]
    start, entry = figures["start"], figures["arms"][name]
    found = [_shift_table(figures, name, who) for who in entry["change"]]
    found += [_distances_table(start, entry), _texts_table(start, entry)]
    if "best_of_n" in entry:
        found.append(tables.best_of_n_table(figures))
    for table in found:
        show(table)
    said = [_moved(entry), *tables.verdicts(figures)]
    for sentence in said:
        print(sentence)
    report.pictures(out, figures, {name: out}, _WATCHED)
    answers = {
        when: tunix_measure.scored(out, when)["evaluator"]
        for when in ("before", "after")
    }
    drawn = {
        "change.png": "Change per value",
        "change-second.png": "In the eyes of the second evaluator",
        "curves.png": "While training",
        "map.png": "On the theory's axes",
    }
    parts = [
        f"# Alignment to {arguments.target}{', its control' * arguments.control}",
        _account(arguments, figures),
        "\n".join(f"- {sentence}" for sentence in said),
        *(markdown(table) for table in found),
        *(
            f"![{title}]({file})"
            for file, title in drawn.items()
            if (out / file).is_file()
        ),
        tables.examples(answers),
    ]
    (out / "report.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def compare(asked: Compare) -> dict[str, Any]:
    """Sets the change of a run beside that of its control; returns the figures.

    Writes control.json, control.md and control.png to the run.

    Raises:
      FileNotFoundError: if one is no finished run.
      ValueError: if they differ in more than the control.
    """
    out, other = pathlib.Path(asked.run), pathlib.Path(asked.control_run)
    run, control = _finished(out), _finished(other)
    _check_pair(out, run, other, control)
    arguments = run["arguments"]
    held_out = HeldOut(
        prompts=arguments["held_out"],
        answers=arguments["held_out_answers"],
        resamples=arguments["resamples"],
    )
    target = np.array(run["target"])
    moved = {}
    for name, path in (("target", out), ("control", other)):
        before, after = (
            tunix_measure.quantities(path, when, target) for when in ("before", "after")
        )
        moved[name] = {
            who: {k: after[who][k] - before[who][k] for k in before[who]}
            for who in before
        }
    figures: dict[str, Any] = {
        name: {who: measure.means(x, held_out) for who, x in by_who.items()}
        for name, by_who in moved.items()
    }
    figures["beyond"] = effects.change(moved["target"], moved["control"], held_out)
    rundir.write_whole(out / "control.json", figures | {"control_run": str(other)})
    _write_comparison(out, run, target, figures)
    return figures


def _write_comparison(
    out: pathlib.Path,
    run: Mapping[str, Any],
    target: np.ndarray,
    figures: Mapping[str, Any],
) -> None:
    toward = {who: x["toward"] for who, x in figures["beyond"].items()}
    moved = {who: figures["target"][who]["toward"] for who in toward}
    said = [
        tables.beyond_control(
            "these runs", toward, moved, disjoint=run["control_is_disjoint"]
        )
    ]
    found = [_pair_table(who, figures) for who in toward]
    for table in found:
        show(table)
    for sentence in said:
        print(sentence)
    shift_figures.change_per_value(
        {
            name: [[figures[name]["evaluator"][k] for k in values.ABBREVIATIONS]]
            for name in ("target", "control")
        },
        target,
        out / "control.png",
    )
    parts = [
        f"# Alignment to {run['arguments']['target']}, beside its control",
        "\n".join(f"- {sentence}" for sentence in said),
        *map(markdown, found),
        "![Change per value](control.png)",
    ]
    (out / "control.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _pair_table(who: str, figures: Mapping[str, Any]) -> Table:
    header = ["", "target", "control", "target - control"]
    body = [
        [
            name,
            *(tables.plus(figures[part][who][name]) for part in ("target", "control")),
            tables.signed(figures["beyond"][who][name]),
        ]
        for name in (*values.ABBREVIATIONS, *_TOLD)
    ]
    return f"Change {_EYES[who]} [95 % interval over prompts]", header, body


def _finished(path: pathlib.Path) -> dict[str, Any]:
    """The run.json of a finished run."""
    try:
        run = json.loads((path / "run.json").read_text(encoding="utf-8"))
        run["arguments"]["steps"] = tunix_measure.text_of(path, "after")["step"]
    except (OSError, ValueError, KeyError, TypeError):
        raise FileNotFoundError(
            f"{path}: is no finished run of `python -m experiments.align tunix`."
        ) from None
    return run


def _check_pair(
    out: pathlib.Path,
    run: Mapping[str, Any],
    other: pathlib.Path,
    control: Mapping[str, Any],
) -> None:
    if run["arguments"]["control"] or not control["arguments"]["control"]:
        raise ValueError(
            f"align tunix-compare: {out} should be a run without --control, and "
            f"{other} one with it."
        )
    differ = [
        field
        for field in run["arguments"]
        if field not in _MAY_DIFFER
        and run["arguments"][field] != control["arguments"].get(field)
    ]
    for field in ("target", "evaluators", "prompts_sha256"):
        if run[field] != control[field]:
            differ.append(field)
    if differ:
        raise ValueError(
            f"align tunix-compare: {out} and {other} differ in {', '.join(differ)}; "
            "expected the same run with --control."
        )


def _shift_table(figures: Mapping[str, Any], name: str, who: str) -> Table:
    """Every value and what is made of them, before and after, as one evaluator sees."""
    asked = dict(zip(values.ABBREVIATIONS, figures["target"], strict=True))
    names = dict(zip(values.ABBREVIATIONS, values.BASIC, strict=True))
    start, entry = figures["start"][who], figures["arms"][name]
    rows = [
        [
            names.get(quantity, quantity),
            number(asked[quantity]) if quantity in asked else "",
            number(start[quantity].mean),
            number(entry[who][quantity].mean),
            tables.signed(entry["change"][who][quantity]),
        ]
        for quantity in (*values.ABBREVIATIONS, *_TOLD)
    ]
    title = (
        f"Held-out prompts, {_EYES[who]}; change with its 95 % interval over prompts"
    )
    return title, ["", "target", "before", "after", "change"], rows


def _distances_table(start: Mapping[str, Any], entry: Mapping[str, Any]) -> Table:
    rows = [
        [
            name,
            number(start["evaluator"][name].mean),
            number(entry["evaluator"][name].mean),
            tables.signed(entry["change"]["evaluator"][name]),
        ]
        for name in measure.DISTANCES
    ]
    title = "Mean distance to the target; the released one is lowest for silence"
    return title, ["", "before", "after", "change"], rows


def _texts_table(start: Mapping[str, Any], entry: Mapping[str, Any]) -> Table:
    low, high = entry["text"]["kl_interval"]
    kl = number(entry["text"]["kl"], [low, high])
    rows = [["KL to the start, nats per answer", "0", kl]]
    rows += [
        [name, *(number(x["text"][field]) for x in (start, entry))]
        for name, field in _TEXT.items()
    ]
    return "Texts", ["", "before", "after"], rows


def _moved(entry: Mapping[str, Any]) -> str:
    """Whether the model moved toward the target, in the eyes of each evaluator."""
    x = entry["change"]["evaluator"]["toward"]
    way = "moved" if tables.above_zero(x) else "did not clearly move"
    said = f"The model {way} toward the target: {tables.signed(x)}"
    if "second" in entry["change"]:
        other = tables.signed(entry["change"]["second"]["toward"])
        said += f"; in the eyes of the second evaluator {other}"
    return said + ". How much of it the target itself did, a run with --control tells."


def _account(arguments: Arguments, figures: Mapping[str, Any]) -> str:
    (entry,) = figures["arms"].values()
    text = entry["text"]
    low, high = text["kl_interval"]
    source = arguments.held_out_prompts or arguments.prompts or "the embedded corpus"
    return (
        f"{pathlib.Path(arguments.model).name or 'A random Qwen3'}, "
        f"{arguments.algorithm}, gate {arguments.gate}: {text['step']} steps of "
        f"{arguments.prompts_per_step} prompts x {arguments.answers} answers; measured "
        f"on {arguments.held_out} prompts of {pathlib.Path(source).name} x "
        f"{arguments.held_out_answers} answers; {figures['device']}. KL to the start "
        f"{text['kl']:.3f} [{low:.3f}, {high:.3f}] nats per answer. Trained on "
        f"{figures['trained']}, measured against {figures['target']}."
    )
