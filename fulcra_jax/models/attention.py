# SPDX-License-Identifier: Apache-2.0
"""Disentangled attention (He et al. 2021, equation 4) as pure functions.

The score of query i and key j adds three products: content with content, content with
the position of the key, and position of the query with content. How the position terms
are read without a gather stands in `position_bias`; which row of the position table a
distance reads, in `positions`.

Heads lead: `[H, B, T, K]`. Suffixes are einsum subscripts: b batch, t query, s key,
h head, k head width.
"""

import dataclasses
import functools
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import _check
from fulcra_jax.models import accelerators, position_bias
from fulcra_jax.models.position_bias import gather_bias as gather_bias
from fulcra_jax.models.position_bias import skew_bias as skew_bias
from fulcra_jax.models.positions import relative_slots as relative_slots
from fulcra_jax.models.positions import slot_of_distance as slot_of_distance

Form = Literal["skew", "gather", "cudnn", "pallas"]
PadRows = Literal["uniform", "keys"]


def disentangled_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    pos_q: jax.Array | None,
    pos_k: jax.Array | None,
    mask: jax.Array,
    *,
    slot_of_distance: np.ndarray | None,
    scale: float,
    segment_ids: jax.Array | None = None,
    form: Form = "skew",
    pad_rows: PadRows = "uniform",
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
    head_chunk: int | None = None,
    block: int | None = None,
) -> jax.Array:
    """softmax(scale (content.content + content.position + position.content)) values.

    Softmax in float32 whatever the dtype. No token attends to padding.

    Args:
      q: `[H, B, T, K]` content queries.
      k: `[H, B, T, K]` content keys.
      v: `[H, B, T, K]` values.
      pos_q: `[H, P, K]` position queries, or None.
      pos_k: `[H, P, K]` position keys, or None.
      mask: `[B, T]` bool, True for a token, False for padding.
      slot_of_distance: `[2 T - 1]` int into P; may be None if both tables are.
      scale: one over the square root of head width times number of terms.
      segment_ids: `[B, T]` int; tokens of different segments do not see each other.
      form: "skew"; "gather" for the reference; on a GPU "cudnn", on a TPU "pallas",
        which hand the position terms to a kernel as a bias (`accelerators`).
      pad_rows: what padding attends to: "uniform" (every token, padding included, as in
        DeBERTa), or "keys" (the tokens, as in BERT).
      dropout_rate: share of attention probabilities dropped, in [0, 1), to the nearest
        of 65,536 steps.
      dropout_key: PRNG key; None drops nothing, and "cudnn" and "pallas" cannot. Each
        head draws from a key of its own: the draws do not depend on `head_chunk`.
      head_chunk: heads computed at a time, a divisor of H; None picks: few on a CPU,
        where their scores then stay in the cache, all elsewhere. Values do not depend
        on it.
      block: rows per block of the skew form; None picks by length.

    Returns:
      `[H, B, T, K]` in the dtype of `v`.

    Raises:
      ValueError: if shapes disagree, a chunk does not divide the heads, or a kernel is
        asked for dropout.
      KeyError: if the form is unknown.

    Reference:
      He et al. 2021 (arXiv 2006.03654), equation 4.

    >>> x = jnp.arange(4.0).reshape(1, 1, 4, 1)
    >>> mask = jnp.array([[True, True, False, True]])
    >>> out = disentangled_attention(
    ...     0 * x, x, x, None, None, mask, slot_of_distance=None, scale=1.0
    ... )
    >>> [round(float(y), 3) for y in out.ravel()]
    [1.333, 1.333, 1.5, 1.333]
    """
    size = _check.shapes(
        "attention.disentangled_attention",
        q=(q, "H B T K"),
        k=(k, "H B T K"),
        v=(v, "H B T K"),
        mask=(mask, "B T"),
        segment_ids=(segment_ids, "B T"),
    )
    forms, pads = get_args(Form), get_args(PadRows)
    _check.known("attention.disentangled_attention", "form", form, forms)
    _check.known("attention.disentangled_attention", "pad_rows", pad_rows, pads)
    if slot_of_distance is None:
        pos_q = pos_k = None
    else:
        position_bias.check(
            "disentangled_attention", q, k, pos_q, pos_k, slot_of_distance
        )
    mask = jnp.asarray(mask, bool)
    may_bts = mask[:, None, :]
    if pad_rows == "uniform":
        may_bts &= mask[:, :, None]
    if segment_ids is not None:
        may_bts &= segment_ids[:, :, None] == segment_ids[:, None, :]
    keys = None
    if dropout_key is not None and dropout_rate > 0.0:
        keys = jax.random.split(dropout_key, size["H"])
    if form in ("cudnn", "pallas"):
        if keys is not None:
            raise ValueError(
                f"attention.disentangled_attention: form {form!r} knows no dropout, "
                f"but dropout_rate is {dropout_rate}; use form 'skew' or rate 0."
            )
        return _by_kernel(
            form,
            q * jnp.asarray(scale, q.dtype),
            k,
            v,
            None if pos_q is None else pos_q * jnp.asarray(scale, pos_q.dtype),
            pos_k,
            mask,
            segment_ids,
            slot_of_distance,
            pad_rows,
        )
    plan = _Plan(form, scale, slot_of_distance, block, dropout_rate)
    heads = _Heads(q, k, v, pos_q, pos_k, keys)
    if form == "gather":
        return plan.forward(heads, may_bts)[0]
    chunk = head_chunk or _chunk(size)
    if size["H"] % chunk:
        raise ValueError(
            f"attention.disentangled_attention: head_chunk is {chunk}; it should be a "
            f"divisor of H={size['H']}."
        )
    return _attend(plan, chunk, heads, may_bts)


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """x with a share of entries set to zero and the others scaled up to keep the mean.

    Args:
      x: `[...]` float.
      rate: share dropped, in [0, 1).
      key: PRNG key; None drops nothing.

    Returns:
      The shape and dtype of `x`.

    Reference:
      Srivastava et al. 2014, "Dropout".

    >>> dropout(jnp.ones(3), 0.5, None).tolist()
    [1.0, 1.0, 1.0]
    """
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / jnp.asarray(1.0 - rate, x.dtype), jnp.zeros((), x.dtype))


