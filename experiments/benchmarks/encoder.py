# SPDX-License-Identifier: Apache-2.0
"""The encoder beside itself without positions, its gather form, transformers.

python -m experiments.benchmarks.encoder                      4 layers of v3-base

python -m experiments.benchmarks.encoder --layers 1 --rounds 3 --shapes 8x128

python -m experiments.benchmarks.encoder --model large --layers 24 --dtype bfloat16
  --shapes 16x512,32x512                                      on a GPU

All variants have the same parameters and inputs, and are timed in turn in every round.
A training step is forward and backward with respect to all parameters, without an
optimizer; the loss is a fixed random projection of the hidden states; dropout is off. A
round beside which other processes used the CPU is repeated; where no quiet one is
found, the figures are void and say so (on a GPU foreign load is shown only). A
share of the ceiling counts the matrix products of an encoder without positions against
the best of a few large products in the same run. Needs jax, flax and numpy; torch and
transformers, flashdeberta and matplotlib where they are installed. Writes
OUT/encoder.md, encoder.json, encoder.png.
"""

import argparse
import gc
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

# Before jax starts: on a GPU it would take three quarters of the memory from torch.
os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import encoder_ours, encoder_report, rounds
from experiments.benchmarks.encoder_flags import (
    TORCH,
    Shape,
    cells_of,
    check,
    parser,
)
from experiments.benchmarks.encoder_ours import Inputs, Mode, Variant, Way
from experiments.exits import exit_code
from fulcra_jax.configs import DebertaConfig

FILES = ("encoder.json", "encoder.md", "encoder.png")


