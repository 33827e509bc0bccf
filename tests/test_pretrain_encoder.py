# SPDX-License-Identifier: Apache-2.0
"""Pretraining on a folder: what is read, what is masked, what is written."""

import dataclasses
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import prepare
from experiments import pretrain_encoder as script
from experiments.exits import Interrupted
from experiments.masked_lm import model, texts
from experiments.masked_lm.masking import Masking
from experiments.recipes import RECIPES
from fulcra_jax import convert, models
from fulcra_jax.data import sample, source
from fulcra_jax.data.tokenizer import PairTokenizer
from fulcra_jax.training.optimizer import Optimizer

SHARED = pathlib.Path(__file__).parents[2] / "shared" / "data" / "fulcra"
FAST = Optimizer(peak_lr=2e-2, warmup_steps=5, b2=0.98, clip_norm=1.0)


COUNTING = "one two three four five six seven".split()


def counted(record, number):
    """A row whose answer has an order that is soon learnt; prompts are far apart."""
    words = " ".join(COUNTING[(number + k) % 7] for k in range(24))
    dialogue = f"Human: What of {number} and {number * 7 + 100}?\nBob: {words}"
    return record | dict(dialogue=dialogue)


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All formats; what is held out says "zyzzyva"."""
    path = tmp_path_factory.mktemp("data")
    rows = sample.sample_records(0, 60, "train")
    write(path / "a.train.jsonl", [counted(row, n) for n, row in enumerate(rows)])
    held = sample.sample_records(0, 20, "dev")
    for record in held:
        record["dialogue"] = record["dialogue"].replace("Bob:", "Bob: zyzzyva")
    held[0]["dialogue"] = "Human: How do I get rid of old paint?\nBob: zyzzyva"
    write(path / "a.dev.jsonl", held)
    scored = dict(value_reward=[0.0] * 10)
    write(
        path / "official_scores.x.train.jsonl",
        [
            dict(prompt=f"Question {i} on tea?", answer=f"Yes {i}") | scored
            for i in "ab"
        ],
    )
    write(
        path / "official_scores.x.test.jsonl",
        [dict(prompt="Who reads this here?", answer="zyzzyva") | scored],
    )
    asked = ["how do i get rid of old paint", "Who reads this here", "why is rain wet?"]
    write(
        path / "p.train_questions.jsonl",
        [dict(prompt=prompt, safety_issues=[]) for prompt in asked],
    )
    write(
        path / "p.test_questions.jsonl",
        [dict(prompt="May a zyzzyva fly?", safety_issues=[])],
    )
    dialogue = "\n\nHuman: Is it late?\n\nAssistant: "
    good, bad = f"{dialogue}Yes.\n\nHuman: Oh.\n\nAssistant: Indeed.", f"{dialogue}No."
    write(
        path / "h.jsonl", [dict(chosen=good, rejected=bad), dict(chosen=1, rejected=2)]
    )
    write(path / "scores.json", [dict(data={})])
    return path


def arguments(folder, out, **fields):
    small = dict(
        size="tiny", vocab_size=300, max_length=48, batch_size=8, epochs=8.0,
        optimizer=FAST, save_every=15, log_every=1,
    )  # fmt: skip
    if "encoder" in fields:
        small["size"] = ""
    return script.Arguments(str(folder), out=str(out), **(small | fields))


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "encoder"
    return script.pretrain(arguments(folder, out))


def held_out_losses(out):
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if line["split"] == "held_out"]


def test_texts_of_every_format_are_read_and_none_that_is_held_out(folder):
    found = texts.read(folder)
    every = [*found.train, *found.held_out]
    assert not [text for text in every if "zyzzyva" in " ".join(text)]
    assert ("Question a on tea?", "Yes a") in every
    assert ("why is rain wet?", "") in every
    assert ("Is it late?", "No.") in every
    assert ("Is it late?", "Yes.\n\nHuman: Oh.\n\nAssistant: Indeed.") in every
    # Near a held-out prompt.
    prompts = {text.prompt for text in every}
    assert "how do i get rid of old paint" not in prompts
    assert "Who reads this here" not in prompts
    assert "2 texts near held-out prompts left out" in found.notes
    assert "scores.json: model_scores, left alone" in found.notes
    said = "h.jsonl: 2 texts, 1 lines that could not be read"
    assert said in found.notes
    held_out = {text.prompt for text in found.held_out}
    assert not held_out & {text.prompt for text in found.train}
    assert 0 < len(found.held_out) < 0.2 * len(found.train)
    assert texts.read(folder) == found


def test_labelled_rows_can_be_left_out(folder):
    found = texts.read(folder, rows="none")
    rows = texts.read(folder)
    own = {
        json.loads(line)["dialogue"]
        for line in (folder / "a.train.jsonl").read_text().splitlines()
    }
    left = {f"Human: {t.prompt}\nBob: {t.response}" for t in found.train}
    assert not own & left
    assert len(found.train) < len(rows.train) - 40


def test_files_of_no_split_are_split_as_a_training_splits_them(tmp_path):
    write(tmp_path / "rows.jsonl", sample.sample_records(0, 80, "train"))
    split = source.read_folder(source.Folder(str(tmp_path))).rows
    found = texts.read(tmp_path)
    seen = {tuple(text) for text in (*found.train, *found.held_out)}
    assert seen <= {(row.prompt, row.response) for row in split["train"]}
    away = {row.prompt for name in ("dev", "test") for row in split[name]}
    assert not away & {text.prompt for text in found.train}


@pytest.mark.parametrize(
    ("name", "records", "message"),
    [
        (None, [], "which is no folder"),
        ("a.txt", [], "has 0 different prompts to train on (no .jsonl file)"),
        ("a.jsonl", [dict(prompt="Why?", safety_issues=[])], "has 1 different prompts"),
    ],
)
def test_a_folder_without_texts_is_refused(name, records, message, tmp_path, capsys):
    if name:
        write(tmp_path / name, records)
    folder = tmp_path if name else tmp_path / "nowhere"
    words = ["--data", str(folder), "--size", "tiny", "--out", str(tmp_path / "out")]
    assert script.main(words) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def masked(number=0, rate=0.15, rows=40):
    draws = np.random.default_rng(0)
    masking = Masking(rate, 3, 4, np.arange(5), np.arange(5, 400, dtype=np.int32))
    ids = draws.integers(5, 400, (rows, 100)).astype(np.int32)
    ids[:, ::10] = 2
    mask = np.arange(100) < draws.integers(0, 101, (rows, 1))
    mask[0], mask[1] = True, False
    ids = np.where(mask, ids, 0)
    batch = dict(input_ids=ids, mask=mask, segment_ids=mask, token_type_ids=ids * 0)
    return batch, masking.training(batch, number)


def test_masks_are_as_published():
    batch, told = masked()
    ids, at, where = batch["input_ids"], told["at"], told["where"]
    assert at.shape == (40, 15)
    may = batch["mask"] & (ids > 4)
    expected = np.where(may.any(1), np.maximum(np.rint(0.15 * may.sum(1)), 1), 0)
    np.testing.assert_array_equal(where.sum(1), expected)
    rows = np.broadcast_to(np.arange(40)[:, None], at.shape)[where]
    columns = at[where]
    assert may[rows, columns].all()
    assert len(set(zip(rows, columns, strict=True))) == where.sum()
    np.testing.assert_array_equal(told["targets"][where], ids[rows, columns])
    changed = np.argwhere(told["input_ids"] != ids)
    assert set(map(tuple, changed)) <= set(zip(rows, columns, strict=True))
    # 80, 10 and 10 %, of many draws.
    counts = np.zeros(3)
    for number in range(60):
        told = masked(number)[1]
        shown = np.take_along_axis(told["input_ids"], told["at"], 1)[told["where"]]
        same = shown == told["targets"][told["where"]]
        counts += [(shown == 4).sum(), (~same & (shown != 4)).sum(), same.sum()]
    share = counts / counts.sum()
    # 60 x 270 draws: a standard deviation is .3 %.
    np.testing.assert_allclose(share, [0.8, 0.1, 0.1], atol=0.012)


def test_masks_follow_from_seed_and_step_alone():
    again = [masked(number)[1] for number in (5, 5, 6)]
    jax.tree.map(np.testing.assert_array_equal, again[0], again[1])
    assert (again[0]["at"] != again[2]["at"]).any()


def test_the_loss_of_unseen_texts_falls(finished):
    before, after = held_out_losses(finished)
    assert after < before - 0.3
    names = {path.name for path in finished.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert "checkpoints" not in names


def test_words_of_held_out_files_are_not_in_the_tokenizer(finished):
    """Neither the training nor its tokenizer has met them."""
    tokenizer = PairTokenizer.load(finished)
    assert len(tokenizer.pieces(["zyzzyva"])[0]) > 3


def test_a_stopped_training_ends_the_same(folder, finished, tmp_path, monkeypatch):
    class Late(script.Stop):
        """Asks at the seventh look."""

        looks = 0
        by = "SIGINT"

        @property
        def asked(self):
            Late.looks += 1
            return Late.looks > 20

        @asked.setter
        def asked(self, _):
            pass

    out = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(script, "Stop", Late)
        with pytest.raises(Interrupted, match="the same command continues"):
            script.pretrain(arguments(folder, out))
    assert not (out / "config.json").exists()
    with pytest.raises(ValueError, match="was begun with another seed"):
        script.pretrain(arguments(folder, out, seed=1))
    script.pretrain(arguments(folder, out))
    for name in ("model.safetensors", "tokenizer.json"):
        assert (out / name).read_bytes() == (finished / name).read_bytes()
    assert held_out_losses(out) == held_out_losses(finished)
    with pytest.raises(FileExistsError, match="holds a finished encoder"):
        script.pretrain(arguments(folder, out))


def test_the_output_is_an_encoder_to_train_and_to_go_on_with(
    folder, finished, tmp_path
):
    debug = RECIPES["debug"][1]
    settings = dataclasses.replace(
        debug,
        source=source.Folder(str(folder)),
        pretrained=str(finished),
        text=dataclasses.replace(debug.text, max_length=48),
    )
    settings = prepare.prepare(settings, tmp_path).config
    evaluator = models.Evaluator(settings.evaluator)
    shapes = jax.eval_shape(prepare.make_init(settings, evaluator, optax.sgd(0.1)))
    taken = prepare.load_pretrained(settings, shapes.params)
    config, params = convert.load_pretraining(finished)
    begun = model.start(
        str(finished), "", PairTokenizer.load(finished), [], max_length=48, seed=0
    )
    jax.tree.map(np.testing.assert_array_equal, taken, params["encoder"])
    assert begun.config == config
    assert not begun.new_head
    jax.tree.map(np.testing.assert_array_equal, begun.params, params)


def test_a_new_head_learns_before_the_encoder_moves(folder, finished, tmp_path):
    """As of the MiniLM sentence encoder, whose file has no head."""
    bare = tmp_path / "bare"
    shutil.copytree(finished, bare)
    config, params = convert.load_encoder(finished)
    convert.save(bare, config, params, overwrite=True)
    tokenizer = PairTokenizer.load(bare)
    ids = [np.array([5, 5, 6])]
    begun = model.start(str(bare), "", tokenizer, ids, max_length=48, seed=0)
    assert begun.new_head
    np.testing.assert_array_equal(
        begun.params["masked_lm"]["dense"]["kernel"], np.eye(32)
    )
    bias = begun.params["masked_lm"]["bias"]
    np.testing.assert_allclose(bias[5], np.log(3 / (3 + config.vocab_size)), rtol=1e-5)
    assert bias[7] < bias[6] < bias[5]

    made = model.optimizer(FAST, 20, 4)
    held = {name: {"x": jnp.ones(1)} for name in ("encoder", "masked_lm")}
    state, moved = made.init(held), []
    for _ in range(8):
        updates, state = made.update(held, state, held)
        moved.append([bool(np.any(updates[name]["x"])) for name in held])
    # The first step of the warm-up has the rate 0.
    assert moved == [[False, k > 0] for k in range(4)] + [[True, True]] * 4

    out = script.pretrain(
        arguments(folder, tmp_path / "out", encoder=str(bare), epochs=3.0)
    )
    before, after = held_out_losses(out)
    assert after < before
    assert "masked_lm" in convert.load_pretraining(out)[1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(encoder="x", size="tiny"), "one of the two should be given"),
        (dict(encoder=""), "one of the two should be given"),
        (dict(rate=0.0), "rate is 0.0; it should be in"),
        (dict(epochs=0.0), "epochs is 0.0; it should be in"),
    ],
)
def test_arguments_that_cannot_be_are_refused(fields, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        arguments("data", tmp_path, **fields)


def test_an_encoder_that_is_not_there_is_refused(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        script.pretrain(arguments(folder, tmp_path / "out", encoder="nowhere"))


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/fulcra")
def test_real_files_are_read_apart_from_what_is_held_out():
    found = texts.read(SHARED)
    train_texts = {text.response for text in found.train} - {""}
    held = [
        json.loads(line)
        for line in (SHARED / "trustworthy.dev.jsonl").read_text().splitlines()
    ]
    prompts = {row["dialogue"].split("\nBob:")[0] for row in held}
    assert not prompts & {f"Human: {text.prompt}" for text in found.train}
    assert len(train_texts) > 5000
    assert 0.01 < len(found.held_out) / len(found.train) < 0.03
