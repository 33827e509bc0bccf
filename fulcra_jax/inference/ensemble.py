# SPDX-License-Identifier: Apache-2.0
"""Several evaluators as one: runs of other seeds, of other folds, of other recipes,
and a bag of words beside them."""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from fulcra_jax import values
from fulcra_jax.inference import bag_of_words
from fulcra_jax.inference import decisions as decisions_lib
from fulcra_jax.inference.bag_of_words import BagOfWords
from fulcra_jax.inference.decisions import Decisions
from fulcra_jax.inference.predictor import (
    Predictor,
    Scores,
    check_decisions,
    evaluator_id,
)

FILE = "ensemble.json"
"""In a directory that stands for several: a list of the directories of its members, or
an object with `members`, `words` (a directory) and `weight`."""

Paths = str | pathlib.Path | Sequence[str | pathlib.Path]


class Ensemble:
    """The mean of what its members say; each reads the texts with its own tokenizer.

    With a bag of words: the normalised weighted geometric mean of that and what the bag
    says (`bag_of_words.pooled`).
    """

    def __init__(
        self,
        members: Sequence[Predictor],
        *,
        words: BagOfWords | None = None,
        weight: float = 0.5,
        decisions: Decisions | None = None,
    ) -> None:
        """Wraps loaded evaluators.

        Args:
          members: at least one. What they decide one by one is not used: the mean of
            raw probabilities is decided on.
          words: what stands beside them, or None.
          weight: of the words' log-probabilities, in [0, 1]; without words not used.
          decisions: fitted on what these say together.

        Raises:
          ValueError: if there is no member, their values differ, or the weight, the
            words or the decisions do not fit.
        """
        if not members:
            raise ValueError("ensemble.Ensemble: members is empty; give at least one.")
        first = members[0].config.head.num_values
        for place, member in enumerate(members):
            own = member.config.head.num_values
            if own != first:
                raise ValueError(
                    f"ensemble.Ensemble: member {place} judges {own} values, member 0 "
                    f"{first}; all should judge the same."
                )
        for_score = {member.config.link == "tanh" for member in members}
        if len(for_score) > 1:
            links = ", ".join(member.config.link for member in members)
            raise ValueError(
                f"ensemble.Ensemble: the links are {links}; a score of 'tanh' is no "
                "mean of probabilities, so either all members should have it or none."
            )
        if words is not None:
            _check_words(words, weight, first, members[0].config.link)
        if decisions is not None:
            check_decisions(decisions, members[0].config, "ensemble.Ensemble")
        self.members = tuple(members)
        self.words, self.weight = words, float(weight)
        self.decisions = decisions

    def score(
        self,
        prompts: Sequence[str],
        responses: Sequence[str],
        *,
        progress: Callable[[int], None] | None = None,
    ) -> Scores:
        """Joint scores and class probabilities of N responses; see `Predictor.score`.

        Args:
          prompts: N texts.
          responses: N texts.
          progress: called with the number of rows done, in parts of rows' members.

        Raises:
          ValueError: if the numbers of texts differ.
        """
        M, N = len(self.members), len(prompts)
        said = []
        for place, member in enumerate(self.members):

            def report(done: int, place: int = place) -> None:
                if progress:
                    progress((place * N + done) // M)

            said.append(member.score(prompts, responses, progress=report))
        scores = np.stack([one.scores for one in said]).mean(0)
        probs = np.stack([one.probs for one in said]).mean(0)
        if self.words is not None:
            beside = self.words.score(prompts, responses).probs
            probs = bag_of_words.pooled(probs, beside, self.weight)
            scores = probs[..., 2] - probs[..., 0]
        return Scores(scores, probs, self.decisions)


def _check_words(words: BagOfWords, weight: float, values: int, link: str) -> None:
    """Raises ValueError if they cannot stand beside evaluators."""
    if link == "tanh":
        raise ValueError(
            "ensemble.Ensemble: the link 'tanh' gives no probabilities, so a bag of "
            "words cannot stand beside it."
        )
    if words.num_values != values:
        raise ValueError(
            f"ensemble.Ensemble: the bag of words judges {words.num_values} values, "
            f"the members {values}; both should judge the same."
        )
    if not 0.0 <= weight <= 1.0:
        raise ValueError(
            f"ensemble.Ensemble: weight is {weight}; it should be in [0, 1]."
        )


def load_predictor(
    paths: Paths,
    *,
    batch_size: int = 32,
    names: Sequence[str] = values.BASIC,
    decisions: bool = True,
) -> Predictor | Ensemble:
    """The evaluator of one directory, or the ensemble of several.

    Args:
      paths: a run, a model, or a directory with an ensemble.json; or several runs and
        models.
      batch_size: rows per call of a model.
      names: the values that are needed, as of `Predictor.load`.
      decisions: whether a decisions.json in the directory is used; several directories
        have none together.

    Raises:
      FileNotFoundError: if a directory is missing.
      ValueError: if one holds no evaluator, or they do not fit together.
    """
    found, listed = members_of(paths), _listed(paths)
    if len(listed) == 1 and not _is_ensemble(listed[0]):
        return Predictor.load(
            found[0], batch_size=batch_size, names=names, decisions=decisions
        )
    members = [
        Predictor.load(path, batch_size=batch_size, names=names, decisions=False)
        for path in found
    ]
    beside, weight = words_of(paths)
    return Ensemble(
        members,
        words=None if beside is None else BagOfWords.load(beside),
        weight=weight,
        decisions=_own_decisions(paths) if decisions else None,
    )


def members_of(paths: Paths) -> list[pathlib.Path]:
    """The directories of the evaluators: those listed, or those of an ensemble's.

    Raises:
      ValueError: if there is none, an ensemble.json is damaged, or an ensemble stands
        among several directories.
    """
    return _parts_of(paths)[0]


def words_of(paths: Paths) -> tuple[pathlib.Path | None, float]:
    """The directory of the bag of words that an ensemble has beside its members, or
    None, and its weight. Raises as `members_of`."""
    return _parts_of(paths)[1:]


_Parts = tuple[list[pathlib.Path], pathlib.Path | None, float]


def _parts_of(paths: Paths) -> _Parts:
    """Directories of the members, that of the words or None, and their weight."""
    listed = _listed(paths)
    if not listed:
        raise ValueError("ensemble.load_predictor: paths is empty; give at least one.")
    if len(listed) > 1:
        for path in listed:
            if _is_ensemble(path):
                raise ValueError(
                    f"{path} is an ensemble and stands among several directories; give "
                    "it alone, or the directories of runs only."
                )
        return listed, None, 0.0
    if not _is_ensemble(listed[0]):
        return listed, None, 0.0
    path = listed[0] / FILE
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        held = None
    words, weight = None, 0.0
    if isinstance(held, dict) and set(held) == {"members", "words", "weight"}:
        held, words, weight = held["members"], held["words"], held["weight"]
    if (
        not isinstance(held, list)
        or not held
        or not all(isinstance(one, str) for one in held)
        or not isinstance(words, str | None)
        or isinstance(weight, bool)
        or not isinstance(weight, int | float)
        or not 0.0 <= weight <= 1.0
    ):
        raise ValueError(
            f"{path}: should be a list of directories, or an object with such a list "
            "as members, a directory as words and a number in [0, 1] as weight."
        )
    folder = path.parent
    return (
        [folder / one for one in held],
        None if words is None else folder / words,
        float(weight),
    )


def save_ensemble(
    path: str | pathlib.Path,
    members: Sequence[pathlib.Path],
    *,
    words: pathlib.Path | None = None,
    weight: float = 0.5,
) -> None:
    """Writes the ensemble.json of a directory; others are named relative to it.

    Args:
      path: an existing directory.
      members: directories of runs or models.
      words: the directory of a bag of words that stands beside them, or None.
      weight: of the words, in [0, 1].
    """
    folder = pathlib.Path(path).resolve()
    named = lambda one: os.path.relpath(pathlib.Path(one).resolve(), folder)
    held: list[str] | dict[str, object] = [named(one) for one in members]
    if words is not None:
        held = {"members": held, "words": named(words), "weight": weight}
    half = folder / f".{FILE}.{os.getpid()}"
    half.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
    half.replace(folder / FILE)


def ensemble_id(paths: Paths) -> str:
    """The name under which the scores are filed, as `evaluator_id`, also of several.

    Of several evaluators: NAME@HASH with the name of the ensemble's directory (else
    "mean-of-M") and a hash of those of the members, in whatever order, and of the words
    beside them.

    Raises:
      FileNotFoundError: if a directory or its weights are missing.
      ValueError: as `members_of`.
    """
    found = members_of(paths)
    listed = _listed(paths)
    own = _is_ensemble(listed[0])
    if len(found) == 1 and not own:
        return evaluator_id(found[0])
    hashes = sorted(evaluator_id(path).rpartition("@")[2] for path in found)
    words, weight = words_of(paths)
    if words is not None:
        with (words / bag_of_words.FILE).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        hashes.append(f"{digest}*{weight!r}")
    digest = hashlib.sha256(" ".join(hashes).encode()).hexdigest()
    name = listed[0].resolve().name if own else f"mean-of-{len(found)}"
    return f"{name}@{digest[:12]}"


def _listed(paths: Paths) -> list[pathlib.Path]:
    one = isinstance(paths, str | pathlib.Path)
    return [pathlib.Path(path) for path in ([paths] if one else paths)]


def _is_ensemble(path: pathlib.Path) -> bool:
    return (path / FILE).is_file()


def _own_decisions(paths: Paths) -> Decisions | None:
    listed = _listed(paths)
    path = listed[0] / decisions_lib.FILE
    return Decisions.load(path) if len(listed) == 1 and path.is_file() else None
