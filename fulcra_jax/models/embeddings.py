# SPDX-License-Identifier: Apache-2.0
"""Token ids, token types and absolute positions as vectors."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from fulcra_jax.configs import DebertaConfig
from fulcra_jax.models import _parts


class Embeddings(nn.Module):
    """Word, position and token-type embeddings, normalised; zero at padding in DeBERTa.

    BERT leaves what stands at padding as it is.
    """

    config: DebertaConfig
    dtype: Any

    @nn.compact
    def __call__(
        self,
        input_ids: jax.Array,
        mask: jax.Array,
        segment_ids: jax.Array | None,
        token_type_ids: jax.Array | None,
        deterministic: bool,
    ) -> jax.Array:
        """`[B, T]` ids to `[B, T, D]`."""
        config = self.config
        # A negative id would count from the end of the table.
        known_ids = jnp.where(input_ids < 0, config.vocab_size, input_ids)
        x = self._table("word", config.vocab_size)(known_ids)
        if config.position_biased_input:
            table = self._table("position", config.max_position_embeddings).embedding
            x += positions(jnp.asarray(table, self.dtype), mask, segment_ids)
        if config.type_vocab_size:
            table = self._table("token_type", config.type_vocab_size).embedding
            if token_type_ids is None:
                token_type_ids = jnp.zeros_like(input_ids)
            x += _rows(jnp.asarray(table, self.dtype), token_type_ids)
        if config.embedding_width != config.hidden_size:
            x = _parts.dense(config, config.hidden_size, self.dtype, "project", False)(
                x
            )
        x = _parts.norm(config, self.dtype, "norm")(x)
        if config.model_type != "bert":
            x = jnp.where(mask[..., None], x, jnp.zeros((), x.dtype))
        return _parts.dropout(self, x, config.hidden_dropout_prob, deterministic)

    def _table(self, name: str, rows: int) -> nn.Embed:
        width = self.config.embedding_width
        return _parts.table(self.config, rows, width, self.dtype, name)


def positions(
    table: jax.Array, mask: jax.Array, segment_ids: jax.Array | None = None
) -> jax.Array:
    """The absolute position embedding of every token, padding on the left counted.

    Args:
      table: `[P, E]` float, one row per position.
      mask: `[B, T]` bool, False for padding.
      segment_ids: `[B, T]` int; None is one text per row. Else the position starts anew
        wherever the segment changes.

    Returns:
      `[1, T, E]`, or `[B, T, E]` with segments: rows of the table, NaN at a token whose
      position in its segment is P or more.

    Raises:
      ValueError: if a text is longer than the table. Of segments this is seen outside
        of `jit` only.

    Reference:
      Devlin et al. 2019 (arXiv 1810.04805), section 3; positions of packed texts as in
      Krell et al. 2021 (arXiv 2107.02027), section 3.2.

    >>> table = jnp.array([[0.0], [1.0], [2.0]])
    >>> segments = jnp.array([[7, 7, 7, 2, 2]])
    >>> positions(table, segments > 0, segments).ravel().tolist()
    [0.0, 1.0, 2.0, 0.0, 1.0]
    """
    P, T = table.shape[0], mask.shape[1]
    if segment_ids is None:
        _fits(T, P, "T")
        return table[None, :T]
    position = jnp.arange(T)
    changes = segment_ids[:, 1:] != segment_ids[:, :-1]
    starts = jnp.where(changes, position[None, 1:], 0)
    start = jax.lax.cummax(jnp.pad(starts, ((0, 0), (1, 0))), axis=1)
    offset = position[None] - start
    if T > P and not isinstance(offset, Tracer):
        _fits(int(np.asarray(jnp.where(mask, offset, 0)).max()) + 1, P, "a segment of")
    # Padding may run on beyond the table.
    return _rows(table[:T], jnp.where(mask, offset, 0))


def _fits(length: int, count: int, what: str) -> None:
    if length > count:
        what = f"{what}={length}" if what == "T" else f"{what} {length} tokens"
        raise ValueError(
            f"deberta.Deberta: input_ids has {what}, but there are {count} absolute "
            "positions."
        )


def _rows(table: jax.Array, ids: jax.Array) -> jax.Array:
    """Rows of a small table by a one-hot product; NaN for an id outside."""
    onehot = jax.nn.one_hot(ids, len(table), dtype=table.dtype)
    # Anything but the highest precision would round the rows on an accelerator.
    rows = jnp.matmul(onehot, table, precision=jax.lax.Precision.HIGHEST)
    outside = (ids < 0) | (ids >= len(table))
    return jnp.where(outside[..., None], jnp.asarray(jnp.nan, rows.dtype), rows)
