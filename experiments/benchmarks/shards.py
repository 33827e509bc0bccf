# SPDX-License-Identifier: Apache-2.0
"""What each device holds of a training state, by recipe and mesh.

python -m experiments.benchmarks.shards

python -m experiments.benchmarks.shards --recipes large --devices 16

Counts bytes of parameters, moments and average by shapes and shardings: nothing is
allocated, so that it needs neither the memory nor the devices; those it asks the CPU to
fake.
"""

import dataclasses
import sys
from collections.abc import Sequence

import jax
import tyro

from experiments import prepare
from experiments.exits import exit_code
from experiments.recipes import RECIPES
from fulcra_jax import models
from fulcra_jax.report import tables
from fulcra_jax.training import optimizer, sharding
from fulcra_jax.training.sharding import MeshShape


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What is counted."""

    recipes: tuple[str, ...] = ("base", "large", "paper")
    """Whose state."""
    devices: int = 8
    """Most devices."""

    def __post_init__(self) -> None:
        for recipe in self.recipes:
            if recipe not in RECIPES:
                raise ValueError(
                    f"benchmarks.shards: recipe {recipe!r} is unknown; it should be "
                    f"one of: {', '.join(RECIPES)}."
                )
        if not 1 <= self.devices <= 1024:
            raise ValueError(
                f"benchmarks.shards: devices is {self.devices}; it should be in [1, "
                "1024]."
            )


def meshes(devices: int) -> list[MeshShape]:
    """Powers of two of fsdp, and one mesh with a tensor axis."""
    shapes, fsdp = [], 1
    while fsdp <= devices:
        shapes.append(MeshShape(data=1, fsdp=fsdp))
        fsdp *= 2
    if devices >= 4:
        shapes.append(MeshShape(data=1, fsdp=shapes[-1].fsdp // 2, tensor=2))
    return shapes


def count(arguments: Arguments) -> list[list[str]]:
    """Prints the table; returns its rows."""
    rows = []
    for name in arguments.recipes:
        config = RECIPES[name][1]
        init = prepare.make_init(
            config,
            models.Evaluator(config.evaluator),
            optimizer.make_optimizer(config.optimizer, 10**6),
        )
        shapes, whole = jax.eval_shape(init), 0
        for shape in meshes(arguments.devices):
            places = sharding.shardings(
                shapes, sharding.STATE, sharding.make_mesh(shape)
            )
            each = sharding.bytes_per_device(shapes, places)
            whole = whole or each
            rows.append(
                [
                    name, str(shape.fsdp), str(shape.tensor),
                    f"{each / 2**20:,.1f}", f"1/{whole / each:.2f}",
                ]
            )  # fmt: skip
    table = ("state", ["recipe", "fsdp", "tensor", "MiB a device", "of one"], rows)
    tables.show(table)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = tyro.cli(
        Arguments,
        args=argv,
        prog="python -m experiments.benchmarks.shards",
        description=__doc__,
    )
    if __name__ == "__main__":  # before jax asks for the first device
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", arguments.devices)
    return exit_code(lambda: count(arguments))


if __name__ == "__main__":
    sys.exit(main())
