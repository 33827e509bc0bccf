# SPDX-License-Identifier: Apache-2.0
"""The tensors of a checkpoint directory, whichever files hold them."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import safetensors

from fulcra_jax.convert import torch_file
from fulcra_jax.convert.torch_parts import shown

SAFETENSORS = "model.safetensors"
TORCH = "pytorch_model.bin"
FILES = (SAFETENSORS, f"{SAFETENSORS}.index.json", TORCH, f"{TORCH}.index.json")
"""What is looked for, in this order. An index says which file holds which tensor."""


class Tensors(Protocol):
    """Named tensors in one or more files.

    Attributes:
      path: the file, or the index of several.
    """

    path: Path

    def names(self) -> list[str]:
        """The names of all tensors."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor; nothing of it is read."""
        ...

    def tensor(self, name: str) -> np.ndarray:
        """Reads a tensor, in the file's dtype (bfloat16 may come as float32)."""
        ...


@contextlib.contextmanager
def open_weights(folder: str | os.PathLike) -> Iterator[Tensors]:
    """Opens the weights in a directory: the first of `FILES` that is there.

    Nothing but names and shapes is read before a tensor is asked for.

    Args:
      folder: the directory.

    Yields:
      The tensors; their files are closed at the end of the block.

    Raises:
      FileNotFoundError: if none of the files is there, or one that an index names.
      ValueError: if a file is damaged or no file of its kind, or an index and its files
        disagree.
    """
    folder = Path(folder)
    for name in FILES:
        if (folder / name).is_file():
            with _opened(folder / name) as tensors:
                yield tensors
            return
    raise FileNotFoundError(
        f"convert.load: there is no {SAFETENSORS} in {folder}, nor {TORCH}, nor the "
        "index of either."
    )


def shards(index: str | os.PathLike) -> dict[str, str]:
    """Which file holds which tensor, read from an index.

    Args:
      index: `model.safetensors.index.json` or `pytorch_model.bin.index.json`.

    Returns:
      The name of the file beside the index, for every tensor.

    Raises:
      ValueError: if it is no index, or names what is no file beside it.
    """
    index = Path(index)
    try:
        entries: Any = json.loads(index.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"convert.load: {index} is not valid JSON.") from error
    found = entries.get("weight_map") if isinstance(entries, dict) else None
    if not isinstance(found, dict) or not found:
        raise ValueError(
            f"convert.load: {index} has no weight_map of tensors to files."
        )
    for name, file in found.items():
        where = str(file)[:80]
        if not isinstance(file, str) or not _is_plain(file):
            raise ValueError(
                f"convert.load: {index} says that {shown(name)} is in {where!r}, "
                "which is no file beside it."
            )
    return found


_FLOATS = ("float16", "bfloat16", "float32", "float64")


def float32(what: str, name: str, tensor: np.ndarray) -> np.ndarray:
    """The numbers of a tensor as float32.

    Raises:
      ValueError: if its dtype is no float's of 16 to 64 bits, or a finite number is
        beyond float32; the message begins with `what`.
    """
    if tensor.dtype.name not in _FLOATS:
        raise ValueError(
            f"{what} has {shown(name)} of dtype {tensor.dtype}; it should be one of "
            f"{', '.join(_FLOATS)}."
        )
    with np.errstate(over="ignore"):
        numbers = np.asarray(tensor, np.float32)
    if tensor.dtype.name == "float64" and (np.isinf(numbers) & ~np.isinf(tensor)).any():
        raise ValueError(
            f"{what} has {shown(name)} of dtype float64 with numbers that are too "
            "large for float32."
        )
    return numbers


def _is_plain(file: str) -> bool:
    """Whether it is a name without a folder, on every system."""
    return (
        file.isprintable()
        and len(file.encode()) <= 255
        and file not in ("", ".", "..")
        and not set(file) & set("/\\:")
    )


def _opened(path: Path) -> contextlib.AbstractContextManager[Tensors]:
    if path.name.endswith(".index.json"):
        return _open_split(path)
    return _open_single(path)


def _open_single(path: Path) -> contextlib.AbstractContextManager[Tensors]:
    if path.name.endswith(".safetensors"):
        return _open_safetensors(path)
    return torch_file.open_file(path)


class _Safetensors:
    def __init__(self, path: Path, handle: Any) -> None:
        self.path = path
        self._handle = handle

    def names(self) -> list[str]:
        return list(self._handle.keys())

    def shape(self, name: str) -> tuple[int, ...]:
        with _damage_named(self.path):
            return tuple(self._handle.get_slice(name).get_shape())

    def tensor(self, name: str) -> np.ndarray:
        with _damage_named(self.path):
            try:
                return self._handle.get_tensor(name)
            except (AttributeError, TypeError, KeyError) as error:
                dtype = self._handle.get_slice(name).get_dtype()
                raise ValueError(
                    f"convert.load: {self.path} has {shown(name)} of dtype {dtype}; it "
                    f"should be one of {', '.join(_FLOATS)}."
                ) from error


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except safetensors.SafetensorError as error:
        with path.open("rb") as file:
            head = file.read(40)
        why = f"is damaged or no safetensors file: {shown(str(error))}"
        if head.startswith(b"version https://git-lfs"):
            why = "is a git-lfs pointer, not the weights; fetch them with git lfs pull"
        elif head.lstrip().startswith(b"<"):
            why = f"is no safetensors file; it begins with {head[:8]!r}"
        raise ValueError(f"convert.load: {path} {why}.") from error


@contextlib.contextmanager
def _open_safetensors(path: Path) -> Iterator[_Safetensors]:
    with contextlib.ExitStack() as stack:
        with _damage_named(path):
            opened = safetensors.safe_open(path, framework="numpy")
            handle = stack.enter_context(opened)
        yield _Safetensors(path, handle)


class _Split:
    def __init__(self, path: Path, files: dict[str, Tensors]) -> None:
        self.path = path
        self._files = files

    def names(self) -> list[str]:
        return list(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._files[name].shape(name)

    def tensor(self, name: str) -> np.ndarray:
        return self._files[name].tensor(name)


@contextlib.contextmanager
def _open_split(index: Path) -> Iterator[_Split]:
    where = shards(index)
    with contextlib.ExitStack() as stack:
        opened: dict[str, Tensors] = {}
        for file in dict.fromkeys(where.values()):
            path = index.with_name(file)
            if not path.is_file():
                raise FileNotFoundError(
                    f"convert.load: {index} names {file}, which is not beside it."
                )
            opened[file] = stack.enter_context(_open_single(path))
        for file, tensors in opened.items():
            held = set(tensors.names())
            said = {name for name, its in where.items() if its == file}
            if lost := sorted(said - held):
                raise ValueError(
                    f"convert.load: {index} says that {lost[0]} is in {file}, which "
                    "lacks it."
                )
            if surplus := sorted(held - said):
                raise ValueError(
                    f"convert.load: {index.with_name(file)} has {surplus[0]}, which "
                    f"{index.name} does not say."
                )
        yield _Split(index, {name: opened[file] for name, file in where.items()})
