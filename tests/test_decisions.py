# SPDX-License-Identifier: Apache-2.0
"""Decisions as a file and beside a model; several evaluators as one."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_models
from tiny_models import TEXTS

from fulcra_jax import cli, inference
from fulcra_jax.configs import Link
from fulcra_jax.inference import Decisions, Ensemble, Predictor, Scores, cross_fit

V = 10


def cells(seed=0, n=120):
    """Raw probabilities that take -1 for too improbable, labels and a mask."""
    rng = np.random.default_rng(seed)
    true = rng.dirichlet([0.3, 2.0, 1.0], (n, V)).astype(np.float32)
    labels = np.array([[rng.choice(3, p=p / p.sum()) for p in row] for row in true])
    raw = true * np.array([0.3, 1.0, 1.0], np.float32)
    raw /= raw.sum(-1, keepdims=True)
    return raw, labels.astype(np.float32) - 1, rng.random((n, V)) < 0.9


@pytest.fixture(scope="module")
def fitted():
    return Decisions.fit(*cells(), data="random")


def nll(probs, labels, where):
    ids = labels.astype(int)[..., None] + 1
    return -np.log(np.take_along_axis(probs, ids, -1)[..., 0])[where].mean()


def f1_opposed(classes, labels, where):
    hit = ((classes == -1) & (labels == -1) & where).sum()
    return 2 * hit / (((classes == -1) & where).sum() + ((labels == -1) & where).sum())


def test_what_was_fitted_holds_on_other_rows(fitted):
    probs, labels, where = cells(seed=1)
    decided = fitted.decide(probs)
    assert nll(decided.probs, labels, where) < nll(probs, labels, where) - 0.01
    raw = f1_opposed(probs.argmax(-1) - 1, labels, where)
    assert f1_opposed(decided.classes, labels, where) > raw + 0.1
    for c in range(3):
        of_class = where & (labels == c - 1)
        assert 0.84 < decided.sets[..., c][of_class].mean() < 0.97
    named = np.take_along_axis(decided.sets, decided.classes[..., None] + 1, -1)
    assert named.all()


def test_cells_that_do_not_count_are_not_read():
    probs, labels, where = cells()
    where[:, 3] = False  # a value without labels
    found = Decisions.fit(probs, labels, where, per_value=True)
    spoiled = np.where(where[..., None], probs, np.nan), np.where(where, labels, 9.0)
    assert Decisions.fit(*spoiled, where, per_value=True) == found
    assert found.value_bias is not None
    assert found.value_bias[3] == found.bias
    fractional = np.where(where, labels, 0.5)
    assert Decisions.fit(probs, fractional, where | True, per_value=True) == found


def test_cross_fitting_never_sees_the_fold(fitted):
    probs, labels, where = cells()
    fold = np.arange(len(probs)) % 3
    decided = cross_fit(probs, labels, where, fold)
    first = fold == 0
    others = Decisions.fit(probs[~first], labels[~first], where[~first])
    np.testing.assert_allclose(
        decided.probs[first], others.probs(probs[first]), atol=1e-4
    )
    changed = np.where(first[:, None], -labels, labels)
    again = cross_fit(probs, changed, where, fold)
    np.testing.assert_array_equal(again.probs[first], decided.probs[first])
    with pytest.raises(ValueError, match="fold has 1 fold"):
        cross_fit(probs, labels, where, np.zeros(len(probs)))


def test_a_score_without_probabilities_is_calibrated():
    rng = np.random.default_rng(0)
    scores = rng.uniform(-1, 1, (120, V)).astype(np.float32)
    labels = np.clip(np.rint(scores + rng.normal(0, 0.4, scores.shape)), -1, 1)
    answers = Scores(scores, np.full((120, V, 3), np.nan, np.float32))
    np.testing.assert_array_equal(answers.classes(), np.rint(scores))
    found = Decisions.fit(answers.base(), labels, labels == labels, from_score=True)
    after = answers._replace(decisions=found)
    assert nll(after.calibrated(), labels, labels == labels) < 0.75
    np.testing.assert_allclose(after.calibrated().sum(-1), 1.0, atol=1e-5)
    with pytest.raises(ValueError, match="probs holds NaN"):
        Decisions.fit(answers.probs, labels, labels == labels)
    with pytest.raises(ValueError, match=r"no decisions\.json"):
        answers.sets()


def test_a_file_gives_the_same_decisions(fitted, tmp_path):
    for decisions in (fitted, Decisions.fit(*cells(seed=2), per_value=True)):
        decisions.save(tmp_path / "decisions.json")
        assert Decisions.load(tmp_path / "decisions.json") == decisions


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": [1.0, 0.0]}, "temperature is 0.0"),
        ({"temperature": []}, "temperature is "),
        ({"shift": [0, 0]}, "it should be 3 finite numbers"),
        ({"bias": [0, float("nan"), 0]}, "bias is nan"),
        ({"quantiles": [0, 0, 2]}, "quantiles is"),
        ({"alpha": 1}, "alpha is 1"),
        ({"rows": 0}, "rows is 0"),
        ({"data": None}, "data is None"),
        ({"value_bias": [[0, 0, 0]]}, "1 rows; it should be 10"),
        ({"from_score": 1}, "from_score is 1"),
        ({"extra": 1}, "should be an object with temperature"),
    ],
)
def test_a_bad_file_is_refused_by_name(fitted, tmp_path, change, message):
    path = tmp_path / "decisions.json"
    path.write_text(json.dumps(dataclasses.asdict(fitted) | change))
    with pytest.raises(ValueError, match=message) as caught:
        Decisions.load(path)
    assert str(caught.value).startswith(str(path))


def test_no_json_and_no_file_are_refused(tmp_path):
    path = tmp_path / "decisions.json"
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        Decisions.load(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="is not valid JSON"):
        Decisions.load(path)
    with pytest.raises(ValueError, match="no cell has a whole label"):
        Decisions.fit(*cells(n=3)[:2], np.zeros((3, V), bool))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three tiny models with random weights; the third has the link "tanh"."""
    top = tmp_path_factory.mktemp("models")
    links: tuple[Link, ...] = ("ternary", "ternary", "tanh")
    return [
        tiny_models.write(top / f"seed-{seed}", seed, link)
        for seed, link in enumerate(links)
    ]


