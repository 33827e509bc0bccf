# SPDX-License-Identifier: Apache-2.0
"""Answers of a tunix policy to held-out prompts, before and after, and their figures.

scores_NAME.jsonl          answers with the scores of the evaluator
scores_NAME.second.jsonl   the same answers with those of the second one
NAME.text.json             what the texts look like, the KL, and the step; comes last
scores_pool.npz            scores of the answers for best-of-n
"""

import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments import rundir
from experiments.align import effects, measure
from experiments.align.settings import HeldOut
from experiments.align.tunix_settings import Arguments
from experiments.progress import Counter
from fulcra_jax import objectives, targets
from fulcra_jax.inference import (
    Predictor,
    ScoredAnswers,
    evaluator_id,
    read_scores,
    write_scores,
)


class Judge(NamedTuple):
    """An evaluator and what its scores are filed under."""

    predictor: Predictor
    name: str


class Goal(NamedTuple):
    """What a run asks for."""

    target: np.ndarray
    """`[V]` what is measured against."""
    trained: np.ndarray
    """`[V]` what is rewarded: the target, or its control."""
    disjoint: bool
    """Whether target and control share no value."""


def goal_of(arguments: Arguments) -> Goal:
    """Target, and what is trained.

    Raises:
      KeyError: if the target is unknown.
      ValueError: if it is none.
    """
    target = targets.parse_target(arguments.target)
    control = targets.control_target(target)
    trained = control.vector if arguments.control else target
    return Goal(target, trained, control.disjoint)


def judges(arguments: Arguments) -> dict[str, Judge]:
    """The evaluator that rewards, and the one that only looks, if there is one.

    Raises:
      FileNotFoundError: if one is not there.
      ValueError: if both are one and the same.
    """
    paths = {"evaluator": arguments.evaluator}
    if arguments.second:
        paths["second"] = arguments.second
    found = {
        who: Judge(Predictor.load(path, batch_size=64), evaluator_id(path))
        for who, path in paths.items()
    }
    hashes = [judge.name.rpartition("@")[2] for judge in found.values()]
    if len(set(hashes)) < len(hashes):
        raise ValueError(
            f"align tunix: the second evaluator {arguments.second} is the one that "
            "gives the reward; expected another, which was not trained against."
        )
    return found


class Measurement:
    """Draws, scores and files the answers of a policy."""

    def __init__(
        self,
        out: pathlib.Path,
        arguments: Arguments,
        prompts: list[str],
        judged_by: Mapping[str, Judge],
        heed: Callable[[], None],
    ) -> None:
        """Says where and on what is measured.

        Args:
          out: the directory of the run.
          arguments: of the run.
          prompts: the held-out ones.
          judged_by: of `judges`.
          heed: called often; raises to stop.
        """
        self._out, self._arguments, self._prompts = out, arguments, prompts
        self._judges, self._heed = judged_by, heed
        self._held_out = arguments.measured()

    def is_done(self, name: str, step: int) -> bool:
        """Whether a set of answers is there, of that step."""
        path = self._out / f"{name}.text.json"
        return path.is_file() and json.loads(path.read_text())["step"] == step

    def of(
        self, draw: Callable[[list[str], Any], Any], name: str, model: str, step: int
    ) -> None:
        """Measures a policy.

        Args:
          draw: prompts and progress -> `alignment.tunix.Answers`.
          name: before or after.
          model: who answers.
          step: of the policy.
        """
        said = self._said(draw, self._held_out.answers, name)
        for who, judge in self._judges.items():
            scored = measure.score(
                said, judge.predictor, f"{model}, {name}", judge.name, self._watch
            )
            write_scores(scores_file(self._out, name, who), scored)
        kl = measure.means({"kl": said.kl}, self._held_out)["kl"]
        text = measure.text_figures(said, self._held_out.answers)
        entries = text | {"kl_interval": [kl.low, kl.high], "step": step}
        rundir.write_whole(self._out / f"{name}.text.json", entries)

    def pool(self, draw: Callable[[list[str], Any], Any]) -> None:
        """Draws and scores the answers for best-of-n."""
        said = self._said(draw, self._arguments.best_of, "best-of-n")
        scores = {
            who: judge.predictor.score(
                said.prompts, said.responses, progress=self._watch
            ).scores
            for who, judge in self._judges.items()
        }
        half = self._out / "scores_pool.part.npz"
        np.savez_compressed(half, allow_pickle=False, **scores)
        os.replace(half, self._out / "scores_pool.npz")

    def _said(self, draw: Callable[..., Any], answers: int, what: str) -> measure.Said:
        prompts = [prompt for prompt in self._prompts for _ in range(answers)]
        print(f"{what}: {len(prompts):,} answers to held-out prompts", flush=True)
        counted = Counter("answered", len(prompts))

        def progress(done: int) -> None:
            counted(done)
            self._heed()

        drawn = draw(prompts, progress)
        return measure.Said(prompts, drawn.texts, drawn.kl, drawn.tokens)

    def _watch(self, _: int) -> None:
        self._heed()


