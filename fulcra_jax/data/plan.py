# SPDX-License-Identifier: Apache-2.0
"""Which rows stand where in the batch of a step, from (seed, step) and lengths alone.

A plan reads no text, so that any process can plan a batch and then read its own rows
of it only. N texts, B rows of a batch, T tokens of a row, S places for texts in a row.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fulcra_jax.data import _packing_checks, batches, packing

# Second words of Philox keys; windows of `batches` are below 2^32, epochs above, draws
# of dropped tokens above 2^33.
_ROWS = 2**34


class Layout(NamedTuple):
    """Where texts stand in a batch."""

    row: np.ndarray
    """`[n]` int: row of the batch, ascending."""
    offset: np.ndarray
    """`[n]` int: column of the first token."""
    place: np.ndarray
    """`[n]` int: how many texts stand before it in its row."""
    text: np.ndarray
    """`[n]` int: which text."""
    length: int
    """T of this batch."""


class Ladder:
    """A text a row; texts of like length together, padded to the next rung.

    The batches are those of `batches.train_batch`.
    """

    packed = False

    def __init__(
        self, lengths: np.ndarray, batch_size: int, rungs: Sequence[int]
    ) -> None:
        """What is planned.

        Args:
          lengths: `[N]` int, tokens of each text.
          batch_size: B.
          rungs: ascending lengths; the last one holds every text.

        Raises:
          ValueError: if there is no text, or one is longer than the last rung.
        """
        batches.check_lengths("plan.Ladder", lengths, rungs)
        _check_size("plan.Ladder", batch_size)
        self._lengths, self._rungs = lengths, tuple(rungs)
        self.batch_size = batch_size

    def steps(self, epochs: float) -> int:
        """Steps in which every text is seen so many times."""
        return math.ceil(epochs * len(self._lengths) / self.batch_size)

    def layout(self, step: int, seed: int) -> Layout:
        """The batch of a step, from 0."""
        B = self.batch_size
        text = batches.train_rows(self._lengths, step, batch_size=B, seed=seed)
        none = np.zeros(B, np.int64)
        length = batches.rung(self._lengths[text], self._rungs)
        return Layout(np.arange(B), none, none, text, length)


class Packed:
    """Several texts in a row, by best fit, the longest first.

    Every epoch packs all texts. How rows are filled depends on the lengths alone, so it
    is found once; an epoch draws which of the texts of equal length stands where, and
    the order of the rows. Each text stands in one row of every epoch.
    """

    packed = True

    def __init__(
        self,
        lengths: np.ndarray,
        batch_size: int,
        capacity: int,
        max_segments: int | None = None,
    ) -> None:
        """What is planned.

        Args:
          lengths: `[N]` int, tokens of each text, at most the capacity.
          batch_size: B, rows of a batch.
          capacity: T, at most 65536.
          max_segments: S, most texts in a row; None takes as many as the fullest has.

        Raises:
          ValueError: if there is no text, one is empty or longer than a row, or a limit
            is out of range.
        """
        batches.check_lengths("plan.Packed", lengths, [capacity])
        _check_size("plan.Packed", batch_size)
        self._lengths, self.capacity = lengths, capacity
        self.batch_size = batch_size
        # Slots are texts by descending length; equal lengths are exchangeable.
        slots = packing.place(
            -np.sort(-lengths), capacity=capacity, max_segments=max_segments
        )
        self._slots = slots
        self.max_segments = max_segments or int(slots.place.max()) + 1
        self._by_row = np.lexsort((slots.place, slots.row))
        self._starts = np.searchsorted(
            slots.row[self._by_row], np.arange(slots.num_rows + 1)
        )
        # One entry is an epoch's N numbers; the stream crosses epochs in order.
        self._epoch = functools.lru_cache(maxsize=4)(self._drawn)

    @property
    def num_rows(self) -> int:
        """Rows of an epoch."""
        return self._slots.num_rows

    def steps(self, epochs: float) -> int:
        """Steps in which every text is seen so many times."""
        return math.ceil(epochs * self.num_rows / self.batch_size)

    def layout(self, step: int, seed: int) -> Layout:
        """The batch of a step, from 0."""
        parts = []
        for number in range(self.batch_size):
            epoch, at = divmod(step * self.batch_size + number, self.num_rows)
            text_of_slot, order = self._epoch(seed, epoch)
            row = order[at]
            slots = self._by_row[self._starts[row] : self._starts[row + 1]]
            parts.append((np.full(len(slots), number), slots, text_of_slot[slots]))
        row, slots, text = map(np.concatenate, zip(*parts, strict=True))
        return Layout(
            row,
            self._slots.offset[slots],
            self._slots.place[slots],
            text,
            self.capacity,
        )

    def _drawn(self, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The text of each slot, and the order of the rows."""
        drawn = batches.permutation(len(self._lengths), seed, epoch)
        text_of_slot = drawn[np.argsort(-self._lengths[drawn], kind="stable")]
        draws = np.random.Generator(np.random.Philox(key=[seed, _ROWS + epoch]))
        return text_of_slot, draws.permutation(self.num_rows)


Plan = Ladder | Packed


def _check_size(caller: str, batch_size: int) -> None:
    _packing_checks.limits(caller, batch_size=batch_size)
