# SPDX-License-Identifier: Apache-2.0
"""Heads that know a value by a vector: learned, or its encoded definition.

B batch, T tokens, D width, V values, C classes, S texts in a row, H heads, K width per
head.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from fulcra_jax.configs import ConditionedHead, QueryHead
from fulcra_jax.models import pooling
from fulcra_jax.models.heads import (
    HeadModule,
    HeadOutput,
    one_text,
    pooled_texts,
    project_by_value,
    texts,
)


class ByDefinitionModule(HeadModule):
    """What heads with value vectors have in common."""

    def vectors(self, definitions: jax.Array | None, width: int) -> jax.Array:
        """`[V, D]`: a table that is learned, or the encoded definitions."""
        if self.config.values == "definition":
            if definitions is None:
                raise ValueError(
                    f"heads.{type(self).__name__}: definitions are missing; the head "
                    "makes its value vectors of them."
                )
            return definitions
        init = nn.initializers.normal(self.init_range)
        table = nn.Embed(
            self.config.num_values, width, embedding_init=init, name="vectors"
        )
        return table.embedding


class ConditionedHeadModule(ByDefinitionModule):
    """A shared head that a value vector scales and shifts (FiLM, Perez et al. 2018).

    ```
    vectors/embedding [V, D]                        unless values are definitions
    scale/, shift/{kernel [D, D], bias [D]}
    dense/{kernel [D, hidden], bias [hidden]}, classes/{kernel [hidden, C], bias [C]}
    items/{kernel [D, 162], bias [162]}             with items
    ```
    """

    config: ConditionedHead

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
          hidden: as `SharedHeadModule`.
          mask: as `SharedHeadModule`.
          segment_ids: as `SharedHeadModule`.
          num_segments: as `SharedHeadModule`.
          definitions: `[V, D]`, one vector for each value's definition.
          deterministic: True turns dropout off.

        Returns:
          As `SharedHeadModule`.

        Raises:
          ValueError: as `SharedHeadModule`, and if definitions are missing.
        """
        config, D = self.config, hidden.shape[-1]
        caller = "heads.ConditionedHeadModule"
        member_bst = texts(caller, hidden, mask, segment_ids, num_segments)
        x_bsd = pooled_texts(hidden, member_bst, config.pool, segment_ids)
        items = self.items(x_bsd)
        x_bsd = self.drop(x_bsd, self.input_dropout, deterministic)
        vector_vd = self.vectors(definitions, D)
        scale_vd = self.project(D, "scale", vector_vd)[None, None]
        shift_vd = self.project(D, "shift", vector_vd)[None, None]
        x_bsvd = x_bsd[:, :, None].astype(self.dtype) * (1.0 + scale_vd) + shift_vd
        width = D if config.hidden is None else config.hidden
        x_bsvd = self.activated(self.project(width, "dense", x_bsvd))
        x_bsvd = self.drop(x_bsvd, config.dropout, deterministic)
        logits = self.project(self.num_classes, "classes", x_bsvd)
        return one_text(HeadOutput(logits, items), segment_ids)


class QueryHeadModule(ByDefinitionModule):
    """Cross-attention from value vectors to the tokens, one query for each value.

    ```
    vectors/embedding [V, D]                        unless values are definitions
    query/, key/, value/, dense/{kernel [D, D], bias [D]}
    kernel [V, D, C], bias [V, C]                   of learned values
    mixed/{kernel [2 D, D], bias [D]}, classes/{kernel [D, C], bias [C]}   else
    items/{kernel [D, 162], bias [162]}             with items
    ```

    Evidence is the mean over the heads of the attention (Lee et al. 2019, arXiv
    1810.00825, pooling by attention).
    """

    config: QueryHead

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
        """Logits of all values; arguments and errors as `ConditionedHeadModule`.

        Returns:
          Logits, items and evidence as `HeadOutput` says. The evidence of a text
          without a token is zero.

        Raises:
          ValueError: if the heads do not divide D, too.
        """
        config, (B, T, D) = self.config, hidden.shape
        V, H = config.num_values, config.heads
        caller = "heads.QueryHeadModule"
        member_bst = texts(caller, hidden, mask, segment_ids, num_segments)
        if D % H:
            raise ValueError(
                f"{caller}: heads is {H}; it should divide the encoder's width {D}."
            )
        items = self.items(pooling.pooled(hidden, member_bst, "mean"))
        hidden = self.drop(hidden, self.input_dropout, deterministic)
        vector_vd = self.vectors(definitions, D)
        q_vhk = self.project(D, "query", vector_vd).reshape(V, H, D // H)
        k_bthk = self.project(D, "key", hidden).reshape(B, T, H, D // H)
        v_bthk = self.project(D, "value", hidden).reshape(B, T, H, D // H)
        ask_bhvt = jnp.einsum("vhk,bthk->bhvt", q_vhk, k_bthk) * (D // H) ** -0.5
        weight_bhsvt = _softmax_over(
            ask_bhvt.astype(jnp.float32)[:, :, None], member_bst[:, None, :, None]
        )
        seen = jnp.einsum(
            "bhsvt,bthk->bsvhk", weight_bhsvt.astype(self.dtype), v_bthk
        ).reshape(B, -1, V, D)
        x_bsvd = self.activated(self.project(D, "dense", seen))
        if config.values == "definition":
            told = vector_vd.astype(self.dtype)[None, None]
            both = jnp.concatenate([x_bsvd, x_bsvd * told], -1)
            x_bsvd = self.activated(self.project(D, "mixed", both))
        x_bsvd = self.drop(x_bsvd, config.dropout, deterministic)
        if config.values == "definition":
            logits = self.project(self.num_classes, "classes", x_bsvd)
        else:
            logits = project_by_value(self, x_bsvd, V, self.num_classes)
        evidence_bsvt = weight_bhsvt.mean(1)
        return one_text(HeadOutput(logits, items, evidence_bsvt), segment_ids)


def _softmax_over(x: jax.Array, where: jax.Array) -> jax.Array:
    """Softmax over the last axis of what counts; zero where nothing does."""
    x, where = jnp.broadcast_arrays(x, where)
    x = jnp.where(where, x, jnp.finfo(x.dtype).min)
    most = jax.lax.stop_gradient(x.max(-1, keepdims=True))
    power = jnp.where(where, jnp.exp(x - most), 0.0)
    return power / jnp.maximum(power.sum(-1, keepdims=True), 1e-30)
