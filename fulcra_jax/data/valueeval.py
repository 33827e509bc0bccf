# SPDX-License-Identifier: Apache-2.0
"""ValueEval'23: arguments with twenty value categories, each there (1) or not (0).

A split is a pair of tab-separated files with a header: arguments-SPLIT.tsv (Argument
ID, Conclusion, Stance, Premise) and labels-SPLIT.tsv (Argument ID and a column for each
category); rows belong together by Argument ID. A split without a file of labels has
unlabelled rows. A quotation mark is a character like any other. A line that cannot be
understood is set aside with file, line and reason.
"""

import dataclasses
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from fulcra_jax import values
from fulcra_jax.data.rows import Reject, Row, RowError, check_text, lines_of

DEFINITIONS: dict[str, str] = {
    "Self-direction: thought": "freedom to form one's own ideas, curiosity, creativity",
    "Self-direction: action": "freedom to choose one's own goals and ways, privacy",
    "Stimulation": "excitement, novelty, change and daring",
    "Hedonism": "pleasure and enjoyment for oneself",
    "Achievement": "success and ability that others recognise, ambition, intellect",
    "Power: dominance": "influence, authority and command over other people",
    "Power: resources": "control of wealth and of material things",
    "Face": "a good reputation, not being humiliated",
    "Security: personal": "health, safety and comfort of oneself and one's family",
    "Security: societal": "a safe country and a stable society",
    "Tradition": "keeping the customs of one's culture, family or religion",
    "Conformity: rules": "obeying laws, rules and duties, self-discipline",
    "Conformity: interpersonal": "politeness, not upsetting or harming others",
    "Humility": "modesty, accepting one's part in life",
    "Benevolence: caring": "devotion to the welfare of those one is close to, honesty",
    "Benevolence: dependability": "being a reliable and trustworthy friend or member",
    "Universalism: concern": "equality, justice and protection for all people, peace",
    "Universalism: nature": "protection of the environment and harmony with nature",
    "Universalism: tolerance": "accepting and understanding those who are different",
    "Universalism: objectivity": "seeking the truth, thinking rationally and unbiased",
}
"""One line per category, in our words; heads that read definitions read these."""

CATEGORIES: tuple[str, ...] = tuple(DEFINITIONS)
"""The twenty categories as they stand in the files, in their order."""

REFINED: dict[str, str] = {
    name: name.replace(": ", "-")
    for name in CATEGORIES
    if name.replace(": ", "-") in values.REFINED
}
"""Category -> the refined value that it is; "Universalism: objectivity" is none."""

STANCES = ("in favor of", "against")
SPLITS = {"training": "train", "validation": "dev", "test": "test"}
"""Name of a split in its files -> name here."""

_ID = "Argument ID"
_TEXTS = ("Conclusion", "Stance", "Premise")
_FILE = re.compile(r"arguments-(?P<split>.+)\.tsv")


@dataclasses.dataclass(frozen=True)
class ValueEval:
    """ValueEval'23: a folder of arguments-SPLIT.tsv and labels-SPLIT.tsv."""

    path: str = ""
    """SPLIT is training, validation or test; files of other splits are left alone."""


@dataclasses.dataclass(frozen=True, eq=False)
class Argument(Row):
    """An argument as a row: the prompt is stance and conclusion, the response the
    premise.

    `labels` and `where` are `[20]` in the order of `CATEGORIES`, labels 0 or 1. It has
    no items.
    """

    argument_id: str = ""
    conclusion: str = ""
    stance: str = ""


