# SPDX-License-Identifier: Apache-2.0
import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fulcra_jax import scoring


def as_mask(members, size=6):
    return jnp.asarray([m in members for m in range(size)])


PAIRS = {
    # Passonneau 2006: m is 1, 2/3, 1/3, 0 for equal, nested, overlapping, disjoint.
    "equal": ({0, 1}, {0, 1}, Fraction(0), Fraction(0)),
    "nested": ({1, 2}, {1, 2, 3, 4}, Fraction(1, 2), Fraction(2, 3)),
    "overlap": ({0, 1}, {1, 2}, Fraction(2, 3), Fraction(8, 9)),
    "disjoint": ({0}, {1}, Fraction(1), Fraction(1)),
    "empty and not": (set(), {1}, Fraction(1), Fraction(1)),
    "both empty": (set(), set(), Fraction(0), Fraction(0)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_distances_by_hand(name):
    first, second, jaccard, masi = PAIRS[name]
    for distance, expected in (("jaccard", jaccard), ("masi", masi)):
        for a, b in ((first, second), (second, first)):
            found = scoring.set_distance(as_mask(a), as_mask(b), distance=distance)
            assert float(found) == pytest.approx(float(expected), abs=1e-6)


def distance_of(a, b, kind):
    if not a and not b:
        return 0.0
    jaccard = len(a & b) / len(a | b)
    if kind == "jaccard":
        return 1.0 - jaccard
    m = 1.0 if a == b else 2 / 3 if a <= b or b <= a else 1 / 3 if a & b else 0.0
    return 1.0 - jaccard * m


def alpha_of(units, kind):
    """Observed and expected disagreement by loops over pairs of ratings."""
    units = [u for u in units if len(u) >= 2]
    n = sum(map(len, units))
    observed = sum(
        distance_of(a, b, kind) / (len(u) - 1)
        for u in units
        for a, b in itertools.permutations(u, 2)
    )
    pool = [s for u in units for s in u]
    expected = sum(distance_of(a, b, kind) for a, b in itertools.permutations(pool, 2))
    return 1.0 - (observed / n) / (expected / (n * (n - 1)))


@pytest.mark.parametrize("kind", ["jaccard", "masi"])
def test_alpha_equals_a_loop(kind):
    rng = np.random.default_rng(0)
    sets = rng.random((4, 15, 5)) < 0.4
    where = rng.random((4, 15)) < 0.7
    units = [
        [frozenset(np.flatnonzero(sets[r, n])) for r in range(4) if where[r, n]]
        for n in range(15)
    ]
    with jax.enable_x64(True):
        found = scoring.set_alpha(
            jnp.asarray(sets), distance=kind, where=jnp.asarray(where)
        )
    assert float(found) == pytest.approx(alpha_of(units, kind), abs=1e-12)


def test_alpha_of_single_elements_is_nominal_alpha():
    rng = np.random.default_rng(1)
    ratings = rng.integers(0, 4, (3, 30))
    where = jnp.asarray(rng.random((3, 30)) < 0.8)
    weights = jnp.asarray(rng.integers(0, 3, 30), jnp.float32)
    sets = jnp.asarray(ratings[..., None] == np.arange(4))
    shared = {"where": where, "unit_weights": weights}
    nominal = scoring.krippendorff_alpha(jnp.asarray(ratings), 4, **shared)
    np.testing.assert_allclose(scoring.set_alpha(sets, **shared), nominal, rtol=1e-5)


def test_equal_sets_everywhere_are_undefined():
    assert np.isnan(scoring.set_alpha(jnp.ones((2, 5, 3), bool)))
    assert np.isnan(scoring.set_alpha(jnp.ones((1, 5, 3), bool)))
    nothing = jnp.zeros((2, 5), bool)
    assert np.isnan(scoring.set_alpha(jnp.ones((2, 5, 3), bool), where=nothing))


def test_an_unknown_distance_is_named():
    with pytest.raises(KeyError, match="distance 'dice' is unknown; known are: jacc"):
        scoring.set_alpha(jnp.ones((2, 2, 2), bool), distance="dice")


def test_ids_are_no_sets():
    with pytest.raises(ValueError, match="sets has dtype int32; expected bool"):
        scoring.set_alpha(jnp.zeros((2, 4, 3), jnp.int32))


def test_sets_of_no_elements_are_all_equal():
    assert np.isnan(scoring.set_alpha(jnp.zeros((2, 3, 0), bool)))


def test_weights_of_units_with_two_sets_are_numbers():
    sets = jnp.asarray(np.random.default_rng(0).random((2, 4, 3)) < 0.5)
    where = jnp.array([[1, 1, 2, 1], [2, 1, 1, 0]])
    weights = jnp.array([1.0, 2.0, 1.0, np.nan])
    found = scoring.set_alpha(sets, where=where, unit_weights=weights)
    kept = scoring.set_alpha(sets[:, :3], unit_weights=weights[:3])
    assert found == pytest.approx(float(kept))
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"unit_weights holds .*; expected finite"):
            scoring.set_alpha(sets[:, :3], unit_weights=weights[:3].at[1].set(bad))


def test_ratings_that_weigh_no_more_than_one_say_nothing():
    """n - 1 is then no number of degrees of freedom; alpha would exceed 1."""
    sets = jnp.array([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], bool)
    assert np.isnan(scoring.set_alpha(sets, unit_weights=jnp.array([0.1, 0.1])))
