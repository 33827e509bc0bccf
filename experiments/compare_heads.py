# SPDX-License-Identifier: Apache-2.0
"""Compares value heads on the same encoder and rows, with intervals and costs.

python -m experiments.compare_heads screen --data FOLDER --encoder DIR

    trains each recipe once on train, short (96 tokens), judges it on dev.

python -m experiments.compare_heads final --data FOLDER --encoder DIR --recipes A B+C

    trains each recipe with three seeds on train, judged on dev, and on five folds of
    train + dev that share no near-duplicate prompts. "prompted" takes one seed.

python -m experiments.compare_heads zero-shot --data FOLDER --encoder DIR

    leaves one value's labels out of the training and scores it from its definition.

python -m experiments.compare_heads report --data FOLDER

    makes all tables again from what is finished, without training. With --encoder DIR
    cells of other rows, another encoder or another configuration are named and left
    out; without, only the rows are compared.

Each recipe stands in the tables also with a bag of words beside it (the mean of its
log-probabilities and those of TF-IDF + LR), and on folds with classes decided by
temperatures and biases that the other folds' held-out rows were fitted to.

--size debug: each stage on the embedded corpus with a tiny encoder in two minutes.
OUT holds a table as Markdown, CSV and picture for each part, and all in report.md.

To compare encoders give each a name: with --encoder DIR --encoder-name mine the recipes
are called shared@mine, and stand in the same tables as those of other encoders.

A recipe is variants joined by "+", as query+ordinal; --list names them. A finished cell
is a row of CELLS/cells.csv with its predictions beside it, and is not trained again,
also on another machine that has that folder; a killed one resumes from its checkpoint.
With a small encoder on two CPU cores a cell takes four to ten minutes, so `screen`
takes two to three hours; `final` says first how many cells it has, of which those of
"prompted" take ten times as long.
Two processes may work on the same folder with different --recipes.

A head of your own: a module on the path that calls fulcra_jax.models.register_head and
experiments.heads.variants.register, named in the environment variable FULCRA_HEADS:
FULCRA_HEADS=my_file PYTHONPATH=. python -m experiments.compare_heads screen --recipes
shared mine. README.md ("Compare value heads") has such a file.
"""

import dataclasses
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

import jax
import numpy as np
import tyro

from experiments.exits import exit_code
from experiments.heads import running, tables, variants, zero_shot
from experiments.heads.cells import DEFAULT, Cell, Cells, Key
from experiments.recipes import RECIPES
from fulcra_jax import models
from fulcra_jax.data import sample, teacher

Stage = Literal["screen", "final", "zero-shot", "report", ""]
FINAL = ("shared", "query", "tokens", "film", "prompted-packed", "prompted")
ONE_SEED = ("prompted",)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What is compared on which rows."""

    stage: Annotated[Stage, tyro.conf.Positional] = ""
    """screen, final, zero-shot or report; --list needs none."""
    data: str = ""
    """A folder in FULCRA's format; empty takes the embedded corpus (--size debug)."""
    encoder: str = ""
    """A Hugging Face directory of the encoder that all heads share."""
    encoder_name: str = ""
    """Its name in cells and tables, to keep several encoders apart; empty is none."""
    recipes: tuple[str, ...] = ()
    """Variants joined by "+"; empty takes the stage's own list."""
    seeds: int = 3
    """Of the final stage."""
    folds: int = 5
    """Of the final stage, the first of five; 0 judges on dev only."""
    only: Literal["", "dev", "folds"] = ""
    """Part of the final stage to run."""
    values: tuple[str, ...] = ()
    """Of the stage zero-shot, those left out; empty takes the six common ones."""
    baseline: str = "shared"
    """The recipe that others are compared with."""
    out: str = ""
    """Folder of the runs, while they are trained, and of the tables; empty is
    runs/heads, or runs/heads-debug of --size debug."""
    cells: str = ""
    """Folder of the finished cells, those of screening in its folder screen; empty is
    experiments/figures/heads, or OUT/cells of --size debug."""
    size: Literal["full", "debug"] = "full"
    """debug: a tiny encoder from random weights, two recipes, two folds, one seed."""
    list: bool = False
    """Name the variants and stop."""

    def __post_init__(self) -> None:
        if not self.out:
            debug = self.size == "debug"
            object.__setattr__(self, "out", f"runs/heads{'-debug' if debug else ''}")
        if not self.stage and not self.list:
            raise ValueError(
                "compare_heads: give a stage: screen, final, zero-shot or report; "
                "--help says what they do."
            )
        for field, low, high in (("seeds", 1, 100), ("folds", 0, 5)):
            if not low <= getattr(self, field) <= high:
                raise ValueError(
                    f"compare_heads: {field} is {getattr(self, field)}; it should be "
                    f"in [{low}, {high}]."
                )
        if self.folds == 1:
            raise ValueError("compare_heads: folds is 1; it should be 0, or 2 or more.")
        if len(set(self.recipes)) != len(self.recipes):
            raise ValueError("compare_heads: a recipe stands twice in --recipes.")
        if not re.fullmatch(r"[\w.-]*", self.encoder_name):
            raise ValueError(
                f"compare_heads: encoder_name is {self.encoder_name!r}; it should have "
                "letters, digits, '.', '-' and '_' only."
            )
        for recipe in self.recipes:
            if "@" in recipe:
                raise ValueError(
                    f"compare_heads: the recipe {recipe!r} names an encoder; give "
                    f"--recipes {recipe.partition('@')[0]} --encoder-name "
                    f"{recipe.partition('@')[2] or 'NAME'}."
                )


