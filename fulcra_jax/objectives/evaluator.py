# SPDX-License-Identifier: Apache-2.0
"""Losses of the value head, one per text and value, unreduced.

Class order is (-1, 0, +1) everywhere; the class id of a label is label + 1. A label
between two classes is a soft target on both. The work dtype is that of the logits, at
least float32. Reduce with `objectives.masked_mean`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fulcra_jax import _check
from fulcra_jax.objectives import _classes
from fulcra_jax.objectives._classes import axes, present, work


def ternary_cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    *,
    class_weights: jax.Array | None = None,
    label_smoothing: float = 0.0,
    where: jax.Array | None = None,
) -> jax.Array:
    """Cross-entropy over the classes -1, 0, +1.

    loss = -sum_c w_c q_c log softmax(logits)_c, where q is the label's target t with
    smoothing eps: q = (1 - eps) t + eps / 3.

    Args:
      logits: `[..., 3]` float in the order -1, 0, +1.
      labels: `[...]` int or float in [-1, 1]. A fraction, for example the mean of
        several raters, is split linearly between its two neighbouring classes: -1/3
        puts 1/3 on -1 and 2/3 on 0. A label outside [-1, 1] has the loss NaN.
      class_weights: `[3]` float w, None for ones. Nothing divides by the weights of the
        entries afterwards; `sqrt_class_weights` has mean 1.
      label_smoothing: eps in [0, 1].
      where: `[...]` bool, False where the entry does not count; its loss and gradient
        are 0, whatever stands there.

    Returns:
      `[...]` nats, at least 0.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      Yao et al. 2024 (arXiv 2311.10766), released evaluator; smoothing: Szegedy et al.
      2016 (arXiv 1512.00567), section 7.

    >>> loss = ternary_cross_entropy(jnp.array([[0.0, 2.0, 0.0]]), jnp.array([0.5]))
    >>> print(f"{loss[0]:.3f}")
    1.240
    """
    named = axes(labels)
    _check.shapes(
        "evaluator.ternary_cross_entropy",
        logits=(logits, f"{named} 3"),
        labels=(labels, named),
        class_weights=(class_weights, "3"),
        where=(where, named),
    )
    logits, labels, where = work(logits), jnp.asarray(labels), present(where, labels)
    # Masking after the log-softmax alone would turn a NaN logit into a NaN gradient.
    logits = jnp.where(where[..., None], logits, 0.0)
    target = _classes.weighted_target(
        labels, where, logits.dtype, class_weights, label_smoothing
    )
    loss = -(target * jax.nn.log_softmax(logits)).sum(-1)
    return jnp.where(where, loss, 0.0)


def tanh_mse(
    logits: jax.Array,
    labels: jax.Array,
    *,
    class_weights: jax.Array | None = None,
    where: jax.Array | None = None,
) -> jax.Array:
    """Squared error of a score tanh(logit) in (-1, 1).

    loss = w(label) (tanh(logit) - label)^2.

    Args:
      logits: `[...]` float.
      labels: `[...]` int or float in [-1, 1]. A label outside has the loss NaN.
      class_weights: `[3]` float w of -1, 0, +1, None for ones; between two classes w is
        interpolated linearly.
      where: `[...]` bool, False where the entry does not count; its loss and gradient
        are 0, whatever stands there.

    Returns:
      `[...]` in [0, 4] for unit weights.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      Yao et al. 2024 (arXiv 2311.10766), released evaluator, variant with one logit.

    >>> tanh_mse(jnp.array([0.0, 0.0]), jnp.array([-1, 0])).tolist()
    [1.0, 0.0]
    """
    named = axes(labels)
    _check.shapes(
        "evaluator.tanh_mse",
        logits=(logits, named),
        labels=(labels, named),
        class_weights=(class_weights, "3"),
        where=(where, named),
    )
    logits, labels, where = work(logits), jnp.asarray(labels), present(where, labels)
    logits = jnp.where(where, logits, 0.0)
    labels = jnp.where(where, labels, 0).astype(logits.dtype)
    target = _classes.soft_target(labels)
    loss = (jnp.tanh(logits) - labels) ** 2
    if class_weights is None:
        weight = target.sum(-1)  # 1, or NaN outside [-1, 1].
    else:
        weights = jnp.asarray(class_weights, logits.dtype)
        weight = (target * jnp.broadcast_to(weights, target.shape)).sum(-1)
    return jnp.where(where, weight * loss, 0.0)


def sqrt_class_weights(labels: jax.Array, where: jax.Array | None = None) -> jax.Array:
    """Class weights proportional to 1 / sqrt(frequency), of mean 1 over the entries.

    w_c = n / (sqrt(n_c) sum_k sqrt(n_k)), between no weights and full balancing.

    Args:
      labels: `[...]` int or float in [-1, 1]; a fraction counts for its two
        neighbouring classes.
      where: `[...]` bool, False where the entry does not count.

    Returns:
      `[3]` float of -1, 0, +1. A class that does not occur gets the largest weight of
      those that do, which no loss on the same labels sees. All 1 if no entry counts.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      Mahajan et al. 2018 (arXiv 1805.00932) (square-root resampling).

    >>> labels = jnp.array([-1] + 9 * [0] + 4 * [1])
    >>> [round(float(w), 3) for w in sqrt_class_weights(labels)]
    [2.333, 0.778, 1.167]
    """
    return _inverse_counts("evaluator.sqrt_class_weights", labels, where, jnp.sqrt)


def balanced_class_weights(
    labels: jax.Array, where: jax.Array | None = None
) -> jax.Array:
    """Class weights proportional to 1 / frequency, of mean 1 over the entries.

    w_c = n / (n_c K), where K classes occur: each has the same share of the loss.

    Args:
      labels: `[...]` int or float in [-1, 1]; a fraction counts for its two
        neighbouring classes.
      where: `[...]` bool, False where the entry does not count.

    Returns:
      `[3]` float of -1, 0, +1. A class that does not occur gets the largest weight of
      those that do, which no loss on the same labels sees. All 1 if no entry counts.

    Raises:
      ValueError: if the shapes disagree.

    Reference:
      King and Zeng 2001, "Logistic regression in rare events data", section 4.2
      (weighting); "balanced" of scikit-learn.

    >>> labels = jnp.array([-1] + 9 * [0] + 4 * [1])
    >>> [round(float(w), 3) for w in balanced_class_weights(labels)]
    [4.667, 0.519, 1.167]
    """
    return _inverse_counts(
        "evaluator.balanced_class_weights", labels, where, lambda count: count
    )


def _inverse_counts(
    caller: str,
    labels: jax.Array,
    where: jax.Array | None,
    of: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """Class weights proportional to 1 / of(count), of mean 1 over the entries."""
    named = axes(labels)
    _check.shapes(caller, labels=(labels, named), where=(where, named))
    labels, where = work(labels), present(where, labels)
    target = _classes.soft_target(jnp.where(where, labels, 0.0))
    count_c = jnp.where(where[..., None], target, 0.0).reshape(-1, 3).sum(0)
    size_c = of(jnp.where(count_c == 0.0, 1.0, count_c))
    occurs_c = count_c != 0.0
    scale = count_c.sum() / jnp.where(occurs_c, count_c / size_c, 0.0).sum()
    weight_c = scale / size_c
    largest = jnp.max(weight_c, where=occurs_c, initial=0.0)
    weight_c = jnp.where(occurs_c, weight_c, largest)
    return jnp.where(occurs_c.any(), weight_c, 1.0)
