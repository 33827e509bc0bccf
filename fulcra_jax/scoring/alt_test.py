# SPDX-License-Identifier: Apache-2.0
"""May an LLM stand in for the human annotators? The alternative annotator test.

Axes: R humans, N items judged.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import _check
from fulcra_jax.scoring import _distributions

SCORINGS = ("agreement", "rmse")


class AltTest(NamedTuple):
    """The verdict and, per human `[R]`, what it rests on."""

    winning_rate: jax.Array
    advantage_probability: jax.Array
    passes: jax.Array
    p_values: jax.Array
    rejected: jax.Array
    items: jax.Array


def alt_test(
    llm: jax.Array,
    humans: jax.Array,
    *,
    epsilon: float = 0.2,
    alpha: float = 0.05,
    scoring: str = "agreement",
    where: jax.Array | None = None,
    llm_where: jax.Array | None = None,
) -> AltTest:
    """Whether the LLM represents the group as well as its members do.

    Human j is left out in turn. On each item i that j and at least one other human
    labelled, S(x) is how well x fits the other humans' labels: the share of them equal
    to x, or minus the root mean squared distance. W_llm = [S(llm) >= S(j)],
    W_j = [S(j) >= S(llm)], d = W_j - W_llm. A one-sided t-test rejects
    H0: mean d >= epsilon; Benjamini and Yekutieli control the false discoveries over
    the humans. The winning rate is the share of humans rejected, and the test passes
    at 0.5: the LLM is then as good as a human who costs epsilon more.

    At least three humans and 30 items each are advised, 50 to 100 are better. With few
    items the t-test has little power, and a failed test says nothing.

    Args:
      llm: `[N]` ids or numbers, the LLM's answers.
      humans: `[R, N]` the humans' answers in the same coding.
      epsilon: what a human's costs are worth in agreement: 0.2 for experts, 0.15 for
        skilled annotators, 0.1 for crowd workers.
      alpha: the false discovery rate, in (0, 1).
      scoring: "agreement" for categories, "rmse" for numbers.
      where: `[R, N]` bool, False where a human gave no answer; NaN is none either.
      llm_where: `[N]` bool, False where the LLM gave none. A code for "no answer", -1
        say, is an answer unless it is masked here.

    Returns:
      `winning_rate` and `advantage_probability` (the mean over humans of mean W_llm,
      which compares LLMs) in [0, 1], NaN if nobody could be tested; `passes` bool.
      Per human `[R]`: `p_values`, NaN for fewer than two items (he is left out of both
      means) or if every d equals epsilon; `rejected` bool; `items`, how many counted,
      float. For "rmse" a difference within rounding is a tie. If all d are equal the
      p-value is 0 or 1, whatever their number: look at `items`. R may be 0: nobody
      could be tested.

    Raises:
      ValueError: if shapes disagree, or `alpha` or `epsilon` is not between 0 and 1.
      KeyError: if `scoring` is unknown.

    Reference:
      Calderon, Reichart and Dror 2025 (arXiv 2501.10970), "The alternative annotator
      test for LLM-as-a-judge", section 3; Benjamini and Yekutieli 2001.

    >>> llm = jnp.tile(jnp.array([0, 1, 2]), 20)
    >>> humans = jnp.stack([llm, llm, jnp.roll(llm, 1)])
    >>> result = alt_test(llm, humans)
    >>> result.winning_rate.item(), result.passes.item(), result.items.tolist()
    (1.0, True, [60.0, 60.0, 60.0])
    """
    caller = "alt_test.alt_test"
    _check.shapes(
        caller,
        llm=(llm, "N"),
        humans=(humans, "R N"),
        where=(where, "R N"),
        llm_where=(llm_where, "N"),
    )
    _check.known(caller, "scoring", scoring, SCORINGS)
    if not 0.0 <= epsilon < 1.0:
        raise ValueError(f"{caller}: epsilon is {epsilon}; expected 0 <= epsilon < 1.")
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"{caller}: alpha is {alpha}; expected 0 < alpha < 1.")
    where = jnp.ones(humans.shape, bool) if where is None else jnp.asarray(where, bool)
    if llm_where is not None:
        where = where & jnp.asarray(llm_where, bool)[None]
    # NaN is no answer: it would tie with everything.
    where = where & (humans == humans) & (llm == llm)[None]
    humans = jnp.where(where, humans, 0)
    llm = jnp.where(where.any(0), llm, 0)
    dtype = _dtype(llm, humans)

    def against(j: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        others = where & (jnp.arange(len(humans)) != j)[:, None]
        counted = where[j] & others.any(0)
        ahead_n, slack_n = _lead(llm, humans[j], humans, others, scoring)
        llm_wins, human_wins = ahead_n >= -slack_n, ahead_n <= slack_n
        difference = human_wins.astype(dtype) - llm_wins.astype(dtype)
        n = counted.sum().astype(dtype)
        mean = jnp.where(counted, difference, 0.0).sum() / jnp.maximum(n, 1.0)
        spread = jnp.where(counted, (difference - mean) ** 2, 0.0).sum()
        wins = (counted & llm_wins).sum().astype(dtype) / jnp.maximum(n, 1.0)
        return _p_value(mean - epsilon, spread, n), wins, n

    if len(humans) == 0:
        p_values = wins = items = jnp.zeros((0,), dtype)
    else:
        p_values, wins, items = jax.vmap(against)(jnp.arange(len(humans)))
    tested = ~jnp.isnan(p_values)
    rejected = _benjamini_yekutieli(p_values, tested, alpha)
    number = tested.sum().astype(dtype)
    rate = rejected.sum().astype(dtype) / jnp.maximum(number, 1.0)
    enough = items >= 2.0
    advantage = jnp.where(enough, wins, 0.0).sum() / jnp.maximum(enough.sum(), 1)
    return AltTest(
        winning_rate=jnp.where(number > 0.0, rate, jnp.nan),
        advantage_probability=jnp.where(enough.any(), advantage, jnp.nan).astype(dtype),
        passes=(number > 0.0) & (rate >= 0.5),
        p_values=p_values,
        rejected=rejected,
        items=items,
    )


def _dtype(*arrays: jax.Array) -> jnp.dtype:
    floats = [x.dtype for x in arrays if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.result_type(jnp.float32, *floats) if floats else jnp.zeros(()).dtype


def _lead(
    llm_n: jax.Array,
    human_n: jax.Array,
    humans_rn: jax.Array,
    others_rn: jax.Array,
    scoring: str,
) -> tuple[jax.Array, jax.Array]:
    """How far the LLM fits the others better than the human, and what is a tie.

    Sums serve as well as means and their roots: both sides have the same others.
    """
    if scoring == "agreement":
        llm_s, human_s = (
            (others_rn & (humans_rn == x[None])).sum(0) for x in (llm_n, human_n)
        )
        return llm_s - human_s, jnp.zeros_like(llm_s)
    dtype = _dtype(llm_n, humans_rn)
    humans_rn = jnp.where(others_rn, humans_rn.astype(dtype), 0.0)
    sums = []
    for x in (llm_n, human_n):
        x_n = x.astype(dtype)
        distance = jnp.where(others_rn, jnp.abs(x_n[None] - humans_rn), 0.0)
        # 1.3 - 1.0 and 1.0 - 0.7 are a tie though their last digits differ.
        size = jnp.abs(x_n)[None] + jnp.abs(humans_rn)
        slack = 4.0 * jnp.finfo(dtype).eps * (distance * size).sum(0)
        sums.append(((distance**2).sum(0), slack))
    (llm_s, llm_slack), (human_s, human_slack) = sums
    return human_s - llm_s, llm_slack + human_slack


def _p_value(excess: jax.Array, spread: jax.Array, n: jax.Array) -> jax.Array:
    """Of the one-sided t-test that a mean lies below; excess = mean - bound."""
    varies = spread > 0.0
    error = jnp.sqrt(jnp.where(varies, spread, 1.0) / jnp.maximum(n * (n - 1.0), 1.0))
    t = jnp.where(varies, excess / error, 0.0)
    p = _distributions.student_t_cdf(t, jnp.maximum(n - 1.0, 1.0))
    constant = jnp.where(excess < 0.0, 0.0, jnp.where(excess > 0.0, 1.0, jnp.nan))
    return jnp.where(n >= 2.0, jnp.where(varies, p, constant), jnp.nan)


def _benjamini_yekutieli(
    p_r: jax.Array, tested_r: jax.Array, alpha: float
) -> jax.Array:
    """Rejected hypotheses, with any dependence between the tests."""
    size = len(p_r)
    harmonic = np.concatenate([[1.0], np.cumsum(1.0 / np.arange(1, size + 1))])
    m = tested_r.sum()
    factor = jnp.asarray(harmonic, p_r.dtype)[m] * jnp.maximum(m, 1)
    filled = jnp.where(tested_r, p_r, jnp.inf)
    ordered = jnp.sort(filled)
    under = ordered <= jnp.arange(1, size + 1) * alpha / factor
    last = jnp.where(under, ordered, -1.0).max(initial=-1.0)
    return tested_r & (filled <= last)
