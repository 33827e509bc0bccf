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
    if isinstance(x, Tracer) or not getattr(x, "is_fully_addressable", True):
        return
    outside = (np.asarray(x) < 0) | (np.asarray(x) >= size)
    if outside.any():
        raise ValueError(
            f"{caller}: {name} holds {np.asarray(x)[outside][0]}; it should be in "
            f"[0, {size})."
        )


def known(caller: str, what: str, name: str, names: Mapping[str, Any] | tuple) -> None:
    """Raises KeyError listing the known names if `name` is not one of them."""
    if name not in names:
        listed = ", ".join(map(str, names))
        raise KeyError(f"{caller}: {what} {name!r} is unknown; known are: {listed}.")
