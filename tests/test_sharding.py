# SPDX-License-Identifier: Apache-2.0
"""Meshes and tables: every leaf has a place, and what does not fit is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from experiments.recipes import RECIPES
from fulcra_jax import models
from fulcra_jax.training import optimizer, sharding, step
from fulcra_jax.training.sharding import MeshShape


def state_shapes(config):
    evaluator = models.Evaluator(config.evaluator)
    transformation = optimizer.make_optimizer(config.optimizer, 1000)

    def init():
        ids = jnp.zeros((1, 8), jnp.int32)
        params = evaluator.init(
            jax.random.key(0), ids, ids > -1, token_type_ids=ids, deterministic=True
        )["params"]
        return step.init_state(params, transformation, average=True)

    return jax.eval_shape(init)


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        (MeshShape(), (8, 1, 1)),
        (MeshShape(fsdp=4), (2, 4, 1)),
        (MeshShape(fsdp=2, tensor=4), (1, 2, 4)),
        (MeshShape(data=1), (1, 1, 1)),
        (3, (3, 1, 1)),
    ],
)
def test_a_mesh_has_the_asked_axes(shape, sizes):
    mesh = sharding.make_mesh(shape)
    assert tuple(mesh.shape.values()) == sizes
    assert tuple(mesh.shape) == ("data", "fsdp", "tensor")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (MeshShape(data=16), "needs 16 devices; there are 8"),
        (MeshShape(data=2, fsdp=8), "needs 16 devices; there are 8"),
        (MeshShape(fsdp=3), "fsdp x tensor is 3, which should divide them"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        sharding.make_mesh(shape)


@pytest.mark.parametrize("fields", [{"data": -1}, {"fsdp": 0}, {"tensor": "2"}])
def test_sizes_of_axes_are_checked(fields):
    with pytest.raises(ValueError, match=f"{next(iter(fields))} is .*should be an"):
        MeshShape(**fields)


@pytest.mark.parametrize("recipe", ["paper", "demo", "base"])
def test_every_leaf_of_a_state_has_a_place(recipe):
    shapes = state_shapes(RECIPES[recipe][1])
    mesh = sharding.make_mesh(MeshShape(fsdp=4, tensor=2))
    places = sharding.shardings(shapes, sharding.STATE, mesh)
    encoder = places.params["encoder"]
    assert encoder["layer_0"]["up"]["kernel"].spec == P("fsdp", "tensor")
    assert encoder["layer_0"]["down"]["kernel"].spec == P("tensor", "fsdp")
    assert encoder["layer_0"]["attention_norm"]["bias"].spec == P()
    assert encoder["layer_0"]["attention"]["query"]["bias"].spec == P("tensor")
    assert places.step.spec == P()
    # A moment lies where its parameter lies.
    for path, place in jax.tree_util.tree_flatten_with_path(places.opt_state)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.endswith("embeddings/word/embedding"):
            assert place.spec == P(None, "fsdp")


def test_eight_parts_hold_at_most_a_seventh_each_of_v3_large():
    shapes = state_shapes(RECIPES["paper"][1])
    sizes = [
        sharding.bytes_per_device(
            shapes,
            sharding.shardings(shapes, sharding.STATE, sharding.make_mesh(shape)),
        )
        for shape in (MeshShape(data=1), MeshShape(fsdp=8))
    ]
    # Parameters, two moments and the average of 434 million float32 numbers.
    assert 4 * 4 * 430e6 < sizes[0] < 4 * 4 * 440e6
    assert sizes[1] <= sizes[0] / 7


def test_sharding_names_the_leaf_that_does_not_fit():
    mesh = sharding.make_mesh(8)
    tree = {"a": {"kernel": jax.ShapeDtypeStruct((12, 4), jnp.float32)}}
    with pytest.raises(ValueError, match="a/kernel has 12 rows on mesh axis 'data'"):
        sharding.shardings(tree, (("a/.*", P("data")),), mesh)
    with pytest.raises(ValueError, match="no rule matches a/kernel"):
        sharding.shardings(tree, (("b", P("data")),), mesh)
    with pytest.raises(ValueError, match="its rule names 3 axes"):
        sharding.shardings(tree, (("a/.*", P(None, None, "data")),), mesh)


def test_rows_and_heads_that_do_not_divide_are_refused():
    mesh = sharding.make_mesh(MeshShape(data=2, fsdp=2, tensor=2))
    sharding.check_batch_size(8, mesh, accumulate=2)
    with pytest.raises(ValueError, match="batch_size is 6, which is no multiple of"):
        sharding.check_batch_size(6, mesh)
    with pytest.raises(ValueError, match=r"the 4 devices .* and the 4 parts of a step"):
        sharding.check_batch_size(8, mesh, accumulate=4)
    with pytest.raises(ValueError, match=r"3 attention heads.*the 2 devices"):
        sharding.check_heads(3, mesh)


def test_a_batch_lies_on_the_mesh_as_it_was():
    mesh = sharding.make_mesh(MeshShape(data=2, fsdp=2, tensor=2))
    batch = {"x": np.arange(24.0).reshape(8, 3), "y": np.arange(8)}
    np.testing.assert_array_equal(sharding.host_rows(8, mesh), np.arange(8))
    placed = sharding.place_batch(batch, 8, mesh)
    for name, array in placed.items():
        np.testing.assert_array_equal(array, batch[name])
        assert {part.data.shape[0] for part in array.addressable_shards} == {2}


def test_parameters_are_sent_in_parts():
    mesh = sharding.make_mesh(MeshShape(fsdp=8))
    host = {"a": np.arange(32.0).reshape(16, 2)}
    places = sharding.shardings(host, (("a", P("fsdp")),), mesh)
    placed = sharding.place_params(host, places)["a"]
    np.testing.assert_array_equal(placed, host["a"])
    assert placed.addressable_shards[3].data.tolist() == [[12.0, 13.0], [14.0, 15.0]]


def test_a_step_gathers_parameters_and_no_activations():
    mesh = sharding.make_mesh(MeshShape(fsdp=8))
    params = {"up": {"kernel": jnp.ones((16, 32))}}
    places = sharding.shardings(params, ((".*", P("fsdp", "tensor")),), mesh)
    rows = sharding.batch_sharding(mesh)

    def loss(params, x):
        return (x @ sharding.used(params, places)["up"]["kernel"]).sum()

    x = jax.ShapeDtypeStruct((64, 16), jnp.float32, sharding=rows)
    compiled = (
        jax.jit(jax.grad(loss), in_shardings=(places, rows), out_shardings=places)
        .lower(params, x)
        .compile()
    )
    text = compiled.as_text()
    # The kernel is gathered whole; of the activations [64, 32] nothing is.
    assert not [
        line
        for line in text.splitlines()
        if "all-gather" in line and "64," in line.split("all-gather")[0]
    ]
    got = compiled(
        jax.device_put(params, places), jax.device_put(np.ones((64, 16)), rows)
    )
    np.testing.assert_allclose(got["up"]["kernel"], 64.0)
