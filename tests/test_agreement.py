# SPDX-License-Identifier: Apache-2.0
"""Facts and invariances; the figures of other libraries stand in test_agreement_*."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fulcra_jax import scoring
from fulcra_jax.scoring import Reason

KINDS = (
    "cohen",
    "conger",
    "scott",
    "fleiss",
    "brennan_prediger",
    "gwet",
    "krippendorff",
)
MANY = tuple(kind for kind in KINDS if kind not in ("cohen", "scott"))


@functools.partial(jax.jit, static_argnames=("k",))
def everything(ratings, where, unit_weights, k=3):
    """All that is said of a table, in one program."""
    kinds = KINDS if ratings.shape[0] == 2 else MANY
    shared = {"where": where, "unit_weights": unit_weights}
    found = {
        kind: scoring.chance_corrected(ratings, k, kind=kind, **shared)
        for kind in kinds
    }
    found["weighted"] = scoring.chance_corrected(
        ratings, k, kind="conger", weights="quadratic", **shared
    )
    found["eight"] = scoring.agreement_coefficients(ratings, k, **shared)
    found["category"] = scoring.fleiss_kappa_by_category(ratings, k, **shared)
    found["plain"] = {
        "percent_agreement": scoring.percent_agreement(ratings, k, **shared),
        "alpha_nominal": scoring.krippendorff_alpha(ratings, k, **shared),
        "alpha_ordinal": scoring.krippendorff_alpha(
            ratings, k, level="ordinal", **shared
        ),
        "alpha_interval": scoring.krippendorff_alpha(
            ratings, k, level="interval", **shared
        ),
        "fleiss": scoring.fleiss_kappa(ratings, k, **shared),
        "ac1": scoring.gwet_ac1(ratings, k, **shared),
        "brennan_prediger": scoring.brennan_prediger(ratings, k, **shared),
        "light": scoring.light_kappa(ratings, k, **shared),
    }
    return found


def table_of(seed, raters=4, units=60, k=3, missing=0.2):
    rng = np.random.default_rng(seed)
    truth = rng.choice(k, p=rng.dirichlet(np.ones(k)), size=units)
    noise = rng.random((raters, units)) < 0.35
    ratings = np.where(noise, rng.integers(0, k, (raters, units)), truth)
    return jnp.asarray(ratings), jnp.asarray(rng.random((raters, units)) >= missing)


def close(actual, desired, tolerance=1e-12):
    jax.tree.map(
        lambda a, d: np.testing.assert_allclose(a, d, rtol=tolerance, atol=tolerance),
        actual,
        desired,
    )


def without_pairs(found):
    """The figures that do not name the raters."""
    return {name: found[name] for name in ("fleiss", "gwet", "krippendorff")}


@pytest.mark.parametrize("raters", [2, 5])
def test_patterns_give_the_figures_of_the_units(raters):
    with jax.enable_x64(True):
        ratings, where = table_of(1, raters)
        table = scoring.pattern_table(ratings, 3, where=where)
        units = everything(ratings, where, jnp.ones(ratings.shape[1]))
        patterns = everything(table.ratings, table.where, table.counts)
        close(patterns, units)


def test_anonymous_patterns_give_the_figures_that_do_not_name_raters():
    with jax.enable_x64(True):
        ratings, where = table_of(2, raters=5)
        table = scoring.pattern_table(ratings, 3, where=where, anonymous=True)
        assert table.ratings.shape == (5, 56)
        units = everything(ratings, where, jnp.ones(ratings.shape[1]))
        patterns = everything(table.ratings, table.where, table.counts)
        close(without_pairs(patterns), without_pairs(units))


def test_a_weight_of_two_is_two_units():
    with jax.enable_x64(True):
        ratings, where = table_of(3)
        times = np.random.default_rng(0).integers(0, 4, ratings.shape[1])
        weighted = everything(ratings, where, jnp.asarray(times, float))
        repeated = everything(
            jnp.repeat(ratings, times, axis=1, total_repeat_length=int(times.sum())),
            jnp.repeat(where, times, axis=1, total_repeat_length=int(times.sum())),
            jnp.ones(int(times.sum())),
        )
        close(weighted, repeated)


def test_the_order_of_raters_and_units_does_not_matter():
    with jax.enable_x64(True):
        ratings, where = table_of(4)
        ones = jnp.ones(ratings.shape[1])
        rng = np.random.default_rng(0)
        raters, units = rng.permutation(4), rng.permutation(60)
        moved = everything(ratings[raters][:, units], where[raters][:, units], ones)
        close(moved, everything(ratings, where, ones))


def test_missing_units_are_as_good_as_deleted():
    with jax.enable_x64(True):
        ratings, where = table_of(5)
        ones = jnp.ones(60)
        gone = where.at[:, 40:].set(False)
        kept = everything(ratings[:, :40], where[:, :40], ones[:40])
        close(everything(ratings, gone, ones), kept)


def test_relabelling_the_categories_changes_no_nominal_figure():
    with jax.enable_x64(True):
        ratings, where = table_of(6)
        ones = jnp.ones(60)
        relabelled = jnp.asarray([2, 0, 1])[ratings]
        before = everything(ratings, where, ones)
        after = everything(relabelled, where, ones)
        close({k: after[k] for k in MANY}, {k: before[k] for k in MANY})


@pytest.mark.parametrize("raters", [2, 4])
def test_totals_give_the_figures_of_the_functions(raters):
    with jax.enable_x64(True):
        ratings, where = table_of(7, raters)
        found = everything(ratings, where, jnp.ones(60))
        close(found["eight"]._asdict(), found["plain"])


def test_two_raters_without_gaps_are_the_same_to_cohen_and_conger_scott_and_fleiss():
    with jax.enable_x64(True):
        ratings, _ = table_of(8, raters=2)
        found = everything(ratings, jnp.ones((2, 60), bool), jnp.ones(60))
        close(found["cohen"], found["conger"])
        close(found["scott"], found["fleiss"])


def test_two_identical_categories_are_one():
    """Weights of 1 between two categories merge them (p_a and p_e alike)."""
    with jax.enable_x64(True):
        ratings, where = table_of(9)
        merged = jnp.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        shared = {"where": where, "kind": "fleiss"}
        three = scoring.chance_corrected(ratings, 3, weights=merged, **shared)
        two = scoring.chance_corrected(jnp.maximum(ratings - 1, 0), 2, **shared)
        close(three, two)


def test_raw_agreement_of_four_in_five_can_be_a_kappa_of_a_quarter():
    """Base rates at which two raters agree on 73.5 % of the units by chance."""
    share = np.array([0.05, 0.85, 0.10])
    chance = (share**2).sum()
    kappa = 1.0 - 0.2 / (1.0 - chance)
    # With probability kappa both say the same, else each what he says anyway.
    table = kappa * np.diag(share) + (1.0 - kappa) * np.outer(share, share)
    ratings, counts = scoring.ratings_of_table(jnp.asarray(1e4 * table))
    found = scoring.chance_corrected(ratings, 3, kind="fleiss", unit_weights=counts)
    assert float(found.observed) == pytest.approx(0.8, abs=1e-4)
    assert float(found.expected) == pytest.approx(0.735, abs=1e-4)
    assert float(found.coefficient) == pytest.approx(0.245, abs=1e-3)


DEGENERATE = {
    "all missing": (np.zeros((3, 4), int), np.zeros((3, 4), bool), Reason.NO_RATINGS),
    "no units": (np.zeros((3, 0), int), np.ones((3, 0), bool), Reason.NO_RATINGS),
    "one rater": (np.eye(3, 4, dtype=int)[:1], np.ones((1, 4), bool), Reason.ONE_RATER),
    "one rater of three": (
        np.tile([0, 1, 2, 0], (3, 1)),
        np.array([[True] * 4, [False] * 4, [False] * 4]),
        Reason.ONE_RATER,
    ),
    "no pairs": (
        np.array([[0, 1, 2], [0, 1, 2]]),
        np.array([[True, False, True], [False, True, False]]),
        Reason.NO_PAIRS,
    ),
    "one category": (np.ones((3, 5), int), np.ones((3, 5), bool), Reason.ONE_CATEGORY),
}


@pytest.mark.parametrize("kind", MANY)
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_is_nan_with_a_reason(name, kind):
    ratings, where, reason = DEGENERATE[name]
    found = scoring.chance_corrected(
        jnp.asarray(ratings), 3, kind=kind, where=jnp.asarray(where)
    )
    assert np.isnan(found.coefficient)
    assert not found.standard_error > 0.0
    assert int(found.reason) == reason
    assert scoring.reason_text(found.reason)


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_is_nan_in_the_plain_functions(name):
    ratings, where, reason = DEGENERATE[name]
    shape = ratings.shape[1]
    found = everything(jnp.asarray(ratings), jnp.asarray(where), jnp.ones(shape))
    plain = {**found["plain"], **found["eight"]._asdict()}
    agreement = plain.pop("percent_agreement")
    assert all(np.isnan(x) for x in plain.values()), plain
    # All agree where one category occurs; there is only nothing to correct it by.
    assert agreement == 1.0 if reason == Reason.ONE_CATEGORY else np.isnan(agreement)


@pytest.mark.parametrize("kind", MANY)
def test_weights_that_merge_what_occurs_give_nan_with_a_reason(kind):
    ratings = jnp.array([[0, 1, 0, 1], [1, 1, 0, 0], [0, 0, 1, 1]])
    merged = jnp.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    found = scoring.chance_corrected(ratings, 3, kind=kind, weights=merged)
    assert np.isnan(found.coefficient)
    assert int(found.reason) == Reason.NO_DISAGREEMENT


def test_raters_who_never_meet_a_distance_give_nan_with_a_reason():
    """0 and 2 are apart, but one rater gives both and the other 1 only."""
    ratings = jnp.array([[0, 2, 0], [1, 1, 1]])
    weights = jnp.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    found = scoring.chance_corrected(ratings, 3, kind="cohen", weights=weights)
    assert np.isnan(found.coefficient)
    assert int(found.reason) == Reason.NO_DISAGREEMENT


def test_alpha_needs_more_than_one_rating():
    """(n - 1) / n is negative below one rating: alpha would exceed 1."""
    ratings = jnp.array([[0, 1, 2], [0, 1, 1]])
    small = jnp.full(3, 0.1)
    found = scoring.chance_corrected(ratings, 3, unit_weights=small)
    assert np.isnan(found.coefficient)
    assert int(found.reason) == Reason.TOO_FEW_RATINGS
    assert np.isnan(scoring.krippendorff_alpha(ratings, 3, unit_weights=small))
    eight = scoring.agreement_coefficients(ratings, 3, unit_weights=small)
    assert np.isnan(eight.alpha_nominal)
    assert np.isfinite(eight.fleiss)


@pytest.mark.parametrize("weight", [jnp.nan, -1.0, jnp.inf])
def test_a_weight_that_is_none_is_refused_and_dropped_while_tracing(weight):
    ratings, where = table_of(12, raters=2, units=6)
    weights = jnp.ones(6).at[2].set(weight)
    with pytest.raises(ValueError, match=r"unit_weights holds .*at least 0"):
        scoring.chance_corrected(ratings, 3, unit_weights=weights)
    traced = everything(ratings, where, weights)
    close(traced, everything(ratings, where, jnp.ones(6).at[2].set(0.0)), 1e-6)
    # A unit that nobody rated has a weight that nobody reads.
    nobody = jnp.ones_like(where).at[:, 2].set(False)
    found = scoring.gwet_ac1(ratings, 3, where=nobody, unit_weights=weights)
    assert found == scoring.gwet_ac1(ratings, 3, where=nobody)


@pytest.mark.parametrize("name", DEGENERATE)
def test_gradients_of_degenerate_tables_are_finite(name):
    ratings, where, _ = DEGENERATE[name]
    ratings, where = jnp.asarray(ratings), jnp.asarray(where)

    def total(unit_weights):
        found = everything(ratings, where, unit_weights)
        floats = [x for x in jax.tree.leaves(found) if x.dtype != jnp.int32]
        return sum(jnp.nansum(x) for x in floats)

    gradient = jax.grad(total)(jnp.ones(ratings.shape[1]))
    assert jnp.isfinite(gradient).all()


@pytest.mark.parametrize("kind", MANY)
def test_units_that_are_all_alike_have_an_error_of_zero(kind):
    ratings = jnp.tile(jnp.array([[0], [1], [1], [2], [0], [1], [0]]), (1, 301))
    found = scoring.chance_corrected(ratings, 3, kind=kind)
    assert float(found.standard_error) == 0.0


def test_ids_outside_are_missing_while_tracing_and_refused_otherwise():
    ratings = jnp.full((3, 4), 7)
    found = everything(ratings, jnp.ones((3, 4), bool), jnp.ones(4))
    assert int(found["gwet"].reason) == Reason.NO_RATINGS
    with pytest.raises(ValueError, match=r"holds 7, outside \[0, 3\); labels -1/0/\+1"):
        scoring.gwet_ac1(ratings, 3)
    with pytest.raises(ValueError, match="gwet_ac1: ratings holds -1"):
        scoring.gwet_ac1(ratings - 8, 3)


def test_degenerate_tables_do_not_disturb_their_neighbours_in_a_vmap():
    good, where = table_of(10, raters=3, units=5)
    tables = [good, *(jnp.ones((3, 5), good.dtype) for _ in range(2))]
    wheres = [where, jnp.ones((3, 5), bool), jnp.zeros((3, 5), bool)]
    batched = jax.vmap(everything, in_axes=(0, 0, None))(
        jnp.stack(tables), jnp.stack(wheres), jnp.ones(5)
    )
    alone = everything(good, where, jnp.ones(5))
    close(jax.tree.map(lambda x: x[0], batched), alone, 1e-6)
    reasons = batched["gwet"].reason.tolist()
    assert reasons == [Reason.OK, Reason.ONE_CATEGORY, Reason.NO_RATINGS]


def test_a_single_disagreement_in_a_constant_column():
    """ANNOTATION: alpha 0, kappa 0, Fleiss -0.11, AC1 .756, BP .6 of three in five."""
    ratings = jnp.array([[1, 1, 1, 1, 1], [1, 1, 1, 1, 2]])
    found = everything(ratings, jnp.ones((2, 5), bool), jnp.ones(5))
    assert float(found["krippendorff"].coefficient) == pytest.approx(0.0, abs=1e-6)
    assert float(found["cohen"].coefficient) == pytest.approx(0.0, abs=1e-6)
    assert float(found["fleiss"].coefficient) == pytest.approx(-1 / 9, abs=1e-6)


def test_the_interval_level_does_not_see_a_shift_of_the_labels():
    ratings, where = table_of(11)
    alphas = [
        scoring.krippendorff_alpha(
            ratings, 3, level="interval", category_values=x, where=where
        )
        for x in (None, (-1.0, 0.0, 1.0), (5.0, 6.0, 7.0))
    ]
    np.testing.assert_allclose(alphas, alphas[0], rtol=1e-6)


def test_labels_become_ids():
    labels = jnp.array([[-1, 0, 1, 1], [-1, 0, 0, 5]])
    ratings, where = scoring.ratings_of_labels(labels)
    found = scoring.percent_agreement(ratings, np.int64(3), where=where)
    assert float(found) == pytest.approx(2 / 3)


def test_views_ask_two_questions():
    """Rater 2 sees every value rater 1 sees, with the opposite sign."""
    ratings = jnp.array([[0, 2, 1, 1, 2, 0], [2, 0, 1, 1, 0, 2]])
    mention = scoring.mention_view(ratings)
    polarity = scoring.polarity_view(ratings)
    assert float(scoring.krippendorff_alpha(mention[0], 2, where=mention[1])) == 1.0
    assert float(scoring.krippendorff_alpha(polarity[0], 2, where=polarity[1])) < -0.5
    assert polarity.where.sum() == 8


def test_a_view_keeps_what_is_missing():
    where = jnp.array([[True, False], [False, True]])
    view = scoring.mention_view(jnp.array([[0, 1], [9, 2]]), where=where)
    assert view.where.tolist() == where.tolist()
    view = scoring.polarity_view(jnp.array([[0, 1], [-1, 2]]), where=where)
    assert view.where.tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize("units", [1718, 100_000])
def test_rare_labels_keep_their_digits_in_float32(units):
    """0.23 % of the labels, as for hedonism: 1 - p_e is small, agreement close to 1."""
    rng = np.random.default_rng(0)
    truth = rng.random(units) < 0.0023
    flip = rng.random((3, units)) < np.where(truth, 0.1, 0.0004)
    ratings = np.where(flip, ~truth, truth).astype(np.int32) + 1
    arguments = jnp.asarray(ratings), jnp.ones((3, units), bool)
    single = everything(*arguments, jnp.ones(units))
    with jax.enable_x64(True):
        double = everything(*arguments, jnp.ones(units))
    close(single, double, 1e-5)


@pytest.mark.parametrize("common", [1e5, 1e6])
def test_the_null_error_of_rare_labels_keeps_its_digits(common):
    ratings = jnp.array([[0, 1, 0, 1], [0, 0, 1, 1]])
    counts = jnp.array([common, 5.0, 4.0, 6.0])
    found = scoring.fleiss_null_error(ratings, 2, unit_weights=counts)
    # Two raters, two categories: 1 / sqrt(N).
    assert float(found) == pytest.approx((common + 15.0) ** -0.5, rel=1e-4)
