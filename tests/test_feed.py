# SPDX-License-Identifier: Apache-2.0
"""Feeds: a host's rows of the global batch, in order, whoever makes them."""

import contextlib
import threading
import time

import numpy as np
import pytest
from token_examples import examples

from fulcra_jax.data import batches, tokens
from fulcra_jax.data.feed import Feed, TokenDropout
from fulcra_jax.data.plan import Ladder, Packed

DATA = examples(90)
RUNGS = (16, 32, 64)
LADDER, PACKED = Ladder(8, RUNGS), Packed(8, 64)
DROP = TokenDropout(0.2, mask_id=99, keep=(1, 2))


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return tokens.cached(tmp_path_factory.mktemp("cache"), "0" * 64, lambda: DATA)


def feed_of(settings, source=None, **options):
    source = tokens.Tokens.in_memory(DATA) if source is None else source
    return Feed(source, settings, seed=3, pad_id=0, **options)


def same(one, two):
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)
        assert one[name].dtype == two[name].dtype


def test_batches_of_a_ladder_are_what_they_were_before_there_was_a_feed():
    """Rows, length and places of [MASK], written down from the code before."""
    lengths = [5, 3, 9, 4, 7, 3, 8, 6, 12, 10, 3]
    data = examples(11)
    data.encoded.ids[:] = [np.full(n, i + 1, np.int32) for i, n in enumerate(lengths)]
    data.encoded.types[:] = [np.zeros(n, np.int32) for n in lengths]
    drop = TokenDropout(0.5, mask_id=99, keep=(2,))
    feed = Feed(tokens.Tokens.in_memory(data), Ladder(3, (4, 8, 16)), seed=7, pad_id=0)
    dropping = Feed(
        tokens.Tokens.in_memory(data), Ladder(3, (4, 8, 16)), seed=7, pad_id=0,
        drop=drop,
    )  # fmt: skip
    for step, rows, length, masked in (
        (0, [2, 2, 2], 16, [0, 2, 6, 7, 16, 18, 19, 20, 22, 23, *range(32, 38), 39]),
        (1, [4, 6, 6], 8, [0, 2, 4, 5, 8, 10, 11, 13, 15, 16, 17, 20, 21]),
        (2, [4, 4, 4], 8, [0, 4, 5, 6, 8, 9, 10, 11, 14, 16, 17, 19, 21, 22]),
        (15, [10, 1, 3], 4, [0, 2, 9, 10, 11]),
        (16, [1, 10, 1], 4, [4, 6]),
        (17, [1, 5, 10], 4, [4, 5, 6, 10]),
        (1000, [1, 1, 5], 4, []),
        (10**6, [2, 2, 9], 16, [3, 4, 5, 17, 20, 21, 24, 33, 35, 36, 38, 39, 40, 41]),
    ):  # fmt: skip
        batch = feed.batch(step)
        assert (batch["input_ids"][:, 0] - 1).tolist() == rows
        assert feed.examples_at(step).tolist() == rows
        assert batch["input_ids"].shape == (3, length)
        found = np.flatnonzero(dropping.batch(step)["input_ids"] == 99)
        assert found.tolist() == masked


@pytest.mark.parametrize("step", [0, 7, 16, 45])
def test_a_ladder_gives_the_batches_of_train_batch(step, stored):
    want = batches.train_batch(DATA, step, batch_size=8, seed=3, ladder=RUNGS, pad_id=0)
    same(feed_of(LADDER, stored).batch(step), want)
    dropped = batches.drop_tokens(want, step, rate=0.2, seed=3, mask_id=99, keep=(1, 2))
    assert (dropped["input_ids"] != want["input_ids"]).any()
    same(feed_of(LADDER, stored, drop=DROP).batch(step), dropped)


