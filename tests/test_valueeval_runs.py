# SPDX-License-Identifier: Apache-2.0
"""A run on ValueEval'23: trained, evaluated, its submission written."""

import json

import numpy as np
import pytest
from valueeval_files import folder

from experiments import evaluate, rundir
from experiments import train as script
from fulcra_jax import cli
from fulcra_jax.data import valueeval
from fulcra_jax.inference import Predictor

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_device")]


@pytest.fixture(scope="module")
def run(one_device, tmp_path_factory):
    """A finished tiny run."""
    path = tmp_path_factory.mktemp("runs")
    words = ["--data", str(folder(path)), "--run", str(path / "tiny"), "--steps", "8"]
    looks = ["--eval-every", "8", "--keep-best", "official_f1"]
    assert script.main(["debug", *words, *looks]) == 0
    return path / "tiny"


def test_a_run_judges_twenty_categories_that_are_there_or_not(run):
    config = rundir.reopen(run)
    assert (config.evaluator.head.num_values, config.evaluator.link) == (20, "presence")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    dev = [entry for entry in map(json.loads, lines) if entry["split"] == "dev"]
    assert set(config.figures) <= set(dev[-1])
    found = Predictor.load(run, names=valueeval.CATEGORIES).score(["a"], ["b"])
    assert found.probs.shape == (1, 20, 3)
    assert not found.probs[..., 0].any()


def test_evaluate_prints_both_f1_and_writes_a_submission(run, capsys):
    assert evaluate.main(["--run", str(run)]) == 0
    said = capsys.readouterr().out
    assert "official F1 = 2PR/(P+R)" in said
    assert "on TEST" in said
    made = run / "evaluation-dev"
    assert {path.name for path in made.iterdir()} == {
        "figures.json", "report.md", "curve.png", "predictions.tsv",
        "probabilities.tsv", "submission.tsv",
    }  # fmt: skip
    report = json.loads((made / "figures.json").read_text())
    assert [entry["name"] for entry in report["systems"]] == [
        f"{system}, {rule}"
        for system in ("evaluator", "TF-IDF + LR")
        for rule in ("cut .5", "one cut", "a cut each")
    ][:3] + ["all-ones"] + [
        f"TF-IDF + LR, {rule}" for rule in ("cut .5", "one cut", "a cut each")
    ]  # fmt: skip
    pairs = {(entry["ours"], entry["theirs"]) for entry in report["differences"]}
    assert ("evaluator, one cut", "TF-IDF + LR, cut .5") in pairs
    for name, ids in (("submission", "T"), ("predictions", "V")):
        found, rejects = valueeval.read_labels(made / f"{name}.tsv")
        assert not rejects
        assert {key[0] for key in found} == {ids}
    lines = (made / "probabilities.tsv").read_text().splitlines()
    assert len(lines) == 13
    assert np.array(lines[1].split("\t")[1:], float).max() <= 1.0


def test_other_files_are_judged_under_the_thresholds_of_validation(
    run, tmp_path, capsys
):
    other = folder(tmp_path) / "arguments-training.tsv"
    words = ["--run", str(run), "--data", str(other), "--no-tfidf"]
    assert evaluate.main(words) == 0
    made = run / "evaluation-arguments-training"
    assert f"Of {run}." in (made / "report.md").read_text()
    assert not (made / "submission.tsv").exists()
    assert "was trained on" in capsys.readouterr().out


def test_what_cannot_be_done_is_said(run, tmp_path, capsys):
    words = ["debug", "--data", str(folder(tmp_path)), "--run", str(tmp_path / "r")]
    assert script.main([*words, "--teacher"]) == 1
    assert "which has no teacher's scores" in capsys.readouterr().err
    assert evaluate.main(["--run", str(run), "--split", "test"]) == 1
    assert "no argument of test has labels" in capsys.readouterr().err
    assert cli.main(["score", "--run", str(run), "--response", "x"]) == 1
    assert "its head has 20 values; 10 are needed here" in capsys.readouterr().err


def test_several_runs_are_one_evaluator(run, tmp_path, capsys):
    other = tmp_path / "other"
    words = ["--data", str(folder(tmp_path)), "--run", str(other), "--seed", "1"]
    assert script.main(["debug", *words, "--steps", "8"]) == 0
    both = ["--run", str(run), "--run", str(other)]
    capsys.readouterr()
    assert evaluate.main(both) == 1
    assert "needs a new directory: --out DIR" in capsys.readouterr().err
    out = tmp_path / "mean"
    assert evaluate.main([*both, "--no-tfidf", "--out", str(out)]) == 0
    assert not (out / "curve.png").exists()
    assert (out / "submission.tsv").is_file()
    assert evaluate.main([*both, "--no-tfidf", "--out", str(out)]) == 1
    assert "exists and is not empty" in capsys.readouterr().err
    for place, one in enumerate((run, other)):
        alone = ["--run", str(one), "--no-tfidf", "--out", str(tmp_path / str(place))]
        assert evaluate.main(alone) == 0
        assert (tmp_path / str(place) / "curve.png").is_file()

    def probs(name):
        lines = (tmp_path / name / "probabilities.tsv").read_text().splitlines()[1:]
        return np.array([line.split("\t")[1:] for line in lines], float)

    first, second = probs("0"), probs("1")
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_allclose(probs("mean"), (first + second) / 2, atol=2e-5)
