# SPDX-License-Identifier: Apache-2.0
"""`fulcra score`: the values of one response, or of a file of them.

What is shown of one response is as a decisions.json beside the weights has it. A file
of scores always has the evaluator's own scores and probabilities.
"""

import dataclasses
import json
import pathlib
from typing import Any, NamedTuple

import rich.console
import tyro

from fulcra_jax import values
from fulcra_jax.cli.files import check_new
from fulcra_jax.cli.progress import Bar
from fulcra_jax.data.rows import check_text, lines_of, split_dialogue
from fulcra_jax.report import tables


@dataclasses.dataclass(frozen=True)
class Score:
    """Scores one response, or every line of a file, with a trained evaluator.

    Where one response is shown, a decisions.json beside the weights says which class is
    named, and calibrates the probabilities; a file of scores has the evaluator's own.
    """

    run: tyro.conf.UseAppendAction[tuple[str, ...]]
    """The directory of a finished run, of a model or of an ensemble; given several
    times, the mean of all."""
    prompt: str = ""
    """What the human said."""
    response: str = ""
    """What the model said."""
    data: str = ""
    """A .jsonl file; each line has dialogue, or prompt and response (or answer)."""
    model: str = "unknown"
    """Who answered, where a line of `data` has no model and no response_source."""
    out: str = ""
    """Where to write the scores of `data`; it must not exist. Empty prints them."""
    batch_size: int = 32
    """Rows per call of the model."""
    decisions: bool = True
    """Whether a decisions.json in the directory is used for what is shown."""


class Answer(NamedTuple):
    """What one model said to one prompt."""

    prompt: str
    response: str
    model: str


def run(arguments: Score) -> None:
    """Runs `fulcra score`."""
    if arguments.batch_size < 1:
        raise ValueError(
            f"score: batch_size is {arguments.batch_size}; it should be at least 1."
        )
    one = bool(arguments.response.strip())
    if one == bool(arguments.data):
        raise ValueError("score: give either --response (and --prompt) or --data.")
    check_new(arguments.out, "--out")
    check_text("--model", arguments.model)
    answers = (
        [Answer(arguments.prompt, arguments.response, arguments.model)]
        if one
        else read_answers(pathlib.Path(arguments.data), arguments.model)
    )
    # Imported here: a wrong argument needs no model.
    from fulcra_jax import inference

    predictor = inference.load_predictor(
        arguments.run, batch_size=arguments.batch_size, decisions=arguments.decisions
    )
    prompts, responses, models = map(list, zip(*answers, strict=True))
    with Bar(len(answers), shown=not one) as progress:
        found = predictor.score(prompts, responses, progress=progress)
    if one:
        bars = tables.value_bars(
            found.scores[0], found.calibrated()[0], classes=found.classes()[0]
        )
        rich.console.Console().print(bars)
        if predictor.decisions is not None:
            fitted = predictor.decisions
            print(
                f"Calibrated by decisions.json ({fitted.rows} rows, {fitted.data}), "
                "which may name a class that is not the likeliest: --no-decisions has "
                "the evaluator's own."
            )
        return
    evaluator = inference.ensemble_id(arguments.run)
    scored = inference.ScoredAnswers(
        prompts,
        responses,
        models,
        found.scores,
        found.probs,
        [evaluator] * len(answers),
    )
    if not arguments.out:
        for line in inference.format_scores(scored):
            print(line)
        return
    check_new(arguments.out, "--out")  # it may have come meanwhile
    inference.write_scores(arguments.out, scored)
    means = ", ".join(
        f"{name} {mean:+.2f}"
        for name, mean in zip(values.ABBREVIATIONS, found.scores.mean(0), strict=True)
    )
    print(f"{len(answers)} responses scored; means: {means}; {arguments.out}")


def read_answers(path: pathlib.Path, model: str) -> list[Answer]:
    """The answer in every line of a file, labelled or not.

    Several answers may have the same prompt.

    Args:
      path: the .jsonl file.
      model: who answered, for lines that do not say.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a line holds no answer; it names file, line and field. All lines
        are looked at before anything is scored.
    """
    answers = []
    for number, raw in lines_of(path):
        try:
            answers.append(_answer(json.loads(raw.decode("utf-8")), model))
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path}:{number}: is not UTF-8 (byte {error.start})."
            ) from None
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number}: is no JSON ({error.msg}).") from None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}:{number}: {error!s:.200}") from None
    if not answers:
        raise ValueError(
            f"{path}: the file is empty; it should hold one response a line."
        )
    return answers


def _answer(record: Any, model: str) -> Answer:
    if not isinstance(record, dict):
        raise ValueError("is no JSON object.")
    for field in ("model", "response_source"):
        if record.get(field) not in (None, ""):
            model = check_text(field, record[field])
            break
    if "dialogue" in record:
        dialogue = check_text("dialogue", record["dialogue"])
        return Answer(*split_dialogue(dialogue), model)
    if "prompt" not in record or not {"response", "answer"} & set(record):
        raise ValueError("should have the texts dialogue, or prompt and response.")
    prompt = check_text("prompt", record["prompt"])
    response = check_text("response", record.get("response", record.get("answer")))
    if not response.strip():
        raise ValueError("response: is empty.")
    return Answer(prompt, response, model)