def read_splits(
    source: ValueEval,
) -> tuple[dict[str, list[Row]], list[Reject], list[str]]:
    """The rows of all splits of a folder.

    Returns:
      Rows by "train", "dev" and "test"; the lines that were set aside; one sentence
      each on what was used, left and found.

    Raises:
      FileNotFoundError: if the folder does not exist.
      ValueError: if it is a file, a split that is needed has no labelled row, or a
        file's header lacks a column.
    """
    folder = pathlib.Path(source.path)
    if not source.path or not folder.exists():
        raise FileNotFoundError(
            f"data: {source.path or '(no path)'} does not exist; give a folder of "
            "arguments-SPLIT.tsv and labels-SPLIT.tsv."
        )
    if not folder.is_dir():
        raise ValueError(
            f"data: {folder} is a file; give its folder, so that there is a split to "
            "train on and one to look at."
        )
    rows: dict[str, list[Row]] = {split: [] for split in SPLITS.values()}
    rejects: list[Reject] = []
    notes: list[str] = []
    left = []
    for path in sorted(folder.glob("arguments-*.tsv")):
        match = _FILE.fullmatch(path.name)
        if match is None or match["split"] not in SPLITS:
            left.append(path.name)
            continue
        found, bad, said = read_file(path)
        rows[SPLITS[match["split"]]] += found
        rejects += bad
        notes += [f"{path.name}: {len(found)} arguments, used as "
                  f"{SPLITS[match['split']]}", *said]  # fmt: skip
    if left:
        notes.append(f"left alone ({len(left)}): {', '.join(left)}")
    if rejects:
        notes.append(f"{len(rejects)} lines set aside; the first is {rejects[0]}")
    for name in ("training", "validation"):
        if not any(row.where.any() for row in rows[SPLITS[name]]):
            raise ValueError(
                f"{folder}: there is no labelled argument to use as {SPLITS[name]}; it "
                f"should have arguments-{name}.tsv and labels-{name}.tsv"
                + (f" (set aside: {rejects[0]})." if rejects else ".")
            )
    train, dev = (
        {row.prompt.lower() for row in rows[name]} for name in ("train", "dev")
    )
    if train & dev:
        notes.append(
            f"{len(train & dev)} conclusions of dev are also argued in train, with the "
            "same stance"
        )
    return rows, rejects, notes


def read_file(
    path: str | pathlib.Path,
) -> tuple[list[Row], list[Reject], list[str]]:
    """The arguments of one file, with the labels of the file beside it.

    Args:
      path: arguments-SPLIT.tsv; labels-SPLIT.tsv is looked for in the same folder.

    Returns:
      Rows in the order of the file, the lines of both files that were set aside, and
      one sentence each on what is particular. A row without labels does not count
      anywhere.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is not named so, is empty, or a header lacks a column.
    """
    path = pathlib.Path(path)
    match = _FILE.fullmatch(path.name)
    if match is None:
        raise ValueError(
            f"{path}: should be named arguments-SPLIT.tsv, with labels-SPLIT.tsv "
            "beside it."
        )
    rejects: list[Reject] = []
    rows: dict[str, Argument] = {}
    surplus: list[str] = []
    for number, text, cells in _table(path, (_ID, *_TEXTS), rejects, surplus):
        try:
            row = _argument(cells, path.name, number)
            if row.argument_id in rows:
                raise RowError(
                    _ID,
                    f"{row.argument_id!r} stands in line {rows[row.argument_id].line} "
                    "already; the first line counts.",
                )
            rows[row.argument_id] = row
        except RowError as error:
            rejects.append(Reject(path.name, number, error.field, error.reason, text))
    labels_path = path.with_name(f"labels-{match['split']}.tsv")
    notes = _surplus(path, surplus)
    if not labels_path.is_file():
        notes.append(
            f"{labels_path.name}: does not exist, so none of its arguments has a label"
        )
        return list(rows.values()), rejects, notes
    labels, more = read_labels(labels_path, set(rows) | _ids(rejects), surplus := [])
    notes += _surplus(labels_path, surplus)
    made: list[Row] = []
    for name, row in rows.items():
        if name in labels:
            row = dataclasses.replace(
                row,
                labels=labels[name],
                where=np.ones(len(CATEGORIES), bool),
                status="labelled",
            )
        made.append(row)
    missing = len(set(rows) - set(labels))
    if missing:
        notes.append(f"{labels_path.name}: {missing} arguments have no line there")
    return made, rejects + more, notes


def read_labels(
    path: str | pathlib.Path,
    known: Iterable[str] | None = None,
    surplus: list[str] | None = None,
) -> tuple[dict[str, np.ndarray], list[Reject]]:
    """A file of labels, or of predictions in the same format.

    Args:
      path: tab-separated; the columns may stand in any order.
      known: the ids that may occur; None allows all.
      surplus: is given the names of columns that are no category.

    Returns:
      Argument ID -> `[20]` float32 of 0 and 1 in the order of `CATEGORIES`, and the
      lines that were set aside.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is empty or its header lacks a category.
    """
    path = pathlib.Path(path)
    known = None if known is None else set(known)
    rejects: list[Reject] = []
    labels: dict[str, np.ndarray] = {}
    lines: dict[str, int] = {}
    surplus = [] if surplus is None else surplus
    for number, text, cells in _table(path, (_ID, *CATEGORIES), rejects, surplus):
        try:
            name = _filled(cells, _ID)
            if name in labels:
                raise RowError(
                    _ID,
                    f"{name!r} stands in line {lines[name]} already; the first line "
                    "counts.",
                )
            if known is not None and name not in known:
                raise RowError(_ID, f"{name!r} is no argument of this split.")
            for category in CATEGORIES:
                if cells[category] not in ("0", "1"):
                    raise RowError(
                        category, f"is {cells[category]!r:.40}; it should be 0 or 1."
                    )
            labels[name] = np.array([cells[c] == "1" for c in CATEGORIES], np.float32)
            lines[name] = number
        except RowError as error:
            rejects.append(Reject(path.name, number, error.field, error.reason, text))
    return labels, rejects


