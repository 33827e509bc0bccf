# SPDX-License-Identifier: Apache-2.0
"""Kills trainings at random moments and resumes them: is anything lost?

python -m experiments.benchmarks.kills --out runs/kills

One run of `experiments.train debug` is left alone; others are killed (SIGKILL) again
and again, half of the time at a random step, half of the time while a checkpoint is
half written, and resumed after each. In the end all should have the parameters of the
one left alone, bit for bit, and no kill should cost more steps than --save-every:
counted from the newest checkpoint that is whole to the last step that was written down.
"""

import dataclasses
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import tyro

from experiments import rundir
from experiments.exits import exit_code
from fulcra_jax.report import tables

ROOT = pathlib.Path(__file__).resolve().parents[2]
_PATIENCE = 300.0
"""Seconds in which a training should get somewhere."""


@dataclasses.dataclass
class Arguments:
    """How often what is killed."""

    out: str
    """A new folder for the runs and the table."""
    kills: int = 20
    """In all."""
    runs: int = 4
    """Runs that share the kills."""
    steps: int = 200
    """Of each run."""
    save_every: int = 10
    """Steps that a killed run should do again at most."""
    seed: int = 0
    """Of the moments."""

    def __post_init__(self) -> None:
        for field, low in (("kills", 1), ("runs", 1), ("steps", 20), ("save_every", 1)):
            if getattr(self, field) < low:
                raise ValueError(
                    f"kills: {field} is {getattr(self, field)}; it should be at least "
                    f"{low}."
                )
        if self.kills * self.save_every * 2 > self.runs * self.steps:
            raise ValueError(
                f"kills: {self.runs} runs of {self.steps} steps have no room for "
                f"{self.kills} kills {2 * self.save_every} steps apart; give more "
                "runs or steps."
            )


def start(words: Sequence[str], output: Any) -> subprocess.Popen[str]:
    """A training as a process of its own, on one device."""
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.train", *words],
        cwd=ROOT,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"},
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
    )


def words(arguments: Arguments, run: pathlib.Path) -> list[str]:
    """The command line of a new run."""
    return [
        "debug", "--run", str(run), "--steps", str(arguments.steps),
        "--save-every", str(arguments.save_every), "--log-every", "1",
    ]  # fmt: skip


def last_step(run: pathlib.Path) -> int:
    """The last step that a run has written down."""
    path = run / "metrics.jsonl"
    found = re.findall(r'"step": (\d+)', path.read_text()) if path.exists() else []
    return int(found[-1]) if found else 0


def half_written(run: pathlib.Path) -> bool:
    """Whether a checkpoint is being written."""
    return any((run / "checkpoints").glob("*orbax-checkpoint-tmp*"))


def whole(run: pathlib.Path) -> int:
    """The newest whole checkpoint."""
    steps = [int(path.name) for path in (run / "checkpoints").glob("[0-9]*")
             if path.name.isdigit()]  # fmt: skip
    return max(steps, default=0)


def kill_when(
    process: subprocess.Popen[str], run: pathlib.Path, step: int, in_save: bool
) -> dict[str, Any]:
    """Kills a training once it has come to a step, or to the next save after it."""
    deadline = time.monotonic() + _PATIENCE
    try:
        while last_step(run) < step or (in_save and not half_written(run)):
            if process.poll() is not None:
                raise ValueError(
                    f"kills: {run} ended before it was killed; see its log."
                )
            if time.monotonic() > deadline:
                raise ValueError(f"kills: {run} did not come to step {step} in time.")
            time.sleep(0.0005 if in_save and last_step(run) >= step else 0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return {"run": run.name, "at": last_step(run), "in_save": half_written(run)}


def one_run(
    arguments: Arguments, run: pathlib.Path, kills: int, draws: random.Random
) -> list[dict[str, Any]]:
    """A run killed so many times, and finished."""
    rows = []
    # Moments spread over the run, each in a part of its own.
    part = arguments.steps // (kills + 1)
    log = run.with_suffix(".log")
    command = words(arguments, run)
    for number in range(kills):
        step = part * number + draws.randint(part // 3, part)
        in_save = number % 2 == 0
        with log.open("w") as output:
            row = kill_when(start(command, output), run, step, in_save)
        command = ["--resume", str(run)]
        rows.append(row | {"whole": whole(run), "lost": row["at"] - whole(run)})
        print(f"{run.name}: killed at step {row['at']}"
              f"{' inside a save' if row['in_save'] else ''}", flush=True)  # fmt: skip
    with log.open("w") as output:
        if start(command, output).wait():
            raise ValueError(f"kills: {run} did not finish; see {log}.")
    return rows


def measure(arguments: Arguments) -> dict[str, Any]:
    """Kills, resumes, compares; prints and writes the table."""
    out = pathlib.Path(arguments.out)
    rundir.check_free(out)
    out.mkdir(parents=True, exist_ok=True)
    alone = out / "alone"
    with (out / "alone.log").open("w") as output:
        if start(words(arguments, alone), output).wait():
            raise ValueError(f"kills: the run left alone failed; see {out}/alone.log.")
    expected = (alone / "model" / "model.safetensors").read_bytes()
    draws, rows, same = random.Random(arguments.seed), [], []
    for number in range(arguments.runs):
        share = arguments.kills // arguments.runs
        share += number < arguments.kills % arguments.runs
        run = out / f"killed-{number}"
        rows += one_run(arguments, run, share, draws)
        same.append((run / "model" / "model.safetensors").read_bytes() == expected)
        print(f"{run.name}: {'the same' if same[-1] else 'OTHER'} parameters")
    lost = [row["lost"] for row in rows]
    table = (
        f"{len(rows)} kills, {sum(row['in_save'] for row in rows)} inside a save: "
        f"{sum(number <= arguments.save_every for number in lost)} cost at most "
        f"{arguments.save_every} steps, the worst {max(lost)}; "
        f"{sum(same)} of {len(same)} runs end with the same parameters",
        ["run", "at step", "inside a save", "newest whole", "steps done again"],
        [
            [
                row["run"], str(row["at"]), "yes" if row["in_save"] else "no",
                str(row["whole"]), str(row["lost"]),
            ]
            for row in rows
        ],
    )  # fmt: skip
    tables.show(table)
    (out / "kills.md").write_text(tables.markdown(table))
    report = rundir.about() | {"kills": rows, "same": same}
    (out / "kills.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"written to {out}/: kills.md, kills.json")
    return report


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = tyro.cli(
        Arguments,
        args=argv,
        prog="python -m experiments.benchmarks.kills",
        description=__doc__,
    )
    return exit_code(lambda: measure(arguments))


if __name__ == "__main__":
    sys.exit(main())
