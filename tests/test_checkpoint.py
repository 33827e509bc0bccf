# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: what is kept, on which devices it comes back, what is refused."""

import json
import os
import shutil
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from fulcra_jax.training import step
from fulcra_jax.training.checkpoint import Checkpoints

AXES = ("data", "fsdp", "tensor")


def tree(number):
    """Host arrays of all kinds, different for every number."""
    generator = np.random.default_rng(number)
    return {
        "kernel": generator.normal(size=(16, 24)).astype(np.float32),
        "bias": generator.normal(size=(24,)).astype(jnp.bfloat16),
        "ids": generator.integers(-9, 9, (8, 8), np.int32),
        "key": generator.integers(0, 2**32, (2,), np.uint32),
        "count": np.int32(number),
        "none": np.zeros((0, 8), np.float32),
    }


SPECS = {
    "kernel": PartitionSpec(("data", "fsdp"), "tensor"),
    "bias": PartitionSpec("fsdp"),
    "ids": PartitionSpec(None, "data"),
    "key": PartitionSpec(),
    "count": PartitionSpec(),
    "none": PartitionSpec(None, "tensor"),
}


def places(sizes, specs=SPECS):
    count = int(np.prod(sizes))
    mesh = jax.make_mesh(
        sizes, AXES, axis_types=(AxisType.Auto,) * 3, devices=jax.devices()[:count]
    )
    return {name: NamedSharding(mesh, spec) for name, spec in specs.items()}


def abstract(state, where):
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=place
        ),
        state,
        where,
    )


def assert_same(found, want):
    for name, leaf in want.items():
        got = np.asarray(found[name])
        assert got.dtype == leaf.dtype, name
        assert got.tobytes() == leaf.tobytes(), name


def steps_in(folder):
    return sorted(int(name) for name in os.listdir(folder) if name.isdigit())


def test_keeps_the_newest_and_says_when_there_is_none(tmp_path):
    state = {"a": jnp.arange(3.0)}
    with Checkpoints(tmp_path / "c", keep=2) as saved:
        assert saved.latest_step() is None
        with pytest.raises(FileNotFoundError, match="holds no whole checkpoint"):
            saved.restore(state)
        for number in (1, 2, 3):
            saved.save(number, {"a": state["a"] + number})
        saved.save(3, state)  # a second save of a step is none
        saved.wait()
        assert saved.latest_step() == 3
        np.testing.assert_array_equal(saved.restore(state)["a"], [3.0, 4.0, 5.0])
        np.testing.assert_array_equal(
            saved.restore(state, step=2)["a"], [2.0, 3.0, 4.0]
        )
        with pytest.raises(FileNotFoundError, match=r"holds no step 1; it has 2, 3\."):
            saved.restore(state, step=1)
    assert steps_in(tmp_path / "c") == [2, 3]


def test_an_earlier_step_is_refused(tmp_path):
    with Checkpoints(tmp_path) as saved:
        saved.save(5, {"a": jnp.zeros(1)})
        with pytest.raises(ValueError, match="step is 4; it should be greater than 5"):
            saved.save(4, {"a": jnp.zeros(1)})


def test_read_only_changes_nothing_in_the_folder(tmp_path):
    state = {"a": jnp.arange(3.0)}
    with Checkpoints(tmp_path) as saved:
        saved.save(1, state)
        saved.save(2, state)
    shutil.rmtree(tmp_path / "2" / "state")
    half = tmp_path / "3.orbax-checkpoint-tmp"  # another process writes it just now
    half.mkdir()
    before = sorted(os.listdir(tmp_path))
    with Checkpoints(tmp_path, read_only=True) as saved:
        with pytest.warns(UserWarning, match=r"step 2 in .* is damaged .*; step 1 is"):
            assert_same(saved.restore(state), {"a": np.arange(3.0, dtype=np.float32)})
    assert sorted(os.listdir(tmp_path)) == before
    with Checkpoints(tmp_path):
        deadline = time.monotonic() + 60  # it is removed in the background
        while half.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    with Checkpoints(tmp_path / "none", read_only=True) as saved:
        with pytest.raises(FileNotFoundError, match="holds no whole checkpoint"):
            saved.restore(state)
    assert not (tmp_path / "none").exists()


def test_nothing_can_be_kept(tmp_path):
    with pytest.raises(ValueError, match="keep is 0; it should be at least 1"):
        Checkpoints(tmp_path, keep=0)


@pytest.mark.parametrize("reopen", [False, True])
def test_the_best_is_kept_beside_the_newest(tmp_path, reopen):
    # Steps with their metric; None is a checkpoint without metrics.
    figures = {
        1: 0.2,
        2: 0.9,
        3: None,
        4: float("nan"),
        5: 0.9,
        6: None,
        7: 0.1,
        8: None,
    }
    best, kept = {}, {}
    saved = Checkpoints(tmp_path, keep=2, best="f1").__enter__()
    for number, figure in figures.items():
        metrics = None if figure is None else {"f1": figure, "loss": -figure}
        saved.save(number, {"a": jnp.full(2, number)}, metrics)
        saved.wait()
        if reopen:
            saved.__exit__(None, None, None)
            saved = Checkpoints(tmp_path, keep=2, best="f1").__enter__()
        best[number], kept[number] = saved.best_step(), steps_in(tmp_path)
    saved.__exit__(None, None, None)
    assert best == {1: 1, 2: 2, 3: 2, 4: 2, 5: 5, 6: 5, 7: 5, 8: 5}
    assert kept[4] == [2, 3, 4]
    assert kept[5] == [4, 5]
    assert kept[8] == [5, 7, 8]


