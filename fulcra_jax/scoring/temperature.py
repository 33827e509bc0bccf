# SPDX-License-Identifier: Apache-2.0
"""Class probabilities rescaled by a few numbers that are fitted on held-out labels.

A temperature per value takes back over-confidence, a shift per class what class weights
in the loss or another mix of labels have added. Both are fitted by likelihood.

Axes: N items judged, V values, C classes. Class ids are label + 1. An entry with
`where=False` is never read. A class of probability 0 stays at 0.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fulcra_jax import _check

BOUNDS = (0.05, 20.0)
"""The lowest and the highest temperature that is fitted."""


class TemperatureShift(NamedTuple):
    """What `fit_temperature_shift` finds."""

    temperature: jax.Array
    """`[]` in `BOUNDS`."""
    shift: jax.Array
    """`[C]`; its mean is 0."""


def temper(
    probs: jax.Array,
    temperature: jax.Array | float = 1.0,
    shift: jax.Array | None = None,
) -> jax.Array:
    """Probabilities at another temperature, with classes moved up or down.

    p'_c = p_c^(1/T) e^(b_c) / sum_d p_d^(1/T) e^(b_d)

    Args:
      probs: `[..., C]` float; rows sum to one.
      temperature: T > 0, a number or an array that broadcasts against `[...]`, for
        example `[V]` against probabilities `[N, V, C]`. Above 1 flattens.
      shift: `[..., C]` b, added to the log-probabilities; None adds nothing.

    Returns:
      `[..., C]` summing to one. A class of probability 0 keeps it.

    Reference:
      Guo et al. 2017 (arXiv 1706.04599), section 4.2; with a shift: Alexandari et al.
      2020 (arXiv 1901.06852), bias-corrected temperature scaling.

    >>> probs = jnp.array([0.8, 0.2])
    >>> [round(float(p), 3) for p in temper(probs, 2.0)]
    [0.667, 0.333]
    >>> [round(float(p), 3) for p in temper(probs, shift=jnp.log(jnp.array([1.0, 4])))]
    [0.5, 0.5]
    """
    log_p, possible = log_probs(probs)
    wide = jnp.broadcast_to(jnp.asarray(temperature), log_p.shape[:-1])
    logits = log_p / wide[..., None]
    if shift is not None:
        logits = logits + jnp.broadcast_to(shift, logits.shape)
    return jax.nn.softmax(logits, axis=-1, where=possible)


def log_probs(probs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The logarithms of probabilities, and which of them there are.

    Args:
      probs: `[..., C]` float >= 0.

    Returns:
      `[..., C]` log p, 0 where p is 0, and bool, True where p is above 0.

    Reference:
      The definition.

    >>> found, possible = log_probs(jnp.array([1.0, 0.0]))
    >>> found.tolist(), possible.tolist()
    ([0.0, 0.0], [True, False])
    """
    probs = _work(probs)
    possible = probs > 0.0
    return jnp.log(jnp.where(possible, probs, 1.0)), possible


def fit_temperature(
    probs: jax.Array,
    labels: jax.Array,
    *,
    shift: jax.Array | None = None,
    where: jax.Array | None = None,
) -> jax.Array:
    """The temperature under which the labels are likeliest.

    argmin_T sum_n -log p'_{n, y_n}, by bisection: convex in 1/T.

    Args:
      probs: `[N, C]` float; rows sum to one.
      labels: `[N]` int class ids in `[0, C)`.
      shift: `[C]` added to the log-probabilities, as in `temper`.
      where: `[N]` bool, False where the entry does not count. An entry whose label has
        probability 0 does not count either: no temperature changes it.

    Returns:
      `[]` in `BOUNDS`: a bound if the labels are always, or hardly ever, the likeliest
      class; NaN if no entry counts.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      Guo et al. 2017 (arXiv 1706.04599), section 4.2.

    >>> probs = jnp.array([[0.9, 0.1]] * 4)
    >>> print(f"{fit_temperature(probs, jnp.array([0, 0, 0, 1])):.2f}")
    2.00
    """
    logits_nc, possible_nc, truth_nc, where_n = _entries(
        "fit_temperature", probs, labels, shift, where
    )
    b_c = jnp.zeros(probs.shape[1], logits_nc.dtype)
    b_c = b_c if shift is None else _work(shift).astype(logits_nc.dtype)

    def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = jnp.sqrt(low * high)
        p_nc = jax.nn.softmax(
            middle * logits_nc + b_c[None], axis=-1, where=possible_nc
        )
        slope = jnp.where(where_n[:, None], (p_nc - truth_nc) * logits_nc, 0.0).sum()
        flatter = slope > 0.0
        return jnp.where(flatter, low, middle), jnp.where(flatter, middle, high)

    ends = tuple(jnp.asarray(1.0 / t, logits_nc.dtype) for t in reversed(BOUNDS))
    low, high = jax.lax.fori_loop(0, 40, halve, ends)
    return jnp.where(where_n.any(), 1.0 / jnp.sqrt(low * high), jnp.nan)


