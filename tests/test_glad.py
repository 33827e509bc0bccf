# SPDX-License-Identifier: Apache-2.0
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_expit, logsumexp

from fulcra_jax.scoring import patterns
from fulcra_jax.scoring.glad import glad

GOLDEN = np.load(pathlib.Path(__file__).parent / "goldens" / "aggregation.npz")
TABLES = ["two_raters", "few", "many", "larger"]
WIDTHS = [pytest.param(True, id="float64"), pytest.param(False, id="float32")]

fitted = jax.jit(glad, static_argnums=1)


def table_of(name):
    ratings, where = (jnp.asarray(GOLDEN[f"{name}/{x}"]) for x in ("ratings", "where"))
    return ratings, int(GOLDEN[f"{name}/num_categories"]), where


def objective_of(ratings, k, where, ability, easiness):
    """Log posterior up to a constant, in numpy."""
    slope = ability[:, None] * np.exp(easiness)[None]
    wrong = log_expit(-slope) - np.log(k - 1)
    logits = [
        (where * np.where(ratings == z, log_expit(slope), wrong)).sum(0) - np.log(k)
        for z in range(k)
    ]
    prior = ((ability - 1) ** 2).sum() + ((easiness - 1) ** 2).sum()
    return logsumexp(logits, axis=0).sum() - 0.5 * prior


@pytest.mark.parametrize("x64", WIDTHS)
@pytest.mark.parametrize("name", TABLES)
def test_the_optimum_is_crowdkits(name, x64):
    """Two optimisers of one function: they agree as far as crowd-kit's converges.

    Its conjugate gradients stop at a gradient of 1e-7; where the optimum is flat the
    easiness still differs by 6e-7. In float32 the largest difference seen is 7e-7.
    """
    with jax.enable_x64(x64):
        ratings, k, where = table_of(name)
        fit = fitted(ratings, k, where=where)

    close = functools.partial(
        np.testing.assert_allclose, rtol=0.0, atol=2e-6 if x64 else 1e-5
    )
    close(fit.probs, GOLDEN[f"{name}/glad/probs"])
    close(fit.ability, GOLDEN[f"{name}/glad/ability"])
    close(fit.easiness, GOLDEN[f"{name}/glad/easiness"])
    theirs = GOLDEN[f"{name}/glad/probs"].argmax(1)
    decided = fit.labels >= 0
    np.testing.assert_array_equal(fit.labels[decided], theirs[decided])


@pytest.mark.parametrize("name", TABLES)
def test_the_objective_is_the_log_posterior_and_no_lower_than_crowdkits(name):
    with jax.enable_x64(True):
        ratings, k, where = table_of(name)
        fit = fitted(ratings, k, where=where)
    value_at = functools.partial(
        objective_of, np.asarray(ratings), k, np.asarray(where)
    )
    ours = value_at(np.asarray(fit.ability), np.asarray(fit.easiness))
    theirs = value_at(GOLDEN[f"{name}/glad/ability"], GOLDEN[f"{name}/glad/easiness"])

    np.testing.assert_allclose(fit.objective[-1], ours, rtol=1e-13)
    assert ours >= theirs - 1e-10


@pytest.mark.parametrize("x64", WIDTHS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_objective_never_falls(seed, x64):
    rng = np.random.default_rng(seed)
    with jax.enable_x64(x64):
        ratings, where = (
            jnp.asarray(x)
            for x in (rng.integers(0, 3, (5, 50)), rng.random((5, 50)) < 0.7)
        )
        objective = np.asarray(fitted(ratings, 3, where=where).objective)

    # Rounding: of the sum itself, and what the line search forgives per entry.
    slack = 50.0 * np.finfo(objective.dtype).eps * np.abs(objective).max()
    assert np.diff(objective).min() >= -slack
    assert objective[-1] > objective[0]


def test_patterns_equal_units():
    with jax.enable_x64(True):
        ratings, k, where = table_of("few")
        dense = fitted(ratings, k, where=where)
        table = patterns.pattern_table(ratings, k, where=where)
        short = fitted(table.ratings, k, where=table.where, unit_weights=table.counts)

    close = functools.partial(np.testing.assert_allclose, rtol=0.0, atol=1e-9)
    close(short.probs[table.pattern_of_unit], dense.probs)
    close(short.easiness[table.pattern_of_unit], dense.easiness)
    close(short.ability, dense.ability)
    np.testing.assert_allclose(short.objective, dense.objective, rtol=1e-12)


def test_abilities_are_ranked_and_disputed_units_are_hard():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 400)
    skill = np.array([0.95, 0.85, 0.7, 0.5, 0.05])
    wrong = (truth + rng.integers(1, 3, (5, 400))) % 3
    ratings = np.where(rng.random((5, 400)) < skill[:, None], truth, wrong)

    fit = fitted(jnp.asarray(ratings), 3)

    assert np.argsort(-fit.ability).tolist() == [0, 1, 2, 3, 4]
    # The last is right less often than not: a negative ability.
    assert fit.ability[4] < 0.0
    agreeing = (ratings[:3] == ratings[0]).all(0)
    easiness = np.asarray(fit.easiness)
    assert easiness[agreeing].mean() > easiness[~agreeing].mean() + 0.3
    assert (fit.labels == truth).mean() > 0.9


def test_degenerate_tables():
    ratings = jnp.array([[0, 1, 0], [0, 1, 1], [1, 1, 0]])
    where = jnp.array([[1, 1, 0], [1, 1, 0], [0, 0, 0]], bool)
    part = fitted(ratings, 2, where=where)
    plain = fitted(ratings[:2, :2], 2)
    nothing = fitted(ratings, 2, where=jnp.zeros((3, 3), bool))
    single = fitted(jnp.zeros((2, 3), int), 1)

    np.testing.assert_allclose(part.ability, [*plain.ability, np.nan], rtol=1e-6)
    np.testing.assert_allclose(part.easiness, [*plain.easiness, np.nan], rtol=1e-6)
    assert part.labels.tolist() == [0, 1, -1]
    assert np.isnan(part.probs[2]).all()
    for x in (nothing.probs, nothing.ability, nothing.easiness):
        assert np.isnan(x).all()
    np.testing.assert_array_equal(single.probs, 1.0)
    assert np.isfinite(single.ability).all()


def test_errors_name_the_argument():
    ratings = jnp.zeros((3, 12), int)
    with pytest.raises(ValueError, match=r"glad: where has shape \(3, 11\)"):
        glad(ratings, 3, where=jnp.ones((3, 11), bool))
    with pytest.raises(ValueError, match="glad: ratings has dtype float32"):
        glad(ratings.astype(jnp.float32), 3)
    with pytest.raises(ValueError, match="glad: num_categories is 0"):
        glad(ratings, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_iterations": -1}, "num_iterations is -1; expected at least 1"),
        ({"num_newton": 0}, "num_newton is 0; expected at least 1"),
        ({"unit_weights": jnp.array([1.0, np.nan])}, "unit_weights holds nan; expecte"),
    ],
)
def test_what_no_model_can_be_fitted_with_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        glad(jnp.array([[0, 1], [0, 1], [1, 1]]), 2, **options)
