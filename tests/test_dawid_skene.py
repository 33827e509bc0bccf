# SPDX-License-Identifier: Apache-2.0
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fulcra_jax.scoring import patterns
from fulcra_jax.scoring.dawid_skene import dawid_skene, dawid_skene_counts, one_coin

GOLDEN = np.load(pathlib.Path(__file__).parent / "goldens" / "aggregation.npz")
TABLES = ["two_raters", "few", "many", "larger"]
WIDTHS = [pytest.param(True, id="float64"), pytest.param(False, id="float32")]
SEEDS = [0, 1, 2, 3]
MLE = {dawid_skene: 0.0, one_coin: (0.0, 0.0)}
MODELS = [pytest.param(dawid_skene, id="full"), pytest.param(one_coin, id="one_coin")]

# Dawid and Skene 1979, table 1: 45 patients in order, seven answers each: three by the
# first anaesthetist, then one by each of the other four.
PATIENTS = """
1111111 3334334 1122122 2223121 2223222 2223322 1222111 3333433 2222223 2322223 4444444
2223343 1111111 2223212 1211111 1112111 1111111 1111111 2222221 2221322 2222222 2222221
2223222 2212222 1111111 1111111 2322222 1111111 1111111 1121121 1111111 3333233 1111111
2222222 2223232 4334343 2212232 2323233 3333432 1111111 1111111 1212111 2322222 1211111
2222222
"""


@functools.cache
def compiled(model, *static, **options):
    return jax.jit(lambda *args, **kwargs: model(*args, *static, **kwargs, **options))


def fitted(model, ratings, k, *, pseudo_counts, num_iterations=20, **arrays):
    fit = compiled(model, k, pseudo_counts=pseudo_counts, num_iterations=num_iterations)
    return fit(ratings, **arrays)


