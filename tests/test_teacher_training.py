# SPDX-License-Identifier: Apache-2.0
"""Training on labels, items and a teacher's scores: what is asked for, what is fed."""

import dataclasses
import json
import types

import numpy as np
import pytest

from experiments import prepare, rundir, train_command
from experiments import train as script
from experiments.config import load_config, save_config
from experiments.loop import Loop
from experiments.recipes import RECIPES
from fulcra_jax import values
from fulcra_jax.data import batches, source, tokens
from fulcra_jax.data.tokenizer import PairTokenizer
from fulcra_jax.inference import Predictor

DEBUG = RECIPES["debug"][1]


def unique(n, start=0):
    return [f"unique{i} word{i} here{i}" for i in range(start, start + n)]


@pytest.fixture
def folder(tmp_path):
    """8 train and 4 dev rows, 6 rows of a teacher."""
    data = tmp_path / "data"
    data.mkdir()
    for split, prompts in (("train", unique(8)), ("dev", unique(4, 10))):
        with (data / f"a.{split}.jsonl").open("w") as file:
            for prompt in prompts:
                record = {
                    "dialogue": f"Human: {prompt}\nBob: so be it",
                    "value_items": ["have wealth: +1", "be daring: -1"],
                    "value_types": ["power: +1", "stimulation: -1"],
                }
                file.write(json.dumps(record) + "\n")
    with (data / "official_scores.x.train.jsonl").open("w") as file:
        for prompt in unique(6, 20):
            record = {"prompt": prompt, "answer": "No.", "value_reward": [0.5] * 10}
            file.write(json.dumps(record) + "\n")
    return data


def config_of(folder, *, teacher=True, cache="", **loss):
    return dataclasses.replace(
        DEBUG,
        source=source.Folder(str(folder), teacher=teacher),
        loss=dataclasses.replace(DEBUG.loss, **loss),
        text=dataclasses.replace(DEBUG.text, cache=str(cache), vocab_size=300),
    )


def test_the_command_line_asks_for_a_teacher_by_one_word(folder):
    def parsed(*words):
        words = ["debug", "--run", "r", *words]
        return train_command.parse(words, "").config

    plain = parsed("--data", str(folder))
    assert (plain.source, plain.loss.teacher) == (source.Folder(str(folder)), 0.0)
    asked = parsed("--data", str(folder), "--teacher")
    assert asked.source == source.Folder(str(folder), teacher=True)
    assert asked.loss.teacher == train_command.TEACHER
    more = parsed(
        "--data", str(folder), "--teacher", "--loss.teacher", "0.25",
        "--source.teacher-rows", "5",
    )  # fmt: skip
    assert (more.loss.teacher, more.source.teacher_rows) == (0.25, 5)
    fields = parsed(
        "--data", str(folder), "--source.teacher", "--loss.teacher", "5"
    )  # fmt: skip
    assert fields == asked
    with pytest.raises(ValueError, match="--teacher needs the folder of a teacher's"):
        parsed("--teacher")
    with pytest.raises(ValueError, match="--resume takes no other argument"):
        train_command.parse(["--resume", "r", "--teacher"], "")


def test_a_configuration_with_a_teacher_is_read_back(folder, tmp_path):
    config = config_of(folder, teacher=0.5)
    config = dataclasses.replace(config, source=source.Fold("x", 1, teacher=True))
    save_config(tmp_path / "config.py", config)
    assert load_config(tmp_path / "config.py") == config


def test_scores_without_a_weight_and_a_weight_without_scores_are_refused(
    folder, tmp_path
):
    config = config_of(folder)
    with pytest.raises(ValueError, match="6 rows carry a teacher's scores, but loss"):
        prepare.prepare(config, tmp_path)
    loss = dataclasses.replace(config.loss, teacher=0.5)
    for rows in (source.Folder(str(folder)), source.Embedded(8, 4, 4)):
        weighed = dataclasses.replace(config, source=rows, loss=loss)
        with pytest.raises(
            ValueError, match=r"is 0\.5, but no row carries a teacher's"
        ):
            prepare.prepare(weighed, tmp_path)


def weighed(config, **loss):
    return dataclasses.replace(config, loss=dataclasses.replace(config.loss, **loss))


def test_what_is_fed_holds_the_targets_that_the_loss_weighs(folder, tmp_path):
    config = weighed(
        config_of(folder, cache=tmp_path / "cache"), items=0.5, teacher=1.0
    )
    data = prepare.prepare(config, tmp_path / "run")
    assert len(data.train_rows) == 8 + 6
    for _ in range(2):  # made, and from the cache
        found = prepare.tokenise(data)
        assert found.where.any(1).tolist() == [True] * 8 + [False] * 6
        assert (
            found.targets["teacher_where"].any(1).tolist() == [False] * 8 + [True] * 6
        )
        np.testing.assert_array_equal(
            found.targets["teacher"][8:], np.full((6, 10), 0.5)
        )
        items = found.targets["items"]
        assert items.shape == (14, 54)
        assert items[0, values.ITEMS.index("have wealth")] == 1
        assert items[0, values.ITEMS.index("be daring")] == -1
        assert found.targets["items_where"].any(1).tolist() == [True] * 8 + [False] * 6
    assert len(list((tmp_path / "cache").iterdir())) == 1

    for loss, names in (({"items": 0.0}, {"teacher"}), ({}, {"items", "teacher"})):
        other = data._replace(config=weighed(config, **loss))
        found = prepare.tokenise(other).targets
        assert {name for name in ("items", "teacher") if name in found} == names
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_without_other_targets_nothing_is_added(folder):
    rows = prepare.read_corpus(config_of(folder, teacher=False)).rows["train"]
    tokenizer = PairTokenizer.train(unique(8), 300)
    assert prepare.encode(DEBUG, tokenizer, rows).targets.keys() == {"labels", "where"}


