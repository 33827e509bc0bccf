# SPDX-License-Identifier: Apache-2.0
"""Distances against optax, formulas by hand, and the numbers of the release."""

import itertools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fulcra_jax import values
from fulcra_jax.objectives import distance

OFFICIAL = pathlib.Path(__file__).parents[2] / "shared" / "data" / "fulcra"
MODELS = ("gpt-4", "gpt-35-turbo", "mistral-large")
EVALUATION = np.array([0, 0, 0, 0, 0, 1, 0, 1, 1, 1], float)
IDEAL = np.array([0, 0, 0, 1, 0, 1, 0, 1, 1, 1], float)
SUMS = ("l1", "l2", "squared", "huber")
KINDS = (*SUMS, "cosine", "circumplex")
PROFILES = [(k, g) for k in SUMS for g in ("none", "target")]
PROFILES += [(k, "none") for k in KINDS[4:]]
every_profile = pytest.mark.parametrize(("kind", "gate"), PROFILES)


def draws(seed, n=200):
    """Scores and targets; a third of the target entries are 0."""
    rng = np.random.default_rng(seed)
    score = rng.uniform(-1.0, 1.0, (n, 10))
    target = rng.uniform(-1.0, 1.0, (n, 10)) * (rng.random((n, 10)) < 0.67)
    return score, target


def official_rows(model):
    paths = [OFFICIAL / f"official_scores.{model}.{s}.jsonl" for s in ("train", "dev")]
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        pytest.skip(f"missing: {', '.join(missing)}")
    return [json.loads(x) for path in paths for x in path.read_bytes().splitlines()]


@pytest.mark.parametrize(
    ("model", "e", "h", "baselign"),
    [
        ("gpt-4", 1.0732, 1.3844, 0.2764),
        ("gpt-35-turbo", 1.1362, 1.5239, 0.3724),
        ("mistral-large", 1.2108, 1.7094, 0.5528),
    ],
)
def test_the_released_distances(model, e, h, baselign):
    """Every row as released; the means as FACTS.md gives them for these rows."""
    rows = official_rows(model)
    with jax.enable_x64(True):
        score = jnp.asarray([row["value_reward"] for row in rows])
        target = jnp.asarray(EVALUATION)
        for kind, name, mean in (("l2", "e_distance", e), ("l1", "h_distance", h)):
            found = distance.value_distance(score, target, kind=kind, gate="target")
            released = np.array([row[name] for row in rows])
            np.testing.assert_allclose(found, released, rtol=0, atol=1e-12)
            assert abs(float(found.mean()) - mean) < 6e-5
        found = distance.value_distance(score, jnp.asarray(IDEAL), gate="official")
        assert abs(float(found.mean()) - baselign) < 6e-5


def test_the_released_formula_value_by_value():
    """The profile of a target of 1, and nothing at or below the threshold."""
    score = jnp.array([-1, -0.5, -0.31, -0.3, 0, 0.3, 0.31, 0.6, 0.9, 0.99])
    found = distance.value_gaps(score, jnp.ones(10), gate="official")
    expected = [2, 1.5, 1.31, 0, 0, 0, 0.69, 0.4, 0.1, 0.01]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_official_equals_the_formula_on_random_vectors():
    score, target = draws(1)
    expected = (np.abs(score - target) * (np.abs(score) > 0.3) * np.abs(target)).sum(-1)
    with jax.enable_x64(True):
        found = distance.value_distance(
            jnp.asarray(score), jnp.asarray(target), gate="official"
        )
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_the_sums_equal_optax():
    score, target = (jnp.asarray(x, jnp.float32) for x in draws(2))
    for kind, delta, loss in (
        ("squared", 1.0, optax.squared_error(score, target)),
        ("huber", 0.4, optax.huber_loss(score, target, delta=0.4)),
        ("huber", 1.0, optax.huber_loss(score, target)),
    ):
        gaps = distance.value_gaps(score, target, kind=kind, delta=delta)
        np.testing.assert_allclose(gaps, loss, atol=1e-6)
        found = distance.value_distance(score, target, kind=kind, delta=delta)
        np.testing.assert_allclose(found, loss.sum(-1), rtol=1e-6, atol=1e-6)
    found = distance.value_distance(score, target, kind="cosine")
    np.testing.assert_allclose(
        found, optax.cosine_distance(score, target), rtol=1e-6, atol=1e-6
    )
    found = distance.value_distance(score, target, kind="l2")
    np.testing.assert_allclose(found, np.linalg.norm(score - target, axis=-1), 1e-6)


