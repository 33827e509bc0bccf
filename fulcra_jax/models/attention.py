# SPDX-License-Identifier: Apache-2.0
"""Disentangled attention (He et al. 2021, equation 4) as pure functions.

The score of query i and key j adds three products: content with content, content with
the position of the key, and position of the query with content. How the position terms
are read without a gather stands in `position_bias`; which row of the position table a
distance reads, in `positions`.

Heads lead: `[H, B, T, K]`. Suffixes are einsum subscripts: b batch, t query, s key,
h head, k head width.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import _check
from fulcra_jax.models import accelerators, chunked, draws, fused, position_bias
from fulcra_jax.models.position_bias import gather_bias as gather_bias
from fulcra_jax.models.position_bias import skew_bias as skew_bias
from fulcra_jax.models.positions import relative_slots as relative_slots
from fulcra_jax.models.positions import slot_of_distance as slot_of_distance

Form = Literal["skew", "gather", "cudnn", "pallas", "fused"]
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
    reads: jax.Array | None = None,
    form: Form = "skew",
    pad_rows: PadRows = "uniform",
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
    head_chunk: int | None = None,
    block: int | None = None,
    keep: bool | None = None,
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
      reads: `[B, T]` int: a segment that a token sees besides its own, one-way; None is
        none. Forms "skew" and "gather" only.
      form: "skew"; "gather" for the reference; on a GPU "cudnn", on a TPU "pallas",
        which hand the position terms to a kernel as a bias (`accelerators`); on a TPU
        "fused", whose kernel computes them (`fused`), with the gradient of "skew".
      pad_rows: what padding attends to: "uniform" (every token, padding included, as in
        DeBERTa), or "keys" (the tokens, as in BERT).
      dropout_rate: share of attention probabilities dropped, in [0, 1), to the nearest
        of 65,536 steps.
      dropout_key: PRNG key; None drops nothing, and the forms with a kernel cannot. A
        head draws from a key of its own: the draws do not depend on `head_chunk`.
      head_chunk: heads computed at a time, a divisor of H; None picks: few on a CPU,
        where their scores then stay in the cache, all elsewhere. Values do not depend
        on it.
      block: rows per block of the skew form; None picks by length.
      keep: whether the backward pass is given the powers of e, `[H, B, T, T]`, or
        computes them again; None picks: given on a CPU where they are small.

    Returns:
      `[H, B, T, K]` in the dtype of `v`.

    Raises:
      ValueError: if shapes disagree or are empty, a slot is outside the tables, a rate
        is outside [0, 1), a chunk does not divide the heads, or a kernel is asked for
        dropout; outside of `jit`, also if the mask is not 0 or 1.
      KeyError: if the form is unknown.
      RuntimeError: outside of `jit`, if there is no device for the form's kernel; under
        `jit` jax says so in its own words.

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
        reads=(reads, "B T"),
    )
    forms, pads = get_args(Form), get_args(PadRows)
    _check.known("attention.disentangled_attention", "form", form, forms)
    _check.known("attention.disentangled_attention", "pad_rows", pad_rows, pads)
    if not all(size.values()):
        raise ValueError(
            f"attention.disentangled_attention: q has shape {tuple(q.shape)}; no axis "
            "should be empty."
        )
    _check_rate("disentangled_attention", dropout_rate)
    if slot_of_distance is None:
        if pos_q is not None or pos_k is not None:
            raise ValueError(
                "attention.disentangled_attention: slot_of_distance is None, but there "
                "are position tables; it says which of their rows a distance reads."
            )
    else:
        position_bias.check(
            "disentangled_attention", q, k, pos_q, pos_k, slot_of_distance
        )
    _check.flags("attention.disentangled_attention", "mask", mask)
    _check.segments("attention.disentangled_attention", segment_ids)
    mask = jnp.asarray(mask, bool)
    keys = None
    if dropout_key is not None and dropout_rate > 0.0:
        keys = jax.random.split(dropout_key, size["H"])
    if form not in ("skew", "gather") and keys is not None:
        raise ValueError(
            f"attention.disentangled_attention: form {form!r} knows no dropout, "
            f"but dropout_rate is {dropout_rate}; use form 'skew' or rate 0."
        )
    if reads is not None and (segment_ids is None or form not in ("skew", "gather")):
        raise ValueError(
            f"attention.disentangled_attention: reads are given with form {form!r} and "
            f"segment_ids {'missing' if segment_ids is None else 'given'}; they need "
            "segment_ids, and form 'skew' or 'gather'."
        )
    if form in ("cudnn", "pallas"):
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
    if keep is None:
        keep = chunked.keeps(size["H"], size["B"], size["T"])
    within = "skew" if form == "fused" else form
    plan = chunked.Plan(within, scale, slot_of_distance, block, dropout_rate, keep)
    heads = chunked.Heads(q, k, v, pos_q, pos_k, keys)
    dtype = jnp.promote_types(q.dtype, jnp.float32)
    padding_asks = pad_rows == "keys"
    who = chunked.who(mask, segment_ids, dtype, padding_asks=padding_asks, reads=reads)
    if form == "gather":
        return plan.forward(heads, who)[0]
    if form == "fused":
        return fused.attend(plan, heads, who)
    chunk = head_chunk
    if chunk is None:
        chunk = chunked.chunk_of(size["H"], size["B"], size["T"])
    _check.whole("attention.disentangled_attention", "head_chunk", chunk)
    if size["H"] % chunk:
        raise ValueError(
            f"attention.disentangled_attention: head_chunk is {chunk}; it should be a "
            f"divisor of H={size['H']}."
        )
    return chunked.attend(plan, chunk, heads, who)


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """x with a share of entries set to zero and the others scaled up to keep the mean.

    Args:
      x: `[...]` float.
      rate: share dropped, in [0, 1), rounded to a multiple of 2^-16.
      key: PRNG key; None drops nothing.

    Returns:
      The shape and dtype of `x`.

    Raises:
      ValueError: if the rate is outside [0, 1).

    Reference:
      Srivastava et al. 2014, "Dropout".

    >>> dropout(jnp.ones(3), 0.5, None).tolist()
    [1.0, 1.0, 1.0]
    """
    _check_rate("dropout", rate)
    if key is None or rate == 0.0:
        return x
    return draws.survivors(key, rate, x)


def _check_rate(caller: str, rate: float) -> None:
    # Rates are rounded to steps; the last of them would drop everything.
    if not 0.0 <= rate <= 1.0 - 1.0 / draws.STEPS:
        raise ValueError(
            f"attention.{caller}: the rate is {rate}; it should be in [0, 1 - 2^-16]."
        )


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
