# SPDX-License-Identifier: Apache-2.0
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

module = importlib.import_module("fulcra_jax.scoring.alt_test")
alt_test = jax.jit(module.alt_test, static_argnames=("epsilon", "alpha", "scoring"))


def slow(llm, humans, where, llm_where, epsilon, scoring, alpha=0.05):
    """The test in loops, with scipy's t-test and the false discovery rate by hand."""
    p_values, wins = {}, []
    for j in range(len(humans)):
        differences, won = [], []
        for i in range(len(llm)):
            others = [
                humans[k, i] for k in range(len(humans)) if k != j and where[k, i]
            ]
            if not others or not where[j, i] or not llm_where[i]:
                continue
            if scoring == "agreement":
                fit = lambda x, others=others: sum(x == o for o in others) / len(others)
            else:
                fit = lambda x, others=others: (
                    -np.sqrt(np.mean([(x - o) ** 2 for o in others]))
                )
            mine, theirs = fit(llm[i]), fit(humans[j, i])
            differences.append((theirs >= mine) * 1.0 - (mine >= theirs) * 1.0)
            won.append(mine >= theirs)
        if len(differences) >= 2:
            test = stats.ttest_1samp(differences, epsilon, alternative="less")
            p_values[j] = test.pvalue
            wins.append(np.mean(won))
    m = len(p_values)
    harmonic = sum(1.0 / i for i in range(1, m + 1))
    ranked = sorted(p_values, key=p_values.get)
    passed = [
        i for i, j in enumerate(ranked, 1) if p_values[j] <= i * alpha / (m * harmonic)
    ]
    rejected = ranked[: max(passed, default=0)]
    return p_values, rejected, np.mean(wins)


def answers(seed, scoring="agreement", humans=5, items=80, accuracy=0.8):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, items)

    def noisy(accuracy):
        return np.where(rng.random(items) < accuracy, truth, rng.integers(0, 3, items))

    people = np.stack([noisy(a) for a in np.linspace(0.5, 0.9, humans)])
    where = rng.random(people.shape) < 0.75
    if scoring == "rmse":
        # Quarters: sums of their squares are exact, and so are ties.
        people = people + np.round(2 * rng.normal(size=people.shape)) / 4
    return noisy(accuracy), people, where, rng.random(items) < 0.9


@pytest.mark.parametrize("scoring", ["agreement", "rmse"])
@pytest.mark.parametrize(("seed", "epsilon"), [(0, 0.2), (1, 0.1), (2, 0.15), (3, 0.0)])
def test_equals_the_loops(seed, epsilon, scoring):
    data = answers(seed, scoring, accuracy=0.7)
    p_values, rejected, advantage = slow(*data, epsilon, scoring)
    llm, humans, where, llm_where = map(jnp.asarray, data)
    result = alt_test(
        llm, humans, where=where, llm_where=llm_where, epsilon=epsilon, scoring=scoring
    )
    np.testing.assert_allclose(result.p_values, list(p_values.values()), rtol=2e-4)
    assert np.flatnonzero(result.rejected).tolist() == sorted(rejected)
    assert result.winning_rate == pytest.approx(len(rejected) / len(p_values))
    assert result.advantage_probability == pytest.approx(advantage, rel=1e-5)
    assert bool(result.passes) == (len(rejected) / len(p_values) >= 0.5)


def test_the_cases_reject_some_and_not_all():
    """Otherwise the comparison above would be of constants."""
    rates = [
        len(slow(*answers(s, accuracy=0.7), e, "agreement")[1])
        for s, e in [(0, 0.2), (1, 0.1), (2, 0.15), (3, 0.0)]
    ]
    assert len(set(rates)) > 1


def test_by_hand():
    """Three humans, four items; only human 2 ever differs from the LLM.

    Against human 0 the others are 1 and 2: the LLM equals him everywhere, d = 0. So for
    human 1. Human 2 misses the others on item 0, where the LLM has both: d = -1, 0, 0,
    0, mean -.25, standard deviation .5, t = (-.25 - .2) / (.5 / 2) = -1.8 with 3 df.
    P = 1/2 - (a / (1 + a^2) + atan(a)) / pi, a = 1.8 / sqrt(3).
    """
    llm = jnp.array([0, 1, 2, 1])
    humans = jnp.array([[0, 1, 2, 1], [0, 1, 2, 1], [2, 1, 2, 1]])
    result = alt_test(llm, humans)
    np.testing.assert_allclose(result.p_values, [0.0, 0.0, 0.08484], atol=1e-5)
    assert result.rejected.tolist() == [True, True, False]
    assert result.items.tolist() == [4.0, 4.0, 4.0]
    assert result.winning_rate == pytest.approx(2 / 3)
    assert result.advantage_probability == 1.0
    assert result.passes


