# SPDX-License-Identifier: Apache-2.0
"""The texts of a folder that an encoder may see before it is trained on labels.

Of files whose name says that they are held out, only the prompts are read, and only to
leave out what is near them: no text of theirs is ever trained on.
"""

import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np

from fulcra_jax.data import source, splits
from fulcra_jax.data.formats import sniff
from fulcra_jax.data.official import read_official
from fulcra_jax.data.rows import lines_of, read_rows

_HELD_OUT = re.compile(r"(?:^|[._-])(?:dev|valid|validation|test)(?:[._-]|$)")
_TRAIN = re.compile(r"(?:^|[._-])train(?:ing)?(?:[._-]|$)")
_TURN = re.compile(r"\s*Human:(?P<prompt>.*?)\n\s*(?:Assistant|Bob):(?P<rest>.*)", re.S)
_ONE_IN = 50
"""Of so many components of near-duplicate prompts one is held out."""


class Text(NamedTuple):
    """A prompt, with an answer or alone."""

    prompt: str
    response: str
    """Empty for a prompt alone."""


@dataclasses.dataclass(frozen=True)
class Texts:
    """What is read of a folder."""

    train: list[Text]
    held_out: list[Text]
    """About 2 % of what may be seen, by components of near-duplicate prompts: not
    trained on, to measure the loss. The same whatever the seed."""
    notes: list[str]
    """One sentence for each file, and for what was left out."""

    def fingerprint(self) -> str:
        """SHA-256 over all texts, in order."""
        digest = hashlib.sha256()
        for texts in (self.train, self.held_out):
            for part in (part for text in texts for part in text):
                digest.update(part.encode("utf-8", "backslashreplace") + b"\0")
            digest.update(b"\1")
        return digest.hexdigest()


