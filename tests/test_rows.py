# SPDX-License-Identifier: Apache-2.0
"""The reader of FULCRA's format: every anomaly of the release, every bad line."""

import json
import pathlib

import numpy as np
import pytest

from fulcra_jax import values
from fulcra_jax.data.rows import (
    Policy,
    RowError,
    parse_label,
    parse_record,
    read_rows,
    split_dialogue,
    write_rejects,
)

SHARED = pathlib.Path(__file__).parents[2] / "shared" / "data" / "fulcra"
BE = values.BASIC.index("Benevolence")
CO = values.BASIC.index("Conformity")
TR = values.BASIC.index("Tradition")


def record(items=(), types=(), dialogue="Human: May I?\nBob: You may."):
    return {
        "dialogue": dialogue,
        "value_items": list(items),
        "value_types": list(types),
        "query_source": "q",
        "response_source": "r",
    }


@pytest.mark.parametrize(
    ("text", "name", "sign"),
    [
        ("be honest: +1", "be honest", 1),
        ("be honest:+1", "be honest", 1),
        ("be honest: 1", "be honest", 1),
        ("be obedient: 1+", "be obedient", 1),
        ("be intellectual: =1", "be intellectual", 1),
        ("Security: -1", "Security", -1),
        ("security : - 1", "security", -1),
        ("security: \N{MINUS SIGN}1", "security", -1),
        ("security: 0", "security", 0),
    ],
)
def test_every_spelling_of_a_label_in_the_release_is_read(text, name, sign):
    assert parse_label(text) == (name, sign)


@pytest.mark.parametrize("text", ["security: +2", "security: x", "security:", "a: --1"])
def test_another_score_is_refused(text):
    with pytest.raises(RowError, match=r"has the score .*; it should be \+1, -1 or 0"):
        parse_label(text)


@pytest.mark.parametrize("text", ["security +1", ": +1", ""])
def test_a_label_needs_a_name_and_a_colon(text):
    with pytest.raises(RowError, match='should be "name: score"'):
        parse_label(text)


def test_dialogue_keeps_later_speakers_in_the_response():
    assert split_dialogue("Human: a\nb\nBob: c\nBob: d") == ("a\nb", "c\nBob: d")


@pytest.mark.parametrize(
    ("dialogue", "reason"),
    [
        ("Human: only a question", 'no line that starts with "Bob:"'),
        ("Bob: only an answer", 'no line that starts with "Human:"'),
        ("Human: a\nBob:  ", 'nothing follows "Bob:"'),
    ],
)
def test_a_dialogue_without_a_speaker_is_refused(dialogue, reason):
    with pytest.raises(RowError, match=reason):
        split_dialogue(dialogue)


def test_items_and_types_are_kept_side_by_side():
    row = parse_record(
        record(["Be honest:+1", "have privacy: -1"], ["BENEVOLENCE: +1"]),
    )
    assert row.items[values.ITEMS.index("be honest")] == 1
    assert row.items[values.ITEMS.index("have privacy")] == -1
    assert np.abs(row.items).sum() == 2
    assert row.items_where.all()
    # value_types is the label; the items do not add to it.
    assert row.labels[BE] == 1
    assert np.abs(row.labels).sum() == 1
    assert row.where.all()


def test_items_that_are_no_item_count_for_their_type_only():
    row = parse_record(record(["be respectful: +1"], ["conformity: +1"]))
    assert not row.items.any()
    assert row.labels[CO] == 1


@pytest.mark.parametrize(
    ("humility", "column"), [("conformity", CO), ("tradition", TR)]
)
def test_humility_as_eleventh_type_counts_where_the_convention_says(humility, column):
    row = parse_record(
        record(["be humble: +1"], ["humility: +1"]), Policy(humility=humility)
    )
    assert row.labels[column] == 1
    assert np.abs(row.labels).sum() == 1


def test_the_same_type_twice_is_one_label():
    row = parse_record(record(types=["security: +1", "security: 1"]))
    assert row.types == (("Security", 1),)
    assert not row.conflict.any()


CONFLICT = record(
    ["be honest: +1", "be helpful: -1", "be responsible: +1"],
    ["benevolence: +1", "benevolence: -1"],
)


@pytest.mark.parametrize(
    ("policy", "label", "counts"),
    [
        ("mask", 0.0, False),
        ("review", 0.0, False),
        ("both", 0.0, False),
        ("sum_sign", 1.0, True),
        ("mean", 1 / 3, True),
        ("any_negative", -1.0, True),
    ],
)
def test_conflicts_follow_the_policy(policy, label, counts):
    row = parse_record(CONFLICT, Policy(conflict=policy))
    assert row.labels[BE] == pytest.approx(label)
    assert row.where[BE] == counts
    assert row.where.sum() == 9 + counts
    assert row.conflict[BE]
    assert set(row.types) == {("Benevolence", 1), ("Benevolence", -1)}
    assert row.status == ("review" if policy == "review" else "labelled")


