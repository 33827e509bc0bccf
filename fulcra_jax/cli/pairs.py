# SPDX-License-Identifier: Apache-2.0
"""`fulcra pairs`: preferences for a trainer, made of scored answers."""

import dataclasses
import math
from typing import Annotated, Literal

import jax.numpy as jnp
import numpy as np
import tyro

from fulcra_jax import alignment, objectives, targets
from fulcra_jax.cli.files import (
    TARGET,
    check_new,
    scored_answers,
    warn_of_target,
)
from fulcra_jax.inference import ScoredAnswers
from fulcra_jax.objectives.distance import Gate


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Writes preference pairs, or single answers that are wanted or not, as JSONL."""

    scores: Annotated[str, tyro.conf.Positional]
    """A file of scored answers, as `fulcra score --out` writes it."""
    target: Annotated[str, tyro.conf.arg(help=TARGET)]
    out: str
    """Where to write; it must not exist."""
    margin: float = 0.0
    """Distances have to differ by more than this: those of a pair, or that of a single
    answer from `threshold`."""
    format: Literal["plain", "chat", "unpaired", "unpaired-chat"] = "plain"
    """plain: prompt, chosen and rejected as texts, which a trainer joins with nothing
    between. chat: as messages, for models with a chat template. unpaired: prompt,
    completion and label, for KTO."""
    per_prompt: int = 1
    """Pairs of a prompt at most, the widest first; 0 takes all."""
    temperature: float = 0.0
    """Above 0, every pair gets a soft label (column probability)."""
    threshold: float | None = None
    """Single answers nearer than this are wanted."""
    gate: Gate = "none"
    """Of the reward that is minus the distance; see
    fulcra_jax.objectives.baselign_reward."""
    evaluator: str = ""
    """Whose scores count, if several evaluators scored the file."""


def run(arguments: Pairs) -> None:
    """Runs `fulcra pairs`."""
    for name in ("margin", "per_prompt", "temperature"):
        if not 0 <= getattr(arguments, name) < math.inf:
            raise ValueError(
                f"pairs: --{name.replace('_', '-')} is {getattr(arguments, name)}; it "
                "should be a number of at least 0."
            )
    if not arguments.out:
        raise ValueError("pairs: --out is empty; it should name a new file.")
    single = arguments.format.startswith("unpaired")
    if single and (arguments.temperature or arguments.per_prompt != 1):
        raise ValueError("pairs: --temperature and --per-prompt are for pairs.")
    if not single and arguments.threshold is not None:
        raise ValueError("pairs: --threshold is for --format unpaired.")
    check_new(arguments.out, "--out")
    target = targets.parse_target(arguments.target)
    answers = scored_answers(arguments.scores, arguments.evaluator)
    distances = -np.asarray(
        objectives.baselign_reward(
            jnp.asarray(answers.scores), jnp.asarray(target), gate=arguments.gate
        )
    )
    threshold = arguments.threshold
    if single and threshold is None:
        raise ValueError(
            f"pairs: --format {arguments.format} needs --threshold; the median "
            f"distance of these answers is {np.median(distances):.3f}."
        )
    warn_of_target(target, arguments.gate)
    if threshold is None:
        said = _write_pairs(arguments, answers, distances)
    else:
        said = _write_unpaired(arguments, answers, distances, threshold)
    print(f"{said}; {arguments.out}")


def _write_pairs(
    arguments: Pairs, answers: ScoredAnswers, distances: np.ndarray
) -> str:
    """Writes pairs and says what became of the prompts."""
    pairs, counts = alignment.preference_pairs(
        answers.prompts,
        answers.responses,
        distances,
        target=arguments.target,
        evaluator=answers.evaluators[0],
        margin=arguments.margin,
        most=arguments.per_prompt or None,
        temperature=arguments.temperature or None,
    )
    alignment.write_pairs(
        arguments.out, pairs, conversational=arguments.format == "chat"
    )
    return (
        f"{counts.prompts} prompts: {counts.paired} gave {counts.pairs} pairs; "
        f"without: {counts.within_margin} within the margin, {counts.one_answer} with "
        f"one answer, {counts.identical} with identical answers, {counts.unscored} "
        "with NaN scores"
    )


def _write_unpaired(
    arguments: Pairs, answers: ScoredAnswers, distances: np.ndarray, threshold: float
) -> str:
    """Writes single answers and says how many are wanted."""
    found = alignment.unpaired_answers(
        answers.prompts,
        answers.responses,
        distances,
        target=arguments.target,
        evaluator=answers.evaluators[0],
        threshold=threshold,
        margin=arguments.margin,
    )
    alignment.write_unpaired(
        arguments.out, found, conversational=arguments.format == "unpaired-chat"
    )
    wanted = int(found.labels.sum())
    left = len(answers.prompts) - len(found.prompts)
    return (
        f"{len(answers.prompts)} answers: {wanted} wanted, "
        f"{len(found.prompts) - wanted} not; {left} within the margin or given before"
    )
