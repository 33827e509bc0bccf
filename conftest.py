# SPDX-License-Identifier: Apache-2.0
"""Devices, strict shapes and names for all tests, docstring examples included."""

import atexit
import shutil
import tempfile
from importlib.util import find_spec

import jax
import pytest

# Needs google-tunix, and importing that changes settings of flax for all other tests.
collect_ignore = ["fulcra_jax/alignment/tunix"]
if find_spec("torch") is None:
    for name in ("encoder_references", "training_reference", "torch_linear_reference"):
        collect_ignore.append(f"experiments/benchmarks/{name}.py")

# Before the first array: the number of devices is fixed when the backend starts.
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Compiled programs on disk, for this run of the tests: files share what they compile.
_compiled = tempfile.mkdtemp(prefix="fulcra-compiled-")
atexit.register(shutil.rmtree, _compiled, ignore_errors=True)
jax.config.update("jax_compilation_cache_dir", _compiled)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace):
    import jax.numpy as jnp
    import numpy as np

    from fulcra_jax import scoring

    doctest_namespace.update(jax=jax, jnp=jnp, np=np, scoring=scoring)


@pytest.fixture(autouse=True, scope="module")
def _drop_compiled_programs():
    """Thousands of programs in one process exhaust its memory maps: XLA then aborts."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def one_device():
    """For tests that run whole scripts: eight devices faked on two cores are slow."""
    from fulcra_jax.training import sharding

    real = sharding.make_mesh
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "make_mesh", lambda _=0: real(1))
        yield
