# SPDX-License-Identifier: Apache-2.0
"""One step of training as a pure function of (state, batch).

The step knows neither the model nor the objective nor the checkpoint: it is given a
loss that returns unreduced cells and their weights, averages them, and moves the
parameters.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fulcra_jax.objectives import reduce
from fulcra_jax.training import freeze as freezing

Params = Any
CellLoss = Callable[[Params, Any, jax.Array], tuple[jax.Array, jax.Array]]
"""(params, batch, dropout key) -> loss and weight of each cell, both `[..., K]`.

The weight is bool, or a float of at least 0; what is minimised is sum(loss * weight) /
sum(weight). A cell of weight 0 or False is never read. K counts all cells of a text:
those of its values, of its items, of a teacher."""


class TrainState(NamedTuple):
    """All that changes while training; a run resumes from it exactly."""

    step: jax.Array
    """`[]` int32: steps done."""
    params: Params
    opt_state: optax.OptState
    average: Params = ()
    """Moving average of the trained parameters; empty without one."""

    @property
    def best_params(self) -> Params:
        """What is judged and exported: the average where there is one."""
        if not jax.tree.leaves(self.average):
            return self.params
        if jax.tree.structure(self.average) == jax.tree.structure(self.params):
            return self.average
        return freezing.joined(self.average, self.params)


class Metrics(NamedTuple):
    """What a step reports."""

    loss: jax.Array
    """`[]` float32: weighted mean over the cells that count, before the update."""
    grad_norm: jax.Array
    """`[]` float32: global norm of the gradient, before clipping."""
    bad: jax.Array
    """`[2]` int32: the first leaf of the parameters whose gradient is not finite (-1:
    none; numbered as `leaf_names`), and how many there are."""


def init_state(
    params: Params,
    optimizer: optax.GradientTransformation,
    *,
    average: bool = False,
    freeze: str = "",
) -> TrainState:
    """The state before the first step.

    Args:
      params: the parameters; an average begins at them.
      optimizer: an optax transformation.
      average: whether to keep a moving average.
      freeze: pattern of parameters that are not trained, see `freeze.frozen`.
    """
    first: Params = ()
    if average:
        first = jax.tree.map(jnp.copy, freezing.trained(params, freeze))
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), first)


def leaf_names(params: Params) -> list[str]:
    """Paths "a/b/kernel" of the leaves, as `Metrics.bad` numbers them."""
    return [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]
    ]


def make_train_step(
    cell_loss: CellLoss,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    accumulate: int = 1,
    average_decay: float = 0.0,
    freeze: str = "",
) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """A function (state, batch) -> (state, metrics), to be compiled by the caller.

    Args:
      cell_loss: loss of every cell, and how much it weighs.
      optimizer: an optax transformation.
      seed: of the dropout; the key of a step depends on the seed and the step alone.
      accumulate: A, parts that the batch is computed in, one after the other; its rows
        B should be a multiple. Part a holds the rows a, a + A, ..., so that no row
        leaves its device. Totals and sums of weights are added up: a cell weighs the
        same as with one part.
      average_decay: of the moving average, which begins with smaller ones: the decay at
        step t is at most (1 + t) / (10 + t). 0 without an average.
      freeze: pattern of parameters that are not trained, see `freeze.frozen`; they have
        no gradient and stay as they are, bit for bit.
    """

    def gradient(
        cells: CellLoss, part: Params, batch: Any, key: jax.Array
    ) -> tuple[jax.Array, Any]:
        if accumulate == 1:
            # The mean inside: the gradient is then of the scale that is reported.
            return jax.value_and_grad(
                lambda part: reduce.masked_mean(*cells(part, batch, key))
            )(part)
        total_of = lambda *call: reduce.masked_total(*cells(*call))
        return _accumulated(total_of, part, batch, key, accumulate)

    def train_step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        whole = lambda part: freezing.joined(part, state.params)
        cells = lambda part, *rest: cell_loss(whole(part), *rest)
        part = freezing.trained(state.params, freeze)
        loss, grads = gradient(cells, part, batch, key)
        updates, opt_state = optimizer.update(grads, state.opt_state, part)
        part = optax.apply_updates(part, updates)
        average = state.average
        if average_decay:
            t = state.step.astype(jnp.float32)
            decay = jnp.minimum(average_decay, (1 + t) / (10 + t))
            average = optax.incremental_update(part, average, 1 - decay)
        numbers = _numbers(freezing.frozen(state.params, freeze))
        metrics = Metrics(loss, *_norm(grads, numbers))
        return TrainState(state.step + 1, whole(part), opt_state, average), metrics

    return train_step


def _accumulated(
    total_of: Callable[[Params, Any, jax.Array], Any],
    params: Params,
    batch: Any,
    key: jax.Array,
    parts: int,
) -> tuple[jax.Array, Params]:
    """Mean loss and its gradient, over parts of the batch one after the other."""

    def split(array: jax.Array) -> jax.Array:
        if array.shape[0] % parts:
            raise ValueError(
                f"step.make_train_step: a batch has {array.shape[0]} rows, but "
                f"accumulate is {parts}; it should divide them."
            )
        shape = (array.shape[0] // parts, parts, *array.shape[1:])
        return jnp.swapaxes(array.reshape(shape), 0, 1)

    def one(sums: Any, part: Any) -> tuple[Any, None]:
        number, rows = part
        (total, count), grads = jax.value_and_grad(total_of, has_aux=True)(
            params, rows, jax.random.fold_in(key, number)
        )
        return jax.tree.map(jnp.add, sums, (total, count, grads)), None

    zero = jnp.zeros((), jnp.float32)
    start = (zero, zero, jax.tree.map(jnp.zeros_like, params))
    numbered = (jnp.arange(parts), jax.tree.map(split, batch))
    (total, count, grads), _ = jax.lax.scan(one, start, numbered)
    count = jnp.where(count == 0.0, 1.0, count)
    return total / count, jax.tree.map(lambda leaf: leaf / count, grads)


def _numbers(frozen: Any) -> np.ndarray:
    """`[n]` int32: the numbers of the trained leaves among all."""
    return np.flatnonzero(~np.array(jax.tree.leaves(frozen), bool)).astype(np.int32)


def _norm(grads: Params, numbers: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """The global norm, and which leaves are not finite; one pass over the gradient."""
    squares = jnp.stack(
        [
            jnp.sum(jnp.square(jnp.abs(leaf).astype(jnp.float32)))
            for leaf in jax.tree.leaves(grads)
        ]
    )
    bad = ~jnp.isfinite(squares)
    first = jnp.where(bad.any(), jnp.asarray(numbers)[jnp.argmax(bad)], -1)
    return jnp.sqrt(squares.sum()), jnp.stack([first, bad.sum()]).astype(jnp.int32)
