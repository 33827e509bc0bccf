# SPDX-License-Identifier: Apache-2.0
"""Scoring side by side with krippendorff, statsmodels, scikit-learn, irrCAC, crowd-kit.

python -m experiments.benchmarks.scoring                     10k, 100k, 1M items

python -m experiments.benchmarks.scoring --sizes 10000       a short run

Ten values, five annotators, labels -1/0/+1, 10 % missing. The libraries do not fit into
one environment: `make references` makes theirs under .venv-references; one that is not
there is left out and the table says so. Rounds are interleaved (ours, then each
library, and again), every task in a process of its own. Times are wall clock, of
ratings on the host to results on the host; ours without compilation, which is shown
apart. Writes OUT/scoring.md, scoring.json, scoring.png, and runs.json
with every run. Linux only: peak memory is read from /proc.
"""

import dataclasses
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import tyro

from experiments import rundir
from experiments.exits import exit_code

VALUES, RATERS, MISSING = 10, 5, 0.1
ENVIRONMENTS = pathlib.Path(".venv-references")
REFERENCES = pathlib.Path(__file__).with_name("scoring_references.py")

COMPARISONS = (
    ("eight_coefficients", "krippendorff_alpha", "libraries"),
    ("eight_coefficients", "statsmodels_fleiss", "libraries"),
    ("eight_coefficients", "sklearn_cohen", "libraries"),
    ("eight_coefficients", "irrcac_gwet", "irrcac"),
    ("bootstrap_alpha", "krippendorff_bootstrap", "libraries"),
    ("dawid_skene", "crowdkit_dawid_skene", "crowdkit"),
)
"""Our task, the reference's task, the reference's environment."""

OURS = ("eight_coefficients", "bootstrap", "bootstrap_alpha", "dawid_skene")
NAMES = {
    "eight_coefficients": "eight coefficients",
    "bootstrap": "bootstrap, 1,000 resamples of eight coefficients",
    "bootstrap_alpha": "bootstrap of alpha nominal, 1,000 resamples",
    "dawid_skene": "Dawid-Skene, 20 iterations, posteriors of all items",
    "krippendorff_alpha": "krippendorff: alpha nominal",
    "statsmodels_fleiss": "statsmodels: Fleiss' kappa",
    "sklearn_cohen": "scikit-learn: Cohen's kappa of all pairs",
    "irrcac_gwet": "irrCAC: AC1",
    "krippendorff_bootstrap": "loop over krippendorff: alpha nominal",
    "crowdkit_dawid_skene": "crowd-kit: Dawid-Skene, 20 iterations",
}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to measure."""

    sizes: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    """Numbers of items."""
    rounds: int = 3
    """Interleaved rounds; medians and ranges are over these."""
    repeats: int = 3
    """Runs of ours in a round after the one that compiles; their median counts."""
    out: str = "runs/benchmark-scoring"
    """Directory of the table, the figures and the plot."""


def benchmark(arguments: Arguments) -> dict[str, Any]:
    """Measures, compares the results, writes table and plot."""
    if arguments.rounds < 1 or arguments.repeats < 1 or min(arguments.sizes) < 1000:
        raise ValueError(
            "benchmarks.scoring: rounds and repeats must be at least 1 and every size "
            f"at least 1,000; they are {arguments.rounds}, {arguments.repeats} and "
            f"{arguments.sizes}."
        )
    out = pathlib.Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for size in arguments.sizes:
            path = pathlib.Path(folder) / f"{size}.npy"
            np.save(path, simulated(size))
            for number in range(arguments.rounds):
                for task, command in commands(path, arguments.repeats):
                    text = f"{size:,} items, round {number + 1}: {NAMES[task]}"
                    print(text, flush=True)
                    found = run(command)
                    runs.append({"size": size, "task": task, **found})
    rundir.write_json(out / "runs.json", runs)
    check_results(runs)
    report = {
        "machine": machine(),
        "import": import_seconds(2 * arguments.rounds),
        "sizes": list(arguments.sizes),
        "ours": own_rows(runs, arguments.sizes),
        "comparisons": comparison_rows(runs, arguments.sizes),
    }
    rundir.write_json(out / "scoring.json", report)
    text = table(report)
    (out / "scoring.md").write_text(text)
    plot(report, out / "scoring.png")
    print(text)
    return report


def simulated(items: int) -> np.ndarray:
    """`[V, R, N]` int8 class ids of noisy raters, -1 where missing."""
    random = np.random.default_rng(0)
    base = np.array([0.08, 0.77, 0.15])
    shape = (VALUES, RATERS, items)
    truth = random.choice(3, p=base, size=(VALUES, 1, items)).astype(np.int8)
    guess = random.choice(3, p=base, size=shape).astype(np.int8)
    ratings = np.where(random.random(shape, np.float32) < 0.8, truth, guess)
    return np.where(random.random(shape, np.float32) < MISSING, np.int8(-1), ratings)


def commands(path: pathlib.Path, repeats: int) -> Iterator[tuple[str, list[str]]]:
    """Every task with its command line, ours and theirs in turn."""
    ours = [sys.executable, "-m", "experiments.benchmarks.scoring_ours"]
    for task in OURS:
        yield task, [*ours, task, str(path), str(repeats)]
        for own, reference, environment in COMPARISONS:
            python = ENVIRONMENTS / environment / "bin" / "python"
            if own == task and python.exists():
                yield reference, [str(python), str(REFERENCES), reference, str(path)]


def run(command: Sequence[str]) -> Any:
    """One process; its last line of output is its report."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"benchmarks.scoring: {' '.join(command)} failed: {reason}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def import_seconds(rounds: int) -> dict[str, float]:
    """What `import fulcra_jax.scoring` adds to that of jax, in processes in turn."""
    code = (
        "import time, jax.numpy; start = time.perf_counter(); "
        "import fulcra_jax.scoring; print(time.perf_counter() - start)"
    )
    return spread("s", [run([sys.executable, "-c", code]) for _ in range(rounds)])


