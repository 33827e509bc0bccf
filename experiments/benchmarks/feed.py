# SPDX-License-Identifier: Apache-2.0
"""Examples a second of the input pipeline alone, and of the training step alone.

python -m experiments.benchmarks.feed

python -m experiments.benchmarks.feed --examples 500 --rounds 2

The recipe `demo`: its rows, tokenizer and evaluator (random weights: only time is
measured), in batches padded to its ladder and in packed rows. The step trains on
batches that lie on the device already. The pipeline makes all batches of an epoch, with
no device at work: cold, it tokenises the rows, writes the cache and reads it; warm, it
opens the cache, checks it and reads it. All are timed in turn in every round, without
compilation; a round beside which other processes used the CPU is repeated. Writes
OUT/feed.json and feed.md.
"""

import contextlib
import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import tyro

from experiments.benchmarks import rounds
from experiments.benchmarks.encoder_report import foreign_load
from experiments.exits import exit_code
from experiments.recipes import DEMO
from fulcra_jax import models, objectives
from fulcra_jax.data import batches, plan, source, tokens
from fulcra_jax.data.batches import Batch
from fulcra_jax.data.feed import Feed
from fulcra_jax.data.rows import Row
from fulcra_jax.data.tokenizer import PairTokenizer
from fulcra_jax.training import optimizer, step

FILES = ("feed.json", "feed.md")
LAYOUTS = {"ladder": "padded to a ladder", "packed": "packed rows"}
CACHES = ("cold", "warm")
BAR = 5.0
_KEY = "0" * 64


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What is measured."""

    examples: int = 5000
    """Rows of the embedded corpus: an epoch."""
    batch_size: int = DEMO.batch_size
    """Of padded batches."""
    rows: int = 12
    """Packed rows in a batch."""
    capacity: int = DEMO.text.max_length
    """Tokens of a packed row; at least what the recipe cuts texts to."""
    batches: int = plan.WINDOW
    """The first ones of training, on the device, that the step is timed on."""
    threads: int = 2
    """That make batches."""
    prefetch: int = 4
    """Most batches that wait to be taken."""
    rounds: int = 5
    """Quiet rounds that count."""
    retries: int = 5
    """Rounds repeated because of foreign load."""
    foreign: float = 0.05
    """Most share of the processors that others may use in a round."""
    out: str = "runs/benchmark-feed"


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows of the recipe, and what tokenises them."""

    rows: list[Row]
    tokenizer: PairTokenizer

    def encode(self) -> batches.Examples:
        """All of them."""
        encoded = self.tokenizer.encode(
            [row.prompt for row in self.rows],
            [row.response for row in self.rows],
            max_length=DEMO.text.max_length,
        )
        return batches.Examples(encoded, *source.label_arrays(self.rows))

    def feed(self, root: str, settings: plan.Settings) -> Feed:
        """From the cache in `root`, made first where it is not there."""
        found = tokens.cached(root, _KEY, self.encode)
        return Feed(found, settings, seed=DEMO.seed, pad_id=self.tokenizer.pad_id)


def benchmark(arguments: Arguments) -> dict[str, Any]:
    """Measures, writes table and figures."""
    check(arguments)
    out = rounds.directory("benchmarks.feed", arguments.out, FILES)
    found = source.sample_rows(0, arguments.examples)
    texts = [text for row in found for text in (row.prompt, row.response)]
    rows = Rows(found, PairTokenizer.train(texts, DEMO.text.vocab_size))
    with tempfile.TemporaryDirectory() as root:
        ways, counts, padding = {}, {}, {}
        for name, settings in settings_of(arguments).items():
            feed = rows.feed(root, settings)
            some = [feed.batch(number) for number in range(arguments.batches)]
            print(f"{name}: compiling ...", flush=True)
            ways[f"step {name}"] = step_of(rows.tokenizer.vocab_size, some)
            counts[f"step {name}"] = sum(
                len(feed.examples_at(number)) for number in range(arguments.batches)
            )
            epoch = range(feed.steps(1.0))
            padding[name] = padding_of([feed.batch(number) for number in epoch])
            for cache in CACHES:
                way = cold if cache == "cold" else warm
                ways[f"{cache} {name}"] = way(arguments, rows, root, settings)
                counts[f"{cache} {name}"] = sum(
                    len(feed.examples_at(number)) for number in epoch
                )
        print("measuring ...", flush=True)
        measured = rounds.measure(
            ways,
            rounds=arguments.rounds,
            retries=arguments.retries,
            least_seconds=0.0,
            foreign_limit=(
                arguments.foreign if jax.default_backend() == "cpu" else None
            ),
        )
    report = report_of(arguments, measured, counts, padding)
    (out / "feed.json").write_text(json.dumps(report, indent=1) + "\n")
    (out / "feed.md").write_text(table(report))
    print(table(report))
    return report


def check(arguments: Arguments) -> None:
    """Raises ValueError if a number is out of range."""
    for field, least in (
        ("examples", 1), ("batch_size", 1), ("rows", 1), ("batches", 1),
        ("capacity", DEMO.text.max_length), ("threads", 0), ("rounds", 1),
        ("prefetch", max(arguments.threads, 1)), ("retries", 0),
    ):  # fmt: skip
        number = getattr(arguments, field)
        if number < least:
            raise ValueError(
                f"benchmarks.feed: {field} is {number}; expected at least {least}."
            )
    if not 0.0 <= arguments.foreign <= 1.0:
        raise ValueError(
            f"benchmarks.feed: foreign is {arguments.foreign}; expected a share in "
            "[0, 1]."
        )


