# SPDX-License-Identifier: Apache-2.0
"""What every coefficient computes first from a table of ratings.

Axes: R raters, N units, K categories.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from fulcra_jax import _check


class Counted(NamedTuple):
    """A table of ratings, counted. Entries of weight 0 are 0 and never NaN."""

    onehot: jax.Array
    """`[R, N, K]` 1.0 where the rater gave the category."""
    counts: jax.Array
    """`[N, K]` raters that gave the category."""
    total: jax.Array
    """`[N]` raters that gave any."""
    weight: jax.Array
    """`[N]` how often the unit counts."""

    @property
    def rated(self) -> jax.Array:
        """`[N]` bool: the unit counts and has a rating."""
        return (self.total >= 1.0) & (self.weight > 0.0)

    @property
    def paired(self) -> jax.Array:
        """`[N]` bool: the unit counts and has two ratings."""
        return (self.total >= 2.0) & (self.weight > 0.0)


def counted(
    caller: str,
    ratings: jax.Array,
    num_categories: int,
    where: jax.Array | None,
    unit_weights: jax.Array | None,
) -> Counted:
    """Checks the arguments that all coefficients share and counts the ratings."""
    onehot_rnk, weight_n = checked(caller, ratings, num_categories, where, unit_weights)
    count_nk = onehot_rnk.sum(0)
    return Counted(onehot_rnk, count_nk, count_nk.sum(-1), weight_n)


def checked(
    caller: str,
    ratings: jax.Array,
    num_categories: int,
    where: jax.Array | None,
    unit_weights: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """One-hot ratings `[R, N, K]` and weights `[N]` in the work dtype."""
    _check.shapes(
        caller,
        ratings=(ratings, "R N"),
        where=(where, "R N"),
        unit_weights=(unit_weights, "N"),
    )
    categories(caller, num_categories)
    integers(caller, "ratings", ratings)
    _check.ids(caller, "ratings", ratings, num_categories, where)
    weight_n = weights_of_units(caller, ratings, num_categories, where, unit_weights)
    if weight_n is None:
        weight_n = jnp.ones(ratings.shape[1:])
    onehot_rnk = jax.nn.one_hot(ratings, num_categories, dtype=weight_n.dtype)
    if where is not None:
        onehot_rnk = jnp.where(jnp.asarray(where, bool)[..., None], onehot_rnk, 0.0)
    return onehot_rnk, weight_n


def weights_of_units(
    caller: str,
    ratings: jax.Array,
    num_categories: int,
    where: jax.Array | None,
    unit_weights: jax.Array | None,
) -> jax.Array | None:
    """`[N]` in the work dtype; None where every unit counts once.

    The weight of a unit without a rating is never read. A weight that cannot be one
    (negative, infinite, NaN) raises; while tracing, such a unit does not count.
    """
    if unit_weights is None:
        return None
    if not any(isinstance(x, Tracer) for x in (ratings, where, unit_weights)):
        weight = np.asarray(unit_weights)
        wrong = ~((weight >= 0) & (weight < np.inf))
        if wrong.any():
            ids = np.asarray(ratings)[:, wrong]
            rated = (ids >= 0) & (ids < num_categories)
            if where is not None:
                rated &= np.asarray(where, bool)[:, wrong]
            rated = rated.any(0)
            if rated.any():
                raise ValueError(
                    f"{caller}: unit_weights holds {weight[wrong][rated][0]}; expected "
                    "finite numbers of at least 0 (0 leaves a unit out)."
                )
    weight_n = jnp.asarray(unit_weights)
    weight_n = weight_n.astype(jnp.promote_types(weight_n.dtype, jnp.float32))
    return jnp.where((weight_n >= 0.0) & (weight_n < jnp.inf), weight_n, 0.0)


def categories(caller: str, num_categories: int) -> None:
    """Raises if the number of categories is not a positive Python number."""
    if isinstance(num_categories, Tracer):
        raise ValueError(
            f"{caller}: num_categories is traced, but must be known when compiling; "
            "use jax.jit(..., static_argnames='num_categories')."
        )
    whole = isinstance(num_categories, int | np.integer)
    if not whole or isinstance(num_categories, bool) or num_categories < 1:
        raise ValueError(
            f"{caller}: num_categories is {num_categories!r}; expected a whole number "
            "of at least 1 (it is declared, not counted from the data)."
        )


def integers(caller: str, name: str, x: jax.Array) -> None:
    """Raises if an array of ids has another dtype than a whole number's."""
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(
            f"{caller}: {name} has dtype {x.dtype}; expected integer category ids "
            "(ratings_of_labels makes them of labels -1, 0, +1)."
        )


def ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    """The quotient, NaN where the denominator is 0; finite gradients there."""
    safe = jnp.where(whole != 0.0, whole, 1.0)
    return jnp.where(whole != 0.0, part / safe, jnp.nan)


def divide(part: jax.Array, whole: jax.Array) -> jax.Array:
    """The quotient, 0 where the denominator is not positive."""
    return jnp.where(whole > 0.0, part / jnp.where(whole > 0.0, whole, 1.0), 0.0)
