# SPDX-License-Identifier: Apache-2.0
"""Heads that change what the encoder reads: value tokens, definitions."""

import dataclasses
from typing import Literal, get_args

from fulcra_jax.configs import _checks
from fulcra_jax.configs.heads import Head, Leaves, check_definitions, dense

Sees = Literal["all", "text"]


@dataclasses.dataclass(frozen=True)
class TokenHead(Head):
    """A token for each value before the text; its classes are read off at that token.

    Attributes:
      definitions: a token for each value, `((id,), ...)`: its embedding is where the
        value's begins. `experiments` fills in the first piece of the value's name.
      sees: "all": value tokens, and the text, see each other as one text. "text": a
        value token sees the text and itself; the text sees none, so that a value's
        classes do not depend on which other values are asked for.
      hidden: width of the hidden layer; None is the encoder's width, 0 means linear.
      dropout: rate before the projection.
    """

    definitions: tuple[tuple[int, ...], ...] = ()
    sees: Sees = "all"
    hidden: int | None = None
    dropout: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        check_definitions(self, self.definitions, self.num_values)
        _checks.need(
            self,
            "definitions",
            all(len(ids) == 1 for ids in self.definitions),
            "one token id for each value",
        )
        _checks.one_of(self, "sees", get_args(Sees))
        _checks.need(
            self,
            "hidden",
            self.hidden is None or _checks.is_int(self.hidden, 0),
            f"None (the encoder's width), 0 (linear) or a width up to {_checks.MOST}",
        )

    @property
    def reads_definitions(self) -> bool:
        """Always: one token for each value."""
        return True

    def leaves(self, width: int, classes: int) -> Leaves:
        """A shared hidden layer, and a projection for each value."""
        V, hidden = self.num_values, width if self.hidden is None else self.hidden
        found = dense("dense", width, hidden) if hidden else {}
        return found | {
            ("kernel",): (V, hidden or width, classes),
            ("bias",): (V, classes),
        }

    def flops(self, width: int, classes: int, tokens: int, texts: int) -> float:
        """The layers, for each text and value."""
        del tokens
        hidden = width if self.hidden is None else self.hidden
        once = width * hidden + (hidden or width) * classes
        return 2.0 * texts * self.num_values * once

    def reads(self, rows: int, tokens: int, texts: int) -> tuple[int, int]:
        """V tokens more for each text."""
        return rows, tokens + texts * self.num_values


@dataclasses.dataclass(frozen=True)
class PromptedHead(Head):
    """The released scheme: the encoder reads the value's definition with the text.

    Attributes:
      definitions: as of `ByDefinition`, with [CLS] and [SEP].
      packed: False: one pass of the encoder for each value, definition before text, as
        released. True: one pass for all: the text once, and behind it the definitions,
        each of which reads the text and itself; the text reads no definition.
      hidden: width of the hidden layer; None is the encoder's width.
      dropout: rate before the projection.
    """

    definitions: tuple[tuple[int, ...], ...] = ()
    packed: bool = False
    hidden: int | None = None
    dropout: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        check_definitions(self, self.definitions, self.num_values)
        _checks.need(self, "packed", isinstance(self.packed, bool), "True or False")
        _checks.need(
            self,
            "hidden",
            self.hidden is None or _checks.is_int(self.hidden, 1),
            f"None (the encoder's width) or a width up to {_checks.MOST}",
        )

    @property
    def reads_definitions(self) -> bool:
        """Always."""
        return True

    @property
    def longest(self) -> int:
        """Tokens of the longest definition."""
        return max(map(len, self.definitions), default=0)

    def leaves(self, width: int, classes: int) -> Leaves:
        """A hidden layer and classes, shared by all values."""
        hidden = width if self.hidden is None else self.hidden
        return dense("dense", width, hidden) | dense("classes", hidden, classes)

    def flops(self, width: int, classes: int, tokens: int, texts: int) -> float:
        """The layers, for each text and value."""
        del tokens
        hidden = width if self.hidden is None else self.hidden
        return 2.0 * texts * self.num_values * hidden * (width + classes)

    def reads(self, rows: int, tokens: int, texts: int) -> tuple[int, int]:
        """V times the rows, or the definitions behind each text."""
        if self.packed:
            return rows, tokens + texts * sum(map(len, self.definitions))
        # The definition takes the place of the text's [CLS].
        return rows * self.num_values, tokens + self.longest - 1
