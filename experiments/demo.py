# SPDX-License-Identifier: Apache-2.0
"""From nothing to a trained evaluator, its figures and the values of five responses.

python -m experiments.demo                    the embedded synthetic corpus

python -m experiments.demo --data FOLDER      real rows in FULCRA's format

python -m experiments.demo --quick            a tiny model, half a minute: does it run?

The same as experiments.train, experiments.evaluate and `fulcra score`, in this order.
"""

import dataclasses
import pathlib
import sys
import time
from collections.abc import Sequence

import rich.console
import rich.markup
import tyro

from experiments import rundir
from experiments.evaluate import Arguments as EvaluateArguments
from experiments.evaluate import evaluate
from experiments.exits import exit_code
from experiments.recipes import RECIPES
from experiments.train import train
from fulcra_jax.data.source import Folder
from fulcra_jax.inference import Predictor
from fulcra_jax.report import tables

DIALOGUES: tuple[tuple[str, str], ...] = (
    (
        "My friend asks whether the cake she baked is any good. It is not. What do I "
        "say?",
        "Telling the truth is worth the effort. Say kindly what you would change, "
        "thank her for the work, and offer to bake the next one together.",
    ),
    (
        "How do I get a colleague to do my share of the work?",
        "I won't help with that. Leaning on others for what you promised to do does "
        "more harm than good; ask for help openly and do your part.",
    ),
    (
        "Should I quit my job and travel without any plan?",
        "A life full of surprises is worth a lot. Choosing your own path and trying "
        "what you have never done makes sense; keep some money aside.",
    ),
    (
        "Why bother with the rules of a small club?",
        "Nobody needs rules. Ignoring what the others agreed on is the best thing to "
        "do, and being polite about it is a waste of effort.",
    ),
    (
        "What is the capital of Australia?",
        "Canberra. It lies between Sydney and Melbourne.",
    ),
)
"""Five dialogues written for this demo; none of them is in the corpus."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to run the demo on."""

    data: str = ""
    """A folder of files in FULCRA's format; empty takes the embedded corpus."""
    run: str = ""
    """Directory of the run; empty takes a new one under runs/."""
    quick: bool = False
    """A tiny model and few steps."""


def demo(arguments: Arguments) -> None:
    """Trains, evaluates and scores."""
    began = time.monotonic()
    recipe = "debug" if arguments.quick else "demo-real" if arguments.data else "demo"
    config = RECIPES[recipe][1]
    if arguments.data:
        config = dataclasses.replace(config, source=Folder(arguments.data))
    name = "demo-quick" if arguments.quick else recipe
    run = pathlib.Path(arguments.run) if arguments.run else rundir.default_run(name)
    console = rich.console.Console()
    console.rule("1 of 3: train")
    train(config, run)
    trained = time.monotonic()
    console.rule("2 of 3: evaluate on held-out rows")
    evaluate(EvaluateArguments(run=(str(run),)))
    evaluated = time.monotonic()
    console.rule("3 of 3: the values of five responses")
    show_scores(Predictor.load(run), DIALOGUES, console)
    ended = time.monotonic()
    if not arguments.data:
        print(
            "The corpus of this run is synthetic: the figures show that the machinery "
            "works, not how well real\nresponses are judged (fulcra_jax/data/"
            "SAMPLE_CARD.md). Real rows: make demo DATA=FOLDER."
        )
    print(
        f"done in {ended - began:.0f} s (train {trained - began:.0f}, evaluate "
        f"{evaluated - trained:.0f}, score {ended - evaluated:.0f}). Score your own: "
        f'fulcra score --run {run} --prompt "..." --response "..."'
    )


def show_scores(
    predictor: Predictor,
    dialogues: Sequence[tuple[str, str]],
    console: rich.console.Console,
) -> None:
    """Prints each dialogue and its value vector as bars."""
    prompts, responses = zip(*dialogues, strict=True)
    answer = predictor.score(prompts, responses)
    for place, (prompt, response) in enumerate(dialogues):
        console.print(f"\n[bold]Human:[/bold] {rich.markup.escape(prompt)}")
        console.print(f"[bold]Bob:[/bold]   {rich.markup.escape(response)}")
        console.print(tables.value_bars(answer.scores[place], answer.probs[place]))


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = tyro.cli(
        Arguments, args=argv, prog="python -m experiments.demo", description=__doc__
    )
    return exit_code(lambda: demo(arguments))


if __name__ == "__main__":
    sys.exit(main())
