# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fulcra_jax.scoring import intervals

bca = jax.jit(intervals.bca_interval, static_argnames="level")


def skewed(seed, n=30):
    return np.random.default_rng(seed).exponential(2.0, n)


def scipy_bca(x, statistic, level):
    """scipy's interval and the resampled statistics it was made of."""
    result = stats.bootstrap(
        (x,),
        statistic,
        n_resamples=999,
        confidence_level=level,
        method="BCa",
        rng=np.random.default_rng(0),
    )
    return result.confidence_interval, result.bootstrap_distribution


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize(
    "statistic", [np.mean, lambda x, axis=-1: np.std(x, axis=axis)], ids=["mean", "std"]
)
def test_bca_equals_scipy_on_its_resamples(statistic, level):
    x = skewed(1)
    expected, samples = scipy_bca(x, statistic, level)
    left_out = np.array([statistic(np.delete(x, i)) for i in range(len(x))])
    with jax.enable_x64(True):
        found = bca(
            jnp.asarray(samples),
            jnp.asarray(statistic(x)),
            jnp.asarray(left_out),
            level=level,
        )
        np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_bca_takes_columns_and_counts_of_patterns():
    rng = np.random.default_rng(3)
    samples = rng.normal(size=(500, 2)).astype(np.float32)
    estimate = np.array([0.1, -0.3], np.float32)
    values = rng.normal(size=(6, 2)).astype(np.float32)
    counts = np.array([3, 1, 0, 2, 5, 1])
    plain = bca(
        jnp.asarray(samples), jnp.asarray(estimate), np.repeat(values, counts, axis=0)
    )
    values[2] = np.nan  # Of weight 0.
    gaps = np.concatenate([samples, np.full((7, 2), np.nan, np.float32)])
    counted = bca(
        jnp.asarray(gaps),
        jnp.asarray(estimate),
        jnp.asarray(values),
        jackknife_weights=jnp.asarray(counts),
    )
    np.testing.assert_allclose(np.stack(counted), np.stack(plain), rtol=1e-5)
    alone = bca(
        jnp.asarray(samples[:, 1]),
        jnp.asarray(estimate[1]),
        np.repeat(values[:, 1], counts, axis=0),
    )
    np.testing.assert_allclose(np.stack(plain)[:, 1], np.stack(alone), rtol=1e-5)


def test_bca_has_no_answer_without_two_sides_or_spread():
    samples, spread = jnp.linspace(0.0, 1.0, 50), jnp.array([0.0, 1.0, 3.0])
    assert np.isnan(bca(samples, jnp.array(2.0), spread)).all()
    assert np.isnan(bca(samples, jnp.array(0.5), jnp.ones(3))).all()
    assert np.isnan(bca(jnp.full(9, jnp.nan), jnp.array(0.5), spread)).all()
    assert not np.isnan(bca(samples, jnp.array(0.5), spread)).any()


def test_bca_refuses_what_does_not_fit():
    x = jnp.zeros(5)
    with pytest.raises(ValueError, match=r"level is 95\.0; expected 0 < level < 1"):
        intervals.bca_interval(x, x[0], x, level=95.0)
    with pytest.raises(ValueError, match=r"samples has shape \(5, 2\); .* to be \(\)"):
        intervals.bca_interval(jnp.zeros((5, 2)), x[0], x)
    with pytest.raises(ValueError, match=r"jackknife_values has shape \(5, 2\)"):
        intervals.bca_interval(x, x[0], jnp.zeros((5, 2)))
    with pytest.raises(ValueError, match=r"jackknife_weights has shape \(4,\).* N=5"):
        intervals.bca_interval(x, x[0], x, jackknife_weights=jnp.ones(4))


def test_the_jackknife_of_a_mean_is_its_standard_error():
    """For a mean the two are the same number."""
    x = skewed(2)
    mean = lambda w: (w * x).sum() / w.sum()
    result = intervals.jackknife(mean, jnp.ones(30), batch_size=7)
    expected = [np.delete(x, i).mean() for i in range(30)]
    np.testing.assert_allclose(result.values, expected, rtol=1e-5)
    assert result.standard_error == pytest.approx(x.std(ddof=1) / 30**0.5, rel=1e-4)


def test_the_jackknife_of_counts_leaves_one_of_each_pattern():
    x, counts = np.array([1.0, 5.0, 2.0]), np.array([4, 0, 3])
    mean = lambda w: (w * x).sum() / w.sum()
    result = intervals.jackknife(mean, jnp.asarray(counts))
    np.testing.assert_allclose(result.values, [9 / 6, np.nan, 8 / 6], rtol=1e-6)
    units = np.repeat(x, counts)
    expected = units.std(ddof=1) / 7**0.5
    assert result.standard_error == pytest.approx(expected, rel=1e-5)
    one = intervals.jackknife(mean, jnp.array([0, 1, 0]))
    assert jnp.isnan(one.standard_error)
    with pytest.raises(ValueError, match=r"unit_weights has shape \(2, 2\)"):
        intervals.jackknife(mean, jnp.ones((2, 2)))


