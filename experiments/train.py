# SPDX-License-Identifier: Apache-2.0
"""Trains a value evaluator; resumes one that was interrupted.

python -m experiments.train demo                              the embedded corpus

python -m experiments.train demo-real --data FOLDER           files in FULCRA's format

python -m experiments.train demo --optimizer.peak-lr 5e-4     any field by name

python -m experiments.train --resume runs/demo-20260101-120000

--data PATH is a folder or a file in FULCRA's format; without it the embedded corpus.

--run DIR is the new directory of the run; without it runs/RECIPE-DATE-TIME.

--resume RUN continues a run and takes no other argument.

A run is a directory (see experiments/rundir.py). Ctrl-C saves a checkpoint and stops;
the resumed run ends with the same parameters, bit for bit on CPU.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments import rundir
from experiments.config import NEEDS_DATA, NEEDS_WEIGHTS, RECIPES, Config
from experiments.exits import Interrupted, Stop, exit_code
from experiments.progress import Progress
from fulcra_jax import convert, models, objectives
from fulcra_jax.data import batches, rows, source
from fulcra_jax.data.tokenizer import PairTokenizer
from fulcra_jax.inference import Predictor
from fulcra_jax.report import evaluation
from fulcra_jax.training import checkpoint, optimizer, sharding, step


def train(config: Config, run: pathlib.Path, *, resume: bool = False) -> dict[str, Any]:
    """Runs, or continues, one experiment; returns the figures of its last step."""
    with Stop() as stop:
        return _train(config, run, resume, stop)


def _train(
    config: Config, run: pathlib.Path, resume: bool, stop: Stop
) -> dict[str, Any]:
    # Mesh. All that can be wrong with the input is found before the run exists.
    mesh = sharding.make_mesh(config.devices)
    sharding.check_batch_size(config.batch_size, mesh)
    if not resume:
        rundir.check_free(run)

    # Data.
    corpus = read_corpus(config)
    train_rows = [row for row in corpus.rows["train"] if row.where.any()]
    tokenizer = (
        PairTokenizer.load(run / "tokenizer")
        if resume and (run / "tokenizer").is_dir()
        else make_tokenizer(config, train_rows)
    )
    config = fit_to_data(config, tokenizer)
    examples = encode(config, tokenizer, train_rows)
    if config.control == "shuffled-labels":
        examples = shuffle_labels(examples, config.seed)
    steps = config.steps or math.ceil(config.epochs * len(examples) / config.batch_size)

    # Model, objective, optimizer, state.
    evaluator = models.Evaluator(
        config.evaluator, dtype=jnp.dtype(config.compute_dtype)
    )
    cell_loss = make_cell_loss(config, evaluator, examples)
    transformation = optimizer.make_optimizer(config.optimizer, steps)

    def init() -> step.TrainState:
        ids = jnp.zeros((1, 8), jnp.int32)
        params = evaluator.init(
            jax.random.key(config.seed), ids, ids > -1, token_type_ids=ids,
            deterministic=True,
        )["params"]  # fmt: skip
        return step.init_state(params, transformation)

    abstract = jax.eval_shape(init)
    places = sharding.shardings(abstract, sharding.REPLICATED, mesh)
    pretrained = load_pretrained(config, abstract.params) if not resume else None

    # The run exists from here on.
    if stop.asked:
        raise KeyboardInterrupt
    if resume:
        rundir.check_data(run, train_rows)
        if not any((run / "checkpoints").glob("[0-9]*")):
            rundir.check_config(run)
    else:
        rundir.create(run, config, train_rows, corpus.notes)
        if corpus.rejects:
            rows.write_rejects(run / "rejects.jsonl", corpus.rejects)
    if not (run / "tokenizer").is_dir():
        tokenizer.save(run / "tokenizer", max_length=config.text.max_length)
    for note in corpus.notes:
        print(f"data: {note}")
    size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract.params))
    print(
        f"model: {size:,} parameters, {len(mesh.devices.flat)} x "
        f"{mesh.devices.flat[0].device_kind}, {steps} steps of {config.batch_size} rows"
    )

    with checkpoint.Checkpoints(run / "checkpoints", keep=config.keep) as saved:
        if saved.latest_step() is not None:
            like = jax.tree.map(
                lambda leaf, place: jax.ShapeDtypeStruct(
                    leaf.shape, leaf.dtype, sharding=place
                ),
                abstract,
                places,
            )
            state = saved.restore(like)
            rundir.check_config(run)
            print(f"resumed at step {int(state.step)}")
        else:
            state = jax.jit(init, out_shardings=places)()
            if pretrained is None and resume:
                pretrained = load_pretrained(config, abstract.params)
            if pretrained is not None:
                placed = jax.device_put(pretrained, places.params["encoder"])
                state = state._replace(params=state.params | {"encoder": placed})
        begun = int(state.step)
        rundir.cut_metrics(run / "metrics.jsonl", begun)
        batch_place = sharding.batch_sharding(mesh)
        train_step = jax.jit(
            step.make_train_step(cell_loss, transformation, seed=config.seed),
            in_shardings=(places, batch_place),
            out_shardings=(places, None),
            donate_argnums=0,
        )
        predictor = Predictor(
            config.evaluator, state.params, tokenizer,
            max_length=config.text.max_length, ladder=config.text.ladder,
            compute_dtype=jnp.dtype(config.compute_dtype),
        )  # fmt: skip
        state = loop(
            config, run, steps, state, train_step, examples, saved, predictor,
            corpus.rows["dev"], batch_place, tokenizer, stop,
        )  # fmt: skip
        saved.save(steps, state)
        saved.wait()

    predictor.params = state.params
    figures = look_at_dev(predictor, corpus.rows["dev"])
    if begun < steps or not (run / "model").is_dir():
        log(run, {"step": steps, "split": "dev", **figures})
    export(run, config, state.params, tokenizer)
    did = "already finished at" if begun == steps else "trained"
    print(f"{did} {steps} steps; dev macro-F1 {figures['macro_f1']:.3f}; {run}/model")
    return figures


def export(
    run: pathlib.Path, config: Config, params: Any, tokenizer: PairTokenizer
) -> None:
    """Writes the evaluator as a Hugging Face directory; it appears when it is whole."""
    partial = run / "model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    host = jax.tree.map(np.asarray, jax.device_get(params))
    convert.save(partial, config.evaluator, host)
    tokenizer.save(partial, max_length=config.text.max_length)
    shutil.rmtree(run / "model", ignore_errors=True)
    partial.rename(run / "model")


def loop(
    config: Config,
    run: pathlib.Path,
    steps: int,
    state: step.TrainState,
    train_step: Any,
    examples: batches.Examples,
    saved: checkpoint.Checkpoints,
    predictor: Predictor,
    dev_rows: list[rows.Row],
    batch_place: Any,
    tokenizer: PairTokenizer,
    stop: Stop,
) -> step.TrainState:
    """Steps to the end; saves, looks at dev and stops when asked to."""
    ladder = batches.ladder_up_to(config.text.max_length, config.text.ladder)
    begun = int(state.step)
    schedule = optimizer.learning_rate(config.optimizer, steps)
    with Progress(begun, steps) as progress:
        late: tuple[int, step.Metrics] | None = None
        for number in range(begun, steps):
            if stop.asked:
                if late is not None:
                    settle(config, run, late, progress, schedule)
                saved.save(number, state)
                saved.wait()
                raise Interrupted(
                    f"stopped at step {number} of {steps}; continue with: python -m "
                    f"experiments.train --resume {run}"
                )
            batch = batches.train_batch(
                examples, number, batch_size=config.batch_size, seed=config.seed,
                ladder=ladder, pad_id=tokenizer.pad_id,
            )  # fmt: skip
            batch = batches.drop_tokens(
                batch, number, rate=config.text.token_dropout, seed=config.seed,
                mask_id=tokenizer.mask_id, keep=tokenizer.special_ids,
            )  # fmt: skip
            state, metrics = train_step(state, jax.device_put(batch, batch_place))
            # One step late: the device computes this step while the last is read.
            if late is not None:
                settle(config, run, late, progress, schedule)
            late = (number + 1, metrics)
            progress.count(config.batch_size, int(batch["mask"].sum()))
            done = number + 1
            if done == steps or done % config.save_every == 0:
                settle(config, run, late, progress, schedule)
                late = None
                saved.save(done, state)
            if config.eval_every and done % config.eval_every == 0 and done < steps:
                predictor.params = state.params
                figures = look_at_dev(predictor, dev_rows)
                log(run, {"step": done, "split": "dev", **figures})
                progress.say(f"step {done}: dev macro-F1 {figures['macro_f1']:.3f}")
    return state


def settle(
    config: Config,
    run: pathlib.Path,
    late: tuple[int, step.Metrics],
    progress: Progress,
    schedule: Any,
) -> None:
    """Reads the metrics of a step: stops on NaN, shows and logs."""
    number, metrics = late
    loss = float(metrics.loss)
    if not math.isfinite(loss):
        kept = any((run / "checkpoints").glob("[0-9]*"))
        raise FloatingPointError(
            f"train: the loss is {loss} at step {number}; "
            + (f"the last good checkpoint in {run} remains. " if kept else "")
            + "Try a lower --optimizer.peak-lr or --optimizer.clip-norm 1."
        )
    progress.show(number, loss)
    if number % config.log_every == 0:
        log(
            run,
            {
                "step": number,
                "split": "train",
                "loss": loss,
                "grad_norm": float(metrics.grad_norm),
                "learning_rate": float(schedule(number - 1)),
                **progress.rates(),
            },
        )


def read_corpus(config: Config) -> source.Corpus:
    """The rows that the configuration names."""
    match config.source:
        case source.Embedded():
            return source.read_embedded(config.source, config.policy)
        case source.Folder():
            return source.read_folder(config.source, config.policy)
        case source.Release():
            # Imported here: TFDS takes seconds to load and only this source needs it.
            from fulcra_jax.data import fulcra

            return fulcra.read_release(config.source, config.policy)


def make_tokenizer(config: Config, train_rows: Sequence[rows.Row]) -> PairTokenizer:
    """The tokenizer given, the pretrained encoder's, or one trained on the rows."""
    if config.text.tokenizer or config.pretrained:
        return PairTokenizer.load(config.text.tokenizer or config.pretrained)
    texts = [text for row in train_rows for text in (row.prompt, row.response)]
    return PairTokenizer.train(texts, config.text.vocab_size)


