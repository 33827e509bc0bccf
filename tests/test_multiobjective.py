# SPDX-License-Identifier: Apache-2.0
"""Cases by hand, brute force over the simplex, and what each scalarization is for."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fulcra_jax.objectives import multiobjective as many


def test_weights_of_a_target_of_zeros_are_even():
    assert many.target_weights(jnp.zeros((2, 4))).tolist() == [[0.25] * 4] * 2
    found = many.target_weights(jnp.array([0.0, -3.0, 1.0]))
    assert found.tolist() == [0.0, 0.75, 0.25]
    grad = jax.grad(lambda t: many.target_weights(t)[0])(jnp.zeros(3))
    assert jnp.isfinite(grad).all()


def test_scalarize_takes_one_row_or_one_per_answer():
    rewards = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    assert many.scalarize(rewards, jnp.array([0.5, 0.25])).tolist() == [1.0, 2.5]
    rows = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    assert many.scalarize(rewards, rows).tolist() == [1.0, 4.0]


def test_direction_is_blind_across_and_proud_along():
    target = jnp.array([3.0, 4.0])
    scores = jnp.array([[0.3, 0.4], [0.6, 0.8], [0.8, -0.6], [-0.3, -0.4]])
    found = many.direction_reward(scores, target)
    np.testing.assert_allclose(found, [0.5, 1.0, 0.0, -0.5], atol=1e-7)
    zero = many.direction_reward(scores, jnp.zeros(2))
    assert zero.tolist() == [0.0] * 4
    grad = jax.grad(lambda t: many.direction_reward(scores, t).sum())(jnp.zeros(2))
    assert jnp.isfinite(grad).all()


def test_chebyshev_finds_the_compromise_that_no_weighted_sum_finds():
    """(0.4, 0.4) lies in a dent of the front between (1, 0) and (0, 1)."""
    scores, target = jnp.array([[1.0, 0.0], [0.4, 0.4], [0.0, 1.0]]), jnp.ones(2)
    assert many.chebyshev_reward(scores, target).argmax() == 1
    for share in np.linspace(0.0, 1.0, 21):
        weights = jnp.array([share, 1.0 - share])
        assert many.scalarize(scores - 1.0, weights).argmax() != 1


def test_chebyshev_by_hand():
    score, target = jnp.array([0.5, -0.25]), jnp.array([1.0, 0.0])
    weights = jnp.array([1.0, 4.0])
    assert many.chebyshev_reward(score, target, weights=weights) == -1.0
    found = many.chebyshev_reward(score, target, weights=weights, augmentation=0.5)
    assert found == -1.75
    found = many.chebyshev_reward(score, target, weights=weights, sharpness=2.0)
    smooth = math.log(math.exp(1.0) + math.exp(2.0)) / 2.0
    assert float(found) == pytest.approx(-smooth, rel=1e-6)


def test_the_smooth_form_bounds_the_maximum():
    rng = np.random.default_rng(0)
    score = jnp.asarray(rng.uniform(-1, 1, (50, 10)), jnp.float32)
    target = jnp.asarray(rng.uniform(-1, 1, 10), jnp.float32)
    exact = many.chebyshev_reward(score, target)
    for sharpness in (1.0, 10.0, 1000.0):
        gap = exact - many.chebyshev_reward(score, target, sharpness=sharpness)
        assert (gap >= -1e-6).all()
        assert (gap <= math.log(10) / sharpness + 1e-6).all()


def test_lagrangian_by_hand_and_without_a_gradient_through_the_multipliers():
    reward, limits = jnp.array([1.0, 0.0]), jnp.array([0.5, 0.25])
    costs, lam = jnp.array([[1.0, 0.25], [0.5, 0.75]]), jnp.array([2.0, 1.0])
    found = many.lagrangian_reward(reward, costs, lam, limits)
    assert found.tolist() == [0.0, -0.125]
    plain = many.lagrangian_reward(reward, costs, jnp.zeros(2), limits)
    assert plain.tolist() == reward.tolist()
    total = lambda *args: many.lagrangian_reward(*args, limits).sum()
    by = jax.grad(total, argnums=(0, 1, 2))(reward, costs, lam)
    assert by[0].tolist() == [0.25, 0.25]
    assert by[1].tolist() == [[-0.5, -0.25]] * 2
    assert by[2].tolist() == [0.0, 0.0]


def test_dual_steps_rise_while_violated_and_never_fall_below_zero():
    costs, limits = jnp.array([[1.0, 0.0], [0.5, 0.0], [jnp.nan] * 2]), jnp.full(2, 0.5)
    where = jnp.array([True, True, False])
    found = many.dual_step(
        jnp.array([0.25, 0.25]), costs, limits, step_size=1.0, where=where
    )
    assert found.tolist() == [0.5, 0.0]
    lam = jnp.array([0.25, 0.25])
    kept = many.dual_step(lam, costs, limits, step_size=1.0, where=jnp.zeros(3, bool))
    assert kept.tolist() == lam.tolist()
    cut = jax.grad(lambda c: many.dual_step(lam, c, limits, step_size=1.0).sum())
    assert not cut(jnp.ones((3, 2))).any()


def test_dual_steps_agree_across_devices():
    rng = np.random.default_rng(1)
    costs, where = jnp.asarray(rng.random((4, 3, 2)), jnp.float32), rng.random((4, 3))
    where, lam, limits = jnp.asarray(where < 0.6), jnp.ones(2), jnp.full(2, 0.4)
    whole = many.dual_step(
        lam, costs.reshape(12, 2), limits, step_size=0.5, where=where.reshape(12)
    )
    apart = jax.vmap(
        lambda c, w: many.dual_step(
            lam, c, limits, step_size=0.5, where=w, axis_name="devices"
        ),
        axis_name="devices",
    )(costs, where)
    np.testing.assert_allclose(apart, np.broadcast_to(whole, (4, 2)), rtol=1e-6)


@jax.jit
def solved(reward_slope, lam):
    """The best v in [0, 1] of slope v - cost v^2 by lagrangian_reward, on a grid."""
    v = jnp.linspace(0.0, 1.0, 1001)
    value = many.lagrangian_reward(
        reward_slope * v, (v**2)[:, None], lam, jnp.array([0.25])
    )
    return v[value.argmax()]


def test_reward_and_dual_step_together_meet_the_limit():
    """max v with v^2 <= 1/4: v = 1/2, multiplier 1."""
    lam = jnp.array([0.0])
    for _ in range(200):
        v = solved(1.0, lam)
        lam = many.dual_step(
            lam, (v**2).reshape(1, 1), jnp.array([0.25]), step_size=0.5
        )
    assert float(v) == pytest.approx(0.5, abs=2e-3)
    assert float(lam[0]) == pytest.approx(1.0, abs=1e-2)


def shortest(gram, steps=60):
    """The least w' M w over a grid of the simplex."""
    size = len(gram)
    best = np.inf
    for parts in itertools.product(range(steps + 1), repeat=size - 1):
        if sum(parts) <= steps:
            w = np.array([*parts, steps - sum(parts)]) / steps
            best = min(best, w @ gram @ w)
    return best


