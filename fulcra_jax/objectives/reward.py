# SPDX-License-Identifier: Apache-2.0
"""Rewards of value vectors for a target, and what keeps a reward from going wrong.

Axes: `...` responses, V values in the order of `values.BASIC`.
"""

import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from fulcra_jax import _check
from fulcra_jax.objectives import _shapes, distance
from fulcra_jax.objectives.distance import Gate

Scale = Literal["max", "none"]


def baselign_reward(
    score: jax.Array,
    target: jax.Array,
    *,
    threshold: float = 0.3,
    gate: Gate = "none",
    scale: Scale = "max",
    where: jax.Array | None = None,
) -> jax.Array:
    """The reward of an answer for coming close to a target: at most 0, 0 is best.

    gate "none", the default: r = -sum_k w_k gap_k with t' = t / max |t|, w = |t'| and
    gap_k = |v_k - t'_k|, but v_k on the wrong side of zero counts from the threshold
    on only, as (|v_k| - threshold) / (1 - threshold): no jump, and -1 still costs most.
    It is flat between 0 and the threshold: a reward, not a loss for gradients.
    gate "target": r = -sum over t_k != 0 of |v_k - t'_k|.
    gate "official", as released: r = -sum_k |v_k - t_k| 1[|v_k| > threshold] |t_k|.

    The released reward has a loophole: an answer that expresses no value gets 0, the
    best there is, and a policy finds that. The default has none. Three things differ.
    (1) No indicator: what is missing costs. (2) The target is brought to the scale of
    the scores, whose answers lie near 0 or 1: the entries of a national target are
    small, and v = 0 is nearer to them in plain L1 than 96 % of real answers are.
    (3) A target of 0 means "not targeted", as in the released code, so it does not
    count; and a score that the evaluator itself takes for "no connection" is not held
    against an answer because it fell on the wrong side of zero: on values that real
    answers do not mention, evaluators give about -0.04.

    Args:
      score: `[..., V]` float in [-1, 1].
      target: `[V]` or `[..., V]` float in [-1, 1]; use `value_distance` where 0 should
        mean "must not be expressed".
      threshold: in [0, 1), the largest |v_k| that counts as "no connection".
      gate: see above.
      scale: "max" divides the target by its largest |t_k| among the values that count;
        "none" takes it as it is, as "official" always does.
      where: `[..., V]` bool, False where a value does not count.

    Returns:
      `[...]` float <= 0. Constant 0 for a target of zeros. NaN where a score that
      counts is NaN: see `guard_reward`.

    Raises:
      ValueError: if shapes disagree or `threshold` is out of range.
      KeyError: if `gate` or `scale` is unknown.

    Reference:
      Yao et al. 2024 (arXiv 2311.10766), section 5, and the released code (official).

    >>> free, good = jnp.zeros(10), jnp.eye(10)[5]
    >>> target = jnp.eye(10)[5]
    >>> float(baselign_reward(free, target)), float(baselign_reward(good, target))
    (-1.0, 0.0)
    >>> float(baselign_reward(free, target, gate="official"))
    0.0
    """
    gaps = reward_per_value(
        score, target, threshold=threshold, gate=gate, scale=scale, where=where
    )
    return gaps.sum(-1)


def reward_per_value(
    score: jax.Array,
    target: jax.Array,
    *,
    threshold: float = 0.3,
    gate: Gate = "none",
    scale: Scale = "max",
    where: jax.Array | None = None,
) -> jax.Array:
    """The reward of every value alone; their sum is `baselign_reward`.

    For logs, and for methods that weigh the values themselves: `gdpo_advantage`,
    `modpo_loss`, `lagrangian_objective`.

    Args:
      score: `[..., V]` float in [-1, 1].
      target: `[V]` or `[..., V]` float in [-1, 1].
      threshold: as in `baselign_reward`.
      gate: as in `baselign_reward`.
      scale: as in `baselign_reward`.
      where: `[..., V]` bool, False where a value does not count.

    Returns:
      `[..., V]` float <= 0; 0 where the value does not count.

    Raises:
      ValueError: if shapes disagree or `threshold` is out of range.
      KeyError: if `gate` or `scale` is unknown.

    Reference:
      Yao et al. 2024 (arXiv 2311.10766), section 5.

    >>> reward_per_value(jnp.array([0.25, -0.2]), jnp.array([0.5, 0.25])).tolist()
    [-0.75, -0.25]
    """
    caller = "reward.reward_per_value"
    _check.known(caller, "gate", gate, get_args(Gate))
    _check.known(caller, "scale", scale, get_args(Scale))
    if isinstance(threshold, float | int) and not 0.0 <= threshold < 1.0:
        raise ValueError(
            f"{caller}: threshold is {threshold}; expected 0 <= threshold < 1."
        )
    if gate == "official":
        return -distance.value_gaps(
            score, target, gate="official", threshold=threshold, where=where
        )
    _shapes.score_and_target(caller, score, target, None, where)
    score, target, present = _shapes.prepared(score, target, where)
    if scale == "max":
        largest = jnp.abs(target).max(-1, keepdims=True, initial=0.0)
        target = target / jnp.where(largest > 0.0, largest, 1.0)
    if gate == "target":
        return -distance.value_gaps(score, target, gate="target", where=where)
    # Along the side that the target is on: positive is right, negative is wrong.
    along, goal = score * jnp.sign(target), jnp.abs(target)
    beyond = jnp.maximum(-along - threshold, 0.0) / (1.0 - threshold)
    read = jnp.where(along < 0.0, -beyond, along)
    return jnp.where(present, -goal * jnp.abs(goal - read), 0.0)


