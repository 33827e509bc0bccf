# SPDX-License-Identifier: Apache-2.0
"""Linear layers, norms and dropout as the encoder's configuration wants them."""

from typing import Any

import flax.linen as nn
import jax

from fulcra_jax.configs import DebertaConfig
from fulcra_jax.models import attention


def dense(
    config: DebertaConfig, width: int, dtype: Any, name: str, use_bias: bool = True
) -> nn.Dense:
    """A linear layer with the encoder's initial weights."""
    init = nn.initializers.normal(config.initializer_range)
    return nn.Dense(
        width, use_bias, dtype=dtype, kernel_init=init, name=name, dot_general=_product
    )


def _product(x: jax.Array, kernel: jax.Array, dims: Any, **options: Any) -> jax.Array:
    """`[..., D]` times `[D, F]`, with the leading axes as one: XLA on a CPU is faster
    so at the gradient of the kernel (`experiments.benchmarks.gradient`)."""
    flat = x.reshape(-1, x.shape[-1])
    dims = (((1,), dims[0][1]), dims[1])
    y = jax.lax.dot_general(flat, kernel, dims, **options)
    return y.reshape(*x.shape[:-1], kernel.shape[-1])


def norm(config: DebertaConfig, dtype: Any, name: str) -> nn.LayerNorm:
    """A layer norm with the encoder's epsilon."""
    # The fast variance E[x^2] - E[x]^2 cancels: 9e-4 off where the mean is 30.
    return nn.LayerNorm(
        config.layer_norm_eps, dtype=dtype, use_fast_variance=False, name=name
    )


def table(
    config: DebertaConfig, rows: int, width: int, dtype: Any, name: str
) -> nn.Embed:
    """A table of embeddings with the encoder's initial weights."""
    init = nn.initializers.normal(config.initializer_range)
    return nn.Embed(rows, width, dtype=dtype, embedding_init=init, name=name)


def key(module: nn.Module, rate: float, deterministic: bool) -> jax.Array | None:
    """A key for dropout, or None where nothing is dropped."""
    return None if deterministic or rate == 0.0 else module.make_rng("dropout")


def dropout(
    module: nn.Module, x: jax.Array, rate: float, deterministic: bool
) -> jax.Array:
    """`attention.dropout` with the module's key."""
    return attention.dropout(x, rate, key(module, rate, deterministic))
