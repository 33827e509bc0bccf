# SPDX-License-Identifier: Apache-2.0
"""Disentangled attention (He et al. 2021, equation 4) as pure functions.

The score of query i and key j adds three products: content with content, content with
the position of the key, and position of the query with content. Positions enter by the
distance i - j alone, so both position terms are constant along diagonals of a table of
content x distance: the skew form reads them off by reshaping, without a gather.

Heads lead: `[H, B, T, K]`. Suffixes are einsum subscripts: b batch, t query, s key,
h head, k head width, p position slot, n block of rows, i row in a block, w column of a
block's window of distances.
"""

import functools
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import _check

Form = Literal["skew", "gather"]
PadRows = Literal["uniform", "keys"]


def slot_of_distance(length: int, *, buckets: int, max_distance: int) -> np.ndarray:
    """The slot of every distance: near ones exact, far ones logarithmic.

    With mid = buckets // 2, a distance d within mid keeps its own slot, one beyond it
    falls in ceil(log(|d| / mid) / log((max_distance - 1) / mid) * (mid - 1)) + mid on
    its side. A table of static shape, so numpy builds it while tracing: traced, the
    logarithm is off by one ulp at some distances and the ceiling lands one slot off.

    Args:
      length: number of tokens T.
      buckets: slots per direction; below one, every distance up to `max_distance` has
        its own slot.
      max_distance: distances from this one on share the last slot.

    Returns:
      `[2 T - 1]` int32 for distances -(T - 1) .. T - 1, in `[0, 2 span)`, where span is
      `buckets` or else `max_distance`. Distance 0 is slot span.

    Reference:
      He et al. 2021 (arXiv 2006.03654), equation 3; the log buckets are those of the
      released v2 code (`make_log_bucket_position`).

    >>> slot_of_distance(4, buckets=4, max_distance=10).tolist()
    [1, 2, 3, 4, 5, 6, 7]
    """
    distance = np.arange(-(length - 1), length)
    span = buckets if buckets > 0 else max_distance
    slot = distance
    if buckets > 0:
        mid = buckets // 2
        far = np.maximum(np.abs(distance), mid).astype(np.float32) / np.float32(mid)
        base = np.log(np.float32((max_distance - 1) / mid))
        bucket = np.ceil(np.log(far) / base * np.float32(mid - 1)) + mid
        slot = np.where(np.abs(distance) <= mid, distance, np.sign(distance) * bucket)
    return np.clip(slot + span, 0, 2 * span - 1).astype(np.int32)


def relative_slots(length: int, *, buckets: int, max_distance: int) -> np.ndarray:
    """The slot of every (query, key) pair: that of the distance query minus key.

    Args:
      length: number of tokens T.
      buckets: as in `slot_of_distance`.
      max_distance: as in `slot_of_distance`.

    Returns:
      `[T, T]` int32. Content-to-position and position-to-content share it.

    Reference:
      He et al. 2021 (arXiv 2006.03654), section 3.1.

    >>> relative_slots(4, buckets=4, max_distance=10)[0].tolist()
    [4, 3, 2, 1]
    """
    slot = slot_of_distance(length, buckets=buckets, max_distance=max_distance)
    position = np.arange(length)
    return slot[position[:, None] - position[None, :] + length - 1]


def gather_bias(
    q: jax.Array,
    k: jax.Array,
    pos_q: jax.Array | None,
    pos_k: jax.Array | None,
    *,
    slot_of_distance: np.ndarray,
) -> jax.Array:
    """Both position terms as they are written down: multiply, then pick the slot.

    The reference that `skew_bias` is tested against. Its gradient is a scatter.

    Args:
      q: `[H, B, T, K]` content queries, already scaled.
      k: `[H, B, T, K]` content keys.
      pos_q: `[H, P, K]` position queries, already scaled, or None to leave the
        position-to-content term out.
      pos_k: `[H, P, K]` position keys, or None to leave the other term out.
      slot_of_distance: `[2 T - 1]` int, which of the P rows each distance reads.

    Returns:
      `[H, B, T, T]`, query before key.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      He et al. 2021 (arXiv 2006.03654), equation 4.

    >>> q, k = jnp.ones((1, 1, 2, 1)), jnp.ones((1, 1, 2, 1))
    >>> pos_k = jnp.array([[[1.0], [2.0], [3.0]]])
    >>> slots = np.array([0, 1, 2])
    >>> gather_bias(q, k, None, pos_k, slot_of_distance=slots)[0, 0].tolist()
    [[2.0, 1.0], [3.0, 2.0]]
    """
    length = _check_bias("gather_bias", q, k, pos_q, pos_k, slot_of_distance)
    position = np.arange(length)
    slot_ts = slot_of_distance[position[:, None] - position[None, :] + length - 1]
    bias_hbts = jnp.zeros((*q.shape[:3], length), q.dtype)
    if pos_k is not None:
        c2p_hbtp = jnp.einsum("hbtk,hpk->hbtp", q, pos_k)
        bias_hbts += jnp.take_along_axis(c2p_hbtp, slot_ts[None, None], axis=-1)
    if pos_q is not None:
        p2c_hbsp = jnp.einsum("hbsk,hpk->hbsp", k, pos_q)
        p2c_hbst = jnp.take_along_axis(p2c_hbsp, slot_ts.T[None, None], axis=-1)
        bias_hbts += p2c_hbst.swapaxes(-1, -2)
    return bias_hbts


