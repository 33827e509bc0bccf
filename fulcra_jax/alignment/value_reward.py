# SPDX-License-Identifier: Apache-2.0
"""A reward function of an evaluator and a target, as Tunix and TRL call them.

Axes: N answers, V values in the order of `values.BASIC`.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np

from fulcra_jax import objectives, targets, values
from fulcra_jax.objectives.distance import Gate
from fulcra_jax.objectives.reward import Scale

_V = len(values.BASIC)
Metric = tuple[float, Callable[[Any], Any]]


class HasScores(Protocol):
    """What an evaluator answers."""

    @property
    def scores(self) -> Any:
        """`[N, V]` float in [-1, 1], NaN where scoring failed."""
        ...


class Evaluator(Protocol):
    """Scores answers; `inference.Predictor` is one."""

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> HasScores:
        """`[N, V]` scores of N answers, each to its prompt."""
        ...


class Judged(NamedTuple):
    """What a reward was made of."""

    scores: np.ndarray
    """`[N, V]` float32, as the evaluator gave them."""
    targets: np.ndarray
    """`[N, V]` float32."""
    rewards: np.ndarray
    """`[N]` float32, finite: the worst there is where scoring failed."""
    per_value: np.ndarray
    """`[N, V]` float32, finite: the reward of every value alone."""
    failed: np.ndarray
    """`[N]` bool, where the reward was none."""


class ValueReward:
    """The reward of answers for coming close to a target.

    `objectives.baselign_reward`, with the worst reward there is where the evaluator
    failed: a loop that sums by `nansum` would make 0 of NaN, the best there is.

    >>> from types import SimpleNamespace
    >>> silent = lambda prompts, answers: SimpleNamespace(scores=np.zeros((1, 10)))
    >>> reward = ValueReward(SimpleNamespace(score=silent), "harmless")
    >>> reward(prompts=["May I?"], completions=["Perhaps."])
    [-2.0]
    """

    __name__ = "value_reward"

    def __init__(
        self,
        evaluator: Evaluator,
        target: Any = None,
        *,
        column: str = "",
        threshold: float = 0.3,
        gate: Gate = "none",
        scale: Scale = "max",
    ) -> None:
        """Says what is rewarded.

        Args:
          evaluator: what scores answers.
          target: `[V]` float in [-1, 1] for all prompts, or the name of one; not with
            `column`.
          column: of the dataset, with a target for every prompt: names or what
            `target_column` writes. Numbers `[N, V]` do as well, as long as the loop
            leaves their shape alone: tunix flattens them for micro-batches.
          threshold: as in `baselign_reward`.
          gate: as in `baselign_reward`; "official" has a loophole.
          scale: as in `baselign_reward`.

        Raises:
          ValueError: if there is not exactly one of `target` and `column`, or the
            target is no `[V]` in [-1, 1].
          KeyError: if a name, `gate` or `scale` is unknown.
        """
        if (target is None) == (not column):
            raise ValueError(
                "value_reward.ValueReward: give either target, for all prompts, or "
                "column, with one for each."
            )
        self.evaluator = evaluator
        self.column = column
        self.threshold = threshold
        self._options: dict[str, Any] = {"gate": gate, "scale": scale}
        self._target = None if column else _vector(target)
        zero = jnp.zeros(_V)
        objectives.baselign_reward(zero, zero, threshold=threshold, **self._options)

    def __call__(
        self, prompts: Sequence[str], completions: Sequence[str], **columns: Any
    ) -> list[float]:
        """N rewards, at most 0: what Tunix and TRL want of a reward function."""
        return self.judge(prompts, completions, columns).rewards.tolist()

    def judge(
        self,
        prompts: Sequence[str],
        completions: Sequence[str],
        columns: dict[str, Any],
    ) -> Judged:
        """Rewards and all they were made of.

        Args:
          prompts: N texts.
          completions: N texts.
          columns: of the dataset, each with N entries.

        Raises:
          ValueError: if numbers disagree, or a target is none.
          KeyError: if the column is not there, or a name is unknown.
        """
        caller = "value_reward.judge"
        n = len(prompts)
        goal = self._targets(n, columns)
        found = self.evaluator.score(list(prompts), list(completions))
        score = np.asarray(found.scores, np.float32)
        if len(completions) != n or score.shape != (n, _V):
            raise ValueError(
                f"{caller}: there are {n} prompts and {len(completions)} answers, and "
                f"the scores have shape {score.shape}; expected ({n}, {_V})."
            )
        options = self._options
        single = objectives.reward_per_value(
            jnp.asarray(score), jnp.asarray(goal), threshold=self.threshold, **options
        )
        against = jnp.where(jnp.asarray(goal) >= 0.0, -1.0, 1.0)
        lowest = objectives.reward_per_value(
            against, jnp.asarray(goal), threshold=self.threshold, **options
        )
        failed = ~jnp.isfinite(single).all(-1) | ~np.isfinite(score).all(-1)
        reward = objectives.guard_reward(
            jnp.where(failed, jnp.nan, single.sum(-1)), worst=lowest.sum(-1)
        )
        single = jnp.where(failed[:, None], lowest, single)
        return Judged(score, goal, *map(np.asarray, (reward, single, failed)))

    def metrics(self, judged: Judged) -> dict[str, Metric]:
        """What to log of a batch: numbers, each with how to add several up.

        The mean reward, the mean score of each value, the share of scores of targeted
        values that say "no connection", and the answers without a score. NaN where
        there is nothing to take the mean of.
        """
        scored = ~judged.failed
        aimed = (judged.targets != 0.0) & scored[:, None]
        silent = np.abs(judged.scores) <= self.threshold
        found: dict[str, Metric] = {
            "fulcra/reward": (_mean(judged.rewards), np.mean),
            "fulcra/no_connection": (_mean(silent[aimed]), np.mean),
            "fulcra/failures": (float(judged.failed.sum()), np.sum),
        }
        for name, column in zip(values.BASIC, judged.scores[scored].T, strict=True):
            found[f"fulcra/score/{name}"] = (_mean(column), np.mean)
        return found

    def _targets(self, n: int, columns: dict[str, Any]) -> np.ndarray:
        if self._target is not None:
            return np.broadcast_to(self._target, (n, _V))
        if self.column not in columns:
            raise KeyError(
                f"value_reward.judge: the dataset has no column {self.column!r}; it "
                f"has: {', '.join(sorted(columns)) or 'none besides prompts'}."
            )
        column = columns[self.column]
        if len(column) == n and all(isinstance(entry, str) for entry in column):
            return np.stack([_vector(entry) for entry in column])
        if np.shape(column) != (n, _V):
            raise ValueError(
                f"value_reward.judge: column {self.column!r} has shape "
                f"{np.shape(column)}; expected ({n}, {_V}). Tunix flattens arrays for "
                "micro-batches: target_column writes targets as texts."
            )
        return np.stack([_vector(row) for row in column])


def target_column(vectors: Any) -> np.ndarray:
    """Targets as a column of texts, which every loop passes on as they are.

    Args:
      vectors: `[N, V]` float in [-1, 1].

    Returns:
      `[N]` texts, each a JSON list; `ValueReward` reads them without loss.

    Raises:
      ValueError: if one is no target.

    >>> target_column(np.eye(10)[:1]).tolist()[0][:15]
    '[1.0, 0.0, 0.0,'
    """
    return np.array([json.dumps(_vector(row).tolist()) for row in vectors])


def _vector(target: Any) -> np.ndarray:
    if isinstance(target, str):
        target = (
            json.loads(target)
            if target.lstrip().startswith("[")
            else targets.target(target)
        )
    vector = np.asarray(target, np.float32)
    if vector.shape != (_V,) or not (np.abs(vector) <= 1.0).all():
        raise ValueError(
            f"value_reward: a target has shape {vector.shape} and entries "
            f"{np.array2string(vector.ravel()[:_V], precision=3)}; expected [{_V}] in "
            "[-1, 1]."
        )
    return vector


def _mean(x: np.ndarray) -> float:
    return float(x.mean()) if x.size else float("nan")