def fit_temperature_shift(
    probs: jax.Array,
    labels: jax.Array,
    *,
    ridge: float = 1.0,
    where: jax.Array | None = None,
) -> TemperatureShift:
    """One temperature and one shift per class under which the labels are likeliest.

    argmin_{beta, b} sum_n -log p'_{n, y_n} + ridge / 2 (|b|^2 + (beta - 1)^2),
    beta = 1/T, by Newton's method: convex. The ridge weighs as one observation and
    keeps a class that never occurs at a finite shift.

    Args:
      probs: `[N, C]` float; rows sum to one.
      labels: `[N]` int class ids in `[0, C)`.
      ridge: positive weight of the pull to T = 1 and b = 0.
      where: `[N]` bool, False where the entry does not count. An entry whose label has
        probability 0 does not count either.

    Returns:
      `temperature` and `shift`; 1 and zeros if no entry counts.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      Alexandari et al. 2020 (arXiv 1901.06852), bias-corrected temperature scaling.

    >>> probs = jnp.array([[0.5, 0.5]] * 400)
    >>> found = fit_temperature_shift(probs, jnp.array([0] * 300 + [1] * 100))
    >>> [round(float(p), 2) for p in temper(probs[0], *found)]
    [0.75, 0.25]
    """
    logits_nc, possible_nc, truth_nc, where_n = _entries(
        "fit_temperature_shift", probs, labels, None, where
    )
    C, dtype = probs.shape[1], logits_nc.dtype
    # x_ncj: what parameter j = (beta, b_0 .. b_C-1) adds to logit c.
    x_ncj = jnp.concatenate(
        [
            logits_nc[..., None],
            jnp.broadcast_to(jnp.eye(C, dtype=dtype)[None], (*logits_nc.shape, C)),
        ],
        -1,
    )
    x_ncj = jnp.where(where_n[:, None, None], x_ncj, 0.0)
    start = jnp.zeros(C + 1, dtype).at[0].set(1.0)

    def newton(_: int, theta_j: jax.Array) -> jax.Array:
        p_nc = jax.nn.softmax(x_ncj @ theta_j, axis=-1, where=possible_nc)
        gradient = jnp.einsum("ncj,nc->j", x_ncj, p_nc - truth_nc)
        mean_nj = jnp.einsum("ncj,nc->nj", x_ncj, p_nc)
        hessian = jnp.einsum("nci,nc,ncj->ij", x_ncj, p_nc, x_ncj)
        hessian = hessian - mean_nj.T @ mean_nj + ridge * jnp.eye(C + 1, dtype=dtype)
        step = jnp.linalg.solve(hessian, gradient + ridge * (theta_j - start))
        # No parameter moves by more than one at a time: far off, Newton overshoots.
        return theta_j - step / jnp.maximum(1.0, jnp.abs(step).max())

    with jax.default_matmul_precision("highest"):
        theta_j = jax.lax.fori_loop(0, 30, newton, start)
    beta = jnp.clip(theta_j[0], 1.0 / BOUNDS[1], 1.0 / BOUNDS[0])
    return TemperatureShift(1.0 / beta, theta_j[1:] - theta_j[1:].mean())


