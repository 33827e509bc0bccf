# SPDX-License-Identifier: Apache-2.0
"""Packed rows: every text once, nothing overlaps, little padding, always the same."""

import itertools
import re
from typing import Any

import numpy as np
import pytest

from fulcra_jax.data import packing

CAPACITY = 64
SEEDS = list(range(12))


def texts_of(seed):
    """Random texts that tell themselves apart, and a random limit of texts a row."""
    random = np.random.default_rng(seed)
    longest = int(random.integers(1, CAPACITY + 1))
    lengths = random.integers(1, longest + 1, int(random.integers(1, 200)))
    ids = [np.arange(n) + 1000 * (i + 1) for i, n in enumerate(lengths)]
    types = [(np.arange(n) >= n // 2).astype(np.int32) for n in lengths]
    return ids, types, (None, 1, 2, 8)[seed % 4]


def texts_in(packed):
    """The texts as they stand in the rows, by their number."""
    found = {}
    for row, at in zip(*np.nonzero(packed["where"]), strict=True):
        columns = np.flatnonzero(packed["segment_ids"][row] == at + 1)
        assert columns[0] == packed["first"][row, at]
        assert (np.diff(columns) == 1).all()
        assert packed["mask"][row, columns].all()
        number = int(packed["source"][row, at])
        assert number not in found
        found[number] = (
            packed["input_ids"][row, columns],
            packed["token_type_ids"][row, columns],
        )
    return found


def assert_same_texts(found, ids, types):
    assert sorted(found) == list(range(len(ids)))
    for number, (text, kinds) in found.items():
        np.testing.assert_array_equal(text, ids[number])
        np.testing.assert_array_equal(kinds, types[number])


@pytest.mark.parametrize("seed", SEEDS)
def test_every_text_stands_in_the_rows_once(seed):
    ids, types, limit = texts_of(seed)
    packed = packing.pack(ids, types, capacity=CAPACITY, max_segments=limit, pad_id=7)
    assert_same_texts(texts_in(packed), ids, types)
    assert packed["mask"].sum() == sum(map(len, ids))
    np.testing.assert_array_equal(packed["mask"], packed["segment_ids"] > 0)
    assert (packed["input_ids"][~packed["mask"]] == 7).all()
    assert (packed["token_type_ids"][~packed["mask"]] == 0).all()
    if limit is not None:
        assert packed["first"].shape == (len(packed["mask"]), limit)
    assert packed["where"].any(1).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_places_do_not_overlap(seed):
    ids, _, limit = texts_of(seed)
    lengths = [len(text) for text in ids]
    places = packing.place(lengths, capacity=CAPACITY, max_segments=limit)
    taken = np.zeros((places.num_rows, CAPACITY), int)
    for row, start, length in zip(places.row, places.offset, lengths, strict=True):
        assert start + length <= CAPACITY
        taken[row, start : start + length] += 1
    assert taken.max() == 1
    assert np.bincount(places.row).max() <= (limit or CAPACITY)


def brute_force_best_fit(lengths, limit):
    """The rule as it reads, over all rows."""
    rooms, counts, rows = [], [], {}
    for text in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        fits = [
            (room, at)
            for at, room in enumerate(rooms)
            if room >= lengths[text] and counts[at] < (limit or CAPACITY)
        ]
        if not fits:
            fits = [(CAPACITY, len(rooms))]
            rooms.append(CAPACITY)
            counts.append(0)
        at = min(fits)[1]
        rooms[at] -= lengths[text]
        counts[at] += 1
        rows[text] = at
    return [rows[text] for text in range(len(lengths))]


@pytest.mark.parametrize("seed", SEEDS)
def test_it_is_best_fit_of_the_longest_first(seed):
    ids, _, limit = texts_of(seed)
    lengths = [len(text) for text in ids]
    places = packing.place(lengths, capacity=CAPACITY, max_segments=limit)
    assert places.row.tolist() == brute_force_best_fit(lengths, limit)


@pytest.mark.parametrize("seed", SEEDS)
def test_never_more_rows_than_one_text_a_row_or_than_the_guarantee(seed):
    ids, _, limit = texts_of(seed)
    lengths = np.array([len(text) for text in ids])
    rows = packing.place(lengths, capacity=CAPACITY, max_segments=limit).num_rows
    assert rows <= len(lengths)
    free = packing.place(lengths, capacity=CAPACITY).num_rows
    # The fewest rows are unknown; none is more than half empty, but for one.
    assert free <= 2 * lengths.sum() / CAPACITY + 1
    assert free <= in_order(lengths)


def in_order(lengths):
    """Rows of the naive packer: the next text, or a new row."""
    rows, room = 0, 0
    for length in lengths:
        if length > room:
            rows, room = rows + 1, CAPACITY
        room -= length
    return rows


def test_full_rows_are_found():
    halves = [CAPACITY // 4] * 4 + [CAPACITY // 2] * 2 + [CAPACITY]
    packed = packing.pack(
        [np.ones(n, int) for n in halves], capacity=CAPACITY, pad_id=0
    )
    assert packing.padding_share(packed["mask"]) == 0.0


@pytest.mark.parametrize("seed", SEEDS[:4])
def test_the_same_texts_give_the_same_rows(seed):
    ids, types, limit = texts_of(seed)
    one, two = (
        packing.pack(ids, types, capacity=CAPACITY, max_segments=limit, pad_id=0)
        for _ in range(2)
    )
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


def stream_of(seed, **changes):
    ids, types, _ = texts_of(seed)
    limits = {"batch_size": 3, "capacity": CAPACITY, "max_segments": 6, "window": 20}
    limits |= changes
    return (
        ids,
        types,
        packing.packed_batches(zip(ids, types, strict=True), pad_id=0, **limits),
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_a_stream_loses_nothing_and_has_one_shape(seed):
    ids, types, stream = stream_of(seed)
    found = {}
    for batch in stream:
        assert batch["input_ids"].shape == (3, CAPACITY)
        assert batch["first"].shape == (3, 6)
        assert batch["mask"].any()
        texts = texts_in(batch)
        assert not set(texts) & set(found)
        found |= texts
    assert_same_texts(found, ids, types)


def test_a_stream_holds_a_window_and_no_more():
    read = itertools.count()

    def endless():
        for _ in read:
            yield np.ones(5, int), np.zeros(5, int)

    limits = {"batch_size": 2, "capacity": 64, "max_segments": 12, "window": 50}
    stream = packing.packed_batches(endless(), pad_id=0, **limits)
    gone = 0
    for _ in range(40):
        batch = next(stream)
        assert packing.padding_share(batch["mask"]) == 4 / 64  # 12 texts of 5 tokens
        gone += batch["where"].sum()
    assert next(read) - gone < 50 + 2 * 2 * 12


def test_a_stream_can_be_shorter_than_a_window():
    ids, _, stream = stream_of(1, window=1000)
    batches = list(stream)
    assert sum(batch["where"].sum() for batch in batches) == len(ids)
    assert list(packing.packed_batches([], **LIMITS)) == []


LIMITS = {
    "batch_size": 1,
    "capacity": 8,
    "max_segments": 2,
    "window": 2,
    "pad_id": 0,
}
ROW = np.ones(9, int)
SHORT = np.ones(2, int)


def test_what_cannot_be_packed_is_named():
    too_long = "text 1 has 9 tokens; a row holds 1 to 8. Cut texts before"
    with pytest.raises(ValueError, match=re.escape(f"packing.place: {too_long}")):
        packing.place([3, 9], capacity=8)
    with pytest.raises(ValueError, match=re.escape(too_long)):
        packing.pack([SHORT, ROW], capacity=8, pad_id=0)
    with pytest.raises(ValueError, match=r"packed_batches: text 2 has 9 tokens"):
        list(packing.packed_batches([(SHORT, SHORT)] * 2 + [(ROW, ROW)], **LIMITS))
    with pytest.raises(ValueError, match="text 0 has 0 tokens"):
        packing.place([0], capacity=8)


def test_limits_and_types_are_checked():
    with pytest.raises(ValueError, match=r"lengths has shape \(1, 1\); expected"):
        packing.place([[1]], capacity=4)
    with pytest.raises(ValueError, match="lengths are float64; expected integers"):
        packing.place([1.5], capacity=4)
    with pytest.raises(ValueError, match="there are 1 texts and types of 0"):
        packing.pack([SHORT], [], capacity=4, pad_id=0)
    with pytest.raises(ValueError, match="text 0 has 2 ids and 9 types"):
        packing.pack([SHORT], [ROW], capacity=16, pad_id=0)
    with pytest.raises(ValueError, match="text 0 has 2 ids and 9 types"):
        list(packing.packed_batches([(SHORT, ROW)], **LIMITS))


def test_texts_can_come_from_a_generator():
    ids, types, _ = texts_of(3)
    packed = packing.pack(
        (text for text in ids),
        (kinds for kinds in types),
        capacity=CAPACITY,
        pad_id=0,
    )
    assert_same_texts(texts_in(packed), ids, types)


TOO_MUCH = {
    "capacity": (0, -1, 65537, True, 8.0, "8", float("nan"), None),
    "max_segments": (0, -1, True, 2.0, "2", float("nan")),
    "batch_size": (0, -1, True, 2.0, "2", float("nan"), None),
    "window": (0, -1, True, 2.0, "2", float("nan"), None),
    "pad_id": (2**31, -(2**31) - 1, True, 0.0, "0", float("nan"), None),
}


@pytest.mark.parametrize(
    ("name", "number"), [(name, x) for name, some in TOO_MUCH.items() for x in some]
)
def test_limits_are_named_with_the_function_that_was_called(name, number):
    ways = {
        "packed_batches": (LIMITS, lambda **x: packing.packed_batches([], **x)),
        "pack": (
            {"capacity": 8, "max_segments": 2, "pad_id": 0},
            lambda **x: packing.pack([SHORT], **x),
        ),
        "place": (
            {"capacity": 8, "max_segments": 2},
            lambda **x: packing.place([2], **x),
        ),
    }
    for way, (limits, call) in ways.items():
        if name in limits:
            message = f"packing.{way}: {name} is {number!r}; it should be an integer "
            with pytest.raises(ValueError, match="^" + re.escape(message)):
                call(**limits | {name: number})


def test_only_a_stream_needs_a_limit_of_texts_a_row():
    message = "^packing.packed_batches: max_segments is None; it should be an integer"
    limits: Any = LIMITS | {"max_segments": None}
    with pytest.raises(ValueError, match=message):
        packing.packed_batches([], **limits)


def test_limits_can_be_integers_of_numpy():
    lengths = [60, 70, 3, 2]
    limits: Any = {"capacity": np.int64(200), "max_segments": np.int8(3)}
    found = packing.place(lengths, **limits)
    assert found.row.tolist() == [0, 0, 0, 1]


BAD_TEXTS = [
    (np.array([2**32 + 5, 1]), "hold 4294967301; they should be in [-2147483648, "),
    (np.array([1, -(2**31) - 1]), "hold -2147483649; they should be in"),
    (np.array([1, 2**63], np.uint64), "hold 9223372036854775808; they should be in"),
    (np.array([1.7, 1.0]), "are float64 of shape (2,); they should be integers of"),
    (np.array([np.nan, 1.0]), "are float64 of shape (2,); they should be integers"),
    (np.array([True, False]), "are bool of shape (2,); they should be integers"),
    (np.ones((2, 2), int), "are int64 of shape (2, 2); they should be integers"),
    ([[1], [1, 2]], "are a nested list; they should be integers"),
    ([1, None], "are object of shape (2,); they should be integers"),
    (["a", "b"], "are <U1 of shape (2,); they should be integers"),
    ("ab", "are a str; they should be integers of shape [length]."),
    (None, "are a NoneType; they should be integers of shape [length]."),
]


@pytest.mark.parametrize(("bad", "message"), BAD_TEXTS)
def test_what_is_no_integer_of_32_bits_is_named(bad, message):
    def raises(caller, name):
        whole = f"^packing.{caller}: the {name} of text 2 {re.escape(message)}"
        return pytest.raises(ValueError, match=whole)

    good = [SHORT, SHORT]
    with raises("pack", "ids"):
        packing.pack([*good, bad], capacity=8, pad_id=0)
    with raises("pack", "types"):
        packing.pack([*good, SHORT], [*good, bad], capacity=8, pad_id=0)
    pairs = [(SHORT, SHORT)] * 2
    with raises("packed_batches", "ids"):
        list(packing.packed_batches([*pairs, (bad, SHORT)], **LIMITS))
    with raises("packed_batches", "types"):
        list(packing.packed_batches([*pairs, (SHORT, bad)], **LIMITS))


def test_the_bad_text_is_found_among_many():
    ids = [SHORT] * 3000
    ids[2500] = np.array([0, 2**31])
    with pytest.raises(ValueError, match="ids of text 2500 hold 2147483648"):
        packing.pack(ids, capacity=8, pad_id=0)


def test_all_of_int32_is_kept():
    ends = np.array([-(2**31), 2**31 - 1])
    packed = packing.pack([ends], [ends], capacity=2, pad_id=0)
    assert packed["input_ids"].tolist() == [ends.tolist()]
    assert packed["token_type_ids"].tolist() == [ends.tolist()]


@pytest.mark.filterwarnings("error")
def test_nothing_has_no_share_of_padding():
    with pytest.raises(ValueError, match=r"^packing.padding_share: the mask has shape"):
        packing.padding_share(np.array([]))


def test_no_text_is_no_row():
    packed = packing.pack([], capacity=4, pad_id=0)
    assert packed["input_ids"].shape == (0, 4)
    assert packing.place([], capacity=4).num_rows == 0
