# SPDX-License-Identifier: Apache-2.0
"""Intervals for any statistic, by resampling items, clusters or counts of patterns.

Three routes, from the most general to the fastest. `bootstrap` hands a statistic the
weight of every item. Where a statistic needs only totals that add up, for example one
confusion table per cluster, `cluster_bootstrap` costs one weighted sum a resample.
Where items fall into few patterns, `resample_counts` costs the same for any N.
Responses to one prompt (or to near-duplicate prompts) are not independent: draw whole
clusters then.

Axes: N items judged, G clusters, P patterns, S resamples.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from fulcra_jax import _check
from fulcra_jax.scoring import _sums


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
    _check.shapes("resampling.sum_by_cluster", cluster=(cluster, "N"))

    def total(x: jax.Array) -> jax.Array:
        if x.shape[:1] != cluster.shape:
            raise ValueError(
                f"resampling.sum_by_cluster: values has shape {x.shape}; its first "
                f"axis must be N={cluster.shape[0]} as in cluster."
            )
        return _sums.segment_sum(_work(x), cluster, num_clusters)

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
            "resampling.cluster_bootstrap: totals has arrays of shape "
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


def bootstrap(
    key: jax.Array,
    statistic: Callable[[jax.Array], Any],
    num_units: int,
    *,
    cluster: jax.Array | None = None,
    num_clusters: int | None = None,
    num_resamples: int = 1000,
    batch_size: int = 100,
) -> Any:
    """Any statistic of resampled items: N drawn from N with replacement, or clusters.

    The weight of an item is how often it (or its cluster) was drawn.

    Args:
      key: a PRNG key. `batch_size` changes the result by rounding only.
      statistic: from the weights `[N]` to an array (or a pytree of arrays); pure and
        traceable, for example `lambda w: fleiss_kappa(ratings, 3, unit_weights=w)`.
      num_units: N.
      cluster: `[N]` int in `[0, G)`, the cluster of each item; an item with an id
        outside has weight 0. None draws single items.
      num_clusters: G; every id below it should own an item. Needed with `cluster`.
      num_resamples: S.
      batch_size: how many resamples are computed at once, and so the memory in use:
        the weights take `batch_size * N` numbers.

    Returns:
      `[S, ...]` what `statistic` returns, per resample. NaN where it is undefined. The
      weights are float32, or float64 under x64; whole numbers either way.

    Raises:
      ValueError: if N is 0, `cluster` is not `[N]`, `num_clusters` is missing, or an
        id is not below it (while tracing, such an item has weight 0).

    Reference:
      Efron and Tibshirani 1993, "An introduction to the bootstrap", chapter 6; Field
      and Welsh 2007, "Bootstrapping clustered data".

    >>> x = jnp.array([1.0, 2.0, 6.0])
    >>> mean = lambda w: (w * x).sum() / w.sum()
    >>> samples = bootstrap(jax.random.key(0), mean, 3, num_resamples=500)
    >>> samples.shape, bool(jnp.abs(samples.mean() - 3.0) < 0.3)
    ((500,), True)
    """
    if num_units < 1:
        raise ValueError(
            f"resampling.bootstrap: num_units is {num_units}; expected at least 1."
        )
    if cluster is not None:
        _check.shapes("resampling.bootstrap", cluster=(cluster, "N"))
        if cluster.shape != (num_units,):
            raise ValueError(
                f"resampling.bootstrap: cluster has shape {cluster.shape}; expected "
                f"[N] with N={num_units} as in num_units."
            )
        if num_clusters is None:
            raise ValueError("resampling.bootstrap: cluster needs num_clusters.")
        traced = isinstance(cluster, Tracer)
        if not traced and (np.asarray(cluster) >= num_clusters).any():
            raise ValueError(
                f"resampling.bootstrap: cluster holds {np.asarray(cluster).max()}, but "
                f"num_clusters is {num_clusters}; ids run from 0 (-1 leaves one out)."
            )
    g = num_units if cluster is None or num_clusters is None else num_clusters
    dtype = jnp.zeros(()).dtype

    def resample(key: jax.Array) -> Any:
        drawn = jax.random.randint(key, (g,), 0, g)
        weight_g = jnp.zeros((g,), jnp.int32).at[drawn].add(1).astype(dtype)
        if cluster is None:
            return statistic(weight_g)
        inside = (cluster >= 0) & (cluster < g)
        return statistic(jnp.where(inside, weight_g[jnp.where(inside, cluster, 0)], 0))

    keys = jax.random.split(key, num_resamples)
    return jax.lax.map(resample, keys, batch_size=batch_size)


def resample_counts(
    key: jax.Array, counts: jax.Array, *, num_resamples: int = 1000
) -> jax.Array:
    """Resampled counts of patterns: what N items drawn with replacement would give.

    counts* ~ multinomial(N, counts / N), N = sum of counts

    Equal in distribution to counting N drawn items, at a cost that does not grow with
    N. Drawn on the host by numpy, called back from the compiled program: ten times as
    fast as `jax.random.multinomial` on a CPU and exact beyond float32. It works under
    jit and vmap; on a cluster without a host beside the device it does not.

    Args:
      key: a PRNG key; its words seed numpy's generator, so that the draws repeat for
        one version of numpy.
      counts: `[P]` numbers >= 0, whole in sum (the sum is rounded); up to 2**24 each
        are exact in float32.
      num_resamples: S.

    Returns:
      `[S, P]` float, each row sums to N exactly; 0 where the count is 0. NaN if a count
      is negative or not finite. No gradient flows to `counts`.

    Raises:
      ValueError: if `counts` is not `[P]`.

    Reference:
      Efron and Tibshirani 1993, "An introduction to the bootstrap", section 5.2
      (resampling vectors are multinomial).

    >>> counts = resample_counts(jax.random.key(0), jnp.array([5, 0, 15]))
    >>> counts.shape, counts.sum(1).min().item(), counts[:, 1].max().item()
    ((1000, 3), 20.0, 0.0)
    """
    _check.shapes("resampling.resample_counts", counts=(counts, "P"))
    counts = jax.lax.stop_gradient(_work(counts))
    words = jax.random.key_data(key)
    shape = (num_resamples, *counts.shape)

    def host(words: Any, counts: Any) -> np.ndarray:
        words, counts = np.asarray(words), np.asarray(counts)
        drawn = np.empty((*counts.shape[:-1], *shape), counts.dtype)
        for i in np.ndindex(counts.shape[:-1]):
            drawn[i] = _multinomial(words[i], counts[i], num_resamples)
        return drawn

    return jax.pure_callback(
        host,
        jax.ShapeDtypeStruct(shape, counts.dtype),
        words,
        counts,
        vmap_method="broadcast_all",
    )


def _multinomial(words: np.ndarray, counts: np.ndarray, size: int) -> np.ndarray:
    drawn = np.zeros((size, *counts.shape))
    wide = counts.astype(np.float64)
    if not (np.isfinite(wide) & (wide >= 0.0)).all():
        return np.full_like(drawn, np.nan)
    # Without the empty patterns: they cost time, and the last one is owed the rounding.
    (present,) = np.nonzero(wide)
    if len(present):
        total = wide.sum()
        random = np.random.default_rng(words.ravel().tolist())
        drawn[:, present] = random.multinomial(
            round(total), wide[present] / total, size=size
        )
    return drawn


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
            f"resampling.confidence_interval: level is {level}; expected 0 < level < 1."
        )
    tail = 0.5 * (1.0 - level)
    samples = _work(samples)
    if samples.shape[:1] in ((), (0,)):
        raise ValueError(
            f"resampling.confidence_interval: samples has shape {samples.shape}; "
            "expected [S, ...] with at least one resample."
        )
    low, high = (jnp.nanquantile(samples, q, axis=0) for q in (tail, 1.0 - tail))
    return Interval(low, high)


def _work(x: jax.Array) -> jax.Array:
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