def settings_of(arguments: Arguments) -> dict[str, plan.Settings]:
    """How batches are laid out, by name."""
    rungs = batches.ladder_up_to(DEMO.text.max_length, DEMO.text.ladder)
    return {
        "ladder": plan.Ladder(arguments.batch_size, rungs),
        "packed": plan.Packed(arguments.rows, arguments.capacity),
    }


def step_of(vocab_size: int, some: Sequence[Batch]) -> Callable[[], object]:
    """One pass of training steps over batches that are on the device."""
    encoder = dataclasses.replace(DEMO.evaluator.encoder, vocab_size=vocab_size)
    config = dataclasses.replace(DEMO.evaluator, encoder=encoder)
    evaluator = models.Evaluator(config)

    def cell_loss(
        params: Any, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        logits = models.apply_evaluator(evaluator, params, batch, key=key).logits
        labels, where = jnp.asarray(batch["labels"]), jnp.asarray(batch["where"])
        return objectives.ternary_cross_entropy(logits, labels, where=where), where

    transformation = optimizer.make_optimizer(DEMO.optimizer, 1000)
    train_step = jax.jit(step.make_train_step(cell_loss, transformation, seed=0))
    ids = jnp.zeros((1, 8), jnp.int32)
    params = jax.jit(
        lambda key: evaluator.init(
            key, ids, ids > -1, token_type_ids=ids, deterministic=True
        )
    )(jax.random.key(0))["params"]
    state = step.init_state(params, transformation)
    placed = [jax.device_put(batch) for batch in some]

    def call() -> None:
        # From the same state in every round; the numbers do not matter.
        now = state
        for batch in placed:
            now, _ = train_step(now, batch)
        jax.block_until_ready(now)

    return call


def cold(
    arguments: Arguments, rows: Rows, _: str, settings: plan.Settings
) -> Callable[[], object]:
    """An epoch from rows: tokenised, written and read."""

    def call() -> None:
        with tempfile.TemporaryDirectory() as root:
            run_through(arguments, rows.feed(root, settings))

    return call


def warm(
    arguments: Arguments, rows: Rows, root: str, settings: plan.Settings
) -> Callable[[], object]:
    """An epoch from a cache that is there: opened, checked and read."""
    return lambda: run_through(arguments, rows.feed(root, settings))


def run_through(arguments: Arguments, feed: Feed) -> None:
    """Takes all batches of an epoch."""
    ahead = feed.iterate(
        0, feed.steps(1.0), threads=arguments.threads, prefetch=arguments.prefetch
    )
    with contextlib.closing(ahead):
        for _ in ahead:
            pass


def padding_of(some: Sequence[Batch]) -> float:
    """The share of all places that hold no token."""
    places = sum(batch["mask"].size for batch in some)
    return 1.0 - float(sum(batch["mask"].sum() for batch in some)) / places


def report_of(
    arguments: Arguments,
    measured: rounds.Measured,
    counts: dict[str, int],
    padding: dict[str, float],
) -> dict[str, Any]:
    """All figures. A ratio is that of examples a second, over those of the step."""
    ratios = {}
    for layout in LAYOUTS:
        for cache in CACHES:
            names = f"step {layout}", f"{cache} {layout}"
            each = counts[names[1]] / counts[names[0]]
            ratio = measured.ratio(*names)
            ratios[names[1]] = {name: each * x for name, x in ratio.items()}
    seconds = {name: measured.seconds(name) for name in counts}
    return {
        "arguments": dataclasses.asdict(arguments),
        "machine": rounds.machine()
        | {"device": jax.devices()[0].device_kind, "jax": jax.__version__},
        "load": rounds.load_average(),
        "padding": padding,
        "examples": counts,
        "seconds": seconds,
        "examples a second": {
            name: counts[name] / found["median"] for name, found in seconds.items()
        },
        "over the step": ratios,
        "bars": [
            f"bar: {name}, over the step: {ratio['median']:.3g}, wanted >= {BAR:g}: "
            + ("void, " if measured.void else "")
            + ("holds" if ratio["median"] >= BAR else "does not hold")
            for name, ratio in ratios.items()
        ],
        **measured.to_json(),
    }


def table(report: dict[str, Any]) -> str:
    """Markdown of all figures, the bars last."""
    asked, rates = report["arguments"], report["examples a second"]
    about = ", ".join(f"{name} {what}" for name, what in report["machine"].items())
    void = " VOID" if report["void"] else ""
    lines = [
        f"Machine: {about}. Load average {report['load']}. Encoder of the recipe "
        f"demo, {asked['examples']:,} rows of the embedded corpus, batches of "
        f"{asked['batch_size']} texts or {asked['rows']} rows of {asked['capacity']} "
        f"tokens, {asked['threads']} threads. Examples a second; the ratio of medians "
        f"to the step (range over {asked['rounds']} interleaved rounds).",
        "",
        foreign_load([report]),
        "",
        "| batches | padding | step | cold | over the step | warm | over the step |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for layout, label in LAYOUTS.items():
        entries = [label, f"{report['padding'][layout]:.1%}"]
        entries.append(rounds.digits(rates[f"step {layout}"]) + void)
        for cache in CACHES:
            name = f"{cache} {layout}"
            entries.append(rounds.digits(rates[name]) + void)
            entries.append(rounds.between(report["over the step"][name]))
        lines.append(f"| {' | '.join(entries)} |")
    return "\n".join([*lines, "", *report["bars"]]) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return exit_code(
        lambda: benchmark(
            tyro.cli(
                Arguments,
                args=argv,
                prog="python -m experiments.benchmarks.feed",
                description=__doc__,
            )
        )
    )


if __name__ == "__main__":
    sys.exit(main())
