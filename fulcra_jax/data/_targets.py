# SPDX-License-Identifier: Apache-2.0
"""What a text is trained towards, as arrays by the name that a batch gives them.

labels `[N, 10]` always; items `[N, 54]` and teacher `[N, 10]` where a training asks for
them. Each comes with an array that says which of its cells count.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

WHERE = {"labels": "where", "items": "items_where", "teacher": "teacher_where"}
"""The array of cells that count, of every target."""
NAMES = tuple(name for pair in WHERE.items() for name in pair)

Targets = dict[str, np.ndarray]
"""float32 in [-1, 1] and, under the names that `WHERE` gives, bool."""


def check(caller: str, found: Mapping[str, Any]) -> None:
    """Raises ValueError if there are targets without the cells that count, or cells
    without targets."""
    for name, where in WHERE.items():
        if (name in found) != (where in found):
            here, lacks = (name, where) if name in found else (where, name)
            raise ValueError(f"{caller}: there is {here} but no {lacks}; give both.")


def kind(name: str) -> type[np.generic]:
    """The dtype of an array of this name."""
    return np.bool_ if name in WHERE.values() else np.float32


def counted(targets: Targets) -> np.ndarray:
    """`[N]` bool: whether a text has any cell that counts."""
    cells = [targets[where] for where in WHERE.values() if where in targets]
    return np.asarray(np.concatenate(cells, axis=1).any(axis=1))


def chosen(targets: Targets, texts: np.ndarray, here: np.ndarray) -> Targets:
    """The targets of some texts.

    Args:
      targets: of N texts, `[N, K]` each.
      texts: `[...]` int in [-N, N).
      here: `[...]` bool: False for a place without a text.

    Returns:
      `[..., K]`, float32 and bool; 0 and False where there is no text.
    """
    found = {
        name: array[texts].astype(kind(name), copy=False)
        for name, array in targets.items()
    }
    return {
        name: np.where(here[..., None], array, array.dtype.type(0))
        for name, array in found.items()
    }
