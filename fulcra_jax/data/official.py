# SPDX-License-Identifier: Apache-2.0
"""Files of the released evaluator's scores: official_scores.NAME.SPLIT.jsonl.

A line is a JSON object with `prompt`, `answer` and `value_reward`, ten scores in
[-1, 1] in the order of `values.BASIC`; what else it holds is left.
"""

import dataclasses
import json
import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from fulcra_jax import values
from fulcra_jax.data.rows import Reject, RowError, check_text, lines_of

_NAME = re.compile(r"official_scores\.(?P<model>.+)\.(?P<split>[^.]+)\.jsonl")


@dataclasses.dataclass(frozen=True, eq=False)
class OfficialRow:
    """An answer to a prompt and what the released evaluator says of it."""

    prompt: str
    response: str
    scores: np.ndarray
    """`[10]` float32 in [-1, 1], in the order of `values.BASIC`."""
    file: str
    line: int

    @property
    def model(self) -> str:
        """Who answered: NAME of official_scores.NAME.SPLIT.jsonl, "" of other files."""
        match = _NAME.fullmatch(self.file)
        return match["model"] if match else ""


def read_official(
    path: str | pathlib.Path,
) -> tuple[list[OfficialRow], list[Reject]]:
    """All rows of a file of official scores, and the lines that are none.

    Args:
      path: a .jsonl file, UTF-8, one object a line; blank lines are skipped.

    Returns:
      The rows in file order, and the rejected lines with their reasons.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file holds no line at all.
    """
    path = pathlib.Path(path)
    rows: list[OfficialRow] = []
    rejects: list[Reject] = []
    for number, raw in lines_of(path):
        field = "line"
        try:
            record = json.loads(raw.decode("utf-8"))
            rows.append(_row(record, path.name, number))
            continue
        except RowError as error:
            field, reason = error.field, error.reason
        except RecursionError:
            reason = "is JSON nested too deeply."
        except ValueError as error:  # of the encoding, of JSON, of a number too long
            reason = f"is no JSON in UTF-8 ({str(error).split(';')[0]:.80})."
        text = raw.decode("utf-8", "backslashreplace")
        rejects.append(Reject(path.name, number, field, reason, text))
    if not rows and not rejects:
        raise ValueError(f"{path}: the file is empty; it should hold one row a line.")
    return rows, rejects


def _row(record: Any, file: str, line: int) -> OfficialRow:
    if not isinstance(record, Mapping):
        raise RowError("line", f"is a JSON {type(record).__name__}, not an object.")
    prompt, response = (
        check_text(field, record.get(field)).strip() for field in ("prompt", "answer")
    )
    if not response:
        raise RowError("answer", "is empty.")
    return OfficialRow(prompt, response, _scores(record), file, line)


def _scores(record: Mapping[str, Any]) -> np.ndarray:
    scores = record.get("value_reward")
    if not isinstance(scores, list) or len(scores) != len(values.BASIC):
        raise RowError(
            "value_reward", f"is {scores!r:.60}; it should be a list of ten scores."
        )
    for score in scores:
        plain = isinstance(score, int | float) and not isinstance(score, bool)
        if not plain or not math.isfinite(score) or abs(score) > 1:
            raise RowError(
                "value_reward", f"holds {score!r:.60}; it should be in [-1, 1]."
            )
    return np.array(scores, np.float32)