def check_results(runs: Sequence[dict[str, Any]]) -> None:
    """Speed of wrong figures is worth nothing: both sides must have the same."""
    for size in {one["size"] for one in runs}:
        found = {one["task"]: one["result"] for one in runs if one["size"] == size}
        for name, ours, tolerance in (
            ("krippendorff_alpha", found["eight_coefficients"]["alpha_nominal"], 1e-5),
            ("irrcac_gwet", found["eight_coefficients"]["ac1"], 1e-5),
            ("crowdkit_dawid_skene", found["dawid_skene"], 1e-4),
        ):
            if found.get(name) is None:  # Not installed, or stopped early to be scaled.
                continue
            theirs = np.asarray(found[name])
            worst = float(np.abs(np.asarray(ours)[: len(theirs)] - theirs).max())
            if worst > tolerance:
                raise ValueError(
                    f"benchmarks.scoring: {name} and ours differ by {worst:.1e} on "
                    f"{size:,} items; expected at most {tolerance:.0e}."
                )


def own_rows(
    runs: Sequence[dict[str, Any]], sizes: Sequence[int]
) -> list[dict[str, Any]]:
    """Times and memory of ours, per task and size."""
    rows = []
    for size in sizes:
        for task in OURS:
            own = of(runs, size, task)
            times = [t for one in own for t in one["s"]]
            rows.append(
                {
                    "size": size,
                    "task": task,
                    **spread("s", times),
                    "first": float(np.median([one["first"] for one in own])),
                    "peak": max(one["peak"] for one in own),
                }
            )
    return rows


