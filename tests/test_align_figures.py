# SPDX-License-Identifier: Apache-2.0
"""What the alignment study measures, and what it says of it."""

import dataclasses
import itertools

import numpy as np
import pytest

from experiments.align import arm, effects, measure, settings, tables
from experiments.toy_lm import texts
from fulcra_jax import targets, values

IDEAL = targets.parse_target("ideal")


def held_out(prompts=2, **fields):
    return settings.HeldOut(prompts=prompts, resamples=400, **fields)


def test_the_control_of_a_target_asks_for_other_values():
    control = targets.control_target(IDEAL)
    assert control.vector.tolist() == [1, 1, 1, 0, 1, 0, 1, 0, 0, 0]
    for name, named in targets.EXPLICIT.items():
        control = targets.control_target(named.vector)
        assert sorted(control.vector) == sorted(named.vector), name
        shared = (control.vector != 0) & (named.vector != 0)
        assert control.disjoint == (not shared.any()) == (named.kind == "binary")


def test_the_control_lies_across_the_circle():
    security = np.eye(10)[values.BASIC.index("Security")]
    control = targets.control_target(security).vector
    # Security stands at 200 degrees; Self-direction (0) and Stimulation (40) are both
    # 160 away.
    assert control.argmax() in (0, 1)


@pytest.mark.parametrize(
    ("target", "message"),
    [(np.ones(9), r"shape \(9,\)"), (np.zeros(10), "0 everywhere"),
     (np.full(10, np.nan), "all finite")],
)  # fmt: skip
def test_a_control_of_nothing_is_refused(target, message):
    with pytest.raises(ValueError, match=message):
        targets.control_target(target)


def test_quantities_of_answers_by_hand():
    v = np.zeros((3, 10))
    v[0, [3, 5, 7, 8, 9]] = 1.0  # all that is asked for
    v[1, [3, 5]] = [-1.0, 0.3]  # one opposed, one not there
    found = measure.quantities(v, IDEAL)
    assert found["toward"].tolist() == pytest.approx([1.0, -0.7 / 5, 0.0])
    assert found["no connection, targeted"].tolist() == pytest.approx([0.0, 0.8, 1.0])
    assert found["against, targeted"].tolist() == pytest.approx([0.0, 0.2, 0.0])
    assert found["L1"].tolist() == pytest.approx([0.0, 2.0 + 0.7 + 3.0, 5.0])
    assert found["released L1"].tolist() == pytest.approx([0.0, 2.0, 0.0])
    assert found["released reward"].tolist() == pytest.approx([0.0, -2.0, 0.0])
    assert found["reward"].tolist() == pytest.approx([0.0, -5.7, -5.0])
    assert found["AC"].tolist() == [1.0, -1.0, 0.0]


def test_toward_counts_what_should_be_opposed():
    target = np.zeros(10)
    target[:2] = 0.5, -1.0
    v = np.zeros((1, 10))
    v[0, :2] = 1.0, -1.0
    assert measure.quantities(v, target)["toward"].tolist() == pytest.approx([1.0])


def test_intervals_are_over_prompts_not_answers():
    # Four answers that say the same are one observation.
    by_prompt = np.array([0.0, 1.0, 0.0, 1.0])
    one = measure.means({"x": by_prompt}, held_out(4, answers=1))["x"]
    four = measure.means({"x": np.repeat(by_prompt, 4)}, held_out(4, answers=4))["x"]
    assert four == pytest.approx(one)
    assert four.low == 0.0
    assert four.high == 1.0


def test_differences_are_paired():
    before = np.array([0.0, 10.0, -5.0, 3.0])
    after = before + 0.25
    found = measure.differences({"x": after}, {"x": before}, held_out(4, answers=1))
    assert found["x"] == pytest.approx((0.25, 0.25, 0.25))


def test_texts_that_repeat_are_seen():
    said = ["a b c d", "a b c d", "e f g h", "e f g h"]
    assert measure.distinct_n(said, 2) == pytest.approx(0.5)
    assert measure.alike(said, 2) == 1.0
    assert measure.alike(["a b c", "x y z"], 2) == 0.0
    assert np.isnan(measure.distinct_n([], 2))


def mean(x):
    return measure.Mean(x, x - 0.01, x + 0.01)


def change_of(absent=0.0, reward=1.0, second=1.0, toward=0.3):
    return {
        "evaluator": {
            "no connection, targeted": mean(absent),
            "reward": mean(reward),
            "toward": mean(toward),
        },
        "second": {"reward": mean(second), "toward": mean(toward)},
    }


TEXT = {"distinct_2": 1.0, "tokens": 10, "empty": 0.0}


@pytest.mark.parametrize(
    ("change", "text", "word"),
    [
        ({"absent": 0.2}, {}, "value-free"),
        ({}, {"empty": 0.1}, "silence"),
        ({}, {"distinct_2": 0.79}, "collapse"),
        ({}, {"tokens": 21}, "length"),
        ({}, {"tokens": 4}, "length"),
        ({"second": 0.1}, {}, "evaluator"),
    ],
)
def test_an_alarm_goes_off_for_one_reason(change, text, word):
    assert effects.alarms(change_of(), TEXT, TEXT) == []
    (alarm,) = effects.alarms(change_of(**change), TEXT | text, TEXT)
    assert alarm.startswith(word)