def benchmark(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures cell after cell, writes table, figures and plot."""
    check(arguments)
    out = rounds.directory("benchmarks.encoder", arguments.out, FILES)
    config = encoder_ours.config_of(arguments.model, arguments.layers)
    params = encoder_ours.parameters(config)
    report: dict[str, Any] = {
        "arguments": vars(arguments),
        "machine": about(arguments),
        "load before": rounds.load_average(),
        "ceiling": 0.0,
        "cells": [],
        "attention": [],
    }
    dtype = jnp.dtype(arguments.dtype)
    for shape, mode in cells_of(arguments):
        print(f"{encoder_report.named(shape, mode)} ...", flush=True)
        best = encoder_ours.matmul_flops(dtype, small=arguments.model == "tiny")
        report["ceiling"] = max(report["ceiling"], best)
        report["cells"].append(cell(arguments, config, params, shape, mode))
        gc.collect()  # Programs and models of a cell go before the next is compiled.
    if arguments.memory:
        report["attention"] = attention_memory(arguments, config)
    report["load after"] = rounds.load_average()
    report["bars"] = [bar._asdict() for bar in encoder_report.bars(report)]
    (out / "encoder.json").write_text(json.dumps(report, indent=1) + "\n")
    text = encoder_report.text(report)
    (out / "encoder.md").write_text(text)
    print("\n" + text)
    print(encoder_report.plot(report, out / "encoder.png"))
    return report


def cell(
    arguments: argparse.Namespace,
    config: DebertaConfig,
    params: Any,
    shape: Shape,
    mode: Mode,
) -> dict[str, Any]:
    """One shape, forward or training: compiles, compares, measures."""
    inputs = encoder_ours.inputs_of(config, *shape, padded=arguments.padded)
    ways, missing = ways_of(arguments, config, params, mode, inputs)
    results = {name: way.result() for name, way in ways.items()}
    differences = compared(results, inputs, mode)
    for name, reason in wrong(differences, mode, arguments.dtype).items():
        missing[name] = reason
        del ways[name]
    measured = rounds.measure(
        {name: way.call for name, way in ways.items()},
        rounds=arguments.rounds,
        retries=arguments.retries,
        least_seconds=arguments.least_seconds,
        foreign_limit=arguments.foreign if jax.default_backend() == "cpu" else None,
    )
    found = {
        "shape": list(shape),
        "mode": mode,
        "flops": encoder_ours.flops_of(config, *shape, mode),
        "missing": missing,
        "variants": {
            name: {
                "seconds": measured.seconds(name),
                "cpu": measured.seconds(name, "cpu"),
                "temp_bytes": way.temp_bytes,
                "difference": differences.get(name),
                "ratios": {
                    base: measured.ratio(name, base)
                    for base in ("off", "skew")
                    if base in ways
                },
                "cpu_ratios": {
                    base: measured.ratio(name, base, "cpu")
                    for base in ("off", "skew")
                    if base in ways
                },
            }
            for name, way in ways.items()
        },
        **measured.to_json(),
    }
    if mode == "forward":
        found["precision"] = precision(config, params, inputs, results, arguments.dtype)
    return found


def ways_of(
    arguments: argparse.Namespace,
    config: DebertaConfig,
    params: Any,
    mode: Mode,
    inputs: Inputs,
) -> tuple[dict[str, Way], dict[str, str]]:
    """The variants that can be had, and why the others cannot."""
    ways: dict[str, Way] = {}
    missing = {name: "skipped" for name in arguments.skip}
    for name, variant in variants_of(arguments).items():
        ways[name] = encoder_ours.way_of(config, params, variant, mode, inputs)
    for name in TORCH:
        if name in arguments.skip:
            continue
        if absent():
            missing[name] = f"{', '.join(absent())} not installed"
            continue
        from experiments.benchmarks import encoder_references

        try:
            ways[name] = encoder_references.way_of(
                name,
                config,
                params,
                mode,
                inputs,
                bfloat16=arguments.dtype == "bfloat16",
                compile_limit=arguments.compile_limit,
            )
        except encoder_references.Unavailable as error:
            missing[name] = str(error)
            print(f"  {name}: not measured: {error}", flush=True)
    return ways, missing


def absent() -> list[str]:
    """What the references need and is not installed."""
    needed = ("torch", "transformers", "safetensors")
    return [name for name in needed if importlib.util.find_spec(name) is None]


def variants_of(arguments: argparse.Namespace) -> dict[str, Variant]:
    """Ours by name."""
    dtype = jnp.dtype(arguments.dtype)
    ours = {
        "skew": Variant("skew", True, dtype),
        "gather": Variant("gather", True, dtype),
        "whole": Variant("gather", True, dtype, whole=True),
        "off": Variant("skew", False, dtype),
        # What autodiff makes of attention without positions: it keeps probabilities.
        "plain": Variant("gather", False, dtype),
    }
    if jax.default_backend() == "gpu" and arguments.dtype == "bfloat16":
        ours["cudnn"] = Variant("cudnn", True, dtype)
    if also_bfloat16(arguments):
        ours["bfloat16"] = Variant("skew", True, jnp.dtype("bfloat16"))
    return {name: x for name, x in ours.items() if name not in arguments.skip}


def also_bfloat16(arguments: argparse.Namespace) -> bool:
    """Whether a float32 run has ours in bfloat16 beside it."""
    if arguments.dtype == "bfloat16" or arguments.bfloat16 == "no":
        return False
    fast = "amx_bf16" in rounds.machine()["bfloat16 instructions"]
    on_cpu = jax.default_backend() == "cpu"
    return arguments.bfloat16 == "yes" or (on_cpu and fast)


def compared(
    results: dict[str, np.ndarray], inputs: Inputs, mode: Mode
) -> dict[str, float]:
    """Largest differences from ours at tokens, relative to its largest entry."""
    here = inputs.mask if mode == "forward" else ...
    ours = results["skew"][here]
    return {
        name: float(np.abs(result[here] - ours).max() / np.abs(ours).max())
        for name, result in results.items()
        if name not in ("skew", "off", "plain")
    }


def wrong(differences: dict[str, float], mode: Mode, dtype: str) -> dict[str, str]:
    """Fast references whose figures are not those of the encoder, and why.

    Raises:
      ValueError: if our two forms, or transformers itself, differ: speed of wrong
        figures is worth nothing.
    """
    # TF32, which accelerators use, has ten bits; bfloat16 has seven.
    limit = 1e-3 if jax.default_backend() == "cpu" else 3e-2
    found = {}
    for name, difference in differences.items():
        most = limit if dtype == "float32" and name != "bfloat16" else 0.5
        if difference <= most:
            continue
        reason = f"differs from ours by {difference:.1e} in {mode}"
        if name not in ("compiled", "flash"):
            raise ValueError(
                f"benchmarks.encoder: {name} {reason}; expected at most {most:.0e}."
            )
        found[name] = reason
    return found


def precision(
    config: DebertaConfig,
    params: Any,
    inputs: Inputs,
    results: dict[str, np.ndarray],
    dtype: str,
) -> dict[str, dict[str, float]]:
    """What bfloat16 does to the hidden states and to a random classifier on them."""
    names = ("skew", "eager") if dtype == "bfloat16" else ("bfloat16",)
    names = [name for name in names if name in results]
    if not names:
        return {}
    exact = results["skew"]
    if dtype == "bfloat16":
        plain = Variant("skew", True, jnp.dtype("float32"))
        way = encoder_ours.way_of(config, params, plain, "forward", inputs)
        exact = way.result()
    exact = exact[inputs.mask]
    random = np.random.default_rng(1)
    classifier = random.standard_normal((exact.shape[1], 3), np.float32)
    found = {}
    for name in names:
        state = results[name][inputs.mask]
        changed = (state @ classifier).argmax(1) != (exact @ classifier).argmax(1)
        found[name] = {
            "largest": float(np.abs(state - exact).max()),
            "rms": float(np.sqrt(np.square(state - exact).mean())),
            "rms of the states": float(np.sqrt(np.square(exact).mean())),
            "classes changed": float(changed.mean()),
            "tokens": int(inputs.mask.sum()),
        }
    return found


def attention_memory(
    arguments: argparse.Namespace, config: DebertaConfig
) -> list[dict[str, Any]]:
    """Temporary memory of one attention module, forward and backward."""
    return [
        {
            "shape": [batch, length],
            "variant": name,
            "temp_bytes": encoder_ours.attention_temp_bytes(
                config, variant, batch, length
            ),
        }
        for batch, length in dict.fromkeys(shape for shape, _ in cells_of(arguments))
        for name, variant in variants_of(arguments).items()
        if batch > 1
    ]


def about(arguments: argparse.Namespace) -> dict[str, Any]:
    """Machine, versions, threads."""
    found = rounds.machine() | {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "numpy": np.__version__,
    }
    if not absent() and not set(TORCH) <= set(arguments.skip):
        from experiments.benchmarks import encoder_references

        found |= encoder_references.about()
    for name in ("XLA_FLAGS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        if os.environ.get(name):
            found[name] = os.environ[name]
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = parser(__doc__ or "").parse_args(argv)
    return exit_code(lambda: benchmark(arguments))


if __name__ == "__main__":
    sys.exit(main())
