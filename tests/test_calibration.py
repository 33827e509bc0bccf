# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.calibration
import sklearn.metrics

from fulcra_jax import scoring

SEEDS = [0, 1, 2]


def table(seed, n=400):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet([0.5, 2.0, 1.0], n)
    labels = np.array([rng.choice(3, p=p) for p in probs])
    return probs, labels, rng.random(n) < 0.7


def binned_gap(confidence, correct, num_bins):
    """The definition, bin by bin."""
    gap = 0.0
    for m in range(num_bins):
        low, high = m / num_bins, (m + 1) / num_bins
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            gap += inside.mean() * abs(
                correct[inside].mean() - confidence[inside].mean()
            )
    return gap


def on_arrays(metric, probs, labels, where, **options):
    with jax.enable_x64(True):
        arrays = jnp.asarray(probs), jnp.asarray(labels), jnp.asarray(where)
        call = jax.jit(lambda p, y, where: metric(p, y, where=where, **options))
        return jax.tree.map(np.asarray, call(*arrays))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("num_bins", [1, 15])
def test_calibration_errors_equal_their_definition(seed, num_bins):
    probs, labels, where = table(seed)
    p, y = probs[where], labels[where]

    top = on_arrays(
        scoring.expected_calibration_error, probs, labels, where, num_bins=num_bins
    )
    classwise = on_arrays(
        scoring.classwise_calibration_error, probs, labels, where, num_bins=num_bins
    )

    expected = binned_gap(p.max(1), p.argmax(1) == y, num_bins)
    np.testing.assert_allclose(top, expected, rtol=1e-12)
    expected = np.mean([binned_gap(p[:, c], y == c, num_bins) for c in range(3)])
    np.testing.assert_allclose(classwise, expected, rtol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_reliability_curve_equals_sklearn(seed):
    probs, labels, where = table(seed)
    confidence, correct = probs[:, 2], labels == 2
    curve = on_arrays(
        scoring.reliability_curve, confidence, correct, where, num_bins=10
    )
    accuracy, mean = sklearn.calibration.calibration_curve(
        correct[where], confidence[where], n_bins=10
    )
    filled = curve.counts > 0
    np.testing.assert_allclose(curve.accuracy[filled], accuracy, rtol=1e-12)
    np.testing.assert_allclose(curve.confidence[filled], mean, rtol=1e-12)
    assert np.isnan(curve.accuracy[~filled]).all()
    assert curve.counts.sum() == where.sum()


@pytest.mark.parametrize("seed", SEEDS)
def test_brier_and_likelihood_equal_sklearn(seed):
    probs, labels, where = table(seed)
    ours = on_arrays(scoring.brier, probs, labels, where)
    theirs = sklearn.metrics.brier_score_loss(
        labels[where], probs[where], scale_by_half=False, labels=[0, 1, 2]
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    ours = on_arrays(scoring.negative_log_likelihood, probs, labels, where)
    theirs = sklearn.metrics.log_loss(labels[where], probs[where])
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_errors_by_hand():
    # Bin (.5, 1]: confidences .9, .8, .7, two of three right. Bin (0, .5]: .4, wrong.
    probs = jnp.array(
        [[0.9, 0.1, 0.0], [0.1, 0.8, 0.1], [0.2, 0.1, 0.7], [0.4, 0.3, 0.3]]
    )
    labels = jnp.array([0, 1, 1, 2])
    ece = scoring.expected_calibration_error(probs, labels, num_bins=2)
    assert ece == pytest.approx(0.75 * abs(2 / 3 - 0.8) + 0.25 * 0.4, rel=1e-6)
    # Row by row: .01 + .01, .01 + .04 + .01, .04 + .81 + .49, .16 + .09 + .49.
    assert scoring.brier(probs, labels) == pytest.approx(
        (0.02 + 0.06 + 1.34 + 0.74) / 4, rel=1e-6
    )
    assert scoring.negative_log_likelihood(probs, labels) == pytest.approx(
        -np.log([0.9, 0.8, 0.1, 0.3]).mean(), rel=1e-6
    )


def test_a_constant_true_rate_is_perfectly_calibrated():
    probs = jnp.broadcast_to(jnp.array([0.25, 0.5, 0.25]), (8, 3))
    labels = jnp.array([0, 0, 1, 1, 1, 1, 2, 2])
    assert scoring.expected_calibration_error(probs, labels) == 0.0
    assert scoring.classwise_calibration_error(probs, labels) == 0.0


def test_the_classwise_error_sees_a_rare_class():
    # The top label is always class 1 and right; class 0 has .1 and never comes true.
    probs = jnp.broadcast_to(jnp.array([0.1, 0.9, 0.0]), (10, 3))
    labels = jnp.ones(10, int)
    gap = scoring.classwise_calibration_error(probs, labels)
    assert gap == pytest.approx((0.1 + 0.1 + 0.0) / 3, rel=1e-5)


def test_bins_are_closed_on_the_right_and_hold_zero_and_one():
    confidence = jnp.array([0.0, 0.25, 0.5, 0.75, 1.0])
    curve = scoring.reliability_curve(confidence, jnp.ones(5, bool), num_bins=4)
    assert curve.counts.tolist() == [2.0, 1.0, 1.0, 1.0]


def test_the_impossible_happened():
    probs = jnp.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    assert scoring.negative_log_likelihood(probs, jnp.array([0, 2])) == jnp.inf
    assert scoring.negative_log_likelihood(probs, jnp.array([0, 0])) == 0.0
    assert scoring.brier(probs, jnp.array([2, 2])) == 2.0


@pytest.mark.parametrize(
    "metric",
    [
        scoring.expected_calibration_error,
        scoring.classwise_calibration_error,
        scoring.brier,
        scoring.negative_log_likelihood,
    ],
)
def test_no_entry_is_undefined_and_shapes_are_checked(metric):
    probs, labels = jnp.full((4, 3), 1 / 3), jnp.zeros(4, int)
    assert jnp.isnan(metric(probs, labels, where=jnp.zeros(4, bool)))
    message = rf"calibration\.{metric.__name__}: labels has shape \(5,\), so N=5"
    with pytest.raises(ValueError, match=message):
        metric(probs, jnp.zeros(5, int))


def test_reliability_curve_names_the_array_at_fault():
    with pytest.raises(
        ValueError, match=r"reliability_curve: correct has shape \(3,\)"
    ):
        scoring.reliability_curve(jnp.zeros(4), jnp.zeros(3, bool))
