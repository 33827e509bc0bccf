# SPDX-License-Identifier: Apache-2.0
"""Shape checks that run while tracing and cost nothing when compiled."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.core import Tracer


def shapes(caller: str, /, **arrays: tuple[Any, str]) -> dict[str, int]:
    """Binds axis letters to sizes and raises if two arrays disagree.

    Args:
      caller: the public name to blame, for example `"prediction.confusion"`.
      **arrays: name=(array, axes). `axes` is a space-separated list of letters; a
        leading `...` stands for any number of batch axes, and a number for that size.
        An array that is None is skipped.

    Returns:
      The size of each axis letter.

    Raises:
      ValueError: if an array has the wrong rank or two arrays disagree on a letter.
    """
    size: dict[str, int] = {}
    owner: dict[str, str] = {}
    for name, (array, axes) in arrays.items():
        if array is None:
            continue
        if not hasattr(array, "shape"):
            want = ", ".join(axes.split())
            raise ValueError(
                f"{caller}: {name} is a {type(array).__name__}; expected an array "
                f"[{want}]; jax.numpy.asarray makes one."
            )
        letters = axes.split()
        batched = letters[:1] == ["..."]
        letters = letters[1:] if batched else letters
        shape = tuple(array.shape)
        batch = len(shape) - len(letters)
        if batch < 0 or (batch > 0 and not batched):
            want = ", ".join(axes.split())
            raise ValueError(f"{caller}: {name} has shape {shape}; expected [{want}].")
        for letter, n in zip(letters, shape[batch:], strict=True):
            if letter.isdigit():
                if n != int(letter):
                    want = ", ".join(axes.split())
                    raise ValueError(
                        f"{caller}: {name} has shape {shape}; expected [{want}]."
                    )
                continue
            if size.setdefault(letter, n) != n:
                raise ValueError(
                    f"{caller}: {name} has shape {shape}, so {letter}={n}, but "
                    f"{owner[letter]} has {letter}={size[letter]}."
                )
            owner.setdefault(letter, name)
    return size


def ids(
    caller: str, name: str, x: Any, size: int, where: Any = None, *, least: int = 0
) -> None:
    """Raises if an id that counts is outside `[least, size)`.

    While tracing nothing can be read and nothing is raised: such an id is then missing,
    as the docstrings say. Labels -1/0/+1 in the place of ids would lose every -1.
    """
    if isinstance(x, Tracer) or isinstance(where, Tracer):
        return
    outside = (np.asarray(x) < least) | (np.asarray(x) >= size)
    if where is not None:
        outside &= np.asarray(where, bool)
    if outside.any():
        raise ValueError(
            f"{caller}: {name} holds {np.asarray(x)[outside][0]}, outside "
            f"[{least}, {size}); labels -1/0/+1 go through ratings_of_labels first, "
            "missing entries through where."
        )


def inside(caller: str, name: str, x: Any, size: int) -> None:
    """Raises if a row number is outside a table of that size, where it can be seen.

    It cannot while tracing, nor in an array that is spread over several processes.
    """
    if not _seen(x):
        return
    outside = (np.asarray(x) < 0) | (np.asarray(x) >= size)
    if outside.any():
        raise ValueError(
            f"{caller}: {name} holds {np.asarray(x)[outside][0]}; it should be in "
            f"[0, {size})."
        )


def _seen(x: Any) -> bool:
    """Whether the numbers of an array can be read: not while tracing."""
    return not isinstance(x, Tracer) and getattr(x, "is_fully_addressable", True)


def integers(caller: str, name: str, x: Any, *, least: int = -(2**31)) -> None:
    """Raises if an array does not hold integers in `[least, 2^31)`."""
    if x is None:
        return
    if _dtype(caller, name, x).kind not in "iu":
        raise ValueError(f"{caller}: {name} is {x.dtype}; it should be integers.")
    if x.dtype.itemsize < 4 or not x.size or not _seen(x):
        return
    numbers = np.asarray(x)
    low, high = int(numbers.min()), int(numbers.max())
    if low < least or high >= 2**31:
        worst = low if low < least else high
        raise ValueError(
            f"{caller}: {name} holds {worst}; it should be in [{least}, 2^31)."
        )


def _dtype(caller: str, name: str, x: Any) -> np.dtype:
    """The dtype as numpy's; raises for an array of torch, whose dtypes are its own."""
    try:
        return np.dtype(x.dtype)
    except TypeError as error:
        kind = f"{type(x).__module__}.{type(x).__qualname__} of {x.dtype}"
        raise ValueError(
            f"{caller}: {name} is a {kind}; it should be an array of numpy or jax, as "
            "numpy.asarray makes one."
        ) from error


