# SPDX-License-Identifier: Apache-2.0
"""The head that reads values off an encoder, and the two together."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

from fulcra_jax.configs import _checks
from fulcra_jax.configs.encoder import DebertaConfig

Pool = Literal["first", "mean", "max", "logsumexp"]
Link = Literal["ternary", "tanh", "ordinal", "presence"]

NUM_CLASSES: dict[str, int] = {"ternary": 3, "tanh": 1, "ordinal": 2, "presence": 1}
"""Logits per value of each link."""
_MOST_VALUES = 10_000


@dataclasses.dataclass(frozen=True)
class SharedHead:
    """One projection that reads all values off one pooled vector in a single pass.

    With `pool="first"` and `hidden=None` it is Hugging Face's pooler and classifier.

    Attributes:
      num_values: V, how many values are judged.
      pool: the first token, or mean or maximum over the tokens that are not padding.
        "logsumexp" reads logits off every token and pools those: what a phrase shows
        is not diluted by the length of the text, which helps a small encoder that is
        trained from scratch.
      hidden: width of the hidden layer; None is the encoder's width, 0 means linear.
      dropout: rate before the projection.
    """

    num_values: int = 10
    pool: Pool = "first"
    hidden: int | None = None
    dropout: float = 0.1

    def __post_init__(self):
        _checks.need(
            self,
            "num_values",
            _checks.is_int(self.num_values, 1, _MOST_VALUES),
            f"a positive integer of at most {_MOST_VALUES}",
        )
        _checks.one_of(self, "pool", get_args(Pool))
        _checks.need(
            self,
            "hidden",
            self.hidden is None or _checks.is_int(self.hidden, 0),
            f"None (the encoder's width), 0 (linear) or a width up to {_checks.MOST}",
        )
        _checks.need(
            self, "dropout", _checks.is_rate(self.dropout), "a number in [0, 1)"
        )

    def width(self, encoder_width: int) -> int:
        """Width of the hidden layer on an encoder of that width; 0 means linear."""
        return encoder_width if self.hidden is None else self.hidden


HEADS: dict[str, type[SharedHead]] = {"SharedHead": SharedHead}
"""The heads by the name that tags them in JSON."""


@dataclasses.dataclass(frozen=True)
class EvaluatorConfig:
    """An encoder, the head that reads values off it, and what the logits mean.

    Attributes:
      encoder: the encoder.
      head: the head.
      link: "ternary" has three logits per value (classes -1, 0, +1), "tanh" one.
    """

    encoder: DebertaConfig
    head: SharedHead = dataclasses.field(default_factory=SharedHead)
    link: Link = "ternary"

    def __post_init__(self):
        _checks.need(
            self,
            "encoder",
            isinstance(self.encoder, DebertaConfig),
            "a DebertaConfig",
        )
        known = tuple(HEADS.values())
        _checks.need(
            self, "head", isinstance(self.head, known), f"one of {', '.join(HEADS)}"
        )
        _checks.one_of(self, "link", get_args(Link))

    @property
    def num_classes(self) -> int:
        """C, the logits per value."""
        return NUM_CLASSES[self.link]

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers; `from_json` reads them back."""
        head = {"type": type(self.head).__name__} | dataclasses.asdict(self.head)
        return {"encoder": self.encoder.to_hf(), "head": head, "link": self.link}

    @classmethod
    def from_json(cls, entries: Mapping[str, Any]) -> "EvaluatorConfig":
        """Reads what `to_json` wrote.

        Raises:
          KeyError: if the head's type is unknown; the message lists the known.
          ValueError: if an entry is missing, unknown or out of range.
        """
        caller = "configs.EvaluatorConfig"
        _checks.mapping(caller, entries, "the entry of an evaluator")
        _checks.same_keys(caller, entries, {"encoder", "head", "link"})
        for name in ("encoder", "head"):
            _checks.mapping(caller, entries[name], name)
        head = dict(entries["head"])
        kind = head.pop("type", None)
        if not isinstance(kind, str):
            raise ValueError(
                f"{caller}: head type is {_checks.cut(kind)}; it should be one of "
                f"{', '.join(HEADS)}."
            )
        if kind not in HEADS:
            raise KeyError(
                f"{caller}: head type {_checks.cut(kind)} is unknown; known are: "
                f"{', '.join(HEADS)}."
            )
        fields = {field.name for field in dataclasses.fields(HEADS[kind])}
        _checks.same_keys(f"configs.{kind}", head, fields)
        encoder = DebertaConfig.from_hf(entries["encoder"])
        return cls(encoder, HEADS[kind](**head), entries["link"])
