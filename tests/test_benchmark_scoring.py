# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from experiments.benchmarks import scoring


@pytest.mark.slow
def test_the_benchmark_runs_without_the_other_libraries(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scoring, "ENVIRONMENTS", tmp_path / "nowhere")
    arguments = "--sizes 1000 --rounds 1 --repeats 1".split()
    assert scoring.main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert "not measured: `make references`" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "scoring.json").read_text())
    assert [row["task"] for row in report["ours"]] == list(scoring.OURS)
    assert all(row["s"] > 0.0 and row["peak"] > 0 for row in report["ours"])
    assert (tmp_path / "out" / "scoring.png").stat().st_size > 0


def found(alpha):
    coefficients = {"alpha_nominal": [0.5], "ac1": [0.6]}
    return [
        {"size": 9, "task": "eight_coefficients", "result": coefficients},
        {"size": 9, "task": "dawid_skene", "result": [[1.0, 0.0]]},
        {"size": 9, "task": "krippendorff_alpha", "result": [alpha]},
        {"size": 9, "task": "crowdkit_dawid_skene", "result": [[1.0, 0.0]]},
    ]


def test_wrong_figures_are_no_benchmark():
    scoring.check_results(found(alpha=0.5))
    with pytest.raises(ValueError, match="krippendorff_alpha and ours differ by"):
        scoring.check_results(found(alpha=0.51))


def test_no_rounds_are_refused(capsys):
    assert scoring.main(["--rounds", "0"]) == 1
    assert "rounds and repeats must be at least 1" in capsys.readouterr().err
