# SPDX-License-Identifier: Apache-2.0
"""What the gradient of a small encoder spends on dropout and on kernels' gradients.

python -m experiments.benchmarks.gradient

One gradient of an encoder without position terms (MiniLM's sizes) on random tokens, in
four ways in turn: as it is; with threefry's coins for dropout in place of the hash of
`models.draws`; with kernels' gradients as contractions over the two axes of rows and
tokens, in place of one; and with both, as it was before. Writes OUT/gradient.json and
gradient.md.
"""

import argparse
import contextlib
import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import rounds
from experiments.exits import exit_code
from fulcra_jax.configs import DebertaConfig
from fulcra_jax.models import Deberta, _parts, draws

WAYS = {
    "as it is": (False, False),
    "threefry": (True, False),
    "two axes": (False, True),
    "both": (True, True),
}
"""Name -> whether dropout is threefry's, and whether kernels see two axes."""


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.gradient",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = flags.add_argument
    add("--rows", type=int, default=8, help="rows of a batch")
    add("--length", type=int, default=128, help="tokens of a row")
    add("--width", type=int, default=384, help="of a hidden state, a multiple of 32")
    add("--layers", type=int, default=6)
    add("--rounds", type=int, default=9)
    add("--out", default="runs/benchmarks/gradient")
    return flags


def check(flags: argparse.Namespace) -> None:
    """Raises ValueError for what cannot be measured."""
    for name in ("rows", "length", "width", "layers", "rounds"):
        if getattr(flags, name) < 1:
            raise ValueError(
                f"benchmarks.gradient: {name} is {getattr(flags, name)}; it should be "
                "at least 1."
            )
    if flags.width % 32:
        raise ValueError(
            f"benchmarks.gradient: width is {flags.width}; it should be a multiple of "
            "32."
        )
    if flags.length > 512:
        raise ValueError(
            f"benchmarks.gradient: length is {flags.length}; it should be at most 512."
        )


@contextlib.contextmanager
def _as(way: str) -> Iterator[None]:
    threefry, two_axes = WAYS[way]
    with contextlib.ExitStack() as stack:
        if threefry:
            coins: Any = lambda key, rate, shape: jax.random.bernoulli(
                key, 1.0 - rate, shape
            )
            stack.enter_context(mock.patch.object(draws, "survives", coins))
        if two_axes:
            plain = jax.lax.dot_general
            stack.enter_context(mock.patch.object(_parts, "_product", plain))
        yield


def gradient_of(flags: argparse.Namespace, way: str) -> Callable[[], jax.Array]:
    """A call that computes one gradient and waits for it; returns its norm."""
    config = DebertaConfig.from_hf(
        {
            "model_type": "bert",
            "vocab_size": 1000,
            "hidden_size": flags.width,
            "intermediate_size": 4 * flags.width,
            "num_attention_heads": flags.width // 32,
            "num_hidden_layers": flags.layers,
            "max_position_embeddings": 512,
            "type_vocab_size": 2,
        }
    )
    model, shape = Deberta(config), (flags.rows, flags.length)
    random = np.random.default_rng(0)
    ids = jnp.asarray(random.integers(1, 1000, shape), jnp.int32)
    weights = jnp.asarray(random.normal(size=(*shape, flags.width)), jnp.float32)
    mask, key = jnp.ones(shape, bool), jax.random.key(1)

    def init(key: jax.Array) -> Any:
        return model.init(key, ids, mask, deterministic=True)["params"]

    def loss(params: Any) -> jax.Array:
        rngs = {"dropout": key}
        hidden: Any = model.apply(
            {"params": params}, ids, mask, deterministic=False, rngs=rngs
        )
        return (hidden * weights).sum()

    def gradient(params: Any) -> tuple[Any, jax.Array]:
        grads = jax.grad(loss)(params)
        leaves = jax.tree.leaves(grads)
        return grads, jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in leaves))

    params = jax.jit(init)(jax.random.key(0))
    with _as(way):
        program = jax.jit(gradient).lower(params).compile()
    return lambda: jax.block_until_ready(program(params))[1]


def measure(flags: argparse.Namespace) -> dict[str, Any]:
    """Times the ways in turn, and writes down what they took."""
    check(flags)
    ways = {name: gradient_of(flags, name) for name in WAYS}
    found = rounds.measure(
        ways, rounds=flags.rounds, retries=0, least_seconds=0.0, foreign_limit=None
    )
    report = {
        "sizes": {k: v for k, v in vars(flags).items() if k != "out"},
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "cores": rounds.cores(),
        "seconds": {name: found.seconds(name) for name in ways},
        "of as it is": {name: found.ratio(name, "as it is") for name in ways},
        **found.to_json(),
    }
    lines = ["| way | ms | to as it is |", "| --- | ---: | ---: |"]
    for name in ways:
        ms, ratio = report["seconds"][name], report["of as it is"][name]
        lines.append(
            f"| {name} | {1000 * ms['median']:.0f} | {ratio['median']:.2f} "
            f"[{ratio['low']:.2f}, {ratio['high']:.2f}] |"
        )
    folder = pathlib.Path(flags.out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gradient.json").write_text(json.dumps(report, indent=1))
    text = "\n".join(lines) + "\n"
    (folder / "gradient.md").write_text(text)
    print(text)
    return report


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return exit_code(lambda: measure(parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
