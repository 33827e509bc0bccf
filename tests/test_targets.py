# SPDX-License-Identifier: Apache-2.0
"""Named targets, profiles, reference responses, mixtures and importance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fulcra_jax import targets, values

RNG = np.random.default_rng(0)


def test_named_targets_are_those_of_the_release_and_the_poles():
    assert tuple(targets.EXPLICIT) == (
        "ideal",
        "harmless",
        "evaluation",
        "uk",
        "netherlands",
        "france",
        *(name.lower() for name in values.HIGHER_ORDER),
    )


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("ideal", {"Achievement", "Security", "Conformity"}),
        ("harmless", {"Security", "Conformity"}),
        ("evaluation", {"Security", "Conformity"}),
        ("openness to change", {"Self-direction", "Stimulation", "Hedonism"}),
        ("self-enhancement", {"Achievement", "Power"}),
        ("conservation", {"Security", "Tradition", "Conformity"}),
        ("self-transcendence", {"Benevolence", "Universalism"}),
    ],
)
def test_a_binary_target_is_one_on_its_values(name, wanted):
    if name in ("ideal", "evaluation"):
        wanted = wanted | {"Benevolence", "Universalism"}
    found = targets.target(name)
    assert {v for v, t in zip(values.BASIC, found, strict=True) if t == 1.0} == wanted
    assert float(found.sum()) == len(wanted)
    assert targets.EXPLICIT[name].kind == "binary"


@pytest.mark.parametrize(
    ("name", "best", "worst"),
    [
        ("uk", ("Benevolence", 0.6520), ("Power", -0.2383)),
        ("netherlands", ("Benevolence", 0.5661), ("Power", -0.1124)),
        ("france", ("Benevolence", 0.6212), ("Power", -0.3195)),
    ],
)
def test_a_national_target_has_the_published_ends(name, best, worst):
    vector, graded = targets.EXPLICIT[name].vector, targets.EXPLICIT[name]
    assert values.BASIC[vector.argmax()] == best[0]
    assert vector.max() == best[1]
    assert values.BASIC[vector.argmin()] == worst[0]
    assert vector.min() == worst[1]
    assert graded.kind == "graded"
    assert "European Social Survey" in graded.source


def test_training_and_evaluation_differ_in_achievement_alone():
    gap = targets.target("ideal") - targets.target("evaluation")
    assert values.BASIC[int(gap.argmax())] == "Achievement"
    assert np.abs(gap).sum() == 1.0


def test_the_poles_share_the_ten_values():
    poles = sum(targets.target(name) for name in values.HIGHER_ORDER)
    np.testing.assert_array_equal(poles, 1.0)


def test_a_name_in_any_case_and_an_unknown_one():
    np.testing.assert_array_equal(targets.target(" UK "), targets.target("uk"))
    with pytest.raises(KeyError, match="'utopia' is unknown; known are: ideal, harm"):
        targets.target("utopia")


def test_a_named_vector_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        targets.EXPLICIT["ideal"].vector[0] = 1.0


def test_target_has_the_precision_of_the_session():
    assert targets.target("uk").dtype == jnp.float32
    with jax.enable_x64(True):
        assert targets.target("uk").dtype == jnp.float64
        assert float(targets.target("uk")[0]) == 0.4809


def test_from_profile_is_a_line_through_its_ends():
    found = targets.from_profile(jnp.array([-2.0, 0.0, 4.0, 7.0]), low=-2, high=4)
    np.testing.assert_allclose(found, [-1.0, -1 / 3, 1.0, 2.0], rtol=1e-6)
    back = targets.from_profile(jnp.array([6.0, 3.5, 1.0]), low=6, high=1)
    np.testing.assert_array_equal(back, [-1.0, 0.0, 1.0])


@pytest.mark.parametrize(("low", "high"), [(2.0, 2.0), (0.0, np.inf), (np.nan, 1.0)])
def test_from_profile_refuses_a_scale_without_length(low, high):
    with pytest.raises(ValueError, match="expected two different numbers"):
        targets.from_profile(jnp.ones(10), low=low, high=high)


def test_from_responses_is_the_mean_and_its_error():
    scores = RNG.uniform(-1, 1, (40, 10))
    found = targets.from_responses(jnp.asarray(scores, jnp.float32))
    error = scores.std(0, ddof=1) / np.sqrt(40)
    np.testing.assert_allclose(found.target, scores.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.standard_error, error, rtol=1e-5)
    np.testing.assert_array_equal(found.effective_size, 40.0)


def test_a_whole_weight_is_so_many_copies_for_the_mean():
    scores = jnp.asarray(RNG.uniform(-1, 1, (6, 10)), jnp.float32)
    weights = np.array([1, 2, 0, 3, 1, 1])
    found = targets.from_responses(scores, weights=jnp.asarray(weights))
    copies = targets.from_responses(jnp.repeat(scores, weights, axis=0))
    np.testing.assert_allclose(found.target, copies.target, atol=1e-6)
    # Kish: 8^2 / (1 + 4 + 9 + 1 + 1).
    np.testing.assert_allclose(found.effective_size, 4.0)


def test_equal_weights_of_any_size_change_nothing():
    scores = jnp.asarray(RNG.uniform(-1, 1, (9, 10)), jnp.float32)
    found = targets.from_responses(scores, weights=jnp.full(9, 0.125))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
        found,
        targets.from_responses(scores),
    )


def test_a_masked_score_is_as_if_deleted():
    scores = RNG.uniform(-1, 1, (9, 2)).astype(np.float32)
    where = np.ones((9, 2), bool)
    where[[1, 4], 0] = False
    spoiled = np.where(where, scores, np.nan)
    found = targets.from_responses(jnp.asarray(spoiled), where=jnp.asarray(where))
    kept = targets.from_responses(jnp.asarray(np.delete(scores, [1, 4], 0)[:, :1]))
    for a, b in zip(found, kept, strict=True):
        np.testing.assert_allclose(a[0], b[0], rtol=1e-6)


def test_nothing_is_known_of_one_response_or_none():
    one = targets.from_responses(jnp.ones((1, 2)), where=jnp.array([[True, False]]))
    np.testing.assert_array_equal(one.target, [1.0, np.nan])
    np.testing.assert_array_equal(one.standard_error, [np.nan, np.nan])
    np.testing.assert_array_equal(one.effective_size, [1.0, 0.0])


def test_nan_that_counts_propagates_to_its_value_alone():
    scores = jnp.zeros((3, 2)).at[1, 0].set(jnp.nan)
    found = targets.from_responses(scores)
    np.testing.assert_array_equal(found.target, [np.nan, 0.0])


def test_the_largest_scale_keeps_the_profile():
    scores = jnp.asarray(0.2 * RNG.uniform(-1, 1, (9, 10)), jnp.float32)
    raw = targets.from_responses(scores)
    found = targets.from_responses(scores, scale="largest")
    assert np.abs(found.target).max() == 1.0
    for a, b in ((found.target, raw.target), (found[1], raw[1])):
        np.testing.assert_allclose(a, b / np.abs(raw.target).max(), rtol=1e-6)
    np.testing.assert_allclose(
        targets.scale_to_largest(raw.target), found.target, rtol=1e-6
    )
    assert not targets.scale_to_largest(jnp.zeros(10)).any()


def test_from_responses_refuses_bad_arguments():
    with pytest.raises(ValueError, match=r"weights has shape \(3,\), so N=3"):
        targets.from_responses(jnp.zeros((4, 2)), weights=jnp.ones(3))
    with pytest.raises(ValueError, match=r"weights holds -1.0; expected none below 0"):
        targets.from_responses(jnp.zeros((2, 2)), weights=jnp.array([1.0, -1.0]))
    with pytest.raises(KeyError, match="scale 'max' is unknown; known are: raw, larg"):
        targets.from_responses(jnp.zeros((2, 2)), scale="max")  # pyright: ignore


def test_interpolate_begins_and_ends_where_it_should():
    uk, fr = targets.target("uk"), targets.target("france")
    np.testing.assert_array_equal(targets.interpolate(uk, fr, 0.0), uk)
    np.testing.assert_array_equal(targets.interpolate(uk, fr, 1.0), fr)
    half = targets.interpolate(uk, fr, 0.5)
    both = targets.blend(jnp.stack([uk, fr]), jnp.array([7.0, 7.0]))
    np.testing.assert_allclose(half, both, atol=1e-7)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_interpolate_refuses_a_share_outside_the_line(share):
    with pytest.raises(ValueError, match=f"share is {share}; expected 0 to 1"):
        targets.interpolate(jnp.ones(10), jnp.zeros(10), share)


def test_blend_leaves_out_what_has_no_weight():
    three = jnp.asarray(RNG.uniform(-1, 1, (3, 10)), jnp.float32)
    found = targets.blend(three, jnp.array([0.0, 2.0, 0.0]))
    np.testing.assert_allclose(found, three[1], rtol=1e-6)
    assert np.isnan(targets.blend(three, jnp.zeros(3))).all()
    with pytest.raises(ValueError, match=r"blend: weights holds -2.0"):
        targets.blend(three, jnp.array([1.0, -2.0, 1.0]))


def test_ranks_with_ties_share_the_mean_rank():
    found = targets.value_ranks(jnp.array([3, 1, 3, 3, 0]))
    np.testing.assert_array_equal(found, [2.0, 4.0, 2.0, 2.0, 5.0])


def test_ranks_of_some_values_and_with_a_nan():
    p = jnp.array([[0.1, jnp.nan, 0.3], [0.1, jnp.nan, 0.3]])
    where = jnp.array([[True, False, True], [True, True, True]])
    found = targets.value_ranks(p, where=where)
    np.testing.assert_array_equal(found, [[2, np.nan, 1], [np.nan] * 3])


def test_pan_cultural_ranks_are_a_permutation_with_benevolence_first():
    assert sorted(targets.PAN_CULTURAL_RANKS.tolist()) == list(range(1, 11))
    first = values.BASIC[int(targets.PAN_CULTURAL_RANKS.argmin())]
    last = values.BASIC[int(targets.PAN_CULTURAL_RANKS.argmax())]
    assert (first, last) == ("Benevolence", "Power")


def test_the_released_nations_follow_the_pan_cultural_order():
    for name in ("uk", "netherlands", "france"):
        ranks = targets.value_ranks(targets.target(name))
        rho = np.corrcoef(ranks, targets.PAN_CULTURAL_RANKS)[0, 1]
        assert rho > 0.8, name


@pytest.mark.parametrize("kind", ["absolute", "softmax", "rank"])
def test_importance_is_on_the_simplex_and_even_for_equal_values(kind):
    p = jnp.asarray(RNG.uniform(-1, 1, (50, 10)), jnp.float32)
    where = jnp.asarray(RNG.random((50, 10)) < 0.7).at[0].set(True)
    found = targets.importance_weights(p, kind=kind, where=where)
    np.testing.assert_allclose(found.sum(-1), 1.0, rtol=1e-5)
    assert (found >= 0.0).all()
    assert (np.asarray(found)[~np.asarray(where)] == 0.0).all()
    even = targets.importance_weights(jnp.zeros(10), kind=kind)
    np.testing.assert_allclose(even, 0.1, rtol=1e-6)
    none = targets.importance_weights(p, kind=kind, where=jnp.zeros_like(where))
    np.testing.assert_array_equal(none, 0.0)


def test_importance_of_a_rejected_value():
    p = jnp.array([0.2, -0.8])
    absolute = targets.importance_weights(p)
    np.testing.assert_allclose(absolute, [0.2, 0.8], rtol=1e-6)
    soft = targets.importance_weights(p, kind="softmax", temperature=0.5)
    np.testing.assert_allclose(soft[0], 1.0 / (1.0 + np.exp(-2.0)), rtol=1e-6)


def test_softmax_turns_from_one_value_to_even():
    p = jnp.array([0.5, 0.4, -1.0])
    cold = targets.importance_weights(p, kind="softmax", temperature=1e-3)
    np.testing.assert_allclose(cold, [1.0, 0.0, 0.0], atol=1e-6)
    hot = targets.importance_weights(p, kind="softmax", temperature=1e4)
    np.testing.assert_allclose(hot, 1 / 3, atol=1e-4)


def test_rank_weights_see_the_order_alone():
    p = jnp.array([0.9, 0.1, 0.5, -1.0])
    found = targets.importance_weights(p, kind="rank")
    np.testing.assert_allclose(found, np.array([4, 2, 3, 1]) / 10, rtol=1e-6)
    same = targets.importance_weights(p**3, kind="rank")
    np.testing.assert_array_equal(found, same)


@pytest.mark.parametrize("kind", ["absolute", "softmax", "rank"])
def test_nan_that_counts_makes_importance_unknown(kind):
    p = jnp.array([0.1, jnp.nan, 0.3])
    assert np.isnan(targets.importance_weights(p, kind=kind)).all()


def test_importance_refuses_bad_arguments():
    with pytest.raises(ValueError, match=r"temperature is 0.0; expected > 0"):
        targets.importance_weights(jnp.ones(3), kind="softmax", temperature=0.0)
    with pytest.raises(KeyError, match="kind 'l2' is unknown"):
        targets.importance_weights(jnp.ones(3), kind="l2")  # pyright: ignore
    with pytest.raises(ValueError, match=r"where has shape \(3,\)"):
        targets.importance_weights(jnp.ones((2, 3)), where=jnp.ones(3, bool))
