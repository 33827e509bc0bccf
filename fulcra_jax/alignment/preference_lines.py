# SPDX-License-Identifier: Apache-2.0
"""Preferences as JSONL, in the columns that TRL and those who follow it read.

A pair: prompt, chosen, rejected, and for the record chosen_distance, rejected_distance,
target, evaluator, and probability if it has a soft label. A single answer: prompt,
completion, label (true: wanted), distance, target, evaluator.

Plain, texts are texts; conversational, they are messages, [{"role": "user", "content":
...}] and [{"role": "assistant", "content": ...}]. A trainer joins a plain prompt and
its answer with nothing between, so a chat model needs the second, where its template
comes between.

The soft label is not called label: TRL (1.16, `data_utils`) refuses a conversational
pair that has such a column, and overwrites true and false with it where it takes pairs
apart for KTO.
"""

import json
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

_PAIR_TEXTS = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
_PAIR_NUMBERS = ("chosen_distance", "rejected_distance")
_ANSWER_TEXTS = {"prompt": "user", "completion": "assistant"}
_NOTES = ("target", "evaluator")


class PreferencePairs(NamedTuple):
    """B pairs of answers."""

    prompts: list[str]
    chosen: list[str]
    rejected: list[str]
    chosen_distances: np.ndarray
    """`[B]` float32 distance of the chosen answer to the target."""
    rejected_distances: np.ndarray
    """`[B]` float32."""
    probs: np.ndarray
    """`[B]` float32, how likely the chosen answer is better; NaN without soft label."""
    targets: list[str]
    """What the distances are to."""
    evaluators: list[str]
    """Who scored."""


class UnpairedAnswers(NamedTuple):
    """N answers that are wanted or not."""

    prompts: list[str]
    completions: list[str]
    labels: np.ndarray
    """`[N]` bool: wanted."""
    distances: np.ndarray
    """`[N]` float32 distance to the target."""
    targets: list[str]
    evaluators: list[str]


def write_pairs(
    path: str | pathlib.Path, pairs: PreferencePairs, *, conversational: bool = False
) -> None:
    """Writes pairs, one a line; a file that is there stays until the new one is whole.

    Args:
      path: the file; its folder is made.
      pairs: what to write. The column probability is left out if all are NaN.
      conversational: texts as lists of messages.

    Raises:
      ValueError: if the parts differ in length, a number is not finite or a text is
        none that UTF-8 can write.

    >>> import tempfile
    >>> one = np.ones(1)
    >>> pairs = PreferencePairs(["Hi"], ["Hello"], ["Go"], one, 2 * one, np.nan * one,
    ...                         ["ideal"], ["e"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_pairs(folder + "/pairs.jsonl", pairs)
    ...     print(pathlib.Path(folder, "pairs.jsonl").read_text(), end="")
    ...     read_pairs(folder + "/pairs.jsonl").chosen
    {"prompt": "Hi", "chosen": "Hello", "rejected": "Go", "chosen_distance": 1.0, \
"rejected_distance": 2.0, "target": "ideal", "evaluator": "e"}
    ['Hello']
    """
    caller = "preference_lines.write_pairs"
    _check_lengths(caller, pairs)
    soft = len(pairs.probs) and not np.isnan(pairs.probs).all()
    _write(
        path,
        (
            {
                **_texts(caller, i, _PAIR_TEXTS, texts, conversational),
                "chosen_distance": _number(caller, i, "chosen_distance", near),
                "rejected_distance": _number(caller, i, "rejected_distance", far),
                **(
                    {"probability": _number(caller, i, "probability", p)}
                    if soft
                    else {}
                ),
                "target": target,
                "evaluator": evaluator,
            }
            for i, (*texts, near, far, p, target, evaluator) in enumerate(
                zip(*pairs, strict=True)
            )
        ),
    )


def read_pairs(path: str | pathlib.Path) -> PreferencePairs:
    """Reads a file that `write_pairs` wrote, plain or conversational.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a line is not what it should be; it names file, line and field.
    """
    found = list(_records(path, _check_pair))
    column = lambda name: [record[name] for record in found]
    numbers = lambda name: np.array(column(name), np.float32)
    return PreferencePairs(
        column("prompt"),
        column("chosen"),
        column("rejected"),
        numbers("chosen_distance"),
        numbers("rejected_distance"),
        numbers("probability"),
        column("target"),
        column("evaluator"),
    )


