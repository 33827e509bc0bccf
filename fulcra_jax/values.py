# SPDX-License-Identifier: Apache-2.0
"""Schwartz's value system as data: 54 items -> 19 refined -> 10 basic -> 4 poles.

Names, orders and maps are those of FULCRA (Yao et al. 2024, arXiv 2311.10766, and its
released code) and of Schwartz et al. 2012. Everything is numpy or plain Python; nothing
starts a JAX backend. The order of `BASIC` is the order of every value vector, label
array and alignment target in this project.
"""

import re
from typing import Literal

import numpy as np

BASIC: tuple[str, ...] = (
    "Self-direction",
    "Stimulation",
    "Hedonism",
    "Achievement",
    "Power",
    "Security",
    "Tradition",
    "Conformity",
    "Benevolence",
    "Universalism",
)
"""The ten basic values, in the order used everywhere."""

ABBREVIATIONS: tuple[str, ...] = (
    "SD", "ST", "HE", "AC", "PO", "SE", "TR", "CO", "BE", "UN",
)  # fmt: skip
"""Two-letter names of `BASIC`, for tables."""

HIGHER_ORDER: tuple[str, ...] = (
    "Openness to change",
    "Self-enhancement",
    "Conservation",
    "Self-transcendence",
)
"""The four poles of the two higher-order dimensions."""

AXES: tuple[tuple[str, str], ...] = (
    ("personal focus", "social focus"),
    ("self-protection", "self-expansion"),
)
"""The two axes that frame the circle in the figure of the paper."""

REFINED: tuple[str, ...] = (
    "Self-direction-thought",
    "Self-direction-action",
    "Stimulation",
    "Hedonism",
    "Achievement",
    "Power-dominance",
    "Power-resources",
    "Face",
    "Security-personal",
    "Security-societal",
    "Tradition",
    "Conformity-rules",
    "Conformity-interpersonal",
    "Humility",
    "Benevolence-dependability",
    "Benevolence-caring",
    "Universalism-concern",
    "Universalism-nature",
    "Universalism-tolerance",
)
"""The nineteen refined values in ring order (Schwartz et al. 2012)."""

ITEMS_BY_REFINED: dict[str, tuple[str, ...]] = {
    "Self-direction-thought": ("be creative", "be curious", "have freedom of thought"),
    "Self-direction-action": (
        "be choosing own goals",
        "be independent",
        "have freedom of action",
        "have privacy",
    ),
    "Stimulation": ("have an exciting life", "have a varied life", "be daring"),
    "Hedonism": ("have pleasure", "enjoying life", "be self-indulgent"),
    "Achievement": (
        "be ambitious",
        "be successful",
        "be capable",
        "be influential",
        "be intellectual",
    ),
    "Power-dominance": ("have authority", "have social power"),
    "Power-resources": ("have wealth",),
    "Face": (
        "have a social recognition",
        "preserving my public image",
        "observing social norms",
    ),
    "Security-personal": (
        "have a sense of belonging",
        "have a good health",
        "have no debts",
        "be neat and tidy",
        "have family security",
    ),
    "Security-societal": ("have a safe country", "have a stable society"),
    "Tradition": ("be respecting traditions", "be holding religious faith"),
    "Conformity-rules": ("be obedient", "be self-disciplined", "moderate"),
    "Conformity-interpersonal": ("be polite", "be honoring parents and elders"),
    "Humility": ("be humble", "accepting my portion in life"),
    "Benevolence-dependability": ("be responsible", "have loyalty towards friends"),
    "Benevolence-caring": (
        "be helpful",
        "be honest",
        "be forgiving",
        "true friendship",
        "mature love",
    ),
    "Universalism-concern": (
        "have equality",
        "social justice",
        "have a world at peace",
    ),
    "Universalism-nature": (
        "be protecting the environment",
        "have harmony with nature",
        "have a world of beauty",
    ),
    "Universalism-tolerance": ("be broadminded",),
}
"""Which items express which refined value (the 19-value map of the released code)."""

ITEMS: tuple[str, ...] = tuple(
    item for refined in REFINED for item in ITEMS_BY_REFINED[refined]
)
"""The 54 items, in ring order of their refined value."""

EXTRA_ITEMS: dict[str, str] = {
    "be respectful": "Conformity",
    "self-respect": "Achievement",
    "have wisdom": "Universalism",
}
"""Item names that count for a basic value but are none of the 54 items."""

ITEM_ALIASES: dict[str, str] = {
    "self-indulgent": "be self-indulgent",
    "have social recognition": "have a social recognition",
    "family security": "have family security",
    "have security": "have family security",
    "have a stable social": "have a stable society",
    "have a world of peace": "have a world at peace",
    "have social justice": "social justice",
    "have world of beauty": "have a world of beauty",
    "protecting the environment": "be protecting the environment",
    "have the wisdom to accept others": "be broadminded",
    "have health": "have a good health",
    "have a healthy life": "have a good health",
    "be moderate": "moderate",
    "be accepting my portion in life": "accepting my portion in life",
}
"""Other spellings seen in the release -> the item they mean."""

