# SPDX-License-Identifier: Apache-2.0
"""Responses drawn from the decoder, and the log-probabilities of given ones.

Axes: B sequences, P prompt tokens (padded on the left), R response tokens, W
vocabulary.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.toy_lm import decoder as toy
from experiments.toy_lm import texts
from fulcra_jax import objectives


class Sample(NamedTuple):
    """Drawn responses."""

    tokens: jax.Array
    """`[B, R]` int32, the pad id after the end."""
    log_prob: jax.Array
    """`[B, R]` of each token under the decoder that drew it."""
    where: jax.Array
    """`[B, R]` bool: up to and with the end token."""


@functools.partial(jax.jit, static_argnames=("config", "length", "end_id", "pad_id"))
def draw(
    config: toy.DecoderConfig,
    params: Any,
    key: jax.Array,
    prompts: jax.Array,
    prompts_where: jax.Array,
    banned: jax.Array,
    *,
    length: int,
    end_id: int,
    pad_id: int,
) -> Sample:
    """Draws at temperature 1 from the whole vocabulary but the `banned` `[W]` ids."""
    model = toy.Decoder(config)
    bind = {"params": params}
    read: Any = model.apply(bind, prompts, prompts_where, method=toy.Decoder.prefill)
    hidden, cache = read[0][:, -1], toy.extended(read[1], length)
    first: Any = model.apply(bind, hidden, method=toy.Decoder.logits)
    begin = prompts.shape[1]

    def one(carry: Any, x: tuple[jax.Array, jax.Array]) -> Any:
        logits, cache, ended = carry
        key, place = x
        logits = jnp.where(banned[None], -jnp.inf, logits)
        token = jax.random.categorical(key, logits)
        log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits), token[:, None], 1)[
            :, 0
        ]
        token = jnp.where(ended, pad_id, token)
        after, cache = model.apply(
            bind, token, cache, begin + place, method=toy.Decoder.step
        )
        drawn = token, jnp.where(ended, 0.0, log_prob), ~ended
        return (after, cache, ended | (token == end_id)), drawn

    start = (first, cache, jnp.zeros(prompts.shape[:1], bool))
    keys = jax.random.split(key, length)
    _, drawn = jax.lax.scan(one, start, (keys, jnp.arange(length)))
    tokens, log_prob, where = (jnp.moveaxis(x, 0, 1) for x in drawn)
    return Sample(tokens.astype(jnp.int32), log_prob, where)


def draw_with(
    codec: texts.Codec,
    config: toy.DecoderConfig,
    params: Any,
    key: jax.Array,
    prompts: jax.Array,
    prompts_where: jax.Array,
) -> Sample:
    """Draws with the lengths and ids of a codec."""
    return draw(
        config, params, key, prompts, prompts_where, jnp.asarray(codec.banned),
        length=codec.lengths.response, end_id=codec.end_id, pad_id=codec.pad_id,
    )  # fmt: skip


def response_logits(
    config: toy.DecoderConfig,
    params: Any,
    prompts: jax.Array,
    prompts_where: jax.Array,
    tokens: jax.Array,
    where: jax.Array,
    banned: jax.Array,
) -> jax.Array:
    """`[B, R, W]` the logits that each response token was drawn from."""
    ids = jnp.concatenate([prompts, tokens], 1)
    present = jnp.concatenate([prompts_where, where], 1)
    logits: Any = toy.Decoder(config).apply(
        {"params": params}, ids[:, :-1], present[:, :-1], prompts.shape[1] - 1,
        method=toy.Decoder.after,
    )  # fmt: skip
    return jnp.where(banned[None, None], jnp.finfo(logits.dtype).min, logits)


def log_probs(logits: jax.Array, tokens: jax.Array, where: jax.Array) -> jax.Array:
    """`[B, R]` the log-probability of each response token; 0 where none counts."""
    return objectives.token_log_probs(logits, tokens, where=where)
