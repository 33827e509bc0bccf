# SPDX-License-Identifier: Apache-2.0
"""A decoder on disk: decoder.json, decoder.safetensors and its tokenizer."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from experiments import rundir
from experiments.toy_lm import decoder as toy
from experiments.toy_lm import texts


def save(
    out: pathlib.Path,
    config: toy.DecoderConfig,
    params: Any,
    codec: texts.Codec,
    made_by: Mapping[str, Any],
) -> None:
    """Writes the decoder, its tokenizer and how it was made."""
    flat = traverse_util.flatten_dict(params, sep=".")
    arrays = {name: np.asarray(x) for name, x in flat.items()}
    out.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(arrays, out / "decoder.safetensors")
    codec.tokenizer.save(out)
    rundir.write_json(
        out / "decoder.json",
        {
            "decoder": dataclasses.asdict(config),
            "lengths": dataclasses.asdict(codec.lengths),
            "made_by": dict(made_by),
        },
    )


def load(path: pathlib.Path) -> tuple[toy.DecoderConfig, Any, texts.Codec]:
    """Reads what `save` wrote.

    Raises:
      FileNotFoundError: if there is no decoder.
      ValueError: if a file of it is damaged.
    """
    if not (path / "decoder.json").is_file():
        raise FileNotFoundError(
            f"{path}: holds no decoder; make one with python -m "
            f"experiments.pretrain_decoder --out {path}."
        )
    try:
        entries = json.loads((path / "decoder.json").read_text(encoding="utf-8"))
        config = toy.DecoderConfig(**entries["decoder"])
        lengths = texts.Lengths(**entries["lengths"])
        flat = safetensors.numpy.load_file(path / "decoder.safetensors")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: has no decoder.safetensors.") from None
    except (ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path}: the decoder is damaged ({error}).") from None
    params = jax.tree.map(jnp.asarray, traverse_util.unflatten_dict(flat, sep="."))
    want = jax.eval_shape(lambda: toy.init(config, 0))
    if _shapes(params) != _shapes(want):
        raise ValueError(f"{path}: the decoder's weights do not fit its decoder.json.")
    if not all(
        leaf.dtype == jnp.float32 and bool(jnp.isfinite(leaf).all())
        for leaf in jax.tree.leaves(params)
    ):
        raise ValueError(
            f"{path}: the decoder's weights are not all finite float32 numbers."
        )
    codec = texts.Codec.load(path, lengths)
    if codec.tokenizer.vocab_size != config.vocab_size:
        raise ValueError(
            f"{path}: the tokenizer has {codec.tokenizer.vocab_size} pieces, the "
            f"decoder {config.vocab_size}; give the tokenizer that belongs to it."
        )
    return config, params, codec


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    flat: dict[str, Any] = traverse_util.flatten_dict(tree, sep=".")
    return {name: tuple(leaf.shape) for name, leaf in flat.items()}
