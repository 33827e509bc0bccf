# SPDX-License-Identifier: Apache-2.0
"""The same encoder, fine-tuned in plain PyTorch with one linear head.

python -m experiments.benchmarks.torch_linear --data FOLDER --encoder DIR

What somebody would write first: transformers' encoder, the mean of the tokens, dropout,
one linear layer of 10 x 3 logits, cross-entropy with square-root class weights, AdamW
at 1e-4 with 50 steps of warm-up and a linear fall, 192 tokens, prompt and response as
two segments with the prompt cut first, 6 epochs of 16 rows of similar length. Its cells
go into the table of experiments.compare_heads under the name torch-linear; finished
ones are not trained again. Needs torch (make parity installs it).
"""

import dataclasses
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Literal

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

    max_length: int = 192
    epochs: int = 6
    batch_size: int = 16
    peak_lr: float = 1e-4
    warmup_steps: int = 50
    weight_decay: float = 0.01
    dropout: float = 0.1


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


def measure(arguments: Arguments) -> None:
    """Trains the cells that are missing."""
    # Imported here: everything else in this file works without torch.
    from experiments.benchmarks import torch_linear_reference as reference

    cells = Cells(arguments.cells or DEFAULT)
    finished = cells.read()
    names = ["dev"] if arguments.only != "folds" else []
    names += [f"fold{n}" for n in range(5)] if arguments.only != "dev" else []
    setting = running.Setting(
        RECIPES["small"][1], arguments.data, arguments.encoder, pathlib.Path("runs")
    )
    for seed in arguments.seeds:
        for split in names:
            key = Key(NAME, split, seed)
            config = running.config_of(
                setting, dataclasses.replace(key, recipe="shared")
            )
            told = settings_of(arguments, config)
            if key in finished:
                if finished[key].settings != told:
                    raise ValueError(
                        f"torch_linear: {key} in {cells.folder} has the settings "
                        f"{finished[key].settings}, these are {told}; remove its row "
                        "or give another folder with --cells."
                    )
                continue
            print(f"--- {key}", flush=True)
            rows = prepare.read_corpus(config).rows
            train = [row for row in rows["train"] if row.where.any()]
            held = [row for row in rows["dev"] if row.where.any()]
            begun = time.monotonic()
            found = reference.fit(
                arguments.encoder, train, held, arguments.settings, seed,
                arguments.threads,
            )  # fmt: skip
            labels, where = source.label_arrays(held)
            figures = evaluation.quick_figures(
                found.probs.argmax(-1) - 1, labels, where
            )
            cell = Cell(
                NAME, split, seed, told, len(held),
                **{name: round(number, 4) for name, number in figures.items()},
                steps=found.steps, seconds=round(time.monotonic() - begun, 1),
                gflops=round(found.gflops, 4), passes=1, parameters=found.parameters,
                device=f"cpu, {found.threads} threads, torch {found.version}",
                commit=str(running.commit()),
            )  # fmt: skip
            cells.add(cell, row_keys(held), found.probs)
            print(f"--- {key}: {figures}, {cell.seconds} s", flush=True)


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
