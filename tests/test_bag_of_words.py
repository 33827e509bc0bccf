# SPDX-License-Identifier: Apache-2.0
"""A bag of words as an evaluator, beside others, on disk."""

import json
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_models
from sklearn.linear_model import LogisticRegression

from experiments.heads import decided, summary
from fulcra_jax import inference, scoring
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


def test_without_scikit_learn_it_says_what_brings_it(bag, tmp_path, monkeypatch):
    bag.save(tmp_path)
    for name in ("sklearn.feature_extraction.text", "sklearn.pipeline", "sklearn"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install -e "\.\[words\]"'):
        BagOfWords.load(tmp_path).score(["a"], ["b"])
