# SPDX-License-Identifier: Apache-2.0
"""The command line of experiments.train."""

import argparse
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import tyro

from experiments import rundir
from experiments.config import Config, on_source
from experiments.heads import variants
from experiments.recipes import NEEDS_DATA, NEEDS_WEIGHTS, RECIPES
from fulcra_jax import models
from fulcra_jax.data import source
from fulcra_jax.training import hosts, sharding

TEACHER = 5.0
"""Weight of a teacher's cell with --teacher, where the recipe has none: a squared error
of a score is small beside a cross-entropy, and with 1 the labels lead."""


class Command(NamedTuple):
    """What the command line asks for."""

    config: Config
    run: pathlib.Path
    resume: bool
    profile: int


def parse(argv: Sequence[str], description: str | None) -> Command:
    """Reads the command line; joins the other processes before jax starts."""
    models.load_registered()
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--resume", metavar="RUN")
    parser.add_argument("--run", metavar="DIR")
    parser.add_argument("--data", metavar="PATH")
    parser.add_argument("--teacher", action="store_true")
    parser.add_argument("--variant", metavar="NAME+NAME")
    parser.add_argument("--profile", metavar="N", default="0")
    parser.add_argument("--hosts", default="detect")
    parser.add_argument("--coordinator", metavar="ADDRESS:PORT", default="")
    parser.add_argument("--num-hosts", metavar="N", default="0")
    parser.add_argument("--host-index", metavar="I", default="-1")
    ours, rest = parser.parse_known_args(list(argv))
    profile = _whole("--profile", ours.profile)
    if profile < 0:
        raise ValueError(
            f"train: --profile is {profile}; it should be a number of steps."
        )
    group = hosts.Hosts(
        ours.hosts, ours.coordinator,
        _whole("--num-hosts", ours.num_hosts), _whole("--host-index", ours.host_index),
    )  # fmt: skip
    if ours.resume:
        path = pathlib.Path(ours.resume)
        names = [word for word in rest if word.startswith("--")]
        wrong = [word for word in names if not word.startswith("--mesh.")]
        wrong += rest[:1] if rest and not names else []
        if wrong or ours.run or ours.data or ours.teacher or ours.variant:
            raise ValueError(
                "train: --resume takes no other argument but --mesh.AXIS N; the "
                "configuration is the run's."
            )
        config = rundir.reopen(path)
        if rest:
            mesh = tyro.cli(
                sharding.MeshShape, default=config.mesh,
                prog="python -m experiments.train",
                args=[word.replace("--mesh.", "--", 1) for word in rest],
            )  # fmt: skip
            config = dataclasses.replace(config, mesh=mesh)
        hosts.join(group)
        return Command(config, path, True, profile)
    recipes = RECIPES
    if ours.variant:
        named = [word for word in rest if word in RECIPES][:1]
        recipes = RECIPES | {
            name: (RECIPES[name][0], variants.apply(RECIPES[name][1], ours.variant))
            for name in named
        }
    if ours.data is not None:
        # Of the recipe that is meant alone: another may have no head for these rows.
        recipes = {
            name: (
                text,
                _on_rows(config, ours.data, ours.teacher) if name in rest else config,
            )
            for name, (text, config) in recipes.items()
        }
    elif ours.teacher:
        raise ValueError(
            "train: --teacher needs the folder of a teacher's scores: give --data PATH."
        )
    if {"-h", "--help"} & set(rest) and set(rest) & set(RECIPES):
        print(description)  # the help of a recipe has its fields only
    config = tyro.extras.overridable_config_cli(
        recipes,
        args=rest,
        prog="python -m experiments.train",
        description=description,
        config=(tyro.conf.AvoidSubcommands,),
    )
    recipe = next(word for word in rest if word in RECIPES)
    if recipe in NEEDS_DATA and ours.data is None:
        raise ValueError(f"train: the recipe {recipe} needs rows: give --data PATH.")
    if recipe in NEEDS_WEIGHTS and not config.pretrained:
        raise ValueError(
            f"train: the recipe {recipe} needs weights: give --pretrained DIR, a "
            "Hugging Face directory of a DeBERTa or BERT encoder."
        )
    hosts.join(group)
    name = f"{recipe}+{ours.variant}" if ours.variant else recipe
    run = hosts.from_lead(ours.run or str(rundir.default_run(name)))
    return Command(config, pathlib.Path(run), False, profile)


def _on_rows(config: Config, path: str, teacher: bool) -> Config:
    """The recipe on the rows of a path, with its teacher's scores where asked."""
    rows = source.of_path(path)
    if not teacher:
        return on_source(config, rows)
    if not isinstance(rows, source.Folder):
        raise ValueError(
            f"train: {path} holds ValueEval'23, which has no teacher's scores; leave "
            "--teacher out, or give a folder of FULCRA's files."
        )
    config = on_source(config, dataclasses.replace(rows, teacher=True))
    if config.loss.teacher:
        return config
    loss = dataclasses.replace(config.loss, teacher=TEACHER)
    return dataclasses.replace(config, loss=loss)


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(
            f"train: {name} is {text!r}; it should be an integer."
        ) from None
