# SPDX-License-Identifier: Apache-2.0
"""What a check says of a target."""

import itertools

import numpy as np
import pytest

from fulcra_jax import targets, values
from fulcra_jax.targets.check import OPPOSE_RATES, POLE_FIT, SUPPORT_RATES

RNG = np.random.default_rng(3)


def vector(**entries):
    t = np.zeros(10)
    for name, entry in entries.items():
        t[values.ABBREVIATIONS.index(name)] = entry
    return t


def share_that_silence_beats(t):
    """All 3^10 ternary answers, one by one."""
    answers = np.array(list(itertools.product((-1, 0, 1), repeat=10)))
    rates = np.stack([OPPOSE_RATES, 1 - OPPOSE_RATES - SUPPORT_RATES, SUPPORT_RATES])
    probability = rates[answers + 1, np.arange(10)].prod(1)
    probability[~answers.any(1)] = 0.0
    costs = np.abs(answers - t).sum(1) - np.abs(t).sum()
    return probability[costs > 1e-9].sum() / probability.sum()


@pytest.mark.parametrize("name", ["ideal", "harmless", "uk", "self-transcendence"])
def test_silence_is_counted_over_all_ternary_answers(name):
    t = targets.EXPLICIT[name].vector
    found = targets.check_target(t).silence_wins
    assert found == pytest.approx(share_that_silence_beats(t), abs=1e-9)


def test_the_label_rates_are_those_of_the_release():
    # 1.97 non-zero types a sample.
    assert (SUPPORT_RATES + OPPOSE_RATES).sum() == pytest.approx(1.97, abs=0.01)


def test_showing_a_value_pays_only_above_one_half():
    assert targets.check_target(np.full(10, 0.5)).silence_always_wins
    assert targets.check_target(np.full(10, -0.5)).silence_always_wins
    found = targets.check_target(np.full(10, 0.4))
    assert found.silence_wins == pytest.approx(1.0)
    assert "silence beats every answer" in str(found)
    assert not targets.check_target(vector(BE=0.51)).silence_always_wins
    assert targets.check_target(np.ones(10)).silence_wins < 0.2


def test_entries_are_sorted_by_what_becomes_of_them():
    found = targets.check_target(vector(SD=1.2, ST=0.3, HE=-0.3, AC=0.31, UN=-1.0))
    assert found.out_of_range == ("SD",)
    assert found.quiet == ("ST", "HE")
    assert found.zeros == ("PO", "SE", "TR", "CO", "BE")
    wider = targets.check_target(vector(SD=1.2, ST=0.3, AC=0.31), threshold=0.32)
    assert wider.quiet == ("ST", "AC")


@pytest.mark.parametrize(
    ("pair", "opposed"),
    [
        (("PO", "UN"), True),
        (("AC", "BE"), True),
        (("SD", "SE"), True),
        (("ST", "CO"), True),
        (("ST", "TR"), True),
        (("BE", "UN"), False),
        (("TR", "CO"), False),
        (("UN", "SD"), False),
    ],
)
def test_values_across_the_circle_oppose_each_other(pair, opposed):
    t = vector(**{pair[0]: 0.7, pair[1]: 0.4})
    assert len(targets.check_target(t).tensions) == int(opposed)
    one_rejected = vector(**{pair[0]: 0.7, pair[1]: -0.4})
    assert targets.check_target(one_rejected).tensions == ()


def test_the_strongest_tension_comes_first_and_the_angle_is_a_choice():
    t = vector(AC=0.9, BE=0.9, SD=0.2, SE=0.9)
    assert targets.check_target(t).tensions == (("AC", "BE"), ("SD", "SE"))
    close = targets.check_target(vector(PO=0.5, BE=0.5))
    assert close.tensions == ()
    wide = targets.check_target(vector(PO=0.5, BE=0.5), opposite_degrees=120.0)
    assert wide.tensions == (("PO", "BE"),)


def test_a_cosine_over_the_circle_is_found_again():
    t = 0.1 + 0.6 * np.cos(values.ring_angles() - 2.0)
    level, amplitude, angle, r_squared = targets.check_target(t).circle
    assert level == pytest.approx(0.1)
    assert amplitude == pytest.approx(0.6)
    assert angle == pytest.approx(2.0)
    assert r_squared == pytest.approx(1.0)


def test_every_pole_fits_the_circle_and_opposites_do_not():
    for name in values.HIGHER_ORDER:
        pole = targets.EXPLICIT[name.lower()].vector
        assert targets.check_target(pole).circle.r_squared >= POLE_FIT
    apart = targets.check_target(vector(PO=1.0, UN=1.0))
    assert apart.circle.r_squared < 0.1
    assert "its values lie apart" in str(apart)


def test_poles_point_at_their_own_values():
    for name in values.HIGHER_ORDER:
        pole = targets.EXPLICIT[name.lower()].vector
        angle = targets.check_target(pole).circle.angle
        along = np.cos(values.ring_angles() - angle)
        assert pole[along.argmax()] == 1.0


def test_a_zero_or_constant_target_has_no_direction():
    zero = targets.check_target(np.zeros(10))
    assert zero.sentences == (
        "It is zero everywhere: no answer is better than another.",
    )
    assert np.isnan(zero.circle.r_squared)
    flat = targets.check_target(np.ones(10))
    assert np.isnan(flat.circle.r_squared)
    assert "circle none" in flat.summary()


def test_only_a_target_with_ones_has_the_released_distances():
    assert "e and h" in str(targets.check_target(targets.EXPLICIT["uk"].vector))
    assert "e and h" not in str(targets.check_target(targets.EXPLICIT["ideal"].vector))


def test_a_check_reads_arrays_of_any_precision():
    single = targets.check_target(targets.target("france"))
    double = targets.check_target(targets.EXPLICIT["france"].vector)
    assert single.summary() == double.summary()


@pytest.mark.parametrize("bad", [np.zeros(9), np.zeros((1, 10)), vector(BE=np.nan)])
def test_a_target_has_ten_finite_numbers(bad):
    with pytest.raises(ValueError, match="expected ten finite numbers"):
        targets.check_target(bad)
