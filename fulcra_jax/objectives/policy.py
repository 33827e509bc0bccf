# SPDX-License-Identifier: Apache-2.0
"""Policy-gradient losses per token: PPO and its parts.

Everything is an array in and an array out: no model, no trainer. `log_prob` is what the
gradient flows through; old log-probabilities and advantages are constants to it.

Axes: B sequences, T tokens, W vocabulary.
"""

import jax
import jax.numpy as jnp

from fulcra_jax import _check
from fulcra_jax.objectives.kl import LIMIT, kl_estimate
from fulcra_jax.objectives.reduce import masked_mean


def token_log_probs(
    logits: jax.Array,
    tokens: jax.Array,
    *,
    temperature: float = 1.0,
    where: jax.Array | None = None,
) -> jax.Array:
    """The log-probability of every token that was drawn.

    log softmax(logits / temperature)[token]

    Args:
      logits: `[..., W]` float that the token was drawn from: those of the place before
        it.
      tokens: `[...]` int in `[0, W)`.
      temperature: the one that was sampled with.
      where: `[...]` bool, False where no token stands.

    Returns:
      `[...]` float <= 0; 0 where no token stands, NaN for an id outside.

    Raises:
      ValueError: if shapes disagree or `temperature` is not above 0.

    Reference:
      TRL 0.11.4, logprobs_from_logits.

    >>> print(token_log_probs(jnp.zeros((1, 4)), jnp.array([2])).round(3))
    [-1.386]
    """
    caller = "policy.token_log_probs"
    logits, present = _logits(caller, logits, temperature, where)
    if tokens.shape != logits.shape[:-1]:
        raise ValueError(
            f"{caller}: tokens has shape {tokens.shape}; expected {logits.shape[:-1]}, "
            "the shape of logits without W."
        )
    inside = (tokens >= 0) & (tokens < logits.shape[-1])
    at = jnp.where(present & inside, tokens, 0)
    chosen = jnp.take_along_axis(logits, at[..., None], -1)[..., 0]
    log_prob = chosen - jax.nn.logsumexp(logits, axis=-1)
    return jnp.where(present, jnp.where(inside, log_prob, jnp.nan), 0.0)


def token_entropy(
    logits: jax.Array, *, temperature: float = 1.0, where: jax.Array | None = None
) -> jax.Array:
    """The entropy of the next-token distribution: a bonus, and a monitor of collapse.

    -sum_w p_w log p_w

    Args:
      logits: `[..., W]` float; -inf for a token that cannot come.
      temperature: the one that is sampled with.
      where: `[...]` bool, False where no token stands.

    Returns:
      `[...]` float in [0, log W], in nats; 0 where no token stands.

    Raises:
      ValueError: if shapes disagree or `temperature` is not above 0.

    Reference:
      Shannon 1948; TRL 0.11.4, entropy_from_logits.

    >>> print(token_entropy(jnp.zeros((1, 4))).round(3))
    [1.386]
    """
    caller = "policy.token_entropy"
    logits, present = _logits(caller, logits, temperature, where)
    log_p = jax.nn.log_softmax(logits)
    possible = ~(log_p == -jnp.inf)  # NaN is kept, so that it is seen
    log_p = jnp.where(possible, log_p, 0.0)
    entropy = -jnp.where(possible, jnp.exp(log_p) * log_p, 0.0).sum(-1)
    return jnp.where(present, entropy, 0.0)


