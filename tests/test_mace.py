# SPDX-License-Identifier: Apache-2.0
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import digamma

from fulcra_jax.scoring import patterns
from fulcra_jax.scoring.mace import mace, mace_from

GOLDEN = np.load(pathlib.Path(__file__).parent / "goldens" / "aggregation.npz")
TABLES = ["two_raters", "few", "many", "larger"]
WIDTHS = [pytest.param(True, id="float64"), pytest.param(False, id="float32")]
METHODS = ["vb", "em"]

fitted = jax.jit(mace, static_argnums=2, static_argnames=("method", "num_restarts"))
fitted_from = jax.jit(mace_from, static_argnums=3, static_argnames="method")


def table_of(name):
    ratings, where = (jnp.asarray(GOLDEN[f"{name}/{x}"]) for x in ("ratings", "where"))
    return ratings, int(GOLDEN[f"{name}/num_categories"]), where


def start_of(name):
    return (jnp.asarray(GOLDEN[f"{name}/mace/start_{x}"]) for x in ("trust", "spam"))


@pytest.mark.parametrize("x64", WIDTHS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", TABLES)
def test_equals_crowdkit_from_the_same_start(name, method, x64):
    with jax.enable_x64(x64):
        ratings, k, where = table_of(name)
        fit = fitted_from(*start_of(name), ratings, k, where=where, method=method)

    close = functools.partial(
        np.testing.assert_allclose, rtol=0.0, atol=1e-9 if x64 else 1e-5
    )
    close(fit.probs, GOLDEN[f"{name}/mace/{method}/probs"])
    trust, spam = np.asarray(fit.trust), np.asarray(fit.spam)
    know = GOLDEN[f"{name}/mace/{method}/know_spam"][:, 0]
    answer = GOLDEN[f"{name}/mace/{method}/spam"]
    if method == "em":
        close(trust, know)
        close(spam, answer)
    else:
        # crowd-kit keeps exp(E[log p]); ours is the mean of the same Dirichlet.
        total = np.asarray(where).sum(1) + 2 * 0.5
        close(np.exp(digamma(trust * total) - digamma(total)), know)
        total = ((1.0 - trust) * total - 0.5 + 10.0 * k)[:, None]
        close(np.exp(digamma(spam * total) - digamma(total)), answer)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["few", "larger"])
def test_where_all_starts_agree_the_best_is_crowdkits(name, method):
    """Not so with two raters, whose model is not identified: starts decide there."""
    with jax.enable_x64(True):
        ratings, k, where = table_of(name)
        fit = fitted(jax.random.key(0), ratings, k, where=where, method=method)

    # After 50 iterations from another start.
    theirs = GOLDEN[f"{name}/mace/{method}/probs"]
    np.testing.assert_allclose(fit.probs, theirs, rtol=0.0, atol=1e-6)
    np.testing.assert_array_equal(fit.labels, theirs.argmax(1))


@pytest.mark.parametrize("x64", WIDTHS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", TABLES)
def test_the_objective_never_falls(name, method, x64):
    with jax.enable_x64(x64):
        ratings, k, where = table_of(name)
        fit = fitted_from(*start_of(name), ratings, k, where=where, method=method)
    objective = np.asarray(fit.objective)

    # Rounding of a sum of this size.
    slack = 8.0 * np.finfo(objective.dtype).eps * np.abs(objective).max()
    assert np.diff(objective).min() >= -slack
    assert objective[-1] > objective[0]


@pytest.mark.parametrize("method", METHODS)
def test_more_restarts_are_no_worse(method):
    ratings, k, where = table_of("two_raters")
    key = jax.random.key(3)
    run = functools.partial(fitted, key, ratings, k, where=where, method=method)
    one, many = run(num_restarts=1), run(num_restarts=8)
    again = run(num_restarts=8)

    assert many.objective[-1] >= one.objective[-1]
    np.testing.assert_array_equal(many.probs, again.probs)


def test_patterns_equal_units():
    with jax.enable_x64(True):
        ratings, k, where = table_of("few")
        run = functools.partial(fitted_from, *start_of("few"))
        dense = run(ratings, k, where=where)
        table = patterns.pattern_table(ratings, k, where=where)
        short = run(table.ratings, k, where=table.where, unit_weights=table.counts)

    close = functools.partial(np.testing.assert_allclose, rtol=0.0, atol=1e-12)
    close(short.probs[table.pattern_of_unit], dense.probs)
    close(short.trust, dense.trust)
    close(short.spam, dense.spam)
    np.testing.assert_allclose(short.objective, dense.objective, rtol=1e-13)


@pytest.mark.parametrize("method", METHODS)
def test_trust_and_spam_are_recovered(method):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 4000)
    trust = np.array([0.9, 0.7, 0.5, 0.3, 0.0])
    habit = np.array([0.7, 0.2, 0.1])
    guess = rng.choice(3, (5, 4000), p=habit)
    ratings = np.where(rng.random((5, 4000)) < trust[:, None], truth, guess)

    fit = fitted(jax.random.key(0), jnp.asarray(ratings), 3, method=method)

    # Three standard errors of a share among 4,000, and the model's own uncertainty.
    np.testing.assert_allclose(fit.trust, trust, atol=0.05)
    np.testing.assert_allclose(fit.spam[2:], np.tile(habit, (3, 1)), atol=0.05)
    assert (fit.labels == truth).mean() > 0.9


