# SPDX-License-Identifier: Apache-2.0
"""The encoder of fulcra_jax as the encoder benchmark runs it.

Needs jax, flax and numpy only, so that it runs on a machine that has nothing else.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax.configs import DebertaConfig
from fulcra_jax.models import Deberta, attention, deberta, position_tables, positions
from fulcra_jax.training import ceiling

Mode = Literal["forward", "training"]

MODELS: dict[str, DebertaConfig] = {
    "base": DebertaConfig(),
    "large": DebertaConfig(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
    ),
    "tiny": DebertaConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        position_buckets=8,
        max_position_embeddings=64,
    ),
}
"""Shapes of deberta-v3-base and -large, and one that only shows that all runs."""


class Variant(NamedTuple):
    """A way to run our encoder."""

    form: attention.Form
    positions: bool
    """False leaves the position terms out, at the same scale of the scores."""
    dtype: Any
    whole: bool = False
    """Whether every call projects all rows of the position table, used or not, as
    transformers does."""


class Inputs(NamedTuple):
    """A batch, and the fixed projection that makes a loss of its hidden states."""

    input_ids: np.ndarray
    """`[B, T]` int32."""
    mask: np.ndarray
    """`[B, T]` bool, padded on the right."""
    weights: np.ndarray
    """`[B, T, D]` float32, zero at padding: the loss is their product with the hidden
    states, summed."""


class Way(NamedTuple):
    """One program, ready to be timed."""

    call: Callable[[], object]
    """Runs it once and waits for the end."""
    result: Callable[[], np.ndarray]
    """What is compared between the libraries: the hidden states `[B, T, D]`, or the
    gradient of the first layer's query kernel `[D, D]`."""
    temp_bytes: int | None
    """Memory besides arguments and results; None where it is not known."""


