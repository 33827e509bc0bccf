# SPDX-License-Identifier: Apache-2.0
"""Folders of files, the embedded corpus and the TFDS builder give the same rows."""

import json
import pathlib

import numpy as np
import pytest

from fulcra_jax.data import source, splits
from fulcra_jax.data.rows import Policy

SHARED = pathlib.Path(__file__).parents[2] / "shared" / "data"


def write(path, prompts, label="power: +1"):
    with path.open("w") as file:
        for prompt in prompts:
            record = {
                "dialogue": f"Human: {prompt}\nBob: so be it",
                "value_items": [],
                "value_types": [label],
            }
            file.write(json.dumps(record) + "\n")


def unique(n, start=0):
    return [f"unique{i} word{i} here{i}" for i in range(start, start + n)]


def test_files_with_a_split_in_their_name_are_used_as_given(tmp_path):
    write(tmp_path / "a.train.jsonl", unique(5))
    write(tmp_path / "a.validation.jsonl", unique(3, 5))
    corpus = source.read_folder(source.Folder(str(tmp_path)))
    assert {name: len(rows) for name, rows in corpus.rows.items()} == {
        "train": 5,
        "dev": 3,
        "test": 0,
    }
    assert corpus.held_out() == "dev"
    assert source.given_straddle(corpus) == 0


def test_other_files_are_split_and_never_straddle_given_ones(tmp_path):
    write(tmp_path / "a.train.jsonl", unique(20))
    write(tmp_path / "a.dev.jsonl", unique(5, 20))
    # A near duplicate of a given dev prompt (Jaccard 3/4), and forty others.
    twins = ["unique20 word20 here20 again"]
    write(tmp_path / "b.jsonl", twins + unique(40, 30))
    corpus = source.read_folder(source.Folder(str(tmp_path)))
    assert sum(len(rows) for rows in corpus.rows.values()) == 20 + 5 + 41
    twin = [row for row in corpus.rows["dev"] if row.file == "b.jsonl"]
    assert any("unique20" in row.prompt for row in twin)
    everything = [r for rows in corpus.rows.values() for r in rows]
    names = [n for n, rows in corpus.rows.items() for _ in rows]
    component = splits.prompt_components([row.prompt for row in everything])
    for node in set(component.tolist()):
        held = {n for n, c in zip(names, component, strict=True) if c == node}
        assert len(held) == 1


def test_repeated_dialogues_are_kept_once(tmp_path):
    write(tmp_path / "all.jsonl", unique(30))
    write(tmp_path / "part.jsonl", unique(10))
    corpus = source.read_folder(source.Folder(str(tmp_path)))
    assert sum(len(rows) for rows in corpus.rows.values()) == 30
    assert "10 repeated dialogues left out" in corpus.notes


