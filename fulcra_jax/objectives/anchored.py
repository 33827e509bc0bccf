# SPDX-License-Identifier: Apache-2.0
"""Losses that hold each answer against the reference by itself, not against another.

A margin between two answers can grow while both become less likely; here each has an
anchor of its own. l = log p - log p_ref of a whole answer, summed over its tokens.

Axes: B answers or pairs.
"""

import jax
import jax.numpy as jnp

from fulcra_jax import _check
from fulcra_jax.objectives import _log_probs


def kto_anchor(
    log_prob: jax.Array,
    reference_log_prob: jax.Array,
    *,
    where: jax.Array | None = None,
    axis_name: str | None = None,
) -> jax.Array:
    """The point of reference of `kto_loss`: how far the policy has moved as a whole.

    z = max(0, mean(log p - log p_ref)) over answers paired with *other* prompts

    Args:
      log_prob: `[B]` float, of answers under the policy, each after a prompt that it
        does not belong to (TRL shifts the answers of a batch by one).
      reference_log_prob: `[B]` float, under the reference.
      where: `[B]` bool, False where an answer does not count.
      axis_name: of `jax.vmap`, `jax.pmap` or `jax.shard_map`, if the batch is spread
        over devices: then the mean is over all their answers.

    Returns:
      `[]` non-negative float, 0 if no answer counts. No gradient flows through it.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Ethayarajh et al. 2024 (arXiv 2402.01306), section 4.1.

    >>> kto_anchor(jnp.array([-1.0, -2.0]), jnp.array([-2.0, -2.0])).item()
    0.5
    """
    caller = "anchored.kto_anchor"
    named = {"log_prob": log_prob, "reference_log_prob": reference_log_prob}
    (p, p_ref), present = _log_probs.prepared(caller, named, where)
    total, count = (p - p_ref).sum(), present.sum().astype(p.dtype)
    if axis_name is not None:
        total, count = jax.lax.psum((total, count), axis_name)
    return jax.lax.stop_gradient(jnp.maximum(total / jnp.maximum(count, 1.0), 0.0))


def kto_loss(
    log_prob: jax.Array,
    reference_log_prob: jax.Array,
    desirable: jax.Array,
    anchor: jax.Array,
    *,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
    where: jax.Array | None = None,
) -> jax.Array:
    """Kahneman-Tversky optimization: answers judged alone, not in pairs.

    w_d (1 - s(b (l - z))) for a desirable answer, w_u (1 - s(b (z - l))) for another.

    From values: an answer is desirable if its distance to the target is below a cut.

    Args:
      log_prob: `[B]` float, of whole answers under the policy.
      reference_log_prob: `[B]` float, under the reference; no gradient flows through
        it.
      desirable: `[B]` bool.
      anchor: `[]` float, z of `kto_anchor`; no gradient flows through it.
      beta: b > 0.
      desirable_weight: w_d.
      undesirable_weight: w_u; w_d n_d / (w_u n_u) should lie in [1, 4/3], n the numbers
        of such answers.
      where: `[B]` bool, False where an answer does not count.

    Returns:
      `[B]` float in [0, max weight]; 0 where an answer does not count.

    Raises:
      ValueError: if shapes disagree or `beta` is not above 0.

    Reference:
      Ethayarajh et al. 2024 (arXiv 2402.01306), equation 8.

    >>> lp, ref = jnp.array([-2.0, -4.0]), jnp.array([-3.0, -3.0])
    >>> loss = kto_loss(lp, ref, jnp.array([True, False]), jnp.array(0.0))
    >>> [round(float(x), 3) for x in loss]
    [0.475, 0.475]
    """
    caller = "anchored.kto_loss"
    _log_probs.positive(caller, "beta", beta)
    _check.shapes(
        caller,
        log_prob=(log_prob, "B"),
        desirable=(desirable, "B"),
        anchor=(anchor, ""),
    )
    named = {"log_prob": log_prob, "reference_log_prob": reference_log_prob}
    (p, p_ref), present = _log_probs.prepared(caller, named, where)
    z = jax.lax.stop_gradient(anchor.astype(p.dtype))
    away = p - jax.lax.stop_gradient(p_ref) - z
    good = jnp.asarray(desirable, bool)
    # 1 - s(x) is s(-x), which keeps its digits where it is small.
    lost = jax.nn.sigmoid(beta * jnp.where(good, -away, away))
    weight = jnp.where(good, desirable_weight, undesirable_weight).astype(p.dtype)
    return jnp.where(present, weight * lost, 0.0)


