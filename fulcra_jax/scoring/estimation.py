# SPDX-License-Identifier: Apache-2.0
"""Shares and means from many LLM labels and few human ones, with honest intervals.

The target is what a human would say of every item. The LLM's labels are free to be
wrong: they lower the variance and leave the mean alone, provided that the human labels
are of a random sample whose probabilities are known. Human labels of the items that
look doubtful are no such sample.

Axes: n labelled items, N items (or unlabelled items). For the share of a class pass 0
or 1 as label and prediction; every other axis (values, classes) follows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import _check
from fulcra_jax.scoring import _distributions

POPULATIONS = ("superpopulation", "finite")


class Estimate(NamedTuple):
    """A mean with its interval, its standard error and the predictions' weight."""

    mean: jax.Array
    low: jax.Array
    high: jax.Array
    standard_error: jax.Array
    lam: jax.Array


def ppi_mean(
    labels: jax.Array,
    predictions_labelled: jax.Array,
    predictions_unlabelled: jax.Array,
    *,
    lam: float | None = None,
    level: float = 0.95,
    population: str = "superpopulation",
    where: jax.Array | None = None,
    where_unlabelled: jax.Array | None = None,
) -> Estimate:
    """The prediction-powered mean of human labels Y with LLM predictions F.

    Superpopulation: theta = lam mean(F_unlabelled) + mean(Y - lam F),
    SE^2 = lam^2 Var(F_unlabelled) / N + Var(Y - lam F) / n, both Var over all items
    (ddof 0); tuned lam = Cov(Y, F) / ((1 + n / N) Var(F of all, ddof 1)), clipped to
    [0, 1]; normal quantiles.

    Finite: theta = lam mean(F of all n + N) + mean(Y - lam F),
    SE^2 = (1 - n / (n + N)) s^2 / n with s^2 the sample variance of Y - lam F; tuned
    lam = Cov(Y, F) / Var(F) in the labelled items (the regression estimator); Student's
    quantiles with the n - 1, tuned n - 2, degrees of freedom of s^2.

    Args:
      labels: `[n, ...]` numbers, the human labels of a simple random sample.
      predictions_labelled: `[n, ...]` what the LLM says of the same items.
      predictions_unlabelled: `[N, ...]` what it says of all the other items.
      lam: the weight of the predictions. None tunes it per trailing element; 1 is
        plain prediction-powered inference, 0 the mean of the human labels.
      level: of the interval, in (0, 1).
      population: "superpopulation" for the mean of the source the items were drawn
        from, "finite" for the mean of these n + N very items.
      where: `[n]` or with trailing axes of `labels`; False where a label is missing.
      where_unlabelled: the same for `predictions_unlabelled`.

    Returns:
      Five arrays `[...]`. NaN for fewer than two labels (finite and tuned: three), or
      with a lam that is not 0 in the superpopulation without unlabelled items. Tuned
      lam is 0 where the predictions do not vary.

    Raises:
      ValueError: if shapes disagree, `level` is not between 0 and 1 or `lam` is not
        finite.
      KeyError: if `population` is unknown.

    Reference:
      Angelopoulos, Duchi and Zrnic 2023 (arXiv 2311.01453), "PPI++"; finite: Cochran
      1977, "Sampling techniques", sections 7.1 to 7.6.

    >>> labels, said = jnp.array([1.0, 0.0, 1.0, 1.0]), jnp.array([1.0, 0.0, 1.0, 0.0])
    >>> estimate = ppi_mean(labels, said, jnp.array([1.0, 0.0, 0.0, 1.0] * 5))
    >>> print(f"{estimate.mean:.3f} {estimate.standard_error:.3f} {estimate.lam:.3f}")
    0.750 0.184 0.399
    """
    caller = "estimation.ppi_mean"
    _level(caller, level)
    _check.known(caller, "population", population, POPULATIONS)
    _check.shapes(
        caller,
        labels=(labels, "..."),
        predictions_labelled=(predictions_labelled, "..."),
        predictions_unlabelled=(predictions_unlabelled, "..."),
    )
    if lam is not None and not np.isfinite(lam):
        raise ValueError(f"{caller}: lam is {lam}; expected a finite number.")
    trailing = labels.shape[1:]
    _same(caller, "predictions_labelled", predictions_labelled, labels.shape)
    others = (*predictions_unlabelled.shape[:1], *trailing)
    _same(caller, "predictions_unlabelled", predictions_unlabelled, others)
    y, f, g = _common(labels, predictions_labelled, predictions_unlabelled)
    present = _present(caller, "where", where, y)
    other = _present(caller, "where_unlabelled", where_unlabelled, g)
    y, f, g = _zeroed(y, present), _zeroed(f, present), _zeroed(g, other)
    if population == "finite":
        return _finite(y, f, present, g, other, lam, level)
    n, m = _count(present, y), _count(other, g)
    weight = (
        _tuned(y, f, present, g, other) if lam is None else jnp.full_like(n, float(lam))
    )
    residual = jnp.where(present, y - weight[None] * f, 0.0)
    mean_g, var_g = _moments(g, other, 0.0)
    mean_r, var_r = _moments(residual, present, 0.0)
    # Without unlabelled items lam = 0 still has an answer.
    share, spread = (
        jnp.where((weight == 0.0) & (m == 0.0), 0.0, x)
        for x in (mean_g, var_g / jnp.where(m > 0.0, m, 1.0))
    )
    mean = weight * share + mean_r
    square = weight**2 * spread + var_r / jnp.maximum(n, 1.0)
    square = jnp.where(n >= 2.0, square, jnp.nan)
    z = _distributions.normal_quantile(jnp.asarray(0.5 * (1.0 + level), y.dtype))
    return _estimate(mean, square, z, weight)


