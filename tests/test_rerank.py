# SPDX-License-Identifier: Apache-2.0
import itertools

import jax.numpy as jnp
import numpy as np
import official_scores
import pytest

from fulcra_jax import alignment, objectives, targets

# One value, target 1: the reward of a score in [0, 1] is score - 1.
ONE = np.array([1.0])


def scores_of(*numbers):
    return np.array(numbers, np.float32)[:, None]


def subsets(rewards, n):
    """All draws of n: the oracle."""
    return list(itertools.combinations(range(len(rewards)), n))


def test_answers_are_grouped_in_their_order():
    groups = alignment.group_by_prompt(["b", "a", "b", "a", "b", "a "])
    assert groups.prompts == ["b", "a", "a "]
    kept = [row[w].tolist() for row, w in zip(groups.places, groups.where, strict=True)]
    assert kept == [[0, 2, 4], [1, 3], [5]]
    spread = groups.spread(np.arange(6.0))
    np.testing.assert_array_equal(
        spread, [[0, 2, 4], [1, 3, np.nan], [5, np.nan, np.nan]]
    )
    assert alignment.group_by_prompt([]).places.shape == (0, 0)


def test_the_best_answer_of_each_prompt_by_hand():
    found = alignment.rerank(
        ["a", "b", "a", "a", "c"], scores_of(0.25, 0.5, 0.75, 0.5, 1.0), ONE
    )
    assert found.prompts == ["a", "b", "c"]
    np.testing.assert_array_equal(found.best, [2, 1, 4])
    np.testing.assert_allclose(found.rewards, [-0.25, -0.5, 0.0])
    np.testing.assert_allclose(found.mean_rewards, [-0.5, -0.5, 0.0])
    np.testing.assert_allclose(found.first_rewards, [-0.75, -0.5, 0.0])
    np.testing.assert_array_equal(found.candidates, [3, 1, 1])
    assert found.unscored == 0


def test_nan_never_wins_and_of_equals_the_first_does():
    found = alignment.rerank(
        ["a", "a", "a", "b", "c", "c"],
        scores_of(np.nan, 0.5, 0.5, np.nan, 0.0, np.nan),
        ONE,
    )
    np.testing.assert_array_equal(found.best, [1, -1, 4])
    np.testing.assert_array_equal(found.rewards, [-0.5, np.nan, -1.0])
    np.testing.assert_array_equal(found.first_rewards, [-0.5, np.nan, -1.0])
    np.testing.assert_array_equal(found.candidates, [2, 0, 1])
    assert found.unscored == 3


def test_under_the_released_gate_silence_wins():
    scores = np.array([[0.0, 0.0], [0.9, 0.0]])
    target = np.array([1.0, 0.0])
    words = (["a", "a"], scores, target)
    assert alignment.rerank(*words).best.item() == 1
    assert alignment.rerank(*words, gate="official").best.item() == 0


def test_a_draw_of_n_is_fixed_by_its_seed_and_leaves_failures_out():
    scores = scores_of(*np.linspace(0.0, 1.0, 8), np.nan)
    prompts = ["a"] * 9
    picks = [
        alignment.rerank(prompts, scores, ONE, n=2, seed=seed) for seed in range(200)
    ]
    again = alignment.rerank(prompts, scores, ONE, n=2, seed=7)
    assert again.best.item() == picks[7].best.item()
    assert {pick.candidates.item() for pick in picks} == {2}
    # The mean over seeds is the expectation; its standard error is .016.
    table = alignment.best_of_n_table(prompts, scores, ONE, ns=[2])
    mean = np.mean([pick.rewards.item() for pick in picks])
    np.testing.assert_allclose(mean, table[0].reward, atol=0.05)
    # More than there are takes all.
    everything = alignment.rerank(prompts, scores, ONE, n=100)
    assert (everything.best.item(), everything.candidates.item()) == (7, 8)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_selection_probs_are_those_of_all_draws(n):
    rewards = np.array([[0.0, -1.0, 0.5, 0.25, -2.0], [1.0, 1.0, 0.0, 1.0, 0.0]])
    expected = np.zeros_like(rewards)
    for row, x in enumerate(rewards):
        draws = subsets(x, n)
        for draw in draws:
            winners = [i for i in draw if x[i] == max(x[j] for j in draw)]
            for i in winners:  # equals share
                expected[row, i] += 1.0 / len(winners) / len(draws)
    found = alignment.selection_probs(rewards, n)
    np.testing.assert_allclose(found.sum(1), 1.0)
    best = objectives.expected_best_of_n(jnp.asarray(rewards), n)
    np.testing.assert_allclose((found * rewards).sum(1), best, atol=1e-6)
    # Over all draws, equals share by symmetry what the draws give them one by one.
    np.testing.assert_allclose(found[0], expected[0])
    tied = rewards[1] == 1.0
    np.testing.assert_allclose(found[1, tied].sum(), expected[1, tied].sum())
    np.testing.assert_allclose(found[1, tied], found[1, tied][0])