def compare(arguments: Arguments) -> None:
    """Runs what is missing of a stage, then writes its tables."""
    models.load_registered()
    if arguments.list:
        print(variants.listed(RECIPES["small"][1]))
        return
    setting, cells = setting_of(arguments), Cells(cells_folder(arguments))
    if arguments.stage == "zero-shot":
        debug = arguments.size == "debug"
        wanted = zero_shot.keys(
            arguments.recipes or zero_shot.RECIPES[: 1 if debug else None],
            setting,
            arguments.values or zero_shot.COMMON[: 2 if debug else None],
        )
    else:
        wanted = keys_of(arguments)
    for recipe in {key.variants for key in wanted} - set(running.FLOORS):
        variants.apply(setting.base, recipe)  # a wrong name is told before hours
    if arguments.encoder_name:
        wanted = [_named(key, arguments.encoder_name) for key in wanted]
    others = {key.recipe for key in (*wanted, *cells.read())}
    if arguments.baseline not in ("shared", *others):
        raise ValueError(
            f"compare_heads: there is no cell of the baseline {arguments.baseline!r}; "
            f"there are: {', '.join(sorted(others))}."
        )
    if arguments.stage != "report":
        run_missing(setting, cells, wanted)
    write(arguments, setting, cells, wanted)


def setting_of(arguments: Arguments) -> running.Setting:
    """The base recipe, rows and encoder; refuses what cannot work."""
    base = RECIPES["debug" if arguments.size == "debug" else "small"][1]
    data = arguments.data
    if arguments.size == "debug":
        base = dataclasses.replace(base, steps=20)
        data = data or _embedded(pathlib.Path(arguments.out) / "embedded")
    elif not arguments.data:
        raise ValueError("compare_heads: give rows with --data FOLDER.")
    elif not arguments.encoder and arguments.stage != "report":
        raise ValueError(
            "compare_heads: give the encoder that all heads share with --encoder DIR, "
            "a Hugging Face directory."
        )
    setting = running.Setting(
        base, data, arguments.encoder, pathlib.Path(arguments.out),
        arguments.encoder_name,
    )  # fmt: skip
    return _screened(arguments, setting) if arguments.stage == "screen" else setting


def _screened(arguments: Arguments, setting: running.Setting) -> running.Setting:
    """The setting of the screening."""
    if arguments.size == "debug":
        return setting
    return setting._replace(base=variants.apply(setting.base, "short"))


def _embedded(folder: pathlib.Path) -> str:
    """The embedded corpus as files, so that there are folds of it."""
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.{os.getpid()}")
        sample.write_sample(partial, 0, 200, 60, 60)
        try:
            partial.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(partial)
            if not folder.is_dir():
                raise
    return str(folder)


def cells_folder(arguments: Arguments) -> pathlib.Path:
    """Where finished cells lie; screening has a folder of its own."""
    folder = DEFAULT
    if arguments.size == "debug":
        folder = pathlib.Path(arguments.out) / "cells"
    if arguments.cells:
        folder = pathlib.Path(arguments.cells)
    return folder / "screen" if arguments.stage == "screen" else folder


def keys_of(arguments: Arguments) -> list[Key]:
    """The cells of a stage, cheap and telling ones first."""
    debug = arguments.size == "debug"
    if arguments.stage == "screen":
        recipes = arguments.recipes or (
            ("shared", "query") if debug else _screened_on(arguments.data)
        )
        return [Key(recipe, "dev", 0) for recipe in (*running.FLOORS, *recipes)]
    recipes = arguments.recipes or (("shared", "query") if debug else FINAL)
    seeds = range(1 if debug else arguments.seeds)
    folds = min(arguments.folds, 2) if debug else arguments.folds
    wanted: list[Key] = []
    names = ["dev"] if arguments.only != "folds" else []
    names += [f"fold{fold}" for fold in range(folds)] if arguments.only != "dev" else []
    wanted += [Key(name, split, 0) for name in running.FLOORS for split in names]
    for seed in seeds:
        for recipe in recipes:
            if seed and recipe.split("+")[0] in ONE_SEED:
                continue
            wanted += [Key(recipe, split, seed) for split in names]
    return wanted


