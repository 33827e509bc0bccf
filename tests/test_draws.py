# SPDX-License-Identifier: Apache-2.0
"""Draws of dropout: the rate, independence of neighbours and keys, one answer on any
mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fulcra_jax.models import draws

SHAPE = (7, 64, 130)
KEYS = [jax.random.key(0), jax.random.key(1), jax.random.fold_in(jax.random.key(0), 1)]


def signs(key, rate=0.5, shape=SHAPE):
    return np.where(np.asarray(draws.survives(key, rate, shape)), 1.0, -1.0)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("key", KEYS)
def test_the_rate_holds_as_a_whole_and_along_each_axis(rate, key):
    gone = ~np.asarray(draws.survives(key, rate, (50, 60, 70)))
    deviation = np.sqrt(rate * (1 - rate))
    for axes in [(0, 1, 2), (1, 2), (0, 2), (0, 1)]:
        shares = gone.mean(axes)
        count = gone.size / shares.size
        assert np.abs(shares - rate).max() < 4.5 * deviation / np.sqrt(count)


def test_neighbours_along_any_axis_are_independent():
    x = signs(jax.random.key(3))
    bound = 4.5 / np.sqrt(x.size)
    for axis in range(3):
        for lag in (1, 2, 3, 16, 32):
            length = x.shape[axis]
            if lag < length:
                front = np.take(x, range(length - lag), axis)
                back = np.take(x, range(lag, length), axis)
                assert abs((front * back).mean()) < bound * np.sqrt(1.5 * 7)


@pytest.mark.parametrize("shift", [0, 1, 2, 130, 64 * 130])
def test_two_keys_are_independent_and_no_shift_of_each_other(shift):
    drawn = [signs(key).ravel() for key in KEYS]
    for i, first in enumerate(drawn):
        for second in drawn[:i]:
            product = first[shift:] * second[: first.size - shift]
            assert abs(product.mean()) < 4.5 / np.sqrt(product.size)


def test_no_two_of_a_thousand_keys_draw_alike():
    keys = jax.random.split(jax.random.key(0), 1000)
    drawn = jax.vmap(lambda key: draws.survives(key, 0.5, (64,)))(keys)
    assert len(np.unique(np.asarray(drawn), axis=0)) == 1000
    assert abs(np.asarray(drawn).mean() - 0.5) < 4.5 * 0.5 / np.sqrt(64000)


def test_a_key_draws_the_same_again_also_compiled_and_as_raw_words():
    key = jax.random.key(5)
    plain = draws.survives(key, 0.3, (4, 5))
    compiled = jax.jit(lambda key: draws.survives(key, 0.3, (4, 5)))(key)
    raw = draws.survives(jax.random.key_data(key), 0.3, (4, 5))
    assert (plain == compiled).all()
    assert (plain == raw).all()


@pytest.mark.parametrize("rate", [0.0, 1e-9, 1 / 65536, 0.1, 1 / 3])
def test_the_mean_is_kept_as_exactly_as_the_rate_is_rounded(rate):
    x = jnp.full((1000, 1000), 2.0)
    y = np.asarray(draws.survivors(jax.random.key(0), rate, x), np.float64)
    assert y.mean() == pytest.approx(2.0, abs=4.5 * 2 * np.sqrt(rate) / 1000 + 1e-6)
    assert ((y == 0.0).sum() == 0) == (rate < 1e-6)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,)])
def test_odd_shapes(shape):
    assert draws.survives(jax.random.key(0), 0.5, shape).shape == shape


def test_more_entries_than_numbers_are_refused():
    with pytest.raises(ValueError, match=r"at most 2\^32 entries"):
        jax.eval_shape(
            lambda key: draws.survives(key, 0.5, (2**17, 2**16)), jax.random.key(0)
        )


def test_the_largest_shape_is_traced():
    drawn = jax.eval_shape(
        lambda key: draws.survives(key, 0.5, (1, 2**32)), jax.random.key(0)
    )
    assert drawn.shape == (1, 2**32)