def config_of(model: str, layers: int) -> DebertaConfig:
    """The shapes of a published model, without dropout and with a small vocabulary."""
    return dataclasses.replace(
        MODELS[model],
        num_hidden_layers=layers,
        vocab_size=1000,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def inputs_of(
    config: DebertaConfig, batch: int, length: int, *, padded: float, seed: int = 0
) -> Inputs:
    """A random batch; a share of its rows, rounded, is padded to a random length."""
    random = np.random.default_rng(seed)
    lengths = np.full(batch, length)
    rows = random.permutation(batch)[: round(padded * batch)]
    lengths[rows] = random.integers(length // 4 + 1, length + 1, len(rows))
    mask = np.arange(length) < lengths[:, None]
    ids = random.integers(1, config.vocab_size, (batch, length)) * mask
    weights = random.standard_normal((batch, length, config.hidden_size), np.float32)
    weights *= mask[..., None] / np.float32(mask.sum())
    return Inputs(ids.astype(np.int32), mask, weights)


def parameters(config: DebertaConfig) -> Any:
    """Random parameters, float32."""
    ids = jnp.ones((1, 8), jnp.int32)

    def init(key: jax.Array) -> Any:
        return Deberta(config).init(key, ids, ids > 0, deterministic=True)["params"]

    return jax.jit(init)(jax.random.key(0))


def way_of(
    config: DebertaConfig, params: Any, variant: Variant, mode: Mode, inputs: Inputs
) -> Way:
    """The compiled program of a variant."""
    if not variant.positions:
        # The scale follows from the configured terms, whether or not they are computed.
        config = dataclasses.replace(config, relative_attention=False)
        params = {k: v for k, v in params.items() if not k.startswith("relative")}
    model = Deberta(config, variant.dtype, variant.form)
    batch = jax.tree.map(jnp.asarray, inputs)
    if mode == "forward":
        run, given = inference(model, params, cached=not variant.whole)
        arguments = (given, batch.input_ids, batch.mask)
    else:
        run, arguments = gradient(model), (params, batch)
    with rows_in_use(variant):
        program = jax.jit(run).lower(*arguments).compile()

    def call() -> Any:
        return jax.block_until_ready(program(*arguments))

    def result() -> np.ndarray:
        found = call()
        if mode == "training":
            found = found["layer_0"]["attention"]["query"]["kernel"]
        return np.asarray(found, np.float32)

    return Way(call, result, temp_bytes(program))


@contextlib.contextmanager
def rows_in_use(variant: Variant) -> Iterator[None]:
    """All rows of the position table are in use in what is traced, if the variant's."""
    if not variant.whole:
        yield
        return

    def every(length: int, buckets: int, max_distance: int) -> positions.Used:
        slots = positions.slot_of_distance(
            length, buckets=buckets, max_distance=max_distance
        )
        return positions.Used(0, 2 * (buckets if buckets > 0 else max_distance), slots)

    with mock.patch.object(positions, "used", every):
        yield


def inference(
    model: Deberta, params: Any, *, cached: bool = True
) -> tuple[Callable[..., jax.Array], Any]:
    """A forward pass as one that answers requests runs it.

    Where they are cached, the position tables are computed once, beside the parameters
    in what is returned.

    Returns:
      A function of (what is given, input_ids, mask), and what is given.
    """
    tables = None
    if cached:
        compute = lambda params: position_tables(model.config, params, model.dtype)
        tables = jax.jit(compute)(params)

    def run(given: Any, input_ids: jax.Array, mask: jax.Array) -> jax.Array:
        params, tables = given
        hidden = model.apply(
            {"params": params}, input_ids, mask, deterministic=True, tables=tables
        )
        return hidden  # pyright: ignore[reportReturnType]

    # Matrices in the compute dtype; vectors are small, and norms keep float32.
    cast = lambda leaf: leaf.astype(model.dtype) if leaf.ndim > 1 else leaf
    return run, (jax.tree.map(cast, params), tables)


def gradient(model: Deberta) -> Callable[[Any, Inputs], Any]:
    """The gradient of the loss with respect to all parameters."""

    def loss(params: Any, batch: Inputs) -> jax.Array:
        hidden: Any = model.apply(
            {"params": params}, batch.input_ids, batch.mask, deterministic=True
        )
        return (hidden.astype(jnp.float32) * batch.weights).sum()

    return jax.grad(loss)


def attention_temp_bytes(
    config: DebertaConfig, variant: Variant, batch: int, length: int
) -> int | None:
    """Temporary memory of one attention module, forward and backward.

    The gradient is that of its parameters, of the hidden states and of the rows of the
    position table.
    """
    dtype, D = variant.dtype, config.hidden_size
    layer = deberta.Attention(config, dtype, variant.form)
    x = jnp.zeros((batch, length, D), dtype)
    mask = jax.ShapeDtypeStruct((batch, length), bool)
    relative = None
    if variant.positions:
        with rows_in_use(variant):
            used = positions.used(length, config.position_buckets, config.max_distance)
        relative = jnp.zeros((used.last - used.first, D), dtype)

    def loss(
        params: Any, x: jax.Array, relative: jax.Array | None, mask: jax.Array
    ) -> jax.Array:
        variables = {"params": params}
        y: Any = layer.apply(variables, x, mask, None, relative, None, True, x, None)
        # Not a plain sum: the gradient has to reach every product.
        return jnp.square(y.astype(jnp.float32)).sum()

    def init(key: jax.Array, mask: jax.Array) -> Any:
        return layer.init(key, x, mask, None, relative, None, True, x, None)["params"]

    params = jax.eval_shape(init, jax.random.key(0), mask)
    # A gradient with respect to None is none.
    step = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    with rows_in_use(variant):
        program = step.lower(params, x, relative, mask)
    return temp_bytes(program.compile())


def temp_bytes(program: Any) -> int | None:
    """Temporary memory of a compiled program; None where XLA does not say."""
    found = program.memory_analysis()
    return None if found is None else int(found.temp_size_in_bytes)


def flops_of(
    config: DebertaConfig, batch: int, length: int, mode: Mode
) -> dict[str, int]:
    """Multiplications and additions of the matrix products, two for each pair.

    The parts are those of `ceiling.encoder_flops`; a training step has three times as
    many. A share of the ceiling counts all but the positions: the work of an encoder
    without them, so that what a form of the position terms computes in excess does not
    count as work done.

    >>> one = dataclasses.replace(MODELS["base"], num_hidden_layers=1)
    >>> flops_of(one, 1, 512, "forward")["mlp"] == 4 * 512 * 768 * 3072
    True
    """
    times = 1 if mode == "forward" else 3
    forward = ceiling.encoder_flops(config, batch, length)
    parts = {name: times * flops for name, flops in forward.items()}
    return parts | {"counted": sum(parts.values()) - parts["positions"]}


def matmul_flops(dtype: Any, *, small: bool = False) -> float:
    """The best FLOP/s of a few large matrix products: what a share is a share of."""
    return ceiling.matmul_ceiling(dtype, size=64 if small else None)
