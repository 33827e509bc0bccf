# SPDX-License-Identifier: Apache-2.0
"""The best of several answers to a prompt, and what choosing gains.

No training: draw n answers, score them, keep the one with the highest reward. It is
what an aligned model has to beat at equal KL (`objectives.n_of_kl_bound` gives n).

Axes: N answers as they stand in a file, P prompts, G answers to one prompt, V values.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from fulcra_jax import objectives
from fulcra_jax.alignment.groups import AnswerGroups, group_by_prompt
from fulcra_jax.objectives.distance import Gate


class Reranked(NamedTuple):
    """The best answer to each of P prompts."""

    prompts: list[str]
    """P prompts, in the order in which they first stand there."""
    best: np.ndarray
    """`[P]` int32 place of the best answer among the N; -1 if none has a score."""
    rewards: np.ndarray
    """`[P]` reward of the best answer; NaN if none has a score."""
    mean_rewards: np.ndarray
    """`[P]` what one answer gets on average, over all that have a score."""
    first_rewards: np.ndarray
    """`[P]` reward of the first answer that has a score."""
    candidates: np.ndarray
    """`[P]` int32 how many answers were compared."""
    unscored: int
    """How many of the N answers have no reward, because a score is NaN."""


class BestOfN(NamedTuple):
    """What the best of n answers gets, over the prompts with at least n answers."""

    n: int
    prompts: int
    """How many prompts have n answers with a score; the means are over these."""
    reward: float
    """Expected reward of the best of n, mean over prompts."""
    gain: float
    """That, minus what one answer gets to the same prompts."""
    standard_error: float
    """Of the gain, over prompts; NaN for fewer than two."""
    kl_bound: float
    """Nats per answer that best-of-n has moved from what drew the answers, at most."""
    change: np.ndarray
    """`[V]` expected score of the best of n minus that of one answer."""


def rerank(
    prompts: Sequence[str],
    scores: np.ndarray,
    target: np.ndarray,
    *,
    gate: Gate = "none",
    n: int | None = None,
    seed: int = 0,
) -> Reranked:
    """The answer to each prompt with the highest `objectives.baselign_reward`.

    An answer with a NaN among the scores that count has no reward: it is counted, not
    compared, and never wins. Of equals the first wins.

    Args:
      prompts: N texts, the prompt of every answer.
      scores: `[N, V]` float in [-1, 1], NaN where scoring failed.
      target: `[V]` float in [-1, 1].
      gate: of the reward. Under "official" an answer that expresses nothing is best.
      n: compare at most so many answers to a prompt, drawn without replacement from
        those with a score; None compares all.
      seed: of that draw.

    Returns:
      `Reranked`.

    Raises:
      ValueError: if shapes disagree, there is no answer or `n` is below 1.
      KeyError: if `gate` is unknown.

    Reference:
      Stiennon et al. 2020 (arXiv 2009.01325), section 4.3; Yao et al. 2024 (arXiv
      2311.10766), section 5, for the reward.

    >>> scores = np.array([[0.1, 0.0], [0.9, 0.0], [0.5, 0.0]])
    >>> found = rerank(["a", "a", "b"], scores, np.array([1.0, 0.0]))
    >>> found.best.tolist(), found.candidates.tolist()
    ([1, 2], [2, 1])
    """
    if n is not None and n < 1:
        raise ValueError(f"rerank.rerank: n is {n}; expected at least 1.")
    groups, rewards = _rewards("rerank.rerank", prompts, scores, target, gate)
    scored = ~np.isnan(rewards)
    drawn = scored if n is None else _drawn(scored, n, seed)
    best = objectives.best_of_n(jnp.asarray(rewards), where=jnp.asarray(drawn))
    best = np.asarray(best)[:, None]
    of_best = lambda table: np.take_along_axis(table, np.maximum(best, 0), 1)[:, 0]
    first = scored.argmax(-1)[:, None]
    return Reranked(
        prompts=groups.prompts,
        best=np.where(best[:, 0] >= 0, of_best(groups.places), -1).astype(np.int32),
        rewards=np.where(best[:, 0] >= 0, of_best(rewards), np.nan),
        mean_rewards=_mean(rewards, scored),
        first_rewards=np.take_along_axis(rewards, first, 1)[:, 0],
        candidates=drawn.sum(-1).astype(np.int32),
        unscored=int((groups.where & ~scored).sum()),
    )


def best_of_n_table(
    prompts: Sequence[str],
    scores: np.ndarray,
    target: np.ndarray,
    *,
    gate: Gate = "none",
    ns: Sequence[int] | None = None,
) -> list[BestOfN]:
    """What the best of n answers gets, for several n, estimated without bias.

    E max r of n draws without replacement from the G answers to a prompt
    (`objectives.expected_best_of_n`), mean over the prompts with at least n answers.
    Rows of different n may rest on different prompts; the gain compares each with one
    answer to the same prompts.

    The evaluator that chose also judges here, so its noise counts as gain; a second one
    tells how much of it is real.

    Args:
      prompts: N texts, the prompt of every answer.
      scores: `[N, V]` float in [-1, 1]. An answer whose reward is NaN does not count.
      target: `[V]` float in [-1, 1].
      gate: of the reward.
      ns: which n; None takes the powers of 2 and the largest there is.

    Returns:
      One `BestOfN` for each n; NaN where no prompt has n answers. The bound on the KL
      holds for answers drawn from one distribution: if several models answered, that is
      their mixture, and not one of them.

    Raises:
      ValueError: if shapes disagree, there is no answer or an n is below 1.
      KeyError: if `gate` is unknown.

    Reference:
      Nakano et al. 2021 (arXiv 2112.09332), appendix I; Beirami et al. 2024 (arXiv
      2401.01879), theorem 3.1 (the bound).

    >>> scores = np.array([[0.0, 0.0], [0.5, 0.0], [1.0, 0.0]])
    >>> for row in best_of_n_table(["a"] * 3, scores, np.array([1.0, 0.0])):
    ...     print(f"{row.n} {row.reward:.3f} {row.gain:.3f} {row.kl_bound:.3f}")
    1 -0.500 0.000 0.000
    2 -0.167 0.333 0.193
    3 0.000 0.500 0.432
    """
    caller = "rerank.best_of_n_table"
    groups, rewards = _rewards(caller, prompts, scores, target, gate)
    counts = (~np.isnan(rewards)).sum(-1)
    if ns is None:
        most = int(counts.max(initial=0))
        ns = sorted({2**k for k in range(most.bit_length())} | {most} - {0})
    if any(n < 1 for n in ns):
        raise ValueError(f"{caller}: ns holds {min(ns)}; expected at least 1.")
    scores_pgv = np.asarray(scores, np.float64)[groups.places]
    return [_best_of_n(n, rewards[counts >= n], scores_pgv[counts >= n]) for n in ns]


def selection_probs(rewards: np.ndarray, n: int) -> np.ndarray:
    """How likely each answer is to be the best of n drawn without replacement.

    (C(a, n) - C(b, n)) / (C(G, n) m): a answers have no more reward than this one, b
    have less, and the m = a - b equals share alike.

    Args:
      rewards: `[P, G]` float; NaN is no answer and is never drawn.
      n: at least 1.

    Returns:
      `[P, G]` float64; sums to 1 over the answers, all 0 where fewer than n are there.

    Raises:
      ValueError: if `rewards` has not two axes or `n` is below 1.

    Reference:
      As `objectives.expected_best_of_n`, which is its mean reward.

    >>> selection_probs(np.array([[0.0, 2.0, 1.0]]), 2).round(3).tolist()
    [[0.0, 0.667, 0.333]]
    """
    if rewards.ndim != 2 or n < 1:
        raise ValueError(
            f"rerank.selection_probs: rewards has shape {rewards.shape} and n is {n}; "
            "expected [P, G] and at least 1."
        )
    probs = np.zeros(rewards.shape)
    for row, x in enumerate(rewards):
        kept = np.flatnonzero(~np.isnan(x))
        subsets = math.comb(len(kept), n)
        if not subsets:
            continue
        ranked = np.sort(x[kept])
        below = np.searchsorted(ranked, x[kept], side="left").tolist()
        upto = np.searchsorted(ranked, x[kept], side="right").tolist()
        # Whole numbers of any length: the quotient is rounded once.
        probs[row, kept] = [
            (math.comb(a, n) - math.comb(b, n)) / (subsets * (a - b))
            for a, b in zip(upto, below, strict=True)
        ]
    return probs


def _rewards(
    caller: str,
    prompts: Sequence[str],
    scores: np.ndarray,
    target: np.ndarray,
    gate: Gate,
) -> tuple[AnswerGroups, np.ndarray]:
    """The groups, and `[P, G]` rewards: NaN where there is no answer or no score."""
    groups = group_by_prompt(prompts)
    scores = np.asarray(scores)
    if scores.ndim != 2 or len(scores) != len(prompts):
        raise ValueError(
            f"{caller}: there are {len(prompts)} prompts, but scores has shape "
            f"{scores.shape}; expected [N, V]."
        )
    if not len(prompts):
        raise ValueError(f"{caller}: there is no answer; expected at least one.")
    rewards = objectives.baselign_reward(
        jnp.asarray(scores), jnp.asarray(target), gate=gate
    )
    return groups, groups.spread(np.asarray(rewards))


def _best_of_n(n: int, rewards: np.ndarray, scores_pgv: np.ndarray) -> BestOfN:
    """One row of the table, of prompts that all have n answers."""
    kl_bound = float(objectives.best_of_n_kl_bound(jnp.asarray(float(n))))
    if not len(rewards):
        nothing = np.full(scores_pgv.shape[-1], np.nan)
        return BestOfN(n, 0, np.nan, np.nan, np.nan, kl_bound, nothing)
    scored = ~np.isnan(rewards)
    best = objectives.expected_best_of_n(
        jnp.asarray(rewards), n, where=jnp.asarray(scored)
    )
    moved_pg = selection_probs(rewards, n) - selection_probs(rewards, 1)
    gains = (moved_pg * np.where(scored, rewards, 0.0)).sum(-1)
    several = len(gains) > 1
    scores_pgv = np.where(scored[..., None], scores_pgv, 0.0)
    return BestOfN(
        n=n,
        prompts=len(gains),
        reward=float(np.asarray(best, np.float64).mean()),
        gain=float(gains.mean()),
        standard_error=(
            float(gains.std(ddof=1)) / math.sqrt(len(gains)) if several else np.nan
        ),
        kl_bound=kl_bound,
        change=np.einsum("pg,pgv->pv", moved_pg, scores_pgv).mean(0),
    )


def _drawn(scored: np.ndarray, n: int, seed: int) -> np.ndarray:
    """`[P, G]` bool: n of the answers with a score, or all if there are fewer."""
    order = np.random.default_rng(seed).random(scored.shape)
    order = np.where(scored, order, np.inf)
    rank = order.argsort(-1, kind="stable").argsort(-1, kind="stable")
    return scored & (rank < n)


def _mean(rewards: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """`[P]` mean over the answers with a score; NaN without any."""
    count = scored.sum(-1)
    total = np.where(scored, rewards, 0.0).sum(-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
