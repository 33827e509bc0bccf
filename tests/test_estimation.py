# SPDX-License-Identifier: Apache-2.0
"""Against ppi-python's frozen answers, sampling theory by enumeration, and scipy."""

import functools
import itertools
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fulcra_jax.scoring import estimation, power

GOLDEN = json.loads(
    (pathlib.Path(__file__).parent / "goldens" / "estimation.json").read_text()
)["cases"]
DATA = ("labels", "predictions_labelled", "predictions_unlabelled")
every_case = pytest.mark.parametrize("case", GOLDEN, ids=[str(i) for i in range(5)])
ppi_mean = jax.jit(estimation.ppi_mean, static_argnames=("lam", "level", "population"))


def arrays(case):
    return [jnp.asarray(np.asarray(case[name], float)) for name in DATA]


@every_case
def test_ppi_equals_ppi_python(case):
    with jax.enable_x64(True):
        for answer in case["answers"]:
            found = ppi_mean(*arrays(case), lam=answer["lam"])
            expected = [answer[name] for name in ("mean", "low", "high")]
            np.testing.assert_allclose(found[:3], expected, rtol=1e-9)


def test_the_cases_clip_lam_at_both_ends_and_leave_it_between():
    lam = [float(ppi_mean(*arrays(case)).lam) for case in GOLDEN]
    assert lam[3] == 0.0
    assert lam[4] == 1.0
    assert all(0.2 < x < 0.99 for x in lam[:3])


