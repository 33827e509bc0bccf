# SPDX-License-Identifier: Apache-2.0
"""What reads values off an encoder: one frozen dataclass for each kind of head.

A head says by itself which parameters it has, what it costs and what the encoder reads
for it, so that a new one needs no other file: see `Head`.
"""

import dataclasses
from typing import ClassVar, Literal, get_args

from fulcra_jax.configs import _checks

Pool = Literal["first", "mean", "max", "logsumexp"]
ValueVectors = Literal["learned", "definition"]
Leaves = dict[tuple[str, ...], tuple[int, ...]]
"""Shapes of parameters by their path below "head"."""

_MOST_VALUES = 10_000
NUM_ITEMS = 54


@dataclasses.dataclass(frozen=True)
class Head:
    """What every head has. A new one derives from this and overrides what differs.

    Attributes:
      num_values: V, how many values are judged.
    """

    num_values: int = 10

    links: ClassVar[tuple[str, ...]] = ("ternary", "tanh", "ordinal", "presence")
    """The links that its logits can have."""

    def __post_init__(self):
        _checks.need(
            self,
            "num_values",
            _checks.is_int(self.num_values, 1, _MOST_VALUES),
            f"a positive integer of at most {_MOST_VALUES}",
        )
        if hasattr(self, "dropout"):  # a field of most, after their own in order
            rate = _checks.is_rate(getattr(self, "dropout", None))
            _checks.need(self, "dropout", rate, "a number in [0, 1)")

    def leaves(self, width: int, classes: int) -> Leaves:
        """Shapes of all parameters.

        Args:
          width: D of the encoder.
          classes: C of the link.

        Raises:
          NotImplementedError: of a head that does not list them; every kind must, as
            checkpoints and shardings follow from it.
        """
        raise NotImplementedError(
            f"configs.{type(self).__name__}: it should override leaves, which lists "
            "the shapes of its parameters."
        )

    def flops(self, width: int, classes: int, tokens: int, texts: int) -> float:
        """Forward FLOPs of one row: every matrix once for each text, by default.

        Args:
          width: D of the encoder.
          classes: C of the link.
          tokens: of the row.
          texts: in the row.
        """
        del tokens
        shapes = self.leaves(width, classes).values()
        return texts * sum(2 * s[0] * s[-1] * _inner(s) for s in shapes if len(s) > 1)

    def reads(self, rows: int, tokens: int, texts: int) -> tuple[int, int]:
        """Rows and tokens that the encoder reads for rows of so many texts."""
        del texts
        return rows, tokens

    @property
    def reads_definitions(self) -> bool:
        """Whether it needs `definitions`."""
        return False

    @property
    def encodes_definitions(self) -> bool:
        """Whether the encoder reads the definitions beside the texts, once a batch."""
        return False


