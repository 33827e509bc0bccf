# SPDX-License-Identifier: Apache-2.0
"""Targets from ten numbers on any scale, and from what a reference group says.

Axes: N responses or respondents, V values.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import _check
from fulcra_jax.targets import _group

Scale = Literal["raw", "largest"]
SCALES = ("raw", "largest")


class GroupTarget(NamedTuple):
    """The mean of a group as a target, `[V]` each."""

    target: jax.Array
    """In [-1, 1]; NaN for a value of which nothing is known."""
    standard_error: jax.Array
    """Of `target`; NaN for fewer than two responses."""
    effective_size: jax.Array
    """(sum w)^2 / sum w^2: so many equally weighted responses would weigh as much."""


def from_profile(profile: jax.Array, *, low: float, high: float) -> jax.Array:
    """A target from numbers on a stated scale.

    t = (2 x - low - high) / (high - low)

    Args:
      profile: `[..., V]` numbers, in the order of `values.BASIC` for a target.
      low: the number that means "opposed" (-1).
      high: the number that means "fully supported" (+1). It may be the smaller one: a
        mean answer to the PVQ-21 of the European Social Survey has low=6, high=1.

    Returns:
      `[..., V]` float, in [-1, 1] for numbers between low and high; others come out
      beyond, which `check_target` says. NaN stays NaN.

    Raises:
      ValueError: if `low` equals `high` or one is not finite.

    Reference:
      Yao et al. 2024 (arXiv 2311.10766): values as numbers in [-1, 1]; the line of its
      national targets is (3.5 - m) / 2.5.

    >>> from_profile(jnp.array([0.0, 5.0, 10.0]), low=0, high=10).tolist()
    [-1.0, 0.0, 1.0]
    >>> print(f"{from_profile(jnp.array([2.3]), low=6, high=1)[0]:.2f}")
    0.48
    """
    caller = "profile.from_profile"
    _check.shapes(caller, profile=(profile, "... V"))
    if not (np.isfinite(low) and np.isfinite(high)) or low == high:
        raise ValueError(
            f"{caller}: low is {low} and high {high}; expected two different numbers."
        )
    x = _group.floats(profile)
    return (2.0 * x - (low + high)) / (high - low)


def from_responses(
    scores: jax.Array,
    *,
    weights: jax.Array | None = None,
    scale: Scale = "raw",
    where: jax.Array | None = None,
) -> GroupTarget:
    """A target from responses that are as one wants them: their mean score.

    t_k = sum_n w_n v_nk / sum_n w_n, s_k = sqrt(n / (n - 1) sum_n w_n^2 (v_nk - t_k)^2)
    / sum_n w_n

    A response speaks of two values of ten, so the mean is a rate, small next to a score
    of one response: a reward by distance from it favors answers that say nothing (see
    `check_target`). Scale "largest" keeps the profile and makes it 1 at its peak.

    Args:
      scores: `[N, V]` float in [-1, 1], for example of an evaluator.
      weights: `[N]` float, at least 0; None for ones. Not read for a response that is
        masked as a whole.
      scale: "raw", or "largest": divided by the largest |t_k|, and s with it.
      where: `[N, V]` bool, False where a score does not count.

    Returns:
      `GroupTarget`. The standard error takes the responses for independent: with
      several of one prompt it is too small. NaN outside the mask propagates.

    Raises:
      ValueError: if shapes disagree or a weight is below 0.
      KeyError: if `scale` is unknown.

    Reference:
      Kish 1965, "Survey sampling", section 11.7 (effective size); Cochran 1977,
      "Sampling techniques", section 6.4 (error of a ratio).

    >>> found = from_responses(jnp.array([[1.0, 0.0], [0.0, 0.0], [1.0, -1.0]]))
    >>> [round(float(t), 3) for t in found.target]
    [0.667, -0.333]
    >>> [round(float(s), 3) for s in found.standard_error]
    [0.333, 0.333]
    """
    caller = "profile.from_responses"
    _check.shapes(
        caller, scores=(scores, "N V"), weights=(weights, "N"), where=(where, "N V")
    )
    _check.known(caller, "scale", scale, SCALES)
    _group.check_weights(caller, weights)
    counted = _group.present(scores, where)
    x = jnp.where(counted, _group.floats(scores), 0.0)
    w = _group.weights_of(x, weights, counted)
    found, error = _group.mean(x, w), _group.standard_error(x, w)
    if scale == "largest":
        peak = _group.largest(found)
        found, error = found / peak, error / peak
    return GroupTarget(found, error, _group.effective_size(w))


def scale_to_largest(target: jax.Array) -> jax.Array:
    """The same profile with 1 at its peak.

    t / max_k |t_k|

    Args:
      target: `[..., V]` float.

    Returns:
      `[..., V]` float in [-1, 1]; a target of zeros stays one. NaN is left out of the
      maximum and stays NaN.

    Raises:
      ValueError: if `target` is no array.

    Reference:
      The scale of the default reward, `objectives.baselign_reward`: an answer that
      expresses the main value of a target fully has reached it.

    >>> scale_to_largest(jnp.array([0.25, -0.5, 0.0])).tolist()
    [0.5, -1.0, 0.0]
    """
    _check.shapes("profile.scale_to_largest", target=(target, "... V"))
    t = _group.floats(target)
    return t / _group.largest(t)
