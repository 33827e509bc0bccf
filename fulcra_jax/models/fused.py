# SPDX-License-Identifier: Apache-2.0
"""Disentangled attention as one Pallas kernel for TPU: scores never leave the chip.

A tile of queries goes over the tiles of keys with a running softmax (Dao et al. 2022,
arXiv 2205.14135). The distances that a pair of tiles has are neighbours, so each
position term is one product with a window of the table's rows, and rolling row i of it
by i lines the keys up. No array `[T, T]` is written forward. Backward, the scores are
computed again by XLA from one number per query, as in `chunked`. Suffixes as in
`attention`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from fulcra_jax.models import accelerators
from fulcra_jax.models.chunked import Heads, Kept, Plan, Who

_TILE = 128
"""Queries, and keys, of a tile: the lanes of a TPU."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def attend(plan: Plan, heads: Heads, who: Who) -> jax.Array:
    """`[H, B, T, K]`: attention of all heads, without dropout.

    Args:
      plan: its slots and scale are used; its form is that of the gradient.
      heads: `heads.keys` is not used.
      who: who attends to whom.

    >>> from jax.experimental.pallas import tpu as pltpu
    >>> from fulcra_jax.models import chunked
    >>> x = jnp.arange(3.0).reshape(1, 1, 3, 1)
    >>> mask = jnp.array([[True, True, False]])
    >>> pair = chunked.who(mask, None, jnp.float32, padding_asks=True)
    >>> with pltpu.force_tpu_interpret_mode():
    ...     out = attend(
    ...         Plan("skew", 1.0, None, None, 0.0),
    ...         Heads(0 * x, x, x, None, None, None),
    ...         pair,
    ...     )
    >>> out.ravel().tolist()
    [0.5, 0.5, 0.5]
    """
    with accelerators.on_tpu("fused"):
        return _forward(plan, heads, who)[0]


def _attend_fwd(plan, heads, who):
    with accelerators.on_tpu("fused"):
        out, log_total = _forward(plan, heads, who)
    return out, (heads, who, out, log_total)


def _attend_bwd(plan, residuals, g):
    heads, who, out, log_total = residuals
    wide = log_total.dtype
    along = (g.astype(wide) * out.astype(wide)).sum(-1, keepdims=True)
    return plan.backward(heads, who, Kept(log_total, None), along, g), None


attend.defvjp(_attend_fwd, _attend_bwd)


