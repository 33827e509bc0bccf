# SPDX-License-Identifier: Apache-2.0
"""Prompts to train on and to be measured on: of files, or of the embedded corpus.

A file holds one JSON object a line: with `prompt`, or, of pairs of dialogues, with
`chosen`, whose first turn of the human is taken. What cannot be read is set aside with
its file and line.
"""

import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import NamedTuple

from experiments.toy_lm import texts
from fulcra_jax.data.rows import Reject, RowError, check_text, lines_of

_POOL = 512
_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


class Prompts(NamedTuple):
    """What is trained on, and what is measured on; no prompt in both."""

    training: list[str]
    held_out: list[str]
    rejects: list[Reject]
    notes: list[str]
    """What was left out, in sentences."""

    def sha256(self) -> str:
        """Of all prompts, in order."""
        digest = hashlib.sha256()
        for part in (self.training, self.held_out):
            for prompt in part:
                digest.update(prompt.encode("utf-8", "backslashreplace") + b"\0")
            digest.update(b"\1")
        return digest.hexdigest()


def choose(
    training: str,
    held_out: str,
    n: int,
    seed: int,
    refuse: Callable[[str], str] = lambda _: "",
) -> Prompts:
    """Prompts for a run.

    Args:
      training: a file; empty takes the training split of the embedded corpus.
      held_out: a file, whose first n are taken. Empty takes the last n of `training`,
        or, where that is empty too, the test split of the embedded corpus.
      n: held-out prompts.
      seed: of the embedded corpus.
      refuse: says why a prompt of a file cannot be used; "" if it can.

    Raises:
      FileNotFoundError: if a file is not there.
      ValueError: if there are fewer prompts than needed.
    """
    rejects: list[Reject] = []
    notes: list[str] = []
    given = _of_file(training, refuse, rejects, notes) if training else []
    apart = _of_file(held_out, refuse, rejects, notes) if held_out else []
    if given and not held_out:
        given, apart = given[:-n], given[-n:]
        notes.append(f"held out: the last {len(apart)} prompts of {training}")
    embedded: list[str] = []
    if not training:
        embedded += (given := texts.prompts(seed, _POOL, "train"))
    if not training and not held_out:
        embedded += (apart := texts.prompts(seed, n, "test"))
    if reasons := [reason for prompt in embedded if (reason := refuse(prompt))]:
        raise ValueError(f"align: the embedded corpus: {reasons[0]}")
    known = set(map(_folded, given))
    kept = [prompt for prompt in apart if _folded(prompt) not in known]
    if len(kept) < len(apart):
        notes.append(
            f"{len(apart) - len(kept)} held-out prompts are also training prompts: "
            "dropped"
        )
    if len(kept) < n or not given:
        bad = ""
        if rejects:
            bad = f"; the first of {len(rejects)} bad lines: {rejects[0]}"
        raise ValueError(
            f"align: there are {len(given)} prompts to train on and {len(kept)} others "
            f"to hold out, of {training or 'the embedded corpus'} and "
            f"{held_out or training or 'the embedded corpus'}; expected at least 1 and "
            f"{n}{bad}."
        )
    return Prompts(given, kept[:n], rejects, notes)


def _of_file(
    name: str,
    refuse: Callable[[str], str],
    rejects: list[Reject],
    notes: list[str],
) -> list[str]:
    """The different prompts of a file, in order."""
    found: dict[str, str] = {}
    lines, already = 0, len(rejects)
    for number, raw in lines_of(pathlib.Path(name)):
        lines += 1
        try:
            prompt = _read(raw)
            if reason := refuse(prompt):
                raise RowError("prompt", reason)
        except RowError as error:
            text = raw.decode("utf-8", "backslashreplace")
            rejects.append(Reject(name, number, error.field, error.reason, text))
        else:
            found.setdefault(_folded(prompt), prompt)
    bad = len(rejects) - already
    if bad:
        notes.append(
            f"{name}: {bad} of {lines} lines set aside; the first: {rejects[already]}"
        )
    if lines - bad > len(found):
        notes.append(f"{name}: {lines - bad - len(found)} prompts stand there twice")
    return list(found.values())


def _read(line: bytes) -> str:
    """The prompt of a line.

    Raises:
      RowError: if there is none.
    """
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise RowError("line", "is not UTF-8.") from None
    except (ValueError, RecursionError):
        raise RowError("line", "is not valid JSON.") from None
    if not isinstance(record, dict):
        raise RowError("line", "is no object.")
    if "prompt" in record or "chosen" not in record:
        prompt = check_text("prompt", record.get("prompt"))
    else:
        chosen = check_text("chosen", record["chosen"])
        if not chosen.startswith(_HUMAN):
            raise RowError("chosen", f"should begin with {_HUMAN!r}.")
        prompt = chosen.removeprefix(_HUMAN).split(_ASSISTANT)[0].strip()
    if not prompt.strip():
        raise RowError("prompt", "is empty.")
    return prompt


def _folded(prompt: str) -> str:
    """Case and blanks do not make another prompt."""
    return " ".join(prompt.casefold().split())
