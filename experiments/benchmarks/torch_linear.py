# SPDX-License-Identifier: Apache-2.0
"""The same encoder, fine-tuned in plain PyTorch with one linear head.

python -m experiments.benchmarks.torch_linear --data FOLDER --encoder DIR

What somebody would write first: transformers' encoder, the mean of the tokens, dropout,
one linear layer of 10 x 3 logits, cross-entropy with square-root class weights, AdamW
at 1e-4 with 50 steps of warm-up and a linear fall, 128 tokens, prompt and response as
two segments with the prompt cut first, 4 epochs of 16 rows of similar length. Its cells
go into the table of experiments.compare_heads under the name torch-linear, dev first,
then the folds, seed after seed; finished ones are not trained again. Needs torch (make
parity installs it).
"""

import dataclasses
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Literal

import numpy as np
import tyro

from experiments import prepare
from experiments.exits import exit_code
from experiments.heads import running
from experiments.heads.cells import DEFAULT, Cell, Cells, Key, row_keys
from experiments.recipes import RECIPES
from fulcra_jax.data import source
from fulcra_jax.report import evaluation

NAME = "torch-linear"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What decides the reference's numbers."""

    max_length: int = 128
    epochs: int = 4
    batch_size: int = 16
    peak_lr: float = 1e-4
    warmup_steps: int = 50
    weight_decay: float = 0.01
    dropout: float = 0.1
    pool: Literal["mean", "first"] = "mean"
    """What the linear layer reads: the mean of the tokens, or the first one."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Which cells are trained on what."""

    data: str
    """A folder in FULCRA's format."""
    encoder: str
    """A Hugging Face directory."""
    only: Literal["", "dev", "folds"] = ""
    """dev, or the five folds; empty is both."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds, one after the other."""
    cells: str = ""
    """Folder of finished cells; empty is experiments/figures/heads."""
    threads: int = 0
    """Of torch; 0 leaves it to torch."""
    settings: Settings = Settings()

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise ValueError(
                f"torch_linear: threads is {self.threads}; it should be 0 or more."
            )
        if len(set(self.seeds)) != len(self.seeds) or min(self.seeds, default=-1) < 0:
            raise ValueError(
                f"torch_linear: seeds is {self.seeds}; it should hold different "
                "numbers from 0 on."
            )


def measure(arguments: Arguments) -> None:
    """Trains the cells that are missing."""
    # Imported here: everything else in this file works without torch.
    from experiments.benchmarks import torch_linear_reference as reference

    cells = Cells(arguments.cells or DEFAULT)
    missing = missing_of(arguments, cells)
    for number, (key, config, told) in enumerate(missing, 1):
        print(f"--- cell {number} of {len(missing)}: {key}", flush=True)
        rows = prepare.read_corpus(config).rows
        train = [row for row in rows["train"] if row.where.any()]
        held = [row for row in rows["dev"] if row.where.any()]
        begun = time.monotonic()
        found = reference.fit(
            arguments.encoder, train, held, arguments.settings, key.seed,
            arguments.threads,
        )  # fmt: skip
        probs = found.probs.astype(np.float16).astype(np.float32)  # as they are kept
        labels, where = source.label_arrays(held)
        figures = evaluation.quick_figures(probs.argmax(-1) - 1, labels, where)
        cell = Cell(
            NAME, key.split, key.seed, told, len(held),
            **{name: round(number, 4) for name, number in figures.items()},
            steps=found.steps, seconds=round(time.monotonic() - begun, 1),
            gflops=round(found.gflops, 4), passes=1, parameters=found.parameters,
            device=f"cpu, {found.threads} threads, torch {found.version}",
            commit=str(running.commit()),
        )  # fmt: skip
        cells.add(cell, row_keys(held), probs)
        print(
            f"--- {key}: macro-F1 {cell.macro_f1:.3f}, F1 -1 {cell.f1_opposed:.3f}, "
            f"{cell.seconds:.0f} s; about "
            f"{(len(missing) - number) * cell.seconds / 60:.0f} minutes left",
            flush=True,
        )


def keys_of(arguments: Arguments) -> list[Key]:
    """The cells that are asked for: dev first, then the folds, seed after seed."""
    dev = [Key(NAME, "dev", seed) for seed in arguments.seeds]
    folds = [Key(NAME, f"fold{n}", s) for s in arguments.seeds for n in range(5)]
    return [
        *(dev if arguments.only != "folds" else []),
        *(folds if arguments.only != "dev" else []),
    ]


def missing_of(
    arguments: Arguments, cells: Cells
) -> list[tuple[Key, running.Config, str]]:
    """The cells that are not finished, with configuration and digest of settings.

    Raises:
      ValueError: if a finished one has other settings.
    """
    setting = running.Setting(
        RECIPES["small"][1], arguments.data, arguments.encoder, pathlib.Path("runs")
    )
    finished = cells.read()
    missing = []
    for key in keys_of(arguments):
        # The rows and how their labels are read; nothing else of it is used.
        config = running.config_of(setting, dataclasses.replace(key, recipe="shared"))
        told = settings_of(arguments, config)
        if key not in finished:
            missing.append((key, config, told))
        elif finished[key].settings != told:
            raise ValueError(
                f"torch_linear: {key} in {cells.folder} has the settings "
                f"{finished[key].settings}, these are {told}; remove its row or give "
                "another folder with --cells."
            )
    return missing


def settings_of(arguments: Arguments, config: running.Config) -> str:
    """Digest of the settings, the rows and the encoder."""
    told = repr(arguments.settings) + running.encoder_id(arguments.encoder)
    return running.digest(config, told)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""

    def work() -> None:
        arguments = tyro.cli(
            Arguments, args=argv, prog="python -m experiments.benchmarks.torch_linear",
            description=__doc__,
        )  # fmt: skip
        measure(arguments)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
