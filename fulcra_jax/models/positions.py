# SPDX-License-Identifier: Apache-2.0
"""Which row of a position table each distance between two tokens reads.

Everything here depends on static sizes alone, so numpy builds it while tracing. A
letter w counts the columns of a window of distances, n the blocks of rows.
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from fulcra_jax import _check


def slot_of_distance(length: int, *, buckets: int, max_distance: int) -> np.ndarray:
    """The slot of every distance: near ones exact, far ones logarithmic.

    With mid = buckets // 2, a distance d within mid keeps its own slot, one beyond it
    falls in ceil(log(|d| / mid) / log((max_distance - 1) / mid) * (mid - 1)) + mid on
    its side. A table of static shape, so numpy builds it while tracing: traced, the
    logarithm is off by one ulp at some distances and the ceiling lands one slot off.

    Args:
      length: number of tokens T.
      buckets: slots per direction; below one, every distance up to `max_distance` has
        its own slot.
      max_distance: distances from this one on share the last slot.

    Returns:
      `[2 T - 1]` int32 for distances -(T - 1) .. T - 1, in `[0, 2 span)`, where span is
      `buckets` or else `max_distance`. Distance 0 is slot span.

    Raises:
      ValueError: if a size is below 1, or the buckets leave no logarithm.

    Reference:
      He et al. 2021 (arXiv 2006.03654), equation 3; the log buckets are those of the
      released v2 code (`make_log_bucket_position`).

    >>> slot_of_distance(4, buckets=4, max_distance=10).tolist()
    [1, 2, 3, 4, 5, 6, 7]
    """
    _check.whole("positions.slot_of_distance", "length", length)
    _check.whole("positions.slot_of_distance", "max_distance", max_distance)
    # Beyond mid, the logarithm is taken to a base that has to be one.
    if buckets == 1 or (buckets > 0 and length - 1 > buckets // 2 == max_distance - 1):
        raise ValueError(
            f"positions.slot_of_distance: buckets is {buckets} and max_distance "
            f"{max_distance}; buckets should be at least 2, and max_distance larger "
            "than half of them and one."
        )
    distance = np.arange(-(length - 1), length)
    span = buckets if buckets > 0 else max_distance
    slot = distance
    if buckets > 0:
        mid = buckets // 2
        far = np.maximum(np.abs(distance), mid).astype(np.float32) / np.float32(mid)
        base = np.log(np.float32((max_distance - 1) / mid))
        bucket = np.ceil(np.log(far) / base * np.float32(mid - 1)) + mid
        slot = np.where(np.abs(distance) <= mid, distance, np.sign(distance) * bucket)
    return np.clip(slot + span, 0, 2 * span - 1).astype(np.int32)


def relative_slots(length: int, *, buckets: int, max_distance: int) -> np.ndarray:
    """The slot of every (query, key) pair: that of the distance query minus key.

    Args:
      length: number of tokens T.
      buckets: as in `slot_of_distance`.
      max_distance: as in `slot_of_distance`.

    Returns:
      `[T, T]` int32. Content-to-position and position-to-content share it.

    Reference:
      He et al. 2021 (arXiv 2006.03654), section 3.1.

    >>> relative_slots(4, buckets=4, max_distance=10)[0].tolist()
    [4, 3, 2, 1]
    """
    slot = slot_of_distance(length, buckets=buckets, max_distance=max_distance)
    position = np.arange(length)
    return slot[position[:, None] - position[None, :] + length - 1]


class Used(NamedTuple):
    """The rows of a position table that a length uses, and who uses them."""

    first: int
    """The first row in use."""
    last: int
    """One past the last."""
    slots: np.ndarray
    """`[2 T - 1]` int32, the row of every distance, counted from `first`."""


@functools.lru_cache(maxsize=64)
def used(length: int, buckets: int, max_distance: int) -> Used:
    """The rows that texts of `length` tokens use, and which of them a distance reads.

    Args:
      length: T.
      buckets: as in `slot_of_distance`.
      max_distance: as in `slot_of_distance`.

    >>> used(3, 256, 512)
    Used(first=254, last=259, slots=array([0, 1, 2, 3, 4], dtype=int32))
    """
    slots = slot_of_distance(length, buckets=buckets, max_distance=max_distance)
    first, last = int(slots.min()), int(slots.max()) + 1
    slots = slots - np.int32(first)
    slots.setflags(write=False)
    return Used(first, last, slots)


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
    """The distances that each block of rows meets, as windows of one run of slots.

    Column w of block n stands for the distance n I + I - 1 - w of row minus column,
    with I rows per block; with `descending` False for the same distance of column minus
    row. Reading row i of a product with that window from column I - 1 - i on lines the
    columns up.

    Attributes:
      length: T.
      block: I.
      slots: `[E]` the slot at every place of the run. Distances that no pair of tokens
        has are read as the nearest one that exists; what is computed there is cut off.
      starts: `[N]` where in the run each block's window of T + I columns begins.
    """

    length: int
    block: int
    slots: np.ndarray
    starts: tuple[int, ...]

    @property
    def width(self) -> int:
        """Columns of a window."""
        return self.length + self.block

    @functools.cached_property
    def straight(self) -> tuple[int, int]:
        """Where in the run the longest stretch of neighbouring slots lies."""
        way = np.sign(self.slots[-1] - self.slots[0]) or 1
        same = np.r_[False, np.diff(self.slots) == way, False]
        edges = np.flatnonzero(np.diff(same.astype(np.int8)))
        if not len(edges):
            return 0, 1
        begins, ends = edges[::2], edges[1::2]
        longest = int(np.argmax(ends - begins))
        return int(begins[longest]), int(ends[longest]) + 1

    def _key(self) -> tuple:
        return self.length, self.block, self.starts, self.slots.tobytes()

    def __hash__(self) -> int:
        return hash(self._key())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Windows) and self._key() == other._key()


def windows(slot_of_distance: np.ndarray, block: int, *, descending: bool) -> Windows:
    """The windows of every block of rows.

    Args:
      slot_of_distance: `[2 T - 1]` int.
      block: rows per block.
      descending: True for rows that are queries (their distance falls along the keys),
        False for rows that are keys.

    Returns:
      The windows.

    >>> windows(np.arange(3), 1, descending=True).slots.tolist()
    [2, 1, 0, 0]
    """
    length = (len(slot_of_distance) + 1) // 2
    count = -(-length // block)
    distance = np.arange(count * block - 1, -length - 1, -1)
    if not descending:
        distance = -distance
    slots = slot_of_distance[np.clip(distance, 1 - length, length - 1) + length - 1]
    starts = tuple((count - 1 - n) * block for n in range(count))
    return Windows(length, block, slots, starts)


def default_block(length: int) -> int:
    """At most 64 rows, spread evenly so that little is padded.

    >>> [default_block(length) for length in (7, 65, 512)]
    [7, 33, 64]
    """
    return -(-length // -(-length // 64))
