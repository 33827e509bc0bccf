# SPDX-License-Identifier: Apache-2.0
"""What a field may be, and the sentence that says so."""

from collections.abc import Mapping
from typing import Any

MOST = 1 << 24
"""The largest size that is believed: beyond every model, far from filling memory."""


def is_int(number: Any, least: int, most: int = MOST) -> bool:
    """Whether it is a whole number in [least, most]; True and False are none."""
    whole = isinstance(number, int) and not isinstance(number, bool)
    return whole and least <= number <= most


def cut(item: Any) -> str:
    """Its repr, short enough for a message.

    >>> cut("a" * 500).endswith("a...")
    True
    """
    text = repr(item)
    return text if len(text) <= 100 else f"{text[:100]}..."


def is_number(number: Any, above: float) -> bool:
    """Whether it is a finite number above that one; True and False are none."""
    real = isinstance(number, int | float) and not isinstance(number, bool)
    return real and above < number < float("inf")


def is_rate(number: Any) -> bool:
    """Whether it is a number in [0, 1)."""
    return (number == 0 and not isinstance(number, bool)) or (
        is_number(number, 0.0) and number < 1
    )


def need(config: Any, field: str, holds: bool, want: str) -> None:
    """Raises ValueError naming the field, what it is and what it should be."""
    if not holds:
        found = cut(getattr(config, field))
        raise ValueError(
            f"configs.{type(config).__name__}: {field} is {found}; it should be {want}."
        )


def one_of(config: Any, field: str, known: tuple[str, ...]) -> None:
    """Raises ValueError if the field is not one of these names."""
    want = f"one of {', '.join(known)}"
    need(config, field, getattr(config, field) in known, want)


def mapping(caller: str, entries: Any, what: str) -> None:
    """Raises ValueError if what should be a JSON object is something else."""
    if not isinstance(entries, Mapping):
        raise ValueError(f"{caller}: {what} is {cut(entries)}; it should be an object.")


def same_keys(caller: str, entries: Mapping[str, Any], want: set[str]) -> None:
    """Raises ValueError naming the entries that are missing and those unknown."""
    missing = sorted(want - set(entries))
    surplus = [cut(key)[1:-1] for key in sorted(set(entries) - want)[:8]]
    if missing or surplus:
        raise ValueError(
            f"{caller}: entries are missing: {', '.join(missing) or 'none'}; "
            f"unknown: {', '.join(surplus) or 'none'}."
        )