VALUE_ALIASES: dict[str, str] = {name.lower(): name for name in BASIC} | {
    abbreviation.lower(): name
    for abbreviation, name in zip(ABBREVIATIONS, BASIC, strict=True)
}
"""Lower-case spellings of the ten values -> their name."""

DEFINITIONS: dict[str, str] = {
    "Self-direction": "independent thought and action: choosing, creating, exploring",
    "Stimulation": "excitement, novelty and challenge in life",
    "Hedonism": "pleasure and sensuous gratification for oneself",
    "Achievement": "personal success shown by competence that others recognise",
    "Power": "status and prestige, control over people and resources",
    "Security": "safety, harmony and stability of society, relationships and self",
    "Tradition": "respect for the customs and ideas of one's culture or religion",
    "Conformity": "restraint of what would upset others or break expectations",
    "Benevolence": "caring for the welfare of the people one is close to",
    "Universalism": "understanding, tolerance and protection of all people and nature",
}
"""One line per basic value: its motivational goal (Schwartz 1992), in our words."""

Humility = Literal["conformity", "tradition"]
Hedonism = Literal["both", "openness", "enhancement"]
Face = Literal["power", "none"]


def _spelling(name: str) -> str:
    return re.sub(r"\s+", " ", name.strip().lower())


def canonical_item(name: str) -> str:
    """The canonical name of an item, whatever its case, blanks or known alias.

    Args:
      name: an item as it stands in a file.

    Returns:
      One of `ITEMS`.

    Raises:
      KeyError: if no item is meant. The names in `EXTRA_ITEMS` count for a basic value
        but are no item, and raise too.

    Reference:
      The item lists of the released code (microsoft/ValueCompass, Value_FULCRA).

    >>> canonical_item("Have  Social Recognition")
    'have a social recognition'
    """
    spelled = _spelling(name)
    spelled = ITEM_ALIASES.get(spelled, spelled)
    if spelled in ITEMS:
        return spelled
    if spelled in EXTRA_ITEMS:
        raise KeyError(
            f"values.canonical_item: {name!r} counts for {EXTRA_ITEMS[spelled]} but is "
            "none of the 54 items; see EXTRA_ITEMS."
        )
    raise KeyError(
        f"values.canonical_item: {name!r} is no item; the 54 names stand in "
        "values.ITEMS."
    )


def canonical_value(name: str, *, humility: Humility = "conformity") -> str:
    """The canonical name of a basic value, whatever its case or abbreviation.

    Args:
      name: a value type as it stands in a file. FULCRA also uses "humility" as an
        eleventh type.
      humility: the basic value that "humility" counts for.

    Returns:
      One of `BASIC`.

    Raises:
      KeyError: if no basic value is meant; the message lists the ten.

    Reference:
      Yao et al. 2024, section 3; `FACTS` of the release: "humility" comes from the item
      "be humble".

    >>> canonical_value("BENEVOLENCE"), canonical_value("humility")
    ('Benevolence', 'Conformity')
    """
    spelled = _spelling(name).replace("self direction", "self-direction")
    if spelled == "humility":
        return _humility_value(humility)
    if spelled not in VALUE_ALIASES:
        raise KeyError(
            f"values.canonical_value: {name!r} is no basic value; known are: "
            f"{', '.join(BASIC)}."
        )
    return VALUE_ALIASES[spelled]


def refined_to_basic(
    *, humility: Humility = "conformity", face: Face = "power"
) -> np.ndarray:
    """The map from nineteen refined to ten basic values.

    Args:
      humility: "conformity" is FULCRA's convention, "tradition" Schwartz's own key.
      face: "power" is FULCRA's convention; "none" leaves Face out, as the ten-value key
        of the PVQ-RR does.

    Returns:
      `[19, 10]` int8 of 0 and 1; every row sums to one, except Face under "none".

    Raises:
      KeyError: if a convention is unknown.

    Reference:
      Schwartz et al. 2012, "Refining the theory of basic individual values", table 1.

    >>> BASIC[refined_to_basic()[REFINED.index("Humility")].argmax()]
    'Conformity'
    """
    table = np.zeros((len(REFINED), len(BASIC)), np.int8)
    for row, refined in enumerate(REFINED):
        if refined == "Humility":
            basic = _humility_value(humility)
        elif refined == "Face":
            if face not in ("power", "none"):
                raise KeyError(
                    f"values.refined_to_basic: face {face!r} is unknown; known are: "
                    "power, none."
                )
            if face == "none":
                continue
            basic = "Power"
        else:
            basic = next(name for name in BASIC if refined.startswith(name))
        table[row, BASIC.index(basic)] = 1
    return table


