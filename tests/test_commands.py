# SPDX-License-Identifier: Apache-2.0
"""The commands that read files and no model: rerank, pairs, rows."""

import json

import numpy as np
import pytest

from fulcra_jax import alignment, cli, inference, targets


def scored(path, evaluators=("e", "e", "e", "e", "e")):
    """Three answers to one prompt, one to another, and a second time the same."""
    scores = np.zeros((5, 10), np.float32)
    scores[:, 5] = [0.2, 0.9, 0.6, 0.4, 0.9]
    answers = inference.ScoredAnswers(
        ["a", "a", "a", "b", "a"],
        ["x", "y", "z", "x", "y"],
        ["m", "n", "m", "m", "n"],
        scores,
        np.full((5, 10, 3), np.nan, np.float32),
        list(evaluators),
    )
    inference.write_scores(path, answers)
    return str(path)


TARGET = ["--target", "0,0,0,0,0,1,0,0,0,0"]


def test_rerank_writes_the_best_answers_in_the_format_it_reads(tmp_path, capsys):
    path, out = scored(tmp_path / "scores.jsonl"), tmp_path / "best.jsonl"
    words = ["rerank", path, *TARGET, "--out", str(out)]
    assert cli.main(words) == 0
    shown = capsys.readouterr()
    best = inference.read_scores(out)
    assert (best.prompts, best.responses) == (["a", "b"], ["y", "x"])
    assert "5 answers to 2 prompts" in shown.out
    # Best of 4: -.1 for "a" alone; one answer to it gets -(.8 + .1 + .4 + .1) / 4.
    row = next(line for line in shown.out.splitlines() if line.split()[:1] == ["4"])
    assert row.split() == ["4", "1", "-0.100", "+0.250", "-", "0.636"]
    assert "mean reward -0.350; of one answer -0.475, of the first -0.700" in shown.out
    assert "  m: -0.600, 1\n  n: -0.100, 1\n" in shown.out
    assert shown.err.startswith("note: the target does not count SD, ST")
    assert shown.err.count("\n") == 1
    assert cli.main(words) == 1
    assert "nothing is overwritten" in capsys.readouterr().err
    words = ["rerank", path, "--target", "ideal", "--n", "1", "--seed", "3"]
    assert cli.main([*words, "--gate", "official"]) == 0
    assert "best met by an answer without values" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["rerank", "pairs"])
def test_the_help_of_target_lists_the_names(command, capsys):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name in targets.EXPLICIT:
        assert name in said


def test_a_target_may_begin_with_a_negative_number(tmp_path, capsys):
    path = scored(tmp_path / "scores.jsonl")
    assert cli.main(["rerank", path, "--target", "-1,0,0,0,0,1,0,0,0,0"]) == 0
    assert cli.main(["rerank", path, "--target=-1,0,0,0,0,1,0,0,0,0"]) == 0
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert "Scores answers with a trained evaluator, and" in capsys.readouterr().out


