# SPDX-License-Identifier: Apache-2.0
"""Preferences made of scored answers: pairs, and answers that are wanted or not.

Distances come from the caller: minus `objectives.baselign_reward`, so that the chosen
answer is the one that `rerank` takes, or any `objectives.value_distance`.

Axes: N answers as they stand in a file, P prompts, G answers to one prompt, B pairs.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from fulcra_jax import objectives
from fulcra_jax.alignment.groups import group_by_prompt
from fulcra_jax.alignment.preference_lines import PreferencePairs, UnpairedAnswers


class PairCounts(NamedTuple):
    """What became of every prompt: the numbers after `pairs` add up to `prompts`."""

    prompts: int
    pairs: int
    paired: int
    """Prompts with at least one pair."""
    one_answer: int
    """Prompts with one answer."""
    unscored: int
    """Prompts with several answers, of which fewer than two have a distance."""
    identical: int
    """Prompts with several answers that all say the same."""
    within_margin: int
    """Prompts whose nearest and farthest answer differ by no more than the margin."""


def preference_pairs(
    prompts: Sequence[str],
    responses: Sequence[str],
    distances: np.ndarray,
    *,
    target: str,
    evaluator: str,
    margin: float = 0.0,
    most: int | None = 1,
    temperature: float | None = None,
) -> tuple[PreferencePairs, PairCounts]:
    """Pairs of answers to one prompt: the nearer to the target is chosen.

    (i, j) with d_j - d_i > margin, the widest first; with `most` = 1 the nearest and
    the farthest, as `objectives.value_pairs`. Texts that are equal but for blanks at
    their ends count as one, the first, so that none is preferred to itself.

    Many pairs of one prompt are not independent and weigh it more.

    Args:
      prompts: N texts, the prompt of every answer.
      responses: N texts.
      distances: `[N]` float, to the target; NaN where scoring failed: never in a pair.
      target: what the distances are to; noted with every pair.
      evaluator: who scored; noted with every pair. Two are not on one scale.
      margin: a pair whose distances differ by no more than this is none. The
        evaluator's noise is of about the same size in both.
      most: how many pairs of a prompt, the widest first; None for all.
      temperature: gives every pair a probability, sigmoid((d_j - d_i) / temperature):
        the soft label of `objectives.dpo_loss`. None gives none.

    Returns:
      The pairs, prompts in their order, and what became of every prompt.

    Raises:
      ValueError: if lengths differ, or a number is out of range.

    Reference:
      Rafailov et al. 2023 (arXiv 2305.18290); Yao et al. 2024 (arXiv 2311.10766),
      section 5, for the distance.

    >>> pairs, counts = preference_pairs(
    ...     ["a", "a", "a", "b"], ["x", "y", "z", "x"], np.array([2.0, 0.5, 1.0, 0.0]),
    ...     target="ideal", evaluator="e", margin=0.5)
    >>> pairs.chosen, pairs.rejected, counts.one_answer
    (['y'], ['x'], 1)
    """
    caller = "preferences.preference_pairs"
    distances = _distances(caller, prompts, responses, distances)
    if most is not None and most < 1:
        raise ValueError(f"{caller}: most is {most}; expected at least 1, or None.")
    groups = group_by_prompt(prompts)
    distance_pg = groups.spread(distances)
    scored = ~np.isnan(distance_pg)
    different = groups.where & _new_texts(prompts, responses, distances)[groups.places]
    widest = objectives.value_pairs(
        jnp.asarray(distance_pg), margin=margin, where=jnp.asarray(different)
    )
    valid = np.asarray(widest.valid)
    if most == 1:
        rows = np.flatnonzero(valid)
        near, far = np.asarray(widest.chosen)[rows], np.asarray(widest.rejected)[rows]
    else:
        found = [
            (row, *pair)
            for row in np.flatnonzero(valid)
            for pair in _widest_first(distance_pg[row], different[row], margin)[:most]
        ]
        rows, near, far = np.array(found, np.int64).reshape(-1, 3).T
    chosen: list[int] = groups.places[rows, near].tolist()
    rejected: list[int] = groups.places[rows, far].tolist()
    one = groups.where.sum(-1) == 1
    unscored = ~one & (scored.sum(-1) < 2)
    identical = ~one & ~unscored & (different.sum(-1) < 2)
    counts = PairCounts(
        prompts=len(groups.prompts),
        pairs=len(chosen),
        paired=int(valid.sum()),
        one_answer=int(one.sum()),
        unscored=int(unscored.sum()),
        identical=int(identical.sum()),
        within_margin=int((~valid & ~one & ~unscored & ~identical).sum()),
    )
    pairs = PreferencePairs(
        prompts=[prompts[place] for place in chosen],
        chosen=[responses[place] for place in chosen],
        rejected=[responses[place] for place in rejected],
        chosen_distances=distances[chosen],
        rejected_distances=distances[rejected],
        probs=_probs(distances[chosen], distances[rejected], temperature),
        targets=[target] * len(chosen),
        evaluators=[evaluator] * len(chosen),
    )
    return pairs, counts


def unpaired_answers(
    prompts: Sequence[str],
    responses: Sequence[str],
    distances: np.ndarray,
    *,
    target: str,
    evaluator: str,
    threshold: float,
    margin: float = 0.0,
) -> UnpairedAnswers:
    """Answers that are wanted or not, for losses without pairs (`objectives.kto_loss`).

    Wanted where d < threshold - margin, not wanted where d > threshold + margin, left
    out between (with a margin of 0 an answer at the threshold is not wanted).

    Args:
      prompts: N texts, the prompt of every answer.
      responses: N texts; one that was already given to the same prompt is left out.
      distances: `[N]` float, to the target; an answer with NaN is left out.
      target: what the distances are to; noted with every answer.
      evaluator: who scored; noted with every answer.
      threshold: what is nearer than this is wanted.
      margin: how far from the threshold an answer has to be.

    Returns:
      The answers that are left, in their order.

    Raises:
      ValueError: if lengths differ, or a number is out of range.

    Reference:
      Ethayarajh et al. 2024 (arXiv 2402.01306).

    >>> answers = unpaired_answers(["a", "a"], ["x", "y"], np.array([2.0, 0.5]),
    ...     target="ideal", evaluator="e", threshold=1.0)
    >>> answers.completions, answers.labels.tolist()
    (['x', 'y'], [False, True])
    """
    caller = "preferences.unpaired_answers"
    distances = _distances(caller, prompts, responses, distances)
    if not (margin >= 0.0 and math.isfinite(threshold)):
        raise ValueError(
            f"{caller}: margin is {margin} and threshold {threshold}; expected at "
            "least 0 and a finite number."
        )
    away = np.abs(distances - threshold)
    clear = (away > margin) | (margin == 0.0)
    new = _new_texts(prompts, responses, distances)
    kept: list[int] = np.flatnonzero(clear & new).tolist()
    return UnpairedAnswers(
        prompts=[prompts[place] for place in kept],
        completions=[responses[place] for place in kept],
        labels=distances[kept] < threshold,
        distances=distances[kept],
        targets=[target] * len(kept),
        evaluators=[evaluator] * len(kept),
    )


def _distances(
    caller: str,
    prompts: Sequence[str],
    responses: Sequence[str],
    distances: np.ndarray,
) -> np.ndarray:
    """`[N]` float32, checked against the texts."""
    distances = np.asarray(distances, np.float32)
    if distances.shape != (len(prompts),) or len(responses) != len(prompts):
        raise ValueError(
            f"{caller}: there are {len(prompts)} prompts, but {len(responses)} "
            f"responses, and distances has shape {distances.shape}."
        )
    if not len(prompts):
        raise ValueError(f"{caller}: there is no answer; expected at least one.")
    return distances


def _new_texts(
    prompts: Sequence[str], responses: Sequence[str], distances: np.ndarray
) -> np.ndarray:
    """`[N]` bool: has a distance, and is the first of its text to its prompt."""
    seen: set[tuple[str, str]] = set()
    new = ~np.isnan(distances)
    for place in np.flatnonzero(new).tolist():
        text = (prompts[place], responses[place].strip())
        new[place] = text not in seen
        seen.add(text)
    return new


def _widest_first(
    distances: np.ndarray, where: np.ndarray, margin: float
) -> list[tuple[int, int]]:
    """All (near, far) places of one prompt above the margin; ties in their order."""
    places = np.flatnonzero(where)
    gaps = distances[None, places] - distances[places, None]
    near, far = np.nonzero(gaps > margin)
    order = np.argsort(-gaps[near, far], kind="stable")
    return [(int(places[near[k]]), int(places[far[k]])) for k in order]


def _probs(
    chosen: np.ndarray, rejected: np.ndarray, temperature: float | None
) -> np.ndarray:
    """`[B]` soft labels; NaN without a temperature."""
    if temperature is None:
        return np.full(len(chosen), np.nan, np.float32)
    return np.asarray(
        objectives.preference_labels(
            jnp.asarray(chosen), jnp.asarray(rejected), temperature=temperature
        )
    )