def fit_to_data(config: Config, tokenizer: PairTokenizer) -> Config:
    """The configuration with the encoder's sizes as they will be.

    Raises:
      ValueError: if the tokenizer has more pieces than the pretrained encoder, the text
        is longer than its table of positions, or it knows one token type only.
    """
    encoder = config.evaluator.encoder
    if config.pretrained:
        encoder = convert.load_encoder(config.pretrained)[0]
        if tokenizer.vocab_size > encoder.vocab_size:
            raise ValueError(
                f"train: the tokenizer has {tokenizer.vocab_size} pieces, but the "
                f"encoder in {config.pretrained} knows {encoder.vocab_size}; give the "
                "tokenizer that belongs to it."
            )
    else:
        encoder = dataclasses.replace(encoder, vocab_size=tokenizer.vocab_size)
    if (
        encoder.position_biased_input
        and config.text.max_length > encoder.max_position_embeddings
    ):
        raise ValueError(
            f"train: text.max_length is {config.text.max_length}, but the encoder has "
            f"{encoder.max_position_embeddings} positions."
        )
    if encoder.type_vocab_size == 1:
        raise ValueError(
            f"train: the encoder in {config.pretrained or 'the recipe'} tells no two "
            "token types apart (type_vocab_size is 1), but prompt and response are two."
        )
    evaluator = dataclasses.replace(config.evaluator, encoder=encoder)
    return dataclasses.replace(config, evaluator=evaluator)


