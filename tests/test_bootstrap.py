# SPDX-License-Identifier: Apache-2.0
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fulcra_jax import scoring

bootstrap = jax.jit(
    scoring.cluster_bootstrap,
    static_argnames=("statistic", "num_resamples", "batch_size"),
)


def ratio(total):
    return total["sum"] / total["count"]


def totals_of(x, cluster, num_clusters):
    return scoring.sum_by_cluster(
        {"sum": jnp.asarray(x), "count": jnp.ones(len(x))},
        jnp.asarray(cluster),
        num_clusters,
    )


def test_sum_by_cluster_equals_a_loop():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 9, (50, 2)).astype(np.float32)
    cluster = rng.integers(-1, 8, 50)  # -1 and 7 lie outside.
    expected = np.stack([x[cluster == g].sum(0) for g in range(7)])
    x[(cluster < 0) | (cluster > 6)] = np.nan
    totals = scoring.sum_by_cluster(jnp.asarray(x), jnp.asarray(cluster), 7)
    np.testing.assert_array_equal(totals, expected)


def test_an_empty_cluster_has_total_zero():
    totals = scoring.sum_by_cluster(jnp.ones(3), jnp.array([0, 2, 2]), 4)
    assert totals.tolist() == [1.0, 0.0, 2.0, 0.0]


def test_weights_are_multinomial():
    """The total is G in every resample; a cluster's weight has variance 1 - 1 / G."""
    g, s = 8, 4000
    weights = bootstrap(jax.random.key(0), jnp.eye(g), lambda w: w, num_resamples=s)
    np.testing.assert_array_equal(weights, np.round(weights))
    np.testing.assert_array_equal(weights.sum(1), g)
    # Standard errors: sqrt(.875 / 4000) = .015 of a mean, about .03 of a variance.
    np.testing.assert_allclose(weights.mean(0), 1.0, atol=0.06)
    np.testing.assert_allclose(weights.var(0), 1.0 - 1.0 / g, atol=0.12)
    covariance = np.cov(np.asarray(weights).T)
    off_diagonal = covariance[~np.eye(g, dtype=bool)]
    assert off_diagonal.mean() == pytest.approx(-1.0 / g, abs=0.01)


def test_standard_error_of_a_mean_equals_the_closed_form():
    x = np.random.default_rng(0).normal(0.0, 2.0, 200)
    totals = totals_of(x, np.arange(200), 200)
    samples = bootstrap(jax.random.key(1), totals, ratio, num_resamples=4000)
    # The bootstrap's own error: 1 / sqrt(2 * 4000) = 1.1 %, three of them allowed.
    assert samples.std() == pytest.approx(x.std() / np.sqrt(200), rel=0.035)
    assert samples.mean() == pytest.approx(x.mean(), abs=3 * x.std() / 200**0.5 / 60)


def test_copies_within_a_cluster_add_no_information():
    """Five copies of each text: units look sqrt(5) times too certain."""
    x = np.random.default_rng(2).normal(0.0, 1.0, 100)
    copies, cluster = np.repeat(x, 5), np.repeat(np.arange(100), 5)
    error = {}
    for name, ids, g in [("cluster", cluster, 100), ("unit", np.arange(500), 500)]:
        error[name] = bootstrap(
            jax.random.key(3), totals_of(copies, ids, g), ratio, num_resamples=4000
        ).std()
    assert error["cluster"] == pytest.approx(x.std() / np.sqrt(100), rel=0.035)
    assert error["unit"] == pytest.approx(x.std() / np.sqrt(500), rel=0.035)


def test_the_key_decides_and_the_batch_size_does_not():
    rng = np.random.default_rng(4)
    totals = totals_of(rng.normal(size=60), rng.integers(0, 12, 60), 12)
    sample = functools.partial(
        bootstrap, totals=totals, statistic=ratio, num_resamples=50
    )
    first = sample(jax.random.key(0))
    np.testing.assert_array_equal(sample(jax.random.key(0)), first)
    np.testing.assert_allclose(
        sample(jax.random.key(0), batch_size=10), first, rtol=1e-5, atol=1e-6
    )
    assert not np.array_equal(sample(jax.random.key(1)), first)


