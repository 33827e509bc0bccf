# SPDX-License-Identifier: Apache-2.0
"""An evaluator with a bag of words beside it: written, judged, calibrated, refused."""

import json
import shutil

import pytest

from experiments import calibrate, evaluate, fusion, seen, train
from fulcra_jax import cli, inference, values
from fulcra_jax.cli import evaluate_data
from fulcra_jax.data import sample
from fulcra_jax.inference import Ensemble


@pytest.fixture(scope="module")
def run(one_device, tmp_path_factory):
    """A finished run of a few steps."""
    folder = tmp_path_factory.mktemp("fusion") / "run"
    sizes = ["--source.train", "64", "--source.dev", "24", "--source.test", "24"]
    assert train.main(["debug", "--run", str(folder), "--steps", "8", *sizes]) == 0
    return folder


def test_fusion_writes_an_evaluator_that_commands_take(run, tmp_path, capsys):
    both = tmp_path / "both"
    words = [str(run), "--write", str(both), "--out", str(tmp_path / "report")]
    assert fusion.main([*words, "--folds", "2", "--weight", "0.4"]) == 0
    shown = capsys.readouterr().out
    assert f"fulcra score --run {both}" in shown
    figures = json.loads((tmp_path / "report" / "figures.json").read_text())
    names = [system["name"] for system in figures["systems"]]
    assert names == [
        "both", "run", "words",
        "both, decided", "run, decided", "words, decided",
    ]  # fmt: skip

    # What was measured is what was written.
    assert evaluate.main(["--run", str(both), "--split", "dev", "--no-tfidf"]) == 0
    found = json.loads((both / "evaluation-dev" / "figures.json").read_text())
    assert found["systems"][0]["pooled"] == figures["systems"][0]["pooled"]
    assert not (both / "evaluation-dev" / "curve.png").exists()
    assert (both / "evaluation-dev" / "per_value.png").is_file()

    # Its decisions lie beside the ensemble.json, not beside the run's weights.
    assert calibrate.main([str(both), "--folds", "2"]) == 0
    assert (both / "decisions.json").is_file()
    assert not list(run.rglob("decisions.json"))
    loaded = inference.load_predictor(both)
    assert loaded.decisions is not None
    again = tmp_path / "again"
    assert calibrate.main([str(both), "--out", str(again), "--folds", "2"]) == 0
    recalibrated = inference.load_predictor(again)
    assert isinstance(recalibrated, Ensemble)
    assert recalibrated.words is not None
    assert recalibrated.words.num_values == len(values.BASIC)

    # The rows of the run are known, so near duplicates of them are told.
    prompts = evaluate_data.training_prompts([str(both)])
    assert prompts == 2 * (evaluate_data.training_prompts([str(run)]) or [])
    assert prompts
    capsys.readouterr()
    asked = ["--prompt", "Why?", "--response", "Because."]
    assert cli.main(["score", "--run", str(both), *asked]) == 0
    assert "Benevolence" in capsys.readouterr().out.title()

    assert fusion.main([str(both), "--out", str(tmp_path / "third")]) == 1
    assert "has a bag of words beside it already" in capsys.readouterr().err


def test_rows_that_were_trained_on_are_not_fitted_on(
    run, tmp_path, capsys, monkeypatch
):
    corpus = evaluate.read_corpus(evaluate.rundir.reopen(run))
    rows = [*corpus.rows["train"][:30], *corpus.rows["dev"][:5]]
    copy = shutil.copytree(run, tmp_path / "model-a")
    (tmp_path / "best").symlink_to(run / "model")
    for path in (run, run / "model", copy, tmp_path / "best"):
        told = seen.trained_on([path], rows)
        assert told == [f"{path} was trained on 30 of the 35 rows"]
    monkeypatch.chdir(run / "model")
    assert len(seen.trained_on(["."], rows)) == 1
    monkeypatch.undo()
    assert seen.trained_on([tmp_path], rows) == []
    (tmp_path / "config.py").write_text("def no configuration")
    assert seen.trained_on([tmp_path], rows) == []

    file = tmp_path / "rows.jsonl"
    with file.open("w") as out:
        for row in rows:
            names = [
                f"{name}: {int(label):+d}"
                for name, label, has in zip(
                    values.BASIC, row.labels, row.where, strict=True
                )
                if has and label
            ]
            dialogue = f"Human: {row.prompt}\nBob: {row.response}"
            record = {"dialogue": dialogue, "value_items": [], "value_types": names}
            out.write(json.dumps(record) + "\n")
    assert calibrate.main([str(run), "--data", str(file), "--folds", "2"]) == 1
    assert "was trained on" in capsys.readouterr().err
    assert evaluate.main(["--run", str(run), "--data", str(file), "--no-tfidf"]) == 0
    assert "the figures flatter" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["RUN", "--weight", "2"], "weight is 2.0"),
        (["RUN", "--write", "RUN"], "is not empty"),
        (["RUN/none"], "none is no run"),
        (["RUN", "RUN"], "2 runs are one ensemble, whose report needs"),
        (["RUN", "--folds", "0"], "folds is 0; it should be 2 or more"),
    ],
)
def test_fusion_refuses_in_one_sentence(run, words, message, capsys):
    assert fusion.main([word.replace("RUN", str(run)) for word in words]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_run_whose_rows_have_changed_is_refused(tmp_path, capsys):
    data = tmp_path / "data"
    sample.write_sample(data, 0, 60, 24, 0)
    run = tmp_path / "run"
    words = ["debug", "--run", str(run), "--steps", "6", "--data", str(data)]
    assert train.main([*words, "--leave-out", "Benevolence"]) == 0
    both = tmp_path / "both"
    assert fusion.main([str(run), "--folds", "2", "--write", str(both)]) == 0
    # A value whose labels were left out is left out of the words too.
    loaded = inference.load_predictor(both)
    assert isinstance(loaded, Ensemble)
    bag = loaded.words
    assert bag is not None
    column = values.BASIC.index("Benevolence")
    assert not bag.kernel[:, column].any()
    assert bag.kernel[:, column - 1].any()

    train_file, dev_file = (next(data.glob(f"*.{x}.jsonl")) for x in ("train", "dev"))
    held = train_file.read_text()
    train_file.write_text(dev_file.read_text())
    dev_file.write_text(held)
    capsys.readouterr()
    for command in (calibrate, fusion):
        assert command.main([str(run), "--folds", "2"]) == 1
        said = capsys.readouterr().err
        assert "the training rows have changed" in said
        assert said.count("\n") == 1
    assert evaluate.main(["--run", str(run), "--no-tfidf"]) == 0
    assert "may be of rows that it has seen" in capsys.readouterr().out


def test_a_failed_write_leaves_the_report_and_a_free_folder(
    run, tmp_path, capsys, monkeypatch
):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fusion, "save_ensemble", full)
    report, both = tmp_path / "report", tmp_path / "both"
    words = [str(run), "--folds", "2", "--out", str(report), "--write", str(both)]
    assert fusion.main(words) == 1
    assert "No space left" in capsys.readouterr().err
    assert (report / "report.md").is_file()
    assert not any(both.iterdir())
    monkeypatch.undo()
    assert fusion.main([*words[:-4], "--write", str(both)]) == 0
