# SPDX-License-Identifier: Apache-2.0
"""Writes the evaluator of a run, finished or not, as a Hugging Face directory.

python -m experiments.export RUN --out DIR                  of the newest checkpoint

python -m experiments.export RUN --out DIR --step 200       of one that was kept

A finished run has its last evaluator in RUN/model already. One process on one device is
enough for the checkpoint of any mesh.
"""

import dataclasses
import pathlib
import shutil
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import tyro

from experiments import adapters, prepare, rundir
from experiments.config import Config
from experiments.exits import exit_code
from fulcra_jax import convert, models
from fulcra_jax.data.tokenizer import PairTokenizer
from fulcra_jax.training import checkpoint, hosts, optimizer, sharding, step


@dataclasses.dataclass
class Arguments:
    """What is written where."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Directory of a run of experiments.train."""
    out: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """A new directory."""
    step: int = -1
    """Step of a checkpoint; -1 takes the newest that can be read."""

    def __post_init__(self) -> None:
        if self.step < -1:
            raise ValueError(
                f"export: step is {self.step}; it should be that of a checkpoint, or "
                "-1 for the newest."
            )


def export_step(arguments: Arguments) -> int:
    """Writes the evaluator of a checkpoint; returns its step."""
    run, out = pathlib.Path(arguments.run), pathlib.Path(arguments.out)
    config = rundir.reopen(run)
    rundir.check_config(run)
    rundir.check_free(out)
    rundir.check_free(_partial(out))
    tokenizer = PairTokenizer.load(run / "tokenizer")
    # The number of steps has no place in the state.
    transformation = optimizer.make_optimizer(adapters.optimizer_of(config), 10**9)
    init = prepare.make_init(config, models.Evaluator(config.evaluator), transformation)
    shapes = jax.eval_shape(init)
    places = sharding.shardings(shapes, sharding.STATE, sharding.make_mesh(1))
    with checkpoint.Checkpoints(
        run / "checkpoints", keep=config.keep, best=config.keep_best, read_only=True
    ) as saved:
        state = saved.restore(
            sharding.abstract(shapes, places),
            step=None if arguments.step == -1 else arguments.step,
        )
    export(out, config, state.best_params, tokenizer)
    print(f"the evaluator of step {int(state.step)} is in {out}")
    return int(state.step)


def export_all(
    config: Config,
    run: pathlib.Path,
    saved: checkpoint.Checkpoints,
    state: step.TrainState,
    like: Any,
    data: prepare.Prepared,
) -> None:
    """Writes the last evaluator, and the best one where that is kept."""
    export(run / "model", config, state.best_params, data.tokenizer)
    best = saved.best_step() if config.keep_best else None
    if best is not None:
        if best != int(state.step):
            state = saved.restore(like, step=best)
        export(run / "model-best", config, state.best_params, data.tokenizer)
        if hosts.lead():
            print(
                f"the best {config.keep_best} on dev was at step {best}: "
                f"{run}/model-best"
            )


def export(path: pathlib.Path, config: Config, params: Any, tokenizer: Any) -> None:
    """Writes the evaluator as a Hugging Face directory; it appears when it is whole.

    Adapters are merged: what is written is an evaluator like any other. Every process
    takes part, process 0 writes.
    """
    host = hosts.whole(params)
    if host is not None:
        host = adapters.merged(config, host)
        partial = _partial(path)
        shutil.rmtree(partial, ignore_errors=True)
        try:
            convert.save(partial, config.evaluator, host)
            tokenizer.save(partial, max_length=config.text.max_length)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        shutil.rmtree(path, ignore_errors=True)
        partial.rename(path)
    hosts.barrier(f"export {path.name}")


def _partial(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(path.name + ".partial")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = tyro.cli(
        Arguments, args=argv, prog="python -m experiments.export", description=__doc__
    )
    return exit_code(lambda: export_step(arguments))


if __name__ == "__main__":
    sys.exit(main())
