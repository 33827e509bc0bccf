# SPDX-License-Identifier: Apache-2.0
"""Value heads on one pooled vector: from hidden states to logits per value.

A head's module has `inputs(batch)`, what the encoder should read in place of the batch,
and `__call__(hidden, mask, segment_ids, ...) -> HeadOutput`. Class order is (-1, 0, +1)
everywhere. B batch, T tokens, D width, V values, C classes, S texts in a row.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fulcra_jax import _check
from fulcra_jax.configs import (
    NUM_ITEMS,
    Activation,
    IndependentHead,
    SharedHead,
)
from fulcra_jax.models import attention, pooling
from fulcra_jax.models.activations import ACTIVATIONS
from fulcra_jax.models.links import probs as probs
from fulcra_jax.models.links import score as score


class HeadOutput(NamedTuple):
    """What an evaluator returns.

    Attributes:
      logits: `[B, V, C]` float32, `[B, S, V, C]` of rows that hold several texts.
      item_logits: `[B, 54, 3]` of a head that judges single items, `[B, S, 54, 3]` of
        several texts, else None.
      evidence: `[B, V, T]` weights of a head that says where it looked, summing to one
        over the tokens of the text; `[B, S, V, T]` of several texts; else None.
    """

    logits: jax.Array
    item_logits: jax.Array | None = None
    evidence: jax.Array | None = None


class HeadModule(nn.Module):
    """What the modules of heads have in common.

    Attributes:
      config: the head.
      num_classes: C.
      dtype: compute dtype of hidden layers; the last projection is float32.
      act: activation of hidden layers.
      input_dropout: dropout rate before the first layer.
      init_range: standard deviation of the initial weights.
    """

    config: Any
    num_classes: int = 3
    dtype: Any = jnp.float32
    act: Activation = "gelu"
    input_dropout: float = 0.0
    init_range: float = 0.02

    def inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        """What the encoder should read in place of `batch`: the batch itself."""
        return batch

    def project(self, width: int, name: str, x: jax.Array) -> jax.Array:
        """A linear layer; call it inside of a compact method."""
        dtype = jnp.float32 if name in FINAL else self.dtype
        init = nn.initializers.normal(self.init_range)
        layer = nn.Dense(width, dtype=dtype, kernel_init=init, name=name)
        return layer(x.astype(dtype))

    def matrix(self, name: str, shape: tuple[int, ...]) -> jax.Array:
        """A parameter with the encoder's initial weights."""
        return self.param(name, nn.initializers.normal(self.init_range), shape)

    def zeros(self, name: str, shape: tuple[int, ...]) -> jax.Array:
        """A parameter that begins at zero."""
        return self.param(name, nn.initializers.zeros_init(), shape)

    def activated(self, x: jax.Array) -> jax.Array:
        """The activation of hidden layers."""
        return ACTIVATIONS[self.act](x)

    def drop(self, x: jax.Array, rate: float, deterministic: bool) -> jax.Array:
        """Dropout with the module's key."""
        if deterministic or rate == 0.0:
            return x
        return attention.dropout(x, rate, self.make_rng("dropout"))

    def items(self, x: jax.Array) -> jax.Array | None:
        """`[..., 54, 3]` float32 from `[..., D]`, or None where there are none."""
        if not self.config.items:
            return None
        logits = self.project(NUM_ITEMS * 3, "items", x)
        return logits.reshape(*x.shape[:-1], NUM_ITEMS, 3)

    def hidden_layer(
        self, x: jax.Array, width: int, deterministic: bool, name: str = "dense"
    ) -> jax.Array:
        """Dropout, the layer "dense" where it has a width, its activation, dropout."""
        if width:
            x = self.drop(x, self.input_dropout, deterministic)
            x = self.activated(self.project(width, name, x))
        return self.drop(x, self.config.dropout, deterministic)


FINAL = ("values", "items", "classes", "gate")
"""Layers that are computed in float32."""


def texts(
    caller: str,
    hidden: jax.Array,
    mask: jax.Array,
    segment_ids: jax.Array | None,
    num_segments: int | None,
) -> jax.Array:
    """`[B, S, T]` bool, which tokens a text has, after the shapes are checked.

    Raises:
      ValueError: as `pooling.members`, and if shapes disagree.
    """
    _check.shapes(
        caller,
        hidden=(hidden, "B T D"),
        mask=(mask, "B T"),
        segment_ids=(segment_ids, "B T"),
    )
    return pooling.members(caller, mask, segment_ids, num_segments)


def one_text(output: HeadOutput, segment_ids: jax.Array | None) -> HeadOutput:
    """The output without the axis S where a row is one text."""
    if segment_ids is not None:
        return output
    first = lambda leaf: None if leaf is None else leaf[:, 0]
    return HeadOutput(
        output.logits[:, 0], first(output.item_logits), first(output.evidence)
    )


