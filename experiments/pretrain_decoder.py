# SPDX-License-Identifier: Apache-2.0
"""Trains the small language model that experiments.align moves.

python -m experiments.pretrain_decoder --out runs/align/decoder

It learns to answer the prompts of the embedded corpus with some five sentences of its
banks, most of which take a stance on a value. The directory holds decoder.json,
decoder.safetensors, a tokenizer and metrics.jsonl. Stopped at any moment, the same
command goes on.
"""

import dataclasses
import json
import pathlib
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from experiments import rundir
from experiments.exits import Interrupted, Stop, exit_code
from experiments.progress import Progress
from experiments.toy_lm import decoder as toy
from experiments.toy_lm import files, sampling, texts
from fulcra_jax import objectives
from fulcra_jax.data.tokenizer import PairTokenizer
from fulcra_jax.training import checkpoint, writers
from fulcra_jax.training.meter import Meter
from fulcra_jax.training.optimizer import Optimizer, make_optimizer


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to train, and where to put it."""

    out: str = "runs/align/decoder"
    """A new directory."""
    dialogues: int = 20_000
    """Of the training split of the embedded corpus."""
    steps: int = 1200
    batch_size: int = 32
    seed: int = 0
    vocab_size: int = 2048
    lengths: texts.Lengths = texts.Lengths()
    decoder: toy.DecoderConfig = toy.DecoderConfig()
    optimizer: Optimizer = Optimizer(
        peak_lr=3e-3, b2=0.98, weight_decay=0.01, clip_norm=1.0
    )

    def __post_init__(self) -> None:
        for field, least in (
            ("dialogues", 200),
            ("steps", 60),
            ("batch_size", 1),
            ("seed", 0),
        ):
            if getattr(self, field) < least:
                raise ValueError(
                    f"pretrain_decoder: {field} is {getattr(self, field)}; expected at "
                    f"least {least}."
                )


class State(NamedTuple):
    """What a stopped run needs; the rows of a batch follow from seed and step."""

    step: jax.Array
    params: Any
    optimizer: Any


def pretrain(arguments: Arguments) -> pathlib.Path:
    """Trains and writes the decoder; returns its directory."""
    out = pathlib.Path(arguments.out)
    if (out / "decoder.json").is_file():
        raise FileExistsError(f"{out}: holds a finished decoder; give a new --out.")
    began = time.monotonic()
    pairs = texts.dense_dialogues(arguments.seed, arguments.dialogues, "train")
    held = texts.dense_dialogues(arguments.seed + 1, 256, "train")
    tokenizer = PairTokenizer.train(
        [text for pair in pairs for text in pair], arguments.vocab_size
    )
    config = dataclasses.replace(arguments.decoder, vocab_size=tokenizer.vocab_size)
    codec = texts.Codec(tokenizer, arguments.lengths)
    data, check = (_encoded(codec, part) for part in (pairs, held))
    settings = dataclasses.asdict(arguments)
    del settings["out"]
    rundir.begin(out / "pretraining.json", settings)
    with (
        Stop() as stop,
        checkpoint.Checkpoints(out / "checkpoints", keep=2) as saved,
    ):
        params = train(arguments, config, codec, data, check, saved, stop)
    files.save(out, config, params, codec, settings)
    shutil.rmtree(out / "checkpoints")
    for text in speak(config, params, codec, [p for p, _ in held[:3]]):
        print(f"says: {text}")
    print(f"written to {out} in {time.monotonic() - began:.0f} s")
    return out


def train(
    arguments: Arguments,
    config: toy.DecoderConfig,
    codec: texts.Codec,
    data: dict[str, np.ndarray],
    check: dict[str, np.ndarray],
    saved: checkpoint.Checkpoints,
    stop: Stop,
) -> Any:
    """Steps to the end; returns the parameters."""
    out = pathlib.Path(arguments.out)
    transformation = make_optimizer(arguments.optimizer, arguments.steps)
    banned = jnp.asarray(codec.banned)

    def loss(params: Any, batch: dict[str, jax.Array]) -> jax.Array:
        logits = sampling.response_logits(config, params, **batch, banned=banned)
        found = sampling.log_probs(logits, batch["tokens"], batch["where"])
        return -objectives.masked_mean(found, batch["where"])

    @jax.jit
    def step(state: State, batch: dict[str, jax.Array]) -> tuple[State, jax.Array]:
        value, gradient = jax.value_and_grad(loss)(state.params, batch)
        updates, moments = transformation.update(
            gradient, state.optimizer, state.params
        )
        params = optax.apply_updates(state.params, updates)
        return State(state.step + 1, params, moments), value

    measure = jax.jit(loss)
    params = toy.init(config, arguments.seed)
    state = saved.newest(
        State(jnp.zeros((), jnp.int32), params, transformation.init(params))
    )
    begun = int(state.step)
    writers.cut(out / "metrics.jsonl", begun)
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    count, length = data["where"].shape
    print(f"decoder: {size:,} parameters; {count:,} dialogues, {length} tokens at most")
    meter = Meter()
    with Progress(begun, arguments.steps, meter) as progress:
        for number in range(begun + 1, arguments.steps + 1):
            if stop.asked:
                saved.save(number - 1, state)
                saved.wait()
                raise Interrupted(
                    f"stopped at step {number - 1} of {arguments.steps} in {out}; the "
                    "same command continues."
                )
            rng = np.random.default_rng([arguments.seed, number])
            rows = rng.integers(0, count, arguments.batch_size)
            batch = {name: jnp.asarray(x[rows]) for name, x in data.items()}
            state, value = step(state, batch)
            where = data["where"][rows]
            meter.count(len(rows), int(where.sum()), where.size)
            progress.show(number, float(value))
            if number % 50 == 0 or number == arguments.steps:
                held_out = float(measure(state.params, check))
                line = {"step": number, "loss": float(value), "unseen_loss": held_out}
                progress.say(f"step {number}: {held_out:.3f} nats per unseen token")
                with (out / "metrics.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                saved.save(number, state)
    saved.wait()
    return state.params


def speak(
    config: toy.DecoderConfig, params: Any, codec: texts.Codec, prompts: Sequence[str]
) -> list[str]:
    """One answer to each prompt."""
    ids, where = codec.encode_prompts(prompts)
    drawn = sampling.draw_with(
        codec, config, params, jax.random.key(0), jnp.asarray(ids), jnp.asarray(where)
    )
    return codec.decode(np.asarray(drawn.tokens), np.asarray(drawn.where))


def _encoded(
    codec: texts.Codec, pairs: Sequence[tuple[str, str]]
) -> dict[str, np.ndarray]:
    prompts, responses = zip(*pairs, strict=True)
    prompt, prompt_where = codec.encode_prompts(prompts)
    tokens, where = codec.encode_responses(responses)
    return {
        "prompts": prompt,
        "prompts_where": prompt_where,
        "tokens": tokens,
        "where": where,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = tyro.cli(
        Arguments,
        args=argv,
        prog="python -m experiments.pretrain_decoder",
        description=__doc__,
    )
    return exit_code(lambda: pretrain(arguments))


if __name__ == "__main__":
    sys.exit(main())
