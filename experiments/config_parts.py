# SPDX-License-Identifier: Apache-2.0
"""Parts of an experiment's configuration: how texts are read, what is minimised."""

import dataclasses
import math
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Text:
    """How dialogues become tokens."""

    max_length: int = 512
    """Most tokens of prompt and response together; the prompt is cut first."""
    tokenizer: str = ""
    """A Hugging Face tokenizer directory; empty takes the pretrained encoder's, or
    trains one on the training rows."""
    vocab_size: int = 8000
    """Pieces of a tokenizer trained here."""
    token_dropout: float = 0.0
    """Chance of a training token to be replaced by [MASK]."""
    ladder: tuple[int, ...] = (64, 128, 256, 512)
    """Lengths that batches are padded to; each is compiled once."""
    packed: bool = False
    """Several texts in a row of `max_length`, in place of a ladder: one shape, hardly
    any padding. `batch_size` then counts rows."""
    cache: str = ".cache/tokens"
    """Folder of tokenised rows, for the next run; empty keeps them in memory."""

    def __post_init__(self) -> None:
        if not 8 <= self.max_length <= 65536:
            raise ValueError(
                f"config.Text: max_length is {self.max_length}; it should be in [8, "
                "65536]."
            )
        if not 0.0 <= self.token_dropout < 1.0:
            raise ValueError(
                f"config.Text: token_dropout is {self.token_dropout}; it should be in "
                "[0, 1)."
            )
        if (
            list(self.ladder) != sorted(set(self.ladder))
            or min(self.ladder, default=0) < 1
        ):
            raise ValueError(
                f"config.Text: ladder is {self.ladder}; it should be ascending "
                "positive lengths."
            )


@dataclasses.dataclass(frozen=True)
class Loss:
    """What is minimised; which form follows from the evaluator's link.

    The cells of a batch are those of the labels, of weight 1, and where asked for those
    of the items and of a teacher; their weighted mean is minimised.
    """

    class_weights: Literal["none", "sqrt", "balanced"] = "none"
    """A label cell counts by 1 / sqrt(frequency of its label), or by 1 / frequency, as
    "-1" is rare."""
    label_smoothing: float = 0.0
    """Share of a label cell's target spread over the classes; none under link
    "tanh"."""
    focal: float = 0.0
    """Gamma of the focal loss: how much less a label cell counts that is already
    classified well (link "ternary" only). 0 is the cross-entropy."""
    items: float = 0.0
    """Weight of the cell of an item, of a head that judges the 54 items; 0 uses
    none."""
    teacher: float = 0.0
    """Weight of the cell of a teacher's score; 0 uses none."""
    teacher_kind: Literal["squared", "soft"] = "squared"
    """squared: the error of the score. soft: the divergence from classes between which
    the teacher's score is split (no link "tanh")."""
    circumplex: float = 0.0
    """Factor of what the scores of a text have beside a level and one wave around the
    ring of values, added to each of its label cells; 0 without."""
    positive_weight: float = 1.0
    """How much more a value that is there counts (link "presence" only)."""

    def __post_init__(self) -> None:
        for field, known in (
            ("class_weights", ("none", "sqrt", "balanced")),
            ("teacher_kind", ("squared", "soft")),
        ):
            if getattr(self, field) not in known:
                raise ValueError(
                    f"config.Loss: {field} is {getattr(self, field)!r}; it should be "
                    f"one of: {', '.join(known)}."
                )
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ValueError(
                f"config.Loss: label_smoothing is {self.label_smoothing}; it should "
                "be in [0, 1)."
            )
        for field in ("focal", "items", "teacher", "circumplex"):
            number = getattr(self, field)
            if not 0.0 <= number < math.inf:
                raise ValueError(
                    f"config.Loss: {field} is {number}; it should be a number of at "
                    "least 0."
                )
        if not 0.0 < self.positive_weight < math.inf:
            raise ValueError(
                f"config.Loss: positive_weight is {self.positive_weight}; it should be "
                "a number above 0."
            )

    def check_link(self, link: str) -> None:
        """Raises ValueError if a field says what the link has no place for."""
        if self.focal and link != "ternary":
            raise ValueError(
                f"config.Loss: focal is {self.focal}, but the link is {link}; it "
                "should be ternary, or focal 0."
            )
        if self.positive_weight != 1.0 and link != "presence":
            raise ValueError(
                f"config.Loss: positive_weight is {self.positive_weight}, but the link "
                f"is {link}; it should be presence, or positive_weight 1."
            )
        if self.teacher and self.teacher_kind == "soft" and link == "tanh":
            raise ValueError(
                "config.Loss: teacher_kind is soft, but the link tanh has no classes; "
                "it should be squared."
            )
