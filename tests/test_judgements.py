# SPDX-License-Identifier: Apache-2.0
"""Annotated files: what is read, what is set aside, and why."""

import csv
import json
import os

import numpy as np
import pytest

from fulcra_jax import values
from fulcra_jax.annotation import judgement_lines, judgements

GOOD = {
    "item": "r1",
    "value": "Power",
    "annotator": "Ann",
    "kind": "human",
    "pass": 0,
    "label": 1,
    "source": "chat",
    "prompt_id": "p1",
}


def line(**changes):
    """A good line with changes; a field set to ... is left out."""
    record = {k: x for k, x in (GOOD | changes).items() if x is not ...}
    return json.dumps(record)


def read(tmp_path, *lines, name="a.jsonl", **options):
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return judgements.read_judgements(path, **options)


def test_a_file_becomes_arrays(tmp_path):
    found, rejects = read(
        tmp_path,
        line(annotator="bot", kind="llm", **{"pass": 1}, label=-1),
        line(annotator="bot", kind="llm", label=0, value="hedonism"),
        line(),
        "",
        line(item=7, value="HEDONISM", label=None, source=None, prompt_id=None),
    )
    assert not rejects
    assert found.items == ("r1", "7")
    assert found.values == ("Hedonism", "Power")  # in the order of values.BASIC
    assert (found.annotators, found.kinds) == (("Ann", "bot"), ("human", "llm"))
    assert found.row_annotator.tolist() == [0, 1, 1]
    assert found.row_pass.tolist() == [0, 0, 1]
    assert found.ratings.tolist() == [
        [[-1, 2], [-1, -1]],
        [[1, -1], [-1, -1]],
        [[-1, 0], [-1, -1]],
    ]
    assert found.asked[0].tolist() == [[False, True], [True, False]]
    assert found.asked.sum() == 4
    assert found.sources == ("chat", "")
    assert found.prompts == ("p1", "7")  # without an id an item is its own prompt


@pytest.mark.parametrize(
    ("label", "rating"),
    [
        *[(-1, 0), (0, 1), (1, 2), (1.0, 2), ("+1", 2), ("-1.0", 0), ("\u22121", 0)],
        *[(None, -1), ("null", -1), (" 0 ", 1), ("NaN", -1)],
    ],
)
def test_labels_in_every_spelling(tmp_path, label, rating):
    found, rejects = read(tmp_path, line(label=label))
    assert not rejects
    assert found.ratings.item() == rating
    assert found.asked.item()