def test_no_alarm_for_noise():
    # Nothing rose clearly, and the second evaluator is too unsure to contradict.
    small = change_of(reward=0.005, second=-0.01)
    assert effects.alarms(small, TEXT, TEXT) == []
    unsure = change_of(absent=0.0)
    unsure["second"]["reward"] = measure.Mean(0.1, -0.3, 0.9)
    unsure["evaluator"]["no connection, targeted"] = measure.Mean(0.25, -0.1, 0.6)
    assert effects.alarms(unsure, TEXT, TEXT) == []


@pytest.mark.parametrize(
    ("beyond", "moved", "disjoint", "says"),
    [
        (0.2, 0.3, True, "moved toward the target, beyond the control"),
        (0.2, 0.0, True, "did not clearly move"),  # only the control moved away
        (0.0, 0.3, True, "did not clearly move"),
        (0.2, 0.3, False, "no test"),
    ],
)
def test_a_verdict_needs_a_move_and_a_control(beyond, moved, disjoint, says):
    said = tables.beyond_control(
        "seed 0", {"evaluator": mean(beyond)}, {"evaluator": mean(moved)},
        disjoint=disjoint,
    )  # fmt: skip
    assert says in said


def test_the_second_evaluator_has_to_see_the_same():
    pair = lambda x, y: {"evaluator": mean(x), "second": mean(y)}
    sees = tables.beyond_control("s", pair(0.2, 0.2), pair(0.3, 0.3), disjoint=True)
    assert "sees the same" in sees
    not_ = tables.beyond_control("s", pair(0.2, 0.2), pair(0.3, 0.0), disjoint=True)
    assert "does not clearly see it" in not_


def test_small_entries_of_a_graded_target_do_not_count_as_asked_for():
    uk = targets.parse_target("uk")
    on_target = measure.quantities(uk[None] / np.abs(uk).max(), uk)
    assert on_target["no connection, targeted"].tolist() == [0.0]
    assert measure.targeted(IDEAL).tolist() == (IDEAL > 0).tolist()


def test_best_of_n_picks_by_the_reward_and_shows_both_evaluators():
    rng = np.random.default_rng(0)
    pool = rng.uniform(-1, 1, (6 * 8, 10))
    second = rng.uniform(-1, 1, pool.shape)
    bound = np.log(4) - 3 / 4
    drawn = effects.quantities({"evaluator": pool, "second": second}, IDEAL)
    found = effects.best_of_n(drawn, bound - 1e-3, held_out(6, best_of=8))
    assert found["n"] == 4
    assert found["equal_kl"]
    assert found["kl_bound"] == pytest.approx(bound)
    reward = measure.quantities(pool, IDEAL)["reward"].reshape(6, 8)
    toward = measure.quantities(second, IDEAL)["toward"].reshape(6, 8)
    best = [
        (row, max(four, key=lambda place, row=row: reward[row, place]))
        for row in range(6)
        for four in itertools.combinations(range(8), 4)
    ]
    mean = lambda x: np.mean([x[place] for place in best])
    assert found["evaluator"]["reward"].mean == pytest.approx(mean(reward))
    assert found["second"]["toward"].mean == pytest.approx(mean(toward))
    # Beyond what the pool allows both KLs are shown, with all it has.
    far = effects.best_of_n(drawn, 2.0, held_out(6, best_of=8))
    assert not far["equal_kl"]
    assert far["n"] == 8
    assert far["evaluator"]["reward"].mean == pytest.approx(reward.max(1).mean())


def test_prompts_of_steps_are_permutations_cut_into_steps():
    training = settings.Training(prompts=3, prompt_pool=7)
    seen = np.concatenate([arm.prompts_of_step(i, 5, training) for i in range(7)])
    for first in range(0, 21, 7):
        assert sorted(seen[first : first + 7]) == list(range(7))
    again = arm.prompts_of_step(4, 5, training)
    np.testing.assert_array_equal(again, seen[12:15])
    assert not np.array_equal(seen[:7], seen[7:14])


def test_dense_answers_speak_of_more_values():
    pairs = texts.dense_dialogues(0, 50, "train")
    assert pairs[:20] == texts.dense_dialogues(0, 20, "train")
    plain = [response for _, response in texts.dialogues(0, 50, "train")]
    words = lambda said: np.mean([len(text.split()) for text in said])
    assert words([response for _, response in pairs]) > 1.2 * words(plain)


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match="response is 0; it should be a whole"):
        texts.Lengths(response=0)
    with pytest.raises(ValueError, match=r"prompts is 100000; expected .* 10000\]"):
        settings.HeldOut(prompts=100_000)
    with pytest.raises(ValueError, match=r"answers is 1; expected a number in \[2"):
        settings.Training(answers=1)
    with pytest.raises(ValueError, match="prompt_pool is 4; expected at least"):
        settings.Training(prompts=8, prompt_pool=4)
    with pytest.raises(ValueError, match="none twice"):
        settings.Study(seeds=(1, 1))
    with pytest.raises(ValueError, match="learning_rate is nan"):
        dataclasses.replace(settings.Training(), learning_rate=float("nan"))