def write_labels(
    path: str | pathlib.Path, ids: Sequence[str], there: np.ndarray
) -> None:
    """Writes labels or predictions as a labels-SPLIT.tsv holds them.

    Args:
      path: of the file; one that is there is replaced.
      ids: N Argument IDs.
      there: `[N, 20]` of 0 and 1, or bool, in the order of `CATEGORIES`.

    Raises:
      ValueError: if the shape is another.
    """
    if there.shape != (len(ids), len(CATEGORIES)):
        raise ValueError(
            f"valueeval.write_labels: there has shape {there.shape}; expected "
            f"[{len(ids)}, {len(CATEGORIES)}], a row for each id."
        )
    lines = ["\t".join((_ID, *CATEGORIES))]
    lines += [
        "\t".join((name, *(str(int(cell)) for cell in row)))
        for name, row in zip(ids, there, strict=True)
    ]
    pathlib.Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _table(
    path: pathlib.Path,
    needed: Sequence[str],
    rejects: list[Reject],
    surplus: list[str],
) -> Iterator[tuple[int, str, dict[str, str]]]:
    """Line number, text and cells by column of every line that fits the header."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path}: {what}; a .tsv file is needed here.")
    header: list[str] = []
    for number, raw in lines_of(path):
        text = raw.decode("utf-8", "backslashreplace")
        cells = text.split("\t")
        if not header:
            header = [cell.strip() for cell in cells]
            missing = [name for name in needed if name not in header]
            if missing:
                raise ValueError(
                    f"{path}:{number}: the header lacks {', '.join(missing)}; it has "
                    f"{', '.join(header)!r:.200}, and should have tabs between: "
                    f"{', '.join(needed)}."
                )
            twice = [name for name in needed if header.count(name) > 1]
            if twice:
                raise ValueError(
                    f"{path}:{number}: the header has {', '.join(twice)} more than "
                    "once."
                )
            surplus += [name for name in header if name not in needed]
            continue
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError as error:
            reason = f"is not UTF-8 (byte {error.start})."
            rejects.append(Reject(path.name, number, "line", reason, text))
            continue
        if len(cells) != len(header):
            reason = f"has {len(cells)} columns; the header has {len(header)}."
            rejects.append(Reject(path.name, number, "line", reason, text))
            continue
        yield number, text, dict(zip(header, map(str.strip, cells), strict=True))
    if not header:
        raise ValueError(
            f"{path}: the file is empty; it should begin with the header "
            f"{', '.join(needed)}."
        )


def _argument(cells: dict[str, str], file: str, line: int) -> Argument:
    """An unlabelled row of a line's cells."""
    name = _filled(cells, _ID)
    conclusion, premise = _filled(cells, "Conclusion"), _filled(cells, "Premise")
    stance = re.sub(r"\s+", " ", cells["Stance"].lower()).replace("favour", "favor")
    if stance not in STANCES:
        raise RowError(
            "Stance",
            f"is {cells['Stance']!r:.40}; it should be {' or '.join(STANCES)}.",
        )
    nothing = np.zeros(len(CATEGORIES), bool)
    return Argument(
        prompt=f"{stance}: {conclusion}",
        response=premise,
        items=np.zeros(len(values.ITEMS), np.int8),
        items_where=np.zeros(len(values.ITEMS), bool),
        labels=nothing.astype(np.float32),
        where=nothing,
        conflict=nothing,
        types=(),
        status="unlabelled",
        query_source="",
        response_source="",
        file=file,
        line=line,
        argument_id=name,
        conclusion=conclusion,
        stance=stance,
    )


def _filled(cells: dict[str, str], field: str) -> str:
    text = check_text(field, cells[field])
    if not text:
        raise RowError(field, "is empty.")
    return text


def _ids(rejects: Sequence[Reject]) -> set[str]:
    """What may be the ids of lines that were set aside: their labels are no error."""
    return {cell.strip() for reject in rejects for cell in reject.text.split("\t")}


def _surplus(path: pathlib.Path, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    return [f"{path.name}: columns that are not used: {', '.join(names)}"]
