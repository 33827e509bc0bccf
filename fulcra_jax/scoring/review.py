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
      threshold: texts strictly below it; None for no threshold.
      budget: at most so many texts, the lowest first; None for no budget. At least one
        of the two is needed; with both, the lowest of those below the threshold.
      key: a PRNG key that breaks ties at the edge of the budget; None breaks them by
        position, which favours the beginning of a file.
      where: `[N]` bool, False for texts that are out of the question (reviewed, say).

    Returns:
      `[N]` bool.

    Raises:
      ValueError: if shapes disagree, neither threshold nor budget is given, or the
        budget is no whole number.

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
    allowed = jnp.ones((size["N"],), bool) if where is None else jnp.asarray(where)
    unknown = jnp.isnan(consistency)
    chosen = allowed
    if threshold is not None:
        chosen &= unknown | (consistency < threshold)
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
      ValueError: if shapes disagree.

    Reference:
      Särndal, Swensson and Wretman 1992, "Model assisted survey sampling", section 3.5.

    >>> sample = poisson_sample(jax.random.key(0), jnp.array([1.0, 0.0, 0.5]))
    >>> sample.selected[:2].tolist(), sample.probability.tolist()
    ([True, False], [1.0, 0.0, 0.5])
    """
    _check.shapes(
        "review.poisson_sample", probability=(probability, "N"), where=(where, "N")
    )
    probability = _clipped(probability)
    if where is not None:
        probability = jnp.where(jnp.asarray(where, bool), probability, 0.0)
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
      ValueError: if shapes disagree.

    Reference:
      Zrnic and Candès 2024, "Active statistical inference" (arXiv 2403.03208).

    >>> probability = audit_probability(jnp.array([0.0, 0.01, 0.16]), 1.5)
    >>> [round(float(p), 2) for p in probability]
    [0.11, 0.39, 1.0]
    """
    _check.shapes(
        "review.audit_probability", error_rate=(error_rate, "N"), where=(where, "N")
    )
    error_rate = _clipped(error_rate)
    allowed = jnp.ones(error_rate.shape, error_rate.dtype)
    if where is not None:
        allowed = jnp.asarray(where, bool).astype(error_rate.dtype)
        error_rate = jnp.where(allowed > 0.0, error_rate, 0.0)
    positive = error_rate > 0.0
    root = jnp.where(positive, jnp.sqrt(jnp.where(positive, error_rate, 1.0)), 0.0)
    even = divide(allowed, allowed.sum())
    share = jnp.where(root.sum() > 0.0, divide(root, root.sum()), even)
    share = (1.0 - uniform_share) * share + uniform_share * even
    size = jnp.minimum(jnp.asarray(size, share.dtype), allowed.sum())

    def cut(probability: jax.Array, _: None) -> tuple[jax.Array, None]:
        full = (probability >= 1.0) & (allowed > 0.0)
        left = size - full.sum().astype(share.dtype)
        free = jnp.where(full, 0.0, share)
        return jnp.where(full, 1.0, left * divide(free, free.sum())), None

    # Each round cuts at least one more; the number of rounds that matter is small.
    probability, _ = jax.lax.scan(cut, size * share, None, length=16)
    return jnp.minimum(probability, 1.0)


def _whole(caller: str, name: str, number: int | jax.Array) -> None:
    """Raises unless a number of texts is a whole number of at least 0."""
    dtype = number.dtype if isinstance(number, jax.Array) else np.asarray(number).dtype
    traced = isinstance(number, Tracer)
    if not np.issubdtype(dtype, np.integer) or not (traced or number >= 0):
        raise ValueError(
            f"{caller}: {name} is {number}; expected a whole number of texts, at least "
            "0 (a share of them: round(share * N))."
        )


def _clipped(x: jax.Array) -> jax.Array:
    x = jnp.asarray(x)
    return jnp.clip(x.astype(jnp.promote_types(x.dtype, jnp.float32)), 0.0, 1.0)