def _inner(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape[1:-1]:
        count *= size
    return count


def dense(name: str, inputs: int, outputs: int) -> Leaves:
    """A linear layer's kernel and bias."""
    return {(name, "kernel"): (inputs, outputs), (name, "bias"): (outputs,)}


@dataclasses.dataclass(frozen=True)
class PooledHead(Head):
    """A head on one vector per text.

    Attributes:
      pool: the first token, or mean or maximum over the tokens that are not padding.
      hidden: width of the hidden layer; None is the encoder's width, 0 means linear.
      dropout: rate before the projection.
      items: whether there are three logits for each of the 54 items too, from the same
        hidden layer: something to learn from, `HeadOutput.item_logits`.
    """

    pool: Pool = "first"
    hidden: int | None = None
    dropout: float = 0.1
    items: bool = False

    def __post_init__(self):
        super().__post_init__()
        _checks.one_of(self, "pool", get_args(Pool))
        _checks.need(
            self,
            "hidden",
            self.hidden is None or _checks.is_int(self.hidden, 0),
            f"None (the encoder's width), 0 (linear) or a width up to {_checks.MOST}",
        )
        _checks.need(self, "items", isinstance(self.items, bool), "True or False")

    def width(self, encoder_width: int) -> int:
        """Width of the hidden layer on an encoder of that width; 0 means linear."""
        return encoder_width if self.hidden is None else self.hidden

    def _item_leaves(self, width: int) -> Leaves:
        return dense("items", width, NUM_ITEMS * 3) if self.items else {}


@dataclasses.dataclass(frozen=True)
class SharedHead(PooledHead):
    """One projection that reads all values off one pooled vector in a single pass.

    With `pool="first"` and `hidden=None` it is Hugging Face's pooler and classifier.
    `pool="logsumexp"` reads logits off every token and pools those: what a phrase shows
    is not diluted by the length of the text, which helps a small encoder that is
    trained from scratch.
    """

    def leaves(self, width: int, classes: int) -> Leaves:
        """A hidden layer, and the values."""
        hidden = self.width(width)
        found = dense("dense", width, hidden) if hidden else {}
        found |= dense("values", hidden or width, self.num_values * classes)
        return found | self._item_leaves(hidden or width)

    def flops(self, width: int, classes: int, tokens: int, texts: int) -> float:
        """Every matrix once for each text, or each token under "logsumexp"."""
        times = tokens if self.pool == "logsumexp" else texts
        return times * super().flops(width, classes, tokens, 1)


@dataclasses.dataclass(frozen=True)
class IndependentHead(PooledHead):
    """A hidden layer and a projection for each value: nothing is shared.

    With `hidden=0` it is one linear model per value on a pooled vector.
    """

    def leaves(self, width: int, classes: int) -> Leaves:
        """Stacks of layers, one for each value."""
        V, hidden = self.num_values, self.width(width)
        found: Leaves = {}
        if hidden:
            found |= {("hidden_kernel",): (width, V, hidden)}
            found |= {("hidden_bias",): (V, hidden)}
        found |= {("kernel",): (V, hidden or width, classes), ("bias",): (V, classes)}
        return found | self._item_leaves(width)

    def flops(self, width: int, classes: int, tokens: int, texts: int) -> float:
        """Both layers of every value, for each text."""
        del tokens
        V, hidden = self.num_values, self.width(width)
        items = NUM_ITEMS * 3 * width if self.items else 0
        own = width * hidden + (hidden or width) * classes
        return 2.0 * texts * (V * own + items)


@dataclasses.dataclass(frozen=True)
class ByDefinition(Head):
    """A head that knows a value by a vector: learned, or made of its definition.

    Attributes:
      values: "learned" is a table of V vectors; "definition" encodes `definitions` with
        the same encoder at every step, so that the parameters know no V: a new value is
        scored from its definition alone.
      definitions: V definitions as token ids with [CLS] and [SEP]; `experiments` and
        `inference.with_definitions` fill it in.
      dropout: rate before the projection.
    """

    values: ValueVectors = "learned"
    definitions: tuple[tuple[int, ...], ...] = ()
    dropout: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        _checks.one_of(self, "values", get_args(ValueVectors))
        check_definitions(self, self.definitions, self.num_values)

    @property
    def reads_definitions(self) -> bool:
        """Whether value vectors come from definitions."""
        return self.values == "definition"

    @property
    def encodes_definitions(self) -> bool:
        """Whether value vectors come from definitions."""
        return self.values == "definition"


def check_definitions(config: Head, definitions: object, count: int) -> None:
    """Raises ValueError if they are not token ids of so many values, or empty."""
    fine = isinstance(definitions, tuple | list) and all(
        isinstance(ids, tuple | list)
        and len(ids) > 0
        and all(_checks.is_int(i, 0) for i in ids)
        for ids in definitions
    )
    _checks.need(
        config,
        "definitions",
        fine and len(definitions) in (0, count),  # pyright: ignore[reportArgumentType]
        f"empty, or token ids of a definition for each of the {count} values",
    )
    # From JSON they come as lists.
    object.__setattr__(
        config,
        "definitions",
        tuple(tuple(ids) for ids in definitions),  # pyright: ignore
    )


@dataclasses.dataclass(frozen=True)
class ConditionedHead(ByDefinition):
    """One head for all values, told by a value vector which one it judges.

    The pooled text is scaled and shifted by two projections of the value's vector
    (FiLM), then a hidden layer and a projection follow that all values share.

    Attributes:
      pool: as of `PooledHead`.
      hidden: width of the shared hidden layer; None is the encoder's width.
      items: as of `PooledHead`, from the pooled vector.
    """

    pool: Pool = "mean"
    hidden: int | None = None
    items: bool = False

    def __post_init__(self):
        super().__post_init__()
        _checks.one_of(self, "pool", ("first", "mean", "max"))
        _checks.need(
            self,
            "hidden",
            self.hidden is None or _checks.is_int(self.hidden, 1),
            f"None (the encoder's width) or a width up to {_checks.MOST}",
        )
        _checks.need(self, "items", isinstance(self.items, bool), "True or False")

    def leaves(self, width: int, classes: int) -> Leaves:
        """Vectors of the values, scale and shift, a hidden layer, the classes."""
        hidden = width if self.hidden is None else self.hidden
        found: Leaves = {}
        if self.values == "learned":
            found[("vectors", "embedding")] = (self.num_values, width)
        found |= dense("scale", width, width) | dense("shift", width, width)
        found |= dense("dense", width, hidden) | dense("classes", hidden, classes)
        return found | (dense("items", width, NUM_ITEMS * 3) if self.items else {})

    def flops(self, width: int, classes: int, tokens: int, texts: int) -> float:
        """The shared layers, for each text and value."""
        del tokens
        hidden = width if self.hidden is None else self.hidden
        items = NUM_ITEMS * 3 * width if self.items else 0
        own = width * hidden + hidden * classes
        values = 4.0 * self.num_values * width * width
        return 2.0 * texts * (self.num_values * own + items) + values


@dataclasses.dataclass(frozen=True)
class QueryHead(ByDefinition):
    """Each value asks the text: cross-attention from value vectors to the tokens.

    Its weights say where each value looked: `HeadOutput.evidence`.

    Attributes:
      heads: of the attention; they divide the encoder's width.
      items: as of `PooledHead`, from the mean of the tokens.
    """

    heads: int = 4
    items: bool = False

    def __post_init__(self):
        super().__post_init__()
        _checks.need(self, "heads", _checks.is_int(self.heads, 1), "at least 1")
        _checks.need(self, "items", isinstance(self.items, bool), "True or False")

    def leaves(self, width: int, classes: int) -> Leaves:
        """Vectors of the values, the attention, classes."""
        V = self.num_values
        found: Leaves = {}
        if self.values == "learned":
            found[("vectors", "embedding")] = (V, width)
        for name in ("query", "key", "value", "dense"):
            found |= dense(name, width, width)
        if self.values == "learned":
            found |= {("kernel",): (V, width, classes), ("bias",): (V, classes)}
        else:
            found |= dense("mixed", 2 * width, width) | dense("classes", width, classes)
        return found | (dense("items", width, NUM_ITEMS * 3) if self.items else {})

    def flops(self, width: int, classes: int, tokens: int, texts: int) -> float:
        """Keys and values of the tokens, weights and sums, the layers after."""
        V, D = self.num_values, width
        after = D * D + D * classes + (2 * D * D if self.values == "definition" else 0)
        items = NUM_ITEMS * 3 * D if self.items else 0
        # Every token lies in one text, and is asked by the values of that text.
        asked = tokens * (2 * D * D + 2 * V * D)
        return 2.0 * (asked + texts * (V * after + items) + V * D * D)
