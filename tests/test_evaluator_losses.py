# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fulcra_jax import objectives

SEEDS = [0, 1, 2]


def case(seed, *shape):
    rng = np.random.default_rng(seed)
    return rng.normal(0.0, 3.0, (*shape, 3)), rng.integers(-1, 2, shape)


@pytest.mark.parametrize("seed", SEEDS)
def test_cross_entropy_equals_optax(seed):
    logits, labels = case(seed, 5, 10)
    with jax.enable_x64(True):
        logits, labels = jnp.asarray(logits), jnp.asarray(labels)
        ours = objectives.ternary_cross_entropy(logits, labels)
        theirs = optax.softmax_cross_entropy_with_integer_labels(logits, labels + 1)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_smoothing_equals_optax(smoothing):
    logits, labels = case(3, 40)
    with jax.enable_x64(True):
        logits = jnp.asarray(logits)
        onehot = jax.nn.one_hot(jnp.asarray(labels) + 1, 3, dtype=logits.dtype)
        theirs = optax.softmax_cross_entropy(
            logits, optax.smooth_labels(onehot, smoothing)
        )
        ours = objectives.ternary_cross_entropy(
            logits, jnp.asarray(labels), label_smoothing=smoothing
        )
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@pytest.mark.parametrize(
    ("label", "target"),
    [
        (-1.0, [1, 0, 0]),
        (0.0, [0, 1, 0]),
        (1.0, [0, 0, 1]),
        (-1 / 3, [1 / 3, 2 / 3, 0]),
        (0.25, [0, 0.75, 0.25]),
    ],
)
def test_a_label_between_two_classes_is_a_soft_target(label, target):
    logits = jnp.array([0.5, -1.0, 2.0])
    ours = objectives.ternary_cross_entropy(logits, jnp.array(label))
    theirs = optax.softmax_cross_entropy(logits, jnp.array(target))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_cross_entropy_by_hand():
    uniform = objectives.ternary_cross_entropy(jnp.zeros(3), jnp.array(1))
    assert uniform == pytest.approx(np.log(3.0), rel=1e-6)
    # Weights act on the (smoothed) target: .9 + .1 / 3 on the class -1 and .1 / 3 else.
    weights = jnp.array([3.0, 1.0, 2.0])
    weighted = objectives.ternary_cross_entropy(
        jnp.zeros(3), jnp.array(-1), class_weights=weights, label_smoothing=0.1
    )
    expected = (3.0 * (0.9 + 0.1 / 3) + (1.0 + 2.0) * 0.1 / 3) * np.log(3.0)
    assert weighted == pytest.approx(expected, rel=1e-6)


def test_cross_entropy_gradient_is_probs_minus_target():
    logits, label = jnp.array([0.5, -1.0, 2.0]), jnp.array(-0.4)
    gradient = jax.grad(objectives.ternary_cross_entropy)(logits, label)
    expected = jax.nn.softmax(logits) - jnp.array([0.4, 0.6, 0.0])
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


def test_large_logits_stay_finite():
    logits = jnp.array([1e4, 0.0, -1e4])
    assert objectives.ternary_cross_entropy(logits, jnp.array(1)) == 2e4
    assert objectives.ternary_cross_entropy(logits, jnp.array(-1)) == 0.0
    assert objectives.tanh_mse(jnp.array(1e4), jnp.array(-1)) == 4.0


@pytest.mark.parametrize("seed", SEEDS)
def test_tanh_mse_equals_optax(seed):
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        logits = jnp.asarray(rng.normal(0.0, 2.0, (6, 10)))
        labels = jnp.asarray(rng.uniform(-1.0, 1.0, (6, 10)))
        ours = objectives.tanh_mse(logits, labels)
        theirs = optax.squared_error(jnp.tanh(logits), labels)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_tanh_mse_weights_are_interpolated():
    weights = jnp.array([4.0, 1.0, 2.0])
    labels = jnp.array([-1.0, 0.0, 1.0, -0.5, 0.25])
    loss = objectives.tanh_mse(jnp.zeros(5), labels, class_weights=weights)
    expected = np.array([4.0, 1.0, 2.0, 2.5, 1.25]) * np.asarray(labels) ** 2
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_tanh_mse_gradient_in_closed_form():
    logit, label = jnp.array(0.7), jnp.array(-1)
    gradient = jax.grad(objectives.tanh_mse)(logit, label)
    score = np.tanh(0.7)
    assert gradient == pytest.approx(2 * (score + 1) * (1 - score**2), rel=1e-5)


@pytest.mark.parametrize("label", [2.0, -100.0, np.nan])
def test_a_label_that_is_none_is_loud_unless_masked(label):
    labels = jnp.array([label, 1.0])
    where = jnp.array([False, True])
    for loss, logits in [
        (objectives.ternary_cross_entropy, jnp.zeros((2, 3))),
        (objectives.tanh_mse, jnp.zeros(2)),
    ]:
        assert jnp.isnan(loss(logits, labels)).tolist() == [True, False]
        masked = loss(logits, labels, where=where)
        assert masked[0] == 0.0
        assert masked[1] == loss(logits, labels)[1]


def test_a_mean_that_is_off_by_rounding_is_a_label():
    label = jnp.array(np.nextafter(np.float32(1.0), np.float32(2.0)))
    loss = objectives.ternary_cross_entropy(jnp.zeros(3), label)
    assert loss == pytest.approx(np.log(3.0), rel=1e-6)


