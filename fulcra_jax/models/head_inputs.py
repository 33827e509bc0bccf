# SPDX-License-Identifier: Apache-2.0
"""What the encoder reads for heads that put something beside the text.

A batch is a dictionary of `input_ids`, `mask`, `segment_ids` (None where a row is one
text), `token_type_ids` (or None), `reads` and `num_segments`, the number S of texts in
a row. B rows, T tokens, V values.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Batch = dict[str, Any]


def beside(
    batch: Batch, added: Sequence[Sequence[int]], *, before: bool, apart: bool
) -> Batch:
    """The batch with the same V short texts beside each of its texts.

    Args:
      batch: see above; tokens come before padding where a row holds several texts.
      added: V sequences of token ids, M tokens in all.
      before: whether they stand before the text, or behind it.
      apart: whether each is a segment of its own that reads the text, while the text
        does not read it; else they and the text are one segment.

    Returns:
      The batch with T + S M tokens a row. Added text v of text s is segment
      S + (s - 1) V + v (v from 1) where they are apart. Token types of what is added
      are 0. Nothing is added to a text that has no token.

    >>> ids = jnp.array([[5, 6]])
    >>> batch = {"input_ids": ids, "mask": ids > 0, "segment_ids": None}
    >>> batch |= dict.fromkeys(["num_segments", "token_type_ids", "reads"])
    >>> new = beside(batch, [[7], [8, 9]], before=False, apart=True)
    >>> for name in ("input_ids", "segment_ids", "reads"):
    ...     print(name, new[name].tolist())
    input_ids [[5, 6, 7, 8, 9]]
    segment_ids [[1, 1, 2, 3, 3]]
    reads [[1, 1, 1, 1, 1]]
    """
    ids_bt, mask_bt = batch["input_ids"], jnp.asarray(batch["mask"], bool)
    (B, T), V = ids_bt.shape, len(added)
    flat = np.concatenate([np.asarray(ids, np.int32) for ids in added])
    number = np.repeat(np.arange(1, V + 1), [len(ids) for ids in added])
    M, whole = len(flat), batch["segment_ids"] is None
    S = 1 if whole else int(batch["num_segments"])
    own_bt = (
        jnp.ones((B, T), jnp.int32)
        if whole
        else jnp.asarray(batch["segment_ids"], jnp.int32)
    )
    count_bs = jnp.stack(
        [((own_bt == s) & mask_bt).sum(1) for s in range(1, S + 1)], 1
    ).astype(jnp.int32)
    ends_bs = jnp.cumsum(count_bs, 1)
    place_bt = jnp.arange(T, dtype=jnp.int32)[None]
    if whole:
        ends_bs = jnp.max(jnp.where(mask_bt, place_bt + 1, 0), 1, keepdims=True)
    shift = own_bt if before else own_bt - 1
    # Padding goes behind everything.
    behind = place_bt >= ends_bs[:, -1:]
    at_bt = place_bt + M * jnp.where(behind, S, shift)
    starts_bs = jnp.zeros_like(ends_bs) if whole else ends_bs - count_bs
    where_bs = starts_bs if before else ends_bs
    base_bs = where_bs + M * jnp.arange(S, dtype=jnp.int32)[None]
    at_bsm = base_bs[..., None] + jnp.arange(M, dtype=jnp.int32)[None, None]
    row = jnp.arange(B)[:, None]

    def placed(old_bt: jax.Array, new_bsm: jax.Array) -> jax.Array:
        empty = jnp.zeros((B, T + S * M), old_bt.dtype)
        with_text = empty.at[row, at_bt].set(old_bt)
        new = jnp.broadcast_to(new_bsm, (B, S, M)).astype(old_bt.dtype)
        return with_text.at[row[..., None], at_bsm].set(new)

    texts_s = jnp.arange(1, S + 1, dtype=jnp.int32)[None, :, None]
    new_ids = jnp.asarray(flat)[None, None]
    out = batch | {
        "input_ids": placed(ids_bt, new_ids),
        "mask": placed(mask_bt, (count_bs > 0)[..., None]),
    }
    if batch["token_type_ids"] is not None:
        out["token_type_ids"] = placed(
            batch["token_type_ids"], jnp.zeros((1, 1, 1), jnp.int32)
        )
    if apart:
        own = S + (texts_s - 1) * V + jnp.asarray(number, jnp.int32)[None, None]
        out["segment_ids"] = placed(own_bt, own)
        out["reads"] = placed(own_bt, texts_s)
        out["num_segments"] = S
    elif not whole:
        out["segment_ids"] = placed(own_bt, texts_s)
    return out


def prompted(batch: Batch, definitions: Sequence[Sequence[int]]) -> Batch:
    """The batch with V rows for each of its rows: a definition, then the text.

    The definition, with its own [CLS] and [SEP], takes the place of the text's [CLS].

    Args:
      batch: see above, each row one text with [CLS] first.
      definitions: V sequences of token ids.

    Returns:
      The batch with B V rows, those of one text one after the other, and T + m - 1
      tokens, m those of the longest definition; shorter ones leave padding at the end.

    Raises:
      ValueError: if rows hold several texts.

    >>> ids = jnp.array([[1, 5, 2]])
    >>> batch = {"input_ids": ids, "mask": ids > 0, "segment_ids": None}
    >>> batch |= dict.fromkeys(["num_segments", "token_type_ids", "reads"])
    >>> prompted(batch, [[1, 7, 2], [1, 2]])["input_ids"].tolist()
    [[1, 7, 2, 5, 2], [1, 2, 5, 2, 0]]
    """
    if batch["segment_ids"] is not None:
        raise ValueError(
            "heads.PromptedHeadModule: rows hold several texts; the head that reads "
            "each text once for every value needs one text a row: set text.packed to "
            "False, or packed=True of the head."
        )
    B, most = len(batch["input_ids"]), max(map(len, definitions))

    def spread(array_bt: jax.Array, rows: Sequence[Any]) -> jax.Array:
        each = []
        for new, ids in zip(rows, definitions, strict=True):
            start = jnp.asarray(new, array_bt.dtype)
            start = jnp.broadcast_to(start[None], (B, len(ids)))
            end = jnp.zeros((B, most - len(ids)), array_bt.dtype)
            each.append(jnp.concatenate([start, array_bt[:, 1:], end], 1))
        return jnp.stack(each, 1).reshape(B * len(each), -1)

    lengths = [len(ids) for ids in definitions]
    out = batch | {
        "input_ids": spread(batch["input_ids"], definitions),
        "mask": spread(
            jnp.asarray(batch["mask"], bool), [np.ones(n, bool) for n in lengths]
        ),
    }
    if batch["token_type_ids"] is not None:
        out["token_type_ids"] = spread(
            batch["token_type_ids"], [np.zeros(n, np.int32) for n in lengths]
        )
    return out
