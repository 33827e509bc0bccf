# SPDX-License-Identifier: Apache-2.0
"""Reading and writing a checkpoint directory: `config.json` and its weights."""

import json
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors
import safetensors.numpy

from fulcra_jax import configs, values
from fulcra_jax.configs import DebertaConfig, EvaluatorConfig, SharedHead
from fulcra_jax.convert import hub, tables, weights
from fulcra_jax.convert.torch_parts import shown

WEIGHTS = weights.SAFETENSORS
Config = DebertaConfig | EvaluatorConfig


def load(
    path: str | os.PathLike, *, revision: str | None = None
) -> tuple[Config, dict[str, Any]]:
    """Reads a checkpoint in Hugging Face's layout: a directory or a name on the hub.

    The weights are model.safetensors, else pytorch_model.bin, each whole or split over
    several files with an index (`weights.open_weights`). No torch is needed, and
    nothing in a file of torch is executed.

    The encoder may be DeBERTa's (v1, v2, v3, mDeBERTa) or BERT's. Names with and
    without the prefix "deberta." or "bert." and the old `LayerNorm.gamma` and
    `LayerNorm.beta` are understood. Every tensor of the file is used once, whole or in
    parts that do not overlap, or is on the list of those left out (`tables.ignored`);
    every leaf is written once.

    Args:
      path: the directory, or a string OWNER/NAME, which is downloaded from the hub or
        found in the cache of its client (the package huggingface_hub).
      revision: a branch, tag or commit on the hub; its main branch if None.

    Returns:
      The configuration and the parameter tree, numpy float32 whatever the file holds.
      An `EvaluatorConfig` where `config.json` has an entry "fulcra" (`save` writes it),
      else a `DebertaConfig` and the encoder alone.

    Warns:
      UserWarning: if the file holds a trained classifier that is not read, for instance
        one that transformers wrote. `load_encoder` leaves heads out in silence.

    Raises:
      FileNotFoundError: if the directory, its configuration or its weights are missing,
        or cannot be had from the hub.
      ValueError: if the architecture is another, a file is damaged, or tensors are
        missing, surplus or of another shape; the message names them.
    """
    folder = hub.directory(path, revision=revision)
    config = _read_config(folder)
    params, file, heads = _read_params(folder, config)
    if any(name.startswith(tables.CLASSIFIERS) for name in heads):
        warnings.warn(
            f"convert.load: {file} holds a trained head that is not read: "
            f"{', '.join(map(shown, heads[:8]))}; load_encoder reads the encoder alone "
            "without this warning.",
            stacklevel=2,
        )
    return config, params


def load_encoder(
    path: str | os.PathLike, *, revision: str | None = None
) -> tuple[DebertaConfig, dict[str, Any]]:
    """Reads the encoder of a checkpoint and leaves any head out.

    Args:
      path: the directory, or OWNER/NAME on the hub, as for `load`.
      revision: as for `load`.

    Returns:
      The encoder's configuration and parameter tree, as `load` does, for
      `Deberta(config).apply({"params": params}, ...)`.

    Raises:
      FileNotFoundError: as `load`.
      ValueError: as `load`.
    """
    folder = hub.directory(path, revision=revision)
    config = _read_config(folder)
    encoder = encoder_of(config)
    return encoder, _read_params(folder, encoder)[0]


def save(
    path: str | os.PathLike,
    config: Config,
    params: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> None:
    """Writes a checkpoint directory that `load` and transformers read.

    An evaluator whose head is Hugging Face's (first token, hidden layer as wide as the
    encoder: `SharedHead()`) opens with `AutoModelForSequenceClassification` and gives
    the same logits, V C labels, values before classes. Any other head is kept under
    `fulcra.head.`, which transformers does not read: open such a directory with
    `AutoModel`, as an encoder; a sequence classifier made of it has a random head. A
    BERT opened with `AutoModel` has a new pooler, which is no part of an encoder.

    Args:
      path: the directory; made if it is missing.
      config: of an encoder or an evaluator.
      params: its parameter tree; leaves are written as float32.
      overwrite: write although the directory is not empty. Files of other names stay.

    Raises:
      FileExistsError: if the directory is not empty and `overwrite` is False.
      ValueError: if leaves are missing, surplus or of another shape, or the
        configuration is of another class.
    """
    if not isinstance(config, DebertaConfig | EvaluatorConfig):
        raise ValueError(
            f"convert.save: config is of type {type(config).__name__}; it should be a "
            "DebertaConfig, as DebertaConfig.from_hf makes one of transformers', or an "
            "EvaluatorConfig."
        )
    folder = check_folder(path, overwrite)
    rows = tables.rows(config)
    tensors = {
        _file_name(name, config): tensor
        for name, tensor in tensors_of(params, rows).items()
    }
    write(folder, tensors, _config_entries(config))


def check_folder(path: str | os.PathLike, overwrite: bool) -> Path:
    """Raises FileExistsError if a checkpoint may not be written there."""
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"convert.save: {folder} is a file, not a directory.")
    for name in (WEIGHTS, "config.json"):
        if (folder / name).is_dir():
            raise FileExistsError(
                f"convert.save: {folder / name} is a directory; it should be a file."
            )
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise FileExistsError(
            f"convert.save: {folder} is not empty; overwrite=True writes into it."
        )
    return folder


