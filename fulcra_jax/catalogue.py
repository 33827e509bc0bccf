# SPDX-License-Identifier: Apache-2.0
"""What this project uses from outside, read from the catalogues in third_party/.

Addresses, revisions, licences and checksums of checkpoints and datasets stand there and
nowhere else.
"""

import dataclasses
import hashlib
import pathlib
import tomllib
from typing import Any

_HERE = pathlib.Path(__file__).resolve().parent
# Beside the package in a checkout; inside it in an installed wheel.
_FOLDERS = (_HERE.parent / "third_party", _HERE / "third_party")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A published encoder."""

    name: str
    hub: str
    revision: str
    licence: str
    architecture: str
    files: tuple[str, ...]
    sha256: dict[str, str]
    used_for: str
    config: dict[str, int]
    """The sizes that tell it from its siblings, in Hugging Face's names."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A published dataset."""

    name: str
    title: str
    paper: str
    repository: str
    revision: str
    folder: str
    licence: str
    format: str
    files: tuple[str, ...]
    rows: dict[str, int]
    sha256: dict[str, str]
    note: str
    url: str = ""

    def address(self, file: str) -> str:
        """Where one file is downloaded from.

        Raises:
          KeyError: if the dataset has no such file, or none can be downloaded singly.
        """
        if file not in self.files:
            listed = ", ".join(self.files)
            raise KeyError(f"catalogue: {self.name} has no {file!r}; it has: {listed}.")
        if not self.url:
            raise KeyError(
                f"catalogue: the files of {self.name} have no address of their own; "
                f"get them from {self.repository}."
            )
        return self.url.format(revision=self.revision, folder=self.folder, file=file)


def _entries(table: str) -> list[dict[str, Any]]:
    for folder in _FOLDERS:
        path = folder / f"{table}s.toml"
        if path.exists():
            entries = tomllib.loads(path.read_text(encoding="utf-8"))[table]
            return [entry | {"files": tuple(entry["files"])} for entry in entries]
    raise FileNotFoundError(
        f"catalogue: {table}s.toml stands in none of: "
        f"{', '.join(str(folder) for folder in _FOLDERS)}."
    )


def _find(table: str, name: str) -> dict[str, Any]:
    entries = {entry["name"]: entry for entry in _entries(table)}
    if name not in entries:
        raise KeyError(
            f"catalogue: {table} {name!r} is unknown; known are: {', '.join(entries)}."
        )
    return entries[name]


def checkpoint(name: str) -> Checkpoint:
    """The catalogue entry of a published encoder.

    Raises:
      KeyError: if it is not in third_party/checkpoints.toml; the message lists those
        that are.

    >>> checkpoint("microsoft/deberta-v3-large").licence
    'MIT'
    """
    return Checkpoint(**_find("checkpoint", name))


def dataset(name: str) -> Dataset:
    """The catalogue entry of a published dataset.

    Raises:
      KeyError: if it is not in third_party/datasets.toml; the message lists those that
        are.

    >>> dataset("fulcra").paper
    'arXiv 2311.10766'
    """
    return Dataset(**_find("dataset", name))


def sha256_of(path: str | pathlib.Path) -> str:
    """The SHA-256 checksum of a file, in hexadecimal."""
    with pathlib.Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
