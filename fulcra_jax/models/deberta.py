# SPDX-License-Identifier: Apache-2.0
"""The DeBERTa v2 / v3 / mDeBERTa encoder as a Linen module."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import _check
from fulcra_jax.configs import DebertaConfig
from fulcra_jax.models import attention


def gelu(x: jax.Array) -> jax.Array:
    """x Phi(x), exactly: the error function, not its tanh approximation.

    Args:
      x: `[...]` float.

    Returns:
      The shape and dtype of `x`.

    Reference:
      Hendrycks and Gimpel 2016 (arXiv 1606.08415).

    >>> print(f"{gelu(jnp.float32(1.0)):.4f}")
    0.8413
    """
    # jax.nn.gelu goes through erfc, which takes over twice as long on a CPU.
    return 0.5 * x * (1.0 + jax.lax.erf(x * (0.5**0.5)))


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": gelu,
    "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
}
"""Activations by Hugging Face's names."""


class Deberta(nn.Module):
    """Token ids to hidden states.

    ```
    embeddings/word/embedding          [W, E]
    embeddings/position/embedding      [max_position_embeddings, E]   (absolute)
    embeddings/token_type/embedding    [type_vocab_size, E]           (token types)
    embeddings/project/kernel          [E, D]                         (E != D)
    embeddings/norm/{scale, bias}      [D]
    relative/embedding                 [2 span, D]                    (relative)
    relative_norm/{scale, bias}        [D]                            (norm_rel_ebd)
    conv/{kernel [k, D/groups, D], bias [D]}, conv/norm/{scale, bias}
    layer_0 ... layer_{L-1}/
      attention/{query, key, value, output}/{kernel [D, D], bias [D]}
      attention/{pos_query, pos_key}/{kernel [D, D], bias [D]}      (own position keys)
      attention_norm/{scale, bias}, mlp_norm/{scale, bias}            [D]
      up/{kernel [D, F], bias [F]}, down/{kernel [F, D], bias [D]}
    ```

    Departures from transformers: layer statistics and softmax are float32 whatever the
    dtype; segments (several texts in one row) are supported, also in the convolution.

    Attributes:
      config: the architecture.
      dtype: compute dtype; parameters stay float32.
      form: how the position terms are computed, see `attention.disentangled_attention`.
    """

    config: DebertaConfig
    dtype: Any = jnp.float32
    form: attention.Form = "skew"

    @nn.compact
    def __call__(
        self,
        input_ids: jax.Array,
        mask: jax.Array,
        segment_ids: jax.Array | None = None,
        *,
        token_type_ids: jax.Array | None = None,
        deterministic: bool,
        all_states: bool = False,
    ) -> Any:
        """Hidden states of the last layer, or of the embeddings and every layer.

        Args:
          input_ids: `[B, T]` int in [0, W); an id outside gives NaN.
          mask: `[B, T]` bool or 0/1, True for a token, False for padding on any side.
          segment_ids: `[B, T]` int; texts packed into one row do not see each other.
          token_type_ids: `[B, T]` int; None means zeros. Without effect when the model
            has no token types.
          deterministic: True turns dropout off; else pass `rngs={"dropout": key}`.
          all_states: return a tuple of L + 1 arrays, embeddings first.

        Returns:
          `[B, T, D]` in `dtype`, at padding too (finite, and without meaning); or the
          tuple of them.

        Raises:
          ValueError: if shapes disagree, or absolute positions are asked for a text
            that is too long for them or for packed segments.
        """
        config = self.config
        size = _check.shapes(
            "deberta.Deberta",
            input_ids=(input_ids, "B T"),
            mask=(mask, "B T"),
            segment_ids=(segment_ids, "B T"),
            token_type_ids=(token_type_ids, "B T"),
        )
        mask = mask.astype(bool)
        if config.position_biased_input and segment_ids is not None:
            raise ValueError(
                "deberta.Deberta: segment_ids need relative positions, but "
                "position_biased_input is True."
            )
        x = Embeddings(config, self.dtype, name="embeddings")(
            input_ids, mask, token_type_ids, deterministic
        )
        relative, slots = self._relative(size["T"])
        states = [x]
        for i in range(config.num_hidden_layers):
            layer = Layer(config, self.dtype, self.form, name=f"layer_{i}")
            x = layer(states[-1], mask, segment_ids, relative, slots, deterministic)
            if i == 0 and config.conv_kernel_size:
                conv = Conv(config, self.dtype, name="conv")
                x = conv(states[0], x, mask, segment_ids, deterministic)
            states.append(x)
        return tuple(states) if all_states else states[-1]

    def _relative(self, length: int) -> tuple[jax.Array | None, np.ndarray | None]:
        """The position rows that are used, and which of them each distance reads."""
        config = self.config
        if not config.relative_attention:
            return None, None
        table = nn.Embed(
            2 * config.span,
            config.hidden_size,
            embedding_init=nn.initializers.normal(config.initializer_range),
            name="relative",
        ).embedding
        slots = attention.slot_of_distance(
            length, buckets=config.position_buckets, max_distance=config.max_distance
        )
        first = int(slots.min())
        rows = jnp.asarray(table, self.dtype)[first : int(slots.max()) + 1]
        if config.norm_rel_ebd == "layer_norm":
            rows = _norm(config, self.dtype, "relative_norm")(rows)
        return rows, slots - first


