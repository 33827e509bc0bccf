# SPDX-License-Identifier: Apache-2.0
"""Trains a value evaluator; resumes one that was interrupted.

python -m experiments.train demo                              the embedded corpus

python -m experiments.train demo-real --data FOLDER           files in FULCRA's format

python -m experiments.train demo --optimizer.peak-lr 5e-4     any field by name

python -m experiments.train --resume runs/demo-20260101-120000

--data PATH is a folder or a file in FULCRA's format, or the folder of ValueEval'23's
.tsv files, told by what is there; without it the embedded corpus.

--teacher trains on the official_scores.NAME.train.jsonl of that folder too, as a
teacher's scores; --loss.teacher W is the weight of such a cell, 5 by default.

--variant NAME+NAME changes the recipe as in experiments.compare_heads, whose --list
names the variants: python -m experiments.train small --variant query+ordinal --data
FOLDER --pretrained DIR.

--run DIR is the new directory of the run; without it runs/RECIPE-DATE-TIME.

--resume RUN continues a run, also on another mesh: besides it only --mesh.data,
--mesh.fsdp, --mesh.tensor and the options below are taken.

--profile N writes a trace of N steps to RUN/profile, for XProf or Perfetto.

--hosts one|auto|detect says whether this is one process of several; detect, the
default, asks the environment of SLURM, Open MPI and GKE. On the VMs of a TPU slice give
auto. Elsewhere give each process --coordinator ADDRESS:PORT --num-hosts N --host-index
I.

A run is a directory (see experiments/rundir.py). Ctrl-C and SIGTERM save a checkpoint
and stop; the resumed run ends with the same parameters, bit for bit on CPU.
"""

import contextlib
import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments import (
    adapters,
    export,
    look,
    losses,
    prepare,
    rundir,
    train_command,
)
from experiments.config import Config
from experiments.exits import Stop, exit_code
from experiments.loop import Loop
from fulcra_jax import models
from fulcra_jax.data import feed, rows
from fulcra_jax.data.tokens import Tokens
from fulcra_jax.training import (
    ceiling,
    checkpoint,
    dashboards,
    freeze,
    hosts,
    optimizer,
    sharding,
    step,
    writers,
)
from fulcra_jax.training.meter import Meter
from fulcra_jax.training.profile import Trace


def train(
    config: Config, run: pathlib.Path, *, resume: bool = False, profile: int = 0
) -> dict[str, Any]:
    """Runs, or continues, one experiment; returns the figures of its last step.

    Args:
      config: what decides the numbers; of a run that is resumed only its mesh counts.
      run: the directory of the run.
      resume: continue what is there.
      profile: steps to trace.
    """
    with Stop() as stop, contextlib.ExitStack() as held:
        try:
            return _train(config, run, resume, profile, stop, held)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise ValueError(
                f"train: a device has no memory left ({error!s:.100}); try a smaller "
                "--batch-size, --accumulate N, --remat layer or --mesh.fsdp N. "
                f"Checkpoints, if there are any, remain in {run}."
            ) from None


