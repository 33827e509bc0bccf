# SPDX-License-Identifier: Apache-2.0
"""Mixtures of targets, ranks of values, and weights of values by importance.

Axes: M targets, V values.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import _check, values
from fulcra_jax.targets import _group

Kind = Literal["absolute", "softmax", "rank"]

PAN_CULTURAL_ORDER: tuple[str, ...] = (
    "Benevolence",
    "Self-direction",
    "Universalism",
    "Security",
    "Conformity",
    "Hedonism",
    "Achievement",
    "Stimulation",
    "Tradition",
    "Power",
)
"""From the most to the least important, over many nations (Schwartz and Bardi 2001)."""

PAN_CULTURAL_RANKS: np.ndarray = np.array(
    [PAN_CULTURAL_ORDER.index(name) + 1 for name in values.BASIC]
)
"""`[V]` int, 1 for the most important, in the order of `values.BASIC`. What a culture
holds dearer than others: `PAN_CULTURAL_RANKS - value_ranks(target)` above 0."""

PAN_CULTURAL_RANKS.setflags(write=False)


def interpolate(
    start: jax.Array, end: jax.Array, share: float | jax.Array
) -> jax.Array:
    """A target on the straight line between two.

    (1 - share) start + share end

    Args:
      start: `[..., V]` float.
      end: `[..., V]` float of the same shape.
      share: `[]` in [0, 1]: 0 gives `start`, 1 gives `end`.

    Returns:
      `[..., V]` float, in [-1, 1] if both are.

    Raises:
      ValueError: if shapes disagree or a plain number `share` is outside [0, 1].

    Reference:
      Ramé et al. 2023, "Rewarded soups" (arXiv 2306.04488): trade-offs as points of a
      line between two aims.

    >>> interpolate(jnp.array([1.0, 0.0]), jnp.array([0.0, -1.0]), 0.25).tolist()
    [0.75, -0.25]
    """
    caller = "importance.interpolate"
    axes = " ".join(f"A{i}" for i in range(start.ndim))
    _check.shapes(caller, start=(start, axes), end=(end, axes))
    if isinstance(share, int | float) and not 0.0 <= share <= 1.0:
        raise ValueError(f"{caller}: share is {share}; expected 0 to 1.")
    start, end = _group.floats(start), _group.floats(end)
    part = jnp.asarray(share, jnp.result_type(start, end))
    return (1.0 - part) * start + part * end


def blend(
    targets: jax.Array, weights: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """The weighted mean of targets, for example of the cultures of an audience.

    t_k = sum_m w_m t_mk / sum_m w_m

    Targets that oppose each other cancel: the blend of two may ask for nothing, which
    is neither of them. `check_target` says so.

    Args:
      targets: `[M, V]` float.
      weights: `[M]` float, at least 0; they need not sum to 1.
      where: `[M, V]` bool, False where an entry does not count.

    Returns:
      `[V]` float in the range of the targets; NaN where the weights sum to 0.

    Raises:
      ValueError: if shapes disagree or a weight is below 0.

    Reference:
      Harsanyi 1955, "Cardinal welfare, individualistic ethics, and interpersonal
      comparisons of utility" (the weighted mean of what several want).

    >>> blend(jnp.array([[1.0, 0.0], [0.0, -1.0]]), jnp.array([3.0, 1.0])).tolist()
    [0.75, -0.25]
    """
    caller = "importance.blend"
    _check.shapes(
        caller, targets=(targets, "M V"), weights=(weights, "M"), where=(where, "M V")
    )
    _group.check_weights(caller, weights)
    counted = _group.present(targets, where)
    t = jnp.where(counted, _group.floats(targets), 0.0)
    return _group.mean(t, _group.weights_of(t, weights, counted))


def value_ranks(priorities: jax.Array, *, where: jax.Array | None = None) -> jax.Array:
    """The rank of each value, 1 for the most important; ties share the mean rank.

    r_k = 1 + #{j: p_j > p_k} + #{j != k: p_j = p_k} / 2

    Args:
      priorities: `[..., V]` numbers, for example a target.
      where: `[..., V]` bool, False where a value does not count.

    Returns:
      `[..., V]` float from 1 to the number of values that count; NaN for those that do
      not, and for all if one that counts is NaN. The gradient is 0.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Schwartz and Bardi 2001, "Value hierarchies across cultures".

    >>> value_ranks(jnp.array([0.5, -0.2, 0.5, 0.1])).tolist()
    [1.5, 4.0, 1.5, 3.0]
    """
    p, counted = _priorities("importance.value_ranks", priorities, where)
    return _ranks(p, counted)


def importance_weights(
    priorities: jax.Array,
    *,
    kind: Kind = "absolute",
    temperature: float = 0.25,
    where: jax.Array | None = None,
) -> jax.Array:
    """Weights of the values, from how much a culture holds of them.

    absolute w_k = |p_k| / sum_j |p_j|: what a target rejects matters as well;
    softmax  w_k = exp(p_k / T) / sum_j exp(p_j / T): what it rejects matters least;
    rank     w_k = (n + 1 - r_k) / (n (n + 1) / 2), r of `value_ranks`: the order alone.

    The paper leaves the weights open and its released code takes |t_k|. Absolute
    ignores a value with t_k = 0; softmax and rank ignore none, so that an answer that
    shows it when the target is 0 still costs. Even weights are "softmax" with a high
    temperature.

    Args:
      priorities: `[..., V]` float, for example a target or centered group means.
      kind: see above.
      temperature: T > 0, in units of the priorities; for softmax alone.
      where: `[..., V]` bool, False where a value does not count.

    Returns:
      `[..., V]` float at least 0 of sum 1, 0 where masked; even for priorities that are
      all 0. All 0 if no value counts. NaN that counts propagates.

    Raises:
      ValueError: if shapes disagree or the temperature is not above 0.
      KeyError: if `kind` is unknown.

    Reference:
      Yao et al. 2024 (arXiv 2311.10766), released code (absolute); Stillwell, Seaver
      and Edwards 1981, "A comparison of weight approximation techniques in
      multiattribute utility decision making" (rank sum).

    >>> priorities = jnp.array([0.6, 0.2, -0.2])
    >>> for kind in ("absolute", "softmax", "rank"):
    ...     weights = importance_weights(priorities, kind=kind)
    ...     print([round(float(w), 2) for w in weights])
    [0.6, 0.2, 0.2]
    [0.8, 0.16, 0.03]
    [0.5, 0.33, 0.17]
    """
    caller = "importance.importance_weights"
    _check.known(caller, "kind", kind, get_args(Kind))
    if not 0.0 < temperature < np.inf:
        raise ValueError(f"{caller}: temperature is {temperature}; expected > 0.")
    p, counted = _priorities(caller, priorities, where)
    number = counted.sum(-1, keepdims=True).astype(p.dtype)
    if kind == "absolute":
        size = jnp.abs(p)
    elif kind == "softmax":
        # The largest is subtracted by hand: with all masked there is none.
        top = jnp.where(counted, p, -jnp.inf).max(-1, keepdims=True)
        top = jax.lax.stop_gradient(jnp.where(number > 0.0, top, 0.0))
        size = jnp.exp(jnp.where(counted, p - top, 0.0) / temperature)
    else:
        size = number + 1.0 - jnp.where(counted, _ranks(p, counted), 0.0)
    size = jnp.where(counted, size, 0.0)
    total = size.sum(-1, keepdims=True)
    even = jnp.where(counted, 1.0, 0.0) / jnp.maximum(number, 1.0)
    return jnp.where(total == 0.0, even, size / jnp.where(total == 0.0, 1.0, total))


def _priorities(
    caller: str, priorities: jax.Array, where: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Priorities in the work dtype, 0 where masked, and the mask."""
    _check.shapes(caller, priorities=(priorities, "... V"))
    axes = " ".join(f"A{i}" for i in range(priorities.ndim))
    _check.shapes(caller, priorities=(priorities, axes), where=(where, axes))
    counted = _group.present(priorities, where)
    return jnp.where(counted, _group.floats(priorities), 0.0), counted


def _ranks(p: jax.Array, counted: jax.Array) -> jax.Array:
    here, other = p[..., :, None], p[..., None, :]
    others = counted[..., None, :]
    above = (others & (other > here)).sum(-1)
    equal = (others & (other == here)).sum(-1)  # itself included
    rank = 0.5 + above.astype(p.dtype) + 0.5 * equal.astype(p.dtype)
    unknown = (counted & jnp.isnan(p)).any(-1, keepdims=True)
    return jnp.where(counted & ~unknown, rank, jnp.nan)