@pytest.mark.parametrize("method", METHODS)
def test_degenerate_tables(method):
    ratings = jnp.array([[0, 1, 0], [0, 1, 1], [1, 1, 0]])
    where = jnp.array([[1, 1, 0], [1, 1, 0], [0, 0, 0]], bool)
    trust, spam = jnp.array([0.4, 0.6, 0.5]), jnp.full((3, 2), 0.5)
    run = functools.partial(fitted_from, method=method)
    part = run(trust, spam, ratings, 2, where=where)
    plain = run(trust[:2], spam[:2], ratings[:2, :2], 2)
    nothing = run(trust, spam, ratings, 2, where=jnp.zeros((3, 3), bool))
    single = run(trust[:2], jnp.ones((2, 1)), jnp.zeros((2, 3), int), 1)

    np.testing.assert_allclose(part.trust, [*plain.trust, np.nan], rtol=1e-6)
    np.testing.assert_allclose(part.objective, plain.objective, rtol=1e-5)
    assert part.labels.tolist() == [0, 1, -1]
    assert np.isnan(part.probs[2]).all()
    for x in (nothing.probs, nothing.trust, nothing.spam):
        assert np.isnan(x).all()
    np.testing.assert_array_equal(single.probs, 1.0)


def test_errors_name_the_argument():
    ratings, key = jnp.zeros((3, 12), int), jax.random.key(0)
    trust, spam = jnp.full(3, 0.5), jnp.full((3, 2), 0.5)
    with pytest.raises(KeyError, match="method 'gibbs' is unknown; known are: vb, em"):
        mace(key, ratings, 2, method="gibbs")
    with pytest.raises(ValueError, match="num_categories is 0"):
        mace(key, ratings, 0)
    with pytest.raises(ValueError, match=r"where has shape \(3, 11\), so N=11"):
        mace(key, ratings, 2, where=jnp.ones((3, 11), bool))
    with pytest.raises(ValueError, match="ratings has dtype float32"):
        mace(key, ratings.astype(jnp.float32), 2)
    with pytest.raises(ValueError, match=r"trust has shape \(2,\), so R=2"):
        mace_from(trust[:2], spam, ratings, 2)
    with pytest.raises(ValueError, match="so K=2, but num_categories is 3"):
        mace_from(trust, spam, ratings, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_restarts": 0}, r"num_restarts is 0; expected at least 1"),
        ({"num_iterations": 0}, r"num_iterations is 0; expected at least 1"),
        ({"noise": -5.0}, r"noise is -5\.0; expected a finite number of at least 0"),
        ({"smoothing": 0.0}, r"smoothing is 0\.0; expected a finite number above 0"),
        ({"trust_prior": -1.0}, r"trust_prior is -1\.0; expected a finite"),
        ({"spam_prior": np.nan}, r"spam_prior is nan; expected a finite"),
        ({"unit_weights": jnp.array([1.0, -1.0])}, r"unit_weights holds -1\.0; exp"),
    ],
)
def test_what_no_model_can_be_fitted_with_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        mace(jax.random.key(0), jnp.array([[0, 1], [0, 1], [1, 1]]), 2, **options)


def test_a_start_holds_probabilities_where_it_is_read():
    ratings, where = (
        jnp.array([[0, 1], [0, 1], [1, 1]]),
        jnp.array([[1, 1]] * 2 + [[0, 0]]),
    )
    trust, spam = jnp.array([0.5, 0.5, np.nan]), jnp.full((3, 2), 0.5)
    fit = mace_from(trust, spam, ratings, 2, where=where, num_iterations=2)
    assert fit.labels.tolist() == [0, 1]
    with pytest.raises(ValueError, match="mace_from: trust holds nan; expected probab"):
        mace_from(trust, spam, ratings, 2)
    with pytest.raises(ValueError, match=r"mace_from: spam holds -0\.5; expected prob"):
        mace_from(trust, -spam, ratings, 2, where=where)
