# SPDX-License-Identifier: Apache-2.0
"""The lines of an annotated file, as JSON objects or CSV rows; see `judgements`."""

import csv
import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

FIELDS = (
    "item", "value", "annotator", "kind", "pass", "label", "source", "prompt_id",
)  # fmt: skip
REQUIRED = ("item", "value", "annotator", "kind", "label")
SUFFIXES = (".jsonl", ".json", ".csv")
MISSING = object()
"""Of a field that is not there; null is None."""


class Fault(Exception):
    """What is wrong with a line."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field, self.reason = field, reason


def records(path: pathlib.Path) -> Iterator[tuple[int, str, Any]]:
    """Line number, text, and the raw fields in the order of `FIELDS` or a `Fault`.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the suffix is unknown, the file is no UTF-8 or a column is missing.
    """
    _check_file(path)
    made = _csv_records if path.suffix.lower() == ".csv" else _json_records
    line = 0
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for line, text, record in made(path, file):
                yield line, text, record
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: is not UTF-8 (byte 0x{error.object[error.start]:02x} after line "
            f"{line}); save the file as UTF-8."
        ) from None


def _check_file(path: pathlib.Path) -> None:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(
            f"{path}: {what}; a file of judgements ({', '.join(SUFFIXES)}) is needed."
        )
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"{path}: the suffix {path.suffix!r} is unknown; known are: "
            f"{', '.join(SUFFIXES)}."
        )


def _json_records(
    path: pathlib.Path, file: Iterable[str]
) -> Iterator[tuple[int, str, Any]]:
    begun = False
    for line, text in enumerate(file, 1):
        text = text.rstrip("\r\n")
        if not text or text.isspace():
            continue
        if not begun and path.suffix.lower() == ".json" and text.lstrip()[0] == "[":
            raise ValueError(
                f"{path}: holds a JSON list; it should hold one object per line "
                "(JSONL)."
            )
        begun = True
        record: Any
        try:
            fields = json.loads(text)
        except json.JSONDecodeError as error:
            what = error.msg.removesuffix(" at")
            record = Fault(
                "line", f"is not valid JSON ({what} at column {error.colno})."
            )
        except (ValueError, RecursionError):
            record = Fault("line", "is JSON that cannot be decoded.")
        else:
            if type(fields) is dict:
                get = fields.get
                record = (
                    get("item", MISSING),
                    get("value", MISSING),
                    get("annotator", MISSING),
                    get("kind", MISSING),
                    get("pass"),
                    get("label", MISSING),
                    get("source"),
                    get("prompt_id"),
                )
            else:
                record = Fault("line", f"is a JSON {type(fields).__name__}, no object.")
        yield line, text, record


def _csv_records(
    path: pathlib.Path, file: Iterable[str]
) -> Iterator[tuple[int, str, Any]]:
    header: list[str] | None = None
    place: dict[str, int] = {}
    # Line by line: no field holds a line break, and a stray quote must not eat the
    # lines after it.
    for line, text in enumerate(file, 1):
        text = text.rstrip("\r\n")
        try:
            cells = next(csv.reader([text], strict=True), [])
        except csv.Error as error:
            cells = Fault("line", f"is no CSV ({error}).")
        if isinstance(cells, list) and not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = [] if isinstance(cells, Fault) else [c.strip() for c in cells]
            place = _columns(path, header)
            continue
        if isinstance(cells, list) and len(cells) != len(header):
            cells = Fault(
                "line", f"has {len(cells)} fields, the header has {len(header)}."
            )
        if isinstance(cells, Fault):
            yield line, text, cells
        else:
            raw = (cells[place[f]].strip() if f in place else "" for f in FIELDS)
            yield line, text, tuple(field or None for field in raw)


def _columns(path: pathlib.Path, header: list[str]) -> dict[str, int]:
    lower = [name.lower() for name in header]
    missing = [field for field in REQUIRED if field not in lower]
    if missing:
        advice = ""
        if len(header) == 1 and ";" in header[0]:
            advice = " Separate the fields by commas, not by semicolons."
        raise ValueError(
            f"{path}: the header has no column {', '.join(missing)}; it has "
            f"{', '.join(header)}.{advice}"
        )
    twice = sorted({field for field in FIELDS if lower.count(field) > 1})
    if twice:
        raise ValueError(f"{path}: the header has {', '.join(twice)} more than once.")
    return {field: lower.index(field) for field in FIELDS if field in lower}


def pass_number(x: Any) -> int:
    """The number of a pass from its raw field; 0 where it is left out."""
    if x is None or x is MISSING:
        return 0
    whole = x
    if isinstance(x, str) and x.strip().removesuffix(".0").isdecimal():
        whole = int(x.strip().removesuffix(".0"))
    elif isinstance(x, float) and x.is_integer():
        whole = int(x)
    if type(whole) is not int or whole < 0:
        raise Fault("pass", f"is {x!r:.60}; it should be a whole number from 0.")
    return whole