def pooled_texts(
    hidden: jax.Array, member: jax.Array, pool: str, segment_ids: jax.Array | None
) -> jax.Array:
    """`[B, S, D]`: one vector per text."""
    if segment_ids is None and pool == "first":
        return hidden[:, :1]  # whatever the mask
    return pooling.pooled(hidden, member, pool)


class SharedHeadModule(HeadModule):
    """One projection that reads all values off one pooled vector.

    ```
    dense/{kernel [D, hidden], bias [hidden]}       unless the head is linear
    values/{kernel [hidden or D, V C], bias [V C]}
    items/{kernel [hidden or D, 162], bias [162]}   with items
    ```

    With `pool="first"` it takes the token at position 0, as the original does: pad on
    the right. With `pool="logsumexp"` the projection reads every token, and the logits
    are pooled: a smooth "some token shows it" (Maron and Lozano-Perez 1997).
    """

    config: SharedHead

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
          hidden: `[B, T, D]` float, the encoder's last layer.
          mask: `[B, T]` bool or 0/1, False for padding.
          segment_ids: `[B, T]` int of rows that hold several texts: 1 for the first
            text, S for the last.
          num_segments: S, needed with `segment_ids`.
          definitions: not read.
          deterministic: True turns dropout off.

        Returns:
          Logits `[B, V, C]` float32, or `[B, S, V, C]` with `segment_ids`. Where there
          is no token, "mean" and "max" pool to zero, "logsumexp" to equal logits, and
          so does "first" to zero with segments.

        Raises:
          ValueError: if shapes disagree, or of `segment_ids` and `num_segments` only
            one is given.
        """
        caller = "heads.SharedHeadModule"
        member_bst = texts(caller, hidden, mask, segment_ids, num_segments)
        late = self.config.pool == "logsumexp"
        x = hidden
        if not late:
            x = pooled_texts(hidden, member_bst, self.config.pool, segment_ids)
        x = self.hidden_layer(x, self.config.width(hidden.shape[-1]), deterministic)
        V, C = self.config.num_values, self.num_classes
        logits = self.project(V * C, "values", x)
        items = self.items(x)
        if late:
            logits = pooling.pooled(logits, member_bst, "logsumexp")
            if items is not None:
                flat = items.reshape(*items.shape[:2], -1)
                items = pooling.pooled(flat, member_bst, "logsumexp")
                items = items.reshape(*items.shape[:2], NUM_ITEMS, 3)
        logits = logits.reshape(*logits.shape[:2], V, C)
        return one_text(HeadOutput(logits, items), segment_ids)


class IndependentHeadModule(HeadModule):
    """A hidden layer and a projection for each value, on one pooled vector.

    ```
    hidden_kernel [D, V, hidden], hidden_bias [V, hidden]   unless the head is linear
    kernel [V, hidden or D, C], bias [V, C]
    items/{kernel [D, 162], bias [162]}                     with items
    ```
    """

    config: IndependentHead

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
        """Logits of all values; arguments, result and errors as `SharedHeadModule`."""
        config, D = self.config, hidden.shape[-1]
        V, C, width = config.num_values, self.num_classes, config.width(D)
        caller = "heads.IndependentHeadModule"
        member_bst = texts(caller, hidden, mask, segment_ids, num_segments)
        if config.pool == "logsumexp":
            raise ValueError(f"{caller}: pool is logsumexp; it should be another.")
        x_bsd = pooled_texts(hidden, member_bst, config.pool, segment_ids)
        items = self.items(x_bsd)
        x_bsd = self.drop(x_bsd, self.input_dropout, deterministic)
        x_bsvd = x_bsd[:, :, None]
        if width:
            kernel_dvh = self.matrix("hidden_kernel", (D, V, width))
            bias_vh = self.zeros("hidden_bias", (V, width))
            x_bsvd = jnp.einsum(
                "bsd,dvh->bsvh", x_bsd.astype(self.dtype), kernel_dvh.astype(self.dtype)
            )
            x_bsvd = self.activated(x_bsvd + bias_vh[None, None].astype(self.dtype))
        x_bsvd = self.drop(x_bsvd, config.dropout, deterministic)
        logits = project_by_value(self, x_bsvd, V, C)
        return one_text(HeadOutput(logits, items), segment_ids)


def project_by_value(
    module: HeadModule, x_bsvd: jax.Array, V: int, C: int
) -> jax.Array:
    """`[B, S, V, C]` float32: a projection of its own for each value."""
    kernel_vdc = module.matrix("kernel", (V, x_bsvd.shape[-1], C))
    bias_vc = module.zeros("bias", (V, C))
    x_bsvd = jnp.broadcast_to(x_bsvd, (*x_bsvd.shape[:2], V, x_bsvd.shape[-1]))
    logits = jnp.einsum("bsvd,vdc->bsvc", x_bsvd.astype(jnp.float32), kernel_vdc)
    return logits + bias_vc[None, None]
