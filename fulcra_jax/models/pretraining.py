# SPDX-License-Identifier: Apache-2.0
"""Heads of pretraining: which word stood here, and was this word replaced.

B batch, T tokens, D width, E width of the word embeddings, W vocabulary.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fulcra_jax import _check
from fulcra_jax.configs import DebertaConfig
from fulcra_jax.models import _parts, attention, inputs
from fulcra_jax.models.activations import ACTIVATIONS
from fulcra_jax.models.deberta import Deberta
from fulcra_jax.models.embeddings import positions


class MaskedLmHead(nn.Module):
    """Logits of every word, by the encoder's own word embeddings.

    ```
    dense/{kernel [D, E], bias [E]}
    norm/{scale, bias}               [E]
    bias                             [W]
    ```

    Attributes:
      config: the encoder's.
      dtype: compute dtype; logits are at least float32.
    """

    config: DebertaConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, hidden: jax.Array, words: jax.Array) -> jax.Array:
        """Logits of every word at every place.

        Args:
          hidden: `[..., D]` float states; all tokens, or those that matter.
          words: `[W, E]` float, the encoder's word embeddings.

        Returns:
          `[..., W]` at least float32: act(hidden dense) normalised, times words, plus
          the bias.

        Raises:
          ValueError: if shapes disagree with the configuration.

        Reference:
          Devlin et al. 2019 (arXiv 1810.04805), section 3.1.
        """
        config = self.config
        W, E = config.vocab_size, config.embedding_width
        _check.shapes(
            "pretraining.MaskedLmHead",
            hidden=(hidden, f"... {config.hidden_size}"),
            words=(words, f"{W} {E}"),
        )
        x = _parts.dense(config, E, self.dtype, "dense")(hidden)
        x = _parts.norm(config, self.dtype, "norm")(ACTIVATIONS[config.hidden_act](x))
        bias = self.param("bias", nn.initializers.zeros_init(), (W,))
        wide = jnp.promote_types(self.dtype, jnp.float32)
        logits = jnp.einsum(
            "...e,we->...w", x, words.astype(self.dtype), preferred_element_type=wide
        )
        return logits + bias.astype(wide).reshape((1,) * (x.ndim - 1) + (W,))


class MaskedLm(nn.Module):
    """An encoder and the masked-language-model head, with or without the mask decoder.

    ```
    encoder/                               the tree of `Deberta`
    masked_lm/                             the tree of `MaskedLmHead`
    mask_decoder/position/embedding [max_position_embeddings, D]     (enhanced)
    ```

    The enhanced mask decoder runs the last layer twice more: keys and values are the
    states below it; the queries are those states plus absolute position embeddings at
    first, then its own output. An encoder whose input has absolute positions already
    needs none and cannot have one. Departures from the original: logits at every token
    unless masked ones are named; what stands at padding.

    Attributes:
      config: the encoder's.
      enhanced: decode by absolute positions, as DeBERTa was pretrained; of what
        `convert.load_pretraining` reads it is `"mask_decoder" in params`.
      dtype: compute dtype; parameters stay float32.
      form: as in `Deberta`.
    """

    config: DebertaConfig
    enhanced: bool = False
    dtype: Any = jnp.float32
    form: attention.Form = "skew"

    def setup(self):
        """Makes the encoder, the head and the decoder's positions."""
        config = self.config
        inputs.check_config("pretraining.MaskedLm", config, DebertaConfig)
        self.encoder = Deberta(config, self.dtype, self.form)
        self.masked_lm = MaskedLmHead(config, self.dtype)
        if self.enhanced:
            _check_decoder(config)
            self.mask_decoder = MaskDecoderPositions(config, self.dtype)
        elif self.has_variable("params", "mask_decoder"):
            raise ValueError(
                "pretraining.MaskedLm: params hold a mask_decoder, but enhanced is "
                "False; it should be True, or params should be without mask_decoder."
            )

    def __call__(
        self,
        input_ids: jax.Array,
        mask: jax.Array,
        segment_ids: jax.Array | None = None,
        *,
        token_type_ids: jax.Array | None = None,
        at: jax.Array | None = None,
        deterministic: bool,
    ) -> jax.Array:
        """Logits of every word at every token, or at those that are named.

        Args:
          input_ids: `[B, T]` int in [0, W).
          mask: `[B, T]` bool or 0/1, True for a token, False for padding.
          segment_ids: `[B, T]` int, as in `Deberta`.
          token_type_ids: `[B, T]` int; None means zeros. Only by keyword.
          at: `[B, S]` int in [0, T), the columns of masked tokens; None means all
            tokens. The head, which costs as much as many layers, sees no others.
          deterministic: True turns dropout off; else pass `rngs={"dropout": key}`.

        Returns:
          `[B, T, W]` at least float32, or `[B, S, W]`.

        Raises:
          ValueError: as `Deberta`; if the parameters hold a mask decoder and the model
            is not enhanced; of an enhanced model also if the encoder has fewer than two
            layers, absolute positions, or narrower word embeddings.

        Reference:
          He et al. 2021 (arXiv 2006.03654), section 3.2; microsoft/DeBERTa,
          `EnhancedMaskDecoder`, for what queries and keys are.
        """
        places = None
        if self.enhanced:
            # The decoder's positions are made before the encoder checks anything.
            caller = "pretraining.MaskedLm"
            inputs.check_inputs(caller, self.config, input_ids, mask, segment_ids)
            places = self.mask_decoder(mask.astype(bool), segment_ids)
        states = self.encoder(
            input_ids,
            mask,
            segment_ids,
            token_type_ids=token_type_ids,
            deterministic=deterministic,
            all_states=True,
            query_positions=places,
        )
        hidden = states[-1]
        if at is not None:
            _check.shapes(
                "pretraining.MaskedLm", input_ids=(input_ids, "B T"), at=(at, "B S")
            )
            hidden = jnp.take_along_axis(hidden, at[..., None], axis=1)
        words = self.encoder.variables["params"]["embeddings"]["word"]["embedding"]
        return self.masked_lm(hidden, words)