def shrink(
    own: jax.Array,
    shared: jax.Array,
    support: jax.Array,
    *,
    strength: float = 20.0,
) -> jax.Array:
    """Numbers per value, pulled to the shared one the more the less they rest on.

    w own + (1 - w) shared, w = support / (support + strength)

    Args:
      own: `[V, ...]` float; read only where the support is above 0.
      shared: `[...]` float.
      support: `[V]` how many observations the own number rests on.
      strength: positive; the support at which both weigh the same.

    Returns:
      `[V, ...]` between own and shared.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      Efron and Morris 1975, "Data analysis using Stein's estimator"; the weight is that
      of a normal mean whose prior is worth `strength` observations.

    >>> shrink(jnp.array([4.0, 4.0]), jnp.array(0.0), jnp.array([20, 0])).tolist()
    [2.0, 0.0]
    """
    _check.shapes("temperature.shrink", support=(support, "V"))
    if own.shape[:1] != support.shape or own.shape[1:] != shared.shape:
        raise ValueError(
            f"temperature.shrink: own has shape {own.shape}; expected the "
            f"V={support.shape[0]} of support before {shared.shape} of shared."
        )
    own, shared = _work(own), _work(shared)
    count = support.astype(own.dtype).reshape(-1, *[1] * (own.ndim - 1))
    weight = count / (count + strength)
    return shared[None] + weight * (
        jnp.where(count > 0, own, shared[None]) - shared[None]
    )


def correct_prior(probs: jax.Array, trained: jax.Array, target: jax.Array) -> jax.Array:
    """Probabilities under another mix of labels than the one trained on.

    p'_c = p_c target_c / trained_c, normalised

    Args:
      probs: `[..., C]` float; rows sum to one.
      trained: `[C]` positive shares of the classes in training, times their weights in
        the loss.
      target: `[C]` non-negative shares of the classes where it is used.

    Returns:
      `[..., C]` summing to one; NaN if the target gives no mass to a possible class.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      Saerens, Latinne and Decaestecker 2002, "Adjusting the outputs of a classifier to
      new a priori probabilities", equation 2.4.

    >>> trained, target = jnp.array([0.5, 0.5]), jnp.array([0.2, 0.8])
    >>> print(correct_prior(jnp.array([0.5, 0.5]), trained, target))
    [0.2 0.8]
    """
    _check.shapes(
        "temperature.correct_prior",
        probs=(probs, "... C"),
        trained=(trained, "C"),
        target=(target, "C"),
    )
    probs = _work(probs)
    ratio = _work(target) / _work(trained)
    mass = probs * jnp.broadcast_to(ratio, probs.shape)
    return mass / mass.sum(-1, keepdims=True)


def score_probs(score: jax.Array, *, sharpness: float = 4.0) -> jax.Array:
    """Probabilities of -1, 0, +1 for a score that comes without any.

    p_c proportional to exp(-sharpness (score - c)^2)

    The log-odds of neighbouring classes are straight lines in the score, so that a
    temperature and a shift on top make the ordinal model with adjacent categories. Raw,
    the likeliest class is the nearest label and nothing else is meant: fit first.

    Args:
      score: `[...]` float in [-1, 1].
      sharpness: positive.

    Returns:
      `[..., 3]` summing to one, classes (-1, 0, +1).

    Reference:
      Agresti 2010, "Analysis of ordinal categorical data", section 4.1.

    >>> [round(float(p), 2) for p in score_probs(jnp.array(0.5))]
    [0.0, 0.5, 0.5]
    """
    score = _work(score)
    centre_c = jnp.array([-1.0, 0.0, 1.0], score.dtype)
    return jax.nn.softmax(
        -sharpness
        * (score[..., None] - jnp.broadcast_to(centre_c, (*score.shape, 3))) ** 2,
        axis=-1,
    )


def _entries(
    caller: str,
    probs: jax.Array,
    labels: jax.Array,
    shift: jax.Array | None,
    where: jax.Array | None,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Log-probabilities, possible classes, true classes and which entries count."""
    size = _check.shapes(
        f"temperature.{caller}",
        probs=(probs, "N C"),
        labels=(labels, "N"),
        shift=(shift, "C"),
        where=(where, "N"),
    )
    where_n = (
        jnp.ones(labels.shape, bool) if where is None else jnp.asarray(where, bool)
    )
    probs = jnp.where(where_n[:, None], _work(probs), 1.0 / size["C"])
    log_p_nc, possible_nc = log_probs(probs)
    truth_nc = jax.nn.one_hot(
        jnp.where(where_n, labels, 0), size["C"], dtype=probs.dtype
    )
    where_n &= (possible_nc & (truth_nc > 0.0)).any(1)
    return log_p_nc, possible_nc, truth_nc, where_n


def _work(x: jax.Array) -> jax.Array:
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
