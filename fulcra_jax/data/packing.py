# SPDX-License-Identifier: Apache-2.0
"""Several texts in one row, so that little of a batch is padding.

A packed row holds texts one behind the other; `segment_ids` keeps them from seeing each
other. DeBERTa's positions are distances, so a text needs no position ids of its own.
R rows, T tokens in a row (the capacity), S places for texts in a row, N texts.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from fulcra_jax.data import _packing_checks


class Places(NamedTuple):
    """Where N texts stand."""

    row: np.ndarray
    """`[N]` int32 in [0, R)."""
    offset: np.ndarray
    """`[N]` int32: the column of the text's first token."""
    place: np.ndarray
    """`[N]` int32: how many texts stand before it in its row."""

    @property
    def num_rows(self) -> int:
        """R."""
        return int(self.row.max(initial=-1)) + 1


def place(
    lengths: Sequence[int] | np.ndarray,
    *,
    capacity: int,
    max_segments: int | None = None,
) -> Places:
    """Places texts by best fit, the longest first.

    Each text goes into the row with the least room that still holds it, else into a new
    one. Without `max_segments` these are at most 11/9 of the fewest possible rows, and
    one; hardly more than the fewest when many texts are short. Takes N log N + N T / 64
    steps.

    Args:
      lengths: `[N]` int, tokens of each text, in [1, capacity].
      capacity: tokens of a row, at most 65536.
      max_segments: most texts in a row; None for as many as fit.

    Returns:
      The rows and offsets, in the order of `lengths`; the same for the same lengths.

    Raises:
      ValueError: if a text is empty or longer than a row (cut it before), or a limit is
        no integer or out of range.

    Reference:
      Johnson 1973, "Near-optimal bin packing algorithms"; for texts: Krell et al. 2021
      (arXiv 2107.02027).

    >>> places = place([3, 6, 2, 5], capacity=8)
    >>> places.row.tolist(), places.offset.tolist()
    ([1, 0, 0, 1], [5, 0, 6, 0])
    """
    [capacity] = _packing_checks.limits("packing.place", capacity=capacity)
    if max_segments is not None:
        _packing_checks.limits("packing.place", max_segments=max_segments)
    sizes = np.asarray(lengths)
    _packing_checks.check_sizes("packing.place", sizes, capacity)
    return _place(sizes, capacity, max_segments)


def _place(sizes: np.ndarray, capacity: int, max_segments: int | None) -> Places:
    """`place`, of what is checked."""
    most = capacity if max_segments is None else max_segments
    row, offset, order = (np.zeros(len(sizes), np.int32) for _ in range(3))
    used: list[int] = []
    count: list[int] = []
    # The rows with room for exactly k tokens, the first opened on top; bit k of `some`
    # says whether there are any.
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    some = 0
    for text in np.argsort(-sizes, kind="stable"):
        length = int(sizes[text])
        fitting = some >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            at = heapq.heappop(with_room[room])
            if not with_room[room]:
                some ^= 1 << room
        else:
            at = len(used)
            used.append(0)
            count.append(0)
        row[text], offset[text], order[text] = at, used[at], count[at]
        used[at] += length
        count[at] += 1
        room = capacity - used[at]
        if room and count[at] < most:
            heapq.heappush(with_room[room], at)
            some |= 1 << room
    return Places(row, offset, order)


def pack(
    ids: Iterable[np.ndarray],
    types: Iterable[np.ndarray] | None = None,
    *,
    capacity: int,
    max_segments: int | None = None,
    pad_id: int,
) -> dict[str, np.ndarray]:
    """All texts as packed rows.

    Args:
      ids: N arrays `[length]` int of token ids.
      types: N arrays `[length]` int of token types; None means zeros.
      capacity: T, tokens of a row, at most 65536.
      max_segments: S, most texts in a row; None takes as many as the fullest row has.
      pad_id: the id that fills rows up.

    Returns:
      `input_ids`, `mask`, `segment_ids`, `token_type_ids` `[R, T]`, as `train_batch`
      has them, with `segment_ids` int32, 1 for the first text of a row and 0 for
      padding; and for each row its texts `[R, S]`: `first` int32, the column of the
      text's first token; `where` bool, False for places without a text; `source` int32,
      which text of `ids` it is (0 where there is none).

    Raises:
      ValueError: if a text is empty or longer than a row, its types are not as many as
        its ids, ids or types are no integers or outside int32, or a limit is no integer
        or out of range.

    >>> rows = pack([np.array([5, 6, 7]), np.array([8, 9])], capacity=6, pad_id=0)
    >>> rows["input_ids"].tolist(), rows["segment_ids"].tolist()
    ([[5, 6, 7, 8, 9, 0]], [[1, 1, 1, 2, 2, 0]])
    >>> rows["first"].tolist(), rows["source"].tolist()
    ([[0, 3]], [[0, 1]])
    """
    caller = "packing.pack"
    capacity, pad_id = _packing_checks.limits(caller, capacity=capacity, pad_id=pad_id)
    if max_segments is not None:
        _packing_checks.limits(caller, max_segments=max_segments)
    texts = [_packing_checks.array_of(caller, "ids", *text) for text in enumerate(ids)]
    kinds = _packing_checks.types_of(texts, types)
    _packing_checks.check_sizes(
        caller, np.array([len(text) for text in texts], np.int64), capacity
    )
    numbers = range(len(texts))
    _packing_checks.check_values(caller, "ids", numbers, texts)
    _packing_checks.check_values(caller, "types", numbers, kinds)
    return _pack(texts, kinds, capacity, max_segments, pad_id)


