# SPDX-License-Identifier: Apache-2.0
"""The encoder of DeBERTa (v1, v2, v3, mDeBERTa) and of BERT as a Linen module."""

from typing import Any, Literal, cast, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from fulcra_jax import _check
from fulcra_jax.configs import DebertaConfig
from fulcra_jax.models import attention, inputs, positions
from fulcra_jax.models._parts import dense as _dense
from fulcra_jax.models._parts import dropout as _dropout
from fulcra_jax.models._parts import key as _key
from fulcra_jax.models._parts import norm as _norm
from fulcra_jax.models._parts import table as _table
from fulcra_jax.models.activations import ACTIVATIONS
from fulcra_jax.models.convolution import Conv
from fulcra_jax.models.embeddings import Embeddings

Remat = Literal["none", "dots", "layer"]
PositionTables = tuple[tuple[jax.Array | None, jax.Array | None], ...]
"""Of every layer: position queries and position keys, `[H, 2 span, K]` each."""


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

    In v1, `key` and `pos_key` have no bias. BERT is the same with absolute positions,
    no relative ones, and padding that is neither zeroed nor attends to padding.

    Departures from transformers: layer statistics and softmax are float32 whatever the
    dtype; segments (several texts in one row) are supported, also in the convolution.

    Attributes:
      config: the architecture.
      dtype: compute dtype; parameters stay float32.
      form: how the position terms are computed, see `attention.disentangled_attention`.
      remat: what the backward pass computes again instead of keeping it: "none";
        "dots" (all of a layer but its matrix products); "layer" (all but its input).
    """

    config: DebertaConfig
    dtype: Any = jnp.float32
    form: attention.Form = "skew"
    remat: Remat = "none"

    @nn.compact
    def __call__(
        self,
        input_ids: jax.Array,
        mask: jax.Array,
        segment_ids: jax.Array | None = None,
        *,
        token_type_ids: jax.Array | None = None,
        reads: jax.Array | None = None,
        deterministic: bool,
        all_states: bool = False,
        query_positions: jax.Array | None = None,
        tables: PositionTables | None = None,
    ) -> Any:
        """Hidden states of the last layer, or of the embeddings and every layer.

        Args:
          input_ids: `[B, T]` int in [0, W). Under `jit`, an id outside gives NaN.
          mask: `[B, T]` bool or 0/1, True for a token, False for padding on any side.
          segment_ids: `[B, T]` int; texts packed into one row, each a contiguous run
            of one number, do not see each other, and absolute positions start anew.
            These are not BERT's "segments" A and B, which are token types.
          token_type_ids: `[B, T]` int, as `input_ids`; None means zeros. Only by
            keyword. Without effect when the model has no token types.
          reads: `[B, T]` int; a segment that a token sees besides its own, as a
            definition reads a text that does not read it. Needs `segment_ids`.
          deterministic: True turns dropout off; else pass `rngs={"dropout": key}`.
          all_states: return a tuple of L + 1 arrays, embeddings first.
          query_positions: `[1 or B, T, D]` absolute position embeddings for the
            enhanced mask decoder, see `pretraining.MaskedLm`: the last layer runs twice
            more on the states below it, asked by those states plus the positions, then
            by its own output. The two outputs come after the others.
          tables: `position_tables` of these parameters: they do not depend on the
            texts, so that inference need not compute them in every call.

        Returns:
          `[B, T, D]` in `dtype`, at padding too (finite, and without meaning); or the
          tuple of them.

        Raises:
          ValueError: if shapes disagree, there is no token, ids are no integers, a text
            is longer than the absolute positions reach, tables are given while training
            or are not of this configuration, or the configuration is not an encoder's;
            outside of `jit`, also for an id or a token type outside, a mask that is not
            0 or 1, and a text whose tokens are not one contiguous run.
        """
        config = self.config
        inputs.check_config("deberta.Deberta", config, DebertaConfig)
        size = inputs.check_inputs(
            "deberta.Deberta", config, input_ids, mask, segment_ids, token_type_ids
        )
        if tables is not None:
            if not deterministic:
                raise ValueError(
                    "deberta.Deberta: tables are given, but deterministic is False; "
                    "they know neither dropout nor gradients, so training computes its "
                    "own."
                )
            inputs.check_tables(config, tables)
        if query_positions is not None:
            rows = "1" if query_positions.shape[:1] == (1,) else "B"
            axes = f"{rows} T {config.hidden_size}"
            _check.shapes(
                "deberta.Deberta",
                input_ids=(input_ids, "B T"),
                query_positions=(query_positions, axes),
            )
        mask = mask.astype(bool)
        x = Embeddings(config, self.dtype, name="embeddings")(
            input_ids, mask, segment_ids, token_type_ids, deterministic
        )
        relative = None if tables is not None else self._relative(size["T"])
        states = [x]
        layer_class = _rematerialised(self.remat)
        layers = [
            layer_class(config, self.dtype, self.form, name=f"layer_{i}")
            for i in range(config.num_hidden_layers)
        ]
        around = [
            (mask, segment_ids, relative, tables[i] if tables else None, deterministic)
            for i in range(config.num_hidden_layers)
        ]
        for i, layer in enumerate(layers):
            x = layer(states[-1], *around[i], None, reads)
            if i == 0 and config.conv_kernel_size:
                conv = Conv(config, self.dtype, name="conv")
                x = conv(states[0], x, mask, segment_ids, deterministic)
            states.append(x)
        if query_positions is not None:
            below = states[-2]
            asking = below + query_positions.astype(below.dtype)
            for _ in range(2):
                asking = layers[-1](below, *around[-1], asking)
                states.append(asking)
        return tuple(states) if all_states else states[-1]

    def _relative(self, length: int) -> jax.Array | None:
        """The rows of the position table that are used."""
        config = self.config
        if not config.relative_attention:
            return None
        width = config.hidden_size
        table = _table(config, 2 * config.span, width, self.dtype, "relative").embedding
        used = positions.used(length, config.position_buckets, config.max_distance)
        rows = jnp.asarray(table, self.dtype)[used.first : used.last]
        if config.norm_rel_ebd == "layer_norm":
            rows = _norm(config, self.dtype, "relative_norm")(rows)
        return rows


def _rematerialised(remat: Remat) -> Any:
    _check.known("deberta.Deberta", "remat", remat, get_args(Remat))
    if remat == "none":
        return Layer
    keep = jax.checkpoint_policies.nothing_saveable
    if remat == "dots":
        keep = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    # Argument 5 is `deterministic`; the module itself is not counted.
    return nn.remat(Layer, policy=keep, static_argnums=(6,))


def position_tables(
    config: DebertaConfig, params: Any, dtype: Any = jnp.float32
) -> PositionTables:
    """Position queries and keys of every layer: inference needs them in every call.

    Args:
      config: the encoder's.
      params: its parameter tree.
      dtype: of the computation that they are for.

    Returns:
      For each of the L layers a pair (position queries, position keys), each
      `[H, 2 span, K]` in `dtype`, or None where the configuration has no such term. For
      deberta-v3-base 36 MiB in float32.

    Raises:
      ValueError: if params are not the tree of an encoder with relative positions, or
        the configuration is not an encoder's.

    >>> position_tables(DebertaConfig(relative_attention=False), {})[0]
    (None, None)
    """
    inputs.check_config("deberta.position_tables", config, DebertaConfig)
    if not config.relative_attention:
        return ((None, None),) * config.num_hidden_layers
    if "relative" not in params:
        raise ValueError(
            f"deberta.position_tables: params hold {', '.join(map(str, params))}; "
            'expected an encoder\'s tree, params["encoder"] of an evaluator.'
        )
    rows = jnp.asarray(params["relative"]["embedding"], dtype)
    if config.norm_rel_ebd == "layer_norm":
        norm = _norm(config, dtype, "relative_norm")
        rows = norm.apply({"params": params["relative_norm"]}, rows)

    def heads(name: str, leaves: Any) -> jax.Array:
        layer = nn.Dense(config.hidden_size, "bias" in leaves, dtype=dtype, name=name)
        x = layer.apply({"params": leaves}, rows)
        return _by_head(config, cast(jax.Array, x))

    def tables(leaves: Any) -> tuple[jax.Array | None, jax.Array | None]:
        names = ("query", "key") if config.share_att_key else ("pos_query", "pos_key")
        q, k = (
            heads(name, leaves[name]) if term in config.pos_att_type else None
            for name, term in zip(names, ("p2c", "c2p"), strict=True)
        )
        return q, k

    return tuple(
        tables(params[f"layer_{i}"]["attention"])
        for i in range(config.num_hidden_layers)
    )


def _by_head(config: DebertaConfig, x: jax.Array) -> jax.Array:
    """`[P, D]` -> `[H, P, K]`."""
    H, K = config.num_attention_heads, config.head_size
    return x.reshape(-1, H, K).swapaxes(0, 1)


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
        tables: tuple[jax.Array | None, jax.Array | None] | None,
        deterministic: bool,
        asking: jax.Array | None = None,
        reads: jax.Array | None = None,
    ) -> jax.Array:
        """`[B, T, D]` to `[B, T, D]`.

        `relative` are the `[P, D]` position rows that are used, or `tables` what this
        layer makes of all of them. `asking` are `[B, T, D]` states that stand in for x
        as queries and residual. `reads` are the `[B, T]` segments that tokens see
        besides their own.
        """
        config, dtype = self.config, self.dtype
        rate = config.hidden_dropout_prob
        asking = x if asking is None else asking
        y = Attention(config, dtype, self.form, name="attention")(
            x, mask, segment_ids, relative, tables, deterministic, asking, reads
        )
        y = _dropout(self, y, rate, deterministic)
        x = _norm(config, dtype, "attention_norm")(asking + y)
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
        tables: tuple[jax.Array | None, jax.Array | None] | None,
        deterministic: bool,
        asking: jax.Array,
        reads: jax.Array | None,
    ) -> jax.Array:
        """`[B, T, D]` to `[B, T, D]`, before dropout and residual."""
        config, is_v1 = self.config, self.config.model_type == "deberta"
        B, T, D = x.shape
        H, K = config.num_attention_heads, config.head_size

        def dense(name: str, use_bias: bool = True) -> nn.Dense:
            return _dense(config, D, self.dtype, name, use_bias)

        query, key, value = dense("query"), dense("key", not is_v1), dense("value")
        q, k, v = (
            project(states).reshape(B, T, H, K).transpose(2, 0, 1, 3)
            for project, states in ((query, asking), (key, x), (value, x))
        )
        used = positions.used(T, config.position_buckets, config.max_distance)
        pos_q, pos_k = (
            None if table is None else table[:, used.first : used.last]
            for table in tables or (None, None)
        )
        if relative is not None:
            relative = _dropout(
                self, relative, config.hidden_dropout_prob, deterministic
            )
            shared = config.share_att_key
            if "p2c" in config.pos_att_type:
                pos_q = (query if shared else dense("pos_query"))(relative)
                pos_q = _by_head(config, pos_q)
            if "c2p" in config.pos_att_type:
                pos_k = (key if shared else dense("pos_key", not is_v1))(relative)
                pos_k = _by_head(config, pos_k)
        rate = config.attention_probs_dropout_prob
        y = attention.disentangled_attention(
            q,
            k,
            v,
            pos_q,
            pos_k,
            mask,
            slot_of_distance=None if pos_q is None and pos_k is None else used.slots,
            scale=(K * config.terms) ** -0.5,
            segment_ids=segment_ids,
            reads=reads,
            form=self.form,
            pad_rows="keys" if config.model_type == "bert" else "uniform",
            dropout_rate=rate,
            dropout_key=_key(self, rate, deterministic),
        )
        return dense("output")(y.transpose(1, 2, 0, 3).reshape(B, T, D))
