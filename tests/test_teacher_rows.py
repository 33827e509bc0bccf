# SPDX-License-Identifier: Apache-2.0
"""A teacher's scores as training rows: which are taken, and which are left out."""

import dataclasses
import json

import numpy as np
import official_scores
import pytest

from fulcra_jax import values
from fulcra_jax.data import source, teacher


def write_labelled(path, prompts, items=()):
    with path.open("w") as file:
        for prompt in prompts:
            record = {
                "dialogue": f"Human: {prompt}\nBob: so be it",
                "value_items": list(items),
                "value_types": ["power: +1"],
            }
            file.write(json.dumps(record) + "\n")


def write_scored(path, prompts):
    with path.open("w") as file:
        for number, prompt in enumerate(prompts):
            scores = [number / 100] * 10
            record = {"prompt": prompt, "answer": "No.", "value_reward": scores}
            file.write(json.dumps(record) + "\n")


def unique(n, start=0):
    return [f"unique{i} word{i} here{i}" for i in range(start, start + n)]


@pytest.fixture
def folder(tmp_path):
    """5 train and 3 dev rows; 8 rows of a teacher, the last near a dev prompt."""
    write_labelled(tmp_path / "a.train.jsonl", unique(5))
    write_labelled(tmp_path / "a.dev.jsonl", unique(3, 5))
    prompts = [*unique(7, 10), "unique5 word5 here5 again"]
    write_scored(tmp_path / "official_scores.x.train.jsonl", prompts)
    write_scored(tmp_path / "official_scores.x.dev.jsonl", unique(4, 20))
    return tmp_path


def test_a_teachers_rows_go_to_train_and_have_no_label_that_counts(folder):
    corpus = source.read_folder(source.Folder(str(folder), teacher=True))
    assert {split: len(rows) for split, rows in corpus.rows.items()} == {
        "train": 5 + 7, "dev": 3, "test": 0,
    }  # fmt: skip
    labelled, scored = corpus.rows["train"][:5], corpus.rows["train"][5:]
    assert all(row.teacher is None for row in labelled + corpus.rows["dev"])
    for number, row in enumerate(scored):
        assert row.prompt == unique(1, 10 + number)[0]
        np.testing.assert_array_equal(row.teacher, np.full(10, number / 100, "f4"))
        assert not row.where.any()
        assert not row.items_where.any()
        assert not row.conflict.any()
        assert row.status == "unlabelled"
    notes = "\n".join(corpus.notes)
    assert "7 rows with a teacher's scores, used as train; 1 near a held-out" in notes
    assert "left alone (official_scores, 1): official_scores.x.dev.jsonl" in notes


def test_without_a_teacher_its_files_are_left(folder):
    corpus = source.read_folder(source.Folder(str(folder)))
    assert len(corpus.rows["train"]) == 5
    assert any("left alone (official_scores, 2)" in note for note in corpus.notes)


def test_as_many_rows_as_asked_for_are_the_same_by_seed(folder):
    def chosen(most, seed=0):
        asked = source.Folder(str(folder), seed, teacher=True, teacher_rows=most)
        return [row.line for row in source.read_folder(asked).rows["train"][5:]]

    assert chosen(3) == sorted(set(chosen(3)))
    assert len(chosen(3)) == 3
    assert chosen(3) == chosen(3)
    assert len({tuple(chosen(3, seed)) for seed in range(5)}) > 1
    assert chosen(7) == chosen(100) == chosen(0)


def test_a_teachers_rows_near_a_fold_are_left_out_of_it(folder):
    write_labelled(folder / "a.test.jsonl", unique(1, 40))
    twins = [f"{prompt} again" for prompt in (*unique(8), *unique(1, 40))]
    write_scored(folder / "official_scores.x.train.jsonl", [*twins, *unique(3, 10)])
    for fold in range(2):
        asked = source.Fold(str(folder), fold, 2, teacher=True)
        rows = source.read_fold(asked).rows
        held = {f"{row.prompt} again" for row in rows["dev"]}
        scored = [row.prompt for row in rows["train"] if row.teacher is not None]
        want = [twin for twin in twins[:8] if twin not in held]
        assert len(held) == 4
        assert scored == [*want, *unique(3, 10)]
        assert all(row.teacher is None for row in rows["dev"])
    with pytest.raises(
        ValueError, match=r"source\.Fold: teacher_rows is 2 and teacher F"
    ):
        source.Fold(str(folder), teacher_rows=2)


