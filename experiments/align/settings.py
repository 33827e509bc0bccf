# SPDX-License-Identifier: Apache-2.0
"""What an alignment study is, as data."""

import dataclasses
import math
from typing import Literal, get_args

from fulcra_jax.objectives.group import GroupKind

Arm = Literal["target", "control", "released"]


def _in_range(owner: str, field: str, number: float, low: float, high: float) -> None:
    if not (math.isfinite(number) and low <= number <= high):
        raise ValueError(
            f"align.{owner}: {field} is {number}; expected a number in [{low}, {high}]."
        )


@dataclasses.dataclass(frozen=True)
class Training:
    """How a policy is trained."""

    steps: int = 45
    prompts: int = 8
    """Prompts of a step."""
    answers: int = 8
    """Answers to each of them, which are compared with one another."""
    learning_rate: float = 5e-4
    clip_norm: float = 1.0
    advantage: GroupKind = "rloo"
    passes: int = 2
    """Passes over the answers of a step, with the clipped ratio of PPO."""
    clip: float = 0.2
    kl_coefficient: float = 0.25
    """Of the KL to the start, in units of the reward's running deviation per nat."""
    kl_target: float = 6.0
    """Nats per answer that the controller steers to; 0 leaves the coefficient."""
    kl_horizon: float = 10_000.0
    """Answers in which the controller could change the coefficient by a fifth. As
    released; a study of 3,000 answers is too short for it to steer much."""
    prompt_pool: int = 512
    """Different training prompts."""
    save_every: int = 10

    def __post_init__(self) -> None:
        for field, low, high in (
            ("steps", 1, 10**7),
            ("prompts", 1, 4096),
            ("answers", 2, 1024),
            ("learning_rate", 1e-9, 1.0),
            ("clip_norm", 1e-6, 1e6),
            ("passes", 1, 100),
            ("clip", 1e-6, 0.999),
            ("kl_coefficient", 0.0, 1e3),
            ("kl_target", 0.0, 1e6),
            ("kl_horizon", 1.0, 1e12),
            ("prompt_pool", 1, 100_000),
            ("save_every", 1, 10**7),
        ):
            _in_range("Training", field, getattr(self, field), low, high)
        if self.prompt_pool < self.prompts:
            raise ValueError(
                f"align.Training: prompt_pool is {self.prompt_pool}; expected at least "
                f"the {self.prompts} prompts of a step."
            )


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """What before and after are measured on."""

    prompts: int = 64
    """Of the test split, whose templates and activities no training prompt has."""
    answers: int = 4
    """Answers to each, before and after."""
    best_of: int = 256
    """Answers of the start to each prompt, for the best-of-n baseline."""
    resamples: int = 2000
    seed: int = 7

    def __post_init__(self) -> None:
        for field, low, high in (
            ("prompts", 2, 10_000),
            ("answers", 1, 1024),
            ("best_of", 1, 4096),
            ("resamples", 10, 10**6),
            ("seed", 0, 2**31 - 1),
        ):
            _in_range("HeldOut", field, getattr(self, field), low, high)


@dataclasses.dataclass(frozen=True)
class Study:
    """Align the toy language model to a target, beside its controls."""

    out: str = "runs/align/study"
    """Directory of the study; the same command continues one that was stopped."""
    decoder: str = "runs/align/decoder"
    """The start: what experiments.pretrain_decoder wrote."""
    evaluator: str = "runs/align/evaluator"
    """The run of the evaluator that gives the reward."""
    second: str = "runs/align/second"
    """The run of another evaluator, which only looks."""
    target: str = "ideal"
    """A name of fulcra_jax.targets, or ten numbers with commas between."""
    arms: tuple[Arm, ...] = get_args(Arm)
    """target; control: another target on other values, same reward; released: the
    target under the reward as released."""
    seeds: tuple[int, ...] = (0, 1, 2)
    training: Training = Training()
    held_out: HeldOut = HeldOut()

    def __post_init__(self) -> None:
        for field in ("arms", "seeds"):
            entries = getattr(self, field)
            if not entries or len(set(entries)) != len(entries):
                raise ValueError(
                    f"align.Study: {field} is {entries}; expected one or more, none "
                    "twice."
                )
        for arm in self.arms:
            if arm not in get_args(Arm):
                raise ValueError(
                    f"align.Study: arm {arm!r} is unknown; known are: "
                    f"{', '.join(get_args(Arm))}."
                )
        for seed in self.seeds:
            _in_range("Study", "seeds", seed, 0, 2**31 - 1)
