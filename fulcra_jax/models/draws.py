# SPDX-License-Identifier: Apache-2.0
"""Which entries survive dropout, by a hash that costs a few operations an entry.

Threefry, the generator behind jax.random, is a noticeable part of a training step on a
CPU (`experiments.benchmarks.gradient`). Dropout needs no more than independent coins
that a key decides, so each entry's number is hashed with two words of the key. It fuses
with what reads it, and does not depend on how an array is divided among devices.
"""

import math

import jax
import jax.numpy as jnp

STEPS = 65536
"""Rates are rounded to one of so many."""

# Weyl's increment of the golden ratio, and the two multipliers of MurmurHash3's fmix32.
_GOLDEN, _FIRST, _SECOND = 0x9E3779B9, 0x85EBCA6B, 0xC2B2AE35


def survives(key: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
    """True with probability 1 - rate, independently for each entry.

    Args:
      key: PRNG key.
      rate: in [0, 1], rounded to a multiple of 2^-16.
      shape: of the result, at most 2^32 entries: their numbers are 32 bits wide.

    Returns:
      Bool of that shape; the same for the same key, rate and shape on any backend.

    Raises:
      ValueError: if there are more entries than numbers.

    Reference:
      Appleby 2011, MurmurHash3 (its finaliser); the second word of the key goes in
      between, so that the draws of two keys are no shifted copies.

    >>> alive = survives(jax.random.key(0), 0.25, (1000, 1000))
    >>> print(f"{alive.mean():.3f}")
    0.750
    """
    if math.prod(shape) > 2**32:
        raise ValueError(
            f"draws.survives: the shape is {shape}; it should have at most 2^32 "
            "entries."
        )
    add, mix = jax.random.bits(key, (2,), jnp.uint32)
    number, stride = jnp.zeros((), jnp.uint32), 1
    for axis in range(len(shape) - 1, -1, -1):
        place = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        number = number + place * jnp.uint32(stride % 2**32)
        stride *= shape[axis]
    hashed = number * jnp.uint32(_GOLDEN) + add
    hashed = (hashed ^ (hashed >> 16)) * jnp.uint32(_FIRST)
    hashed = hashed ^ mix
    hashed = (hashed ^ (hashed >> 13)) * jnp.uint32(_SECOND)
    hashed = hashed ^ (hashed >> 16)
    return (hashed >> 16) >= jnp.uint32(round(rate * STEPS))


def survivors(key: jax.Array, rate: float, x: jax.Array) -> jax.Array:
    """x with the dropped entries at zero and the others scaled up to keep the mean.

    Args:
      key: PRNG key.
      rate: as of `survives`, but below 1 when rounded.
      x: `[...]` float.

    >>> survivors(jax.random.key(0), 0.5, jnp.ones(4)).tolist()
    [2.0, 0.0, 0.0, 2.0]
    """
    factor = STEPS / (STEPS - round(rate * STEPS))
    alive = survives(key, rate, x.shape)
    return jnp.where(alive, x * jnp.asarray(factor, x.dtype), jnp.zeros((), x.dtype))
