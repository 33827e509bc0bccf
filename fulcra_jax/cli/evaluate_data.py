# SPDX-License-Identifier: Apache-2.0
"""What `fulcra evaluate` is given: labelled rows, a teacher's scores, bad lines."""

import ast
import dataclasses
import pathlib
import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from fulcra_jax.data import official, rows, source, splits
from fulcra_jax.data.formats import sniff
from fulcra_jax.inference import members_of, words_of

Split = Literal["held-out", "all", "train", "dev", "test"]
_SPLIT = re.compile(r".+\.(?P<split>train|dev|valid|validation|test)\.jsonl?")
_KINDS = ("fulcra", "official_scores")
_MODELS = ("model", "model-best")
"""Directories of models in that of a run."""


@dataclasses.dataclass(frozen=True)
class Data:
    """What files hold."""

    labelled: list[rows.Row]
    unlabelled: list[rows.Row]
    """FULCRA's rows of which no cell is labelled."""
    scored: list[official.OfficialRow]
    outside: np.ndarray | None
    """`[10]` mean scores of the files of official scores to train on that lie in the
    same folder, or None."""
    rejects: list[rows.Reject]
    notes: list[str]
    """One sentence a file."""


def read_data(paths: Sequence[str], split: Split = "held-out") -> Data:
    """Rows of files and folders in FULCRA's or the official scores' format.

    Args:
      paths: files, which are read whole, and folders.
      split: which of a folder's files NAME.SPLIT.jsonl are read; "held-out" is test
        where a format has such a file, else dev. Files without a split in their name
        are always read.

    Raises:
      FileNotFoundError: if a path does not exist.
      ValueError: if a file is empty or no row can be evaluated.
    """
    if not paths:
        raise ValueError("evaluate: --data is missing; give a file or a folder.")
    chosen: dict[pathlib.Path, str] = {}
    outside: list[official.OfficialRow] = []
    for path in map(pathlib.Path, paths):
        if not path.is_dir():
            chosen[path] = sniff(path)
            continue
        kinds = {file: sniff(file) for file in sorted(path.glob("*.json*"))}
        for kind in _KINDS:
            files = [file for file, other in kinds.items() if other == kind]
            picked = _of_split(files, split)
            chosen |= dict.fromkeys(picked, kind)
            if kind == "official_scores" and len(picked) < len(files):
                for file in _of_split(files, "train", unnamed=False):
                    outside += official.read_official(file)[0]
    if not chosen:
        raise ValueError(
            f"evaluate: {', '.join(paths)} holds no file of the split {split} in "
            "FULCRA's format (dialogue, value_types) or of official scores (prompt, "
            "answer, value_reward)."
        )
    found = Data([], [], [], _mean(outside), [], [])
    for file, kind in chosen.items():
        _read(file, kind, found)
    if not found.labelled and not found.scored:
        first = f"; the first is {found.rejects[0]}" if found.rejects else "."
        raise ValueError(
            f"evaluate: no row of {', '.join(map(str, chosen))} can be evaluated: "
            f"{len(found.unlabelled)} without a label, {len(found.rejects)} set "
            f"aside{first}"
        )
    return found


def _of_split(
    files: Sequence[pathlib.Path], split: Split, *, unnamed: bool = True
) -> list[pathlib.Path]:
    """The files of a split, and those without one in their name."""
    of = {}
    for file in files:
        match = _SPLIT.fullmatch(file.name)
        name = match["split"] if match else ""
        of[file] = "dev" if name.startswith("valid") else name
    wanted: set[str] = {split}
    if split == "held-out":
        wanted = {"test"} if "test" in of.values() else {"dev"}
    if split == "all":
        wanted = set(of.values())
    return [f for f, name in of.items() if name in wanted or (unnamed and not name)]


def _read(file: pathlib.Path, kind: str, found: Data) -> None:
    """Adds the rows of a file. One of no known format is read as FULCRA's, so that
    every line is set aside with its reason."""
    if kind == "official_scores":
        scored, bad = official.read_official(file)
        found.scored.extend(scored)
        said = f"{len(scored)} rows with official scores"
    else:
        read, bad = rows.read_rows(file)
        labelled = [row for row in read if row.where.any()]
        found.labelled.extend(labelled)
        found.unlabelled.extend(row for row in read if not row.where.any())
        masked = sum(int(row.conflict.sum()) for row in labelled)
        said = (
            f"{len(labelled)} labelled rows, {len(read) - len(labelled)} without a "
            f"label, {masked} cells with both signs left out"
        )
    found.rejects.extend(bad)
    found.notes.append(f"{file.name}: {said}, {len(bad)} rows set aside")


def _mean(scored: Sequence[official.OfficialRow]) -> np.ndarray | None:
    return np.stack([row.scores for row in scored]).mean(0) if scored else None


def training_prompts(paths: Sequence[str]) -> list[str] | None:
    """The prompts that runs were trained on, where their data is at hand.

    Args:
      paths: of runs, of models of runs or of an ensemble of these.

    Returns:
      The prompts of all runs, and of the words beside them; None if one has no
      configuration, or its data is gone.
    """
    prompts = []
    words, _ = words_of([*paths])
    for path in [*members_of([*paths]), *([words] if words else [])]:
        rows_of_run = _training_rows(path)
        if rows_of_run is None:
            return None
        prompts += [row.prompt for row in rows_of_run]
    return prompts


def _training_rows(path: pathlib.Path) -> list[rows.Row] | None:
    folder = path.resolve()
    if folder.name in _MODELS and not (folder / "config.py").is_file():
        folder = folder.parent
    try:
        match _source_of(folder / "config.py"):
            case source.Embedded() as given:
                return source.read_embedded(given).rows["train"]
            case source.Folder() as given:
                return source.read_folder(given).rows["train"]
            case source.Fold() as given:
                return source.read_fold(given).rows["train"]
            case _:
                return None
    except (OSError, ValueError):
        return None


def _source_of(config: pathlib.Path) -> source.Source | None:
    """The field `source` of a run's configuration; nothing in the file is executed.

    Raises:
      OSError: if there is no such file.
      ValueError: if it is no configuration.
    """
    kinds = {
        kind.__name__: kind for kind in (source.Embedded, source.Folder, source.Fold)
    }
    try:
        tree = ast.parse(config.read_text(encoding="utf-8"), str(config), "eval")
        for node in ast.walk(tree):
            match node:
                case ast.keyword(
                    arg="source", value=ast.Call(func=ast.Name(id=name), keywords=words)
                ) if name in kinds:
                    fields = {str(w.arg): ast.literal_eval(w.value) for w in words}
                    return kinds[name](**fields)
    except (SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"{config}: is no configuration ({error}).") from None
    return None


def near(prompts: Sequence[str], train: Sequence[str]) -> np.ndarray:
    """Which prompts have a near duplicate among those trained on.

    Args:
      prompts: N texts.
      train: texts.

    Returns:
      `[N]` bool; links through other prompts count too, as in the splits.
    """
    component = splits.prompt_components([*train, *prompts])
    return np.isin(component[len(train) :], component[: len(train)])
