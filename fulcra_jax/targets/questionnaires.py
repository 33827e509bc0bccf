# SPDX-License-Identifier: Apache-2.0
"""Targets from answers to Schwartz's Portrait Values Questionnaires.

A missing answer is anything outside 1 to 6: NaN, 0, the codes 7, 8, 9, 66,
77, 88, 99 of the European Social Survey.

Axes: N respondents, I items of the questionnaire, V values.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import _check, values
from fulcra_jax.targets import _group
from fulcra_jax.targets.keys import HIGH, LOW, PVQ21, PVQ40, PVQ_RR, PVQ_RR_REFINED
from fulcra_jax.targets.profile import SCALES, GroupTarget, Scale


class ItemScores(NamedTuple):
    """What the respondents say of the values, `[N, V]` each."""

    scores: jax.Array
    """Mean likeness of a value's items; 0 where not defined."""
    defined: jax.Array
    """bool, False where too few of the items are answered."""


def item_scores(
    responses: jax.Array,
    table: jax.Array,
    *,
    most_like: int = 1,
    center: bool = False,
    min_share: float = 0.5,
    where: jax.Array | None = None,
) -> ItemScores:
    """How much each respondent is like the portraits of each value.

    s_nv = mean of l(x_ni) over the answered items i of v, l(x) = (3.5 - x) / 2.5 if 1
    means "very much like me" and (x - 3.5) / 2.5 if 6 does. Centered: minus the mean of
    l(x_ni) over all items that n answered, those of no value included.

    Args:
      responses: `[N, I]` answers 1 to 6; anything else, NaN too, is a missing answer.
      table: `[I, V]` of 0 and 1, for example `jnp.asarray(PVQ21.table())`.
      most_like: the answer that means "very much like me": 1 or 6.
      center: subtract each respondent's own mean, without dividing by anything, as
        Schwartz does to remove differences in the use of the scale.
      min_share: a score needs answers to at least this share of the value's items.
      where: `[N, I]` bool, False for an answer that does not count: it is missing.

    Returns:
      `ItemScores`, in [-1, 1], or in [-2, 2] if centered.

    Raises:
      ValueError: if shapes disagree, `most_like` is neither 1 nor 6 or `min_share` is
        outside [0, 1].

    Reference:
      Schwartz, "Computing scores for the 10 human values" (European Social Survey);
      Schwartz 1992, section on scale use (centering).

    >>> table = jnp.array([[1, 0], [1, 0], [0, 1], [0, 1]])
    >>> found = item_scores(jnp.array([[1, 6, 1, 77], [2, 2, 88, 99]]), table)
    >>> [[round(float(x), 2) for x in row] for row in found.scores]
    [[0.0, 1.0], [0.6, 0.0]]
    >>> found.defined.tolist()
    [[True, True], [True, False]]
    """
    caller = "questionnaires.item_scores"
    _check.shapes(
        caller, responses=(responses, "N I"), table=(table, "I V"), where=(where, "N I")
    )
    _check_scale(caller, most_like, min_share)
    likeness, answered = _likeness(responses, most_like, where)
    counts = jnp.asarray(table).astype(likeness.dtype)
    answers = answered.astype(likeness.dtype)
    if center:
        own = likeness.sum(1) / jnp.maximum(answers.sum(1), 1.0)
        likeness = jnp.where(answered, likeness - own[:, None], 0.0)
    number = answers @ counts
    # A sum of whole numbers is exact; a hair under the share is the share.
    enough = number >= (min_share - 1e-6) * counts.sum(0)[None]
    defined = enough & (number > 0.0)
    total = jnp.matmul(likeness, counts, precision="highest")
    return ItemScores(jnp.where(defined, total / jnp.maximum(number, 1), 0), defined)


def valid_respondents(
    responses: jax.Array,
    *,
    max_missing: int | None = 5,
    max_same: int | None = 16,
    where: jax.Array | None = None,
) -> jax.Array:
    """Who answered enough items and told them apart.

    #missing_n <= max_missing and max_a #{i: x_ni = a} <= max_same

    The defaults are for 21 items.

    Args:
      responses: `[N, I]` answers 1 to 6; anything else, NaN too, is a missing answer.
        An answer that is no whole number is the same as no other.
      max_missing: so many answers may be missing; None for any number.
      max_same: so many answers may be the same; None for any number.
      where: `[N, I]` bool, False for an answer that does not count: it is missing.

    Returns:
      `[N]` bool. A respondent without any answer is never valid.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      The rule of the European Social Survey's human values scale: left out are those
      with more than five answers missing, or more than sixteen of 21 the same (ESS
      EduNet, "Human values", from item to index).

    >>> same = jnp.full((1, 21), 2).at[0, :4].set(1)
    >>> valid_respondents(jnp.concatenate([same, same.at[0, 4].set(3)])).tolist()
    [False, True]
    """
    caller = "questionnaires.valid_respondents"
    _check.shapes(caller, responses=(responses, "N I"), where=(where, "N I"))
    answered = _answered(responses, where)
    valid = answered.any(1)
    if max_missing is not None:
        valid &= (~answered).sum(1) <= max_missing
    if max_same is not None:
        for answer in range(LOW, HIGH + 1):
            valid &= (answered & (responses == answer)).sum(1) <= max_same
    return valid


