# SPDX-License-Identifier: Apache-2.0
"""Labels from raters who err in their own ways: the model of Dawid and Skene.

A unit has one true category z_u with prevalence p_k; rater a answers l where k is true
with probability e_a[k, l], independently of the other raters. EM estimates all of it
from the ratings alone. The fit depends on the units through their rating patterns, so
that a `pattern_table` (its counts as `unit_weights`) gives the same result at a cost
independent of the number of units.

Axes: R raters, N units (or patterns), K categories, T iterations.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import _check
from fulcra_jax.scoring import _em, _ratings


class DawidSkene(NamedTuple):
    """A fitted model. A rater without ratings has NaN, a unit without ratings too."""

    probs: jax.Array
    """`[N, K]` posterior of the true category, usable as a soft label."""
    labels: jax.Array
    """`[N]` int32 the most probable category; -1 if tied or without ratings."""
    prevalence: jax.Array
    """`[K]` weighted mean of the posteriors over the units with ratings."""
    confusion: jax.Array
    """`[R, K, K]` rows = true category, columns = answer, given the posteriors."""
    objective: jax.Array
    """`[T]` what EM maximises: log-likelihood + log prior; it never falls."""
    log_likelihood: jax.Array
    """`[T]` of the parameters that each iteration arrived at, in nats."""
    iterations: jax.Array
    """`[]` int32 how many iterations were run; 0 without ratings."""


class _Estimate(NamedTuple):
    """What one M-step estimates: answer probabilities and their log prior."""

    confusion: jax.Array
    log_prior: jax.Array


def dawid_skene(
    ratings: jax.Array,
    num_categories: int,
    *,
    where: jax.Array | None = None,
    unit_weights: jax.Array | None = None,
    clamped: jax.Array | None = None,
    pseudo_counts: jax.Array | float | None = None,
    num_iterations: int = 100,
    tolerance: float | None = None,
) -> DawidSkene:
    """True labels and one confusion matrix per rater, by EM.

    Start: T_uk = n_uk / r_u, the shares of the votes. M-step: p_k = mean_u T_uk and
    e_a[k, l] proportional to c_kl + sum_u T_uk [x_ua = l]. E-step: T_uk proportional to
    p_k prod_a e_a[k, x_ua]. Probabilities below 1e-10 count as 1e-10 in the E-step.

    Args:
      ratings: `[R, N]` int category ids in `[0, K)`.
      num_categories: K.
      where: `[R, N]` bool, False where a rating is missing.
      unit_weights: `[N]` float >= 0, how often a unit counts.
      clamped: `[N]` int, the known category of a unit and -1 where it is not known: its
        posterior is one-hot in every step (semi-supervised). For a pattern table, give
        `pattern_table` the known labels as one more row of ratings (with `where` False
        where unknown) and take it off again: `ratings=t.ratings[:-1]`,
        `where=t.where[:-1]`, `clamped=jnp.where(t.where[-1], t.ratings[-1], -1)`.
      pseudo_counts: finite and >= 0, answers added to every table: `[K, K]`,
        `[R, K, K]` or a number. The result is then the mode under Dirichlet
        priors with parameters 1 + c. Default: 2 on the diagonal and 1 elsewhere,
        without which a category of four units gives rows of zeros and ones. 0.0 is the
        maximum likelihood of 1979.
      num_iterations: T, the number of iterations, at most.
      tolerance: stop after an iteration that raised the objective by less than this
        many nats per unit; None runs them all.

    Returns:
      A `DawidSkene`. Units without ratings do not touch the fit, clamped or not; their
      posterior is NaN (the prevalence is a guess about the data, not about the unit),
      one-hot if clamped. Without any rating all is NaN. With `pseudo_counts=0.0` a row
      of a confusion matrix is NaN if the rater rated no unit that may be of that
      category; otherwise such a row is the mode of the prior. A category that nobody
      answers has the prevalence 0.

    Raises:
      ValueError: if shapes disagree, ids are not integer, K or T is below 1, a
        pseudo-count or `tolerance` is negative, infinite or NaN, or so is the weight of
        a unit with ratings.

    Reference:
      Dawid and Skene 1979, "Maximum likelihood estimation of observer error-rates using
      the EM algorithm", Applied Statistics 28(1), equations 2.3 to 2.5, 3.1.

    >>> ratings = jnp.array([[0, 0, 1, 1, 1], [0, 0, 1, 1, 0], [0, 0, 1, 1, 1]])
    >>> fit = dawid_skene(ratings, 2)
    >>> fit.labels.tolist(), bool(fit.confusion[0, 1, 1] > fit.confusion[1, 1, 1])
    ([0, 0, 1, 1, 1], True)
    """
    caller = "dawid_skene.dawid_skene"
    dtype = _checked(
        caller, ratings, num_categories, where, unit_weights, clamped, pseudo_counts
    )
    x_aln = _em.answers(caller, ratings, num_categories, where, dtype)
    return _fit_tables(
        caller, x_aln, unit_weights, clamped, pseudo_counts, num_iterations, tolerance
    )


def dawid_skene_counts(
    counts: jax.Array,
    *,
    unit_weights: jax.Array | None = None,
    clamped: jax.Array | None = None,
    pseudo_counts: jax.Array | float | None = None,
    num_iterations: int = 100,
    tolerance: float | None = None,
) -> DawidSkene:
    """`dawid_skene` where a rater may have answered a unit several times.

    E-step: T_uk proportional to p_k prod_a prod_l e_a[k, l]^n_aul.

    Args:
      counts: `[R, N, K]` numbers >= 0, how often rater a gave unit u the category l.
      unit_weights: `[N]` float >= 0, how often a unit counts.
      clamped: `[N]` int known categories, -1 where not known.
      pseudo_counts: float >= 0, as in `dawid_skene`.
      num_iterations: T, at most.
      tolerance: as in `dawid_skene`.

    Returns:
      A `DawidSkene`, with the degenerate cases of `dawid_skene`. The likelihood leaves
      out the multinomial coefficients, which do not depend on the parameters.

    Raises:
      ValueError: if shapes disagree, a count is negative, infinite or NaN, `clamped` is
        not integer, or as in `dawid_skene`.

    Reference:
      Dawid and Skene 1979, "Maximum likelihood estimation of observer error-rates using
      the EM algorithm", Applied Statistics 28(1), section 2.

    >>> counts = jnp.array([[[3, 0], [0, 3], [2, 1]], [[1, 0], [0, 1], [1, 0]]])
    >>> dawid_skene_counts(counts).labels.tolist()
    [0, 1, 0]
    """
    caller = "dawid_skene.dawid_skene_counts"
    _check.shapes(
        caller,
        counts=(counts, "R N K"),
        unit_weights=(unit_weights, "N"),
        clamped=(clamped, "N"),
    )
    _ratings.categories(caller, counts.shape[2])
    _em.number(caller, "counts", counts)
    if clamped is not None:
        _ratings.integers(caller, "clamped", clamped)
        _check.ids(caller, "clamped", clamped, counts.shape[2], least=-1)
    dtype = _em.work_dtype(counts, unit_weights, _array(pseudo_counts))
    x_aln = jnp.moveaxis(jnp.asarray(counts).astype(dtype), 1, 2)
    return _fit_tables(
        caller, x_aln, unit_weights, clamped, pseudo_counts, num_iterations, tolerance
    )


def one_coin(
    ratings: jax.Array,
    num_categories: int,
    *,
    where: jax.Array | None = None,
    unit_weights: jax.Array | None = None,
    clamped: jax.Array | None = None,
    pseudo_counts: tuple[float, float] = (2.0, 1.0),
    num_iterations: int = 100,
    tolerance: float | None = None,
) -> DawidSkene:
    """Dawid and Skene's model with one number per rater: the right choice for few data.

    e_a[k, l] = s_a where l = k and (1 - s_a) / (K - 1) elsewhere;
    s_a = (c + sum_u T_u[x_ua]) / (c + d + sum_u 1) over the units that a rated.

    Args:
      ratings: `[R, N]` int category ids in `[0, K)`.
      num_categories: K.
      where: `[R, N]` bool, False where a rating is missing.
      unit_weights: `[N]` float >= 0, how often a unit counts.
      clamped: `[N]` int known categories, -1 where not known; see `dawid_skene`.
      pseudo_counts: (c, d), right and wrong answers added to every rater's: the mode
        under a Beta(1 + c, 1 + d) prior. (0.0, 0.0) is maximum likelihood.
      num_iterations: T, at most.
      tolerance: stop after an iteration that raised the objective by less than this
        many nats per unit; None runs them all.

    Returns:
      A `DawidSkene`; the skill s_a is `confusion[a, 0, 0]`. Units and raters without
      ratings are NaN as in `dawid_skene`. With K = 1 every answer is right.

    Raises:
      ValueError: if shapes disagree, ids are not integer, K or T is below 1,
        `pseudo_counts` are not two numbers, one of them or `tolerance` is negative,
        infinite or NaN, or so is the weight of a unit with ratings.

    Reference:
      Zhang, Chen, Zhou and Jordan 2016, "Spectral methods meet EM", JMLR 17, section 2.

    >>> ratings = jnp.array([[0, 0, 1, 1, 1], [0, 0, 1, 1, 0], [0, 0, 1, 1, 1]])
    >>> fit = one_coin(ratings, 2)
    >>> fit.labels.tolist(), [round(float(s), 2) for s in fit.confusion[:, 0, 0]]
    ([0, 0, 1, 1, 1], [0.86, 0.75, 0.86])
    """
    caller = "dawid_skene.one_coin"
    dtype = _checked(
        caller, ratings, num_categories, where, unit_weights, clamped, None
    )
    k = num_categories
    x_akn = _em.answers(caller, ratings, k, where, dtype)
    if not hasattr(pseudo_counts, "__len__") or len(pseudo_counts) != 2:
        raise ValueError(
            f"{caller}: pseudo_counts is {pseudo_counts}; expected two numbers, the "
            "right and the wrong answers that are added."
        )
    for count in pseudo_counts:
        _em.number(caller, "pseudo_counts", count)
    right, wrong = pseudo_counts if k > 1 else (pseudo_counts[0], 0.0)
    same_kk = np.eye(k, dtype=bool)[None]

    def maximise(t_kn: jax.Array, answered_a: jax.Array) -> _Estimate:
        hits_a = _em.einsum("kn,akn->a", t_kn, x_akn)
        skill_a = _ratings.divide(hits_a + right, answered_a + (right + wrong))
        error_a = 1.0 - skill_a
        prior_a = right * _em.log(skill_a) + wrong * _em.log(error_a)
        confusion = jnp.where(
            same_kk, skill_a[:, None, None], error_a[:, None, None] / max(k - 1, 1)
        )
        return _Estimate(confusion, prior_a)

    return _fit(
        caller, x_akn, unit_weights, clamped, maximise, num_iterations, tolerance
    )


def _array(x: jax.Array | float | None) -> jax.Array | None:
    """Python numbers take part in no dtype promotion."""
    return None if x is None or isinstance(x, int | float) else x


def _checked(
    caller: str,
    ratings: jax.Array,
    num_categories: int,
    where: jax.Array | None,
    unit_weights: jax.Array | None,
    clamped: jax.Array | None,
    pseudo_counts: jax.Array | float | None,
) -> jnp.dtype:
    """The work dtype of arguments whose shapes agree."""
    _check.shapes(
        caller,
        ratings=(ratings, "R N"),
        where=(where, "R N"),
        unit_weights=(unit_weights, "N"),
        clamped=(clamped, "N"),
    )
    if clamped is not None:
        _ratings.integers(caller, "clamped", clamped)
        _check.ids(caller, "clamped", clamped, num_categories, least=-1)
    return _em.work_dtype(unit_weights, _array(pseudo_counts))


def _fit_tables(
    caller: str,
    x_aln: jax.Array,
    unit_weights: jax.Array | None,
    clamped: jax.Array | None,
    pseudo_counts: jax.Array | float | None,
    num_iterations: int,
    tolerance: float | None,
) -> DawidSkene:
    """One free confusion matrix per rater."""
    r, k, _ = x_aln.shape
    pseudo = 1.0 + np.eye(k) if pseudo_counts is None else pseudo_counts
    if jnp.shape(pseudo) not in ((), (k, k), (r, k, k)):
        raise ValueError(
            f"{caller}: pseudo_counts has shape {jnp.shape(pseudo)}; expected a "
            f"number, [K, K] = {(k, k)} or [R, K, K] = {(r, k, k)}."
        )
    _em.number(caller, "pseudo_counts", pseudo)
    pseudo_akl = jnp.broadcast_to(jnp.asarray(pseudo, x_aln.dtype), (r, k, k))

    def maximise(t_kn: jax.Array, answered_a: jax.Array) -> _Estimate:
        del answered_a
        table_akl = _em.einsum("kn,aln->akl", t_kn, x_aln) + pseudo_akl
        confusion = _ratings.ratio(table_akl, table_akl.sum(-1, keepdims=True))
        prior_a = (pseudo_akl * _log_table(confusion)).sum((1, 2))
        return _Estimate(confusion, prior_a)

    return _fit(
        caller, x_aln, unit_weights, clamped, maximise, num_iterations, tolerance
    )


def _log_table(confusion: jax.Array) -> jax.Array:
    """A row without mass says nothing about the unit: uniform."""
    uniform = 1.0 / confusion.shape[-1]
    return _em.log(jnp.where(jnp.isnan(confusion), uniform, confusion))


def _fit(
    caller: str,
    x_aln: jax.Array,
    unit_weights: jax.Array | None,
    clamped: jax.Array | None,
    maximise: Callable[[jax.Array, jax.Array], _Estimate],
    num_iterations: int,
    tolerance: float | None,
) -> DawidSkene:
    """EM of any model with a table of answer probabilities per rater."""
    _, k, n = x_aln.shape
    _em.whole(caller, "num_iterations", num_iterations, least=1)
    if tolerance is not None:
        _em.number(caller, "tolerance", tolerance)
    counts_kn = x_aln.sum(0)
    rated_n = counts_kn.sum(0) > 0.0
    weight_n = _em.weights(caller, "unit_weights", unit_weights, rated_n, x_aln.dtype)
    answered_a = _em.einsum("aln,n->a", x_aln, weight_n)
    total = weight_n.sum()
    known_kn = jnp.zeros((k, n), bool)
    if clamped is not None:
        known_kn = _em.one_hot(clamped, k)
    # The categories that a known label rules out.
    excluded_kn = (known_kn.any(0) & (weight_n > 0.0))[None, :] & ~known_kn

    def estimate(t_kn: jax.Array) -> tuple[jax.Array, _Estimate]:
        t_kn = t_kn * weight_n[None, :]
        return t_kn.sum(1), maximise(t_kn, answered_a)

    def iteration(t_kn: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        mass_k, fitted = estimate(t_kn)
        # A category without mass, which nobody answered, stays impossible.
        log_p_k = _em.log(_ratings.divide(mass_k, total))
        log_p_k = jnp.where((mass_k > 0.0) | (total == 0.0), log_p_k, -jnp.inf)
        logits_kn = log_p_k[:, None] + _em.einsum(
            "akl,aln->kn", _log_table(fitted.confusion), x_aln
        )
        t_kn, log_n = _em.posterior(jnp.where(excluded_kn, -jnp.inf, logits_kn))
        log_likelihood = jnp.vdot(weight_n, log_n, precision="highest")
        # A rater without ratings sits at the mode of the prior; it says nothing.
        log_prior = jnp.where(answered_a > 0.0, fitted.log_prior, 0.0).sum()
        return t_kn, (log_likelihood + log_prior, log_likelihood)

    start_kn = _ratings.divide(counts_kn, counts_kn.sum(0)[None, :])
    start_kn = jnp.where(
        known_kn.any(0)[None, :], known_kn.astype(x_aln.dtype), start_kn
    )
    t_kn, (objective, log_likelihood), iterations = _em.iterate(
        iteration,
        start_kn,
        num_iterations,
        None if tolerance is None else tolerance * total,
    )
    mass_k, fitted = estimate(t_kn)
    seen_n = rated_n & (total > 0.0)
    probs = jnp.where(seen_n[:, None], t_kn.T, jnp.nan)
    probs = jnp.where(known_kn.any(0)[:, None], known_kn.T.astype(probs.dtype), probs)
    return DawidSkene(
        probs=probs,
        labels=_em.labels(probs),
        prevalence=_ratings.ratio(mass_k, total),
        confusion=jnp.where(answered_a[:, None, None] > 0.0, fitted.confusion, jnp.nan),
        objective=objective,
        log_likelihood=log_likelihood,
        iterations=jnp.where(total > 0.0, iterations, 0),
    )
