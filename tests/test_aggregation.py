# SPDX-License-Identifier: Apache-2.0
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fulcra_jax.scoring import aggregation
from fulcra_jax.scoring.aggregation import VoteReason
from fulcra_jax.scoring.patterns import pattern_table

GOLDEN = np.load(pathlib.Path(__file__).parent / "goldens" / "aggregation.npz")
TABLES = ["two_raters", "few", "many", "larger"]
WIDTHS = [pytest.param(True, id="float64"), pytest.param(False, id="float32")]

majority_vote = jax.jit(aggregation.majority_vote, static_argnums=1)
wawa = jax.jit(aggregation.wawa, static_argnums=1)
collapse_passes = jax.jit(aggregation.collapse_passes, static_argnums=1)


def table_of(name):
    ratings, where = (jnp.asarray(GOLDEN[f"{name}/{x}"]) for x in ("ratings", "where"))
    return ratings, int(GOLDEN[f"{name}/num_categories"]), where


@pytest.mark.parametrize("x64", WIDTHS)
@pytest.mark.parametrize("name", TABLES)
def test_vote_equals_crowdkit(name, x64):
    theirs = GOLDEN[f"{name}/majority_vote/shares"]
    with jax.enable_x64(x64):
        ratings, k, where = table_of(name)
        vote = majority_vote(ratings, k, where=where)

    np.testing.assert_allclose(vote.shares, theirs, rtol=1e-15 if x64 else 1e-6)
    untied = vote.reason == VoteReason.OK
    np.testing.assert_array_equal(vote.labels[untied], theirs.argmax(1)[untied])
    top_two = np.sort(theirs, axis=1)[:, -2:]
    np.testing.assert_array_equal(~untied, np.isclose(top_two[:, 0], top_two[:, 1]))


@pytest.mark.parametrize("x64", WIDTHS)
@pytest.mark.parametrize("name", TABLES)
def test_wawa_equals_crowdkit_fitted_on_untied_units(name, x64):
    tolerance = 1e-14 if x64 else 1e-6
    theirs = GOLDEN[f"{name}/wawa/shares"]
    with jax.enable_x64(x64):
        ratings, k, where = table_of(name)
        result = wawa(ratings, k, where=where)

    np.testing.assert_allclose(
        result.skill, GOLDEN[f"{name}/wawa/skill"], rtol=tolerance
    )
    np.testing.assert_allclose(result.shares, theirs, rtol=tolerance, atol=tolerance)
    decided = result.reason == VoteReason.OK
    np.testing.assert_array_equal(result.labels[decided], theirs.argmax(1)[decided])


def test_a_vote_by_hand():
    # Units: majority, tie, no rating, garbage that does not count, one vote.
    ratings = jnp.array([[2, 0, 0, 7, 1], [2, 1, 0, -5, 0], [0, 2, 0, 1, 0]])
    where = jnp.array([[1, 1, 0, 1, 1], [1, 1, 0, 1, 0], [1, 0, 0, 1, 0]], bool)

    vote = majority_vote(ratings, 3, where=where)

    assert vote.labels.tolist() == [2, -1, -1, 1, 1]
    reasons = [VoteReason(r).name for r in vote.reason.tolist()]
    assert reasons == ["OK", "TIE", "NO_RATINGS", "OK", "OK"]
    np.testing.assert_allclose(vote.shares[0], [1 / 3, 0.0, 2 / 3], rtol=1e-6)
    assert np.isnan(vote.shares[2]).all()


def test_weights_break_a_tie_and_rounding_does_not():
    ratings = jnp.array([[0, 0], [1, 0], [1, 1]])
    # 0.3 against 0.1 + 0.2, which differ in the last digit.
    tied = majority_vote(ratings, 2, rater_weights=jnp.array([0.3, 0.1, 0.2]))
    heavy = majority_vote(ratings, 2, rater_weights=jnp.array([0.5, 0.1, 0.2]))
    nobody = majority_vote(ratings, 2, rater_weights=jnp.zeros(3))

    assert tied.labels.tolist() == [-1, 0]
    assert heavy.labels.tolist() == [0, 0]
    assert (nobody.reason == VoteReason.NO_RATINGS).all()


def test_a_tied_unit_counts_for_nobodys_skill():
    # Majorities 0, 1, none; agreement 2/2, 1/2, 1/2; the third unit 1 : 0.5 for 2.
    ratings = jnp.array([[0, 1, 2], [0, 0, 1], [1, 1, 0]])
    where = jnp.array([[1, 1, 1], [1, 1, 1], [1, 1, 0]], bool)

    result = wawa(ratings, 3, where=where)

    np.testing.assert_allclose(result.skill, [1.0, 0.5, 0.5])
    assert result.labels.tolist() == [0, 1, 2]
    np.testing.assert_allclose(result.shares[2], [0.0, 1 / 3, 2 / 3], rtol=1e-6)