@pytest.mark.parametrize(
    ("text", "field", "reason"),
    [
        ('{"item": ', "line", "is not valid JSON"),
        ("[1]", "line", "is a JSON list, no object"),
        ("[" * 100_000, "line", "cannot be decoded"),
        ("9" * 5000, "line", "cannot be decoded"),
        (line(item=...), "item", "is missing"),
        (line(item=""), "item", "is empty"),
        (line(item=True), "item", "is True; it should be text or a whole number"),
        (line(item="\ud800"), "item", "half a character"),
        (line(value=...), "value", "is missing"),
        (line(value="Humour"), "value", "'Humour' is unknown; known are: Self-dir"),
        (line(annotator=None), "annotator", "is missing"),
        (line(annotator=3), "annotator", "is 3; it should be text"),
        (line(annotator=["Ann"]), "annotator", r"is \['Ann'\]; it should be text"),
        (line(kind="robot"), "kind", "is 'robot'; it should be human or llm"),
        (line(kind=...), "kind", "is missing"),
        ('{"item": "r', "line", "JSON .Unterminated string starting at column 10"),
        (line(**{"pass": -1}), "pass", "is -1; it should be a whole number from 0"),
        (line(**{"pass": True}), "pass", "is True; it should be a whole"),
        (line(**{"pass": 0.5}), "pass", "is 0.5; it should be a whole"),
        (line(**{"pass": 2**31}), "pass", "number from 0 to 2147483647"),
        (line(**{"pass": 1e300}), "pass", "is 1e.300; it should be a whole"),
        (line(**{"pass": "9" * 5000}), "pass", r"is '9+\.\.\.9+'; it should be"),
        (line(annotator="\ud800"), "annotator", "half a character"),
        (line(annotator="\ud800", label=7), "annotator", "half a character"),
        (line(kind="\ud800"), "kind", "half a character"),
        (line(label="\ud800"), "label", r"is '\\ud800'; it should"),
        (line(label=["\ud800" * 999]), "label", r"is \['\\ud800.*\.\.\."),
        (line(label=...), "label", "is missing; null says"),
        (line(label=2), "label", "is 2; it should be -1, 0, 1 or null"),
        (line(label=True), "label", "is True; it should be"),
        (line(label="yes"), "label", "is 'yes'; it should be"),
        (line(label=[1]), "label", r"is \[1\]; it should be"),
        (line(source=4), "source", "is 4; it should be text"),
        (line(prompt_id={}), "prompt_id", "is {}; it should be text or a whole"),
        (line(kind="llm"), "kind", "is llm, but on line 1 annotator 'Ann' is human"),
        (line(source="b"), "source", "is 'b', but on line 1 item 'r1' has 'chat'"),
        (line(prompt_id=2), "prompt_id", "is '2', but on line 1 item 'r1' has 'p1'"),
        (line(), "line", "repeats line 1; the first counts"),
        (line(label=0), "line", r"repeats line 1 and says 0 where that says \+1; the"),
    ],
    ids=lambda text: text[:40],
)
def test_a_bad_line_is_set_aside_with_its_reason(tmp_path, text, field, reason):
    after = line(item="r2", prompt_id="p1", label=-1)
    found, rejects = read(tmp_path, line(), text, after)
    (reject,) = rejects
    assert (reject.file, reject.line, reject.field) == ("a.jsonl", 2, field)
    assert reject.text == text
    with pytest.raises(ValueError, match=reason):
        raise ValueError(reject.reason)
    # What is wrong leaves no trace in what is right.
    assert found.items == ("r1", "r2")
    assert found.annotators == ("Ann",)
    assert found.ratings.ravel().tolist() == [2, 0]


def test_a_line_that_looks_like_an_earlier_one_is_still_checked(tmp_path):
    """True == 1 == 1.0 as a key: what is kept of line 1 must not let line 2 pass."""
    found, rejects = read(
        tmp_path, line(item=1, **{"pass": 1}), line(item=True, **{"pass": 1})
    )
    assert [reject.field for reject in rejects] == ["item"]
    _, rejects = read(
        tmp_path, line(**{"pass": 1}), line(value="Hedonism", **{"pass": True})
    )
    assert [reject.field for reject in rejects] == ["pass"]
    assert found.items == ("1",)


def test_a_missing_pass_is_pass_0(tmp_path):
    bot = {"annotator": "bot", "kind": "llm", "pass": None}
    for lines, name in (
        ([line(**bot), line(**bot), line(**bot | {"pass": 1})], "a.jsonl"),
        (
            ["item,value,annotator,kind,label,pass"]
            + [f"r1,Power,bot,llm,1,{number}" for number in ("", "", 1)],
            "a.csv",
        ),
    ):
        found, (reject,) = read(tmp_path, *lines, name=name)
        assert found.row_pass.tolist() == [0, 1]
        assert "without pass it is pass 0: number the passes" in reject.reason
        assert reject.annotator == "bot"
    _, (reject,) = read(tmp_path, line(), line())
    assert "number the passes" not in reject.reason


def test_a_source_that_is_given_once_counts_for_the_item(tmp_path):
    found, rejects = read(
        tmp_path, line(source=None, prompt_id=None), line(value="Hedonism")
    )
    assert not rejects
    assert (found.sources, found.prompts) == (("chat",), ("p1",))


def test_other_value_names_are_accepted_when_asked_for(tmp_path):
    lines = line(value="Humour"), line(value="humour", item="r2"), line(value="POWER")
    found, rejects = read(tmp_path, *lines, any_value=True)
    assert not rejects
    assert found.values == ("Humour", "Power")
    found, rejects = read(tmp_path, *lines)
    assert len(rejects) == 2
    assert found.values == ("Power",)


def table(rng, rows):
    for n, v, (annotator, kind, number) in rows:
        label = rng.choice([-1, 0, 1, None])
        yield GOOD | {
            "item": f"r {n}, \u2028quoted",
            "value": values.BASIC[v],
            "annotator": annotator,
            "kind": kind,
            "pass": number,
            "label": label,
            "source": None if n % 2 else "a, b",
            "prompt_id": f"p{n // 2}",
        }


