# SPDX-License-Identifier: Apache-2.0
"""Encoders with the heads that they were pretrained with."""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fulcra_jax.configs import DebertaConfig
from fulcra_jax.convert import checkpoint, hub, tables, weights
from fulcra_jax.convert.tables import Row
from fulcra_jax.convert.torch_parts import shown

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


def load_pretraining(
    path: str | os.PathLike, *, revision: str | None = None
) -> tuple[DebertaConfig, dict[str, Any]]:
    """Reads an encoder with those pretraining heads that its file holds.

    Args:
      path: the directory, or OWNER/NAME on the hub, as for `load`.
      revision: as for `load`.

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
    folder = hub.directory(path, revision=revision)
    config = DebertaConfig.from_hf(folder)
    with weights.open_weights(folder) as tensors:
        return config, _params(config, tensors)


def save_pretraining(
    path: str | os.PathLike,
    config: DebertaConfig,
    params: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> None:
    """Writes an encoder with its masked-language-model head, for `load_pretraining`.

    `load_encoder` reads the encoder of it. The names of the
    head are those of transformers' `ForMaskedLM`; with a mask decoder, which
    transformers does not have, those of Microsoft's code.

    Args:
      path: the directory; made if it is missing.
      config: the encoder's.
      params: the tree of `models.MaskedLm`: "encoder", "masked_lm" and, of an enhanced
        one, "mask_decoder"; written as float32.
      overwrite: as for `save`.

    Raises:
      FileExistsError: as `save`.
      ValueError: if leaves are missing, surplus or of another shape.
    """
    folder = checkpoint.check_folder(path, overwrite)
    heads = [f"{MICROSOFT}bias", POSITIONS]
    if not isinstance(params, Mapping) or "mask_decoder" not in params:
        heads = [f"{LEGACY}bias"]
    rows = [
        dataclasses.replace(row, path=("encoder", *row.path))
        for row in tables.rows(config)
    ]
    rows += _heads(config, dict.fromkeys(heads, ""))
    start = tables.prefix(config)
    tensors = {
        name if name.startswith((MICROSOFT, LEGACY)) else start + name: tensor
        for name, tensor in checkpoint.tensors_of(params, rows).items()
    }
    entries = checkpoint.encoder_entries(config, "ForMaskedLM")
    checkpoint.write(folder, tensors, entries)


def _params(config: DebertaConfig, tensors: weights.Tensors) -> dict[str, Any]:
    """Compares all names and shapes before the first tensor is read."""
    file = tensors.path
    keys: dict[str, str] = {}
    ignored = _ignored(config)
    for name, key in checkpoint.named(file, tensors.names(), ignored).items():
        if _spelt(name) in keys:
            raise ValueError(
                f"convert.load_pretraining: {file} holds {shown(_spelt(name))} twice, "
                f"as {shown(keys[_spelt(name)])} and {shown(key)}."
            )
        keys[_spelt(name)] = key
    rows = [
        dataclasses.replace(row, path=("encoder", *row.path))
        for row in tables.rows(config)
    ]
    heads = list(_heads(config, keys))
    if not heads:
        raise ValueError(
            f"convert.load_pretraining: {file} holds no pretraining head, that is "
            f"nothing whose name begins with {MICROSOFT!r}, {LEGACY!r} or {REPLACED!r}."
        )
    want = {row.name: row.file_shape for row in (*rows, *heads)}
    if POSITIONS not in want:
        keys.pop(POSITIONS, None)
    if f"{MICROSOFT}bias" in want:
        keys = {n: key for n, key in keys.items() if not n.startswith(LEGACY)}
    shapes = {name: tensors.shape(key) for name, key in keys.items()}
    found = {name: shape for name, shape in shapes.items() if name not in TIED}
    checkpoint.compare(f"convert.load_pretraining: {file}", found, want)
    _compare_tied(tensors, keys, shapes)
    params: dict[str, Any] = {}
    for row in (*rows, *heads):
        key = keys[row.name]
        what = f"convert.load_pretraining: {file}"
        leaf = row.swap(weights.float32(what, key, tensors.tensor(key)))
        checkpoint.put(params, row.path, np.ascontiguousarray(leaf))
    return params


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


def _compare_tied(
    tensors: weights.Tensors, keys: dict[str, str], shapes: dict[str, tuple[int, ...]]
) -> None:
    for name, origin in TIED.items():
        if name not in keys or origin not in keys:
            continue
        if shapes[name] != shapes[origin] or not np.array_equal(
            tensors.tensor(keys[name]), tensors.tensor(keys[origin])
        ):
            raise ValueError(
                f"convert.load_pretraining: {tensors.path} holds a {name} that differs "
                f"from {origin}; only tied ones are supported."
            )


def _heads(config: DebertaConfig, names: Mapping[str, str]) -> Iterator[Row]:
    """The tensors of the heads that begin to be there."""
    D, E = config.hidden_size, config.embedding_width

    def holds(start: str) -> bool:
        return any(name.startswith(start) for name in names)

    microsofts = holds(MICROSOFT)
    if microsofts or holds(LEGACY):
        head, inner = MICROSOFT if microsofts else LEGACY, ("masked_lm",)
        before = head if microsofts else f"{LEGACY}transform."
        yield from tables.linear(f"{before}dense", (*inner, "dense"), D, E)
        yield from tables.norm(f"{before}LayerNorm", (*inner, "norm"), E)
        yield Row(f"{head}bias", (*inner, "bias"), (config.vocab_size,))
    decodes = D == E and config.num_hidden_layers > 1
    if microsofts and decodes and not config.position_biased_input:
        if POSITIONS in names:
            where = ("mask_decoder", "position", "embedding")
            yield Row(POSITIONS, where, (config.max_position_embeddings, D))
    if holds(REPLACED):
        where = ("replaced_token",)
        yield from tables.norm(f"{REPLACED}LayerNorm", (*where, "norm"), D)
        yield from tables.linear(f"{REPLACED}dense", (*where, "dense"), D, D)
        yield from tables.linear(f"{REPLACED}classifier", (*where, "classifier"), D, 1)
