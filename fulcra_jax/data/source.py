# SPDX-License-Identifier: Apache-2.0
"""Where rows come from: the embedded corpus, a folder of files, the published
release, ValueEval'23."""

import dataclasses
import pathlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from fulcra_jax import values
from fulcra_jax.data import sample, splits, teacher, valueeval
from fulcra_jax.data.formats import sniff as sniff
from fulcra_jax.data.rows import (
    Policy,
    Reject,
    Row,
    parse_record,
    read_rows,
)
from fulcra_jax.data.valueeval import ValueEval as ValueEval

SPLITS = ("train", "dev", "test")
_GIVEN = re.compile(r"(?P<name>.+)\.(?P<split>train|dev|valid|validation|test)\.jsonl")


@dataclasses.dataclass(frozen=True)
class Embedded:
    """The synthetic corpus that ships with the package; see SAMPLE_CARD.md."""

    train: int = 6000
    """Rows to train on."""
    dev: int = 800
    """Rows to choose on."""
    test: int = 800
    """Rows to report on."""
    seed: int = 0

    def __post_init__(self) -> None:
        for field in SPLITS:
            if getattr(self, field) < 1:
                raise ValueError(
                    f"source.Embedded: {field} is {getattr(self, field)}; it should be "
                    "at least 1 row."
                )
        if self.seed < 0:
            raise ValueError(
                f"source.Embedded: seed is {self.seed}; it should be at least 0."
            )


@dataclasses.dataclass(frozen=True)
class Folder:
    """Files in FULCRA's format: a folder of them, or a single one."""

    path: str = ""
    """NAME.train.jsonl, NAME.dev.jsonl and NAME.test.jsonl are used as given; any other
    file of FULCRA's format is split by near-duplicate prompt components; files of other
    known formats are listed and left."""
    seed: int = 0
    """Seed of the split, for files that are not split already."""
    teacher: bool = False
    """Whether the folder's official_scores.NAME.train.jsonl are trained on too, as a
    teacher's scores; their rows near a held-out prompt are left out."""
    teacher_rows: int = 0
    """Rows of the teacher that are taken, chosen by the seed; 0 takes all."""

    def __post_init__(self) -> None:
        _check_teacher(self)


@dataclasses.dataclass(frozen=True)
class Release:
    """The published release, downloaded by the catalogue into a TFDS folder."""

    cache: str = ".cache/tfds"
    """Where TFDS keeps the prepared dataset."""


@dataclasses.dataclass(frozen=True)
class Fold:
    """Train + dev of a folder in folds that share no near-duplicate prompts."""

    path: str = ""
    """As of `Folder`; its test rows are not touched."""
    fold: int = 0
    """The fold that is held out, in [0, count); the others are trained on."""
    count: int = 5
    seed: int = 0
    teacher: bool = False
    """As of `Folder`; here the rows near a prompt of the fold are left out."""
    teacher_rows: int = 0
    """As of `Folder`."""

    def __post_init__(self) -> None:
        _check_teacher(self)
        if not 2 <= self.count <= 1000 or not 0 <= self.fold < self.count:
            raise ValueError(
                f"source.Fold: fold is {self.fold} of {self.count}; there should be 2 "
                "or more, counted from 0."
            )


def _check_teacher(source: Folder | Fold) -> None:
    if source.teacher_rows < 0 or (source.teacher_rows and not source.teacher):
        raise ValueError(
            f"source.{type(source).__name__}: teacher_rows is {source.teacher_rows} "
            f"and teacher {source.teacher}; it should be a number of rows, with "
            "teacher True."
        )


Source = Embedded | Folder | Fold | Release | ValueEval


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Rows by split, and an account of where they come from."""

    rows: dict[str, list[Row]]
    rejects: list[Reject]
    notes: list[str]
    """One sentence each: files used, files left, rows set aside, cells masked."""

    def held_out(self) -> str:
        """The split to report on: "test" where there is one, else "dev"."""
        return "test" if self.rows.get("test") else "dev"


def definitions(source: Source) -> Mapping[str, str]:
    """The values that a source's rows are labelled with, each with its definition."""
    if isinstance(source, ValueEval):
        return valueeval.DEFINITIONS
    return values.DEFINITIONS


def of_path(path: str) -> Folder | ValueEval:
    """The source that a path is: ValueEval'23, told by its .tsv, or FULCRA's files."""
    here = pathlib.Path(path)
    if here.is_dir():
        tables = any(here.glob("arguments-*.tsv")) and not any(here.glob("*.json*"))
        return ValueEval(path) if tables else Folder(path)
    return ValueEval(path) if here.suffix == ".tsv" else Folder(path)


def read_valueeval(source: ValueEval) -> Corpus:
    """The splits of ValueEval'23; those of test are unlabelled.

    Raises:
      FileNotFoundError: if the folder does not exist.
      ValueError: if it is a file, lacks labelled rows or a file lacks a column.
    """
    return Corpus(*valueeval.read_splits(source))