def write_unpaired(
    path: str | pathlib.Path, answers: UnpairedAnswers, *, conversational: bool = False
) -> None:
    """Writes answers that are wanted or not, one a line, as `write_pairs` does.

    Args:
      path: the file; its folder is made.
      answers: what to write.
      conversational: texts as lists of messages.

    Raises:
      ValueError: if the parts differ in length, a number is not finite or a text is
        none that UTF-8 can write.

    >>> import tempfile
    >>> answers = UnpairedAnswers(["Hi"], ["Go"], np.array([False]), np.ones(1),
    ...                           ["ideal"], ["e"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_unpaired(folder + "/answers.jsonl", answers)
    ...     print(pathlib.Path(folder, "answers.jsonl").read_text(), end="")
    {"prompt": "Hi", "completion": "Go", "label": false, "distance": 1.0, \
"target": "ideal", "evaluator": "e"}
    """
    caller = "preference_lines.write_unpaired"
    _check_lengths(caller, answers)
    _write(
        path,
        (
            {
                **_texts(caller, i, _ANSWER_TEXTS, texts, conversational),
                "label": bool(label),
                "distance": _number(caller, i, "distance", distance),
                "target": target,
                "evaluator": evaluator,
            }
            for i, (*texts, label, distance, target, evaluator) in enumerate(
                zip(*answers, strict=True)
            )
        ),
    )


def read_unpaired(path: str | pathlib.Path) -> UnpairedAnswers:
    """Reads a file that `write_unpaired` wrote, plain or conversational.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a line is not what it should be; it names file, line and field.
    """
    found = list(_records(path, _check_unpaired))
    column = lambda name: [record[name] for record in found]
    return UnpairedAnswers(
        column("prompt"),
        column("completion"),
        np.array(column("label"), bool),
        np.array(column("distance"), np.float32),
        column("target"),
        column("evaluator"),
    )


def _check_lengths(caller: str, parts: PreferencePairs | UnpairedAnswers) -> None:
    n = len(parts.prompts)
    for field, part in zip(parts._fields, parts, strict=True):
        if len(part) != n:
            raise ValueError(
                f"{caller}: there are {n} prompts, but {len(part)} {field}."
            )


def _texts(
    caller: str,
    place: int,
    roles: dict[str, str],
    texts: Sequence[str],
    conversational: bool,
) -> dict[str, Any]:
    """The columns of texts of one line."""
    columns = {}
    for (name, role), text in zip(roles.items(), texts, strict=True):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError(
                f"{caller}: {name} of line {place + 1} holds half a character (a lone "
                "surrogate), which no tokenizer takes."
            ) from None
        columns[name] = [{"role": role, "content": text}] if conversational else text
    return columns


def _number(caller: str, place: int, name: str, x: Any) -> float:
    if not math.isfinite(x):
        raise ValueError(
            f"{caller}: {name} of line {place + 1} is {x}; expected a finite number."
        )
    return round(float(x), 6)


def _write(path: str | pathlib.Path, records: Iterable[dict[str, Any]]) -> None:
    """Writes aside and renames."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".part")
    try:
        with half.open("w", encoding="utf-8") as file:
            for record in records:
                file.write(json.dumps(record, ensure_ascii=True) + "\n")
        os.replace(half, path)
    finally:
        half.unlink(missing_ok=True)


def _records(
    path: str | pathlib.Path, check: Callable[[dict[str, Any]], dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """The checked lines; a fault is named with file and line."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file of preferences.")
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        yield check(_object(line))
                    except ValueError as error:
                        raise ValueError(f"{path}: line {number}: {error}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not UTF-8.") from None


def _object(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("is not valid JSON.") from None
    if not isinstance(record, dict):
        raise ValueError("should be an object.")
    return record


def _check_pair(record: dict[str, Any]) -> dict[str, Any]:
    checked = _checked(record, _PAIR_TEXTS, _PAIR_NUMBERS)
    p = record.get("probability", math.nan)
    if "probability" in record and not (_finite(p) and 0.0 <= p <= 1.0):
        raise ValueError(f"probability is {p!r:.60}; it should be in [0, 1].")
    return {**checked, "probability": p}


def _check_unpaired(record: dict[str, Any]) -> dict[str, Any]:
    checked = _checked(record, _ANSWER_TEXTS, ("distance",))
    if not isinstance(record.get("label"), bool):
        raise ValueError(
            f"label is {record.get('label')!r:.60}; it should be true or false."
        )
    return {**checked, "label": record["label"]}


def _checked(
    record: dict[str, Any], roles: dict[str, str], numbers: Sequence[str]
) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for name in (*roles, *numbers, *_NOTES):
        if name not in record:
            raise ValueError(f"{name} is missing.")
        given = record[name]
        if name in roles:
            checked[name] = _text_of(name, given, roles[name])
        elif name in numbers and not _finite(given):
            raise ValueError(f"{name} is {given!r:.60}; it should be a finite number.")
        elif name in _NOTES and not isinstance(given, str):
            raise ValueError(f"{name} is {given!r:.60}; it should be a text.")
        else:
            checked[name] = given
    return checked


def _text_of(name: str, given: Any, role: str) -> str:
    """A plain text, or that of the one message."""
    if isinstance(given, list) and len(given) == 1 and isinstance(given[0], dict):
        if given[0].get("role") == role:
            given = given[0].get("content")
    if not isinstance(given, str):
        raise ValueError(
            f"{name} is {given!r:.60}; it should be a text, or a list of one message "
            f'with the role "{role}".'
        )
    return given


def _finite(x: Any) -> bool:
    return type(x) in (int, float) and math.isfinite(x)
