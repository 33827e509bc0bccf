# SPDX-License-Identifier: Apache-2.0
"""Annotated files: one judgement a line, read into arrays.

A judgement says which label an annotator gave to one value of one item, in which pass:

    {"item": "r17", "value": "Power", "annotator": "Ann", "kind": "human", "label": -1}

`item` (text or whole number), `value` (one of `values.BASIC`, in any case),
`annotator`, `kind` ("human" or "llm"), `label` (-1, 0, 1, or null for no answer);
`pass` (a whole number from 0, which it is where left out), `source` and `prompt_id`
(text or null; without a prompt id every item is a prompt of its own). A .jsonl or .json
file holds one object a line, a .csv file a header with these names, an empty field
standing for null.

Lines that cannot be used are set aside with file, line, field and reason; none is
dropped in silence and none stops the reading.

Axes: M rows, one per pass of an annotator, N items, V values.
"""

import array
import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np

from fulcra_jax import values
from fulcra_jax.annotation.judgement_lines import (
    FIELDS,
    MISSING,
    Fault,
    pass_number,
    quoted,
    records,
    shown,
)

Kind = Literal["human", "llm"]
KINDS: tuple[Kind, ...] = ("human", "llm")
MOST_CELLS = 1 << 29
"""Rows x items x values of the largest table that is held in memory."""

