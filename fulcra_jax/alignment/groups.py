# SPDX-License-Identifier: Apache-2.0
"""Answers that belong to one prompt.

Axes: N answers as they stand in a file, P prompts, G answers to one prompt.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class AnswerGroups(NamedTuple):
    """Which answers belong to which prompt."""

    prompts: list[str]
    """P different prompts, in the order in which they first stand there."""
    places: np.ndarray
    """`[P, G]` int32 place of the answer among the N; 0 where there is none."""
    where: np.ndarray
    """`[P, G]` bool: there is an answer. G is that of the prompt with most."""

    def spread(self, x: np.ndarray) -> np.ndarray:
        """`[N]` numbers, N >= 1, as `[P, G]`; NaN where there is no answer."""
        return np.where(self.where, np.asarray(x)[self.places], np.nan)


def group_by_prompt(prompts: Sequence[str]) -> AnswerGroups:
    """Finds the answers to the same prompt; the texts must be equal, letter for letter.

    Args:
      prompts: N texts, the prompt of every answer.

    Returns:
      `AnswerGroups`; the answers to a prompt keep their order.

    Raises:
      ValueError: if `prompts` is one text instead of many.

    >>> groups = group_by_prompt(["a", "b", "a"])
    >>> groups.prompts, groups.places.tolist(), groups.where.tolist()
    (['a', 'b'], [[0, 2], [1, 0]], [[True, True], [True, False]])
    """
    if isinstance(prompts, str):
        raise ValueError(
            "groups.group_by_prompt: prompts is one text; expected a list of texts."
        )
    found: dict[str, list[int]] = {}
    for place, prompt in enumerate(prompts):
        found.setdefault(prompt, []).append(place)
    most = max(map(len, found.values()), default=0)
    places = np.zeros((len(found), most), np.int32)
    where = np.zeros((len(found), most), bool)
    for row, of_prompt in enumerate(found.values()):
        places[row, : len(of_prompt)] = of_prompt
        where[row, : len(of_prompt)] = True
    return AnswerGroups(list(found), places, where)
