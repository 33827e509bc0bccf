# SPDX-License-Identifier: Apache-2.0
"""What the models that weigh raters share: answers, posteriors, the EM loop.

Axes: R raters, N units, K categories.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from fulcra_jax import _check
from fulcra_jax.scoring import _ratings

MARGIN = 1e-5
"""Two shares or posteriors closer than this are tied: float32 cannot tell them apart,
and what rounding decides is a coin flip."""

FLOOR = 1e-10
"""The least probability whose logarithm is taken, as in crowd-kit."""


def work_dtype(*floats: jax.Array | None) -> Any:
    """At least float32; the default float if no argument is a float."""
    given = [jnp.asarray(x).dtype for x in floats if x is not None]
    given = [dtype for dtype in given if jnp.issubdtype(dtype, jnp.floating)]
    if not given:
        return jnp.zeros(()).dtype
    return jnp.result_type(*given, jnp.float32)


def weights(
    caller: str, name: str, weights: jax.Array | None, read: jax.Array, dtype: Any
) -> jax.Array:
    """The weights of units or raters, ones if none are given; 0 where not `read`.

    A weight that is read and cannot be one (negative, infinite, NaN) raises; while
    tracing it is 0.
    """
    if weights is None:
        return read.astype(dtype)
    given = jnp.asarray(weights).astype(dtype)
    valid = (given >= 0.0) & (given < jnp.inf)
    wrong = read & ~valid
    if not isinstance(wrong, Tracer) and wrong.any():
        raise ValueError(
            f"{caller}: {name} holds {np.asarray(given)[np.asarray(wrong)][0]}; "
            "expected finite numbers of at least 0 (0 leaves one out)."
        )
    return jnp.where(read & valid, given, 0.0)


def whole(caller: str, name: str, number: int, *, least: int) -> None:
    """Raises unless a number is whole and at least `least`."""
    if isinstance(number, bool) or not isinstance(number, int | np.integer):
        raise ValueError(f"{caller}: {name} is {number!r}; expected a whole number.")
    if number < least:
        raise ValueError(f"{caller}: {name} is {number}; expected at least {least}.")


def number(caller: str, name: str, x: Any, *, zero: bool = True) -> None:
    """Raises unless all that can be read is finite and at least (or above) 0."""
    if isinstance(x, Tracer):
        return
    x = np.asarray(x, float)
    wrong = ~(((x >= 0.0) if zero else (x > 0.0)) & (x < np.inf))
    if wrong.any():
        least = "of at least 0" if zero else "above 0"
        raise ValueError(
            f"{caller}: {name} holds {x[wrong][0]}; expected finite numbers {least}."
            if x.ndim
            else f"{caller}: {name} is {x}; expected a finite number {least}."
        )


def one_hot(ids_n: jax.Array, num_categories: int) -> jax.Array:
    """`[K, N]` bool; a column of False where the id is outside `[0, K)`."""
    return jnp.asarray(ids_n)[None, :] == jnp.arange(num_categories)[:, None]


def answers(
    caller: str,
    ratings: jax.Array,
    num_categories: int,
    where: jax.Array | None,
    dtype: Any,
) -> jax.Array:
    """`[R, K, N]` one-hot ratings, 0 where missing."""
    _ratings.categories(caller, num_categories)
    _ratings.integers(caller, "ratings", ratings)
    _check.ids(caller, "ratings", ratings, num_categories, where)
    category_k = jnp.arange(num_categories)[None, :, None]
    given_rkn = jnp.asarray(ratings)[:, None, :] == category_k
    if where is not None:
        given_rkn &= jnp.asarray(where, bool)[:, None, :]
    return given_rkn.astype(dtype)


def einsum(subscripts: str, *arrays: jax.Array) -> jax.Array:
    """Counts above 2,048 would lose digits in an accelerator's default precision."""
    return jnp.einsum(subscripts, *arrays, precision=jax.lax.Precision.HIGHEST)


def labels(probs_nk: jax.Array) -> jax.Array:
    """The largest category; -1 in a NaN row and where the two largest are tied."""
    near_nk = probs_nk > probs_nk.max(-1, keepdims=True) - MARGIN
    return jnp.where(near_nk.sum(-1) == 1, probs_nk.argmax(-1), -1).astype(jnp.int32)


def log(probs: jax.Array) -> jax.Array:
    """The logarithm of a probability, of at least `FLOOR`."""
    return jnp.log(jnp.maximum(probs, FLOOR))


def posterior(logits_kn: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Softmax over the categories `[K, N]` and log of the normaliser `[N]`."""
    peak_n = jax.lax.stop_gradient(logits_kn.max(0))
    odds_kn = jnp.exp(logits_kn - peak_n[None, :])
    sum_n = odds_kn.sum(0)
    return odds_kn / sum_n[None, :], peak_n + jnp.log(sum_n)


def iterate(
    step: Callable[[Any], tuple[Any, Any]],
    state: Any,
    num_iterations: int,
    tolerance: float | jax.Array | None = None,
) -> tuple[Any, Any, jax.Array]:
    """Repeats `step` and stacks its traces, of which the first is the objective.

    With a tolerance the state stays as it is after the first step that raised the
    objective by less, and the traces repeat their last entry. A scan, unlike a while
    loop, can be differentiated, and outside vmap the steps left out cost nothing.
    """
    if tolerance is None:
        state, traces = jax.lax.scan(
            lambda state, _: step(state), state, length=num_iterations
        )
        return state, traces, jnp.int32(num_iterations)

    def body(carry: Any, _: None) -> tuple[Any, Any]:
        last, trace, done, count = carry
        new, new_trace = jax.lax.cond(done, lambda s: (s, trace), step, last)
        count = jnp.where(done, count, count + 1)
        done |= new_trace[0] - trace[0] < tolerance
        return (new, new_trace, done, count), new_trace

    shape = jax.eval_shape(step, state)[1]
    trace = jax.tree.map(lambda x: jnp.full(x.shape, -jnp.inf, x.dtype), shape)
    first = (state, trace, jnp.array(False), jnp.int32(0))
    (state, _, _, count), traces = jax.lax.scan(body, first, length=num_iterations)
    return state, traces, count