def test_rows_near_a_prompt_by_way_of_another_are_left_out(folder):
    rows, _, _ = teacher.read_teacher(folder, [])
    assert len(rows) == 8
    assert teacher.apart(rows, []) == rows
    chain = ["a b c d e f g", "a b c d e f h", "a b c d e i h"]
    write_scored(folder / "official_scores.x.train.jsonl", [*chain[1:], "z"])
    rows, _, _ = teacher.read_teacher(folder, [])
    # The third is near the second only (5 of 9 words with the first).
    assert [row.prompt for row in teacher.apart(rows, chain[:1])] == ["z"]


def test_lines_that_cannot_be_read_are_set_aside_and_counted(folder):
    with (folder / "official_scores.x.train.jsonl").open("a") as file:
        file.write('{"prompt": "a"}\n')
    corpus = source.read_folder(source.Folder(str(folder), teacher=True))
    [reject] = corpus.rejects
    assert (reject.line, reject.field) == (9, "answer")
    assert any("left out, 1 set aside" in note for note in corpus.notes)


def test_a_teacher_that_is_not_there_is_an_error(folder):
    asked = source.Folder(str(folder), teacher=True)
    write_scored(folder / "official_scores.x.train.jsonl", unique(3, 5))
    with pytest.raises(ValueError, match=r"no row .* is left; 0 could not be read, 3"):
        source.read_folder(asked)
    (folder / "official_scores.x.train.jsonl").unlink()
    with pytest.raises(ValueError, match="no file of a teacher's scores to train on"):
        source.read_folder(asked)
    with pytest.raises(ValueError, match="teacher_rows is 5 and teacher False"):
        source.Folder(str(folder), teacher_rows=5)
    with pytest.raises(ValueError, match="teacher_rows is -1"):
        source.Folder(str(folder), teacher=True, teacher_rows=-1)


def test_arrays_of_items_and_of_a_teacher(tmp_path, folder):
    items = ["be honest: +1", "have wealth: +1", "have wealth: -1", "be daring: -1"]
    write_labelled(tmp_path / "b.train.jsonl", unique(1, 30), items)
    rows = source.read_folder(source.Folder(str(folder), teacher=True)).rows["train"]
    given = next(row for row in rows if row.file == "b.train.jsonl")
    silent = next(row for row in rows if row.file == "a.train.jsonl")
    scored = next(row for row in rows if row.teacher is not None)

    found, where = source.item_arrays([given, silent, scored])
    honest, wealth, daring = (
        values.ITEMS.index(name) for name in ("be honest", "have wealth", "be daring")
    )
    assert found.dtype == np.float32
    assert (found[0, honest], found[0, daring], found[0].sum()) == (1, -1, 0)
    # Both signs: masked. Types without items, and a teacher: no item is known.
    assert np.flatnonzero(~where[0]).tolist() == [wealth]
    assert not where[1:].any()

    scores, counts = teacher.teacher_arrays([given, scored])
    assert counts.tolist() == [[False] * 10, [True] * 10]
    np.testing.assert_array_equal(scores[1], scored.teacher)
    partly = dataclasses.replace(scored, teacher=np.array([np.nan, *[0.5] * 9]))
    scores, counts = teacher.teacher_arrays([partly])
    assert (scores[0, 0], counts[0].tolist()) == (0, [False, *[True] * 9])
    assert source.item_arrays([])[1].shape == (0, 54)
    assert teacher.teacher_arrays([])[0].shape == (0, 10)


@official_scores.needed
def test_the_real_scores_share_no_prompt_with_the_held_out_rows():
    asked = source.Folder(str(official_scores.FOLDER), teacher=True)
    corpus = source.read_folder(asked)
    assert {split: len(rows) for split, rows in corpus.rows.items()} == {
        "train": 922 + 2553, "dev": 176, "test": 0,
    }  # fmt: skip
    [note] = [note for note in corpus.notes if "a teacher's scores" in note]
    assert "2553 rows" in note
    assert "; 0 near a held-out prompt left out, 0 set aside" in note
