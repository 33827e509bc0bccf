# SPDX-License-Identifier: Apache-2.0
"""Labels from raters who either know or spam: MACE.

Axes: R raters, N units (or patterns), K categories, T iterations, S restarts.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.scipy.special import digamma, gammaln

from fulcra_jax import _check
from fulcra_jax.scoring import _em, _ratings

METHODS = ("vb", "em")


class Mace(NamedTuple):
    """A fitted model. Raters and units without ratings have NaN."""

    probs: jax.Array
    """`[N, K]` posterior of the true category."""
    labels: jax.Array
    """`[N]` int32 the most probable category; -1 if tied or without ratings."""
    trust: jax.Array
    """`[R]` theta: how often the rater does not spam (posterior mean with "vb")."""
    spam: jax.Array
    """`[R, K]` xi: what the rater answers when spamming."""
    objective: jax.Array
    """`[T]` what is maximised, of the best restart; it never falls."""


class _Strategy(NamedTuple):
    """Raters' weights of knowing and spamming; with "vb" they sum to less than one."""

    know: jax.Array
    spam: jax.Array
    answer: jax.Array


class _Counts(NamedTuple):
    """Expected answers `[R, K]` given while knowing and while spamming."""

    know: jax.Array
    spam: jax.Array


class _State(NamedTuple):
    """Between iterations: counts and posterior `[K, N]` follow from trust and spam."""

    counts: _Counts
    posterior: jax.Array
    trust: jax.Array
    spam: jax.Array


def mace(
    key: jax.Array,
    ratings: jax.Array,
    num_categories: int,
    *,
    where: jax.Array | None = None,
    unit_weights: jax.Array | None = None,
    method: str = "vb",
    num_restarts: int = 10,
    num_iterations: int = 50,
    noise: float = 0.5,
    smoothing: float = 0.01,
    trust_prior: float = 0.5,
    spam_prior: float = 10.0,
) -> Mace:
    """Multi-annotator competence estimation, the best of several random starts.

    x_ua = z_u with probability theta_a, otherwise drawn from xi_a; z_u is uniform. Each
    start draws theta_a and xi_a from numbers in [1, 2 + noise), normalised.

    Args:
      key: a PRNG key.
      ratings: `[R, N]` int category ids in `[0, K)`.
      num_categories: K.
      where: `[R, N]` bool, False where a rating is missing.
      unit_weights: `[N]` float >= 0, how often a unit counts.
      method: "vb" or "em"; see `mace_from`.
      num_restarts: S; the start with the largest final objective wins.
      num_iterations: T.
      noise: how far the starts differ.
      smoothing: of "em"; see `mace_from`.
      trust_prior: of "vb"; see `mace_from`.
      spam_prior: of "vb"; see `mace_from`.

    Returns:
      A `Mace`; its degenerate cases are those of `mace_from`.

    Raises:
      KeyError: if the method is unknown.
      ValueError: if shapes disagree, ratings are not integer, K, S or T is below 1, a
        prior or `smoothing` is not positive, `noise` is negative, or the weight of a
        unit with ratings is negative, infinite or NaN.

    Reference:
      Hovy, Berg-Kirkpatrick, Vaswani and Hovy 2013, "Learning whom to trust with MACE",
      NAACL, sections 2 and 3.

    >>> ratings = jnp.array([[0, 0, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0]])
    >>> fit = mace(jax.random.key(0), ratings, 2)
    >>> fit.labels.tolist(), int(fit.trust.argmin())
    ([0, 0, 1, 1, 1], 2)
    """
    caller = "mace.mace"
    _check.shapes(caller, ratings=(ratings, "R N"))
    _ratings.categories(caller, num_categories)
    _em.whole(caller, "num_restarts", num_restarts, least=1)
    _em.number(caller, "noise", noise)
    dtype = _em.work_dtype(unit_weights)
    r = ratings.shape[0]

    def run(key: jax.Array) -> Mace:
        trust_key, spam_key = jax.random.split(key)
        high = 2.0 + noise
        trust_r2 = jax.random.uniform(trust_key, (r, 2), dtype, 1.0, high)
        spam_rk = jax.random.uniform(spam_key, (r, num_categories), dtype, 1.0, high)
        return mace_from(
            trust_r2[:, 1] / trust_r2.sum(1),
            spam_rk / spam_rk.sum(1, keepdims=True),
            ratings,
            num_categories,
            where=where,
            unit_weights=unit_weights,
            method=method,
            num_iterations=num_iterations,
            smoothing=smoothing,
            trust_prior=trust_prior,
            spam_prior=spam_prior,
        )

    fits = jax.vmap(run)(jax.random.split(key, num_restarts))
    best = fits.objective[:, -1].argmax()
    return jax.tree.map(lambda x: x[best], fits)


