# SPDX-License-Identifier: Apache-2.0
import json

import jax.numpy as jnp
import numpy as np
import official_scores
import pytest

from fulcra_jax import alignment, objectives, targets

NOTES = {"target": "ideal", "evaluator": "e"}


def pairs_of(prompts, responses, distances, **options):
    return alignment.preference_pairs(
        prompts, responses, np.array(distances, np.float32), **NOTES, **options
    )


def texts_of(pairs):
    return list(zip(pairs.prompts, pairs.chosen, pairs.rejected, strict=True))


def test_the_nearest_is_chosen_and_the_farthest_rejected():
    pairs, counts = pairs_of(
        ["a", "b", "a", "a", "b", "c"], list("uvwxyz"), [1.0, 2.0, 0.5, 3.0, 1.0, 9.0]
    )
    assert texts_of(pairs) == [("a", "w", "x"), ("b", "y", "v")]
    np.testing.assert_array_equal(pairs.chosen_distances, [0.5, 1.0])
    np.testing.assert_array_equal(pairs.rejected_distances, [3.0, 2.0])
    assert np.isnan(pairs.probs).all()
    assert pairs.targets == ["ideal"] * 2
    assert counts == alignment.PairCounts(3, 2, 2, 1, 0, 0, 0)


def test_every_prompt_without_a_pair_has_one_reason():
    nan = np.nan
    prompts = [
        "one",
        "nan",
        "nan",
        "same",
        "same",
        "near",
        "near",
        "far",
        "far",
        "half",
    ]
    prompts += ["half", "half"]
    responses = ["a", "a", "b", "a", "a ", "a", "b", "a", "b", "a", "a", "b"]
    distances = [1.0, 1.0, nan, 0.0, 5.0, 1.0, 1.5, 0.0, 9.0, nan, 2.0, 4.0]
    pairs, counts = pairs_of(prompts, responses, distances, margin=0.5)
    assert texts_of(pairs) == [("far", "a", "b"), ("half", "a", "b")]
    np.testing.assert_array_equal(pairs.chosen_distances, [0.0, 2.0])
    assert counts == alignment.PairCounts(
        prompts=6,
        pairs=2,
        paired=2,
        one_answer=1,
        unscored=1,
        identical=1,
        within_margin=1,
    )
    assert sum(counts[2:]) == counts.prompts


def test_several_pairs_come_widest_first():
    words = (["a"] * 4, list("wxyz"), [0.0, 1.0, 3.0, 3.0])
    pairs, counts = pairs_of(*words, margin=1.0, most=None)
    assert texts_of(pairs) == [
        ("a", "w", "y"),
        ("a", "w", "z"),
        ("a", "x", "y"),
        ("a", "x", "z"),
    ]
    assert (counts.pairs, counts.paired) == (4, 1)
    three, _ = pairs_of(*words, margin=1.0, most=3)
    assert texts_of(three) == texts_of(pairs)[:3]


def test_all_pairs_are_those_of_a_loop_and_the_first_that_of_value_pairs():
    rng = np.random.default_rng(0)
    prompts = [f"p{i}" for i in rng.integers(0, 12, 60)]
    responses = [f"r{i}" for i in rng.integers(0, 6, 60)]
    # Halves, so that ties and gaps of exactly the margin occur.
    distances = rng.integers(0, 8, 60) / 2.0
    distances[rng.random(60) < 0.2] = np.nan
    found, _ = pairs_of(prompts, responses, distances, margin=1.0, most=None)
    seen, kept = set(), []
    for i in range(60):
        if not np.isnan(distances[i]) and (prompts[i], responses[i]) not in seen:
            seen.add((prompts[i], responses[i]))
            kept.append(i)
    expected = {
        (prompts[i], responses[i], responses[j])
        for i in kept
        for j in kept
        if prompts[i] == prompts[j] and distances[j] - distances[i] > 1.0
    }
    assert len(found.prompts) == len(expected)
    assert set(texts_of(found)) == expected
    first, counts = pairs_of(prompts, responses, distances, margin=1.0)
    one, same = pairs_of(prompts, responses, distances, margin=1.0, most=2)
    heads = {pair[0]: pair for pair in reversed(texts_of(one))}
    assert texts_of(first) == [heads[prompt] for prompt in dict.fromkeys(one.prompts)]
    assert counts.paired == same.paired == len(first.prompts)


