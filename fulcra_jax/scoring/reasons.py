# SPDX-License-Identifier: Apache-2.0
"""Why a coefficient is undefined, as a code that travels through `jit` and `vmap`."""

import enum


class Reason(enum.IntEnum):
    """Why a coefficient is NaN; `OK` where it is a number."""

    OK = 0
    NO_RATINGS = 1
    ONE_RATER = 2
    NO_PAIRS = 3
    ONE_CATEGORY = 4
    NO_DISAGREEMENT = 5
    TOO_FEW_RATINGS = 6


TEXT: dict[Reason, str] = {
    Reason.OK: "defined",
    Reason.NO_RATINGS: "no rating is present",
    Reason.ONE_RATER: "only one rater has ratings, so nobody to agree with",
    Reason.NO_PAIRS: "no unit has two ratings",
    Reason.ONE_CATEGORY: (
        "only one category occurs, so that agreement cannot be told from habit"
    ),
    Reason.NO_DISAGREEMENT: (
        "the weights count all categories that meet as the same, so that no "
        "disagreement is possible"
    ),
    Reason.TOO_FEW_RATINGS: (
        "the weights of the units add up to one rating or less; they are counts"
    ),
}
"""One clause for every reason."""


def reason_text(code: int) -> str:
    """The sentence that belongs to a reason code.

    Args:
      code: a number, or an array of one number, as in `Agreement.reason`.

    Returns:
      One clause without a full stop.

    Raises:
      ValueError: if the code is none of `Reason`.

    Reference:
      The reference libraries disagree on these cases (an exception, 0, 1 or NaN); here
      they are NaN with one of these reasons.

    >>> reason_text(Reason.NO_PAIRS)
    'no unit has two ratings'
    """
    return TEXT[Reason(int(code))]
