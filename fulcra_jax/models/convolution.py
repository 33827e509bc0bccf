# SPDX-License-Identifier: Apache-2.0
"""The convolution beside the first layer of DeBERTa v2, which stops at text borders."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fulcra_jax.configs import DebertaConfig
from fulcra_jax.models._parts import dropout as _dropout
from fulcra_jax.models._parts import norm as _norm
from fulcra_jax.models.activations import ACTIVATIONS


class Conv(nn.Module):
    """A convolution over the embeddings, added to the first layer (v2 only)."""

    config: DebertaConfig
    dtype: Any

    @nn.compact
    def __call__(
        self,
        embedded: jax.Array,
        x: jax.Array,
        mask: jax.Array,
        segment_ids: jax.Array | None,
        deterministic: bool,
    ) -> jax.Array:
        """`[B, T, D]` embeddings and first layer's output to `[B, T, D]`."""
        config = self.config
        B, T, D = x.shape
        taps, groups = config.conv_kernel_size, config.conv_groups
        init = nn.initializers.normal(config.initializer_range)
        kernel = self.param("kernel", init, (taps, D // groups, D))
        bias = self.param("bias", nn.initializers.zeros_init(), (D,))
        kernel_tgio = kernel.reshape(taps, D // groups, groups, -1).swapaxes(1, 2)
        y = jnp.broadcast_to(bias.astype(self.dtype), (B, T, D))
        for tap in range(taps):
            offset = tap - taps // 2
            near = _shift(embedded, offset)
            if segment_ids is not None:
                same = _shift(segment_ids, offset) == segment_ids
                near = jnp.where(same[..., None], near, jnp.zeros((), near.dtype))
            near = near.reshape(B, T, groups, D // groups)
            weight_gio = kernel_tgio[tap].astype(self.dtype)
            y += jnp.einsum("btgi,gio->btgo", near, weight_gio).reshape(B, T, D)
        y = jnp.where(mask[..., None], y, jnp.zeros((), y.dtype))
        y = _dropout(self, y, config.hidden_dropout_prob, deterministic)
        x = _norm(config, self.dtype, "norm")(x + ACTIVATIONS[config.conv_act](y))
        return jnp.where(mask[..., None], x, jnp.zeros((), x.dtype))


def _shift(x: jax.Array, offset: int) -> jax.Array:
    """x[:, t + offset] at t, zero outside."""
    T = x.shape[1]
    pad = [(0, 0)] * x.ndim
    pad[1] = (max(-offset, 0), max(offset, 0))
    return jax.lax.slice_in_dim(
        jnp.pad(x, pad), max(offset, 0), max(offset, 0) + T, axis=1
    )
