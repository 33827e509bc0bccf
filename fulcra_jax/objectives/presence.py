# SPDX-License-Identifier: Apache-2.0
"""The loss of a head with two classes per value: not there (0), there (+1)."""

import jax
import jax.numpy as jnp

from fulcra_jax import _check
from fulcra_jax.objectives import _classes
from fulcra_jax.objectives._classes import axes, present, work


def presence_loss(
    logits: jax.Array,
    labels: jax.Array,
    *,
    positive_weight: jax.Array | float = 1.0,
    label_smoothing: float = 0.0,
    where: jax.Array | None = None,
) -> jax.Array:
    """Cross-entropy over the classes 0 and +1 of one logit.

    loss = -w q log sigmoid(logit) - (1 - q) log sigmoid(-logit), where q is the label y
    with smoothing eps: q = (1 - eps) y + eps / 2.

    Args:
      logits: `[...]` float.
      labels: `[...]` int or float in [0, 1]; a fraction is a soft label. A label
        outside, as -1 is, has the loss NaN: this link knows no opposition.
      positive_weight: w, a number above 0, or an array that broadcasts to the logits,
        for example one weight per value. Nothing divides by the weights afterwards.
      label_smoothing: eps in [0, 1].
      where: `[...]` bool, False where the entry does not count; its loss and gradient
        are 0, whatever stands there.

    Returns:
      `[...]` nats, at least 0.

    Raises:
      ValueError: if the shapes disagree, or positive_weight is not above 0.

    Reference:
      Mirzakhmedova et al. 2023 (arXiv 2301.13771), the labels of ValueEval'23; weight
      of the rare class: King and Zeng 2001, "Logistic regression in rare events data".

    >>> loss = presence_loss(jnp.zeros(2), jnp.array([0, 1]), positive_weight=3.0)
    >>> print(loss.round(3))
    [0.693 2.079]
    """
    caller, named = "presence.presence_loss", axes(labels)
    _check.shapes(
        caller, logits=(logits, named), labels=(labels, named), where=(where, named)
    )
    if isinstance(positive_weight, int | float) and not positive_weight > 0.0:
        raise ValueError(
            f"{caller}: positive_weight is {positive_weight}; expected more than 0."
        )
    logits, labels, where = work(logits), jnp.asarray(labels), present(where, labels)
    logits = jnp.where(where, logits, 0.0)
    target = _classes.inside(jnp.where(where, labels, 0).astype(logits.dtype), 0.0)
    target = (1.0 - label_smoothing) * target + label_smoothing / 2.0
    weight = jnp.asarray(positive_weight, logits.dtype)
    if weight.ndim:
        weight = jnp.broadcast_to(weight, logits.shape)
    there = -weight * target * jax.nn.log_sigmoid(logits)
    return jnp.where(where, there - (1.0 - target) * jax.nn.log_sigmoid(-logits), 0.0)
