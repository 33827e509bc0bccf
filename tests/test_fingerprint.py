# SPDX-License-Identifier: Apache-2.0
"""The fingerprint of a leaf: a definition in plain integers, every mesh, any change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from fulcra_jax.training import fingerprint

WORD = 2**32


def mixed(x):
    """MurmurHash3's fmix32, in Python's integers."""
    x = (x ^ x >> 16) * 0x85EBCA6B % WORD
    x = (x ^ x >> 13) * 0xC2B2AE35 % WORD
    return x ^ x >> 16


def by_hand(array):
    bits = np.asarray(array).ravel().view(f"u{min(array.dtype.itemsize, 4)}")
    return sum(mixed(int(b) ^ mixed(i)) for i, b in enumerate(bits)) % WORD


def number(leaf):
    return fingerprint.fingerprints({"a": leaf})["a"]


def test_the_mixer_is_murmurs():
    # fmix32(1), as the reference implementation gives it.
    assert mixed(1) == 0x514E28B7
    assert number(jnp.uint32(1)) == 0x514E28B7


@pytest.mark.parametrize(
    "dtype", ["float32", "bfloat16", "float16", "int32", "uint32", "int8", "bool"]
)
@pytest.mark.parametrize("shape", [(), (7,), (3, 5), (2, 3, 4), (0,), (0, 3)])
def test_equals_the_definition(dtype, shape):
    drawn = np.random.default_rng(0).normal(size=shape) * 50
    leaf = jnp.asarray(drawn).astype(dtype)
    assert number(leaf) == by_hand(leaf)


def test_64_bits_and_complex_numbers_count_as_pairs():
    pairs = np.array([[1.5, -2.0], [0.0, 3.0]], np.float32)
    leaf = jnp.asarray(pairs[:, 0] + 1j * pairs[:, 1])
    assert leaf.dtype == jnp.complex64
    assert number(leaf) == by_hand(pairs)
    with jax.enable_x64(True):
        long = jnp.asarray([1.25, -7.0], jnp.float64)
        assert long.dtype == jnp.float64
        assert number(long) == by_hand(long)


def test_paths_name_the_fields_of_named_tuples():
    tree = {"b": (jnp.zeros(1), [jnp.ones(1)]), "a": None}
    assert list(fingerprint.fingerprints(tree)) == ["b/0", "b/1/0"]


def test_signs_of_zero_and_payloads_of_nan_count():
    assert number(jnp.array([0.0])) != number(jnp.array([-0.0]))
    quiet = np.array([0x7FC00000, 0x7FC00001], np.uint32).view(np.float32)
    assert number(jnp.asarray(quiet[:1])) != number(jnp.asarray(quiet[1:]))


def test_every_flipped_bit_and_every_swap_shows():
    generator = np.random.default_rng(1)
    words = generator.integers(0, WORD, 12, np.uint32)
    found = {number(jnp.asarray(words))}
    for at in range(12):
        for bit in range(32):
            other = words.copy()
            other[at] ^= np.uint32(1 << bit)
            found.add(number(jnp.asarray(other)))
    for i in range(12):
        for j in range(i):
            other = words.copy()
            other[[i, j]] = other[[j, i]]
            found.add(number(jnp.asarray(other)))
    assert len(found) == 1 + 12 * 32 + 66


def test_two_sign_bits_do_not_cancel():
    # In a plain weighted sum they do: 2^31 (w_i + w_j) is 0 modulo 2^32 for odd w.
    ones = jnp.ones(8)
    assert number(ones) != number(ones.at[jnp.array([2, 5])].multiply(-1))


@pytest.mark.parametrize(
    "spec",
    [
        PartitionSpec(),
        PartitionSpec("data"),
        PartitionSpec(None, "tensor"),
        PartitionSpec(("data", "fsdp"), "tensor"),
        PartitionSpec("fsdp", ("tensor", "data")),
    ],
)
def test_a_sharded_leaf_has_the_same_number_and_is_not_gathered(spec):
    mesh = jax.make_mesh(
        (2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3
    )
    host = np.random.default_rng(2).normal(size=(16, 24)).astype(np.float32)
    leaf = jax.device_put(host, NamedSharding(mesh, spec))
    assert number(leaf) == by_hand(host)
    program = fingerprint._fingerprints.lower([leaf]).compile().as_text()
    assert program is not None
    assert "all-gather" not in program
    assert "all-to-all" not in program
