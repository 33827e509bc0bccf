# SPDX-License-Identifier: Apache-2.0
"""Frozen parameters: bit-equal, without gradient, moment or average; refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fulcra_jax.training import checkpoint, freeze, optimizer, sharding, step
from fulcra_jax.training.optimizer import Optimizer

FIELDS = dict(
    peak_lr=0.1, warmup_steps=0, weight_decay=0.1, clip_norm=1.0, layer_decay=0.5
)
LAYERS = {"embeddings": "project", "layer_0": "up", "layer_1": "up"}
PATTERN = "encoder/(embeddings|layer_0)/.*"


def problem():
    draws = np.random.default_rng(0)
    kernel = lambda: {"kernel": jnp.asarray(draws.normal(size=(4, 4)), jnp.float32)}
    params = {
        "encoder": {name: {inner: kernel()} for name, inner in LAYERS.items()},
        "head": {"values": kernel()},
    }
    # Zeros of either sign have to stay what they are.
    first = params["encoder"]["embeddings"]["project"]
    first["kernel"] = first["kernel"].at[0].set(-0.0)
    batch = {"x": draws.normal(size=(8, 4)).astype(np.float32)}
    return params, batch


def cells(params, batch, key):
    del key
    x = batch["x"]
    for name, inner in LAYERS.items():
        x = jnp.tanh(x @ params["encoder"][name][inner]["kernel"])
    loss = (x @ params["head"]["values"]["kernel"] - 1.0) ** 2
    return loss, jnp.ones(loss.shape, bool)


def run(state, batch, made, steps, accumulate=1):
    train_step = jax.jit(
        step.make_train_step(
            cells, made, seed=0, average_decay=0.9, accumulate=accumulate,
            freeze=PATTERN,
        )
    )  # fmt: skip
    for _ in range(steps):
        state, told = train_step(state, batch)
    return state, told


def begun(made):
    params, batch = problem()
    return step.init_state(params, made, average=True, freeze=PATTERN), batch


@pytest.mark.parametrize("accumulate", [1, 2])
def test_frozen_leaves_stay_bit_for_bit_and_nothing_is_kept_of_them(accumulate):
    made = optimizer.make_optimizer(Optimizer(**FIELDS, freeze=PATTERN), 100)
    first, batch = begun(made)
    state, told = run(first, batch, made, 5, accumulate)
    for name in ("embeddings", "layer_0"):
        before, after, best = (
            np.asarray(params["encoder"][name][LAYERS[name]]["kernel"]).tobytes()
            for params in (first.params, state.params, state.best_params)
        )
        assert before == after == best
    for tree in (state.params, state.best_params):
        assert (tree["head"]["values"]["kernel"] != 0.0).all()
        moved = tree["encoder"]["layer_1"]["up"]["kernel"]
        assert (moved != first.params["encoder"]["layer_1"]["up"]["kernel"]).all()
    kept = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, leaf in jax.tree.leaves_with_path((state.opt_state, state.average))
        if leaf.shape
    ]
    assert len(kept) == 2 * 2 + 2
    assert not [name for name in kept if "embeddings" in name or "layer_0" in name]
    # The norm is that of what is trained.
    own = freeze.trained(state.params, PATTERN)
    whole = lambda part: cells(freeze.joined(part, state.params), batch, None)[0].mean()
    _, told = run(state, batch, made, 1, accumulate)
    norm = optax.tree.norm(jax.grad(whole)(own))
    np.testing.assert_allclose(told.grad_norm, norm, rtol=1e-5)


def test_the_trained_leaves_move_as_without_the_others():
    """As one trains a model in which the frozen leaves are constants."""
    made = optimizer.make_optimizer(Optimizer(**FIELDS, freeze=PATTERN), 100)
    first, batch = begun(made)
    state, _ = run(first, batch, made, 3)
    params, _ = problem()
    part = {
        "encoder": {"layer_1": params["encoder"].pop("layer_1")},
        "head": params.pop("head"),
    }

    def inner(part, batch, key):
        encoder = params["encoder"] | part["encoder"]
        return cells({"encoder": encoder, "head": part["head"]}, batch, key)

    plain = optimizer.make_optimizer(Optimizer(**FIELDS), 100)
    other = step.init_state(part, plain)
    train_step = jax.jit(step.make_train_step(inner, plain, seed=0))
    for _ in range(3):
        other, _ = train_step(other, batch)
    for ours, theirs in (
        (state.params["head"], other.params["head"]),
        (state.params["encoder"]["layer_1"], other.params["encoder"]["layer_1"]),
    ):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), ours, theirs
        )


def test_a_transformation_alone_freezes_too():
    """Whoever gives it the gradient of all parameters gets zeros for the frozen."""
    params, _ = problem()
    made = optimizer.make_optimizer(Optimizer(**FIELDS, freeze=PATTERN), 100)
    grads = jax.tree.map(jnp.ones_like, params)
    updates, _ = made.update(grads, made.init(params), params)
    assert not updates["encoder"]["layer_0"]["up"]["kernel"].any()
    assert updates["head"]["values"]["kernel"].all()


def test_a_frozen_state_is_restored_and_goes_on_the_same(tmp_path):
    made = optimizer.make_optimizer(Optimizer(**FIELDS, freeze=PATTERN), 100)
    first, batch = begun(made)
    half, _ = run(first, batch, made, 2)
    whole, _ = run(half, batch, made, 2)
    shapes = jax.eval_shape(lambda: begun(made)[0])
    mesh = sharding.make_mesh(sharding.MeshShape(data=1, fsdp=2))
    places = sharding.shardings(shapes, sharding.STATE, mesh)
    with checkpoint.Checkpoints(tmp_path) as saved:
        saved.save(2, half)
        restored = saved.restore(sharding.abstract(shapes, places))
    restored = jax.device_put(restored, jax.devices()[0])
    resumed, _ = run(restored, batch, made, 2)
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)


def test_the_number_of_a_bad_leaf_counts_the_frozen_ones():
    made = optimizer.make_optimizer(Optimizer(**FIELDS, freeze=PATTERN), 100)
    state, batch = begun(made)
    bad = lambda *call: (cells(*call)[0] * jnp.nan, cells(*call)[1])
    _, told = step.make_train_step(bad, made, seed=0, freeze=PATTERN)(state, batch)
    names = step.leaf_names(state.params)
    assert names[told.bad[0]] == "encoder/layer_1/up/kernel"
    assert told.bad[1] == 2


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("encoder", "matches no path of the 4 parameters; .* as encoder/embeddings/p"),
        (".*", "matches every path of the 4 parameters"),
        ("(", "which is no regular expression"),
    ],
)
def test_a_pattern_that_freezes_nothing_or_all_is_refused(pattern, message):
    params, _ = problem()
    with pytest.raises(ValueError, match=message):
        freeze.frozen(params, pattern)
    with pytest.raises(ValueError, match=message):
        freeze.apart(optax.sgd(0.1), pattern).init(params)