@pytest.mark.parametrize("max_segments", [None, 2, 40])
def test_a_packed_batch_holds_its_texts_whole_and_apart(max_segments, stored):
    feed = feed_of(Packed(5, 64, max_segments), stored)
    seen = []
    for step in range(feed.steps(1.0)):
        batch = feed.batch(step)
        numbers = iter(feed.examples_at(step).tolist())
        padding = np.ones((5, 64), bool)
        for row in range(5):
            for place in range(batch["first"].shape[1]):
                columns = batch["segment_ids"][row] == place + 1
                if not columns.any():
                    # Nothing counts where there is no text.
                    assert not batch["where"][row, place].any()
                    assert not batch["labels"][row, place].any()
                    assert batch["first"][row, place] == 0
                    continue
                number = next(numbers)
                length = len(DATA.encoded.ids[number])
                start = batch["first"][row, place]
                assert columns.nonzero()[0].tolist() == [*range(start, start + length)]
                for name, want in (
                    ("input_ids", DATA.encoded.ids[number]),
                    ("token_type_ids", DATA.encoded.types[number]),
                ):
                    np.testing.assert_array_equal(batch[name][row, columns], want)
                for name in ("labels", "where"):
                    np.testing.assert_array_equal(
                        batch[name][row, place], getattr(DATA, name)[number]
                    )
                padding[row, columns] = False
                seen.append(number)
        assert not list(numbers)
        np.testing.assert_array_equal(batch["mask"], ~padding)
        for name in ("input_ids", "token_type_ids", "segment_ids"):
            assert not batch[name][padding].any()
    # The last batch goes on with the next epoch.
    assert set(seen) == set(range(90))
    assert len(seen[:90]) == len(set(seen[:90]))


def test_short_rows_are_filled_with_the_padding_id():
    feed = Feed(tokens.Tokens.in_memory(DATA), PACKED, seed=3, pad_id=7)
    batch = feed.batch(0)
    assert (~batch["mask"]).any()
    assert (batch["input_ids"][~batch["mask"]] == 7).all()


@pytest.mark.parametrize("settings", [LADDER, PACKED])
@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_the_rows_of_all_hosts_are_the_global_batch(settings, hosts, stored):
    shares = np.split(np.arange(8), hosts)
    parts = [feed_of(settings, stored, drop=DROP, rows=share) for share in shares]
    for step in (0, 5, 11):
        want = feed_of(settings, drop=DROP).batch(step)
        found = [part.batch(step) for part in parts]
        joined = {name: np.concatenate([x[name] for x in found]) for name in want}
        same(joined, want)


@pytest.mark.parametrize("settings", [LADDER, PACKED])
def test_a_host_may_hold_any_rows_in_any_order(settings):
    rows = np.array([6, 1])
    whole, part = feed_of(settings, drop=DROP), feed_of(settings, drop=DROP, rows=rows)
    same(part.batch(3), {k: x[rows] for k, x in whole.batch(3).items()})


@pytest.mark.parametrize("settings", [LADDER, PACKED])
def test_a_host_reads_only_the_texts_of_its_rows(settings):
    read = []

    class Watched(tokens.Tokens):
        def joined(self, rows):
            read.extend(rows.tolist())
            return super().joined(rows)

    rows = np.array([2, 3])
    feed_of(settings, Watched.in_memory(DATA), rows=rows).batch(4)
    texts = feed_of(settings).plan.layout(4).texts[rows]
    assert sorted(read) == sorted(texts[texts >= 0].tolist())


@pytest.mark.parametrize("settings", [LADDER, PACKED])
@pytest.mark.parametrize("threads", [0, 1, 3])
def test_an_iteration_is_in_order_and_resumes_anywhere(settings, threads, stored):
    feed = feed_of(settings, stored, drop=DROP)
    whole = list(feed.iterate(0, 30, threads=threads))
    assert [step for step, _ in whole] == list(range(30))
    for step, batch in whole:
        same(batch, feed_of(settings, drop=DROP).batch(step))
    resumed = feed_of(settings, stored, drop=DROP).iterate(17, 30, threads=threads)
    for (step, batch), (number, want) in zip(resumed, whole[17:], strict=True):
        assert step == number
        same(batch, want)
    assert list(feed.iterate(30, 30, threads=threads)) == []