def simulated(seed, raters=5, units=400, k=3, missing=0.2, skill=(0.5, 0.95)):
    """Ratings of raters with known confusion matrices."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(k, units, p=rng.dirichlet(np.full(k, 5.0)))
    skill_r = rng.uniform(*skill, (raters, k, 1))
    habit_rkk = rng.dirichlet(np.full(k, 2.0), (raters, k))
    confusion = skill_r * np.eye(k) + (1.0 - skill_r) * habit_rkk
    draw = rng.random((raters, units, 1))
    ratings = (draw > confusion[:, truth].cumsum(-1)).sum(-1)
    where = rng.random((raters, units)) >= missing
    return jnp.asarray(ratings), jnp.asarray(where), truth, confusion


def assert_never_falls(objective):
    objective = np.asarray(objective)
    # Rounding of a sum of this size; probabilities below 1e-10 count as 1e-10.
    slack = 8.0 * np.finfo(objective.dtype).eps * np.abs(objective).max()
    assert np.isfinite(objective).all()
    assert np.diff(objective).min() >= -slack


def test_the_published_example():
    rows = np.array([[int(c) - 1 for c in word] for word in PATIENTS.split()])
    rater = np.array([0, 0, 0, 1, 2, 3, 4])
    counts = np.zeros((5, 45, 4))
    np.add.at(counts, (rater[None], np.arange(45)[:, None], rows), 1.0)

    with jax.enable_x64(True):
        fit = compiled(dawid_skene_counts, pseudo_counts=0.0, num_iterations=200)(
            jnp.asarray(counts)
        )

    np.testing.assert_allclose(fit.prevalence, [0.40, 0.42, 0.11, 0.07], atol=0.005)
    assert fit.log_likelihood[-1] == pytest.approx(-192.89088, abs=1e-5)
    assert_never_falls(fit.objective)
    unsure = 1 + np.flatnonzero(np.asarray(fit.probs).max(1) < 0.999)
    assert unsure.tolist() == [7, 35, 38]


@pytest.mark.parametrize("x64", WIDTHS)
@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("model", MODELS)
def test_maximum_likelihood_equals_crowdkit(model, name, x64):
    tolerance = 1e-9 if x64 else 1e-5
    theirs = {
        key.rpartition("/")[2]: GOLDEN[key]
        for key in GOLDEN
        if key.startswith(f"{name}/{model.__name__}/")
    }
    k = int(GOLDEN[f"{name}/num_categories"])
    with jax.enable_x64(x64):
        ratings, where = (
            jnp.asarray(GOLDEN[f"{name}/{x}"]) for x in ("ratings", "where")
        )
        fit = fitted(model, ratings, k, pseudo_counts=MLE[model], where=where)

    close = functools.partial(np.testing.assert_allclose, rtol=0.0, atol=tolerance)
    close(fit.probs, theirs["probs"])
    close(fit.prevalence, theirs["prevalence"])
    if model is one_coin:
        close(fit.confusion[:, 0, 0], theirs["skill"])
    else:
        # A row without mass is NaN here and made of the floor, 1e-10, there.
        mass = np.einsum("rn,nk->rk", GOLDEN[f"{name}/where"], theirs["probs"])
        close(np.asarray(fit.confusion)[mass > 1e-6], theirs["confusion"][mass > 1e-6])


@pytest.mark.parametrize("x64", WIDTHS)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("model", MODELS)
def test_the_objective_never_falls(model, seed, x64):
    rng = np.random.default_rng(seed)
    with jax.enable_x64(x64):
        ratings, where = (
            jnp.asarray(x)
            for x in (rng.integers(0, 4, (4, 60)), rng.random((4, 60)) < 0.7)
        )
        clamped = jnp.asarray(
            np.where(rng.random(60) < 0.2, rng.integers(0, 4, 60), -1)
        )
        prior = None if model is dawid_skene else (2.0, 1.0)
        run = functools.partial(
            fitted, model, ratings, 4, where=where, num_iterations=60
        )
        likely = run(pseudo_counts=MLE[model])
        modal = run(pseudo_counts=prior, clamped=clamped)

    assert_never_falls(likely.objective)
    assert_never_falls(modal.objective)
    np.testing.assert_array_equal(likely.objective, likely.log_likelihood)
    assert modal.objective[-1] < modal.log_likelihood[-1]


@pytest.mark.parametrize("model", MODELS)
def test_patterns_and_duplicates_equal_units(model):
    prior = None if model is dawid_skene else (2.0, 1.0)
    with jax.enable_x64(True):
        ratings, where, _, _ = simulated(0, raters=4)
        dense = fitted(model, ratings, 3, where=where, pseudo_counts=prior)
        table = patterns.pattern_table(ratings, 3, where=where)
        short = fitted(
            model,
            table.ratings,
            3,
            where=table.where,
            unit_weights=table.counts,
            pseudo_counts=prior,
        )

    close = functools.partial(np.testing.assert_allclose, rtol=0.0, atol=1e-12)
    close(short.probs[table.pattern_of_unit], dense.probs)
    close(short.prevalence, dense.prevalence)
    close(short.confusion, dense.confusion)
    np.testing.assert_allclose(short.objective, dense.objective, rtol=1e-13)


def test_permuted_raters_have_permuted_confusions():
    ratings, where, _, _ = simulated(1)
    order = np.array([3, 0, 4, 1, 2])
    straight = fitted(dawid_skene, ratings, 3, where=where, pseudo_counts=None)
    permuted = fitted(
        dawid_skene, ratings[order], 3, where=where[order], pseudo_counts=None
    )

    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    close(permuted.confusion, straight.confusion[order])
    close(permuted.probs, straight.probs)


def test_known_confusions_are_recovered():
    ratings, where, truth, confusion = simulated(
        2, units=20_000, missing=0.1, skill=(0.6, 0.95)
    )
    fit = fitted(dawid_skene, ratings, 3, where=where, pseudo_counts=None)

    # Four standard errors of a share among the 2,000 units of a rare category.
    np.testing.assert_allclose(fit.confusion, confusion, atol=0.045)
    np.testing.assert_allclose(fit.prevalence, np.bincount(truth) / 20_000, atol=0.02)
    assert (fit.labels == truth).mean() > 0.9


def test_clamped_units_keep_their_label_and_teach():
    # Two raters who always disagree: only the known labels tell who is right.
    ratings = jnp.array([[0, 1, 0, 1, 0, 1], [1, 0, 1, 0, 1, 0]])
    clamped = jnp.array([1, 0, 1, 0, -1, -1])

    blind = fitted(dawid_skene, ratings, 2, pseudo_counts=None)
    fit = fitted(dawid_skene, ratings, 2, pseudo_counts=None, clamped=clamped)

    assert blind.labels.tolist() == [-1] * 6
    np.testing.assert_array_equal(fit.probs[:2], [[0.0, 1.0], [1.0, 0.0]])
    assert fit.labels.tolist() == [1, 0, 1, 0, 1, 0]


def test_known_labels_of_all_units_give_the_counted_confusions():
    ratings = jnp.array([[0, 0, 1, 1, 1], [0, 1, 1, 0, 1]])
    clamped = jnp.array([0, 0, 0, 1, 1])

    fit = fitted(dawid_skene, ratings, 2, pseudo_counts=0.0, clamped=clamped)
    coin = fitted(one_coin, ratings, 2, pseudo_counts=(2.0, 1.0), clamped=clamped)

    np.testing.assert_allclose(fit.prevalence, [0.6, 0.4], rtol=1e-6)
    first = [[2 / 3, 1 / 3], [0.0, 1.0]]
    second = [[1 / 3, 2 / 3], [0.5, 0.5]]
    np.testing.assert_allclose(fit.confusion, [first, second], rtol=1e-6)
    # (2 + 4) / (3 + 5) and (2 + 2) / (3 + 5).
    np.testing.assert_allclose(coin.confusion[:, 0, 0], [0.75, 0.5], rtol=1e-6)


def test_pseudo_counts_are_added_to_the_table():
    ratings = jnp.array([[0, 0, 1, 1, 1], [0, 1, 1, 0, 1]])
    fit = fitted(
        dawid_skene,
        ratings,
        2,
        pseudo_counts=None,
        clamped=jnp.array([0, 0, 0, 1, 1]),
    )
    # Counts [[2, 1], [0, 2]] and [[1, 2], [1, 1]] with [[2, 1], [1, 2]] added.
    expected = [[[4 / 6, 2 / 6], [1 / 5, 4 / 5]], [[3 / 6, 3 / 6], [2 / 5, 3 / 5]]]
    np.testing.assert_allclose(fit.confusion, expected, rtol=1e-6)


def test_counts_of_single_answers_equal_ratings():
    ratings, where, _, _ = simulated(3)
    counts = jax.nn.one_hot(ratings, 3) * where[..., None]
    single = fitted(dawid_skene, ratings, 3, where=where, pseudo_counts=None)
    counted = compiled(dawid_skene_counts, num_iterations=20)(counts)

    np.testing.assert_allclose(counted.probs, single.probs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_tolerance_stops_early_and_stays(model):
    ratings, where, _, _ = simulated(0)
    stopped = compiled(model, 3, num_iterations=50, tolerance=1e-3)(
        ratings, where=where
    )
    run = int(stopped.iterations)
    counted = compiled(model, 3, num_iterations=run)(ratings, where=where)

    assert 2 < run < 50
    np.testing.assert_allclose(stopped.probs, counted.probs, rtol=1e-5, atol=1e-6)
    rise = np.diff(stopped.objective) / ratings.shape[1]
    assert rise[run - 2] < 1e-3 <= rise[run - 3]
    np.testing.assert_array_equal(rise[run - 1 :], 0.0)


@pytest.mark.parametrize("model", MODELS)
def test_units_and_raters_without_ratings_change_nothing(model):
    prior = None if model is dawid_skene else (2.0, 1.0)
    ratings, where, _, _ = simulated(1, raters=3, units=40)
    plain = fitted(model, ratings, 3, where=where, pseudo_counts=prior)
    empty = jnp.pad(where, ((0, 1), (0, 2)))
    more = fitted(
        model,
        jnp.pad(ratings, ((0, 1), (0, 2))),
        3,
        where=empty,
        # The first has no rating, but a known label.
        clamped=jnp.full(42, -1).at[40].set(2),
        pseudo_counts=prior,
    )

    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    close(more.prevalence, plain.prevalence)
    close(more.confusion[:3], plain.confusion)
    close(more.objective, plain.objective)
    assert np.isnan(more.confusion[3]).all()
    np.testing.assert_array_equal(more.probs[40], [0.0, 0.0, 1.0])
    assert np.isnan(more.probs[41]).all()
    assert more.labels[40:].tolist() == [2, -1]


@pytest.mark.parametrize("model", MODELS)
def test_nothing_observed_is_nan(model):
    prior = None if model is dawid_skene else (2.0, 1.0)
    # Also through a pattern table: patterns exist, but all of count 0 or empty.
    table = patterns.pattern_table(
        jnp.zeros((2, 5), int), 2, where=jnp.zeros((2, 5), bool)
    )
    fit = fitted(
        model,
        table.ratings,
        2,
        where=table.where,
        unit_weights=table.counts,
        pseudo_counts=prior,
    )

    assert np.isnan(fit.probs).all()
    assert np.isnan(fit.prevalence).all()
    assert np.isnan(fit.confusion).all()
    assert (fit.labels == -1).all()
    assert fit.iterations == 0


@pytest.mark.parametrize("model", MODELS)
def test_one_category_and_one_rater(model):
    prior = None if model is dawid_skene else (2.0, 1.0)
    single = fitted(model, jnp.zeros((3, 6), int), 1, pseudo_counts=prior)
    alone = fitted(model, jnp.array([[0, 2, 2, 0, 0]]), 3, pseudo_counts=MLE[model])

    np.testing.assert_array_equal(single.probs, 1.0)
    np.testing.assert_array_equal(single.confusion, 1.0)
    # A rater alone is believed.
    assert alone.labels.tolist() == [0, 2, 2, 0, 0]
    np.testing.assert_allclose(alone.prevalence, [0.6, 0.0, 0.4], atol=1e-6)
    if model is dawid_skene:
        # Nothing is known of units of category 1: there were none.
        assert np.isnan(alone.confusion[0]).any(1).tolist() == [False, True, False]


def test_errors_name_the_argument():
    ratings = jnp.zeros((3, 12), int)
    with pytest.raises(ValueError, match=r"dawid_skene: where has shape \(3, 11\)"):
        dawid_skene(ratings, 3, where=jnp.ones((3, 11), bool))
    with pytest.raises(ValueError, match=r"clamped has shape \(3,\), so N=3"):
        dawid_skene(ratings, 3, clamped=jnp.zeros(3, int))
    with pytest.raises(ValueError, match="dawid_skene: clamped has dtype float32"):
        dawid_skene(ratings, 3, clamped=jnp.zeros(12))
    with pytest.raises(ValueError, match="one_coin: ratings has dtype float32"):
        one_coin(ratings.astype(jnp.float32), 3)
    with pytest.raises(ValueError, match="one_coin: num_categories is 0"):
        one_coin(ratings, 0)
    with pytest.raises(ValueError, match=r"counts has shape \(3, 12\); expected"):
        dawid_skene_counts(ratings)
    with pytest.raises(ValueError, match="dawid_skene_counts: clamped has dtype"):
        dawid_skene_counts(jnp.zeros((3, 12, 2)), clamped=jnp.zeros(12))


RATINGS = jnp.array([[0, 1], [0, 1], [1, 1]])


@pytest.mark.parametrize(
    "bad", [-1.0, np.nan, np.inf, -np.eye(2), np.full((3, 2, 2), -1)]
)
def test_pseudo_counts_are_not_negative(bad):
    with pytest.raises(
        ValueError, match=r"dawid_skene: pseudo_counts .* of at least 0"
    ):
        dawid_skene(RATINGS, 2, pseudo_counts=bad)
    with pytest.raises(ValueError, match=r"skene_counts: pseudo_counts .* at least 0"):
        dawid_skene_counts(jnp.ones((3, 2, 2)), pseudo_counts=bad)


@pytest.mark.parametrize("shape", [(2,), (2, 1), (1, 2), (3, 1, 2), (2, 2, 2)])
def test_pseudo_counts_have_one_of_three_shapes(shape):
    with pytest.raises(ValueError, match=r"pseudo_counts has shape .*; expected a num"):
        dawid_skene(RATINGS, 2, pseudo_counts=jnp.ones(shape))


def test_what_no_model_can_be_fitted_with_is_refused():
    with pytest.raises(ValueError, match=r"one_coin: pseudo_counts is 2\.0; expected"):
        one_coin(RATINGS, 2, pseudo_counts=2.0)
    with pytest.raises(ValueError, match=r"one_coin: pseudo_counts is -1\.0; expected"):
        one_coin(RATINGS, 2, pseudo_counts=(-1.0, 1.0))
    with pytest.raises(ValueError, match=r"num_iterations is -1; expected at least 1"):
        dawid_skene(RATINGS, 2, num_iterations=-1)
    with pytest.raises(ValueError, match=r"num_iterations is 2\.5; expected a whole"):
        dawid_skene(RATINGS, 2, num_iterations=2.5)
    with pytest.raises(ValueError, match=r"tolerance is -1\.0; expected a finite numb"):
        dawid_skene(RATINGS, 2, tolerance=-1.0)
    with pytest.raises(ValueError, match=r"unit_weights holds -1\.0; expected finite"):
        dawid_skene(RATINGS, 2, unit_weights=jnp.array([1.0, -1.0]))
    with pytest.raises(
        ValueError, match=r"counts holds -1\.0; expected finite numbers"
    ):
        dawid_skene_counts(-jnp.ones((2, 2, 2)))
    with pytest.raises(ValueError, match=r"clamped holds 5, outside \[-1, 2\)"):
        dawid_skene_counts(jnp.ones((2, 2, 2)), clamped=jnp.array([5, -1]))
    with pytest.raises(ValueError, match=r"num_categories is 0; expected a whole"):
        dawid_skene_counts(jnp.ones((2, 2, 0)))


def test_the_weight_of_a_unit_without_ratings_is_not_read():
    where = jnp.array([[1, 0]] * 3)
    weights = jnp.array([1.0, np.nan])
    found = dawid_skene(RATINGS, 2, where=where, unit_weights=weights, num_iterations=3)
    kept = dawid_skene(RATINGS[:, :1], 2, num_iterations=3)
    np.testing.assert_allclose(found.probs[0], kept.probs[0], rtol=1e-6)
    assert np.isnan(found.probs[1]).all()
