# SPDX-License-Identifier: Apache-2.0
"""FULCRA's row format: what is in a line, what is wrong with it, what it means.

A line is a JSON object with `dialogue` ("Human: ...\\nBob: ..."), `value_items`
(["be honest: +1", ...]), `value_types` (["benevolence: +1", ...]), `query_source` and
`response_source`. The release is messy; this reader accepts every spelling that occurs
there, masks what contradicts itself, and sets a row that it cannot understand aside
with file, line, field and reason. Nothing is dropped in silence.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, get_args

import numpy as np

from fulcra_jax import values

Conflict = Literal["mask", "sum_sign", "mean", "any_negative", "review", "both"]
Empty = Literal["unlabelled", "zero"]
Status = Literal["labelled", "unlabelled", "review"]
FIELDS = ("dialogue", "value_items", "value_types", "query_source", "response_source")

_DIALOGUE = re.compile(r"\s*Human:(?P<prompt>.*?)\n\s*Bob:(?P<response>.*)", re.DOTALL)
_SIGNS = {"1": 1, "+1": 1, "1+": 1, "=1": 1, "-1": -1, "0": 0, "+0": 0}


@dataclasses.dataclass(frozen=True)
class Policy:
    """How ambiguous labels are read."""

    conflict: Conflict = "mask"
    """What becomes of a value that one row labels both +1 and -1.

    mask: the cell does not count. sum_sign: the sign of the sum over the row's items of
    that value. mean: their mean, a fraction. any_negative: -1. review: masked, and the
    row gets the status "review". both: masked in the vector; `Row.types` keeps both
    labels, as the released code does (it always keeps them).
    """
    empty: Empty = "unlabelled"
    """A row with no label at all: not annotated, or all zero? The format cannot
    tell."""
    humility: values.Humility = "conformity"
    """The basic value that the type "humility" counts for."""

    def __post_init__(self) -> None:
        for field, known in (
            ("conflict", get_args(Conflict)),
            ("empty", get_args(Empty)),
            ("humility", get_args(values.Humility)),
        ):
            if getattr(self, field) not in known:
                raise ValueError(
                    f"rows.Policy: {field} is {getattr(self, field)!r}; it should be "
                    f"one of: {', '.join(known)}."
                )


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """One dialogue and its labels."""

    prompt: str
    response: str
    items: np.ndarray
    """`[54]` int8 in {-1, 0, 1}, in the order of `values.ITEMS`."""
    items_where: np.ndarray
    """`[54]` bool: False where the item is not labelled or contradicts itself."""
    labels: np.ndarray
    """`[10]` float32 in [-1, 1], in the order of `values.BASIC`; 0 is "no
    connection"."""
    where: np.ndarray
    """`[10]` bool: False where the cell does not count."""
    conflict: np.ndarray
    """`[10]` bool: both signs were given. A 0 by cancelling is not a 0 by silence."""
    types: tuple[tuple[str, int], ...]
    """The type labels as a list, in canonical names; both signs may stand in it."""
    status: Status
    query_source: str
    response_source: str
    file: str
    line: int
    teacher: np.ndarray | None = None
    """`[10]` float in [-1, 1]: another evaluator's scores, NaN where it gives none."""


@dataclasses.dataclass(frozen=True)
class Reject:
    """A line that could not be read, and why."""

    file: str
    line: int
    field: str
    reason: str
    text: str
    """The line as it stands in the file."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.field}: {self.reason}"


class RowError(ValueError):
    """A record that is not in FULCRA's format."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


def split_dialogue(dialogue: str) -> tuple[str, str]:
    """The prompt and the response of a dialogue "Human: ...\\nBob: ...".

    Raises:
      RowError: if a speaker or the response is missing.

    >>> split_dialogue("Human: May I lie?\\nBob: Better not.")
    ('May I lie?', 'Better not.')
    """
    match = _DIALOGUE.fullmatch(dialogue)
    if match is None:
        missing = "Human:" if "Human:" not in dialogue else "Bob:"
        raise RowError(
            "dialogue",
            f'has no line that starts with "{missing}"; it should be '
            '"Human: <prompt>\\nBob: <response>".',
        )
    prompt = check_text("dialogue", match["prompt"].strip())
    response = check_text("dialogue", match["response"].strip())
    if not response:
        raise RowError("dialogue", 'nothing follows "Bob:".')
    return prompt, response


