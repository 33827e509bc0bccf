# SPDX-License-Identifier: Apache-2.0
"""Whether predicted probabilities mean what they say, as pure functions.

Axes: N items judged, C classes, M bins of equal width. Class ids are label + 1. An
entry with `where=False` is never read. Undefined is NaN.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import _check


class Reliability(NamedTuple):
    """Mean confidence, share correct and number of entries per bin, each `[M]`."""

    confidence: jax.Array
    accuracy: jax.Array
    counts: jax.Array


def reliability_curve(
    confidence: jax.Array,
    correct: jax.Array,
    *,
    num_bins: int = 15,
    where: jax.Array | None = None,
) -> Reliability:
    """The points of a reliability diagram: what was claimed and what came true.

    For the top label pass `probs.max(-1)` and `probs.argmax(-1) == labels`; for one
    class c pass `probs[:, c]` and `labels == c`.

    Args:
      confidence: `[N]` float in [0, 1].
      correct: `[N]` bool.
      num_bins: M; bin m holds confidences in `(m / M, (m + 1) / M]`, the first also 0.
      where: `[N]` bool, False where the entry does not count.

    Returns:
      `confidence`, `accuracy` in [0, 1] and `counts`, each `[M]`. The first two are NaN
      in an empty bin.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      Niculescu-Mizil and Caruana 2005, "Predicting good probabilities with supervised
      learning".

    >>> curve = reliability_curve(jnp.array([0.6, 0.8]), jnp.array([1, 0]), num_bins=2)
    >>> [round(float(x), 2) for x in curve.confidence], curve.accuracy.tolist()
    ([nan, 0.7], [nan, 0.5])
    """
    _check.shapes(
        "calibration.reliability_curve",
        confidence=(confidence, "N"),
        correct=(correct, "N"),
        where=(where, "N"),
    )
    confidence_m, correct_m, count_m = _bins(
        _work(confidence), correct, _present(where, correct), num_bins
    )
    safe_m = jnp.maximum(count_m, 1.0)
    return Reliability(
        confidence=jnp.where(count_m > 0.0, confidence_m / safe_m, jnp.nan),
        accuracy=jnp.where(count_m > 0.0, correct_m / safe_m, jnp.nan),
        counts=count_m,
    )


def expected_calibration_error(
    probs: jax.Array,
    labels: jax.Array,
    *,
    num_bins: int = 15,
    where: jax.Array | None = None,
) -> jax.Array:
    """The mean gap between the top class's probability and its share of hits.

    ECE = sum_m n_m / N |accuracy_m - confidence_m| over bins of equal width.

    Args:
      probs: `[N, C]` float; rows sum to one. Of equal top classes the first counts.
      labels: `[N]` int class ids in `[0, C)`.
      num_bins: M; see `reliability_curve` for the edges.
      where: `[N]` bool, False where the entry does not count.

    Returns:
      `[]` in [0, 1], 0 is best; NaN if no entry counts. Biased upward for small N.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      Guo et al. 2017 (arXiv 1706.04599), equation 3.

    >>> probs = jnp.array([[0.9, 0.1], [0.2, 0.8]])
    >>> print(f"{expected_calibration_error(probs, jnp.array([0, 0])):.2f}")
    0.45
    """
    probs, labels, where = _masked("expected_calibration_error", probs, labels, where)
    correct_n = probs.argmax(-1) == labels
    return _gap(probs.max(-1), correct_n, where, num_bins)


def classwise_calibration_error(
    probs: jax.Array,
    labels: jax.Array,
    *,
    num_bins: int = 15,
    where: jax.Array | None = None,
) -> jax.Array:
    """The calibration gap of every class's probability, averaged over the classes.

    Unlike the top-label error it sees a rare class whose probability is off.

    Args:
      probs: `[N, C]` float; rows sum to one.
      labels: `[N]` int class ids in `[0, C)`.
      num_bins: M; see `reliability_curve` for the edges.
      where: `[N]` bool, False where the entry does not count.

    Returns:
      `[]` in [0, 1], 0 is best; NaN if no entry counts.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      Kull et al. 2019 (arXiv 1910.12656), classwise-ECE.

    >>> probs = jnp.array([[0.9, 0.1], [0.2, 0.8]])
    >>> print(f"{classwise_calibration_error(probs, jnp.array([0, 0])):.2f}")
    0.45
    """
    probs, labels, where = _masked("classwise_calibration_error", probs, labels, where)
    correct_nc = jax.nn.one_hot(labels, probs.shape[1], dtype=bool)
    gap = jax.vmap(lambda p_n, y_n: _gap(p_n, y_n, where, num_bins), in_axes=1)
    return gap(probs, correct_nc).mean()


def brier(
    probs: jax.Array, labels: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """The mean squared distance of the probabilities and the true class's unit vector.

    Args:
      probs: `[N, C]` float; rows sum to one.
      labels: `[N]` int class ids in `[0, C)`; for an id outside no class is right.
      where: `[N]` bool, False where the entry does not count.

    Returns:
      `[]` in [0, 2] (summed over the classes, not halved), 0 is best; NaN if no entry
      counts.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      Brier 1950, "Verification of forecasts expressed in terms of probability".

    >>> print(f"{brier(jnp.array([[0.8, 0.2, 0.0]]), jnp.array([0])):.2f}")
    0.08
    """
    probs, labels, where = _masked("brier", probs, labels, where)
    truth_nc = jax.nn.one_hot(labels, probs.shape[1], dtype=probs.dtype)
    return _mean(((probs - truth_nc) ** 2).sum(1), where)


def negative_log_likelihood(
    probs: jax.Array, labels: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """The mean of -log of the probability given to the true class.

    Args:
      probs: `[N, C]` float; rows sum to one. From logits train with a cross-entropy
        instead, which does not round small probabilities to 0.
      labels: `[N]` int class ids in `[0, C)`; for an id outside the result is inf.
      where: `[N]` bool, False where the entry does not count.

    Returns:
      `[]` nats in [0, inf], 0 is best; inf if a true class has probability 0, NaN if no
      entry counts.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      Good 1952, "Rational decisions" (the logarithmic score).

    >>> print(f"{negative_log_likelihood(jnp.array([[0.5, 0.5]]), jnp.array([1])):.3f}")
    0.693
    """
    probs, labels, where = _masked("negative_log_likelihood", probs, labels, where)
    truth_nc = jax.nn.one_hot(labels, probs.shape[1], dtype=probs.dtype)
    return _mean(-jnp.log((probs * truth_nc).sum(1)), where)


def _work(x: jax.Array) -> jax.Array:
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _present(where: jax.Array | None, like: jax.Array) -> jax.Array:
    return jnp.ones(like.shape, bool) if where is None else jnp.asarray(where, bool)


def _masked(
    caller: str, probs: jax.Array, labels: jax.Array, where: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Checked inputs in the work dtype; entries that do not count are harmless."""
    size = _check.shapes(
        f"calibration.{caller}",
        probs=(probs, "N C"),
        labels=(labels, "N"),
        where=(where, "N"),
    )
    where = _present(where, labels)
    probs = jnp.where(where[:, None], _work(probs), 1.0 / size["C"])
    return probs, jnp.where(where, labels, 0), where


