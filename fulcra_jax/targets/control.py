# SPDX-License-Identifier: Apache-2.0
"""A target to compare with: the same entries on other values."""

from typing import NamedTuple

import jax
import numpy as np

from fulcra_jax import values


class Control(NamedTuple):
    """A permutation of a target."""

    vector: np.ndarray
    """`[V]` float64 in the order of `values.BASIC`."""
    disjoint: bool
    """Whether no value is targeted by both. If not, it is no control: report only."""


def control_target(target: jax.Array | np.ndarray) -> Control:
    """The target moved to values that it does not ask for.

    A policy that becomes better at everything, or at pleasing the evaluator, moves as
    much under the control; what the target itself does is the difference of the two.

    The entries t_k != 0, in order, go to the free values that lie farthest on the
    circle from those targeted. With more than five such entries there is no room: the
    target is then turned by half the circle, and `disjoint` is False.

    Args:
      target: `[10]` in the order of `values.BASIC`, not all 0.

    Returns:
      `Control`. A host function; nothing in it can be traced.

    Raises:
      ValueError: if the target has not ten finite entries, or is 0 everywhere.

    Reference:
      Control tasks: Hewitt and Liang 2019 (arXiv 1909.03368).

    >>> control_target(np.array([0, 0, 0, 1, 0, 1, 0, 1, 1, 1])).vector.astype(int)
    array([1, 1, 1, 0, 1, 0, 1, 0, 0, 0])
    >>> control_target(np.linspace(0.1, 1.0, 10)).disjoint
    False
    """
    vector = np.asarray(target, np.float64)
    if vector.shape != (len(values.BASIC),) or not np.isfinite(vector).all():
        raise ValueError(
            f"control.control_target: target has shape {vector.shape}; expected "
            f"({len(values.BASIC)},), all finite."
        )
    if not vector.any():
        raise ValueError(
            "control.control_target: target is 0 everywhere; expected one that asks "
            "for something."
        )
    asked, free = np.flatnonzero(vector), np.flatnonzero(vector == 0.0)
    if len(asked) > len(free):
        return Control(np.roll(vector, len(vector) // 2), False)
    angle = values.ring_angles()
    apart = np.abs(angle[free][:, None] - angle[asked][None])
    nearest = np.minimum(apart, 2.0 * np.pi - apart).min(1)
    far = np.argsort(-nearest.round(9), kind="stable")[: len(asked)]
    control = np.zeros_like(vector)
    control[np.sort(free[far])] = vector[asked]
    return Control(control, True)