def apo_zero_loss(
    chosen: jax.Array,
    rejected: jax.Array,
    reference_chosen: jax.Array,
    reference_rejected: jax.Array,
    *,
    beta: float = 0.1,
    where: jax.Array | None = None,
) -> jax.Array:
    """Anchored preference optimization: the better answer up, the other down.

    (1 - s(b l_c)) + s(b l_r)

    For pairs whose better answer is better than what the policy says anyhow.

    Args:
      chosen: `[B]` float, log-probability of the better answer under the policy.
      rejected: `[B]` float, of the other.
      reference_chosen: `[B]` float, under the reference; no gradient flows through it.
      reference_rejected: `[B]` float.
      beta: b > 0.
      where: `[B]` bool, False where a pair does not count.

    Returns:
      `[B]` float in [0, 2]; 0 where a pair does not count.

    Raises:
      ValueError: if shapes disagree or `beta` is not above 0.

    Reference:
      D'Oosterlinck et al. 2024 (arXiv 2408.06266), equation 7.

    >>> x = lambda number: jnp.array([number])
    >>> loss = apo_zero_loss(x(-2.0), x(-4.0), x(-3.0), x(-3.0))
    >>> print(f"{loss[0]:.3f}")
    0.950
    """
    caller = "anchored.apo_zero_loss"
    _log_probs.positive(caller, "beta", beta)
    c, r, present = _log_probs.ratios(
        caller, chosen, rejected, reference_chosen, reference_rejected, where
    )
    loss = jax.nn.sigmoid(-beta * c) + jax.nn.sigmoid(beta * r)
    return jnp.where(present, loss, 0.0)


def sppo_loss(
    chosen: jax.Array,
    rejected: jax.Array,
    reference_chosen: jax.Array,
    reference_rejected: jax.Array,
    *,
    beta: float = 0.1,
    labels: jax.Array | None = None,
    where: jax.Array | None = None,
) -> jax.Array:
    """Self-play preference optimization: each log-ratio has a number to reach.

    (l_c - (p - 1/2) / b)^2 + (l_r + (p - 1/2) / b)^2

    Args:
      chosen: `[B]` float, log-probability of the better answer under the policy.
      rejected: `[B]` float, of the other.
      reference_chosen: `[B]` float, under the reference; no gradient flows through it.
      reference_rejected: `[B]` float.
      beta: b > 0, 1 / eta of the paper.
      labels: `[B]` float p in [0, 1], P(the chosen is better), for example of
        `preference_labels`; 1 if not given (sppo_hard of TRL).
      where: `[B]` bool, False where a pair does not count.

    Returns:
      `[B]` non-negative float; 0 where a pair does not count.

    Raises:
      ValueError: if shapes disagree or `beta` is not above 0.

    Reference:
      Wu et al. 2024 (arXiv 2405.00675), equation 4.7.

    >>> x = lambda number: jnp.array([number])
    >>> sppo_loss(x(-2.0), x(-4.0), x(-3.0), x(-3.0), beta=0.5).tolist()
    [0.0]
    """
    caller = "anchored.sppo_loss"
    _log_probs.positive(caller, "beta", beta)
    _check.shapes(caller, chosen=(chosen, "B"), labels=(labels, "B"))
    c, r, present = _log_probs.ratios(
        caller, chosen, rejected, reference_chosen, reference_rejected, where
    )
    goal = 0.5 / beta
    if labels is not None:
        goal = (jnp.where(present, labels.astype(c.dtype), 0.5) - 0.5) / beta
    return jnp.where(present, (c - goal) ** 2 + (r + goal) ** 2, 0.0)
