# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fulcra_jax import scoring


def rows_of(table):
    """Every unit's column again, from the pattern it points to; -1 for missing."""
    shown = jnp.where(table.where, table.ratings, -1)
    return np.asarray(shown[:, table.pattern_of_unit])


def random(seed, raters, units, k):
    rng = np.random.default_rng(seed)
    return (
        jnp.asarray(rng.integers(0, k, (raters, units))),
        jnp.asarray(rng.random((raters, units)) < 0.8),
    )


@pytest.mark.parametrize(
    ("raters", "k"), [(1, 1), (2, 3), (5, 3), (6, 3), (7, 3), (12, 4)]
)
def test_every_unit_finds_its_ratings_again(raters, k):
    ratings, where = random(0, raters, 50, k)
    table = scoring.pattern_table(ratings, k, where=where)
    np.testing.assert_array_equal(rows_of(table), np.where(where, ratings, -1))
    counts = np.bincount(table.pattern_of_unit, minlength=table.counts.shape[0])
    np.testing.assert_array_equal(table.counts, counts)


@pytest.mark.parametrize(("raters", "k"), [(5, 3), (12, 3), (20, 5)])
def test_anonymous_patterns_keep_the_counts_of_categories(raters, k):
    ratings, where = random(1, raters, 50, k)
    table = scoring.pattern_table(ratings, k, where=where, anonymous=True)
    shown = rows_of(table)
    for category in range(k):
        expected = (np.where(where, ratings, -1) == category).sum(0)
        np.testing.assert_array_equal((shown == category).sum(0), expected)
    assert float(table.counts.sum()) == 50.0


def test_the_size_depends_on_raters_and_categories_alone():
    for units in (0, 3, 500):
        ratings, where = random(2, 5, units, 3)
        assert scoring.pattern_table(ratings, 3, where=where).counts.shape == (1024,)


def test_found_patterns_are_padded_to_a_power_of_two():
    ratings, where = random(3, 12, 40, 4)
    table = scoring.pattern_table(ratings, 4, where=where)
    size = table.counts.shape[0]
    assert size & (size - 1) == 0
    assert (table.counts > 0).sum() <= size
    wide = scoring.pattern_table(ratings, 4, where=where, num_patterns=100)
    assert wide.counts.shape == (100,)
    np.testing.assert_array_equal(rows_of(wide), rows_of(table))


def test_weights_are_summed():
    ratings = jnp.array([[0, 1, 0], [0, 1, 0]])
    table = scoring.pattern_table(ratings, 2, unit_weights=jnp.array([0.5, 2.0, 0.25]))
    assert table.counts[table.pattern_of_unit].tolist() == [0.75, 2.0, 0.75]


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_fractional_weights_of_many_units_keep_their_digits(wrap):
    """One running float32 sum over a million units is off by 1e-3 and more."""
    units = 1_000_000
    rng = np.random.default_rng(0)
    ratings = jnp.asarray(rng.choice(2, (2, units), p=[0.95, 0.05]))
    weights = rng.uniform(0.0, 0.2, units).astype(np.float32)
    table = wrap(lambda r, w: scoring.pattern_table(r, 2, unit_weights=w))(
        ratings, jnp.asarray(weights)
    )
    exact = np.bincount(table.pattern_of_unit, weights, len(table.counts))
    np.testing.assert_allclose(table.counts, exact, rtol=2e-6)


def test_masked_and_impossible_ids_are_missing():
    ratings = jnp.array([[0, 2**31 - 1, -5], [1, 1, 3]])
    where = jnp.array([[True, False, True], [True, True, True]])
    table = jax.jit(lambda r, w: scoring.pattern_table(r, 2, where=w))(ratings, where)
    assert rows_of(table).tolist() == [[0, -1, -1], [1, 1, -1]]
    # Where they can be seen they are refused.
    with pytest.raises(ValueError, match=r"ratings holds -5, outside \[0, 2\)"):
        scoring.pattern_table(ratings, 2, where=where)


def test_too_many_patterns_cannot_be_traced():
    ratings, _ = random(4, 12, 10, 4)
    with pytest.raises(ValueError, match="make the table outside jit"):
        jax.jit(lambda r: scoring.pattern_table(r, 4))(ratings)


def test_too_small_a_table_is_refused():
    ratings, where = random(5, 12, 40, 4)
    with pytest.raises(ValueError, match="num_patterns is 2, but 40 patterns occur"):
        scoring.pattern_table(ratings, 4, where=where, num_patterns=2)


def test_counts_of_fleiss_form_come_back():
    counts = np.random.default_rng(0).integers(0, 4, (30, 4))
    ratings, where = scoring.ratings_of_counts(counts)
    shown = np.where(where, ratings, -1)
    again = np.stack([(shown == k).sum(0) for k in range(4)], 1)
    np.testing.assert_array_equal(again, counts)
    assert ratings.shape[0] == counts.sum(1).max()


@pytest.mark.parametrize("counts", [[[1, -1]], [[0.5, 1]]])
def test_counts_must_be_whole(counts):
    with pytest.raises(ValueError, match="whole numbers of at least 0"):
        scoring.ratings_of_counts(np.array(counts))


def test_a_contingency_table_must_be_square():
    with pytest.raises(ValueError, match=r"has K=2|so K="):
        scoring.ratings_of_table(jnp.ones((2, 3)))


def test_resampled_coefficients_are_those_of_the_weighted_table():
    with jax.enable_x64(True):
        ratings, where = random(6, 3, 40, 3)
        weights = np.random.default_rng(0).integers(0, 3, (4, 40)).astype(float)
        per_unit = scoring.unit_totals(ratings, 3, where=where)
        together = scoring.resampled_coefficients(per_unit, jnp.asarray(weights))
        for s, row in enumerate(weights):
            alone = scoring.agreement_coefficients(
                ratings, 3, where=where, unit_weights=jnp.asarray(row)
            )
            for name, value in alone._asdict().items():
                found = getattr(together, name)[s]
                np.testing.assert_allclose(found, value, rtol=1e-12, err_msg=name)


def test_resampled_coefficients_check_their_weights():
    per_unit = scoring.unit_totals(jnp.zeros((2, 4), jnp.int32), 3)
    with pytest.raises(ValueError, match=r"unit_weights has shape \(2, 3\); expected"):
        scoring.resampled_coefficients(per_unit, jnp.ones((2, 3)))
