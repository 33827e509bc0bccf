# SPDX-License-Identifier: Apache-2.0
"""Scored answers as JSONL: what comparisons, reports and alignment pass to each other.

One object a line: prompt, response, model, scores (ten numbers in [-1, 1], in the order
of `values.BASIC`), probs (ten times three numbers, of -1, 0, +1; null where the
evaluator gives none) and evaluator (which one it was).
"""

import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from fulcra_jax import values

FIELDS = ("prompt", "response", "model", "scores", "probs", "evaluator")
_V = len(values.BASIC)


class ScoredAnswers(NamedTuple):
    """N answers with their scores."""

    prompts: list[str]
    responses: list[str]
    models: list[str]
    """Who answered."""
    scores: np.ndarray
    """`[N, 10]` float32 in [-1, 1]."""
    probs: np.ndarray
    """`[N, 10, 3]` float32 of (-1, 0, +1); NaN where the evaluator gives none."""
    evaluators: list[str]
    """Who scored."""


def format_scores(answers: ScoredAnswers) -> Iterator[str]:
    """The lines of a file of scored answers, without their ends.

    Raises:
      ValueError: if the parts differ in length, or a score is not in [-1, 1].

    >>> answers = ScoredAnswers(["Hi"], ["Hello"], ["m"], np.zeros((1, 10)),
    ...                         np.full((1, 10, 3), np.nan), ["e"])
    >>> next(format_scores(answers))[:52]
    '{"prompt": "Hi", "response": "Hello", "model": "m", '
    """
    scores, probs = _checked(answers)
    for i, prompt in enumerate(answers.prompts):
        known = not np.isnan(probs[i]).any()
        record = {
            "prompt": prompt,
            "response": answers.responses[i],
            "model": answers.models[i],
            "scores": [round(x, 6) for x in scores[i].tolist()],
            "probs": probs[i].round(6).tolist() if known else None,
            "evaluator": answers.evaluators[i],
        }
        yield json.dumps(record, ensure_ascii=True)


def write_scores(path: str | pathlib.Path, answers: ScoredAnswers) -> None:
    """Writes a file of scored answers; a file that is there stays until it is whole.

    Raises:
      ValueError: if the parts differ in length, or a score is not in [-1, 1].

    >>> import tempfile
    >>> answers = ScoredAnswers(["Hi"], ["Hello"], ["m"], np.zeros((1, 10)),
    ...                         np.full((1, 10, 3), np.nan), ["e"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_scores(folder + "/scores.jsonl", answers)
    ...     read_scores(folder + "/scores.jsonl").scores.shape
    (1, 10)
    """
    _checked(answers)
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".part")
    with half.open("w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in format_scores(answers))
    os.replace(half, path)


def read_scores(path: str | pathlib.Path) -> ScoredAnswers:
    """Reads a file that `write_scores` wrote.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a line is not what it should be; it names the line.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file of scores.")
    records = list(_records(path))
    column = lambda name: [record[name] for record in records]
    none = np.full((_V, 3), np.nan)
    probs = [none if p is None else p for p in column("probs")]
    return ScoredAnswers(
        column("prompt"),
        column("response"),
        column("model"),
        np.array(column("scores"), np.float32).reshape(-1, _V),
        np.array(probs, np.float32).reshape(-1, _V, 3),
        column("evaluator"),
    )


def score_record(line: str, place: str) -> dict[str, Any]:
    """The object of one line, checked.

    Raises:
      ValueError: if it is not what it should be; `place` is named.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError(f"{place}: is not valid JSON.") from None
    if not isinstance(record, dict) or any(name not in record for name in FIELDS):
        raise ValueError(f"{place}: should be an object with {', '.join(FIELDS)}.")
    for name in ("prompt", "response", "model", "evaluator"):
        if not isinstance(record[name], str):
            raise ValueError(f"{place}: {name} should be a text.")
    if not _numbers(record["scores"], _V, -1.0):
        raise ValueError(f"{place}: scores should be {_V} numbers in [-1, 1].")
    probs = record["probs"]
    rows = isinstance(probs, list) and len(probs) == _V
    if probs is not None and not (rows and all(_numbers(p, 3, 0.0) for p in probs)):
        raise ValueError(
            f"{place}: probs should be null, or {_V} times three numbers in [0, 1]."
        )
    return record


def _checked(answers: ScoredAnswers) -> tuple[np.ndarray, np.ndarray]:
    """Scores and probs in float64, if all parts fit together."""
    n = len(answers.prompts)
    for field, part in zip(answers._fields, answers, strict=True):
        if len(part) != n:
            raise ValueError(
                f"score_lines.write_scores: there are {n} prompts, but {len(part)} "
                f"{field}."
            )
    scores = np.asarray(answers.scores, np.float64)
    probs = np.asarray(answers.probs, np.float64)
    if scores.shape != (n, _V) or probs.shape != (n, _V, 3):
        raise ValueError(
            f"score_lines.write_scores: scores has shape {scores.shape} and probs "
            f"{probs.shape}; expected ({n}, {_V}) and ({n}, {_V}, 3)."
        )
    if not (np.abs(scores) <= 1.0).all():
        raise ValueError("score_lines.write_scores: a score is not in [-1, 1].")
    return scores, probs


def _records(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield score_record(line, f"{path}: line {number}")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not UTF-8.") from None


def _numbers(x: Any, n: int, least: float) -> bool:
    return (
        isinstance(x, Sequence)
        and not isinstance(x, str)
        and len(x) == n
        and all(type(y) in (int, float) and least <= y <= 1.0 for y in x)
    )