def test_soft_labels_are_those_of_the_objectives():
    pairs, _ = pairs_of(["a", "a"], ["x", "y"], [2.0, 1.0], temperature=0.5)
    np.testing.assert_allclose(pairs.probs, 1.0 / (1.0 + np.exp(-2.0)), rtol=1e-6)
    none, _ = pairs_of(["a", "a"], ["x", "y"], [1.0, 1.0], temperature=0.5)
    assert none.probs.shape == (0,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": -1.0}, "margin is -1"),
        ({"most": 0}, "most is 0"),
        ({"temperature": 0.0}, "temperature is 0"),
        ({"responses": ["x"]}, "but 1 responses"),
        ({"distances": [1.0]}, r"shape \(1,\)"),
        ({"prompts": [], "responses": [], "distances": []}, "there is no answer"),
    ],
)
def test_bad_arguments_are_named(options, message):
    words = {"prompts": ["a", "a"], "responses": ["x", "y"], "distances": [1.0, 2.0]}
    with pytest.raises(ValueError, match=message):
        pairs_of(**(words | options))


def test_single_answers_are_wanted_if_they_are_near_enough():
    words = (
        ["a", "a", "a", "a", "a", "b"],
        ["u", "v", "w", "x", "u ", "u"],
        np.array([0.5, 1.0, 1.5, np.nan, 2.0, 2.0]),
    )
    found = alignment.unpaired_answers(*words, **NOTES, threshold=1.0)
    assert found.completions == ["u", "v", "w", "u"]
    np.testing.assert_array_equal(found.labels, [True, False, False, False])
    found = alignment.unpaired_answers(*words, **NOTES, threshold=1.0, margin=0.5)
    assert (found.prompts, found.completions) == (["b"], ["u"])
    with pytest.raises(ValueError, match="threshold nan"):
        alignment.unpaired_answers(*words, **NOTES, threshold=np.nan)


def some_pairs(soft=True):
    return alignment.PreferencePairs(
        ["Hi\n", "\u2028 you"],
        ["line\nbreak", 'quote "'],
        ["\N{GRINNING FACE}", ""],
        np.array([0.5, 1.25], np.float32),
        np.array([2.0, 3.0], np.float32),
        np.array([0.75, 0.5] if soft else [np.nan, np.nan], np.float32),
        ["ideal", "0,0,0,0,0,1,0,1,1,1"],
        ["e", "f"],
    )


def some_answers():
    return alignment.UnpairedAnswers(
        ["Hi", "you"],
        ["there", "\N{GRINNING FACE}"],
        np.array([True, False]),
        np.array([0.5, 1.25], np.float32),
        ["ideal"] * 2,
        ["e"] * 2,
    )


@pytest.mark.parametrize("conversational", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_pairs_that_are_written_are_read(tmp_path, conversational, soft):
    path = tmp_path / "deep" / "pairs.jsonl"
    alignment.write_pairs(path, some_pairs(soft), conversational=conversational)
    found = alignment.read_pairs(path)
    for mine, read in zip(some_pairs(soft), found, strict=True):
        if isinstance(mine, np.ndarray):
            np.testing.assert_allclose(read, mine, atol=1e-6)
        else:
            assert read == mine
    assert [p.name for p in path.parent.iterdir()] == ["pairs.jsonl"]


@pytest.mark.parametrize("conversational", [False, True])
def test_single_answers_that_are_written_are_read(tmp_path, conversational):
    path = tmp_path / "answers.jsonl"
    alignment.write_unpaired(path, some_answers(), conversational=conversational)
    for mine, read in zip(some_answers(), alignment.read_unpaired(path), strict=True):
        np.testing.assert_array_equal(read, mine)
    assert json.loads(path.read_text().splitlines()[0])["label"] is True


def test_the_columns_are_those_that_trl_documents(tmp_path):
    """Dataset formats, "preference" and "unpaired preference", both kinds.

    A column label in a pair would be taken for that of an unpaired answer.
    """
    path = tmp_path / "out.jsonl"
    known = {"prompt", "chosen", "rejected", "completion", "messages", "label"}
    first = lambda: json.loads(path.read_text().splitlines()[0])
    alignment.write_pairs(path, some_pairs())
    assert set(first()) & known == {"prompt", "chosen", "rejected"}
    assert first()["probability"] == 0.75
    alignment.write_pairs(path, some_pairs(soft=False), conversational=True)
    assert first()["prompt"] == [{"role": "user", "content": "Hi\n"}]
    assert first()["chosen"] == [{"role": "assistant", "content": "line\nbreak"}]
    assert "probability" not in first()
    alignment.write_unpaired(path, some_answers(), conversational=True)
    assert set(first()) & known == {"prompt", "completion", "label"}


def test_no_pair_is_an_empty_file(tmp_path):
    none, _ = pairs_of(["a"], ["x"], [1.0], temperature=1.0)
    alignment.write_pairs(tmp_path / "none.jsonl", none)
    assert alignment.read_pairs(tmp_path / "none.jsonl").prompts == []
    assert alignment.read_unpaired(tmp_path / "none.jsonl").labels.dtype == bool


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chosen": ["x"]}, "there are 2 prompts, but 1 chosen"),
        ({"chosen_distances": np.array([1.0, np.nan])}, "chosen_distance of line 2 is"),
        ({"probs": np.array([0.5, np.nan])}, "probability of line 2 is nan"),
        ({"rejected": ["x", "\ud800"]}, "rejected of line 2 holds half a character"),
    ],
)
def test_pairs_that_do_not_fit_leave_the_file_alone(tmp_path, change, message):
    path = tmp_path / "pairs.jsonl"
    path.write_text("before")
    with pytest.raises(ValueError, match=message):
        alignment.write_pairs(path, some_pairs()._replace(**change))
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["pairs.jsonl"]


