# SPDX-License-Identifier: Apache-2.0
"""Plans: every text once an epoch, a function of (lengths, seed, step) alone."""

import numpy as np
import pytest

from fulcra_jax.data import packing
from fulcra_jax.data.plan import Ladder, Packed

LENGTHS = np.random.default_rng(0).integers(3, 60, 100)
LADDER = Ladder(8, (16, 32, 64))
PACKED = Packed(4, 64)


def texts_of(plan, steps):
    """The texts of some steps, row by row."""
    every = np.concatenate([plan.layout(step).texts for step in steps])
    return [row[row >= 0].tolist() for row in every]


@pytest.mark.parametrize("batch_size", [1, 3, 7, 500])
def test_packed_rows_hold_every_text_once_an_epoch(batch_size):
    plan = Packed(batch_size, 64).over(LENGTHS, 0)
    R = plan.num_rows
    rows = texts_of(plan, range(-(-3 * R // batch_size)))
    for epoch in range(3):
        seen = [text for row in rows[epoch * R : (epoch + 1) * R] for text in row]
        assert sorted(seen) == list(range(100))


def test_a_ladder_holds_every_text_once_an_epoch():
    # A window of 16 batches is sorted together: an epoch of 128 texts.
    plan = LADDER.over(np.resize(LENGTHS, 128), 0)
    for window in range(3):
        rows = texts_of(plan, range(16 * window, 16 * (window + 1)))
        assert sorted(text for row in rows for text in row) == list(range(128))


@pytest.mark.parametrize("max_segments", [None, 1, 2, 50])
def test_packed_rows_keep_their_limits(max_segments):
    plan = Packed(4, 64, max_segments).over(LENGTHS, 0)
    for step in range(30):
        layout = plan.layout(step)
        there = layout.texts >= 0
        assert layout.length == 64
        assert (np.where(there, LENGTHS[layout.texts], 0).sum(1) <= 64).all()
        # No place is left free before a text.
        assert (np.diff(there.astype(int), axis=1) <= 0).all()
        assert there.any(axis=1).all()
        if max_segments:
            assert layout.texts.shape == (4, max_segments)


def test_an_epoch_has_as_many_rows_as_best_fit_takes():
    # By hand: 6 with 2, 5 with 3, 4 with 4.
    assert Packed(1, 8).over(np.array([3, 4, 6, 2, 5, 4]), 0).num_rows == 3
    plan = PACKED.over(LENGTHS, 0)
    assert plan.num_rows == packing.place(LENGTHS, capacity=64).num_rows


@pytest.mark.parametrize("settings", [LADDER, PACKED])
def test_a_layout_depends_on_seed_and_step_alone(settings):
    plan = settings.over(LENGTHS, 5)
    forward = [plan.layout(step) for step in range(60)]
    for step in (59, 31, 0):
        # A plan that has seen nothing, as after a restart.
        again = settings.over(LENGTHS.copy(), 5).layout(step)
        np.testing.assert_array_equal(again.texts, forward[step].texts)
        assert again.length == forward[step].length
    other = settings.over(LENGTHS, 6)
    assert any((other.layout(s).texts != forward[s].texts).any() for s in range(3))


def test_texts_of_equal_length_change_rows_between_epochs():
    plan = Packed(1, 10).over(np.array([5] * 40), 0)
    first, second = (
        [sorted(row) for row in texts_of(plan, steps)]
        for steps in (range(20), range(20, 40))
    )
    for rows in (first, second):
        assert sorted(text for row in rows for text in row) == list(range(40))
    assert sorted(first) != sorted(second)


def test_the_order_of_rows_changes_between_epochs():
    plan = Packed(1, 64).over(np.arange(33, 64), 0)
    assert texts_of(plan, range(31)) != texts_of(plan, range(31, 62))


def test_steps_are_rounded_up():
    lengths = np.array([5] * 10)
    assert Ladder(4, (8,)).over(lengths, 0).steps(1.0) == 3
    assert Ladder(4, (8,)).over(lengths, 0).steps(2.0) == 5
    # Two texts in each of five rows.
    assert Packed(4, 10).over(lengths, 0).steps(1.0) == 2
    assert Packed(4, 10).over(lengths, 0).steps(4.0) == 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ladder(0, (8,)), "Ladder: batch_size is 0; it should be an integer"),
        (lambda: Ladder(2.5, (8,)), "Ladder: batch_size is 2.5; it should be an int"),
        (lambda: Ladder(2, ()), r"rungs is \(\); it should be ascending"),
        (lambda: Ladder(2, (8, 4)), r"rungs is \(8, 4\); it should be ascending"),
        (lambda: Ladder(2, (0, 4)), "a rung is 0; it should be an integer"),
        (lambda: Packed(-1, 8), "Packed: batch_size is -1; it should be an integer"),
        (lambda: Packed(1, 0), r"capacity is 0; it should be an integer in \[1, 65536"),
        (lambda: Packed(1, 8, 0), "max_segments is 0; it should be an integer"),
        (lambda: LADDER.over(np.array([3, 65]), 0), "a text has 65 tokens, but the la"),
        (lambda: PACKED.over(np.array([3, 65]), 0), "has 65 tokens; a row holds 1 to"),
        (lambda: LADDER.over(np.zeros(0, int), 0), "LadderPlan: there is no text"),
        (lambda: PACKED.over(np.zeros(0, int), 0), "PackedPlan: there is no text"),
        (lambda: PACKED.over(np.array([3, 0]), 0), "lengths holds 0; it should be in"),
        (lambda: PACKED.over(np.array([3.0]), 0), "lengths is float64; it should be"),
        (lambda: LADDER.over(LENGTHS, -1), "seed is -1; it should be an integer in"),
        (lambda: LADDER.over(LENGTHS, 0).layout(-1), "step is -1; it should be an int"),
        (lambda: PACKED.over(LENGTHS, 0).layout(-1), "step is -1; it should be an int"),
    ],
)
def test_bad_input_is_one_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()