def mace_from(
    trust: jax.Array,
    spam: jax.Array,
    ratings: jax.Array,
    num_categories: int,
    *,
    where: jax.Array | None = None,
    unit_weights: jax.Array | None = None,
    method: str = "vb",
    num_iterations: int = 50,
    smoothing: float = 0.01,
    trust_prior: float = 0.5,
    spam_prior: float = 10.0,
) -> Mace:
    """MACE from one given start: no randomness.

    E-step: T_uk proportional to prod_a (1 - theta_a) xi_a[x_ua] + theta_a [x_ua = k],
    and from it the expected numbers of answers given knowing and spamming. "em" adds
    `smoothing` / K to each expected number and normalises (the mode under a prior).
    "vb" has theta_a ~ Beta(b, b), xi_a ~ Dirichlet(c) and replaces each probability by
    exp(E[log probability]) (variational Bayes); the objective is the lower bound of the
    evidence.

    Args:
      trust: `[R]` float in (0, 1), theta at the start.
      spam: `[R, K]` positive float, rows sum to one, xi at the start.
      ratings: `[R, N]` int category ids in `[0, K)`.
      num_categories: K.
      where: `[R, N]` bool, False where a rating is missing.
      unit_weights: `[N]` float >= 0, how often a unit counts.
      method: "vb" or "em".
      num_iterations: T; at least 1.
      smoothing: of "em", positive.
      trust_prior: b of "vb", positive; below 1 it favours raters who always know or
        always spam.
      spam_prior: c of "vb", positive.

    Returns:
      A `Mace`. Units and raters without ratings are NaN and do not touch the fit. With
      "em" the objective is the log-likelihood + log prior up to a constant.

    Raises:
      KeyError: if the method is unknown.
      ValueError: if shapes disagree, ratings are not integer, K or T is below 1, a
        prior or `smoothing` is not positive, the start of a rater with ratings is out
        of range (negative, above 1, NaN), or the weight of a unit with ratings is
        negative, infinite or NaN.

    Reference:
      Hovy, Berg-Kirkpatrick, Vaswani and Hovy 2013, "Learning whom to trust with MACE",
      NAACL, section 3; Beal 2003, "Variational algorithms for approximate
      Bayesian inference", chapter 2.

    >>> ratings = jnp.array([[0, 0, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0]])
    >>> even = jnp.full((3, 2), 0.5)
    >>> fit = mace_from(even[:, 0], even, ratings, 2, method="em")
    >>> fit.labels.tolist(), bool(fit.trust[0] > fit.trust[2])
    ([0, 0, 1, 1, 1], True)
    """
    caller = "mace.mace_from"
    _check.known(caller, "method", method, METHODS)
    size = _check.shapes(
        caller,
        ratings=(ratings, "R N"),
        where=(where, "R N"),
        unit_weights=(unit_weights, "N"),
        trust=(trust, "R"),
        spam=(spam, "R K"),
    )
    if size["K"] != num_categories:
        raise ValueError(
            f"{caller}: spam has shape {spam.shape}, so K={size['K']}, but "
            f"num_categories is {num_categories}."
        )
    dtype = _em.work_dtype(unit_weights, trust, spam)
    _em.whole(caller, "num_iterations", num_iterations, least=1)
    priors = {"smoothing": smoothing, "trust_prior": trust_prior}
    for name, prior in {**priors, "spam_prior": spam_prior}.items():
        _em.number(caller, name, prior, zero=False)
    x_akn = _em.answers(caller, ratings, num_categories, where, dtype)
    rated_n = x_akn.sum((0, 1)) > 0.0
    weight_n = _em.weights(caller, "unit_weights", unit_weights, rated_n, dtype)
    given_ak = _em.einsum("akn,n->ak", x_akn, weight_n)
    active_a = given_ak.sum(1) > 0.0
    _probabilities(caller, "trust", trust, active_a)
    _probabilities(caller, "spam", spam, active_a)

    def iteration(state: _State) -> tuple[_State, tuple[jax.Array]]:
        if method == "em":
            strategy, fitted, prior_a = _smoothed(state.counts, smoothing / size["K"])
        else:
            strategy, fitted, prior_a = _variational(
                state.counts, trust_prior, spam_prior
            )
        counts, t_kn, log_likelihood = _e_step(strategy, x_akn, weight_n, given_ak)
        # Without ratings the prior stays as it is and says nothing.
        prior = jnp.where(active_a, prior_a, 0.0).sum()
        return _State(counts, t_kn, *fitted), (log_likelihood + prior,)

    trust_a = jnp.where(active_a, jnp.asarray(trust).astype(dtype), 0.5)
    spam_ak = jnp.asarray(spam).astype(dtype)
    spam_ak = jnp.where(active_a[:, None], spam_ak, 1.0 / num_categories)
    start = _Strategy(trust_a, 1.0 - trust_a, spam_ak)
    counts, t_kn, _ = _e_step(start, x_akn, weight_n, given_ak)
    last, (objective,), _ = _em.iterate(
        iteration, _State(counts, t_kn, trust_a, spam_ak), num_iterations
    )
    seen_n = rated_n & (weight_n.sum() > 0.0)
    probs = jnp.where(seen_n[:, None], last.posterior.T, jnp.nan)
    return Mace(
        probs=probs,
        labels=_em.labels(probs),
        trust=jnp.where(active_a, last.trust, jnp.nan),
        spam=jnp.where(active_a[:, None], last.spam, jnp.nan),
        objective=objective,
    )


