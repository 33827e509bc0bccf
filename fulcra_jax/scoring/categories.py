# SPDX-License-Identifier: Apache-2.0
"""How alike two categories are: agreement weights and distances.

Host tables of numpy: they depend on the number of categories alone (the ordinal
distance of Krippendorff, which depends on the data, stands in `alpha`).
K categories. A category has a numeric value, by default its id 0 ... K-1.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from fulcra_jax import _check

Weights = Literal[
    "identity",
    "linear",
    "quadratic",
    "ordinal",
    "radical",
    "ratio",
    "circular",
    "bipolar",
]
Level = Literal["nominal", "ordinal", "interval", "ratio"]


def category_weights(
    kind: Weights,
    num_categories: int,
    category_values: Sequence[float] | None = None,
) -> np.ndarray:
    """Agreement weights of category pairs: 1 is full agreement, 0 none.

    With x the category values, d = max x - min x and s = max x + min x: identity
    [k = l]; linear 1 - |x_k - x_l| / d; quadratic 1 - ((x_k - x_l) / d)^2; radical
    1 - sqrt(|x_k - x_l| / d); ordinal 1 - m(m+1)/2 over its largest, m = |k - l|; ratio
    1 - ((x_k - x_l) / (x_k + x_l))^2 / (d / s)^2; circular 1 - sin^2(pi (x_k - x_l) /
    (d + 1)) over its largest; bipolar 1 - (x_k - x_l)^2 / ((x_k + x_l - 2 min x)
    (2 max x - x_k - x_l)) over its largest.

    `ordinal` here is not the ordinal metric of Krippendorff's alpha, which depends on
    the data: use `krippendorff_alpha(level="ordinal")` for that one.

    Args:
      kind: the name.
      num_categories: K, at least 1.
      category_values: K increasing numbers; None stands for 0 ... K-1.

    Returns:
      `[K, K]` float64, symmetric, 1 on the diagonal.

    Raises:
      KeyError: if the name is unknown.
      ValueError: if the values are not K increasing numbers, or not all positive for
        `ratio` (between -1 and +1 it would divide by 0).

    Reference:
      Gwet 2014, "Handbook of Inter-Rater Reliability", 4th edition, chapter 3.

    >>> category_weights("quadratic", 3).tolist()
    [[1.0, 0.75, 0.0], [0.75, 1.0, 0.75], [0.0, 0.75, 1.0]]
    """
    caller = "categories.category_weights"
    _check.known(caller, "weights", kind, get_args(Weights))
    x = _values(caller, kind, num_categories, category_values)
    if num_categories == 1 or kind == "identity":
        return np.eye(num_categories)
    gap = np.abs(np.subtract.outer(x, x))
    total = np.add.outer(x, x)
    extent = x[-1] - x[0]
    match kind:
        case "linear":
            distance = gap
        case "quadratic":
            distance = gap**2
        case "radical":
            distance = np.sqrt(gap)
        case "ordinal":
            step = np.abs(np.subtract.outer(*[np.arange(num_categories)] * 2))
            distance = step * (step + 1) / 2.0
        case "ratio":
            distance = (gap / total) ** 2
        case "circular":
            distance = np.sin(np.pi * gap / (extent + 1.0)) ** 2
        case _:
            room = (total - 2.0 * x[0]) * (2.0 * x[-1] - total)
            distance = np.where(gap > 0.0, gap**2 / np.where(room > 0, room, 1.0), 0.0)
    return 1.0 - distance / distance.max()


def level_distance(
    level: Literal["nominal", "interval", "ratio"],
    num_categories: int,
    category_values: Sequence[float] | None = None,
) -> np.ndarray:
    """The squared difference of two categories at a level of measurement.

    nominal [k != l]; interval (x_k - x_l)^2; ratio ((x_k - x_l) / (x_k + x_l))^2.

    Args:
      level: the name. The ordinal level depends on the data and stands in
        `krippendorff_alpha`.
      num_categories: K, at least 1.
      category_values: K increasing numbers; None stands for 0 ... K-1, which differ
        from -1, 0, +1 by a shift that no interval distance sees.

    Returns:
      `[K, K]` float64, symmetric, 0 on the diagonal.

    Raises:
      KeyError: if the level is unknown.
      ValueError: if the values are not K increasing numbers, or not all positive for
        `ratio`: between -1 and +1 the sum is 0.

    Reference:
      Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section E.

    >>> level_distance("interval", 3).tolist()
    [[0.0, 1.0, 4.0], [1.0, 0.0, 1.0], [4.0, 1.0, 0.0]]
    """
    caller = "categories.level_distance"
    _check.known(caller, "level", level, ("nominal", "interval", "ratio"))
    x = _values(caller, level, num_categories, category_values)
    gap = np.subtract.outer(x, x)
    if level == "nominal":
        return 1.0 - np.eye(num_categories)
    if level == "interval":
        return gap**2
    return (gap / np.add.outer(x, x)) ** 2


def _values(
    caller: str, kind: str, num_categories: int, given: Sequence[float] | None
) -> np.ndarray:
    if num_categories < 1:
        raise ValueError(
            f"{caller}: num_categories is {num_categories}; expected at least 1."
        )
    x = np.arange(num_categories, dtype=np.float64)
    if given is not None:
        x = np.asarray(given, np.float64)
    if x.shape != (num_categories,) or (np.diff(x) <= 0.0).any():
        raise ValueError(
            f"{caller}: category_values is {given}; expected {num_categories} "
            "increasing numbers, one per category."
        )
    if kind == "ratio" and x[0] <= 0.0:
        raise ValueError(
            f"{caller}: ratio needs positive category_values, but they are "
            f"{x.tolist()}; labels with 0 or of both signs have no ratio scale, "
            "use interval."
        )
    return x
