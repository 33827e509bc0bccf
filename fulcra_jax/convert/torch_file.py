# SPDX-License-Identifier: Apache-2.0
"""`pytorch_model.bin` without torch: where its tensors lie, and their numbers."""

import contextlib
import io
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from fulcra_jax.convert import torch_layouts
from fulcra_jax.convert.torch_layouts import Block
from fulcra_jax.convert.torch_parts import Refused, Storage, Tensor, shown

_CHUNK = 1 << 22


class TorchFile:
    """The tensors of one file that `torch.save` wrote; open it with `open_file`."""

    def __init__(
        self,
        path: Path,
        file: io.FileIO,
        tensors: Mapping[str, Tensor],
        blocks: Mapping[str, Block],
    ) -> None:
        """Keeps the file's directory.

        Args:
          path: for messages.
          file: open for reading.
          tensors: by name.
          blocks: where the bytes of each storage lie, by the storage's key.
        """
        self.path = path
        self._file = file
        self._tensors = tensors
        self._blocks = blocks
        self._checked: set[str] = set()

    def names(self) -> list[str]:
        """The names of all tensors, in the file's order."""
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor; nothing of it is read.

        Raises:
          KeyError: if there is no tensor of that name.
        """
        return self._tensors[name].shape

    def tensor(self, name: str) -> np.ndarray:
        """Reads one tensor.

        Of a storage that is not deflated only the part that the tensor shows is kept in
        memory. The first time that a storage is used its checksum is compared.

        Args:
          name: one of `names()`.

        Returns:
          A new array in C order, of the file's dtype; float32 for bfloat16, which numpy
          does not know. Every bfloat16 is a float32, so nothing is lost.

        Raises:
          KeyError: if there is no tensor of that name.
          ValueError: if its bytes are damaged.
        """
        tensor = self._tensors[name]
        storage = tensor.storage
        size = torch_layouts.itemsize(storage)
        first = (storage.start + tensor.offset) * size
        try:
            raw = self._bytes(storage, first, tensor.extent * size)
        except Refused as error:
            raise _sentence(self.path, error) from error
        flat = _numbers(raw, storage.dtype)
        if not tensor.extent:
            return flat.reshape(tensor.shape)
        strides = [stride * flat.itemsize for stride in tensor.strides]
        view = np.lib.stride_tricks.as_strided(flat, tensor.shape, strides)
        if view.flags.c_contiguous:
            return flat.reshape(tensor.shape)
        return np.array(view, order="C")

    def _bytes(self, storage: Storage, first: int, count: int) -> np.ndarray:
        """`[count]` uint8 of a storage."""
        block = self._blocks[storage.key]
        if first + count > block.nbytes:
            raise Refused(
                f"has a tensor that reaches beyond the {block.nbytes} bytes of its "
                f"storage {shown(storage.key)}"
            )
        if block.deflated:
            whole = torch_layouts.inflated(self._file, block)
            _compare(zlib.crc32(whole), block, storage)
            return np.frombuffer(bytearray(whole[first : first + count]), np.uint8)
        found = self._read(block.start + first, count)
        if storage.key not in self._checked:
            crc = zlib.crc32(found.data)
            if count < block.nbytes and block.crc:
                crc = 0
                for start in range(0, block.nbytes, _CHUNK):
                    chunk = min(_CHUNK, block.nbytes - start)
                    crc = zlib.crc32(self._read(block.start + start, chunk).data, crc)
            _compare(crc, block, storage)
            self._checked.add(storage.key)
        return found

    def _read(self, start: int, count: int) -> np.ndarray:
        found = np.empty(count, np.uint8)
        self._file.seek(start)
        room = found.data
        while len(room):
            count = self._file.readinto(room)
            if not count:
                raise Refused("became shorter while it was read")
            room = room[count:]
        return found


@contextlib.contextmanager
def open_file(path: str | os.PathLike) -> Iterator[TorchFile]:
    """Opens a state dict that `torch.save` wrote, in either of its two layouts.

    Nothing of the file is executed: its pickle is read as data (`torch_pickle`).
    Opening reads the directory only, and every tensor is read when it is asked for: a
    file of several GB needs the memory of one tensor. All sizes are compared with the
    file's length before anything is read.

    Layouts: the zip archive of torch 1.6 and later, and the row of pickles before it,
    views of storages included. Files of big-endian machines, TorchScript, the tar files
    before torch 0.1.10 and pickled models are refused. Tensors that repeat elements of
    their storage (`expand`) are refused as well.

    Args:
      path: the file.

    Yields:
      The `TorchFile`; it is closed at the end of the block.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is anything else than a dict of tensors; the message says what.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"convert.load: {path} is a directory, not a file.")
    if not path.is_file():
        raise FileNotFoundError(f"convert.load: there is no file {path}.")
    with io.FileIO(path) as file:
        try:
            tensors, blocks = torch_layouts.contents(file)
        except Refused as error:
            raise _sentence(path, error) from error
        yield TorchFile(path, file, tensors, blocks)


def _sentence(path: Path, error: Refused) -> ValueError:
    return ValueError(f"convert.load: {path} {error}.")


def _numbers(raw: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "bool":
        return raw != 0
    if dtype == "bfloat16":  # the upper half of a float32
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    return raw.view(dtype).astype(np.dtype(dtype).newbyteorder("="), copy=False)


def _compare(crc: int, block: Block, storage: Storage) -> None:
    # A file saved without checksums has zeros.
    if block.crc and crc != block.crc:
        raise Refused(
            f"is damaged: the checksum of the storage {shown(storage.key)} is another"
        )