def test_files_of_other_formats_are_named_and_left(tmp_path):
    write(tmp_path / "a.jsonl", unique(30))
    (tmp_path / "scores.jsonl").write_text(
        '{"prompt": "a", "answer": "b", "value_reward": []}\n'
    )
    (tmp_path / "pairs.jsonl").write_text('{"chosen": "a", "rejected": "b"}\n')
    (tmp_path / "other.jsonl").write_text('{"x": 1}\n')
    (tmp_path / "empty.jsonl").write_text("")
    corpus = source.read_folder(source.Folder(str(tmp_path)))
    notes = "\n".join(corpus.notes)
    for kind in ("official_scores", "preferences", "unknown", "empty"):
        assert f"left alone ({kind}, 1)" in notes


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no file here is in FULCRA's format .* found: no .jsonl file"),
        ({"a.jsonl": '{"x": 1}'}, r"found: a.jsonl \(unknown\)"),
        ({"a.jsonl": '{"dialogue": "Human: a"}'}, "no row could be read; 1 were set"),
    ],
)
def test_a_folder_without_usable_rows_is_an_error(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        source.read_folder(source.Folder(str(tmp_path)))


def test_a_broken_first_line_does_not_decide_what_a_file_is(tmp_path):
    path = tmp_path / "a.jsonl"
    write(path, unique(5))
    for broken in ("{broken\n", "[" * 200_000 + "\n", "1" * 5000 + "\n", "[1]\n"):
        other = tmp_path / "b.jsonl"
        other.write_text(broken + path.read_text())
        assert source.sniff(other) == "fulcra"
        other.write_text(broken)
        assert source.sniff(other) == "unknown"


def test_a_missing_folder_is_an_error():
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        source.read_folder(source.Folder("nowhere"))


def test_train_files_alone_are_an_error_that_says_what_to_do(tmp_path):
    write(tmp_path / "a.train.jsonl", unique(5))
    with pytest.raises(ValueError, match="the split dev has no labelled row"):
        source.read_folder(source.Folder(str(tmp_path)))


def test_the_embedded_corpus_goes_through_the_same_reader():
    corpus = source.read_embedded(source.Embedded(train=50, dev=20, test=20))
    assert [len(corpus.rows[name]) for name in source.SPLITS] == [50, 20, 20]
    assert all(row.where.all() and row.labels.any() for row in corpus.rows["train"])
    with pytest.raises(ValueError, match="train is 0; it should be at least 1 row"):
        source.Embedded(train=0)


def test_label_arrays_of_no_rows_have_ten_columns():
    labels, where = source.label_arrays([])
    assert labels.shape == where.shape == (0, 10)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared real rows are not here")
@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("fulcra/trustworthy.dev.jsonl", "fulcra"),
        ("fulcra/official_scores.gpt-4.dev.jsonl", "official_scores"),
        ("fulcra/helpful.questions.jsonl", "preferences"),
        ("fulcra/saferlhf.train_questions.jsonl", "prompts"),
        ("fulcra/value_compass.schwartz_scores.json", "model_scores"),
        ("valueeval23/labels-training.tsv", "valueeval"),
    ],
)
def test_formats_of_the_real_files_are_told_apart(file, kind):
    assert source.sniff(SHARED / file) == kind


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_tfds_builder_gives_back_the_rows(tmp_path):
    from fulcra_jax.data import fulcra

    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "a.train.jsonl", unique(6), "humility: 1+")
    write(folder / "a.dev.jsonl", unique(2, 6))
    with (folder / "a.dev.jsonl").open("a") as file:
        file.write("{broken\n")
    builder = fulcra.local_builder(folder, tmp_path / "tfds")
    with pytest.raises(FileNotFoundError, match="the dataset is not prepared"):
        fulcra.corpus_of(builder)

    builder.download_and_prepare()
    # As one had to write before, and may.
    again = fulcra.local_builder(folder, tmp_path / "tfds")
    again.download_and_prepare(file_format="array_record")

    stored = fulcra.corpus_of(again)
    read = source.read_folder(source.Folder(str(folder)))
    for split in ("train", "dev"):
        ours = {row.prompt: row for row in read.rows[split]}
        theirs = {row.prompt: row for row in stored.rows[split]}
        assert ours.keys() == theirs.keys()
        for prompt, row in ours.items():
            for name in ("items", "items_where", "labels", "where", "conflict"):
                got = getattr(theirs[prompt], name)
                np.testing.assert_array_equal(got, getattr(row, name))
                assert got.dtype == getattr(row, name).dtype
            for name in ("response", "types", "status", "file", "line"):
                assert getattr(theirs[prompt], name) == getattr(row, name)
    rejects = list((tmp_path / "tfds").rglob("rejects.jsonl"))
    assert len(rejects) == 1
    assert json.loads(rejects[0].read_text())["line"] == 3


def test_a_changed_folder_or_policy_is_another_dataset(tmp_path):
    from fulcra_jax.data import fulcra

    write(tmp_path / "a.jsonl", unique(6))
    name = lambda **k: (
        fulcra.local_builder(tmp_path, tmp_path / "t", **k).info.full_name
    )
    before = name()
    assert name() == before
    assert name(policy=Policy(conflict="sum_sign")) != before
    assert name(seed=1) != before
    write(tmp_path / "a.jsonl", unique(7))
    assert name() != before


def test_the_release_without_a_network_says_what_to_do(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    from fulcra_jax.data import fulcra

    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(tfds.download.DownloadManager, "download", refuse)
    with pytest.raises(ConnectionError, match="put its files in a folder"):
        fulcra.read_release(source.Release(str(tmp_path)))
