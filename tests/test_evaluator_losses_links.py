# SPDX-License-Identifier: Apache-2.0
"""Losses of the links: cumulative, presence, focal on three classes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from fulcra_jax import models, objectives

FOCAL = jax.jit(objectives.focal_loss)
FOCAL_SLOPE = jax.jit(
    jax.grad(lambda x, y, gamma: objectives.focal_loss(x, y, gamma=gamma).sum())
)
ORDINAL = jax.jit(jax.value_and_grad(objectives.ordinal_loss))


def ordinal_case(seed):
    rng = np.random.default_rng(seed)
    return rng.normal(0.0, 3.0, (40, 2)), rng.integers(-1, 2, 40)


def test_cumulative_classes_are_those_of_the_heads():
    with jax.enable_x64(True):
        logits = jnp.asarray(ordinal_case(0)[0])
        ours = np.exp(objectives.ordinal_log_probs(logits))
        theirs = models.probs(logits, "ordinal")
    # The heads take the middle class as a difference, which keeps fewer digits.
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    np.testing.assert_allclose(ours.sum(-1), 1.0, rtol=1e-12)


def test_the_outer_classes_are_binary_decisions_about_the_thresholds():
    with jax.enable_x64(True):
        logits, labels = map(jnp.asarray, ordinal_case(1))
        s, e = logits[:, 0], jax.nn.softplus(logits[:, 1])
        ours = objectives.ordinal_loss(logits, labels)
        over = optax.sigmoid_binary_cross_entropy(s - e, jnp.ones(40))
        below = optax.sigmoid_binary_cross_entropy(s + e, jnp.zeros(40))
    for label, theirs in ((1, over), (-1, below)):
        there = np.asarray(labels) == label
        np.testing.assert_allclose(
            np.asarray(ours)[there], np.asarray(theirs)[there], rtol=1e-12
        )


@pytest.mark.parametrize(
    ("s", "w", "expected"),
    [
        # Narrow: e is exp(w) and P(0) = e / 2.
        (0.0, -50.0, -50.0 - np.log(2.0)),
        (0.0, -1e4, -1e4 - np.log(2.0)),
        # Far away, e = log 2: P(0) = exp(-s) (2 - 1/2).
        (40.0, 0.0, -40.0 + np.log(1.5)),
        (-1e4, 0.0, -1e4 + np.log(1.5)),
        # Wide: nearly all, 1 - 2 exp(-w) in the middle.
        (0.0, 10.0, np.log(np.tanh(np.log1p(np.exp(10.0)) / 2))),
        (0.0, 1e4, 0.0),
    ],
)
def test_the_middle_class_keeps_its_digits_in_float32(s, w, expected):
    logits = jnp.array([s, w], jnp.float32)
    loss, gradient = ORDINAL(logits, jnp.array(0))
    assert loss == pytest.approx(-expected, rel=2e-6)
    assert np.isfinite(gradient).all()


def test_slope_of_the_width_where_the_two_forms_meet():
    # At s = 0, P(0) = tanh(e / 2), whose logarithm has the slope 1 / sinh(e) by e;
    # w = 0 is e = log 2, sinh .75, and the slope of e by w is 1 / 2.
    _, gradient = ORDINAL(jnp.zeros(2), jnp.array(0))
    np.testing.assert_allclose(gradient, [0.0, -2 / 3], rtol=1e-6, atol=1e-7)


def test_gradients_are_finite_differences():
    rng = np.random.default_rng(2)
    labels, weights = jnp.asarray(rng.uniform(-1, 1, 12)), jnp.array([3.0, 1.0, 2.0])
    with jax.enable_x64(True):
        for C, loss in (
            (2, objectives.ordinal_loss),
            (3, objectives.focal_loss),
        ):
            logits = jnp.asarray(rng.normal(0.0, 2.0, (12, C)))
            given = functools.partial(
                loss, labels=labels, class_weights=weights, label_smoothing=0.1
            )
            check_grads(jax.jit(given), (logits,), order=1, modes=["rev"])


def test_the_opposite_end_costs_most():
    s = jnp.linspace(0.5, 12.0, 20)
    logits = jnp.stack([s, jnp.zeros_like(s)], -1)
    below, middle, over = -np.asarray(objectives.ordinal_log_probs(logits)).T
    assert (below > middle).all()
    assert (np.diff(below) > 0).all()
    assert (np.diff(over) < 0).all()
    # Far above the thresholds P(0) / P(-1) is exp(2 e) - 1, and exp(e) is 2 here.
    assert below[-1] - middle[-1] == pytest.approx(np.log(3.0), rel=1e-4)


def test_fractions_weights_and_smoothing_act_on_the_target():
    logits = jnp.array([0.3, -0.2])
    log_p = objectives.ordinal_log_probs(logits)
    weights = jnp.array([3.0, 1.0, 2.0])
    loss = objectives.ordinal_loss(
        logits, jnp.array(-0.25), class_weights=weights, label_smoothing=0.3
    )
    target = 0.7 * np.array([0.25, 0.75, 0.0]) + 0.1
    expected = -(np.array([3.0, 1.0, 2.0]) * target * np.asarray(log_p)).sum()
    assert loss == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_focal_of_gamma_zero_is_cross_entropy_exactly(smoothing):
    rng = np.random.default_rng(3)
    logits = jnp.asarray(rng.normal(0.0, 20.0, (50, 3)), jnp.float32)
    labels = jnp.asarray(rng.uniform(-1, 1, 50), jnp.float32)
    given = {"class_weights": jnp.array([3.0, 1.0, 2.0]), "label_smoothing": smoothing}
    ours = objectives.focal_loss(logits, labels, gamma=0.0, **given)
    theirs = objectives.ternary_cross_entropy(logits, labels, **given)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_focal_of_two_classes_equals_optax(gamma):
    rng = np.random.default_rng(4)
    with jax.enable_x64(True):
        logit = jnp.asarray(rng.normal(0.0, 3.0, 30))
        labels = jnp.asarray(rng.integers(0, 2, 30))
        # A class of no probability leaves a sigmoid of the other two.
        never = jnp.full(30, -1e6)
        three = jnp.stack([never, jnp.zeros(30), logit], -1)
        ours = FOCAL(three, labels, gamma=gamma)
        theirs = optax.sigmoid_focal_loss(logit, labels, gamma=gamma)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_has_a_slope_where_the_answer_is_certain(gamma):
    logits = jnp.array([[0.0, 0.0, 300.0], [300.0, 0.0, 0.0]])
    labels = jnp.array([1, 1])
    loss = FOCAL(logits, labels, gamma=gamma)
    np.testing.assert_allclose(loss, [0.0, 300.0], rtol=1e-6)
    gradient = FOCAL_SLOPE(logits, labels, gamma)
    np.testing.assert_allclose(gradient, [[0, 0, 0], [1, 0, -1]], atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_presence_equals_optax(seed):
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        logits = jnp.asarray(rng.normal(0.0, 5.0, (6, 20)))
        labels = jnp.asarray(rng.uniform(0.0, 1.0, (6, 20)).round(seed))
        ours = objectives.presence_loss(logits, labels)
        theirs = optax.sigmoid_binary_cross_entropy(logits, labels)
        gradient = jax.grad(
            lambda x: objectives.presence_loss(x, labels).sum()
        )(logits)  # fmt: skip
        np.testing.assert_allclose(
            gradient, jax.nn.sigmoid(logits) - labels, rtol=1e-9, atol=1e-12
        )
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_presence_weights_and_smoothing_by_hand():
    logit, yes = jnp.array(0.7), jnp.array(1)
    there = -np.log(1 / (1 + np.exp(-0.7)))
    not_there = there + 0.7
    smooth = objectives.presence_loss(
        logit, yes, positive_weight=3.0, label_smoothing=0.2
    )
    assert smooth == pytest.approx(3 * 0.9 * there + 0.1 * not_there, rel=1e-6)
    by_value = objectives.presence_loss(
        jnp.zeros((2, 3)), jnp.ones((2, 3)), positive_weight=jnp.array([1.0, 2.0, 4.0])
    )
    np.testing.assert_allclose(by_value, np.log(2.0) * np.array([[1, 2, 4]] * 2))


@pytest.mark.parametrize(
    ("loss", "shape"),
    [
        (objectives.ordinal_loss, (2, 2)),
        (objectives.focal_loss, (2, 3)),
        (objectives.presence_loss, (2,)),
    ],
)
def test_a_masked_logit_reaches_no_gradient(loss, shape):
    where, labels = jnp.array([True, False]), jnp.array([1.0, jnp.nan])
    slope = jax.jit(jax.grad(lambda x: loss(x, labels, where=where).sum()))
    for bad in (np.nan, np.inf, -np.inf):
        logits = np.zeros(shape, np.float32)
        logits[1] = bad
        gradient = np.asarray(slope(logits))
        assert np.isfinite(gradient).all()
        assert gradient[0].any()
        assert not gradient[1].any()


def test_a_label_that_is_none_is_loud():
    assert jnp.isnan(objectives.ordinal_loss(jnp.zeros(2), jnp.array(2)))
    assert jnp.isnan(objectives.focal_loss(jnp.zeros(3), jnp.array(-2)))
    # -1 is no label of a link that knows no opposition.
    loss = objectives.presence_loss(jnp.zeros(3), jnp.array([-1, 0, 1]))
    assert jnp.isnan(loss).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: objectives.ordinal_log_probs(jnp.zeros((4, 3))),
            r"ordinal\.ordinal_log_probs: logits has shape \(4, 3\)",
        ),
        (
            lambda: objectives.ordinal_loss(jnp.zeros((4, 2)), jnp.zeros(5)),
            r"ordinal\.ordinal_loss: labels has shape \(5,\), so A0=5",
        ),
        (
            lambda: objectives.focal_loss(jnp.zeros((4, 2)), jnp.zeros(4)),
            r"focal\.focal_loss: logits has shape \(4, 2\)",
        ),
        (
            lambda: objectives.focal_loss(jnp.zeros((4, 3)), jnp.zeros(4), gamma=-1.0),
            r"focal\.focal_loss: gamma is -1\.0; expected at least 0",
        ),
        (
            lambda: objectives.presence_loss(jnp.zeros((4, 1)), jnp.zeros(4)),
            r"presence\.presence_loss: logits has shape \(4, 1\)",
        ),
        (
            lambda: objectives.presence_loss(
                jnp.zeros(4), jnp.zeros(4), positive_weight=0
            ),
            r"presence_loss: positive_weight is 0; expected more than 0",
        ),
    ],
)
def test_errors_name_the_argument_at_fault(call, message):
    with pytest.raises(ValueError, match=message):
        call()
