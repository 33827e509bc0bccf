# SPDX-License-Identifier: Apache-2.0
"""Temperatures, class biases and conformal sets against independent computations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special
import sklearn.metrics

from fulcra_jax import scoring

SEEDS = [0, 1]


def table(seed, n=300, heat=1.0):
    """Probabilities whose labels were drawn at another temperature, and a mask."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet([0.5, 2.0, 1.0], n).clip(1e-6)
    probs /= probs.sum(1, keepdims=True)
    drawn = scipy.special.softmax(np.log(probs) / heat, 1)
    labels = np.array([rng.choice(3, p=p) for p in drawn])
    return probs, labels, rng.random(n) < 0.7


def loss(probs, labels, temperature, shift):
    log_p = scipy.special.log_softmax(np.log(probs) / temperature + shift, 1)
    return -log_p[np.arange(len(labels)), labels].sum()


@pytest.mark.parametrize("seed", SEEDS)
def test_temperature_is_the_minimum_scipy_finds(seed):
    probs, labels, where = table(seed, heat=2.0)
    shift = np.array([0.3, -0.2, 0.1])
    found = scoring.fit_temperature(
        jnp.asarray(probs),
        jnp.asarray(labels),
        shift=jnp.asarray(shift),
        where=jnp.asarray(where),
    )
    best = scipy.optimize.fminbound(
        lambda t: loss(probs[where], labels[where], t, shift), 0.1, 10.0
    )
    np.testing.assert_allclose(found, best, rtol=2e-3)


def test_the_temperature_of_the_labels_is_found_again():
    probs, labels, _ = table(0, 4000, heat=2.0)
    found = scoring.fit_temperature(jnp.asarray(probs), jnp.asarray(labels))
    np.testing.assert_allclose(found, 2.0, atol=0.15)


@pytest.mark.parametrize("seed", SEEDS)
def test_temperature_and_shift_are_the_minimum_scipy_finds(seed):
    probs, labels, where = table(seed, heat=1.7)
    p, y = probs[where], labels[where]

    def objective(theta):
        penalty = 0.5 * ((theta[0] - 1) ** 2 + (theta[1:] ** 2).sum())
        return loss(p, y, 1 / theta[0], theta[1:]) + penalty

    best = scipy.optimize.minimize(objective, [1.0, 0, 0, 0], method="BFGS").x
    found = scoring.fit_temperature_shift(
        jnp.asarray(probs), jnp.asarray(labels), where=jnp.asarray(where)
    )
    np.testing.assert_allclose(1 / found.temperature, best[0], atol=2e-3)
    np.testing.assert_allclose(found.shift, best[1:] - best[1:].mean(), atol=2e-3)


def test_shift_gives_every_class_its_frequency():
    probs, labels, _ = table(0, 2000)
    labels = np.where((labels == 0) & (np.arange(2000) % 3 > 0), 1, labels)
    found = scoring.fit_temperature_shift(jnp.asarray(probs), jnp.asarray(labels))
    calibrated = scoring.temper(jnp.asarray(probs), found.temperature, found.shift)
    frequency = np.bincount(labels, minlength=3) / 2000
    np.testing.assert_allclose(calibrated.mean(0), frequency, atol=2e-3)


def test_a_class_that_never_occurs_has_a_finite_shift():
    probs, labels, _ = table(0)
    labels = np.maximum(labels, 1)
    found = scoring.fit_temperature_shift(jnp.asarray(probs), jnp.asarray(labels))
    assert np.isfinite(found.shift).all()
    assert found.shift[0] < found.shift[1:].min() - 1


def test_an_impossible_class_stays_impossible():
    probs = jnp.array([[0.0, 0.6, 0.4], [0.0, 0.2, 0.8]])
    labels = jnp.array([1, 0])
    assert (scoring.temper(probs, 5.0, jnp.array([9.0, 0, 0]))[:, 0] == 0.0).all()
    found = scoring.biased_classes(probs, jnp.array([9.0, 0, 0]))
    np.testing.assert_array_equal(found, [1, 2])
    # A label of probability 0 says nothing of the temperature.
    alone = scoring.fit_temperature(probs[:1], labels[:1])
    np.testing.assert_array_equal(scoring.fit_temperature(probs, labels), alone)


