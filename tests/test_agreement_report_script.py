# SPDX-License-Identifier: Apache-2.0
"""The command of the agreement report, end to end, and its answers to bad input."""

import csv
import json

import jax
import pytest

from experiments import agreement_demo
from experiments import agreement_report as script


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
    assert "3 lines set aside; the first is demo.jsonl:31201: line: is no JSON" in said
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
    text = (out / "report.md").read_text(encoding="utf-8")
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
    for name in ("values.png", "kappas.png"):
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
