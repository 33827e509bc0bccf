# SPDX-License-Identifier: Apache-2.0
"""Keys and scores of the Portrait Values Questionnaires."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fulcra_jax import targets, values

RNG = np.random.default_rng(1)

FROM = {
    "PVQ21": (targets.PVQ21, targets.from_pvq21),
    "PVQ40": (targets.PVQ40, targets.from_pvq40),
    "PVQ_RR": (targets.PVQ_RR, targets.from_pvq_rr),
}


def by_hand(answers, key, most_like, center):
    """One respondent, item by item."""
    sign = -1.0 if most_like == 1 else 1.0
    likeness = [sign * (x - 3.5) / 2.5 if 1 <= x <= 6 else None for x in answers]
    given = [x for x in likeness if x is not None]
    own = sum(given) / len(given) if center else 0.0
    scores = []
    for items in key.values():
        said = [x for i in items if (x := likeness[i - 1]) is not None]
        enough = 2 * len(said) >= len(items)
        scores.append(sum(said) / len(said) - own if enough else None)
    return scores


def codes(rng, n, items):
    """Answers with the survey's codes for missing ones."""
    answers = rng.integers(1, 7, (n, items))
    missing = rng.random((n, items)) < 0.15
    return np.where(missing, rng.choice([0, 7, 8, 9, 66, 77, 88, 99]), answers)


@pytest.mark.parametrize("name", FROM)
def test_every_item_of_a_ten_value_key_counts_once(name):
    questionnaire, _ = FROM[name]
    assert tuple(questionnaire.key) == values.BASIC
    items = [i for part in questionnaire.key.values() for i in part]
    assert len(items) == len(set(items))
    left = set(range(1, questionnaire.num_items + 1)) - set(items)
    assert left == ({9, 24, 49} if name == "PVQ_RR" else set())


def test_the_refined_key_has_three_items_for_each_of_nineteen():
    assert tuple(targets.PVQ_RR_REFINED.key) == values.REFINED
    table = targets.PVQ_RR_REFINED.table()
    np.testing.assert_array_equal(table.sum(0), 3)
    np.testing.assert_array_equal(table.sum(1), 1)


def test_the_ten_value_key_of_the_pvq_rr_is_schwartz_s():
    assert targets.PVQ_RR.key["Tradition"] == (7, 18, 33, 38, 40, 54)
    assert targets.PVQ_RR.key["Conformity"] == (4, 15, 22, 31, 42, 51)
    assert targets.PVQ_RR.key["Power"] == (6, 12, 20, 29, 41, 44)
    assert targets.PVQ_RR.key["Universalism"] == (5, 8, 14, 21, 34, 37, 45, 52, 57)


def test_the_first_20_items_of_pvq40_ask_as_those_of_pvq21():
    # Item 21 is Hedonism in the survey's questionnaire and Security in the long one.
    for name in values.BASIC:
        short = {i for i in targets.PVQ21.key[name] if i < 21}
        assert short == {i for i in targets.PVQ40.key[name] if i < 21}


@pytest.mark.parametrize("most_like", [1, 6])
@pytest.mark.parametrize("center", [False, True])
def test_item_scores_are_those_made_by_hand(most_like, center):
    answers = codes(RNG, 60, 21)
    scores, defined = targets.item_scores(
        jnp.asarray(answers),
        jnp.asarray(targets.PVQ21.table()),
        most_like=most_like,
        center=center,
    )
    assert not defined.all()
    for n, row in enumerate(answers):
        wanted = by_hand(row, targets.PVQ21.key, most_like, center)
        assert [x is not None for x in wanted] == defined[n].tolist()
        filled = [0.0 if x is None else x for x in wanted]
        np.testing.assert_allclose(scores[n], filled, atol=1e-6)