def test_confusion_tables_travel_as_totals():
    rng = np.random.default_rng(5)
    predicted, labels = rng.integers(0, 3, (2, 40))
    cluster = rng.integers(0, 10, 40)
    per_text = jax.vmap(scoring.confusion)(
        jnp.asarray(predicted)[:, None], jnp.asarray(labels)[:, None]
    )
    totals = scoring.sum_by_cluster(per_text, jnp.asarray(cluster), 10)
    samples = bootstrap(jax.random.key(0), totals, scoring.macro_f1, num_resamples=300)
    low, high = scoring.confidence_interval(samples)
    assert low < scoring.macro_f1(totals.sum(0)) < high


def test_an_undefined_resample_is_nan_and_left_out():
    # A negative label stands in one cluster of three: 8 of 27 resamples have none.
    totals = jnp.array([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    recall = lambda t: jnp.where(t[1] > 0, t[0] / jnp.maximum(t[1], 1.0), jnp.nan)
    samples = bootstrap(jax.random.key(0), totals, recall)
    assert jnp.isnan(samples).mean() == pytest.approx(8 / 27, abs=0.05)
    assert scoring.confidence_interval(samples) == (1.0, 1.0)


def test_interval_equals_numpy_and_ignores_nan():
    samples = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    low, high = scoring.confidence_interval(jnp.asarray(samples), level=0.9)
    np.testing.assert_allclose(low, np.percentile(samples, 5, axis=0), rtol=1e-5)
    np.testing.assert_allclose(high, np.percentile(samples, 95, axis=0), rtol=1e-5)
    gaps = np.concatenate([samples, np.full((50, 3), np.nan, np.float32)])
    again = scoring.confidence_interval(jnp.asarray(gaps), level=0.9)
    np.testing.assert_array_equal(np.stack(again), np.stack([low, high]))
    nothing = scoring.confidence_interval(jnp.full(5, jnp.nan))
    assert np.isnan(nothing).all()


def test_interval_covers_as_it_claims():
    """400 draws of 40 clusters of 1 to 5 correlated texts, true mean 0."""
    num_draws, g, size = 400, 40, 5
    rng = np.random.default_rng(7)
    effect = rng.normal(size=(num_draws, g, 1))
    present = np.arange(size) < rng.integers(1, size + 1, (num_draws, g, 1))
    x = (effect + 0.5 * rng.normal(size=(num_draws, g, size))) * present
    totals = {"sum": jnp.asarray(x.sum(2)), "count": jnp.asarray(present.sum(2))}

    def covered(key, totals):
        samples = scoring.cluster_bootstrap(key, totals, ratio, num_resamples=300)
        low, high = scoring.confidence_interval(samples)
        return (low <= 0.0) & (0.0 <= high)

    keys = jax.random.split(jax.random.key(0), num_draws)
    coverage = jax.jit(jax.vmap(covered))(keys, totals).mean()
    # Percentile intervals of 40 clusters fall a little short: about .93 is usual, and
    # the simulation's own standard error is .012.
    assert 0.90 <= coverage <= 0.97


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_a_level_outside_zero_and_one_is_an_error(level):
    with pytest.raises(ValueError, match=rf"level is {level}; expected 0 < level < 1"):
        scoring.confidence_interval(jnp.zeros(5), level=level)


@pytest.mark.parametrize(
    "totals",
    [{}, {"a": jnp.zeros((3, 2)), "b": jnp.zeros(4)}, jnp.zeros(()), jnp.zeros(0)],
)
def test_totals_must_agree_on_the_clusters(totals):
    with pytest.raises(ValueError, match="expected a first axis G of one size"):
        scoring.cluster_bootstrap(jax.random.key(0), totals, lambda t: t)


def test_values_must_have_one_row_per_item():
    message = r"sum_by_cluster: values has shape \(4, 2\); its first axis must be N=3"
    with pytest.raises(ValueError, match=message):
        scoring.sum_by_cluster(jnp.zeros((4, 2)), jnp.zeros(3, int), 2)
