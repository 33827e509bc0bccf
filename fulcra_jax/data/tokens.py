# SPDX-License-Identifier: Apache-2.0
"""Tokenised examples: in memory, or cached on disk and read by number.

A cache is a folder named by what its content follows from (`key_of`): the tokens as an
array_record file, lengths and targets as .npy, and meta.json with sizes and checksums.
It appears under its name when it is whole, so that whoever finds it may use it; a
writer that was killed leaves a folder of another name, which is removed a day later.
N examples, V values.
"""

import hashlib
import json
import pathlib
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from fulcra_jax import _check
from fulcra_jax.data import _targets
from fulcra_jax.data import _tokens_files as files

if TYPE_CHECKING:
    # Their modules load transformers.
    from fulcra_jax.data.batches import Examples
    from fulcra_jax.data.tokenizer import PairTokenizer

Make = Callable[[], "Examples | Iterable[Examples]"]
"""Tokenises: all examples, or one part after the other."""


class Tokens:
    """N tokenised pairs; lengths and targets in memory, the ids where they are.

    May be read by several threads at a time.
    """

    lengths: np.ndarray
    """`[N]` int32: tokens of each pair, at least 1."""
    labels: np.ndarray
    """`[N, V]` float32 in [-1, 1]."""
    where: np.ndarray
    """`[N, V]` bool."""
    targets: dict[str, np.ndarray]
    """`labels` and `where`, and those of items `[N, 54]` and teacher `[N, V]`, with
    `items_where` and `teacher_where`, that the examples have."""

    def __init__(
        self,
        lengths: np.ndarray,
        targets: Mapping[str, np.ndarray],
        joined: Callable[[list[int]], tuple[np.ndarray, np.ndarray]],
    ) -> None:
        """Use `in_memory`, `open_tokens` or `cached`."""
        _targets.check("tokens.Tokens", targets)
        self.lengths, self.targets = lengths, dict(targets)
        self.labels, self.where = targets["labels"], targets["where"]
        self._joined = joined

    def __len__(self) -> int:
        return len(self.lengths)

    def joined(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids and token types of some examples, one behind the other.

        Args:
          rows: `[n]` int in [0, N); may repeat.

        Returns:
          Ids and types, int32, `[sum of their lengths]` each.

        Raises:
          ValueError: if a row is out of range, or the file of a cache has been damaged
            since it was opened.
        """
        rows = np.asarray(rows, np.int64)
        _check.inside("tokens.read", "rows", rows, len(self))
        if not len(rows):
            return np.zeros(0, np.int32), np.zeros(0, np.int32)
        ids, types = self._joined(rows.tolist())
        if len(ids) != self.lengths[rows].sum():
            raise ValueError(
                f"tokens.read: {len(ids)} tokens were read; their lengths say "
                f"{self.lengths[rows].sum()}."
            )
        return ids, types

    def read(self, rows: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Ids and token types `[length]` of each of some examples; see `joined`."""
        ids, types = self.joined(rows)
        if not len(ids):
            return []
        ends = np.cumsum(self.lengths[rows])[:-1]
        return list(zip(np.split(ids, ends), np.split(types, ends), strict=True))

    def with_labels(self, labels: np.ndarray, where: np.ndarray) -> "Tokens":
        """The same pairs with other labels; items and teacher stay.

        Args:
          labels: `[N, V]` float32 in [-1, 1].
          where: `[N, V]` bool.
        """
        return self.with_targets(self.targets | {"labels": labels, "where": where})

    def with_targets(self, targets: Mapping[str, np.ndarray]) -> "Tokens":
        """The same pairs with other targets, by the names that `targets` has.

        Raises:
          ValueError: if there are targets without the cells that count.
        """
        return Tokens(self.lengths, targets, self._joined)

    @classmethod
    def in_memory(cls, examples: "Examples") -> "Tokens":
        """Of examples that are there already.

        Raises:
          ValueError: if an example has no token, or the numbers of labels differ.
        """
        caller = "tokens.in_memory"
        lengths = files.lengths_of(caller, 0, examples)
        ids, types = examples.encoded.ids, examples.encoded.types

        def joined(rows: list[int]) -> tuple[np.ndarray, np.ndarray]:
            return (
                np.concatenate([ids[row] for row in rows], dtype=np.int32),
                np.concatenate([types[row] for row in rows], dtype=np.int32),
            )

        return cls(lengths, examples.targets, joined)


def key_of(
    rows_fingerprint: str,
    tokenizer: "PairTokenizer",
    max_length: int,
    targets: Sequence[str] = (),
) -> str:
    """The name of a cache: another one if anything that decides its content differs.

    Args:
      rows_fingerprint: a digest of the rows in their order, and of all their targets.
      tokenizer: makes the ids.
      max_length: most tokens of a pair.
      targets: which there are besides labels: "items", "teacher".

    Returns:
      64 hexadecimal digits.
    """
    parts: list[Any] = [
        files.FORMAT, rows_fingerprint, tokenizer.fingerprint(), max_length,
    ]  # fmt: skip
    if targets:
        parts.append(sorted(targets))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def open_tokens(folder: str | pathlib.Path) -> Tokens:
    """Opens what `cached` wrote; every byte is checked against the checksums.

    Raises:
      FileNotFoundError: if there is no such folder.
      OSError: if it cannot be read.
      ValueError: if it is damaged, or of another version.
    """
    folder = pathlib.Path(folder)
    if not folder.exists():
        raise FileNotFoundError(
            f"tokens.open_tokens: {folder} does not exist; tokens.cached writes it."
        )
    with files.reading(folder):
        return _open(folder, *files.check(folder))


def _open(folder: pathlib.Path, count: int, names: Sequence[str]) -> Tokens:
    """A folder that is checked; its files stay open, though it be moved or removed."""
    lengths, targets = files.arrays(folder, count, names)
    reader: Any = ArrayRecordReader(
        str(folder / files.RECORDS),
        "readahead_buffer_size:0,max_parallelism:0",
        file_reader_buffer_size=2**15,
    )
    if not reader.ok() or reader.num_records() != count:
        raise files.damaged(
            folder,
            f"{files.RECORDS} holds {reader.num_records()} examples; there should be "
            f"{count}",
        )

    def joined(rows: list[int]) -> tuple[np.ndarray, np.ndarray]:
        try:
            records = reader.read(rows)
        except RuntimeError as error:
            why = " ".join(str(error).split())
            raise ValueError(
                f"tokens.read: {folder} can no longer be read ({why})."
            ) from None
        return files.split(b"".join(records))

    return Tokens(lengths, targets, joined)


def cached(root: str | pathlib.Path, key: str, make: Make) -> Tokens:
    """The tokens of a key: from the cache, or made, stored and opened.

    Processes may ask for the same key at a time: each that finds nothing makes its own,
    and the first to finish is the one that stays. A damaged cache is written anew with
    a warning.

    Args:
      root: the folder of all caches.
      key: 8 to 128 hexadecimal digits, as `key_of` gives them.
      make: called when the cache lacks the key. Parts are written as they come, so that
        a data set need not fit into memory.

    Returns:
      The tokens, the same whether they were there or not.

    Raises:
      OSError: if the cache cannot be written or read; one sentence says why.
      ValueError: if the key is none, or `make` gave no example or one without a token.
    """
    if not re.fullmatch(r"[0-9a-f]{8,128}", key):
        raise ValueError(
            f"tokens.cached: the key is {key!r:.40}; it should be 8 to 128 hexadecimal "
            "digits."
        )
    root = pathlib.Path(root)
    folder = root / key
    if folder.exists():
        try:
            return open_tokens(folder)
        except ValueError as error:
            warnings.warn(f"{error} It is written anew.", stacklevel=2)
            files.remove(folder, root)
    with files.partial_folder(root, key) as partial:
        made = make()
        found = files.write(partial, made if isinstance(made, Iterable) else [made])
        with files.reading(partial):
            # Before the others see it, who may set it aside.
            tokens = _open(partial, *found)
        return tokens if files.publish(partial, folder) else open_tokens(folder)