def ppo_policy_loss(
    log_prob: jax.Array,
    old_log_prob: jax.Array,
    advantages: jax.Array,
    *,
    clip_low: float = 0.2,
    clip_high: float | None = None,
    dual_clip: float | None = None,
    ratio_threshold: float | None = None,
    where: jax.Array | None = None,
) -> jax.Array:
    """The clipped surrogate of PPO, to be minimized.

    max(-A rho, -A clip(rho, 1 - low, 1 + high)), rho = p / p_old; with `dual_clip` c
    and A < 0 no more than -c A.

    Args:
      log_prob: `[B, T]` float, under the policy.
      old_log_prob: `[B, T]` float, under the policy that drew the tokens.
      advantages: `[B, T]` float.
      clip_low: in [0, 1].
      clip_high: at least 0; `clip_low` if not given. Larger lets rare tokens rise.
      dual_clip: above 1; bounds the loss of a token that became likely and was bad.
      ratio_threshold: where the mean of rho over all tokens given is above it, the loss
        of all of them is 0; TRL 0.11.4 has 10 and skips the value loss as well.
      where: `[B, T]` bool, False where no token stands.

    Returns:
      `[B, T]` float; 0 where no token stands. Reduce it by `masked_mean`. The log-ratio
      is cut at -+20. No gradient flows through `old_log_prob` and `advantages`.

    Raises:
      ValueError: if shapes disagree or a number is out of range.

    Reference:
      Schulman et al. 2017 (arXiv 1707.06347), equation 7; Ye et al. 2020 (arXiv
      1912.09729), dual clip; Yu et al. 2025 (arXiv 2503.14476), clip_high.

    >>> new, old = jnp.log(jnp.array([[0.9, 0.5]])), jnp.log(jnp.array([[0.5, 0.5]]))
    >>> print(ppo_policy_loss(new, old, jnp.ones((1, 2))).round(3))
    [[-1.2 -1. ]]
    """
    caller = "policy.ppo_policy_loss"
    clip_high = clip_low if clip_high is None else clip_high
    if not 0.0 <= clip_low <= 1.0:
        raise ValueError(f"{caller}: clip_low is {clip_low}; expected it in [0, 1].")
    if not clip_high >= 0.0:
        raise ValueError(f"{caller}: clip_high is {clip_high}; expected at least 0.")
    if dual_clip is not None and not dual_clip > 1.0:
        raise ValueError(f"{caller}: dual_clip is {dual_clip}; expected more than 1.")
    ratio, gain, present = _ratio(caller, log_prob, old_log_prob, advantages, where)
    clipped = jnp.clip(ratio, 1.0 - clip_low, 1.0 + clip_high)
    loss = jnp.maximum(-gain * ratio, -gain * clipped)
    if dual_clip is not None:
        loss = jnp.where(gain < 0.0, jnp.minimum(loss, -dual_clip * gain), loss)
    if ratio_threshold is not None:
        mean = masked_mean(jax.lax.stop_gradient(ratio), present)
        loss = jnp.where(mean > ratio_threshold, 0.0, loss)
    return jnp.where(present, loss, 0.0)


def clip_fraction(
    log_prob: jax.Array,
    old_log_prob: jax.Array,
    advantages: jax.Array,
    *,
    clip_low: float = 0.2,
    clip_high: float | None = None,
    where: jax.Array | None = None,
) -> jax.Array:
    """The share of tokens that clipping takes the gradient from.

    Where rho > 1 + high and A > 0, or rho < 1 - low and A < 0.

    Args:
      log_prob: `[B, T]` float, under the policy.
      old_log_prob: `[B, T]` float, under the policy that drew the tokens.
      advantages: `[B, T]` float.
      clip_low: as in `ppo_policy_loss`.
      clip_high: as in `ppo_policy_loss`.
      where: `[B, T]` bool, False where no token stands.

    Returns:
      `[]` float in [0, 1]; 0 without a token. More than a third says that the steps are
      too large or the samples too old.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      TRL 0.11.4, PPOTrainer.loss, policy/clipfrac.

    >>> new, old = jnp.log(jnp.array([[0.9, 0.5]])), jnp.log(jnp.array([[0.5, 0.5]]))
    >>> clip_fraction(new, old, jnp.ones((1, 2))).item()
    0.5
    """
    caller = "policy.clip_fraction"
    clip_high = clip_low if clip_high is None else clip_high
    ratio, gain, present = _ratio(caller, log_prob, old_log_prob, advantages, where)
    stopped = ((ratio > 1.0 + clip_high) & (gain > 0.0)) | (
        (ratio < 1.0 - clip_low) & (gain < 0.0)
    )
    share = jnp.where(jnp.isnan(ratio * gain), jnp.nan, stopped.astype(ratio.dtype))
    return masked_mean(share, present)