def check_text(field: str, text: Any) -> str:
    """The text itself, if it is one that UTF-8 can write.

    Raises:
      RowError: if it is no string or holds half of a surrogate pair.
    """
    if not isinstance(text, str):
        raise RowError(field, f"is {text!r:.60}; it should be a string.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowError(
            field,
            f"holds half a character (a lone surrogate, {text[error.start]!r}).",
        ) from None
    return text


def parse_label(text: str) -> tuple[str, int]:
    """The name and the sign of a label such as "be honest: +1".

    Args:
      text: a name, a colon and one of "+1", "1", "1+", "=1", "-1", "0"; blanks are
      free.

    Returns:
      The name as written, stripped, and -1, 0 or 1.

    Raises:
      RowError: if there is no colon or the score is another one. `field` is "label".

    >>> parse_label("have wealth:1+")
    ('have wealth', 1)
    """
    name, colon, score = text.rpartition(":")
    sign = _SIGNS.get(re.sub(r"\s+", "", score).replace("\N{MINUS SIGN}", "-"))
    if not colon or not name.strip():
        raise RowError("label", f'{text!r} should be "name: score".')
    if sign is None:
        raise RowError(
            "label",
            f"{text!r} has the score {score.strip()!r}; it should be +1, -1 or 0.",
        )
    return name.strip(), sign


def parse_record(
    record: Mapping[str, Any],
    policy: Policy = Policy(),
    *,
    file: str = "",
    line: int = 0,
) -> Row:
    """One record of FULCRA's format as a row.

    Args:
      record: the decoded JSON object.
      policy: how ambiguous labels are read.
      file: name of the file, kept in the row.
      line: line number from 1, kept in the row.

    Returns:
      The row. Type labels come from `value_types`; if that list is empty and items are
      given, from the items, as the release derives them.

    Raises:
      RowError: if a field is missing or malformed; it names the field.

    >>> row = parse_record({"dialogue": "Human: Hi\\nBob: Hello", "value_items": [],
    ...                     "value_types": ["benevolence: +1"]})
    >>> row.labels.astype(int).tolist()
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 0]
    """
    if not isinstance(record, Mapping):
        raise RowError("line", f"is a JSON {type(record).__name__}, not an object.")
    dialogue = record.get("dialogue")
    if not isinstance(dialogue, str):
        raise RowError("dialogue", "is missing or no string.")
    prompt, response = split_dialogue(dialogue)
    if "value_types" not in record and "value_items" not in record:
        raise RowError("value_types", "is missing, and so is value_items.")
    item_labels = _labels(record, "value_items")
    item_signs, item_values = _read_items(item_labels)
    types = _read_types(_labels(record, "value_types"), policy)
    if not types:
        types = tuple(sorted({(value, sign) for value, sign in item_values}))
    labelled = bool(types) or bool(item_labels) or policy.empty == "zero"

    items = np.zeros(len(values.ITEMS), np.int8)
    items_told = labelled and (bool(item_labels) or not types)
    items_where = np.full(len(values.ITEMS), items_told)
    for item, signs in item_signs.items():
        column = values.ITEMS.index(item)
        nonzero = signs - {0}
        if len(nonzero) > 1:
            items_where[column] = False
        elif nonzero:
            items[column] = next(iter(nonzero))

    labels = np.zeros(len(values.BASIC), np.float32)
    where = np.full(len(values.BASIC), labelled)
    conflict = np.zeros(len(values.BASIC), bool)
    for column, value in enumerate(values.BASIC):
        signs = {sign for name, sign in types if name == value} - {0}
        if len(signs) == 2:
            votes = [sign for name, sign in item_values if name == value]
            labels[column], where[column] = _settle(votes, policy.conflict)
            conflict[column] = True
        elif signs:
            labels[column] = next(iter(signs))
    status: Status = "labelled" if labelled else "unlabelled"
    if policy.conflict == "review" and conflict.any():
        status = "review"
    return Row(
        prompt=prompt,
        response=response,
        items=items,
        items_where=items_where,
        labels=labels,
        where=where,
        conflict=conflict,
        types=types,
        status=status,
        query_source=str(record.get("query_source", "")),
        response_source=str(record.get("response_source", "")),
        file=file,
        line=line,
    )


