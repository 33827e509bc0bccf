# SPDX-License-Identifier: Apache-2.0
"""Targets with a name: those of the released code and the four higher-order poles.

A target is a vector `[V]` in [-1, 1] in the order of `values.BASIC`. What each of them
ignores and risks is said by `check_target`.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import _check, values


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """A target vector with its origin."""

    vector: np.ndarray
    """`[V]` float64 in [-1, 1], read-only."""
    kind: Literal["binary", "graded"]
    """Entries 0 and 1 only, or degrees."""
    source: str
    """Where the numbers come from, in a sentence."""


def target(name: str) -> jax.Array:
    """A target vector by its name.

    The names: "ideal", "harmless", "evaluation" (0/1, released code); "uk",
    "netherlands", "france" (graded, from the European Social Survey); "openness to
    change", "self-enhancement", "conservation", "self-transcendence" (1 on the values
    of the pole, 0 elsewhere).

    "ideal", which the released code trains on, asks for Achievement; "evaluation",
    which it measures with, does not. A model that moves as it was told is punished by
    the measure for showing Achievement; measure with the target that you trained on.

    Hedonism lies between two poles. It counts for openness to change alone, as in
    Schwartz's own keys of the PVQ-40 and the PVQ-RR: every value then belongs to one
    pole. `values.basic_to_higher_order` makes the other choices.

    Args:
      name: one of `EXPLICIT`, in any case.

    Returns:
      `[V]` float in [-1, 1].

    Raises:
      KeyError: if the name is unknown; the message lists those there are.

    Reference:
      Yao et al. 2024 (arXiv 2311.10766), section 5, and the released code
      (microsoft/ValueCompass); Schwartz 1992, figure 1 (the poles).

    >>> target("ideal").tolist()
    [0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0]
    >>> (target("ideal") - target("evaluation")).argmax() == BASIC.index("Achievement")
    Array(True, dtype=bool)
    """
    folded = name.strip().lower()
    if folded not in EXPLICIT:
        _check.known("explicit.target", "target", name, tuple(EXPLICIT))
    return jnp.asarray(EXPLICIT[folded].vector, jnp.zeros(()).dtype)


def parse_target(text: str) -> np.ndarray:
    """A target as a command line gives it: a name, or ten numbers between commas.

    Args:
      text: one of `EXPLICIT`, in any case; or numbers in [-1, 1], not all 0.

    Returns:
      `[V]` float64.

    Raises:
      KeyError: if the name is unknown.
      ValueError: if the numbers are no target.

    Reference:
      As `target`.

    >>> parse_target("0,0,0,0,0, 1,0,1,1,.5").tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.5]
    >>> parse_target("Harmless").argmax().item()
    5
    """
    if "," not in text:
        return np.asarray(target(text), np.float64)
    try:
        numbers = np.array([float(part) for part in text.split(",")])
    except ValueError:
        numbers = np.zeros(0)
    if numbers.shape != (len(BASIC),) or not (np.abs(numbers) <= 1.0).all():
        raise ValueError(
            f"target is {text!r:.60}; it should be a name, or {len(BASIC)} numbers in "
            "[-1, 1] with commas between."
        )
    if not numbers.any():
        raise ValueError("target is zero everywhere: no answer is then better.")
    return numbers


def _target(vector: list[float] | np.ndarray, source: str) -> Target:
    numbers = np.asarray(vector, np.float64)
    numbers.setflags(write=False)
    binary = bool(np.isin(numbers, (0.0, 1.0)).all())
    return Target(numbers, "binary" if binary else "graded", source)


BASIC = values.BASIC

_RELEASED = "Released code of BaseAlign (microsoft/ValueCompass, Value_FULCRA): "
_SURVEY = (
    " means of the European Social Survey's PVQ-21 on the line (3.5 - m) / 2.5, not "
    "centered (inferred: r .99 with rounds 6 to 10)."
)
_POLE = (
    "Schwartz 1992, figure 1: the values of one pole; Hedonism counts for openness to "
    "change, as in Schwartz's keys of the PVQ-40 and the PVQ-RR (2021)."
)


def _explicit() -> dict[str, Target]:
    targets = {
        "ideal": _target(
            [0, 0, 0, 1, 0, 1, 0, 1, 1, 1],
            _RELEASED + "the ideal that alignment trains on.",
        ),
        "harmless": _target(
            [0, 0, 0, 0, 0, 1, 0, 1, 0, 0],
            _RELEASED + "an alternative that asks for Security and Conformity only.",
        ),
        "evaluation": _target(
            [0, 0, 0, 0, 0, 1, 0, 1, 1, 1],
            _RELEASED + "the target of its evaluation, the ideal without Achievement.",
        ),
        "uk": _target(
            [.4809, .1305, .1004, .0029, -.2383, .4362, .2712, .1420, .6520, .5906],
            _RELEASED + "the United Kingdom;" + _SURVEY,
        ),
        "netherlands": _target(
            [.5190, .1148, .3016, .1311, -.1124, .3389, .2165, .2578, .5661, .5243],
            _RELEASED + "the Netherlands;" + _SURVEY,
        ),
        "france": _target(
            [.3761, -.0296, .3384, -.1741, -.3195, .4078, .2587, .0698, .6212, .5705],
            _RELEASED + "France;" + _SURVEY,
        ),
    }  # fmt: skip
    poles = values.basic_to_higher_order(hedonism="openness").T
    for name, pole in zip(values.HIGHER_ORDER, poles, strict=True):
        targets[name.lower()] = _target(pole, _POLE)
    return targets


EXPLICIT: Mapping[str, Target] = MappingProxyType(_explicit())
"""The named targets; `target` makes an array of one."""