class Embeddings(nn.Module):
    """Word, position and token-type embeddings, normalised, zero at padding."""

    config: DebertaConfig
    dtype: Any

    @nn.compact
    def __call__(
        self,
        input_ids: jax.Array,
        mask: jax.Array,
        token_type_ids: jax.Array | None,
        deterministic: bool,
    ) -> jax.Array:
        """`[B, T]` ids to `[B, T, D]`."""
        config, length = self.config, input_ids.shape[1]
        x = self._table("word", config.vocab_size)(input_ids)
        if config.position_biased_input:
            if length > config.max_position_embeddings:
                raise ValueError(
                    f"deberta.Deberta: input_ids has T={length}, but there are "
                    f"{config.max_position_embeddings} absolute positions."
                )
            table = self._table("position", config.max_position_embeddings).embedding
            x += jnp.asarray(table, self.dtype)[None, :length]
        if config.type_vocab_size:
            table = self._table("token_type", config.type_vocab_size).embedding
            if token_type_ids is None:
                token_type_ids = jnp.zeros_like(input_ids)
            onehot = jax.nn.one_hot(token_type_ids, config.type_vocab_size)
            x += onehot.astype(self.dtype) @ jnp.asarray(table, self.dtype)
        if config.embedding_width != config.hidden_size:
            x = _dense(config, config.hidden_size, self.dtype, "project", False)(x)
        x = _norm(config, self.dtype, "norm")(x)
        x = jnp.where(mask[..., None], x, jnp.zeros((), x.dtype))
        return _dropout(self, x, config.hidden_dropout_prob, deterministic)

    def _table(self, name: str, rows: int) -> nn.Embed:
        init = nn.initializers.normal(self.config.initializer_range)
        width = self.config.embedding_width
        return nn.Embed(rows, width, dtype=self.dtype, embedding_init=init, name=name)


class Layer(nn.Module):
    """Disentangled attention and a two-layer perceptron, each with post-norm."""

    config: DebertaConfig
    dtype: Any
    form: attention.Form

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array,
        segment_ids: jax.Array | None,
        relative: jax.Array | None,
        slots: np.ndarray | None,
        deterministic: bool,
    ) -> jax.Array:
        """`[B, T, D]` to `[B, T, D]`; `relative` are the `[P, D]` position rows."""
        config, dtype = self.config, self.dtype
        rate = config.hidden_dropout_prob
        y = Attention(config, dtype, self.form, name="attention")(
            x, mask, segment_ids, relative, slots, deterministic
        )
        y = _dropout(self, y, rate, deterministic)
        x = _norm(config, dtype, "attention_norm")(x + y)
        y = _dense(config, config.intermediate_size, dtype, "up")(x)
        y = ACTIVATIONS[config.hidden_act](y)
        y = _dense(config, config.hidden_size, dtype, "down")(y)
        y = _dropout(self, y, rate, deterministic)
        return _norm(config, dtype, "mlp_norm")(x + y)


class Attention(nn.Module):
    """Projections around `attention.disentangled_attention`."""

    config: DebertaConfig
    dtype: Any
    form: attention.Form

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array,
        segment_ids: jax.Array | None,
        relative: jax.Array | None,
        slots: np.ndarray | None,
        deterministic: bool,
    ) -> jax.Array:
        """`[B, T, D]` to `[B, T, D]`, before dropout and residual."""
        config = self.config
        B, T, D = x.shape
        H, K = config.num_attention_heads, config.head_size

        def dense(name: str) -> nn.Dense:
            return _dense(config, D, self.dtype, name)

        query, key, value = dense("query"), dense("key"), dense("value")
        q, k, v = (
            project(x).reshape(B, T, H, K).transpose(2, 0, 1, 3)
            for project in (query, key, value)
        )
        pos_q = pos_k = None
        if relative is not None:
            relative = _dropout(
                self, relative, config.hidden_dropout_prob, deterministic
            )
            shared = config.share_att_key
            if "p2c" in config.pos_att_type:
                pos_q = (query if shared else dense("pos_query"))(relative)
                pos_q = pos_q.reshape(-1, H, K).swapaxes(0, 1)
            if "c2p" in config.pos_att_type:
                pos_k = (key if shared else dense("pos_key"))(relative)
                pos_k = pos_k.reshape(-1, H, K).swapaxes(0, 1)
        # The original counts the terms that are configured, computed or not.
        terms = 1 + len(set(config.pos_att_type))
        rate = config.attention_probs_dropout_prob
        y = attention.disentangled_attention(
            q,
            k,
            v,
            pos_q,
            pos_k,
            mask,
            slot_of_distance=None if pos_q is None and pos_k is None else slots,
            scale=(K * terms) ** -0.5,
            segment_ids=segment_ids,
            form=self.form,
            dropout_rate=rate,
            dropout_key=_key(self, rate, deterministic),
        )
        return dense("output")(y.transpose(1, 2, 0, 3).reshape(B, T, D))


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


def _dense(
    config: DebertaConfig, width: int, dtype: Any, name: str, use_bias: bool = True
) -> nn.Dense:
    init = nn.initializers.normal(config.initializer_range)
    return nn.Dense(width, use_bias, dtype=dtype, kernel_init=init, name=name)


def _norm(config: DebertaConfig, dtype: Any, name: str) -> nn.LayerNorm:
    # The fast variance E[x^2] - E[x]^2 cancels: 9e-4 off where the mean is 30.
    return nn.LayerNorm(
        config.layer_norm_eps, dtype=dtype, use_fast_variance=False, name=name
    )


def _key(module: nn.Module, rate: float, deterministic: bool) -> jax.Array | None:
    return None if deterministic or rate == 0.0 else module.make_rng("dropout")


def _dropout(
    module: nn.Module, x: jax.Array, rate: float, deterministic: bool
) -> jax.Array:
    return attention.dropout(x, rate, _key(module, rate, deterministic))
