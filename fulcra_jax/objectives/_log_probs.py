# SPDX-License-Identifier: Apache-2.0
"""What the losses on log-probabilities of whole answers do first."""

import jax
import jax.numpy as jnp

from fulcra_jax import _check


def ratios(
    caller: str,
    chosen: jax.Array,
    rejected: jax.Array,
    reference_chosen: jax.Array,
    reference_rejected: jax.Array,
    where: jax.Array | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """log p - log p_ref of both answers, `[B]`, and which pairs count.

    Work dtype, 0 where a pair does not count, no gradient through the reference.
    """
    named = {
        "chosen": chosen,
        "rejected": rejected,
        "reference_chosen": reference_chosen,
        "reference_rejected": reference_rejected,
    }
    (c, r, c_ref, r_ref), present = prepared(caller, named, where)
    c_ref, r_ref = jax.lax.stop_gradient((c_ref, r_ref))
    return c - c_ref, r - r_ref, present


def prepared(
    caller: str, named: dict[str, jax.Array], where: jax.Array | None
) -> tuple[list[jax.Array], jax.Array]:
    """The `[B]` arrays in one work dtype, 0 where masked, and the mask."""
    shaped = {name: (array, "B") for name, array in named.items()}
    _check.shapes(caller, **shaped, where=(where, "B"))
    dtype = jnp.promote_types(jnp.result_type(*named.values()), jnp.float32)
    present = jnp.ones(next(iter(named.values())).shape, bool)
    if where is not None:
        present = jnp.asarray(where, bool)
    return [jnp.where(present, x.astype(dtype), 0.0) for x in named.values()], present


def positive(caller: str, name: str, number: float) -> None:
    """Raises unless a number is above 0."""
    if not number > 0.0:
        raise ValueError(f"{caller}: {name} is {number}; expected more than 0.")