def skew_bias(
    q: jax.Array,
    k: jax.Array,
    pos_q: jax.Array | None,
    pos_k: jax.Array | None,
    *,
    slot_of_distance: np.ndarray,
    block: int | None = None,
) -> jax.Array:
    """Both position terms without a gather: multiply by a window of distances, skew.

    A block of rows meets T + block distances; product column w of row i is the distance
    of key w + i - (block - 1), so reading the product with rows one shorter lines the
    keys up. Equal to `gather_bias` in values and gradients; nothing with a batch axis
    is gathered or scattered.

    Args:
      q: `[H, B, T, K]` content queries, already scaled.
      k: `[H, B, T, K]` content keys.
      pos_q: `[H, P, K]` position queries, already scaled, or None.
      pos_k: `[H, P, K]` position keys, or None.
      slot_of_distance: `[2 T - 1]` int, which of the P rows each distance reads.
      block: rows per block; None picks one by length. The values do not depend on it.

    Returns:
      `[H, B, T, T]`, query before key.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      He et al. 2021 (arXiv 2006.03654), equation 4; the skewing is that of Huang et al.
      2018 (Music Transformer, arXiv 1809.04281), section 3.4.1, done in blocks.

    >>> q, k = jnp.ones((1, 1, 2, 1)), jnp.ones((1, 1, 2, 1))
    >>> pos_k = jnp.array([[[1.0], [2.0], [3.0]]])
    >>> slots = np.array([0, 1, 2])
    >>> skew_bias(q, k, None, pos_k, slot_of_distance=slots)[0, 0].tolist()
    [[2.0, 1.0], [3.0, 2.0]]
    """
    length = _check_bias("skew_bias", q, k, pos_q, pos_k, slot_of_distance)
    block = block or _block(length)
    first = np.arange(-(-length // block))[:, None] * block
    column = np.arange(length + block)[None, :]
    ahead_nw = first + block - 1 - column

    def term(x_hbtk, pos_hpk, distance_nw):
        inside_nw = np.clip(distance_nw, 1 - length, length - 1) + length - 1
        window_hnwk = _take_rows(pos_hpk, _Rows(slot_of_distance[inside_nw]))
        y_hnbiw = jnp.einsum("hbnik,hnwk->hnbiw", _blocks(x_hbtk, block), window_hnwk)
        return _skew(y_hnbiw)  # [h, n, b, i, T]

    bias_hbts = None
    if pos_k is not None:
        c2p_hbnis = term(q, pos_k, ahead_nw).swapaxes(1, 2)
        H, B, _, _, T = c2p_hbnis.shape
        bias_hbts = c2p_hbnis.reshape(H, B, -1, T)[:, :, :length]
    if pos_q is not None:
        p2c_hbtni = term(k, pos_q, -ahead_nw).transpose(0, 2, 4, 1, 3)
        p2c_hbts = p2c_hbtni.reshape(*p2c_hbtni.shape[:3], -1)[..., :length]
        bias_hbts = p2c_hbts if bias_hbts is None else bias_hbts + p2c_hbts
    if bias_hbts is None:
        return jnp.zeros((*q.shape[:3], length), q.dtype)
    return bias_hbts


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
      form: "skew", or "gather" for the reference.
      pad_rows: what padding attends to: "uniform" (every token, padding included, as in
        DeBERTa), or "keys" (the tokens, as in BERT).
      dropout_rate: share of attention probabilities dropped, in [0, 1).
      dropout_key: PRNG key; None drops nothing.

    Returns:
      `[H, B, T, K]` in the dtype of `v`.

    Raises:
      ValueError: if shapes disagree.
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
    _check.shapes(
        "attention.disentangled_attention",
        q=(q, "H B T K"),
        k=(k, "H B T K"),
        v=(v, "H B T K"),
        mask=(mask, "B T"),
        segment_ids=(segment_ids, "B T"),
    )
    biases = {"skew": skew_bias, "gather": gather_bias}
    _check.known("attention.disentangled_attention", "form", form, biases)
    pads = get_args(PadRows)
    _check.known("attention.disentangled_attention", "pad_rows", pad_rows, pads)
    q = q * jnp.asarray(scale, q.dtype)
    score_hbts = jnp.einsum("hbtk,hbsk->hbts", q, k)
    if pos_q is not None:
        pos_q = pos_q * jnp.asarray(scale, pos_q.dtype)
    if slot_of_distance is not None:
        score_hbts += biases[form](
            q, k, pos_q, pos_k, slot_of_distance=slot_of_distance
        )
    score_hbts = score_hbts.astype(jnp.promote_types(q.dtype, jnp.float32))
    may_bts = mask[:, None, :]
    if pad_rows == "uniform":
        may_bts &= mask[:, :, None]
    if segment_ids is not None:
        may_bts &= segment_ids[:, :, None] == segment_ids[:, None, :]
    # A finite minimum, not -inf: a row that may attend to nothing becomes uniform.
    least = jnp.finfo(score_hbts.dtype).min
    prob_hbts = jax.nn.softmax(jnp.where(may_bts[None], score_hbts, least), axis=-1)
    prob_hbts = dropout(prob_hbts.astype(v.dtype), dropout_rate, dropout_key)
    return jnp.einsum("hbts,hbsk->hbtk", prob_hbts, v)


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


def _check_bias(caller, q, k, pos_q, pos_k, slot_of_distance: np.ndarray) -> int:
    size = _check.shapes(
        f"attention.{caller}",
        q=(q, "H B T K"),
        k=(k, "H B T K"),
        pos_q=(pos_q, "H P K"),
        pos_k=(pos_k, "H P K"),
        slot_of_distance=(slot_of_distance, "D"),
    )
    if size["D"] != 2 * size["T"] - 1:
        raise ValueError(
            f"attention.{caller}: slot_of_distance has {size['D']} entries, but q has "
            f"T={size['T']}, which needs {2 * size['T'] - 1}."
        )
    return size["T"]


def _block(length: int) -> int:
    """About 64 rows (128 for long inputs), spread evenly so that little is padded."""
    return -(-length // -(-length // (64 if length <= 256 else 128)))


def _blocks(x_hbtk: jax.Array, block: int) -> jax.Array:
    H, B, T, K = x_hbtk.shape
    pad = -T % block
    if pad:
        x_hbtk = jnp.pad(x_hbtk, ((0, 0), (0, 0), (0, pad), (0, 0)))
    return x_hbtk.reshape(H, B, (T + pad) // block, block, K)


@jax.custom_vjp
def _skew(y: jax.Array) -> jax.Array:
    """`[..., i, T + i]` -> `[..., i, T]`: row i is shifted left by I - 1 - i."""
    *lead, rows, width = y.shape
    flat = y.reshape(*lead, rows * width)[..., rows - 1 :][..., : rows * (width - 1)]
    return flat.reshape(*lead, rows, width - 1)[..., : width - rows]


def _skew_fwd(y):
    return _skew(y), None


def _skew_bwd(_, g):
    # The transpose as one padding and two reshapes; autodiff would pad three times.
    *lead, rows, length = g.shape
    wide = length + 2 * rows - 1
    g = jnp.pad(g, [(0, 0)] * len(lead) + [(0, 1), (rows - 1, rows)])
    flat = g.reshape(*lead, (rows + 1) * wide)[..., : rows * (wide + 1)]
    return (flat.reshape(*lead, rows, wide + 1)[..., : length + rows],)


_skew.defvjp(_skew_fwd, _skew_bwd)


class _Rows:
    """A numpy table of row numbers that can be hashed, so that it can be static."""

    def __init__(self, rows: np.ndarray):
        self.rows = rows

    def __hash__(self):
        return hash((self.rows.shape, self.rows.tobytes()))

    def __eq__(self, other):
        return np.array_equal(self.rows, other.rows)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _take_rows(table_hpk: jax.Array, rows: _Rows) -> jax.Array:
    return table_hpk[:, rows.rows]


def _take_rows_fwd(table_hpk, rows):
    return _take_rows(table_hpk, rows), table_hpk.shape[1]


def _take_rows_bwd(rows, P, g_hnwk):
    # A matrix product with one-hot rows in place of a scatter.
    chosen = jnp.asarray(rows.rows.reshape(-1))
    onehot_pm = (chosen[None, :] == jnp.arange(P)[:, None]).astype(g_hnwk.dtype)
    g_hmk = g_hnwk.reshape(g_hnwk.shape[0], -1, g_hnwk.shape[-1])
    return (jnp.einsum("pm,hmk->hpk", onehot_pm, g_hmk),)


_take_rows.defvjp(_take_rows_fwd, _take_rows_bwd)