def test_decisions_beside_a_model_are_picked_up(folders, fitted, capsys):
    path = folders[0] / "decisions.json"
    raw = Predictor.load(folders[0]).score(*TEXTS)
    identity = inference.evaluator_id(folders[0])
    harsh = dataclasses.replace(fitted, bias=(9.0, 0.0, 0.0))
    harsh.save(path)
    try:
        answers = Predictor.load(folders[0]).score(*TEXTS)
        assert (answers.classes() == -1).all()
        np.testing.assert_array_equal(answers.probs, raw.probs)
        np.testing.assert_array_equal(answers.scores, raw.scores)
        np.testing.assert_allclose(answers.calibrated(), harsh.probs(raw.probs))
        assert answers.sets()[..., 0].all()
        assert inference.evaluator_id(folders[0]) == identity
        ignored = Predictor.load(folders[0], decisions=False).score(*TEXTS)
        np.testing.assert_array_equal(ignored.classes(), raw.classes())
        words = ["score", "--run", str(folders[0]), "--response", "You may."]
        assert cli.main(words) == 0
        assert capsys.readouterr().out.count("-1 (") == V
        dataclasses.replace(fitted, from_score=True).save(path)
        with pytest.raises(ValueError, match="fitted on scores"):
            Predictor.load(folders[0])
        dataclasses.replace(fitted, temperature=(1.0,) * 3).save(path)
        with pytest.raises(ValueError, match="decisions are of 3 values"):
            Predictor.load(folders[0])
    finally:
        path.unlink()


def test_an_ensemble_is_the_mean_of_its_members(folders, fitted, tmp_path):
    one, two = (Predictor.load(path).score(*TEXTS) for path in folders[:2])
    done = []
    both = inference.load_predictor(folders[:2]).score(*TEXTS, progress=done.append)
    np.testing.assert_allclose(both.probs, (one.probs + two.probs) / 2, atol=1e-6)
    np.testing.assert_allclose(both.scores, (one.scores + two.scores) / 2, atol=1e-6)
    assert done == [1, 3]
    # As a directory, with decisions of its own.
    inference.save_ensemble(tmp_path, folders[:2])
    fitted.save(tmp_path / "decisions.json")
    again = inference.load_predictor(tmp_path).score(*TEXTS)
    np.testing.assert_array_equal(again.probs, both.probs)
    np.testing.assert_array_equal(again.classes(), fitted.classes(both.probs))
    assert inference.load_predictor(tmp_path, decisions=False).decisions is None
    first, second = inference.ensemble_id(folders[:2]), inference.ensemble_id(tmp_path)
    assert first.startswith("mean-of-2@")
    assert first.partition("@")[2] == second.partition("@")[2]
    assert inference.ensemble_id(folders[1::-1]) == first
    assert inference.ensemble_id(folders[0]) == inference.evaluator_id(folders[0])


def test_scoring_with_several_runs(folders, tmp_path):
    data, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    data.write_text('{"prompt": "May I?", "response": "You may."}\n')
    runs = [word for path in folders[:2] for word in ("--run", str(path))]
    assert cli.main(["score", *runs, "--data", str(data), "--out", str(out)]) == 0
    found = inference.read_scores(out)
    assert found.evaluators == [inference.ensemble_id(folders[:2])]


def test_ensembles_that_make_no_sense_are_refused(folders, tmp_path):
    with pytest.raises(ValueError, match="paths is empty"):
        inference.load_predictor([])
    with pytest.raises(ValueError, match="the links are ternary, tanh"):
        inference.load_predictor([folders[0], folders[2]])
    with pytest.raises(ValueError, match="members is empty"):
        Ensemble([])
    (tmp_path / "ensemble.json").write_text("{}")
    with pytest.raises(ValueError, match="should be a list of directories"):
        inference.load_predictor(tmp_path)
    with pytest.raises(ValueError, match="is an ensemble and stands among"):
        inference.load_predictor([tmp_path, folders[0]])
    inference.save_ensemble(tmp_path, folders[:2])
    with pytest.raises(ValueError, match=r"an ensemble; inference.load_predictor"):
        inference.Predictor.load(tmp_path)
    alone = inference.load_predictor([folders[2]]).score(*TEXTS)
    assert np.isnan(alone.probs).all()
    assert jnp.isfinite(jnp.asarray(alone.scores)).all()