def _forward(plan: Plan, heads: Heads, who: Who) -> tuple[jax.Array, jax.Array]:
    """`[H, B, T, K]`, and the logarithm of the sum of powers, `[H, B, T, 1]`."""
    # Imported here: who has no TPU should not depend on jax's kernels.
    from jax.experimental import pallas as pl

    H, B, T, K = heads.q.shape
    wide = T + -T % _TILE
    scale = jnp.asarray(plan.scale, heads.q.dtype)
    tables, slots = [], plan.slots
    if slots is not None:
        # Rows of the two tables in the order in which a tile reads them.
        distance = np.arange(wide - 1, -wide - 1, -1)
        for table, sign in ((heads.pos_k, 1), (heads.pos_q, -1)):
            if table is not None:
                near = np.clip(sign * distance, 1 - T, T - 1)
                tables.append(table[:, slots[near + T - 1]])
        if heads.pos_q is not None:
            tables[-1] = tables[-1] * scale

    def tokens(x: jax.Array) -> jax.Array:
        return jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, wide - T), (0, 0)])

    def of_tile(width: int) -> pl.BlockSpec:
        block = (None, None, _TILE, width)
        return pl.BlockSpec(block, lambda h, b, i: (h, b, i, 0))

    def of_text(x: jax.Array) -> pl.BlockSpec:
        return pl.BlockSpec((None, None, *x.shape[2:]), lambda h, b, i: (h, b, 0, 0))

    def of_head(x: jax.Array) -> pl.BlockSpec:
        return pl.BlockSpec((None, *x.shape[1:]), lambda h, b, i: (h, 0, 0))

    q, k, v = tokens(heads.q * scale), tokens(heads.k), tokens(heads.v)
    asks, least = (tokens(x[:, :, None]) for x in (who.asks, who.least))
    # A lane per key; what is beyond the text counts for nothing, see the kernel.
    answers = jnp.pad(who.answers[:, None, :], ((0, 0), (0, 0), (0, wide - T)))
    column = pl.BlockSpec((None, _TILE, 1), lambda h, b, i: (b, i, 0))
    row = pl.BlockSpec((None, 1, wide), lambda h, b, i: (b, 0, 0))
    log_total = jax.ShapeDtypeStruct((H, B, wide, 1), least.dtype)
    out, log_total = pl.pallas_call(
        functools.partial(
            _kernel,
            length=T,
            has_c2p=slots is not None and heads.pos_k is not None,
            has_p2c=slots is not None and heads.pos_q is not None,
        ),
        grid=(H, B, wide // _TILE),
        in_specs=[
            of_tile(K), of_text(k), of_text(v), column, column, row,
            *map(of_head, tables),
        ],
        out_specs=[of_tile(K), of_tile(1)],
        out_shape=[jax.ShapeDtypeStruct((H, B, wide, K), v.dtype), log_total],
        name="disentangled_attention",
    )(q, k, v, asks, least, answers, *tables)  # fmt: skip
    return out[:, :, :T], log_total[:, :, :T]


def _kernel(
    q_ref, k_ref, v_ref, asks_ref, least_ref, answers_ref, *refs,
    length: int, has_c2p: bool, has_p2c: bool,
):  # fmt: skip
    """One tile of queries of one head of one text, over all tiles of keys."""
    from jax.experimental import pallas as pl

    *table_refs, out_ref, log_total_ref = refs
    tiles, i = k_ref.shape[0] // _TILE, pl.program_id(2)
    q, asks, least = q_ref[...], asks_ref[...], least_ref[...]
    wide, K = least.dtype, q.shape[1]

    def window(ref, tile) -> jax.Array:
        return ref[pl.ds(pl.multiple_of(tile * _TILE, _TILE), 2 * _TILE), :]

    def add(j, carry):
        most, total, out = carry
        here = pl.ds(pl.multiple_of(j * _TILE, _TILE), _TILE)
        k, v = k_ref[here, :], v_ref[here, :]
        score = _product(q, k, wide)
        if has_c2p:
            rows = window(table_refs[0], tiles - 1 - i + j)
            score += _lined_up(_product(q, rows, wide))
        if has_p2c:
            rows = window(table_refs[-1], tiles - 1 + i - j)
            score += _lined_up(_product(k, rows, wide)).T
        score = jnp.where(asks == answers_ref[:, here], score, least)
        place = jax.lax.broadcasted_iota(jnp.int32, score.shape, 1) + j * _TILE
        score = jnp.where(place < length, score, -jnp.inf)
        highest = jnp.maximum(most, score.max(1, keepdims=True))
        shrunk, power = jnp.exp(most - highest), jnp.exp(score - highest)
        total = shrunk * total + power.sum(1, keepdims=True)
        out = shrunk * out + _product(power.astype(v.dtype), v.T, wide)
        return highest, total, out

    def step(j, carry):
        # Who has no key attends to all alike; else a tile without a pair adds nothing.
        here = pl.ds(pl.multiple_of(j * _TILE, _TILE), _TILE)
        pairs = (asks == answers_ref[:, here]) | (least == 0)
        return jax.lax.cond(jnp.any(pairs), add, lambda _, carry: carry, j, carry)

    start = (
        jnp.full((_TILE, 1), jnp.finfo(wide).min, wide),
        jnp.zeros((_TILE, 1), wide),
        jnp.zeros((_TILE, K), wide),
    )
    most, total, out = jax.lax.fori_loop(0, tiles, step, start)
    out_ref[...] = (out / total).astype(out_ref.dtype)
    log_total_ref[...] = most + jnp.log(total)


def _product(a: jax.Array, b: jax.Array, dtype: DTypeLike) -> jax.Array:
    """`[M, K]` times `[N, K]`: `[M, N]`."""
    exact = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return jax.lax.dot_general(
        a, b, (((1,), (1,)), ((), ())), precision=exact, preferred_element_type=dtype
    )


def _lined_up(y: jax.Array) -> jax.Array:
    """`[I, 2 I]` -> `[I, I]`: row i starts at column I - 1 - i."""
    from jax.experimental.pallas import tpu as pltpu

    rows = y.shape[0]
    return pltpu.roll(y, rows + 1, 1, stride=1, stride_axis=0)[:, :rows]