def _mean(x_n: jax.Array, where_n: jax.Array) -> jax.Array:
    count = where_n.sum().astype(x_n.dtype)
    mean = jnp.where(where_n, x_n, 0.0).sum() / jnp.maximum(count, 1.0)
    return jnp.where(count > 0.0, mean, jnp.nan)


def _bins(
    confidence_n: jax.Array, correct_n: jax.Array, where_n: jax.Array, num_bins: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Summed confidence, hits and entries of every bin."""
    dtype = confidence_n.dtype
    confidence_n = jnp.where(where_n, confidence_n, 0.0)
    inner = np.linspace(0.0, 1.0, num_bins + 1)[1:-1].astype(dtype)
    bin_n = jnp.searchsorted(inner, confidence_n)
    # A one-hot matmul would round the confidences on an accelerator.
    columns_nk = jnp.stack(
        [confidence_n, (where_n & correct_n).astype(dtype), where_n.astype(dtype)], 1
    )
    sums_mk = jax.ops.segment_sum(columns_nk, bin_n, num_segments=num_bins)
    return sums_mk[:, 0], sums_mk[:, 1], sums_mk[:, 2]


def _gap(
    confidence_n: jax.Array, correct_n: jax.Array, where_n: jax.Array, num_bins: int
) -> jax.Array:
    # n_m / N |accuracy_m - confidence_m| without dividing by an empty bin.
    confidence_m, correct_m, count_m = _bins(confidence_n, correct_n, where_n, num_bins)
    gap = jnp.abs(correct_m - confidence_m).sum() / jnp.maximum(count_m.sum(), 1.0)
    return jnp.where(count_m.sum() > 0.0, gap, jnp.nan)