def test_selection_probs_leave_out_what_is_not_there():
    found = alignment.selection_probs(np.array([[np.nan, 1.0, 0.0]]), 3)
    np.testing.assert_array_equal(found, 0.0)
    found = alignment.selection_probs(np.array([[np.nan, 1.0, 0.0]]), 2)
    np.testing.assert_array_equal(found, [[0.0, 1.0, 0.0]])
    many = np.arange(2000.0)[None]
    np.testing.assert_allclose(alignment.selection_probs(many, 1000).sum(), 1.0)


def test_the_table_is_the_mean_over_all_draws_of_all_prompts():
    rng = np.random.default_rng(0)
    prompts = ["a"] * 5 + ["b"] * 3 + ["c"]
    scores = rng.uniform(-1.0, 1.0, (9, 10))
    target = np.asarray(targets.target("ideal"))
    rewards = np.asarray(
        objectives.baselign_reward(jnp.asarray(scores), jnp.asarray(target))
    )
    table = alignment.best_of_n_table(prompts, scores, target)
    assert [row.n for row in table] == [1, 2, 4, 5]
    assert [row.prompts for row in table] == [3, 2, 1, 1]
    for row in table:
        best, one, moved = [], [], []
        for places in (range(5), range(5, 8), range(8, 9)):
            if len(places) < row.n:
                continue
            winners = [
                max(draw, key=lambda i: rewards[i])
                for draw in itertools.combinations(places, row.n)
            ]
            best.append(np.mean(rewards[winners]))
            one.append(np.mean(rewards[list(places)]))
            moved.append(scores[winners].mean(0) - scores[list(places)].mean(0))
        gains = np.subtract(best, one)
        np.testing.assert_allclose(row.reward, np.mean(best), rtol=1e-5)
        np.testing.assert_allclose(row.gain, gains.mean(), atol=1e-6)
        np.testing.assert_allclose(row.change, np.mean(moved, 0), atol=1e-6)
        if row.n == 2:
            np.testing.assert_allclose(
                row.standard_error, gains.std(ddof=1) / np.sqrt(2), atol=1e-6
            )
    np.testing.assert_allclose(table[1].kl_bound, np.log(2) - 0.5, rtol=1e-6)
    assert np.isnan(table[-1].standard_error)
    assert table[0].gain == 0.0
    assert not table[0].change.any()


def test_an_n_that_no_prompt_has_is_undefined():
    (row,) = alignment.best_of_n_table(["a"], scores_of(0.5), ONE, ns=[2])
    assert row.prompts == 0
    assert np.isnan([row.reward, row.gain, row.standard_error, *row.change]).all()
    # A failed answer is no answer.
    table = alignment.best_of_n_table(["a", "a"], scores_of(0.5, np.nan), ONE)
    assert [(row.n, row.prompts, row.reward) for row in table] == [(1, 1, -0.5)]
    assert alignment.best_of_n_table(["a"], scores_of(np.nan), ONE) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: alignment.rerank(["a"], scores_of(0.5), ONE, n=0), "n is 0"),
        (
            lambda: alignment.rerank(["a"], scores_of(0, 1), ONE),
            "1 prompts, but scores",
        ),
        (lambda: alignment.rerank([], np.zeros((0, 1)), ONE), "there is no answer"),
        (lambda: alignment.rerank("ab", scores_of(0, 1), ONE), "is one text"),
        (lambda: alignment.rerank(["a"], scores_of(0), np.ones(2)), "V=2, but"),
        (
            lambda: alignment.best_of_n_table(["a"], scores_of(0), ONE, ns=[2, 0]),
            "ns holds 0",
        ),
        (lambda: alignment.selection_probs(np.zeros(3), 1), r"shape \(3,\)"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_unknown_gate_is_named():
    with pytest.raises(KeyError, match="gate 'open' is unknown"):
        alignment.rerank(["a"], scores_of(0.5), ONE, gate="open")


@official_scores.needed
def test_three_released_models_together_beat_each_of_them():
    answers = official_scores.read("train", "dev")
    target = np.asarray(targets.target("ideal"))
    table = alignment.best_of_n_table(answers.prompts, answers.scores, target)
    found = alignment.rerank(answers.prompts, answers.scores, target)
    assert [row.prompts for row in table] == [1032] * 3
    np.testing.assert_allclose(found.rewards.mean(), table[-1].reward, rtol=1e-5)
    rewards = np.asarray(
        objectives.baselign_reward(jnp.asarray(answers.scores), jnp.asarray(target))
    ).reshape(3, -1)
    assert table[-1].reward > rewards.mean(1).max()
    np.testing.assert_allclose(table[0].reward, rewards.mean(), rtol=1e-5)
    np.testing.assert_allclose(table[-1].gain, 0.541, atol=0.001)
