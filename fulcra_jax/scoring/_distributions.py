# SPDX-License-Identifier: Apache-2.0
"""Distribution functions and quantiles of Student's t, F and beta, elementwise.

If X is beta(a, b), d = log(X / (1 - X)) - log(a / b) has the log-concave density
exp(h(d)) with its mode at 0, h(d) = a d - (a + b) log(1 + m (e^d - 1)) and
m = a / (a + b). F is e^d with a = df1 / 2, b = df2 / 2, and t^2 is F(1, df): one
integral serves all three. It is taken by a double-exponential rule, normalised by
itself, without the gamma functions of large arguments that cost `betainc` its digits in
float32.

Arguments broadcast; degrees of freedom and shapes may be any positive numbers, also
inf. Accurate to 1e-10 in float64 and 1e-5 in float32, relative. NaN outside the domain.
All are differentiable by all their arguments.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import special

_NEWTON_STEPS = 24  # Ten suffice, and a few more where the first step underflows.
_STEP = 1.0 / 16.0
_T = np.arange(-3.8, 7.6, _STEP)
# Distances below the end point in units of the scale, and the rule's weights.
_NODES = np.exp(_T - np.exp(-_T))
_WEIGHTS = _STEP * (1.0 + np.exp(-_T)) * _NODES
_LARGEST = 1e12  # Stands for inf.


def normal_cdf(x: jax.Array) -> jax.Array:
    """P(Z <= x)."""
    return special.ndtr(_work(x)[0])


def normal_quantile(p: jax.Array) -> jax.Array:
    """The x with P(Z <= x) = p; -inf and inf at 0 and 1."""
    return special.ndtri(_work(p)[0])


def student_t_cdf(t: jax.Array, df: jax.Array) -> jax.Array:
    """P(T <= t)."""
    t, df = _work(t, df)
    safe = jnp.where(t == 0.0, 1.0, jnp.abs(t))
    below, above = _tails(2.0 * jnp.log(safe), jnp.full_like(df, 0.5), 0.5 * df)
    tail = jnp.where(t < 0.0, 0.5 * above, 0.5 + 0.5 * below)
    # At 0 the density as slope, so that the derivative is that of its neighbours.
    return jnp.where(t == 0.0, 0.5 + t * jax.lax.stop_gradient(_t_density(df)), tail)


def student_t_quantile(p: jax.Array, df: jax.Array) -> jax.Array:
    """The t with P(T <= t) = p."""
    p, df = _work(p, df)
    half = p == 0.5
    tail = 2.0 * jnp.where(half, 0.25, jnp.minimum(p, 1.0 - p))
    d = -_log_ratio(tail, 0.5 * df, jnp.full_like(df, 0.5))
    t = jnp.sign(p - 0.5) * jnp.exp(0.5 * d)
    at_half = (p - 0.5) / jax.lax.stop_gradient(_t_density(df))
    return jnp.where(half, at_half, t)


def f_cdf(x: jax.Array, df1: jax.Array, df2: jax.Array) -> jax.Array:
    """P(F <= x); 0 for x <= 0."""
    x, df1, df2 = _work(x, df1, df2)
    safe = jnp.where(x > 0.0, x, 1.0)
    below, _ = _tails(jnp.log(safe), 0.5 * df1, 0.5 * df2)
    return jnp.where(x <= 0.0, 0.0, jnp.where(jnp.isnan(x), jnp.nan, below))


def f_quantile(p: jax.Array, df1: jax.Array, df2: jax.Array) -> jax.Array:
    """The x with P(F <= x) = p."""
    p, df1, df2 = _work(p, df1, df2)
    return jnp.exp(_log_ratio(p, 0.5 * df1, 0.5 * df2))


def beta_quantile(p: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """The x with P(X <= x) = p."""
    p, a, b = _work(p, a, b)
    return a / (a + b * jnp.exp(-_log_ratio(p, a, b)))


def _work(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    dtype = jnp.promote_types(jnp.result_type(*arrays), jnp.float32)
    shape = np.broadcast_shapes(*map(jnp.shape, arrays))
    return tuple(jnp.broadcast_to(jnp.asarray(x, dtype), shape) for x in arrays)


def _t_density(df: jax.Array) -> jax.Array:
    """Of t at 0, to three digits and more: a slope at one point."""
    few = jnp.minimum(df, 30.0)
    gammas = special.gammaln(0.5 * (few + 1.0)) - special.gammaln(0.5 * few)
    exact = jnp.exp(gammas) / jnp.sqrt(few * np.pi)
    many = (1.0 - 0.25 / jnp.maximum(df, 30.0)) / np.sqrt(2.0 * np.pi)
    return jnp.where(df > 30.0, many, exact)


def _exponent(d: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """h(d) for d <= 0."""
    m, k = a / (a + b), b / (a + b)
    v = m * k
    # log(1 + m (e^d - 1)) = log(k + m e^d) = d + log(1 + k (e^-d - 1)): the form whose
    # argument is small, so that nothing large cancels.
    small_m = m <= 0.5
    rise = k * jnp.expm1(jnp.minimum(-d, 80.0))
    small_k = ~small_m & (rise < 1.0) & (d > -80.0)
    grown = jnp.where(
        small_m,
        jnp.log1p(jnp.where(small_m, m * jnp.expm1(d), 0.0)),
        jnp.log(jnp.where(small_m, 1.0, k + m * jnp.exp(d))),
    )
    far = jnp.where(
        small_k,
        -b * d - (a + b) * jnp.log1p(jnp.where(small_k, rise, 0.0)),
        a * d - (a + b) * grown,
    )
    # Near the mode both cancel: the cumulants of a Bernoulli variable.
    near = 0.2 if d.dtype == jnp.float32 else 0.01
    u = jnp.where(d > -near, d, 0.0)
    cumulants = (
        jnp.ones_like(v),
        k - m,
        1.0 - 6.0 * v,
        (k - m) * (1.0 - 12.0 * v),
        1.0 - 30.0 * v + 120.0 * v * v,
    )
    series = jnp.zeros_like(u)
    for order, cumulant in reversed(list(enumerate(cumulants, 2))):
        series = (series * u) / (order + 1.0) + cumulant
    return jnp.where(d > -near, -(a * k) * series * u * u / 2.0, far)


def _below(d: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """The integral of exp(h) over (-inf, d] for d <= 0."""
    x = jnp.expand_dims
    slope = a * -jnp.expm1(d) / (1.0 + a / (a + b) * jnp.expm1(d))
    # h' at d here: a b (1 - e^d) / (b + a e^d); the width at the mode bounds it.
    scale = 1.0 / (slope * (b / (a + b)) + jnp.sqrt(a * (b / (a + b))))
    nodes, weights = (jnp.asarray(n, d.dtype) for n in (_NODES, _WEIGHTS))
    one = (1,) * d.ndim
    s = x(scale, -1) * nodes.reshape(*one, -1)
    return scale * (
        jnp.exp(_exponent(x(d, -1) - s, x(a, -1), x(b, -1))) * weights.reshape(*one, -1)
    ).sum(-1)


def _outer(d: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """The integral over the side of d without the mode."""
    left = d < 0.0
    return _below(-jnp.abs(d), jnp.where(left, a, b), jnp.where(left, b, a))


def _whole(a: jax.Array, b: jax.Array) -> jax.Array:
    first, second = jnp.stack([a, b]), jnp.stack([b, a])
    return _below(jnp.zeros_like(first), first, second).sum(0)


def _tails(d: jax.Array, a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """P(D <= d) and P(D > d), each accurate where it is small."""
    valid = (a > 0.0) & (b > 0.0) & ~jnp.isnan(d)
    a, b, d = (jnp.where(valid, x, o) for x, o in ((a, 1.0), (b, 1.0), (d, 0.0)))
    a, b = jnp.minimum(a, _LARGEST), jnp.minimum(b, _LARGEST)
    share, left = _outer(d, a, b) / _whole(a, b), d < 0.0
    below = jnp.where(left, share, 1.0 - share)
    above = jnp.where(left, 1.0 - share, share)
    return jnp.where(valid, below, jnp.nan), jnp.where(valid, above, jnp.nan)


@jax.custom_jvp
def _log_ratio(p: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """The d with P(D <= d) = p."""
    # The smaller tail; the upper one of (a, b) is the lower one of (b, a) at -d.
    flip = p > 0.5
    tail = jnp.where(flip, 1.0 - p, p)
    a, b = jnp.where(flip, b, a), jnp.where(flip, a, b)
    inside = (tail > 0.0) & (a > 0.0) & (b > 0.0)
    target = jnp.log(jnp.where(inside, tail, 0.5))
    a, b = (jnp.minimum(jnp.where(inside, x, 1.0), _LARGEST) for x in (a, b))
    whole = _whole(a, b)

    def step(d: jax.Array) -> tuple[jax.Array, jax.Array]:
        outer = _outer(d, a, b) / whole
        share = jnp.where(d < 0.0, outer, 1.0 - outer)
        change = (target - jnp.log(share)) * share / (_height(d, a, b) / whole)
        return jnp.log(share) <= target, d + change

    # log P is concave in d: the first step ends left of the root, from where the next
    # ones rise to it.
    def newton(_: int, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        low, high, d = state
        left, new = step(d)
        low, high = jnp.where(left, d, low), jnp.where(left, high, d)
        # Where P underflows there is no step: halve the bracket.
        inside = (new >= low) & (new <= high)
        return low, high, jnp.where(inside, new, 0.5 * (low + high))

    start = jnp.full_like(p, -jnp.inf), jnp.full_like(p, jnp.inf), jnp.zeros_like(p)
    _, _, d = jax.lax.fori_loop(0, _NEWTON_STEPS, newton, start)
    d = jnp.where(inside, d, jnp.where(tail == 0.0, -jnp.inf, jnp.nan))
    return jnp.where(flip, -d, d)


def _height(d: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """exp(h(d))."""
    left = d < 0.0
    side = jnp.where(left, a, b), jnp.where(left, b, a)
    return jnp.exp(_exponent(-jnp.abs(d), *side))


@_log_ratio.defjvp
def _log_ratio_jvp(primals, tangents):
    # The implicit function theorem on P(d; a, b) = p.
    p, a, b = primals
    dot_p, dot_a, dot_b = tangents
    d = _log_ratio(p, a, b)
    at = jax.lax.stop_gradient(jnp.where(jnp.isfinite(d), d, 0.0))
    _, dot = jax.jvp(lambda a, b: _tails(at, a, b)[0], (a, b), (dot_a, dot_b))
    a, b = jnp.minimum(a, _LARGEST), jnp.minimum(b, _LARGEST)
    slope = (dot_p - dot) * _whole(a, b) / _height(at, a, b)
    return d, jnp.where(jnp.isfinite(d), slope, 0.0)