def item_to_basic(*, humility: Humility = "conformity") -> np.ndarray:
    """The map from the 54 items to ten basic values.

    It is not `ITEM_TO_REFINED @ REFINED_TO_BASIC`: the released ten-value table counts
    "observing social norms" for Security, its nineteen-value table for Face.

    Args:
      humility: where "be humble" and "accepting my portion in life" count.

    Returns:
      `[54, 10]` int8 of 0 and 1; every row sums to one.

    Raises:
      KeyError: if the convention is unknown.

    Reference:
      The item-to-type tables of the released code (microsoft/ValueCompass).

    >>> item_to_basic().sum(0).tolist()
    [7, 3, 3, 5, 5, 8, 2, 7, 7, 7]
    """
    table = ITEM_TO_REFINED @ refined_to_basic(humility=humility)
    table[ITEMS.index("observing social norms")] = 0
    table[ITEMS.index("observing social norms"), BASIC.index("Security")] = 1
    return table


def basic_to_higher_order(*, hedonism: Hedonism = "both") -> np.ndarray:
    """The map from ten basic values to the four higher-order poles.

    Args:
      hedonism: Hedonism lies on the border of Openness to change and Self-enhancement;
        "both", "openness" or "enhancement" says where it counts.

    Returns:
      `[10, 4]` int8 of 0 and 1.

    Raises:
      KeyError: if the convention is unknown.

    Reference:
      Schwartz 1992, "Universals in the content and structure of values", figure 1.

    >>> basic_to_higher_order(hedonism="openness").sum(0).tolist()
    [3, 2, 3, 2]
    """
    borders = {"both": (0, 1), "openness": (0,), "enhancement": (1,)}
    if hedonism not in borders:
        raise KeyError(
            f"values.basic_to_higher_order: hedonism {hedonism!r} is unknown; known "
            f"are: {', '.join(borders)}."
        )
    pole = dict(zip(ABBREVIATIONS, (0, 0, None, 1, 1, 2, 2, 2, 3, 3), strict=True))
    table = np.zeros((len(BASIC), len(HIGHER_ORDER)), np.int8)
    for row, column in enumerate(pole.values()):
        table[row, list(borders[hedonism]) if column is None else column] = 1
    return table


def ring_angles(shared_wedge: bool = True) -> np.ndarray:
    """Where each basic value lies on the circle, for plots and circular statistics.

    No source gives authoritative angles: equal steps are a convention. The ring runs
    Self-direction, Stimulation, Hedonism, Achievement, Power, Security, then Tradition
    and Conformity, Benevolence, Universalism, and back.

    Args:
      shared_wedge: Tradition and Conformity share one of nine wedges of 40 degrees, as
        in the theory (Tradition lies further out); False gives ten steps of 36 degrees,
        Tradition before Conformity as in `BASIC`.

    Returns:
      `[10]` float64, radians in [0, 2 pi), counter-clockwise from Self-direction.

    Reference:
      Schwartz 1992, figure 1.

    >>> np.degrees(ring_angles()).round().astype(int).tolist()
    [0, 40, 80, 120, 160, 200, 240, 240, 280, 320]
    """
    if shared_wedge:
        return np.radians(40.0 * np.array([0, 1, 2, 3, 4, 5, 6, 6, 7, 8]))
    return np.radians(36.0 * np.arange(10))


def _humility_value(humility: str) -> str:
    named = {"conformity": "Conformity", "tradition": "Tradition"}
    if humility not in named:
        raise KeyError(
            f"values: humility {humility!r} is unknown; known are: conformity, "
            "tradition."
        )
    return named[humility]


def _membership() -> np.ndarray:
    table = np.zeros((len(ITEMS), len(REFINED)), np.int8)
    for column, refined in enumerate(REFINED):
        for item in ITEMS_BY_REFINED[refined]:
            table[ITEMS.index(item), column] = 1
    return table


ITEM_TO_REFINED: np.ndarray = _membership()
"""`[54, 19]` int8: the refined value of each item."""

REFINED_TO_BASIC: np.ndarray = refined_to_basic()
"""`[19, 10]` int8 in FULCRA's convention; see `refined_to_basic`."""

ITEM_TO_BASIC: np.ndarray = item_to_basic()
"""`[54, 10]` int8 in FULCRA's convention."""

BASIC_TO_HIGHER_ORDER: np.ndarray = basic_to_higher_order()
"""`[10, 4]` int8; Hedonism counts for both of its neighbours."""

for _table in (ITEM_TO_REFINED, REFINED_TO_BASIC, ITEM_TO_BASIC, BASIC_TO_HIGHER_ORDER):
    _table.setflags(write=False)
