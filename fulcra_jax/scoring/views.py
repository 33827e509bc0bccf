# SPDX-License-Identifier: Apache-2.0
"""Two questions in one label: is the value mentioned at all, and with which sign?

A label -1/0/+1 mixes them. Raters who agree that a text has to do with a value and
disagree on the sign need another remedy than raters who do not see the value.

Class ids are label + 1, so 0, 1, 2 stand for -1, 0, +1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fulcra_jax import _check


class View(NamedTuple):
    """Ratings of two categories, to be passed on with `num_categories=2`."""

    ratings: jax.Array
    where: jax.Array


def mention_view(ratings: jax.Array, *, where: jax.Array | None = None) -> View:
    """Whether each rater saw the value at all: label 0 against -1 and +1.

    Args:
      ratings: `[R, N]` int class ids 0, 1, 2 of labels -1, 0, +1; others count as
        missing.
      where: `[R, N]` bool, False where a rating is missing.

    Returns:
      `ratings [R, N]` int32, 0 for "not mentioned" and 1 for "mentioned", and
      `where [R, N]`.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      The two-step reading of ternary labels; compare Krippendorff 2019, "Content
      Analysis", 4th edition, chapter 12 (conditional agreement).

    >>> mention_view(jnp.array([[0, 1, 2], [1, 1, 2]])).ratings.tolist()
    [[1, 0, 1], [0, 0, 1]]
    """
    present = _present("views.mention_view", ratings, where)
    return View((ratings != 1).astype(jnp.int32) * present, present)


def polarity_view(ratings: jax.Array, *, where: jax.Array | None = None) -> View:
    """The sign each rater gave, where he mentioned the value.

    A coefficient of this view reads only pairs of raters that both mention the value.

    Args:
      ratings: `[R, N]` int class ids 0, 1, 2 of labels -1, 0, +1; others count as
        missing.
      where: `[R, N]` bool, False where a rating is missing.

    Returns:
      `ratings [R, N]` int32, 0 for -1 and 1 for +1, and `where [R, N]`, False also
      where the label is 0.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      The two-step reading of ternary labels; compare Krippendorff 2019, "Content
      Analysis", 4th edition, chapter 12 (conditional agreement).

    >>> view = polarity_view(jnp.array([[0, 1, 2], [2, 1, 2]]))
    >>> view.ratings.tolist(), view.where[0].tolist()
    ([[0, 0, 1], [1, 0, 1]], [True, False, True])
    """
    present = _present("views.polarity_view", ratings, where)
    mentioned = present & (ratings != 1)
    return View((ratings == 2).astype(jnp.int32) * mentioned, mentioned)


def _present(caller: str, ratings: jax.Array, where: jax.Array | None) -> jax.Array:
    _check.shapes(caller, ratings=(ratings, "R N"), where=(where, "R N"))
    _check.ids(caller, "ratings", ratings, 3, where)
    present = (ratings >= 0) & (ratings <= 2)
    return present if where is None else present & jnp.asarray(where, bool)
