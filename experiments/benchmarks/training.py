# SPDX-License-Identifier: Apache-2.0
"""A training step of deberta-v3-large beside transformers' Trainer.

python -m experiments.benchmarks.training                          on a GPU

python -m experiments.benchmarks.training --model tiny --rows 2 --length 16 --steps 3

The whole step of experiments.train (encoder, head, loss, AdamW with float32 state,
donated buffers, one device) on full rows of random tokens, in turn with as many steps
of transformers.Trainer on the same rows with the same loss, sizes and precision. The
first steps of each turn, which compile or warm up, are not timed. A share of the
ceiling counts the products of an encoder without positions, against the fastest large
matrix product measured on the device. Needs neither tfds nor grain nor tyro; without
torch and accelerate only our side is measured. Writes OUT/training.json, training.md.
"""

import argparse
import dataclasses
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks import rounds
from experiments.benchmarks.encoder_ours import MODELS, flops_of, matmul_flops
from experiments.exits import exit_code
from fulcra_jax import models, objectives
from fulcra_jax.configs import EvaluatorConfig
from fulcra_jax.training import step

Times = list[float]
"""Seconds of each timed step."""
_WARM = 3
VALUES, CLASSES = 10, 3


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = flags.add_argument
    add("--model", choices=sorted(MODELS), default="large")
    add("--layers", type=int, default=0, help="0: all of the model")
    add("--rows", type=int, default=16, help="rows of a batch")
    add("--length", type=int, default=512, help="tokens of a row")
    add("--steps", type=int, default=20, help="timed steps of a turn")
    add("--rounds", type=int, default=3, help="turns of each side")
    add("--remat", choices=("none", "dots", "layer"), default="none")
    add("--float32", action="store_true", help="compute in float32, not bfloat16")
    add("--out", default="runs/benchmarks/training")
    return flags


def check(flags: argparse.Namespace) -> None:
    """Raises ValueError for what cannot be measured."""
    for name, low in (("layers", 0), ("rows", 1), ("length", 1), ("steps", 1),
                      ("rounds", 1)):  # fmt: skip
        if getattr(flags, name) < low:
            raise ValueError(
                f"benchmarks.training: {name} is {getattr(flags, name)}; it should be "
                f"at least {low}."
            )


def batch_of(vocab_size: int, rows: int, length: int) -> dict[str, np.ndarray]:
    """Full rows of random tokens, with random labels."""
    draws = np.random.default_rng(0)
    return {
        "input_ids": draws.integers(1, vocab_size, (rows, length)).astype(np.int32),
        "mask": np.ones((rows, length), bool),
        "token_type_ids": np.zeros((rows, length), np.int32),
        "labels": draws.integers(-1, 2, (rows, VALUES)).astype(np.float32),
        "where": np.ones((rows, VALUES), bool),
    }


def ours(
    flags: argparse.Namespace, config: EvaluatorConfig, batch: dict[str, np.ndarray]
) -> tuple[Callable[[], Times], dict[str, Any]]:
    """A turn of our steps, and what the compiler says of the program."""
    dtype = jnp.float32 if flags.float32 else jnp.bfloat16
    evaluator = models.Evaluator(config, dtype=dtype, remat=flags.remat)

    def cells(params: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = models.apply_evaluator(evaluator, params, batch, key=key).logits
        loss = objectives.ternary_cross_entropy(logits, batch["labels"])
        return loss, batch["where"]

    adamw = optax.adamw(1e-5, weight_decay=0.01)

    @jax.jit
    def init() -> step.TrainState:
        ids = jnp.zeros((1, 8), jnp.int32)
        return step.init_state(
            evaluator.init(jax.random.key(0), ids, ids > -1, deterministic=True)[
                "params"
            ],
            adamw,
        )

    held = [init()]
    placed = jax.device_put(batch)
    began = time.perf_counter()
    program = (
        jax.jit(step.make_train_step(cells, adamw, seed=0), donate_argnums=0)
        .lower(held[0], placed)
        .compile()
    )
    about = {"compile seconds": round(time.perf_counter() - began, 1)}
    memory = program.memory_analysis()
    if memory is not None:
        about["temporary MiB"] = round(memory.temp_size_in_bytes / 2**20)

    def turn() -> Times:
        times, late = [], None
        for number in range(_WARM + flags.steps):
            start = time.perf_counter()
            held[0], metrics = program(held[0], placed)
            if late is not None:
                float(late.loss)  # as experiments.train does: one step late
            late = metrics
            if number >= _WARM:
                times.append(time.perf_counter() - start)
        jax.block_until_ready(held[0])
        return times

    return turn, about


def measure(flags: argparse.Namespace) -> dict[str, Any]:
    """Measures in turn, prints and writes the table."""
    check(flags)
    out = rounds.directory(
        "benchmarks.training", flags.out, ("training.json", "training.md")
    )
    encoder = MODELS[flags.model]
    if flags.layers:
        encoder = dataclasses.replace(encoder, num_hidden_layers=flags.layers)
    config = EvaluatorConfig(encoder)
    batch = batch_of(encoder.vocab_size, flags.rows, flags.length)
    turns: dict[str, Callable[[], Times]] = {}
    turns["ours"], about = ours(flags, config, batch)
    absent = ""
    missing = [name for name in ("torch", "accelerate") if not _installed(name)]
    if not missing:
        from experiments.benchmarks import training_reference

        turns["Trainer"] = training_reference.turn(
            encoder, batch, steps=flags.steps, warm=_WARM, bfloat16=not flags.float32
        )
    else:
        absent = f"Trainer: not measured, {', '.join(missing)} not installed."
    found: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(flags.rounds):
        order = list(turns) if number % 2 == 0 else list(turns)[::-1]
        for name in order:
            found[name].append(statistics.median(turns[name]()))
            print(f"round {number}, {name}: {found[name][-1]:.4f} s a step", flush=True)
    dtype = jnp.float32 if flags.float32 else jnp.bfloat16
    report = {
        "flags": vars(flags),
        "seconds": found,
        "ceiling": matmul_flops(dtype, small=flags.model == "tiny"),
        "flops": flops_of(encoder, flags.rows, flags.length, "training")["counted"],
        "absent": absent,
        "about": about | rounds.machine() | {"device": jax.devices()[0].device_kind},
    }
    (out / "training.json").write_text(json.dumps(report, indent=1) + "\n")
    text = table(report)
    (out / "training.md").write_text(text)
    print(text)
    return report


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def table(report: dict[str, Any]) -> str:
    """The figures in Markdown."""
    flags = report["flags"]
    lines = [
        f"{flags['model']}, {flags['rows']} rows of {flags['length']} tokens, "
        f"{'float32' if flags['float32'] else 'bfloat16'}, remat {flags['remat']}, on "
        f"{report['about']['device']}; ceiling {report['ceiling'] / 1e12:.1f} TFLOP/s.",
        "",
        "| | s a step (range) | examples/s | tokens/s | of the ceiling |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for name, seconds in report["seconds"].items():
        middle = statistics.median(seconds)
        lines.append(
            f"| {name} | {middle:.4f} ({min(seconds):.4f} to {max(seconds):.4f}) | "
            f"{flags['rows'] / middle:.1f} | "
            f"{flags['rows'] * flags['length'] / middle:,.0f} | "
            f"{report['flops'] / middle / report['ceiling']:.0%} |"
        )
    return "\n".join([*lines, "", *filter(None, [report["absent"]])]) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return exit_code(lambda: measure(parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
