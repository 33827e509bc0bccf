# SPDX-License-Identifier: Apache-2.0
"""The files of a cache of tokens: written, checked, moved into place."""

import contextlib
import hashlib
import json
import os
import pathlib
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from fulcra_jax import _check
from fulcra_jax.data import _packing_checks, _targets

if TYPE_CHECKING:
    from fulcra_jax.data.batches import Examples

FORMAT, FORMAT_MORE = 1, 2
"""Of the files with labels alone, and with more targets; another one is not read."""
RECORDS, META, LENGTHS = "tokens.array_record", "meta.json", "lengths.npy"
LABELS = ("labels", "where")
"""The targets that every cache has; each is a file NAME.npy."""
TOKEN = np.dtype([("id", "<i4"), ("type", "u1")])
"""A record is as many of these as the example has tokens."""
_CHUNK = 1024
"""Examples turned into bytes at once."""
_DAY = 24 * 3600.0


def lengths_of(caller: str, first: int, examples: "Examples") -> np.ndarray:
    """`[n]` int32; raises if something cannot be an example, `first` the number of
    the first one."""
    encoded = examples.encoded
    lengths = np.array([len(ids) for ids in encoded.ids], np.int32)
    kinds = np.array([len(types) for types in encoded.types], np.int32)
    _check.shapes(
        caller,
        ids=(lengths, "N"),
        types=(kinds, "N"),
        labels=(examples.labels, "N V"),
        where=(examples.where, "N V"),
        items=(examples.items, "N I"),
        items_where=(examples.items_where, "N I"),
        teacher=(examples.teacher, "N V"),
        teacher_where=(examples.teacher_where, "N V"),
    )
    bad = np.flatnonzero((lengths < 1) | (lengths != kinds))
    if len(bad):
        at = int(bad[0])
        raise ValueError(
            f"{caller}: example {first + at} has {lengths[at]} ids and {kinds[at]} "
            "types; there should be as many, and at least 1."
        )
    return lengths


