# SPDX-License-Identifier: Apache-2.0
"""The two layouts of `torch.save`: a zip archive; before torch 1.6, pickles in a row.

The zip archive holds `NAME/data.pkl` and, for every storage, `NAME/data/KEY`. The older
file is five pickles (a magic number, the protocol, the machine, the object, the keys of
the storages) and for each storage its number of elements and its bytes.
"""

import dataclasses
import io
import os
import struct
import zipfile
import zlib

import numpy as np

from fulcra_jax.convert import torch_pickle
from fulcra_jax.convert.torch_parts import (
    Foreign,
    Refused,
    Storage,
    Tensor,
    shown,
    state_dict,
)

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
# Deflated weights shrink by a little; only constant ones shrink further.
_MOST_SHRUNK = 100
_SMALL = 1 << 24


@dataclasses.dataclass(frozen=True)
class Block:
    """Where the bytes of a storage lie in the file.

    Attributes:
      start: the first byte.
      packed: how many bytes of the file.
      nbytes: how many bytes of numbers; `packed` unless they are deflated.
      deflated: whether they are.
      crc: the checksum of the numbers; 0 where the file has none.
    """

    start: int
    packed: int
    nbytes: int
    deflated: bool = False
    crc: int = 0


def itemsize(storage: Storage) -> int:
    """Bytes per element.

    >>> itemsize(Storage("bfloat16", key="0", numel=3, start=0, count=3))
    2
    """
    return 2 if storage.dtype == "bfloat16" else np.dtype(storage.dtype).itemsize


def contents(file: io.FileIO) -> tuple[dict[str, Tensor], dict[str, Block]]:
    """The tensors of a file by name, and where each storage lies, by its key.

    Args:
      file: open for reading.

    Raises:
      Refused: if it is no state dict of `torch.save`, or its sizes do not fit.
    """
    length = os.fstat(file.fileno()).st_size
    head = _read(file, 0, 512)
    if not head:
        raise Refused("is empty")
    if head.startswith(b"version https://git-lfs"):
        raise Refused(
            "is a git-lfs pointer, not the weights; fetch them with git lfs pull"
        )
    if head.startswith(b"PK\x03\x04"):
        return _archive(file, length)
    if head[257:262] == b"ustar":
        raise Refused(
            "is a tar archive, as torch before 0.1.10 wrote them; load it with torch "
            "and save its state_dict() again"
        )
    return _row(file, length)


def inflated(file: io.FileIO, block: Block) -> bytes:
    """The bytes of a deflated storage.

    Args:
      file: open for reading.
      block: where they lie; no more than `nbytes` come out, whatever the file says.

    Raises:
      Refused: if the bytes are damaged or of another number.
    """
    raw = _read(file, block.start, block.packed)
    try:
        found = zlib.decompressobj(-zlib.MAX_WBITS).decompress(raw, block.nbytes + 1)
    except zlib.error as error:
        raise Refused("is damaged: deflated bytes cannot be unpacked") from error
    if len(found) != block.nbytes:
        raise Refused(f"is damaged: {block.nbytes} bytes should unpack from it")
    return found


def _archive(
    file: io.FileIO, length: int
) -> tuple[dict[str, Tensor], dict[str, Block]]:
    entries = _entries(file)
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    pickles = [name for name in pickles if name.count("/") == 1]
    if len(pickles) != 1:
        raise Refused(
            f"is a zip archive with {len(pickles)} data.pkl; one makes a model"
        )
    prefix = pickles[0].removesuffix("data.pkl")
    if any(
        name.startswith((f"{prefix}code/", f"{prefix}constants.pkl"))
        for name in entries
    ):
        raise Refused(
            "is a TorchScript archive, which holds a program; save the model's "
            "state_dict() instead"
        )

    def whole(name: str) -> bytes:
        block = _block(file, length, entries[name])
        if block.nbytes > torch_pickle.LIMIT:
            raise Refused(f"holds {shown(name)} of {block.nbytes} bytes, too many")
        found = inflated(file, block) if block.deflated else _read_block(file, block)
        if block.crc and zlib.crc32(found) != block.crc:
            raise Refused(f"is damaged: the checksum of {shown(name)} is another")
        return found

    if f"{prefix}byteorder" in entries and whole(f"{prefix}byteorder") != b"little":
        raise Refused("was written on a big-endian machine, whose files are not read")
    read = torch_pickle.read(whole(pickles[0]))
    tensors = state_dict(read.found)
    blocks: dict[str, Block] = {}
    for key, storage in read.storages.items():
        name = f"{prefix}data/{key}"
        if name not in entries:
            raise Refused(f"lacks {shown(name)}, the storage of a tensor")
        blocks[key] = _block(file, length, entries[name])
        if blocks[key].nbytes != storage.numel * itemsize(storage):
            raise Refused(
                f"holds {blocks[key].nbytes} bytes in {shown(name)}, but the tensors "
                f"in it take {storage.numel * itemsize(storage)}"
            )
    if sum(block.packed for block in blocks.values()) > length:
        raise Refused("is a zip archive whose entries overlap")
    return tensors, blocks


