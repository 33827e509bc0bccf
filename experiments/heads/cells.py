# SPDX-License-Identifier: Apache-2.0
"""Finished cells of the comparison: a row of a CSV each, and what it predicted.

The folder is part of the repository, so that a comparison goes on where it was left,
on another machine too:

cells.csv                   a row for each finished cell, appended as it ends
RECIPE.SPLIT.SEED.npz       its probabilities on the held-out rows, in float16
"""

import csv
import dataclasses
import fcntl
import hashlib
import io
import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from fulcra_jax.data.rows import Row
from fulcra_jax.inference import bag_of_words

DEFAULT = pathlib.Path(__file__).parents[1] / "figures" / "heads"


@dataclasses.dataclass(frozen=True, order=True)
class Key:
    """Which cell: what was trained, on what, with which seed."""

    recipe: str
    """Variants joined by "+"; behind "@" the name of the encoder, if it has one."""
    split: str
    """"dev", or "fold0", "fold1", ...; "zero-shot:VALUE"."""
    seed: int

    @property
    def variants(self) -> str:
        """The recipe without the encoder's name."""
        return self.recipe.partition("@")[0]

    @property
    def encoder(self) -> str:
        """The encoder's name, or ""."""
        return self.recipe.partition("@")[2]

    @property
    def file(self) -> str:
        """Name of the file of its predictions."""
        recipe = self.recipe.replace(" ", "")
        return f"{recipe}.{self.split.replace(':', '-')}.{self.seed}.npz"

    def __str__(self) -> str:
        return f"{self.recipe}, {self.split}, seed {self.seed}"


@dataclasses.dataclass(frozen=True)
class Cell:
    """A finished cell."""

    recipe: str
    split: str
    seed: int
    settings: str
    """Digest of all that decides the numbers: configuration, rows, encoder."""
    rows: int
    accuracy: float
    macro_f1: float
    f1_opposed: float
    f1_none: float
    f1_supported: float
    steps: int
    seconds: float
    """Wall time of the training."""
    gflops: float
    """Of judging one response, forward, mean over the held-out rows."""
    passes: int
    """Of the encoder, per response."""
    parameters: int
    device: str
    commit: str

    @property
    def key(self) -> Key:
        """Which cell it is."""
        return Key(self.recipe, self.split, self.seed)


FIELDS = [field.name for field in dataclasses.fields(Cell)]


class Unusable(ValueError):
    """Predictions that are damaged or of other rows."""


class Cells:
    """The cells of a folder."""

    def __init__(self, folder: str | pathlib.Path = DEFAULT) -> None:
        """Reads nothing yet; the folder is made with the first cell."""
        self.folder = pathlib.Path(folder)
        self.table = self.folder / "cells.csv"

    def read(self) -> dict[Key, Cell]:
        """All finished cells; of a cell that stands there twice the last.

        A last line without its end was half written by a process that was killed.

        Raises:
          ValueError: if the table has other columns or a field that is no number.
        """
        if not self.table.is_file():
            return {}
        found: dict[Key, Cell] = {}
        held = self.table.read_bytes()
        whole = _whole_lines(held)
        if len(whole) < len(held):
            warnings.warn(
                f"{self.table}: its last line has no end, as one that was half "
                "written; it is left out.",
                stacklevel=2,
            )
        text = whole.decode("utf-8", "replace")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        if text and reader.fieldnames != FIELDS:
            raise ValueError(
                f"{self.table}: its columns are {reader.fieldnames}; they should "
                f"be {', '.join(FIELDS)}."
            )
        for line, entries in enumerate(reader, 2):
            cell = _parsed(entries, f"{self.table}, line {line}")
            found[cell.key] = cell
        return found

    def add(self, cell: Cell, keys: np.ndarray, probs: np.ndarray) -> None:
        """Writes the predictions, then the row that says they are whole."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / cell.key.file
        # Several processes may share the folder, and finish the same cell.
        partial = path.with_suffix(f".{os.getpid()}.partial")
        with partial.open("wb") as file:
            np.savez_compressed(file, keys=keys, probs=probs.astype(np.float16))
        partial.replace(path)
        with self.table.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            whole = _whole_lines(file.read())
            file.truncate(len(whole))
            text = io.StringIO()
            writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
            if not whole:
                writer.writeheader()
            writer.writerow(dataclasses.asdict(cell))
            file.write(text.getvalue().encode())

    def probs(self, key: Key, keys: np.ndarray) -> np.ndarray:
        """`[N, 10, 3]` float32: what a cell said of rows, in their order.

        Raises:
          FileNotFoundError: if its file is missing.
          Unusable: if it is of other rows, or damaged.
        """
        path = self.folder / key.file
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing, but {self.table} names it.")
        names, probs = _stored(path)
        place = {name: i for i, name in enumerate(names)}
        wanted = keys.tolist()
        if set(wanted) != set(place):
            common = len(set(wanted) & set(place))
            raise Unusable(
                f"{path}: is of other rows: it has {len(place)}, here are "
                f"{len(set(wanted))}, {common} are the same."
            )
        return probs[[place[name] for name in wanted]].astype(np.float32)


def row_keys(rows: Sequence[Row]) -> np.ndarray:
    """`[N]` uint64: what tells rows apart, whatever their order."""
    texts = (f"{row.prompt}\0{row.response}" for row in rows)
    digests = (hashlib.sha256(t.encode("utf-8", "backslashreplace")) for t in texts)
    return np.array([int.from_bytes(d.digest()[:8], "big") for d in digests], np.uint64)


def _stored(path: pathlib.Path) -> tuple[list[int], np.ndarray]:
    """The keys of rows, and `[N, 10, 3]` probabilities, that lie in a file."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
            names, probs = stored["keys"].tolist(), stored["probs"]
    except bag_of_words.ARCHIVE_ERRORS as error:
        raise Unusable(f"{path}: is no cell's predictions ({error!s:.100}).") from None
    if probs.shape != (len(names), 10, 3):
        raise Unusable(
            f"{path}: has probabilities of shape {probs.shape} for {len(names)} rows; "
            "expected [N, 10, 3]."
        )
    return names, probs


def _whole_lines(held: bytes) -> bytes:
    """What was written of a table, without a last line that has no end."""
    return held[: held.rfind(b"\n") + 1]


def _parsed(entries: dict[str, Any], where: str) -> Cell:
    kinds = {"str": str, "int": int, "float": float}
    try:
        return Cell(
            **{
                field.name: kinds[str(field.type)](entries[field.name])
                if isinstance(field.type, str)
                else field.type(entries[field.name])
                for field in dataclasses.fields(Cell)
            }
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: cannot be read ({error}).") from None