def read_embedded(source: Embedded, policy: Policy = Policy()) -> Corpus:
    """The embedded corpus, through the same reader as any file."""
    rows = {
        split: sample_rows(source.seed, getattr(source, split), split, policy)
        for split in SPLITS
    }
    sizes = ", ".join(f"{len(rows[split])} {split}" for split in SPLITS)
    note = f"embedded synthetic corpus, seed {source.seed}: {sizes} rows"
    return Corpus(rows, [], [note])


def sample_rows(
    seed: int, n: int, split: str = "train", policy: Policy = Policy()
) -> list[Row]:
    """Rows of the embedded synthetic corpus.

    Args:
      seed: another seed gives other dialogues from the same phrase banks.
      n: number of rows; more rows extend fewer.
      split: "train", "dev" or "test"; their phrase banks are disjoint.
      policy: how ambiguous labels are read (the corpus has none).

    Returns:
      n rows.

    Raises:
      ValueError: if n is negative.
      KeyError: if the split is unknown.

    Reference:
      fulcra_jax/data/SAMPLE_CARD.md.

    >>> len(sample_rows(0, 3, "dev"))
    3
    """
    records = sample.sample_records(seed, n, split)  # pyright: ignore[reportArgumentType]
    return [
        parse_record(record, policy, file=f"sample.{split}", line=line)
        for line, record in enumerate(records, 1)
    ]


def read_folder(source: Folder, policy: Policy = Policy()) -> Corpus:
    """Rows of a folder, or of a single file, by split.

    Raises:
      FileNotFoundError: if the path does not exist.
      ValueError: if no file is in FULCRA's format, no row can be read, or a split that
      is
        needed has no row.
    """
    return _taught(_read(source, policy), source)


def _read(source: Folder | Fold, policy: Policy) -> Corpus:
    """The labelled rows of a folder, by split."""
    path = pathlib.Path(source.path)
    if not source.path or not path.exists():
        raise FileNotFoundError(
            f"data: {source.path or '(no path)'} does not exist; give a folder of "
            ".jsonl files in FULCRA's format, or one such file."
        )
    files = sorted(path.glob("*.json*")) if path.is_dir() else [path]
    kinds = {file: sniff(file) for file in files if file.is_file()}
    usable = [file for file, kind in kinds.items() if kind == "fulcra"]
    scored = teacher.teacher_files(path) if source.teacher else []
    left = {
        file.name: kind
        for file, kind in kinds.items()
        if file not in usable and file not in scored
    }
    if not usable:
        found = ", ".join(f"{file.name} ({kind})" for file, kind in kinds.items())
        raise ValueError(
            f"{path}: no file here is in FULCRA's format (one JSON object a line, with "
            f"dialogue, value_items, value_types); found: {found or 'no .jsonl file'}."
        )
    notes = []
    given: list[tuple[Row, str]] = []
    unsplit: list[Row] = []
    rejects: list[Reject] = []
    for file in usable:
        rows, bad = read_rows(file, policy)
        rejects += bad
        match = _GIVEN.fullmatch(file.name) if path.is_dir() else None
        if match:
            split = "dev" if match["split"].startswith("valid") else match["split"]
            given += [(row, split) for row in rows]
            notes.append(f"{file.name}: {len(rows)} rows, used as {split}")
        else:
            unsplit += rows
            notes.append(f"{file.name}: {len(rows)} rows, split by prompt components")
    for kind, count in sorted(Counter(left.values()).items()):
        names = ", ".join(name for name, other in left.items() if other == kind)
        notes.append(f"left alone ({kind}, {count}): {names}")
    return _assemble(str(path), given, unsplit, rejects, notes, source.seed)


def _taught(
    corpus: Corpus, source: Folder | Fold, unused: Sequence[Row] = ()
) -> Corpus:
    """The corpus with a teacher's rows behind those of train, where asked for; none
    near a row that is held out, or of those that are not used."""
    if not source.teacher:
        return corpus
    held_out = [row.prompt for split in SPLITS[1:] for row in corpus.rows[split]]
    held_out += [row.prompt for row in unused]
    rows, rejects, notes = teacher.read_teacher(
        source.path, held_out, most=source.teacher_rows, seed=source.seed
    )
    return Corpus(
        corpus.rows | {"train": corpus.rows["train"] + rows},
        corpus.rejects + rejects,
        corpus.notes + notes,
    )


