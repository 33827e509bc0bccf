# SPDX-License-Identifier: Apache-2.0
"""The two position terms of disentangled attention, [H, B, T, T] (equation 4).

Positions enter by the distance i - j alone, so both terms are constant along diagonals
of a table of content x distance: the skew form reads them off by reshaping, without a
gather. Heads lead: `[H, B, T, K]`. Suffixes are einsum subscripts: b batch, t query,
s key, h head, k head width, p position slot, n block of rows, i row in a block, w
column of a block's window of distances.
"""

import functools
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import _check
from fulcra_jax.models import positions
from fulcra_jax.models.positions import Windows


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
      ValueError: if shapes disagree, or a slot is outside the tables.

    Reference:
      He et al. 2021 (arXiv 2006.03654), equation 4.

    >>> q, k = jnp.ones((1, 1, 2, 1)), jnp.ones((1, 1, 2, 1))
    >>> pos_k = jnp.array([[[1.0], [2.0], [3.0]]])
    >>> slots = np.array([0, 1, 2])
    >>> gather_bias(q, k, None, pos_k, slot_of_distance=slots)[0, 0].tolist()
    [[2.0, 1.0], [3.0, 2.0]]
    """
    length = check("gather_bias", q, k, pos_q, pos_k, slot_of_distance)
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
      ValueError: if shapes disagree, or a slot is outside the tables.

    Reference:
      He et al. 2021 (arXiv 2006.03654), equation 4; the skewing is that of Huang et al.
      2018 (Music Transformer, arXiv 1809.04281), section 3.4.1, done in blocks.

    >>> q, k = jnp.ones((1, 1, 2, 1)), jnp.ones((1, 1, 2, 1))
    >>> pos_k = jnp.array([[[1.0], [2.0], [3.0]]])
    >>> slots = np.array([0, 1, 2])
    >>> skew_bias(q, k, None, pos_k, slot_of_distance=slots)[0, 0].tolist()
    [[2.0, 1.0], [3.0, 2.0]]
    """
    length = check("skew_bias", q, k, pos_q, pos_k, slot_of_distance)
    if block is None:
        block = positions.default_block(length)
    _check.whole("attention.skew_bias", "block", block)
    bias_hbts = None
    if pos_k is not None:
        keys = positions.windows(slot_of_distance, block, descending=True)
        c2p_hnbis = cast(jax.Array, _along_diagonals(q, pos_k, keys))
        c2p_hbnis = c2p_hnbis.swapaxes(1, 2)
        H, B, _, _, T = c2p_hbnis.shape
        bias_hbts = c2p_hbnis.reshape(H, B, -1, T)[:, :, :length]
    if pos_q is not None:
        queries = positions.windows(slot_of_distance, block, descending=False)
        p2c_hnbit = cast(jax.Array, _along_diagonals(k, pos_q, queries))
        p2c_hbtni = p2c_hnbit.transpose(0, 2, 4, 1, 3)
        p2c_hbts = p2c_hbtni.reshape(*p2c_hbtni.shape[:3], -1)[..., :length]
        bias_hbts = p2c_hbts if bias_hbts is None else bias_hbts + p2c_hbts
    if bias_hbts is None:
        return jnp.zeros((*q.shape[:3], length), q.dtype)
    return bias_hbts


def check(caller, q, k, pos_q, pos_k, slot_of_distance: np.ndarray) -> int:
    """The length T.

    Raises:
      ValueError: if shapes disagree, there is nothing, or a slot is outside the tables.
    """
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
    slots = np.asarray(slot_of_distance)
    if slots.dtype.kind not in "iu":
        raise ValueError(
            f"attention.{caller}: slot_of_distance is {slots.dtype}; it should be "
            "integers."
        )
    if "P" in size and not 0 <= slots.min() <= slots.max() < size["P"]:
        raise ValueError(
            f"attention.{caller}: slot_of_distance holds {slots.min()} to "
            f"{slots.max()}; the position tables have rows 0 to {size['P'] - 1}."
        )
    return size["T"]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _along_diagonals(
    x_hbtk: jax.Array, pos_hpk: jax.Array, windows: Windows
) -> jax.Array:
    """Rows of x times the position of each column: [h, n, b, i, T]."""
    x_hnbik, window_hnwk = _blocks(x_hbtk, windows), _window_rows(pos_hpk, windows)
    return _skew(jnp.einsum("hnbik,hnwk->hnbiw", x_hnbik, window_hnwk))


def _along_diagonals_fwd(x_hbtk, pos_hpk, windows):
    return _along_diagonals(x_hbtk, pos_hpk, windows), (x_hbtk, pos_hpk)


