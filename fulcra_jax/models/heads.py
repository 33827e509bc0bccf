# SPDX-License-Identifier: Apache-2.0
"""Value heads: from hidden states to logits per value, and what the logits mean.

Class order is (-1, 0, +1) everywhere. B batch, T tokens, D width, V values, C classes.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fulcra_jax import _check
from fulcra_jax.configs import Activation, SharedHead
from fulcra_jax.models import attention, pooling
from fulcra_jax.models.activations import ACTIVATIONS
from fulcra_jax.models.links import probs as probs
from fulcra_jax.models.links import score as score


class HeadOutput(NamedTuple):
    """What an evaluator returns.

    Attributes:
      logits: `[B, V, C]` float32.
      item_logits: `[B, 54, C]` of a head that judges single items, else None.
      evidence: `[B, V, T]` weights of a head that says where it looked, else None.
    """

    logits: jax.Array
    item_logits: jax.Array | None = None
    evidence: jax.Array | None = None


class SharedHeadModule(nn.Module):
    """One projection that reads all values off one pooled vector.

    ```
    dense/{kernel [D, hidden], bias [hidden]}       unless the head is linear
    values/{kernel [hidden or D, V C], bias [V C]}
    ```

    With `pool="first"` it takes the token at position 0, as the original does: pad on
    the right. With `pool="logsumexp"` the projection reads every token, and the logits
    are pooled: a smooth "some token shows it" (Maron and Lozano-Perez 1997).

    Attributes:
      config: the head.
      num_classes: C.
      dtype: compute dtype of the hidden layer; the projection is float32.
      act: activation of the hidden layer.
      input_dropout: dropout rate before the hidden layer.
      init_range: standard deviation of the initial weights.
    """

    config: SharedHead
    num_classes: int = 3
    dtype: Any = jnp.float32
    act: Activation = "gelu"
    input_dropout: float = 0.0
    init_range: float = 0.02

    def inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        """What the encoder should read in place of `batch`: the batch itself."""
        return batch

    @nn.compact
    def __call__(
        self,
        hidden: jax.Array,
        mask: jax.Array,
        segment_ids: jax.Array | None = None,
        *,
        num_segments: int | None = None,
        deterministic: bool,
    ) -> jax.Array:
        """Logits of all values.

        Args:
          hidden: `[B, T, D]` float, the encoder's last layer.
          mask: `[B, T]` bool or 0/1, False for padding.
          segment_ids: `[B, T]` int of rows that hold several texts: 1 for the first
            text, S for the last.
          num_segments: S, needed with `segment_ids`.
          deterministic: True turns dropout off.

        Returns:
          `[B, V, C]` float32, or `[B, S, V, C]` with `segment_ids`. Where there is no
          token, "mean" and "max" pool to zero, "logsumexp" to equal logits, and so does
          "first" to zero with segments.

        Raises:
          ValueError: if shapes disagree, or of `segment_ids` and `num_segments` only
            one is given.
        """
        size = _check.shapes(
            "heads.SharedHeadModule",
            hidden=(hidden, "B T D"),
            mask=(mask, "B T"),
            segment_ids=(segment_ids, "B T"),
        )
        member_bst = pooling.members(
            "heads.SharedHeadModule", mask, segment_ids, num_segments
        )
        init = nn.initializers.normal(self.init_range)
        late = self.config.pool == "logsumexp"
        x = hidden
        if not late:
            x = pooling.pooled(hidden, member_bst, self.config.pool)
            if segment_ids is None and self.config.pool == "first":
                x = hidden[:, :1]  # whatever the mask
        width = self.config.width(size["D"])
        if width:
            x = self._dropout(x, self.input_dropout, deterministic)
            x = nn.Dense(width, dtype=self.dtype, kernel_init=init, name="dense")(x)
            x = ACTIVATIONS[self.act](x)
        x = self._dropout(x, self.config.dropout, deterministic)
        V, C = self.config.num_values, self.num_classes
        out = nn.Dense(V * C, dtype=jnp.float32, kernel_init=init, name="values")
        logits = out(x.astype(jnp.float32))
        if late:
            logits = pooling.pooled(logits, member_bst, "logsumexp")
        logits = logits.reshape(*logits.shape[:2], V, C)
        return logits[:, 0] if segment_ids is None else logits

    def _dropout(self, x: jax.Array, rate: float, deterministic: bool) -> jax.Array:
        if deterministic or rate == 0.0:
            return x
        return attention.dropout(x, rate, self.make_rng("dropout"))
