# SPDX-License-Identifier: Apache-2.0
"""What a device can do at best, and how much work a training step is.

Work is counted in FLOPs: multiplications and additions of matrix products, two for each
pair. B rows, T tokens in a row, D width, F MLP width, L layers, S texts in a row.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fulcra_jax.configs import DebertaConfig, EvaluatorConfig

# Rows, inner width, columns. The first is a layer of deberta-v3-base.
_ON_CPU = ((1024, 768, 3072), (2048, 2048, 2048))
_ON_ACCELERATOR = ((4096, 4096, 4096), (8192, 8192, 8192))
_TURNS = 5


def matmul_ceiling(
    dtype: Any,
    *,
    size: int | None = None,
    seconds: float = 0.5,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """The best FLOP/s of a few large matrix products on the default device.

    Args:
      dtype: of the factors.
      size: of square factors; None takes two sizes that suit the device.
      seconds: how long to measure in all, about; each size is measured five times, with
        at least two products each.
      clock: seconds.

    Returns:
      FLOP/s of one device, positive.

    Raises:
      ValueError: if size or seconds is not positive.

    >>> matmul_ceiling(jnp.float32, size=64, seconds=0.01) > 0
    True
    """
    for name, number in (("size", size), ("seconds", seconds)):
        if number is not None and not number > 0:
            raise ValueError(
                f"ceiling.matmul_ceiling: {name} is {number}; it should be positive."
            )
    shapes = _ON_CPU if jax.default_backend() == "cpu" else _ON_ACCELERATOR
    if size is not None:
        shapes = ((size, size, size),)
    turn = seconds / len(shapes) / _TURNS
    return max(_flops_per_second(dtype, shape, turn, clock) for shape in shapes)


def _flops_per_second(
    dtype: Any, shape: tuple[int, int, int], turn: float, clock: Callable[[], float]
) -> float:
    """The best of a few turns, each of about so many seconds."""
    rows, inner, columns = shape
    a, b = jnp.ones((rows, inner), dtype), jnp.ones((inner, columns), dtype)
    product = jax.jit(jnp.matmul).lower(a, b).compile()

    def timed(calls: int) -> float:
        start = clock()
        # In one queue, so that an accelerator does not wait for the host.
        jax.block_until_ready([product(a, b) for _ in range(calls)])
        return (clock() - start) / calls

    timed(1)
    # No more: all results are in memory at once.
    calls = min(max(round(turn / timed(2)), 2), 20)
    return 2.0 * rows * inner * columns / min(timed(calls) for _ in range(_TURNS))


def encoder_flops(config: DebertaConfig, rows: int, length: int) -> dict[str, int]:
    """FLOPs of the encoder's forward pass, by part.

    projections  4 products of [B T, D] and [D, D]           8 B T D^2 L
    mlp          2 products of [B T, D] and [D, F]           4 B T D F L
    attention    scores and weighted values, T^2 D each      4 B T^2 D L
    positions    a score more for each of c2p and p2c, as
                 the equation has them                       2 B T^2 D L each
    convolution  v2's, K taps in G groups                    2 B T K D^2 / G
    embedding    from embeddings of another width E          2 B T E D

    What a form of the position terms computes besides, as the tables, is not counted.

    Args:
      config: the encoder's.
      rows: B.
      length: T, padding included.

    >>> one = DebertaConfig(num_hidden_layers=1)
    >>> encoder_flops(one, 1, 512)["mlp"] == 4 * 512 * 768 * 3072
    True
    """
    B, T, L = rows, length, config.num_hidden_layers
    D, F, E = config.hidden_size, config.intermediate_size, config.embedding_width
    terms = len({"c2p", "p2c"} & set(config.pos_att_type))
    if not config.relative_attention:
        terms = 0
    taps = config.conv_kernel_size
    return {
        "projections": 8 * B * T * D * D * L,
        "mlp": 4 * B * T * D * F * L,
        "attention": 4 * B * T * T * D * L,
        "positions": 2 * terms * B * T * T * D * L,
        "convolution": 2 * B * T * taps * D * D // config.conv_groups,
        "embedding": 0 if E == D else 2 * B * T * E * D,
    }


def evaluator_flops(
    config: EvaluatorConfig,
    rows: int,
    length: int,
    *,
    segments: int = 1,
    positions: bool = False,
) -> float:
    """FLOPs of a training step of the evaluator: three times the forward pass.

    Padding counts, and a packed row counts like any other row of its length. What the
    backward pass computes again to save memory does not count, nor does the pooling.

    Args:
      config: encoder and head.
      rows: B, of the batch on all devices.
      length: T, padding included.
      segments: S, places for texts in a row of a packed batch.
      positions: whether the position terms count. Without them it is the work of an
        encoder without positions, as in the encoder benchmark: computing them in some
        wasteful way does not count as work done.

    Returns:
      The FLOPs, positive.

    Raises:
      ValueError: if rows, length or segments is less than 1.

    >>> config = EvaluatorConfig(DebertaConfig(num_hidden_layers=1))
    >>> evaluator_flops(config, 2, 128) == 2 * evaluator_flops(config, 1, 128)
    True
    """
    for name, number in (("rows", rows), ("length", length), ("segments", segments)):
        if number < 1:
            raise ValueError(
                f"ceiling.evaluator_flops: {name} is {number}; it should be at least 1."
            )
    head, D = config.head, config.encoder.hidden_size
    parts = encoder_flops(config.encoder, *head.reads(rows, length, segments))
    if head.encodes_definitions:
        longest = max(map(len, getattr(head, "definitions", ())), default=1)
        beside = encoder_flops(config.encoder, head.num_values, longest)
        parts = {name: parts[name] + flops for name, flops in beside.items()}
    if not positions:
        del parts["positions"]
    parts["head"] = int(rows * head.flops(D, config.num_classes, length, segments))
    return 3.0 * sum(parts.values())
