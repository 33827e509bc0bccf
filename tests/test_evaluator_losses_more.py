# SPDX-License-Identifier: Apache-2.0
"""What a loss has beside labels: a teacher, the circle of values, weights of cells."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from fulcra_jax import models, objectives, values

RING = values.ring_angles()


def teacher_case(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0.0, 2.0, (8, 10, 3)), rng.uniform(-1.0, 1.0, (8, 10))


def test_squared_is_the_error_of_the_score():
    with jax.enable_x64(True):
        logits, teacher = map(jnp.asarray, teacher_case())
        ours = objectives.distillation_loss(jax.nn.log_softmax(logits), teacher)
        theirs = optax.squared_error(models.score(logits, "ternary"), teacher)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_soft_is_the_divergence_of_optax_and_its_gradient_the_cross_entropys():
    with jax.enable_x64(True):
        logits, teacher = map(jnp.asarray, teacher_case(1))
        teacher = teacher.at[0].set(jnp.array([-1, 0, 1, 0.5, -0.5] * 2))
        target = jnp.stack(
            [jnp.maximum(-teacher, 0), 1 - jnp.abs(teacher), jnp.maximum(teacher, 0)],
            -1,
        )
        soft = lambda x: objectives.distillation_loss(
            jax.nn.log_softmax(x), teacher, kind="soft"
        )
        theirs = optax.losses.kl_divergence(jax.nn.log_softmax(logits), target)
        np.testing.assert_allclose(soft(logits), theirs, rtol=1e-9, atol=1e-12)
        ours = jax.grad(lambda x: soft(x).sum())(logits)
        theirs = jax.grad(
            lambda x: objectives.ternary_cross_entropy(x, teacher).sum()
        )(logits)  # fmt: skip
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["squared", "soft"])
def test_a_teacher_that_is_met_has_nothing_to_teach(kind):
    teacher = jnp.array([-1.0, -0.25, 0.0, 0.5, 1.0])
    probs = jnp.stack(
        [jnp.maximum(-teacher, 0), 1 - jnp.abs(teacher), jnp.maximum(teacher, 0)], -1
    )
    loss = objectives.distillation_loss(jnp.log(probs), teacher, kind=kind)
    np.testing.assert_allclose(loss, 0.0, atol=1e-7)


def test_a_class_without_probability_costs_only_who_asks_for_it():
    log_probs = jnp.log(jnp.array([[0.0, 0.5, 0.5]] * 2))
    teacher = jnp.array([0.5, -0.5])
    soft = objectives.distillation_loss(log_probs, teacher, kind="soft")
    np.testing.assert_array_equal(soft, [0.0, jnp.inf])
    squared = objectives.distillation_loss(log_probs, teacher)
    np.testing.assert_array_equal(squared, [0.0, 1.0])


@pytest.mark.parametrize("kind", ["squared", "soft"])
def test_a_masked_score_is_never_read_and_one_outside_is_loud(kind):
    log_probs = jnp.full((3, 3), jnp.log(1 / 3)).at[1].set(jnp.nan)
    teacher, where = jnp.array([0.3, jnp.nan, 1.5]), jnp.array([True, False, True])
    loss = objectives.distillation_loss(log_probs, teacher, kind=kind, where=where)
    assert loss[1] == 0.0
    assert jnp.isnan(loss).tolist() == [False, False, True]
    gradient = jax.grad(
        lambda x: objectives.distillation_loss(
            x, teacher, kind=kind, where=where.at[2].set(False)
        ).sum()
    )(log_probs)
    assert jnp.isfinite(gradient).all()
    assert (gradient[1] == 0).all()


@pytest.mark.parametrize("wedge", [True, False])
def test_a_level_and_a_wave_cost_nothing_and_change_nothing(wedge):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        angles = jnp.asarray(values.ring_angles(wedge))
        wave = 0.1 - 0.4 * jnp.cos(angles) + 0.3 * jnp.sin(angles)
        penalty = objectives.circumplex_penalty
        assert penalty(wave, angles) == pytest.approx(0.0, abs=1e-28)
        score = jnp.asarray(rng.uniform(-1, 1, (5, 10)))
        np.testing.assert_allclose(
            penalty(score + wave[None], angles), penalty(score, angles), rtol=1e-9
        )


def test_the_second_harmonic_is_all_rest():
    # On equal steps cos(2 a) is orthogonal to the level and the wave; its mean square
    # is 1 / 2.
    angles = jnp.asarray(values.ring_angles(False), jnp.float32)
    penalty = objectives.circumplex_penalty(jnp.cos(2 * angles), angles)
    assert penalty == pytest.approx(0.5, rel=1e-5)


def test_the_rest_is_that_of_least_squares_over_what_counts():
    rng = np.random.default_rng(1)
    score, where = rng.uniform(-1, 1, (40, 10)), rng.random((40, 10)) < 0.6
    where[0], where[1] = False, RING > 5  # nothing; two values
    where[2] = np.isclose(RING, RING[6])  # Tradition and Conformity share a wedge
    where[3] = where[2] | (RING == 0.0)  # and a value across
    with jax.enable_x64(True):
        ours = objectives.circumplex_penalty(
            jnp.asarray(score), jnp.asarray(RING), where=jnp.asarray(where)
        )
    columns = np.stack([np.ones(10), np.cos(RING), np.sin(RING)], 1)
    for row in range(40):
        x, s = columns[where[row]], score[row][where[row]]
        rest = s - x @ np.linalg.lstsq(x, s, rcond=1e-9)[0]
        expected = (rest**2).mean() if len(s) else 0.0
        assert ours[row] == pytest.approx(expected, abs=1e-12)


def test_values_that_share_a_wedge_are_pulled_to_their_mean():
    pair = jnp.asarray(np.isclose(RING, RING[6]))
    score = jnp.zeros(10).at[6].set(1.0).at[7].set(-1.0)
    angles = jnp.asarray(RING, jnp.float32)
    penalty = objectives.circumplex_penalty(score, angles, where=pair)
    assert penalty == pytest.approx(1.0, rel=1e-6)
    # Opposite each other: the sine is rounding noise, and no third direction.
    angles = jnp.array([0.0, np.pi, np.pi])
    penalty = objectives.circumplex_penalty(jnp.array([0.0, 1.0, -1.0]), angles)
    assert penalty == pytest.approx(2 / 3, rel=1e-5)


def test_the_slope_of_the_rest():
    rng = np.random.default_rng(2)
    with jax.enable_x64(True):
        score = jnp.asarray(rng.uniform(-1, 1, (3, 10)))
        angles = jnp.asarray(RING)
        where = jnp.asarray(rng.random((3, 10)) < 0.7)
        penalty = jax.jit(objectives.circumplex_penalty)
        check_grads(
            lambda s, a: penalty(s, a, where=where),
            (score, angles),
            order=1,
            modes=["rev"],
        )
        # Following the slope to its end leaves the wave alone: 2 r / n away from it.
        every = jnp.ones(10, bool)
        slope = jax.grad(lambda s: penalty(s, angles, where=every))(score[0])
        fitted = score[0] - 10 / 2 * slope
        assert penalty(fitted, angles, where=every) < 1e-28


def test_balanced_weights_by_hand():
    labels = np.array([-1] * 4 + [0] * 25 + [1] * 16)
    weights = objectives.balanced_class_weights(jnp.asarray(labels))
    # n / (K n_c), as scikit-learn's "balanced".
    np.testing.assert_allclose(weights, 45 / 3 / np.array([4.0, 25, 16]), rtol=1e-6)
    assert weights[labels + 1].mean() == pytest.approx(1.0, rel=1e-6)


def test_balanced_weights_of_what_does_not_occur():
    labels = jnp.array([0, 0, 0, 0, 1, -1])
    where = jnp.array([True] * 5 + [False])
    weights = objectives.balanced_class_weights(labels, where)
    np.testing.assert_allclose(weights, [5 / 2, 5 / 8, 5 / 2], rtol=1e-6)
    nothing = objectives.balanced_class_weights(labels, where & False)
    np.testing.assert_array_equal(nothing, [1.0, 1.0, 1.0])
    fractions = objectives.balanced_class_weights(jnp.array([0.5, 0.5, -1.0]))
    np.testing.assert_allclose(fractions, [1.0, 1.0, 1.0], rtol=1e-6)


def test_weighted_totals_by_hand():
    x = jnp.array([[1.0, jnp.nan], [3.0, jnp.inf]])
    weights = jnp.array([[0.5, 0.0], [0.25, 0.0]])
    total, count = objectives.masked_total(x, weights)
    assert (total, count) == (1.25, 0.75)
    # A mean, also where the weights sum to less than one.
    assert objectives.masked_mean(x, weights) == pytest.approx(1.25 / 0.75)
    assert objectives.masked_mean(x, weights * 0.0) == 0.0
    gradient = jax.grad(objectives.masked_mean)(x, weights)
    np.testing.assert_allclose(gradient, [[2 / 3, 0.0], [1 / 3, 0.0]], rtol=1e-6)


def test_weights_of_one_are_a_mask():
    rng = np.random.default_rng(3)
    x, where = (
        jnp.asarray(rng.normal(size=(8, 5))),
        jnp.asarray(rng.random((8, 5)) < 0.5),
    )
    mean = objectives.masked_mean(x, where)
    assert objectives.masked_mean(x, where.astype(jnp.float32)) == mean
    assert objectives.masked_mean(x, where.astype(jnp.int32)) == mean


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: objectives.distillation_loss(jnp.zeros((4, 2)), jnp.zeros(4)),
            ValueError,
            r"distillation\.distillation_loss: log_probs has shape \(4, 2\)",
        ),
        (
            lambda: objectives.distillation_loss(
                jnp.zeros((4, 3)), jnp.zeros(4), kind="hard"
            ),
            KeyError,
            r"kind 'hard' is unknown; known are: squared, soft",
        ),
        (
            lambda: objectives.circumplex_penalty(jnp.zeros((4, 20)), jnp.zeros(10)),
            ValueError,
            r"circumplex\.circumplex_penalty: angles has shape \(10,\), so V=10",
        ),
        (
            lambda: objectives.circumplex_penalty(
                jnp.zeros((4, 10)), jnp.zeros(10), where=jnp.ones(10, bool)
            ),
            ValueError,
            r"where has shape \(10,\); expected that of score, \(4, 10\)",
        ),
        (
            lambda: objectives.balanced_class_weights(jnp.zeros(4), jnp.ones(3, bool)),
            ValueError,
            r"evaluator\.balanced_class_weights: where has shape \(3,\), so A0=3",
        ),
    ],
)
def test_errors_name_the_argument_at_fault(call, error, message):
    with pytest.raises(error, match=message):
        call()
