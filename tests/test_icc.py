# SPDX-License-Identifier: Apache-2.0
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fulcra_jax import scoring

# Shrout and Fleiss 1979, table 2: six targets, four judges.
SHROUT_FLEISS = jnp.array(
    [[9, 6, 8, 7, 10, 6], [2, 1, 4, 1, 5, 2], [5, 3, 6, 2, 6, 4], [8, 2, 8, 6, 9, 7]]
)
PUBLISHED = {
    "1,1": 0.17,
    "2,1": 0.29,
    "3,1": 0.71,
    "1,k": 0.44,
    "2,k": 0.62,
    "3,k": 0.91,
}
FORMS = tuple(PUBLISHED)


@pytest.mark.parametrize("form", FORMS)
def test_the_published_example(form):
    found = scoring.icc_interval(SHROUT_FLEISS, form=form)
    assert round(float(found.coefficient), 2) == PUBLISHED[form]
    assert float(found.low) < float(found.coefficient) < float(found.high)


@pytest.mark.parametrize("form", ["1,1", "3,1", "1,k", "3,k"])
def test_f_intervals_equal_scipy(form):
    """Shrout and Fleiss: F over, and times, the quantiles of F."""
    with jax.enable_x64(True):
        found = scoring.icc_interval(SHROUT_FLEISS.astype(float), form=form)
        f, df1, df2 = float(found.f), float(found.df1), float(found.df2)
        low = f / stats.f.ppf(0.975, df1, df2)
        high = f * stats.f.ppf(0.975, df2, df1)
        if form.endswith("1"):
            expected = [(x - 1) / (x + 3) for x in (low, high)]
        else:
            expected = [1 - 1 / x for x in (low, high)]
        np.testing.assert_allclose([found.low, found.high], expected, rtol=1e-8)


def test_the_interval_of_absolute_agreement_as_published():
    """McGraw and Wong's formula on these data, as printed by R psych: .019 to .76."""
    found = scoring.icc_interval(SHROUT_FLEISS, form="2,1")
    assert float(found.low) == pytest.approx(0.019, abs=5e-4)
    assert float(found.high) == pytest.approx(0.761, abs=5e-4)


@pytest.mark.parametrize("form", FORMS)
def test_incomplete_units_are_left_out_and_weights_are_counts(form):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(3, 12)) + rng.normal(size=12)
    where = np.ones((3, 12), bool)
    where[1, 4] = where[2, 7] = False
    times = rng.integers(0, 3, 12)
    kept = np.repeat(np.arange(12), times)
    kept = kept[where[:, kept].all(0)]
    with jax.enable_x64(True):
        spoiled = jnp.asarray(np.where(where, scores, np.nan))
        found = scoring.icc_interval(
            spoiled,
            form=form,
            where=jnp.asarray(where),
            unit_weights=jnp.asarray(times, float),
        )
        expected = scoring.icc_interval(jnp.asarray(scores[:, kept]), form=form)
        np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "scores",
    [np.ones((1, 5)), np.ones((3, 1)), np.ones((3, 0)), np.full((3, 100), 0.1)],
)
def test_without_anything_that_varies_it_is_undefined(form, scores):
    assert np.isnan(scoring.icc(jnp.asarray(scores, jnp.float32), form=form))


def test_an_unknown_form_is_named():
    with pytest.raises(KeyError, match="form 'A,1' is unknown; known are: 1,1"):
        scoring.icc(SHROUT_FLEISS, form="A,1")
    with pytest.raises(ValueError, match="level is 95; expected 0 < level < 1"):
        scoring.icc_interval(SHROUT_FLEISS, level=95)


@pytest.mark.parametrize("form", FORMS)
def test_perfect_agreement_has_the_interval_one_to_one(form):
    # Their means are off by rounding, which is no disagreement.
    scores = jnp.tile(jnp.array([0.1, 0.7, 0.3, 1e-3]), (3, 1))
    icc_interval = functools.partial(scoring.icc_interval, form=form)
    found = jax.jit(icc_interval)(scores)
    assert [found.coefficient, found.low, found.high] == [1.0, 1.0, 1.0]
    assert found.f == np.inf
    slopes = jax.jit(jax.grad(lambda x: sum(icc_interval(x)[:3])))(scores)
    assert np.isfinite(slopes).all()


def test_equal_order_at_other_levels_is_perfect_in_form_3_only():
    scores = jnp.array([0.1, 0.7, 0.3])[None] + jnp.array([0.0, 0.3, 0.6])[:, None]
    consistent = scoring.icc_interval(scores, form="3,1")
    assert [*consistent[:4]] == [1.0, 1.0, 1.0, np.inf]
    absolute = scoring.icc_interval(scores, form="2,1")
    assert absolute.low < absolute.coefficient < absolute.high < 1.0


@pytest.mark.parametrize("form", FORMS)
def test_no_form_exceeds_one_and_the_interval_is_nan_where_the_coefficient_is(form):
    """Two raters who contradict each other: by hand B = 0, J = 0, E = 10/3, N = 4, so
    that (2,k) would be -10/3 / (0 - 10/12) = 4."""
    opposed = jnp.array([[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]])
    found = scoring.icc_interval(opposed, form=form)
    if form.endswith("k"):
        assert np.isnan([found.coefficient, found.low, found.high]).all()
    else:
        assert found.coefficient == {"1,1": -1.0, "2,1": -2.0, "3,1": -1.0}[form]
    tables = np.random.default_rng(0).normal(size=(200, 2, 3))
    found = jax.vmap(lambda x: scoring.icc_interval(x, form=form))(jnp.asarray(tables))
    coefficient, low, high, *_ = (np.asarray(x) for x in found)
    defined = ~np.isnan(coefficient)
    assert (coefficient[defined] <= 1.0).all()
    assert (low[defined] <= coefficient[defined] + 1e-5).all()
    # The published approximation of the forms 2 fails where there is no agreement.
    usual = defined & ((coefficient > 0.0) | (form[0] != "2"))
    assert (coefficient[usual] <= high[usual] + 1e-5).all()
    assert (high[defined] <= 1.0).all()
    assert np.isnan(low[~defined]).all()
    assert np.isnan(high[~defined]).all()


@pytest.mark.parametrize(
    ("form", "shape"),
    [("1,1", (2, 1)), ("2,1", (2, 1)), ("2,k", (1, 4)), ("1,k", (0, 3))],
)
def test_gradients_are_finite_where_it_is_undefined(form, shape):
    @jax.jit
    @jax.grad
    def slopes(x):
        return sum(scoring.icc_interval(x, form=form))

    scores = jnp.arange(float(np.prod(shape))).reshape(shape)
    assert np.isfinite(slopes(scores)).all()


def test_weights_of_units_that_count_are_numbers():
    scores, where = jnp.array([[1.0, 2, 3, 9], [1.0, 3, 3, np.nan]]), jnp.ones((2, 4))
    where = where.at[1, 3].set(0.0)
    weights = jnp.array([1.0, 2.0, 1.0, np.nan])
    found = scoring.icc(scores, where=where, unit_weights=weights)
    kept = scoring.icc(scores[:, :3], unit_weights=weights[:3])
    assert found == pytest.approx(float(kept))
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"unit_weights holds .*; expected finite"):
            scoring.icc(scores[:, :3], unit_weights=weights[:3].at[1].set(bad))
    nothing = jnp.array([[1.0, 2, 3, np.nan], [1.0, 3, 3, 1]])
    found = scoring.icc(nothing, unit_weights=jnp.array([1.0, 2.0, 1.0, 0.0]))
    assert found == pytest.approx(float(kept))
