# SPDX-License-Identifier: Apache-2.0
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fulcra_jax import scoring
from fulcra_jax.scoring import resampling

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


def weighted_mean(x):
    return lambda w: (w * x).sum() / w.sum()


def test_bootstrap_hands_out_the_weights_of_the_units():
    weights = jax.jit(
        lambda key: resampling.bootstrap(key, lambda w: w, 8, num_resamples=4000)
    )(jax.random.key(0))
    np.testing.assert_array_equal(weights.sum(1), 8)
    np.testing.assert_array_equal(weights, np.round(weights))
    # As for the clusters: standard errors .015 and .03.
    np.testing.assert_allclose(weights.mean(0), 1.0, atol=0.06)
    np.testing.assert_allclose(weights.var(0), 1.0 - 1.0 / 8, atol=0.12)


def test_bootstrap_of_clusters_equals_cluster_bootstrap():
    """The same key draws the same clusters, so that the two routes agree."""
    rng = np.random.default_rng(1)
    x, cluster = rng.normal(size=30), rng.integers(0, 7, 30)
    key = jax.random.key(5)
    by_units = resampling.bootstrap(
        key,
        weighted_mean(jnp.asarray(x)),
        30,
        cluster=jnp.asarray(cluster),
        num_clusters=7,
        num_resamples=50,
    )
    by_totals = bootstrap(key, totals_of(x, cluster, 7), ratio, num_resamples=50)
    np.testing.assert_allclose(by_units, by_totals, rtol=1e-4, atol=1e-6)


def test_an_item_of_no_cluster_has_weight_zero():
    weights = resampling.bootstrap(
        jax.random.key(0),
        lambda w: w,
        4,
        cluster=jnp.array([0, 1, -1, -1]),
        num_clusters=2,
        num_resamples=20,
    )
    np.testing.assert_array_equal(weights[:, 2:], 0.0)
    np.testing.assert_array_equal(weights.sum(1), 2.0)


def test_clusters_counted_from_one_are_refused():
    with pytest.raises(ValueError, match="cluster holds 2, but num_clusters is 2"):
        resampling.bootstrap(
            jax.random.key(0),
            lambda w: w,
            3,
            cluster=jnp.array([1, 1, 2]),
            num_clusters=2,
        )


def test_bootstrap_refuses_what_does_not_fit():
    mean = lambda w: w.mean()
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="num_units is 0; expected at least 1"):
        resampling.bootstrap(key, mean, 0)
    with pytest.raises(ValueError, match=r"cluster has shape \(3,\); .* N=4 as in num"):
        resampling.bootstrap(key, mean, 4, cluster=jnp.zeros(3, int), num_clusters=2)
    with pytest.raises(ValueError, match="cluster needs num_clusters"):
        resampling.bootstrap(key, mean, 4, cluster=jnp.zeros(4, int))


@pytest.mark.parametrize("total", [40, 1_000_000])
def test_counts_are_multinomial(total):
    rng = np.random.default_rng(0)
    share = rng.dirichlet(np.ones(12)) * (np.arange(12) % 3 > 0)
    counts = rng.multinomial(total, share / share.sum())
    p, s = counts / total, 4000
    drawn = resampling.resample_counts(
        jax.random.key(1), jnp.asarray(counts), num_resamples=s
    )
    assert drawn.dtype == jnp.float32
    drawn = np.asarray(drawn, np.float64)
    np.testing.assert_array_equal(drawn.sum(1), total)
    np.testing.assert_array_equal(drawn[:, counts == 0], 0.0)
    some = counts > 0
    sd = np.sqrt(total * p * (1 - p))[some]
    z = (drawn.mean(0)[some] - counts[some]) / (sd / np.sqrt(s))
    assert np.abs(z).max() < 4.0
    # The variance of a sample variance: 2 / s relative, more for rare patterns.
    covariance = np.cov(drawn[:, some].T)
    expected = total * (np.diag(p) - np.outer(p, p))[np.ix_(some, some)]
    np.testing.assert_allclose(
        covariance / np.outer(sd, sd), expected / np.outer(sd, sd), atol=0.12
    )


def test_the_key_decides_the_counts_alone_and_under_vmap():
    counts = jnp.array([3.0, 0.0, 9.0, 8.0])
    keys = jax.random.split(jax.random.key(0), 3)
    draw = functools.partial(resampling.resample_counts, num_resamples=5)
    alone = np.stack([draw(key, counts) for key in keys])
    np.testing.assert_array_equal(jax.vmap(draw, (0, None))(keys, counts), alone)
    assert not np.array_equal(alone[0], alone[1])


def test_counts_that_are_none_give_nan():
    for bad in (-1.0, np.nan, np.inf):
        drawn = resampling.resample_counts(jax.random.key(0), jnp.array([3.0, bad]))
        assert np.isnan(drawn).all()
    empty = resampling.resample_counts(jax.random.key(0), jnp.zeros(3), num_resamples=2)
    np.testing.assert_array_equal(empty, np.zeros((2, 3)))


def test_counts_must_be_a_vector():
    with pytest.raises(ValueError, match=r"counts has shape \(2, 2\); expected \[P\]"):
        resampling.resample_counts(jax.random.key(0), jnp.ones((2, 2)))


def test_patterns_and_units_give_the_same_standard_error():
    counts = np.array([50, 30, 0, 120])
    x = np.array([0.0, 1.0, 7.0, 3.0])
    drawn = resampling.resample_counts(
        jax.random.key(0), jnp.asarray(counts), num_resamples=4000
    )
    samples = np.asarray(drawn) @ x / 200
    expected = np.repeat(x, counts).std() / np.sqrt(200)
    assert samples.std() == pytest.approx(expected, rel=0.035)