def encode(
    config: Config, tokenizer: PairTokenizer, train_rows: Sequence[rows.Row]
) -> batches.Examples:
    """Rows as token ids and label arrays."""
    encoded = tokenizer.encode(
        [row.prompt for row in train_rows],
        [row.response for row in train_rows],
        max_length=config.text.max_length,
    )
    return batches.Examples(encoded, *source.label_arrays(list(train_rows)))


def shuffle_labels(examples: batches.Examples, seed: int) -> batches.Examples:
    """The same texts with the label vectors of other rows: the control."""
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(examples))
    return batches.Examples(
        examples.encoded, examples.labels[order], examples.where[order]
    )


def make_cell_loss(
    config: Config, evaluator: models.Evaluator, examples: batches.Examples
) -> step.CellLoss:
    """The loss of every cell under the evaluator's link."""
    weights = None
    if config.loss.class_weights == "sqrt":
        weights = objectives.sqrt_class_weights(
            jnp.asarray(examples.labels), jnp.asarray(examples.where)
        )

    def cell_loss(
        params: Any, batch: batches.Batch, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        logits = models.apply_evaluator(evaluator, params, batch, key=key).logits
        labels, where = jnp.asarray(batch["labels"]), jnp.asarray(batch["where"])
        if config.evaluator.link == "tanh":
            loss = objectives.tanh_mse(
                logits[..., 0], labels, class_weights=weights, where=where
            )
        else:
            loss = objectives.ternary_cross_entropy(
                logits, labels, class_weights=weights, where=where,
                label_smoothing=config.loss.label_smoothing,
            )  # fmt: skip
        return loss, where

    return cell_loss


def load_pretrained(config: Config, abstract: Any) -> Any:
    """Encoder parameters from a Hugging Face directory, or None."""
    if not config.pretrained:
        return None
    _, params = convert.load_encoder(config.pretrained)
    want = jax.tree.map(lambda leaf: leaf.shape, abstract["encoder"])
    if jax.tree.map(lambda leaf: leaf.shape, params) != want:
        raise ValueError(
            f"train: the weights in {config.pretrained} do not fit the encoder that "
            "its config.json describes."
        )
    return params


def look_at_dev(predictor: Predictor, dev_rows: list[rows.Row]) -> dict[str, float]:
    """A few figures on the dev split, without intervals."""
    answer = predictor.score(
        [row.prompt for row in dev_rows], [row.response for row in dev_rows]
    )
    labels, where = source.label_arrays(dev_rows)
    return evaluation.quick_figures(answer.classes(), labels, where)


def log(run: pathlib.Path, entries: dict[str, Any]) -> None:
    """Appends one line to metrics.jsonl."""
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"time": round(time.time(), 3), **entries}) + "\n")


def parse(argv: Sequence[str]) -> tuple[Config, pathlib.Path, bool]:
    """The configuration, the run's directory and whether it is resumed."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--resume", metavar="RUN")
    parser.add_argument("--run", metavar="DIR")
    parser.add_argument("--data", metavar="PATH")
    ours, rest = parser.parse_known_args(list(argv))
    if ours.resume:
        if rest or ours.run or ours.data:
            raise ValueError(
                "train: --resume takes no other argument; the configuration is the "
                "run's."
            )
        path = pathlib.Path(ours.resume)
        return rundir.reopen(path), path, True
    recipes = RECIPES
    if ours.data is not None:
        folder = source.Folder(ours.data)
        recipes = {
            name: (text, dataclasses.replace(config, source=folder))
            for name, (text, config) in RECIPES.items()
        }
    config = tyro.extras.overridable_config_cli(
        recipes,
        args=rest,
        prog="python -m experiments.train",
        description=__doc__,
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
    return config, pathlib.Path(ours.run or rundir.default_run(recipe)), False


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""

    def work() -> None:
        config, run, resume = parse(sys.argv[1:] if argv is None else argv)
        train(config, run, resume=resume)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
