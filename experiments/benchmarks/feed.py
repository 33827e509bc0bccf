# SPDX-License-Identifier: Apache-2.0
"""How fast batches are made, beside the training step that eats them.

python -m experiments.benchmarks.feed --out runs/benchmarks/feed

An epoch of rows of the embedded corpus, at the encoder size of the recipe demo: the
training steps alone on batches that lie on the device; and the input pipeline alone
(rows to tokens, array_record, plan, batches by threads), with an empty cache and with a
full one, padded by the ladder and packed. All are timed in turn in every round. Writes
OUT/feed.md and feed.json.
"""

import dataclasses
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import tyro

from experiments import prepare, rundir
from experiments.benchmarks import rounds
from experiments.exits import exit_code
from experiments.recipes import RECIPES
from fulcra_jax import models
from fulcra_jax.data import feed, packing, source, tokens
from fulcra_jax.report import tables
from fulcra_jax.training import optimizer, step

FILES = ("feed.md", "feed.json")
TRAINING = "training steps alone"


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What is measured."""

    out: str = "runs/benchmarks/feed"
    """A folder for the table."""
    recipe: str = "demo"
    """Whose encoder and texts."""
    rows: int = 1000
    """Of the corpus."""
    rounds: int = 5
    """Quiet rounds that count."""
    retries: int = 5
    """Rounds repeated for foreign load."""
    foreign: float = 0.05
    """Most share of the processors that others may use in a round."""

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            raise ValueError(
                f"benchmarks.feed: recipe is {self.recipe!r}; it should be one of: "
                f"{', '.join(RECIPES)}."
            )
        for field, low in (("rows", 64), ("rounds", 1), ("retries", 0)):
            if getattr(self, field) < low:
                raise ValueError(
                    f"benchmarks.feed: {field} is {getattr(self, field)}; it should be "
                    f"at least {low}."
                )


def pipelines(
    arguments: Arguments, data: prepare.Prepared, cache: pathlib.Path
) -> dict[str, Callable[[], list[Any]]]:
    """Each makes all batches of an epoch."""

    def run(packed: bool, key: str) -> list[Any]:
        text = dataclasses.replace(data.config.text, packed=packed)
        config = dataclasses.replace(data.config, text=text)
        make = lambda: prepare.encode(config, data.tokenizer, data.train_rows)
        found = tokens.cached(cache, key, make)
        plan = prepare.make_plan(config, found)
        made = feed.Feed(found, plan, seed=0, pad_id=data.tokenizer.pad_id)
        return [batch for _, batch in made.iterate(0, plan.steps(1.0))]

    def cold(packed: bool) -> list[Any]:
        shutil.rmtree(cache / "cold", ignore_errors=True)
        return run(packed, "cold")

    run(False, "warm")
    return {
        "padded, cache cold": lambda: cold(False),
        "padded, cache warm": lambda: run(False, "warm"),
        "packed, cache cold": lambda: cold(True),
        "packed, cache warm": lambda: run(True, "warm"),
    }


def training(data: prepare.Prepared, batches: Sequence[Any]) -> Callable[[], jax.Array]:
    """Trains on batches that lie on the device."""
    config = data.config
    evaluator = models.Evaluator(config.evaluator)
    transformation = optimizer.make_optimizer(config.optimizer, 10**6)
    found = tokens.Tokens.in_memory(
        prepare.encode(config, data.tokenizer, data.train_rows)
    )
    cells = prepare.make_cell_loss(config, evaluator, found)
    train_step = jax.jit(
        step.make_train_step(cells, transformation, seed=0), donate_argnums=0
    )
    placed = [jax.device_put(batch) for batch in batches]
    state = jax.jit(prepare.make_init(config, evaluator, transformation))()
    held = [state]

    def run() -> jax.Array:
        for batch in placed:
            held[0], _ = train_step(held[0], batch)
        return jax.block_until_ready(held[0].step)

    return run


def benchmark(arguments: Arguments) -> dict[str, Any]:
    """Measures, prints and writes the table."""
    out = rounds.directory("benchmarks.feed", arguments.out, FILES)
    recipe = RECIPES[arguments.recipe][1]
    config = dataclasses.replace(
        recipe, source=source.Embedded(train=arguments.rows, dev=8, test=8)
    )
    data = prepare.prepare(config, pathlib.Path("no run"))
    with tempfile.TemporaryDirectory() as folder:
        ways: dict[str, Callable[[], object]] = dict(
            pipelines(arguments, data, pathlib.Path(folder))
        )
        padded = ways["padded, cache warm"]()
        packed = ways["packed, cache warm"]()
        ways[TRAINING] = training(data, padded)  # pyright: ignore[reportArgumentType]
        print(f"{len(padded)} steps: compiling ...", flush=True)
        found = rounds.measure(
            ways,
            rounds=arguments.rounds,
            retries=arguments.retries,
            least_seconds=0.0,
            foreign_limit=arguments.foreign,
        )
    report = rundir.about() | {
        "arguments": dataclasses.asdict(arguments),
        "padding": {
            name: packing.padding_share(
                np.concatenate([b["mask"].ravel() for b in made])
            )
            for name, made in (("padded", padded), ("packed", packed))
        },
        "ways": {
            name: {"seconds": found.seconds(name), "times": found.ratio(TRAINING, name)}
            for name in ways
        },
        "measured": found.to_json(),
        "void": found.void,
    }
    rundir.write_json(out / "feed.json", report)
    table = table_of(report)
    tables.show(table)
    (out / "feed.md").write_text(tables.markdown(table))
    print(f"written to {out}/: {', '.join(FILES)}")
    return report


def table_of(report: dict[str, Any]) -> tables.Table:
    """Examples a second, and how many times those of the training."""
    N = report["arguments"]["rows"]
    lines = []
    for name, way in report["ways"].items():
        seconds = way["seconds"]
        lines.append(
            [
                name,
                f"{N / seconds['median']:,.0f}",
                f"{N / seconds['high']:,.0f} to {N / seconds['low']:,.0f}",
                f"{rounds.between(way['times'])}",
            ]
        )
    void = "VOID, others used the processors: " if report["void"] else ""
    padding = ", ".join(f"{k} {v:.1%}" for k, v in report["padding"].items())
    return (
        f"{void}{N} rows; padding: {padding}",
        ["", "examples/s", "range", "times the training"],
        lines,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = tyro.cli(
        Arguments,
        args=argv,
        prog="python -m experiments.benchmarks.feed",
        description=__doc__,
    )
    return exit_code(lambda: benchmark(arguments))


if __name__ == "__main__":
    sys.exit(main())
