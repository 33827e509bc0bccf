# SPDX-License-Identifier: Apache-2.0
"""The value evaluator: an encoder and a head."""

from collections.abc import Mapping
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from fulcra_jax.configs import EvaluatorConfig
from fulcra_jax.models.deberta import Deberta
from fulcra_jax.models.heads import HeadOutput, SharedHeadModule


class Evaluator(nn.Module):
    """Token ids to logits of all values.

    ```
    encoder/  the tree of `Deberta`
    head/     the tree of the head's module, for instance `SharedHeadModule`
    ```

    Attributes:
      config: encoder, head and link.
      dtype: compute dtype of the encoder; parameters and logits stay float32.
    """

    config: EvaluatorConfig
    dtype: Any = jnp.float32

    def setup(self):
        """Makes the encoder and the head."""
        encoder = self.config.encoder
        self.encoder = Deberta(encoder, self.dtype)
        self.head = SharedHeadModule(
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
        *,
        token_type_ids: jax.Array | None = None,
        deterministic: bool,
    ) -> HeadOutput:
        """Logits of all values.

        Args:
          input_ids: `[B, T]` int in [0, W).
          mask: `[B, T]` bool or 0/1, True for a token, False for padding.
          token_type_ids: `[B, T]` int; None means zeros.
          deterministic: True turns dropout off; else pass `rngs={"dropout": key}`.

        Returns:
          A `HeadOutput`; its logits are `[B, V, C]` float32, read by `heads.probs` and
          `heads.score` with `config.link`.

        Raises:
          ValueError: if shapes disagree.
        """
        batch = self.head.inputs(
            {"input_ids": input_ids, "mask": mask, "token_type_ids": token_type_ids}
        )
        hidden = self.encoder(
            batch["input_ids"],
            batch["mask"],
            token_type_ids=batch["token_type_ids"],
            deterministic=deterministic,
        )
        logits = self.head(hidden, batch["mask"], deterministic=deterministic)
        return HeadOutput(logits)


def apply_evaluator(
    evaluator: Evaluator,
    params: Any,
    batch: Mapping[str, Any],
    *,
    key: jax.Array | None = None,
) -> HeadOutput:
    """The evaluator's output for a batch of `fulcra_jax.data.batches`.

    Args:
      evaluator: the module.
      params: its parameter tree.
      batch: has `input_ids`, `mask` and `token_type_ids`, each `[B, T]`.
      key: a PRNG key turns dropout on; None turns it off.

    Returns:
      A `HeadOutput` with logits `[B, V, C]` float32.
    """
    output = evaluator.apply(
        {"params": params},
        batch["input_ids"],
        batch["mask"],
        token_type_ids=batch["token_type_ids"],
        deterministic=key is None,
        rngs=None if key is None else {"dropout": key},
    )
    # Linen types the result of `apply` as the module's output or (output, variables).
    return cast(HeadOutput, output)
