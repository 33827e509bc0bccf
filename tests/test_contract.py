# SPDX-License-Identifier: Apache-2.0
"""What every public pure function owes its callers, checked for all of them at once.

Functions are found by walking the rooms; the call to check them with stands in
contract_cases.py.
"""

import doctest
import functools
import importlib
import inspect
import pkgutil

import contract_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fulcra_jax import scoring

PURE_ROOMS = ("scoring", "objectives", "targets")
DATA_ROOMS = ("values",)  # Plain Python and numpy: nothing to trace.
SECTIONS = ("Args:", "Returns:", "Reference:", ">>> ")
GARBAGE = {"f": jnp.nan, "i": 2**31 - 1, "u": 0, "b": True}


def modules_of(rooms):
    for room in rooms:
        top = importlib.import_module(f"fulcra_jax.{room}")
        yield top
        for found in pkgutil.iter_modules(getattr(top, "__path__", ())):
            if not found.name.startswith("_"):
                yield importlib.import_module(f"{top.__name__}.{found.name}")


def public_functions(rooms):
    return [
        pytest.param(fn, id=name_of(fn))
        for module in modules_of(rooms)
        for name, fn in inspect.getmembers(module, inspect.isfunction)
        if fn.__module__ == module.__name__ and not name.startswith("_")
    ]


def name_of(fn):
    return f"{fn.__module__.rpartition('.')[2]}.{fn.__name__}"


@functools.cache
def compiled(fn):
    """The jitted function with its static arguments bound; one program for all tests.

    Eager, every primitive would be compiled alone, which takes most of the time.
    """
    return jax.jit(functools.partial(fn, **contract_cases.STATIC.get(name_of(fn), {})))


def case_of(fn, seed=0):
    """The jitted function and the arrays of one call."""
    name = name_of(fn)
    if name not in contract_cases.CASES:
        pytest.fail(
            f"contract_cases.CASES has no case for {name}: add one small valid call."
        )
    return compiled(fn), contract_cases.CASES[name](np.random.default_rng(seed))


def is_float(x):
    return jnp.issubdtype(x.dtype, jnp.floating)


def floats_of(arrays):
    """The arguments that hold floats; an argument may be a record of arrays."""
    return {
        name: x
        for name, x in arrays.items()
        if any(is_float(leaf) for leaf in jax.tree.leaves(x))
    }


def cast(x, dtype):
    return jax.tree.map(lambda a: a.astype(dtype) if is_float(a) else a, x)


def masked_in(arrays):
    """`(name, mask)` of every array whose leading axes are those of `where`."""
    where = arrays["where"]
    for name, x in arrays.items():
        if isinstance(x, jax.Array) and name != "where":
            if x.shape[: where.ndim] != where.shape:
                continue
            mask = where.reshape(where.shape + (1,) * (x.ndim - where.ndim))
            yield name, jnp.broadcast_to(mask, x.shape)


def spoil(arrays):
    spoiled = {
        name: jnp.where(
            mask,
            arrays[name],
            jnp.asarray(GARBAGE[arrays[name].dtype.kind], arrays[name].dtype),
        )
        for name, mask in masked_in(arrays)
    }
    return {**arrays, **spoiled}


def assert_close(actual, desired):
    jax.tree.map(
        lambda a, d: np.testing.assert_allclose(a, d, rtol=1e-5, atol=1e-6),
        actual,
        desired,
    )


def gradients(bound, arrays):
    """Of the sum of all that is defined, by every float argument."""

    def total(floats):
        leaves = jax.tree.leaves(bound(**{**arrays, **floats}))
        defined = [jnp.where(jnp.isnan(x), 0.0, x).sum() for x in leaves if is_float(x)]
        return sum(defined, start=jnp.zeros(()))

    return jax.jit(jax.grad(total, allow_int=True))(floats_of(arrays))


def has_floats(fn):
    """Also for a function without a case, so that its tests run and fail."""
    case = contract_cases.CASES.get(name_of(fn))
    return case is None or bool(floats_of(case(np.random.default_rng(0))))


PUBLIC = public_functions(PURE_ROOMS)
PURE = [p for p in PUBLIC if name_of(p.values[0]) not in contract_cases.HOST]
every_function = pytest.mark.parametrize("fn", PUBLIC + public_functions(DATA_ROOMS))
every_pure_function = pytest.mark.parametrize("fn", PURE)
MASKED = [p for p in PURE if "where" in inspect.signature(p.values[0]).parameters]
every_masked_function = pytest.mark.parametrize("fn", MASKED)
every_masked_figure = pytest.mark.parametrize(
    "fn", [p for p in MASKED if name_of(p.values[0]) not in contract_cases.TABLES]
)
every_function_of_floats = pytest.mark.parametrize(
    "fn", [p for p in PURE if has_floats(p.values[0])]
)


