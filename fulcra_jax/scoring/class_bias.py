# SPDX-License-Identifier: Apache-2.0
"""From probabilities to one class, where the figure of merit is not accuracy.

Macro-F1 weighs a rare label as much as a frequent one, so that its best rule names rare
labels before they are the likeliest. One bias per class, fitted to pooled macro-F1, is
that rule at its simplest.

Axes: N items judged, C classes. Class ids are label + 1. An entry with `where=False` is
never read.
"""

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import _check
from fulcra_jax.scoring.prediction import confusion, macro_f1
from fulcra_jax.scoring.temperature import log_probs


def biased_classes(probs: jax.Array, bias: jax.Array) -> jax.Array:
    """The class with the largest log-probability plus bias.

    argmax_c log p_c + b_c

    Args:
      probs: `[..., C]` float; rows sum to one.
      bias: `[..., C]` float that broadcasts against it; `[V, C]` for a bias per value.

    Returns:
      `[...]` int32 class ids in `[0, C)`; of equal ones the first. A class of
      probability 0 is never named; a row with a NaN has the id -1.

    Reference:
      Menon et al. 2021 (arXiv 2007.07314), section 4.1, logit adjustment after
      training.

    >>> probs = jnp.array([0.2, 0.7, 0.1])
    >>> int(biased_classes(probs, jnp.zeros(3)))
    1
    >>> int(biased_classes(probs, jnp.array([1.5, 0.0, 0.0])))
    0
    """
    log_p, possible = log_probs(probs)
    bias = jnp.broadcast_to(jnp.asarray(bias), log_p.shape)
    logits = jnp.where(possible, log_p + bias, -jnp.inf)
    ids = logits.argmax(-1).astype(jnp.int32)
    return jnp.where(jnp.isnan(probs).any(-1), -1, ids)


def fit_class_bias(
    probs: jax.Array,
    labels: jax.Array,
    *,
    reach: float = 2.0,
    steps: int = 21,
    smooth: int = 2,
    ridge: float = 0.002,
    where: jax.Array | None = None,
) -> jax.Array:
    """The bias of the labels -1 and +1 under which macro-F1 is highest.

    argmax_b mean of macro-F1 over the neighbours of b, minus ridge |b|^2, on a square
    grid; b_0 = 0.

    Fitted to macro-F1 and not to likelihood: the likeliest bias says how frequent the
    labels are, which macro-F1 does not ask. The maximum of a step function of few rare
    labels is luck; the middle of a plateau is not, hence the mean over neighbours.

    Args:
      probs: `[N, 3]` float; rows sum to one.
      labels: `[N]` int class ids 0, 1, 2 of labels -1, 0, +1.
      reach: the grid runs from -reach to reach.
      steps: points of the grid in one direction, odd, so that 0 is one of them.
      smooth: how many points in each direction are neighbours.
      ridge: what a squared unit of bias costs.
      where: `[N]` bool, False where the entry does not count.

    Returns:
      `[3]`, the middle one 0. Macro-F1 is over the labels that occur; zeros if no entry
      counts. The result is a point of the grid: its gradient is 0.

    Raises:
      ValueError: if the shapes disagree, there are not three classes or `steps` is
        even.

    Reference:
      Lipton, Elkan and Naryanaswamy 2014 (arXiv 1402.1892), thresholds that maximise
      F1.

    >>> probs = jnp.array([[0.3, 0.7, 0.0]] * 5 + [[0.1, 0.9, 0.0]] * 50)
    >>> labels = jnp.array([0] * 5 + [1] * 50)
    >>> bias = fit_class_bias(probs, labels)
    >>> biased_classes(probs, bias)[jnp.array([0, 5])].tolist()
    [0, 1]
    """
    caller = "class_bias.fit_class_bias"
    _check.shapes(
        caller, probs=(probs, "N 3"), labels=(labels, "N"), where=(where, "N")
    )
    if steps < 1 or steps % 2 == 0:
        raise ValueError(f"{caller}: steps is {steps}; expected an odd number.")
    where_n = (
        jnp.ones(labels.shape, bool) if where is None else jnp.asarray(where, bool)
    )
    probs = jnp.where(where_n[:, None], probs, 1.0 / 3.0)
    labels = jnp.where(where_n, labels, 0)
    log_p_nc, possible_nc = log_probs(jax.lax.stop_gradient(probs))
    logits_nc = jnp.where(possible_nc, log_p_nc, -jnp.inf)
    grid = np.linspace(-reach, reach, steps).astype(log_p_nc.dtype)

    def row(opposed: jax.Array) -> jax.Array:
        def point(supported: jax.Array) -> jax.Array:
            bias_c = jnp.stack([opposed, jnp.zeros_like(opposed), supported])
            predicted_n = (logits_nc + bias_c[None]).argmax(-1)
            counts = confusion(predicted_n, labels, where=where_n)
            return macro_f1(counts.astype(log_p_nc.dtype), present_only=True)

        return jax.vmap(point)(jnp.asarray(grid))

    surface = jnp.nan_to_num(jax.lax.map(row, jnp.asarray(grid)))
    cost = ridge * (grid[:, None] ** 2 + grid[None] ** 2)
    # Rounded, so that equal points stay equal and the first of them is taken.
    best = jnp.round(_neighbours(surface, smooth) - cost, 5).argmax()
    grid = jnp.asarray(grid)
    opposed, supported = grid[best // steps], grid[best % steps]
    return jnp.stack([opposed, jnp.zeros_like(opposed), supported])


def _neighbours(surface: jax.Array, reach: int) -> jax.Array:
    """The mean over a square around each point; the edge counts again beyond it."""
    rows, columns = surface.shape
    padded = jnp.pad(surface, reach, mode="edge")
    around = range(2 * reach + 1)
    shifted = [padded[i : i + rows, j : j + columns] for i in around for j in around]
    return jnp.stack(shifted).mean(0)
