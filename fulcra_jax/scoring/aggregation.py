# SPDX-License-Identifier: Apache-2.0
"""One label per unit from several raters: by counting votes.

A unit on which the votes tie has no label and a reason, never a coin flip; the models
that weigh raters by their errors are in `dawid_skene`, `glad` and `mace`.

Axes: R raters, N units, K categories, P passes of one model. Ids outside `[0, K)` and
entries with `where=False` are missing. Undefined is NaN, a missing label is -1.
"""

import enum
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fulcra_jax import _check
from fulcra_jax.scoring import _em, _ratings


class VoteReason(enum.IntEnum):
    """Why a unit has no label; `OK` where it has one."""

    OK = 0
    NO_RATINGS = 1
    """No rating, or none by a rater of positive weight."""
    TIE = 2
    """The most frequent categories have equal shares."""


class Vote(NamedTuple):
    """The outcome of a vote."""

    labels: jax.Array
    """`[N]` int32 category ids, -1 where there is none."""
    shares: jax.Array
    """`[N, K]` each category's share of the (weighted) votes."""
    reason: jax.Array
    """`[N]` int32 codes of `VoteReason`."""


class Wawa(NamedTuple):
    """The outcome of a vote weighted by agreement with the first vote."""

    labels: jax.Array
    """`[N]` int32 category ids, -1 where there is none."""
    shares: jax.Array
    """`[N, K]` each category's share of the weighted votes."""
    reason: jax.Array
    """`[N]` int32 codes of `VoteReason`."""
    skill: jax.Array
    """`[R]` the share of a rater's answers that the majority gave too."""


class PseudoAnnotator(NamedTuple):
    """Several passes of one model as the answers of one annotator."""

    labels: jax.Array
    """`[N]` int32 category ids, -1 where missing."""
    confidence: jax.Array
    """`[N]` the share of the most frequent answer."""
    where: jax.Array
    """`[N]` bool, False where the annotator has no answer."""


def majority_vote(
    ratings: jax.Array,
    num_categories: int,
    *,
    where: jax.Array | None = None,
    rater_weights: jax.Array | None = None,
) -> Vote:
    """The category with the most votes: argmax_k sum_a w_a [x_ua = k].

    Args:
      ratings: `[R, N]` int category ids in `[0, K)`.
      num_categories: K.
      where: `[R, N]` bool, False where a rating is missing.
      rater_weights: `[R]` float >= 0, the weight of a rater's vote; 1 if not given.
        That of a rater without ratings is never read: it may be NaN, as estimated
        skills are.

    Returns:
      A `Vote`. Where the two largest shares differ by less than 1e-5 (less than one
      vote of 100,000) the label is -1 and the reason `TIE`; without votes the label is
      -1, the reason `NO_RATINGS` and the shares are NaN.

    Raises:
      ValueError: if shapes disagree, ratings are not integer, K is below 1 or the
        weight of a rater with ratings is negative, infinite or NaN. While tracing such
        a rater has no vote.

    Reference:
      Condorcet 1785, "Essai sur l'application de l'analyse a la probabilite des
      decisions".

    >>> vote = majority_vote(jnp.array([[0, 1, 2], [0, 2, 2], [1, 0, 2]]), 3)
    >>> vote.labels.tolist(), [VoteReason(r).name for r in vote.reason.tolist()]
    ([0, -1, 2], ['OK', 'TIE', 'OK'])
    """
    caller = "aggregation.majority_vote"
    _check.shapes(
        caller,
        ratings=(ratings, "R N"),
        where=(where, "R N"),
        rater_weights=(rater_weights, "R"),
    )
    dtype = _em.work_dtype(rater_weights)
    x_rkn = _em.answers(caller, ratings, num_categories, where, dtype)
    voted_r = x_rkn.any((1, 2))
    return _vote(
        x_rkn, _em.weights(caller, "rater_weights", rater_weights, voted_r, dtype)
    )


def wawa(
    ratings: jax.Array,
    num_categories: int,
    *,
    where: jax.Array | None = None,
    unit_weights: jax.Array | None = None,
) -> Wawa:
    """Worker agreement with aggregate: the majority's verdict weighs the second vote.

    s_a = sum_u v_u [x_ua = m_u] / sum_u v_u over the units that rater a rated and whose
    majority label m_u exists; then the vote argmax_k sum_a s_a [x_ua = k].

    Args:
      ratings: `[R, N]` int category ids in `[0, K)`.
      num_categories: K.
      where: `[R, N]` bool, False where a rating is missing.
      unit_weights: `[N]` float >= 0, how often a unit counts for the skills.

    Returns:
      A `Wawa`. A unit that ties in the first vote counts for nobody's skill (there is
      no majority to agree with) but takes part in the second vote, which may decide
      it. A rater without untied units has the skill NaN and no weight in the second
      vote; a unit rated by such raters only has no label.

    Raises:
      ValueError: if shapes disagree, ratings are not integer, K is below 1 or the
        weight of a unit with ratings is negative, infinite or NaN.

    Reference:
      The method of that name in Appen's (CrowdFlower's) and Toloka's platforms;
      crowd-kit's Wawa, which takes the lowest of tied categories instead.

    >>> result = wawa(jnp.array([[0, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]), 2)
    >>> [round(float(s), 2) for s in result.skill], result.labels.tolist()
    ([0.75, 1.0, 0.5], [0, 1, 0, 0])
    """
    caller = "aggregation.wawa"
    _check.shapes(
        caller,
        ratings=(ratings, "R N"),
        where=(where, "R N"),
        unit_weights=(unit_weights, "N"),
    )
    dtype = _em.work_dtype(unit_weights)
    x_rkn = _em.answers(caller, ratings, num_categories, where, dtype)
    first = _vote(x_rkn, jnp.ones(ratings.shape[:1], dtype))
    rated_n = x_rkn.any((0, 1))
    weight_n = _em.weights(caller, "unit_weights", unit_weights, rated_n, dtype)
    weight_n = jnp.where(first.reason == VoteReason.OK, weight_n, 0.0)
    majority_kn = _em.one_hot(first.labels, num_categories).astype(dtype)
    agreed_r = _em.einsum("rkn,kn,n->r", x_rkn, majority_kn, weight_n)
    judged_r = _em.einsum("rkn,n->r", x_rkn, weight_n)
    second = _vote(x_rkn, _ratings.divide(agreed_r, judged_r))
    return Wawa(*second, skill=_ratings.ratio(agreed_r, judged_r))


