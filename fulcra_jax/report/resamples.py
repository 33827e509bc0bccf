# SPDX-License-Identifier: Apache-2.0
"""Figures as functions of the weights of N rows, and what resampling makes of them.

With a weight of 1 for each row such a function gives the figure itself; with the number
of times that the row's cluster of prompts was drawn, a resample of it. Ranks come from
running sums over rows that are sorted once. In numpy: compiled running sums take ten
times as long on a CPU, and a report has another shape each time.

Axes: S weightings, N rows, V values.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import scoring

RESAMPLES = 1000
_AT_ONCE = 200_000
"""Rows of all weightings that are worked on at once: what a cache holds."""
_BLOCK = 64
"""Figures whose intervals are computed at once."""

Figures = dict[str, np.ndarray]
"""Name -> numbers `[S, ...]`, a row for each weighting."""


class Ranking(NamedTuple):
    """A column of scores, sorted once for every weighting of its rows."""

    order: np.ndarray
    """`[N]` int: the rows by their score; those that do not count are last."""
    low: np.ndarray
    """`[N]` int: how many rows have a smaller score."""
    high: np.ndarray
    """`[N]` int: how many have a smaller score or the same."""


def ranking(score: np.ndarray, where: np.ndarray) -> Ranking:
    """Sorts a column.

    Args:
      score: `[N]` float, without NaN where it counts.
      where: `[N]` bool, False where a row does not count.

    >>> ranking(np.array([3.0, 1.0, 3.0]), np.ones(3, bool)).high.tolist()
    [3, 1, 3]
    """
    rows = np.flatnonzero(where)
    own = score[rows]
    order = np.concatenate(
        [rows[np.argsort(own, kind="stable")], np.flatnonzero(~where)]
    )
    _, tie, size = np.unique(own, return_inverse=True, return_counts=True)
    low, high = np.zeros(len(score), int), np.zeros(len(score), int)
    high[rows] = np.cumsum(size)[tie]
    low[rows] = high[rows] - size[tie]
    return Ranking(order, low, high)


def weighted_ranks(weights: np.ndarray, ranking: Ranking) -> np.ndarray:
    """Average ranks in the samples where row n stands weights[s, n] times.

    Args:
      weights: `[S, N]` numbers >= 0; 0 where the row does not count.
      ranking: of the column.

    Returns:
      `[S, N]` ranks from 1 on; without meaning where the weight is 0.

    >>> three = ranking(np.array([3.0, 1.0, 2.0]), np.ones(3, bool))
    >>> weighted_ranks(np.array([[1, 1, 1], [1, 2, 0]]), three)[:, :2].tolist()
    [[3.0, 1.0], [3.0, 1.5]]
    """
    running = np.zeros((len(weights), weights.shape[1] + 1))
    np.cumsum(weights[:, ranking.order], 1, out=running[:, 1:])
    return 0.5 * (running[:, ranking.low] + running[:, ranking.high] + 1.0)


def weighted_correlation(
    weights: np.ndarray, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """Pearson's correlation where pair n stands weights[s, n] times.

    Args:
      weights: `[S, N]` numbers >= 0.
      x: `[S, N]` or `[N]` finite numbers.
      y: `[S, N]` or `[N]` finite numbers.

    Returns:
      `[S]` in [-1, 1]; NaN where a column is constant.
    """
    total = weights.sum(1, keepdims=True)
    off, spread = [], []
    varies = np.ones(len(weights), bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        for z in (x, y):
            off.append(z - (weights * z).sum(1, keepdims=True) / total)
            spread.append((weights * off[-1] ** 2).sum(1))
            # The mean of equal numbers may be off by an ulp: that is no spread.
            varies &= spread[-1] > 1e-24 * (weights * z**2).sum(1)
        r = (weights * off[0] * off[1]).sum(1) / np.sqrt(spread[0] * spread[1])
    return np.where(varies, np.clip(r, -1.0, 1.0), np.nan)


def weighted_auroc(
    weights: np.ndarray, ranks: np.ndarray, positive: np.ndarray
) -> np.ndarray:
    """The chance that a positive row ranks above another, as `scoring.auroc`.

    Args:
      weights: `[S, N]` numbers >= 0.
      ranks: `[S, N]` under these weights, of `weighted_ranks`.
      positive: `[N]` bool.

    Returns:
      `[S]` in [0, 1]; NaN where either side has no weight.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        weighted = weights * ranks
        above = weighted[:, positive].sum(1) / weights[:, positive].sum(1)
        below = weighted[:, ~positive].sum(1) / weights[:, ~positive].sum(1)
        return 0.5 + (above - below) / weights.sum(1)


