# SPDX-License-Identifier: Apache-2.0
"""The encoder benchmark's tables, bars and plot, from its figures."""

import importlib.util
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from experiments.benchmarks.rounds import between, digits, spread

NAMES = {
    "skew": "ours",
    "gather": "ours, gather form",
    "whole": "gather form, whole table",
    "off": "ours, no positions",
    "plain": "plain attention, no positions",
    "cudnn": "ours, cuDNN",
    "bfloat16": "ours, bfloat16",
    "eager": "transformers",
    "compiled": "transformers, torch.compile",
    "flash": "flashdeberta",
}
JUDGED = ([8, 128], [4, 256], [4, 512])
MEMORY = [4, 512]
OVER_OFF = {"forward": 1.3, "training": 1.5}


class Bar(NamedTuple):
    """A figure and what it should be."""

    name: str
    figure: float | None
    wanted: str
    verdict: str
    """holds, does not hold, not measured; void if other processes ran beside it."""

    def __str__(self) -> str:
        figure = "-" if self.figure is None else f"{self.figure:.3g}"
        return f"bar: {self.name}: {figure}, wanted {self.wanted}: {self.verdict}"


def named(shape: Any, mode: str) -> str:
    """A cell in words.

    >>> named((8, 128), "forward")
    '8x128 forward'
    """
    return f"{shape[0]}x{shape[1]} {mode}"


def bars(report: dict[str, Any]) -> list[Bar]:
    """Every bar of the benchmark, also those that were not measured."""
    return [
        *_over_off(report),
        *_memory(report),
        *_over_eager(report),
        *_short(report),
    ]


def at_most(name: str, figure: float | None, limit: float, *, void: bool) -> Bar:
    """A figure that should not be above its limit."""
    good = figure is not None and figure <= limit
    return Bar(name, figure, f"<= {limit:g}", _verdict(figure, good, void))


def at_least(name: str, figure: float | None, limit: float, *, void: bool) -> Bar:
    """A figure that should not be below its limit."""
    good = figure is not None and figure >= limit
    return Bar(name, figure, f">= {limit:g}", _verdict(figure, good, void))


def _verdict(figure: float | None, good: bool, void: bool) -> str:
    if figure is None:
        return "not measured"
    return ("void, " if void else "") + ("holds" if good else "does not hold")


def _over_off(report: dict[str, Any]) -> Iterator[Bar]:
    for mode, limit in OVER_OFF.items():
        for shape in JUDGED:
            cell = _cell(report, shape, mode)
            void = bool(cell and cell["void"])
            ratio = _ratio(cell, "skew", "off")
            name = f"{named(shape, mode)}, time over the encoder without positions"
            yield at_most(name, ratio, limit, void=void)
            # As transformers has it, and with only the rows in use, cached for
            # inference, as the default form has them.
            for form in ("whole", "gather"):
                theirs, cost = _ratio(cell, form, "off"), None
                if ratio is not None and theirs is not None and theirs > 1.0:
                    cost = (ratio - 1.0) / (theirs - 1.0)
                what = f"share of what the {NAMES[form].removeprefix('ours, ')}"
                name = f"{named(shape, mode)}, {what} pays extra"
                yield at_most(name, cost, 0.5, void=void)


def _memory(report: dict[str, Any]) -> Iterator[Bar]:
    alone = {
        row["variant"]: row["temp_bytes"]
        for row in report["attention"]
        if row["shape"] == MEMORY
    }
    cell = _cell(report, MEMORY, "training")
    found = cell["variants"] if cell else {}
    whole = {name: row["temp_bytes"] for name, row in found.items()}
    for what, sizes, base, limit in (
        ("attention alone, forward and backward", alone, "gather", 0.2),
        ("training step", whole, "plain", 1.0),
        ("training step", whole, "off", 1.0),
        ("training step", whole, "gather", 0.5),
    ):
        figure = None
        if sizes.get("skew") is not None and sizes.get(base):
            figure = sizes["skew"] / sizes[base]
        name = f"{named(MEMORY, what)}, temporary memory over {NAMES[base]}"
        yield at_most(name, figure, limit, void=False)


