# SPDX-License-Identifier: Apache-2.0
"""Files of official scores: what is read, and what is set aside with a reason."""

import json

import numpy as np
import official_scores
import pytest

from fulcra_jax.data.official import read_official

SCORES = [0.5, -1, 0, 0.25, 1, 0, 0, 0, 0, -0.125]
GOOD = {"prompt": " May I? ", "answer": "Yes.", "value_reward": SCORES, "reward": 2.0}


def test_a_line_is_a_prompt_an_answer_and_ten_scores(tmp_path):
    path = tmp_path / "official_scores.x.train.jsonl"
    path.write_text("\n" + json.dumps(GOOD) + "\n")
    [row], rejects = read_official(path)
    assert (row.prompt, row.response, row.file, row.line, rejects) == (
        "May I?", "Yes.", path.name, 2, [],
    )  # fmt: skip
    assert row.scores.dtype == np.float32
    assert row.scores.tolist() == SCORES


def json_of(**fields):
    return json.dumps(GOOD | fields)


@pytest.mark.parametrize(
    ("line", "field", "reason"),
    [
        ("{broken", "line", "is no JSON in UTF-8"),
        ("[" * 200_000, "line", "nested too deeply"),
        ("[1]", "line", "is a JSON list, not an object"),
        (json_of(prompt=3), "prompt", "is 3; it should be a string"),
        (json_of(answer=" "), "answer", "is empty"),
        (json_of(answer=None), "answer", "is None; it should be a str"),
        (json_of(value_reward=[0]), "value_reward", "list of ten scores"),
        (json_of(value_reward=[2] * 10), "value_reward", "holds 2; it sh"),
        (json_of(value_reward=[True] * 10), "value_reward", "holds True"),
        (json_of(value_reward=[np.nan] * 10), "value_reward", "holds nan"),
    ],
)
def test_a_line_that_is_none_is_set_aside_with_its_reason(
    tmp_path, line, field, reason
):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + line + "\n")
    rows, [reject] = read_official(path)
    assert len(rows) == 1
    assert (reject.file, reject.line, reject.field) == ("a.jsonl", 2, field)
    assert reason in reject.reason
    assert reject.text == line


def test_bytes_that_are_no_utf8_are_set_aside(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"prompt": "\xff"}\n')
    rows, [reject] = read_official(tmp_path / "a.jsonl")
    assert rows == []
    assert "is no JSON in UTF-8" in reject.reason


def test_a_missing_or_empty_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_official(tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="the file is empty"):
        read_official(tmp_path / "a.jsonl")


@official_scores.needed
def test_every_line_of_the_real_files_is_read():
    for split in ("train", "dev"):
        want = official_scores.read(split)
        found = []
        for model in official_scores.MODELS:
            file = official_scores.FOLDER / f"official_scores.{model}.{split}.jsonl"
            rows, rejects = read_official(file)
            assert rejects == []
            found += rows
        scores = np.stack([row.scores for row in found])
        np.testing.assert_array_equal(scores, want.scores)
