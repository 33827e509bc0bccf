# SPDX-License-Identifier: Apache-2.0
"""Sets of classes that hold the true one with a wanted probability, class by class.

A set with more than one class says "unsure". The promise is made per class: pooled over
the classes, the rare label -1 could be missed every time and the promise still kept.

Axes: N items judged, C classes. Class ids are label + 1. An entry with `where=False` is
never read.
"""

import jax
import jax.numpy as jnp

from fulcra_jax import _check


def conformal_quantiles(
    probs: jax.Array,
    labels: jax.Array,
    *,
    alpha: float = 0.1,
    where: jax.Array | None = None,
) -> jax.Array:
    """How improbable a class may be and still belong to the set, for each class.

    q_c = the k-th smallest of 1 - p_{n, c} over the n_c entries with label c,
    k = ceil((n_c + 1) (1 - alpha))

    Args:
      probs: `[N, C]` float of entries that the probabilities were not fitted on.
      labels: `[N]` int class ids in `[0, C)`.
      alpha: the share of entries of each class that may be missed, in (0, 1).
      where: `[N]` bool, False where the entry does not count.

    Returns:
      `[C]` in [0, 1]. 1 where k exceeds n_c: with fewer than 1 / alpha - 1 entries of a
      class nothing can be promised but to name it always.

    Raises:
      ValueError: if the shapes disagree or alpha is not between 0 and 1.

    Reference:
      Vovk, Gammerman and Shafer 2005, "Algorithmic learning in a random world", section
      4.5; Sadinle, Lei and Wasserman 2019 (arXiv 1609.00451), class-specific coverage.
      Exact for exchangeable entries; cells of one text are not, so look at the coverage
      on held-out texts.

    >>> probs = jnp.stack([jnp.linspace(0.1, 0.9, 9), jnp.linspace(0.9, 0.1, 9)], 1)
    >>> quantiles = conformal_quantiles(probs, jnp.zeros(9, int), alpha=0.2)
    >>> [round(float(q), 2) for q in quantiles]
    [0.8, 1.0]
    """
    caller = "conformal.conformal_quantiles"
    size = _check.shapes(
        caller, probs=(probs, "N C"), labels=(labels, "N"), where=(where, "N")
    )
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"{caller}: alpha is {alpha}; expected 0 < alpha < 1.")
    where_n = (
        jnp.ones(labels.shape, bool) if where is None else jnp.asarray(where, bool)
    )
    own_nc = jax.nn.one_hot(labels, size["C"], dtype=bool) & where_n[:, None]
    # Beyond the last entry stand ones, so that too large a k finds one.
    score_nc = jnp.where(own_nc, 1.0 - _work(probs), 1.0)
    sorted_nc = jnp.sort(jnp.concatenate([score_nc, jnp.ones_like(score_nc[:1])]), 0)
    count_c = own_nc.sum(0)
    wanted_c = (count_c + 1).astype(score_nc.dtype) * (1.0 - alpha)
    # A product that is whole but for rounding is not rounded up.
    k_c = jnp.ceil(wanted_c * (1.0 - 4.0 * jnp.finfo(score_nc.dtype).eps))
    k_c = jnp.clip(k_c.astype(jnp.int32), 1, size["N"] + 1)
    found_c = jnp.take_along_axis(sorted_nc, k_c[None] - 1, 0)[0]
    return jnp.where(k_c > count_c, 1.0, found_c)


def conformal_sets(probs: jax.Array, quantiles: jax.Array) -> jax.Array:
    """The classes that are probable enough for `conformal_quantiles`.

    set = {c: 1 - p_c <= q_c}

    Args:
      probs: `[..., C]` float; rows sum to one.
      quantiles: `[C]` in [0, 1].

    Returns:
      `[..., C]` bool, True where the class is in the set; a set may be empty.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      Sadinle, Lei and Wasserman 2019 (arXiv 1609.00451).

    >>> conformal_sets(jnp.array([0.3, 0.6, 0.1]), jnp.array([0.8, 0.5, 0.5])).tolist()
    [True, True, False]
    """
    _check.shapes(
        "conformal.conformal_sets", probs=(probs, "... C"), quantiles=(quantiles, "C")
    )
    probs = _work(probs)
    return 1.0 - probs <= jnp.broadcast_to(_work(quantiles), probs.shape)


def _work(x: jax.Array) -> jax.Array:
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