def _by_kernel(
    form, q, k, v, pos_q, pos_k, mask, segment_ids, slots, pad_rows
) -> jax.Array:
    bias_hbts = None
    if pos_q is not None or pos_k is not None:
        bias_hbts = skew_bias(q, k, pos_q, pos_k, slot_of_distance=slots)
    kernel = accelerators.cudnn_attention
    if form == "pallas":
        kernel = accelerators.pallas_attention
    out = kernel(q, k, v, bias_hbts, mask, segment_ids)
    if pad_rows == "keys":
        return out
    return jnp.where(mask[None, :, :, None], out, v.mean(2, keepdims=True))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Heads:
    """What differs between heads; the leading axis of each leaf is H."""

    q: jax.Array
    k: jax.Array
    v: jax.Array
    pos_q: jax.Array | None
    pos_k: jax.Array | None
    keys: jax.Array | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Rows:
    """Largest score of every query, and sum of the powers of e, `[H, B, T, 1]`."""

    most: jax.Array
    total: jax.Array


class _Plan:
    """What is static, and the computation of a few heads."""

    def __init__(self, form, scale, slots, block, rate):
        self.form, self.scale, self.slots, self.block = form, scale, slots, block
        self.threshold = round(rate * 65536)

    def _key(self) -> tuple:
        slots = None if self.slots is None else self.slots.tobytes()
        return self.form, self.scale, slots, self.block, self.threshold

    def __hash__(self) -> int:
        return hash(self._key())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Plan) and self._key() == other._key()

    def scores(self, q, k, pos_q, pos_k) -> jax.Array:
        """`[H, B, T, S]`, at least float32."""
        q = q * jnp.asarray(self.scale, q.dtype)
        score_hbts = jnp.einsum("hbtk,hbsk->hbts", q, k)
        if self.slots is not None:
            if pos_q is not None:
                pos_q = pos_q * jnp.asarray(self.scale, pos_q.dtype)
            tables = (q, k, pos_q, pos_k)
            if self.form == "gather":
                score_hbts += gather_bias(*tables, slot_of_distance=self.slots)
            else:
                score_hbts += skew_bias(
                    *tables, slot_of_distance=self.slots, block=self.block
                )
        return score_hbts.astype(jnp.promote_types(q.dtype, jnp.float32))

    def masked_scores(self, heads: _Heads, may_bts: jax.Array) -> jax.Array:
        """`[H, B, T, S]`, the least number where a query may not attend."""
        score_hbts = self.scores(heads.q, heads.k, heads.pos_q, heads.pos_k)
        # A finite minimum, not -inf: a row that may attend to nothing becomes uniform.
        least = jnp.finfo(score_hbts.dtype).min
        return jnp.where(may_bts[None], score_hbts, least)

    def survivors(self, keys: jax.Array | None, x_hbts: jax.Array) -> jax.Array:
        """x with the dropped entries at zero and the others scaled up."""
        if keys is None:
            return x_hbts
        keep = jax.vmap(lambda key: self._keep(key, x_hbts.shape[1:]))(keys)
        factor = jnp.asarray(65536 / (65536 - self.threshold), x_hbts.dtype)
        return jnp.where(keep, x_hbts * factor, jnp.zeros((), x_hbts.dtype))

    def _keep(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """True for a share 1 - rate. 16 bits each: half the draws of 32."""
        *lead, last = shape
        bits = jax.random.bits(key, (*lead, -(-last // 2)), jnp.uint32)
        halves = jax.lax.bitcast_convert_type(bits, jnp.uint16)
        return halves.reshape(*lead, -1)[..., :last] >= self.threshold

    def forward(self, heads: _Heads, may_bts: jax.Array) -> tuple[jax.Array, _Rows]:
        """`[H, B, T, K]`, and what brings the probabilities back."""
        score_hbts = self.masked_scores(heads, may_bts)
        most = jax.lax.stop_gradient(score_hbts.max(-1, keepdims=True))
        power_hbts = jnp.exp(score_hbts - most)
        total = power_hbts.sum(-1, keepdims=True)
        kept_hbts = self.survivors(heads.keys, power_hbts).astype(heads.v.dtype)
        out = jnp.einsum("hbts,hbsk->hbtk", kept_hbts, heads.v)
        # Divided after the product: K numbers a row in place of S.
        out = (out.astype(total.dtype) / total).astype(heads.v.dtype)
        return out, _Rows(most, total)

    def backward(
        self,
        heads: _Heads,
        may_bts: jax.Array,
        rows: _Rows,
        along: jax.Array,
        g: jax.Array,
    ) -> tuple[jax.Array | None, ...]:
        """Cotangents of q, k, v and the tables (Dao et al. 2022, algorithm 4).

        `along` is the sum of g times the output over the head's width.
        """
        score_hbts = self.masked_scores(heads, may_bts)
        prob_hbts = jnp.exp(score_hbts - rows.most) / rows.total
        kept_hbts = self.survivors(heads.keys, prob_hbts).astype(g.dtype)
        dv = jnp.einsum("hbts,hbtk->hbsk", kept_hbts, g)
        wide = prob_hbts.dtype
        dprob_hbts = jnp.einsum("hbtk,hbsk->hbts", g, heads.v).astype(wide)
        dprob_hbts = self.survivors(heads.keys, dprob_hbts)
        dscore_hbts = jnp.where(may_bts[None], prob_hbts * (dprob_hbts - along), 0)
        # The scores are linear in each input, so nothing of them is computed again.
        inputs = (heads.q, heads.k, heads.pos_q, heads.pos_k)
        _, pull = jax.vjp(self.scores, *inputs)
        dq, dk, dpos_q, dpos_k = pull(dscore_hbts)
        return dq, dk, dv, dpos_q, dpos_k


def _chunk(size: dict[str, int]) -> int:
    """Heads at a time on this backend."""
    if jax.default_backend() != "cpu":
        return size["H"]
    return 2 if size["H"] % 2 == 0 else 1


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(plan: _Plan, chunk: int, heads: _Heads, may_bts: jax.Array) -> jax.Array:
    return _attend_fwd(plan, chunk, heads, may_bts)[0]


def _attend_fwd(plan, chunk, heads, may_bts):
    def some(heads):
        return plan.forward(heads, may_bts)

    if chunk == heads.q.shape[0]:
        out, rows = some(heads)
    else:
        out, rows = _join(jax.lax.map(some, _split(heads, chunk)))
    return out, (heads, may_bts, out, rows)


def _attend_bwd(plan, chunk, residuals, g):
    heads, may_bts, out, rows = residuals
    wide = rows.total.dtype
    along = (g.astype(wide) * out.astype(wide)).sum(-1, keepdims=True)
    if chunk == heads.q.shape[0]:
        done = plan.backward(heads, may_bts, rows, along, g)
    else:
        *inputs, keys = (
            heads.q,
            heads.k,
            heads.v,
            heads.pos_q,
            heads.pos_k,
            heads.keys,
        )
        fixed = _split((keys, rows, along, g), chunk)

        def some(i, inputs):
            # The cotangents take the place of what has been read for the last time.
            take = functools.partial(
                jax.lax.dynamic_index_in_dim, index=i, keepdims=False
            )
            keys, rows, along, g = jax.tree.map(take, fixed)
            heads = _Heads(*jax.tree.map(take, inputs), keys)
            new = list(plan.backward(heads, may_bts, rows, along, g))
            put = functools.partial(
                jax.lax.dynamic_update_index_in_dim, index=i, axis=0
            )
            return jax.tree.map(put, inputs, new)

        turns = heads.q.shape[0] // chunk
        done = _join(jax.lax.fori_loop(0, turns, some, _split(inputs, chunk)))
    return _Heads(*done, None), None


_attend.defvjp(_attend_fwd, _attend_bwd)


def _split(tree: Any, chunk: int) -> Any:
    """`[H, ...]` -> `[H / chunk, chunk, ...]`."""
    return jax.tree.map(lambda x: x.reshape(-1, chunk, *x.shape[1:]), tree)


def _join(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)
