# SPDX-License-Identifier: Apache-2.0
"""The head that reads values off an encoder, and the two together."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

from fulcra_jax.configs import _checks
from fulcra_jax.configs.composed_heads import (
    FactoredHead,
    HierarchicalHead,
    MixtureHead,
)
from fulcra_jax.configs.encoder import DebertaConfig
from fulcra_jax.configs.heads import (
    ConditionedHead,
    Head,
    IndependentHead,
    QueryHead,
    SharedHead,
)
from fulcra_jax.configs.reading_heads import PromptedHead, TokenHead

Link = Literal["ternary", "tanh", "ordinal", "presence"]

NUM_CLASSES: dict[str, int] = {"ternary": 3, "tanh": 1, "ordinal": 2, "presence": 1}
"""Logits per value of each link."""

HEADS: dict[str, type[Head]] = {
    kind.__name__: kind
    for kind in (
        SharedHead,
        IndependentHead,
        ConditionedHead,
        QueryHead,
        TokenHead,
        PromptedHead,
        HierarchicalHead,
        FactoredHead,
        MixtureHead,
    )
}
"""The heads by the name that tags them in JSON; `models.register_head` adds one."""


@dataclasses.dataclass(frozen=True)
class EvaluatorConfig:
    """An encoder, the head that reads values off it, and what the logits mean.

    Attributes:
      encoder: the encoder.
      head: the head.
      link: "ternary" has three logits per value (classes -1, 0, +1), "ordinal" two
        (location and width of a cumulative link), "tanh" and "presence" one.
    """

    encoder: DebertaConfig
    head: Head = dataclasses.field(default_factory=SharedHead)
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
        _checks.need(
            self,
            "link",
            self.link in self.head.links,
            f"one of {', '.join(self.head.links)} with a {type(self.head).__name__}",
        )

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
        if "items" in fields:
            head = {"items": False} | head  # as before there was such a field
        _checks.same_keys(f"configs.{kind}", head, fields)
        encoder = DebertaConfig.from_hf(entries["encoder"])
        return cls(encoder, HEADS[kind](**head), entries["link"])
