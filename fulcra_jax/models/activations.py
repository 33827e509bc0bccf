# SPDX-License-Identifier: Apache-2.0
"""Activations by Hugging Face's names."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


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


def _gelu_tanh(x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x, approximate=True)


def _laplace(x: jax.Array) -> jax.Array:
    # The normal distribution's function, at the mean and deviation of Ma et al. 2022
    # (arXiv 2209.10655), equation 19, with the digits that transformers keeps.
    return 0.5 * (1.0 + jax.lax.erf((x - 0.707107) / (0.282095 * 2**0.5)))


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": gelu,
    "gelu_10": lambda x: jnp.clip(gelu(x), -10.0, 10.0),
    "gelu_accurate": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_new": _gelu_tanh,
    "gelu_python": gelu,
    "gelu_python_tanh": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "hardswish": jax.nn.hard_swish,
    "laplace": _laplace,
    "leaky_relu": jax.nn.leaky_relu,
    "linear": lambda x: x,
    "mish": jax.nn.mish,
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),
    "relu6": jax.nn.relu6,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "sqrtsoftplus": lambda x: jnp.sqrt(jax.nn.softplus(x)),
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}
"""Every name of `configs.Activation`, as transformers 5.12.1 computes it."""