def scores_file(out: pathlib.Path, name: str, who: str) -> pathlib.Path:
    """Where the scores of a set of answers stand."""
    return out / f"scores_{name}{'' if who == 'evaluator' else '.second'}.jsonl"


def scored(out: pathlib.Path, name: str) -> dict[str, ScoredAnswers]:
    """The scored answers of a run, by who scored them."""
    paths = {who: scores_file(out, name, who) for who in ("evaluator", "second")}
    return {
        who: read_scores(path)
        for who, path in paths.items()
        if who == "evaluator" or path.is_file()
    }


def quantities(
    out: pathlib.Path, name: str, target: np.ndarray
) -> dict[str, dict[str, np.ndarray]]:
    """All that is averaged of a set of answers."""
    scores = {who: x.scores for who, x in scored(out, name).items()}
    return effects.quantities(scores, target)


def text_of(out: pathlib.Path, name: str) -> dict[str, Any]:
    """What the texts of a set of answers look like."""
    return json.loads((out / f"{name}.text.json").read_text(encoding="utf-8"))


def _alarms(
    out: pathlib.Path,
    arguments: Arguments,
    goal: Goal,
    entry: Mapping[str, Any],
    start: Mapping[str, Any],
) -> list[str]:
    """Alarms for what was trained on, which a control run does not share."""
    before, after = (
        quantities(out, name, goal.trained) for name in ("before", "after")
    )
    released = arguments.gate == "official"
    return effects.alarms(
        effects.change(after, before, arguments.measured()),
        entry["text"],
        start["text"],
        reward="released reward" if released else "reward",
    )


def figures(out: pathlib.Path, arguments: Arguments, goal: Goal) -> dict[str, Any]:
    """All figures of a run, from its files; the same shape as those of a study."""
    held_out, target = arguments.measured(), goal.target
    before, after = (quantities(out, name, target) for name in ("before", "after"))
    start = effects.means(before, text_of(out, "before"), held_out)
    name = "control" if arguments.control else "target"
    entry: dict[str, Any] = effects.means(after, text_of(out, "after"), held_out)
    entry |= {"arm": name, "seed": arguments.seed}
    entry["change"] = effects.change(after, before, held_out)
    entry["alarms"] = _alarms(out, arguments, goal, entry, start)
    if arguments.best_of:
        entry["best_of_n"] = _best_of_n(out, arguments, goal, held_out, entry)
    return {
        "target": target.tolist(),
        "trained": goal.trained.tolist(),
        "control_is_disjoint": goal.disjoint,
        "start": start,
        "arms": {name: entry},
        "specificity": {},
    }


def _best_of_n(
    out: pathlib.Path,
    arguments: Arguments,
    goal: Goal,
    held_out: HeldOut,
    entry: Mapping[str, Any],
) -> dict[str, Any]:
    """The best of the start by the reward that was trained on."""
    who = [name for name in ("evaluator", "second") if name in entry["change"]]
    pool = effects.read_pool(out / "scores_pool.npz", held_out, who)
    reward = objectives.baselign_reward(
        jnp.asarray(pool["evaluator"], jnp.float32),
        jnp.asarray(goal.trained, jnp.float32),
        gate=arguments.gate,
    )
    return effects.best_of_n(
        effects.quantities(pool, goal.target),
        entry["text"]["kl"],
        held_out,
        chosen_by=np.asarray(reward),
    )