def _train(
    config: Config,
    run: pathlib.Path,
    resume: bool,
    profile: int,
    stop: Stop,
    held: contextlib.ExitStack,
) -> dict[str, Any]:
    # Mesh. All that can be wrong with the input is found before the run exists.
    hosts.check_joined()
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch_size(config.batch_size, mesh, config.accumulate)
    for name in config.writers:
        try:
            dashboards.check(name)
        except ImportError as error:
            raise ValueError(f"train: writers has {name}; {error}") from None
    if resume:
        hosts.together(lambda: _claim(run, held))
        hosts.together(lambda: rundir.check_tokenizer(run))
    else:
        hosts.together(lambda: rundir.check_free(run))

    # Data.
    data = hosts.together(lambda: prepare.prepare(config, run))
    config, corpus = data.config, data.corpus
    sharding.check_heads(config.evaluator.encoder.num_attention_heads, mesh)
    hosts.agree(
        {
            "configuration": repr(config),
            "training data": rundir.fingerprint(
                data.train_rows, items=config.loss.items > 0
            ),
            "version of jax": jax.__version__,
        }
    )
    if config.steps:  # a schedule that does not fit is refused before anything is done
        optimizer.learning_rate(config.optimizer, config.steps)
    tokens = prepare.tokenise(data)
    batches = _feed(config, data, tokens, mesh)
    steps = config.steps or batches.steps(config.epochs)

    # Model, objective, optimizer, state.
    evaluator = models.Evaluator(
        config.evaluator, dtype=jnp.dtype(config.compute_dtype), remat=config.remat
    )
    chosen = adapters.optimizer_of(config)
    transformation = optimizer.make_optimizer(chosen, steps)

    init = prepare.make_init(config, evaluator, transformation)
    shapes = jax.eval_shape(init)
    places = sharding.shardings(shapes, sharding.STATE, mesh)

    pretrained = None
    if not rundir.has_checkpoint(run):
        pretrained = hosts.together(
            lambda: prepare.load_pretrained(config, shapes.params)
        )

    # The run exists from here on.
    if stop.asked and jax.process_count() == 1:
        raise KeyboardInterrupt
    if not resume:
        hosts.together(lambda: _claim(run, held))
    hosts.together(lambda: _begin(data, run, resume) if hosts.lead() else None)
    hosts.barrier("run")
    _introduce(config, corpus.notes, shapes, places, mesh, steps)

    with checkpoint.Checkpoints(
        run / "checkpoints", keep=config.keep, best=config.keep_best
    ) as saved:
        if saved.latest_step() is not None:
            state = saved.restore(sharding.abstract(shapes, places))
            hosts.together(lambda: rundir.check_config(run))
            _say(f"resumed at step {int(state.step)}")
        else:
            state = _initial(init, pretrained, places, chosen.freeze)
        begun = int(state.step)
        dev = look.Dev(data, mesh, state)
        cell_loss = losses.make_cell_loss(
            config, evaluator, tokens.labels, tokens.where
        )
        train_step = step.make_train_step(
            lambda params, batch, key: cell_loss(
                adapters.merged(config, sharding.used(params, places.params)),
                batch,
                key,
            ),
            transformation,
            seed=config.seed,
            accumulate=config.accumulate,
            average_decay=chosen.average,
            freeze=chosen.freeze,
        )

        def with_wish(state: step.TrainState, batch: Any, hands: jax.Array) -> Any:
            state, metrics = train_step(state, batch)
            return state, (metrics, hands.any())

        device_step = jax.jit(
            with_wish,
            in_shardings=(
                places, sharding.batch_sharding(mesh), hosts.Vote(mesh).sharding,
            ),
            out_shardings=(places, sharding.replicated(mesh)),
            donate_argnums=0,
        )  # fmt: skip
        with _writers(config, run, begun) as shown:
            if begun < steps:
                state, figures = Loop(
                    config,
                    run,
                    steps,
                    device_step,
                    batches,
                    mesh,
                    saved,
                    dev.figures,
                    optimizer.learning_rate(config.optimizer, steps),
                    shown,
                    Meter(
                        # Devices that are faked on a CPU share its cores.
                        devices=1
                        if jax.default_backend() == "cpu"
                        else mesh.devices.size,
                        ceiling=ceiling.matmul_ceiling(config.compute_dtype),
                    ),
                    lambda length: ceiling.evaluator_flops(
                        config.evaluator, config.batch_size, length
                    ),
                    step.leaf_names(state.params),
                    stop,
                    Trace(run / "profile", 2, profile if hosts.lead() else 0),
                ).run_from(state)
            else:
                figures = dev.figures(state)
        export.export_all(
            config, run, saved, state, sharding.abstract(shapes, places), data
        )
    did = "already finished at" if begun == steps else "trained"
    _say(f"{did} {steps} steps; dev macro-F1 {figures['macro_f1']:.3f}; {run}/model")
    return figures