@pytest.mark.parametrize("population", ["superpopulation", "finite"])
def test_masked_and_stacked_equals_alone(population):
    """Two columns of different length, filled up with NaN."""
    cases = GOLDEN[:2]
    columns = []
    for name in DATA:
        longest = max(len(case[name]) for case in cases)
        column = np.full((longest, 2), np.nan, np.float32)
        for v, case in enumerate(cases):
            column[: len(case[name]), v] = case[name]
        columns.append(column)
    found = ppi_mean(
        *map(jnp.asarray, columns),
        where=jnp.asarray(~np.isnan(columns[0])),
        where_unlabelled=jnp.asarray(~np.isnan(columns[2])),
        population=population,
    )
    for v, case in enumerate(cases):
        alone = ppi_mean(*arrays(case), population=population)
        np.testing.assert_allclose(
            [x[v] for x in found], np.asarray(alone), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_the_finite_variance_is_exact(lam):
    """All 56 samples of 5 of 8 items: unbiased mean and unbiased squared error."""
    y = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    f = np.array([1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.3])
    estimates, squares = [], []
    for drawn in itertools.combinations(range(8), 5):
        inside = np.isin(np.arange(8), drawn)
        found = ppi_mean(
            *(jnp.asarray(x) for x in (y[inside], f[inside], f[~inside])),
            lam=lam,
            population="finite",
        )
        estimates.append(float(found.mean))
        squares.append(float(found.standard_error) ** 2)
    assert np.mean(estimates) == pytest.approx(y.mean(), abs=1e-6)
    assert np.mean(squares) == pytest.approx(np.var(estimates), rel=1e-4)


def test_the_tuned_finite_estimate_is_the_regression_estimator():
    """scipy's line through the labelled items, read at the mean prediction of all."""
    y, f, g = (np.asarray(x, float) for x in arrays(GOLDEN[2]))
    n, size = len(y), len(y) + len(g)
    line = stats.linregress(f, y)
    expected = line.intercept + line.slope * np.concatenate([f, g]).mean()
    residual = y - line.intercept - line.slope * f
    square = (1 - n / size) * (residual**2).sum() / (n - 2) / n
    half = stats.t.ppf(0.95, n - 2) * math.sqrt(square)
    found = ppi_mean(*arrays(GOLDEN[2]), population="finite", level=0.9)
    np.testing.assert_allclose(
        found,
        [expected, expected - half, expected + half, math.sqrt(square), line.slope],
        rtol=2e-5,
    )


def test_with_every_item_labelled_nothing_is_left_to_chance():
    y, f, _ = arrays(GOLDEN[0])
    found = ppi_mean(y, f, f[:0], population="finite")
    assert found.mean == pytest.approx(float(y.mean()))
    assert found.standard_error == 0.0
    assert found.low == found.high == found.mean


def test_predictions_that_do_not_vary_are_left_aside():
    y, f, g = arrays(GOLDEN[0])
    for population in estimation.POPULATIONS:
        found = ppi_mean(y, jnp.ones_like(f), jnp.ones_like(g), population=population)
        assert found.lam == 0.0
        assert found.mean == pytest.approx(float(y.mean()))


def test_too_few_labels_are_nan():
    y, f, g = arrays(GOLDEN[0])
    assert np.isnan(ppi_mean(y[:1], f[:1], g)[:4]).all()
    assert np.isnan(ppi_mean(y[:2], f[:2], g, population="finite")[:4]).all()
    assert np.isnan(ppi_mean(y, f, g[:0], lam=1.0)[:4]).all()
    classical = ppi_mean(y, f, g[:0])
    assert classical.mean == pytest.approx(float(y.mean()))
    assert classical.standard_error == pytest.approx(
        float(np.std(y) / math.sqrt(len(y))), rel=1e-5
    )


def test_dsl_is_unbiased_over_all_samples():
    """Every one of the 16 patterns of labelled items, weighted by its probability."""
    y, f = np.array([1.0, 0.0, 1.0, 0.0]), np.array([1.0, 1.0, 0.0, 0.2])
    pi = np.array([0.2, 0.5, 0.7, 0.9])
    expected = 0.0
    for drawn in itertools.product([0, 1], repeat=4):
        r = np.array(drawn, bool)
        labels = np.where(r, y, np.nan)
        found = dsl_mean(*map(jnp.asarray, (labels, f, pi, r)))
        expected += np.where(r, pi, 1 - pi).prod() * float(found.mean)
    assert expected == pytest.approx(y.mean(), abs=1e-6)


dsl_mean = jax.jit(estimation.dsl_mean)


def test_dsl_by_hand_with_values_as_columns():
    """Pseudo-outcomes 1, 1 + 2 (0 - 1) = -1, 1, 0: mean 1/4, variance 11/12."""
    y = jnp.array([[1.0, 0.0], [0.0, 0.0], [jnp.nan, 0.0], [jnp.nan, 0.0]])
    f = jnp.array([[1.0, 0.5], [1.0, 0.5], [1.0, 0.5], [0.0, 0.5]])
    labelled = jnp.array([True, True, False, False])
    found = dsl_mean(y, f, jnp.full(4, 0.5), labelled)
    assert found.mean[0] == 0.25
    assert found.standard_error[0] == pytest.approx(math.sqrt(11 / 48), rel=1e-6)
    half = 1.959964 * math.sqrt(11 / 48)
    np.testing.assert_allclose(
        [found.low[0], found.high[0]], [0.25 - half, 0.25 + half], rtol=1e-5
    )
    # Second column: -.5, -.5, .5, .5.
    assert found.mean[1] == 0.0
    assert found.standard_error[1] == pytest.approx(math.sqrt(1 / 12), rel=1e-6)


@pytest.mark.parametrize("pi", [0.0, -0.5, 1.5, np.nan])
def test_a_label_that_could_not_have_been_drawn_is_nan(pi):
    y, f = jnp.array([1.0, 0.0, 1.0]), jnp.array([1.0, 1.0, 1.0])
    probability = jnp.array([pi, 0.5, 0.5])
    labelled = jnp.array([True, True, False])
    assert np.isnan(dsl_mean(y, f, probability, labelled)[:4]).all()
    # Without a label nothing is divided by it, but the prediction would be the truth.
    unseen = labelled.at[0].set(False)
    assert np.isnan(dsl_mean(y, f, probability, unseen)[:4]).all()
    others = dsl_mean(y, f, probability, unseen, where=jnp.array([False, True, True]))
    assert not np.isnan(others).any()


@every_case
def test_labels_needed_equal_ppi_python(case):
    """Its effective size m is a standard error of s / sqrt(m); it rounds, we ceil."""
    y, f = (np.asarray(case[name], float) for name in DATA[:2])
    z = stats.norm.ppf(0.975)
    for answer in case["power"]:
        half = z * y.std() / math.sqrt(answer["effective"])
        found = power.labels_needed(
            jnp.asarray(y), jnp.asarray(f), answer["n_max"], half_width=half
        )
        assert 0 <= float(found.total) - answer["n"] <= 1
        assert found.more == max(float(found.total) - len(y), 0.0)


@pytest.mark.parametrize("method", power.METHODS)
def test_the_promised_number_of_labels_is_just_enough(method):
    """The pilot repeated to the promised size gives the wanted width."""
    y, f, _ = (np.asarray(x, float) for x in arrays(GOLDEN[1]))
    half, size = 0.06, 3000
    found = power.labels_needed(
        jnp.asarray(y), jnp.asarray(f), size, half_width=half, method=method
    )
    n = int(found.total)
    copies = lambda x, n: jnp.asarray(np.resize(x, n))
    estimate = estimation.ppi_mean(
        copies(y, n),
        copies(f, n),
        copies(f, size - n),
        lam=0.0 if method == "classical" else None,
        population="finite" if method == "finite" else "superpopulation",
    )
    # Cut copies, two degrees of freedom and Student's quantile: 3 %.
    assert float(estimate.high - estimate.low) / 2 == pytest.approx(half, rel=0.03)


def test_what_cannot_be_reached_is_inf_and_what_is_unknown_nan():
    y, f, _ = arrays(GOLDEN[0])
    needed = functools.partial(power.labels_needed, y, f, 100, half_width=0.01)
    assert needed(method="classical").total == np.inf
    assert needed(method="ppi").total == np.inf
    assert needed(method="finite").total <= 100
    short = power.labels_needed(y[:2], f[:2], 100, half_width=0.1)
    assert np.isnan(short).all()
    opposed = [arrays(GOLDEN[3])[i] for i in (0, 1)]
    ppi, classical = (
        power.labels_needed(*opposed, 5000, half_width=0.3, method=method).total
        for method in ("ppi", "classical")
    )
    assert ppi == classical


def test_refuses_what_does_not_fit():
    x, row = jnp.zeros(4), jnp.zeros((1, 4))
    with pytest.raises(ValueError, match=r"ppi_mean: level is 95; expected 0 < level"):
        estimation.ppi_mean(x, x, x, level=95)
    with pytest.raises(KeyError, match="population 'all' is unknown; known are: super"):
        estimation.ppi_mean(x, x, x, population="all")
    with pytest.raises(ValueError, match=r"predictions_labelled has shape \(3,\); exp"):
        estimation.ppi_mean(x, x[:3], x)
    with pytest.raises(ValueError, match=r"predictions_unlabelled has shape \(1, 4\)"):
        estimation.ppi_mean(x, x, row)
    with pytest.raises(ValueError, match=r"where has shape \(3,\); expected the first"):
        estimation.ppi_mean(x, x, x, where=jnp.ones(3, bool))
    with pytest.raises(ValueError, match=r"labelled has shape \(3,\), so N=3, but pro"):
        estimation.dsl_mean(x, x, x, jnp.ones(3, bool))
    with pytest.raises(
        ValueError, match=r"dsl_mean: labels has shape \(4,\); expected"
    ):
        estimation.dsl_mean(x, x, x[:3], jnp.ones(3, bool))
    with pytest.raises(ValueError, match=r"dsl_mean: level is 0; expected"):
        estimation.dsl_mean(x, x, x, x > 0, level=0)
    with pytest.raises(
        KeyError, match="method 'bayes' is unknown; known are: classica"
    ):
        power.labels_needed(x, x, 10, half_width=0.1, method="bayes")
    with pytest.raises(ValueError, match="half_width is 0; expected > 0"):
        power.labels_needed(x, x, 10, half_width=0)
    with pytest.raises(
        ValueError, match="labels_needed: level is 95; expected 0 < lev"
    ):
        power.labels_needed(x, x, 10, half_width=0.1, level=95)
    with pytest.raises(ValueError, match=r"predictions has shape \(3,\), so n=3"):
        power.labels_needed(x, x[:3], 10, half_width=0.1)


def test_predictions_that_do_not_vary_are_not_used():
    y = jnp.array([0.0, 1, 1, 0, 1, 0, 1])
    others = jnp.linspace(0.0, 10.0, 200)
    found = ppi_mean(y, jnp.full(7, 0.1), others, population="finite")
    assert float(found.lam) == 0.0
    assert float(found.mean) == pytest.approx(4 / 7)


@pytest.mark.parametrize("mask", [jnp.int32, jnp.uint8])
def test_a_mask_of_numbers_is_not_zero_where_it_counts(mask):
    """2 & True is 0 bit by bit; 2 counts."""
    y, f = jnp.array([1.0, 0.0, 1.0, 1.0, 9.0]), jnp.array([1.0, 1.0, 0.0, 1.0, 5.0])
    pi = jnp.array([0.5, 0.5, 0.5, 0.5, -1.0])
    labelled = jnp.array([2, 1, 0, 4, 1], mask)
    where = jnp.array([1, 2, 1, 4, 0], mask)
    found = estimation.dsl_mean(y, f, pi, labelled, where=where)
    expected = estimation.dsl_mean(y, f, pi, labelled > 0, where=where > 0)
    np.testing.assert_array_equal(found, expected)
    assert not np.isnan(np.asarray(found)).any()
    needed = functools.partial(power.labels_needed, y, f, 100, half_width=0.1)
    assert needed(where=where) == needed(where=where > 0)


@pytest.mark.parametrize("method", power.METHODS)
def test_a_pilot_of_equal_labels_is_too_small_to_see_the_variance(method):
    f = jnp.arange(7.0)
    found = power.labels_needed(jnp.full(7, 0.1), f, 100, half_width=0.1, method=method)
    assert np.isnan(found).all()
    # Predictions that do not vary explain nothing.
    y = jnp.array([0.0, 1, 1, 0, 1, 0, 1])
    same, none = (
        power.labels_needed(y, x, 5000, half_width=0.1, method=method).total
        for x in (jnp.full(7, 0.1), jnp.zeros(7))
    )
    assert same == none


def test_refuses_numbers_that_make_no_sense():
    x = jnp.array([0.0, 1.0, 1.0, 0.0])
    with pytest.raises(ValueError, match="ppi_mean: lam is nan; expected a finite"):
        estimation.ppi_mean(x, x, x, lam=math.nan)
    with pytest.raises(ValueError, match="is a scalar; expected items on an axis"):
        estimation.ppi_mean(x[0], x[0], x[0])
    with pytest.raises(ValueError, match="num_items is 3; expected at least the 4"):
        power.labels_needed(x, x, 3, half_width=0.1)
    with pytest.raises(ValueError, match=r"num_items is 2\.5; expected a whole numb"):
        power.labels_needed(x, x, 2.5, half_width=0.1)
    with pytest.raises(ValueError, match="half_width is inf; expected > 0, finite"):
        power.labels_needed(x, x, 10, half_width=math.inf)