def split(record: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Ids and types, int32, of one record or of several joined."""
    tokens = np.frombuffer(record, TOKEN)
    return tokens["id"].astype(np.int32), tokens["type"].astype(np.int32)


def write(
    folder: pathlib.Path, parts: Iterable["Examples"]
) -> tuple[int, tuple[str, ...]]:
    """All files; returns N and the names of the targets."""
    lengths: list[np.ndarray] = []
    targets: dict[str, list[np.ndarray]] = {}
    count = 0
    with _records_file(folder) as writer:
        for part in parts:
            lengths.append(lengths_of("tokens.cached", count, part))
            found = part.targets
            if targets and found.keys() != targets.keys():
                raise ValueError(
                    f"tokens.cached: example {count} has {', '.join(found)}; those "
                    f"before it have {', '.join(targets)}."
                )
            for name, array in found.items():
                array = np.asarray(array, _targets.kind(name))
                targets.setdefault(name, []).append(array)
            for record in _records(part, count):
                with _writing(folder):
                    writer.write(record)
            count += len(part)
    if not count:
        raise ValueError("tokens.cached: there is no example to store.")
    with _writing(folder):
        np.save(folder / LENGTHS, np.concatenate(lengths))
        for name, some in targets.items():
            np.save(folder / _file(name), np.concatenate(some))
        sums = {name: _sums(folder / name) for name in _files(targets)}
        version = FORMAT if tuple(targets) == LABELS else FORMAT_MORE
        meta = {"format": version, "count": count, "files": sums}
        (folder / META).write_text(json.dumps(meta, indent=1) + "\n")
    return count, tuple(targets)


def _file(target: str) -> str:
    return f"{target}.npy"


def _files(targets: Iterable[str]) -> list[str]:
    return [RECORDS, LENGTHS, *map(_file, targets)]


def _records(part: "Examples", first: int) -> Iterator[bytes]:
    for start in range(0, len(part), _CHUNK):
        ids = part.encoded.ids[start : start + _CHUNK]
        types = part.encoded.types[start : start + _CHUNK]
        numbers = range(first + start, first + start + len(ids))
        _packing_checks.check_values("tokens.cached", "ids", numbers, ids)
        kinds = np.concatenate(types)
        if kinds.min() < 0 or kinds.max() > 255:
            raise ValueError(
                f"tokens.cached: token types are in [{kinds.min()}, {kinds.max()}]; "
                "they should be in [0, 255]."
            )
        tokens = np.empty(len(kinds), TOKEN)
        tokens["id"], tokens["type"] = np.concatenate(ids), kinds
        together = tokens.tobytes()
        ends = np.cumsum([len(text) for text in ids]) * TOKEN.itemsize
        for begin, end in zip([0, *ends[:-1]], ends, strict=True):
            yield together[begin:end]


def check(folder: pathlib.Path) -> tuple[int, tuple[str, ...]]:
    """N and the targets of a whole folder; raises ValueError if a file is not what was
    written."""
    try:
        meta = json.loads((folder / META).read_bytes())
        version, count, sums = meta["format"], int(meta["count"]), meta["files"]
        targets = LABELS
        if version == FORMAT_MORE:
            targets = tuple(name for name in _targets.NAMES if _file(name) in sums)
        wanted = {name: tuple(sums[name]) for name in _files((*LABELS, *targets))}
    except (FileNotFoundError, NotADirectoryError):
        raise damaged(folder, f"it has no {META}") from None
    except (ValueError, KeyError, TypeError):
        raise damaged(folder, f"{META} cannot be read") from None
    if version not in (FORMAT, FORMAT_MORE):
        raise ValueError(
            f"tokens.open_tokens: {folder} has format {version!r}; it should be "
            f"{FORMAT} or {FORMAT_MORE}."
        )
    for name, (size, digest) in wanted.items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else 0
        if found != size:
            raise damaged(folder, f"{name} has {found} bytes; it should have {size}")
        if _sums(path)[1] != digest:
            raise damaged(folder, f"{name} does not have the checksum it was given")
    return count, targets


def arrays(
    folder: pathlib.Path, count: int, names: Sequence[str]
) -> tuple[np.ndarray, _targets.Targets]:
    """Lengths, and the targets of these names."""
    lengths = np.load(folder / LENGTHS, allow_pickle=False)
    targets = {
        name: np.load(folder / _file(name), allow_pickle=False) for name in names
    }
    if any(len(array) != count for array in (lengths, *targets.values())):
        raise damaged(folder, f"its arrays are not of {count} examples")
    return lengths, targets


def damaged(folder: pathlib.Path, what: str) -> ValueError:
    """The error to raise."""
    return ValueError(f"tokens.open_tokens: {folder} is damaged: {what}.")


@contextlib.contextmanager
def partial_folder(root: pathlib.Path, key: str) -> Iterator[pathlib.Path]:
    """A new folder beside the caches; removed in the end if it is still there."""
    partial = root / f".{key}.{secrets.token_hex(8)}.partial"
    with _writing(root):
        root.mkdir(parents=True, exist_ok=True)
        _sweep(root)
        partial.mkdir()
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def publish(partial: pathlib.Path, folder: pathlib.Path) -> bool:
    """Moves a whole folder to its name; False if another process was first."""
    try:
        os.rename(partial, folder)
    except OSError as error:
        if folder.exists():
            return False
        raise _cannot_write(folder, error) from None
    return True


def remove(folder: pathlib.Path, root: pathlib.Path) -> None:
    """Takes a damaged cache away, at once for all who look for it."""
    aside = root / f".{folder.name}.{secrets.token_hex(8)}.partial"
    with _writing(root):
        # Gone: another process that found the damage was first.
        with contextlib.suppress(FileNotFoundError):
            os.rename(folder, aside)
    if aside.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink(missing_ok=True)


def _sweep(root: pathlib.Path) -> None:
    """Removes what killed writers left; a living one has written within a day."""
    for left in root.glob(".*.partial"):
        with contextlib.suppress(OSError):
            newest = max(path.stat().st_mtime for path in (left, *left.iterdir()))
            if time.time() - newest > _DAY:
                shutil.rmtree(left, ignore_errors=True)


def _sums(path: pathlib.Path) -> tuple[int, str]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest


@contextlib.contextmanager
def reading(folder: pathlib.Path) -> Iterator[None]:
    """Says in one sentence that a cache cannot be read."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"tokens.open_tokens: {folder} cannot be read ({error.strerror or error})."
        ) from None


@contextlib.contextmanager
def _writing(folder: pathlib.Path) -> Iterator[None]:
    """Says in one sentence that a cache cannot be written."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise _cannot_write(folder, error) from None


def _cannot_write(folder: pathlib.Path, error: Exception) -> OSError:
    why = getattr(error, "strerror", None) or " ".join(str(error).split())
    return OSError(
        f"tokens.cached: {folder} cannot be written to ({why}); the cache should lie "
        "in a folder that can, on a disk with room."
    )


@contextlib.contextmanager
def _records_file(folder: pathlib.Path) -> Iterator[Any]:
    """The writer of the records, closed in the end."""
    with _writing(folder):
        # Not compressed: a record is small, and read while a device waits.
        writer = ArrayRecordWriter(str(folder / RECORDS), "group_size:1,uncompressed")
    try:
        yield writer
    except BaseException:
        # What went wrong first is what is said.
        with contextlib.suppress(RuntimeError):
            writer.close()
        raise
    with _writing(folder):
        writer.close()