def test_metrics_without_the_best_are_refused(tmp_path):
    with Checkpoints(tmp_path, best="f1") as saved:
        assert saved.best_step() is None
        with pytest.raises(ValueError, match="metrics has loss; it should have f1"):
            saved.save(1, {"a": jnp.zeros(1)}, {"loss": 1.0})


def test_a_donated_state_is_saved_as_it_was(tmp_path):
    move = jax.jit(lambda state: {"a": state["a"] + 1}, donate_argnums=0)
    with Checkpoints(tmp_path, keep=5) as saved:
        state = {"a": jnp.zeros(300_000)}
        for number in range(5):
            saved.save(number, state)
            state = move(state)
        saved.wait()
        for number in range(5):
            found = np.asarray(saved.restore(state, step=number)["a"])
            assert (found == number).all()


def test_a_training_state_comes_back_with_its_named_tuples(tmp_path):
    params = {"w": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(3, jnp.bfloat16)}
    state = step.init_state(params, optax.chain(optax.clip(1.0), optax.adamw(1e-3)))
    with Checkpoints(tmp_path) as saved:
        assert saved.newest(state) is state
        saved.save(1, state)
        found = saved.newest(state)
    assert jax.tree.structure(found) == jax.tree.structure(state)
    assert isinstance(found, step.TrainState)
    record = json.loads((tmp_path / "1" / "record" / "record.json").read_text())
    assert record["leaves"]["params/b"][0] == "bfloat16 of shape (3,)"
    assert "opt_state/1/0/mu/w" in record["leaves"]


@pytest.mark.parametrize(
    ("sizes", "specs", "shard"),
    [
        ((1, 1, 1), SPECS, (16, 24)),
        ((2, 1, 1), SPECS, (8, 24)),
        ((1, 1, 2), SPECS, (16, 12)),
        ((1, 2, 2), SPECS, (8, 12)),
        ((1, 4, 1), SPECS | {"kernel": PartitionSpec(None, "fsdp")}, (16, 6)),
        ((4, 1, 1), dict.fromkeys(SPECS, PartitionSpec()), (16, 24)),
        ((4, 2, 1), SPECS, (2, 24)),
    ],
)
def test_eight_devices_come_back_on_other_devices(tmp_path, sizes, specs, shard):
    want = tree(1)
    with Checkpoints(tmp_path) as saved:
        saved.save(1, jax.device_put(want, places((2, 2, 2))))
    where = places(sizes, specs)
    with Checkpoints(tmp_path) as saved:
        found = saved.restore(abstract(want, where))
    assert_same(found, want)
    assert {name: leaf.sharding for name, leaf in found.items()} == where
    assert {part.data.shape for part in found["kernel"].addressable_shards} == {shard}


def test_one_device_comes_back_on_eight(tmp_path):
    want = tree(1)
    with Checkpoints(tmp_path) as saved:
        saved.save(1, jax.device_put(want, jax.devices()[3]))
    with Checkpoints(tmp_path) as saved:
        found = saved.restore(abstract(want, places((2, 2, 2))))
    assert_same(found, want)
    shards = found["kernel"].addressable_shards
    assert {part.data.shape for part in shards} == {(4, 12)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kernel": np.zeros((16, 12), np.float32)},
         r"kernel is float32 of shape \(16, 24\) there, and float32 of .* \(16, 12\)"),
        ({"kernel": np.zeros((16, 24), jnp.bfloat16)},
         r"kernel is float32 of shape \(16, 24\) there, and bfloat16 of shape"),
        ({"extra": np.zeros(2)}, r"extra is missing there, and float64 of"),
        ({"bias": None}, r"bias is bfloat16 of shape \(24,\) there, and missing"),
        ({"none": np.zeros((0, 9), np.float32)}, r"none is float32 of shape \(0, 8\)"),
    ],
)  # fmt: skip
def test_another_architecture_is_no_damage(tmp_path, change, said):
    like = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        for name, leaf in (tree(1) | change).items()
        if leaf is not None
    }
    with Checkpoints(tmp_path) as saved, warnings.catch_warnings():
        warnings.simplefilter("error")
        saved.save(1, tree(1))
        saved.save(2, tree(2))
        with pytest.raises(
            ValueError, match=rf"step 2 in .* is of another architecture: {said}"
        ):
            saved.restore(like)
    assert steps_in(tmp_path) == [1, 2]


def test_a_checkpoint_of_version_0_1_is_read(tmp_path):
    # As that version wrote it: one unnamed item and no record.
    state = {"a": jnp.arange(4.0), "b": (jnp.ones(2, jnp.int32),)}
    old = ocp.CheckpointManager(tmp_path, item_handlers=ocp.StandardCheckpointHandler())
    old.save(3, args=ocp.args.StandardSave(state))
    old.close()
    with Checkpoints(tmp_path, best="f1") as saved:
        assert saved.latest_step() == 3
        found = saved.newest(state)
        np.testing.assert_array_equal(found["a"], [0.0, 1.0, 2.0, 3.0])
        np.testing.assert_array_equal(found["b"][0], [1, 1])
        with pytest.raises(ValueError, match=r"another architecture: a is float32"):
            saved.newest(state | {"a": jnp.zeros(5)})
        saved.save(4, state, {"f1": 0.5})
        saved.wait()
        assert saved.best_step() == 4
    assert steps_in(tmp_path) == [3, 4]