def test_a_rater_of_tied_units_has_no_skill_and_no_vote():
    ratings = jnp.array([[0, 1], [0, 0], [0, 1]])
    where = jnp.array([[1, 0], [1, 1], [0, 1]], bool)

    result = wawa(ratings, 2, where=where)

    np.testing.assert_allclose(result.skill, [1.0, 1.0, np.nan])
    assert result.labels.tolist() == [0, 0]


def test_wawa_of_patterns_equals_wawa_of_units():
    ratings, k, where = table_of("few")
    units = wawa(ratings, k, where=where)
    table = pattern_table(ratings, k, where=where)
    patterns = wawa(table.ratings, k, where=table.where, unit_weights=table.counts)

    np.testing.assert_allclose(patterns.skill, units.skill, rtol=1e-6)
    np.testing.assert_array_equal(patterns.labels[table.pattern_of_unit], units.labels)


def test_passes_become_one_annotator():
    passes = jnp.array([[0, 0, 1], [0, 1, 1], [2, 2, 1], [0, 1, 0], [0, 0, 0]])
    where = jnp.array([[1, 1, 0], [1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 1, 0]], bool)

    one = collapse_passes(passes, 3, where=where)

    assert one.labels.tolist() == [0, -1, -1]
    assert one.where.tolist() == [True, False, False]
    np.testing.assert_allclose(one.confidence, [0.8, 0.5, np.nan])


def test_a_known_label_replaces_the_posterior():
    probs = jnp.array([[0.2, 0.8], [np.nan, np.nan], [0.6, 0.4], [0.5, 0.5]])
    result = aggregation.clamp(probs, jnp.array([0, 1, -1, 2]))
    np.testing.assert_array_equal(result, [[1, 0], [0, 1], probs[2], [0.5, 0.5]])


def test_errors_name_the_argument():
    ratings = jnp.zeros((3, 12), int)
    with pytest.raises(ValueError, match=r"majority_vote: where has shape \(3, 11\)"):
        aggregation.majority_vote(ratings, 3, where=jnp.ones((3, 11), bool))
    with pytest.raises(ValueError, match=r"rater_weights has shape \(2,\), so R=2"):
        aggregation.majority_vote(ratings, 3, rater_weights=jnp.ones(2))
    with pytest.raises(ValueError, match="ratings has dtype float32"):
        aggregation.majority_vote(ratings.astype(jnp.float32), 3)
    with pytest.raises(ValueError, match="wawa: num_categories is 0"):
        aggregation.wawa(ratings, 0)
    with pytest.raises(ValueError, match=r"unit_weights has shape \(3,\), so N=3"):
        aggregation.wawa(ratings, 2, unit_weights=jnp.ones(3))
    with pytest.raises(ValueError, match=r"collapse_passes: where has shape \(2, 12\)"):
        aggregation.collapse_passes(ratings, 3, where=jnp.ones((2, 12), bool))
    with pytest.raises(ValueError, match=r"clamp: known has shape \(3,\), so N=3"):
        aggregation.clamp(jnp.ones((4, 2)), jnp.zeros(3, int))
    with pytest.raises(ValueError, match="clamp: known has dtype float32"):
        aggregation.clamp(jnp.ones((4, 2)), jnp.zeros(4))


def test_the_weight_of_a_rater_without_ratings_is_not_read():
    ratings = jnp.array([[0, 1], [0, 1], [1, 0]])
    where = jnp.array([[1, 1], [1, 1], [0, 0]])
    weights = jnp.array([1.0, 1.0, np.nan])

    for vote in (majority_vote, aggregation.majority_vote):
        found = vote(ratings, 2, where=where, rater_weights=weights)
        assert found.labels.tolist() == [0, 1]
        np.testing.assert_array_equal(found.shares, [[1.0, 0.0], [0.0, 1.0]])


@pytest.mark.parametrize("bad", [-3.0, np.nan, np.inf])
def test_the_weight_of_a_rater_with_ratings_is_a_number(bad):
    ratings, weights = jnp.array([[0, 1], [0, 1], [1, 1]]), jnp.array([1.0, 1.0, bad])
    with pytest.raises(ValueError, match=r"rater_weights holds .*; expected finite"):
        aggregation.majority_vote(ratings, 2, rater_weights=weights)
    # Nothing can be raised while tracing: no vote, like a weight of 0.
    traced = majority_vote(ratings, 2, rater_weights=weights)
    np.testing.assert_array_equal(traced.shares, [[1.0, 0.0], [0.0, 1.0]])


@pytest.mark.parametrize("bad", [-3.0, np.nan, np.inf])
def test_the_weight_of_a_unit_with_ratings_is_a_number(bad):
    ratings, weights = jnp.array([[0, 1], [0, 1]]), jnp.array([1.0, bad])
    with pytest.raises(ValueError, match=r"wawa: unit_weights holds .*; expected fini"):
        aggregation.wawa(ratings, 2, unit_weights=weights)
    where = jnp.array([[1, 0], [1, 0]])
    found = aggregation.wawa(ratings, 2, where=where, unit_weights=weights)
    assert found.skill.tolist() == [1.0, 1.0]