class MaskDecoderPositions(nn.Module):
    """Absolute position embeddings that the mask decoder adds to its queries.

    ```
    position/embedding [max_position_embeddings, D]
    ```
    """

    config: DebertaConfig
    dtype: Any

    @nn.compact
    def __call__(self, mask: jax.Array, segment_ids: jax.Array | None) -> jax.Array:
        """`[1 or B, T, D]`, as `embeddings.positions`."""
        config, count = self.config, self.config.max_position_embeddings
        table = _parts.table(config, count, config.hidden_size, self.dtype, "position")
        return positions(jnp.asarray(table.embedding, self.dtype), mask, segment_ids)


class ReplacedTokenHead(nn.Module):
    """One logit per token: above zero where the word was replaced.

    ```
    norm/{scale, bias}                     [D]
    dense/{kernel [D, D], bias [D]}
    classifier/{kernel [D, 1], bias [1]}
    ```

    Attributes:
      config: the encoder's.
      dtype: compute dtype; logits are at least float32.
    """

    config: DebertaConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, hidden: jax.Array, segment_ids: jax.Array | None = None
    ) -> jax.Array:
        """Logits of having been replaced.

        Args:
          hidden: `[B, T, D]` float, the encoder's last layer; the first token of a text
            is read by all of its tokens, and is token 0 without `segment_ids`.
          segment_ids: `[B, T]` int, as in `Deberta`.

        Returns:
          `[B, T]` at least float32: act(norm(hidden_0 + hidden_t) dense) classified.

        Raises:
          ValueError: if shapes disagree, also with the configuration.

        Reference:
          Clark et al. 2020 (arXiv 2003.10555), section 2, as in He et al. 2023 (arXiv
          2111.09543), section 3.1; microsoft/DeBERTa, `LMMaskPredictionHead`.
        """
        config, D = self.config, self.config.hidden_size
        _check.shapes(
            "pretraining.ReplacedTokenHead",
            hidden=(hidden, f"B T {D}"),
            segment_ids=(segment_ids, "B T"),
        )
        first = hidden[:, :1]
        if segment_ids is not None:
            # The first token of the same text, by a product with zeros and ones.
            same = segment_ids[:, :, None] == segment_ids[:, None, :]
            leads = same & (jnp.cumsum(same, axis=-1) == 1)
            first = jnp.einsum(
                "bts,bsd->btd",
                leads.astype(hidden.dtype),
                hidden,
                precision=jax.lax.Precision.HIGHEST,
            )
        x = _parts.norm(config, self.dtype, "norm")(first + hidden)
        x = _parts.dense(config, D, self.dtype, "dense")(x)
        wide = jnp.promote_types(self.dtype, jnp.float32)
        x = ACTIVATIONS[config.hidden_act](x).astype(wide)
        return _parts.dense(config, 1, wide, "classifier")(x)[..., 0]


def _check_decoder(config: DebertaConfig) -> None:
    caller = "pretraining.MaskedLm: the enhanced mask decoder"
    if config.position_biased_input:
        raise ValueError(f"{caller} needs position_biased_input False, but it is True.")
    if config.num_hidden_layers < 2:
        raise ValueError(f"{caller} needs two layers; num_hidden_layers is 1.")
    if config.embedding_width != config.hidden_size:
        raise ValueError(
            f"{caller} adds position embeddings to hidden states, but embedding_size "
            f"is {config.embedding_width} and hidden_size {config.hidden_size}."
        )
