# SPDX-License-Identifier: Apache-2.0
"""experiments.calibrate on a tiny run, and what its report shows."""

import json
import shutil

import numpy as np
import pytest
import tiny_models

from experiments import calibrate, fusion
from fulcra_jax import inference, values
from fulcra_jax.report import calibration, evaluation

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two tiny models without runs, and a file of labelled rows."""
    top = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("first", "second")):
        tiny_models.write(top / name, seed)
    rng = np.random.default_rng(0)
    with (top / "rows.jsonl").open("w") as file:
        for row in range(30):
            dialogue = f"Human: Question {row} of {row * row}?\nBob: Answer {row}."
            types = [f"{name}: {rng.choice(['+1', '-1'])}" for name in values.BASIC[:6]]
            record = {"dialogue": dialogue, "value_items": [], "value_types": types}
            file.write(json.dumps(record) + "\n")
    return top


def test_a_model_is_calibrated_beside_its_weights(models, tmp_path, capsys):
    model = shutil.copytree(models / "first", tmp_path / "first")
    data = str(models / "rows.jsonl")
    assert calibrate.main([str(model), "--data", data, "--folds", "3"]) == 0
    assert "macro-F1" in capsys.readouterr().out
    folder = model / "calibration-rows"
    names = {path.name for path in folder.iterdir()}
    assert names == {"report.md", "figures.json", "reliability.png"}
    report = json.loads((folder / "figures.json").read_text())
    # Weights drawn at random claim far too much.
    before, after = (report[name]["calibration"] for name in ("before", "after"))
    assert after["nll"] < before["nll"]
    text = (folder / "report.md").read_text()
    assert "| coverage -1 | - |" in text
    assert "Fitted on all 30 rows (rows@" in text
    found = inference.Predictor.load(model).decisions
    assert found is not None
    assert found.data == report["rows"]


def test_an_ensemble_is_calibrated_into_a_directory(models, tmp_path):
    out = tmp_path / "both"
    words = [str(models / "first"), str(models / "second"), "--out", str(out)]
    words += ["--data", str(models / "rows.jsonl"), "--per-value", "--alpha", "0.2"]
    assert calibrate.main([*words, "--folds", "2", "--bias", "always"]) == 0
    assert not (models / "first" / "decisions.json").exists()
    loaded = inference.load_predictor(out)
    assert isinstance(loaded, inference.Ensemble)
    assert loaded.decisions is not None
    assert loaded.decisions.value_bias is not None
    assert loaded.decisions.alpha == 0.2


def test_a_bias_that_does_not_help_is_not_kept(models, tmp_path, capsys):
    words = [str(models / "first"), "--data", str(models / "rows.jsonl")]
    words += ["--folds", "3"]
    found = {}
    for wish in ("auto", "always", "never"):
        out = tmp_path / wish
        assert calibrate.main([*words, "--bias", wish, "--out", str(out)]) == 0
        figures = json.loads((out / "figures.json").read_text())
        found[wish] = inference.Decisions.load(out / "decisions.json"), figures
    # Labels drawn at random: whether a bias helps is decided by the held-out folds.
    said = capsys.readouterr().out
    gain = found["always"][1]["bias_gain"]
    assert f"by {gain:+.3f} on folds" in said
    assert found["always"][0].bias != (0.0, 0.0, 0.0)
    assert found["never"][0].bias == (0.0, 0.0, 0.0)
    assert found["never"][1]["bias_gain"] is None
    same = "always" if gain > 0 else "never"
    assert found["auto"][0].bias == found[same][0].bias
    assert found["auto"][1]["bias_kept"] == (gain > 0)
    # What is calibrated is the same whatever class is named.
    assert found["never"][0].temperature == found["always"][0].temperature
    after = {
        wish: figures["after"]["pooled"]["macro_f1"]
        for wish, (_, figures) in found.items()
    }
    before = found["never"][1]["before"]["pooled"]["macro_f1"]
    assert after["never"] == before
    assert after["always"] == pytest.approx(before + gain)


def test_a_choice_of_the_bias_is_not_made_on_the_rows_it_is_judged_on():
    # In folds 0 and 1 a bias for +1 helps, in fold 2 it would harm: fold 2 is judged
    # with the bias that the others chose, fold 0 by what 1 and 2 say.
    rng = np.random.default_rng(0)
    N = 90
    fold = np.repeat([0, 1, 2], N // 3)
    labels = rng.choice([0.0, 1.0], (N, 10), p=[0.5, 0.5])
    probs = np.empty((N, 10, 3), np.float32)
    up = np.where(labels == 1, 0.45, 0.2) + rng.normal(0, 0.01, (N, 10))
    up[fold == 2] = 0.45 + rng.normal(0, 0.01, (N // 3, 10))
    labels[fold == 2] = 0.0
    probs[..., 2], probs[..., 0] = up, 0.01
    probs[..., 1] = 1 - up - 0.01
    truth = evaluation.Truth(labels, labels == labels, np.arange(N))
    said = inference.Scores(probs[..., 2] - probs[..., 0], probs)
    kept, parts, _ = calibrate._with_bias("auto", said, truth, fold, {})
    plain = inference.cross_fit(probs, labels, labels == labels, fold, bias=False)
    biased = inference.cross_fit(probs, labels, labels == labels, fold)
    assert kept
    np.testing.assert_array_equal(parts.classes[fold == 2], biased.classes[fold == 2])
    assert (parts.classes[fold == 2] != plain.classes[fold == 2]).mean() > 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "at least one run"),
        (["RUN", "RUN"], "need --out DIR"),
        (["RUN", "--alpha", "0"], "alpha is 0.0"),
        (["RUN", "--strength", "0"], "strength is 0.0"),
        (["RUN", "--folds", "1"], "folds is 1"),
        (
            ["RUN", "--data", "RUN/../rows.jsonl", "--folds", "200"],
            "prompts for 200 folds",
        ),
        (["RUN"], "is no run of experiments.train; give --data"),
        (["RUN", "--out", "RUN"], "is not empty"),
    ],
)
def test_calibrate_refuses_in_one_sentence(models, words, message, capsys):
    words = [word.replace("RUN", str(models / "first")) for word in words]
    assert calibrate.main(words) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_cell_figures_are_plain_means():
    rng = np.random.default_rng(0)
    probs = rng.dirichlet([1.0, 2.0, 1.0], (30, 10)).astype(np.float32)
    labels = rng.integers(-1, 2, (30, 10)).astype(np.float32)
    where = rng.random((30, 10)) < 0.8
    truth = evaluation.Truth(labels, where, np.arange(30) // 2)
    sets = probs > 0.3
    answers = evaluation.Answers("x", probs.argmax(-1) - 1, probs[..., 2], probs)
    found = calibration.cell_figures(answers, truth, sets)
    own = np.take_along_axis(probs, labels.astype(int)[..., None] + 1, -1)[..., 0]
    inside = np.take_along_axis(sets, labels.astype(int)[..., None] + 1, -1)[..., 0]
    expected = {
        "nll": -np.log(own)[where].mean(),
        "brier": ((probs**2).sum(-1) - 2 * own + 1)[where].mean(),
        "unsure": (sets.sum(-1) > 1)[where].mean(),
        "size": sets.sum(-1)[where].mean(),
        "coverage -1": inside[where & (labels == -1)].mean(),
    }
    for name, figure in expected.items():
        np.testing.assert_allclose(found[name]["figure"], figure, rtol=1e-5)
        low, high = found[name]["interval"]
        assert low < figure < high


def test_fusion_takes_the_better_half_of_each():
    # Two noisy views of the same chances: together they know more.
    rng = np.random.default_rng(0)
    true = rng.dirichlet([0.3, 1.0, 0.5], (150, 10))
    labels = np.array([[rng.choice(3, p=p) for p in row] for row in true]) - 1.0
    views = []
    for _ in range(2):
        noisy = np.exp(np.log(true + 1e-3) + rng.normal(0, 1.0, true.shape))
        views.append((noisy / noisy.sum(-1, keepdims=True)).astype(np.float32))
    truth = evaluation.Truth(labels, labels == labels, np.arange(150))
    answers, weights = fusion.fuse(views[0], views[1], truth, np.arange(150) % 2)
    assert all(0.3 <= weight <= 0.7 for weight in weights)
    nll = {
        name: calibration.cell_figures(x, truth)["nll"]["figure"]
        for name, x in answers.items()
    }
    best = min(nll["run, decided"], nll["words, decided"])
    assert nll["both, decided"] < best - 0.02


def test_a_picture_of_nothing_is_refused(tmp_path):
    answers = evaluation.Answers("x", np.zeros((2, 10), int), np.zeros((2, 10)))
    truth = evaluation.Truth(np.zeros((2, 10)), np.ones((2, 10), bool), np.arange(2))
    with pytest.raises(ValueError, match="x has no probabilities"):
        calibration.reliability([answers], truth, tmp_path / "a.png")