def _along_diagonals_bwd(windows, inputs, g_hnbis):
    x_hbtk, pos_hpk = inputs
    H, B, T, K = x_hbtk.shape
    rows = windows.block
    u_hnbiw = _unskew(g_hnbis)
    dx_hnbik = jnp.einsum("hnbiw,hnwk->hnbik", u_hnbiw, _window_rows(pos_hpk, windows))
    dx_hbtk = dx_hnbik.swapaxes(1, 2).reshape(H, B, -1, K)[:, :, :T]
    # Laid out by hand: left to itself, XLA transposes the larger factor on a CPU.
    x_hnkm = _blocks(x_hbtk, windows).reshape(H, -1, B * rows, K).swapaxes(2, 3)
    u_hnmw = u_hnbiw.reshape(H, -1, B * rows, windows.width)
    dwindow_hnkw = jnp.einsum(
        "hnkm,hnmw->hnkw", jax.lax.optimization_barrier(x_hnkm), u_hnmw
    )
    return dx_hbtk, _added_up(dwindow_hnkw, windows, pos_hpk.shape[1])


_along_diagonals.defvjp(_along_diagonals_fwd, _along_diagonals_bwd)


def _blocks(x_hbtk: jax.Array, windows: Windows) -> jax.Array:
    """`[H, B, T, K]` -> `[H, N, B, I, K]`, filled up with zeros."""
    H, B, T, K = x_hbtk.shape
    pad = -T % windows.block
    if pad:
        x_hbtk = jnp.pad(x_hbtk, ((0, 0), (0, 0), (0, pad), (0, 0)))
    return x_hbtk.reshape(H, B, -1, windows.block, K).swapaxes(1, 2)


def _skew(y: jax.Array) -> jax.Array:
    """`[..., i, T + i]` -> `[..., i, T]`: row i is shifted left by I - 1 - i."""
    *lead, rows, width = y.shape
    flat = y.reshape(*lead, rows * width)[..., rows - 1 :][..., : rows * (width - 1)]
    return flat.reshape(*lead, rows, width - 1)[..., : width - rows]


def _unskew(g: jax.Array) -> jax.Array:
    """The transpose of `_skew`: one padding and two reshapes; autodiff pads thrice."""
    *lead, rows, length = g.shape
    wide = length + 2 * rows - 1
    g = jnp.pad(g, [(0, 0)] * len(lead) + [(0, 1), (rows - 1, rows)])
    flat = g.reshape(*lead, (rows + 1) * wide)[..., : rows * (wide + 1)]
    return flat.reshape(*lead, rows, wide + 1)[..., : length + rows]


def _window_rows(table_hpk: jax.Array, windows: Windows) -> jax.Array:
    """`[H, P, K]` -> `[H, N, T + I, K]`: one static take, then a slice per block."""
    run_hek = table_hpk[:, windows.slots]
    slices = [
        jax.lax.slice_in_dim(run_hek, start, start + windows.width, axis=1)
        for start in windows.starts
    ]
    return jnp.stack(slices, axis=1)


def _added_up(window_hnkw: jax.Array, windows: Windows, P: int) -> jax.Array:
    """The transpose of `_window_rows`, without a scatter: `[H, P, K]`.

    Overlapping windows are added up. Where neighbours in the run are neighbours in the
    table, the sums are in place already; elsewhere a product with one-hot rows adds up
    those of one slot.
    """
    rest = len(windows.slots) - windows.width
    in_run = [
        jnp.pad(window_hnkw[:, n], ((0, 0), (0, 0), (start, rest - start)))
        for n, start in enumerate(windows.starts)
    ]
    run_hke = functools.reduce(jnp.add, in_run)
    begin, end = windows.straight
    slots = windows.slots
    table_hkp = jnp.zeros((*window_hnkw.shape[:3:2], P), window_hnkw.dtype)
    for first, last in ((0, begin), (end, len(slots))):
        if first < last:
            low, high = slots[first:last].min(), slots[first:last].max() + 1
            onehot_ep = slots[first:last, None] == np.arange(low, high)
            part_hkp = jnp.einsum(
                "hke,ep->hkp",
                run_hke[:, :, first:last],
                jnp.asarray(onehot_ep, run_hke.dtype),
            )
            table_hkp += jnp.pad(part_hkp, ((0, 0), (0, 0), (low, P - high)))
    middle_hkp = run_hke[:, :, begin:end]
    low = min(slots[begin], slots[end - 1])
    if slots[begin] > slots[end - 1]:
        middle_hkp = middle_hkp[:, :, ::-1]
    above = P - low - (end - begin)
    table_hkp += jnp.pad(middle_hkp, ((0, 0), (0, 0), (low, above)))
    return table_hkp.swapaxes(1, 2)
