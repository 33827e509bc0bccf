# SPDX-License-Identifier: Apache-2.0
"""Rewards per second: ten values in one pass against one pass for each value.

python -m experiments.benchmarks.reward

The released code asks its evaluator ten times for every response, each time with the
name and meaning of one value in front. Here both ways run end to end, texts in and
rewards out, with the same encoder (random weights: only time is measured), in
interleaved rounds.
"""

import dataclasses
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments import rundir
from experiments.exits import exit_code
from experiments.recipes import small_encoder
from fulcra_jax import models, objectives, targets, values
from fulcra_jax.configs import EvaluatorConfig, SharedHead
from fulcra_jax.data import rows, sample
from fulcra_jax.data.tokenizer import PairTokenizer
from fulcra_jax.inference import Predictor

MEANINGS = (
    "independent thought and action, choosing, creating, exploring",
    "excitement, novelty and challenge in life",
    "pleasure and sensuous gratification for oneself",
    "personal success through competence by social standards",
    "social status and prestige, control over people and resources",
    "safety, harmony and stability of society, relations and self",
    "respect for and acceptance of customs of culture or religion",
    "restraint of actions likely to upset others or violate norms",
    "care for the welfare of those one is close to",
    "understanding and protection of all people and of nature",
)
"""What stands in front of a response, by `values.BASIC`."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What is measured."""

    responses: int = 64
    """Scored in each call."""
    rounds: int = 5
    width: int = 256
    layers: int = 4
    out: str = "runs/benchmark-reward"

    def __post_init__(self) -> None:
        for field in ("responses", "rounds", "width", "layers"):
            if getattr(self, field) < 1:
                raise ValueError(
                    f"benchmarks.reward: {field} is {getattr(self, field)}; expected "
                    "at least 1."
                )


def predictor(arguments: Arguments, texts: Sequence[str]) -> Predictor:
    """An evaluator with random weights."""
    tokenizer = PairTokenizer.train(texts, 2000)
    encoder = small_encoder(
        arguments.width, arguments.layers, vocab_size=tokenizer.vocab_size
    )
    config = EvaluatorConfig(encoder, SharedHead(pool="mean", hidden=0))
    ids = jnp.zeros((1, 8), jnp.int32)
    params = models.Evaluator(config).init(
        jax.random.key(0), ids, ids > -1, token_type_ids=ids, deterministic=True
    )["params"]
    return Predictor(config, params, tokenizer, max_length=256, batch_size=32)


def measure(arguments: Arguments) -> dict[str, object]:
    """Times both ways and writes the figures."""
    records = sample.sample_records(0, arguments.responses)
    dialogues = [rows.split_dialogue(record["dialogue"]) for record in records]
    prompts, responses = (list(x) for x in zip(*dialogues, strict=True))
    evaluator = predictor(arguments, [*prompts, *responses, *MEANINGS])
    goal = targets.target("ideal")

    def one_pass() -> np.ndarray:
        scores = evaluator.score(prompts, responses).scores
        return np.asarray(objectives.baselign_reward(jnp.asarray(scores), goal))

    def ten_passes() -> np.ndarray:
        columns = []
        for place, name in enumerate(values.BASIC):
            asked = [f"{name}: {MEANINGS[place]}. {prompt}" for prompt in prompts]
            columns.append(evaluator.score(asked, responses).scores[:, place])
        scores = jnp.asarray(np.stack(columns, 1))
        return np.asarray(objectives.baselign_reward(scores, goal))

    ways = {"one pass": one_pass, "ten passes": ten_passes}
    for way in ways.values():
        way()  # compiles
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(arguments.rounds):
        for name, way in ways.items():
            times[name].append(_seconds(way))
        print(f"round {number + 1} of {arguments.rounds}", flush=True)
    ratios = [
        ten / one
        for one, ten in zip(times["one pass"], times["ten passes"], strict=True)
    ]
    medians = {name: statistics.median(x) for name, x in times.items()}
    ratio = medians["ten passes"] / medians["one pass"]
    for name, seconds in medians.items():
        print(f"{name}: {arguments.responses / seconds:.1f} rewards a second")
    print(
        f"one pass is {ratio:.1f} times as fast (single rounds {min(ratios):.1f} to "
        f"{max(ratios):.1f}) on {jax.devices()[0].device_kind}"
    )
    out = pathlib.Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    figures: dict[str, object] = {
        "arguments": dataclasses.asdict(arguments),
        "seconds": times,
        "ratio_of_medians": ratio,
        "device": jax.devices()[0].device_kind,
    }
    rundir.write_json(out / "reward.json", figures)
    return figures


def _seconds(way: Callable[[], object]) -> float:
    began = time.perf_counter()
    way()
    return time.perf_counter() - began


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = tyro.cli(
        Arguments,
        args=argv,
        prog="python -m experiments.benchmarks.reward",
        description=__doc__,
    )
    return exit_code(lambda: measure(arguments))


if __name__ == "__main__":
    sys.exit(main())
