# SPDX-License-Identifier: Apache-2.0
"""From one vector per token to one per text, also of several texts in a row."""

import jax
import jax.numpy as jnp

from fulcra_jax import _check

POOLS = ("first", "mean", "max", "logsumexp")


def members(
    caller: str,
    mask: jax.Array,
    segment_ids: jax.Array | None,
    num_segments: int | None,
) -> jax.Array:
    """Which tokens belong to which text of a row.

    Args:
      caller: the public name to blame.
      mask: `[B, T]` bool or 0/1, False for padding.
      segment_ids: `[B, T]` int, 1 for the first text of a row; None is one text a row.
      num_segments: S, most texts in a row; None without `segment_ids`.

    Returns:
      `[B, S, T]` bool, S = 1 without `segment_ids`. Under `jit`, a token outside of
      the texts 1 to S belongs to none.

    Raises:
      ValueError: if of `segment_ids` and `num_segments` only one is given; outside of
        `jit`, also if a token is in no text of 1 to S.

    >>> two = members("a", jnp.ones((1, 3)), jnp.array([[1, 1, 2]]), 2)
    >>> two.astype(int).tolist()
    [[[1, 1, 0], [0, 0, 1]]]
    """
    if (segment_ids is None) != (num_segments is None):
        raise ValueError(
            f"{caller}: num_segments is {num_segments}, and segment_ids are "
            f"{'missing' if segment_ids is None else 'given'}; they go together."
        )
    if segment_ids is None or num_segments is None:
        return jnp.asarray(mask, bool)[:, None]
    _check.whole(caller, "num_segments", num_segments)
    _check.segments(caller, segment_ids)
    _check.texts(caller, segment_ids, mask, num_segments)
    mask = jnp.asarray(mask, bool)
    number = jnp.arange(1, num_segments + 1, dtype=jnp.int32)
    own = jnp.asarray(segment_ids, jnp.int32)
    return (own[:, None] == number[None, :, None]) & mask[:, None]


def pooled(x: jax.Array, member: jax.Array, pool: str) -> jax.Array:
    """One vector per text.

    Args:
      x: `[B, T, D]` float.
      member: `[B, S, T]` bool, which tokens a text has.
      pool: "first" token, "mean", "max" or "logsumexp" over the tokens.

    Returns:
      `[B, S, D]` in the dtype of `x`; of a text without a token zero, and -1e9 under
      "logsumexp".

    Raises:
      KeyError: if the pool is unknown.
      ValueError: if shapes disagree.

    Reference:
      Reimers and Gurevych 2019 (arXiv 1908.10084), section 3, for the first three;
      Maron and Lozano-Perez 1997, section 2, for the smooth "or".

    >>> x = jnp.array([[[1.0], [3.0], [9.0]]])
    >>> two = jnp.array([[[True, True, False], [False, False, True]]])
    >>> [pooled(x, two, pool).ravel().tolist() for pool in ("first", "mean", "max")]
    [[1.0, 9.0], [2.0, 9.0], [3.0, 9.0]]
    """
    _check.shapes("pooling.pooled", x=(x, "B T D"), member=(member, "B S T"))
    _check.known("pooling.pooled", "pool", pool, POOLS)
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if pool in ("first", "mean"):
        weight = member
        if pool == "first":
            # Tokens before this one of the same text: none.
            weight = weight & (jnp.cumsum(member, axis=-1) == 1)
        # A product with zeros and ones; a lower precision would round what it copies.
        total = jnp.einsum(
            "bst,btd->bsd",
            weight.astype(wide.dtype),
            wide,
            precision=jax.lax.Precision.HIGHEST,
        )
        count = jnp.maximum(weight.sum(-1, keepdims=True), 1)
        return (total / count.astype(wide.dtype)).astype(x.dtype)
    where = member[..., None]
    if pool == "max":
        least = jnp.finfo(wide.dtype).min
        most = jnp.where(where, wide[:, None], least).max(2)
        return jnp.where(where.any(2), most, 0.0).astype(x.dtype)
    # Finite, so that a text without a token has neither NaN nor gradient.
    least = jnp.asarray(-1e9, wide.dtype)
    total = jax.nn.logsumexp(jnp.where(where, wide[:, None], least), axis=2)
    return total.astype(x.dtype)
