# SPDX-License-Identifier: Apache-2.0
"""How well predicted values match human labels, as pure functions.

Axes: N items judged (texts, or text-value cells), V values, C classes. Class ids are
label + 1, so 0, 1, 2 stand for -1, 0, +1. An entry with `where=False` is never read.
Every function takes one table: ravel `[N, V]` to pool the cells, `jax.vmap` for one
result per value. Counts are exact up to 2**24 in float32. Undefined is NaN.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import _check


class ClassScores(NamedTuple):
    """Precision, recall, F1 and number of labels per class, each `[C]`."""

    precision: jax.Array
    recall: jax.Array
    f1: jax.Array
    support: jax.Array


def classes_from_score(score: jax.Array, cut: float | jax.Array = 0.5) -> jax.Array:
    """The class of a score: +1 above the cut, -1 below minus the cut, 0 between.

    Args:
      score: `[...]` float in [-1, 1].
      cut: non-negative number, or an array that broadcasts against `score`. The
        released code has two: 0.5 (the nearest of -1, 0, +1), by which its evaluator is
        judged, and 0.3, below which its alignment reward takes a value for absent.

    Returns:
      `[...]` int32 class ids 0, 1, 2 for -1, 0, +1. A score at the cut has the label 0.
      A NaN score has the id -1: no label equals it and `confusion` counts it nowhere.

    Reference:
      Yao et al. 2024 (arXiv 2311.10766), released evaluator and reward code.

    >>> classes_from_score(jnp.array([-0.9, -0.4, 0.1, 0.6]), cut=0.3).tolist()
    [0, 0, 1, 2]
    """
    score = _work(score)
    ids = 1 + (score > cut).astype(jnp.int32) - (score < -cut).astype(jnp.int32)
    return jnp.where(jnp.isnan(score), -1, ids)


def confusion(
    predicted: jax.Array,
    labels: jax.Array,
    num_classes: int = 3,
    *,
    where: jax.Array | None = None,
) -> jax.Array:
    """How often each class was predicted for each label.

    Args:
      predicted: `[N]` int class ids in `[0, C)`.
      labels: `[N]` int class ids in `[0, C)`. A pair with an id outside the range is
        counted nowhere, so the sum of the table falls short of N.
      num_classes: C.
      where: `[N]` bool, False where the entry does not count.

    Returns:
      `[C, C]` float32 counts, rows = labels, columns = predictions. Tables of parts of
      the data add up to the table of the whole.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      Manning, Raghavan and Schuetze 2008, "Introduction to Information Retrieval", 8.3.

    >>> confusion(jnp.array([0, 2, 2]), jnp.array([0, 1, 2])).astype(int).tolist()
    [[1, 0, 0], [0, 0, 1], [0, 0, 1]]
    """
    _check.shapes(
        "prediction.confusion",
        predicted=(predicted, "N"),
        labels=(labels, "N"),
        where=(where, "N"),
    )
    where = _present(where, labels)
    label_nc = jax.nn.one_hot(labels, num_classes) * where[:, None]
    predicted_nc = jax.nn.one_hot(predicted, num_classes)
    # Zeros and ones are exact in every matmul precision.
    return jnp.einsum("nc,nd->cd", label_nc, predicted_nc)


def precision_recall_f1(counts: jax.Array) -> ClassScores:
    """Precision, recall and F1 = 2 TP / (2 TP + FP + FN) of every class.

    Args:
      counts: `[C, C]` a table of `confusion`; soft (fractional) counts are fine.

    Returns:
      `precision`, `recall`, `f1` in [0, 1] and `support`, each `[C]`. Precision is NaN
      for a class never predicted, recall for a class without labels, F1 for a class
      with neither.

    Raises:
      ValueError: if the table is not square.

    Reference:
      van Rijsbergen 1979, "Information Retrieval", chapter 7.

    >>> scores = precision_recall_f1(jnp.array([[3.0, 1.0], [2.0, 4.0]]))
    >>> [round(float(f), 3) for f in scores.f1]
    [0.667, 0.727]
    """
    _check.shapes("prediction.precision_recall_f1", counts=(counts, "C C"))
    counts = _work(counts)
    hits_c = jnp.diagonal(counts)
    support_c = counts.sum(1)
    predicted_c = counts.sum(0)
    return ClassScores(
        precision=_ratio(hits_c, predicted_c),
        recall=_ratio(hits_c, support_c),
        f1=_ratio(2.0 * hits_c, support_c + predicted_c),
        support=support_c,
    )


def accuracy(counts: jax.Array) -> jax.Array:
    """The share of entries whose class was predicted.

    Args:
      counts: `[C, C]` a table of `confusion`.

    Returns:
      `[]` in [0, 1]; NaN if the table is empty.

    Raises:
      ValueError: if the table is not square.

    Reference:
      Manning, Raghavan and Schuetze 2008, "Introduction to Information Retrieval", 8.3.

    >>> print(f"{accuracy(jnp.array([[3.0, 1.0], [2.0, 4.0]])):.2f}")
    0.70
    """
    _check.shapes("prediction.accuracy", counts=(counts, "C C"))
    counts = _work(counts)
    return _ratio(jnp.trace(counts), counts.sum())


def macro_f1(counts: jax.Array, *, present_only: bool = False) -> jax.Array:
    """The unweighted mean of the classes' F1.

    Args:
      counts: `[C, C]` a table of `confusion`.
      present_only: False averages over all C classes, and a class with neither labels
        nor predictions has F1 0 (scikit-learn's `zero_division=0`): for cells pooled
        over the values. True averages over the classes that have labels: for one
        value, where a class may be absent from the data.

    Returns:
      `[]` in [0, 1]; NaN if the table is empty.

    Raises:
      ValueError: if the table is not square.

    Reference:
      Opitz and Burst 2019 (arXiv 1911.03347), "averaged F1".

    >>> counts = jnp.array([[0.0, 0.0, 0.0], [0.0, 6.0, 2.0], [0.0, 1.0, 3.0]])
    >>> print(f"{macro_f1(counts):.3f} {macro_f1(counts, present_only=True):.3f}")
    0.489 0.733
    """
    _check.shapes("prediction.macro_f1", counts=(counts, "C C"))
    scores = precision_recall_f1(counts)
    f1_c = jnp.where(jnp.isnan(scores.f1), 0.0, scores.f1)
    counted = scores.support > 0.0
    if not present_only:
        counted = jnp.broadcast_to(counted.any(), f1_c.shape)
    return _ratio(jnp.where(counted, f1_c, 0.0).sum(), counted.sum().astype(f1_c.dtype))


def quadratic_kappa(counts: jax.Array) -> jax.Array:
    """Cohen's kappa of prediction and label with squared class distance as weight.

    kappa = 1 - sum_ij (i - j)^2 O_ij / sum_ij (i - j)^2 E_ij, E from the two margins.

    Args:
      counts: `[C, C]` a table of `confusion`.

    Returns:
      `[]` in [-1, 1]: 1 is perfect, 0 is chance. NaN if the table is empty or all
      labels and all predictions are one and the same class.

    Raises:
      ValueError: if the table is not square.

    Reference:
      Cohen 1968, "Weighted kappa", Psychological Bulletin 70(4).

    >>> print(f"{quadratic_kappa(jnp.array([[3.0, 1.0], [2.0, 4.0]])):.3f}")
    0.400
    """
    size = _check.shapes("prediction.quadratic_kappa", counts=(counts, "C C"))
    counts = _work(counts)
    total = counts.sum()
    share_cc = counts / jnp.where(total > 0.0, total, 1.0)
    c = np.arange(size["C"])
    distance_cc = (np.subtract.outer(c, c) ** 2).astype(counts.dtype)
    expected_cc = share_cc.sum(1)[:, None] * share_cc.sum(0)[None, :]
    observed = (distance_cc * share_cc).sum()
    return 1.0 - _ratio(observed, (distance_cc * expected_cc).sum())


def reversal_rate(counts: jax.Array) -> jax.Array:
    """The share of non-zero labels that were predicted with the opposite sign.

    Args:
      counts: `[3, 3]` a table of `confusion` in the class order -1, 0, +1.

    Returns:
      `[]` in [0, 1], 0 is best; NaN if no label is non-zero.

    Raises:
      ValueError: if the table is not 3 by 3.

    Reference:
      The measure of that name in the FEHU task of NTCIR.

    >>> counts = jnp.array([[2.0, 1.0, 1.0], [5.0, 9.0, 5.0], [1.0, 0.0, 5.0]])
    >>> print(f"{reversal_rate(counts):.1f}")
    0.2
    """
    _check.shapes("prediction.reversal_rate", counts=(counts, "3 3"))
    counts = _work(counts)
    return _ratio(counts[0, 2] + counts[2, 0], counts[0].sum() + counts[2].sum())


def exact_match(
    predicted: jax.Array, labels: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """The share of items whose whole value vector was predicted.

    Args:
      predicted: `[N, V]` int class ids.
      labels: `[N, V]` int class ids.
      where: `[N, V]` bool, False where a cell does not count. An item is matched if its
        cells that count are; an item without any does not count.

    Returns:
      `[]` float32 in [0, 1]; NaN if no item counts.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      Read et al. 2011, "Classifier chains for multi-label classification"
      (subset accuracy).

    >>> exact_match(jnp.array([[0, 1], [2, 1]]), jnp.array([[0, 1], [2, 2]])).item()
    0.5
    """
    _check.shapes(
        "prediction.exact_match",
        predicted=(predicted, "N V"),
        labels=(labels, "N V"),
        where=(where, "N V"),
    )
    where = _present(where, labels)
    matched_n = ((predicted == labels) | ~where).all(1)
    return _mean(matched_n.astype(jnp.float32), where.any(1))


def mean_squared_error(
    score: jax.Array, labels: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """The mean squared distance of score and label.

    Args:
      score: `[N]` float; clip to [-1, 1] first for the figure of the released code.
      labels: `[N]` int or float in [-1, 1] (labels, not class ids).
      where: `[N]` bool, False where the entry does not count.

    Returns:
      `[]` in [0, 4] for scores in [-1, 1], 0 is best; NaN if no entry counts.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      Yao et al. 2024 (arXiv 2311.10766), released evaluator code.

    >>> mean_squared_error(jnp.array([0.5, -1.0]), jnp.array([1, -1])).item()
    0.125
    """
    _check.shapes(
        "prediction.mean_squared_error",
        score=(score, "N"),
        labels=(labels, "N"),
        where=(where, "N"),
    )
    where = _present(where, labels)
    error_n = jnp.where(where, _work(score) - labels, 0.0)
    return _mean(error_n**2, where)


def _work(x: jax.Array) -> jax.Array:
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _present(where: jax.Array | None, like: jax.Array) -> jax.Array:
    return jnp.ones(like.shape, bool) if where is None else jnp.asarray(where, bool)


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    """The share, NaN where the whole is 0; the gradient stays finite there."""
    safe = jnp.where(whole > 0.0, whole, 1.0)
    return jnp.where(whole > 0.0, part / safe, jnp.nan)


def _mean(x_n: jax.Array, where_n: jax.Array) -> jax.Array:
    return _ratio(jnp.where(where_n, x_n, 0.0).sum(), where_n.sum().astype(x_n.dtype))