def dsl_mean(
    labels: jax.Array,
    predictions: jax.Array,
    probability: jax.Array,
    labelled: jax.Array,
    *,
    level: float = 0.95,
    where: jax.Array | None = None,
) -> Estimate:
    """The mean of human labels from a sample with unequal, known probabilities.

    theta = mean(F + (R / pi) (Y - F)), R = 1 where an item was labelled;
    SE = standard deviation of these pseudo-outcomes (ddof 1) / sqrt(N)

    It is unbiased for any predictions if every item could have been drawn: pi > 0
    everywhere, also where no label came (overlap). An item that could not be drawn has
    to be taken out by `where`, and the mean is then of the others. Sampling with pi
    bounded well above 0 matters: one label with pi = 0.01 counts a hundred times.

    Args:
      labels: `[N, ...]` numbers; read only where `labelled`.
      predictions: `[N, ...]` what the LLM says of every item.
      probability: `[N]` float in (0, 1], the probability of an item to be labelled,
        fixed before its label was seen.
      labelled: `[N]` bool, True where a human label exists because it was drawn.
      level: of the normal interval, in (0, 1).
      where: `[N]` bool, False where an item does not count at all.

    Returns:
      Five arrays `[...]`; `lam` is 1. NaN if an item that counts has a probability
      outside (0, 1], and for fewer than two items. The standard error is that of a
      superpopulation, and on the safe side for stratified draws.

    Raises:
      ValueError: if shapes disagree or `level` is not between 0 and 1.

    Reference:
      Egami, Hinck, Stewart and Wei 2023 (arXiv 2306.04746), "Using imperfect surrogates
      for downstream inference: design-based supervised learning".

    >>> labels, said = jnp.array([1.0, 0.0, 1.0, 0.0]), jnp.array([1.0, 1.0, 1.0, 0.0])
    >>> labelled = jnp.array([True, True, False, False])
    >>> estimate = dsl_mean(labels, said, jnp.full(4, 0.5), labelled)
    >>> estimate.mean.item(), round(estimate.standard_error.item(), 4)
    (0.25, 0.4787)
    """
    caller = "estimation.dsl_mean"
    _level(caller, level)
    _check.shapes(
        caller,
        labels=(labels, "..."),
        predictions=(predictions, "..."),
        probability=(probability, "N"),
        labelled=(labelled, "N"),
        where=(where, "N"),
    )
    _same(caller, "predictions", predictions, labels.shape)
    _same(caller, "labels", labels, (*probability.shape, *labels.shape[1:]))
    y, f, pi = _common(labels, predictions, probability)
    present = _present(caller, "where", where, f)
    labelled = jnp.asarray(labelled, bool)
    counts = jnp.ones_like(labelled) if where is None else jnp.asarray(where, bool)
    labelled = labelled & counts
    valid = jnp.where(counts, (pi > 0.0) & (pi <= 1.0), True).all()
    weight = jnp.where(labelled, 1.0 / jnp.where(labelled & (pi > 0.0), pi, 1.0), 0.0)
    drawn = jnp.broadcast_to(_column(labelled, f), f.shape)
    f = _zeroed(f, present)
    pseudo = f + _column(weight, f) * jnp.where(drawn, y - f, 0.0)
    mean, variance = _moments(_zeroed(pseudo, present), present, 1.0)
    n = _count(present, f)
    square = jnp.where(valid & (n >= 2.0), variance / jnp.maximum(n, 1.0), jnp.nan)
    z = _distributions.normal_quantile(jnp.asarray(0.5 * (1.0 + level), f.dtype))
    return _estimate(jnp.where(valid, mean, jnp.nan), square, z, jnp.ones_like(mean))


def _finite(
    y: jax.Array,
    f: jax.Array,
    present: jax.Array,
    g: jax.Array,
    other: jax.Array,
    lam: float | None,
    level: float,
) -> Estimate:
    """The mean of these very items; y, f, g are 0 where they do not count."""
    n, m = _count(present, y), _count(other, g)
    if lam is None:
        weight = _slope(y, f, present)
    else:
        weight = jnp.full_like(n, float(lam))
    everyone = jnp.maximum(n + m, 1.0)
    residual = jnp.where(present, y - weight[None] * f, 0.0)
    lost = 2.0 if lam is None else 1.0
    mean_r, variance = _moments(residual, present, lost)
    mean = weight * (f.sum(0) + g.sum(0)) / everyone + mean_r
    # With every item labelled nothing is left to chance.
    square = jnp.maximum(m / everyone, 0.0) * variance / jnp.maximum(n, 1.0)
    df = jnp.maximum(n - lost, 1.0)
    t = _distributions.student_t_quantile(jnp.full_like(df, 0.5 * (1.0 + level)), df)
    return _estimate(mean, square, t, weight)