def tensors_of(params: Any, rows: list[tables.Row]) -> dict[str, np.ndarray]:
    """The tensors of a file by the table's names; raises ValueError as `save`."""
    if not isinstance(params, Mapping):
        raise ValueError(
            f"convert.save: params is of type {type(params).__name__}; it should be a "
            "mapping."
        )
    leaves = dict(_leaves(params))
    found = {where: np.shape(leaf) for where, leaf in leaves.items()}
    compare("convert.save: params", found, {row.path: row.shape for row in rows})
    return tables.tensors(rows, leaves)


def write(
    folder: Path, tensors: dict[str, np.ndarray], entries: Mapping[str, Any]
) -> None:
    """Writes weights and configuration; raises OSError if they cannot be."""
    text = json.dumps(entries, indent=2, ensure_ascii=False) + "\n"
    try:
        _write(folder, tensors, text)
    except (OSError, safetensors.SafetensorError) as error:
        raise OSError(f"convert.save: {folder} cannot be written: {error}.") from error


def _write(folder: Path, tensors: dict[str, np.ndarray], text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.json"
    # Written aside and renamed: an interrupted write leaves no half file behind.
    with tempfile.TemporaryDirectory(prefix=".save-", dir=folder) as name:
        aside = Path(name)
        safetensors.numpy.save_file(tensors, aside / WEIGHTS, metadata={"format": "pt"})
        (aside / config.name).write_text(text, encoding="utf-8")
        # Between the two there is no configuration, rather than another model's.
        config.unlink(missing_ok=True)
        os.replace(aside / WEIGHTS, folder / WEIGHTS)
        os.replace(aside / config.name, config)


def encoder_of(config: Config) -> DebertaConfig:
    """The encoder's part of a configuration."""
    return config.encoder if isinstance(config, EvaluatorConfig) else config


def _read_config(folder: Path) -> Config:
    entries = configs.read_json(folder / "config.json")
    encoder = DebertaConfig.from_hf(entries)
    if "fulcra" not in entries:
        return encoder
    try:
        config = EvaluatorConfig.from_json(entries["fulcra"])
    except KeyError as error:
        raise ValueError(error.args[0]) from error
    ours, theirs = config.encoder.to_hf(), encoder.to_hf()
    differ = sorted(
        key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)
    )
    if differ:
        raise ValueError(
            f"convert.load: {folder / 'config.json'} and its own entry 'fulcra' "
            f"disagree on {', '.join(differ)}."
        )
    return config


def _read_params(
    folder: Path, config: Config
) -> tuple[dict[str, Any], Path, list[str]]:
    """The tree, the file, and which tensors of heads in it were left out."""
    rows = tables.rows(config)
    params: dict[str, Any] = {}
    with weights.open_weights(folder) as tensors:
        names = named(tensors.path, tensors.names(), tables.ignored(config))
        shapes = {name: tensors.shape(key) for name, key in names.items()}
        want = {row.name: row.file_shape for row in rows}
        compare(f"convert.load: {tensors.path}", shapes, want)
        for row in rows:
            key = names[row.name]
            what = f"convert.load: {tensors.path}"
            tensor = weights.float32(what, key, tensors.tensor(key))
            put(params, row.path, np.ascontiguousarray(row.swap(tensor)))
        left = sorted(set(tensors.names()) - set(names.values()))
    start = tables.prefix(encoder_of(config))
    heads = [n for n in left if n.removeprefix(start).startswith(tables.OWN_HEADS)]
    return params, tensors.path, heads