@pytest.mark.parametrize(("answered", "defined"), [(1, False), (2, True), (3, True)])
def test_half_of_three_items_are_two(answered, defined):
    answers = jnp.full((1, 21), 2)
    for item in targets.PVQ21.key["Universalism"][answered:]:
        answers = answers.at[0, item - 1].set(77)
    found = targets.item_scores(answers, jnp.asarray(targets.PVQ21.table()))
    assert bool(found.defined[0, -1]) is defined


def test_min_share_is_a_choice():
    answers = jnp.full((1, 21), 2).at[0, 0].set(88)
    table = jnp.asarray(targets.PVQ21.table())
    assert targets.item_scores(answers, table, min_share=0.5).defined.all()
    strict = targets.item_scores(answers, table, min_share=1.0).defined
    assert strict[0].tolist() == [False] + [True] * 9
    none = targets.item_scores(jnp.zeros((1, 21)), table, min_share=0.0)
    assert not none.defined.any()


@pytest.mark.parametrize("center", [False, True])
def test_nan_and_a_mask_are_missing_answers(center):
    answers = codes(RNG, 20, 21).astype(np.float32)
    missing = ~((answers >= 1) & (answers <= 6))
    table = jnp.asarray(targets.PVQ21.table())
    coded = targets.item_scores(jnp.asarray(answers), table, center=center)
    blank = np.where(missing, np.nan, answers)
    as_nan = targets.item_scores(jnp.asarray(blank), table, center=center)
    masked = targets.item_scores(
        jnp.asarray(np.where(missing, 3.0, answers)),
        table,
        center=center,
        where=jnp.asarray(~missing),
    )
    jax.tree.map(np.testing.assert_array_equal, coded, as_nan)
    jax.tree.map(np.testing.assert_array_equal, coded, masked)


def test_centering_forgets_a_shift_of_the_scale():
    answers = RNG.integers(1, 6, (10, 21))
    table = jnp.asarray(targets.PVQ21.table())
    low = targets.item_scores(jnp.asarray(answers), table, center=True).scores
    high = targets.item_scores(jnp.asarray(answers + 1), table, center=True).scores
    np.testing.assert_allclose(low, high, atol=1e-6)
    counts = targets.PVQ21.table().sum(0)
    np.testing.assert_allclose(low @ counts, 0.0, atol=1e-5)


def test_face_counts_for_the_mean_that_centering_subtracts():
    answers = jnp.full((1, 57), 4)
    faces = answers.at[0, jnp.array([9, 24, 49]) - 1].set(6)
    plain = targets.from_pvq_rr(faces, center=True, scale="raw").target
    np.testing.assert_allclose(plain, -(3 * 2 / 57) / 2.5, rtol=1e-4)


@pytest.mark.parametrize(("missing", "valid"), [(5, True), (6, False)])
def test_more_than_five_missing_answers_are_too_many(missing, valid):
    answers = jnp.asarray(1 + np.arange(21)[None] % 6).at[0, :missing].set(99)
    assert targets.valid_respondents(answers).tolist() == [valid]
    assert targets.valid_respondents(answers, max_missing=None).tolist() == [True]


@pytest.mark.parametrize(("same", "valid"), [(16, True), (17, False)])
def test_more_than_sixteen_equal_answers_are_too_many(same, valid):
    answers = jnp.full((1, 21), 3).at[0, same:].set(5)
    assert targets.valid_respondents(answers).tolist() == [valid]
    assert targets.valid_respondents(answers, max_same=None).tolist() == [True]


def test_missing_answers_are_not_equal_answers():
    answers = jnp.full((1, 21), 99).at[0, 0].set(2)
    found = targets.valid_respondents(answers, max_missing=None)
    assert found.tolist() == [True]
    empty = targets.valid_respondents(jnp.full((1, 21), 99), max_missing=None)
    assert empty.tolist() == [False]


def test_the_target_is_the_line_of_the_released_nations():
    """(3.5 - m) / 2.5 of the group's mean answers."""
    answers = RNG.integers(1, 7, (200, 21))
    found = targets.from_pvq21(jnp.asarray(answers)).target
    means = [answers[:, np.array(i) - 1].mean() for i in targets.PVQ21.key.values()]
    np.testing.assert_allclose(found, (3.5 - np.array(means)) / 2.5, atol=1e-5)


