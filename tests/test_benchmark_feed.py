# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the input pipeline: it runs, and its ratios are of examples."""

import json

import numpy as np
import pytest

from experiments.benchmarks import feed, rounds

TINY = "--examples 60 --batches 1 --rounds 1 --retries 0 --rows 4".split()


@pytest.mark.slow
def test_it_runs(tmp_path, capsys):
    assert feed.main([*TINY, "--batch-size", "8", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "feed.json").read_text())
    # The epoch of a ladder is rounded up to whole batches, as is that of packed rows.
    assert report["examples"]["cold ladder"] == 64
    assert report["examples"]["step ladder"] == 8
    assert report["examples"]["warm packed"] >= 60
    assert report["padding"]["packed"] < report["padding"]["ladder"]
    assert len(report["bars"]) == 4
    assert (tmp_path / "feed.md").read_text() in printed


def test_a_ratio_is_of_examples_a_second():
    counts = {f"{a} {b}": 1 for a in ("step", "cold", "warm") for b in feed.LAYOUTS}
    counts |= {"step ladder": 10, "cold ladder": 300}
    seconds = dict.fromkeys(counts, 1.0) | {"step ladder": 2.0, "cold ladder": 4.0}
    once = {name: rounds.Once(x, x) for name, x in seconds.items()}
    measured = rounds.Measured([rounds.Round(once, 0.0)], [], False)
    padding = {"ladder": 0.3, "packed": 0.05}
    report = feed.report_of(feed.Arguments(), measured, counts, padding)
    # 300 in 4 seconds over 10 in 2; the others 1 in 1 over 1 in 1.
    assert report["over the step"]["cold ladder"]["median"] == pytest.approx(15.0)
    assert report["over the step"]["warm packed"]["median"] == pytest.approx(1.0)
    assert [line.rsplit(": ", 1)[1] for line in report["bars"]] == [
        "holds",
        "does not hold",
        "does not hold",
        "does not hold",
    ]
    assert "| 30.0% | 5 | 75 | 15 (15-15) |" in feed.table(report)


def test_padding_is_that_of_all_batches():
    one, two = np.ones((1, 6), bool), np.zeros((1, 2), bool)
    assert feed.padding_of([{"mask": one}, {"mask": two}]) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "rounds is 0; expected at least 1"),
        (["--examples", "0"], "examples is 0; expected at least 1"),
        (["--capacity", "100"], "capacity is 100; expected at least 192"),
        (["--threads", "-1"], "threads is -1; expected at least 0"),
        (["--threads", "4", "--prefetch", "3"], "prefetch is 3; expected at least 4"),
        (["--foreign", "nan"], "foreign is nan; expected a share in [0, 1]"),
    ],
)
def test_bad_numbers_are_one_sentence(arguments, message, capsys):
    assert feed.main(arguments) == 1
    assert message in capsys.readouterr().err


def test_results_have_a_place_before_anything_is_measured(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert feed.main(["--out", str(tmp_path / "file")]) == 1
    assert "file is a file; out should be a directory" in capsys.readouterr().err