def read_rows(
    path: str | pathlib.Path, policy: Policy = Policy()
) -> tuple[list[Row], list[Reject]]:
    """All rows of a file in FULCRA's format, and the lines that are none.

    Args:
      path: a .jsonl file, UTF-8, one object a line; blank lines are skipped.
      policy: how ambiguous labels are read.

    Returns:
      The rows in file order, and the rejected lines with their reasons.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file holds no line at all.
    """
    path = pathlib.Path(path)
    rows: list[Row] = []
    rejects: list[Reject] = []
    for number, raw in lines_of(path):
        text = raw.decode("utf-8", "backslashreplace")
        try:
            record = json.loads(raw.decode("utf-8"))
            rows.append(parse_record(record, policy, file=path.name, line=number))
        except UnicodeDecodeError as error:
            reason = f"is not UTF-8 (byte {error.start})."
            rejects.append(Reject(path.name, number, "line", reason, text))
        except json.JSONDecodeError as error:
            reason = f"is no JSON ({error.msg} at column {error.colno})."
            rejects.append(Reject(path.name, number, "line", reason, text))
        except RecursionError:
            reason = "is JSON nested too deeply."
            rejects.append(Reject(path.name, number, "line", reason, text))
        except RowError as error:
            rejects.append(Reject(path.name, number, error.field, error.reason, text))
        except ValueError as error:
            reason = f"cannot be decoded ({str(error).split(';')[0]:.80})."
            rejects.append(Reject(path.name, number, "line", reason, text))
    if not rows and not rejects:
        raise ValueError(f"{path}: the file is empty; it should hold one row a line.")
    return rows, rejects


def lines_of(path: pathlib.Path) -> Iterator[tuple[int, bytes]]:
    """The non-blank lines of a file with their numbers from 1.

    Raises:
      FileNotFoundError: if there is no such file.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path}: {what}; a .jsonl file is needed here.")
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            raw = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            if raw.strip():
                yield number, raw.rstrip(b"\r\n")


def write_rejects(path: str | pathlib.Path, rejects: Iterable[Reject]) -> None:
    """Writes rejected lines as JSON lines: file, line, field, reason, text.

    Raises:
      FileExistsError: if the file exists; nothing is overwritten.
    """
    with pathlib.Path(path).open("x", encoding="utf-8") as file:
        for reject in rejects:
            line = json.dumps(dataclasses.asdict(reject), ensure_ascii=False)
            file.write(line + "\n")


def _labels(record: Mapping[str, Any], field: str) -> list[tuple[str, int]]:
    labels = record.get(field, [])
    if not isinstance(labels, list):
        raise RowError(field, f"is {labels!r:.60}; it should be a list of strings.")
    parsed = []
    for label in labels:
        if not isinstance(label, str):
            raise RowError(field, f"holds {label!r:.60}; it should hold strings.")
        try:
            parsed.append(parse_label(label))
        except RowError as error:
            raise RowError(field, error.reason) from None
    return parsed


def _read_items(
    labels: list[tuple[str, int]],
) -> tuple[dict[str, set[int]], list[tuple[str, int]]]:
    """Signs by canonical item, and (basic value, sign) of every item label."""
    signs: dict[str, set[int]] = {}
    by_value: list[tuple[str, int]] = []
    for name, sign in labels:
        spelled = re.sub(r"\s+", " ", name.lower())
        if spelled in values.EXTRA_ITEMS:
            by_value.append((values.EXTRA_ITEMS[spelled], sign))
            continue
        try:
            item = values.canonical_item(name)
        except KeyError as error:
            raise RowError("value_items", _sentence(error)) from None
        signs.setdefault(item, set()).add(sign)
        column = int(values.ITEM_TO_BASIC[values.ITEMS.index(item)].argmax())
        by_value.append((values.BASIC[column], sign))
    return signs, by_value


def _read_types(
    labels: list[tuple[str, int]], policy: Policy
) -> tuple[tuple[str, int], ...]:
    types: dict[tuple[str, int], None] = {}
    for name, sign in labels:
        try:
            value = values.canonical_value(name, humility=policy.humility)
        except KeyError as error:
            raise RowError("value_types", _sentence(error)) from None
        types[value, sign] = None
    return tuple(types)


def _settle(votes: list[int], conflict: Conflict) -> tuple[float, bool]:
    """Label and whether it counts, for a value with both signs."""
    if conflict == "sum_sign":
        return float(np.sign(sum(votes))), True
    if conflict == "mean":
        return float(np.mean(votes)) if votes else 0.0, True
    if conflict == "any_negative":
        return -1.0, True
    return 0.0, False


def _sentence(error: KeyError) -> str:
    return str(error.args[0]).split(": ", 1)[1]
