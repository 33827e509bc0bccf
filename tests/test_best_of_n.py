# SPDX-License-Identifier: Apache-2.0
"""Against enumeration of all draws and exact fractions."""

import fractions
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fulcra_jax import objectives as bon

expected_best = jax.jit(bon.expected_best_of_n)


def test_the_best_ignores_masked_and_failed():
    rewards = jnp.array([[1.0, 5.0, 2.0], [jnp.nan, -jnp.inf, jnp.nan], [jnp.nan] * 3])
    where = jnp.array([[True, False, True], [True] * 3, [True] * 3])
    assert bon.best_of_n(rewards, where=where).tolist() == [2, 1, -1]
    assert bon.best_of_n(jnp.array([2.0, 2.0])).item() == 0
    assert bon.best_of_n(rewards, where=jnp.zeros((3, 3), bool)).tolist() == [-1] * 3


@pytest.mark.parametrize("n", range(1, 8))
def test_the_expectation_equals_enumeration(n):
    rng = np.random.default_rng(n)
    rewards = rng.normal(size=7)
    drawn = [max(s) for s in itertools.combinations(rewards, n)]
    found = expected_best(jnp.asarray(rewards, jnp.float32), n)
    assert float(found) == pytest.approx(np.mean(drawn), abs=1e-6)


@pytest.mark.parametrize(("size", "n"), [(1000, 1), (1000, 2), (1000, 16), (1000, 999)])
def test_a_thousand_answers_keep_their_digits(size, n):
    rewards = np.random.default_rng(n).uniform(-1, 1, size).astype(np.float32)
    exact = sum(
        fractions.Fraction(math.comb(i, n - 1), math.comb(size, n))
        * fractions.Fraction(float(r))
        for i, r in enumerate(np.sort(rewards))
    )
    found = expected_best(jnp.asarray(rewards), n)
    assert float(found) == pytest.approx(float(exact), abs=1e-6)


def test_masked_answers_and_several_n_at_once():
    rewards = jnp.array([[3.0, jnp.nan, 1.0, 2.0], [1.0, 2.0, 3.0, 9.0]])
    where = jnp.array([[True, False, True, True], [True, True, True, False]])
    found = expected_best(rewards, jnp.array([2, 3]), where=where)
    np.testing.assert_allclose(found, [8 / 3, 3.0], rtol=1e-6)
    assert jnp.isnan(expected_best(rewards, 4, where=where)).all()


def test_failed_answers_are_the_worst():
    rewards = jnp.array([jnp.nan, 1.0, 2.0])
    # {nan, 1}, {nan, 2}, {1, 2}: 1, 2, 2.
    assert float(expected_best(rewards, 2)) == pytest.approx(5 / 3)
    assert jnp.isnan(expected_best(rewards, 1))


def test_a_reward_of_minus_infinity_is_not_a_masked_one():
    """Masked answers sort before it: 2 of 3 drawn from (-inf, 1, 2)."""
    rewards = jnp.array([-jnp.inf, 5.0, 1.0, 2.0])
    where = jnp.array([True, False, True, True])
    assert float(expected_best(rewards, 2, where=where)) == pytest.approx(5 / 3)
    assert expected_best(rewards, 1, where=where) == -jnp.inf


def test_the_gradient_is_the_weight_of_the_rank():
    grad = jax.grad(lambda r: expected_best(r, 2))(jnp.array([3.0, 1.0, 2.0]))
    np.testing.assert_allclose(grad, [2 / 3, 0.0, 1 / 3], rtol=1e-6)


def test_best_of_n_never_moves_farther_than_the_bound():
    """Exactly, for answers of given probability with distinct rewards."""
    for probs in ([0.02] * 50, [0.9, 0.05, 0.05], [0.5, 0.3, 0.2]):
        below = np.cumsum(probs)
        for n in (1, 2, 4, 16):
            best = np.diff(np.concatenate([[0.0], below**n]))
            kl = float((best * np.log(np.maximum(best, 1e-300) / probs)).sum())
            bound = float(bon.best_of_n_kl_bound(jnp.array(n)))
            assert kl <= bound + 1e-6
    assert bon.best_of_n_kl_bound(jnp.array([1, 1])).tolist() == [0.0, 0.0]


def test_n_of_a_kl_is_the_first_to_reach_it():
    for n in (1, 2, 3, 17, 64):
        bound = math.log(n) - (n - 1) / n
        assert bon.n_of_kl_bound(bound) == n
        assert bon.n_of_kl_bound(bound + 1e-9) == min(n + 1, 64)
    assert bon.n_of_kl_bound(-1.0) == 1
    assert bon.n_of_kl_bound(math.log(64) - 63 / 64 + 1.0) == 64
    assert bon.n_of_kl_bound(10.0, most=8) == 8


def test_soft_weights_lie_between_chance_and_the_best():
    rewards = jnp.array([0.0, 1.0, jnp.nan, 5.0])
    where = jnp.array([True, True, True, False])
    cold = bon.soft_best_of_n(rewards, temperature=1e-3, where=where)
    assert cold.tolist() == [0.0, 1.0, 0.0, 0.0]
    warm = bon.soft_best_of_n(rewards, temperature=1e6, where=where)
    np.testing.assert_allclose(warm, [0.5, 0.5, 0.0, 0.0], atol=1e-6)
    found = bon.soft_best_of_n(rewards, temperature=2.0, where=where)
    second = 1 / (1 + math.exp(-0.5))
    np.testing.assert_allclose(found, [1 - second, second, 0.0, 0.0], rtol=1e-6)
    slope = jax.jacobian(lambda r: bon.soft_best_of_n(r, temperature=2.0))(rewards[:2])
    np.testing.assert_allclose(
        slope, 0.5 * second * (1 - second) * np.array([[1, -1], [-1, 1]]), rtol=1e-5
    )


def test_soft_weights_of_infinite_rewards():
    inf = jnp.inf
    soft = lambda *r: bon.soft_best_of_n(jnp.array(r), temperature=1.0).tolist()
    assert soft(0.0, inf, inf) == [0.0, 0.5, 0.5]
    assert soft(-inf, -inf) == [0.5, 0.5]
    assert soft(-inf, 3.0) == [0.0, 1.0]
    assert soft(math.nan, math.nan) == [0.0, 0.0]


def test_refuses_what_does_not_fit():
    a, mask = jnp.zeros(3), jnp.ones(2, bool)
    for call in (
        lambda: bon.best_of_n(a, where=mask),
        lambda: bon.expected_best_of_n(a, 2, where=mask),
        lambda: bon.soft_best_of_n(a, temperature=1.0, where=mask),
    ):
        with pytest.raises(
            ValueError, match=r"where has shape \(2,\); expected \(3,\)"
        ):
            call()
    with pytest.raises(ValueError, match="n is 0; expected at least 1"):
        bon.expected_best_of_n(a, 0)
    with pytest.raises(ValueError, match="temperature is 0; expected more than 0"):
        bon.soft_best_of_n(a, temperature=0)
    with pytest.raises(ValueError, match="n_of_kl_bound: kl is nan"):
        bon.n_of_kl_bound(math.nan)
    with pytest.raises(ValueError, match="n is a int; expected an array"):
        bon.best_of_n_kl_bound(4)