def relative_reward(
    score: jax.Array,
    reference_score: jax.Array,
    target: jax.Array,
    *,
    threshold: float = 0.3,
    gate: Gate = "none",
    scale: Scale = "max",
    where: jax.Array | None = None,
) -> jax.Array:
    """How much better an answer is than another to the same prompt.

    r(v) - r(v_ref): a prompt that no answer does well on does not look like a failure.
    As the reference does not depend on the answer, which answer is best stays the same.

    Args:
      score: `[..., V]` float in [-1, 1].
      reference_score: `[..., V]` float, of the answer of the reference model.
      target: `[V]` or `[..., V]` float in [-1, 1].
      threshold: as in `baselign_reward`.
      gate: as in `baselign_reward`.
      scale: as in `baselign_reward`.
      where: `[..., V]` bool, False where a value does not count in either.

    Returns:
      `[...]` float; above 0 is better than the reference.

    Raises:
      ValueError: if shapes disagree or `threshold` is out of range.
      KeyError: if `gate` or `scale` is unknown.

    Reference:
      Ng, Harada and Russell 1999, "Policy invariance under reward transformations".

    >>> target = jnp.array([1.0, 0.0])
    >>> relative_reward(jnp.array([0.75, 0.0]), jnp.array([0.25, 0.0]), target).item()
    0.5
    """
    caller = "reward.relative_reward"
    if score.shape != reference_score.shape:
        raise ValueError(
            f"{caller}: reference_score has shape {reference_score.shape}; expected "
            f"that of score, {score.shape}."
        )
    options = {"threshold": threshold, "gate": gate, "scale": scale, "where": where}
    better = reward_per_value(score, target, **options)
    return (better - reward_per_value(reference_score, target, **options)).sum(-1)


def guard_reward(
    reward: jax.Array, *, worst: float | jax.Array, where: jax.Array | None = None
) -> jax.Array:
    """Puts the worst reward where there is none, so that NaN never becomes the best.

    Trainers sum rewards with `nansum`: a failed evaluator then gives 0, which is the
    best that a negative distance can be. The gradient is 0 where a reward is replaced,
    but what computed the NaN may still pass one on: guard rewards, not losses.

    r if finite, else worst.

    Args:
      reward: `[...]` float, NaN or infinite where scoring failed.
      worst: `[]` or `[...]`, what a failure counts as: `worst_reward(target)`.
      where: `[...]` bool, False where there is no answer to reward; 0 there.

    Returns:
      `[...]` float, finite.

    Raises:
      ValueError: if shapes disagree, or `worst` is a number that is not finite.

    Reference:
      The nansum of tunix 0.1.7's reward manager.

    >>> guard_reward(jnp.array([-0.5, jnp.nan]), worst=-2.0).tolist()
    [-0.5, -2.0]
    """
    caller = "reward.guard_reward"
    axes = " ".join(f"A{i}" for i in range(reward.ndim))
    _check.shapes(caller, reward=(reward, axes), where=(where, axes))
    if isinstance(worst, float | int) and not math.isfinite(worst):
        raise ValueError(f"{caller}: worst is {worst}; expected a finite number.")
    if isinstance(worst, jax.Array) and worst.ndim:
        _check.shapes(caller, reward=(reward, axes), worst=(worst, axes))
    reward = jnp.asarray(reward)
    reward = reward.astype(jnp.promote_types(reward.dtype, jnp.float32))
    reward = jnp.where(
        jnp.isfinite(reward), reward, jnp.asarray(worst).astype(reward.dtype)
    )
    return reward if where is None else jnp.where(jnp.asarray(where, bool), reward, 0.0)


def worst_reward(
    target: jax.Array, *, gate: Gate = "none", scale: Scale = "max"
) -> jax.Array:
    """The lowest reward that any answer can get for a target.

    min over v of r(v): v_k = -1 for t_k >= 0 and 1 for t_k < 0.

    Args:
      target: `[..., V]` float in [-1, 1].
      gate: as in `baselign_reward`.
      scale: as in `baselign_reward`.

    Returns:
      `[...]` float <= 0.

    Raises:
      KeyError: if `gate` or `scale` is unknown.

    Reference:
      Yao et al. 2024 (arXiv 2311.10766), section 5.

    >>> worst_reward(jnp.array([1.0, 0.0, -1.0])).item()
    -4.0
    """
    target = jnp.asarray(target)
    against = jnp.where(target >= 0.0, -1.0, 1.0).astype(target.dtype)
    return baselign_reward(against, target, gate=gate, scale=scale)
