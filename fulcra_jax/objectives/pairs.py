# SPDX-License-Identifier: Apache-2.0
"""Preference pairs made of distances to a target.

Axes: B pairs, `...` prompts, G answers to a prompt.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fulcra_jax import _check


class Pairs(NamedTuple):
    """One pair of every prompt, `[...]` each."""

    chosen: jax.Array
    """int32 place of the answer nearest to the target."""
    rejected: jax.Array
    """int32 place of the farthest."""
    valid: jax.Array
    """bool: the two are far enough apart to teach anything."""


def preference_labels(
    chosen_distance: jax.Array, rejected_distance: jax.Array, *, temperature: float
) -> jax.Array:
    """How sure the distances make it that the chosen answer is better.

    s((d_rejected - d_chosen) / temperature), the `labels` of `dpo_loss`.

    Args:
      chosen_distance: `[B]` float, of `value_distance`.
      rejected_distance: `[B]` float.
      temperature: above 0, in units of the distance: the noise of the evaluator.

    Returns:
      `[B]` float in (0, 1); 0.5 where both are as far away.

    Raises:
      ValueError: if shapes disagree or `temperature` is not above 0.

    Reference:
      Bradley and Terry 1952, "Rank analysis of incomplete block designs".

    >>> preference_labels(jnp.array([1.0]), jnp.array([1.0]), temperature=0.5).tolist()
    [0.5]
    """
    caller = "pairs.preference_labels"
    if not temperature > 0.0:
        raise ValueError(
            f"{caller}: temperature is {temperature}; expected more than 0."
        )
    _check.shapes(
        caller,
        chosen_distance=(chosen_distance, "B"),
        rejected_distance=(rejected_distance, "B"),
    )
    dtype = jnp.promote_types(
        jnp.result_type(chosen_distance, rejected_distance), jnp.float32
    )
    nearer = rejected_distance.astype(dtype) - chosen_distance.astype(dtype)
    return jax.nn.sigmoid(nearer / temperature)


def value_pairs(
    distances: jax.Array, *, margin: float = 0.0, where: jax.Array | None = None
) -> Pairs:
    """The nearest and the farthest answer to every prompt.

    Args:
      distances: `[..., G]` float, of `value_distance`. NaN, where scoring failed, is
        never chosen nor rejected.
      margin: a pair whose distances differ by no more than this is not valid.
      where: `[..., G]` bool, False where an answer does not count.

    Returns:
      `Pairs`. Not valid either where fewer than two answers count.

    Raises:
      ValueError: if shapes disagree or `margin` is negative.

    Reference:
      Rafailov et al. 2023 (arXiv 2305.18290), with Yao et al. 2024 (arXiv 2311.10766),
      section 5, for the distance.

    >>> pairs = value_pairs(jnp.array([2.0, 0.5, 1.0]))
    >>> int(pairs.chosen), int(pairs.rejected), bool(pairs.valid)
    (1, 0, True)
    """
    caller = "pairs.value_pairs"
    if not margin >= 0.0:
        raise ValueError(f"{caller}: margin is {margin}; expected at least 0.")
    _check.shapes(caller, distances=(distances, "... G"))
    if where is not None and where.shape != distances.shape:
        raise ValueError(
            f"{caller}: where has shape {where.shape}; expected {distances.shape}."
        )
    distances = distances.astype(jnp.promote_types(distances.dtype, jnp.float32))
    present = ~jnp.isnan(distances)
    if where is not None:
        present &= jnp.asarray(where, bool)
    near = jnp.where(present, distances, jnp.inf)
    far = jnp.where(present, distances, -jnp.inf)
    apart = far.max(-1) - near.min(-1)
    several = present.sum(-1) >= 2
    return Pairs(
        near.argmin(-1).astype(jnp.int32),
        far.argmax(-1).astype(jnp.int32),
        several & (apart > margin),
    )
