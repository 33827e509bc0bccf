# SPDX-License-Identifier: Apache-2.0
"""The loss toward a teacher that gives a score in [-1, 1] for each value."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from fulcra_jax import _check
from fulcra_jax.objectives import _classes
from fulcra_jax.objectives._classes import axes, present, work

Kind = Literal["squared", "soft"]


def distillation_loss(
    log_probs: jax.Array,
    teacher: jax.Array,
    *,
    kind: Kind = "squared",
    where: jax.Array | None = None,
) -> jax.Array:
    """How far the classes are from a teacher's score.

    squared: (P(+1) - P(-1) - t)^2, the error of the score, whatever the classes are.
    soft: KL(q || P) = sum_c q_c (log q_c - log P(c)), where q splits the teacher's
    score t between its two neighbouring classes; the gradient is the cross-entropy's.

    Log-probabilities come from `jax.nn.log_softmax` of three logits or from
    `ordinal_log_probs` of two. For a score tanh(logit) without classes take `tanh_mse`
    with the teacher's score as the label.

    Args:
      log_probs: `[..., 3]` float, at most 0, in the order -1, 0, +1.
      teacher: `[...]` float in [-1, 1]. A score outside has the loss NaN.
      kind: see above.
      where: `[...]` bool, False where the entry does not count; its loss and gradient
        are 0, whatever stands there.

    Returns:
      `[...]`, at least 0, and 0 where the teacher is met: "squared" at most 4, "soft"
      in nats, infinite where a class of the target has no probability.

    Raises:
      KeyError: if the kind is unknown.
      ValueError: if the shapes disagree.

    Reference:
      Hinton et al. 2015 (arXiv 1503.02531), section 2 (soft targets); Ba and Caruana
      2014 (arXiv 1312.6184), equation 1 (squared error of scores).

    >>> log_probs = jnp.log(jnp.array([[0.0, 0.25, 0.75], [0.2, 0.6, 0.2]]))
    >>> teacher = jnp.array([0.75, 0.5])
    >>> print(distillation_loss(log_probs, teacher).round(3))
    [0.   0.25]
    >>> print(distillation_loss(log_probs, teacher, kind="soft").round(3))
    [0.    0.367]
    """
    caller, named = "distillation.distillation_loss", axes(teacher)
    _check.known(caller, "kind", kind, get_args(Kind))
    _check.shapes(
        caller,
        log_probs=(log_probs, f"{named} 3"),
        teacher=(teacher, named),
        where=(where, named),
    )
    log_probs, where = work(log_probs), present(where, teacher)
    log_probs = jnp.where(where[..., None], log_probs, 0.0)
    teacher = jnp.where(where, teacher, 0.0).astype(log_probs.dtype)
    if kind == "squared":
        probs = jnp.exp(log_probs)
        loss = (probs[..., 2] - probs[..., 0] - _classes.inside(teacher)) ** 2
        return jnp.where(where, loss, 0.0)
    target = _classes.soft_target(teacher)
    # 0 log 0 = 0; a NaN stays one.
    some = target != 0.0
    surprise = jnp.log(jnp.where(some, target, 1.0)) - jnp.where(some, log_probs, 0.0)
    return jnp.where(where, (target * surprise).sum(-1), 0.0)
