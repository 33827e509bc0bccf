# SPDX-License-Identifier: Apache-2.0
"""KL estimates: against TRL, verl and optax, and by exact enumeration of tokens."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fulcra_jax.objectives import kl

GOLDENS = pathlib.Path(__file__).parent / "goldens"
POLICY = jnp.array([0.3, -0.8, 1.1, 0.2])
REFERENCE = jnp.array([-0.4, 0.5, 0.9, -1.0])
BEHAVIOR = jnp.array([0.9, 0.1, -0.3, 0.4])


def golden(name):
    return dict(np.load(GOLDENS / f"policy_{name}.npz"))


def assert_close(actual, desired):
    np.testing.assert_allclose(actual, desired, rtol=1e-6, atol=1e-6)


def reverse(logits):
    return kl.full_kl(logits, REFERENCE)


def forward(logits):
    return kl.full_kl(REFERENCE, logits)


def mean_over_draws(estimate, behavior):
    """The expectation over tokens that a fixed behavior policy draws, as a loss."""
    drawn = jax.nn.softmax(behavior)

    def loss(logits):
        log_prob = jax.nn.log_softmax(logits)
        terms = estimate(
            log_prob, jax.nn.log_softmax(behavior), jax.nn.log_softmax(REFERENCE)
        )
        return (drawn * terms).sum()

    return loss


@pytest.mark.parametrize(
    ("kind", "theirs"), [("k1", "kl"), ("abs", "abs"), ("k2", "mse")]
)
def test_estimates_equal_trl(kind, theirs):
    g = golden("trl_ppo")
    found = kl.kl_estimate(g["in_log_prob"], g["in_reference_log_prob"], kind=kind)
    assert_close(found, g[f"kl_{theirs}"])


@pytest.mark.parametrize("kind", ["k1", "abs", "k2", "k3"])
def test_estimates_equal_verl(kind):
    g = golden("verl")
    found = kl.kl_estimate(g["in_log_prob"], g["in_reference_log_prob"], kind=kind)
    assert_close(found, g[f"kl_{kind}"])


def test_full_kl_equals_trl_and_optax():
    g = golden("trl_ppo")
    logits, reference = g["in_logits"], g["in_logits"][..., ::-1]
    found = kl.full_kl(jnp.asarray(logits), jnp.asarray(reference))
    assert_close(found, g["kl_full"])
    theirs = optax.kl_divergence(
        jax.nn.log_softmax(reference), jax.nn.softmax(jnp.asarray(logits))
    )
    assert_close(found, theirs)


def test_the_controller_equals_trl():
    g = golden("trl_ppo")
    coefficient = jnp.array(0.1)
    for x, expected in zip(g["in_kls"], g["coefficients"], strict=True):
        coefficient = kl.adaptive_kl_coefficient(
            coefficient, jnp.array(x), batch_size=32
        )
        assert_close(coefficient, expected)


def test_the_controller_ignores_nan_and_moves_no_more_than_a_fifth_per_horizon():
    step = lambda x: kl.adaptive_kl_coefficient(
        jnp.array(0.1), jnp.array(x), batch_size=10_000
    )
    assert_close(step(jnp.nan), 0.1)
    assert_close(step(1e9), 0.12)
    assert_close(step(-1e9), 0.08)
    assert_close(step(6.0), 0.1)


@pytest.mark.parametrize("kind", ["k1", "k3"])
def test_k1_and_k3_are_unbiased(kind):
    loss = mean_over_draws(lambda p, b, r: kl.kl_estimate(p, r, kind=kind), POLICY)
    assert_close(loss(POLICY), reverse(POLICY))


@pytest.mark.parametrize("kind", ["k2", "abs"])
def test_k2_and_abs_are_biased(kind):
    loss = mean_over_draws(lambda p, b, r: kl.kl_estimate(p, r, kind=kind), POLICY)
    assert abs(loss(POLICY) - reverse(POLICY)) > 0.01


@pytest.mark.parametrize(
    ("kind", "gradient"),
    [
        ("k1", jnp.zeros_like),
        ("k2", jax.grad(reverse)),
        ("k3", jax.grad(forward)),
    ],
)
def test_gradients_of_plain_estimators_on_policy(kind, gradient):
    """As the table of the module says: k1 teaches nothing, k3 the forward KL."""
    loss = mean_over_draws(lambda p, b, r: kl.kl_estimate(p, r, kind=kind), POLICY)
    assert_close(jax.grad(loss)(POLICY), gradient(POLICY))


def test_the_gradient_of_abs_is_neither():
    loss = mean_over_draws(lambda p, b, r: kl.kl_estimate(p, r, kind="abs"), POLICY)
    found = jax.grad(loss)(POLICY)
    assert jnp.abs(found - jax.grad(reverse)(POLICY)).max() > 0.05
    assert jnp.abs(found - jax.grad(forward)(POLICY)).max() > 0.05


def test_k1_in_the_reward_has_the_gradient_of_the_reverse_kl():
    def loss(p, b, r):
        return p * jax.lax.stop_gradient(kl.kl_estimate(p, r))

    found = jax.grad(mean_over_draws(loss, POLICY))(POLICY)
    assert_close(found, jax.grad(reverse)(POLICY))


@pytest.mark.parametrize("behavior", [POLICY, BEHAVIOR], ids=["on", "off"])
@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_kl_loss_has_the_gradient_of_the_reverse_kl(kind, behavior):
    loss = mean_over_draws(lambda p, b, r: kl.kl_loss(p, b, r, kind=kind), behavior)
    assert_close(jax.grad(loss)(POLICY), jax.grad(reverse)(POLICY))
    if kind != "k2":
        assert_close(loss(POLICY), reverse(POLICY))


@pytest.mark.parametrize("kind", ["k2", "k3"])
def test_off_policy_the_plain_estimators_are_wrong(kind):
    loss = mean_over_draws(lambda p, b, r: kl.kl_estimate(p, r, kind=kind), BEHAVIOR)
    found = jax.grad(loss)(POLICY)
    assert jnp.abs(found - jax.grad(reverse)(POLICY)).max() > 0.05


def test_only_the_policy_has_a_gradient():
    args = (POLICY, BEHAVIOR, REFERENCE)
    grads = jax.grad(lambda *x: kl.kl_loss(*x).sum(), argnums=(0, 1, 2))(*args)
    assert (grads[0] != 0).all()
    assert not grads[1].any()
    assert not grads[2].any()


def test_full_kl_of_excluded_tokens():
    never = -jnp.inf
    found = kl.full_kl(
        jnp.array([[0.0, never], [0.0, 0.0], [0.0, never], [1.0, 2.0]]),
        jnp.array([[0.0, 0.0], [0.0, never], [0.0, never], [1.0, 2.0]]),
    )
    assert_close(found[0], np.log(2.0))
    assert found[1] == jnp.inf
    assert not found[2:].any()


def test_far_ratios_stay_finite():
    far = jnp.array([-1e4, 0.0])
    for fn in (
        lambda p: kl.kl_estimate(p, far[::-1], kind="k3"),
        lambda p: kl.kl_loss(p, far[::-1], far[::-1]),
    ):
        assert jnp.isfinite(fn(far)).all()
        assert jnp.isfinite(jax.grad(lambda p, fn=fn: fn(p).sum())(far)).all()


def test_nan_outside_the_mask_is_seen():
    x = jnp.array([jnp.nan, 0.0])
    assert jnp.isnan(kl.kl_estimate(x, jnp.zeros(2), kind="k3")).tolist() == [
        True,
        False,
    ]


def test_bad_arguments():
    two, three = jnp.zeros(2), jnp.zeros(3)
    with pytest.raises(KeyError, match=r"kl_estimate: kind 'k4' is unknown"):
        kl.kl_estimate(two, two, kind="k4")  # type: ignore
    with pytest.raises(KeyError, match=r"kl_loss: kind 'abs' is unknown"):
        kl.kl_loss(two, two, two, kind="abs")  # type: ignore
    with pytest.raises(ValueError, match=r"reference_log_prob has shape \(3,\)"):
        kl.kl_estimate(two, three)
    with pytest.raises(ValueError, match=r"behavior_log_prob has shape \(3,\)"):
        kl.kl_loss(two, three, two)
    with pytest.raises(ValueError, match=r"reference_logits has shape \(3,\)"):
        kl.full_kl(two, three)
    with pytest.raises(ValueError, match=r"where has shape \(2,\); expected \(\)"):
        kl.full_kl(two, two, where=two > 0)
    for bad in ({"target": 0.0}, {"horizon": -1.0}):
        (name,) = bad
        with pytest.raises(ValueError, match=f"{name} is .*; expected more than 0"):
            kl.adaptive_kl_coefficient(two[0], two[0], batch_size=1, **bad)


@pytest.mark.parametrize("away", [-0.5, -8.0, -18.0, -19.9, -25.0, 12.0])
def test_the_gradient_of_k3_is_that_of_k1_however_far_the_reference_is(away):
    """By parts e^-d cancels against itself: float32 gave 5e8 for d below -20."""
    behavior, reference = jnp.float32(away - 1.0), jnp.float32(-1.0)
    slope = jax.grad(lambda lp: kl.kl_loss(lp, behavior, reference, kind="k3"))
    np.testing.assert_allclose(slope(behavior), away, rtol=1e-6)


def test_a_broken_policy_does_not_look_like_no_distance():
    broken, sound = jnp.array([jnp.nan, 0.0]), jnp.zeros(2)
    assert jnp.isnan(kl.full_kl(broken, sound))
    assert jnp.isnan(kl.full_kl(sound, broken))