def test_every_case_has_its_function():
    known = {name_of(p.values[0]) for p in PURE}
    assert {name_of(p.values[0]) for p in PUBLIC} - known == set(contract_cases.HOST)
    assert set(contract_cases.CASES) <= known
    assert set(contract_cases.STATIC) <= known


@every_function
def test_docstring_is_complete(fn):
    doc = inspect.getdoc(fn) or ""
    raises = ("Raises:",) if "raise " in inspect.getsource(fn) else ()
    missing = [s for s in SECTIONS + raises if s not in doc]
    if not inspect.signature(fn).parameters:
        missing.remove("Args:")
    assert not missing, f"{name_of(fn)}: the docstring lacks {missing}."


@every_function
def test_docstring_example_runs(fn):
    module = inspect.getmodule(fn)
    names = {"jax": jax, "jnp": jnp, "np": np, "scoring": scoring, **vars(module)}
    said = []
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder(recurse=False).find(fn, globs=names):
        runner.run(test, out=said.append)
    assert runner.tries > 0
    assert runner.failures == 0, "".join(said)


@every_pure_function
def test_jit_equals_eager(fn):
    bound, arrays = case_of(fn)
    eager = functools.partial(fn, **contract_cases.STATIC.get(name_of(fn), {}))
    assert_close(bound(**arrays), eager(**arrays))


@every_pure_function
def test_vmap_equals_a_loop(fn):
    bound, first = case_of(fn, seed=0)
    _, second = case_of(fn, seed=1)
    both = jax.tree.map(lambda *x: jnp.stack(x), first, second)
    looped = jax.tree.map(lambda *x: jnp.stack(x), bound(**first), bound(**second))
    assert_close(jax.jit(jax.vmap(lambda arrays: bound(**arrays)))(both), looped)


@every_masked_function
def test_masked_entries_are_never_read(fn):
    bound, arrays = case_of(fn)
    assert not arrays["where"].all(), "the case masks nothing"
    jax.tree.map(np.testing.assert_array_equal, bound(**spoil(arrays)), bound(**arrays))


@every_masked_figure
def test_all_masked_equals_an_empty_table(fn):
    """0 for losses, NaN for metrics; never a number made of masked entries."""
    bound, arrays = case_of(fn)
    arrays["where"] = jnp.zeros_like(arrays["where"])
    for x in jax.tree.leaves(bound(**spoil(arrays))):
        undefined = jnp.isnan(x) | (x == 0.0) | (x == 1.0)
        if not is_float(x):
            undefined |= x == -1  # no label
        assert undefined.all(), x


@every_function_of_floats
def test_gradient_is_finite_and_zero_where_masked(fn):
    bound, arrays = case_of(fn)
    spoiled = spoil(arrays) if "where" in arrays else arrays
    grads = gradients(bound, spoiled)
    for name, grad in grads.items():
        for leaf in jax.tree.leaves(grad):
            if leaf.dtype != jax.dtypes.float0:
                assert jnp.isfinite(leaf).all(), f"gradient by {name}"
    if "where" in arrays:
        for name, mask in masked_in(arrays):
            if name in grads:
                np.testing.assert_array_equal(jnp.where(mask, 0.0, grads[name]), 0.0)


@every_function_of_floats
def test_bfloat16_is_computed_in_float32(fn):
    bound, arrays = case_of(fn)
    halved = {k: cast(x, jnp.bfloat16) for k, x in floats_of(arrays).items()}
    widened = {k: cast(x, jnp.float32) for k, x in halved.items()}
    low = bound(**{**arrays, **halved})
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(low) if is_float(x))
    assert_close(low, bound(**{**arrays, **widened}))


@every_function_of_floats
def test_float64_is_kept(fn):
    bound, arrays = case_of(fn)
    with jax.enable_x64(True):
        wide = {k: cast(x, jnp.float64) for k, x in floats_of(arrays).items()}
        result = jax.eval_shape(bound, **{**arrays, **wide})
    leaves = [x for x in jax.tree.leaves(result) if is_float(x)]
    assert all(x.dtype == jnp.float64 for x in leaves)