def named(file: Path, keys: list[str], ignored: tuple[str, ...]) -> dict[str, str]:
    """Our name of every tensor that is not left out -> its key in the file."""
    names: dict[str, str] = {}
    for key in keys:
        name = key.removeprefix("deberta.").removeprefix("bert.")
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
        name = name.replace("LayerNorm.beta", "LayerNorm.bias")
        if name.startswith(ignored):
            continue
        if name in names:
            raise ValueError(
                f"convert.load: {file} holds {shown(name)} twice, as "
                f"{shown(names[name])} and {shown(key)}."
            )
        names[name] = key
    return names


def compare(what: str, found: Mapping[Any, tuple], want: Mapping[Any, tuple]) -> None:
    """Raises ValueError, naming both shapes, if two sets of tensors are not the same.

    Args:
      what: the file or the tree that is to blame.
      found: shapes by name or path.
      want: those that there should be.
    """

    def listed(names: list, shapes: Mapping[Any, tuple]) -> str:
        shown = [f"{_spelled(name)} {shapes[name]}" for name in names[:8]]
        more = [f"and {len(names) - 8} more"] if len(names) > 8 else []
        return ", ".join(shown + more)

    troubles = []
    if missing := [name for name in want if name not in found]:
        troubles.append(f"lacks {listed(missing, want)}")
    if surplus := [name for name in found if name not in want]:
        troubles.append(f"has no place for {listed(surplus, found)}")
    troubles += [
        f"has {_spelled(name)} {found[name]} where the configuration says {shape}"
        for name, shape in want.items()
        if name in found and found[name] != shape
    ][:8]
    if troubles:
        raise ValueError(f"{what} {'; '.join(troubles)}.")


def _spelled(name: str | tuple[str, ...]) -> str:
    return shown(name if isinstance(name, str) else "/".join(name))


def _leaves(
    tree: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    for name, branch in tree.items():
        if not isinstance(name, str):
            raise ValueError(
                f"convert.save: params has the key {name!r}; it should be text."
            )
        if isinstance(branch, Mapping):
            yield from _leaves(branch, (*path, name))
        else:
            where = _spelled((*path, name))
            if not hasattr(branch, "dtype") or not hasattr(branch, "shape"):
                raise ValueError(
                    f"convert.save: params has {where} of type "
                    f"{type(branch).__name__}; it should be an array."
                )
            leaf = weights.float32("convert.save: params", where, np.asarray(branch))
            yield (*path, name), leaf


def put(tree: dict[str, Any], path: tuple[str, ...], leaf: np.ndarray) -> None:
    """Enters a leaf, with the branches that lead to it."""
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = leaf


def _file_name(name: str, config: Config) -> str:
    """transformers' classifier has its encoder, and BERT its pooler, under a prefix."""
    if isinstance(config, DebertaConfig):
        return name
    base = ("embeddings.", "encoder.")
    if config.encoder.model_type == "bert":
        base += ("pooler.",)
    return tables.prefix(config.encoder) + name if name.startswith(base) else name


def encoder_entries(config: DebertaConfig, ending: str) -> dict[str, Any]:
    """config.json of a transformers class of the family, as Bert and `ending` spell."""
    return config.to_hf() | {
        "architectures": [f"{_CLASSES[config.model_type]}{ending}"],
        "dtype": "float32",
    }


def _config_entries(config: Config) -> dict[str, Any]:
    encoder = encoder_of(config)
    family = _CLASSES[encoder.model_type]
    entries = encoder_entries(encoder, "Model")
    if isinstance(config, DebertaConfig):
        return entries
    entries["fulcra"] = config.to_json()
    if not tables.has_hf_head(config):
        return entries
    labels = _labels(config)
    rate = "classifier_dropout" if encoder.model_type == "bert" else "cls_dropout"
    return entries | {
        "architectures": [f"{family}ForSequenceClassification"],
        rate: cast(SharedHead, config.head).dropout,  # `has_hf_head` says so
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
    }


_CLASSES = {"deberta": "Deberta", "deberta-v2": "DebertaV2", "bert": "Bert"}
"""How transformers' class names begin."""


def _labels(config: EvaluatorConfig) -> list[str]:
    """One name per logit: the value's, and the class where there are three."""
    names = list(values.BASIC)
    if config.head.num_values != len(names):
        names = [f"value {i}" for i in range(config.head.num_values)]
    if config.num_classes != 3:
        return names
    return [f"{name}: {label}" for name in names for label in ("-1", "0", "+1")]
