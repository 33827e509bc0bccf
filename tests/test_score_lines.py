# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest

from fulcra_jax.inference import score_lines


def answers(n=3, seed=0):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(3), (n, 10)).astype(np.float32)
    probs[:1] = np.nan
    return score_lines.ScoredAnswers(
        [f"prompt {i}" for i in range(n)],
        ["line\nbreak", 'quote "', "\ud800 lone"][:n],
        ["model"] * n,
        rng.uniform(-1.0, 1.0, (n, 10)).astype(np.float32),
        probs,
        ["evaluator"] * n,
    )


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "deep" / "scores.jsonl"
    score_lines.write_scores(path, answers())
    found = score_lines.read_scores(path)
    for mine, read in zip(answers(), found, strict=True):
        if isinstance(mine, np.ndarray):
            np.testing.assert_allclose(read, mine, atol=1e-6)
        else:
            assert read == mine
    assert len(path.read_text().splitlines()) == 3
    assert json.loads(path.read_text().splitlines()[0])["probs"] is None


def test_nothing_is_an_empty_file(tmp_path):
    score_lines.write_scores(tmp_path / "none.jsonl", answers(0))
    assert score_lines.read_scores(tmp_path / "none.jsonl").scores.shape == (0, 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": ["m"]}, "there are 3 prompts, but 1 models"),
        ({"scores": np.zeros((3, 9))}, r"shape \(3, 9\)"),
        ({"scores": np.full((3, 10), np.nan)}, r"not in \[-1, 1\]"),
    ],
)
def test_parts_that_do_not_fit_leave_the_file_alone(tmp_path, change, message):
    path = tmp_path / "scores.jsonl"
    path.write_text("before")
    with pytest.raises(ValueError, match=message):
        score_lines.write_scores(path, answers()._replace(**change))
    assert path.read_text() == "before"


GOOD = {
    "prompt": "p",
    "response": "r",
    "model": "m",
    "scores": [0.0] * 10,
    "probs": None,
    "evaluator": "e",
}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: is not valid JSON"),
        ("[" * 100_000, "line 2: is not valid JSON"),
        ("[1]", "should be an object with prompt"),
        (json.dumps(GOOD | {"model": 3}), "model should be a text"),
        (json.dumps(GOOD | {"scores": [0.0] * 9}), "scores should be 10 numbers"),
        (json.dumps(GOOD | {"scores": [2.0] * 10}), "scores should be 10 numbers"),
        (json.dumps(GOOD | {"scores": [float("nan")] * 10}), "scores should be"),
        (json.dumps(GOOD | {"scores": "0123456789"}), "scores should be"),
        (json.dumps(GOOD | {"probs": [[1, 0]] * 10}), "probs should be null"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "scores.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=message):
        score_lines.read_scores(path)


def test_a_missing_or_foreign_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file of scores"):
        score_lines.read_scores(tmp_path / "none.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe9"}\n')
    with pytest.raises(ValueError, match="is not UTF-8"):
        score_lines.read_scores(tmp_path / "latin.jsonl")
