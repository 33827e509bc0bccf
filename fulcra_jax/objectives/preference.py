# SPDX-License-Identifier: Apache-2.0
"""Losses on pairs of answers, one of which lies nearer to the target.

With log-probabilities of whole answers c (chosen) and r (rejected) under the policy and
under the reference, h = (c - c_ref) - (r - r_ref). Only tokens of the answer count, the
end token in both; no gradient flows through the reference. These losses may lower both
c and r: log `dpo_rewards`. `value_pairs` says which pairs count (`where`).

Axes: B pairs, T tokens.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fulcra_jax import _check
from fulcra_jax.objectives import _log_probs


class Rewards(NamedTuple):
    """Implicit rewards of a pair, `[B]` each: b (log p - log p_ref)."""

    chosen: jax.Array
    rejected: jax.Array


def sequence_log_prob(
    token_log_prob: jax.Array, *, where: jax.Array | None = None, average: bool = False
) -> jax.Array:
    """The log-probability of whole answers.

    The sum over tokens, or their mean (for SimPO, ORPO and IPO of TRL 1).

    Args:
      token_log_prob: `[B, T]` float, of `token_log_probs`.
      where: `[B, T]` bool, False where no token of the answer stands.
      average: True takes the mean.

    Returns:
      `[B]` float; 0 for an answer without tokens.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Rafailov et al. 2023 (arXiv 2305.18290), section 4.

    >>> where = jnp.array([[True, True, False]])
    >>> sequence_log_prob(jnp.array([[-1.0, -2.0, -9.0]]), where=where).tolist()
    [-3.0]
    """
    _check.shapes(
        "preference.sequence_log_prob",
        token_log_prob=(token_log_prob, "B T"),
        where=(where, "B T"),
    )
    dtype = jnp.promote_types(token_log_prob.dtype, jnp.float32)
    present = jnp.ones(token_log_prob.shape, bool)
    if where is not None:
        present = jnp.asarray(where, bool)
    total = jnp.where(present, token_log_prob.astype(dtype), 0.0).sum(1)
    return total / jnp.maximum(present.sum(1), 1) if average else total


def dpo_rewards(
    chosen: jax.Array,
    rejected: jax.Array,
    reference_chosen: jax.Array,
    reference_rejected: jax.Array,
    *,
    beta: float = 0.1,
    where: jax.Array | None = None,
) -> Rewards:
    """What DPO takes for the rewards of the two answers: for logs.

    b (log p - log p_ref)

    Args:
      chosen: `[B]` float, log-probability of the better answer under the policy.
      rejected: `[B]` float, of the other.
      reference_chosen: `[B]` float, under the reference.
      reference_rejected: `[B]` float.
      beta: b > 0.
      where: `[B]` bool, False where a pair does not count.

    Returns:
      `Rewards`, 0 where a pair does not count. The accuracy of a batch is the mean of
      chosen > rejected; chosen rewards that fall say that both answers are being
      unlearned.

    Raises:
      ValueError: if shapes disagree or `beta` is not above 0.

    Reference:
      Rafailov et al. 2023 (arXiv 2305.18290), equation 5.

    >>> x = lambda number: jnp.array([number])
    >>> print(dpo_rewards(x(-2.0), x(-4.0), x(-3.0), x(-3.0)).chosen)
    [0.1]
    """
    caller = "preference.dpo_rewards"
    _log_probs.positive(caller, "beta", beta)
    c, r, _ = _log_probs.ratios(
        caller, chosen, rejected, reference_chosen, reference_rejected, where
    )
    return Rewards(beta * c, beta * r)


def dpo_loss(
    chosen: jax.Array,
    rejected: jax.Array,
    reference_chosen: jax.Array,
    reference_rejected: jax.Array,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    labels: jax.Array | None = None,
    where: jax.Array | None = None,
) -> jax.Array:
    """Direct preference optimization, also with soft labels.

    -p log s(b h) - (1 - p) log s(-b h), s the logistic function, p the labels or
    1 - label_smoothing. Labels from values are `preference_labels`: two answers equally
    far from the target are then held at the margin of the reference.

    Args:
      chosen: `[B]` float, log-probability of the better answer under the policy.
      rejected: `[B]` float, of the other.
      reference_chosen: `[B]` float, under the reference.
      reference_rejected: `[B]` float.
      beta: b > 0: the smaller, the farther the policy may go.
      label_smoothing: in [0, 0.5): the share of pairs believed to be the wrong way
        round (conservative DPO).
      labels: `[B]` float in [0, 1], P(the chosen is better).
      where: `[B]` bool, False where a pair does not count.

    Returns:
      `[B]` non-negative float; 0 where a pair does not count.

    Raises:
      ValueError: if shapes disagree, a number is out of range, or labels and
        label_smoothing are both given.

    Reference:
      Rafailov et al. 2023 (arXiv 2305.18290), equation 7; Mitchell 2023, cDPO.

    >>> x = lambda number: jnp.array([number])
    >>> loss = dpo_loss(x(-2.0), x(-4.0), x(-3.0), x(-3.0))
    >>> print(f"{loss[0]:.3f}")
    0.598
    """
    caller = "preference.dpo_loss"
    _smoothing(caller, label_smoothing)
    if labels is not None and label_smoothing:
        raise ValueError(f"{caller}: give labels or label_smoothing, not both.")
    _log_probs.positive(caller, "beta", beta)
    _check.shapes(caller, chosen=(chosen, "B"), labels=(labels, "B"))
    c, r, present = _log_probs.ratios(
        caller, chosen, rejected, reference_chosen, reference_rejected, where
    )
    h = beta * (c - r)
    if labels is None and not label_smoothing:
        return jnp.where(present, -jax.nn.log_sigmoid(h), 0.0)
    if labels is None:
        share = 1.0 - label_smoothing
    else:
        share = jnp.where(present, labels.astype(h.dtype), 1.0)
    loss = -share * jax.nn.log_sigmoid(h) - (1.0 - share) * jax.nn.log_sigmoid(-h)
    return jnp.where(present, loss, 0.0)


def ipo_loss(
    chosen: jax.Array,
    rejected: jax.Array,
    reference_chosen: jax.Array,
    reference_rejected: jax.Array,
    *,
    beta: float = 0.1,
    chosen_lengths: jax.Array | None = None,
    rejected_lengths: jax.Array | None = None,
    where: jax.Array | None = None,
) -> jax.Array:
    """Identity preference optimization: a margin to reach, not to exceed.

    (h - 1 / (2 b))^2; with lengths n h = (c - c_ref) / n_c - (r - r_ref) / n_r

    Args:
      chosen: `[B]` float, log-probability of the better answer under the policy.
      rejected: `[B]` float, of the other.
      reference_chosen: `[B]` float, under the reference.
      reference_rejected: `[B]` float.
      beta: b > 0, tau in the paper; with lengths a margin per token.
      chosen_lengths: `[B]` numbers of tokens. Sums without lengths are the formula of
        the paper and of TRL 0.11; sums with lengths that of TRL 1.16, whose authors
        were told that the paper's results were made so. The losses are not the same.
      rejected_lengths: `[B]`, given if and only if `chosen_lengths` is.
      where: `[B]` bool, False where a pair does not count.

    Returns:
      `[B]` non-negative float; 0 where a pair does not count.

    Raises:
      ValueError: if shapes disagree, `beta` is not above 0, or one of the lengths is
        given without the other.

    Reference:
      Azar et al. 2023 (arXiv 2310.12036), equation 17.

    >>> x = lambda number: jnp.array([number])
    >>> ipo_loss(x(-2.0), x(-4.0), x(-3.0), x(-3.0), beta=0.25).tolist()
    [0.0]
    """
    caller = "preference.ipo_loss"
    _log_probs.positive(caller, "beta", beta)
    if (chosen_lengths is None) != (rejected_lengths is None):
        raise ValueError(
            f"{caller}: only one of chosen_lengths and rejected_lengths is given; "
            "expected both or none."
        )
    _check.shapes(
        caller,
        chosen=(chosen, "B"),
        chosen_lengths=(chosen_lengths, "B"),
        rejected_lengths=(rejected_lengths, "B"),
    )
    c, r, present = _log_probs.ratios(
        caller, chosen, rejected, reference_chosen, reference_rejected, where
    )
    if chosen_lengths is not None and rejected_lengths is not None:
        c, r = (
            x / jnp.maximum(jnp.where(present, n, 1), 1).astype(x.dtype)
            for x, n in ((c, chosen_lengths), (r, rejected_lengths))
        )
    return jnp.where(present, (c - r - 1.0 / (2.0 * beta)) ** 2, 0.0)


def slic_loss(
    chosen: jax.Array,
    rejected: jax.Array,
    reference_chosen: jax.Array,
    reference_rejected: jax.Array,
    *,
    beta: float = 0.1,
    where: jax.Array | None = None,
) -> jax.Array:
    """The hinge loss (SLiC, RSO).

    max(0, 1 - b h)

    Args:
      chosen: `[B]` float, log-probability of the better answer under the policy.
      rejected: `[B]` float, of the other.
      reference_chosen: `[B]` float, under the reference.
      reference_rejected: `[B]` float.
      beta: b > 0.
      where: `[B]` bool, False where a pair does not count.

    Returns:
      `[B]` non-negative float; 0 where a pair does not count.

    Raises:
      ValueError: if shapes disagree or `beta` is not above 0.

    Reference:
      Zhao et al. 2023 (arXiv 2305.10425); Liu et al. 2023 (arXiv 2309.06657).

    >>> x = lambda number: jnp.array([number])
    >>> loss = slic_loss(x(-2.0), x(-4.0), x(-3.0), x(-3.0))
    >>> print(f"{loss[0]:.2f}")
    0.80
    """
    caller = "preference.slic_loss"
    _log_probs.positive(caller, "beta", beta)
    c, r, present = _log_probs.ratios(
        caller, chosen, rejected, reference_chosen, reference_rejected, where
    )
    return jnp.where(present, jax.nn.relu(1.0 - beta * (c - r)), 0.0)


def robust_dpo_loss(
    chosen: jax.Array,
    rejected: jax.Array,
    reference_chosen: jax.Array,
    reference_rejected: jax.Array,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.1,
    where: jax.Array | None = None,
) -> jax.Array:
    """DPO corrected for labels that are the wrong way round with a known probability.

    (-(1 - e) log s(b h) + e log s(-b h)) / (1 - 2 e)

    Args:
      chosen: `[B]` float, log-probability of the better answer under the policy.
      rejected: `[B]` float, of the other.
      reference_chosen: `[B]` float, under the reference.
      reference_rejected: `[B]` float.
      beta: b > 0.
      label_smoothing: e in [0, 0.5), the share of wrong labels.
      where: `[B]` bool, False where a pair does not count.

    Returns:
      `[B]` float, not bounded from below; 0 where a pair does not count. Its mean over
      labels flipped with probability e is the DPO loss of the right ones.

    Raises:
      ValueError: if shapes disagree or a number is out of range.

    Reference:
      Chowdhury et al. 2024 (arXiv 2403.00409).

    >>> x = lambda number: jnp.array([number])
    >>> loss = robust_dpo_loss(x(-2.0), x(-4.0), x(-3.0), x(-3.0))
    >>> print(f"{loss[0]:.3f}")
    0.573
    """
    caller = "preference.robust_dpo_loss"
    _smoothing(caller, label_smoothing)
    _log_probs.positive(caller, "beta", beta)
    c, r, present = _log_probs.ratios(
        caller, chosen, rejected, reference_chosen, reference_rejected, where
    )
    h, e = beta * (c - r), label_smoothing
    right, wrong = jax.nn.log_sigmoid(h), jax.nn.log_sigmoid(-h)
    return jnp.where(present, (-(1.0 - e) * right + e * wrong) / (1.0 - 2.0 * e), 0.0)


def modpo_loss(
    chosen: jax.Array,
    rejected: jax.Array,
    reference_chosen: jax.Array,
    reference_rejected: jax.Array,
    margins: jax.Array,
    weights: jax.Array,
    *,
    beta: float = 0.1,
    where: jax.Array | None = None,
) -> jax.Array:
    """Multi-objective DPO: pairs ranked by one goal, values enter as margins.

    -log s((b h - sum_k w_k m_k) / w), w = 1 - sum_k w_k the weight of the goal that the
    pairs are ranked by, m_k = R_k(chosen) - R_k(rejected)

    Args:
      chosen: `[B]` float, log-probability of the answer that is better by the one goal.
      rejected: `[B]` float, of the other.
      reference_chosen: `[B]` float, under the reference.
      reference_rejected: `[B]` float.
      margins: `[B, V]` float m, differences of rewards (`reward_per_value`); no
        gradient flows through them. If the pairs are ranked by a value, leave it out.
      weights: `[V]` non-negative float with a sum below 1. A sum near 1 makes the
        loss steep: it is divided by what is left.
      beta: b > 0.
      where: `[B]` bool, False where a pair does not count.

    Returns:
      `[B]` non-negative float; 0 where a pair does not count, NaN elsewhere if the
      weights sum to 1 or more.

    Raises:
      ValueError: if shapes disagree or `beta` is not above 0.

    Reference:
      Zhou et al. 2024 (arXiv 2310.03708), equation 11.

    >>> x, margins = lambda number: jnp.array([number]), jnp.array([[0.5, 0.25]])
    >>> loss = modpo_loss(
    ...     x(-2.0), x(-4.0), x(-3.0), x(-3.0), margins, jnp.array([0.25, 0.25]))
    >>> print(f"{loss[0]:.3f}")
    0.681
    """
    caller = "preference.modpo_loss"
    _log_probs.positive(caller, "beta", beta)
    _check.shapes(
        caller,
        chosen=(chosen, "B"),
        margins=(margins, "B V"),
        weights=(weights, "V"),
    )
    c, r, present = _log_probs.ratios(
        caller, chosen, rejected, reference_chosen, reference_rejected, where
    )
    weights = weights.astype(c.dtype)
    margins = jnp.where(present[:, None], margins.astype(c.dtype), 0.0)
    margin = (jax.lax.stop_gradient(margins) * weights[None]).sum(1)
    left = 1.0 - weights.sum()
    some = left > 0.0
    loss = -jax.nn.log_sigmoid((beta * (c - r) - margin) / jnp.where(some, left, 1.0))
    return jnp.where(present, jnp.where(some, loss, jnp.nan), 0.0)


def _smoothing(caller: str, share: float) -> None:
    if not 0.0 <= share < 0.5:
        raise ValueError(
            f"{caller}: label_smoothing is {share}; expected it in [0, 0.5)."
        )
