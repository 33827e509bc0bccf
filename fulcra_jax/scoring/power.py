# SPDX-License-Identifier: Apache-2.0
"""How many human labels an interval of a wanted width costs, from a pilot.

Axes: n items of the pilot. M items in all.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from fulcra_jax import _check
from fulcra_jax.scoring import _distributions

METHODS = ("classical", "ppi", "finite")


class LabelsNeeded(NamedTuple):
    """Human labels in all and beyond the pilot, whole numbers as floats, each `[]`."""

    total: jax.Array
    more: jax.Array


def labels_needed(
    labels: jax.Array,
    predictions: jax.Array,
    num_items: int,
    *,
    half_width: float,
    level: float = 0.95,
    method: str = "ppi",
    where: jax.Array | None = None,
) -> LabelsNeeded:
    """The number of labels at which an interval is expected to be mean +- half_width.

    With e = half_width / normal quantile, s^2 = Var(Y), rho = correlation of Y and F:
    classical: n = s^2 / e^2;
    ppi: n = (1 - rho^2) s^2 / (e^2 - rho^2 s^2 / M), the tuned `ppi_mean` of a
    superpopulation with the other M - n items unlabelled;
    finite: n = r^2 / (e^2 + r^2 / M), r^2 the residual variance of Y on F with n - 2
    degrees of freedom, the tuned `ppi_mean(..., population="finite")`.

    For a wanted standard error pass half_width = 1.96 times it. All rests on the
    pilot's variances: with 50 labels the answer is off by a fifth either way, so ask
    again as labels come in.

    Args:
      labels: `[n]` numbers, the human labels of the pilot, a random sample.
      predictions: `[n]` numbers, what the LLM says of the same items.
      num_items: M, the pilot included; predictions exist for all of them.
      half_width: > 0, in units of the labels.
      level: of the interval, in (0, 1).
      method: "classical", "ppi" or "finite".
      where: `[n]` bool, False where an entry does not count.

    Returns:
      `total` and `more` = max(total - n, 0). inf where more than M labels were needed:
      "ppi" then has predictions of too few items; "finite" always gets there. rho below
      0 counts as 0 for "ppi", as its lam does. NaN for fewer than three entries,
      and if the pilot's labels do not vary: it was too small to see the variance.

    Raises:
      ValueError: if shapes disagree, `half_width` or `level` is out of range, or
        `num_items` is no whole number of at least the pilot's.
      KeyError: if `method` is unknown.

    Reference:
      Broska, Howes and van Loon 2024 (doi 10.31235/osf.io/j3bnt), effective sample size
      of prediction-powered inference; Cochran 1977, "Sampling techniques", section 4.6.

    >>> labels = jnp.array([1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    >>> said = jnp.array([1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    >>> needed = labels_needed(labels, said, 4000, half_width=0.04, method="finite")
    >>> needed.total.item(), needed.more.item()
    (297.0, 289.0)
    """
    caller = "power.labels_needed"
    _check.shapes(
        caller, labels=(labels, "n"), predictions=(predictions, "n"), where=(where, "n")
    )
    _check.known(caller, "method", method, METHODS)
    if not 0.0 < level < 1.0:
        raise ValueError(f"{caller}: level is {level}; expected 0 < level < 1.")
    if not 0.0 < half_width < np.inf:
        raise ValueError(f"{caller}: half_width is {half_width}; expected > 0, finite.")
    _items(caller, num_items, labels, where)
    n, var_y, covariance, var_f = _pilot(labels, predictions, where)
    m = float(num_items)
    z = _distributions.normal_quantile(jnp.asarray(0.5 * (1.0 + level), n.dtype))
    square = (half_width / z) ** 2
    some = var_f > 0.0
    explained = covariance * jnp.where(some, covariance / jnp.where(some, var_f, 1), 0)
    left = jnp.maximum(var_y - explained, 0.0)
    if method == "classical":
        total = var_y / square
    elif method == "ppi":
        helps = covariance > 0.0
        explained = jnp.where(helps, explained, 0.0)
        left = jnp.where(helps, left, var_y)
        free = square - explained / m
        total = jnp.where(free > 0.0, left / jnp.where(free > 0.0, free, 1.0), jnp.inf)
    else:
        left = left * n / jnp.maximum(n - 2.0, 1.0)
        total = left / (square + left / m)
    # A hair below a whole number is that number.
    total = jnp.ceil(total * (1.0 - 8.0 * jnp.finfo(n.dtype).eps))
    total = jnp.where(total > m, jnp.inf, total)
    total = jnp.where((n >= 3.0) & (var_y > 0.0), total, jnp.nan)
    return LabelsNeeded(total, jnp.maximum(total - n, 0.0))


def _items(
    caller: str, num_items: int, labels: jax.Array, where: jax.Array | None
) -> None:
    """Raises unless the number of items is whole and the pilot is a part of them."""
    if isinstance(num_items, bool) or not isinstance(num_items, int | np.integer):
        raise ValueError(
            f"{caller}: num_items is {num_items!r}; expected a whole number."
        )
    if isinstance(where, Tracer):
        return
    pilot = labels.shape[0] if where is None else int(np.asarray(where, bool).sum())
    if num_items < max(pilot, 1):
        raise ValueError(
            f"{caller}: num_items is {num_items}; expected at least the {pilot} of the "
            "pilot, which is a part of all items."
        )


def _pilot(
    labels: jax.Array, predictions: jax.Array, where: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Number, variance of the labels, covariance and the predictions' variance."""
    floats = [
        x.dtype for x in (labels, predictions) if jnp.issubdtype(x.dtype, jnp.floating)
    ]
    dtype = jnp.result_type(jnp.float32, *floats) if floats else jnp.zeros(()).dtype
    present = jnp.ones(labels.shape, bool)
    if where is not None:
        present = jnp.asarray(where, bool)
    y, f = (
        jnp.where(present, jnp.asarray(x, dtype), 0.0) for x in (labels, predictions)
    )
    n = present.sum().astype(dtype)
    safe = jnp.maximum(n, 1.0)
    # The mean of equal numbers is off by rounding, which would pass for variation.
    y, f = (
        jnp.where(present & _varies(x, present), x - x.sum() / safe, 0.0)
        for x in (y, f)
    )
    return n, (y * y).sum() / safe, (y * f).sum() / safe, (f * f).sum() / safe


def _varies(x: jax.Array, present: jax.Array) -> jax.Array:
    least = jnp.where(present, x, jnp.inf).min(initial=jnp.inf)
    most = jnp.where(present, x, -jnp.inf).max(initial=-jnp.inf)
    # NaN among the entries that count is no constant.
    return ~(most <= least)
