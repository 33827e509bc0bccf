# SPDX-License-Identifier: Apache-2.0
"""Which texts make the batch of a step: a function of (lengths, seed, step) alone.

Texts are drawn from an endless stream of epochs, each a permutation of all of them. No
text is read for a plan, so that every host can afford the plan of the global batch and
read its own rows only; training resumes anywhere and on any number of processes.
N texts, B rows of a batch, T tokens of a row, S places for texts in a row.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from fulcra_jax import _check
from fulcra_jax.data import packing

WINDOW = 16
"""Batches of a ladder that are sorted by length together."""
_KEPT = 4
"""Epochs and windows whose order is kept; steps that overlap ask for two."""

# A generator of its own for each epoch, window and step: Philox counts up by draw, so
# their keys must not meet. Second words below these are the windows'.
_EPOCHS, DROPS, _ROW_ORDERS = 2**32, 2**33, 2**34


class Layout(NamedTuple):
    """Where the texts of a batch stand."""

    texts: np.ndarray
    """`[B, S]` int64: which text; behind a row's last one, -1. They stand one behind
    the other from column 0."""
    length: int
    """T."""


class Plan(Protocol):
    """What a feed asks of a plan."""

    batch_size: int
    packed: bool

    def layout(self, step: int) -> Layout:
        """The global batch of a step, counted from 0."""
        ...

    def steps(self, epochs: float) -> int:
        """Steps that show every text `epochs` times, rounded up."""
        ...


@dataclasses.dataclass(frozen=True)
class Ladder:
    """A text a row; texts of similar length together, padded to a rung of lengths."""

    batch_size: int
    """B."""
    rungs: tuple[int, ...]
    """Ascending lengths that batches are padded to; the last one holds every text."""

    def __post_init__(self) -> None:
        _check.whole("plan.Ladder", "batch_size", self.batch_size)
        rungs = list(self.rungs)
        for rung in rungs:
            _check.whole("plan.Ladder", "a rung", rung)
        if not rungs or rungs != sorted(set(rungs)):
            raise ValueError(
                f"plan.Ladder: rungs is {self.rungs}; it should be ascending positive "
                "lengths."
            )

    def over(self, lengths: np.ndarray, seed: int) -> "LadderPlan":
        """The plan for texts of these lengths."""
        return LadderPlan(self, lengths, seed)


@dataclasses.dataclass(frozen=True)
class Packed:
    """Several texts a row, as many as fit."""

    batch_size: int
    """B, rows of a batch."""
    capacity: int
    """T, tokens of a row, at most 65536."""
    max_segments: int | None = None
    """Most texts in a row; None for as many as fit."""

    def __post_init__(self) -> None:
        _check.whole("plan.Packed", "batch_size", self.batch_size)
        _check.whole("plan.Packed", "capacity", self.capacity, 1, 65536)
        if self.max_segments is not None:
            _check.whole("plan.Packed", "max_segments", self.max_segments)

    def over(self, lengths: np.ndarray, seed: int) -> "PackedPlan":
        """The plan for texts of these lengths."""
        return PackedPlan(self, lengths, seed)


class LadderPlan:
    """Windows of the stream of epochs, sorted by length and cut into batches.

    >>> plan = Ladder(batch_size=2, rungs=(4, 8)).over(np.array([3, 8, 2, 7]), seed=0)
    >>> plan.steps(epochs=1.5)
    3
    >>> layout = plan.layout(0)
    >>> layout.texts.shape, layout.length in (4, 8)
    ((2, 1), True)
    """

    packed = False

    def __init__(self, settings: Ladder, lengths: np.ndarray, seed: int) -> None:
        """Args: settings: of the batches; lengths: `[N]` int, tokens of each text.

        Raises:
          ValueError: if there is no text, one is longer than the last rung, or the seed
            is out of range.
        """
        self.batch_size = settings.batch_size
        self._rungs = np.array(settings.rungs)
        self._lengths = _checked("plan.LadderPlan", lengths)
        if self._lengths.max() > self._rungs[-1]:
            raise ValueError(
                f"plan.LadderPlan: a text has {self._lengths.max()} tokens, but the "
                f"ladder ends at {self._rungs[-1]}."
            )
        self._seed = _check.whole("plan.LadderPlan", "seed", seed, 0, 2**63 - 1)
        self._epoch = functools.lru_cache(_KEPT)(
            functools.partial(_permutation, len(lengths), self._seed)
        )
        self._window = functools.lru_cache(_KEPT)(self._sorted_window)

    def layout(self, step: int) -> Layout:
        """The global batch of a step, counted from 0."""
        window, place = divmod(_check.whole("plan.layout", "step", step, 0), WINDOW)
        by_length, order = self._window(window)
        start = int(order[place]) * self.batch_size
        texts = by_length[start : start + self.batch_size]
        rung = np.searchsorted(self._rungs, self._lengths[texts].max())
        return Layout(texts[:, None], int(self._rungs[rung]))

    def steps(self, epochs: float) -> int:
        """Steps that show every text `epochs` times, rounded up."""
        return math.ceil(epochs * len(self._lengths) / self.batch_size)

    def _sorted_window(self, window: int) -> tuple[np.ndarray, np.ndarray]:
        count = WINDOW * self.batch_size
        stream = _stretch(self._epoch, len(self._lengths), window * count, count)
        # Equal lengths keep the order of the stream, which is random.
        by_length = stream[np.argsort(self._lengths[stream], kind="stable")]
        return by_length, _generator(self._seed, window).permutation(WINDOW)


class PackedPlan:
    """Every epoch packs all texts, by best fit with the longest first.

    How many rows that takes, and which lengths share one, depends on the lengths alone
    and is found once; an epoch draws which of the texts of equal length stands where,
    and the order of the rows. A batch is the next B rows of the stream of epochs.

    >>> plan = Packed(batch_size=1, capacity=8).over(np.array([3, 6, 2, 5]), seed=0)
    >>> plan.steps(epochs=2)
    4
    >>> sorted(plan.layout(step).texts[0].tolist() for step in (0, 1))
    [[1, 2], [3, 0]]
    """

    packed = True

    def __init__(self, settings: Packed, lengths: np.ndarray, seed: int) -> None:
        """Args: settings: of the batches; lengths: `[N]` int, tokens of each text.

        Raises:
          ValueError: if there is no text, one is empty or longer than a row, or the
            seed is out of range.
        """
        self.batch_size = settings.batch_size
        self.capacity = settings.capacity
        self._lengths = _checked("plan.PackedPlan", lengths)
        self._seed = _check.whole("plan.PackedPlan", "seed", seed, 0, 2**63 - 1)
        sizes = -np.sort(-self._lengths)
        places = packing.place(
            sizes, capacity=self.capacity, max_segments=settings.max_segments
        )
        most = int(places.place.max()) + 1
        shape = (places.num_rows, settings.max_segments or most)
        # The k-th longest text of an epoch stands where slot k is.
        self._slot = np.full(shape, -1, np.int64)
        self._slot[places.row, places.place] = np.arange(len(sizes))
        self._by_length = functools.lru_cache(_KEPT)(self._longest_first)
        self._row_order = functools.lru_cache(_KEPT)(self._shuffled_rows)

    @property
    def num_rows(self) -> int:
        """Rows of an epoch."""
        return len(self._slot)

    def layout(self, step: int) -> Layout:
        """The global batch of a step, counted from 0."""
        step = _check.whole("plan.layout", "step", step, 0)
        first = step * self.batch_size
        rows = _stretch(self._row_order, self.num_rows, first, self.batch_size)
        slot = self._slot[rows]
        epochs = (first + np.arange(self.batch_size)) // self.num_rows
        texts = np.full(slot.shape, -1, np.int64)
        for epoch in np.unique(epochs):
            here = (slot >= 0) & (epochs == epoch)[:, None]
            texts[here] = self._by_length(int(epoch))[slot[here]]
        return Layout(texts, self.capacity)

    def steps(self, epochs: float) -> int:
        """Steps that show every text `epochs` times, rounded up."""
        return math.ceil(epochs * self.num_rows / self.batch_size)

    def _longest_first(self, epoch: int) -> np.ndarray:
        order = _permutation(len(self._lengths), self._seed, epoch)
        return order[np.argsort(-self._lengths[order], kind="stable")]

    def _shuffled_rows(self, epoch: int) -> np.ndarray:
        draws = _generator(self._seed, _ROW_ORDERS + epoch)
        return draws.permutation(self.num_rows)


Settings = Ladder | Packed


def _checked(caller: str, lengths: np.ndarray) -> np.ndarray:
    _check.shapes(caller, lengths=(lengths, "N"))
    if not len(lengths):
        raise ValueError(f"{caller}: there is no text to train on.")
    _check.integers(caller, "lengths", lengths, least=1)
    return np.asarray(lengths, np.int64)


def _generator(seed: int, second: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, second]))


def _permutation(N: int, seed: int, epoch: int) -> np.ndarray:
    return _generator(seed, _EPOCHS + epoch).permutation(N)


def _stretch(
    epoch_of: Callable[[int], np.ndarray], N: int, first: int, count: int
) -> np.ndarray:
    """Entries [first, first + count) of the endless stream of epochs, N each."""
    epochs = range(first // N, (first + count - 1) // N + 1)
    return np.concatenate(
        [
            epoch_of(epoch)[max(first - epoch * N, 0) : first + count - epoch * N]
            for epoch in epochs
        ]
    )