def comparison_rows(
    runs: Sequence[dict[str, Any]], sizes: Sequence[int]
) -> list[dict[str, Any]]:
    """Ratios of the rounds' times; None where a library is not installed."""
    rows = []
    for size in sizes:
        for task, reference, _ in COMPARISONS:
            theirs = of(runs, size, reference)
            row: dict[str, Any] = {"size": size, "task": task, "reference": reference}
            if theirs:
                ours = [float(np.median(one["s"])) for one in of(runs, size, task)]
                times = [one["s"] for one in theirs]
                ratios = [b / a for a, b in zip(ours, times, strict=True)]
                row |= spread("s", times) | spread("ratio", ratios)
                row["ratio"] = float(np.median(times) / np.median(ours))
                row["peak"] = max(one["peak"] for one in theirs)
                row["scaled"] = theirs[0]["scaled"]
            rows.append(row)
    return rows


def of(runs: Sequence[dict[str, Any]], size: int, task: str) -> list[dict[str, Any]]:
    """The rounds of one task."""
    return [one for one in runs if one["size"] == size and one["task"] == task]


def spread(name: str, numbers: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {
        name: float(np.median(numbers)),
        f"{name}_low": float(min(numbers)),
        f"{name}_high": float(max(numbers)),
    }


def machine() -> str:
    """What the figures were measured on."""
    return (
        f"{os.cpu_count()} CPU cores ({platform.machine()}), Python "
        f"{platform.python_version()}, jax {jax.__version__}, numpy {np.__version__}"
    )


def table(report: dict[str, Any]) -> str:
    """Markdown of both tables."""
    lines = [
        f"Machine: {report['machine']}. {VALUES} values, {RATERS} annotators, "
        f"{MISSING:.0%} missing. Median (range) of interleaved rounds, seconds.",
        "",
        "| ours | items | time | first call | peak memory |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in report["ours"]:
        lines.append(
            f"| {NAMES[row['task']]} | {row['size']:,} | {between(row, 's')} | "
            f"{row['first']:.1f} | {row['peak'] / 1e9:.2f} GB |"
        )
    lines += [
        "",
        f"`import fulcra_jax.scoring` after `import jax.numpy`: "
        f"{between(report['import'], 's')} s.",
        "",
        "| reference | items | its time | scaled from | its peak memory | times ours |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in report["comparisons"]:
        if "s" not in row:
            figures = "not measured: `make references` | | | "
        else:
            figures = (
                f"{between(row, 's')} | {row['scaled']} | {row['peak'] / 1e9:.2f} GB | "
                f"**{between(row, 'ratio')}**"
            )
        lines.append(f"| {NAMES[row['reference']]} | {row['size']:,} | {figures} |")
    return "\n".join(lines) + "\n"


def between(row: dict[str, Any], name: str) -> str:
    """`median (low-high)`."""
    numbers = (row[name], row[f"{name}_low"], row[f"{name}_high"])
    texts = [f"{x:,.0f}" if x >= 100 else f"{x:.3g}" for x in numbers]
    return f"{texts[0]} ({texts[1]}-{texts[2]})"


def plot(report: dict[str, Any], path: pathlib.Path) -> None:
    """Time against the number of items, ours and theirs, one panel a task."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(OURS), figsize=(15, 4), constrained_layout=True)
    for axis, task in zip(axes, OURS, strict=True):
        own = [row for row in report["ours"] if row["task"] == task]
        axis.plot([r["size"] for r in own], [r["s"] for r in own], "o-", label="ours")
        for own_task, reference, _ in COMPARISONS:
            rows = [
                row
                for row in report["comparisons"]
                if row["reference"] == reference and "s" in row
            ]
            if own_task == task and rows:
                sizes = [row["size"] for row in rows]
                label = NAMES[reference].split(":")[0]
                axis.plot(sizes, [row["s"] for row in rows], "s--", label=label)
        axis.set(xscale="log", yscale="log", xlabel="items", ylabel="seconds")
        axis.set_title(NAMES[task].split(",")[0])
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = tyro.cli(
        Arguments,
        args=argv,
        prog="python -m experiments.benchmarks.scoring",
        description=__doc__,
    )
    return exit_code(lambda: benchmark(arguments))


if __name__ == "__main__":
    sys.exit(main())
