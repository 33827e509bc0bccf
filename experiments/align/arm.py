# SPDX-License-Identifier: Apache-2.0
"""One arm with one seed: the loop that moves the toy language model.

A folder of its own: arm.json (what it is), metrics.jsonl, checkpoints/, and at the end
the decoder. Killed at any moment, the same command continues it; keys and prompts
follow from (seed, step), so that it ends with the same parameters, bit for bit on CPU.
"""

import dataclasses
import json
import math
import pathlib
import shutil
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import rundir
from experiments.align import measure, policy
from experiments.align.settings import Arm, Study, Training
from experiments.exits import Interrupted, Stop
from experiments.progress import Progress
from experiments.toy_lm import decoder as toy
from experiments.toy_lm import files, sampling, texts
from fulcra_jax import values
from fulcra_jax.inference import Predictor
from fulcra_jax.objectives.distance import Gate
from fulcra_jax.training import checkpoint, writers
from fulcra_jax.training.meter import Meter


class Start(NamedTuple):
    """The language model before alignment."""

    config: toy.DecoderConfig
    params: Any
    codec: texts.Codec


class Goal(NamedTuple):
    """What an arm is rewarded for."""

    target: np.ndarray
    """`[V]`"""
    gate: Gate


def folder(study: Study, arm: Arm, seed: int) -> pathlib.Path:
    """Where an arm with a seed stands."""
    return pathlib.Path(study.out) / "arms" / f"{arm}-seed{seed}"


def is_finished(path: pathlib.Path) -> bool:
    """Whether an arm has its aligned decoder."""
    return (path / "decoder" / "decoder.json").is_file()


def train(
    path: pathlib.Path,
    goal: Goal,
    seed: int,
    training: Training,
    start: Start,
    evaluator: Predictor,
    stop: Stop,
) -> None:
    """Trains one arm, or goes on with it, until its decoder is written."""
    rundir.begin(
        path / "arm.json",
        {
            "target": goal.target.tolist(),
            "gate": goal.gate,
            "seed": seed,
            "training": dataclasses.asdict(training),
        },
    )
    pool = texts.prompts(seed=0, n=training.prompt_pool, split="train")
    ids, where = start.codec.encode_prompts(pool)
    config, codec = start.config, start.codec
    banned = jnp.asarray(codec.banned)
    update = policy.make_update(
        config, training, start.params, jnp.asarray(goal.target, jnp.float32),
        goal.gate, banned,
    )  # fmt: skip
    key = jax.random.fold_in(jax.random.key(seed), 1)

    def draw(params: Any, number: int) -> tuple[np.ndarray, policy.Answers]:
        rows = np.repeat(prompts_of_step(number, seed, training), training.answers)
        prompts, present = jnp.asarray(ids[rows]), jnp.asarray(where[rows])
        drawn = sampling.draw_with(
            codec, config, params, jax.random.fold_in(key, number), prompts, present
        )
        return rows, policy.Answers(
            prompts, present, drawn.tokens, drawn.where, drawn.log_prob
        )

    with checkpoint.Checkpoints(path / "checkpoints", keep=2) as saved:
        state = saved.newest(policy.init_state(start.params, training))
        begun = int(state.step)
        writers.cut(path / "metrics.jsonl", begun)
        meter = Meter()
        with Progress(begun, training.steps, meter) as progress:
            for number in range(begun, training.steps):
                if stop.asked:
                    saved.save(number, state)
                    saved.wait()
                    raise Interrupted(
                        f"stopped at step {number} of {training.steps} in {path}; the "
                        "same command continues."
                    )
                step_began = time.monotonic()
                rows, answers = draw(state.params, number)
                said = codec.decode(
                    np.asarray(answers.tokens), np.asarray(answers.where)
                )
                scores = evaluator.score([pool[row] for row in rows], said).scores
                if not np.isfinite(scores).all():
                    raise FloatingPointError(
                        f"align: the evaluator gives NaN at step {number + 1} of "
                        f"{path}; the last good checkpoint remains."
                    )
                state, metrics = update(state, answers, jnp.asarray(scores))
                look(path, number + 1, metrics, scores, said, goal, step_began)
                meter.count(len(rows), int(answers.where.sum()), answers.where.size)
                progress.show(number + 1, float(metrics["loss"]))
                if (number + 1) % training.save_every == 0:
                    saved.save(number + 1, state)
        saved.save(training.steps, state)
        saved.wait()
    files.save(
        path / "decoder.partial", config, state.params, codec, {"arm": path.name}
    )
    shutil.rmtree(path / "decoder", ignore_errors=True)
    (path / "decoder.partial").rename(path / "decoder")


def prompts_of_step(number: int, seed: int, training: Training) -> np.ndarray:
    """`[prompts]` places in the pool: an endless stream of permutations, cut."""
    size = training.prompt_pool
    first = number * training.prompts
    order: dict[int, np.ndarray] = {}
    for place in range(first, first + training.prompts):
        epoch = place // size
        if epoch not in order:
            order[epoch] = np.random.default_rng([seed, epoch]).permutation(size)
    return np.array(
        [order[i // size][i % size] for i in range(first, first + training.prompts)]
    )


def look(
    path: pathlib.Path,
    number: int,
    metrics: policy.Metrics,
    scores: np.ndarray,
    said: list[str],
    goal: Goal,
    began: float,
) -> None:
    """Writes a line of metrics; stops on a loss that is no number."""
    loss = float(metrics["loss"])
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"align: the loss is {loss} at step {number} of {path}; the last good "
            "checkpoint remains. Try a lower --training.learning-rate."
        )
    targeted = measure.targeted(goal.target)
    mean = scores.mean(0)
    line = {
        "time": round(time.time(), 3),
        "step": number,
        "seconds": round(time.monotonic() - began, 3),
        **{name: float(x) for name, x in metrics.items()},
        "no_connection": float(
            (abs(scores[:, targeted]) <= measure.NO_CONNECTION).mean()
        ),
        "distinct_2": measure.distinct_n(said, 2),
        "words": float(np.mean([len(text.split()) for text in said])),
        "scores": dict(zip(values.ABBREVIATIONS, mean.tolist(), strict=True)),
    }
    with (path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