def _over_eager(report: dict[str, Any]) -> Iterator[Bar]:
    for cell in report["cells"]:
        shape, mode = cell["shape"], cell["mode"]
        name = f"{named(shape, mode)}, times as fast as transformers"
        gain, limit = _ratio(cell, "eager", "skew"), 1.0
        free = _ratio(cell, "eager", "off")
        if mode == "training" and free is not None:
            # The encoder without positions need not beat transformers either.
            limit = min(limit, 0.9 * free)
        yield at_least(name, gain, limit, void=cell["void"])
        if shape[1] == 512 and mode == "forward":
            yield at_least(f"{name}, at 512", gain, 1.4, void=cell["void"])


def _short(report: dict[str, Any]) -> Iterator[Bar]:
    for length in (16, 32):
        cell = _cell(report, [1, length], "forward")
        name = f"one text of {length} tokens, times as fast as transformers"
        gain = _ratio(cell, "eager", "skew")
        yield at_least(name, gain, 3.0, void=bool(cell and cell["void"]))


def _cell(report: dict[str, Any], shape: list[int], mode: str) -> dict[str, Any] | None:
    found = [
        cell
        for cell in report["cells"]
        if cell["shape"] == shape and cell["mode"] == mode
    ]
    return found[0] if found else None


def _ratio(cell: dict[str, Any] | None, above: str, below: str) -> float | None:
    if not cell or above not in cell["variants"]:
        return None
    ratio = cell["variants"][above]["ratios"].get(below)
    return None if ratio is None else ratio["median"]


def text(report: dict[str, Any]) -> str:
    """Markdown of everything, the bars last."""
    about = ", ".join(f"{name} {what}" for name, what in report["machine"].items())
    asked = report["arguments"]
    parts = [
        f"Machine: {about}. Load average {report['load before']} before, "
        f"{report['load after']} after.",
        f"Shapes of {asked['model']}, {asked['layers']} layers, {asked['dtype']}; "
        f"{asked['padded']:.0%} of the rows padded; dropout off. Median (range) of "
        f"{asked['rounds']} interleaved rounds. Best matrix product: "
        f"{report['ceiling'] / 1e9:,.0f} GFLOP/s.",
        foreign_load(report["cells"]),
        _table(report),
    ]
    absent = _absent(report)
    if absent:
        parts.append(absent)
    if report["attention"]:
        parts.append(_attention(report))
    if any(cell.get("precision") for cell in report["cells"]):
        parts.append(_precision(report))
    parts.append("\n".join(str(Bar(**bar)) for bar in report["bars"]))
    return "\n\n".join(parts) + "\n"


def foreign_load(cells: Sequence[dict[str, Any]]) -> str:
    """A sentence on what other processes used of the processors."""
    every = [one for cell in cells for one in cell["rounds"]]
    shares = [one["foreign"] for one in every if one["foreign"] is not None]
    dropped = sum(len(cell["dropped"]) for cell in cells)
    void = sum(cell["void"] for cell in cells)
    if not shares:
        return "Foreign load: cannot be told here."
    return (
        f"Foreign load in the {len(every)} rounds that count: {between(spread(shares))}"
        f" of the processors; {dropped} rounds dropped, {void} of {len(cells)} "
        "measurements void."
    )