def _claim(run: pathlib.Path, held: contextlib.ExitStack) -> None:
    if hosts.lead():
        held.enter_context(rundir.claimed(run))


def _begin(data: prepare.Prepared, run: pathlib.Path, resume: bool) -> None:
    """Makes the directory of a new run, or checks that of an old one."""

    def save_tokenizer() -> None:
        data.tokenizer.save(run / "tokenizer", max_length=data.config.text.max_length)

    def save_more() -> None:
        save_tokenizer()
        if data.corpus.rejects:
            rows.write_rejects(run / "rejects.jsonl", data.corpus.rejects)

    if not resume:
        rundir.create(run, data.config, data.train_rows, data.corpus.notes, save_more)
        return
    rundir.check_data(run, data.config, data.train_rows)
    if not rundir.has_checkpoint(run):
        rundir.check_config(run)
    if not (run / "tokenizer").is_dir():  # of version 0.1, killed when it was begun
        save_tokenizer()


def _introduce(
    config: Config,
    notes: Sequence[str],
    shapes: step.TrainState,
    places: Any,
    mesh: jax.sharding.Mesh,
    steps: int,
) -> None:
    """Says what is trained, on what."""
    for note in notes:
        _say(f"data: {note}")
    moved, size = adapters.trained_size(config, shapes.params)
    some = f", {moved:,} of them trained" if moved < size else ""
    axes = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    each = sharding.bytes_per_device(shapes, places) / 2**20
    _say(
        f"model: {size:,} parameters{some}, {mesh.devices.size} x "
        f"{mesh.devices.flat[0].device_kind} ({axes}), {each:,.1f} MiB of state each, "
        f"{steps} steps of {config.batch_size} rows"
    )


def _initial(init: Any, pretrained: Any, places: Any, pattern: str) -> step.TrainState:
    """The state before the first step, made where it is to lie."""
    state = jax.jit(init, out_shardings=places)()
    if pretrained is None:
        return state
    encoder = sharding.place_params(pretrained, places.params["encoder"])
    params = state.params | {"encoder": encoder}
    average = state.average
    if jax.tree.leaves(average):
        average = jax.tree.map(jnp.copy, freeze.trained(params, pattern))
    return state._replace(params=params, average=average)


def _feed(
    config: Config, data: prepare.Prepared, tokens: Tokens, mesh: jax.sharding.Mesh
) -> feed.Feed:
    """The batches of this process."""
    drop = None
    if config.text.token_dropout:
        drop = feed.TokenDropout(
            config.text.token_dropout, data.tokenizer.mask_id,
            tuple(data.tokenizer.special_ids),
        )  # fmt: skip
    return feed.Feed(
        tokens,
        prepare.layout(config),
        seed=config.seed,
        pad_id=data.tokenizer.pad_id,
        drop=drop,
        rows=sharding.host_rows(config.batch_size, mesh),
    )


def _writers(config: Config, run: pathlib.Path, begun: int) -> writers.Writers:
    """Who is shown the figures; nobody on other processes than the first."""
    if not hosts.lead():
        return writers.Writers([])
    writers.cut(run / "metrics.jsonl", begun)
    made: list[Any] = [writers.JsonLines(run / "metrics.jsonl")]
    if "tensorboard" in config.writers:
        made.append(
            dashboards.TensorBoard(run / "tensorboard", repr(config), begun=begun)
        )
    if "wandb" in config.writers:
        shown = dataclasses.asdict(config)
        made.append(dashboards.WeightsAndBiases(run, run.name, shown))
    return writers.Writers(made)


def _say(text: str) -> None:
    if hosts.lead():
        print(text, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""

    def work() -> None:
        words = sys.argv[1:] if argv is None else argv
        command = train_command.parse(words, __doc__)
        train(
            command.config, command.run, resume=command.resume, profile=command.profile
        )

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
