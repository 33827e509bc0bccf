# SPDX-License-Identifier: Apache-2.0
"""One step of training as a pure function of (state, batch).

The step knows neither the model nor the objective nor the checkpoint: it is given a
loss that returns unreduced cells, averages those that count, and moves the parameters.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fulcra_jax.objectives import reduce

Params = Any
CellLoss = Callable[[Params, Any, jax.Array], tuple[jax.Array, jax.Array]]
"""(params, batch, dropout key) -> loss per cell and where, both `[B, V]`."""


class TrainState(NamedTuple):
    """All that changes while training; a run resumes from it exactly."""

    step: jax.Array
    """`[]` int32: steps done."""
    params: Params
    opt_state: optax.OptState


class Metrics(NamedTuple):
    """What a step reports."""

    loss: jax.Array
    """`[]` float32: mean over the cells that count, before the update."""
    grad_norm: jax.Array
    """`[]` float32: global norm of the gradient, before clipping."""


def init_state(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def make_train_step(
    cell_loss: CellLoss, optimizer: optax.GradientTransformation, *, seed: int
) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """A function (state, batch) -> (state, metrics), to be compiled by the caller.

    Args:
      cell_loss: loss of every cell, and which count.
      optimizer: an optax transformation.
      seed: of the dropout; the key of a step depends on the seed and the step alone.
    """

    def loss_of(params: Params, batch: Any, key: jax.Array) -> jax.Array:
        return reduce.masked_mean(*cell_loss(params, batch, key))

    def train_step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        loss, grads = jax.value_and_grad(loss_of)(state.params, batch, key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = Metrics(loss, optax.tree.norm(grads))
        return TrainState(state.step + 1, params, opt_state), metrics

    return train_step
