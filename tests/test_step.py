# SPDX-License-Identifier: Apache-2.0
"""A step: in parts as in one, on any mesh; what it reports; layers and averages."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fulcra_jax.training import optimizer, step
from fulcra_jax.training.optimizer import Optimizer


def linear(params, batch, key):
    """A loss per cell of a linear map, with dropout noise by the key."""
    noise = jax.random.normal(key, batch["y"].shape) * batch["noise"][:, None]
    loss = (batch["x"] @ params["w"] + params["b"][None] + noise - batch["y"]) ** 2
    return loss, batch["where"]


def problem(B=12, noise=0.0):
    draws = np.random.default_rng(0)
    params = {"w": jnp.asarray(draws.normal(size=(3, 2))), "b": jnp.zeros(2)}
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    batch = {
        "x": draws.normal(size=(B, 3)).astype(np.float32),
        "y": draws.normal(size=(B, 2)).astype(np.float32),
        "where": draws.random((B, 2)) < 0.6,
        "noise": np.full(B, noise, np.float32),
    }
    return params, batch


@pytest.mark.parametrize("parts", [2, 3, 12])
def test_parts_of_a_batch_add_up_to_the_whole(parts):
    params, batch = problem()
    # Cells that count are unequal by part: a mean of means would be off.
    assert len({int(batch["where"][a::parts].sum()) for a in range(parts)}) > 1
    sgd = optax.sgd(0.1)
    results = [
        jax.jit(step.make_train_step(linear, sgd, seed=0, accumulate=a))(
            step.init_state(params, sgd), batch
        )
        for a in (1, parts)
    ]
    (one, told), (many, told_many) = results
    np.testing.assert_allclose(told.loss, told_many.loss, rtol=1e-6)
    np.testing.assert_allclose(told.grad_norm, told_many.grad_norm, rtol=1e-5)
    for leaf, other in zip(
        jax.tree.leaves(one.params), jax.tree.leaves(many.params), strict=True
    ):
        np.testing.assert_allclose(leaf, other, rtol=1e-5, atol=1e-7)


def test_weighted_cells_in_parts_add_up_to_the_whole():
    params, batch = problem()
    weights = np.random.default_rng(1).uniform(0.0, 0.1, (12, 2)) * batch["where"]
    batch |= {"where": weights.astype(np.float32)}
    batch["y"][weights == 0.0] = np.nan  # never read
    sgd = optax.sgd(0.1)
    results = [
        jax.jit(step.make_train_step(linear, sgd, seed=0, accumulate=a))(
            step.init_state(params, sgd), batch
        )
        for a in (1, 4)
    ]
    (one, told), (many, told_many) = results
    # By hand; the weights of a part sum to less than one.
    away = batch["x"] @ np.asarray(params["w"]) - batch["y"]
    expected = np.nansum(away**2 * weights) / weights.sum()
    assert weights[0::4].sum() < 1.0
    assert float(told.loss) == pytest.approx(expected, rel=1e-5)
    assert float(told_many.loss) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(one.params["w"], many.params["w"], rtol=1e-5, atol=1e-7)


def test_each_part_draws_its_own_noise():
    params, batch = problem(B=4, noise=1.0)
    keys = []

    def spy(params, batch, key):
        keys.append(key)
        return linear(params, batch, key)

    sgd = optax.sgd(0.1)
    told = [
        step.make_train_step(spy, sgd, seed=0, accumulate=2)(
            step.init_state(params, sgd)._replace(step=jnp.asarray(at)), batch
        )[1].loss
        for at in (0, 0, 1)
    ]
    assert told[0] == told[1] != told[2]


def test_rows_that_do_not_divide_into_parts_are_refused():
    params, batch = problem()
    sgd = optax.sgd(0.1)
    with pytest.raises(ValueError, match="a batch has 12 rows, but accumulate is 5"):
        step.make_train_step(linear, sgd, seed=0, accumulate=5)(
            step.init_state(params, sgd), batch
        )


def test_the_first_leaf_that_is_not_finite_is_numbered():
    def cells(params, batch, key):
        del key
        return params["b"][None] * 1.0 + jnp.sqrt(params["w"][:1]), batch["where"][:1]

    params = {"b": jnp.ones(2), "w": jnp.zeros((3, 2))}  # sqrt has no slope at 0
    sgd = optax.sgd(0.1)
    batch = {"where": jnp.ones((1, 2), bool)}
    _, told = step.make_train_step(cells, sgd, seed=0)(
        step.init_state(params, sgd), batch
    )
    assert float(told.loss) == 1.0
    assert told.bad.tolist() == [1, 1]
    assert step.leaf_names(params)[1] == "w"


def test_the_average_follows_the_parameters():
    params, batch = problem()
    sgd = optax.sgd(0.1)
    state = step.init_state(params, sgd, average=True)
    train_step = step.make_train_step(linear, sgd, seed=0, average_decay=0.5)
    expected = np.asarray(params["w"], np.float64)
    for t in range(12):
        state, _ = train_step(state, batch)
        # By hand: the decay is .1, .18, .25, ... and never above .5.
        decay = min(0.5, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * np.asarray(state.params["w"])
    np.testing.assert_allclose(state.average["w"], expected, rtol=1e-5)
    assert state.best_params is state.average
    plain = step.init_state(params, sgd)
    assert plain.best_params is params


def test_lower_layers_learn_slower():
    names = ("embeddings", "relative", "layer_0", "layer_1")
    params = {"encoder": {name: {"kernel": jnp.ones((2, 2))} for name in names}}
    params["head"] = {"kernel": jnp.ones((2, 2))}
    config = Optimizer(
        peak_lr=0.1, schedule="constant", warmup_steps=0, layer_decay=0.5
    )
    made = optimizer.make_optimizer(config, 10)
    grads = jax.tree.map(jnp.ones_like, params)
    updates, _ = made.update(grads, made.init(params), params)
    moved = {name: float(-updates["encoder"][name]["kernel"][0, 0]) for name in names}
    # The first step of Adam is the learning rate: .1 at the head, halved by layer.
    assert moved == pytest.approx(
        {"embeddings": 0.0125, "relative": 0.0125, "layer_0": 0.025, "layer_1": 0.05}
    )
    assert float(-updates["head"]["kernel"][0, 0]) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("field", "number"), [("layer_decay", 0.0), ("layer_decay", 1.5), ("average", 1.0)]
)
def test_rates_out_of_range_are_refused(field, number):
    with pytest.raises(ValueError, match=f"{field} is {number}; it should be in"):
        Optimizer(**{field: number})


def test_the_head_may_learn_faster():
    params = {
        "encoder": {"layer_0": {"up": jnp.ones(2)}, "word": jnp.ones(2)},
        "head": {"values": {"kernel": jnp.ones(2)}},
    }
    moved = {}
    for rate in (1.0, 5.0):
        made = optimizer.make_optimizer(
            optimizer.Optimizer(
                peak_lr=0.1, schedule="constant", warmup_steps=0, head_rate=rate
            ),
            10,
        )
        grads = jax.tree.map(jnp.ones_like, params)
        moved[rate], _ = made.update(grads, made.init(params), params)
    np.testing.assert_allclose(
        moved[5.0]["head"]["values"]["kernel"],
        5 * moved[1.0]["head"]["values"]["kernel"],
        rtol=1e-6,
    )
    np.testing.assert_array_equal(
        moved[5.0]["encoder"]["layer_0"]["up"], moved[1.0]["encoder"]["layer_0"]["up"]
    )
