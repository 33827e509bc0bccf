# SPDX-License-Identifier: Apache-2.0
"""Goes on pretraining an encoder on the texts of a folder, by masked words.

python -m experiments.pretrain_encoder --encoder DIR --data FOLDER --out DIR

python -m experiments.pretrain_encoder --size small --data FOLDER --out DIR   from
scratch, with a tokenizer trained on the texts

No label is read, and no text of a file that is held out by its name (.dev., .test.).
The directory that is written is one for `experiments.train --pretrained`: encoder, head
of masked words, tokenizer; with pretraining.json (what was asked) and metrics.jsonl
(the loss in nats per masked token, also of held-out texts). Stopped at any moment, the
same command goes on.
"""

import dataclasses
import math
import pathlib
import shutil
import sys
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments import rundir
from experiments.exits import Interrupted, Stop, exit_code
from experiments.masked_lm import model, texts
from experiments.masked_lm.masking import Masking
from experiments.progress import Progress
from fulcra_jax import convert
from fulcra_jax.data import batches, feed, packing, plan, tokens
from fulcra_jax.data.tokenizer import Encoded, PairTokenizer
from fulcra_jax.training import checkpoint, step, writers
from fulcra_jax.training.meter import Meter
from fulcra_jax.training.optimizer import Optimizer


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to train, and where to put it."""

    data: str
    """A folder of .jsonl files; see experiments/masked_lm/texts.py."""
    encoder: str = ""
    """A Hugging Face directory of a DeBERTa or BERT encoder with its tokenizer; its
    head of masked words is used where it has one."""
    size: Literal["", "tiny", "small"] = ""
    """Of an encoder from scratch, in place of `encoder`."""
    vocab_size: int = 8000
    """Pieces of a tokenizer trained on the texts, with `size`."""
    out: str = "runs/encoder"
    """A new directory."""
    rows: Literal["train", "none"] = "train"
    """none: neither labelled rows nor prompts near theirs, for an encoder that is
    judged on folds of train and dev."""
    max_length: int = 192
    """Tokens of a row; texts are packed into it, longer ones are cut."""
    batch_size: int = 16
    """Rows of a batch."""
    epochs: float = 3.0
    """Passes over the texts."""
    rate: float = 0.15
    """Share of the tokens that are masked."""
    head_share: float = 0.1
    """Share of the steps in which a new head learns and the encoder rests; the encoder
    then joins in, over as many steps. Only of an encoder without a head."""
    seed: int = 0
    save_every: int = 100
    """Steps that a kill costs at most."""
    log_every: int = 10
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    optimizer: Optimizer = Optimizer(
        peak_lr=1e-4, schedule="linear", b2=0.98, weight_decay=0.01, clip_norm=1.0
    )

    def __post_init__(self) -> None:
        if bool(self.encoder) == bool(self.size):
            raise ValueError(
                f"pretrain_encoder: encoder is {self.encoder!r} and size "
                f"{self.size!r}; one of the two should be given."
            )
        for field, low, high in (
            ("max_length", 8, 65536),
            ("batch_size", 1, 2**20),
            ("epochs", 1e-6, 1e6),
            ("rate", 0.01, 0.9),
            ("head_share", 0.0, 0.5),
            ("seed", 0, 2**31 - 1),
            ("save_every", 1, 10**9),
            ("log_every", 1, 10**9),
        ):
            if not low <= getattr(self, field) <= high:
                raise ValueError(
                    f"pretrain_encoder: {field} is {getattr(self, field)}; it should "
                    f"be in [{low}, {high}]."
                )


class Prepared(NamedTuple):
    """All that a training needs."""

    arguments: Arguments
    start: model.Start
    feed: feed.Feed
    masking: Masking
    held_out: list[dict[str, np.ndarray]]
    """Masked batches."""
    steps: int


def pretrain(arguments: Arguments) -> pathlib.Path:
    """Trains and writes the encoder; returns its directory."""
    out = pathlib.Path(arguments.out)
    if (out / "config.json").is_file():
        raise FileExistsError(f"{out}: holds a finished encoder; give a new --out.")
    found = texts.read(arguments.data, rows=arguments.rows)
    for note in found.notes:
        print(f"data: {note}")
    tokenizer = _tokenizer(arguments, found)
    encoded = _encoded(tokenizer, found.train, arguments.max_length)
    start = model.start(
        arguments.encoder, arguments.size, tokenizer, encoded.ids,
        max_length=arguments.max_length, seed=arguments.seed,
    )  # fmt: skip
    prepared = _prepared(arguments, start, tokenizer, encoded, found)
    settings = dataclasses.asdict(arguments)
    del settings["out"], settings["save_every"], settings["log_every"]
    settings |= {"texts": found.fingerprint(), "tokenizer": tokenizer.fingerprint()}
    rundir.begin(out / "pretraining.json", settings)
    with (
        rundir.claimed(out),
        Stop() as stop,
        checkpoint.Checkpoints(out / "checkpoints", keep=2) as saved,
    ):
        state = train(prepared, saved, stop, out)
    tokenizer.save(out)
    host = jax.device_get(state.best_params)
    convert.save_pretraining(out, start.config, host, overwrite=True)
    shutil.rmtree(out / "checkpoints")
    print(f"written to {out}: give it to experiments.train as --pretrained {out}")
    return out


def train(
    prepared: Prepared, saved: checkpoint.Checkpoints, stop: Stop, out: pathlib.Path
) -> step.TrainState:
    """Steps to the end; measures the held-out loss before and after."""
    arguments, steps = prepared.arguments, prepared.steps
    cells = model.cell_loss(prepared.start, arguments.compute_dtype)
    rest = arguments.head_share if prepared.start.new_head else 0.0
    made = model.optimizer(arguments.optimizer, steps, round(rest * steps))
    average, freeze = arguments.optimizer.average, arguments.optimizer.freeze
    params = jax.tree.map(jnp.array, prepared.start.params)
    state = saved.newest(
        step.init_state(params, made, average=average > 0, freeze=freeze)
    )
    train_step = step.make_train_step(
        cells, made, seed=arguments.seed, average_decay=average, freeze=freeze
    )
    device_step = jax.jit(train_step, donate_argnums=0)
    begun = int(state.step)
    log = out / "metrics.jsonl"
    writers.cut(log, begun or -1)
    lines = writers.JsonLines(log)
    measure = model.held_out_loss(cells)
    size = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    head = "a new head" if prepared.start.new_head else "its own head"
    print(f"model: {size:,} parameters, {head}; {steps} steps")
    if not begun:
        _measured(lines, 0, measure(state.best_params, prepared.held_out))
    meter = Meter()
    ahead = prepared.feed.iterate(begun, steps)
    try:
        with Progress(begun, steps, meter) as progress:
            for number, plain in ahead:
                batch = prepared.masking.training(plain, number)
                state, told = device_step(state, batch)
                done, loss = number + 1, float(told.loss)
                _check_finite(loss, told, done, state.params)
                mask, held = plain["mask"], plain["segment_ids"].max(1).sum()
                first = done == begun + 1
                meter.count(int(held), int(mask.sum()), mask.size, compiled=first)
                progress.show(done, loss)
                if done % arguments.log_every == 0 or done == steps:
                    lines.write(done, "train", {"loss": loss, **meter.rates()})
                if done % arguments.save_every == 0 or done == steps or stop.asked:
                    saved.save(done, state)
                if stop.asked and done < steps:
                    saved.wait()
                    raise Interrupted(
                        f"stopped at step {done} of {steps} in {out}; the same command "
                        "continues.",
                        code=130 if stop.by == "SIGINT" else 0,
                    )
    finally:
        ahead.close()
    _measured(lines, steps, measure(state.best_params, prepared.held_out))
    return state


def _measured(lines: writers.JsonLines, number: int, loss: float) -> None:
    perplexity = math.exp(min(loss, 700.0))
    lines.write(number, "held_out", {"loss": loss, "perplexity": perplexity})
    print(
        f"held-out texts at step {number}: {loss:.3f} nats per masked token, "
        f"perplexity {perplexity:,.1f}",
        flush=True,
    )


def _check_finite(loss: float, told: step.Metrics, done: int, params: Any) -> None:
    if math.isfinite(loss) and not int(told.bad[1]):
        return
    text = f"pretrain_encoder: the loss is {loss} at step {done}"
    if int(told.bad[1]):
        name = step.leaf_names(params)[int(told.bad[0])]
        text += f", and the gradient of {name} is not finite"
    raise FloatingPointError(f"{text}; try a lower --optimizer.peak-lr.")


def _tokenizer(arguments: Arguments, found: texts.Texts) -> PairTokenizer:
    if arguments.encoder:
        return PairTokenizer.load(arguments.encoder)
    # Of the texts to train on alone: the words of the others stay unseen.
    pieces = [part for text in found.train for part in text if part]
    return PairTokenizer.train(pieces, arguments.vocab_size)


def _encoded(
    tokenizer: PairTokenizer, some: Sequence[texts.Text], max_length: int
) -> Encoded:
    """Pairs as `experiments.train` has them; a prompt alone is one segment."""
    pairs = [text for text in some if text.response]
    alone = [text.prompt for text in some if not text.response]
    prompts, responses = zip(*pairs, strict=True) if pairs else ((), ())
    encoded = tokenizer.encode(prompts, responses, max_length=max_length)
    first, last = tokenizer.start_id, tokenizer.end_id
    for pieces in tokenizer.pieces(alone):
        ids = np.array([first, *pieces[: max_length - 2], last], np.int32)
        encoded.ids.append(ids)
        encoded.types.append(np.zeros_like(ids))
    return encoded


def _prepared(
    arguments: Arguments,
    start: model.Start,
    tokenizer: PairTokenizer,
    encoded: Encoded,
    found: texts.Texts,
) -> Prepared:
    """The batches of the training, and those of the texts that are held out."""
    # A feed asks for targets; the masks of a step are the targets here.
    N = len(encoded.ids)
    where = np.ones((N, 10), bool)
    examples = batches.Examples(encoded, np.zeros(where.shape, np.float32), where)
    ahead = feed.Feed(
        tokens.Tokens.in_memory(examples),
        plan.Packed(arguments.batch_size, arguments.max_length),
        seed=arguments.seed,
        pad_id=tokenizer.pad_id,
    )
    masking = Masking.of(tokenizer, rate=arguments.rate, seed=arguments.seed)
    held = _encoded(tokenizer, found.held_out, arguments.max_length)
    rows = packing.pack(
        held.ids, held.types, capacity=arguments.max_length, pad_id=tokenizer.pad_id
    )
    count, B = len(rows["mask"]), arguments.batch_size
    parts = []
    for number, begin in enumerate(range(0, count, B)):
        part = {name: array[begin : begin + B] for name, array in rows.items()}
        short = B - len(part["mask"])
        full = {
            name: np.concatenate(
                [array, np.zeros((short, *array.shape[1:]), array.dtype)]
            )
            for name, array in part.items()
        }
        parts.append(masking.held_out(full, number))
    return Prepared(
        arguments, start, ahead, masking, parts, ahead.steps(arguments.epochs)
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = tyro.cli(
        Arguments,
        args=argv,
        prog="python -m experiments.pretrain_encoder",
        description=__doc__,
    )
    return exit_code(lambda: pretrain(arguments))


if __name__ == "__main__":
    sys.exit(main())
