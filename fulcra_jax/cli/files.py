# SPDX-License-Identifier: Apache-2.0
"""What the commands read and write, and the target they are given."""

import pathlib
import sys

import numpy as np

from fulcra_jax import targets
from fulcra_jax.inference.score_lines import ScoredAnswers, read_scores

TARGET = f"A name ({', '.join(targets.EXPLICIT)}), or ten numbers with commas between."
"""The help of --target."""


def check_new(path: str, flag: str) -> None:
    """Raises if a file to be written exists, or its folder does not; "" is no file."""
    if path and pathlib.Path(path).exists():
        raise FileExistsError(
            f"{path} exists; nothing is overwritten, give another {flag}."
        )
    if path and not pathlib.Path(path).parent.is_dir():
        raise FileNotFoundError(f"the folder of {flag} {path} does not exist.")


def scored_answers(path: str, evaluator: str) -> ScoredAnswers:
    """The scores of one evaluator in a file: two are not on one scale.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a line is bad, or no line is of that evaluator; without a name, if
        there are several evaluators.
    """
    answers = read_scores(path)
    known = list(dict.fromkeys(answers.evaluators))
    if not known:
        raise ValueError(f"{path}: the file is empty; it should hold scored answers.")
    if evaluator and evaluator not in known:
        raise ValueError(
            f"{path}: no line has the evaluator {evaluator!r}; there are: "
            f"{', '.join(known)}."
        )
    if not evaluator and len(known) > 1:
        raise ValueError(
            f"{path}: {len(known)} evaluators scored it ({', '.join(known)}), and "
            "their scores are not on one scale; choose one with --evaluator."
        )
    chosen = [name == (evaluator or known[0]) for name in answers.evaluators]
    return rows_of(answers, np.flatnonzero(chosen))


def rows_of(answers: ScoredAnswers, places: np.ndarray) -> ScoredAnswers:
    """The answers at these places."""
    texts = lambda part: [part[place] for place in places]
    return ScoredAnswers(
        texts(answers.prompts),
        texts(answers.responses),
        texts(answers.models),
        answers.scores[places],
        answers.probs[places],
        texts(answers.evaluators),
    )


def warn_of_target(target: np.ndarray, gate: str) -> None:
    """Says on one line of stderr what the target does not see, if anything."""
    found = targets.check_target(target)
    said = []
    if found.zeros:
        said.append(f"does not count {', '.join(found.zeros)}")
    if found.quiet:
        said.append(
            f"asks for {', '.join(found.quiet)} by no more than the evaluator takes "
            "for no connection"
        )
    if found.tensions:
        first, second = found.tensions[0]
        more = len(found.tensions) - 1
        said.append(
            f"wants opposites together ({first} and {second}"
            f"{f' and {more} more' if more else ''})"
        )
    if gate == "official":
        said.append("is best met by an answer without values, under this gate")
    if said:
        print(f"note: the target {'; '.join(said)}", file=sys.stderr)
