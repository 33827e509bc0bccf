# SPDX-License-Identifier: Apache-2.0
"""Tokenised rows on disk: tokenised once, read by index, never trusted unchecked.

A folder holds tokens.array_record (a record per row: its ids as int32, then its types
as uint8), arrays.npz (lengths, labels, where) and about.json (how many, and the
SHA-256 of the other two). It appears when it is whole.
"""

import hashlib
import io
import json
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import grain
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from fulcra_jax.data.batches import Examples
from fulcra_jax.data.tokenizer import PairTokenizer

RECORDS, ARRAYS, ABOUT = "tokens.array_record", "arrays.npz", "about.json"
_VERSION = 1
_BYTES = 5
"""Bytes of a token: its id and its type."""

Text = tuple[np.ndarray, np.ndarray]
"""Ids and types of a row, `[length]` int32 each."""


class Tokens:
    """N tokenised rows; lengths and labels in memory, ids where `read` finds them."""

    def __init__(
        self,
        lengths: np.ndarray,
        labels: np.ndarray,
        where: np.ndarray,
        read: Callable[[Sequence[int]], list[Text]],
    ) -> None:
        """What is known of the rows.

        Args:
          lengths: `[N]` int32, tokens of each row.
          labels: `[N, V]` float32 in [-1, 1].
          where: `[N, V]` bool.
          read: ids and types of rows, by their numbers; from any thread.
        """
        self.lengths, self.labels, self.where = lengths, labels, where
        self.read = read

    def __len__(self) -> int:
        return len(self.lengths)

    @classmethod
    def in_memory(cls, examples: Examples) -> "Tokens":
        """Rows that are held in memory.

        >>> from fulcra_jax.data.tokenizer import Encoded
        >>> texts = [np.array([5, 6, 7]), np.array([8])]
        >>> two = Encoded(texts, [np.zeros(3), np.ones(1)])
        >>> none = np.zeros((2, 10), bool)
        >>> Tokens.in_memory(Examples(two, none.astype(np.float32), none)).lengths
        array([3, 1], dtype=int32)
        """
        ids, types = examples.encoded

        def read(rows: Sequence[int]) -> list[Text]:
            return [(ids[row], types[row]) for row in rows]

        lengths = np.array([len(text) for text in ids], np.int32)
        return cls(lengths, examples.labels, examples.where, read)

    def with_labels(self, labels: np.ndarray, where: np.ndarray) -> "Tokens":
        """The same texts with other labels, as `__init__` takes them."""
        return Tokens(self.lengths, labels, where, self.read)


def key_of(rows: str, tokenizer: PairTokenizer, max_length: int) -> str:
    """The name of tokenised rows: another when rows, tokenizer or length change.

    Args:
      rows: a fingerprint of texts and labels.
      tokenizer: all its files count.
      max_length: most tokens of a row.

    Returns:
      32 hexadecimal digits.
    """
    digest = hashlib.sha256(f"{_VERSION} {max_length} {rows}".encode())
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(pathlib.Path(folder), max_length=max_length)
        for path in sorted(pathlib.Path(folder).iterdir()):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:32]


def cached(
    root: str | pathlib.Path,
    key: str,
    make: Callable[[], Examples],
    say: Callable[[str], None] | None = None,
) -> Tokens:
    """The rows of a key, from the cache or made and put there.

    Args:
      root: folder of the cache; made when missing.
      key: of `key_of`.
      make: tokenises; called when the cache has no good copy.
      say: is given a sentence when a damaged copy is made anew; None prints to stderr.

    Raises:
      OSError: if the cache cannot be written; the sentence says how to do without.
    """
    folder = pathlib.Path(root) / key
    if folder.is_dir():
        try:
            return open_tokens(folder)
        except (ValueError, OSError) as error:
            sentence = f"tokens: {error} It is made anew."
            print(sentence, file=sys.stderr) if say is None else say(sentence)
            shutil.rmtree(folder, ignore_errors=True)
    examples = make()
    try:
        write(folder, examples)
    except (OSError, RuntimeError) as error:  # array_record raises RuntimeError
        raise OSError(
            f"tokens.cached: tokenised rows cannot be written to {root} "
            f"({' '.join(str(error).split())[:120]}); give another folder by "
            "--text.cache DIR, or '' to keep them in memory."
        ) from error
    return open_tokens(folder)


def write(folder: pathlib.Path, examples: Examples) -> None:
    """Writes rows to a folder, which appears when it is whole.

    Two processes may write the same folder: the first to finish wins.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    half = pathlib.Path(tempfile.mkdtemp(prefix=".half-", dir=folder.parent))
    try:
        writer = ArrayRecordWriter(str(half / RECORDS), "group_size:1")
        try:
            for ids, types in zip(*examples.encoded, strict=True):
                record = np.asarray(ids, "<i4").tobytes()
                writer.write(record + np.asarray(types, np.uint8).tobytes())
        finally:
            writer.close()
        lengths = np.array([len(ids) for ids in examples.encoded.ids], np.int32)
        held = io.BytesIO()
        np.savez(held, lengths=lengths, labels=examples.labels, where=examples.where)
        (half / ARRAYS).write_bytes(held.getvalue())
        about = {"version": _VERSION, "rows": len(examples)} | {
            name: _digest(half / name) for name in (RECORDS, ARRAYS)
        }
        (half / ABOUT).write_text(json.dumps(about, indent=1) + "\n")
        try:
            half.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first
                raise
    finally:
        shutil.rmtree(half, ignore_errors=True)


def open_tokens(folder: str | pathlib.Path) -> Tokens:
    """Opens what `write` wrote, and checks it.

    Raises:
      FileNotFoundError: if there is no such folder, or a file is missing in it.
      ValueError: if it is damaged, or of another version.
    """
    folder = pathlib.Path(folder)
    for name in (RECORDS, ARRAYS, ABOUT):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder}: there is no {name}.")
    try:
        about = json.loads((folder / ABOUT).read_text("utf-8"))
        version, N = about["version"], int(about["rows"])
        digests = {name: about[name] for name in (RECORDS, ARRAYS)}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{folder}: {ABOUT} is damaged.") from None
    if version != _VERSION:
        raise ValueError(
            f"{folder}: is of version {version!r}; it should be {_VERSION}."
        )
    for name, digest in digests.items():
        if _digest(folder / name) != digest:
            raise ValueError(f"{folder}: {name} is damaged (its checksum differs).")
    with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
        lengths, labels, where = (
            arrays[name] for name in ("lengths", "labels", "where")
        )
    if len(lengths) != N:
        raise ValueError(f"{folder}: has {len(lengths)} lengths; it should have {N}.")
    records: Any = grain.sources.ArrayRecordDataSource([str(folder / RECORDS)])

    def read(rows: Sequence[int]) -> list[Text]:
        return [_text(record) for record in records.__getitems__(list(map(int, rows)))]

    return Tokens(lengths, labels, where, read)


def _text(record: bytes) -> Text:
    n = len(record) // _BYTES
    ids = np.frombuffer(record, "<i4", n)
    return ids, np.frombuffer(record, np.uint8, n, 4 * n).astype(np.int32)


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
