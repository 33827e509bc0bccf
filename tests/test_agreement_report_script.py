# SPDX-License-Identifier: Apache-2.0
"""The command of the agreement report, end to end, and its answers to bad input."""

import csv
import dataclasses
import json

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
        ([], "give an annotated file or --demo, see --help"),
        (["a.jsonl", "--demo"], "give an annotated file or --demo, not both"),
        (["nowhere.jsonl"], "nowhere.jsonl: does not exist"),
        (["a.txt"], "suffix '.txt' is unknown"),
        (["empty.jsonl"], "the file is empty"),
        (["broken.jsonl"], "no line can be used (1 set aside)"),
        (["empty.jsonl", "--level", "2"], "level is 2.0"),
        (["empty.jsonl", "--out", "a.txt"], "a.txt is a file; --out should name"),
    ],
)
def test_the_command_refuses_in_one_sentence(
    tmp_path, monkeypatch, capsys, words, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "broken.jsonl").write_text("{\n")
    assert script.main(words) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
