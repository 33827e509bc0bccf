# SPDX-License-Identifier: Apache-2.0
"""What `packing` can pack: limits, and texts of integers. T is the capacity."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fulcra_jax import _check

STREAM = "packing.packed_batches"
_INT32 = np.iinfo(np.int32)
_RANGES = {"capacity": (1, 65536), "pad_id": (int(_INT32.min), int(_INT32.max))}


def limits(caller: str, **numbers: Any) -> list[int]:
    """The limits as int, each in its range."""
    return [
        _check.whole(caller, name, number, *_RANGES.get(name, (1, None)))
        for name, number in numbers.items()
    ]


def types_of(
    ids: Sequence[np.ndarray], types: Iterable[np.ndarray] | None
) -> list[np.ndarray]:
    if types is None:
        return [np.zeros(len(text), np.int32) for text in ids]
    found = [array_of("packing.pack", "types", *kinds) for kinds in enumerate(types)]
    if len(found) != len(ids):
        raise ValueError(
            f"packing.pack: there are {len(ids)} texts and types of {len(found)}; "
            "there should be as many."
        )
    for number, (text, kinds) in enumerate(zip(ids, found, strict=True)):
        if len(text) != len(kinds):
            raise ValueError(
                f"packing.pack: text {number} has {len(text)} ids and {len(kinds)} "
                "types; there should be as many."
            )
    return found


def array_of(caller: str, name: str, number: int, text: Any) -> np.ndarray:
    """Ids or types of a text; their values are not looked at."""
    try:
        array = np.asarray(text)
    except ValueError:  # Lists of unequal length.
        found = f"a nested {type(text).__name__}"
    else:
        if array.ndim == 1 and (array.dtype.kind in "iu" or not len(array)):
            return array
        found = f"{array.dtype} of shape {array.shape}"
        if not array.ndim:
            found = f"a {type(text).__name__}"
    raise ValueError(
        f"{caller}: the {name} of text {number} are {found}; they should be integers "
        "of shape [length]."
    )


def check_values(
    caller: str, name: str, numbers: Sequence[int], texts: Sequence[np.ndarray]
) -> None:
    """Many texts at once: a look at each would take longer than packing them."""
    for start in range(0, len(texts), 1024):
        some = texts[start : start + 1024]
        together = np.concatenate(some)
        if together.min() >= _INT32.min and together.max() <= _INT32.max:
            continue
        for number, text in zip(numbers[start:], some, strict=False):
            outside = (text < _INT32.min) | (text > _INT32.max)
            if outside.any():
                raise ValueError(
                    f"{caller}: the {name} of text {number} hold {text[outside][0]}; "
                    f"they should be in [{_INT32.min}, {_INT32.max}]."
                )


def check_text(number: int, length: int, types: int, capacity: int) -> None:
    """Of a stream, before it is held: its number there is the one to report."""
    if not 1 <= length <= capacity:
        raise ValueError(_bad_length(STREAM, number, length, capacity))
    if types != length:
        raise ValueError(
            f"{STREAM}: text {number} has {length} ids and {types} types; there "
            "should be as many."
        )


def check_sizes(caller: str, sizes: np.ndarray, capacity: int) -> None:
    _check.shapes(caller, lengths=(sizes, "N"))
    if len(sizes) and sizes.dtype.kind not in "iu":
        raise ValueError(f"{caller}: lengths are {sizes.dtype}; expected integers.")
    outside = np.flatnonzero((sizes < 1) | (sizes > capacity))
    if len(outside):
        first = int(outside[0])
        raise ValueError(_bad_length(caller, first, int(sizes[first]), capacity))


def _bad_length(caller: str, number: int, length: int, capacity: int) -> str:
    return (
        f"{caller}: text {number} has {length} tokens; a row holds 1 to {capacity}. "
        "Cut texts before they are packed."
    )
