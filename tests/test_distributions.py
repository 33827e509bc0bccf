# SPDX-License-Identifier: Apache-2.0
"""Against scipy, far into the tails and from half a degree of freedom to infinity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fulcra_jax.scoring import _distributions

P = np.array([1e-6, 0.001, 0.025, 0.2, 0.45, 0.5, 0.7, 0.9, 0.975, 0.9999])
DF_T = [0.5, 1, 2.5, 7, 30, 100, 1000.5, 1e5, 1e8, np.inf]
SHAPES = [
    (1, 1),
    (2, 3.5),
    (0.5, 0.5),
    (1, 1e4),
    (3, 300),
    (300, 3),
    (11, 33),
    (1e3, 4e3),
    (1e6, 1e6),
    (2, 1e7),
]
TOLERANCE = {False: 1e-5, True: 1e-10}
precisions = pytest.mark.parametrize("wide", [False, True], ids=["float32", "float64"])


def call(name, wide, *args):
    """As scipy gets them, rounded to the dtype first; the program compiled once."""
    with jax.enable_x64(wide):
        dtype = np.float64 if wide else np.float32
        args = [np.asarray(x, dtype) for x in np.broadcast_arrays(*args)]
        result = compiled(name)(*map(jnp.asarray, args))
        assert result.dtype == dtype
        return np.asarray(result, float), [x.astype(float) for x in args]


def compiled(name):
    return jax.jit(getattr(_distributions, name))


def grid(*axes):
    return [x.ravel() for x in np.meshgrid(*axes, indexing="ij")]


@precisions
def test_student_quantiles_equal_scipy(wide):
    q, args = call("student_t_quantile", wide, *grid(P, DF_T))
    np.testing.assert_allclose(q, stats.t.ppf(*args), rtol=TOLERANCE[wide])


@precisions
def test_student_tails_equal_scipy(wide):
    t = [-300.0, -5.0, -1.0, -1e-3, 0.0, 0.3, 1.7, 4.0]
    p, args = call("student_t_cdf", wide, *grid(t, DF_T))
    expected = stats.t.cdf(*args)
    # 1e-12 of scale 1, and 1e-35 in float32: below it no float32 has full precision.
    atol = 1e-300 if wide else 1e-35
    np.testing.assert_allclose(p, expected, rtol=TOLERANCE[wide], atol=atol)


@precisions
def test_f_quantiles_equal_scipy(wide):
    index = np.repeat(np.arange(len(SHAPES)), len(P))
    a, b = np.array(SHAPES)[index].T
    q, args = call("f_quantile", wide, np.tile(P, len(SHAPES)), a, b)
    np.testing.assert_allclose(q, stats.f.ppf(*args), rtol=TOLERANCE[wide])


@precisions
def test_f_tails_equal_scipy(wide):
    index = np.repeat(np.arange(len(SHAPES)), len(P))
    a, b = np.array(SHAPES)[index].T
    x = stats.f.ppf(np.tile(P, len(SHAPES)), a, b)
    p, args = call("f_cdf", wide, x, a, b)
    expected = stats.f.cdf(*args)
    # Where F has little spread (1e6, 1e6) the argument's own rounding moves p.
    slope = stats.f.pdf(*args) * args[0] * (np.finfo(np.float32).eps, 1e-15)[wide]
    gap = np.abs(p - expected)
    assert (gap <= TOLERANCE[wide] * expected + 8 * slope).all()


@precisions
def test_beta_quantiles_equal_scipy(wide):
    """Clopper-Pearson among them: 0, 1 and 30 wrong of 40."""
    shapes = np.array([(1, 40), (2, 39), (31, 10), (0.5, 0.5), (2, 3.5), (1, 1e4)])
    index = np.repeat(np.arange(len(shapes)), len(P))
    q, args = call("beta_quantile", wide, np.tile(P, len(shapes)), *shapes[index].T)
    # In float32 1 - x carries the precision of x when x is close to 1.
    np.testing.assert_allclose(q, stats.beta.ppf(*args), rtol=TOLERANCE[wide])


@precisions
def test_normal_equals_scipy(wide):
    q, args = call("normal_quantile", wide, P)
    np.testing.assert_allclose(q, stats.norm.ppf(*args), rtol=1e-5, atol=1e-7)
    p, args = call("normal_cdf", wide, stats.norm.ppf(P))
    np.testing.assert_allclose(p, stats.norm.cdf(*args), rtol=TOLERANCE[wide])


def test_ends_and_nonsense():
    quantile = jax.jit(_distributions.student_t_quantile)
    ends = quantile(jnp.array([0.0, 0.5, 1.0]), jnp.float32(5.0))
    assert ends.tolist() == [-np.inf, 0.0, np.inf]
    assert jnp.isnan(quantile(jnp.array([-0.1, 1.5, jnp.nan]), jnp.float32(5.0))).all()
    assert jnp.isnan(quantile(jnp.array([0.3, 0.3]), jnp.array([0.0, -1.0]))).all()
    beta = jax.jit(_distributions.beta_quantile)(jnp.array([0.0, 1.0]), 2.0, 3.0)
    assert beta.tolist() == [0.0, 1.0]
    f = jax.jit(_distributions.f_cdf)(
        jnp.array([-1.0, 0.0, jnp.inf, jnp.nan]), 2.0, 3.0
    )
    np.testing.assert_array_equal(f, [0.0, 0.0, 1.0, np.nan])


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("student_t_quantile", (0.9, 7.3)),
        ("student_t_quantile", (0.5, 7.3)),
        ("student_t_cdf", (-0.9, 7.3)),
        ("student_t_cdf", (0.0, 7.3)),
        ("f_quantile", (0.9, 7.3, 22.0)),
        ("f_cdf", (1.9, 7.3, 22.0)),
        ("beta_quantile", (0.2, 3.0, 5.5)),
    ],
)
def test_gradients_equal_differences_of_scipy(name, args):
    reference = {
        "student_t_quantile": stats.t.ppf,
        "student_t_cdf": stats.t.cdf,
        "f_quantile": stats.f.ppf,
        "f_cdf": stats.f.cdf,
        "beta_quantile": stats.beta.ppf,
    }[name]
    with jax.enable_x64(True):
        grads = jax.jit(
            jax.grad(getattr(_distributions, name), argnums=tuple(range(len(args))))
        )(*args)
    step = 1e-4 * np.eye(len(args))
    expected = [(reference(*args + s) - reference(*args - s)) / 2e-4 for s in step]
    # Differences of step 1e-4: 1e-8 of truncation.
    np.testing.assert_allclose(grads, expected, rtol=1e-6, atol=1e-7)


def test_vmap_over_degrees_of_freedom():
    df = jnp.array([1.0, 4.0, 50.0])
    each = jax.jit(jax.vmap(lambda df: _distributions.student_t_quantile(0.975, df)))
    np.testing.assert_allclose(each(df), stats.t.ppf(0.975, df), rtol=1e-5)
