# SPDX-License-Identifier: Apache-2.0
"""A bag of words as an evaluator, beside others, on disk; the commands that use it."""

import json
import shutil
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_models
from sklearn.linear_model import LogisticRegression

from experiments import calibrate, evaluate, fusion, seen, train
from experiments.heads import decided, summary
from fulcra_jax import cli, inference, scoring, values
from fulcra_jax.cli import evaluate_data
from fulcra_jax.data import sample
from fulcra_jax.inference import BagOfWords, Ensemble, bag_of_words

WORDS = ["gold", "sand", "rain", "wood", "iron", "salt"]


def texts(seed, n):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, 4)) for _ in range(n)]


def labels_of(responses):
    """Three values: by three words, by one word, never labelled; the last is 0."""
    has = lambda word: np.array([word in text for text in responses], np.float32)
    labels = np.stack([has("gold") - has("sand"), has("rain")], 1)
    labels = np.concatenate([labels, np.zeros((len(responses), 2), np.float32)], 1)
    where = np.ones(labels.shape, bool)
    where[:, 2] = False
    where[0] = [True, False, False, True]
    return labels, where


@pytest.fixture(scope="module")
def bag():
    responses = texts(0, 60)
    return BagOfWords.fit(responses, *labels_of(responses))


def test_probabilities_are_those_of_the_regressions(bag):
    responses, asked = texts(0, 60), texts(1, 20)
    labels, where = labels_of(responses)
    features = bag_of_words.features()
    x, x_asked = features.fit_transform(responses), features.transform(asked)
    said = bag.score([""] * 20, asked)
    assert said.probs.dtype == np.float32
    for column, classes in ((0, [0, 1, 2]), (1, [1, 2])):
        own = where[:, column]
        model = LogisticRegression(class_weight="balanced", max_iter=2000)
        model.fit(x[own], labels[own, column])
        assert (model.classes_ + 1).tolist() == classes
        expected = np.zeros((20, 3))
        expected[:, classes] = model.predict_proba(x_asked)
        np.testing.assert_allclose(said.probs[:, column], expected, atol=2e-5)
    np.testing.assert_array_equal(said.probs[:, 2:], [[[0, 1, 0]] * 2] * 20)
    np.testing.assert_array_equal(said.scores, said.probs[..., 2] - said.probs[..., 0])


def test_what_is_saved_says_the_same(bag, tmp_path):
    bag.save(tmp_path / "new")
    loaded = BagOfWords.load(tmp_path / "new")
    asked = [*texts(1, 5), "", "what no one has said", "Gold! \ud800"]
    first, second = (x.score([""] * 8, asked) for x in (bag, loaded))
    np.testing.assert_array_equal(first.probs, second.probs)
    assert loaded.score([], []).probs.shape == (0, 4, 3)
    loaded.save(tmp_path / "again")
    one, two = (
        (tmp_path / n / bag_of_words.FILE).read_bytes() for n in ("new", "again")
    )
    assert one == two


@pytest.mark.parametrize(
    "damage", ["cut", "other", "pickle", "shape", "terms", "nan", "twice", "zlib"]
)
def test_damaged_files_are_refused_by_name(bag, tmp_path, damage):
    bag.save(tmp_path)
    file = tmp_path / bag_of_words.FILE
    with np.load(file) as held:
        arrays: dict[str, Any] = dict(held)
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:200])
    elif damage == "other":
        file.write_bytes(b"no archive at all")
    elif damage == "pickle":
        changed: dict[str, Any] = arrays | {"idf": np.array([{}], object)}
        np.savez(file, **changed)
    elif damage == "nan":
        changed = arrays | {"kernel": arrays["kernel"] * np.nan}
        np.savez(file, **changed)
    elif damage == "twice":
        terms = json.loads(arrays["vocabularies"].tobytes())
        terms[0][0] = terms[0][1]
        told = np.frombuffer(json.dumps(terms).encode(), np.uint8)
        changed = arrays | {"vocabularies": told}
        np.savez(file, **changed)
    elif damage == "zlib":
        whole = bytearray(file.read_bytes())
        at = whole.index(b"kernel.npy") + 60
        whole[at : at + 40] = b"\xff" * 40
        file.write_bytes(bytes(whole))
    elif damage == "terms":
        numbers = json.dumps([[*range(len(arrays["idf"]))], []]).encode()
        changed = arrays | {"vocabularies": np.frombuffer(numbers, np.uint8)}
        np.savez(file, **changed)
    else:
        changed = arrays | {"idf": arrays["idf"][:-1]}
        np.savez(file, **changed)
    with pytest.raises(ValueError, match=rf"{bag_of_words.FILE}: is no bag of words"):
        BagOfWords.load(tmp_path)


