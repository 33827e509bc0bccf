# SPDX-License-Identifier: Apache-2.0
"""The reward of value vectors, its loophole closed on real answers; TRL's moments."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fulcra_jax import values
from fulcra_jax.objectives import moments, reward

OFFICIAL = pathlib.Path(__file__).parents[2] / "shared" / "data" / "fulcra"
GOLDEN = np.load(pathlib.Path(__file__).parent / "goldens" / "reward.npz")
CASES = ["usual", "holes", "far", "small"]
GATES = ("none", "target", "official")


def pole(k):
    """1 for the values of a higher-order pole; Hedonism belongs to two."""
    return values.basic_to_higher_order()[:, k].astype(float)


TARGETS = {
    "ideal": [0, 0, 0, 1, 0, 1, 0, 1, 1, 1],
    "harmless": [0, 0, 0, 0, 0, 1, 0, 1, 0, 0],
    "evaluation": [0, 0, 0, 0, 0, 1, 0, 1, 1, 1],
    "UK": [
        0.4809, 0.1305, 0.1004, 0.0029, -0.2383, 0.4362, 0.2712, 0.1420, 0.6520, 0.5906,
    ],
    "Netherlands": [
        0.5190, 0.1148, 0.3016, 0.1311, -0.1124, 0.3389, 0.2165, 0.2578, 0.5661, 0.5243,
    ],
    "France": [
        0.3761, -0.0296, 0.3384, -0.1741, -0.3195, 0.4078, 0.2587, 0.0698, 0.6212,
        0.5705,
    ],
} | {name: pole(k) for k, name in enumerate(values.HIGHER_ORDER)}  # fmt: skip
TARGETS = {name: np.asarray(t, float) for name, t in TARGETS.items()}
LOST_TO_SILENCE = {  # plain L1; measured once, on 543 answers
    "UK": 0.96,
    "Netherlands": 0.96,
    "France": 0.97,
    "harmless": 0.74,
    "Self-transcendence": 0.97,
}
every_target = pytest.mark.parametrize("name", list(TARGETS))
every_gate = pytest.mark.parametrize("gate", GATES)


@functools.cache
def dev_scores():
    paths = sorted(OFFICIAL.glob("official_scores.*.dev.jsonl"))
    if len(paths) != 3:
        pytest.skip(f"missing: {OFFICIAL}/official_scores.*.dev.jsonl")
    lines = [line for path in paths for line in path.read_bytes().splitlines()]
    return np.array([json.loads(line)["value_reward"] for line in lines], np.float32)


def draws(seed, n=300):
    """Scores, and targets from 1e-30 to 1 in size with a third of zeros, none empty."""
    rng = np.random.default_rng(seed)
    target = rng.uniform(-1.0, 1.0, (n, 10)) * (rng.random((n, 10)) < 0.67)
    target[np.arange(n), rng.integers(0, 10, n)] = 0.5
    target *= 10.0 ** rng.integers(-30, 1, (n, 1))
    target[::2] /= np.abs(target[::2]).max(-1, keepdims=True)
    return rng.uniform(-1.0, 1.0, (n, 10)).astype(np.float32), target.astype(np.float32)


def share_lost(score, target, call):
    """The share of answers that an answer without any value beats."""
    found = call(jnp.asarray(score), jnp.asarray(target))
    silent = call(jnp.zeros(10), jnp.asarray(target))
    return np.mean(np.asarray(found) < np.asarray(silent))


@every_target
def test_silence_does_not_beat_real_answers(name):
    """`pytest -s` prints the table that the choice of the default rests on."""
    score, target = dev_scores(), TARGETS[name].astype(np.float32)
    assert len(score) == 543
    plain = share_lost(
        score, target, lambda v, t: -np.abs(np.asarray(v) - np.asarray(t)).sum(-1)
    )
    gated = share_lost(
        score, target, functools.partial(reward.baselign_reward, gate="target")
    )
    default = share_lost(score, target, reward.baselign_reward)
    official = share_lost(
        score, target, functools.partial(reward.baselign_reward, gate="official")
    )
    print(
        f"{name:20} L1 {plain:.2f} target {gated:.2f} official {official:.2f} "
        f"default {default:.2f}"
    )
    assert default < 0.06
    if name in LOST_TO_SILENCE:
        assert abs(plain - LOST_TO_SILENCE[name]) < 0.006


@every_target
def test_the_official_reward_is_best_for_silence_and_the_default_is_not(name):
    target = jnp.asarray(TARGETS[name], jnp.float32)
    silent, met = jnp.zeros(10), target / jnp.abs(target).max()
    official = functools.partial(reward.baselign_reward, target=target, gate="official")
    default = functools.partial(reward.baselign_reward, target=target)
    some = jnp.asarray(draws(0)[0])
    assert official(silent) == 0.0
    assert (official(some) <= 0.0).all()
    assert default(silent) < default(target) <= default(met) == 0.0


def test_the_default_prefers_the_target_to_silence_for_every_target():
    _, target = map(jnp.asarray, draws(1))
    silent, same, met = (
        reward.baselign_reward(v, target)
        for v in (
            jnp.zeros_like(target),
            target,
            target / jnp.abs(target).max(-1, keepdims=True),
        )
    )
    assert (silent <= -1.0).all()
    # A target of size 1e-30 is not told from 0 in float32, but the profile it means is.
    sizeable = np.abs(np.asarray(target)).max(-1) > 1e-6
    assert sizeable.mean() > 0.5
    assert (same > silent)[sizeable].all()
    np.testing.assert_allclose(met, 0.0, atol=1e-6)


def test_no_step_of_one_value_towards_the_target_costs():
    score, target = draws(2)
    goal = target / np.abs(target).max(-1, keepdims=True)
    rng, row = np.random.default_rng(3), np.arange(len(score))
    for share in (rng.random(len(score)), 1.0):
        k = rng.integers(0, 10, len(score))
        nearer = score.copy()
        nearer[row, k] += share * (goal - score)[row, k]
        before, after = (
            reward.baselign_reward(jnp.asarray(x), jnp.asarray(target))
            for x in (score, nearer)
        )
        assert (after >= before - 1e-6).all()


def test_the_default_has_no_jump():
    """Lipschitz: no step of .001 in one value moves the reward by more than .0015."""
    way = np.linspace(-1.0, 1.0, 2001)[:, None]
    for t in (1.0, 0.4, -0.7):
        found = reward.baselign_reward(
            jnp.asarray(way, jnp.float32), jnp.asarray([t]), scale="none"
        )
        assert np.abs(np.diff(found)).max() < 0.0015
        right = np.asarray(way[:, 0] * np.sign(t))
        assert (np.asarray(found)[(right <= 0) & (right > -0.3)] == found[1000]).all()
        worst = -abs(t) * (1 + abs(t))
        np.testing.assert_allclose(np.asarray(found).min(), worst, atol=1e-6)


def test_the_default_by_hand():
    """t' = (1, -.5, 0): met by half, wrong beyond the threshold, not targeted."""
    score, target = jnp.array([0.5, 0.65, 1.0]), jnp.array([0.8, -0.4, 0.0])
    found = reward.reward_per_value(score, target)
    np.testing.assert_allclose(found, [-0.5, -0.5 * (0.5 + 0.5), 0.0], atol=1e-6)
    found = reward.reward_per_value(score, target, scale="none")
    np.testing.assert_allclose(found, [-0.8 * 0.3, -0.4 * 0.9, 0.0], atol=1e-6)
    found = reward.reward_per_value(score, target, gate="target")
    np.testing.assert_allclose(found, [-0.5, -1.15, 0.0], atol=1e-6)


