# SPDX-License-Identifier: Apache-2.0
"""experiments.folds: sizes of the cluster folds, and the floors on them."""

import json

import numpy as np
import pytest

from experiments import folds
from fulcra_jax.data import source, splits

WORDS = "apple bridge candle desert engine forest garden harbor island jungle".split()


def record(prompt, response, sign):
    return json.dumps(
        {
            "dialogue": f"Human: {prompt}\nBob: {response}",
            "value_items": [f"be honest: {sign}"],
            "value_types": [f"benevolence: {sign}"],
        }
    )


@pytest.fixture
def folder(tmp_path):
    """Ten prompts and a twin of the first; who answers "never" is opposed."""
    prompts = [f"what is a {word} made of {word}s" for word in WORDS]
    prompts.append(prompts[0].upper() + "?")
    lines = [
        record(prompt, reply, sign)
        for prompt in prompts
        for reply, sign in (("never do that", "-1"), ("always help them", "+1"))
    ]
    (tmp_path / "some.train.jsonl").write_text("\n".join(lines[:-4]) + "\n")
    (tmp_path / "some.dev.jsonl").write_text("\n".join(lines[-4:]) + "\n")
    return tmp_path


def held_out(folder, count):
    return [
        source.read_fold(source.Fold(str(folder), fold, count)).rows["dev"]
        for fold in range(count)
    ]


def test_nothing_of_the_held_part_is_trained_on_nor_its_near_twin(folder):
    for fold in range(3):
        rows = source.read_fold(source.Fold(str(folder), fold, 3)).rows
        prompts = [row.prompt for row in (*rows["train"], *rows["dev"])]
        component = splits.prompt_components(prompts)
        trained, held = np.split(component, [len(rows["train"])])
        assert not np.isin(held, trained).any()
        assert len(rows["train"]) + len(rows["dev"]) == 22


def test_sizes_add_up(folder):
    _, header, lines = folds.sizes_table(held_out(folder, 3))
    table = np.array([[int(cell) for cell in line[1:]] for line in lines])
    np.testing.assert_array_equal(table[:-1].sum(0), table[-1])
    told = dict(zip(header[1:], table[-1].tolist(), strict=True))
    assert told["rows"] == told["labelled"] == 22
    assert told["clusters"] == 10
    # Both signs of benevolence once for each prompt; nine values without a word.
    assert (told["cells -1"], told["cells 0"], told["cells +1"]) == (11, 198, 11)


def test_floors_are_of_the_cells_of_all_folds(folder):
    _, _, lines = folds.floors_table(held_out(folder, 3))
    by_name = {(name, fold): figures for name, fold, *figures in lines}
    assert by_name["TF-IDF + LR", "all"] == ["1.000"] * 5
    # Of 220 cells, 198 are 0; benevolence is a draw, which goes to -1 or to 0.
    accuracy, _, opposed, none, supported = by_name["majority", "all"]
    assert accuracy == "0.950"
    assert (opposed, none, supported) == ("0.667", "1.000", "0.000")


def test_the_command_prints_both_tables(folder, capsys):
    assert folds.main(["--data", str(folder), "--count", "2", "--floors"]) == 0
    told = capsys.readouterr().out
    assert "2 cluster folds" in told
    assert "TF-IDF + LR" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "nowhere"), "nowhere does not exist"),
        (("--data", "nowhere", "--count", "1"), "fold is 0 of 1"),
    ],
)
def test_bad_arguments_are_told_in_a_sentence(arguments, message, capsys):
    assert folds.main(list(arguments)) == 1
    assert message in capsys.readouterr().err
