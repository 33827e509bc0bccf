# SPDX-License-Identifier: Apache-2.0
"""Heads that change what the encoder reads: value tokens, definitions.

B batch, T tokens, D width, V values, C classes, S texts in a row.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fulcra_jax.configs import PromptedHead, TokenHead
from fulcra_jax.models import head_inputs, pooling
from fulcra_jax.models.heads import (
    HeadModule,
    HeadOutput,
    one_text,
    project_by_value,
    texts,
)


class TokenHeadModule(HeadModule):
    """Classes of a value, read off at its own token before the text.

    ```
    dense/{kernel [D, hidden], bias [hidden]}       unless the head is linear
    kernel [V, hidden or D, C], bias [V, C]
    ```
    """

    config: TokenHead

    def inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with a token for each value before each text."""
        return head_inputs.beside(
            batch,
            self.config.definitions,
            before=True,
            apart=self.config.sees == "text",
        )

    @nn.compact
    def __call__(
        self,
        hidden: jax.Array,
        mask: jax.Array,
        segment_ids: jax.Array | None = None,
        *,
        num_segments: int | None = None,
        definitions: jax.Array | None = None,
        deterministic: bool,
    ) -> HeadOutput:
        """Logits of all values.

        Args:
          hidden: `[B, T, D]` of what `inputs` made.
          mask: its mask.
          segment_ids: its segments.
          num_segments: S, texts in a row; None where a row is one text.
          definitions: not read.
          deterministic: True turns dropout off.

        Returns:
          As `SharedHeadModule`; a text without a token has its bias.

        Raises:
          ValueError: as `SharedHeadModule`.
        """
        config, D = self.config, hidden.shape[-1]
        V, caller = config.num_values, "heads.TokenHeadModule"
        if config.sees == "text":
            x_bsvd = _at_added(caller, hidden, mask, segment_ids, num_segments, V)
        else:
            member_bst = texts(caller, hidden, mask, segment_ids, num_segments)
            rank_bst = jnp.cumsum(member_bst, -1) * member_bst
            wanted = jnp.arange(1, V + 1)[None, None, :, None]
            at_bsvt = (rank_bst[:, :, None] == wanted).astype(hidden.dtype)
            x_bsvd = jnp.einsum(
                "bsvt,btd->bsvd", at_bsvt, hidden, precision=jax.lax.Precision.HIGHEST
            )
        width = D if config.hidden is None else config.hidden
        x_bsvd = self.hidden_layer(x_bsvd, width, deterministic)
        logits = project_by_value(self, x_bsvd, V, self.num_classes)
        return one_text(
            HeadOutput(logits), None if num_segments is None else segment_ids
        )


class PromptedHeadModule(HeadModule):
    """Classes of a value, from the first token of its definition that reads the text.

    ```
    dense/{kernel [D, hidden], bias [hidden]}, classes/{kernel [hidden, C], bias [C]}
    ```
    """

    config: PromptedHead

    def inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        """V rows for each row, or the definitions behind each text."""
        if self.config.packed:
            return head_inputs.beside(
                batch, self.config.definitions, before=False, apart=True
            )
        return head_inputs.prompted(batch, self.config.definitions)

    @nn.compact
    def __call__(
        self,
        hidden: jax.Array,
        mask: jax.Array,
        segment_ids: jax.Array | None = None,
        *,
        num_segments: int | None = None,
        definitions: jax.Array | None = None,
        deterministic: bool,
    ) -> HeadOutput:
        """Logits of all values; arguments, result and errors as `TokenHeadModule`."""
        config, D = self.config, hidden.shape[-1]
        V, caller = config.num_values, "heads.PromptedHeadModule"
        if config.packed:
            x_bsvd = _at_added(caller, hidden, mask, segment_ids, num_segments, V)
        else:
            x_bsvd = hidden[:, 0].reshape(-1, 1, V, D)
        width = D if config.hidden is None else config.hidden
        x_bsvd = self.hidden_layer(x_bsvd, width, deterministic)
        logits = self.project(self.num_classes, "classes", x_bsvd)
        return one_text(
            HeadOutput(logits), None if num_segments is None else segment_ids
        )


def _at_added(
    caller: str,
    hidden: jax.Array,
    mask: jax.Array,
    segment_ids: jax.Array | None,
    num_segments: int | None,
    V: int,
) -> jax.Array:
    """`[B, S, V, D]`: the first token of each text that was put beside another."""
    S = num_segments or 1
    member = texts(caller, hidden, mask, segment_ids, S * (1 + V))
    x = pooling.pooled(hidden, member[:, S:], "first")
    return x.reshape(len(hidden), S, V, -1)