def segments(caller: str, x: Any) -> None:
    """Raises if segment ids are no integers, or among the two that attention keeps."""
    integers(caller, "segment_ids", x, least=2 - 2**31)


def runs(caller: str, segment_ids: Any, mask: Any) -> None:
    """Raises if the tokens of a segment are seen to stand in two places of a row."""
    if segment_ids is None or not _seen(segment_ids) or not _seen(mask):
        return
    rows = zip(np.asarray(segment_ids), np.asarray(mask, bool), strict=True)
    for row, (own, counts) in enumerate(rows):
        run = np.cumsum(np.append(False, own[1:] != own[:-1]))
        first = np.unique(run[counts], return_index=True)[1]
        numbers, times = np.unique(own[counts][first], return_counts=True)
        if (times > 1).any():
            raise ValueError(
                f"{caller}: segment_ids has {numbers[times > 1][0]} in several places "
                f"of row {row}; the tokens of a text should be one contiguous run."
            )


def flags(caller: str, name: str, x: Any) -> None:
    """Raises if an array is neither bool nor, where it can be seen, 0 or 1."""
    kind = _dtype(caller, name, x).kind
    # bfloat16 is of kind V; what has no numbers has no flags.
    if kind not in "biufV":
        raise ValueError(
            f"{caller}: {name} is {x.dtype}; it should be bool, or 0 or 1."
        )
    if kind == "b" or not _seen(x):
        return
    numbers = np.asarray(x, np.float64)
    bad = (numbers != 0.0) & (numbers != 1.0)
    if bad.any():
        raise ValueError(
            f"{caller}: {name} holds {numbers[bad][0]:g}; it should be bool, or 1 for "
            "what counts and 0 for padding."
        )


def texts(caller: str, segment_ids: Any, mask: Any, num_segments: int) -> None:
    """Raises if a token is seen to be in no text of 1 to `num_segments`."""
    if not _seen(segment_ids) or not _seen(mask):
        return
    own = np.asarray(segment_ids)
    outside = ((own < 1) | (own > num_segments)) & np.asarray(mask, bool)
    if outside.any():
        raise ValueError(
            f"{caller}: segment_ids holds {own[outside][0]} at a token; with "
            f"num_segments {num_segments} it should be in [1, {num_segments}]."
        )


def whole(
    caller: str, name: str, number: Any, least: int = 1, most: int | None = None
) -> int:
    """The number as int; raises if it is no integer in `[least, most]`."""
    good = isinstance(number, int | np.integer) and not isinstance(number, bool)
    if not good or number < least or (most is not None and number > most):
        wanted = f"of at least {least}" if most is None else f"in [{least}, {most}]"
        plain = isinstance(number, int | float | np.number)
        shown = str(number) if plain else " ".join(repr(number).split())
        raise ValueError(
            f"{caller}: {name} is {shown:.60}; it should be an integer {wanted}."
        )
    return int(number)


def known(caller: str, what: str, name: str, names: Mapping[str, Any] | tuple) -> None:
    """Raises KeyError listing the known names if `name` is not one of them."""
    if name not in names:
        listed = ", ".join(map(str, names))
        raise KeyError(f"{caller}: {what} {name!r} is unknown; known are: {listed}.")
