# SPDX-License-Identifier: Apache-2.0
"""The command of the agreement report, end to end, and its answers to bad input."""

import csv
import dataclasses
import json
import os
import subprocess
import sys
import types

import jax
import pytest

from experiments import agreement_demo
from experiments import agreement_report as script
from fulcra_jax.report import agreement_prose


@pytest.fixture(scope="module", autouse=True)
def compile_quickly():
    """What takes time here is compilation."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


FILES = {
    "report.md",
    "report.json",
    "values.png",
    "kappas.png",
    "disputed.csv",
    "consistency.csv",
    "rejects.jsonl",
    "demo.jsonl",
}


def test_the_demo_end_to_end(tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--demo", "--out", str(out), "--resamples", "100", "--disputed", "3"]
    assert script.main(words) == 0
    assert {path.name for path in out.iterdir()} == FILES
    said = capsys.readouterr().out
    assert "as simulated / as estimated" in said
    assert (
        "3 lines set aside; the first is demo.jsonl:31201: line: is not valid" in said
    )
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["rejects"] == {"line": 1, "value": 1, "label": 1}
    assert report["judgements"] == 31_200
    assert len(report["disputed"]) == 3
    # The quality that the file was made with is found again.
    for one in report["annotators"]:
        kind, quality = agreement_demo.QUALITY[one["name"]]
        assert one["kind"] == kind
        for known, found in zip(quality, one["sensitivity"], strict=True):
            assert found["value"] == pytest.approx(known, abs=0.08)
    worst = max(report["annotators"], key=lambda one: one["alpha_change"]["value"])
    assert worst["name"] == "cleo"
    group = report["pooled"]
    assert group["chance"]["value"] < group["observed"]["value"]
    assert group["alpha"]["low"] < group["alpha"]["value"] < group["alpha"]["high"]
    assert [one["name"] for one in report["consistency"]] == ["model-x", "model-y"]
    with (out / "disputed.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["item"] for row in rows}) == 3
    assert {row["ada"] for row in rows} <= {"-1", "0", "1", ""}
    with (out / "consistency.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 240
    assert {row["annotator"] for row in rows} == {"model-x", "model-y"}
    shares = [float(row["signed_jaccard"]) for row in rows]
    assert shares == sorted(shares)
    assert shares[0] < 0.5
    for row, share in zip(rows, shares, strict=True):
        assert (share == 1.0) == (row["differing_values"] == ""), row
    assert said.splitlines()[-1].endswith("rejects.jsonl, consistency.csv")
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "consistency.csv" in text[text.index("## 5.") : text.index("## 6.")]
    assert "were set aside, most often" not in text  # 3 of 31203 lines
    for section in range(1, 9):
        assert f"\n## {section}. " in text
    assert "python -m experiments.review_simulation" in text


def test_a_file_of_one_annotator_replaces_an_older_report(tmp_path, capsys):
    path = tmp_path / "one.csv"
    path.write_text(
        "item,value,annotator,kind,label\nr1,Power,Ann,human,1\nr2,Power,Ann,human,2\n"
    )
    out = tmp_path / "out"
    out.mkdir()
    for name in ("values.png", "kappas.png", "consistency.csv"):
        (out / name).write_bytes(b"of an older report")
    assert script.main([str(path), "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == FILES - {
        "values.png",
        "kappas.png",
        "demo.jsonl",
    }
    assert "Only one annotator" in capsys.readouterr().out
    (reject,) = (out / "rejects.jsonl").read_text().splitlines()
    assert json.loads(reject) == {
        "file": "one.csv",
        "line": 3,
        "field": "label",
        "reason": "is '2'; it should be -1, 0, 1 or null.",
        "text": "r2,Power,Ann,human,2",
    }


def test_many_lines_set_aside_are_the_first_thing_said(tmp_path, capsys):
    path = tmp_path / "a.csv"
    rows = ["item,value,annotator,kind,label"]
    rows += [f"r{n},Power,Ann,human,{n % 2}" for n in range(300)]
    for name in ("bot", "bot", "bot"):
        rows.append(f"r1,Power,{name},llm,{len(rows)}")
    path.write_text("\n".join([*rows, "r9,Power,Ann,human,1", ""]))
    out = tmp_path / "out"
    assert script.main([str(path), "--out", str(out)]) == 0
    want = "4 of 304 lines were set aside, most often (in 3) for a reason like this: "
    want += "label: is '301'; it should be -1, 0, 1 or null. No line of bot could be "
    want += "used. All of them stand in rejects.jsonl."
    text = (out / "report.md").read_text(encoding="utf-8")
    assert text.splitlines()[2] == f"- **{want}**"
    said = capsys.readouterr().out
    assert want in " ".join(said[said.index("- ") :].split())
    # A lost annotator is said of whatever his share.
    aside = agreement_prose.SetAside((("label", 1),), 1000, "x", 1)
    assert agreement_prose._set_aside(aside) == []
    lost = dataclasses.replace(aside, lost=("bot",))
    assert "1 of 1000 lines was set aside" in agreement_prose._set_aside(lost)[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.jsonl"], "nowhere.jsonl: does not exist"),
        (["a.txt"], "suffix '.txt' is unknown"),
        (["empty.jsonl"], "the file is empty"),
        (["broken.jsonl"], "no line can be used (1 set aside)"),
        (["latin.jsonl"], "is not UTF-8 (byte 0xe9 on line 2); save the file as"),
        (["folder"], "folder: is a folder; a file of judgements"),
        (["b\udce9.jsonl"], r"b\udce9.jsonl: does not exist"),
        (["empty.jsonl", "--out", "a.txt"], "a.txt is a file; --out should name"),
        (["a.csv", "--out", "a.txt/x/y"], "a.txt/x/y cannot be written to (Not a"),
        (["a.csv", "--out", "/proc/none/x"], "/proc/none/x cannot be written to ("),
        (["a.csv", "--out", "folder"], "folder/report.md is a directory where"),
        (["disputed.csv", "--out", "."], "disputed.csv would be overwritten by the"),
    ],
)
def test_the_command_refuses_in_one_sentence(
    tmp_path, monkeypatch, capsys, words, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "broken.jsonl").write_text("{\n")
    (tmp_path / "latin.jsonl").write_bytes(b'{}\n"caf\xe9"\n')
    (tmp_path / "folder/report.md").mkdir(parents=True)
    for name in ("a.csv", "disputed.csv"):
        (tmp_path / name).write_text("\n".join(TWO))
    before = sorted(tmp_path.rglob("*"))
    # All of it is said before anything is computed.
    monkeypatch.setattr(script.agreement, "report", None)
    assert script.main(words) == 1
    assert sorted(tmp_path.rglob("*")) == before
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


TWO = ["item,value,annotator,kind,label"]
TWO += [f"r{n},Power,{who},human,{n % 2}" for n in range(9) for who in ("Ann", "item")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give an annotated file or --demo, see --help"),
        (["a.csv", "--demo"], "give an annotated file or --demo, not both"),
        (["a.csv", "--level", "2"], "level is 2.0"),
        (["a.csv", "--level", ".9999999999"], "expected 0.5 <= level <= 0.9999"),
        (["a.csv", "--seed", "-1"], "seed is -1; expected 0 <= seed < 2^32"),
        (["a.csv", "--seed", str(2**70)], "expected 0 <= seed < 2^32"),
        (["--demo", "--seed", str(2**32)], "expected 0 <= seed < 2^32"),
        (["--demo", "--demo-items", "9"], "demo-items is 9; expected at least 10"),
        (["--demo", "--demo-items", "200001"], "and at most 200000"),
        (["a.csv", "--demo-items", "20"], "--demo-items is the size of --demo"),
    ],
)
def test_bad_arguments_are_refused(words, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        script.main(words)
    assert stopped.value.code == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in said


def test_a_demo_of_another_size(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(agreement_demo, "_EVERY", 1000)
    out = tmp_path / "made" / "for" / "it"
    words = ["--demo", "--demo-items", "11", "--out", str(out), "--resamples", "100"]
    assert script.main(words) == 0
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert (report["items"], report["prompts"]) == (11, 6)
    assert report["judgements"] == 11 * 130
    said = capsys.readouterr().out
    assert "simulating 11 items" in said
    assert "simulating, 1000 lines" in said


def test_hostile_names_and_columns_end_in_a_report(tmp_path, capsys):
    rows = [",".join([*TWO[0].split(","), "pass", "prompt", "\x1b"])]
    rows += [f"{row},,," for row in TWO[1:]]
    rows += [f"r{n},Power,=\x1b[2J*{'z' * 500},llm,1,,," for n in range(3)]
    rows += ["r1,Power,\x1b[lost],human,5,,,", f"r1,Power,Bob,human,1,{'9' * 5000},,"]
    path = tmp_path / os.fsdecode(b"n\xe9.csv")
    path.write_text("\n".join(rows), encoding="utf-8")
    out = tmp_path / "out"
    assert script.main([str(path), "--out", str(out), "--resamples", "100"]) == 0
    said = capsys.readouterr().out
    assert said.replace("\n", "").isprintable()
    assert r"not used, because no field has this name: prompt, \x1b" in said
    assert "2 lines set aside; the first is n\\udce9.csv:23: label: is '5'; it" in said
    text = (out / "report.md").read_text(encoding="utf-8")
    assert text.replace("\n", "").isprintable()
    assert r"No line of \\x1b\[lost\], Bob could be used." in text
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["file"] == r"n\udce9.csv"
    # An annotator called item does not take the place of the item.
    with (out / "disputed.csv").open(encoding="utf-8", newline="") as file:
        (header, *_) = csv.reader(file)
    assert len(set(header)) == len(header)
    assert "item (annotator)" in header


def test_many_lost_annotators_are_counted():
    lost = tuple(f"\ud800{n}" + "x" * 500 for n in range(1000))
    aside = agreement_prose.SetAside((("kind", 1000),), 2000, "a" * 5000, 9, lost)
    (text,) = agreement_prose._set_aside(agreement_prose.readable(aside))
    assert len(text) < 1500
    assert r"\ud80011xx" in text
    assert "and 988 others could be used" in text


def test_reasons_that_differ_in_quotes_only_are_one():
    rejects = [
        script.judgements.Reject("a", 1, "label", f"is {name!r}; it should.", "")
        for name in ("a", "O'Brien", "both \" and '", "\\'")
    ]
    report = types.SimpleNamespace(annotators=(), judgements=0)
    assert script.set_aside(report, rejects).times == 4


def test_an_encoding_that_lacks_a_character_is_no_error(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(TWO[0] + "\nr1,Power,\u4e2d,human,1\n", encoding="utf-8")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "experiments.agreement_report"),
            *(path.name, "--out", "\u4e2d"),
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": os.getcwd()},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert rb"written to \u4e2d/" in done.stdout


def test_half_a_character_and_5000_digits_are_set_aside_and_counted(tmp_path, capsys):
    good = {"item": "r1", "value": "Power", "annotator": "Ann", "kind": "human"}
    lines = [
        good | {"label": 1},
        good | {"label": 1, "annotator": "\ud800Eve"},
        good | {"label": 1, "annotator": "Bob", "pass": "9" * 5000},
        good | {"label": "\ud800" * 5000},
    ]
    path, out = tmp_path / "a.jsonl", tmp_path / "out"
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    assert script.main([str(path), "--out", str(out), "--resamples", "100"]) == 0
    assert "3 lines set aside; the first is a.jsonl:2: annot" in capsys.readouterr().out
    text = (out / "report.md").read_text(encoding="utf-8")
    assert r"No line of \\ud800Eve, Bob could be used." in text
    assert len((out / "rejects.jsonl").read_text("utf-8").splitlines()) == 3
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["rejects"] == {"annotator": 1, "pass": 1, "label": 1}
