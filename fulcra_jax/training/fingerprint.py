# SPDX-License-Identifier: Apache-2.0
"""A number for the bits of an array, the same on every mesh.

Compression and file formats notice some damage to a file; this notices damage to what
was in it.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp


def fingerprints(tree: Any) -> dict[str, int]:
    """A 32-bit number for every leaf, by its path.

    sum_i mix(bits_i xor mix(i)) modulo 2^32, where mix is a permutation of the 32-bit
    numbers. A changed element changes the number; several, or elements in each other's
    places, leave it with a probability of 2^-32. Unsigned sums do not depend on their
    order, so that neither the mesh nor the number of processes matters.

    Args:
      tree: arrays of any shape and sharding; of numbers or bool, not PRNG keys. With
        several processes all of them have to call this.

    Returns:
      Numbers in [0, 2^32) by "a/b/kernel".

    >>> fingerprints({"a": jnp.zeros(2), "b": jnp.array([0.0, -0.0])})
    {'a': 804215951, 'b': 2681447471}
    """
    leaves = {name: jnp.asarray(leaf) for name, leaf in named(tree).items()}
    groups: dict[Any, list[str]] = {}
    for name, leaf in leaves.items():
        groups.setdefault(frozenset(leaf.devices()), []).append(name)
    found = {}
    for group in groups.values():
        # One program at a time: the sums of two would meet in another order on another
        # process, and wait for each other for ever.
        numbers = jax.device_get(_fingerprints([leaves[name] for name in group]))
        found |= dict(zip(group, map(int, numbers), strict=True))
    return {name: found[name] for name in leaves}


def named(tree: Any) -> dict[str, Any]:
    """The leaves by path; the fields of a named tuple are names like keys of a dict.

    >>> named({"a": [1, 2]})
    {'a/0': 1, 'a/1': 2}
    """
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


@jax.jit
def _fingerprints(leaves: list[jax.Array]) -> list[jax.Array]:
    return [_fingerprint(leaf) for leaf in leaves]


def _fingerprint(leaf: jax.Array) -> jax.Array:
    # No reshape: of a sharded leaf that would gather it on every device.
    bits = _bits(leaf)
    place = jnp.zeros(bits.shape, jnp.uint32)
    for axis in range(bits.ndim):
        stride = math.prod(bits.shape[axis + 1 :]) % 2**32
        along = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
        place += along * jnp.uint32(stride)
    return jnp.sum(_mix(bits ^ _mix(place)), dtype=jnp.uint32)


def _bits(leaf: jax.Array) -> jax.Array:
    """The bit pattern as uint32; 64 bits become one more axis of two."""
    if leaf.dtype == jnp.bool_:
        return leaf.astype(jnp.uint32)
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        return _bits(jnp.stack([leaf.real, leaf.imag], axis=-1))
    unsigned = {1: jnp.uint8, 2: jnp.uint16}.get(leaf.dtype.itemsize, jnp.uint32)
    return jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)


def _mix(x: jax.Array) -> jax.Array:
    """The finaliser of MurmurHash3 (Appleby 2011)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