def _pack(
    ids: Sequence[np.ndarray],
    types: Sequence[np.ndarray],
    capacity: int,
    max_segments: int | None,
    pad_id: int,
) -> dict[str, np.ndarray]:
    """`pack`, of what is checked."""
    sizes = np.array([len(text) for text in ids], np.int64)
    places = _place(sizes, capacity, max_segments)
    if max_segments is None:
        max_segments = int(places.place.max(initial=0)) + 1
    R = places.num_rows
    packed = _empty(R, capacity, max_segments, pad_id)
    for text, (row, start, at) in enumerate(zip(*places, strict=True)):
        columns = slice(start, start + len(ids[text]))
        packed["input_ids"][row, columns] = ids[text]
        packed["token_type_ids"][row, columns] = types[text]
        packed["mask"][row, columns] = True
        packed["segment_ids"][row, columns] = at + 1
        packed["first"][row, at] = start
        packed["where"][row, at] = True
        packed["source"][row, at] = text
    return packed


def packed_batches(
    texts: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    batch_size: int,
    capacity: int,
    max_segments: int,
    window: int,
    pad_id: int,
) -> Iterator[dict[str, np.ndarray]]:
    """Packed batches of one shape from a stream of texts, a window at a time.

    The texts of a window are packed together. Full batches leave with the fullest rows;
    the texts of what remains, at most as many rows as a batch has, join the next
    window. Memory is that of a window and a batch, however long the stream.

    Args:
      texts: ids and token types `[length]` of one text after the other.
      batch_size: R, rows of a batch.
      capacity: T, tokens of a row, at most 65536.
      max_segments: S, most texts in a row.
      window: texts that are read before they are packed; more give less padding.
      pad_id: the id that fills rows up.

    Yields:
      Batches as `pack` returns them, R rows each; `source` counts the texts of the
      stream from 0. The last batch is filled up with rows of padding. Every text stands
      in one batch; the same stream gives the same batches.

    Raises:
      ValueError: as `pack`; for a limit when called, for a text when it is read or its
        window is packed.

    >>> stream = [(np.full(n, n), np.zeros(n, int)) for n in (3, 6, 2, 5)]
    >>> limits = dict(batch_size=1, capacity=8, max_segments=4, window=4, pad_id=0)
    >>> [batch["source"][0, :2].tolist() for batch in packed_batches(stream, **limits)]
    [[1, 2], [3, 0]]
    """
    limits = _packing_checks.limits(
        _packing_checks.STREAM,
        batch_size=batch_size,
        capacity=capacity,
        max_segments=max_segments,
        window=window,
        pad_id=pad_id,
    )
    return _batches(texts, *limits)


def _batches(
    texts: Iterable[tuple[np.ndarray, np.ndarray]],
    batch_size: int,
    capacity: int,
    max_segments: int,
    window: int,
    pad_id: int,
) -> Iterator[dict[str, np.ndarray]]:
    """`packed_batches`, of limits that are checked."""
    held: list[tuple[int, np.ndarray, np.ndarray]] = []
    fresh = 0

    def batches(*, last: bool) -> Iterator[dict[str, np.ndarray]]:
        nonlocal held
        numbers, ids, types = map(list, zip(*held, strict=True))
        new = slice(len(held) - fresh, None)  # Those before were checked when new.
        for name, some in (("ids", ids), ("types", types)):
            _packing_checks.check_values(
                _packing_checks.STREAM, name, numbers[new], some[new]
            )
        packed = _pack(ids, types, capacity, max_segments, pad_id)
        # The fullest first; equally full rows keep their order.
        order = np.argsort(-packed["mask"].sum(1), kind="stable")
        # The emptiest always waits: the next window may fill it.
        leave = len(order) if last else (len(order) - 1) // batch_size * batch_size
        sources = np.array(numbers, np.int32)[packed["source"]]
        numbered = np.where(packed["where"], sources, 0)
        for start in range(0, leave, batch_size):
            rows = order[start : start + batch_size]
            batch = _empty(batch_size, capacity, max_segments, pad_id)
            for name, array in (packed | {"source": numbered}).items():
                batch[name][: len(rows)] = array[rows]
            yield batch
        stay = order[leave:]
        kept = packed["source"][stay][packed["where"][stay]]
        held = [held[text] for text in np.sort(kept)]

    for number, (text, kinds) in enumerate(texts):
        ids = _packing_checks.array_of(_packing_checks.STREAM, "ids", number, text)
        types = _packing_checks.array_of(_packing_checks.STREAM, "types", number, kinds)
        _packing_checks.check_text(number, len(ids), len(types), capacity)
        held.append((number, ids, types))
        fresh += 1
        if fresh == window:
            yield from batches(last=False)
            fresh = 0
    if held:
        yield from batches(last=True)


def padding_share(mask: np.ndarray) -> float:
    """The share of the places that hold no token.

    Raises:
      ValueError: if there is no place.

    >>> padding_share(np.array([[True, True], [True, False]]))
    0.25
    """
    mask = np.asarray(mask)
    if not mask.size:
        raise ValueError(
            f"packing.padding_share: the mask has shape {mask.shape}; it should "
            "hold at least one place."
        )
    return 1.0 - float(mask.mean())


def _empty(R: int, T: int, S: int, pad_id: int) -> dict[str, np.ndarray]:
    """Rows without a text."""
    return {
        "input_ids": np.full((R, T), pad_id, np.int32),
        "mask": np.zeros((R, T), bool),
        "segment_ids": np.zeros((R, T), np.int32),
        "token_type_ids": np.zeros((R, T), np.int32),
        "first": np.zeros((R, S), np.int32),
        "where": np.zeros((R, S), bool),
        "source": np.zeros((R, S), np.int32),
    }
