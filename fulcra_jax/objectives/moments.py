# SPDX-License-Identifier: Apache-2.0
"""Running mean and variance of rewards, and rewards in units of them.

State goes in and comes out: nothing is kept here.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fulcra_jax import _check


class RunningMoments(NamedTuple):
    """Mean and variance of all rewards so far, each `[]`."""

    mean: jax.Array
    variance: jax.Array
    """With divisor n."""
    total: jax.Array
    """How many; 1e-24 before the first."""


def initial_moments(dtype: jax.typing.DTypeLike = jnp.float32) -> RunningMoments:
    """The moments before the first reward: they weigh nothing.

    mean = 0, variance = 1, total = 1e-24.

    Args:
      dtype: of the moments, float32 or float64.

    Returns:
      The state to start `update_moments` from.

    Reference:
      TRL 0.11.4, RunningMoments.

    >>> initial_moments().variance.item()
    1.0
    """
    return RunningMoments(
        jnp.zeros((), dtype), jnp.ones((), dtype), jnp.asarray(1e-24, dtype)
    )


def update_moments(
    state: RunningMoments,
    x: jax.Array,
    *,
    where: jax.Array | None = None,
    axis_name: str | None = None,
) -> RunningMoments:
    """The moments with a batch more.

    m' = m + d n_x / n', v' = (v n + v_x n_x + d^2 n n_x / n') / n', d = m_x - m,
    n' = n + n_x.

    Args:
      state: the moments before.
      x: `[...]` float rewards.
      where: `[...]` bool, False where a reward does not count.
      axis_name: of `jax.vmap`, `jax.pmap` or `jax.shard_map`, if the batch is spread
        over devices: the moments are then those of all of it, the same everywhere.

    Returns:
      The new moments, in the wider dtype of state and rewards, at least float32;
      unchanged if no reward counts. A NaN that counts stays in the moments for ever:
      `guard_reward` comes first.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance";
      TRL 0.11.4, RunningMoments.

    >>> state = update_moments(initial_moments(), jnp.array([1.0, 3.0]))
    >>> state.mean.item(), state.variance.item(), state.total.item()
    (2.0, 1.0, 2.0)
    """
    axes = " ".join(f"A{i}" for i in range(x.ndim))
    _check.shapes("moments.update_moments", x=(x, axes), where=(where, axes))
    x = jnp.asarray(x)
    dtype = jnp.promote_types(jnp.result_type(x.dtype, *state), jnp.float32)
    x = x.astype(dtype)
    mean, variance, count = (jnp.asarray(s).astype(dtype) for s in state)
    present = jnp.ones(x.shape, bool) if where is None else jnp.asarray(where, bool)

    def summed(x: jax.Array) -> jax.Array:
        return x.sum() if axis_name is None else jax.lax.psum(x.sum(), axis_name)

    n_x = summed(present.astype(dtype))
    some = jnp.maximum(n_x, 1.0)
    mean_x = summed(jnp.where(present, x, 0.0)) / some
    # Double where: x - mean_x of a masked NaN would have a NaN gradient.
    away_x = jnp.where(present, jnp.where(present, x, 0.0) - mean_x, 0.0)
    variance_x = summed(away_x**2) / some
    n = count + n_x
    away = mean_x - mean
    squares = variance * count + variance_x * n_x + away**2 * (count / n) * n_x
    updated = RunningMoments(mean + away * (n_x / n), squares / n, n)
    before = RunningMoments(mean, variance, count)
    return jax.tree.map(lambda new, old: jnp.where(n_x > 0, new, old), updated, before)


def scale_scores(x: jax.Array, state: RunningMoments) -> jax.Array:
    """Scores in units of their running standard deviation; no mean is taken off.

    x / (s + eps), s^2 = variance n / (n - 1), eps the spacing of floats at 1.

    Args:
      x: `[...]` float scores.
      state: of `update_moments`, this batch included. No gradient goes into it: a scale
        is a constant of the step.

    Returns:
      `[...]` float. As it is until two scores were seen, and while all of them are
      equal but for rounding: there is no unit then (TRL divides by eps).

    Reference:
      TRL 0.11.4, PPOConfig.use_score_scaling.

    >>> state = update_moments(initial_moments(), jnp.array([1.0, 3.0]))
    >>> print(f"{scale_scores(jnp.array(1.0), state):.3f}")
    0.707
    """
    x = jnp.asarray(x)
    x = x.astype(jnp.promote_types(jnp.result_type(x.dtype, *state), jnp.float32))
    mean, variance, count = (
        jax.lax.stop_gradient(jnp.asarray(s).astype(x.dtype)) for s in state
    )
    eps = jnp.finfo(x.dtype).eps
    # The variance 1 of the first state still weighs 1e-24; one reward or two.
    constant = (variance <= (8.0 * eps * mean) ** 2 + 1e-24) | (count < 1.5)
    ratio = count / jnp.where(constant, 1.0, count - 1.0)
    deviation = jnp.sqrt(jnp.where(constant, 1.0, variance * ratio))
    return x / jnp.where(constant, 1.0, deviation + eps)