@pytest.mark.parametrize("seed", range(4))
def test_min_norm_weights_equal_brute_force(seed):
    rng = np.random.default_rng(seed)
    gradients = rng.normal(size=(3, 4)) + rng.normal(size=4)
    gram = gradients @ gradients.T
    w = np.asarray(many.min_norm_weights(jnp.asarray(gram, jnp.float32)), float)
    assert w.sum() == pytest.approx(1.0, abs=1e-6)
    assert (w >= 0.0).all()
    # Not above any point of the grid, and at most its rounding below the best.
    assert w @ gram @ w <= shortest(gram) + 1e-5
    # The direction makes no goal worse: <g_i, d> >= |d|^2.
    assert (gram @ w >= w @ gram @ w - 1e-4 * np.abs(gram).max()).all()


def test_min_norm_weights_of_opposed_and_of_ten_goals():
    opposed = jnp.array([[1.0, -1.0], [-1.0, 1.0]])
    np.testing.assert_allclose(many.min_norm_weights(opposed), [0.5, 0.5])
    size = jnp.arange(1.0, 11.0)
    found = many.min_norm_weights(jnp.diag(size), num_iterations=400)
    np.testing.assert_allclose(found, (1 / size) / (1 / size).sum(), atol=1e-4)
    same = many.min_norm_weights(jnp.ones((3, 3)))
    assert float(same.sum()) == pytest.approx(1.0)


def test_a_soup_is_the_weighted_mean_of_every_leaf():
    trees = [
        {"a": jnp.full((2,), k), "b": [jnp.array(2.0 * k)]} for k in (0.0, 1.0, 4.0)
    ]
    found = many.rewarded_soup(trees, jnp.array([0.5, 0.25, 0.25]))
    assert found["a"].tolist() == [1.25, 1.25]
    assert found["b"][0].item() == 2.5
    corner = many.rewarded_soup(trees, jnp.array([0.0, 0.0, 1.0]))
    assert corner["a"].tolist() == [4.0, 4.0]


def test_refuses_what_does_not_fit():
    a, b = jnp.zeros((2, 3)), jnp.zeros(2)
    with pytest.raises(ValueError, match=r"so V=2, but score has V=3"):
        many.scalarize(a, b)
    with pytest.raises(ValueError, match="augmentation is -1; expected at least 0"):
        many.chebyshev_reward(a, a, augmentation=-1)
    with pytest.raises(ValueError, match="sharpness is 0; expected more than 0"):
        many.chebyshev_reward(a, a, sharpness=0)
    with pytest.raises(ValueError, match=r"reward has shape \(3,\); expected \(2,\)"):
        many.lagrangian_reward(jnp.zeros(3), a, jnp.zeros(3), jnp.zeros(3))
    with pytest.raises(ValueError, match="step_size is 0; expected more than 0"):
        many.dual_step(jnp.zeros(3), a, jnp.zeros(3), step_size=0)
    with pytest.raises(ValueError, match="gram has shape"):
        many.min_norm_weights(a)
    with pytest.raises(ValueError, match="num_iterations is 0; expected at least 1"):
        many.min_norm_weights(jnp.eye(2), num_iterations=0)
    with pytest.raises(ValueError, match="there are 1 trees and 2 weights"):
        many.rewarded_soup([b], b)
    with pytest.raises(ValueError, match="the trees differ; expected one structure"):
        many.rewarded_soup([b, {"a": b}], b)
    with pytest.raises(ValueError, match=r"a leaf has the shapes \[\(1,\), \(2,\)\]"):
        many.rewarded_soup([b, b[:1]], b)