@every_target
def test_official_is_the_released_formula(name):
    t, v = TARGETS[name], draws(4)[0].astype(float)
    expected = -(np.abs(v - t) * (np.abs(v) > 0.3) * np.abs(t)).sum(-1)
    with jax.enable_x64(True):
        found = reward.baselign_reward(jnp.asarray(v), jnp.asarray(t), gate="official")
    np.testing.assert_allclose(found, expected, rtol=1e-14)


@every_gate
def test_the_values_sum_to_the_reward(gate):
    score, target = map(jnp.asarray, draws(5))
    parts = reward.reward_per_value(score, target, gate=gate)
    whole = reward.baselign_reward(score, target, gate=gate)
    assert (parts <= 0.0).all()
    np.testing.assert_allclose(parts.sum(-1), whole, rtol=1e-6)


@every_gate
def test_the_worst_reward_is_reached_and_never_passed(gate):
    score, target = draws(6)
    worst = reward.worst_reward(jnp.asarray(target), gate=gate)
    found = reward.baselign_reward(jnp.asarray(score), jnp.asarray(target), gate=gate)
    corner = reward.baselign_reward(
        jnp.asarray(-np.sign(target)), jnp.asarray(target), gate=gate
    )
    assert (found >= worst - 1e-6).all()
    np.testing.assert_allclose(corner, worst, rtol=1e-6)


@every_gate
def test_a_zero_target_and_nothing_that_counts_are_0(gate):
    score, zero = jnp.asarray(draws(7)[0]), jnp.zeros(10)
    call = functools.partial(reward.baselign_reward, gate=gate)
    assert (call(score, zero) == 0.0).all()
    nothing = call(score * jnp.nan, zero + 1.0, where=jnp.zeros(score.shape, bool))
    assert (nothing == 0.0).all()


def test_a_masked_value_does_not_set_the_scale():
    where = jnp.array([True, True, False])
    found = reward.baselign_reward(
        jnp.array([0.1, 0.0, jnp.inf]), jnp.array([0.25, 0.5, 1.0]), where=where
    )
    short = reward.baselign_reward(jnp.array([0.1, 0.0]), jnp.array([0.25, 0.5]))
    assert float(found) == float(short)


def test_relative_reward_is_a_difference():
    score, target = map(jnp.asarray, draws(8))
    reference = score[::-1]
    found = reward.relative_reward(score, reference, target)
    expected = reward.baselign_reward(score, target)
    expected -= reward.baselign_reward(reference, target)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert (reward.relative_reward(score, score, target) == 0.0).all()


