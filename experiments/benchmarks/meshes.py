# SPDX-License-Identifier: Apache-2.0
"""The same training on several meshes and several processes: do they agree?

python -m experiments.benchmarks.meshes --out runs/meshes

Runs `experiments.train debug` on devices faked on the CPU, in every layout below, with
the same rows and seed, and compares loss by step and final parameters with the run on
one device. Dropout is off in the first table and on in the second: masks that differed
would show in the loss of every step. A layout of several processes is as many real
processes on this machine, joined by `jax.distributed`.
"""

import dataclasses
import json
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import tyro
from safetensors.numpy import load_file

from experiments import rundir
from experiments.exits import exit_code
from experiments.recipes import RECIPES
from fulcra_jax.report import tables

ROOT = pathlib.Path(__file__).resolve().parents[2]
RATES = (
    "--evaluator.encoder.hidden-dropout-prob",
    "--evaluator.encoder.attention-probs-dropout-prob",
    "--evaluator.head.dropout",
)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Processes, their devices, and the axes of the mesh over all of them."""

    processes: int
    devices: int
    data: int
    fsdp: int = 1
    tensor: int = 1

    @property
    def name(self) -> str:
        """For a table."""
        hosts = f"{self.processes} x {self.devices}"
        return f"{hosts} devices: {self.data}, {self.fsdp}, {self.tensor}"


ONE = Layout(1, 1, 1)
LAYOUTS = (
    Layout(1, 8, 8),
    Layout(1, 8, 1, fsdp=8),
    Layout(1, 8, 2, fsdp=2, tensor=2),
    Layout(2, 4, 8),
    Layout(2, 4, 2, fsdp=4),
    Layout(4, 2, 2, fsdp=2, tensor=2),
)


@dataclasses.dataclass
class Arguments:
    """What is compared."""

    out: str
    """A new folder for the runs and the table."""
    steps: int = 50
    """Of each run."""
    peak_lr: float = 1e-4
    """Learning rate."""

    def __post_init__(self) -> None:
        warmup = RECIPES["debug"][1].optimizer.warmup_steps
        if self.steps <= warmup:
            raise ValueError(
                f"meshes: steps is {self.steps}; it should be more than the {warmup} "
                "in which the learning rate rises."
            )
        if not 0.0 < self.peak_lr <= 10.0:
            raise ValueError(
                f"meshes: peak_lr is {self.peak_lr}; it should be in (0, 10]."
            )


def words(arguments: Arguments, run: pathlib.Path, rate: float) -> list[str]:
    """The command line of a run, without its mesh."""
    return [
        "debug", "--run", str(run), "--steps", str(arguments.steps),
        "--optimizer.peak-lr", str(arguments.peak_lr), "--log-every", "1",
        "--save-every", str(arguments.steps),
        *(word for name in RATES for word in (name, str(rate))),
    ]  # fmt: skip


def start(
    arguments: Sequence[str], layout: Layout, last: Sequence[str] = ()
) -> list[subprocess.Popen[str]]:
    """The processes of `experiments.train` in a layout.

    Args:
      arguments: words for all of them.
      layout: processes and mesh.
      last: more words for the last one only: a mistake.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    mesh = [
        f"--mesh.{axis}={getattr(layout, axis)}" for axis in ("data", "fsdp", "tensor")
    ]
    processes = []
    for index in range(layout.processes):
        hosts = ["--hosts", "one"]
        if layout.processes > 1:
            hosts = [
                "--coordinator", f"localhost:{port}", "--host-index", str(index),
                "--num-hosts", str(layout.processes),
            ]  # fmt: skip
        more = last if index == layout.processes - 1 else ()
        words = [*arguments, *mesh, *hosts, *more]
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "experiments.train", *words],
                cwd=ROOT,
                env=os.environ | {"JAX_NUM_CPU_DEVICES": str(layout.devices)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return processes


def finish(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Waits for all.

    Raises:
      ValueError: if one failed; it ends with what that one said.
    """
    said = [process.communicate() for process in processes]
    for process, (_, error) in zip(processes, said, strict=True):
        if process.returncode:
            raise ValueError(f"meshes: a training failed: {error[-2000:]}")


def outcome(run: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Loss by step, and all final parameters in one vector."""
    text = (run / "metrics.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    losses = [line["loss"] for line in lines if line["split"] == "train"]
    leaves = load_file(run / "model" / "model.safetensors")
    flat = np.concatenate([leaves[name].ravel() for name in sorted(leaves)])
    return np.array(losses), flat.astype(np.float64)


def difference(
    one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]
) -> tuple[float, float]:
    """Largest relative difference of a loss; L2 of that of the tree over its norm."""
    if one[0].shape != other[0].shape:
        raise ValueError(
            f"meshes: one run has {len(one[0])} steps, the other {len(other[0])}."
        )
    loss = float(np.max(np.abs(one[0] - other[0]) / np.abs(one[0])))
    return loss, float(np.linalg.norm(one[1] - other[1]) / np.linalg.norm(one[1]))


def compare(arguments: Arguments) -> list[dict[str, object]]:
    """Trains in every layout and prints the table."""
    out = pathlib.Path(arguments.out)
    rundir.check_free(out)
    out.mkdir(parents=True, exist_ok=True)
    found, ones = [], []
    for rate in (0.0, 0.1):
        results = {}
        for layout in (ONE, *LAYOUTS):
            run = out / f"{layout.name}-dropout{rate}".translate({32: "_", 58: None})
            finish(start(words(arguments, run, rate), layout))
            results[layout] = outcome(run)
            loss, tree = difference(results[ONE], results[layout])
            print(f"dropout {rate}, {layout.name}: {loss:.1e}, {tree:.1e}", flush=True)
            found.append(
                {"dropout": rate, "layout": layout.name, "loss": loss, "tree": tree}
            )
        ones.append(results[ONE])
    scale = difference(*ones)
    print(f"for scale, dropout against none: {scale[0]:.1e}, {scale[1]:.1e}")
    rows = [
        [str(row["dropout"]), row["layout"], f"{row['loss']:.1e}", f"{row['tree']:.1e}"]
        for row in found
    ]
    head = ["dropout", "processes x devices: data, fsdp, tensor", "loss", "parameters"]
    table = (f"{arguments.steps} steps, relative to one device", head, rows)
    (out / "meshes.md").write_text(tables.markdown(table))
    rundir.write_json(
        out / "meshes.json", rundir.about() | {"rows": found, "scale": scale}
    )
    print(f"written to {out}/: meshes.md, meshes.json")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = tyro.cli(
        Arguments,
        args=argv,
        prog="python -m experiments.benchmarks.meshes",
        description=__doc__,
    )
    return exit_code(lambda: compare(arguments))


if __name__ == "__main__":
    sys.exit(main())