def test_an_item_with_both_signs_is_masked():
    row = parse_record(record(["be honest: +1", "be honest: -1"], ["benevolence: +1"]))
    assert not row.items_where[values.ITEMS.index("be honest")]
    assert row.items_where.sum() == 53


def test_empty_lists_mean_unlabelled_unless_asked_otherwise():
    row = parse_record(record())
    assert row.status == "unlabelled"
    assert not row.where.any()
    assert not row.items_where.any()
    zero = parse_record(record(), Policy(empty="zero"))
    assert zero.status == "labelled"
    assert zero.where.all()
    assert not zero.labels.any()


def test_types_alone_say_nothing_of_items():
    row = parse_record(record(types=["security: +1"]))
    assert row.where.all()
    assert not row.items_where.any()


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"dialogue": None}, "dialogue", "is missing or no string"),
        ({"dialogue": "Human: a"}, "dialogue", "Bob:"),
        ({"value_types": ["security: +2"]}, "value_types", r"has the score '\+2'"),
        ({"value_types": ["kindness: +1"]}, "value_types", "no basic value; known"),
        ({"value_items": ["be odd: +1"]}, "value_items", "is no item"),
        ({"value_types": "security: +1"}, "value_types", "a list of strings"),
        ({"value_types": [1]}, "value_types", "should hold strings"),
    ],
)
def test_broken_records_name_the_field(change, field, reason):
    with pytest.raises(RowError, match=reason) as caught:
        parse_record(record(types=["power: +1"]) | change)
    assert caught.value.field == field


def test_bad_lines_are_set_aside_with_file_line_and_reason(tmp_path):
    good = json.dumps(record(types=["power: +1"]))
    path = tmp_path / "mixed.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf" + good.encode() + b"\n\n{broken\n\xff\xfe\n[1]\n"
        b'{"dialogue": "Human: a\\nBob: b"}\n' + b"[" * 100_000 + b"\n"
        b'{"dialogue": "Human: a\\nBob: \\ud800", "value_types": []}\n'
        b'{"dialogue": ' + b"1" * 5000 + b"}\n" + good.encode()
    )

    rows, rejects = read_rows(path)

    assert [row.line for row in rows] == [1, 10]
    assert [(r.line, r.field) for r in rejects] == [
        (3, "line"),
        (4, "line"),
        (5, "line"),
        (6, "value_types"),
        (7, "line"),
        (8, "dialogue"),
        (9, "line"),
    ]
    assert "lone surrogate" in rejects[-2].reason
    assert str(rejects[0]).startswith("mixed.jsonl:3: line: is no JSON")
    assert rejects[0].text == "{broken"
    write_rejects(tmp_path / "rejects.jsonl", rejects)
    lines = (tmp_path / "rejects.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["text"] == "{broken"
    with pytest.raises(FileExistsError):
        write_rejects(tmp_path / "rejects.jsonl", rejects)


def test_missing_and_empty_files_say_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_rows(tmp_path / "none.jsonl")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        read_rows(tmp_path)
    (tmp_path / "empty.jsonl").write_text("\n \n")
    with pytest.raises(ValueError, match="the file is empty"):
        read_rows(tmp_path / "empty.jsonl")


def test_an_unknown_policy_lists_the_known():
    with pytest.raises(ValueError, match="one of: mask, sum_sign, mean"):
        Policy(conflict="vote")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared real rows are not here")
def test_the_real_rows_read_as_the_release_describes_them():
    train, bad_train = read_rows(SHARED / "trustworthy.train.jsonl")
    dev, bad_dev = read_rows(SHARED / "trustworthy.dev.jsonl")
    assert (len(train), len(dev), len(bad_train), len(bad_dev)) == (922, 176, 0, 0)
    assert [row.line for row in train if row.status == "unlabelled"] == [666]
    opposed = sum(int((row.labels[row.where] < 0).sum()) for row in dev)
    masked = sum(int(row.conflict.sum()) for row in dev)
    assert (opposed, masked) == (30, 6)  # 36 labels "-1" stand in the file
    # Type labels are the set union of the types of the items (FACTS of the release).
    for row in train + dev:
        items = {
            (values.BASIC[int(values.ITEM_TO_BASIC[i].argmax())], int(row.items[i]))
            for i in np.flatnonzero(row.items)
        }
        assert items <= set(row.types)
        # What is left comes from "be respectful", which is no item.
        assert {name for name, _ in set(row.types) - items} <= {"Conformity"}