@pytest.mark.parametrize("kind", SUMS)
def test_weights_are_repeats(kind):
    score, target = (x[:, :4] for x in draws(3))
    times = np.array([2, 0, 3, 1])
    repeated = [jnp.asarray(np.repeat(x, times, -1)) for x in (score, target)]
    found = distance.value_distance(
        jnp.asarray(score), jnp.asarray(target), kind=kind, weights=jnp.asarray(times)
    )
    expected = distance.value_distance(*repeated, kind=kind)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("kind", KINDS[:5])
def test_a_mask_deletes(kind, center):
    score, target = draws(4, 1)
    counts = np.arange(10) % 3 != 1
    full = distance.value_distance(
        jnp.asarray(np.where(counts, score, np.nan)),
        jnp.asarray(np.where(counts, target, np.inf)),
        kind=kind,
        center=center,
        where=jnp.asarray(counts[None]),
    )
    short = distance.value_distance(
        jnp.asarray(score[:, counts]),
        jnp.asarray(target[:, counts]),
        kind=kind,
        center=center,
    )
    np.testing.assert_allclose(full, short, rtol=1e-6)


@every_profile
def test_masked_infinities_have_no_gradient(kind, gate):
    score, target = draws(5, 4)
    score[:, 2], score[3], target[:, 2] = np.inf, np.nan, np.nan
    where = np.isfinite(score)

    def total(score, target):
        return distance.value_distance(
            score, target, kind=kind, gate=gate, center=True, where=jnp.asarray(where)
        ).sum()

    arrays = jnp.asarray(score), jnp.asarray(target)
    value, grads = jax.value_and_grad(total, argnums=(0, 1))(*arrays)
    assert np.isfinite(value)
    for grad in grads:
        assert np.isfinite(grad).all()
        assert (np.asarray(grad)[~where] == 0.0).all()


@every_profile
def test_gradients_are_finite_at_the_corners(kind, gate):
    """At the target, at zero, and both: roots and lengths are 0 there."""
    grad = jax.grad(
        lambda v, t: distance.value_distance(v, t, kind=kind, gate=gate).sum()
    )
    ideal = jnp.asarray(IDEAL)
    for v, t in itertools.product((jnp.zeros(10), ideal), repeat=2):
        assert np.isfinite(grad(v, t)).all()


@pytest.mark.parametrize("center", [False, True])
@every_profile
def test_no_distance_grows_on_the_way_to_the_target(kind, gate, center):
    score, target = draws(6)
    share = np.linspace(0.0, 1.0, 21)[:, None, None]
    way = score + share * (target - score)
    with jax.enable_x64(True):
        found = distance.value_distance(
            jnp.asarray(way),
            jnp.broadcast_to(jnp.asarray(target), way.shape),
            kind=kind,
            gate=gate,
            center=center,
        )
    assert (np.diff(found, axis=0) <= 1e-12).all()
    np.testing.assert_allclose(found[-1], 0.0, atol=1e-7)


@pytest.mark.parametrize(("kind", "gate"), PROFILES[:-2])
def test_no_step_of_one_value_costs(kind, gate):
    score, target = draws(7)
    rng = np.random.default_rng(8)
    nearer = score.copy()
    k = rng.integers(0, 10, len(score))
    row = np.arange(len(score))
    nearer[row, k] += rng.random(len(score)) * (target - score)[row, k]
    before, after = (
        distance.value_distance(
            jnp.asarray(x), jnp.asarray(target), kind=kind, gate=gate
        )
        for x in (score, nearer)
    )
    assert (after <= before + 1e-6).all()


@pytest.mark.parametrize("softness", [0.0, 0.02])
def test_the_official_distance_grows_on_the_way(softness):
    """The loophole: from "no value at all" every way to the target leads uphill."""
    way = jnp.asarray(np.linspace(0.0, 1.0, 11)[:, None] * IDEAL)
    found = distance.value_distance(
        way, jnp.asarray(IDEAL), gate="official", softness=softness
    )
    assert found[0] < 1e-3
    assert found.max() > 2.9
    assert found[4] == found.max()  # The first step beyond .3.


def test_softness_has_a_gradient_and_approaches_the_indicator():
    score, target = (jnp.asarray(x) for x in draws(9))
    hard = distance.value_distance(score, target, gate="official")
    soft = distance.value_distance(score, target, gate="official", softness=1e-6)
    np.testing.assert_allclose(soft, hard, atol=1e-5)
    at = jnp.full(10, 0.3)
    gap = lambda v: distance.value_distance(
        v, jnp.ones(10), gate="official", softness=0.1
    )
    # d/dv [(1 - v) sigmoid((v - .3)/.1)] = -1/2 + .7 (1/4)/.1 at v = .3.
    np.testing.assert_allclose(jax.grad(gap)(at), -0.5 + 0.7 * 2.5, rtol=1e-5)


