# SPDX-License-Identifier: Apache-2.0
"""Which texts a human should look at: one queue to correct, one sample to measure.

Two queues, not one. Correcting the least consistent texts repairs labels; it says
nothing about the errors that all passes share, and an estimate from it misses the truth
more often than it should (`python -m experiments.review_simulation`). What is measured
is measured on a random sample whose sampling probabilities are recorded: `ppi_mean` and
`dsl_mean` read them.

Axes: N texts.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from fulcra_jax import _check
from fulcra_jax.scoring._ratings import divide


class AuditSample(NamedTuple):
    """A random sample with the probabilities it was drawn with."""

    selected: jax.Array
    """`[N]` bool."""
    probability: jax.Array
    """`[N]` float, of each text to be in the sample; 0 for one that could not be."""


def needs_review(
    consistency: jax.Array,
    *,
    threshold: float | jax.Array | None = None,
    budget: int | jax.Array | None = None,
    key: jax.Array | None = None,
    where: jax.Array | None = None,
) -> jax.Array:
    """The texts that a human should correct: the least consistent ones.

    Args:
      consistency: `[N]` float, of `pass_consistency` or any other measure of which low
        is bad. NaN (too few answers) comes first: nothing is known of it.
      threshold: texts strictly below it; None for no threshold. What is below it by
        at most 8 eps (relative) is equal to it: a consistency of 3 / 5 may come out as
        0.59999996.
      budget: at most so many texts, the lowest first; None for no budget. At least one
        of the two is needed; with both, the lowest of those below the threshold.
      key: a PRNG key that breaks ties at the edge of the budget; None breaks them by
        position, which favours the beginning of a file.
      where: `[N]` bool, False for texts that are out of the question (reviewed, say).

    Returns:
      `[N]` bool.

    Raises:
      ValueError: if shapes disagree, neither threshold nor budget is given, the budget
        is no whole number or the threshold is NaN.

    Reference:
      Yao et al. 2024 (arXiv 2311.10766), section 3.3: human correction of samples of
      low consistency.

    >>> consistency = jnp.array([0.9, 0.4, jnp.nan, 0.7])
    >>> needs_review(consistency, threshold=0.8).tolist()
    [False, True, True, True]
    >>> needs_review(consistency, budget=2).tolist()
    [False, True, True, False]
    """
    caller = "review.needs_review"
    size = _check.shapes(caller, consistency=(consistency, "N"), where=(where, "N"))
    if threshold is None and budget is None:
        raise ValueError(
            f"{caller}: neither threshold nor budget is given; expected at least one."
        )
    if budget is not None:
        _whole(caller, "budget", budget)
    chosen = jnp.ones((size["N"],), bool)
    if where is not None:
        chosen = jnp.asarray(where, bool)
    consistency = _floats(consistency)
    unknown = jnp.isnan(consistency)
    if threshold is not None:
        _number(caller, "threshold", threshold, -np.inf, np.inf)
        if np.shape(threshold) != ():
            raise ValueError(
                f"{caller}: threshold has shape {np.shape(threshold)}; expected one "
                "number."
            )
        chosen &= unknown | _below(consistency, threshold)
    if budget is None:
        return chosen
    order = jnp.where(unknown, -jnp.inf, consistency)
    order = jnp.where(chosen, order, jnp.inf)
    tie = jnp.arange(size["N"])
    if key is not None:
        tie = jax.random.permutation(key, tie)
    ranked = jnp.lexsort((tie, order, ~chosen))
    rank = (
        jnp.zeros((size["N"],), jnp.int32)
        .at[ranked]
        .set(jnp.arange(size["N"], dtype=jnp.int32))
    )
    return chosen & (rank < budget)


def audit_sample(
    key: jax.Array, size: int | jax.Array, *, where: jax.Array
) -> AuditSample:
    """A simple random sample without replacement, to measure on.

    Args:
      key: a PRNG key; record it with the sample.
      size: how many texts; all if there are fewer.
      where: `[N]` bool, the texts that can be drawn.

    Returns:
      `AuditSample`: every text that can be drawn has the same probability.

    Raises:
      ValueError: if `where` is no vector or `size` is no whole number.

    Reference:
      Cochran 1977, "Sampling techniques", chapter 2.

    >>> sample = audit_sample(jax.random.key(0), 2, where=jnp.ones(8, bool))
    >>> int(sample.selected.sum()), float(sample.probability[0])
    (2, 0.25)
    """
    _check.shapes("review.audit_sample", where=(where, "N"))
    _whole("review.audit_sample", "size", size)
    where = jnp.asarray(where, bool)
    n = where.shape[0]
    draw = jnp.where(where, jax.random.uniform(key, (n,)), jnp.inf)
    rank = (
        jnp.zeros((n,), jnp.int32)
        .at[jnp.argsort(draw)]
        .set(jnp.arange(n, dtype=jnp.int32))
    )
    total = where.sum().astype(jnp.zeros(()).dtype)
    share = jnp.minimum(divide(jnp.asarray(size, total.dtype), total), 1.0)
    return AuditSample(where & (rank < size), jnp.where(where, share, 0.0))


def poisson_sample(
    key: jax.Array, probability: jax.Array, *, where: jax.Array | None = None
) -> AuditSample:
    """A sample in which each text is drawn on its own, with its own probability.

    Args:
      key: a PRNG key; record it with the sample.
      probability: `[N]` float in [0, 1], for example of `audit_probability`. 0 takes a
        text out of what can be estimated.
      where: `[N]` bool, the texts that can be drawn.

    Returns:
      `AuditSample`; the number of texts is random, its mean the sum of the
      probabilities. A probability outside [0, 1] counts as the nearest of the two.

    Raises:
      ValueError: if shapes disagree or the probability of a text that can be drawn is
        NaN; while tracing such a text is not drawn and has the probability 0.

    Reference:
      Särndal, Swensson and Wretman 1992, "Model assisted survey sampling", section 3.5.

    >>> sample = poisson_sample(jax.random.key(0), jnp.array([1.0, 0.0, 0.5]))
    >>> sample.selected[:2].tolist(), sample.probability.tolist()
    ([True, False], [1.0, 0.0, 0.5])
    """
    _check.shapes(
        "review.poisson_sample", probability=(probability, "N"), where=(where, "N")
    )
    allowed = _allowed(probability, where)
    probability = jnp.where(allowed, _floats(probability), 0.0)
    _number("review.poisson_sample", "probability", probability, -np.inf, np.inf)
    probability = jnp.where(jnp.isnan(probability), 0.0, jnp.clip(probability, 0, 1))
    uniform = jax.random.uniform(key, probability.shape, probability.dtype)
    return AuditSample(uniform < probability, probability)


def audit_probability(
    error_rate: jax.Array,
    size: float | jax.Array,
    *,
    uniform_share: float = 0.2,
    where: jax.Array | None = None,
) -> jax.Array:
    """Sampling probabilities that measure best for a given number of labels.

    pi_u proportional to sqrt(error rate of u), mixed with a uniform share and scaled to
    the expected size; probabilities that would exceed 1 are cut and the rest scaled up.
    What is left when all texts with a positive share are certain is spread evenly.
    Take the error rate per stratum from a pilot: probabilities proportional to the
    *disagreement* of the passes are worse than a plain random sample where the passes
    share their errors.

    Args:
      error_rate: `[N]` float in [0, 1], how often the model is expected to be wrong.
      size: the expected number of labels.
      uniform_share: the part of the size that is spread evenly, in [0, 1], so that no
        text has probability 0.
      where: `[N]` bool, the texts that can be drawn.

    Returns:
      `[N]` float in [0, 1], 0 where masked; they sum to `size`, or to the number of
      texts if that is smaller.

    Raises:
      ValueError: if shapes disagree, the error rate of a text that can be drawn is
        outside [0, 1] or NaN, `size` is negative or NaN, or `uniform_share` is outside
        [0, 1].

    Reference:
      Zrnic and Candès 2024, "Active statistical inference" (arXiv 2403.03208).

    >>> probability = audit_probability(jnp.array([0.0, 0.01, 0.16]), 1.5)
    >>> [round(float(p), 2) for p in probability]
    [0.11, 0.39, 1.0]
    """
    caller = "review.audit_probability"
    _check.shapes(caller, error_rate=(error_rate, "N"), where=(where, "N"))
    open_n = _allowed(error_rate, where)
    error_rate = jnp.where(open_n, _floats(error_rate), 0.0)
    _number(caller, "error_rate", error_rate, 0.0, 1.0)
    _number(caller, "size", size, 0.0, np.inf)
    _number(caller, "uniform_share", uniform_share, 0.0, 1.0)
    allowed = open_n.astype(error_rate.dtype)
    error_rate = jnp.clip(error_rate, 0.0, 1.0)
    positive = error_rate > 0.0
    root = jnp.where(positive, jnp.sqrt(jnp.where(positive, error_rate, 1.0)), 0.0)
    even = divide(allowed, allowed.sum())
    share = jnp.where(root.sum() > 0.0, divide(root, root.sum()), even)
    share = (1.0 - uniform_share) * share + uniform_share * even
    size = jnp.minimum(jnp.asarray(size, share.dtype), allowed.sum())

    if share.size == 0:
        return share
    # The k largest are certain: the first k at which the next one is at most 1.
    order = jnp.argsort(-share)
    ordered = share[order]
    rest = jnp.cumsum(ordered[::-1])[::-1]
    place = jnp.arange(share.size)
    scale = divide(size - place, rest)
    k = (ordered * scale <= 1.0 + 4.0 * jnp.finfo(share.dtype).eps).argmax()
    full = jnp.zeros(share.shape, bool).at[order].set(place < k)
    probability = jnp.where(full, 1.0, jnp.minimum(share * scale[k], 1.0))
    # All that have a share are certain, and more are asked for.
    left = jnp.where(rest[k] > 0.0, 0.0, size - k)
    others = jnp.where(full, 0.0, allowed)
    return probability + left * divide(others, others.sum())


def _whole(caller: str, name: str, number: int | jax.Array) -> None:
    """Raises unless a number of texts is a whole number of at least 0."""
    dtype = number.dtype if isinstance(number, jax.Array) else np.asarray(number).dtype
    traced = isinstance(number, Tracer)
    one = np.issubdtype(dtype, np.integer) and np.shape(number) == ()
    if not one or not (traced or number >= 0):
        raise ValueError(
            f"{caller}: {name} is {number}; expected a whole number of texts, at least "
            "0 (a share of them: round(share * N))."
        )


def _number(
    caller: str, name: str, x: float | jax.Array, low: float, high: float
) -> None:
    """Raises if anything that can be read is NaN or outside [low, high]."""
    if isinstance(x, Tracer):
        return
    given = np.asarray(x, float)
    wrong = ~((given >= low) & (given <= high))
    if wrong.any():
        what = "a number" if np.isinf(low) else f"a number in [{low:g}, {high:g}]"
        raise ValueError(f"{caller}: {name} holds {given[wrong][0]}; expected {what}.")


def _below(x: jax.Array, threshold: float | jax.Array) -> jax.Array:
    """Below a threshold by more than rounding; ratios are off by a few eps."""
    threshold = jnp.asarray(threshold, x.dtype)
    slack = 8.0 * jnp.finfo(x.dtype).eps * jnp.minimum(jnp.abs(x), jnp.abs(threshold))
    # -inf is infinitely far below inf, and no slack makes them equal.
    equal = (jnp.abs(x - threshold) <= slack) & jnp.isfinite(slack)
    return (x < threshold) & ~equal


def _allowed(like: jax.Array, where: jax.Array | None) -> jax.Array:
    if where is None:
        return jnp.ones(like.shape, bool)
    return jnp.asarray(where, bool)


def _floats(x: jax.Array) -> jax.Array:
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