def read_fold(source: Fold, policy: Policy = Policy()) -> Corpus:
    """A fold of a folder's train and dev rows as "dev", the other folds as "train".

    Raises:
      FileNotFoundError: as `read_folder`.
      ValueError: as `read_folder`, or if a fold has no labelled row.
    """
    whole = _read(source, policy)
    rows = whole.rows["train"] + whole.rows["dev"]
    number = cluster_folds(rows, source.count, seed=source.seed)
    split = {
        "train": [row for row, n in zip(rows, number, strict=True) if n != source.fold],
        "dev": [row for row, n in zip(rows, number, strict=True) if n == source.fold],
        "test": [],
    }
    for name in ("train", "dev"):
        if not any(row.where.any() for row in split[name]):
            raise ValueError(
                f"{source.path}: fold {source.fold} of {source.count} leaves {name} "
                "without a labelled row; there should be fewer folds or more prompts."
            )
    note = f"fold {source.fold} of {source.count}: {len(split['train'])} rows to train "
    note += f"on, {len(split['dev'])} held out"
    corpus = Corpus(split, whole.rejects, [*whole.notes, note])
    return _taught(corpus, source, whole.rows["test"])


def cluster_folds(rows: list[Row], count: int = 5, *, seed: int = 0) -> np.ndarray:
    """The fold of each row: components of near-duplicate prompts stay together.

    Largest component first, into the emptiest fold.

    Args:
      rows: N rows.
      count: number of folds.
      seed: of the order of components of equal size.

    Returns:
      `[N]` int in [0, count).
    """
    prompts = [row.prompt for row in rows]
    component = splits.prompt_components(prompts)
    shares = {str(fold): 1.0 for fold in range(count)}
    names = splits.assign_components(component, prompts, shares, seed=seed)
    return np.array([int(name) for name in names], np.int32)


def _assemble(
    where: str,
    given: list[tuple[Row, str]],
    unsplit: list[Row],
    rejects: list[Reject],
    notes: list[str],
    seed: int,
) -> Corpus:
    """Joins given and newly split rows, and says what was masked and set aside."""
    seen = {(row.prompt, row.response) for row, _ in given}
    fresh = []
    for row in unsplit:
        if (row.prompt, row.response) not in seen:
            seen.add((row.prompt, row.response))
            fresh.append(row)
    if len(fresh) < len(unsplit):
        notes.append(f"{len(unsplit) - len(fresh)} repeated dialogues left out")
    rows: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for row, split in given:
        rows[split].append(row)
    if fresh:
        prompts = [row.prompt for row, _ in given] + [row.prompt for row in fresh]
        component = splits.prompt_components(prompts)
        # Held-out wins: a component that a given dev or test row lies in goes there.
        fixed: dict[int, str] = {}
        for (_, split), node in zip(given, component.tolist(), strict=False):
            fixed[node] = max(fixed.get(node, "train"), split, key=SPLITS.index)
        names = splits.assign_components(
            component[len(given) :], prompts[len(given) :], fixed=fixed, seed=seed
        )
        for row, split in zip(fresh, names, strict=True):
            rows[split].append(row)
    if rejects:
        notes.append(f"{len(rejects)} rows set aside; the first is {rejects[0]}")
    everything = [row for split in rows.values() for row in split]
    if not everything:
        raise ValueError(
            f"{where}: no row could be read; {len(rejects)} were set aside, the first "
            f"is {rejects[0]}"
        )
    masked = int(sum(row.conflict.sum() for row in everything))
    unlabelled = sum(row.status == "unlabelled" for row in everything)
    notes.append(f"{masked} cells carry both signs; {unlabelled} rows have no label")
    for split in ("train", "dev"):
        if not any(row.where.any() for row in rows[split]):
            raise ValueError(
                f"{where}: the split {split} has no labelled row; name a file "
                f"NAME.{split}.jsonl, or give files without a split in their name (at "
                "least three different prompts) to have them split."
            )
    return Corpus(rows, rejects, notes)


def label_arrays(rows: list[Row]) -> tuple[np.ndarray, np.ndarray]:
    """`[N, 10]` float32 labels and `[N, 10]` bool where, of N rows."""
    if not rows:
        return np.zeros((0, 10), np.float32), np.zeros((0, 10), bool)
    return np.stack([row.labels for row in rows]), np.stack([row.where for row in rows])


def item_arrays(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """`[N, 54]` float32 items and `[N, 54]` bool where, of N rows.

    An item counts where the row is labelled, its list of items was given, and it does
    not contradict itself.
    """
    shape = (len(rows), len(values.ITEMS))
    items = np.array([row.items for row in rows], np.float32).reshape(shape)
    return items, np.array([row.items_where for row in rows], bool).reshape(shape)


def given_straddle(corpus: Corpus) -> int:
    """How many held-out prompts have a near duplicate among the training prompts."""
    train = [row.prompt for row in corpus.rows["train"]]
    held = [row.prompt for split in SPLITS[1:] for row in corpus.rows[split]]
    component = splits.prompt_components(train + held)
    return int(np.isin(component[len(train) :], component[: len(train)]).sum())
