# SPDX-License-Identifier: Apache-2.0
"""The best of n answers: the baseline that every aligned model has to beat.

Axes: `...` prompts, N answers to a prompt.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import _check


def best_of_n(rewards: jax.Array, *, where: jax.Array | None = None) -> jax.Array:
    """The place of the answer with the highest reward.

    Args:
      rewards: `[..., N]` float. NaN, where scoring failed, never wins.
      where: `[..., N]` bool, False where an answer does not count.

    Returns:
      `[...]` int32, the first of equals; -1 without an answer that counts.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Stiennon et al. 2020 (arXiv 2009.01325), section 4.3.

    >>> best_of_n(jnp.array([-2.0, jnp.nan, -1.0])).item()
    2
    """
    present = _present("best_of_n.best_of_n", rewards, where)
    best = jnp.where(present, rewards, -jnp.inf).argmax(-1)
    # -inf is a reward as well: the first that counts then.
    best = jnp.where(
        jnp.take_along_axis(present, best[..., None], -1)[..., 0],
        best,
        present.argmax(-1),
    )
    return jnp.where(present.any(-1), best, -1).astype(jnp.int32)


def expected_best_of_n(
    rewards: jax.Array, n: jax.Array | int, *, where: jax.Array | None = None
) -> jax.Array:
    """What the best of n answers is worth, estimated from N >= n without bias.

    sum_i C(i, n - 1) / C(N, n) r_(i), r_(0) <= ... <= r_(N - 1) sorted: the mean of the
    maximum over all subsets of n.

    Args:
      rewards: `[..., N]` float. NaN, where scoring failed, counts as the worst of all:
        the result is NaN only if n or more failed, so that all of a draw may have.
      n: a whole number of at least 1, or an array of such; broadcast against the axes
        before N.
      where: `[..., N]` bool, False where an answer does not count.

    Returns:
      `[...]` float; NaN where fewer than n answers count.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Nakano et al. 2021 (arXiv 2112.09332), appendix I; Chen et al. 2021 (arXiv
      2107.03374), the same idea for pass@k.

    >>> rewards = jnp.array([3.0, 1.0, 2.0])
    >>> [round(float(expected_best_of_n(rewards, n)), 3) for n in (1, 2, 3)]
    [2.0, 2.667, 3.0]
    """
    caller = "best_of_n.expected_best_of_n"
    if isinstance(n, int) and n < 1:
        raise ValueError(f"{caller}: n is {n}; expected at least 1.")
    _check.shapes(caller, rewards=(rewards, "... N"))
    counts = jnp.ones(rewards.shape, bool)
    if where is not None:
        if where.shape != rewards.shape:
            raise ValueError(
                f"{caller}: where has shape {where.shape}; expected {rewards.shape}."
            )
        counts = jnp.asarray(where, bool)
    x = rewards.astype(jnp.promote_types(rewards.dtype, jnp.float32))
    failed = jnp.isnan(x)
    # Ascending from the right: what does not count goes left, then what failed.
    order = jnp.where(counts, jnp.where(failed, -jnp.inf, x), -jnp.inf)
    rank = jnp.where(counts, jnp.where(failed, 1, 2), 0)
    place = jnp.lexsort((order, rank), axis=-1)
    x = jnp.take_along_axis(jnp.where(counts, x, 0.0), place, -1)
    total = counts.sum(-1, keepdims=True).astype(x.dtype)
    n = jnp.asarray(n, x.dtype)
    n = jnp.broadcast_to(n, x.shape[:-1])[..., None]
    # The weight of the largest is n / N, each next one (N - n - j) / (N - 1 - j) of it:
    # products of exact ratios keep digits that differences of log-factorials lose.
    behind = jnp.broadcast_to(jnp.arange(x.shape[-1], dtype=x.dtype), x.shape)
    rest = total - 1.0 - behind
    factor = jnp.where(rest > 0.0, (rest - n + 1.0) / jnp.where(rest > 0, rest, 1), 0.0)
    factor = jnp.maximum(factor, 0.0)
    falling = jnp.cumprod(factor, axis=-1)
    falling = jnp.concatenate([jnp.ones_like(n), falling[..., :-1]], -1)
    weight = jnp.flip(n / jnp.maximum(total, 1.0) * falling, -1)
    expected = jnp.where(weight > 0.0, weight * x, 0.0).sum(-1)
    return jnp.where((total >= n)[..., 0], expected, jnp.nan)


def best_of_n_kl_bound(n: jax.Array) -> jax.Array:
    """How far best-of-n can have moved from the model it draws from, at most.

    log n - (n - 1) / n

    An upper bound of KL(best-of-n || model) per answer; equal where no two answers have
    one reward, and far above it where one answer is likely.

    Args:
      n: `[...]` numbers of at least 1.

    Returns:
      `[...]` float >= 0, in nats.

    Raises:
      ValueError: if `n` is no array.

    Reference:
      Beirami et al. 2024 (arXiv 2401.01879), theorem 3.1.

    >>> bound = best_of_n_kl_bound(jnp.array([1.0, 4.0, 64.0]))
    >>> [round(float(x), 3) for x in bound]
    [0.0, 0.636, 3.175]
    """
    _check.shapes("best_of_n.best_of_n_kl_bound", n=(n, "..."))
    n = n.astype(jnp.promote_types(n.dtype, jnp.float32))
    return jnp.log(n) - (n - 1.0) / n


def n_of_kl_bound(kl: float, *, most: int = 64) -> int:
    """The n at which best-of-n may have moved as far as an aligned model did.

    The smallest n with log n - (n - 1) / n >= kl.

    Args:
      kl: nats per answer.
      most: the largest n to consider.

    Returns:
      n in [1, most]; `most` if the model has moved farther than that: then print both
      KLs, they are not equal.

    Raises:
      ValueError: if `kl` is NaN or `most` is below 1.

    Reference:
      Gao, Schulman and Hilton 2023 (arXiv 2210.10760), who compare at equal KL.

    >>> n_of_kl_bound(0.6), n_of_kl_bound(10.0)
    (4, 64)
    """
    if math.isnan(kl) or most < 1:
        raise ValueError(
            f"best_of_n.n_of_kl_bound: kl is {kl} and most is {most}; expected a "
            "number and at least 1."
        )
    n = np.arange(1, most + 1)
    reached = np.log(n) - (n - 1) / n >= kl
    return int(n[reached.argmax()]) if reached.any() else most


def soft_best_of_n(
    rewards: jax.Array, *, temperature: float, where: jax.Array | None = None
) -> jax.Array:
    """The probabilities of soft best-of-n, between drawing at random and the best.

    softmax(r / temperature)

    Args:
      rewards: `[..., N]` float; NaN has probability 0.
      temperature: above 0; towards 0 the best answer alone remains.
      where: `[..., N]` bool, False where an answer does not count.

    Returns:
      `[..., N]` float that sums to 1; 0 where an answer does not count, all 0 if none
      does. Infinite rewards share what the infinite are due.

    Raises:
      ValueError: if shapes disagree or `temperature` is not above 0.

    Reference:
      Verdun et al. 2025 (arXiv 2505.03156), soft best-of-n.

    >>> soft_best_of_n(jnp.array([0.0, 0.0]), temperature=1.0).tolist()
    [0.5, 0.5]
    """
    caller = "best_of_n.soft_best_of_n"
    if not temperature > 0.0:
        raise ValueError(
            f"{caller}: temperature is {temperature}; expected more than 0."
        )
    present = _present(caller, rewards, where)
    x = rewards.astype(jnp.promote_types(rewards.dtype, jnp.float32))
    x = jnp.where(present, x, 0.0) / temperature
    top = jnp.where(present, x, -jnp.inf).max(-1, keepdims=True)
    top = jax.lax.stop_gradient(jnp.where(present.any(-1, keepdims=True), top, 0.0))
    # Equals of an infinite top share it.
    shared = ~present | (jnp.isinf(top) & (x == top))
    away = jnp.where(
        shared, 0.0, jnp.where(shared, 0.0, x) - jnp.where(shared, 0.0, top)
    )
    odds = jnp.where(present, jnp.exp(away), 0.0)
    total = odds.sum(-1, keepdims=True)
    return odds / jnp.where(total > 0.0, total, 1.0)


def _present(caller: str, rewards: jax.Array, where: jax.Array | None) -> jax.Array:
    """The answers that count and have a reward."""
    _check.shapes(caller, rewards=(rewards, "... N"))
    if where is not None and where.shape != rewards.shape:
        raise ValueError(
            f"{caller}: where has shape {where.shape}; expected {rewards.shape}."
        )
    present = ~jnp.isnan(rewards)
    return present if where is None else present & jnp.asarray(where, bool)