def approximate_kl(
    log_prob: jax.Array, old_log_prob: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """How far the policy has moved since the tokens were drawn: a monitor.

    mean of (log p - log p_old)^2 / 2, over the tokens

    Args:
      log_prob: `[B, T]` float, under the policy.
      old_log_prob: `[B, T]` float, under the policy that drew the tokens.
      where: `[B, T]` bool, False where no token stands.

    Returns:
      `[]` non-negative float, in nats per token; 0 without a token.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Schulman 2020, "Approximating KL divergence", k2; TRL 0.11.4, policy/approxkl.

    >>> approximate_kl(jnp.array([[-1.0, -1.0]]), jnp.array([[-3.0, -1.0]])).item()
    1.0
    """
    _check.shapes(
        "policy.approximate_kl",
        log_prob=(log_prob, "B T"),
        old_log_prob=(old_log_prob, "B T"),
        where=(where, "B T"),
    )
    estimate = kl_estimate(log_prob, old_log_prob, kind="k2", where=where)
    return masked_mean(estimate, where)


def ppo_value_loss(
    values: jax.Array,
    old_values: jax.Array,
    returns: jax.Array,
    *,
    clip: float = 0.2,
    where: jax.Array | None = None,
) -> jax.Array:
    """The clipped error of the value function.

    1/2 max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2)

    Args:
      values: `[B, T]` float, V.
      old_values: `[B, T]` float, when the tokens were drawn.
      returns: `[B, T]` float, of `generalized_advantage`.
      clip: c > 0, in units of the reward: too small a value freezes the function.
      where: `[B, T]` bool, False where no token stands.

    Returns:
      `[B, T]` non-negative float; 0 where no token stands. No gradient flows through
      `old_values` and `returns`.

    Raises:
      ValueError: if shapes disagree or `clip` is not above 0.

    Reference:
      Ouyang et al. 2022 (arXiv 2203.02155); TRL 0.11.4, PPOTrainer.loss.

    >>> x = lambda number: jnp.full((1, 1), number)
    >>> print(ppo_value_loss(x(1.0), x(0.0), x(1.0)).round(2))
    [[0.32]]
    """
    caller = "policy.ppo_value_loss"
    if not clip > 0.0:
        raise ValueError(f"{caller}: clip is {clip}; expected more than 0.")
    _check.shapes(
        caller,
        values=(values, "B T"),
        old_values=(old_values, "B T"),
        returns=(returns, "B T"),
        where=(where, "B T"),
    )
    dtype = jnp.promote_types(jnp.result_type(values, old_values, returns), jnp.float32)
    present = _present(values, where)
    value, old, goal = (
        jnp.where(present, x.astype(dtype), 0.0) for x in (values, old_values, returns)
    )
    old, goal = jax.lax.stop_gradient((old, goal))
    near = jnp.clip(value, old - clip, old + clip)
    return 0.5 * jnp.maximum((value - goal) ** 2, (near - goal) ** 2)


def reinforce_loss(
    log_prob: jax.Array, advantages: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """The plain policy gradient.

    -A log p

    Args:
      log_prob: `[B, T]` float, of tokens that this policy drew.
      advantages: `[B, T]` float; no gradient flows through them.
      where: `[B, T]` bool, False where no token stands.

    Returns:
      `[B, T]` float; 0 where no token stands. The value says nothing, the gradient
      does.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Williams 1992, "Simple statistical gradient-following algorithms".

    >>> reinforce_loss(jnp.array([[-1.0]]), jnp.array([[2.0]])).tolist()
    [[2.0]]
    """
    _check.shapes(
        "policy.reinforce_loss",
        log_prob=(log_prob, "B T"),
        advantages=(advantages, "B T"),
        where=(where, "B T"),
    )
    dtype = jnp.promote_types(jnp.result_type(log_prob, advantages), jnp.float32)
    present = _present(log_prob, where)
    gain = jax.lax.stop_gradient(jnp.where(present, advantages.astype(dtype), 0.0))
    return -gain * jnp.where(present, log_prob.astype(dtype), 0.0)


def _ratio(
    caller: str,
    log_prob: jax.Array,
    old_log_prob: jax.Array,
    advantages: jax.Array,
    where: jax.Array | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """p / p_old, the advantages and the mask; 1 and 0 where masked."""
    _check.shapes(
        caller,
        log_prob=(log_prob, "B T"),
        old_log_prob=(old_log_prob, "B T"),
        advantages=(advantages, "B T"),
        where=(where, "B T"),
    )
    dtype = jnp.promote_types(
        jnp.result_type(log_prob, old_log_prob, advantages), jnp.float32
    )
    present = _present(log_prob, where)
    new, old, gain = (
        jnp.where(present, x.astype(dtype), 0.0)
        for x in (log_prob, old_log_prob, advantages)
    )
    old, gain = jax.lax.stop_gradient((old, gain))
    return jnp.exp(jnp.clip(new - old, -LIMIT, LIMIT)), gain, present


def _logits(
    caller: str, logits: jax.Array, temperature: float, where: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    if not temperature > 0.0:
        raise ValueError(
            f"{caller}: temperature is {temperature}; expected more than 0."
        )
    if where is not None and where.shape != logits.shape[:-1]:
        raise ValueError(
            f"{caller}: where has shape {where.shape}; expected {logits.shape[:-1]}, "
            "the shape of logits without W."
        )
    present = jnp.ones(logits.shape[:-1], bool)
    if where is not None:
        present = jnp.asarray(where, bool)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32)) / temperature
    return jnp.where(present[..., None], logits, 0.0), present


def _present(x: jax.Array, where: jax.Array | None) -> jax.Array:
    return jnp.ones(x.shape, bool) if where is None else jnp.asarray(where, bool)