PAIR = {
    "prompt": "p",
    "chosen": "c",
    "rejected": "r",
    "chosen_distance": 1,
    "rejected_distance": 2.0,
    **NOTES,
}
ANSWER = {"prompt": "p", "completion": "c", "label": True, "distance": 1.0, **NOTES}


def message(role, content="x"):
    return [{"role": role, "content": content}]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", "line 2: is not valid JSON"),
        ("[" * 100_000, "line 2: is not valid JSON"),
        ("[1]", "line 2: should be an object"),
        (json.dumps({"prompt": "p"}), "line 2: chosen is missing"),
        (json.dumps(PAIR | {"chosen": 3}), "chosen is 3; it should be a text, or"),
        (json.dumps(PAIR | {"chosen": message("user")}), 'with the role "assistant"'),
        (json.dumps(PAIR | {"prompt": message("user") * 2}), "a list of one message"),
        (json.dumps(PAIR | {"prompt": message("user", None)}), "prompt is None"),
        (json.dumps(PAIR | {"rejected_distance": "2"}), "it should be a finite number"),
        (
            json.dumps(PAIR | {"chosen_distance": float("nan")}),
            "chosen_distance is nan",
        ),
        (json.dumps(PAIR | {"chosen_distance": True}), "chosen_distance is True"),
        (json.dumps(PAIR | {"target": [0, 1]}), "target is .* it should be a text"),
        (json.dumps(PAIR | {"probability": 2}), "probability is 2; it should be in"),
        (json.dumps(PAIR | {"probability": None}), "probability is None"),
    ],
)
def test_a_bad_pair_is_named(tmp_path, line, fault):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(PAIR) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=fault) as caught:
        alignment.read_pairs(path)
    assert str(caught.value).startswith(f"{path}: line 2: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"label": 1}, "label is 1; it should be true or false"),
        ({"label": 0.7}, "label is 0.7"),
        ({"distance": None}, "distance is None"),
        ({"completion": message("user")}, 'with the role "assistant"'),
    ],
)
def test_a_bad_answer_is_named(tmp_path, change, fault):
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps(ANSWER | change))
    with pytest.raises(ValueError, match=fault):
        alignment.read_unpaired(path)


def test_a_missing_or_foreign_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file of preferences"):
        alignment.read_pairs(tmp_path / "none.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe9"}\n')
    with pytest.raises(ValueError, match="is not UTF-8"):
        alignment.read_pairs(tmp_path / "latin.jsonl")


@official_scores.needed
def test_pairs_of_real_rows(tmp_path):
    answers = official_scores.read("train", "dev")
    target = targets.target("ideal")
    rewards = objectives.baselign_reward(jnp.asarray(answers.scores), target)
    pairs, counts = alignment.preference_pairs(
        answers.prompts,
        answers.responses,
        -np.asarray(rewards),
        **NOTES,
        margin=0.5,
    )
    assert (counts.prompts, counts.paired) == (1032, 727)
    assert sum(counts[2:]) == counts.prompts
    gaps = pairs.rejected_distances - pairs.chosen_distances
    assert gaps.min() > 0.5
    best = alignment.rerank(answers.prompts, answers.scores, np.asarray(target))
    of_prompt = dict(zip(best.prompts, best.best, strict=True))
    for prompt, chosen in zip(pairs.prompts, pairs.chosen, strict=True):
        assert answers.responses[of_prompt[prompt]] == chosen
    alignment.write_pairs(tmp_path / "pairs.jsonl", pairs, conversational=True)
    assert alignment.read_pairs(tmp_path / "pairs.jsonl").chosen == pairs.chosen
