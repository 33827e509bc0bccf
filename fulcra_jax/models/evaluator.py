# SPDX-License-Identifier: Apache-2.0
"""The value evaluator: an encoder and a head."""

from collections.abc import Mapping
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax.configs import EvaluatorConfig
from fulcra_jax.models import attention, inputs, pooling
from fulcra_jax.models.deberta import Deberta, PositionTables, Remat
from fulcra_jax.models.head_modules import check_head, module_of
from fulcra_jax.models.heads import HeadOutput


class Evaluator(nn.Module):
    """Token ids to logits of all values.

    ```
    encoder/  the tree of `Deberta`
    head/     the tree of the head's module, for instance `SharedHeadModule`
    ```

    Attributes:
      config: encoder, head and link.
      dtype: compute dtype of the encoder; parameters and logits stay float32.
      form: how the position terms are computed, see `attention.disentangled_attention`.
      remat: what is computed again in the backward pass, see `Deberta`.
    """

    config: EvaluatorConfig
    dtype: Any = jnp.float32
    form: attention.Form = "skew"
    remat: Remat = "none"

    def setup(self):
        """Makes the encoder and the head."""
        inputs.check_config("evaluator.Evaluator", self.config, EvaluatorConfig)
        encoder = self.config.encoder
        self.encoder = Deberta(encoder, self.dtype, self.form, self.remat)
        check_head(self.config.head)
        self.head = module_of(self.config.head)(
            self.config.head,
            self.config.num_classes,
            self.dtype,
            act=encoder.pooler_hidden_act,
            input_dropout=encoder.pooler_dropout,
            init_range=encoder.initializer_range,
        )

    def __call__(
        self,
        input_ids: jax.Array,
        mask: jax.Array,
        segment_ids: jax.Array | None = None,
        *,
        num_segments: int | None = None,
        token_type_ids: jax.Array | None = None,
        tables: PositionTables | None = None,
        deterministic: bool,
    ) -> HeadOutput:
        """Logits of all values.

        Args:
          input_ids: `[B, T]` int in [0, W).
          mask: `[B, T]` bool or 0/1, True for a token, False for padding.
          segment_ids: `[B, T]` int of rows that hold several texts, 1 for the first
            text of a row (`data.packing`); they do not see each other.
          num_segments: S, the most texts in a row; needed with `segment_ids`.
          token_type_ids: `[B, T]` int; None means zeros. Only by keyword.
          tables: `position_tables` of the encoder's parameters, for inference.
          deterministic: True turns dropout off; else pass `rngs={"dropout": key}`.

        Returns:
          A `HeadOutput`; its logits are `[B, V, C]` float32, or `[B, S, V, C]` with
          `segment_ids`, read by `heads.probs` and `heads.score` with `config.link`.

        Raises:
          ValueError: as `Deberta`; if the configuration is not an evaluator's; outside
            of `jit`, also if a token is in no text of 1 to S.
        """
        batch = self.head.inputs(
            {
                "input_ids": input_ids,
                "mask": mask,
                "segment_ids": segment_ids,
                "token_type_ids": token_type_ids,
                "num_segments": num_segments,
                "reads": None,
            }
        )
        hidden = self.encoder(
            batch["input_ids"],
            batch["mask"],
            batch["segment_ids"],
            token_type_ids=batch["token_type_ids"],
            reads=batch["reads"],
            tables=tables,
            deterministic=deterministic,
        )
        definitions = None
        if self.config.head.encodes_definitions:
            definitions = self._definitions(tables, deterministic)
        return self.head(
            hidden,
            batch["mask"],
            batch["segment_ids"],
            num_segments=num_segments,
            definitions=definitions,
            deterministic=deterministic,
        )

    def _definitions(
        self, tables: PositionTables | None, deterministic: bool
    ) -> jax.Array:
        """`[V, D]`: the mean over the tokens of each value's definition."""
        rows = cast(Any, self.config.head).definitions
        length = max(map(len, rows))
        ids = np.array([[*row, *[0] * (length - len(row))] for row in rows], np.int32)
        mask = np.arange(length) < np.array([len(row) for row in rows])[:, None]
        hidden = self.encoder(
            jnp.asarray(ids),
            jnp.asarray(mask),
            token_type_ids=jnp.zeros_like(ids),
            tables=tables,
            deterministic=deterministic,
        )
        return pooling.pooled(hidden, jnp.asarray(mask)[:, None], "mean")[:, 0]


def apply_evaluator(
    evaluator: Evaluator,
    params: Any,
    batch: Mapping[str, Any],
    *,
    key: jax.Array | None = None,
    tables: PositionTables | None = None,
) -> HeadOutput:
    """The evaluator's output for a batch of `fulcra_jax.data`.

    Args:
      evaluator: the module.
      params: its parameter tree.
      batch: has `input_ids`, `mask` and `token_type_ids`, each `[B, T]`, as `batches`
        makes it; with `segment_ids` `[B, T]` and `first` `[B, S]` too, as `packing`.
      key: a PRNG key turns dropout on; None turns it off.
      tables: `position_tables` of the encoder's parameters, for inference.

    Returns:
      A `HeadOutput` with logits `[B, V, C]` float32, `[B, S, V, C]` of a packed batch.

    Raises:
      ValueError: if the batch lacks an array.
    """
    packed = "segment_ids" in batch
    needed = ["input_ids", "mask", "token_type_ids", *(["first"] if packed else [])]
    for name in needed:
        if name not in batch:
            raise ValueError(
                f"evaluator.apply_evaluator: the batch has {', '.join(batch)}, but no "
                f"{name}."
            )
    output = evaluator.apply(
        {"params": params},
        batch["input_ids"],
        batch["mask"],
        batch["segment_ids"] if packed else None,
        num_segments=batch["first"].shape[1] if packed else None,
        token_type_ids=batch["token_type_ids"],
        tables=tables,
        deterministic=key is None,
        rngs=None if key is None else {"dropout": key},
    )
    # Linen types the result of `apply` as the module's output or (output, variables).
    return cast(HeadOutput, output)
