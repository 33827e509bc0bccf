# SPDX-License-Identifier: Apache-2.0
"""`fulcra rerank`: the best of several scored answers to each prompt."""

import dataclasses
from collections import Counter
from typing import Annotated

import jax.numpy as jnp
import numpy as np
import tyro

from fulcra_jax import alignment, inference, objectives, targets, values
from fulcra_jax.cli.files import (
    TARGET,
    check_new,
    rows_of,
    scored_answers,
    warn_of_target,
)
from fulcra_jax.objectives.distance import Gate
from fulcra_jax.report import tables


@dataclasses.dataclass(frozen=True)
class Rerank:
    """Finds the answer to each prompt that comes closest to a target, and what n of
    them are worth."""

    scores: Annotated[str, tyro.conf.Positional]
    """A file of scored answers, as `fulcra score --out` writes it."""
    target: Annotated[str, tyro.conf.arg(help=TARGET)]
    n: int = 0
    """Compare so many answers to a prompt, drawn by `seed`; 0 compares all."""
    seed: int = 0
    """Of the draw."""
    gate: Gate = "none"
    """Of the reward; see fulcra_jax.objectives.baselign_reward."""
    evaluator: str = ""
    """Whose scores count, if several evaluators scored the file."""
    out: str = ""
    """Where to write the best answers, in the same format; it must not exist."""


def run(arguments: Rerank) -> None:
    """Runs `fulcra rerank`."""
    if arguments.n < 0:
        raise ValueError(f"rerank: --n is {arguments.n}; it should be at least 0.")
    check_new(arguments.out, "--out")
    target = targets.parse_target(arguments.target)
    answers = scored_answers(arguments.scores, arguments.evaluator)
    warn_of_target(target, arguments.gate)
    found = alignment.rerank(
        answers.prompts,
        answers.scores,
        target,
        gate=arguments.gate,
        n=arguments.n or None,
        seed=arguments.seed,
    )
    table = alignment.best_of_n_table(
        answers.prompts, answers.scores, target, gate=arguments.gate
    )
    title = f"{len(answers.prompts)} answers to {len(found.prompts)} prompts"
    tables.show(gain_table(title, table))
    tables.show(change_table(table), most=len(values.BASIC) + 1)
    best = rows_of(answers, found.best[found.best >= 0])
    print(
        f"best answers: mean reward {np.nanmean(found.rewards):.3f}; of one answer "
        f"{np.nanmean(found.mean_rewards):.3f}, of the first "
        f"{np.nanmean(found.first_rewards):.3f}"
    )
    if len(set(answers.models)) > 1:
        _compare_models(answers, best, target, arguments.gate)
    if arguments.out:
        inference.write_scores(arguments.out, best)
        print(f"{len(best.prompts)} answers written; {arguments.out}")


def _compare_models(
    answers: inference.ScoredAnswers,
    best: inference.ScoredAnswers,
    target: np.ndarray,
    gate: Gate,
) -> None:
    """Says what each model gets alone: the better ones have less to gain."""
    rewards = np.asarray(
        objectives.baselign_reward(
            jnp.asarray(answers.scores), jnp.asarray(target), gate=gate
        )
    )
    models, wins = np.array(answers.models), Counter(best.models)
    print("by model, mean reward of one answer and number of best answers:")
    for name in dict.fromkeys(answers.models):
        print(f"  {name}: {rewards[models == name].mean():.3f}, {wins[name]}")
    print("the KL bound is from the mixture of these models, not from one of them")


def gain_table(title: str, table: list[alignment.BestOfN]) -> tables.Table:
    """What the best of n is worth."""
    header = ["best of", "prompts", "reward", "gain", "s.e.", "KL at most"]
    body = [
        [
            str(row.n),
            str(row.prompts),
            f"{row.reward:.3f}",
            f"{row.gain:+.3f}",
            tables.number(row.standard_error),
            f"{row.kl_bound:.3f}",
        ]
        for row in table
    ]
    return title, header, body


def change_table(table: list[alignment.BestOfN]) -> tables.Table:
    """How the scores of the best of n differ from those of one answer."""
    body = [
        [str(row.n), *(f"{round(x, 2) + 0.0:+.2f}" for x in row.change)]
        for row in table
    ]
    header = ["best of", *values.ABBREVIATIONS]
    return "mean change of each value against one answer", header, body