def test_class_weights_by_hand():
    labels = np.array([-1] * 4 + [0] * 25 + [1] * 16)
    weights = objectives.sqrt_class_weights(jnp.asarray(labels))
    # n = 45, roots 2, 5, 4: w = 45 / 11 / root.
    np.testing.assert_allclose(weights, 45 / 11 / np.array([2.0, 5.0, 4.0]), rtol=1e-6)
    assert weights[labels + 1].mean() == pytest.approx(1.0, rel=1e-6)


def test_class_weights_of_what_does_not_occur():
    labels = jnp.array([0, 0, 0, 0, 1, -1])
    where = jnp.array([True] * 5 + [False])
    # n = 5, roots 2 and 1: w = 5 / 3 / root; the absent -1 gets the rarer class's.
    weights = objectives.sqrt_class_weights(labels, where)
    np.testing.assert_allclose(weights, [5 / 3, 5 / 6, 5 / 3], rtol=1e-6)
    nothing = objectives.sqrt_class_weights(labels, where & False)
    np.testing.assert_array_equal(nothing, [1.0, 1.0, 1.0])


def test_class_weights_count_fractions():
    # Two labels of 1/2 are one 0 and one +1.
    weights = objectives.sqrt_class_weights(jnp.array([0.5, 0.5, -1.0]))
    np.testing.assert_allclose(weights, [1.0, 1.0, 1.0], rtol=1e-6)


def test_masked_mean_by_hand():
    x = jnp.array([[1.0, jnp.nan], [jnp.inf, 4.0]])
    where = jnp.array([[True, False], [False, True]])
    assert objectives.masked_mean(x, where) == 2.5
    total, count = objectives.masked_total(x, where)
    assert (total, count) == (5.0, 2.0)
    assert objectives.masked_mean(x, where & False) == 0.0
    assert objectives.masked_mean(jnp.array([1, 2])) == 1.5
    assert jnp.isnan(objectives.masked_mean(x))


def test_totals_of_parts_give_the_mean_of_the_whole():
    rng = np.random.default_rng(0)
    x, where = (
        jnp.asarray(rng.normal(size=(8, 5))),
        jnp.asarray(rng.random((8, 5)) < 0.5),
    )
    parts = [objectives.masked_total(x[i::3], where[i::3]) for i in range(3)]
    total, count = (sum(part) for part in zip(*parts, strict=True))
    mean = objectives.masked_mean(x, where)
    assert total / count == pytest.approx(float(mean), rel=1e-5)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_gradient_of_a_masked_entry_is_exactly_zero(bad):
    where = jnp.array([True, False, True])
    gradient = jax.grad(objectives.masked_mean)(jnp.array([1.0, bad, 3.0]), where)
    np.testing.assert_array_equal(gradient, [0.5, 0.0, 0.5])


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_a_masked_logit_reaches_no_gradient(bad):
    where = jnp.array([True, False])

    def cross_entropy(logits):
        loss = objectives.ternary_cross_entropy(
            logits, jnp.array([1.0, jnp.nan]), where=where
        )
        return objectives.masked_mean(loss, where)

    def squared(logits):
        loss = objectives.tanh_mse(logits, jnp.array([1.0, jnp.nan]), where=where)
        return objectives.masked_mean(loss, where)

    gradient = jax.grad(cross_entropy)(jnp.array([[0.0, 0.0, 0.0], [bad, 0.0, 1.0]]))
    np.testing.assert_allclose(gradient, [[1 / 3, 1 / 3, -2 / 3], [0, 0, 0]], rtol=1e-6)
    gradient = jax.grad(squared)(jnp.array([0.0, bad]))
    np.testing.assert_array_equal(gradient, [-2.0, 0.0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: objectives.ternary_cross_entropy(jnp.zeros((4, 2)), jnp.zeros(4)),
            r"evaluator\.ternary_cross_entropy: logits has shape \(4, 2\)",
        ),
        (
            lambda: objectives.ternary_cross_entropy(
                jnp.zeros((4, 10, 3)), jnp.zeros((4, 9))
            ),
            r"ternary_cross_entropy: labels has shape \(4, 9\), so A1=9",
        ),
        (
            lambda: objectives.tanh_mse(jnp.zeros((4, 3)), jnp.zeros(4)),
            r"evaluator\.tanh_mse: logits has shape \(4, 3\)",
        ),
        (
            lambda: objectives.tanh_mse(
                jnp.zeros(4), jnp.zeros(4), class_weights=jnp.ones(2)
            ),
            r"tanh_mse: class_weights has shape \(2,\); expected \[3\]",
        ),
        (
            lambda: objectives.sqrt_class_weights(jnp.zeros(4), jnp.ones(3, bool)),
            r"sqrt_class_weights: where has shape \(3,\), so A0=3, but labels has A0=4",
        ),
        (
            lambda: objectives.masked_mean(jnp.zeros((4, 2)), jnp.ones(4, bool)),
            r"reduce\.masked_mean: where has shape \(4,\); expected \[A0, A1\]",
        ),
        (
            lambda: objectives.masked_total(jnp.zeros(4), jnp.ones(3, bool)),
            r"reduce\.masked_total: where has shape \(3,\), so A0=3",
        ),
    ],
)
def test_errors_name_the_array_at_fault(call, message):
    with pytest.raises(ValueError, match=message):
        call()