def test_nonsense_is_refused(bag):
    with pytest.raises(ValueError, match="2 prompts and 1 responses"):
        bag.score(["a", "b"], ["c"])
    with pytest.raises(ValueError, match=r"2 responses, labels \(1, 4\)"):
        BagOfWords.fit(["a", "b"], np.zeros((1, 4)), np.ones((1, 4), bool))
    some = ["gold one", "gold two"]
    labels = np.array([[1.0], [2.0]])
    with pytest.raises(ValueError, match=r"outside \[-1, 1\] where one counts"):
        BagOfWords.fit(some, labels, labels == labels)
    with pytest.raises(ValueError, match=r"where \(2, 2\); expected N"):
        BagOfWords.fit(some, labels, np.ones((2, 2), bool))
    with pytest.raises(ValueError, match="2 responses have too few words in common"):
        BagOfWords.fit(["one", "two"], labels * 0, labels == labels)
    with pytest.raises(TypeError, match="response 1 is of type int"):
        bag.score(["", ""], ["a", 3])
    # A mask of numbers is a mask.
    whole = texts(0, 60)
    asked, where = labels_of(whole)
    numbers = BagOfWords.fit(whole, asked, where.astype(int))
    np.testing.assert_array_equal(numbers.kernel, bag.kernel)
    with pytest.raises(FileNotFoundError, match="there is no bag_of_words"):
        BagOfWords.load("/nowhere")


def ten_values(seed=0):
    responses = texts(seed, 60)
    labels, where = labels_of(responses)
    return BagOfWords.fit(
        responses, np.tile(labels, 3)[:, :10], np.tile(where, 3)[:, :10]
    )


@pytest.mark.usefixtures("one_device")
def test_beside_an_evaluator_it_is_the_log_pool(tmp_path, bag):
    model = tiny_models.write(tmp_path / "model", 0)
    words = ten_values()
    words.save(tmp_path / "words")
    both = tmp_path / "both"
    both.mkdir()
    inference.save_ensemble(both, [model], words=tmp_path / "words", weight=0.25)
    loaded = inference.load_predictor(both)
    assert isinstance(loaded, Ensemble)
    prompts, responses = [*tiny_models.TEXTS[0]], texts(2, 3)
    said = loaded.score(prompts, responses)
    alone = inference.load_predictor(model).score(prompts, responses).probs
    beside = words.score(prompts, responses).probs
    expected = scoring.log_pool(jnp.asarray(alone), jnp.asarray(beside), 0.25)
    known = (beside > 0).all(-1)  # values of which the words know all classes
    assert known.any()
    assert not known.all()
    np.testing.assert_allclose(said.probs[known], expected[known], atol=1e-6)
    # What the words have never seen with a value they do not judge.
    np.testing.assert_array_equal(said.probs[beside == 0], alone[beside == 0])
    np.testing.assert_allclose(said.probs.sum(-1), 1.0, atol=1e-6)
    np.testing.assert_array_equal(said.scores, said.probs[..., 2] - said.probs[..., 0])
    name = inference.ensemble_id(both)
    assert name.startswith("both@")
    inference.save_ensemble(both, [model], words=tmp_path / "words", weight=0.5)
    assert inference.ensemble_id(both) != name
    # The tables of compare_heads make the same of it.
    system = lambda recipe, probs: summary.System(
        recipe, (0,), probs.argmax(-1)[None] - 1, (), probs[None]
    )
    again = inference.load_predictor(both).score(prompts, responses).probs
    fused = decided.fused(system("x", alone), system("TF-IDF + LR", beside))
    np.testing.assert_allclose(fused.probs[0], again, atol=1e-6)

    predictor = inference.Predictor.load(model)
    with pytest.raises(ValueError, match="judges 4 values, the members 10"):
        Ensemble([predictor], words=bag)
    with pytest.raises(ValueError, match=r"weight is 1.5; it should be in \[0, 1\]"):
        Ensemble([predictor], words=words, weight=1.5)
    scored = inference.Predictor.load(tiny_models.write(tmp_path / "t", 0, "tanh"))
    with pytest.raises(ValueError, match="'tanh' gives no probabilities"):
        Ensemble([scored], words=words)


