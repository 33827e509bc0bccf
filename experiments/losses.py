# SPDX-License-Identifier: Apache-2.0
"""The loss of every cell of a batch: of its labels, of its items, of a teacher.

`objectives` knows the formulas, the configuration which of them is meant.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.config import Config
from fulcra_jax import models, objectives, values
from fulcra_jax.training import step


def make_cell_loss(
    config: Config, evaluator: models.Evaluator, labels: np.ndarray, where: np.ndarray
) -> step.CellLoss:
    """The loss and the weight of every cell under the evaluator's link.

    The cells `[..., K]` of a text are its V labels, of weight 1, and where their weight
    is not 0 the 54 items and the V scores of a teacher, one behind the other. Neither
    items nor scores of values that are left out count.

    Args:
      config: its loss, link, policy and `leave_out` decide.
      evaluator: gives logits, and logits of items where they are asked for.
      labels: `[N, V]` float in [-1, 1], of all training rows, for the class weights.
      where: `[N, V]` bool.

    Raises:
      ValueError: if the link is "presence" and a label is negative. When the loss is
        traced, if a weight asks for what the head or the batch does not have.
    """
    loss, link = config.loss, config.evaluator.link
    if link == "presence" and (labels[where] < 0.0).any():
        raise ValueError(
            "losses.make_cell_loss: the link is presence, but a training row has the "
            f"label {labels[where].min():g}; labels should be in [0, 1], or the link "
            "another."
        )
    class_weights = _class_weights(config, labels, where)
    kept_v = np.array([name not in config.leave_out for name in values.BASIC])
    item_to_basic = values.item_to_basic(humility=config.policy.humility)
    kept_i = kept_v[item_to_basic.argmax(1)]

    def cell_loss(
        params: Any, batch: Mapping[str, Any], key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        output = models.apply_evaluator(evaluator, params, batch, key=key)
        where = jnp.asarray(batch["where"])
        cells = _of_labels(
            config, class_weights, output.logits, jnp.asarray(batch["labels"]), where
        )
        if loss.circumplex:
            cells += loss.circumplex * _off_the_circle(config, output.logits, where)
        parts, weights = [cells], [where]
        if loss.items:
            if output.item_logits is None:
                raise ValueError(
                    f"losses.make_cell_loss: loss.items is {loss.items}, but the "
                    f"{type(config.evaluator.head).__name__} gives no logits of items; "
                    "set its field items, or loss.items to 0."
                )
            items, counts = _pair(batch, "items", loss.items, kept_i)
            parts.append(
                objectives.ternary_cross_entropy(
                    output.item_logits, items, where=counts
                )
            )
            weights.append(loss.items * counts)
        if loss.teacher:
            teacher, counts = _pair(batch, "teacher", loss.teacher, kept_v)
            parts.append(_of_teacher(config, output.logits, teacher, counts))
            weights.append(loss.teacher * counts)
        if len(parts) == 1:
            return cells, where
        return jnp.concatenate(parts, -1), jnp.concatenate(
            [weight.astype(jnp.float32) for weight in weights], -1
        )

    return cell_loss


def _class_weights(
    config: Config, labels: np.ndarray, where: np.ndarray
) -> jax.Array | None:
    match config.loss.class_weights:
        case "sqrt":
            of = objectives.sqrt_class_weights
        case "balanced":
            of = objectives.balanced_class_weights
        case _:
            return None
    return of(jnp.asarray(labels), jnp.asarray(where))


def _of_labels(
    config: Config,
    class_weights: jax.Array | None,
    logits: jax.Array,
    labels: jax.Array,
    where: jax.Array,
) -> jax.Array:
    """`[..., V]` loss of the label cells."""
    smoothing = config.loss.label_smoothing
    match config.evaluator.link:
        case "tanh":
            return objectives.tanh_mse(
                logits[..., 0], labels, class_weights=class_weights, where=where
            )
        case "ordinal":
            return objectives.ordinal_loss(
                logits, labels, class_weights=class_weights, where=where,
                label_smoothing=smoothing,
            )  # fmt: skip
        case "presence":
            factor, positive = 1.0, config.loss.positive_weight
            if class_weights is not None:
                factor = class_weights[1]
                positive = positive * class_weights[2] / factor
            return factor * objectives.presence_loss(
                logits[..., 0], labels, positive_weight=positive, where=where,
                label_smoothing=smoothing,
            )  # fmt: skip
    if config.loss.focal:
        return objectives.focal_loss(
            logits, labels, gamma=config.loss.focal, class_weights=class_weights,
            where=where, label_smoothing=smoothing,
        )  # fmt: skip
    return objectives.ternary_cross_entropy(
        logits, labels, class_weights=class_weights, where=where,
        label_smoothing=smoothing,
    )  # fmt: skip


def _off_the_circle(config: Config, logits: jax.Array, where: jax.Array) -> jax.Array:
    """`[..., 1]`: the penalty of all scores of a text; 0 where there is no text."""
    there = jnp.broadcast_to(where.any(-1, keepdims=True), where.shape)
    # Where there is none its logits must not be read: a NaN would reach the gradient.
    logits = jnp.where(there[..., None], logits, 0.0)
    score = models.score(logits, config.evaluator.link)
    angles = jnp.asarray(values.ring_angles(), score.dtype)
    return objectives.circumplex_penalty(score, angles, where=there)[..., None]


def _of_teacher(
    config: Config, logits: jax.Array, teacher: jax.Array, where: jax.Array
) -> jax.Array:
    """`[..., V]` loss of the cells of a teacher."""
    kind = config.loss.teacher_kind
    logits = jnp.where(where[..., None], logits, 0.0)
    match config.evaluator.link:
        case "tanh":
            return objectives.tanh_mse(logits[..., 0], teacher, where=where)
        case "ordinal":
            log_probs = objectives.ordinal_log_probs(logits)
        case "presence":
            # No opposition in this link: what the teacher opposes is not there.
            teacher = jnp.where(where, jnp.maximum(teacher, 0.0), 0.0)
            there = jax.nn.log_sigmoid(logits[..., 0])
            never = jnp.full_like(there, -jnp.inf)
            log_probs = jnp.stack(
                [never, jax.nn.log_sigmoid(-logits[..., 0]), there], -1
            )
        case _:
            log_probs = jax.nn.log_softmax(logits)
    return objectives.distillation_loss(log_probs, teacher, kind=kind, where=where)


def _pair(
    batch: Mapping[str, Any], name: str, weight: float, kept: np.ndarray
) -> tuple[jax.Array, jax.Array]:
    """The auxiliary targets of a batch, and which count."""
    if name not in batch:
        raise ValueError(
            f"losses.make_cell_loss: loss.{name} is {weight}, but the batch has no "
            f"{name}; train on rows that have them, or set loss.{name} to 0."
        )
    counts = jnp.asarray(batch[f"{name}_where"])
    kept = np.broadcast_to(kept, counts.shape)
    return jnp.asarray(batch[name]), counts & jnp.asarray(kept)