def _table(report: dict[str, Any]) -> str:
    lines = [
        "| shape | variant | ms | over no positions | CPU time over no positions | "
        "times ours | temporary MB | GFLOP/s | of the ceiling | largest difference |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for cell in report["cells"]:
        rounds = len(cell["rounds"])
        mark = f", VOID: {rounds} rounds with foreign load" if cell["void"] else ""
        for name, row in cell["variants"].items():
            rate = cell["flops"]["counted"] / row["seconds"]["median"]
            size, off = row["temp_bytes"], row["ratios"].get("off")
            cpu, ours = row["cpu_ratios"].get("off"), row["ratios"].get("skew")
            entries = (
                named(cell["shape"], cell["mode"]) + mark,
                NAMES[name],
                between(row["seconds"], 1e3),
                between(off) if off else "-",
                between(cpu) if cpu else "-",
                between(ours) if ours else "-",
                "-" if size is None else f"{size / 1e6:,.1f}",
                digits(rate / 1e9),
                f"{rate / report['ceiling']:.0%}",
                "-" if row["difference"] is None else f"{row['difference']:.0e}",
            )
            lines.append(f"| {' | '.join(entries)} |")
    return "\n".join(lines)


def _absent(report: dict[str, Any]) -> str:
    where: dict[tuple[str, str], list[str]] = {}
    for cell in report["cells"]:
        for name, reason in cell["missing"].items():
            place = named(cell["shape"], cell["mode"])
            where.setdefault((name, reason), []).append(place)
    lines = []
    for (name, reason), places in where.items():
        everywhere = len(places) == len(report["cells"])
        at = "" if everywhere else f" at {', '.join(places)}"
        lines.append(f"- {NAMES[name]}: not measured{at}: {reason}")
    return "\n".join(lines)


def _attention(report: dict[str, Any]) -> str:
    lines = [
        "| one attention module, forward and backward | temporary MB |",
        "| --- | --- |",
    ]
    for row in report["attention"]:
        size = row["temp_bytes"]
        megabytes = "not known" if size is None else f"{size / 1e6:,.1f}"
        shape = named(row["shape"], NAMES[row["variant"]])
        lines.append(f"| {shape} | {megabytes} |")
    return "\n".join(lines)


def _precision(report: dict[str, Any]) -> str:
    lines = [
        "| bfloat16 against float32 | largest error | rms error (of the states) | "
        "classes of a random linear classifier changed |",
        "| --- | --- | --- | --- |",
    ]
    for cell in report["cells"]:
        for name, row in cell.get("precision", {}).items():
            lines.append(
                f"| {named(cell['shape'], cell['mode'])}, {NAMES[name]} | "
                f"{row['largest']:.3g} | {row['rms']:.3g} "
                f"({row['rms of the states']:.3g}) | {row['classes changed']:.2%} of "
                f"{row['tokens']} tokens |"
            )
    return "\n".join(lines)


def plot(report: dict[str, Any], path: pathlib.Path) -> str:
    """Bars of time, forward and training; returns what became of it."""
    if importlib.util.find_spec("matplotlib") is None:
        return "no plot: matplotlib is not installed"
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    modes = [
        mode
        for mode in OVER_OFF
        if any(cell["mode"] == mode for cell in report["cells"])
    ]
    figure, axes = plt.subplots(
        len(modes), 1, figsize=(11, 4 * len(modes)), squeeze=False, layout="constrained"
    )
    for axis, mode in zip(axes[:, 0], modes, strict=True):
        cells = [cell for cell in report["cells"] if cell["mode"] == mode]
        shown = [
            name for name in NAMES if any(name in cell["variants"] for cell in cells)
        ]
        base = "off" if "off" in shown else "skew"
        width = 0.8 / len(shown)
        for place, name in enumerate(shown):
            bars = [
                (i + place * width, cell["variants"][name]["ratios"][base])
                for i, cell in enumerate(cells)
                if name in cell["variants"]
            ]
            at, ratios = zip(*bars, strict=True)
            middle = [ratio["median"] for ratio in ratios]
            low = [max(r["median"] - r["low"], 0.0) for r in ratios]
            high = [max(r["high"] - r["median"], 0.0) for r in ratios]
            axis.bar(at, middle, width, yerr=(low, high), label=NAMES[name])
        if base == "off":
            axis.axhline(OVER_OFF[mode], color="black", linestyle=":")
        labels = [
            f"{c['shape'][0]}x{c['shape'][1]}{' VOID' if c['void'] else ''}"
            for c in cells
        ]
        centre = 0.4 - width / 2
        axis.set_xticks([i + centre for i in range(len(cells))], labels)
        axis.set(ylabel=f"time over {NAMES[base]}", title=mode, yscale="log")
        axis.legend(fontsize=8, ncols=4)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return f"written: {path.parent}"
