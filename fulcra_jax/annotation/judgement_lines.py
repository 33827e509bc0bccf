# SPDX-License-Identifier: Apache-2.0
"""The lines of an annotated file, as JSON objects or CSV rows; see `judgements`."""

import csv
import json
import pathlib
import re
import reprlib
from collections.abc import Iterable, Iterator
from typing import Any

FIELDS = (
    "item", "value", "annotator", "kind", "pass", "label", "source", "prompt_id",
)  # fmt: skip
REQUIRED = ("item", "value", "annotator", "kind", "label")
SUFFIXES = (".jsonl", ".json", ".csv")
MISSING = object()
"""Of a field that is not there; null is None."""
MOST_PASS = (1 << 31) - 1
"""The largest number of a pass."""

_LISTED = 20  # names of columns in a message
_UNDECODED = re.compile("[\udc80-\udcff]")
_QUOTE = reprlib.Repr()
_QUOTE.maxstring = _QUOTE.maxlong = _QUOTE.maxother = 60
_QUOTE.maxlevel = 3


class Fault(Exception):
    """What is wrong with a line."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field, self.reason = field, reason


def quoted(x: Any) -> str:
    """What stands in a field, for a message: short, and safe to print and encode.

    >>> print(quoted("Ann"), quoted("\\ud800"), len(quoted("x" * 1000)))
    'Ann' '\\ud800' 60
    """
    return _QUOTE.repr(x)


def shown(text: object, most: int = 400) -> str:
    """A path or name without quotes, for a message: one line, short, safe to print.

    >>> shown("a\\udce9\\x1b[2J.csv"), shown("abcdefghij", 7)
    ('a\\\\udce9\\\\x1b[2J.csv', 'abc…hij')
    """
    plain = str(text)
    if len(plain) > most:
        plain = plain[: most // 2] + "…" + plain[len(plain) - most // 2 :]
    return "".join(
        c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in plain
    )


def records(path: pathlib.Path) -> Iterator[tuple[int, str, Any]]:
    """Line number, text, and the raw fields in the order of `FIELDS` or a `Fault`.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the suffix is unknown, the file is no UTF-8 or a column is missing.
    """
    _check_file(path)
    made = _csv_records if path.suffix.lower() == ".csv" else _json_records
    try:
        # Lines end at \n, \r\n or \r.
        with path.open(encoding="utf-8-sig") as file:
            yield from made(path, file)
    except UnicodeDecodeError:
        # The decoder reads ahead and does not know the line.
        line, byte = _first_undecoded(path)
        raise ValueError(
            f"{shown(path)}: is not UTF-8 (byte 0x{byte:02x} on line {line}); save the "
            "file as UTF-8."
        ) from None


def _first_undecoded(path: pathlib.Path) -> tuple[int, int]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for line, text in enumerate(file, 1):
            found = None if text.isascii() else _UNDECODED.search(text)
            if found:
                return line, ord(found.group()) - 0xDC00
    return 0, 0


def _check_file(path: pathlib.Path) -> None:
    if not path.is_file():
        what = "is no ordinary file" if path.exists() else "does not exist"
        what = "is a folder" if path.is_dir() else what
        raise FileNotFoundError(
            f"{shown(path)}: {what}; a file of judgements ({', '.join(SUFFIXES)}) is "
            "needed."
        )
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"{shown(path)}: the suffix {quoted(path.suffix)} is unknown; known are: "
            f"{', '.join(SUFFIXES)}."
        )


def unused_fields(path: pathlib.Path) -> tuple[str, ...]:
    """Columns of a .csv file, or fields of the first object of another, not read."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = next((text for text in file if not text.isspace()), "")
    try:
        if path.suffix.lower() == ".csv":
            names = [cell.strip() for cell in next(csv.reader([first]), [])]
            return tuple(name for name in names if name.lower() not in FIELDS)
        fields = json.loads(first)
    except (csv.Error, ValueError, RecursionError):
        return ()
    return tuple(x for x in fields if x not in FIELDS) if type(fields) is dict else ()


def _json_records(
    path: pathlib.Path, file: Iterable[str]
) -> Iterator[tuple[int, str, Any]]:
    begun = False
    for line, text in enumerate(file, 1):
        text = text.rstrip("\n")
        if not text or text.isspace():
            continue
        if not begun and path.suffix.lower() == ".json" and text.lstrip()[0] == "[":
            raise ValueError(
                f"{shown(path)}: holds a JSON list; it should hold one object per line "
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
        text = text.rstrip("\n")
        try:
            cells = next(csv.reader([text], strict=True), [])
        except csv.Error as error:
            cells = Fault("line", f"is no CSV ({error}).")
        if isinstance(cells, list) and not any(cell.strip() for cell in cells):
            continue
        if header is None:
            if isinstance(cells, Fault):
                raise ValueError(
                    f"{shown(path)}: line {line}, the header, {cells.reason}"
                )
            header = [cell.strip() for cell in cells]
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
        for sign, plural in ((";", "semicolons"), ("\t", "tabs")):
            if len(header) == 1 and sign in header[0]:
                advice = f" Separate the fields by commas, not by {plural}."
        listed = ", ".join(shown(name, 40) for name in header[:_LISTED])
        if len(header) > _LISTED:
            listed += f" and {len(header) - _LISTED} others"
        raise ValueError(
            f"{shown(path)}: the header has no column {', '.join(missing)}; it has "
            f"{listed}.{advice}"
        )
    twice = sorted({field for field in FIELDS if lower.count(field) > 1})
    if twice:
        raise ValueError(
            f"{shown(path)}: the header has {', '.join(twice)} more than once."
        )
    return {field: lower.index(field) for field in FIELDS if field in lower}


def pass_number(x: Any) -> int:
    """The number of a pass from its raw field; 0 where it is left out."""
    if x is None or x is MISSING:
        return 0
    whole = x
    if isinstance(x, str):
        digits = x.strip().removesuffix(".0")
        # Python refuses to convert thousands of digits.
        if digits.isdecimal() and len(digits) <= len(str(MOST_PASS)):
            whole = int(digits)
    elif isinstance(x, float) and x.is_integer():
        whole = int(x)
    if type(whole) is not int or not 0 <= whole <= MOST_PASS:
        raise Fault(
            "pass",
            f"is {quoted(x)}; it should be a whole number from 0 to {MOST_PASS}.",
        )
    return whole