def test_prior_correction_is_bayes_on_counts():
    counts = np.array([[30.0, 10.0], [5.0, 15.0], [5.0, 35.0]])  # class, feature
    doubled = counts * np.array([[4.0], [1.0], [2.0]])
    before = jnp.asarray((counts / counts.sum(0)).T)
    after = (doubled / doubled.sum(0)).T
    shares = [jnp.asarray(c.sum(1) / c.sum()) for c in (counts, doubled)]
    np.testing.assert_allclose(scoring.correct_prior(before, *shares), after, rtol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_class_bias_is_the_best_of_the_grid(seed):
    probs, labels, where = table(seed, 150)
    found = scoring.fit_class_bias(
        jnp.asarray(probs),
        jnp.asarray(labels),
        steps=5,
        smooth=0,
        where=jnp.asarray(where),
    )
    best, best_bias = -np.inf, np.zeros(3)
    for opposed in np.linspace(-2, 2, 5):
        for supported in np.linspace(-2, 2, 5):
            bias = np.array([opposed, 0.0, supported])
            classes = (np.log(probs[where]) + bias).argmax(1)
            figure = sklearn.metrics.f1_score(labels[where], classes, average="macro")
            figure -= 0.002 * (bias**2).sum()
            if figure > best + 1e-5:
                best, best_bias = figure, bias
    np.testing.assert_allclose(found, best_bias, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_quantiles_are_order_statistics(alpha):
    probs, labels, where = table(3, 400)
    found = scoring.conformal_quantiles(
        jnp.asarray(probs), jnp.asarray(labels), alpha=alpha, where=jnp.asarray(where)
    )
    for c in range(3):
        score = np.sort(1 - probs[where & (labels == c), c])
        k = int(np.ceil(round((len(score) + 1) * (1 - alpha), 9)))
        np.testing.assert_allclose(found[c], score[k - 1], rtol=1e-5)


def test_sets_cover_every_class_as_promised():
    # The mean over draws of calibration and test entries; 1 - alpha to 1 - alpha +
    # 1/(n_c + 1), n_c about 40 for the rarest class.
    covered, rounds = np.zeros(3), 60

    @jax.jit
    def one(probs, labels):
        quantiles = scoring.conformal_quantiles(probs[:300], labels[:300], alpha=0.2)
        return scoring.conformal_sets(probs[300:], quantiles)

    for seed in range(rounds):
        probs, labels, _ = table(seed, 600)
        sets = np.asarray(one(jnp.asarray(probs), jnp.asarray(labels)))
        for c in range(3):
            covered[c] += sets[labels[300:] == c, c].mean() / rounds
    assert (covered > 0.78).all(), covered
    assert (covered < 0.85).all(), covered


def test_too_few_entries_promise_nothing():
    probs = jnp.full((8, 3), 1 / 3)
    found = scoring.conformal_quantiles(probs, jnp.array([1] * 8), alpha=0.1)
    np.testing.assert_array_equal(found, [1.0, 1.0, 1.0])
    assert scoring.conformal_sets(jnp.array([1.0, 0.0, 0.0]), found).all()


def test_score_probs_name_the_nearest_label():
    score = np.linspace(-1, 1, 41)
    score = score[~np.isclose(np.abs(score), 0.5)]
    probs = scoring.score_probs(jnp.asarray(score, jnp.float32))
    np.testing.assert_array_equal(probs.argmax(-1) - 1, np.rint(score))
    # Straight lines in the score: log-odds of neighbours have one slope.
    odds = np.log(probs[:, 2] / probs[:, 1])
    np.testing.assert_allclose(odds, 4.0 * (2.0 * score - 1.0), atol=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, y: scoring.conformal_quantiles(p, y, alpha=1.0), "alpha is 1.0"),
        (lambda p, y: scoring.fit_class_bias(p, y, steps=4), "steps is 4"),
        (lambda p, y: scoring.fit_class_bias(p[:, :2], y), r"expected \[N, 3\]"),
        (lambda p, y: scoring.fit_temperature(p, y[:2]), "N=2, but"),
        (lambda p, y: scoring.shrink(p, p[0], y[:2]), "own has shape"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.full((3, 3), 1 / 3), jnp.zeros(3, int))
