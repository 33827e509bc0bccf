# SPDX-License-Identifier: Apache-2.0
"""Two systems' probabilities as one, with a fitted weight.

Axes: N items judged, C classes. Class ids are label + 1. An entry with `where=False` is
never read.
"""

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import _check
from fulcra_jax.scoring.calibration import negative_log_likelihood
from fulcra_jax.scoring.temperature import log_probs


def log_pool(
    first: jax.Array, second: jax.Array, weight: jax.Array | float
) -> jax.Array:
    """The weighted mean of log-probabilities, normalised.

    p_c proportional to first_c^(1 - w) second_c^w

    Args:
      first: `[..., C]` float; rows sum to one.
      second: `[..., C]` float; rows sum to one.
      weight: `[]` w in [0, 1].

    Returns:
      `[..., C]` summing to one; 0 where one of both is 0, NaN where all classes are.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      Genest and Zidek 1986, "Combining probability distributions", section 3.3, the
      logarithmic opinion pool.

    >>> first, second = jnp.array([0.5, 0.5]), jnp.array([0.8, 0.2])
    >>> [round(float(p), 3) for p in log_pool(first, second, 0.5)]
    [0.667, 0.333]
    """
    _check.shapes("fusion.log_pool", first=(first, "... C"), second=(second, "... C"))
    a, a_possible = log_probs(first)
    b, b_possible = log_probs(second)
    logits = (1.0 - weight) * a + weight * b
    return jax.nn.softmax(logits, axis=-1, where=a_possible & b_possible)


def fit_log_pool(
    first: jax.Array,
    second: jax.Array,
    labels: jax.Array,
    *,
    steps: int = 21,
    where: jax.Array | None = None,
) -> jax.Array:
    """The weight of the second system under which the labels are likeliest.

    argmin_w of the mean of -log p_{n, y_n} over a grid of [0, 1]

    Calibrate both first: an over-confident system takes more than its share.

    Args:
      first: `[N, C]` float; rows sum to one.
      second: `[N, C]` float; rows sum to one.
      labels: `[N]` int class ids in `[0, C)`.
      steps: points of the grid.
      where: `[N]` bool, False where the entry does not count.

    Returns:
      `[]` in [0, 1]; NaN if no entry counts. A point of the grid: its gradient is 0.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      Genest and Zidek 1986, "Combining probability distributions", section 3.3.

    >>> sure = jnp.array([[0.9, 0.1], [0.1, 0.9]])
    >>> float(fit_log_pool(jnp.full((2, 2), 0.5), sure, jnp.array([0, 1])))
    1.0
    """
    _check.shapes(
        "fusion.fit_log_pool",
        first=(first, "N C"),
        second=(second, "N C"),
        labels=(labels, "N"),
        where=(where, "N"),
    )
    where_n = (
        jnp.ones(labels.shape, bool) if where is None else jnp.asarray(where, bool)
    )
    first, second = (
        jax.lax.stop_gradient(jnp.where(where_n[:, None], x, 1.0))
        for x in (first, second)
    )
    dtype = jnp.promote_types(jnp.promote_types(first.dtype, second.dtype), jnp.float32)
    grid = jnp.asarray(np.linspace(0.0, 1.0, steps), dtype)

    def loss(weight: jax.Array) -> jax.Array:
        pooled = log_pool(first.astype(dtype), second.astype(dtype), weight)
        return negative_log_likelihood(pooled, labels, where=where_n)

    loss_t = jax.lax.map(loss, grid)
    best = grid[jnp.round(jnp.nan_to_num(loss_t, nan=jnp.inf), 6).argmin()]
    return jnp.where(where_n.any(), best, jnp.nan)
