# SPDX-License-Identifier: Apache-2.0
"""Intervals for any statistic of counts, by resampling clusters of texts.

Responses to one prompt (or to near-duplicate prompts) are not independent, so that a
resample draws whole clusters. Whatever a statistic needs travels as totals that add up
over clusters, for example one confusion table per cluster: a resample then costs one
weighted sum instead of a pass over the texts.

Axes: N items judged, G clusters, S resamples.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fulcra_jax import _check


class Interval(NamedTuple):
    """The two ends of a confidence interval."""

    low: jax.Array
    high: jax.Array


def sum_by_cluster(values: Any, cluster: jax.Array, num_clusters: int) -> Any:
    """The totals of every cluster.

    Args:
      values: `[N, ...]` numbers, or a pytree of such arrays.
      cluster: `[N]` int in `[0, G)`. An item with an id outside belongs to no cluster
        and is never read; use -1 to leave an item out.
      num_clusters: G.

    Returns:
      `[G, ...]` float totals, or a pytree of them; 0 for a cluster without items.

    Raises:
      ValueError: if an array does not have N rows.

    Reference:
      Davison and Hinkley 1997, "Bootstrap methods and their application", section 3.8.

    >>> sum_by_cluster(jnp.array([1.0, 2.0, 4.0]), jnp.array([0, 1, 0]), 3).tolist()
    [5.0, 2.0, 0.0]
    """
    _check.shapes("bootstrap.sum_by_cluster", cluster=(cluster, "N"))
    # A negative id would count from the end.
    segment = jnp.where(cluster < 0, num_clusters, cluster)

    def total(x: jax.Array) -> jax.Array:
        if x.shape[:1] != cluster.shape:
            raise ValueError(
                f"bootstrap.sum_by_cluster: values has shape {x.shape}; its first axis "
                f"must be N={cluster.shape[0]} as in cluster."
            )
        return jax.ops.segment_sum(_work(x), segment, num_segments=num_clusters)

    return jax.tree.map(total, values)


def cluster_bootstrap(
    key: jax.Array,
    totals: Any,
    statistic: Callable[[Any], Any],
    *,
    num_resamples: int = 1000,
    batch_size: int = 100,
) -> Any:
    """A statistic of resampled data: G clusters drawn from G with replacement.

    The weight of a cluster is how often it was drawn; the weights are multinomial and
    sum to G exactly. With one item a cluster it is the ordinary bootstrap.

    Args:
      key: a PRNG key. `batch_size` changes the result by rounding only.
      totals: `[G, ...]` numbers that add up over clusters, or a pytree of such arrays.
      statistic: from totals without the axis G to an array (or a pytree of arrays);
        pure and traceable, for example `macro_f1` on confusion tables.
      num_resamples: S.
      batch_size: how many resamples are computed at once, and so the memory in use:
        the weights take `batch_size * G` numbers.

    Returns:
      `[S, ...]` what `statistic` returns, per resample. NaN where it is undefined.

    Raises:
      ValueError: if `totals` has no array or its arrays disagree on G.

    Reference:
      Davison and Hinkley 1997, "Bootstrap methods and their application", section 3.8;
      Field and Welsh 2007, "Bootstrapping clustered data".

    >>> totals = {"hits": jnp.array([1, 0, 5]), "count": jnp.array([2, 1, 5])}
    >>> mean = lambda t: t["hits"] / t["count"]
    >>> samples = cluster_bootstrap(jax.random.key(0), totals, mean, num_resamples=200)
    >>> samples.shape, bool((samples >= 0.0).all() & (samples <= 1.0).all())
    ((200,), True)
    """
    leaves = jax.tree.leaves(totals)
    sizes = {leaf.shape[:1] for leaf in leaves}
    if len(sizes) != 1 or () in sizes or (0,) in sizes:
        raise ValueError(
            "bootstrap.cluster_bootstrap: totals has arrays of shape "
            f"{[leaf.shape for leaf in leaves]}; expected a first axis G of one size."
        )
    (g,) = sizes.pop()
    totals = jax.tree.map(_work, totals)

    def resample(key: jax.Array) -> Any:
        drawn = jax.random.randint(key, (g,), 0, g)
        weight_g = jnp.zeros((g,), jnp.int32).at[drawn].add(1)
        # Counts above 2,048 would lose digits in an accelerator's default precision.
        return statistic(
            jax.tree.map(
                lambda x: jnp.tensordot(
                    weight_g.astype(x.dtype), x, 1, precision=jax.lax.Precision.HIGHEST
                ),
                totals,
            )
        )

    keys = jax.random.split(key, num_resamples)
    return jax.lax.map(resample, keys, batch_size=batch_size)


def confidence_interval(samples: jax.Array, *, level: float = 0.95) -> Interval:
    """The percentile interval of resampled statistics.

    Args:
      samples: `[S, ...]` float, for example of `cluster_bootstrap`.
      level: the share of resamples inside, in (0, 1).

    Returns:
      `low` and `high`, each `[...]`. Resamples that are NaN are left out, so that the
      interval holds given that the statistic is defined: look at the share of NaN
      before trusting it. NaN if all are.

    Raises:
      ValueError: if `level` is not between 0 and 1.

    Reference:
      Efron and Tibshirani 1993, "An introduction to the bootstrap", section 13.3.

    >>> low, high = confidence_interval(jnp.linspace(0.0, 1.0, 1001), level=0.9)
    >>> print(f"{low:.2f} {high:.2f}")
    0.05 0.95
    """
    if not 0.0 < level < 1.0:
        raise ValueError(
            f"bootstrap.confidence_interval: level is {level}; expected 0 < level < 1."
        )
    tail = 0.5 * (1.0 - level)
    samples = _work(samples)
    low, high = (jnp.nanquantile(samples, q, axis=0) for q in (tail, 1.0 - tail))
    return Interval(low, high)


def _work(x: jax.Array) -> jax.Array:
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
