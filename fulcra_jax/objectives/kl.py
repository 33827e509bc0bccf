# SPDX-License-Identifier: Apache-2.0
"""How far a policy has moved from its reference: estimates, losses, a controller.

Which estimator goes where matters more than which has the least variance. The gradient
of the reverse KL, KL(policy || reference), is what is wanted:

| estimator | in the reward | in the loss, on-policy |
| --- | --- | --- |
| k1 | reverse KL | 0 on average: noise without a pull |
| k2 | - | reverse KL |
| k3 | - | forward KL, KL(reference || policy) |
| abs | - | neither |

`kl_loss` corrects for the sampling, and has the right gradient off-policy too.

Axes: B sequences, T tokens, W vocabulary.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from fulcra_jax import _check

Estimator = Literal["k1", "abs", "k2", "k3"]
LIMIT = 20.0
"""Log-ratios are cut here before they are exponentiated: e^20 is 5e8."""


def kl_estimate(
    log_prob: jax.Array,
    reference_log_prob: jax.Array,
    *,
    kind: Estimator = "k1",
    where: jax.Array | None = None,
) -> jax.Array:
    """An estimate of KL(policy || reference) from tokens that the policy drew.

    With d = log p - log p_ref: k1 = d, abs = |d|, k2 = d^2 / 2, k3 = e^-d - 1 + d.

    k1 and k3 are unbiased, k3 is never negative; k2 and abs are biased. For a penalty
    take k1 in the reward (`token_rewards`), or `kl_loss` in the loss.

    Args:
      log_prob: `[...]` float, of the drawn tokens under the policy.
      reference_log_prob: `[...]` float, under the reference.
      kind: see above. k3 cuts d at -+20.
      where: `[...]` bool, False where no token stands.

    Returns:
      `[...]` float; 0 where no token stands.

    Raises:
      ValueError: if shapes disagree.
      KeyError: if `kind` is unknown.

    Reference:
      Schulman 2020, "Approximating KL divergence"; TRL 0.11.4, PPOTrainer._kl_penalty.

    >>> kl_estimate(jnp.array([-1.0, -2.0]), jnp.array([-1.5, -2.0])).tolist()
    [0.5, 0.0]
    """
    caller = "kl.kl_estimate"
    _check.known(caller, "kind", kind, get_args(Estimator))
    away, present = _log_ratio(
        caller, log_prob, where, reference_log_prob=reference_log_prob
    )
    return jnp.where(present, _of_kind(away, kind), 0.0)


def kl_loss(
    log_prob: jax.Array,
    behavior_log_prob: jax.Array,
    reference_log_prob: jax.Array,
    *,
    kind: Literal["k1", "k2", "k3"] = "k3",
    where: jax.Array | None = None,
) -> jax.Array:
    """A penalty whose gradient is that of KL(policy || reference), also off-policy.

    With rho = p / p_behavior: rho k1, sg(rho) k2, rho k3; no gradient flows through
    `behavior_log_prob` and `reference_log_prob`, and none through rho in k2. What is
    corrected is the choice of the token, not that of the tokens before it.

    Args:
      log_prob: `[...]` float, of the drawn tokens under the policy.
      behavior_log_prob: `[...]` float, under the policy that drew them; `log_prob`
        itself while the policy has not moved.
      reference_log_prob: `[...]` float, under the reference.
      kind: k3 has the least variance near the reference. The value of k2 is no
        estimate of the KL, its gradient is.
      where: `[...]` bool, False where no token stands.

    Returns:
      `[...]` float; 0 where no token stands. Log-ratios are cut at -+20. The gradient
      of k3 is written out, rho d: differentiate it once only.

    Raises:
      ValueError: if shapes disagree.
      KeyError: if `kind` is unknown.

    Reference:
      Tang and Munos 2025, "On a few pitfalls in KL divergence gradient estimation for
      RL"; TRL 1.16, use_bias_correction_kl.

    >>> lp = jnp.array([-1.0])
    >>> kl_loss(lp, lp, jnp.array([-1.5]), kind="k1").tolist()
    [0.5]
    """
    caller = "kl.kl_loss"
    _check.known(caller, "kind", kind, ("k1", "k2", "k3"))
    behavior = jax.lax.stop_gradient(behavior_log_prob)
    reference = jax.lax.stop_gradient(reference_log_prob)
    away, present = _log_ratio(caller, log_prob, where, reference_log_prob=reference)
    moved, _ = _log_ratio(caller, log_prob, where, behavior_log_prob=behavior)
    ratio = jnp.exp(jnp.clip(moved, -LIMIT, LIMIT))
    if kind == "k2":
        ratio = jax.lax.stop_gradient(ratio)
    penalty = ratio * _of_kind(away, kind)
    if kind == "k3":
        # The gradient of rho k3 is rho k1. By parts e^-d cancels against itself, which
        # float32 cannot do from d = -18 on, and which the cut undoes from -20 on.
        pull = jax.lax.stop_gradient(ratio * away)
        stay = jax.lax.stop_gradient((penalty, away))
        penalty = stay[0] + pull * (away - stay[1])
    return jnp.where(present, penalty, 0.0)


def full_kl(
    logits: jax.Array, reference_logits: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """KL(policy || reference) of the next-token distributions, summed exactly.

    sum_w p_w (log p_w - log r_w)

    Args:
      logits: `[..., W]` float, of the policy; -inf for a token that cannot come.
      reference_logits: `[..., W]` float.
      where: `[...]` bool, False where no token stands.

    Returns:
      `[...]` non-negative float; inf where the policy has a token that the reference
      excludes, 0 where no token stands.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Kullback and Leibler 1951.

    >>> print(f"{full_kl(jnp.array([0.0, 0.0]), jnp.array([1.0, 0.0])):.4f}")
    0.1201
    """
    caller = "kl.full_kl"
    if logits.shape != reference_logits.shape:
        raise ValueError(
            f"{caller}: reference_logits has shape {reference_logits.shape}; expected "
            f"that of logits, {logits.shape}."
        )
    if where is not None and where.shape != logits.shape[:-1]:
        raise ValueError(
            f"{caller}: where has shape {where.shape}; expected {logits.shape[:-1]}."
        )
    dtype = jnp.promote_types(
        jnp.promote_types(logits.dtype, reference_logits.dtype), jnp.float32
    )
    logits, reference = logits.astype(dtype), reference_logits.astype(dtype)
    if where is not None:
        where = jnp.asarray(where, bool)
        logits = jnp.where(where[..., None], logits, 0.0)
        reference = jnp.where(where[..., None], reference, 0.0)
    log_p, log_r = jax.nn.log_softmax(logits), jax.nn.log_softmax(reference)
    possible = ~(log_p == -jnp.inf)  # NaN is kept, so that it is seen
    away = jnp.where(possible, log_p, 0.0) - jnp.where(possible, log_r, 0.0)
    terms = jnp.where(possible, jnp.exp(log_p) * away, 0.0)
    return jnp.maximum(terms.sum(-1), 0.0)


def adaptive_kl_coefficient(
    coefficient: jax.Array,
    kl: jax.Array,
    *,
    target: float = 6.0,
    horizon: float = 10_000.0,
    batch_size: int,
) -> jax.Array:
    """The next coefficient of the KL penalty: raised while the KL is above its target.

    b' = b (1 + clip(kl / target - 1, -0.2, 0.2) n / horizon)

    The released training starts at 0.1 with these defaults and n = 32: no more than
    0.064 % a step. A negative estimate of the KL lowers the coefficient.

    Args:
      coefficient: `[]` float, b: the state, passed on from step to step.
      kl: `[]` float, the mean over sequences of the sum over tokens of k1.
      target: nats per sequence.
      horizon: sequences in which the coefficient could change by a fifth.
      batch_size: n, the sequences of this step.

    Returns:
      `[]` float; unchanged where `kl` is NaN.

    Raises:
      ValueError: if `target` or `horizon` is not above 0.

    Reference:
      Ziegler et al. 2019 (arXiv 1909.08593), section 2.2; TRL 0.11.4,
      AdaptiveKLController.

    >>> b = adaptive_kl_coefficient(jnp.array(0.1), jnp.array(60.0), batch_size=32)
    >>> print(f"{b:.6f}")
    0.100064
    """
    for name, number in (("target", target), ("horizon", horizon)):
        if not number > 0.0:
            raise ValueError(
                f"kl.adaptive_kl_coefficient: {name} is {number}; expected more than 0."
            )
    dtype = jnp.promote_types(jnp.result_type(coefficient, kl), jnp.float32)
    coefficient, kl = jnp.asarray(coefficient, dtype), jnp.asarray(kl, dtype)
    known = ~jnp.isnan(kl)
    error = jnp.clip(jnp.where(known, kl, target) / target - 1.0, -0.2, 0.2)
    return coefficient * (1.0 + error * batch_size / horizon)


def _of_kind(away: jax.Array, kind: Estimator) -> jax.Array:
    match kind:
        case "k1":
            return away
        case "abs":
            return jnp.abs(away)
        case "k2":
            return 0.5 * away**2
        case _:
            cut = jnp.clip(away, -LIMIT, LIMIT)
            return jnp.expm1(-cut) + cut


def _log_ratio(
    caller: str, log_prob: jax.Array, where: jax.Array | None, **other: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The difference in the work dtype, 0 where masked, and the mask."""
    ((name, subtracted),) = other.items()
    axes = " ".join(f"A{i}" for i in range(log_prob.ndim))
    arrays = {"log_prob": (log_prob, axes), name: (subtracted, axes)}
    _check.shapes(caller, **arrays, where=(where, axes))
    dtype = jnp.promote_types(jnp.result_type(log_prob, subtracted), jnp.float32)
    present = jnp.ones(log_prob.shape, bool)
    if where is not None:
        present = jnp.asarray(where, bool)
    mine, theirs = (
        jnp.where(present, x.astype(dtype), 0.0) for x in (log_prob, subtracted)
    )
    return mine - theirs, present
