# SPDX-License-Identifier: Apache-2.0
"""How far a value vector lies from a target.

Axes: `...` responses, V values in the order of `values.BASIC`.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import _check, values
from fulcra_jax.objectives import _shapes

Kind = Literal["l1", "l2", "squared", "huber", "cosine", "circumplex"]
Gate = Literal["none", "target", "official"]


def value_distance(
    score: jax.Array,
    target: jax.Array,
    *,
    kind: Kind = "l1",
    gate: Gate = "none",
    threshold: float = 0.3,
    softness: float = 0.0,
    weights: jax.Array | None = None,
    center: bool = False,
    delta: float = 1.0,
    rho: float = 0.5,
    where: jax.Array | None = None,
) -> jax.Array:
    """The distance of value vectors to a target.

    l1 sum_k w_k |v_k - t_k|; squared sum_k w_k (v_k - t_k)^2; l2 its root; huber the
    same with Huber's function; cosine 1 - <v, t> / (|v| |t|); circumplex
    (v - t)' S (v - t) with S_ij = (1 - rho) [i = j] + rho (1 + cos(a_i - a_j)) / 2 and
    a the places of the values on Schwartz's circle: missing a target by expressing its
    neighbor costs less than by expressing its opposite.

    The gate "official" with l1 is the distance of the released code. It is 0 for an
    answer that expresses nothing, whatever the target: do not train on it.

    Args:
      score: `[..., V]` float in [-1, 1].
      target: `[V]` or `[..., V]` float.
      kind: see above. Cosine does not see the length: 0.01 t is at distance 0.
      gate: which values count: "none" all, "target" those with t_k != 0, "official"
        by 1[|v_k| > threshold] |t_k|. For l1, l2, squared and huber.
      threshold: the largest |v_k| that counts as "no connection" under "official".
      softness: above 0, the indicator of "official" becomes sigmoid((|v_k| -
        threshold) / softness), which has a gradient; the loophole stays.
      weights: `[V]` non-negative float. Not for cosine and circumplex.
      center: subtract the mean over values from both first, as Schwartz does with
        answers to his questionnaires: only the profile counts then.
      delta: where Huber's function turns linear.
      rho: in [0, 1): how much of circumplex is shared between neighbors.
      where: `[..., V]` bool, False where a value does not count.

    Returns:
      `[...]` non-negative float; 0 without a value that counts. A cosine with a zero
      vector is 1, with gradient 0.

    Raises:
      ValueError: if shapes disagree, a number is out of range, or gate or weights are
        given to a kind that has none.
      KeyError: if `kind` or `gate` is unknown.

    Reference:
      Yao et al. 2024 (arXiv 2311.10766), section 5 and the released code (l1,
      official); Schwartz 1992 (the circle).

    >>> score = jnp.array([0.9, 0.1, -0.5] + [0.0] * 7)
    >>> target = jnp.array([1.0, 1.0, 0.0] + [0.0] * 7)
    >>> print(f"{value_distance(score, target):.2f}")
    1.50
    >>> print(f"{value_distance(score, target, gate='official'):.2f}")
    0.10
    """
    caller = "distance.value_distance"
    _check.known(caller, "kind", kind, get_args(Kind))
    if kind in ("cosine", "circumplex"):
        _check.known(caller, "gate", gate, get_args(Gate))
        if gate != "none" or weights is not None:
            raise ValueError(
                f"{caller}: kind {kind!r} takes neither gate nor weights; expected "
                "gate='none' and weights=None."
            )
        _shapes.score_and_target(caller, score, target, None, where)
        score, target, present = _shapes.prepared(score, target, where)
        if center:
            score, target = _centered(score, present), _centered(target, present)
        if kind == "cosine":
            return _cosine(score, target, present)
        return _circumplex(caller, jnp.where(present, score - target, 0.0), rho)
    gaps = value_gaps(
        score,
        target,
        kind="squared" if kind == "l2" else kind,
        gate=gate,
        threshold=threshold,
        softness=softness,
        weights=weights,
        center=center,
        delta=delta,
        where=where,
    )
    total = gaps.sum(-1)
    return _root(total) if kind == "l2" else total


def value_gaps(
    score: jax.Array,
    target: jax.Array,
    *,
    kind: Literal["l1", "squared", "huber"] = "l1",
    gate: Gate = "none",
    threshold: float = 0.3,
    softness: float = 0.0,
    weights: jax.Array | None = None,
    center: bool = False,
    delta: float = 1.0,
    where: jax.Array | None = None,
) -> jax.Array:
    """What every value adds to `value_distance`: to be logged, or rewarded one by one.

    gap_k = gate_k w_k f(v_k - t_k), f(x) = |x|, x^2 or Huber's function.

    Args:
      score: `[..., V]` float in [-1, 1].
      target: `[V]` or `[..., V]` float.
      kind: "l1", "squared" or "huber".
      gate: as in `value_distance`.
      threshold: as in `value_distance`.
      softness: as in `value_distance`.
      weights: `[V]` non-negative float.
      center: as in `value_distance`.
      delta: where Huber's function turns linear.
      where: `[..., V]` bool, False where a value does not count.

    Returns:
      `[..., V]` non-negative float; 0 where the value does not count.

    Raises:
      ValueError: if shapes disagree or a number is out of range.
      KeyError: if `kind` or `gate` is unknown.

    Reference:
      Yao et al. 2024 (arXiv 2311.10766), section 5; Huber 1964.

    >>> gaps = value_gaps(jnp.array([0.5, -0.5]), jnp.array([1.0, 0.0]))
    >>> gaps.tolist(), value_gaps(jnp.zeros(2), jnp.ones(2), gate="official").tolist()
    ([0.5, 0.5], [0.0, 0.0])
    """
    caller = "distance.value_gaps"
    _check.known(caller, "kind", kind, ("l1", "squared", "huber"))
    _check.known(caller, "gate", gate, get_args(Gate))
    _shapes.score_and_target(caller, score, target, weights, where)
    for name, number in (("threshold", threshold), ("softness", softness)):
        if isinstance(number, float | int) and not number >= 0.0:
            raise ValueError(f"{caller}: {name} is {number}; expected at least 0.")
    if isinstance(delta, float | int) and not delta > 0.0:
        raise ValueError(f"{caller}: delta is {delta}; expected more than 0.")
    score, target, present = _shapes.prepared(score, target, where)
    # The gates read the vectors as they came, also when the distance is centered.
    strength, stake = jnp.abs(score), jnp.abs(target)
    if center:
        score, target = _centered(score, present), _centered(target, present)
    counts = present & (stake != 0.0) if gate == "target" else present
    away = jnp.where(counts, score - target, 0.0)
    match kind:
        case "l1":
            gap = jnp.abs(away)
        case "squared":
            gap = away**2
        case _:
            near = jnp.minimum(jnp.abs(away), delta)
            gap = 0.5 * near**2 + delta * (jnp.abs(away) - near)
    if weights is not None:
        weight = jnp.asarray(weights).astype(gap.dtype)
        gap = gap * jnp.broadcast_to(weight, gap.shape)
    if gate == "official":
        if softness:
            heard = jax.nn.sigmoid((strength - threshold) / softness)
        else:
            heard = (strength > threshold).astype(gap.dtype)
        gap = gap * heard * stake
    return jnp.where(counts, gap, 0.0)


def circumplex_similarity(rho: float = 0.5) -> np.ndarray:
    """How much two values of the circle have in common: S of `value_distance`.

    S_ij = (1 - rho) [i = j] + rho (1 + cos(a_i - a_j)) / 2

    Args:
      rho: in [0, 1). At 1 the matrix would have rank 3: profiles that differ would be
        at distance 0.

    Returns:
      `[10, 10]` float64, symmetric, 1 on the diagonal, no eigenvalue below 1 - rho.

    Raises:
      ValueError: if rho is out of range.

    Reference:
      Schwartz 1992, "Universals in the content and structure of values".

    >>> S = circumplex_similarity(0.5)
    >>> round(float(S[0, 1]), 3), bool(np.linalg.eigvalsh(S).min() > 0.499)
    (0.442, True)
    """
    if not 0.0 <= rho < 1.0:
        raise ValueError(
            f"distance.circumplex_similarity: rho is {rho}; expected 0 <= rho < 1."
        )
    angle = values.ring_angles()
    near = 0.5 * (1.0 + np.cos(angle[:, None] - angle[None, :]))
    return (1.0 - rho) * np.eye(len(angle)) + rho * near


def _centered(x: jax.Array, present: jax.Array) -> jax.Array:
    """Minus its mean over the values that count; 0 where masked."""
    count = jnp.maximum(present.sum(-1, keepdims=True), 1).astype(x.dtype)
    return jnp.where(present, x - x.sum(-1, keepdims=True) / count, 0.0)


def _cosine(score: jax.Array, target: jax.Array, present: jax.Array) -> jax.Array:
    lengths = _root((score**2).sum(-1)) * _root((target**2).sum(-1))
    defined = lengths != 0.0
    cosine = (score * target).sum(-1) / jnp.where(defined, lengths, 1.0)
    distance = jnp.where(defined, 1.0 - jnp.clip(cosine, -1.0, 1.0), 1.0)
    return jnp.where(present.any(-1), distance, 0.0)


def _circumplex(caller: str, away: jax.Array, rho: float) -> jax.Array:
    if away.shape[-1] != len(values.BASIC):
        raise ValueError(
            f"{caller}: score has {away.shape[-1]} values; circumplex needs the "
            f"{len(values.BASIC)} of values.BASIC."
        )
    similarity = jnp.asarray(circumplex_similarity(rho), away.dtype)
    exact = jax.lax.Precision.HIGHEST
    return jnp.einsum("...i,ij,...j->...", away, similarity, away, precision=exact)


def _root(x: jax.Array) -> jax.Array:
    """The square root, with gradient 0 at 0; NaN stays NaN."""
    some = x != 0.0
    return jnp.where(some, jnp.sqrt(jnp.where(some, x, 1.0)), 0.0)