def from_pvq21(
    responses: jax.Array,
    *,
    weights: jax.Array | None = None,
    most_like: int = 1,
    center: bool = False,
    scale: Scale | None = None,
    min_share: float = 0.5,
    max_missing: int | None = 5,
    max_same: int | None = 16,
    where: jax.Array | None = None,
) -> GroupTarget:
    """The target of a group from its answers to the PVQ-21.

    t_v = sum_n w_n s_nv / sum_n w_n over the valid respondents, s of `item_scores`.
    Uncentered, t = (3.5 - m) / 2.5 of the group's mean answer m: the line of the
    released national targets (slope .97 to .99 against rounds 6 to 10 of the survey).

    Most people find most portraits like them, so an uncentered target is positive on
    opposite values; centered, it says which values come first. Centered numbers are
    small: `scale` then defaults to "largest".

    Args:
      responses: `[N, 21]` answers, in the order of the questionnaire; outside 1 to 6,
        NaN too, they are missing.
      weights: `[N]` float, at least 0, of the survey's design; None for ones. Not read
        for a respondent who is left out.
      most_like: the answer that means "very much like me": 1 in the European Social
        Survey; forms that count the other way have 6.
      center: subtract each respondent's mean over all items first; right for group
        means and correlations.
      scale: "raw"; "largest" divides by the largest |t_v|; None: raw if not centered.
      min_share: a value needs answers to at least this share of its items.
      max_missing: with more answers missing, a respondent is left out; None for never.
      max_same: with more answers the same, a respondent is left out; None for never.
      where: `[N, 21]` bool, False for an answer that does not count: it is missing.

    Returns:
      `GroupTarget` of `[10]`, in [-1, 1] but for centered raw scores (at most 2); NaN
      for a value that nobody answers.

    Raises:
      ValueError: if shapes disagree or a number is out of range.
      KeyError: if `scale` is unknown.

    Reference:
      Schwartz 2003, "A proposal for measuring value orientations across nations"
      (European Social Survey); Yao et al. 2024, released code (national targets).

    >>> answers = jnp.array([[1, 5, 1, 4, 2, 4, 4, 2, 4, 4, 2, 2, 4, 2, 5, 3, 4, 1, 1,
    ...                       3, 3]])
    >>> [round(float(t), 2) for t in from_pvq21(answers).target]
    [0.8, -0.4, 0.0, -0.2, -0.4, 0.6, 0.0, 0.0, 0.8, 0.87]
    """
    return _from(
        "questionnaires.from_pvq21", PVQ21.table(), responses, weights, most_like,
        center, scale, min_share, max_missing, max_same, where,
    )  # fmt: skip


def from_pvq40(
    responses: jax.Array,
    *,
    weights: jax.Array | None = None,
    most_like: int = 6,
    center: bool = False,
    scale: Scale | None = None,
    min_share: float = 0.5,
    max_missing: int | None = None,
    max_same: int | None = None,
    where: jax.Array | None = None,
) -> GroupTarget:
    """The target of a group from its answers to the PVQ-40; see `from_pvq21`.

    t_v = sum_n w_n s_nv / sum_n w_n over the valid respondents, s of `item_scores`.

    Args:
      responses: `[N, 40]` answers, in the order of the questionnaire; outside 1 to 6,
        NaN too, they are missing.
      weights: `[N]` float, at least 0; None for ones.
      most_like: the answer that means "very much like me": 6 as published, unlike the
        PVQ-21 of the European Social Survey.
      center: subtract each respondent's mean over all items first.
      scale: "raw"; "largest" divides by the largest |t_v|; None: raw if not centered.
      min_share: a value needs answers to at least this share of its items.
      max_missing: with more answers missing, a respondent is left out. The published
        instructions have no such rule: None.
      max_same: with more answers the same, a respondent is left out; None as well.
      where: `[N, 40]` bool, False for an answer that does not count: it is missing.

    Returns:
      `GroupTarget` of `[10]`, in the order of `values.BASIC`.

    Raises:
      ValueError: if shapes disagree or a number is out of range.
      KeyError: if `scale` is unknown.

    Reference:
      Schwartz et al. 2001, "Extending the cross-cultural validity of the theory of
      basic human values with a different method of measurement".

    >>> answers = jnp.full((1, 40), 4).at[0, jnp.array(PVQ40.key["Power"]) - 1].set(1)
    >>> [round(float(t), 1) for t in from_pvq40(answers).target]
    [0.2, 0.2, 0.2, 0.2, -1.0, 0.2, 0.2, 0.2, 0.2, 0.2]
    """
    return _from(
        "questionnaires.from_pvq40", PVQ40.table(), responses, weights, most_like,
        center, scale, min_share, max_missing, max_same, where,
    )  # fmt: skip


