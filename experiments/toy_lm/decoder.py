# SPDX-License-Identifier: Apache-2.0
"""A causal transformer with rotary positions, and its step with a cache.

Axes: B sequences, T tokens, S cached tokens, L layers, H heads, K width per head, D
width, W vocabulary.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Sizes of the decoder."""

    vocab_size: int = 2048
    width: int = 128
    layers: int = 2
    heads: int = 4
    mlp: int = 512

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            number = getattr(self, field.name)
            if not isinstance(number, int) or number < 1:
                raise ValueError(
                    f"decoder.DecoderConfig: {field.name} is {number!r}; it should be "
                    "a whole number of at least 1."
                )
        if self.width % (2 * self.heads):
            raise ValueError(
                f"decoder.DecoderConfig: width is {self.width}; it should be a "
                f"multiple of twice the {self.heads} heads."
            )


class Cache(dict[str, jax.Array]):
    """`keys` and `values` `[L, B, S, H, K]`, and `where` `[B, S]`."""


class _Block(nn.Module):
    config: DecoderConfig

    @nn.compact
    def __call__(
        self,
        x_btd: jax.Array,
        positions_bt: jax.Array,
        allowed_bts: jax.Array,
        cached: tuple[jax.Array, jax.Array] | None,
        at: jax.Array | int,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        c = self.config
        heads = (c.heads, c.width // c.heads)
        y = nn.RMSNorm(name="attention_norm")(x_btd)
        project = lambda name: nn.DenseGeneral(heads, use_bias=False, name=name)
        q, k, v = project("query")(y), project("key")(y), project("value")(y)
        q, k = rotate(q, positions_bt), rotate(k, positions_bt)
        if cached is not None:
            k = jax.lax.dynamic_update_slice_in_dim(cached[0], k, at, 1)
            v = jax.lax.dynamic_update_slice_in_dim(cached[1], v, at, 1)
        mixed = jax.nn.dot_product_attention(q, k, v, mask=allowed_bts[:, None])
        x_btd = x_btd + nn.DenseGeneral(
            c.width, axis=(-2, -1), use_bias=False, name="out"
        )(mixed)
        y = nn.RMSNorm(name="mlp_norm")(x_btd)
        gate, up = (
            nn.Dense(c.mlp, use_bias=False, name=name)(y) for name in ("gate", "up")
        )
        y = nn.Dense(c.width, use_bias=False, name="down")(jax.nn.silu(gate) * up)
        return x_btd + y, (k, v)


class Decoder(nn.Module):
    """Token ids to next-token logits; the embedding is tied."""

    config: DecoderConfig

    def setup(self) -> None:
        """Makes the layers."""
        c = self.config
        self.embedding = nn.Embed(
            c.vocab_size, c.width, embedding_init=nn.initializers.normal(0.02)
        )
        self.blocks = [_Block(c, name=f"block_{i}") for i in range(c.layers)]
        self.norm = nn.RMSNorm()

    def __call__(self, ids: jax.Array, where: jax.Array) -> jax.Array:
        """Logits `[B, T, W]` of the token after each of `ids` `[B, T]`."""
        return self.logits(self.prefill(ids, where)[0])

    def after(self, ids: jax.Array, where: jax.Array, first: int) -> jax.Array:
        """Logits `[B, T - first, W]` after the tokens from place `first` on."""
        return self.logits(self.prefill(ids, where)[0][:, first:])

    def prefill(self, ids: jax.Array, where: jax.Array) -> tuple[jax.Array, Cache]:
        """Hidden states `[B, T, D]`, and the cache of what was read."""
        length = ids.shape[1]
        causal = jnp.tril(jnp.ones((length, length), bool))
        allowed = causal[None] & where[:, None, :]
        positions = jnp.maximum(where.cumsum(1) - 1, 0)
        x = self.embedding(ids)
        read = []
        for block in self.blocks:
            x, pair = block(x, positions, allowed, None, 0)
            read.append(pair)
        keys, values = (jnp.stack(parts) for parts in zip(*read, strict=True))
        return x, Cache(keys=keys, values=values, where=where)

    def step(
        self, token: jax.Array, cache: Cache, at: jax.Array
    ) -> tuple[jax.Array, Cache]:
        """Logits `[B, W]` after one more token `[B]`, written to place `at`."""
        where = cache["where"].at[:, at].set(True)
        positions = where.sum(1, keepdims=True) - 1
        x = self.embedding(token[:, None])
        read = []
        for i, block in enumerate(self.blocks):
            cached = cache["keys"][i], cache["values"][i]
            x, pair = block(x, positions, where[:, None, :], cached, at)
            read.append(pair)
        keys, values = (jnp.stack(parts) for parts in zip(*read, strict=True))
        cache = Cache(keys=keys, values=values, where=where)
        return self.logits(x)[:, 0], cache

    def logits(self, x: jax.Array) -> jax.Array:
        """Logits `[..., W]` of hidden states; they cost more than a layer."""
        return self.embedding.attend(self.norm(x)).astype(jnp.float32)


def rotate(x: jax.Array, positions: jax.Array) -> jax.Array:
    """Rotary positions (Su et al. 2021) of `x` `[B, T, H, K]`."""
    half = x.shape[-1] // 2
    rate = 10_000.0 ** (-jnp.arange(half) / half)
    angle = (positions[..., None] * rate[None, None])[:, :, None].astype(x.dtype)
    one, two = x[..., :half], x[..., half:]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.concatenate([one * cos - two * sin, two * cos + one * sin], -1)


def extended(cache: Cache, length: int) -> Cache:
    """The cache with room for `length` more tokens."""
    pad = lambda x, axis: jnp.pad(
        x, [(0, length if i == axis else 0) for i in range(x.ndim)]
    )
    return Cache(
        keys=pad(cache["keys"], 2),
        values=pad(cache["values"], 2),
        where=pad(cache["where"], 1),
    )


jax.tree_util.register_pytree_node(
    Cache,
    lambda cache: ([cache[name] for name in sorted(cache)], tuple(sorted(cache))),
    lambda names, leaves: Cache(zip(names, leaves, strict=True)),
)


def init(config: DecoderConfig, seed: int) -> Any:
    """Random parameters."""
    ids = jnp.zeros((1, 4), jnp.int32)
    return Decoder(config).init(jax.random.key(seed), ids, ids == 0)["params"]
