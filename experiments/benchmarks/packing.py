# SPDX-License-Identifier: Apache-2.0
"""Texts a second in padded batches and in packed rows.

python -m experiments.benchmarks.packing             real rows, where they are

python -m experiments.benchmarks.packing --texts 64 --layers 1 --rounds 3

Three ways to run the same texts through the same evaluator (random weights: only time
is measured), timed in turn in every round, without compilation: (a) batches of 16 in
random order, each padded to its longest text; (b) batches of texts of similar length
with at most as many tokens as a packed batch; (c) rows packed to the capacity. Before,
the logits of (c) are compared with those of (a). Padding is also given for all rows of
the file. A round beside which other processes used the CPU is repeated. Writes
OUT/packing.md, packing.json, packing.png.
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import tyro

from experiments.benchmarks import packing_ways, rounds
from experiments.benchmarks.encoder_report import foreign_load
from experiments.benchmarks.packing_ways import (
    NAMES,
    PACKED,
    SORTED,
    UNSORTED,
    Arguments,
    Texts,
)
from experiments.exits import exit_code
from fulcra_jax.data.batches import Batch

FILES = ("packing.json", "packing.md", "packing.png")


def benchmark(arguments: Arguments) -> dict[str, Any]:
    """Measures, writes table, figures and plot."""
    check(arguments)
    out = rounds.directory("benchmarks.packing", arguments.out, FILES)
    note, every, vocab_size = packing_ways.read_texts(arguments)
    random = np.random.default_rng(0)
    order = random.permutation(len(every.ids))
    texts = every.of(order[: arguments.texts])
    evaluator, params = packing_ways.evaluator_of(arguments, vocab_size)
    batches = packing_ways.batches_of(arguments, texts)
    difference = packing_ways.largest_difference(
        evaluator, params, batches, len(texts.ids)
    )
    found: dict[str, rounds.Measured] = {}
    for mode in ("forward", "training"):
        print(f"{mode}: compiling ...", flush=True)
        ways = {
            name: packing_ways.way_of(evaluator, params, some, mode)
            for name, some in batches.items()
        }
        print(f"{mode}: measuring ...", flush=True)
        found[mode] = rounds.measure(
            ways,
            rounds=arguments.rounds,
            retries=arguments.retries,
            least_seconds=0.0,
            foreign_limit=(
                arguments.foreign if jax.default_backend() == "cpu" else None
            ),
        )
    report = report_of(arguments, note, every.of(order), batches, found)
    report["packed logits"] = difference
    report["bars"] = bars(report)
    (out / "packing.json").write_text(json.dumps(report, indent=1) + "\n")
    (out / "packing.md").write_text(table(report))
    print(table(report))
    plot(report, out / "packing.png")
    return report


def check(arguments: Arguments) -> None:
    """Raises ValueError if a number is out of range."""
    for field in (
        "texts",
        "layers",
        "rows",
        "max_segments",
        "batch_size",
        "rounds",
    ):
        if getattr(arguments, field) < 1:
            raise ValueError(
                f"benchmarks.packing: {field} is {getattr(arguments, field)}; expected "
                "at least 1."
            )
    if arguments.retries < 0:
        raise ValueError(
            f"benchmarks.packing: retries is {arguments.retries}; expected at least 0."
        )
    if not 0.0 <= arguments.foreign <= 1.0:
        raise ValueError(
            f"benchmarks.packing: foreign is {arguments.foreign}; expected a share in "
            "[0, 1]."
        )
    if not 8 <= arguments.capacity <= 65536:
        raise ValueError(
            f"benchmarks.packing: capacity is {arguments.capacity}; expected a number "
            "in [8, 65536]."
        )


def report_of(
    arguments: Arguments,
    note: str,
    every: Texts,
    batches: dict[str, list[Batch]],
    found: dict[str, rounds.Measured],
) -> dict[str, Any]:
    """All figures."""
    whole = packing_ways.batches_of(arguments, every)
    count = sum(len(batch["source"]) for batch in batches[UNSORTED])
    return {
        "arguments": dataclasses.asdict(arguments),
        "machine": rounds.machine()
        | {"device": jax.devices()[0].device_kind, "jax": jax.__version__},
        "load": rounds.load_average(),
        "rows": note,
        "texts": count,
        "padding": {name: padding(some) for name, some in batches.items()},
        "padding of all rows": {name: padding(some) for name, some in whole.items()},
        "batches": {name: len(some) for name, some in batches.items()},
        "modes": {
            mode: {
                "seconds": {name: measured.seconds(name) for name in NAMES},
                "gain": {
                    name: measured.ratio(name, PACKED) for name in (UNSORTED, SORTED)
                },
                **measured.to_json(),
            }
            for mode, measured in found.items()
        },
    }


def padding(batches: Sequence[Batch]) -> float:
    """The share of all places in the batches that hold no token."""
    places = sum(batch["mask"].size for batch in batches)
    return 1.0 - float(sum(batch["mask"].sum() for batch in batches)) / places


def bars(report: dict[str, Any]) -> list[str]:
    """What should hold, and whether it does."""
    share = report["padding of all rows"][PACKED]
    lines = [
        f"bar: padding of packed rows, all texts: {share:.2%}, wanted <= 5%: "
        f"{_holds(share <= 0.05)}"
    ]
    for mode, figures in report["modes"].items():
        gain = figures["gain"][UNSORTED]["median"]
        void = "void, " if figures["void"] else ""
        lines.append(
            f"bar: {mode}, texts a second of packed rows over (a): {gain:.3g}, wanted "
            f">= 1.7: {void}{_holds(gain >= 1.7)}"
        )
    return lines


def _holds(good: bool) -> str:
    return "holds" if good else "does not hold"


def table(report: dict[str, Any]) -> str:
    """Markdown of all figures, the bars last."""
    asked = report["arguments"]
    about = ", ".join(f"{name} {what}" for name, what in report["machine"].items())
    lines = [
        f"Machine: {about}. Load average {report['load']}. {report['rows']}; "
        f"{report['texts']} texts timed, shapes of {asked['model']}, {asked['layers']} "
        f"layers, capacity {asked['capacity']}. Median (range) of {asked['rounds']} "
        "interleaved rounds. Logits in packed rows and in padded batches differ by "
        f"{report['packed logits']['difference']:.0e} at most; the largest is "
        f"{report['packed logits']['logit']:.2g}.",
        "",
        foreign_load(list(report["modes"].values())),
        "",
        "| way | batches | padding (all rows) | forward, texts/s | training, texts/s |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, label in NAMES.items():
        entries = [
            label,
            str(report["batches"][name]),
            f"{report['padding'][name]:.1%} "
            f"({report['padding of all rows'][name]:.1%})",
        ]
        for figures in report["modes"].values():
            rate = report["texts"] / figures["seconds"][name]["median"]
            entries.append(rounds.digits(rate) + (" VOID" if figures["void"] else ""))
        lines.append(f"| {' | '.join(entries)} |")
    lines += ["", "| packed over | forward | training |", "| --- | --- | --- |"]
    for name in (UNSORTED, SORTED):
        gains = [x["gain"][name] for x in report["modes"].values()]
        lines.append(f"| {NAMES[name]} | {' | '.join(map(rounds.between, gains))} |")
    return "\n".join([*lines, "", *report["bars"]]) + "\n"


def plot(report: dict[str, Any], path: pathlib.Path) -> None:
    """Padding, and texts a second, of the three ways."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.5), layout="constrained")
    shares = report["padding of all rows"]
    axes[0].bar(list(NAMES), [100 * shares[name] for name in NAMES])
    axes[0].set(ylabel="padding, %", title="all rows")
    for axis, (mode, figures) in zip(axes[1:], report["modes"].items(), strict=True):
        seconds = [figures["seconds"][name]["median"] for name in NAMES]
        axis.bar(list(NAMES), [report["texts"] / x for x in seconds])
        axis.set(ylabel="texts a second", title=mode)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return exit_code(
        lambda: benchmark(
            tyro.cli(
                Arguments,
                args=argv,
                prog="python -m experiments.benchmarks.packing",
                description=__doc__,
            )
        )
    )


if __name__ == "__main__":
    sys.exit(main())