def weighted_sums(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`[S, ...]` the sums over rows `[N, ...]`, each as often as it was drawn."""
    flat = rows.reshape(len(rows), -1).astype(weights.dtype)
    return (weights @ flat).reshape(len(weights), *rows.shape[1:])


def mean_of_values(x: np.ndarray) -> np.ndarray:
    """`[S]` the mean over the values that are defined; NaN where none is."""
    defined = (~np.isnan(x)).sum(1)
    total = np.nansum(x, 1)
    return np.where(defined > 0, total / np.maximum(defined, 1), np.nan)


def resampled(
    statistic: Callable[[np.ndarray], Figures],
    cluster: np.ndarray,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Figures:
    """Figures and their resamples; whole clusters are drawn, as many as there are.

    Args:
      statistic: from weights `[S, N]` to figures `[S, ...]`.
      cluster: `[N]` any ids.
      seed: of the draw; equal clusters and seeds give equal draws, so that figures of
        several systems are paired.
      resamples: how many.

    Returns:
      `[1 + resamples, ...]` of each figure: first the figure itself, then those of the
      resamples.

    Raises:
      ValueError: if `resamples` is below 1.
    """
    if resamples < 1:
        raise ValueError(
            f"resamples.resampled: resamples is {resamples}; it should be at least 1."
        )
    _, ids = np.unique(cluster, return_inverse=True)
    drawn = np.asarray(_draw(jax.random.key(seed), int(ids.max()) + 1, resamples))
    weights = np.concatenate([np.ones_like(drawn[:1]), drawn])
    size = max(1, _AT_ONCE // len(ids))
    parts = [
        statistic(weights[start : start + size][:, ids].astype(float))
        for start in range(0, len(weights), size)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@functools.partial(jax.jit, static_argnums=(1, 2))
def _draw(key: jax.Array, num_clusters: int, resamples: int) -> jax.Array:
    """`[S, G]` how often each cluster is drawn."""
    return scoring.bootstrap(
        key,
        lambda weight_g: weight_g.astype(jnp.uint16),
        num_clusters,
        num_resamples=resamples,
    )


def intervals(figures: Figures) -> dict[str, Any]:
    """95 % percentile intervals.

    Args:
      figures: `[1 + S]` or `[1 + S, V]`, of `resampled`.

    Returns:
      Name -> [low, high], or V such lists. Resamples in which a figure is undefined are
      left out; both ends are NaN where the figure itself is.
    """
    columns = [x.reshape(len(x), -1) for x in figures.values()]
    table = np.concatenate(columns, 1).astype(np.float32)
    table = np.where(np.isnan(table[0]), np.nan, table[1:])
    K = table.shape[1]
    # Blocks of one size, so that one program is compiled for all reports.
    table = np.pad(table, ((0, 0), (0, -K % _BLOCK)), constant_values=np.nan)
    ends = [_ends(table[:, at : at + _BLOCK]) for at in range(0, K, _BLOCK)]
    flat = np.concatenate([np.stack(one, -1) for one in ends])
    found, at = {}, 0
    for (name, x), column in zip(figures.items(), columns, strict=True):
        own = flat[at : at + column.shape[1]]
        found[name] = own.reshape(*x.shape[1:], 2).tolist()
        at += column.shape[1]
    return found


_ends = jax.jit(scoring.confidence_interval)