def test_the_jackknife_of_raters_leaves_one_out():
    where = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 0, 0]], bool)
    ratings = np.array([[1.0, 2.0, 9.0], [4.0, 9.0, 9.0], [0.0, 3.0, 6.0], [9.0] * 3])
    mean = lambda where: (ratings * where).sum() / where.sum()
    result = intervals.jackknife_raters(mean, jnp.asarray(where))
    # Left are 13 of 4, 12 of 5 and 7 of 3; the fourth rated nothing.
    expected = np.array([13 / 4, 12 / 5, 7 / 3])
    np.testing.assert_allclose(result.values, [*expected, np.nan], rtol=1e-6)
    square = ((expected - expected.mean()) ** 2).sum() * 2 / 3
    assert result.standard_error == pytest.approx(square**0.5, rel=1e-5)
    alone = intervals.jackknife_raters(mean, jnp.asarray(where[:1]))
    assert jnp.isnan(alone.standard_error)
    with pytest.raises(ValueError, match=r"where has shape \(3,\); expected \[R, N\]"):
        intervals.jackknife_raters(mean, jnp.ones(3, bool))


def test_bca_of_values_that_differ_by_rounding_only_has_no_answer():
    samples, estimate = jnp.linspace(0.0, 1.0, 50), jnp.array(0.5)
    ulp = np.spacing(np.float32(0.1))
    rounded = jnp.float32(0.1) + ulp * jnp.array([0.0, 1.0, 0.0, -1.0, 2.0])
    assert np.isnan(bca(samples, estimate, rounded)).all()
    assert np.isnan(bca(samples, estimate, jnp.full(7, 0.1))).all()
    # A thousandth is no rounding, nor is a small number beside nothing larger.
    for spread in (0.1 + jnp.array([0.0, 1e-4, 3e-4]), jnp.array([0.0, 1e-9, 3e-9])):
        assert not np.isnan(bca(samples, estimate, spread)).any()


def test_bca_beyond_its_pole_has_no_answer():
    """a = 1/6 (n - 2) / sqrt(n (n - 1)) for one value far from n - 1 equal ones: with
    z0 + z > 6 in the upper tail 1 - a (z0 + z) is negative and the ends would cross."""
    values = jnp.zeros(400).at[0].set(-1.0)
    samples, estimate = jnp.linspace(0.0, 1.0, 100_001), jnp.array(0.99999)
    level = 0.99
    z0, z = stats.norm.ppf(0.99999), stats.norm.ppf(0.5 + 0.5 * level)
    assert 398 / (6 * np.sqrt(400 * 399)) * (z0 + z) > 1.0
    assert np.isnan(bca(samples, estimate, values, level=level)).all()
    # Just before the pole there is an answer, and its ends are in order.
    low, high = bca(samples, jnp.array(0.9), values, level=level)
    assert low < high
    slopes = jax.grad(lambda x: jnp.nan_to_num(bca(samples, x, values)[1]))(estimate)
    assert np.isfinite(slopes)


@pytest.mark.parametrize("units", [6 * 10**6, 2 * 10**9])
def test_the_jackknife_of_very_many_units_keeps_its_digits(units):
    """A share of n units has the standard error sqrt(p (1 - p) / (n - 1))."""
    counts = units * np.array([0.3, 0.2, 0.5])
    share = lambda w: w[0] / w.sum()
    result = jax.jit(lambda c: intervals.jackknife(share, c))(
        jnp.asarray(counts, jnp.float32)
    )
    expected = np.sqrt(0.3 * 0.7 / units)
    assert result.standard_error == pytest.approx(expected, rel=2e-3)
    np.testing.assert_allclose(result.values, 0.3, rtol=1e-6)


def test_the_jackknife_of_equal_values_has_no_error():
    constant = lambda w: 0.1 + 0.0 * w.sum()
    assert intervals.jackknife(constant, jnp.ones(7)).standard_error == 0.0


def test_the_jackknife_of_nobody_is_empty():
    both = lambda x: jnp.stack([x.sum(), x.mean()])
    nobody = intervals.jackknife(both, jnp.zeros(0))
    assert nobody.values.shape == (0, 2)
    assert np.isnan(nobody.standard_error).all()
    nobody = intervals.jackknife_raters(both, jnp.zeros((0, 3), bool))
    assert nobody.values.shape == (0, 2)
    assert np.isnan(nobody.standard_error).all()
    samples, values = jnp.linspace(0.0, 1.0, 9), jnp.zeros(0)
    assert np.isnan(bca(samples, jnp.array(0.5), values)).all()


@pytest.mark.parametrize("bad", [-1.0, 0.5, np.nan, np.inf])
def test_the_jackknife_counts_whole_items(bad):
    weights = jnp.array([1.0, bad, 2.0])
    with pytest.raises(ValueError, match=r"jackknife: unit_weights holds .*; expected"):
        intervals.jackknife(jnp.sum, weights)
    with pytest.raises(ValueError, match="batch_size is 0; expected at least 1"):
        intervals.jackknife(jnp.sum, jnp.ones(3), batch_size=0)
