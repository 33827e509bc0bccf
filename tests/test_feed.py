# SPDX-License-Identifier: Apache-2.0
"""Plans and the feed: every text once an epoch, the same on any number of hosts."""

import threading

import numpy as np
import pytest

from fulcra_jax.data import batches, feed, plan, tokens
from fulcra_jax.data.tokenizer import Encoded

N = 37


@pytest.fixture(scope="module")
def examples():
    """Texts of 3 to 30 tokens; a token tells its text and its place in it."""
    draws = np.random.default_rng(0)
    lengths = draws.integers(3, 31, N)
    ids = [100 * (text + 1) + np.arange(n) for text, n in enumerate(lengths)]
    types = [(np.arange(n) >= n // 2).astype(np.int32) for n in lengths]
    labels = draws.integers(-1, 2, (N, 10)).astype(np.float32)
    return batches.Examples(Encoded(ids, types), labels, draws.random((N, 10)) < 0.8)


@pytest.fixture(scope="module")
def held(examples):
    return tokens.Tokens.in_memory(examples)


def plans(held):
    return {
        "ladder": plan.Ladder(held.lengths, 8, (16, 32)),
        "packed": plan.Packed(held.lengths, 4, 32),
        "few": plan.Packed(held.lengths, 4, 40, max_segments=2),
    }


def make(held, planned, **more):
    return feed.Feed(held, planned, seed=3, pad_id=0, **more)


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], name)
        assert one[name].dtype == other[name].dtype, name


def test_the_ladder_is_that_of_train_batch(examples, held):
    made = make(held, plans(held)["ladder"])
    for step in (0, 1, 15, 16, 40, 1000):
        same(
            made.batch(step),
            batches.train_batch(
                examples, step, batch_size=8, seed=3, ladder=(16, 32), pad_id=0
            ),
        )


@pytest.mark.parametrize("name", ["ladder", "packed", "few"])
def test_a_batch_is_the_rows_that_hosts_hold_of_it(held, name):
    planned = plans(held)[name]
    drop = feed.TokenDropout(0.3, mask_id=7, keep=(100,))
    everything = make(held, planned, drop=drop)
    for hosts in (1, 2, 4):
        parts = np.split(np.arange(planned.batch_size), hosts)
        for step in (0, 5, 33):
            mine = [make(held, planned, drop=drop, rows=rows) for rows in parts]
            found = [one.batch(step) for one in mine]
            same(
                everything.batch(step),
                {key: np.concatenate([b[key] for b in found]) for key in found[0]},
            )


@pytest.mark.parametrize("name", ["packed", "few"])
def test_every_text_stands_once_in_every_packed_epoch(held, name):
    planned = plans(held)[name]
    rows = planned.num_rows
    texts = []
    for step in range(-(-3 * rows // 4)):  # epochs end inside of batches
        layout = planned.layout(step, 3)
        texts += [layout.text[layout.row == row] for row in range(4)]
    epochs = [
        np.concatenate(texts[i * rows : (i + 1) * rows]).tolist() for i in range(3)
    ]
    for epoch in epochs:
        assert sorted(epoch) == list(range(N))
    assert epochs[0] != epochs[1]


def test_every_text_stands_in_the_ladder_as_often_as_every_other(held):
    planned = plans(held)["ladder"]
    # A window of 16 batches sorts 128 texts, across epochs: 37 windows are 128 epochs.
    steps = range(16 * N)
    seen = np.concatenate([planned.layout(step, 3).text for step in steps])
    assert np.bincount(seen).tolist() == [128] * N


def test_texts_stand_in_packed_rows_as_they_were(held, examples):
    planned = plans(held)["packed"]
    made = make(held, planned)
    for step in range(4):
        batch, layout = made.batch(step), planned.layout(step, 3)
        assert batch["input_ids"].shape == (4, 32)
        for row, start, place, text in zip(*layout[:4], strict=True):
            ids, types = examples.encoded.ids[text], examples.encoded.types[text]
            columns = slice(start, start + len(ids))
            np.testing.assert_array_equal(batch["input_ids"][row, columns], ids)
            np.testing.assert_array_equal(batch["token_type_ids"][row, columns], types)
            assert (batch["segment_ids"][row, columns] == place + 1).all()
            assert batch["first"][row, place] == start
            np.testing.assert_array_equal(
                batch["labels"][row, place], examples.labels[text]
            )
            np.testing.assert_array_equal(
                batch["where"][row, place], examples.where[text]
            )
        # Nothing else is there.
        taken = held.lengths[layout.text].sum()
        assert batch["mask"].sum() == taken == (batch["segment_ids"] > 0).sum()
        assert batch["where"].any(-1).sum() == examples.where[layout.text].any(-1).sum()
        assert (batch["input_ids"][~batch["mask"]] == 0).all()


def test_packed_rows_are_full(held):
    planned = plans(held)["packed"]
    fewest = -(-int(held.lengths.sum()) // 32)
    # Johnson 1973: best fit, longest first.
    assert fewest <= planned.num_rows <= 11 / 9 * fewest + 1
    assert planned.steps(2.0) == -(-2 * planned.num_rows // 4)


@pytest.mark.parametrize("threads", [0, 2])
def test_reading_ahead_changes_nothing_and_begins_anywhere(held, threads):
    made = make(held, plans(held)["packed"])
    before = set(threading.enumerate())
    found = list(made.iterate(5, 12, threads=threads))
    assert [step for step, _ in found] == list(range(5, 12))
    for step, batch in found:
        same(batch, made.batch(step))
    early = made.iterate(0, 1000, threads=threads)
    next(early)
    early.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=30)
        assert not thread.is_alive()


def test_an_error_while_reading_reaches_the_caller(held):
    def broken(rows):
        raise OSError("the disk is gone")

    lost = tokens.Tokens(held.lengths, held.labels, held.where, broken)
    with pytest.raises(OSError, match="the disk is gone"):
        next(make(lost, plans(held)["ladder"]).iterate(0, 3))


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda n: plan.Ladder(n[:0], 8, (32,)), "no labelled row"),
        (lambda n: plan.Ladder(n, 8, (8, 16)), "the ladder ends at 16"),
        (lambda n: plan.Ladder(n, 0, (32,)), "batch_size is 0"),
        (lambda n: plan.Packed(n, 4, 16), "the ladder ends at 16"),
        (lambda n: plan.Packed(n[:0], 4, 16), "no labelled row"),
        (lambda n: plan.Packed(n, 4, 10**6), "capacity is 1000000"),
        (lambda n: plan.Packed(n, 4, 32, max_segments=0), "max_segments is 0"),
    ],
)
def test_plans_that_cannot_be_made_are_refused(held, work, message):
    with pytest.raises(ValueError, match=message):
        work(held.lengths)


@pytest.mark.parametrize("rows", [[], [8], [-1, 0]])
def test_rows_outside_of_the_batch_are_refused(held, rows):
    with pytest.raises(ValueError, match="at least one of the 8 rows of a batch"):
        make(held, plans(held)["ladder"], rows=np.array(rows, int))