def collapse_passes(
    ratings: jax.Array,
    num_categories: int,
    *,
    where: jax.Array | None = None,
) -> PseudoAnnotator:
    """The passes of one model (one prompt) as one annotator with a confidence.

    Repeated passes share the model's systematic errors: they are not independent
    annotators. Given to `dawid_skene` as five raters they outvote a human, whose
    deviations look like errors: in a simulation a human of 95 % accuracy came out at
    72 % and was ignored. So collapse the passes of every (model, prompt) first and
    aggregate over different models, prompts and humans only.

    Args:
      ratings: `[P, N]` int category ids in `[0, K)`.
      num_categories: K.
      where: `[P, N]` bool, False where a pass has no answer.

    Returns:
      A `PseudoAnnotator`. Where the passes tie, `where` is False, the label -1 and the
      confidence that of the tied categories; without answers the confidence is NaN.
      The confidence is biased upward: with 5 passes and 3 categories it is at least
      0.4.

    Raises:
      ValueError: if shapes disagree, ratings are not integer or K is below 1.

    Reference:
      Wang et al. 2022 (arXiv 2203.11171), self-consistency by majority.

    >>> passes = jnp.array([[0, 1], [0, 2], [1, 0]])
    >>> one = collapse_passes(passes, 3)
    >>> one.labels.tolist(), one.where.tolist(), round(float(one.confidence[0]), 2)
    ([0, -1], [True, False], 0.67)
    """
    caller = "aggregation.collapse_passes"
    _check.shapes(caller, ratings=(ratings, "P N"), where=(where, "P N"))
    dtype = _em.work_dtype()
    x_pkn = _em.answers(caller, ratings, num_categories, where, dtype)
    vote = _vote(x_pkn, jnp.ones(ratings.shape[:1], dtype))
    return PseudoAnnotator(
        labels=vote.labels,
        confidence=vote.shares.max(-1),
        where=vote.reason == VoteReason.OK,
    )


def clamp(probs: jax.Array, known: jax.Array) -> jax.Array:
    """Probabilities with known labels in place: one-hot where the label is known.

    With the posteriors of any aggregation it is "the human's answer wins". To let the
    known labels teach the raters' errors as well, pass them to `dawid_skene` as
    `clamped`.

    Args:
      probs: `[N, K]` float; rows may be NaN.
      known: `[N]` int category ids; one outside `[0, K)`, for example -1, is unknown.

    Returns:
      `[N, K]` probs, rows of known units replaced.

    Raises:
      ValueError: if shapes disagree or `known` is not integer.

    Reference:
      Tang and Lease 2011, "Semi-supervised consensus labeling for crowdsourcing".

    >>> clamp(jnp.array([[0.5, 0.5], [0.5, 0.5]]), jnp.array([1, -1])).tolist()
    [[0.0, 1.0], [0.5, 0.5]]
    """
    caller = "aggregation.clamp"
    size = _check.shapes(caller, probs=(probs, "N K"), known=(known, "N"))
    _ratings.integers(caller, "known", known)
    probs = jnp.asarray(probs)
    probs = probs.astype(jnp.promote_types(probs.dtype, jnp.float32))
    known_kn = _em.one_hot(known, size["K"])
    return jnp.where(known_kn.any(0)[:, None], known_kn.T.astype(probs.dtype), probs)


# What the models of the sibling modules share. Category ids stand on the second axis
# and units on the last, so that a sum over raters and answers is one matrix product and
# a softmax runs along contiguous units.


def _vote(x_rkn: jax.Array, weight_r: jax.Array) -> Vote:
    votes_nk = _em.einsum("rkn,r->nk", x_rkn, weight_r)
    shares_nk = _ratings.ratio(votes_nk, votes_nk.sum(-1, keepdims=True))
    labels = _em.labels(shares_nk)
    tied = (labels < 0) & ~jnp.isnan(shares_nk[:, 0])
    reason = jnp.where(tied, VoteReason.TIE, VoteReason.OK)
    reason = jnp.where(jnp.isnan(shares_nk[:, 0]), VoteReason.NO_RATINGS, reason)
    return Vote(labels, shares_nk, reason.astype(jnp.int32))
