# SPDX-License-Identifier: Apache-2.0
"""The critic-free losses GRPO, DAPO, BNPO, Dr. GRPO, GSPO and CISPO.

They differ in the ratio that is clipped and in what the sum over tokens is divided by:
the aggregation is the algorithm, so these return a number.

Axes: B sequences, T tokens.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from fulcra_jax import _check
from fulcra_jax.objectives import kl
from fulcra_jax.objectives.policy import ppo_policy_loss

Algorithm = Literal["grpo", "bnpo", "dapo", "dr_grpo", "gspo", "cispo"]
Aggregation = Literal["token_mean", "sequence_mean", "constant"]


def aggregate_tokens(
    x: jax.Array,
    *,
    kind: Aggregation = "token_mean",
    where: jax.Array | None = None,
    size: jax.Array | float | None = None,
) -> jax.Array:
    """From a loss per token to one number.

    token_mean: the sum over all tokens / their number, so that long answers weigh more;
    sequence_mean: the mean over sequences of their means, so that a token of a long
    answer weighs less; constant: the sum / `size`, without any bias from lengths.

    Args:
      x: `[B, T]` float.
      kind: see above.
      where: `[B, T]` bool, False where no token stands.
      size: for "constant" what to divide by, for example B times the most tokens an
        answer may have; for "token_mean" the number of tokens of the whole batch, where
        this is a part of it.

    Returns:
      `[]` float; 0 without a token. A sequence without tokens counts in B, as in TRL;
      verl leaves it out.

    Raises:
      ValueError: if shapes disagree, or "constant" has no size.
      KeyError: if `kind` is unknown.

    Reference:
      Yu et al. 2025 (arXiv 2503.14476), section 3.3; Liu et al. 2025 (arXiv
      2503.20783), section 3.

    >>> x = jnp.array([[1.0, 3.0], [4.0, 0.0]])
    >>> where = jnp.array([[True, True], [True, False]])
    >>> print(f"{aggregate_tokens(x, where=where):.3f}")
    2.667
    >>> aggregate_tokens(x, kind="sequence_mean", where=where).item()
    3.0
    """
    caller = "grpo.aggregate_tokens"
    _check.known(caller, "kind", kind, get_args(Aggregation))
    _check.shapes(caller, x=(x, "B T"), where=(where, "B T"))
    present = jnp.ones(x.shape, bool) if where is None else jnp.asarray(where, bool)
    x = jnp.where(present, x.astype(jnp.promote_types(x.dtype, jnp.float32)), 0.0)
    count_b = present.sum(1).astype(x.dtype)
    if kind == "sequence_mean":
        return (x.sum(1) / jnp.maximum(count_b, 1.0)).sum() / max(x.shape[0], 1)
    if kind == "token_mean":
        tokens = jnp.asarray(count_b.sum() if size is None else size, x.dtype)
        return x.sum() / jnp.maximum(tokens, 1.0)
    if size is None:
        raise ValueError(f"{caller}: kind 'constant' needs size, what to divide by.")
    return x.sum() / jnp.asarray(size, x.dtype)


def grpo_loss(
    log_prob: jax.Array,
    old_log_prob: jax.Array,
    advantages: jax.Array,
    *,
    kind: Algorithm = "dapo",
    clip_low: float = 0.2,
    clip_high: float | None = None,
    ratio_threshold: float | None = None,
    max_length: int | None = None,
    num_tokens: jax.Array | float | None = None,
    reference_log_prob: jax.Array | None = None,
    kl_coefficient: jax.Array | float = 0.0,
    kl_corrected: bool = True,
    where: jax.Array | None = None,
) -> jax.Array:
    """The loss of the GRPO family on one batch, to be minimized.

    | kind | per token | aggregation |
    | --- | --- | --- |
    | grpo | clipped ratio | mean over sequences of their token means |
    | bnpo | clipped ratio | mean over the tokens of this batch |
    | dapo | clipped ratio | sum / `num_tokens` of the whole batch |
    | dr_grpo | clipped ratio | sum / (B max_length) |
    | gspo | ratio of the sequence, exp(mean log-ratio), clipped | as grpo |
    | cispo | -sg(min(ratio, clip_high)) A log p | as dapo |

    plus `kl_coefficient` times k3 per token. No gradient flows through `old_log_prob`,
    `reference_log_prob` and `advantages`.

    Args:
      log_prob: `[B, T]` float, under the policy.
      old_log_prob: `[B, T]` float, under the policy that drew the tokens.
      advantages: `[B]` float, of `group_advantage` or `gdpo_advantage`, flattened.
      kind: see above.
      clip_low: as in `ppo_policy_loss`; GSPO wants some 3e-4.
      clip_high: `clip_low` if not given; DAPO has 0.28. For cispo the largest ratio
        itself, 5 if not given.
      ratio_threshold: as in `ppo_policy_loss`; the KL penalty stays. Not for cispo.
      max_length: the most tokens an answer may have, for dr_grpo; T if not given.
      num_tokens: of the whole batch, for dapo and cispo where this is a part of it;
        those of this batch if not given.
      reference_log_prob: `[B, T]` float, for the KL penalty.
      kl_coefficient: of the KL penalty; a number, or `[]`, for example of
        `adaptive_kl_coefficient`.
      kl_corrected: takes `kl_loss`, whose gradient is the reverse KL also off-policy;
        False takes the plain k3, whose gradient on-policy is the forward KL. The ratio
        is that of the token also for gspo, where TRL 1.16 takes that of the sequence.
      where: `[B, T]` bool, False where no token stands.

    Returns:
      `[]` float; 0 without a token.

    Raises:
      ValueError: if shapes disagree, a number is out of range, or the penalty has no
        reference.
      KeyError: if `kind` is unknown.

    Reference:
      Shao et al. 2024 (arXiv 2402.03300); Yu et al. 2025 (arXiv 2503.14476), DAPO; Liu
      et al. 2025 (arXiv 2503.20783), Dr. GRPO; Zheng et al. 2025 (arXiv 2507.18071),
      GSPO; MiniMax 2025 (arXiv 2506.13585), CISPO.

    >>> lp = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.5]]))
    >>> where = jnp.array([[True, True], [True, False]])
    >>> loss = grpo_loss(lp, lp, jnp.array([1.0, -1.0]), where=where)
    >>> print(f"{loss:.3f}")
    -0.333
    """
    caller = "grpo.grpo_loss"
    _check.known(caller, "kind", kind, get_args(Algorithm))
    _check.shapes(
        caller,
        log_prob=(log_prob, "B T"),
        old_log_prob=(old_log_prob, "B T"),
        advantages=(advantages, "B"),
        reference_log_prob=(reference_log_prob, "B T"),
        where=(where, "B T"),
    )
    # A traced coefficient, of the adaptive controller, cannot be asked if it is 0.
    penalized = not (isinstance(kl_coefficient, int | float) and kl_coefficient == 0)
    if penalized and reference_log_prob is None:
        raise ValueError(
            f"{caller}: kl_coefficient is {kl_coefficient}, but reference_log_prob is "
            "not given."
        )
    dtype = jnp.promote_types(
        jnp.result_type(log_prob, old_log_prob, advantages), jnp.float32
    )
    present = jnp.ones(log_prob.shape, bool)
    if where is not None:
        present = jnp.asarray(where, bool)
    new, old = (
        jnp.where(present, x.astype(dtype), 0.0) for x in (log_prob, old_log_prob)
    )
    # An answer without a token has no advantage that could be read.
    some_b = present.any(1)
    gain = jnp.where(some_b, advantages.astype(dtype), 0.0)[:, None]
    gain = jax.lax.stop_gradient(jnp.broadcast_to(gain, new.shape))
    old = jax.lax.stop_gradient(old)
    if kind == "cispo":
        ratio = jnp.exp(jnp.clip(new - old, -kl.LIMIT, kl.LIMIT))
        ratio = jnp.minimum(ratio, 5.0 if clip_high is None else clip_high)
        loss = -jax.lax.stop_gradient(ratio) * gain * new
    else:
        if kind == "gspo":
            count = jnp.maximum(present.sum(1, keepdims=True).astype(dtype), 1.0)
            mean = (new - old).sum(1, keepdims=True) / count
            new, old = jnp.broadcast_to(mean, new.shape), jnp.zeros_like(old)
        loss = ppo_policy_loss(
            new,
            old,
            gain,
            clip_low=clip_low,
            clip_high=clip_high,
            ratio_threshold=ratio_threshold,
            where=present,
        )
    if reference_log_prob is not None and penalized:
        now = jnp.where(present, log_prob.astype(dtype), 0.0)
        if kl_corrected:
            penalty = kl.kl_loss(now, old_log_prob, reference_log_prob, where=present)
        else:
            reference = jax.lax.stop_gradient(reference_log_prob)
            penalty = kl.kl_estimate(now, reference, kind="k3", where=present)
        loss = loss + kl_coefficient * penalty
    if kind in ("grpo", "gspo"):
        return aggregate_tokens(loss, kind="sequence_mean", where=present)
    if kind == "dr_grpo":
        size = float(max(loss.shape[0] * (max_length or loss.shape[1]), 1))
        return aggregate_tokens(loss, kind="constant", where=present, size=size)
    size = None if kind == "bnpo" else num_tokens
    return aggregate_tokens(loss, where=present, size=size)


def rloo_loss(
    log_prob: jax.Array,
    old_log_prob: jax.Array,
    advantages: jax.Array,
    *,
    clip_low: float = 0.2,
    clip_high: float | None = None,
    where: jax.Array | None = None,
) -> jax.Array:
    """The clipped surrogate of whole answers, to be minimized.

    `ppo_policy_loss` with rho = exp(sum_t (log p_t - log p_old_t))

    The ratio of a long answer leaves the clipping range after a small step, unlike that
    of gspo, which is its T-th root.

    Args:
      log_prob: `[B, T]` float, under the policy.
      old_log_prob: `[B, T]` float, under the policy that drew the tokens.
      advantages: `[B]` float, of `group_advantage` with kind "rloo".
      clip_low: as in `ppo_policy_loss`.
      clip_high: as in `ppo_policy_loss`.
      where: `[B, T]` bool, False where no token stands.

    Returns:
      `[B]` float; 0 for an answer without a token. TRL takes the mean over B. No
      gradient flows through `old_log_prob` and `advantages`.

    Raises:
      ValueError: if shapes disagree or a number is out of range.

    Reference:
      Ahmadian et al. 2024 (arXiv 2402.14740); TRL 1.16, RLOOTrainer.

    >>> lp = jnp.log(jnp.array([[0.5, 0.5]]))
    >>> rloo_loss(lp, lp, jnp.array([2.0])).tolist()
    [-2.0]
    """
    _check.shapes(
        "grpo.rloo_loss",
        log_prob=(log_prob, "B T"),
        old_log_prob=(old_log_prob, "B T"),
        advantages=(advantages, "B"),
        where=(where, "B T"),
    )
    present = jnp.ones(log_prob.shape, bool)
    if where is not None:
        present = jnp.asarray(where, bool)
    moved = kl.kl_estimate(log_prob, old_log_prob, where=present).sum(1, keepdims=True)
    return ppo_policy_loss(
        moved,
        jnp.zeros_like(moved),
        advantages[:, None],
        clip_low=clip_low,
        clip_high=clip_high,
        where=present.any(1, keepdims=True),
    )[:, 0]
