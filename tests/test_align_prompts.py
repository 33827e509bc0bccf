# SPDX-License-Identifier: Apache-2.0
"""Prompts of files: what is read, what is set aside, what is held out."""

import json

import pytest

from experiments.align import prompts


def write(path, *lines):
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return str(path)


def test_what_cannot_be_read_is_set_aside_by_file_and_line(tmp_path):
    name = write(
        tmp_path / "a.jsonl",
        {"prompt": "one", "safety_issues": []},
        "{broken",
        "",
        [1],
        {"prompt": " "},
        {"prompt": 3},
        {"prompt": "two"},
        {"prompt": "ONE "},
        {"prompt": "three"},
    )
    found = prompts.choose(name, "", 2, 0)
    assert found.training == ["one"]
    assert found.held_out == ["two", "three"]
    assert [reject.line for reject in found.rejects] == [2, 4, 5, 6]
    assert str(found.rejects[0]) == f"{name}:2: line: is not valid JSON."
    assert [reject.field for reject in found.rejects] == ["line"] * 2 + ["prompt"] * 2
    assert f"{name}: 4 of 8 lines set aside" in found.notes[0]
    assert found.notes[1] == f"{name}: 1 prompts stand there twice"


def test_text_that_is_not_utf_8_is_set_aside(tmp_path):
    path = tmp_path / "a.jsonl"
    good = [json.dumps({"prompt": f"prompt {n}"}).encode() for n in range(3)]
    path.write_bytes(b"\n".join([good[0], b'{"prompt": "\xff"}', *good[1:]]))
    found = prompts.choose(str(path), "", 2, 0)
    assert found.training == ["prompt 0"]
    (reject,) = found.rejects
    assert str(reject) == f"{path}:2: line: is not UTF-8."


def test_the_first_turn_of_a_dialogue_is_its_prompt(tmp_path):
    turns = "\n\nHuman: Why so?\n\nAssistant: Because.\n\nHuman: Really?"
    name = write(
        tmp_path / "a.jsonl",
        {"chosen": turns, "rejected": turns},
        {"chosen": "\n\nHuman: And then?\n\nAssistant: No."},
        {"chosen": "\n\nHuman: \n\nAssistant: No."},
        {"chosen": "Assistant: No."},
        {"prompt": "last"},
    )
    found = prompts.choose(name, "", 1, 0)
    assert found.training == ["Why so?", "And then?"]
    assert [reject.line for reject in found.rejects] == [3, 4]


def test_a_held_out_prompt_is_no_training_prompt(tmp_path):
    train = write(tmp_path / "a.jsonl", {"prompt": "May I?"}, {"prompt": "Must I?"})
    apart = write(
        tmp_path / "b.jsonl", *({"prompt": x} for x in ("may  i?", "Can I?", "Do I?"))
    )
    found = prompts.choose(train, apart, 2, 0)
    assert found.training == ["May I?", "Must I?"]
    assert found.held_out == ["Can I?", "Do I?"]
    assert found.notes == ["1 held-out prompts are also training prompts: dropped"]
    with pytest.raises(ValueError, match="2 prompts to train on and 2 others to hold"):
        prompts.choose(train, apart, 3, 0)


def test_a_prompt_that_cannot_be_used_is_set_aside(tmp_path):
    name = write(
        tmp_path / "a.jsonl", *({"prompt": x} for x in ("one", "far too long", "two"))
    )
    refuse = lambda prompt: "is too long" if len(prompt) > 5 else ""
    found = prompts.choose(name, "", 1, 0, refuse)
    assert found.training == ["one"]
    (reject,) = found.rejects
    assert str(reject) == f"{name}:2: prompt: is too long"
    assert json.loads(reject.text) == {"prompt": "far too long"}
    with pytest.raises(ValueError, match="the embedded corpus: is too long"):
        prompts.choose("", "", 2, 0, refuse)


def test_a_file_of_nothing_is_refused_by_its_first_bad_line(tmp_path):
    name = write(tmp_path / "a.jsonl", "{broken", "worse")
    with pytest.raises(
        ValueError, match=r"first of 2 bad lines: .*a.jsonl:1: line: is not val"
    ):
        prompts.choose(name, "", 2, 0)
    with pytest.raises(FileNotFoundError, match="nowhere: does not exist"):
        prompts.choose("nowhere", "", 2, 0)


def test_the_embedded_corpus_is_the_default(tmp_path):
    found = prompts.choose("", "", 5, 0)
    assert len(found.training) == 512
    assert len(found.held_out) == 5
    assert not set(found.training) & set(found.held_out)
    other = prompts.choose("", write(tmp_path / "b.jsonl", {"prompt": "Hm?"}), 1, 0)
    assert other.training == found.training
    assert other.held_out == ["Hm?"]
    assert other.sha256() != found.sha256() == prompts.choose("", "", 5, 0).sha256()
