# SPDX-License-Identifier: Apache-2.0
"""The rotary positions of a checkpoint, as its config.json asks for them.

Axes: B sequences, T tokens, H heads, K width per head.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import _check

KNOWN = ("default", "linear", "llama3")


def rope_frequencies(config: Mapping[str, Any]) -> np.ndarray:
    """How far a head's pairs turn from one position to the next.

    f_i = theta^(-2 i / K); "linear" divides all by the factor; "llama3" divides those
    whose wavelength 2 pi / f is above L / low by it, keeps those below L / high, and
    blends between: (1 - s) f / factor + s f with s = (L f / 2 pi - low) / (high - low),
    L the length that the model was first trained on.

    Args:
      config: of config.json: rope_theta (10,000 if not there, as in old files) and
        rope_scaling, or rope_parameters, which transformers writes since 5; head_dim,
        or hidden_size and num_attention_heads.

    Returns:
      `[K/2]` float32, in radians per position.

    Raises:
      KeyError: if the scaling is unknown, or a field is missing.

    Reference:
      Su et al. 2021 (arXiv 2104.09864); Chen et al. 2023 (arXiv 2306.15595), linear;
      transformers 5.12, modeling_rope_utils (llama3).

    >>> config = {"rope_theta": 10_000, "head_dim": 4}
    >>> rope_frequencies(config).round(4).tolist()
    [1.0, 0.009999999776482582]
    """
    caller = "rope.rope_frequencies"
    asked = {"rope_theta": 10_000.0, **config, **(config.get("rope_scaling") or {})}
    asked |= config.get("rope_parameters") or {}

    def field(name: str) -> float:
        if asked.get(name) is None:
            raise KeyError(f"{caller}: config has no {name}.")
        return float(asked[name])

    kind = asked.get("rope_type") or asked.get("type") or "default"
    _check.known(caller, "rope_type", kind, KNOWN)
    width = asked.get("head_dim")
    if width is None:
        width = field("hidden_size") / field("num_attention_heads")
    pair_k = np.arange(0, int(width), 2, dtype=np.float64)
    plain = field("rope_theta") ** -(pair_k / int(width))
    if kind == "default":
        return plain.astype(np.float32)
    slow = plain / field("factor")
    if kind == "linear":
        return slow.astype(np.float32)
    low, high = field("low_freq_factor"), field("high_freq_factor")
    turns = field("original_max_position_embeddings") * plain / (2 * np.pi)
    share = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return ((1.0 - share) * slow + share * plain).astype(np.float32)


def rotate(x: jax.Array, positions: jax.Array, frequencies: np.ndarray) -> jax.Array:
    """Turns the pairs (i, i + K/2) of every head by position times frequency.

    Args:
      x: `[B, T, H, K]` float, queries or keys.
      positions: `[B, T]` int.
      frequencies: `[K/2]` float, of `rope_frequencies`.

    Returns:
      `[B, T, H, K]` in the dtype of `x`; the angles are float32.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Su et al. 2021 (arXiv 2104.09864), equation 34, in the halves of GPT-NeoX.

    >>> x = jnp.array([[[[1.0, 0.0]]]])
    >>> rotate(x, jnp.array([[1]]), np.array([np.pi / 2])).round(3).tolist()
    [[[[-0.0, 1.0]]]]
    """
    caller = "rope.rotate"
    _check.shapes(caller, x=(x, "B T H K"), positions=(positions, "B T"))
    if frequencies.shape != (x.shape[-1] // 2,):
        raise ValueError(
            f"{caller}: frequencies has shape {frequencies.shape}; expected "
            f"({x.shape[-1] // 2},), half of K={x.shape[-1]}."
        )
    turn = jnp.asarray(frequencies, jnp.float32)[None, None]
    angle_btk = positions[..., None].astype(jnp.float32) * turn
    cos, sin = jnp.cos(angle_btk)[:, :, None], jnp.sin(angle_btk)[:, :, None]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