class _Directory(io.FileIO):
    """For `zipfile`, which reads as much at once as a file tells it to."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = torch_pickle.LIMIT
        if size > torch_pickle.LIMIT:
            raise Refused(f"has a zip directory of {size} bytes, too many")
        return super().read(size)


def _entries(file: io.FileIO) -> dict[str, zipfile.ZipInfo]:
    try:
        with (
            _Directory(file.fileno(), closefd=False) as directory,
            zipfile.ZipFile(directory) as archive,
        ):
            listed = archive.infolist()
    except Refused:
        raise
    except (  # what zipfile raises for damaged archives of one kind or another
        zipfile.BadZipFile,
        NotImplementedError,
        OSError,
        EOFError,
        OverflowError,
        ValueError,
        struct.error,
    ) as error:
        raise Refused(
            "is cut off or damaged: its zip directory is unreadable"
        ) from error
    entries = {entry.filename: entry for entry in listed}
    if len(entries) != len(listed):
        raise Refused("is a zip archive with two entries of one name")
    return entries


def _block(file: io.FileIO, length: int, entry: zipfile.ZipInfo) -> Block:
    """Where an entry's bytes lie, if it does not lie about its size."""
    name = shown(entry.filename)
    damaged = Refused(f"is damaged: the zip entry {name} does not fit into the file")
    if not 0 <= entry.header_offset <= length - 30:
        raise damaged
    header = _read(file, entry.header_offset, 30)
    if not header.startswith(b"PK\x03\x04"):
        raise damaged
    skip = sum(struct.unpack("<HH", header[26:30]))
    start, packed = entry.header_offset + 30 + skip, entry.compress_size
    if packed < 0 or start + packed > length:
        raise damaged
    if entry.flag_bits & 1:
        raise Refused(f"holds the encrypted zip entry {name}")
    if entry.compress_type == zipfile.ZIP_STORED:
        if packed != entry.file_size:
            raise damaged
        return Block(start, packed, packed, crc=entry.CRC)
    if entry.compress_type != zipfile.ZIP_DEFLATED:
        raise Refused(f"holds {name}, which is neither stored nor deflated")
    if entry.file_size > max(_SMALL, _MOST_SHRUNK * packed):
        raise Refused(
            f"holds {name}, which says that {packed} bytes unpack to "
            f"{entry.file_size}: too many to believe"
        )
    return Block(start, packed, entry.file_size, deflated=True, crc=entry.CRC)


def _row(file: io.FileIO, length: int) -> tuple[dict[str, Tensor], dict[str, Block]]:
    at = 0

    def following() -> torch_pickle.Pickle:
        nonlocal at
        read = torch_pickle.read(_read(file, at, torch_pickle.LIMIT))
        at += read.end
        return read

    try:
        magic = following().found
    except Foreign:
        raise
    except Refused:
        magic = None
    if type(magic) is not int or magic != _MAGIC:
        raise Refused(f"is no file of torch.save; it begins with {_read(file, 0, 8)!r}")
    protocol, system = following().found, following().found
    if type(protocol) is not int or protocol != _PROTOCOL:
        raise Refused("is damaged: its protocol is not 1001")
    if not isinstance(system, dict) or "little_endian" not in system:
        raise Refused("is damaged: its third pickle does not describe a machine")
    if system["little_endian"] is not True:
        raise Refused("was written on a big-endian machine, whose files are not read")
    read = following()
    tensors, keys = state_dict(read.found), following().found
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise Refused("is damaged: it has no list of storages")
    if lost := read.storages.keys() - set(keys):
        raise Refused(f"lacks the storage {shown(min(lost))} of a tensor")
    blocks: dict[str, Block] = {}
    for key in keys:
        if key not in read.storages or key in blocks:
            raise Refused(
                f"has a storage {shown(key)} that no tensor uses, or it twice"
            )
        storage = read.storages[key]
        head = _read(file, at, 8)
        nbytes = storage.numel * itemsize(storage)
        if len(head) < 8 or at + 8 + nbytes > length:
            raise Refused(
                f"is cut off: the storage {shown(key)} has {nbytes} bytes, but the "
                f"file ends after {max(0, length - at - 8)} of them"
            )
        if struct.unpack("<q", head)[0] != storage.numel:
            raise Refused(
                f"is damaged: the storage {shown(key)} should have {storage.numel} "
                "elements and says that it has another number"
            )
        blocks[key] = Block(at + 8, nbytes, nbytes)
        at += 8 + nbytes
    return tensors, blocks


def _read_block(file: io.FileIO, block: Block) -> bytes:
    return _read(file, block.start, block.nbytes)


def _read(file: io.FileIO, start: int, count: int) -> bytes:
    """At most `count` bytes; fewer at the end of the file."""
    file.seek(start)
    return file.read(count) or b""