def test_cosine_sees_directions_only():
    ideal = jnp.asarray(IDEAL)
    cosine = lambda v: float(distance.value_distance(v, ideal, kind="cosine"))
    assert abs(cosine(0.01 * ideal)) < 1e-6
    assert abs(cosine(-ideal) - 2.0) < 1e-6
    assert cosine(jnp.zeros(10)) == 1.0
    assert cosine(jnp.eye(10)[0]) == 1.0


def test_centered_distances_see_profiles_only():
    score, target = (jnp.asarray(x) for x in draws(10))
    for kind in KINDS[:5]:
        found = [
            distance.value_distance(score + shift, target, kind=kind, center=True)
            for shift in (0.0, 0.7)
        ]
        np.testing.assert_allclose(*found, atol=1e-5)


def test_neighbors_on_the_circle_are_nearer():
    """d(e_i, e_j) = 2 - 2 S_ij: least for a neighbor, most across the circle."""
    eye = jnp.eye(10)
    one = values.BASIC.index("Security")
    found = distance.value_distance(eye, eye[one], kind="circumplex")
    similarity = distance.circumplex_similarity()
    np.testing.assert_allclose(found, 2.0 - 2.0 * similarity[one], atol=1e-6)
    angle = np.abs(values.ring_angles() - values.ring_angles()[one])
    away = np.minimum(angle, 2.0 * np.pi - angle)
    assert (np.diff(np.asarray(found)[np.argsort(away, kind="stable")]) > -1e-6).all()
    plain = distance.value_distance(eye, eye[one], kind="circumplex", rho=0.0)
    np.testing.assert_allclose(plain, 2.0 * (np.arange(10) != one), atol=1e-6)


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.9])
def test_circumplex_is_positive_definite(rho):
    least = np.linalg.eigvalsh(distance.circumplex_similarity(rho)).min()
    np.testing.assert_allclose(least, 1.0 - rho, atol=1e-12)


def test_nan_that_counts_is_seen_and_one_that_does_not_is_not():
    target = jnp.asarray(IDEAL)
    for k, gate, seen in ((3, "target", True), (0, "target", False), (0, "none", True)):
        score = jnp.zeros(10).at[k].set(jnp.nan)
        found = distance.value_distance(score, target, gate=gate)
        assert bool(jnp.isnan(found)) is seen


def test_bad_arguments():
    v = jnp.zeros((3, 10))
    call = distance.value_distance
    with pytest.raises(KeyError, match="kind 'l3' is unknown; known are: l1, l2"):
        call(v, v, kind="l3")
    with pytest.raises(KeyError, match="gate 'x' is unknown"):
        call(v, v, gate="x")
    with pytest.raises(KeyError, match="gate 'x' is unknown"):
        call(v, v, kind="cosine", gate="x")
    with pytest.raises(ValueError, match="'cosine' takes neither gate nor weights"):
        call(v, v, kind="cosine", gate="target")
    with pytest.raises(ValueError, match="'circumplex' takes neither"):
        call(v, v, kind="circumplex", weights=jnp.ones(10))
    with pytest.raises(ValueError, match=r"needs the 10 of values\.BASIC"):
        call(v[:, :4], v[:, :4], kind="circumplex")
    with pytest.raises(ValueError, match=r"rho is 1.0; expected 0 <= rho < 1"):
        call(v, v, kind="circumplex", rho=1.0)
    with pytest.raises(ValueError, match=r"threshold is -0.1"):
        call(v, v, threshold=-0.1)
    with pytest.raises(ValueError, match=r"softness is -1.0"):
        call(v, v, softness=-1.0)
    with pytest.raises(ValueError, match=r"delta is 0.0; expected more than 0"):
        call(v, v, kind="huber", delta=0.0)
    with pytest.raises(ValueError, match=r"target has shape \(2, 10\)"):
        call(v, v[:2])
    with pytest.raises(ValueError, match="V=9"):
        call(v, jnp.zeros(9))
    with pytest.raises(ValueError, match=r"where has shape \(10,\)"):
        call(v, v, where=jnp.ones(10, bool))


@pytest.mark.parametrize("kind", KINDS)
def test_a_score_that_is_nan_is_never_at_the_best_distance(kind):
    score = jnp.zeros(10).at[3].set(jnp.nan)
    assert jnp.isnan(distance.value_distance(score, jnp.ones(10), kind=kind))
