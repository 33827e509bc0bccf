# SPDX-License-Identifier: Apache-2.0
"""Losses on pairs of answers that need no reference model.

Both take the *mean* log-probability per token (`sequence_log_prob` with average): a sum
would make the longer answer the less likely one, and its odds 0.

Axes: B pairs.
"""

import jax
import jax.numpy as jnp

from fulcra_jax.objectives import _log_probs


def simpo_loss(
    chosen: jax.Array,
    rejected: jax.Array,
    *,
    beta: float = 2.0,
    gamma: float = 1.0,
    where: jax.Array | None = None,
) -> jax.Array:
    """SimPO: without a reference, on average log-probabilities, with a margin.

    -log s(b (c - r) - gamma)

    Args:
      chosen: `[B]` float, the mean over the tokens of the better answer.
      rejected: `[B]` float, of the other.
      beta: b > 0.
      gamma: the margin, at least 0, in units of b (c - r). TRL's simpo_gamma is the
        same number: it subtracts simpo_gamma / b inside b (...). The paper's table
        lists the ratio gamma / b.
      where: `[B]` bool, False where a pair does not count.

    Returns:
      `[B]` non-negative float; 0 where a pair does not count.

    Raises:
      ValueError: if shapes disagree, `beta` is not above 0 or `gamma` is negative.

    Reference:
      Meng, Xia and Chen 2024 (arXiv 2405.14734), equation 6.

    >>> loss = simpo_loss(jnp.array([-1.0]), jnp.array([-2.0]))
    >>> print(f"{loss[0]:.3f}")
    0.313
    """
    caller = "odds.simpo_loss"
    _log_probs.positive(caller, "beta", beta)
    if not gamma >= 0.0:
        raise ValueError(f"{caller}: gamma is {gamma}; expected at least 0.")
    (c, r), present = _log_probs.prepared(
        caller, {"chosen": chosen, "rejected": rejected}, where
    )
    return jnp.where(present, -jax.nn.log_sigmoid(beta * (c - r) - gamma), 0.0)


def orpo_loss(
    chosen: jax.Array,
    rejected: jax.Array,
    *,
    coefficient: float = 0.1,
    where: jax.Array | None = None,
) -> jax.Array:
    """ORPO: fine-tuning on the chosen answer, and an odds ratio against the other.

    -c - coefficient log s(log odds(c) - log odds(r)), odds(x) = e^x / (1 - e^x)

    Args:
      chosen: `[B]` float < 0, the mean over the tokens of the better answer. TRL takes
        the fine-tuning term -c over all tokens of the batch instead of per answer.
      rejected: `[B]` float < 0, of the other.
      coefficient: of the odds ratio (lambda in the paper, beta in TRL), at least 0.
      where: `[B]` bool, False where a pair does not count.

    Returns:
      `[B]` float; 0 where a pair does not count. Log-probabilities above -1e-7 have the
      odds of -1e-7, because those of 0 are infinite; the odds then pull no more.

    Raises:
      ValueError: if shapes disagree or `coefficient` is negative.

    Reference:
      Hong, Lee and Thorne 2024 (arXiv 2403.07691), equation 6.

    >>> loss = orpo_loss(jnp.array([-1.0]), jnp.array([-2.0]))
    >>> print(f"{loss[0]:.3f}")
    1.024
    """
    caller = "odds.orpo_loss"
    if not coefficient >= 0.0:
        raise ValueError(
            f"{caller}: coefficient is {coefficient}; expected at least 0."
        )
    (c, r), present = _log_probs.prepared(
        caller, {"chosen": chosen, "rejected": rejected}, where
    )
    odds = _log_odds(jnp.where(present, c, -1.0)) - _log_odds(
        jnp.where(present, r, -1.0)
    )
    return jnp.where(present, -c - coefficient * jax.nn.log_sigmoid(odds), 0.0)


def _log_odds(x: jax.Array) -> jax.Array:
    x = jnp.minimum(x, -1e-7)
    # log(1 - e^x) in the branch that keeps its digits (Maechler 2012).
    near = x > -0.6931472
    small = jnp.log(-jnp.expm1(jnp.where(near, x, -0.5)))
    large = jnp.log1p(-jnp.exp(jnp.where(near, -1.0, x)))
    return x - jnp.where(near, small, large)