def test_batches_are_made_ahead():
    feed, made = feed_of(LADDER), threading.Semaphore(0)
    plain = feed.batch

    def batch(step):
        made.release()
        return plain(step)

    feed.batch = batch
    with contextlib.closing(feed.iterate(0, 20, threads=2, prefetch=4)) as ahead:
        next(ahead)
        # One was taken; without anybody asking, four more are made.
        for _ in range(5):
            assert made.acquire(timeout=60)


def wait_for_threads(before):
    """A thread that never had work ends by itself, and not at once."""
    deadline = time.monotonic() + 60
    while set(threading.enumerate()) - before:
        assert time.monotonic() < deadline, threading.enumerate()
        time.sleep(0.001)


def test_an_iterator_that_is_closed_early_leaves_no_thread():
    before = set(threading.enumerate())
    with contextlib.closing(feed_of(LADDER).iterate(0, 1000, threads=3)) as ahead:
        next(ahead)
        assert set(threading.enumerate()) - before
    wait_for_threads(before)
    list(feed_of(LADDER).iterate(0, 5, threads=3))
    wait_for_threads(before)


def test_closing_waits_for_the_batch_that_is_being_made():
    """Whoever closes may then close the files that it is made of."""
    feed, begun, go, done = feed_of(LADDER), *(threading.Event() for _ in range(3))
    plain = feed.batch

    def batch(step):
        if step == 1:
            begun.set()
            go.wait(60)
            done.set()
        return plain(step)

    feed.batch = batch
    ahead = feed.iterate(0, 20, threads=1, prefetch=2)
    next(ahead)
    assert begun.wait(60)
    threading.Timer(0.05, go.set).start()
    ahead.close()
    assert done.is_set()


@pytest.mark.parametrize("threads", [0, 2])
def test_an_error_of_a_thread_is_raised_at_its_step(threads):
    before = set(threading.enumerate())
    feed, error = feed_of(LADDER), KeyError("this one")
    plain = feed.batch

    def batch(step):
        if step == 4:
            raise error
        return plain(step)

    feed.batch = batch
    ahead = feed.iterate(0, 20, threads=threads)
    assert [next(ahead)[0] for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(KeyError, match="this one") as caught:
        next(ahead)
    assert caught.value is error
    wait_for_threads(before)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: feed_of(LADDER, rows=np.array([8])), r"rows holds 8; it should be in"),
        (lambda: feed_of(LADDER, rows=np.array([-1])), "rows holds -1; it should be"),
        (lambda: feed_of(LADDER, rows=np.array([1.0])), "rows is float64; it should"),
        (lambda: feed_of(LADDER, rows=np.zeros(0, int)), "rows is empty; a host"),
        (lambda: feed_of(LADDER, rows=np.zeros((1, 2), int)), r"expected \[n\]"),
        (lambda: feed_of(Ladder(8, (16, 32))), "tokens, but the ladder ends at 32"),
        (lambda: feed_of(Packed(8, 32)), "tokens; a row holds 1 to 32"),
        (lambda: feed_of(LADDER).batch(-1), "step is -1; it should be an integer"),
        (lambda: feed_of(LADDER).iterate(5, 4), "steps is 4; it should be an integer"),
        (lambda: feed_of(LADDER).iterate(-1, 4), "begun is -1; it should be an"),
        (lambda: feed_of(LADDER).iterate(0, 4, threads=-1), "threads is -1; it should"),
        (
            lambda: feed_of(LADDER).iterate(0, 4, threads=3, prefetch=2),
            "prefetch is 2; it should be an integer of at least 3",
        ),
        (lambda: TokenDropout(1.0, 99), r"rate is 1.0; it should be in \[0, 1\)"),
        (lambda: TokenDropout(float("nan"), 99), "rate is nan; it should be in"),
    ],
)
def test_bad_input_is_one_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_example_without_a_label_is_named():
    data = examples(5)
    data.where[3] = False
    with pytest.raises(ValueError, match="example 3 has no labelled cell"):
        feed_of(LADDER, tokens.Tokens.in_memory(data))
    with pytest.raises(ValueError, match="there is no text to train on"):
        feed_of(LADDER, tokens.Tokens.in_memory(examples(0)))
