# SPDX-License-Identifier: Apache-2.0
"""Heads that compose a value's classes of parts: items, factors, experts."""

import dataclasses
from typing import ClassVar, Literal, get_args

from fulcra_jax.configs import _checks
from fulcra_jax.configs.heads import NUM_ITEMS, Leaves, PooledHead, dense

Aggregate = Literal["logsumexp", "max", "noisy-or"]


@dataclasses.dataclass(frozen=True)
class HierarchicalHead(PooledHead):
    """54 items -> 10 basic values, softly: a value is there where one of its items is.

    The refined values and the four poles follow from the same item logits by
    `models.aggregate_items`. It has ten values, the tables of `fulcra_jax.values`.

    Attributes:
      aggregate: how margins of items become that of a value: the smooth maximum
        "logsumexp", the "max", or "noisy-or" of the items' probabilities.
    """

    items: bool = True
    aggregate: Aggregate = "logsumexp"

    links: ClassVar[tuple[str, ...]] = ("ternary",)

    def __post_init__(self):
        super().__post_init__()
        _checks.one_of(self, "aggregate", get_args(Aggregate))
        _checks.need(self, "items", self.items is True, "True: it is made of them")
        _checks.need(self, "num_values", self.num_values == 10, "10")
        _checks.one_of(self, "pool", ("first", "mean", "max"))

    def leaves(self, width: int, classes: int) -> Leaves:
        """A hidden layer, the items, and what is added for a value."""
        hidden = self.width(width)
        found = dense("dense", width, hidden) if hidden else {}
        found |= dense("items", hidden or width, NUM_ITEMS * 3)
        return found | {("offset",): (self.num_values, 2)}


@dataclasses.dataclass(frozen=True)
class FactoredHead(PooledHead):
    """Relevance times sign: P(0) = 1 - r, P(+1) = r s, P(-1) = r (1 - s).

    The sign is learned from the cells that are relevant alone, which suits labels with
    few -1.
    """

    links: ClassVar[tuple[str, ...]] = ("ternary",)

    def leaves(self, width: int, classes: int) -> Leaves:
        """A hidden layer, and two logits for each value."""
        hidden = self.width(width)
        found = dense("dense", width, hidden) if hidden else {}
        found |= dense("values", hidden or width, self.num_values * 2)
        return found | self._item_leaves(hidden or width)

    def __post_init__(self):
        super().__post_init__()
        _checks.one_of(self, "pool", ("first", "mean", "max"))


@dataclasses.dataclass(frozen=True)
class MixtureHead(PooledHead):
    """Several hidden layers, mixed for each value by a gate that reads the text.

    Attributes:
      experts: E.
    """

    experts: int = 4

    def __post_init__(self):
        super().__post_init__()
        _checks.one_of(self, "pool", ("first", "mean", "max"))
        _checks.need(
            self, "experts", _checks.is_int(self.experts, 1, 1024), "in [1, 1024]"
        )
        _checks.need(
            self, "hidden", self.hidden != 0, "None (the encoder's width) or a width"
        )

    def leaves(self, width: int, classes: int) -> Leaves:
        """Experts, gates, and a projection for each value."""
        V, E, hidden = self.num_values, self.experts, self.width(width)
        found: Leaves = dense("experts", width, E * hidden) | dense(
            "gate", width, V * E
        )
        found |= {("kernel",): (V, hidden, classes), ("bias",): (V, classes)}
        return found | self._item_leaves(width)

    def flops(self, width: int, classes: int, tokens: int, texts: int) -> float:
        """Experts, gates, the mixing and the projections, for each text."""
        del tokens
        V, E, hidden = self.num_values, self.experts, self.width(width)
        items = NUM_ITEMS * 3 * width if self.items else 0
        once = (
            width * E * hidden + width * V * E + V * E * hidden + V * hidden * classes
        )
        return 2.0 * texts * (once + items)