def test_the_checksum_of_rows_covers_what_is_trained_on(folder):
    rows = prepare.read_corpus(config_of(folder)).rows["train"]
    plain = rundir.fingerprint(rows[:8])
    assert plain == rundir.fingerprint([dataclasses.replace(r) for r in rows[:8]])
    assert rundir.fingerprint(rows[:8], items=True) != plain
    turned = [dataclasses.replace(row, items=-row.items) for row in rows[:8]]
    assert rundir.fingerprint(turned) == plain
    assert rundir.fingerprint(turned, items=True) != rundir.fingerprint(
        rows[:8], items=True
    )
    other = [dataclasses.replace(row, teacher=np.zeros(10, "f4")) for row in rows[8:]]
    assert rundir.fingerprint(other) != rundir.fingerprint(rows[8:])


def test_nothing_is_told_of_a_value_that_is_left_out(folder):
    config = dataclasses.replace(config_of(folder), leave_out=("Power",))
    rows = prepare.trained_on(config, prepare.read_corpus(config).rows["train"])
    assert len(rows) == 14
    _, items = source.item_arrays(rows[:8])
    power = values.BASIC.index("Power")
    of_power = values.ITEM_TO_BASIC[:, power].astype(bool)
    assert of_power[values.ITEMS.index("have wealth")]
    assert not items[:, of_power].any()
    assert items[:, ~of_power].all()
    for row in rows[:8]:
        np.testing.assert_array_equal(row.where, np.arange(10) != power)
    taught = weighed(config, teacher=1.0)
    tokenizer = PairTokenizer.train(unique(8), 300)
    counted = prepare.encode(taught, tokenizer, rows[8:]).teacher_where
    np.testing.assert_array_equal(counted, np.tile(np.arange(10) != power, (6, 1)))


def test_the_control_moves_all_targets_of_a_row_together(folder):
    config = weighed(config_of(folder), items=1.0, teacher=1.0)
    rows = prepare.read_corpus(config).rows["train"]
    tokenizer = PairTokenizer.train(unique(8), 300)
    data = prepare.encode(config, tokenizer, rows)
    found = tokens.Tokens.in_memory(
        batches.Examples(
            data.encoded,
            **{
                name: np.broadcast_to(
                    np.arange(14)[:, None].astype(array.dtype), array.shape
                )
                for name, array in data.targets.items()
                if array.dtype != bool
            },
            **{n: a for n, a in data.targets.items() if a.dtype == bool},
        )
    )
    moved = prepare.shuffle_labels(found, 0).targets
    order = moved["labels"][:, 0].astype(int)
    assert sorted(order) == list(range(14))
    assert order.tolist() != list(range(14))
    for name, array in found.targets.items():
        np.testing.assert_array_equal(moved[name], array[order])


def test_texts_of_a_packed_batch_count_whatever_they_are_trained_towards():
    counted = {}
    loop = types.SimpleNamespace(
        config=types.SimpleNamespace(batch_size=4), _seen=set(), flops=float,
        meter=types.SimpleNamespace(count=lambda **told: counted.update(told)),
    )  # fmt: skip
    segments = np.array([[1, 1, 2, 3, 0], [1, 2, 2, 2, 2]], np.int32)
    batch = {"mask": segments > 0, "segment_ids": segments}
    Loop._count(loop, batch)  # of two rows of four
    assert (counted["examples"], counted["tokens"]) == (10, 18)
    Loop._count(loop, {"mask": segments > 0})
    assert counted["examples"] == 4


@pytest.mark.slow
def test_a_training_with_a_teacher_runs(folder, tmp_path):
    run = tmp_path / "run"
    code = script.main(
        [
            "debug", "--data", str(folder), "--run", str(run), "--teacher",
            "--steps", "3", "--batch-size", "8", "--log-every", "1",
            "--optimizer.warmup-steps", "1", "--text.packed", "--text.max-length",
            "32", "--text.cache", "", "--text.vocab-size", "300",
        ]
    )  # fmt: skip
    assert code == 0
    begun = json.loads((run / "run.json").read_text())
    assert any("6 rows with a teacher's scores" in note for note in begun["data"])
    assert Predictor.load(run).score(["a"], ["b"]).scores.shape == (1, 10)