def test_a_failed_score_never_becomes_the_best():
    target = jnp.asarray(TARGETS["UK"], jnp.float32)
    score = jnp.asarray(draws(9)[0][:4]).at[1, 5].set(jnp.nan)
    found = reward.baselign_reward(score, target)
    assert jnp.isnan(found).tolist() == [False, True, False, False]
    worst = reward.worst_reward(target)
    guarded = reward.guard_reward(found, worst=worst)
    assert guarded[1] == worst == guarded.min()
    infinite = reward.guard_reward(jnp.array([jnp.inf, -jnp.inf, -1.0]), worst=-9.0)
    assert infinite.tolist() == [-9.0, -9.0, -1.0]
    grad = jax.grad(lambda r: reward.guard_reward(r, worst=-9.0).sum())
    assert grad(jnp.array([jnp.nan, -1.0])).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("case", CASES)
def test_moments_equal_trl(case):
    state = moments.initial_moments()
    update, scale = jax.jit(moments.update_moments), jax.jit(moments.scale_scores)
    for x, where, expected, scaled in zip(
        *(GOLDEN[f"{case}.{n}"] for n in ("x", "where", "moments", "scaled")),
        strict=True,
    ):
        state = update(state, jnp.asarray(x), where=jnp.asarray(where))
        found = [float(s) for s in state]
        for a, b in zip(found, expected[[0, 1, 3]], strict=True):
            assert abs(a - b) <= 1e-6 * max(1.0, abs(b))
        found = np.where(where, scale(jnp.asarray(np.nan_to_num(x)), state), 0.0)
        np.testing.assert_allclose(found, scaled, rtol=1e-6)


def test_batches_one_by_one_equal_all_at_once():
    x = np.random.default_rng(10).normal(-1.5, 0.8, 96)
    with jax.enable_x64(True):
        state = moments.initial_moments(jnp.float64)
        for start, end in ((0, 1), (1, 1), (1, 40), (40, 96)):
            state = moments.update_moments(state, jnp.asarray(x[start:end]))
        np.testing.assert_allclose(state, [x.mean(), x.var(), 96.0], rtol=1e-12)
        scaled = moments.scale_scores(jnp.asarray(x), state)
        np.testing.assert_allclose(scaled, x / x.std(ddof=1), rtol=1e-12)


def test_moments_over_devices_are_those_of_the_whole_batch():
    rng = np.random.default_rng(11)
    x, where = rng.normal(size=(4, 6)).astype(np.float32), rng.random((4, 6)) < 0.7
    where[1] = False
    start = moments.update_moments(moments.initial_moments(), jnp.array([1.0, 4.0]))
    whole = moments.update_moments(start, jnp.asarray(x), where=jnp.asarray(where))
    parts = jax.vmap(
        lambda x, where: moments.update_moments(start, x, where=where, axis_name="d"),
        axis_name="d",
    )(jnp.asarray(x), jnp.asarray(where))
    for part, all_of_it in zip(parts, whole, strict=True):
        np.testing.assert_allclose(part, np.full(4, all_of_it), rtol=1e-6)


def test_nothing_that_counts_leaves_the_moments():
    state = moments.RunningMoments(*jnp.array([-1.0, 0.3, 17.0]))
    x = jnp.full(3, jnp.nan)
    found = moments.update_moments(state, x, where=jnp.zeros(3, bool))
    assert [float(s) for s in found] == [float(s) for s in state]


@pytest.mark.parametrize("batch", [[], [-0.7], [-0.7] * 7, [0.0, 0.0]])
def test_scores_without_a_spread_stay(batch):
    state = moments.update_moments(moments.initial_moments(), jnp.asarray(batch))
    x = jnp.array([-2.0, 0.5])
    assert moments.scale_scores(x, state).tolist() == x.tolist()


def test_bad_arguments():
    v = jnp.zeros((3, 10))
    with pytest.raises(KeyError, match="gate 'soft' is unknown; known are: none"):
        reward.baselign_reward(v, v, gate="soft")
    with pytest.raises(KeyError, match="scale 'l2' is unknown; known are: max, none"):
        reward.baselign_reward(v, v, scale="l2")
    for threshold in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="expected 0 <= threshold < 1"):
            reward.reward_per_value(v, v, threshold=threshold)
    with pytest.raises(ValueError, match=r"target has shape \(2, 10\)"):
        reward.baselign_reward(v, v[:2])
    with pytest.raises(ValueError, match=r"reference_score has shape \(10,\)"):
        reward.relative_reward(v, v[0], v)
    with pytest.raises(ValueError, match="worst is nan; expected a finite number"):
        reward.guard_reward(v[:, 0], worst=float("nan"))
    with pytest.raises(ValueError, match="guard_reward: worst has shape"):
        reward.guard_reward(v[:, 0], worst=jnp.zeros(2))
    with pytest.raises(ValueError, match="update_moments: where has shape"):
        moments.update_moments(moments.initial_moments(), v[0], where=jnp.ones(3, bool))
