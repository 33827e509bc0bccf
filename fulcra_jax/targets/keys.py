# SPDX-License-Identifier: Apache-2.0
"""Which item of the Portrait Values Questionnaires asks for which value.

The items are Schwartz's and not reproduced here.
"""

import dataclasses

import numpy as np

from fulcra_jax import values

LOW, HIGH = 1, 6
"""The ends of the answer scale of all three questionnaires."""


@dataclasses.dataclass(frozen=True)
class Questionnaire:
    """Which items, counted from 1, ask for which value."""

    num_items: int
    key: dict[str, tuple[int, ...]]
    """Value -> its items."""
    most_like: int
    """The answer that means "very much like me" in the published form."""
    source: str

    def table(self) -> np.ndarray:
        """`[I, V]` int8: 1 where the item counts for the value, in the key's order."""
        table = np.zeros((self.num_items, len(self.key)), np.int8)
        for column, items in enumerate(self.key.values()):
            table[np.array(items) - 1, column] = 1
        return table


PVQ21 = Questionnaire(
    21,
    dict(
        zip(
            values.BASIC,
            (
                (1, 11), (6, 15), (10, 21), (4, 13), (2, 17),
                (5, 14), (9, 20), (7, 16), (12, 18), (3, 8, 19),
            ),
            strict=True,
        )
    ),
    1,
    "Schwartz 2003, the human values scale of the European Social Survey.",
)  # fmt: skip
"""The human values scale of the European Social Survey; 1 = very much like me."""

PVQ40 = Questionnaire(
    40,
    dict(
        zip(
            values.BASIC,
            (
                (1, 11, 22, 34), (6, 15, 30), (10, 26, 37), (4, 13, 24, 32),
                (2, 17, 39), (5, 14, 21, 31, 35), (9, 20, 25, 38), (7, 16, 28, 36),
                (12, 18, 27, 33), (3, 8, 19, 23, 29, 40),
            ),
            strict=True,
        )
    ),
    6,
    "Schwartz et al. 2001; key: Schwartz, scoring instructions of June 2021.",
)  # fmt: skip
"""1 = not like me at all .. 6 = very much like me."""

PVQ_RR_REFINED = Questionnaire(
    57,
    dict(
        zip(
            values.REFINED,
            (
                (1, 23, 39), (16, 30, 56), (10, 28, 43), (3, 36, 46), (17, 32, 48),
                (6, 29, 41), (12, 20, 44), (9, 24, 49), (13, 26, 53), (2, 35, 50),
                (18, 33, 40), (15, 31, 42), (4, 22, 51), (7, 38, 54), (19, 27, 55),
                (11, 25, 47), (5, 37, 52), (8, 21, 45), (14, 34, 57),
            ),
            strict=True,
        )
    ),
    6,
    "Schwartz et al. 2012; key: Schwartz, scoring instructions of June 2021.",
)  # fmt: skip
"""Nineteen values of three items, in the order of `values.REFINED`."""


def _ten_of_nineteen() -> dict[str, tuple[int, ...]]:
    """The ten-value key: Humility to Tradition, Face to none, the rest by name."""
    belongs = values.refined_to_basic(humility="tradition", face="none")
    parts = list(PVQ_RR_REFINED.key.values())
    return {
        name: tuple(
            sorted(i for r in np.flatnonzero(belongs[:, column]) for i in parts[r])
        )
        for column, name in enumerate(values.BASIC)
    }


PVQ_RR = Questionnaire(57, _ten_of_nineteen(), 6, PVQ_RR_REFINED.source)
"""The ten-value key: Tradition with Humility, Face in none. FULCRA's own map of the
nineteen values puts Humility to Conformity and Face to Power."""