def from_pvq_rr(
    responses: jax.Array,
    *,
    refined: bool = False,
    weights: jax.Array | None = None,
    most_like: int = 6,
    center: bool = False,
    scale: Scale | None = None,
    min_share: float = 0.5,
    max_missing: int | None = None,
    max_same: int | None = None,
    where: jax.Array | None = None,
) -> GroupTarget:
    """The target of a group from its answers to the PVQ-RR; see `from_pvq21`.

    t_v = sum_n w_n s_nv / sum_n w_n over the valid respondents, s of `item_scores`.
    Ten values by Schwartz's key: Tradition with Humility, Power of dominance and
    resources, Face in none (its items count for the mean that centering subtracts).

    Args:
      responses: `[N, 57]` answers, in the order of the questionnaire; outside 1 to 6,
        NaN too, they are missing.
      refined: nineteen values, in the order of `values.REFINED`, instead of ten.
      weights: `[N]` float, at least 0; None for ones.
      most_like: the answer that means "very much like me": 6 as published.
      center: subtract each respondent's mean over all 57 items first.
      scale: "raw"; "largest" divides by the largest |t_v|; None: raw if not centered.
      min_share: a value needs answers to at least this share of its items.
      max_missing: with more answers missing, a respondent is left out. The published
        instructions have no such rule: None.
      max_same: with more answers the same, a respondent is left out; None as well.
      where: `[N, 57]` bool, False for an answer that does not count: it is missing.

    Returns:
      `GroupTarget` of `[10]`, or of `[19]` if refined.

    Raises:
      ValueError: if shapes disagree or a number is out of range.
      KeyError: if `scale` is unknown.

    Reference:
      Schwartz et al. 2012, "Refining the theory of basic individual values"; Schwartz
      and Cieciuch 2022 (the PVQ-RR).

    >>> answers = jnp.full((1, 57), 4).at[0, jnp.array([7, 38, 54]) - 1].set(6)
    >>> print(f"{from_pvq_rr(answers).target[BASIC.index('Tradition')]:.1f}")
    0.6
    >>> from_pvq_rr(answers, refined=True).target.shape
    (19,)
    """
    questionnaire = PVQ_RR_REFINED if refined else PVQ_RR
    return _from(
        "questionnaires.from_pvq_rr", questionnaire.table(), responses, weights,
        most_like, center, scale, min_share, max_missing, max_same, where,
    )  # fmt: skip


BASIC = values.BASIC


def _from(
    caller: str,
    table: np.ndarray,
    responses: jax.Array,
    weights: jax.Array | None,
    most_like: int,
    center: bool,
    scale: Scale | None,
    min_share: float,
    max_missing: int | None,
    max_same: int | None,
    where: jax.Array | None,
) -> GroupTarget:
    axes = f"N {table.shape[0]}"
    _check.shapes(
        caller, responses=(responses, axes), weights=(weights, "N"), where=(where, axes)
    )
    _check_scale(caller, most_like, min_share)
    scale = ("largest" if center else "raw") if scale is None else scale
    _check.known(caller, "scale", scale, SCALES)
    _group.check_weights(caller, weights)
    valid = valid_respondents(
        responses, max_missing=max_missing, max_same=max_same, where=where
    )
    scores, defined = item_scores(
        responses,
        jnp.asarray(table),
        most_like=most_like,
        center=center,
        min_share=min_share,
        where=where,
    )
    w = _group.weights_of(scores, weights, defined & valid[:, None])
    found, error = _group.mean(scores, w), _group.standard_error(scores, w)
    if scale == "largest":
        peak = _group.largest(found)
        found, error = found / peak, error / peak
    return GroupTarget(found, error, _group.effective_size(w))


def _answered(responses: jax.Array, where: jax.Array | None) -> jax.Array:
    inside = (responses >= LOW) & (responses <= HIGH)
    return inside & _group.present(responses, where)


def _likeness(
    responses: jax.Array, most_like: int, where: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Answers in [-1, 1], 0 where missing, and which are there."""
    answered = _answered(responses, where)
    x = jnp.where(answered, responses, 0)
    middle, half = 0.5 * (LOW + HIGH), 0.5 * (HIGH - LOW)
    likeness = (_group.floats(x) - middle) / half
    likeness = -likeness if most_like == LOW else likeness
    return jnp.where(answered, likeness, 0.0), answered


def _check_scale(caller: str, most_like: int, min_share: float) -> None:
    if most_like not in (LOW, HIGH):
        raise ValueError(
            f"{caller}: most_like is {most_like}; expected {LOW} or {HIGH}, the answer "
            'that means "very much like me".'
        )
    if not 0.0 <= min_share <= 1.0:
        raise ValueError(f"{caller}: min_share is {min_share}; expected 0 to 1.")
