# SPDX-License-Identifier: Apache-2.0
"""The core of attention alone, forward and backward: what its options are worth.

python -m experiments.benchmarks.attention

python -m experiments.benchmarks.attention --shapes 4x512 --rounds 9

Heads, widths and position tables of deberta-v3-base, without projections, one padded
row. The gradient is that of queries, keys, values and both tables. All variants run in
turn in every round, as in `experiments.benchmarks.encoder`. On a CPU, "Eigen" stands
for the same program without YNNPACK. Writes OUT/attention.md and attention.json.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import encoder_flags, encoder_ours, rounds
from experiments.benchmarks.encoder_report import foreign_load
from experiments.exits import exit_code
from fulcra_jax.models import attention, positions

FILES = ("attention.json", "attention.md")
EIGEN = {"xla_cpu_experimental_ynn_fusion_type": ""}
OFF, OURS, GATHER = "no positions", "ours", "gather form"
BASE = encoder_ours.MODELS["base"]


def benchmark(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures shape after shape, writes table and figures."""
    if arguments.rounds < 1 or arguments.retries < 0 or not arguments.shapes:
        raise ValueError(
            f"benchmarks.attention: rounds is {arguments.rounds}, retries "
            f"{arguments.retries}, shapes {arguments.shapes}; expected at least a "
            "round, no retry and a shape."
        )
    out = rounds.directory("benchmarks.attention", arguments.out, FILES)
    report = {
        "arguments": vars(arguments),
        "machine": rounds.machine() | {"jax": jax.__version__},
        "cells": [cell(arguments, *shape) for shape in arguments.shapes],
    }
    (out / "attention.json").write_text(json.dumps(report, indent=1) + "\n")
    (out / "attention.md").write_text(text(report))
    print(text(report))
    return report


def variants() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Options of the call, and of the compiler, by name."""
    heads = BASE.num_attention_heads
    chunks = [chunk for chunk in range(1, heads + 1) if heads % chunk == 0]
    found: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        OFF: ({"slot_of_distance": None}, {}),
        f"{OFF}, plain": ({"slot_of_distance": None, "form": "gather"}, {}),
        GATHER: ({"form": "gather"}, {}),
        OURS: ({}, {}),
        "ours, powers kept": ({"keep": True}, {}),
        "ours, powers computed again": ({"keep": False}, {}),
    }
    for chunk in chunks:
        found[f"ours, heads at a time: {chunk}"] = ({"head_chunk": chunk}, {})
    for block in (32, 64, 128):
        found[f"ours, rows in a block: {block}"] = ({"block": block}, {})
    if jax.default_backend() == "cpu":
        found[f"{GATHER}, Eigen"] = ({"form": "gather"}, EIGEN)
        found["ours, Eigen"] = ({}, EIGEN)
    return found


def cell(arguments: argparse.Namespace, batch: int, length: int) -> dict[str, Any]:
    """All variants of one shape."""
    print(f"{batch}x{length} ...", flush=True)
    used = positions.used(length, BASE.position_buckets, BASE.max_distance)
    H, K = BASE.num_attention_heads, BASE.head_size
    random = np.random.default_rng(0)
    shapes = [(H, batch, length, K)] * 3 + [(H, used.last - used.first, K)] * 2
    inputs = [jnp.asarray(random.standard_normal(s, np.float32)) for s in shapes]
    lengths = np.full(batch, length)
    lengths[-1] = 3 * length // 4
    mask = jnp.asarray(np.arange(length) < lengths[:, None])
    programs = {
        name: program(inputs, mask, used.slots, *options)
        for name, options in variants().items()
    }

    def call(name: str) -> Any:
        return lambda: jax.block_until_ready(programs[name](*inputs))

    measured = rounds.measure(
        {name: call(name) for name in programs},
        rounds=arguments.rounds,
        retries=arguments.retries,
        least_seconds=arguments.least_seconds,
        foreign_limit=arguments.foreign if jax.default_backend() == "cpu" else None,
    )
    return {
        "shape": [batch, length],
        "variants": {
            name: {
                "seconds": measured.seconds(name),
                "over": measured.ratio(name, OFF),
                "temp_bytes": encoder_ours.temp_bytes(one),
            }
            for name, one in programs.items()
        },
        **measured.to_json(),
    }


def program(
    inputs: list[jax.Array],
    mask: jax.Array,
    slots: np.ndarray,
    options: dict[str, Any],
    compiler: dict[str, Any],
) -> Any:
    """The compiled gradient of a variant."""
    options = {
        "slot_of_distance": slots,
        "scale": (3 * BASE.head_size) ** -0.5,
    } | options

    def loss(q, k, v, pos_q, pos_k):
        tables = (pos_q, pos_k)
        if options["slot_of_distance"] is None:
            tables = (None, None)
        out = attention.disentangled_attention(q, k, v, *tables, mask, **options)
        return (out * q).sum()

    step = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3, 4)))
    return step.lower(*inputs).compile(compiler_options=compiler)


def text(report: dict[str, Any]) -> str:
    """Markdown of all figures."""
    about = ", ".join(f"{name} {what}" for name, what in report["machine"].items())
    lines = [
        f"Machine: {about}. Median (range) of {report['arguments']['rounds']} "
        "interleaved rounds.",
        "",
        foreign_load(report["cells"]),
        "",
        "| shape | variant | ms | over no positions | temporary MB |",
        "| --- | --- | --- | --- | --- |",
    ]
    for found in report["cells"]:
        shape = "x".join(map(str, found["shape"])) + (" VOID" if found["void"] else "")
        for name, row in found["variants"].items():
            size = row["temp_bytes"]
            entries = (
                shape,
                name,
                rounds.between(row["seconds"], 1e3),
                rounds.between(row["over"]),
                "-" if size is None else f"{size / 1e6:,.0f}",
            )
            lines.append(f"| {' | '.join(entries)} |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    flags = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.attention",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = flags.add_argument
    add(
        "--shapes",
        type=encoder_flags.shapes,
        default="8x128,4x256,4x512",
        help="batch x length, between commas (8x128,4x256,4x512)",
    )
    add("--rounds", type=int, default=7, help="quiet rounds that count (7)")
    add("--retries", type=int, default=7, help="rounds repeated for foreign load (7)")
    add("--foreign", type=float, default=0.05, help="most share of others (0.05)")
    add("--least-seconds", type=float, default=0.1, help="of a variant in a round (.1)")
    add("--out", default="runs/benchmark-attention", help="a directory")
    return exit_code(lambda: benchmark(flags.parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
