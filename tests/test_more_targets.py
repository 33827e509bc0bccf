# SPDX-License-Identifier: Apache-2.0
"""Items and a teacher's scores travel with the labels, from examples to batches."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from token_examples import examples

from fulcra_jax.data import batches, tokens
from fulcra_jax.data.feed import Feed, TokenDropout
from fulcra_jax.data.plan import Ladder, Packed
from fulcra_jax.data.tokenizer import Encoded, PairTokenizer

N = 60
RUNGS = (16, 32, 64)
LADDER, PACKED = Ladder(8, RUNGS), Packed(8, 64)
KEY = "0" * 64
PLAIN = examples(N)
MORE = ("items", "items_where", "teacher", "teacher_where")


def with_more(data, seed=1):
    """The examples with items, a teacher, or both, on cells of their own."""
    rng = np.random.default_rng(seed)
    return dataclasses.replace(
        data,
        items=rng.integers(-1, 2, (len(data), 54)).astype(np.float32),
        items_where=rng.random((len(data), 54)) < 0.5,
        teacher=rng.uniform(-1, 1, (len(data), 10)).astype(np.float32),
        teacher_where=rng.random((len(data), 10)) < 0.5,
    )


FULL = with_more(PLAIN)


def part(data, start, end):
    arrays = {name: array[start:end] for name, array in data.targets.items()}
    ids, types = (texts[start:end] for texts in data.encoded)
    return batches.Examples(Encoded(ids, types), **arrays)


def feed_of(source, settings, **options):
    return Feed(source, settings, seed=3, pad_id=0, **options)


def same(one, two):
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)
        assert one[name].dtype == two[name].dtype


def never():
    raise AssertionError("the cache was not used")


@pytest.mark.parametrize("settings", [LADDER, PACKED], ids=["ladder", "packed"])
def test_a_batch_holds_the_targets_of_the_texts_in_it(settings):
    feed = feed_of(tokens.Tokens.in_memory(FULL), settings)
    for step in (0, 3, 40):
        batch = feed.batch(step)
        texts = feed.plan.layout(step).texts
        if settings is LADDER:
            texts = texts[:, 0]
        here = texts >= 0
        assert here.any()
        for name, array in FULL.targets.items():
            assert batch[name].shape == (*texts.shape, array.shape[1])
            assert batch[name].dtype == array.dtype
            np.testing.assert_array_equal(batch[name][here], array[texts[here]])
            assert not batch[name][~here].any()


@pytest.mark.parametrize("settings", [LADDER, PACKED], ids=["ladder", "packed"])
def test_more_targets_change_nothing_else_in_a_batch(settings):
    drop = TokenDropout(0.2, mask_id=99)
    plain = feed_of(tokens.Tokens.in_memory(PLAIN), settings, drop=drop).batch(2)
    full = feed_of(tokens.Tokens.in_memory(FULL), settings, drop=drop).batch(2)
    assert full.keys() - plain.keys() == set(MORE)
    same({name: full[name] for name in plain}, plain)


def test_a_ladder_gives_the_batches_of_train_batch():
    feed = feed_of(tokens.Tokens.in_memory(FULL), LADDER)
    for step in (0, 5):
        want = batches.train_batch(
            FULL, step, batch_size=8, seed=3, ladder=RUNGS, pad_id=0
        )
        same(feed.batch(step), want)


def test_places_of_evaluation_batches_without_a_row_have_no_target():
    [*_, (rows, batch)] = batches.eval_batches(
        FULL, batch_size=16, ladder=RUNGS, pad_id=0
    )
    assert len(rows) == N % 16
    for name in ("labels", "where", *MORE):
        np.testing.assert_array_equal(
            batch[name][: len(rows)], FULL.targets[name][rows]
        )
        assert not batch[name][len(rows) :].any()


@pytest.mark.parametrize("settings", [LADDER, PACKED], ids=["ladder", "packed"])
def test_the_rows_of_the_hosts_are_the_global_batch(settings):
    source = tokens.Tokens.in_memory(FULL)
    whole = feed_of(source, settings).batch(1)
    hosts = [
        feed_of(source, settings, rows=np.arange(8)[own]).batch(1)
        for own in (slice(0, 3), slice(3, 8))
    ]
    same({n: np.concatenate([host[n] for host in hosts]) for n in whole}, whole)


def test_a_row_with_any_target_may_be_trained_on():
    nothing = {name: np.zeros_like(array) for name, array in FULL.targets.items()}
    for target in ("where", "items_where", "teacher_where"):
        arrays = {name: array.copy() for name, array in nothing.items()}
        arrays[target][:, 0] = True
        feed = feed_of(
            tokens.Tokens.in_memory(batches.Examples(PLAIN.encoded, **arrays)), PACKED
        )
        assert feed.batch(0)[target].any()
    with pytest.raises(ValueError, match="example 0 has no labelled cell"):
        feed_of(
            tokens.Tokens.in_memory(batches.Examples(PLAIN.encoded, **nothing)), PACKED
        )


def test_a_cache_gives_back_the_targets_it_was_given(tmp_path):
    def parts():
        for start, end in ((0, 1), (1, 40), (40, N)):
            yield part(FULL, start, end)

    for found in (
        tokens.cached(tmp_path, KEY, parts),
        tokens.cached(tmp_path, KEY, never),
        tokens.open_tokens(tmp_path / KEY),
        tokens.Tokens.in_memory(FULL),
    ):
        same(found.targets, FULL.targets)
        same({"labels": found.labels, "where": found.where}, PLAIN.targets)
    assert json.loads((tmp_path / KEY / "meta.json").read_text())["format"] == 2


def test_a_cache_of_labels_alone_is_what_it_was(tmp_path):
    found = tokens.cached(tmp_path, KEY, lambda: PLAIN)
    assert found.targets.keys() == {"labels", "where"}
    meta = json.loads((tmp_path / KEY / "meta.json").read_text())
    assert meta["format"] == 1
    assert list(meta["files"]) == [
        "tokens.array_record", "lengths.npy", "labels.npy", "where.npy",
    ]  # fmt: skip


def test_a_cache_of_one_more_target_has_that_one(tmp_path):
    some = dataclasses.replace(FULL, items=None, items_where=None)
    tokens.cached(tmp_path, KEY, lambda: some)
    same(tokens.open_tokens(tmp_path / KEY).targets, some.targets)


def test_damage_to_a_target_is_found(tmp_path):
    tokens.cached(tmp_path, KEY, lambda: FULL)
    whole = tmp_path / "whole"
    shutil.copytree(tmp_path / KEY, whole)
    file = tmp_path / KEY / "teacher.npy"
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(ValueError, match=r"teacher\.npy does not have the checksum"):
        tokens.open_tokens(tmp_path / KEY)
    (whole / "items.npy").unlink()
    with pytest.raises(ValueError, match=r"items\.npy has 0 bytes"):
        tokens.open_tokens(whole)
    shutil.rmtree(whole)
    shutil.copytree(tmp_path / KEY, whole)
    file = whole / "meta.json"
    file.write_text(file.read_text().replace('"format": 2', '"format": 3'))
    with pytest.raises(ValueError, match="has format 3; it should be 1 or 2"):
        tokens.open_tokens(whole)


def test_parts_with_other_targets_are_refused(tmp_path):
    parts = [part(FULL, 0, 9), part(PLAIN, 9, N)]
    with pytest.raises(ValueError, match=r"example 9 has labels, where; those before"):
        tokens.cached(tmp_path, KEY, lambda: parts)
    assert not (tmp_path / KEY).exists()


def test_targets_without_the_cells_that_count_are_refused():
    with pytest.raises(ValueError, match="there is items but no items_where; give bot"):
        dataclasses.replace(FULL, items_where=None)
    with pytest.raises(ValueError, match="there is teacher_where but no teacher; give"):
        dataclasses.replace(FULL, teacher=None)
    with pytest.raises(ValueError, match=r"teacher has shape \(59, 10\), so N=59"):
        tokens.Tokens.in_memory(
            dataclasses.replace(
                FULL, teacher=FULL.teacher[1:], teacher_where=FULL.teacher_where[1:]
            )
        )


def test_other_labels_leave_the_other_targets():
    found = tokens.Tokens.in_memory(FULL)
    other = found.with_labels(-found.labels, ~found.where)
    same(other.targets, FULL.targets | {"labels": -FULL.labels, "where": ~FULL.where})
    turned = found.with_targets({name: a[::-1] for name, a in FULL.targets.items()})
    np.testing.assert_array_equal(turned.where, FULL.where[::-1])
    with pytest.raises(ValueError, match="there is labels but no where"):
        found.with_targets({"labels": FULL.labels})


def test_a_key_names_the_targets():
    tokenizer = PairTokenizer.train(["to be or not to be"], 300)
    plain = tokens.key_of("rows", tokenizer, 64)
    assert tokens.key_of("rows", tokenizer, 64, []) == plain
    both = tokens.key_of("rows", tokenizer, 64, ["items", "teacher"])
    assert both == tokens.key_of("rows", tokenizer, 64, ["teacher", "items"])
    keys = {plain, both, tokens.key_of("rows", tokenizer, 64, ["items"])}
    assert len(keys) == 3
