# SPDX-License-Identifier: Apache-2.0
"""Adapters: nothing at first, the sum by hand, every family, clear refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from fulcra_jax import models
from fulcra_jax.configs import DebertaConfig, EvaluatorConfig, SharedHead
from fulcra_jax.training import sharding
from fulcra_jax.training.sharding import MeshShape

FAMILIES = {
    "bert": {},
    "deberta": dict(relative_attention=True, position_biased_input=False),
    "deberta-v2": dict(
        relative_attention=True,
        position_biased_input=False,
        position_buckets=8,
        share_att_key=True,
    ),
}


def evaluator(family="deberta-v2"):
    sizes = dict(
        vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=32, model_type=family,
    )  # fmt: skip
    if family != "bert":
        sizes["pos_att_type"] = "c2p|p2c"
    encoder = DebertaConfig.from_hf(sizes | FAMILIES[family])
    return models.Evaluator(EvaluatorConfig(encoder, SharedHead(hidden=0)))


def shapes(module):
    ids = jnp.ones((1, 8), jnp.int32)
    init = lambda: module.init(jax.random.key(0), ids, ids > 0, deterministic=True)
    return jax.eval_shape(init)["params"]


def drawn(tree, seed=0):
    draws = np.random.default_rng(seed)
    return jax.tree.map(lambda x: draws.normal(0, 0.3, x.shape).astype("float32"), tree)


def test_fresh_adapters_change_nothing_and_trained_ones_do_as_the_equation_says():
    module = evaluator()
    params = drawn(shapes(module))
    lora = models.init_lora(jax.random.key(1), params, rank=2)
    merged = models.merge_lora(params, lora, alpha=16.0)
    jax.tree.map(np.testing.assert_array_equal, merged, params)

    ids = jnp.arange(1, 13).reshape(2, 6)
    apply = jax.jit(
        lambda params: module.apply(
            {"params": params}, ids, ids > 0, deterministic=True
        )
    )
    trained = drawn(lora, 2)
    merged = models.merge_lora(params, trained, alpha=16.0)
    by_hand = jax.tree.map(np.array, params)
    for i in range(2):
        for name in ("query", "value"):
            path = f"layer_{i}", "attention", name
            a, b = trained["encoder"][path[0]][path[1]][path[2]]["kernel"].values()
            kernel = by_hand["encoder"][path[0]][path[1]][path[2]]["kernel"]
            kernel += 8.0 * np.asarray(a) @ np.asarray(b)
    # Products of float32 in another order.
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), merged, by_hand
    )
    logits = [apply(tree).logits for tree in (params, merged, by_hand)]
    np.testing.assert_allclose(logits[1], logits[2], atol=1e-5)
    assert np.abs(logits[1] - logits[0]).max() > 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_queries_and_values_of_every_family_are_found(family):
    lora = models.init_lora(jax.random.key(0), shapes(evaluator(family)), rank=3)
    found = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree.leaves_with_path(lora)
    ]
    assert found == [
        f"encoder/layer_{i}/attention/{name}/kernel/{factor}"
        for i in range(2)
        for name in ("query", "value")
        for factor in "ab"
    ]
    a = lora["encoder"]["layer_0"]["attention"]["query"]["kernel"]["a"]
    assert a.shape == (16, 3)
    assert 0.1 < np.abs(a).max() <= 0.25
    other = lora["encoder"]["layer_1"]["attention"]["query"]["kernel"]["a"]
    assert (a != other).any()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(rank=0), "rank is 0; it should be at least 1"),
        (dict(pattern="("), r"'\(' is no regular expression"),
        (
            # As the released code names them.
            dict(pattern=".*(q_proj|v_proj)"),
            "matches no path of the parameters; some are encoder/layer_0/attention/key",
        ),
        (
            dict(pattern="encoder/layer_0/.*bias"),
            r"layer_0/attention/key/bias of shape \(16,\)",
        ),
    ],
)
def test_adapters_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        models.init_lora(
            jax.random.key(0), shapes(evaluator()), **({"rank": 2} | fields)
        )


def test_adapters_of_another_model_are_refused():
    kernel = jnp.ones((4, 6))
    lora = models.init_lora(
        jax.random.key(0), {"x": {"kernel": kernel}}, rank=2, pattern="x/kernel"
    )
    with pytest.raises(ValueError, match="lora has x, but params have no such path"):
        models.merge_lora({"y": {"kernel": kernel}}, lora, alpha=1.0)
    with pytest.raises(ValueError, match=r"x/kernel has shape \(6, 4\), but lora has"):
        models.merge_lora({"x": {"kernel": kernel.T}}, lora, alpha=1.0)
    with pytest.raises(ValueError, match="x is an array, but lora has kernel there"):
        models.merge_lora({"x": kernel}, lora, alpha=1.0)


def test_adapters_lie_where_their_kernel_lies():
    lora = models.init_lora(
        jax.random.key(0), shapes(evaluator()), rank=3, pattern=".*layer_0/.*kernel"
    )
    mesh = sharding.make_mesh(MeshShape(fsdp=4, tensor=2))
    places = sharding.shardings({"lora": lora}, sharding.STATE, mesh)["lora"]
    layer = places["encoder"]["layer_0"]
    for kernel, axes in (
        (layer["attention"]["query"], ("fsdp", "tensor")),
        (layer["attention"]["output"], ("tensor", "fsdp")),
        (layer["up"], ("fsdp", "tensor")),
        (layer["down"], ("tensor", "fsdp")),
    ):
        assert kernel["kernel"]["a"].spec == P(axes[0], None)
        assert kernel["kernel"]["b"].spec == P(None, axes[1])