def _probabilities(
    caller: str, name: str, start: jax.Array, active_a: jax.Array
) -> None:
    """Raises if the start of a rater with ratings holds no probability."""
    if isinstance(start, Tracer) or isinstance(active_a, Tracer):
        return
    given = np.asarray(start)[np.asarray(active_a)].astype(float)
    wrong = ~((given >= 0.0) & (given <= 1.0))
    if wrong.any():
        raise ValueError(
            f"{caller}: {name} holds {given[wrong][0]}; expected probabilities."
        )


def _e_step(
    strategy: _Strategy, x_akn: jax.Array, weight_n: jax.Array, given_ak: jax.Array
) -> tuple[_Counts, jax.Array, jax.Array]:
    """Expected counts, posterior `[K, N]` and log-likelihood."""
    k = given_ak.shape[1]
    guess_ak = strategy.spam[:, None] * strategy.answer
    # The category that is true, then the answer.
    same_kk = jnp.eye(k, dtype=guess_ak.dtype)
    answer_akl = guess_ak[:, None, :] + strategy.know[:, None, None] * same_kk[None]
    tiny = jnp.finfo(guess_ak.dtype).tiny
    logits_kn = _em.einsum(
        "akl,aln->kn", jnp.log(jnp.maximum(answer_akl, tiny)), x_akn
    ) - jnp.log(jnp.asarray(k, guess_ak.dtype))
    t_kn, log_n = _em.posterior(logits_kn)
    right_ak = _em.einsum("akn,kn->ak", x_akn, t_kn * weight_n[None, :])
    know_a = strategy.know[:, None]
    know_ak = right_ak * _ratings.divide(know_a, know_a + guess_ak)
    log_likelihood = jnp.vdot(weight_n, log_n, precision="highest")
    # Rounding may leave a difference a little below 0.
    counts = _Counts(know_ak, jnp.maximum(given_ak - know_ak, 0.0))
    return counts, t_kn, log_likelihood


def _smoothed(
    counts: _Counts, add: float
) -> tuple[_Strategy, tuple[jax.Array, jax.Array], jax.Array]:
    """The mode, once more as trust and spam, and its log prior up to a constant."""
    trust_a, spam_ak = _normalised(counts, add, add)
    strategy = _Strategy(trust_a, 1.0 - trust_a, spam_ak)
    prior_a = jnp.log(trust_a) + jnp.log1p(-trust_a) + jnp.log(spam_ak).sum(1)
    return strategy, (trust_a, spam_ak), add * prior_a


def _variational(
    counts: _Counts, trust_prior: float, spam_prior: float
) -> tuple[_Strategy, tuple[jax.Array, jax.Array], jax.Array]:
    """exp(E[log probability]), the means, and minus the divergence from the prior."""
    choice_a2 = jnp.stack([counts.know.sum(1), counts.spam.sum(1)], 1)
    know_spam_a2, choice_kl_a = _dirichlet(choice_a2, trust_prior)
    answer_ak, answer_kl_a = _dirichlet(counts.spam, spam_prior)
    strategy = _Strategy(know_spam_a2[:, 0], know_spam_a2[:, 1], answer_ak)
    means = _normalised(counts, trust_prior, spam_prior)
    return strategy, means, -(choice_kl_a + answer_kl_a)


def _dirichlet(counts_ak: jax.Array, prior: float) -> tuple[jax.Array, jax.Array]:
    """exp(E[log p]) `[R, K]` and KL(posterior || prior) `[R]`."""
    k = counts_ak.shape[1]
    after_ak = counts_ak + prior
    log_ak = digamma(after_ak) - digamma(after_ak.sum(1, keepdims=True))
    before = jnp.asarray(prior, after_ak.dtype)
    kl_a = (
        gammaln(after_ak.sum(1))
        - gammaln(after_ak).sum(1)
        - gammaln(k * before)
        + k * gammaln(before)
        + ((after_ak - before) * log_ak).sum(1)
    )
    return jnp.exp(log_ak), kl_a


def _normalised(
    counts: _Counts, add_choice: float, add_answer: float
) -> tuple[jax.Array, jax.Array]:
    """Trust `[R]` and spam `[R, K]` with so much added to each expected number."""
    know_a = counts.know.sum(1) + add_choice
    guess_a = counts.spam.sum(1) + add_choice
    spam_ak = counts.spam + add_answer
    return know_a / (know_a + guess_a), spam_ak / spam_ak.sum(1, keepdims=True)
