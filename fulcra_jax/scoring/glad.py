# SPDX-License-Identifier: Apache-2.0
"""Labels from raters of unequal ability on units of unequal difficulty: GLAD.

Axes: R raters, N units (or patterns), K categories, T iterations.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import _check
from fulcra_jax.scoring import _em

STEPS = (1.0, 0.5, 0.125, 0.015625, 0.0)
"""Shares of the Newton step that are tried, longest first; 0 stays where it is."""


class Glad(NamedTuple):
    """A fitted model. Raters and units without ratings have NaN."""

    probs: jax.Array
    """`[N, K]` posterior of the true category."""
    labels: jax.Array
    """`[N]` int32 the most probable category; -1 if tied or without ratings."""
    ability: jax.Array
    """`[R]` alpha: at 0 half of the answers are right, whatever the difficulty."""
    easiness: jax.Array
    """`[N]` beta: the larger, the easier the unit; exp(beta) multiplies the ability."""
    objective: jax.Array
    """`[T]` log-likelihood + log prior, up to a constant; it never falls."""


def glad(
    ratings: jax.Array,
    num_categories: int,
    *,
    where: jax.Array | None = None,
    unit_weights: jax.Array | None = None,
    num_iterations: int = 50,
    num_newton: int = 2,
) -> Glad:
    """Generative model of labels, abilities and difficulties, by EM.

    P(x_ua = z_u) = sigmoid(alpha_a exp(beta_u)); wrong answers and true categories are
    uniform; alpha_a and beta_u have N(1, 1) priors. Given the other, every alpha and
    every beta is an optimisation in one number. The M-step takes `num_newton` rounds of
    one safeguarded Newton step for all alpha, then for all beta, from where the last
    M-step ended: generalised EM.

    Args:
      ratings: `[R, N]` int category ids in `[0, K)`.
      num_categories: K.
      where: `[R, N]` bool, False where a rating is missing.
      unit_weights: `[N]` float >= 0, how often a unit counts (its prior as well).
      num_iterations: T, the number of iterations.
      num_newton: rounds per M-step.

    Returns:
      A `Glad`. `probs` and `easiness` are NaN for a unit without ratings, `ability` for
      a rater without; they do not touch the fit. With few raters `easiness` mostly
      reflects how far they agree: use it to rank the units, not as a measurement.

    Raises:
      ValueError: if shapes disagree, ratings are not integer, K, T or `num_newton` is
        below 1, or the weight of a unit with ratings is negative, infinite or NaN.

    Reference:
      Whitehill et al. 2009, "Whose vote should count more: optimal integration of
      labels from labelers of unknown expertise", NIPS 22, sections 2 and 3.

    >>> ratings = jnp.array([[0, 0, 1, 1, 1], [0, 0, 1, 1, 0], [0, 0, 1, 1, 1]])
    >>> fit = glad(ratings, 2)
    >>> fit.labels.tolist(), bool(fit.easiness[4] < fit.easiness[3])
    ([0, 0, 1, 1, 1], True)
    """
    caller = "glad.glad"
    _check.shapes(
        caller,
        ratings=(ratings, "R N"),
        where=(where, "R N"),
        unit_weights=(unit_weights, "N"),
    )
    _em.whole(caller, "num_iterations", num_iterations, least=1)
    _em.whole(caller, "num_newton", num_newton, least=1)
    r, n = ratings.shape
    dtype = _em.work_dtype(unit_weights)
    x_akn = _em.answers(caller, ratings, num_categories, where, dtype)
    given_an = x_akn.sum(1)
    rated_n = given_an.sum(0) > 0.0
    weight_n = _em.weights(caller, "unit_weights", unit_weights, rated_n, dtype)
    log_wrong = float(np.log(max(num_categories - 1, 1)))

    def e_step(alpha_a: jax.Array, beta_n: jax.Array) -> tuple[jax.Array, jax.Array]:
        slope_an = _slope(alpha_a, beta_n)
        none_n = (given_an * (jax.nn.log_sigmoid(-slope_an) - log_wrong)).sum(0)
        # log sigmoid(s) - log sigmoid(-s) = s.
        gain_kn = _em.einsum("akn,an->kn", x_akn, slope_an + log_wrong)
        t_kn, log_n = _em.posterior(
            gain_kn + (none_n - np.log(num_categories))[None, :]
        )
        prior = -0.5 * ((alpha_a - 1.0) ** 2).sum()
        log_n = log_n - 0.5 * (beta_n - 1.0) ** 2
        return t_kn, prior + jnp.vdot(weight_n, log_n, precision="highest")

    def iteration(
        state: tuple[jax.Array, jax.Array, jax.Array],
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[jax.Array]]:
        t_kn, alpha_a, beta_n = state
        # How probable it is that the rater was right, per answer.
        right_an = _em.einsum("akn,kn->an", x_akn, t_kn)
        for _ in range(num_newton):
            alpha_a = _step_alpha(alpha_a, beta_n, right_an, given_an, weight_n)
            beta_n = _step_beta(alpha_a, beta_n, right_an, given_an)
        t_kn, objective = e_step(alpha_a, beta_n)
        return (t_kn, alpha_a, beta_n), (objective,)

    alpha_a, beta_n = jnp.ones((r,), dtype), jnp.ones((n,), dtype)
    start = (e_step(alpha_a, beta_n)[0], alpha_a, beta_n)
    (t_kn, alpha_a, beta_n), (objective,), _ = _em.iterate(
        iteration, start, num_iterations
    )
    seen_n = rated_n & (weight_n.sum() > 0.0)
    probs = jnp.where(seen_n[:, None], t_kn.T, jnp.nan)
    active_a = _em.einsum("an,n->a", given_an, weight_n) > 0.0
    return Glad(
        probs=probs,
        labels=_em.labels(probs),
        ability=jnp.where(active_a, alpha_a, jnp.nan),
        easiness=jnp.where(seen_n, beta_n, jnp.nan),
        objective=objective,
    )


def _slope(alpha_a: jax.Array, beta_n: jax.Array) -> jax.Array:
    return alpha_a[:, None] * jnp.exp(beta_n)[None, :]


def _expected(
    slope_an: jax.Array, right_an: jax.Array, given_an: jax.Array
) -> jax.Array:
    """The expected log-likelihood of every answer, 0 where there is none."""
    # right log sigmoid(s) + (given - right) log sigmoid(-s).
    return right_an * slope_an + given_an * jax.nn.log_sigmoid(-slope_an)


def _step_alpha(
    alpha_a: jax.Array,
    beta_n: jax.Array,
    right_an: jax.Array,
    given_an: jax.Array,
    weight_n: jax.Array,
) -> jax.Array:
    """One Newton step for every rater; the objective is concave in alpha."""
    scale_n = jnp.exp(beta_n)
    hit_an = jax.nn.sigmoid(_slope(alpha_a, beta_n))
    slope_a = _em.einsum("an,n->a", right_an - given_an * hit_an, weight_n * scale_n)
    curve_a = _em.einsum(
        "an,n->a", given_an * hit_an * (1.0 - hit_an), weight_n * scale_n**2
    )
    slope_a, curve_a = slope_a - (alpha_a - 1.0), curve_a + 1.0

    def gain(alpha_a: jax.Array) -> jax.Array:
        answers_an = _expected(_slope(alpha_a, beta_n), right_an, given_an)
        data_a = _em.einsum("an,n->a", answers_an, weight_n)
        return data_a - 0.5 * (alpha_a - 1.0) ** 2

    return _climb(gain, alpha_a, slope_a, curve_a)


def _step_beta(
    alpha_a: jax.Array,
    beta_n: jax.Array,
    right_an: jax.Array,
    given_an: jax.Array,
) -> jax.Array:
    """One Gauss-Newton step for every unit; its curvature is positive everywhere."""
    slope_an = _slope(alpha_a, beta_n)
    hit_an = jax.nn.sigmoid(slope_an)
    slope_n = ((right_an - given_an * hit_an) * slope_an).sum(0)
    curve_n = (given_an * hit_an * (1.0 - hit_an) * slope_an**2).sum(0)
    slope_n, curve_n = slope_n - (beta_n - 1.0), curve_n + 1.0

    def gain(beta_n: jax.Array) -> jax.Array:
        answers_an = _expected(_slope(alpha_a, beta_n), right_an, given_an)
        return answers_an.sum(0) - 0.5 * (beta_n - 1.0) ** 2

    return _climb(gain, beta_n, slope_n, curve_n)


def _climb(
    gain: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    slope: jax.Array,
    curve: jax.Array,
) -> jax.Array:
    """The longest Newton step, for each entry, that gains a tenth of what it promises.

    What rounding can hide is forgiven: near the optimum, where gains are lost in it,
    the full step is the right one.
    """
    newton = slope / curve
    length_s = jnp.asarray(STEPS, x.dtype)[:, None]
    tried = jax.lax.stop_gradient(x[None, :] + length_s * newton[None, :])
    gains = jax.vmap(gain)(tried)
    now = gains[-1:]
    slack = 8.0 * jnp.finfo(x.dtype).eps * (1.0 + jnp.abs(now))
    enough = gains >= now + 0.1 * length_s * (slope * newton)[None, :] - slack
    # A wild step may overflow exp(beta); NaN is not enough.
    taken = jnp.asarray(STEPS, x.dtype)[enough.argmax(0)]
    return x + taken * newton
