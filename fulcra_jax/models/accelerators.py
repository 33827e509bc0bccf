# SPDX-License-Identifier: Apache-2.0
"""Attention kernels of others that take a bias, for GPU and TPU.

The position terms are computed by `position_bias.skew_bias` and handed over as one
`[B, H, T, T]` array, of which the kernel also returns the cotangent. Neither kernel
knows attention dropout. Axes as in `attention`: `[H, B, T, K]`.
"""

import contextlib
from collections.abc import Iterator
from typing import Literal

import jax
import jax.numpy as jnp

_LANES = 128
"""Lengths that the TPU kernel takes are multiples of this."""


def cudnn_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    bias_hbts: jax.Array | None,
    mask: jax.Array,
    segment_ids: jax.Array | None,
    *,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> jax.Array:
    """softmax(q k + bias) v by cuDNN's fused attention.

    Args:
      q: `[H, B, T, K]` scaled queries, bfloat16 or float16.
      k: `[H, B, T, K]` keys.
      v: `[H, B, T, K]` values.
      bias_hbts: `[H, B, T, T]`, or None.
      mask: `[B, T]` bool, False for padding, which no token attends to.
      segment_ids: `[B, T]` int, or None.
      implementation: "cudnn", or "xla" for the same call without it (tests).

    Returns:
      `[H, B, T, K]`; what stands at padding has no meaning.

    Raises:
      RuntimeError: of jax, if there is no GPU or cuDNN does not take the shape.

    Reference:
      `jax.nn.dot_product_attention`.
    """
    may_bts = mask[:, None, :]
    if segment_ids is not None:
        may_bts &= segment_ids[:, :, None] == segment_ids[:, None, :]
    may_bts = jnp.broadcast_to(may_bts, (*mask.shape, mask.shape[1]))
    # [H, B, T, K] -> [B, T, H, K]
    q, k, v = (x.transpose(1, 2, 0, 3) for x in (q, k, v))
    if bias_hbts is not None:
        bias_hbts = bias_hbts.swapaxes(0, 1)
    try:
        out = jax.nn.dot_product_attention(
            q, k, v, bias_hbts, may_bts[:, None], scale=1.0,
            implementation=implementation,
        )  # fmt: skip
    except RuntimeError as error:
        raise RuntimeError(
            f"attention: form 'cudnn' needs a GPU with cuDNN and a shape that it takes "
            f"({error})"
        ) from error
    return out.transpose(2, 0, 1, 3)


def pallas_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    bias_hbts: jax.Array | None,
    mask: jax.Array,
    segment_ids: jax.Array | None,
) -> jax.Array:
    """softmax(q k + bias) v by the flash attention kernel that jax brings for TPU.

    Lengths that are no multiple of 128 are padded to one.

    Args:
      q: `[H, B, T, K]` scaled queries.
      k: `[H, B, T, K]` keys.
      v: `[H, B, T, K]` values.
      bias_hbts: `[H, B, T, T]`, or None.
      mask: `[B, T]` bool, False for padding, which no token attends to.
      segment_ids: `[B, T]` int >= 0, or None.

    Returns:
      `[H, B, T, K]`; what stands at padding has no meaning.

    Raises:
      RuntimeError: outside of `jit`, if there is no TPU.

    Reference:
      `jax.experimental.pallas.ops.tpu.flash_attention`; Dao et al. 2022
      (arXiv 2205.14135).
    """
    # Imported here: who has no TPU should not depend on where jax keeps its kernels.
    from jax.experimental.pallas.ops.tpu import flash_attention as pallas_flash

    T = q.shape[2]
    pad = -T % _LANES
    # Padding is a segment of its own: it sees itself alone, and nothing is undefined.
    one = jnp.zeros(mask.shape, jnp.int32) if segment_ids is None else segment_ids
    ids = jnp.pad(jnp.where(mask, one + 1, 0), ((0, 0), (0, pad)))
    heads = ((0, 0), (0, 0), (0, pad), (0, 0))
    q, k, v = (jnp.pad(x.swapaxes(0, 1), heads) for x in (q, k, v))
    if bias_hbts is not None:
        square = ((0, 0), (0, 0), (0, pad), (0, pad))
        bias_hbts = jnp.pad(bias_hbts.swapaxes(0, 1), square)
    segments = pallas_flash.SegmentIds(ids, ids)
    with on_tpu("pallas"):
        out = pallas_flash.flash_attention(q, k, v, bias_hbts, segments)
    return out[:, :, :T].swapaxes(0, 1)


@contextlib.contextmanager
def on_tpu(form: str) -> Iterator[None]:
    """Says which form needs a TPU where jax says that a CPU can but interpret.

    Not asked for in advance: a program may be lowered for a TPU that is elsewhere.
    Under `jit` jax lowers later, and its own words are seen.

    Raises:
      RuntimeError: if a kernel was to run on a CPU.
    """
    try:
        yield
    except ValueError as error:
        if "interpret mode" not in str(error):
            raise
        raise RuntimeError(
            f"attention: form {form!r} is a kernel for TPU, which is not here; use "
            f"form 'skew' ({error})"
        ) from error