def read(
    folder: str | pathlib.Path, *, rows: Literal["train", "none"] = "train"
) -> Texts:
    """The texts of all files of a folder that have some and are not held out.

    Rows in FULCRA's format, answers of official scores, prompts, and both answers of
    preferences. A file is held out whose name has dev, valid, validation or test as one
    of its words, as NAME.dev.jsonl. FULCRA's files that name no split are split as
    `source.read_folder` does, and only their train rows are read; official scores are
    read where the name has train.

    Args:
      folder: of .jsonl files.
      rows: "none" reads no labelled rows and leaves out what is near any of their
        prompts, for an encoder that is judged on folds of them.

    Raises:
      FileNotFoundError: if there is no such folder.
      ValueError: if there is no text, or only one prompt and its near duplicates.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"pretrain_encoder: data is {str(folder)!r}, which is no folder; give one "
            "of .jsonl files."
        )
    found: dict[Text, None] = {}
    away: set[str] = set()
    notes = []
    for path in sorted(folder.glob("*.json*")):
        kind = sniff(path)
        if kind not in _READERS or not path.is_file():
            notes.append(f"{path.name}: {kind}, left alone")
            continue
        texts, prompts, bad = _texts(path, kind)
        if kind == "fulcra" and rows == "none":
            prompts += [text.prompt for text in texts]
            texts = []
        away.update(prompts)
        found |= dict.fromkeys(texts)
        said = f"{path.name}: {len(texts)} texts"
        said += f", {len(prompts)} prompts to keep away from" if prompts else ""
        notes.append(said + (f", {bad} lines that could not be read" if bad else ""))
    return _parted(folder, list(found), sorted(away), notes)


def _parted(
    folder: pathlib.Path, found: list[Text], away: list[str], notes: list[str]
) -> Texts:
    """Leaves out what is near held-out prompts, and holds out a part of the rest."""
    prompts = [*away, *(text.prompt for text in found)]
    component = splits.prompt_components(prompts)
    mine = component[len(away) :]
    near = np.isin(mine, component[: len(away)])
    if near.any():
        notes.append(f"{int(near.sum())} texts near held-out prompts left out")
    groups: dict[int, list[Text]] = {}
    for text, node, out in zip(found, mine.tolist(), near.tolist(), strict=True):
        if not out:
            groups.setdefault(node, []).append(text)
    if len(groups) < 2:
        raise ValueError(
            f"pretrain_encoder: {folder} has {len(groups)} different prompts to "
            f"train on ({'; '.join(notes) or 'no .jsonl file'}); there should be two "
            "at least."
        )
    order = {node: _number(texts) for node, texts in groups.items()}
    held = {node for node, number in order.items() if number % _ONE_IN == 0}
    held = held or {min(order, key=order.__getitem__)}
    train = [t for node, texts in groups.items() if node not in held for t in texts]
    held_out = [t for node in groups if node in held for t in groups[node]]
    notes.append(f"{len(train)} texts to train on, {len(held_out)} to measure the loss")
    return Texts(train, held_out, notes)


def _number(texts: list[Text]) -> int:
    """A number that follows from the prompts of a component alone."""
    first = min(" ".join(sorted(splits.tokens_of(text.prompt))) for text in texts)
    return int.from_bytes(hashlib.sha256(first.encode()).digest()[:8], "big")


def _texts(path: pathlib.Path, kind: str) -> tuple[list[Text], list[str], int]:
    """Texts to see, prompts to keep away from, and how many lines are broken."""
    held_out = _HELD_OUT.search(path.stem)
    if kind == "fulcra" and not (held_out or path.name.endswith(".train.jsonl")):
        # As a training of this folder splits it.
        split = source.read_folder(source.Folder(str(path.parent)))
        mine = {
            name: [row for row in split.rows[name] if row.file == path.name]
            for name in source.SPLITS
        }
        seen = [Text(row.prompt, row.response) for row in mine["train"]]
        away = [row.prompt for row in (*mine["dev"], *mine["test"])]
        bad = sum(reject.file == path.name for reject in split.rejects)
        return seen, away, bad
    texts, bad = _READERS[kind](path)
    texts = [text for text in texts if text.prompt or text.response]
    if held_out:
        return [], [text.prompt for text in texts], bad
    if kind == "official_scores" and not _TRAIN.search(path.stem):
        return [], [text.prompt for text in texts], bad
    return texts, [], bad


def _fulcra(path: pathlib.Path) -> tuple[list[Text], int]:
    rows, rejects = read_rows(path)
    return [Text(row.prompt, row.response) for row in rows], len(rejects)


def _official(path: pathlib.Path) -> tuple[list[Text], int]:
    rows, rejects = read_official(path)
    return [Text(row.prompt, row.response) for row in rows], len(rejects)


def _prompts(path: pathlib.Path) -> tuple[list[Text], int]:
    def texts(record: Any) -> Iterator[Text]:
        yield Text(_plain(record["prompt"]), "")

    return _lines(path, texts)


def _preferences(path: pathlib.Path) -> tuple[list[Text], int]:
    def texts(record: Any) -> Iterator[Text]:
        for field in ("chosen", "rejected"):
            answer = _plain(record[field])
            if "prompt" in record:
                yield Text(_plain(record["prompt"]), answer)
                continue
            turn = _TURN.match(answer)
            if turn is None:
                raise ValueError(field)
            yield Text(turn["prompt"].strip(), turn["rest"].strip())

    return _lines(path, texts)


def _lines(path: pathlib.Path, texts: Any) -> tuple[list[Text], int]:
    """What a function makes of every line that is a JSON object as it should be."""
    found: list[Text] = []
    bad = 0
    for _, raw in lines_of(path):
        try:
            found += texts(json.loads(raw.decode("utf-8")))
        except (ValueError, KeyError, TypeError, RecursionError):
            bad += 1
    return found, bad


def _plain(held: Any) -> str:
    """A text, or the messages of a conversation one after the other."""
    if isinstance(held, list):
        return "\n".join(_plain(message["content"]) for message in held)
    if not isinstance(held, str):
        raise TypeError("no text")
    # A lone surrogate is no text that a tokenizer takes.
    return held.encode("utf-8").decode("utf-8").strip()


_READERS = {
    "fulcra": _fulcra,
    "official_scores": _official,
    "prompts": _prompts,
    "preferences": _preferences,
}
"""Formats whose files have texts."""
