# SPDX-License-Identifier: Apache-2.0
"""How well the presence of categories was told: several may be there, or none.

The official measure of ValueEval'23 is not the mean of the categories' F1: it is the
harmonic mean of macro-averaged precision and macro-averaged recall, which is at least
as large. Where two figures are both called macro-F1, say which is which.

Axes: N items judged, V categories, T thresholds. An entry with `where=False` is never
read.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import _check


class PresenceScores(NamedTuple):
    """Precision, recall, F1 and number of labels of every category, each `[V]`."""

    precision: jax.Array
    recall: jax.Array
    f1: jax.Array
    support: jax.Array


class MacroScores(NamedTuple):
    """Averages over categories, each `[]`."""

    official_f1: jax.Array
    """2 P R / (P + R) of the mean precision P and the mean recall R."""
    mean_f1: jax.Array
    """The mean of the categories' F1."""
    precision: jax.Array
    recall: jax.Array


def presence_counts(
    predicted: jax.Array, labels: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """What precision and recall of every category follow from.

    Args:
      predicted: `[N, V]` bool or 0/1: whether the category is said to be there.
      labels: `[N, V]` bool or 0/1: whether it is.
      where: `[N, V]` bool, False where the cell does not count.

    Returns:
      `[V, 3]` float32: how often both, predicted, labelled. Counts of parts of the data
      add up to those of the whole.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      Manning, Raghavan and Schuetze 2008, "Introduction to Information Retrieval", 8.3.

    >>> presence_counts(jnp.array([[1], [1], [0]]), jnp.array([[1], [0], [1]])).tolist()
    [[1.0, 2.0, 2.0]]
    """
    _check.shapes(
        "presence.presence_counts",
        predicted=(predicted, "N V"),
        labels=(labels, "N V"),
        where=(where, "N V"),
    )
    where = jnp.ones(labels.shape, bool) if where is None else jnp.asarray(where, bool)
    said = (jnp.asarray(predicted) > 0) & where
    there = (jnp.asarray(labels) > 0) & where
    counts = [said & there, said, there]
    return jnp.stack([x.sum(0, dtype=jnp.float32) for x in counts], -1)


def presence_scores(counts: jax.Array) -> PresenceScores:
    """Precision, recall and F1 = 2 TP / (predicted + labelled) of every category.

    Args:
      counts: `[V, 3]` of `presence_counts`.

    Returns:
      `precision`, `recall`, `f1` in [0, 1] and `support`. Precision is NaN for a
      category never predicted, recall for one without labels, F1 for one with neither.

    Raises:
      ValueError: if the shape is another.

    Reference:
      van Rijsbergen 1979, "Information Retrieval", chapter 7.

    >>> scores = presence_scores(jnp.array([[3.0, 4.0, 6.0]]))
    >>> [float(x[0]) for x in scores]
    [0.75, 0.5, 0.6000000238418579, 6.0]
    """
    _check.shapes("presence.presence_scores", counts=(counts, "V 3"))
    hits_v, said_v, there_v = jnp.moveaxis(_work(counts), -1, 0)
    return PresenceScores(
        precision=_ratio(hits_v, said_v),
        recall=_ratio(hits_v, there_v),
        f1=_ratio(2.0 * hits_v, said_v + there_v),
        support=there_v,
    )


def macro_scores(counts: jax.Array) -> MacroScores:
    """The official F1 of ValueEval'23 and the mean of the categories' F1.

    Args:
      counts: `[V, 3]` of `presence_counts`.

    Returns:
      Averages over the categories that have labels, in [0, 1]; a category that is never
      predicted has precision and F1 0. NaN if no category has a label.

    Raises:
      ValueError: if the shape is another.

    Reference:
      Kiesel et al. 2023, "SemEval-2023 Task 4: ValueEval", and its released evaluator;
      Opitz and Burst 2019 (arXiv 1911.03347) on the two averages.

    >>> scores = macro_scores(jnp.array([[1.0, 1.0, 4.0], [4.0, 16.0, 4.0]]))
    >>> [round(float(x), 3) for x in scores]
    [0.625, 0.4, 0.625, 0.625]
    """
    _check.shapes("presence.macro_scores", counts=(counts, "V 3"))
    scores = presence_scores(counts)
    counted_v = scores.support > 0.0
    number = counted_v.sum().astype(scores.f1.dtype)

    def mean(x_v: jax.Array) -> jax.Array:
        kept_v = jnp.where(counted_v & ~jnp.isnan(x_v), x_v, 0.0)
        return _ratio(kept_v.sum(), number)

    precision, recall = mean(scores.precision), mean(scores.recall)
    total = precision + recall
    harmonic = jnp.where(
        total == 0.0, 0.0, 2.0 * precision * recall / jnp.where(total > 0, total, 1.0)
    )
    official = jnp.where(number > 0.0, harmonic, jnp.nan)
    return MacroScores(official, mean(scores.f1), precision, recall)


def fit_threshold(
    probs: jax.Array,
    labels: jax.Array,
    *,
    reach: float = 5.0,
    steps: int = 101,
    smooth: int = 1,
    where: jax.Array | None = None,
) -> jax.Array:
    """The one threshold for all categories under which the official F1 is highest.

    argmax_t mean of the official F1 over the neighbours of t, on a grid that is even in
    log(t / (1 - t)). The maximum of a step function is luck; the middle of a plateau is
    not, hence the mean over neighbours.

    Args:
      probs: `[N, V]` float in [0, 1]; a category is there from the threshold on.
      labels: `[N, V]` bool or 0/1.
      reach: the grid runs from sigmoid(-reach) to sigmoid(reach).
      steps: T, its points.
      smooth: how many points on each side are neighbours.
      where: `[N, V]` bool, False where the cell does not count.

    Returns:
      `[]` in (0, 1), a point of the grid: its gradient is 0. NaN if no category has a
      label.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      Lipton, Elkan and Naryanaswamy 2014 (arXiv 1402.1892), thresholds that maximise
      F1.

    >>> probs = jnp.array([[0.1], [0.2], [0.3], [0.4]])
    >>> t = fit_threshold(probs, jnp.array([[0], [0], [1], [1]]))
    >>> bool((t > 0.2) & (t <= 0.3))
    True
    """
    grid, curve_tv3 = _curve("fit_threshold", probs, labels, where, reach, steps)
    best = _highest(jax.vmap(macro_scores)(curve_tv3).official_f1[:, None], smooth)
    any_label = curve_tv3[0, :, 2].sum() > 0.0
    return jnp.where(any_label, jax.nn.sigmoid(grid[best[0]]), jnp.nan)


def fit_thresholds(
    probs: jax.Array,
    labels: jax.Array,
    *,
    prior: float = 50.0,
    reach: float = 5.0,
    steps: int = 101,
    smooth: int = 1,
    where: jax.Array | None = None,
) -> jax.Array:
    """A threshold for each category, drawn to the common one where labels are few.

    logit t_v = (n_v logit t*_v + prior logit t) / (n_v + prior), n_v labels of category
    v, t*_v the threshold with the highest F1 of that category, t that of
    `fit_threshold`.

    Free thresholds of rare categories fit their few labels by heart.

    Args:
      probs: `[N, V]` float in [0, 1]; a category is there from its threshold on.
      labels: `[N, V]` bool or 0/1.
      prior: with that many labels a category is half its own; infinity gives all the
        common one.
      reach: the grid runs from sigmoid(-reach) to sigmoid(reach).
      steps: T, its points.
      smooth: how many points on each side are neighbours.
      where: `[N, V]` bool, False where the cell does not count.

    Returns:
      `[V]` in (0, 1), the common one for a category without labels; the gradient is 0.
      NaN if no category has a label.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      Lipton, Elkan and Naryanaswamy 2014 (arXiv 1402.1892), section 5; shrinkage as in
      Efron and Morris 1975, "Data analysis using Stein's estimator".

    >>> probs = jnp.array([[0.1, 0.5], [0.2, 0.6], [0.3, 0.9], [0.4, 0.2]])
    >>> labels = jnp.array([[0, 0], [0, 0], [1, 1], [1, 0]])
    >>> low, high = fit_thresholds(probs, labels, prior=0.0)
    >>> bool(low <= 0.3), bool(high > 0.6)
    (True, True)
    """
    grid, curve_tv3 = _curve("fit_thresholds", probs, labels, where, reach, steps)
    common = grid[
        _highest(jax.vmap(macro_scores)(curve_tv3).official_f1[:, None], smooth)
    ]
    own_v = grid[_highest(jax.vmap(presence_scores)(curve_tv3).f1, smooth)]
    support_v = curve_tv3[0, :, 2].astype(grid.dtype)
    weight_v = jnp.where(support_v > 0.0, support_v / (support_v + prior), 0.0)
    logit_v = weight_v * own_v + (1.0 - weight_v) * common
    return jnp.where(support_v.sum() > 0.0, jax.nn.sigmoid(logit_v), jnp.nan)


def _curve(
    name: str,
    probs: jax.Array,
    labels: jax.Array,
    where: jax.Array | None,
    reach: float,
    steps: int,
) -> tuple[jax.Array, jax.Array]:
    """`[T]` thresholds as logits and `[T, V, 3]` counts under each of them."""
    _check.shapes(
        f"presence.{name}",
        probs=(probs, "N V"),
        labels=(labels, "N V"),
        where=(where, "N V"),
    )
    probs = jax.lax.stop_gradient(_work(probs))
    if where is not None:
        probs = jnp.where(where, probs, 0.0)
    grid = jnp.asarray(np.linspace(-reach, reach, steps), probs.dtype)
    counts = lambda t: presence_counts(
        probs >= jax.nn.sigmoid(t), labels, where=where
    ).astype(probs.dtype)
    return grid, jax.lax.map(counts, grid)


def _highest(curve_tv: jax.Array, smooth: int) -> jax.Array:
    """`[V]` index of the highest mean over neighbours; the edge counts again beyond
    it."""
    curve_tv = jnp.nan_to_num(curve_tv)
    padded = jnp.pad(curve_tv, [(smooth, smooth), (0, 0)], mode="edge")
    shifted = [padded[i : i + len(curve_tv)] for i in range(2 * smooth + 1)]
    # Rounded, so that equal points stay equal; of those, the middle one.
    mean_tv = jnp.round(jnp.stack(shifted).mean(0), 5)
    best_tv = mean_tv == mean_tv.max(0, keepdims=True)
    rank_tv = jnp.cumsum(best_tv, 0)
    middle_v = (rank_tv[-1] + 1) // 2
    return (best_tv & (rank_tv == middle_v[None])).argmax(0)


def _work(x: jax.Array) -> jax.Array:
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    """The share, NaN where the whole is 0; the gradient stays finite there."""
    safe = jnp.where(whole > 0.0, whole, 1.0)
    return jnp.where(whole > 0.0, part / safe, jnp.nan)
