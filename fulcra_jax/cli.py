# SPDX-License-Identifier: Apache-2.0
"""The `fulcra` command; thin: it parses, calls and prints.

fulcra score --run RUN --prompt "..." --response "..."   one response, with bars

fulcra score --run RUN --data FILE --out SCORES.jsonl    a file of them

fulcra rows FILE                                         what a file holds, what is bad
"""

import dataclasses
import json
import pathlib
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import rich.console
import rich.progress
import tyro

from fulcra_jax import values
from fulcra_jax.data import source
from fulcra_jax.data.rows import (
    Policy,
    check_text,
    lines_of,
    read_rows,
    split_dialogue,
    write_rejects,
)
from fulcra_jax.report import tables


@dataclasses.dataclass(frozen=True)
class Score:
    """Scores one response, or every line of a file, with a trained evaluator."""

    run: str
    """The directory of a finished run, or of a model."""
    prompt: str = ""
    """What the human said."""
    response: str = ""
    """What the model said."""
    data: str = ""
    """A .jsonl file; each line has dialogue, or prompt and response (or answer)."""
    out: str = ""
    """Where to write the scores of `data`; it must not exist. Empty prints them."""
    batch_size: int = 32
    """Rows per call of the model."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """Reads a file in FULCRA's format and reports labels, conflicts and bad lines."""

    file: Annotated[str, tyro.conf.Positional]
    """The .jsonl file."""
    rejects: str = ""
    """Where to write the bad lines with their reasons; it must not exist."""
    conflict: str = "mask"
    """What becomes of a value with both signs; see fulcra_jax.data.Policy."""


def score(arguments: Score) -> None:
    """Runs `fulcra score`."""
    if arguments.batch_size < 1:
        raise ValueError(
            f"score: batch_size is {arguments.batch_size}; it should be at least 1."
        )
    one = bool(arguments.response.strip())
    if one == bool(arguments.data):
        raise ValueError("score: give either --response (and --prompt) or --data.")
    check_new(arguments.out, "--out")
    pairs = (
        [(arguments.prompt, arguments.response)]
        if one
        else read_pairs(pathlib.Path(arguments.data))
    )
    # Imported here: `fulcra rows` and a wrong argument need no model.
    from fulcra_jax.inference import Predictor

    predictor = Predictor.load(arguments.run, batch_size=arguments.batch_size)
    prompts, responses = zip(*pairs, strict=True)
    with _Bar(len(pairs), shown=not one) as progress:
        answer = predictor.score(prompts, responses, progress=progress)
    if one:
        rich.console.Console().print(
            tables.value_bars(answer.scores[0], answer.probs[0])
        )
        return
    lines = (
        json.dumps(
            {
                "prompt": prompt,
                "response": response,
                "scores": _rounded(answer.scores[place]),
                "probs": _rounded(answer.probs[place]),
                "evaluator": str(arguments.run),
            },
            ensure_ascii=False,
        )
        for place, (prompt, response) in enumerate(pairs)
    )
    if arguments.out:
        with pathlib.Path(arguments.out).open("x", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines)
        means = ", ".join(
            f"{name} {mean:+.2f}"
            for name, mean in zip(
                values.ABBREVIATIONS, answer.scores.mean(0), strict=True
            )
        )
        print(f"{len(pairs)} responses scored; means: {means}; {arguments.out}")
    else:
        for line in lines:
            print(line)


def check_new(path: str, flag: str) -> None:
    """Raises if a file to be written exists, or its folder does not; "" is no file."""
    if path and pathlib.Path(path).exists():
        raise FileExistsError(
            f"{path} exists; nothing is overwritten, give another {flag}."
        )
    if path and not pathlib.Path(path).parent.is_dir():
        raise FileNotFoundError(f"the folder of {flag} {path} does not exist.")


def read_pairs(path: pathlib.Path) -> list[tuple[str, str]]:
    """(prompt, response) of every line of a file, labelled or not.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a line holds no pair; it names file, line and field. All lines are
        looked at before anything is scored.
    """
    pairs = []
    for number, raw in lines_of(path):
        try:
            record = json.loads(raw.decode("utf-8"))
            if not isinstance(record, dict):
                raise ValueError("is no JSON object.")
            if "dialogue" in record:
                pairs.append(split_dialogue(check_text("dialogue", record["dialogue"])))
                continue
            if "prompt" not in record or not {"response", "answer"} & set(record):
                raise ValueError(
                    "should have the texts dialogue, or prompt and response."
                )
            prompt = check_text("prompt", record["prompt"])
            response = check_text(
                "response", record.get("response", record.get("answer"))
            )
            if not response.strip():
                raise ValueError("response: is empty.")
            pairs.append((prompt, response))
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path}:{number}: is not UTF-8 (byte {error.start})."
            ) from None
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number}: is no JSON ({error.msg}).") from None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}:{number}: {error!s:.200}") from None
    if not pairs:
        raise ValueError(
            f"{path}: the file is empty; it should hold one response a line."
        )
    return pairs


def rows(arguments: Rows) -> None:
    """Runs `fulcra rows`."""
    check_new(arguments.rejects, "--rejects")
    policy = Policy(conflict=arguments.conflict)  # pyright: ignore[reportArgumentType]
    found, rejects = read_rows(arguments.file, policy)
    labels, where = source.label_arrays(found)
    body = [
        [
            name,
            *(
                str(int((where[:, column] & (labels[:, column] == label)).sum()))
                for label in (-1, 0, 1)
            ),
            str(sum(bool(row.conflict[column]) for row in found)),
        ]
        for column, name in enumerate(values.BASIC)
    ]
    title = f"{arguments.file}: {len(found)} rows"
    tables.show((title, ["value", "-1", "0", "+1", "both signs"], body))
    sources = Counter(row.response_source for row in found)
    status = Counter(row.status for row in found)
    print("status:", ", ".join(f"{name} {n}" for name, n in status.items()))
    print(
        "responses by:", ", ".join(f"{name} {n}" for name, n in sources.most_common())
    )
    print(f"set aside: {len(rejects)}")
    for reject in rejects[:10]:
        print(f"  {reject}")
    if len(rejects) > 10:
        print(f"  ... and {len(rejects) - 10} more")
    if arguments.rejects:
        write_rejects(arguments.rejects, rejects)
    if not found:
        raise ValueError(
            f"{arguments.file}: no row could be read; the first is {rejects[0]}"
        )


class _Bar:
    """A progress bar that can be called with the number of rows done."""

    def __init__(self, total: int, *, shown: bool) -> None:
        self._bar = rich.progress.Progress(
            *rich.progress.Progress.get_default_columns(),
            rich.progress.MofNCompleteColumn(),
            console=rich.console.Console(stderr=True),
            disable=not shown,
        )
        self._task = self._bar.add_task("scoring", total=total)

    def __call__(self, done: int) -> None:
        self._bar.update(self._task, completed=done)

    def __enter__(self) -> "_Bar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _rounded(numbers: np.ndarray) -> Any:
    """Nested lists with six digits; NaN becomes null."""
    if numbers.ndim > 1:
        return [_rounded(entry) for entry in numbers]
    return [None if x != x else round(float(x), 6) for x in numbers]


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = tyro.extras.subcommand_cli_from_dict(
        {"score": Score, "rows": Rows}, args=argv, prog="fulcra", description=__doc__
    )
    try:
        score(arguments) if isinstance(arguments, Score) else rows(arguments)
    except (ValueError, KeyError, OSError) as error:
        text = error.args[0] if isinstance(error, KeyError) else error
        print(f"error: {text}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
