# SPDX-License-Identifier: Apache-2.0
"""From rewards to advantages of tokens.

Axes: B sequences, T tokens, G samples of one prompt.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fulcra_jax import _check


class Advantage(NamedTuple):
    """What `generalized_advantage` estimates, `[B, T]` each."""

    advantages: jax.Array
    returns: jax.Array
    """What the value function should say: advantages + values, before whitening."""


def token_rewards(
    score: jax.Array,
    kl: jax.Array,
    *,
    coefficient: jax.Array | float,
    where: jax.Array | None = None,
) -> jax.Array:
    """The reward of every token: a KL penalty, and the score at the last token.

    r_t = -b kl_t + score [t is the last token that counts]

    Args:
      score: `[B]` float, of the whole response, for example `baselign_reward`.
      kl: `[B, T]` float, `kl_estimate` with k1.
      coefficient: b, a number or `[]`, for example of `adaptive_kl_coefficient`.
      where: `[B, T]` bool, False where no token stands.

    Returns:
      `[B, T]` float; 0 where no token stands.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Ouyang et al. 2022 (arXiv 2203.02155); TRL 0.11.4, PPOTrainer.compute_rewards.

    >>> kl = jnp.array([[0.5, 1.0, 9.0]])
    >>> where = jnp.array([[True, True, False]])
    >>> token_rewards(jnp.array([2.0]), kl, coefficient=0.5, where=where).tolist()
    [[-0.25, 1.5, 0.0]]
    """
    _check.shapes(
        "advantage.token_rewards",
        score=(score, "B"),
        kl=(kl, "B T"),
        where=(where, "B T"),
    )
    dtype = _work(score, kl)
    present = _present(kl, where)
    later = jnp.flip(jnp.flip(present, 1).cumsum(1), 1)
    last = present & (later == 1)
    penalty = coefficient * jnp.where(present, kl.astype(dtype), 0.0)
    ends = jnp.where(last, score.astype(dtype)[:, None], 0.0)
    return jnp.where(present, ends - penalty, 0.0).astype(dtype)


def generalized_advantage(
    rewards: jax.Array,
    values: jax.Array,
    *,
    discount: float = 1.0,
    decay: float = 0.95,
    where: jax.Array | None = None,
) -> Advantage:
    """Generalized advantage estimation.

    d_t = r_t + discount V_{t+1} - V_t, A_t = d_t + discount decay A_{t+1}

    V and A are 0 after the last token. Tokens with `where=False` are passed over, as if
    they were not there: a hole in a row does not cut it in two.

    Args:
      rewards: `[B, T]` float, for example of `token_rewards`.
      values: `[B, T]` float, the value function before each token.
      discount: gamma in [0, 1].
      decay: lambda in [0, 1]: 0 trusts the value function, 1 the rewards.
      where: `[B, T]` bool, False where no token stands.

    Returns:
      `Advantage`; 0 where no token stands. Gradients flow through; the losses stop
      them.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Schulman et al. 2016 (arXiv 1506.02438), equation 16.

    >>> rewards, values = jnp.array([[0.0, 1.0]]), jnp.array([[0.5, 0.5]])
    >>> generalized_advantage(rewards, values, decay=1.0).advantages.tolist()
    [[0.5, 0.5]]
    """
    _check.shapes(
        "advantage.generalized_advantage",
        rewards=(rewards, "B T"),
        values=(values, "B T"),
        where=(where, "B T"),
    )
    dtype = _work(rewards, values)
    present = _present(rewards, where)
    rewards = jnp.where(present, rewards.astype(dtype), 0.0)
    values = jnp.where(present, values.astype(dtype), 0.0)

    def back(carry, x):
        value_after, advantage_after = carry
        reward, value, here = x
        change = reward + discount * value_after - value
        advantage = change + discount * decay * advantage_after
        carry = (
            jnp.where(here, value, value_after),
            jnp.where(here, advantage, advantage_after),
        )
        return carry, jnp.where(here, advantage, 0.0)

    start = (jnp.zeros(rewards.shape[:1], dtype),) * 2
    _, advantages = jax.lax.scan(
        back, start, (rewards.T, values.T, present.T), reverse=True
    )
    return Advantage(advantages.T, advantages.T + values)


def whiten(
    x: jax.Array,
    *,
    where: jax.Array | None = None,
    counts: jax.Array | None = None,
    center: bool = True,
    epsilon: float = 1e-8,
    axis_name: str | None = None,
) -> jax.Array:
    """Brings all entries that count to variance 1, and to mean 0.

    (x - m) / sqrt(s^2 + epsilon), s^2 with divisor n - 1

    Args:
      x: `[...]` float.
      where: `[...]` bool, False where the entry does not count.
      counts: `[...]` how many times an entry stands in the batch, for example the
        tokens of an answer that share its advantage; 1 if not given.
      center: False keeps the mean.
      epsilon: added to the variance.
      axis_name: of `jax.vmap`, `jax.pmap` or `jax.shard_map`, if the batch is spread
        over devices: mean and variance are then those of all of it.

    Returns:
      `[...]` float; 0 where the entry does not count. Fewer than two entries, and
      entries that are equal up to rounding, have no variance: they are only centered.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      TRL 0.11.4, masked_whiten.

    >>> [round(x, 3) for x in whiten(jnp.array([1.0, 2.0, 3.0])).tolist()]
    [-1.0, 0.0, 1.0]
    """
    axes = " ".join(f"A{i}" for i in range(x.ndim))
    _check.shapes(
        "advantage.whiten", x=(x, axes), where=(where, axes), counts=(counts, axes)
    )
    present = _present(x, where)
    dtype = _work(x)
    times = present.astype(dtype)
    if counts is not None:
        times = jnp.where(present, counts.astype(dtype), 0.0)
        present &= times > 0.0
    x = jnp.where(present, x.astype(dtype), 0.0)

    def total(x: jax.Array) -> jax.Array:
        return x.sum() if axis_name is None else jax.lax.psum(x.sum(), axis_name)

    n = total(times)
    mean = total(times * x) / jnp.maximum(n, 1.0)
    away = jnp.where(present, x - mean, 0.0)
    variance = total(times * away**2) / jnp.maximum(n - 1.0, 1.0)
    # What is left of equal numbers after their mean is rounding, not a signal.
    rounding = (8.0 * jnp.finfo(dtype).eps * mean) ** 2
    scaled = (n >= 2.0) & ~(variance <= rounding)
    scale = jax.lax.rsqrt(jnp.where(scaled, variance + epsilon, 1.0))
    return jnp.where(present, away * scale + (0.0 if center else mean), 0.0)


def reinforce_plus_plus(
    rewards: jax.Array,
    *,
    discount: float = 1.0,
    where: jax.Array | None = None,
    axis_name: str | None = None,
) -> jax.Array:
    """REINFORCE++: the whitened reward to go, without a value function.

    G_t = r_t + discount G_{t+1}, then `whiten` over the batch

    Args:
      rewards: `[B, T]` float, of `token_rewards` (KL penalty included).
      discount: in [0, 1].
      where: `[B, T]` bool, False where no token stands.
      axis_name: as in `whiten`.

    Returns:
      `[B, T]` float; 0 where no token stands.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Hu et al. 2025 (arXiv 2501.03262).

    >>> rewards = jnp.array([[0.0, 1.0], [0.0, 0.0]])
    >>> [[round(x, 2) for x in row] for row in reinforce_plus_plus(rewards).tolist()]
    [[0.87, 0.87], [-0.87, -0.87]]
    """
    zeros = jnp.zeros_like(rewards)
    to_go = generalized_advantage(
        rewards, zeros, discount=discount, decay=1.0, where=where
    ).advantages
    return whiten(to_go, where=where, axis_name=axis_name)


def reinforce_plus_plus_baseline(
    rewards: jax.Array, where: jax.Array, *, axis_name: str | None = None
) -> jax.Array:
    """REINFORCE++ with a baseline per prompt, whitened over the tokens.

    A_gt = r_g - mean of the group, then `whiten` over all tokens

    Args:
      rewards: `[..., G]` float, of whole responses.
      where: `[..., G, T]` bool, the tokens that stand.
      axis_name: as in `whiten`.

    Returns:
      `[..., G, T]` float; 0 where no token stands.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Hu et al. 2025 (arXiv 2501.03262), the variant for several samples a prompt.

    >>> where = jnp.array([[[True, True], [True, False]]])
    >>> A = reinforce_plus_plus_baseline(jnp.array([[1.0, 0.0]]), where)
    >>> [[round(x, 2) for x in row] for row in A[0].tolist()]
    [[0.58, 0.58], [-1.15, 0.0]]
    """
    _check.shapes(
        "advantage.reinforce_plus_plus_baseline",
        rewards=(rewards, "... G"),
        where=(where, "... G T"),
    )
    where = jnp.asarray(where, bool)
    answered = where.any(-1)
    rewards = jnp.where(answered, rewards.astype(_work(rewards)), 0.0)
    count = jnp.maximum(answered.sum(-1, keepdims=True), 1)
    away = rewards - rewards.sum(-1, keepdims=True) / count
    spread = jnp.broadcast_to(away[..., None], where.shape)
    return whiten(spread, where=where, axis_name=axis_name)


def _present(x: jax.Array, where: jax.Array | None) -> jax.Array:
    return jnp.ones(x.shape, bool) if where is None else jnp.asarray(where, bool)


def _work(*arrays: jax.Array) -> jnp.dtype:
    return jnp.promote_types(jnp.result_type(*arrays), jnp.float32)
