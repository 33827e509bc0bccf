# SPDX-License-Identifier: Apache-2.0
"""Encoders with the heads that they were pretrained with."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fulcra_jax.configs import DebertaConfig
from fulcra_jax.convert import checkpoint, hub, tables, weights
from fulcra_jax.convert.tables import Row

MICROSOFT = "lm_predictions.lm_head."
LEGACY = "cls.predictions."
REPLACED = "mask_predictions."
POSITIONS = "embeddings.position_embeddings.weight"
MISSPELT = {"mask_predictions.classifer.": "mask_predictions.classifier."}
"""As the original's code spells it, and as it is meant."""
TIED = {
    "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
"""What some files hold a second time, and what it should equal."""


def load_pretraining(path: str | os.PathLike) -> tuple[DebertaConfig, dict[str, Any]]:
    """Reads an encoder with those pretraining heads that its file holds.

    Args:
      path: a checkpoint directory in Hugging Face's layout.

    Returns:
      The encoder's configuration and a tree of numpy float32. Its entries are
      "encoder" and, where found, "masked_lm", "mask_decoder" (the position embeddings
      of an encoder without any at its input) and "replaced_token": the parameters of
      `models.MaskedLm`, which is enhanced where there is a "mask_decoder", and under
      the last name those of `models.ReplacedTokenHead`. Of two masked-language-model
      heads in one file it is Microsoft's, `lm_predictions.*`: DeBERTa was pretrained
      with that, and transformers adds the other with random weights.

    Raises:
      FileNotFoundError: as `load`.
      ValueError: as `load`; also if there is no such head, or one whose decoder is not
        the word embeddings.
    """
    folder = hub.directory(path)
    config = DebertaConfig.from_hf(folder)
    file, arrays = _arrays(folder)
    names = checkpoint.named(file, list(arrays), _ignored(config))
    tensors = {_spelt(name): arrays[key] for name, key in names.items()}
    rows = [
        dataclasses.replace(row, path=("encoder", *row.path))
        for row in tables.rows(config)
    ]
    heads = list(_heads(config, tensors))
    if not heads:
        raise ValueError(
            f"convert.load_pretraining: {file} holds no pretraining head, that is "
            f"nothing under {MICROSOFT}, {LEGACY} or {REPLACED}"
        )
    want = {row.name: row.file_shape for row in (*rows, *heads)}
    if POSITIONS not in want:
        tensors.pop(POSITIONS, None)
    if f"{MICROSOFT}bias" in want:
        tensors = {k: t for k, t in tensors.items() if not k.startswith(LEGACY)}
    _untie(file, tensors)
    found = {name: tensor.shape for name, tensor in tensors.items()}
    checkpoint.compare(f"convert.load_pretraining: {file}", found, want)
    params: dict[str, Any] = {}
    for row in (*rows, *heads):
        leaf = row.swap(np.asarray(tensors[row.name], np.float32))
        checkpoint.put(params, row.path, np.ascontiguousarray(leaf))
    return config, params


def _arrays(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    with weights.open_weights(folder) as tensors:
        return tensors.path, {name: tensors.tensor(name) for name in tensors.names()}


def _ignored(config: DebertaConfig) -> tuple[str, ...]:
    heads = (MICROSOFT, LEGACY, REPLACED, POSITIONS)
    # Without the points: the table says "lm_predictions.".
    return tuple(
        name
        for name in tables.ignored(config)
        if not any(head.startswith(name) for head in heads)
    )


def _spelt(name: str) -> str:
    for wrong, right in MISSPELT.items():
        if name.startswith(wrong):
            return right + name.removeprefix(wrong)
    return name


def _untie(file: Path, tensors: dict[str, np.ndarray]) -> None:
    """Takes out what is there twice."""
    for name, origin in TIED.items():
        if name not in tensors:
            continue
        if origin in tensors and not np.array_equal(tensors[name], tensors[origin]):
            raise ValueError(
                f"convert.load_pretraining: {file} holds a {name} that differs from "
                f"{origin}; only tied ones are supported."
            )
        del tensors[name]


def _heads(config: DebertaConfig, tensors: dict[str, np.ndarray]) -> Iterator[Row]:
    """The tensors of the heads that begin to be there."""
    D, E = config.hidden_size, config.embedding_width

    def holds(start: str) -> bool:
        return any(name.startswith(start) for name in tensors)

    microsofts = holds(MICROSOFT)
    if microsofts or holds(LEGACY):
        head, inner = MICROSOFT if microsofts else LEGACY, ("masked_lm",)
        before = head if microsofts else f"{LEGACY}transform."
        yield from tables.linear(f"{before}dense", (*inner, "dense"), D, E)
        yield from tables.norm(f"{before}LayerNorm", (*inner, "norm"), E)
        yield Row(f"{head}bias", (*inner, "bias"), (config.vocab_size,))
    decodes = D == E and config.num_hidden_layers > 1
    if microsofts and decodes and not config.position_biased_input:
        if POSITIONS in tensors:
            where = ("mask_decoder", "position", "embedding")
            yield Row(POSITIONS, where, (config.max_position_embeddings, D))
    if holds(REPLACED):
        where = ("replaced_token",)
        yield from tables.norm(f"{REPLACED}LayerNorm", (*where, "norm"), D)
        yield from tables.linear(f"{REPLACED}dense", (*where, "dense"), D, D)
        yield from tables.linear(f"{REPLACED}classifier", (*where, "classifier"), D, 1)