def _tuned(
    y: jax.Array, f: jax.Array, present: jax.Array, g: jax.Array, other: jax.Array
) -> jax.Array:
    """lam of PPI++, which weighs the noise of both samples."""
    n, m = _count(present, y), _count(other, g)
    (mean_y, _), (mean_f, _) = _moments(y, present, 0.0), _moments(f, present, 0.0)
    product = jnp.where(present, (y - mean_y[None]) * (f - mean_f[None]), 0.0)
    covariance = product.sum(0) / jnp.maximum(n, 1.0)
    everything = jnp.concatenate([f, g]), jnp.concatenate([present, other])
    _, variance = _moments(*everything, 1.0)
    some = (variance > 0.0) & (m > 0.0)
    safe = jnp.where(some, variance * (1.0 + n / jnp.where(some, m, 1.0)), 1.0)
    return jnp.where(some, jnp.clip(covariance / safe, 0.0, 1.0), 0.0)


def _slope(y: jax.Array, f: jax.Array, present: jax.Array) -> jax.Array:
    """Of the labels on the predictions, by least squares; 0 if these do not vary."""
    (mean_y, _), (mean_f, square) = (_moments(x, present, 0.0) for x in (y, f))
    product = jnp.where(present, (y - mean_y[None]) * (f - mean_f[None]), 0.0)
    covariance = product.sum(0) / jnp.maximum(_count(present, y), 1.0)
    some = square > 0.0
    return jnp.where(some, covariance / jnp.where(some, square, 1.0), 0.0)


def _moments(
    x: jax.Array, present: jax.Array, ddof: float
) -> tuple[jax.Array, jax.Array]:
    """Mean and variance over the first axis; NaN without (enough) entries."""
    n = _count(present, x)
    mean = jnp.where(present, x, 0.0).sum(0) / jnp.maximum(n, 1.0)
    least = jnp.where(present, x, jnp.inf).min(0, initial=jnp.inf)
    most = jnp.where(present, x, -jnp.inf).max(0, initial=-jnp.inf)
    # The mean of equal numbers is off by rounding, which would pass for variation.
    varied = present & (most > least)[None]
    distance = jnp.where(varied, x - mean[None], 0.0)
    free = n - ddof
    variance = (distance**2).sum(0) / jnp.where(free > 0.0, free, 1.0)
    return (
        jnp.where(n > 0.0, mean, jnp.nan),
        jnp.where(free > 0.0, variance, jnp.nan),
    )


def _estimate(
    mean: jax.Array, square: jax.Array, quantile: jax.Array, lam: jax.Array
) -> Estimate:
    positive = square > 0.0
    root = jnp.sqrt(jnp.where(positive, square, 1.0))
    error = jnp.where(positive, root, square)  # 0 stays 0, NaN stays NaN.
    mean = jnp.where(jnp.isnan(error), jnp.nan, mean)
    half = quantile * error
    return Estimate(mean, mean - half, mean + half, error, lam)


def _common(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    floats = [x.dtype for x in arrays if jnp.issubdtype(x.dtype, jnp.floating)]
    dtype = jnp.result_type(jnp.float32, *floats) if floats else jnp.zeros(()).dtype
    return tuple(jnp.asarray(x, dtype) for x in arrays)


def _count(present: jax.Array, like: jax.Array) -> jax.Array:
    return present.sum(0).astype(like.dtype)


def _zeroed(x: jax.Array, present: jax.Array) -> jax.Array:
    return jnp.where(present, x, 0.0)


def _column(x: jax.Array, like: jax.Array) -> jax.Array:
    return x.reshape(x.shape + (1,) * (like.ndim - x.ndim))


def _present(
    caller: str, name: str, where: jax.Array | None, like: jax.Array
) -> jax.Array:
    if where is None:
        return jnp.ones(like.shape, bool)
    if where.ndim == 0 or where.shape != like.shape[: where.ndim]:
        raise ValueError(
            f"{caller}: {name} has shape {where.shape}; expected the first axes of "
            f"{like.shape}."
        )
    return jnp.broadcast_to(_column(jnp.asarray(where, bool), like), like.shape)


def _same(caller: str, name: str, x: jax.Array, shape: tuple[int, ...]) -> None:
    if x.ndim == 0:
        raise ValueError(f"{caller}: {name} is a scalar; expected items on an axis.")
    if x.shape != shape:
        raise ValueError(f"{caller}: {name} has shape {x.shape}; expected {shape}.")


def _level(caller: str, level: float) -> None:
    if not 0.0 < level < 1.0:
        raise ValueError(f"{caller}: level is {level}; expected 0 < level < 1.")
