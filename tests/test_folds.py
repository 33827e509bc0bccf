# SPDX-License-Identifier: Apache-2.0
"""Folds that share no near-duplicate prompts."""

import json
import pathlib

import numpy as np
import pytest

from fulcra_jax.data import source, splits

SHARED = pathlib.Path(__file__).parents[2] / "shared" / "data" / "fulcra"


def write(folder, prompts):
    for split, some in (("train", prompts[:-3]), ("dev", prompts[-3:])):
        lines = [
            json.dumps(
                {
                    "dialogue": f"Human: {prompt}\nBob: answer {number}",
                    "value_items": ["be honest: +1"],
                    "value_types": ["benevolence: +1"],
                }
            )
            for number, prompt in enumerate(some)
        ]
        (folder / f"some.{split}.jsonl").write_text("\n".join(lines) + "\n")


@pytest.fixture
def folder(tmp_path):
    words = (
        "apple bridge candle desert engine forest garden harbor island jungle".split()
    )
    alone = [f"what is a {word} made of {word}s" for word in words]
    twins = ["how do I bake good bread", "How do I bake GOOD bread?"]
    write(tmp_path, [*alone, *twins])
    return tmp_path


def test_every_row_is_held_out_once(folder):
    seen = []
    for fold in range(3):
        corpus = source.read_fold(source.Fold(str(folder), fold, 3))
        held = {row.prompt for row in corpus.rows["dev"]}
        trained = {row.prompt for row in corpus.rows["train"]}
        assert not held & trained
        assert len(held | trained) == 12
        assert corpus.rows["test"] == []
        seen += sorted(held)
    assert len(seen) == len(set(seen)) == 12


def test_twins_stay_together(folder):
    for fold in range(3):
        rows = source.read_fold(source.Fold(str(folder), fold, 3)).rows
        count = sum("bread" in row.prompt for row in rows["dev"])
        assert count in (0, 2)


def test_folds_do_not_depend_on_the_order_of_rows(folder):
    whole = source.read_folder(source.Folder(str(folder)))
    rows = whole.rows["train"] + whole.rows["dev"]
    ahead = source.cluster_folds(rows, 3)
    behind = source.cluster_folds(rows[::-1], 3)
    np.testing.assert_array_equal(ahead, behind[::-1])


@pytest.mark.parametrize(("fold", "count"), [(3, 3), (-1, 3), (0, 1)])
def test_a_fold_that_is_none_is_refused(fold, count):
    with pytest.raises(ValueError, match=r"source\.Fold: fold is"):
        source.Fold("x", fold, count)


def test_more_folds_than_prompts_are_refused(folder):
    with pytest.raises(ValueError, match="fold 50 of 60 leaves dev without a labelled"):
        source.read_fold(source.Fold(str(folder), 50, 60))


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data/fulcra is not here")
def test_the_released_rows_fall_into_folds_of_equal_size():
    whole = source.read_folder(source.Folder(str(SHARED)))
    rows = whole.rows["train"] + whole.rows["dev"]
    number = source.cluster_folds(rows)
    sizes = np.bincount(number)
    assert len(sizes) == 5
    assert np.ptp(sizes) <= 1
    component = splits.prompt_components([row.prompt for row in rows])
    for fold in range(5):
        inside, outside = component[number == fold], component[number != fold]
        assert not np.isin(inside, outside).any()