def _screened_on(data: str) -> list[str]:
    """What the screening tries, as far as a folder has what it reads."""
    if teacher.teacher_files(data):
        return [*variants.SCREENED]
    base = RECIPES["small"][1]
    taught = [x for x in variants.SCREENED if variants.apply(base, x).loss.teacher]
    print(
        f"data: {data} has no official_scores.NAME.train.jsonl; left out: "
        f"{', '.join(taught)}"
    )
    return [name for name in variants.SCREENED if name not in taught]


def _named(key: Key, encoder: str) -> Key:
    """The same cell of a named encoder; floors read none."""
    if key.recipe in running.FLOORS:
        return key
    return dataclasses.replace(key, recipe=f"{key.variants}@{encoder}")


def run_missing(setting: running.Setting, cells: Cells, wanted: Sequence[Key]) -> None:
    """Trains what is not finished, one cell after the other."""
    finished = cells.read()
    settings = {key: running.settings_of_key(setting, key) for key in wanted}
    stale = [k for k in wanted if k in finished and finished[k].settings != settings[k]]
    if stale:
        raise ValueError(
            f"compare_heads: {len(stale)} cells in {cells.folder} are of other rows, "
            f"another encoder or another configuration, the first is {stale[0]} "
            f"({finished[stale[0]].settings}, now {settings[stale[0]]}); remove their "
            "rows, or give another folder with --cells."
        )
    missing = [key for key in wanted if key not in finished]
    print(
        f"{len(wanted) - len(missing)} of {len(wanted)} cells are finished", flush=True
    )
    _keep_programs(setting.out / "programs")
    if missing:
        print(_time_left(finished.values(), missing), flush=True)
    for number, key in enumerate(missing, 1):
        if key in cells.read():  # another process was faster
            continue
        print(f"--- cell {number} of {len(missing)}: {key}", flush=True)
        cell = running.run_cell(setting, key, cells)
        print(
            f"--- {key}: macro-F1 {cell.macro_f1:.3f}, F1 -1 {cell.f1_opposed:.3f}, "
            f"{cell.seconds:.0f} s; "
            + _time_left(cells.read().values(), missing[number:]),
            flush=True,
        )


def _time_left(finished: Iterable[Cell], missing: Sequence[Key]) -> str:
    """How long the missing cells take if each takes as its recipe's finished ones did,
    or, of a recipe without one, as the others at as many encoder passes."""
    trained = [cell for cell in finished if cell.recipe not in running.FLOORS]
    waiting = [key for key in missing if key.recipe not in running.FLOORS]
    if waiting and not trained:
        return f"{len(waiting)} cells to train; the first tells how long one takes"
    usual = [cell.seconds for cell in trained if cell.passes == 1]
    left = 0.0
    for key in waiting:
        same = [cell.seconds for cell in trained if cell.recipe == key.recipe]
        many = 10.0 if not same and key.variants.split("+")[0] in ONE_SEED else 1.0
        left += many * float(np.median(same or usual or [c.seconds for c in trained]))
    amount = f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s"
    return f"{len(waiting)} cells to train, about {amount} in all"


def _keep_programs(folder: pathlib.Path) -> None:
    """Compiled programs on disk: seeds and folds of a recipe share them."""
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def write(
    arguments: Arguments,
    setting: running.Setting,
    cells: Cells,
    wanted: Sequence[Key],
) -> None:
    """Tables and pictures of what is finished; all of it in the stage report."""
    stage = arguments.stage
    known = bool(arguments.encoder) or arguments.size == "debug"
    texts: list[str] = []
    if stage == "report":
        tables.clear(setting.out)
        shorter = dataclasses.replace(arguments, stage="screen")
        texts += tables.write(
            _screened(arguments, setting), Cells(cells_folder(shorter)), [],
            title="screening", baseline=arguments.baseline, encoder_known=known,
        )  # fmt: skip
    if stage != "zero-shot":
        texts += tables.write(
            setting, cells, wanted,
            title="screening" if stage == "screen" else "heads",
            baseline=arguments.baseline, encoder_known=known,
        )  # fmt: skip
    if stage == "report":
        wanted = _left_out(cells.read())
    if stage == "zero-shot" or (stage == "report" and wanted):
        texts.append(zero_shot.write(setting, cells, wanted, encoder_known=known))
    if not texts:
        print(f"nothing is finished in {cells.folder}/")
        return
    print("\n".join(texts))
    tables.join(setting.out)
    print(f"written to {setting.out}/")


def _left_out(finished: Iterable[Key]) -> list[Key]:
    """The finished cells of the stage zero-shot, and those they are compared with."""
    found = [key for key in finished if key.split.startswith("zero-shot:")]
    return [
        *(Key(r, "dev", 0) for r in dict.fromkeys(key.recipe for key in found)),
        *found,
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""

    def work() -> None:
        arguments = tyro.cli(
            Arguments, args=argv, prog="python -m experiments.compare_heads",
            description=__doc__,
        )  # fmt: skip
        compare(arguments)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
