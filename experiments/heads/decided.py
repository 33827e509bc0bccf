# SPDX-License-Identifier: Apache-2.0
"""Recipes with what is done after the encoder: a bag of words beside it, decisions.

Both use the predictions that lie beside the finished cells and train no encoder. What
is fitted is fitted on the held-out rows of the other folds, by `inference.Decisions`;
no row decides its own class.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from experiments.heads import running
from experiments.heads.summary import Held, System
from fulcra_jax.data import source
from fulcra_jax.inference import Decisions, bag_of_words

DECIDED, FUSED = ", decided", " & TF-IDF + LR"
"""What a name ends with: first the bag of words, then the decisions."""
WORDS = "TF-IDF + LR"
WEIGHT = 0.5
"""Of the bag of words in the mean of the log-probabilities: even, not fitted."""


def decided(system: System, held: Held) -> System:
    """The same probabilities, classes named by temperatures and one bias per class.

    Args:
      system: on the rows of `held`.
      held: rows of at least two splits.

    Raises:
      ValueError: if there is one split: nothing is left to fit on.
    """
    if len(held.splits) < 2:
        raise ValueError(
            f"heads: decisions of {system.recipe} are fitted on other splits; there is "
            f"only {', '.join(held.splits)}."
        )
    labels, where = source.label_arrays(held.rows)
    classes = np.zeros_like(system.classes)
    for number, probs in enumerate(system.probs):
        for split in range(len(held.splits)):
            own = held.split == split
            rule = Decisions.fit(probs, labels, where & ~own[:, None])
            classes[number, own] = rule.decide(probs[own]).classes
    return dataclasses.replace(system, recipe=system.recipe + DECIDED, classes=classes)


def fused(system: System, words: System) -> System:
    """A recipe with the bag beside it, as `inference.Ensemble` has it."""
    probs = np.stack(
        [bag_of_words.pooled(one, words.probs[0], WEIGHT) for one in system.probs]
    )
    return dataclasses.replace(
        system, recipe=system.recipe + FUSED, probs=probs,
        classes=probs.argmax(-1) - 1,
    )  # fmt: skip


def _soft(system: System) -> bool:
    """Whether its probabilities are more than the names of classes."""
    return bool(((system.probs > 0) & (system.probs < 1)).any())


def with_derived(systems: Sequence[System], held: Held) -> list[System]:
    """The systems, each followed by what can be made of it.

    The floors are left as they are, but for the bag of words, which is decided too. A
    link without probabilities, as tanh, has nothing that words could be pooled with.
    """
    words = next((s for s in systems if s.recipe == WORDS), None)
    several = len(held.splits) > 1
    found: list[System] = []
    for system in systems:
        mine = [system]
        if words is not None and system.recipe not in running.FLOORS and _soft(system):
            mine.append(fused(system, words))
        if several and (system.recipe == WORDS or system.recipe not in running.FLOORS):
            mine += [decided(one, held) for one in mine]
        found += mine
    return found
