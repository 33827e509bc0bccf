# SPDX-License-Identifier: Apache-2.0
"""Another evaluator's scores as training rows: a teacher beside the labels.

A folder holds them as official_scores.NAME.train.jsonl (`official`); files of other
splits are for reports. A student that learns the scores of a held-out prompt's twin has
seen that prompt: such rows are left out, and counted.
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from fulcra_jax import values
from fulcra_jax.data import official, splits
from fulcra_jax.data.rows import Reject, Row


def teacher_files(folder: str | pathlib.Path) -> list[pathlib.Path]:
    """The files of a folder that hold a teacher's scores to train on, by name."""
    return sorted(pathlib.Path(folder).glob("official_scores.*.train.jsonl"))


def read_teacher(
    folder: str | pathlib.Path,
    held_out: Sequence[str],
    *,
    most: int = 0,
    seed: int = 0,
) -> tuple[list[Row], list[Reject], list[str]]:
    """Rows without labels, with a teacher's scores.

    Args:
      folder: with files official_scores.NAME.train.jsonl.
      held_out: prompts that are reported on.
      most: rows that are taken, chosen by the seed; 0 takes all.
      seed: of the choice.

    Returns:
      The rows in the order of the files, of which no label and no item counts; the
      lines that could not be read; and notes, one sentence each.

    Raises:
      ValueError: if there is no such file, it is empty, or no row is left.
    """
    files = teacher_files(folder)
    if not files:
        raise ValueError(
            f"{folder}: teacher is True, but there is no file of a teacher's scores to "
            "train on; one should be named official_scores.NAME.train.jsonl."
        )
    rows: list[Row] = []
    rejects: list[Reject] = []
    for file in files:
        scored, bad = official.read_official(file)
        rejects += bad
        rows += map(_row, scored)
    kept = apart(rows, held_out)
    if not kept:
        raise ValueError(
            f"{folder}: no row of a teacher's scores is left; {len(rejects)} could not "
            f"be read, {len(rows)} are near a held-out prompt."
        )
    notes = [
        f"{', '.join(file.name for file in files)}: {len(kept)} rows with a teacher's "
        f"scores, used as train; {len(rows) - len(kept)} near a held-out prompt left "
        f"out, {len(rejects)} set aside"
    ]
    if 0 < most < len(kept):
        notes.append(f"{most} of {len(kept)} rows with a teacher's scores are taken")
        draws = np.random.Generator(np.random.Philox(seed))
        chosen = np.sort(draws.choice(len(kept), most, replace=False))
        kept = [kept[row] for row in chosen]
    return kept, rejects, notes


def apart(rows: Sequence[Row], held_out: Sequence[str]) -> list[Row]:
    """The rows whose prompt is no near duplicate of a held-out one.

    Rows that share a component of near duplicates with a held-out prompt are left out,
    as `splits.prompt_components` finds them among the prompts of both.

    Args:
      rows: to train on.
      held_out: prompts that are reported on, as those of a fold.

    Returns:
      The rows that may be trained on, in their order.
    """
    prompts = [*held_out, *(row.prompt for row in rows)]
    component = splits.prompt_components(prompts)
    near = np.isin(component[len(held_out) :], component[: len(held_out)])
    return [row for row, left in zip(rows, near, strict=True) if not left]


def teacher_arrays(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """`[N, 10]` float32 scores of a teacher and `[N, 10]` bool where, of N rows; 0 and
    False where there is none."""
    scores = np.zeros((len(rows), len(values.BASIC)), np.float32)
    where = np.zeros(scores.shape, bool)
    for number, row in enumerate(rows):
        if row.teacher is not None:
            where[number] = ~np.isnan(row.teacher)
            scores[number] = np.nan_to_num(row.teacher)
    return scores, where


def _row(one: official.OfficialRow) -> Row:
    """A row of which no label and no item counts."""
    items, labels = len(values.ITEMS), len(values.BASIC)
    return Row(
        prompt=one.prompt,
        response=one.response,
        items=np.zeros(items, np.int8),
        items_where=np.zeros(items, bool),
        labels=np.zeros(labels, np.float32),
        where=np.zeros(labels, bool),
        conflict=np.zeros(labels, bool),
        types=(),
        status="unlabelled",
        query_source="",
        response_source="",
        file=one.file,
        line=one.line,
        teacher=one.scores,
    )
