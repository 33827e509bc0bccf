# SPDX-License-Identifier: Apache-2.0
"""Advantages within a group: against verl, by hand and by their invariances."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fulcra_jax.objectives import group

GOLDEN = dict(np.load(pathlib.Path(__file__).parent / "goldens" / "policy_verl.npz"))
LENGTHS = GOLDEN["in_where"].sum(1).reshape(2, 3)
SCORE = GOLDEN["in_score"].reshape(2, 3)


def assert_close(actual, desired):
    np.testing.assert_allclose(actual, desired, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["grpo", "dr_grpo", "rloo"])
def test_group_advantage_equals_verl(kind):
    found = group.group_advantage(jnp.asarray(SCORE), kind=kind)
    assert_close(found.reshape(6), GOLDEN[kind][:, 0])


def test_length_weighted_advantage_equals_verl():
    found = group.length_weighted_advantage(jnp.asarray(SCORE), jnp.asarray(LENGTHS))
    where = GOLDEN["in_where"]
    assert_close(found.reshape(6, 1) * where, GOLDEN["opo"])


def test_greedy_baseline_advantage_equals_verl():
    found = group.greedy_baseline_advantage(
        GOLDEN["in_score"][:, None], GOLDEN["in_values"][:, 0]
    )
    some = GOLDEN["in_where"][:, 0]
    assert_close(found[:, 0] * some, GOLDEN["remax"][:, 0])


def test_gdpo_whitened_over_tokens_equals_verl():
    found = group.gdpo_advantage(
        jnp.asarray(GOLDEN["in_reward_per_value"]).reshape(2, 3, 4),
        weights=jnp.asarray(GOLDEN["in_weights"]),
        whiten="tokens",
        lengths=jnp.asarray(LENGTHS),
    )
    assert_close(found.reshape(6, 1) * GOLDEN["in_where"], GOLDEN["gdpo"])


def test_gdpo_by_the_formula_of_trl():
    """`normalize_then_sum`, transcribed; TRL divides by s + 1e-4 when it whitens."""
    r = GOLDEN["in_reward_per_value"].reshape(2, 3, 4).astype(float)
    spread = r.std(1, ddof=1, keepdims=True)
    total = ((r - r.mean(1, keepdims=True)) / (spread + 1e-4)) @ GOLDEN["in_weights"]
    found = group.gdpo_advantage(
        jnp.asarray(r, jnp.float32),
        weights=jnp.asarray(GOLDEN["in_weights"]),
        epsilon=1e-4,
        whiten="sequences",
    )
    theirs = (total - total.mean()) / (total.std(ddof=1) + 1e-4)
    scale = total.std(ddof=1) / (total.std(ddof=1) + 1e-4)
    assert_close(found * scale, theirs)


def test_leave_one_out_by_hand():
    found = group.group_advantage(jnp.array([1.0, 2.0, 6.0]), kind="rloo")
    assert_close(found, [1.0 - 4.0, 2.0 - 3.5, 6.0 - 1.5])


def test_grpo_ignores_shift_and_scale():
    r = jnp.asarray(SCORE)
    found = group.group_advantage(r, epsilon=0.0)
    assert_close(group.group_advantage(5.0 * r + 2.0, epsilon=0.0), found)
    assert_close(found.sum(-1), 0.0)
    assert_close(np.std(found, axis=-1, ddof=1), 1.0)


@pytest.mark.parametrize("kind", ["grpo", "dr_grpo", "rloo"])
def test_masked_answers_are_as_if_they_were_not_there(kind):
    r = jnp.array([3.0, jnp.nan, -1.0, 0.5])
    where = jnp.array([True, False, True, True])
    found = group.group_advantage(r, kind=kind, where=where)
    alone = group.group_advantage(r[where], kind=kind)
    assert_close(found[where], alone)
    assert found[1] == 0.0


@pytest.mark.parametrize("kind", ["grpo", "dr_grpo", "rloo"])
def test_one_answer_or_equal_answers_teach_nothing(kind):
    fn = lambda r, **more: group.group_advantage(r, kind=kind, **more)
    assert not fn(jnp.array([[5.0], [2.0]])).any()
    where = jnp.array([False, True, False])
    assert not fn(jnp.array([5.0, 2.0, 1.0]), where=where).any()
    equal = jnp.full(7, 0.1)
    assert not fn(equal).any()
    assert jnp.isfinite(jax.grad(lambda r: fn(r)[0])(equal)).all()


def test_nan_in_a_group_is_seen_and_stays_in_it():
    r = jnp.array([[1.0, jnp.nan, 2.0], [1.0, 2.0, 3.0]])
    found = jnp.isnan(group.group_advantage(r))
    assert found.any(1).tolist() == [True, False]


def test_a_constant_value_adds_exactly_nothing():
    rng = np.random.default_rng(0)
    r = jnp.asarray(rng.normal(size=(4, 5, 3)), jnp.float32)
    constant = r.at[..., 1].set(0.1)
    found = group.gdpo_advantage(constant, whiten=None)
    without = group.gdpo_advantage(constant[..., ::2], whiten=None)
    np.testing.assert_array_equal(found, without)


def test_gdpo_gives_each_value_its_weight_whatever_its_scale():
    rng = np.random.default_rng(1)
    r = jnp.asarray(rng.normal(size=(4, 5, 2)), jnp.float32)
    scaled = r.at[..., 1].multiply(100.0)
    found = group.gdpo_advantage(scaled, epsilon=0.0, whiten=None)
    assert_close(found, group.gdpo_advantage(r, epsilon=0.0, whiten=None))
    first = group.gdpo_advantage(r, weights=jnp.array([1.0, 0.0]), whiten=None)
    assert_close(first, group.group_advantage(r[..., 0]))


def test_gdpo_of_one_value_is_grpo():
    found = group.gdpo_advantage(jnp.asarray(SCORE)[..., None], whiten=None)
    assert_close(found, group.group_advantage(jnp.asarray(SCORE)))


def test_equal_lengths_make_opo_the_group_mean():
    found = group.length_weighted_advantage(jnp.asarray(SCORE), jnp.full((2, 3), 4))
    assert_close(found, group.group_advantage(jnp.asarray(SCORE), kind="dr_grpo"))


def test_bad_arguments():
    r, mask = jnp.zeros((2, 3)), jnp.ones((2, 2), bool)
    with pytest.raises(KeyError, match="kind 'ppo' is unknown"):
        group.group_advantage(r, kind="ppo")  # type: ignore
    with pytest.raises(ValueError, match="one entry per answer"):
        group.group_advantage(r, where=mask)
    with pytest.raises(ValueError, match=r"lengths has shape \(2,\)"):
        group.length_weighted_advantage(r, jnp.zeros(2))
    with pytest.raises(ValueError, match="one entry per prompt"):
        group.greedy_baseline_advantage(r, jnp.zeros(3))
    with pytest.raises(ValueError, match=r"weights has shape \(2,\), so V=2"):
        group.gdpo_advantage(r[None], weights=jnp.zeros(2))
    with pytest.raises(ValueError, match="'tokens' needs lengths"):
        group.gdpo_advantage(r[None], whiten="tokens")
    with pytest.raises(KeyError, match="whiten 'batch' is unknown"):
        group.gdpo_advantage(r[None], whiten="batch")  # type: ignore