def test_without_weight_the_evaluator_is_left_as_it_is(bag):
    rng = np.random.default_rng(0)
    probs = rng.dirichlet([1.0, 1.0, 1.0], (20, 4)).astype(np.float32)
    words = bag.score([""] * 20, texts(1, 20)).probs
    np.testing.assert_allclose(bag_of_words.pooled(probs, words, 0.0), probs, atol=1e-6)
    # Of two classes that are known, the two share what the evaluator gives them.
    both = bag_of_words.pooled(probs, words, 0.5)[:, 1]
    np.testing.assert_array_equal(both[:, 0], probs[:, 1, 0])
    odds = np.sqrt(probs[:, 1, 2] / probs[:, 1, 1] * words[:, 1, 2] / words[:, 1, 1])
    np.testing.assert_allclose(both[:, 2] / both[:, 1], odds, rtol=1e-5)


def test_decisions_of_another_kind_are_refused(tmp_path):
    model = inference.Predictor.load(tiny_models.write(tmp_path / "model", 0))
    for values_, from_score, message in (
        (3, False, "decisions are of 3 values"),
        (10, True, "decisions were fitted on scores"),
    ):
        numbers: dict[str, Any] = dict.fromkeys(["shift", "bias"], (0.0, 0.0, 0.0))
        numbers |= {"quantiles": (1.0, 1.0, 1.0), "temperature": (1.0,) * values_}
        numbers |= {"from_score": from_score, "alpha": 0.1, "rows": 1, "data": "x"}
        other = inference.Decisions(**numbers)
        with pytest.raises(ValueError, match=f"ensemble.Ensemble: {message}"):
            Ensemble([model], decisions=other)


@pytest.mark.parametrize(
    "held",
    [
        {},
        {"members": ["a"], "words": "b"},
        {"members": ["a"], "words": 3, "weight": 0.5},
        {"members": ["a"], "words": "b", "weight": "much"},
        {"members": ["a"], "words": "b", "weight": True},
        {"members": ["a"], "words": "b", "weight": float("nan")},
        {"members": ["a"], "words": "b", "weight": 1.5},
        {"members": [], "words": "b", "weight": 0.5},
    ],
)
def test_a_damaged_ensemble_is_refused(tmp_path, held):
    (tmp_path / "ensemble.json").write_text(json.dumps(held))
    with pytest.raises(ValueError, match=r"ensemble.json: should be a list of dir"):
        inference.members_of(tmp_path)


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


def test_without_scikit_learn_it_says_what_brings_it(bag, tmp_path, monkeypatch):
    bag.save(tmp_path)
    for name in ("sklearn.feature_extraction.text", "sklearn.pipeline", "sklearn"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install -e "\.\[words\]"'):
        BagOfWords.load(tmp_path).score(["a"], ["b"])