@pytest.mark.parametrize("name", FROM)
def test_the_end_that_means_like_me_is_plus_one(name):
    questionnaire, from_answers = FROM[name]
    like = jnp.full((2, questionnaire.num_items), questionnaire.most_like)
    found = from_answers(like, max_same=None)
    np.testing.assert_array_equal(found.target, 1.0)
    other = 7 - questionnaire.most_like
    turned = from_answers(like, max_same=None, most_like=other)
    np.testing.assert_array_equal(turned.target, -1.0)


def test_weights_and_left_out_respondents():
    answers = RNG.integers(1, 7, (6, 21))
    answers[2] = 2  # tells nothing apart
    weights = np.array([1.0, 2.0, np.nan, 0.5, 3.0, 0.0], np.float32)
    found = targets.from_pvq21(jnp.asarray(answers), weights=jnp.asarray(weights))
    kept = np.array([0, 1, 3, 4])
    scores = [by_hand(answers[n], targets.PVQ21.key, 1, False) for n in kept]
    wanted = np.average(scores, axis=0, weights=weights[kept])
    np.testing.assert_allclose(found.target, wanted, atol=1e-6)
    size = weights[kept].sum() ** 2 / (weights[kept] ** 2).sum()
    np.testing.assert_allclose(found.effective_size, size, rtol=1e-6)


def test_a_value_that_nobody_answers_is_unknown():
    answers = RNG.integers(1, 7, (5, 21))
    answers[:, np.array(targets.PVQ21.key["Power"]) - 1] = 77
    found = targets.from_pvq21(jnp.asarray(answers), center=True)
    assert np.isnan(found.target).tolist() == [v == "Power" for v in values.BASIC]
    assert np.abs(np.nan_to_num(found.target)).max() == 1.0


def test_scale_follows_centering_unless_it_is_named():
    answers = jnp.asarray(RNG.integers(1, 7, (30, 21)))
    raw = targets.from_pvq21(answers, center=True, scale="raw").target
    found = targets.from_pvq21(answers, center=True).target
    np.testing.assert_allclose(found, raw / np.abs(raw).max(), rtol=1e-5)
    plain = targets.from_pvq21(answers).target
    named = targets.from_pvq21(answers, scale="raw").target
    np.testing.assert_array_equal(plain, named)


def test_refined_parts_make_up_the_ten():
    answers = jnp.asarray(RNG.integers(1, 7, (30, 57)))
    ten = targets.from_pvq_rr(answers).target
    nineteen = targets.from_pvq_rr(answers, refined=True).target
    belongs = values.refined_to_basic(humility="tradition", face="none")
    np.testing.assert_allclose(nineteen @ belongs / belongs.sum(0), ten, atol=1e-6)


@pytest.mark.parametrize("name", FROM)
def test_the_wrong_number_of_items_is_refused(name):
    questionnaire, from_answers = FROM[name]
    items = questionnaire.num_items
    with pytest.raises(ValueError, match=rf"responses has shape \(2, 7\).*{items}"):
        from_answers(jnp.ones((2, 7)))


def test_bad_arguments_are_refused():
    answers = jnp.ones((2, 21))
    with pytest.raises(ValueError, match="most_like is 5; expected 1 or 6"):
        targets.from_pvq21(answers, most_like=5)
    with pytest.raises(ValueError, match=r"min_share is 1.5; expected 0 to 1"):
        targets.from_pvq21(answers, min_share=1.5)
    with pytest.raises(KeyError, match="scale 'unit' is unknown"):
        targets.from_pvq21(answers, scale="unit")  # pyright: ignore
    with pytest.raises(ValueError, match=r"from_pvq21: weights holds -1.0"):
        targets.from_pvq21(answers, weights=jnp.array([1.0, -1.0]))
