# SPDX-License-Identifier: Apache-2.0
"""Advantages of several answers to one prompt, without a value function.

Axes: `...` prompts, G answers to a prompt, V values.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from fulcra_jax import _check
from fulcra_jax.objectives import advantage

GroupKind = Literal["grpo", "dr_grpo", "rloo"]
Whitening = Literal["sequences", "tokens"]


def group_advantage(
    rewards: jax.Array,
    *,
    kind: GroupKind = "grpo",
    epsilon: float = 1e-6,
    where: jax.Array | None = None,
) -> jax.Array:
    """How much better an answer is than the others to its prompt.

    grpo (r - m) / (s + epsilon), s with divisor G - 1; dr_grpo r - m; rloo r minus the
    mean of the others = G / (G - 1) (r - m).

    Dividing by s makes easy and hard prompts weigh the same: also those on which the
    answers differ by noise only. dr_grpo leaves that out.

    Args:
      rewards: `[..., G]` float.
      kind: see above.
      epsilon: 1e-6 as in verl and tunix; TRL has 1e-4.
      where: `[..., G]` bool, False where an answer does not count.

    Returns:
      `[..., G]` float; 0 where an answer does not count, and in a group with fewer than
      two that do or whose rewards are all equal.

    Raises:
      ValueError: if shapes disagree.
      KeyError: if `kind` is unknown.

    Reference:
      Shao et al. 2024 (arXiv 2402.03300), GRPO; Liu et al. 2025 (arXiv 2503.20783),
      Dr. GRPO; Ahmadian et al. 2024 (arXiv 2402.14740), RLOO.

    >>> rewards = jnp.array([[1.0, 2.0, 3.0]])
    >>> group_advantage(rewards, kind="dr_grpo").tolist()
    [[-1.0, 0.0, 1.0]]
    >>> group_advantage(rewards, kind="rloo").tolist()
    [[-1.5, 0.0, 1.5]]
    """
    caller = "group.group_advantage"
    _check.known(caller, "kind", kind, get_args(GroupKind))
    _check.shapes(caller, rewards=(rewards, "... G"))
    _per_answer(caller, rewards.shape, where=where)
    away, n, _ = _centered(rewards, where)
    if kind == "dr_grpo":
        return away
    if kind == "rloo":
        return away * n / jnp.maximum(n - 1.0, 1.0)
    return away / (_spread(away, n) + epsilon)


def length_weighted_advantage(
    rewards: jax.Array, lengths: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """OPO: the baseline is the mean reward of a group weighted by length.

    A = r - sum_g l_g r_g / sum_g l_g, the baseline of least variance if the gradients
    of tokens are uncorrelated and of one size.

    Args:
      rewards: `[..., G]` float.
      lengths: `[..., G]` numbers, tokens of each answer.
      where: `[..., G]` bool, False where an answer does not count.

    Returns:
      `[..., G]` float; 0 where an answer does not count, or fewer than two do.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Hao et al. 2025 (arXiv 2505.23585).

    >>> length_weighted_advantage(jnp.array([1.0, 0.0]), jnp.array([3, 1])).tolist()
    [0.25, -0.75]
    """
    caller = "group.length_weighted_advantage"
    _check.shapes(caller, rewards=(rewards, "... G"))
    _per_answer(caller, rewards.shape, where=where, lengths=lengths)
    present = jnp.ones(rewards.shape, bool)
    if where is not None:
        present = jnp.asarray(where, bool)
    dtype = jnp.promote_types(rewards.dtype, jnp.float32)
    rewards = jnp.where(present, rewards.astype(dtype), 0.0)
    lengths = jnp.where(present, lengths.astype(dtype), 0.0)
    total = lengths.sum(-1, keepdims=True)
    mean = (lengths * rewards).sum(-1, keepdims=True)
    mean = mean / jnp.where(total > 0.0, total, 1.0)
    several = present & (present.sum(-1, keepdims=True) >= 2)
    return jnp.where(several, rewards - mean, 0.0)


def gdpo_advantage(
    rewards: jax.Array,
    *,
    weights: jax.Array | None = None,
    epsilon: float = 1e-6,
    whiten: Whitening | None = "sequences",
    lengths: jax.Array | None = None,
    where: jax.Array | None = None,
    axis_name: str | None = None,
) -> jax.Array:
    """GDPO: every value is brought to one scale within a group, then they are added.

    A = sum_k w_k (r_k - m_k) / (s_k + epsilon), then `whiten` over the batch

    In a sum of rewards the value that varies most decides; here each has its weight. A
    value whose rewards are all equal in a group adds exactly nothing, instead of its
    rounding divided by epsilon; but where a value hardly varies, its noise counts in
    full: give it less weight.

    Args:
      rewards: `[..., G, V]` float, for example of `reward_per_value`.
      weights: `[V]` non-negative float, 1 if not given.
      epsilon: as in `group_advantage`; TRL has 1e-4.
      whiten: over the answers of the batch ("sequences", as TRL), over their tokens,
        so that a long answer counts more ("tokens", as verl), or not (None). Divides by
        sqrt(s^2 + 1e-8); TRL by s + 1e-4.
      lengths: `[..., G]` tokens of each answer, for "tokens".
      where: `[..., G]` bool, False where an answer does not count.
      axis_name: as in `whiten`.

    Returns:
      `[..., G]` float; 0 where an answer does not count. In a group with fewer than two
      that do the sum is 0, which whitening moves by the mean of the batch.

    Raises:
      ValueError: if shapes disagree, or "tokens" has no lengths.
      KeyError: if `whiten` is unknown.

    Reference:
      Liu et al. 2026 (arXiv 2601.05242), GDPO.

    >>> rewards = jnp.array([[[1.0, 0.0], [0.0, 0.0]]])
    >>> gdpo_advantage(rewards, whiten=None).round(2).tolist()
    [[0.7099999785423279, -0.7099999785423279]]
    """
    caller = "group.gdpo_advantage"
    _check.shapes(caller, rewards=(rewards, "... G V"), weights=(weights, "V"))
    _per_answer(caller, rewards.shape[:-1], where=where, lengths=lengths)
    if whiten is not None:
        _check.known(caller, "whiten", whiten, get_args(Whitening))
    if whiten == "tokens" and lengths is None:
        raise ValueError(f"{caller}: whiten 'tokens' needs lengths, of each answer.")
    by_value = jnp.moveaxis(rewards, -1, 0)
    away, n, moved = _centered(by_value, None if where is None else where[None])
    away = jnp.where(moved, away / (_spread(away, n) + epsilon), 0.0)
    if weights is not None:
        away = away * jnp.asarray(weights).astype(away.dtype).reshape(
            -1, *(1,) * (away.ndim - 1)
        )
    total = away.sum(0)
    if whiten is None:
        return total
    counts = lengths if whiten == "tokens" else None
    return advantage.whiten(total, where=where, counts=counts, axis_name=axis_name)


def greedy_baseline_advantage(
    rewards: jax.Array, greedy_reward: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """ReMax: the baseline is the reward of the greedy answer to the same prompt.

    A = r - r_greedy

    Args:
      rewards: `[..., G]` float, of sampled answers; G may be 1.
      greedy_reward: `[...]` float, of the answer that was decoded greedily.
      where: `[..., G]` bool, False where an answer does not count.

    Returns:
      `[..., G]` float; 0 where an answer does not count.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Li et al. 2024 (arXiv 2310.10505).

    >>> A = greedy_baseline_advantage(jnp.array([[1.0, 0.0]]), jnp.array([0.25]))
    >>> A.tolist()
    [[0.75, -0.25]]
    """
    caller = "group.greedy_baseline_advantage"
    _check.shapes(caller, rewards=(rewards, "... G"))
    _per_answer(caller, rewards.shape, where=where)
    if tuple(greedy_reward.shape) != tuple(rewards.shape[:-1]):
        raise ValueError(
            f"{caller}: greedy_reward has shape {greedy_reward.shape}; expected "
            f"{rewards.shape[:-1]}, one entry per prompt."
        )
    present = jnp.ones(rewards.shape, bool)
    if where is not None:
        present = jnp.asarray(where, bool)
    dtype = jnp.promote_types(jnp.result_type(rewards, greedy_reward), jnp.float32)
    # A prompt without an answer has no baseline that could be read.
    greedy = jnp.where(present, greedy_reward.astype(dtype)[..., None], 0.0)
    return jnp.where(present, rewards.astype(dtype), 0.0) - greedy


def _per_answer(
    caller: str, shape: tuple[int, ...], **arrays: jax.Array | None
) -> None:
    for name, x in arrays.items():
        if x is not None and tuple(x.shape) != tuple(shape):
            raise ValueError(
                f"{caller}: {name} has shape {x.shape}; expected {shape}, one entry "
                "per answer."
            )


def _centered(
    rewards: jax.Array, where: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Distances from the mean of the group, its size and whether rewards differ."""
    present = jnp.ones(rewards.shape, bool)
    if where is not None:
        present = jnp.broadcast_to(jnp.asarray(where, bool), rewards.shape)
    dtype = jnp.promote_types(rewards.dtype, jnp.float32)
    rewards = rewards.astype(dtype)
    least = jnp.where(present, rewards, jnp.inf).min(-1, keepdims=True)
    most = jnp.where(present, rewards, -jnp.inf).max(-1, keepdims=True)
    n = present.sum(-1, keepdims=True).astype(dtype)
    # NaN compares false: a group with one keeps it, so that it is seen.
    moved = present & (n >= 2.0) & ~(most == least)
    rewards = jnp.where(moved, rewards, 0.0)
    mean = rewards.sum(-1, keepdims=True) / jnp.maximum(n, 1.0)
    return jnp.where(moved, rewards - mean, 0.0), n, moved


def _spread(away: jax.Array, n: jax.Array) -> jax.Array:
    """The standard deviation with divisor n - 1, with gradient 0 where it is 0."""
    variance = (away**2).sum(-1, keepdims=True) / jnp.maximum(n - 1.0, 1.0)
    positive = variance > 0.0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1.0)), 0.0)