_EVERY = 1 << 19  # lines between two calls of `progress`
_BASIC = {name.lower(): name for name in values.BASIC}
_NONE = -1
_LABELS: dict[tuple[type, Any], int] = {
    **{(kind, kind(label)): label + 1 for kind in (int, float) for label in (-1, 0, 1)},
    **{(str, text): int(float(text)) + 1 for text in ("-1", "-1.0", "0", "0.0", "1")},
    **{(str, text): 2 for text in ("1.0", "+1", "+1.0")},
    **{(str, text): _NONE for text in ("null", "none", "nan", "na")},
    (str, "\N{MINUS SIGN}1"): 0,
    (type(None), None): _NONE,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Judgements:
    """The usable judgements of a file. Humans come first, rows in order of passes."""

    file: str
    items: tuple[str, ...]
    values: tuple[str, ...]
    annotators: tuple[str, ...]
    kinds: tuple[Kind, ...]
    """Of the annotators."""
    row_annotator: np.ndarray
    """`[M]` int, an index into `annotators`."""
    row_pass: np.ndarray
    """`[M]` int, the number of the pass."""
    ratings: np.ndarray
    """`[M, N, V]` int8 class ids 0, 1, 2 of labels -1, 0, +1; -1 without a label."""
    asked: np.ndarray
    """`[M, N, V]` bool: there is a judgement, be it null."""
    sources: tuple[str, ...]
    """Of the items; "" where not given."""
    prompts: tuple[str, ...]
    """Of the items; the item itself where not given."""


@dataclasses.dataclass(frozen=True)
class Reject:
    """A line that could not be used, and why."""

    file: str
    line: int
    field: str
    reason: str
    text: str
    """The line as it stands in the file."""
    annotator: str = ""
    """Whose line it is; "" if that cannot be told."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.field}: {self.reason}"


def read_judgements(
    path: str | pathlib.Path,
    *,
    any_value: bool = False,
    progress: Callable[[int], None] | None = None,
) -> tuple[Judgements, list[Reject]]:
    """All usable judgements of a file, and the lines set aside.

    Args:
      path: a .jsonl, .json or .csv file in UTF-8.
      any_value: accept other value names than the ten of `values.BASIC`.
      progress: called with the number of lines read, now and then.

    Returns:
      The judgements, and the rejects in the order of the file. Of two judgements with
      the same item, value, annotator and pass the first counts; so does the first kind
      of an annotator and the first source and prompt id of an item.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file has another suffix, is empty or no UTF-8, a column is
        missing, or no line of it can be used.
    """
    path = pathlib.Path(path)
    collector = _Collector(any_value)
    rejects: list[Reject] = []
    name = shown(path.name)

    def set_aside(line: int, text: str, record: Any, field: str, reason: str) -> None:
        who = "" if isinstance(record, Fault) else record[FIELDS.index("annotator")]
        who = who.strip() if isinstance(who, str) else ""
        rejects.append(Reject(name, line, field, reason, text, who))

    for line, text, record in records(path):
        try:
            if isinstance(record, Fault):
                raise record
            collector.add(line, *record)
        except Fault as fault:
            set_aside(line, text, record, fault.field, fault.reason)
        if progress is not None and line % _EVERY == 0:
            progress(line)
    repeats = collector.repeats()
    if repeats:
        for line, text, record in records(path):
            if line in repeats:
                set_aside(line, text, record, "line", repeats[line])
        rejects.sort(key=lambda reject: reject.line)
    if not collector.lines and not rejects:
        raise ValueError(
            f"{shown(path)}: the file is empty; it should hold judgements."
        )
    if not collector.lines:
        raise ValueError(
            f"{shown(path)}: no line can be used ({len(rejects)} set aside); the first "
            f"is line {rejects[0].line}: {rejects[0].field}: {rejects[0].reason}"
        )
    return collector.judgements(path), rejects


def write_rejects(path: str | pathlib.Path, rejects: Iterable[Reject]) -> None:
    """Writes rejected lines as JSON lines: file, line, field, reason, text."""
    with pathlib.Path(path).open("w", encoding="utf-8") as file:
        for reject in rejects:
            fields = dataclasses.asdict(reject)
            del fields["annotator"]  # stands in the text
            entry = json.dumps(fields, ensure_ascii=False)
            # What is no character (half a surrogate pair) is written as its escape.
            file.write(entry.encode("utf-8", "backslashreplace").decode() + "\n")


class _Collector:
    """Names and numbers of what has been read so far, and the columns of judgements.

    A file of a million lines repeats few annotators, values and items: what a
    combination of raw fields stands for is kept, and most lines cost four look-ups.
    """

    def __init__(self, any_value: bool) -> None:
        self._any_value = any_value
        self._items: dict[str, int] = {}
        self._values: dict[str, int] = {}
        self._value_names: list[str] = []
        self._annotators: dict[str, int] = {}
        self._rows: dict[tuple[int, int], int] = {}
        self._unnumbered: set[int] = set()
        # What was said first, and on which line.
        self._kind: list[tuple[Kind, int]] = []
        self._source: dict[int, tuple[str, int]] = {}
        self._prompt: dict[int, tuple[str, int]] = {}
        self._item_of: dict[tuple, int] = {}
        self._row_of: dict[tuple, int] = {}
        self._value_of: dict[str, int] = {}
        self._row, self._item, self._value = (array.array("i") for _ in range(3))
        self._label, self.lines = array.array("b"), array.array("q")

    def add(
        self,
        line: int,
        item: Any,
        name: Any,
        annotator: Any,
        kind: Any,
        number: Any,
        label: Any,
        source: Any,
        prompt: Any,
    ) -> None:
        """Adds a judgement, or raises a `Fault` and leaves all as it was."""
        try:
            # With types, because True == 1 == 1.0 as a key.
            n = self._item_of[type(item), item, source, type(prompt), prompt]
            m = self._row_of[annotator, kind, type(number), number]
            v = self._value_of[name]
            k = _LABELS[type(label), label]
        except (KeyError, TypeError):  # new, wrong, or no key at all
            n, m, v, k = self._first(
                line, item, name, annotator, kind, number, label, source, prompt
            )
        self._item.append(n)
        self._row.append(m)
        self._value.append(v)
        self._label.append(k)
        self.lines.append(line)

    def _first(
        self,
        line: int,
        item: Any,
        name: Any,
        annotator: Any,
        kind: Any,
        number: Any,
        label: Any,
        source: Any,
        prompt: Any,
    ) -> tuple[int, int, int, int]:
        item_name = _name("item", item)
        value_name = self._value_name(name)
        who = _name("annotator", annotator, numbers=False)
        what = _kind(kind)
        turn = pass_number(number)
        k = _class(label)
        origin = None if source is None else _name("source", source, numbers=False)
        about = None if prompt is None else _name("prompt_id", prompt)
        a, n = self._annotators.get(who), self._items.get(item_name)
        if a is not None and self._kind[a][0] != what:
            said, where = self._kind[a]
            raise Fault(
                "kind",
                f"is {what}, but on line {where} annotator {quoted(who)} is {said}.",
            )
        if n is not None:
            _same("source", origin, self._source.get(n), item_name)
            _same("prompt_id", about, self._prompt.get(n), item_name)
        # Nothing is wrong: now it may leave traces.
        if a is None:
            a = self._annotators[who] = len(self._annotators)
            self._kind.append((what, line))
        n = self._items.setdefault(item_name, len(self._items))
        if origin is not None:
            self._source.setdefault(n, (origin, line))
        if about is not None:
            self._prompt.setdefault(n, (about, line))
        v = self._values.setdefault(value_name.lower(), len(self._values))
        if v == len(self._value_names):
            self._value_names.append(value_name)
        m = self._rows.setdefault((a, turn), len(self._rows))
        if what == "llm" and (number is None or number is MISSING):
            self._unnumbered.add(m)
        self._item_of[type(item), item, source, type(prompt), prompt] = n
        self._row_of[annotator, kind, type(number), number] = m
        self._value_of[name] = v
        return n, m, v, k

    def _value_name(self, name: Any) -> str:
        text = _name("value", name, numbers=False)
        if self._any_value:
            return _BASIC.get(text.lower(), text)
        if text.lower() not in _BASIC:
            raise Fault(
                "value",
                f"{quoted(text)} is unknown; known are: {', '.join(values.BASIC)} "
                "(--any-value accepts others).",
            )
        return _BASIC[text.lower()]

    def repeats(self) -> dict[int, str]:
        """The lines that repeat an earlier one, with reasons; they are taken out."""
        row, item, value = (
            np.frombuffer(x, np.int32) if len(x) else np.zeros(0, np.int32)
            for x in (self._row, self._item, self._value)
        )
        n, v = max(len(self._items), 1), max(len(self._values), 1)
        key = (row.astype(np.int64) * n + item) * v + value
        order = np.argsort(key, kind="stable")
        new = np.append(True, key[order][1:] != key[order][:-1])[: len(order)]
        first = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
        places, firsts = order[~new], order[first[~new]]
        found = {}
        for place, begun in zip(places.tolist(), firsts.tolist(), strict=True):
            said, before = (_SAID[self._label[i]] for i in (place, begun))
            reason = f"repeats line {self.lines[begun]}"
            if said != before:
                reason += f" and says {said} where that says {before}"
            if self._row[place] in self._unnumbered:
                reason += "; without pass it is pass 0: number the passes"
            found[self.lines[place]] = reason + "; the first counts."
        self._kept = np.ones(len(order), bool)
        self._kept[places] = False
        return found

    def judgements(self, path: pathlib.Path) -> Judgements:
        """Everything as arrays; `repeats` goes before."""
        names = self._value_names
        if all(name in values.BASIC for name in names):
            names = sorted(names, key=values.BASIC.index)
        value_place = np.array([names.index(name) for name in self._value_names])
        people = sorted(
            self._annotators.items(),
            key=lambda x: (KINDS.index(self._kind[x[1]][0]), x[1]),
        )
        place = {a: new for new, (_, a) in enumerate(people)}
        rows = sorted(self._rows, key=lambda x: (place[x[0]], x[1]))
        row_place = np.empty(len(rows), int)
        row_place[[self._rows[row] for row in rows]] = np.arange(len(rows))
        shape = (len(rows), len(self._items), len(names))
        if np.prod(shape, dtype=float) > MOST_CELLS:
            raise ValueError(
                f"{shown(path)}: {shape[0]} passes of annotators x {shape[1]} items x "
                f"{shape[2]} values are more than {MOST_CELLS} cells; split the file."
            )
        kept = self._kept
        at = (
            row_place[np.asarray(self._row)[kept]],
            np.asarray(self._item)[kept],
            value_place[np.asarray(self._value)[kept]],
        )
        ratings, asked = np.full(shape, _NONE, np.int8), np.zeros(shape, bool)
        ratings[at] = np.asarray(self._label)[kept]
        asked[at] = True
        nothing = ("", 0)
        return Judgements(
            file=shown(path.name),
            items=tuple(self._items),
            values=tuple(names),
            annotators=tuple(name for name, _ in people),
            kinds=tuple(self._kind[a][0] for _, a in people),
            row_annotator=np.array([place[a] for a, _ in rows]),
            row_pass=np.array([turn for _, turn in rows]),
            ratings=ratings,
            asked=asked,
            sources=tuple(
                self._source.get(n, nothing)[0] for n in range(len(self._items))
            ),
            prompts=tuple(
                self._prompt[n][0] if n in self._prompt else item
                for item, n in self._items.items()
            ),
        )


_SAID = {_NONE: "null", 0: "-1", 1: "0", 2: "+1"}


def _name(field: str, x: Any, *, numbers: bool = True) -> str:
    if numbers and type(x) is int:
        return str(x)
    if x is MISSING or x is None:
        raise Fault(field, "is missing.")
    if not isinstance(x, str):
        wanted = "text or a whole number" if numbers else "text"
        raise Fault(field, f"is {quoted(x)}; it should be {wanted}.")
    try:
        x.encode("utf-8")
    except UnicodeEncodeError:
        raise Fault(field, "holds half a character (a lone surrogate).") from None
    if not x.strip():
        raise Fault(field, "is empty.")
    return x.strip()


def _kind(x: Any) -> Kind:
    text = _name("kind", x, numbers=False).lower()
    for kind in KINDS:
        if text == kind:
            return kind
    raise Fault("kind", f"is {quoted(x)}; it should be human or llm.")


def _class(x: Any) -> int:
    if x is MISSING:
        raise Fault("label", "is missing; null says that there is no answer.")
    key = x.strip().lower() if isinstance(x, str) else x
    try:
        return _LABELS[type(key), key]
    except (KeyError, TypeError):
        raise Fault(
            "label", f"is {quoted(x)}; it should be -1, 0, 1 or null."
        ) from None


def _same(field: str, x: str | None, before: tuple[str, int] | None, item: str) -> None:
    if x is not None and before is not None and x != before[0]:
        raise Fault(
            field,
            f"is {quoted(x)}, but on line {before[1]} item {quoted(item)} has "
            f"{quoted(before[0])}.",
        )
