# SPDX-License-Identifier: Apache-2.0
"""Sums of many numbers in float32 that keep their digits."""

import math

import jax
import jax.numpy as jnp


def segment_sum(values: jax.Array, segment: jax.Array, num_segments: int) -> jax.Array:
    """`[G, ...]` the sum of `values` `[N, ...]` per segment id `[N]`.

    An id outside `[0, G)` is left out and its values are never read. One running sum
    over a million numbers in float32 loses up to 1 % of it; sums of sqrt(N) blocks,
    added up afterwards, are as good as the numbers.
    """
    n = values.shape[0]
    inside = (segment >= 0) & (segment < num_segments)
    tail = (1,) * (values.ndim - 1)
    values = jnp.where(inside.reshape(-1, *tail), values, 0)
    segment = jnp.where(inside, segment, 0)
    entries = num_segments * math.prod(values.shape[1:])
    # The partial sums take no more memory than four times the values.
    blocks = max(1, min(math.isqrt(n), 4 * values.size // max(entries, 1)))
    length = -(-n // blocks)
    pad = blocks * length - n
    values = jnp.pad(values, [(0, pad), *[(0, 0)] * (values.ndim - 1)])
    segment = jnp.pad(segment, (0, pad))
    block = jnp.arange(blocks * length) // max(length, 1)
    partial = jnp.zeros((blocks, num_segments, *values.shape[1:]), values.dtype)
    return partial.at[block, segment].add(values).sum(0)