def test_an_item_without_another_human_does_not_count():
    llm = jnp.array([0, 1, 2, 1, 0])
    humans = jnp.array([[0, 1, 2, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]])
    where = jnp.array([[1, 1, 1, 1, 0], [1, 1, 1, 0, 1], [1, 0, 0, 0, 0]], bool)
    result = alt_test(llm, humans, where=where)
    # Item 3 was labelled by human 0 alone, item 4 by human 1 alone.
    assert result.items.tolist() == [3.0, 3.0, 1.0]
    # One item is no test, and he is no part of the rate.
    assert jnp.isnan(result.p_values[2])
    assert not result.rejected[2]
    both = alt_test(llm, humans[:2], where=where[:2])
    assert result.winning_rate == both.winning_rate


def test_nobody_to_test_is_nan():
    result = alt_test(
        jnp.array([0, 1]), jnp.zeros((3, 2), int), where=jnp.zeros((3, 2), bool)
    )
    assert np.isnan([result.winning_rate, result.advantage_probability]).all()
    assert not result.passes


def test_benjamini_yekutieli_by_hand():
    """m = 4, c = 25/12, steps alpha i / (m c) = .006 i: .015 passes only as third."""
    p = jnp.array([0.015, 0.001, 0.9, 0.0125, jnp.nan])
    rejected = module._benjamini_yekutieli(p, ~jnp.isnan(p), 0.05)
    assert rejected.tolist() == [True, True, False, True, False]
    p = jnp.array([0.02, 0.001, 0.9, 0.013, jnp.nan])
    rejected = module._benjamini_yekutieli(p, ~jnp.isnan(p), 0.05)
    assert rejected.tolist() == [False, True, False, False, False]


def test_refuses_what_does_not_fit():
    llm, humans = jnp.zeros(4, int), jnp.zeros((3, 4), int)
    with pytest.raises(ValueError, match=r"humans has shape \(3, 5\), so N=5, but llm"):
        module.alt_test(llm, jnp.zeros((3, 5), int))
    with pytest.raises(KeyError, match="scoring 'f1' is unknown; known are: agreement"):
        module.alt_test(llm, humans, scoring="f1")
    with pytest.raises(ValueError, match="alpha is 5; expected 0 < alpha < 1"):
        module.alt_test(llm, humans, alpha=5)


def test_a_difference_within_rounding_is_a_tie():
    """The other human says 1.0; 1.3 and 0.7 are as far, but not in binary."""
    humans = jnp.stack([jnp.full(5, 0.7), jnp.full(5, 1.0)])
    result = alt_test(jnp.full(5, 1.3), humans, scoring="rmse")
    # Human 0: d = 0 throughout. Human 1 against 0.7: .3 is nearer than .6.
    assert result.p_values.tolist() == [0.0, 1.0]


def test_nan_is_no_answer():
    llm = jnp.tile(jnp.array([0.0, 1.0, 2.0]), 20)
    humans = jnp.stack([llm, llm, jnp.roll(llm, 1)])
    where = jnp.arange(60)[None] > jnp.array([[9], [-1], [19]])
    masked = alt_test(llm, humans, where=where)
    spoiled = alt_test(llm, jnp.where(where, humans, jnp.nan))
    np.testing.assert_array_equal(spoiled.items, masked.items)
    np.testing.assert_allclose(spoiled.p_values, masked.p_values)


def test_epsilon_is_a_share():
    with pytest.raises(ValueError, match="epsilon is 20; expected 0 <= epsilon < 1"):
        module.alt_test(jnp.zeros(5, int), jnp.zeros((3, 5), int), epsilon=20)


def test_without_humans_nobody_is_tested():
    found = alt_test(jnp.zeros(3, int), jnp.zeros((0, 3), int))
    assert np.isnan(found.winning_rate)
    assert np.isnan(found.advantage_probability)
    assert not found.passes
    assert [x.shape for x in found[3:]] == [(0,)] * 3
