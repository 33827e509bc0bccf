# SPDX-License-Identifier: Apache-2.0
"""Cross-entropy that leaves aside what is already classified well."""

import jax
import jax.numpy as jnp

from fulcra_jax import _check
from fulcra_jax.objectives import _classes
from fulcra_jax.objectives._classes import axes, present, work


def focal_loss(
    logits: jax.Array,
    labels: jax.Array,
    *,
    gamma: float = 2.0,
    class_weights: jax.Array | None = None,
    label_smoothing: float = 0.0,
    where: jax.Array | None = None,
) -> jax.Array:
    """Focal loss over the classes -1, 0, +1.

    loss = -sum_c w_c q_c (1 - p_c)^gamma log p_c, p = softmax(logits), where q is the
    label's target t with smoothing eps: q = (1 - eps) t + eps / 3. With gamma 0 it is
    `ternary_cross_entropy`.

    Args:
      logits: `[..., 3]` float in the order -1, 0, +1.
      labels: `[...]` int or float in [-1, 1]; a fraction is split between its two
        neighbouring classes. A label outside [-1, 1] has the loss NaN.
      gamma: at least 0; the larger, the less a confident right answer counts.
      class_weights: `[3]` float w, the paper's alpha, None for ones.
      label_smoothing: eps in [0, 1].
      where: `[...]` bool, False where the entry does not count; its loss and gradient
        are 0, whatever stands there.

    Returns:
      `[...]` nats, at least 0.

    Raises:
      ValueError: if the shapes disagree, or gamma is negative.

    Reference:
      Lin et al. 2017 (arXiv 1708.02002), section 3.2, here with a softmax.

    >>> logits = jnp.log(jnp.array([0.05, 0.05, 0.9]))
    >>> loss = focal_loss(jnp.stack([logits, logits]), jnp.array([1, -1]))
    >>> [round(float(one), 3) for one in loss]
    [0.001, 2.704]
    """
    caller, named = "focal.focal_loss", axes(labels)
    _check.shapes(
        caller,
        logits=(logits, f"{named} 3"),
        labels=(labels, named),
        class_weights=(class_weights, "3"),
        where=(where, named),
    )
    if isinstance(gamma, int | float) and not gamma >= 0.0:
        raise ValueError(f"{caller}: gamma is {gamma}; expected at least 0.")
    logits, labels, where = work(logits), jnp.asarray(labels), present(where, labels)
    logits = jnp.where(where[..., None], logits, 0.0)
    target = _classes.weighted_target(
        labels, where, logits.dtype, class_weights, label_smoothing
    )
    log_p = jax.nn.log_softmax(logits)
    # log(1 - p) of a class is that of the sum of the other two: no digit is lost at
    # p = 1, where the power of a difference would have no slope.
    rest = jnp.logaddexp(jnp.roll(log_p, 1, -1), jnp.roll(log_p, 2, -1))
    loss = -(target * jnp.exp(gamma * rest) * log_p).sum(-1)
    return jnp.where(where, loss, 0.0)