def test_pairs_are_written_for_each_kind_of_trainer(tmp_path, capsys):
    path = scored(tmp_path / "scores.jsonl")
    words = ["pairs", path, *TARGET, "--margin", "0.25"]
    plain, chat = tmp_path / "plain.jsonl", tmp_path / "chat.jsonl"
    assert cli.main([*words, "--out", str(plain)]) == 0
    shown = capsys.readouterr().out
    assert (
        "2 prompts: 1 gave 1 pairs; without: 0 within the margin, 1 with one" in shown
    )
    assert alignment.read_pairs(plain).chosen == ["y"]
    assert alignment.read_pairs(plain).evaluators == ["e"]
    more = ["--format", "chat", "--per-prompt", "0", "--temperature", "1"]
    assert cli.main([*words, *more, "--out", str(chat)]) == 0
    found = alignment.read_pairs(chat)
    assert list(zip(found.chosen, found.rejected, strict=True)) == [
        ("y", "x"),
        ("z", "x"),
        ("y", "z"),
    ]
    assert (found.probs > 0.5).all()
    single = tmp_path / "single.jsonl"
    more = ["--format", "unpaired", "--out", str(single)]
    assert cli.main([*words, *more]) == 1
    assert "the median distance of these answers is 0.400" in capsys.readouterr().err
    assert cli.main([*words, *more, "--threshold", "0.45"]) == 0
    assert "5 answers: 1 wanted, 1 not; 3 within" in capsys.readouterr().out
    answers = alignment.read_unpaired(single)
    assert answers.completions == ["x", "y"]
    assert answers.labels.tolist() == [False, True]
    assert cli.main([*words, *more, "--threshold", "0.45"]) == 1
    assert "nothing is overwritten" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rerank", "FILE", "--target", "kind"], "target 'kind' is unknown; known are"),
        (["rerank", "FILE", "--target", "1,0"], "target is '1,0'; it should be a"),
        (
            ["rerank", "FILE", "--target", "1,0,0,0,0,0,0,0,0,x"],
            "10 numbers in [-1, 1]",
        ),
        (
            ["rerank", "FILE", "--target", "2,0,0,0,0,0,0,0,0,0"],
            "10 numbers in [-1, 1]",
        ),
        (["rerank", "FILE", "--target", "0,0,0,0,0,0,0,0,0,0"], "zero everywhere"),
        (["rerank", "FILE", *TARGET, "--n", "-1"], "--n is -1; it should be at least"),
        (["rerank", "none.jsonl", *TARGET], "no such file of scores"),
        (["rerank", "TWO", *TARGET], "2 evaluators scored it (e, f)"),
        (["rerank", "FILE", *TARGET, "--evaluator", "g"], "there are: e."),
        (["rerank", "EMPTY", *TARGET], "the file is empty"),
        (["pairs", "BAD", *TARGET, "--out", "OUT"], "bad.jsonl: line 1: is not valid"),
        (
            ["pairs", "FILE", *TARGET, "--out", "OUT", "--margin", "-1"],
            "--margin is -1",
        ),
        (
            ["pairs", "FILE", *TARGET, "--out", "OUT", "--per-prompt", "-1"],
            "--per-prompt",
        ),
        (
            ["pairs", "FILE", *TARGET, "--out", "OUT", "--threshold", "1"],
            "is for --format",
        ),
        (["pairs", "FILE", *TARGET, "--out", "no/where"], "the folder of --out"),
    ],
)
def test_rerank_and_pairs_refuse_in_one_sentence(tmp_path, words, message, capsys):
    scored(tmp_path / "FILE")
    scored(tmp_path / "TWO", "eeeef")
    (tmp_path / "EMPTY").write_text("")
    (tmp_path / "bad.jsonl").write_text("{\n")
    places = {"BAD": "bad.jsonl"} | {n: n for n in ("FILE", "TWO", "EMPTY", "OUT")}
    words = [str(tmp_path / places[w]) if w in places else w for w in words]
    assert cli.main(words) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "OUT").exists()


def test_one_of_two_evaluators_can_be_chosen(tmp_path, capsys):
    path = scored(tmp_path / "scores.jsonl", "eeeff")
    assert cli.main(["rerank", path, *TARGET, "--evaluator", "e"]) == 0
    assert "3 answers to 1 prompts" in capsys.readouterr().out


def test_rows_counts_labels_conflicts_and_bad_lines(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    record = {
        "dialogue": "Human: a\nBob: b",
        "value_items": ["be honest: +1", "be helpful: -1"],
        "value_types": ["benevolence: +1", "benevolence: -1", "power: 1+"],
    }
    path.write_text(json.dumps(record) + "\n{broken\n")
    bad = tmp_path / "bad.jsonl"
    assert cli.main(["rows", str(path), "--rejects", str(bad)]) == 0
    shown = capsys.readouterr().out
    assert "set aside: 1" in shown
    assert "rows.jsonl:2: line: is no JSON" in shown
    assert json.loads(bad.read_text())["line"] == 2
    assert cli.main(["rows", str(path), "--rejects", str(bad)]) == 1
    assert cli.main(["rows", str(tmp_path / "none.jsonl")]) == 1
    assert cli.main(["rows", str(path), "--conflict", "vote"]) == 1
    assert "it should be one of: mask" in capsys.readouterr().err
