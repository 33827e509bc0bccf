# SPDX-License-Identifier: Apache-2.0
"""Token rewards, GAE and whitening: against TRL, verl and rlax, and by hand."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from fulcra_jax.objectives import advantage, kl

GOLDENS = pathlib.Path(__file__).parent / "goldens"
DISCOUNT, DECAY = 0.97, 0.9


def golden(name):
    return dict(np.load(GOLDENS / f"policy_{name}.npz"))


def assert_close(actual, desired, where=None):
    if where is not None:
        actual, desired = np.where(where, actual, 0.0), np.where(where, desired, 0.0)
    np.testing.assert_allclose(actual, desired, rtol=1e-6, atol=1e-6)


def estimate(rewards, values, where):
    return advantage.generalized_advantage(
        rewards, values, discount=DISCOUNT, decay=DECAY, where=where
    )


def test_token_rewards_equal_trl():
    g = golden("trl_ppo")
    where = g["in_where"]
    found = advantage.token_rewards(
        g["in_score"],
        kl.kl_estimate(g["in_log_prob"], g["in_reference_log_prob"], where=where),
        coefficient=0.3,
        where=where,
    )
    assert_close(found, g["token_rewards"] * where)


def test_gae_equals_trl():
    g = golden("trl_ppo")
    where = g["in_where"]
    found = estimate(g["in_rewards"], g["in_values"], where)
    assert_close(found.returns, g["gae_returns"], where)
    whitened = advantage.whiten(found.advantages, where=where)
    assert_close(whitened, g["whitened_advantages"] * where)


def test_gae_with_holes_and_an_empty_row_equals_verl():
    g = golden("verl")
    where = g["in_holes"]
    assert (where != g["in_where"]).any()
    assert (where.sum(1) == 0).any()
    found = estimate(g["in_rewards"], g["in_values"], where)
    assert_close(found.returns, g["gae_returns"], where)
    whitened = advantage.whiten(found.advantages, where=where)
    assert_close(whitened, g["gae_advantages"], where)


def test_gae_equals_rlax_row_by_row():
    g = golden("rlax")
    found = estimate(g["in_rewards"], g["in_values"], g["in_where"])
    assert_close(found.advantages, g["gae"])


def test_a_hole_is_as_if_it_were_not_there():
    rewards, values = jnp.array([[1.0, 9.0, 2.0]]), jnp.array([[0.5, 7.0, 0.25]])
    where = jnp.array([[True, False, True]])
    holed = estimate(rewards, values, where)
    short = estimate(rewards[:, ::2], values[:, ::2], None)
    for a, b in zip(holed, short, strict=True):
        assert_close(a[:, ::2], b)
        assert a[0, 1] == 0.0


def test_the_limits_of_decay():
    """0: the error of one step. 1: the reward to go minus the value."""
    rewards, values = jnp.array([[1.0, 2.0, 4.0]]), jnp.array([[0.5, -1.0, 3.0]])
    one = advantage.generalized_advantage(rewards, values, decay=0.0)
    assert_close(one.advantages, [[1.0 - 1.0 - 0.5, 2.0 + 3.0 + 1.0, 4.0 - 3.0]])
    all_ = advantage.generalized_advantage(rewards, values, decay=1.0)
    assert_close(all_.advantages, [[7.0 - 0.5, 6.0 + 1.0, 4.0 - 3.0]])
    assert_close(all_.returns, [[7.0, 6.0, 4.0]])


def test_the_score_stands_at_the_last_token_that_counts():
    where = jnp.array([[1, 1, 1], [0, 1, 0], [1, 0, 1], [0, 0, 0]], bool)
    found = advantage.token_rewards(
        jnp.arange(1.0, 5.0), jnp.zeros((4, 3)), coefficient=0.1, where=where
    )
    assert_close(found, [[0, 0, 1], [0, 2, 0], [0, 0, 3], [0, 0, 0]])


@pytest.mark.parametrize(("center", "name"), [(True, "whitened"), (False, "scaled")])
def test_whiten_equals_trl(center, name):
    g = golden("trl_ppo")
    where = g["in_where"]
    found = advantage.whiten(g["in_rewards"], where=where, center=center)
    assert_close(found, g[name], where)


def test_whitened_numbers_have_mean_0_and_variance_1():
    rng = np.random.default_rng(0)
    x, where = rng.normal(3.0, 5.0, (40, 6)), rng.random((40, 6)) < 0.7
    found = np.asarray(advantage.whiten(jnp.asarray(x), where=jnp.asarray(where)))
    assert_close(found[where].mean(), 0.0)
    assert_close(found[where].var(ddof=1), 1.0)
    kept = advantage.whiten(jnp.asarray(x), where=jnp.asarray(where), center=False)
    assert_close(np.asarray(kept)[where].mean(), x[where].mean())


@pytest.mark.parametrize("equal", [0.1, 1000.1, -3e7])
def test_equal_numbers_are_not_scaled_up(equal):
    """Rounding over sqrt(1e-8) would look like an advantage of 1e-4 and more."""
    found = advantage.whiten(jnp.full((3, 7), equal))
    assert jnp.abs(found).max() <= 1e-6 * max(1.0, abs(equal))


def test_one_number_has_no_variance():
    where = jnp.array([True, False])
    assert not advantage.whiten(jnp.array([5.0, 1.0]), where=where).any()
    kept = advantage.whiten(jnp.array([5.0, 1.0]), where=where, center=False)
    assert kept.tolist() == [5.0, 0.0]


def test_counts_equal_repetition():
    x, counts = jnp.array([1.0, -2.0, 0.5]), jnp.array([3, 1, 0])
    found = advantage.whiten(x, counts=counts)
    repeated = advantage.whiten(jnp.array([1.0, 1.0, 1.0, -2.0]))
    assert_close(found, [repeated[0], repeated[3], 0.0])


@pytest.mark.parametrize("over", ["vmap", "shard_map"])
def test_whitening_over_devices_is_that_of_the_whole_batch(over):
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(2.0, 3.0, (4, 5)), jnp.float32)
    where = jnp.asarray(rng.random((4, 5)) < 0.7).at[2].set(False)
    part = lambda x, where: advantage.whiten(x, where=where, axis_name="data")
    if over == "vmap":
        spread = jax.vmap(part, axis_name="data")
    else:
        mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
        spec = PartitionSpec("data")
        spread = jax.jit(
            jax.shard_map(part, mesh=mesh, in_specs=(spec, spec), out_specs=spec)
        )
    assert_close(spread(x, where), advantage.whiten(x, where=where))


def test_reinforce_plus_plus_equals_verl():
    g = golden("verl")
    found = advantage.reinforce_plus_plus(
        g["in_rewards"], discount=DISCOUNT, where=g["in_holes"]
    )
    assert_close(found, g["reinforce_plus_plus"])


def test_reinforce_plus_plus_baseline_equals_verl():
    g = golden("verl")
    lengths = np.array([7, 4, 1, 7, 5, 2])
    where = (np.arange(7)[None] < lengths[:, None]).reshape(2, 3, 7)
    found = advantage.reinforce_plus_plus_baseline(
        jnp.asarray(g["in_score"]).reshape(2, 3), jnp.asarray(where)
    )
    assert_close(found.reshape(6, 7), g["reinforce_plus_plus_baseline"])


def test_an_empty_answer_is_not_in_the_baseline():
    where = jnp.array([[[1], [1], [0]]], bool)
    rewards = jnp.array([[1.0, 3.0, jnp.nan]])
    found = advantage.reinforce_plus_plus_baseline(rewards, where)
    assert_close(found[0, :, 0], [-np.sqrt(0.5), np.sqrt(0.5), 0.0])


def test_bad_arguments():
    two, row = jnp.zeros(2), jnp.zeros((2, 3))
    with pytest.raises(ValueError, match=r"token_rewards: kl has shape \(2, 3\)"):
        advantage.token_rewards(jnp.zeros(3), row, coefficient=0.1)
    with pytest.raises(ValueError, match=r"generalized_advantage: values has shape"):
        advantage.generalized_advantage(row, row[:, :2])
    with pytest.raises(ValueError, match=r"whiten: where has shape \(2,\)"):
        advantage.whiten(row, where=two > 0)
    with pytest.raises(ValueError, match=r"whiten: counts has shape \(2,\)"):
        advantage.whiten(jnp.zeros(3), counts=two)
    with pytest.raises(ValueError, match=r"plus_plus_baseline: where has shape"):
        advantage.reinforce_plus_plus_baseline(row, row > 0)
