# SPDX-License-Identifier: Apache-2.0
"""The cumulative link of the ordered classes -1 < 0 < +1: two logits per value.

A location s and a width w place two thresholds at distance e = softplus(w) around 0:
P(y > -1) = sigmoid(s + e) and P(y > 0) = sigmoid(s - e).
"""

import jax
import jax.numpy as jnp

from fulcra_jax import _check
from fulcra_jax.objectives import _classes
from fulcra_jax.objectives._classes import axes, present, work


def ordinal_log_probs(logits: jax.Array) -> jax.Array:
    """Logarithms of the class probabilities of the cumulative link.

    log P(-1) = log sigmoid(-s - e), log P(+1) = log sigmoid(s - e), and
    log P(0) = log sigmoid(s + e) + log sigmoid(e - s) + log(1 - exp(-2 e)).

    No difference of two probabilities is taken: the middle class keeps its digits where
    it is narrow (w far below 0) or far away (|s| large).

    Args:
      logits: `[..., 2]` float, the location s and the width w.

    Returns:
      `[..., 3]` in the order -1, 0, +1, at most 0; their exponentials sum to one.

    Raises:
      ValueError: if the last axis is not 2.

    Reference:
      McCullagh 1980, "Regression models for ordinal data", JRSS B 42, section 2.

    >>> half = jnp.log(jnp.expm1(jnp.log(3.0)))          # e = log 3: thresholds +-1.1
    >>> print(jnp.exp(ordinal_log_probs(jnp.array([0.0, half]))).round(3))
    [0.25 0.5  0.25]
    """
    _check.shapes("ordinal.ordinal_log_probs", logits=(logits, "... 2"))
    return _log_probs(work(logits))


def ordinal_loss(
    logits: jax.Array,
    labels: jax.Array,
    *,
    class_weights: jax.Array | None = None,
    label_smoothing: float = 0.0,
    where: jax.Array | None = None,
) -> jax.Array:
    """Cross-entropy over the classes -1, 0, +1 of the cumulative link.

    loss = -sum_c w_c q_c log P(c), where q is the label's target t with smoothing eps:
    q = (1 - eps) t + eps / 3. Mistaking -1 for +1 costs more than mistaking it for 0.

    Args:
      logits: `[..., 2]` float, the location s and the width w, as `ordinal_log_probs`.
      labels: `[...]` int or float in [-1, 1]; a fraction is split between its two
        neighbouring classes. A label outside [-1, 1] has the loss NaN.
      class_weights: `[3]` float w of -1, 0, +1, None for ones.
      label_smoothing: eps in [0, 1].
      where: `[...]` bool, False where the entry does not count; its loss and gradient
        are 0, whatever stands there.

    Returns:
      `[...]` nats, at least 0.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      McCullagh 1980, "Regression models for ordinal data", JRSS B 42, section 2.

    >>> logits = jnp.array([[4.0, 0.0]])                 # far above both thresholds
    >>> [round(float(ordinal_loss(logits, jnp.array([y]))[0]), 2) for y in (-1, 0, 1)]
    [4.7, 3.64, 0.04]
    """
    named = axes(labels)
    _check.shapes(
        "ordinal.ordinal_loss",
        logits=(logits, f"{named} 2"),
        labels=(labels, named),
        class_weights=(class_weights, "3"),
        where=(where, named),
    )
    logits, labels, where = work(logits), jnp.asarray(labels), present(where, labels)
    logits = jnp.where(where[..., None], logits, 0.0)
    target = _classes.weighted_target(
        labels, where, logits.dtype, class_weights, label_smoothing
    )
    return jnp.where(where, -(target * _log_probs(logits)).sum(-1), 0.0)


def _log_probs(logits: jax.Array) -> jax.Array:
    middle, width = logits[..., 0], logits[..., 1]
    half = jax.nn.softplus(width)
    sides = jax.nn.log_sigmoid(middle + half) + jax.nn.log_sigmoid(half - middle)
    return jnp.stack(
        [
            jax.nn.log_sigmoid(-middle - half),
            sides + _log_between(width),
            jax.nn.log_sigmoid(middle - half),
        ],
        -1,
    )


def _log_between(width: jax.Array) -> jax.Array:
    """log(1 - exp(-2 softplus(w))).

    With u = exp(w) it is log(u (2 + u) / (1 + u)^2): exact where u is small, and where
    it is large the first form is.
    """
    # Not minimum and maximum, whose gradients are halved where both are equal.
    low = jnp.where(width < 0.0, width, 0.0)
    high = jnp.where(width < 0.0, 0.0, width)
    u = jnp.exp(low)
    narrow = low + jnp.log(2.0 + u) - 2.0 * jnp.log1p(u)
    wide = jnp.log1p(-jnp.exp(-2.0 * jax.nn.softplus(high)))
    return jnp.where(width < 0.0, narrow, wide)