def test_csv_is_read_as_jsonl(tmp_path):
    people = [("Ann", "human", 0), ("bot", "llm", 0), ("bot", "llm", 1)]
    rows = [(n, v, who) for n in range(6) for v in range(3) for who in people]
    records = list(table(np.random.default_rng(0), rows))
    a, _ = read(tmp_path, *map(json.dumps, records))
    path = tmp_path / "a.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, ["comment", *reversed(GOOD)])
        writer.writeheader()
        writer.writerows({"comment": "free", **record} for record in records)
    b, rejects = judgements.read_judgements(path)
    assert not rejects
    for name in ("items", "values", "annotators", "kinds", "sources", "prompts"):
        assert getattr(a, name) == getattr(b, name), name
    for name in ("row_annotator", "row_pass", "ratings", "asked"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_csv_lines_are_numbered_and_set_aside(tmp_path):
    header = "item,value,annotator,kind,label"
    found, rejects = read(
        tmp_path,
        header,
        "r1,Power,Ann,human,1",
        '"r2,Power,Ann,human,1',
        "",
        "r2,Power,Ann,human",
        "r3,Power,Ann,human,",
        "r4,Power,Ann,human,7",
        f"{'x' * 200_000},Power,Ann,human,1",
        "r5,Power,Ann,human,-1.0",
        name="a.CSV",
    )
    assert found.items == ("r1", "r3", "r5")
    assert found.ratings.ravel().tolist() == [2, -1, 0]
    assert [(r.line, r.field) for r in rejects] == [
        (3, "line"),
        (5, "line"),
        (7, "label"),
        (8, "line"),
    ]
    assert rejects[1].reason == "has 4 fields, the header has 5."
    assert rejects[1].text == "r2,Power,Ann,human"
    assert "is no CSV (field larger than" in rejects[3].reason


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"x", r"the suffix '\.txt' is unknown; known are: \.jsonl, \.json"),
        ("a.jsonl", b"", "the file is empty; it should hold judgements"),
        ("a.csv", b"", "the file is empty"),
        ("a.jsonl", b"\n \n", "the file is empty"),
        ("a.csv", b"item,value,annotator,kind,label\n", "the file is empty"),
        ("a.csv", b"item,value,kind,Label\n", "header has no column annotator; it has"),
        ("a.csv", b"item,value,annotator,kind,label,item\n", "has item more than once"),
        ("a.csv", b"item;value;kind\n", r"commas, not by semicolons\."),
        ("a.json", b"\n [\n{},\n{}]\n", r"a JSON list; it should hold one object per"),
        ("a.jsonl", b"\n{\xff\n", r"is not UTF-8 \(byte 0xff on line 2\)"),
        ("a.csv", b"item\n" * 9 + b"caf\xe9", r"no column value"),
        ("a.jsonl", b"{}\r\n" * 9000 + b"\xe9", r"\(byte 0xe9 on line 9001\)"),
        ("a.jsonl", "{}\n".encode("utf-16"), r"is not UTF-8 \(byte 0xff on line 1\)"),
        ("a.jsonl", b"\xef\xbb\xbf", "the file is empty"),
        ("a.csv", b'"item,value\n', "line 1, the header, is no CSV"),
        ("a.csv", b"item\tvalue\tkind\n", r"commas, not by tabs\."),
        ("a.csv", b",".join([b"x" * 999] * 999), r"x…x+ and 979 others\."),
        (
            "a.jsonl",
            b"{}\n[]\n",
            r"no line can be used \(2 set aside\); the first",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        judgements.read_judgements(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist; a file of judgements"):
        judgements.read_judgements(tmp_path / "a.jsonl")
    with pytest.raises(FileNotFoundError, match="is a folder; a file of judgements"):
        judgements.read_judgements(tmp_path)


def test_too_large_a_table_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(judgements, "MOST_CELLS", 1)
    with pytest.raises(ValueError, match="1 passes of annotators x 2 items x 1 values"):
        read(tmp_path, line(), line(item="r2", prompt_id="p1"))


def test_rejects_are_written_as_they_stand(tmp_path):
    _, rejects = read(tmp_path, line(), '{"item": "\u00fc|', line(item="\ud800"))
    path = tmp_path / "rejects.jsonl"
    judgements.write_rejects(path, rejects)
    lines = [json.loads(text) for text in path.read_text("utf-8").splitlines()]
    assert [set(entry) for entry in lines] == [
        {"file", "line", "field", "reason", "text"}
    ] * 2
    assert lines[0]["text"] == '{"item": "\u00fc|'
    assert lines[1]["text"] == line(item="\ud800")
    assert str(rejects[1]) == (
        "a.jsonl:3: item: holds half a character (a lone surrogate)."
    )


def test_progress_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(judgements, "_EVERY", 2)
    told = []
    read(tmp_path, *(line(item=n, prompt_id=n) for n in range(5)), progress=told.append)
    assert told == [2, 4]


def test_a_stray_quote_costs_its_line_only(tmp_path):
    path = tmp_path / "stray.csv"
    lines = [f"{n},Power,ann,human,1" for n in range(9)]
    lines[2], lines[6] = '"' + lines[2], '"' + lines[6]
    path.write_text("\n".join(["item,value,annotator,kind,label", *lines]) + "\n")
    found = list(judgement_lines.records(path))
    faults = [n for n, _, cells in found if isinstance(cells, judgement_lines.Fault)]
    assert len(found) == 9
    assert faults == [4, 8]


@pytest.mark.parametrize("field", ["annotator", "value", "kind", "source", "prompt_id"])
def test_what_is_quoted_from_a_line_is_short_and_can_be_encoded(tmp_path, field):
    # A long prompt_id or source is right by itself and quoted where it changes.
    texts = ["x" * 10_000, "y" * 10_000, "\ud800" * 10_000, "\x1b[2J", ["\ud800"] * 9]
    lines = [line()]
    for text in texts:
        lines += [line(item="r9", **{field: text}), line(item="r9", **{field: text})]
        lines += [line(**{"kind": "llm", field: text, "label": 5})]
    _, rejects = read(tmp_path, *lines)
    assert rejects
    for reject in rejects:
        assert len(str(reject)) < 300
        assert str(reject).isprintable()
        str(reject).encode()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_lines_end_as_they_do_on_any_system(tmp_path, end, name):
    lines = [line(), line(item="r2", label=7), line(item="r3", label=-1)]
    if name == "a.csv":
        lines = ["item,value,annotator,kind,label,x"]
        lines += [f"r{n},Power,Ann,human,{k},y" for n, k in ((1, 1), (2, 7), (3, -1))]
    path = tmp_path / name
    path.write_bytes(b"\xef\xbb\xbf" + end.join(lines).encode())
    found, (reject,) = judgements.read_judgements(path)
    assert found.items == ("r1", "r3")
    assert reject.line == 2 + (name == "a.csv")
    assert reject.text == lines[-2]


def test_a_file_name_that_is_no_text_can_be_written(tmp_path):
    path = tmp_path / os.fsdecode(b"n\xe9.jsonl")
    with pytest.raises(FileNotFoundError, match=r"n.udce9.jsonl: does not exist"):
        judgements.read_judgements(path)
    path.write_text(line() + "\n{\n")
    found, (reject,) = judgements.read_judgements(path)
    assert found.file == reject.file == "n\\udce9.jsonl"
    judgements.write_rejects(tmp_path / "rejects.jsonl", [reject])


def test_what_is_no_ordinary_file_is_named(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(FileNotFoundError, match="is no ordinary file"):
        judgements.read_judgements(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("name", "content", "unused"),
    [
        ("a.csv", "\nItem,value,annotator,kind,label,passes, prompt\n", 2),
        ("a.jsonl", line() + "\n", 0),
        ("a.jsonl", line(passes=1, prompt="p") + "\n", 2),
        ("a.jsonl", "[" * 100_000, 0),
        ("a.jsonl", "[1]\n", 0),
        ("a.csv", "", 0),
    ],
    ids=str,
)
def test_columns_that_are_not_read_are_known(tmp_path, name, content, unused):
    (tmp_path / name).write_text(content)
    found = judgement_lines.unused_fields(tmp_path / name)
    assert found == ("passes", "prompt")[:unused]
