# SPDX-License-Identifier: Apache-2.0
"""Several texts in a row: what is pooled, and that packed equals separate."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fulcra_jax.models import (
    Deberta,
    DebertaConfig,
    Evaluator,
    EvaluatorConfig,
    SharedHead,
    apply_evaluator,
    pooling,
    position_tables,
)

TINY = DebertaConfig(
    vocab_size=50,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_relative_positions=16,
    position_buckets=8,
    type_vocab_size=2,
)
ENCODERS = {
    "v3": TINY,
    "v2": dataclasses.replace(TINY, conv_kernel_size=3),
    "absolute": dataclasses.replace(TINY, position_biased_input=True),
}
LENGTHS = [[5, 4], [3, 2, 4], [9]]
T, S = 12, 3


def random_params(model, *inputs, **options):
    rng = np.random.default_rng(0)
    tree = jax.eval_shape(
        lambda: model.init(jax.random.key(0), *inputs, deterministic=True, **options)
    )

    def leaf(path, shape):
        noise = rng.normal(0.0, 0.3, shape.shape).astype(np.float32)
        return jnp.asarray(noise + (path[-1].key == "scale"))

    return jax.tree.map_with_path(leaf, tree["params"])


def packed_and_separate():
    """The same six texts as three packed rows and as six rows."""
    rng = np.random.default_rng(1)
    rows = np.zeros((3, T), np.int32)
    packed = {"input_ids": rows, "segment_ids": rows.copy()}
    packed |= {"token_type_ids": rows.copy(), "first": np.zeros((3, S), np.int32)}
    separate = {name: np.zeros((6, 9), np.int32) for name in packed if name != "first"}
    where, text = [], 0
    for row, lengths in enumerate(LENGTHS):
        start = 0
        for place, length in enumerate(lengths):
            ids = rng.integers(1, 50, length)
            types = rng.integers(0, 2, length)
            for batch, at in ((packed, (row, start)), (separate, (text, 0))):
                here = (at[0], slice(at[1], at[1] + length))
                batch["input_ids"][here] = ids
                batch["token_type_ids"][here] = types
                batch["segment_ids"][here] = place + 1
            packed["first"][row, place] = start
            where.append((row, place))
            start, text = start + length, text + 1
    for batch in (packed, separate):
        batch["mask"] = batch["segment_ids"] > 0
    del separate["segment_ids"]
    return packed, separate, tuple(np.array(where).T)


@pytest.mark.parametrize("pool", pooling.POOLS)
@pytest.mark.parametrize("name", list(ENCODERS))
def test_packed_texts_get_the_logits_of_single_ones(name, pool):
    model = Evaluator(EvaluatorConfig(ENCODERS[name], SharedHead(pool=pool)))
    packed, separate, where = packed_and_separate()
    params = random_params(model, separate["input_ids"], separate["mask"])

    @jax.jit
    def logits(batch):
        return apply_evaluator(model, params, batch).logits

    got, want = logits(packed), logits(separate)
    assert got.shape == (3, S, 10, 3)
    np.testing.assert_allclose(got[where], want, rtol=0, atol=1e-5)


def test_packed_texts_give_the_gradients_of_single_ones():
    model = Evaluator(EvaluatorConfig(ENCODERS["v2"]))
    packed, separate, where = packed_and_separate()
    params = random_params(model, separate["input_ids"], separate["mask"])
    pull = jax.random.normal(jax.random.key(2), (6, 10, 3))

    def gradient(batch, places):
        def loss(params):
            return (apply_evaluator(model, params, batch).logits[places] * pull).sum()

        return jax.jit(jax.grad(loss))(params)

    got, want = gradient(packed, where), gradient(separate, np.arange(6))
    # Sums of 28 tokens' gradients of order one.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-4), got, want
    )


def test_a_place_without_a_text_is_finite_in_values_and_gradients():
    packed, _, _ = packed_and_separate()
    for pool in pooling.POOLS:
        model = Evaluator(EvaluatorConfig(TINY, SharedHead(pool=pool)))
        params = random_params(model, packed["input_ids"], packed["mask"])

        def total(params, model=model):
            logits = apply_evaluator(model, params, packed).logits
            return logits.clip(-100, 100).sum()

        found, grads = jax.jit(jax.value_and_grad(total))(params)
        assert bool(jnp.isfinite(found))
        assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(grads))


def test_only_tokens_are_pooled():
    x = jnp.array([[[1.0], [3.0], [9.0]], [[5.0], [5.0], [5.0]]])
    mask = jnp.array([[False, True, True], [False, False, False]])
    got = {pool: pooling.pooled(x, mask[:, None], pool)[:, 0] for pool in pooling.POOLS}
    np.testing.assert_array_equal(got["first"], [[3.0], [0.0]])
    np.testing.assert_array_equal(got["mean"], [[6.0], [0.0]])
    np.testing.assert_array_equal(got["max"], [[9.0], [0.0]])
    both = np.log(np.exp(3.0) + np.exp(9.0))
    np.testing.assert_allclose(got["logsumexp"], [[both], [-1e9]], rtol=1e-6)


@pytest.mark.parametrize("terms", [("c2p", "p2c"), ("c2p",), ("p2c",)])
@pytest.mark.parametrize("shared", [True, False])
def test_cached_position_tables_change_nothing(terms, shared):
    config = dataclasses.replace(TINY, pos_att_type=terms, share_att_key=shared)
    model = Deberta(config)
    _, separate, _ = packed_and_separate()
    inputs = (separate["input_ids"], separate["mask"])
    params = random_params(model, *inputs)
    tables = position_tables(config, params)
    assert len(tables) == 2
    assert [table is not None for table in tables[0]] == [
        term in terms for term in ("p2c", "c2p")
    ]

    @jax.jit
    def hidden(tables):
        return model.apply(
            {"params": params}, *inputs, deterministic=True, tables=tables
        )

    np.testing.assert_allclose(hidden(tables), hidden(None), rtol=0, atol=1e-5)


@pytest.mark.parametrize("remat", ["dots", "layer"])
def test_what_is_computed_again_changes_neither_values_nor_gradients(remat):
    config = dataclasses.replace(TINY, conv_kernel_size=3)
    _, separate, _ = packed_and_separate()
    inputs = (separate["input_ids"], separate["mask"])
    params = random_params(Deberta(config), *inputs)
    rngs = {"dropout": jax.random.key(3)}

    def values_and_gradients(remat):
        def loss(params):
            model = Deberta(config, remat=remat)
            hidden = model.apply(
                {"params": params}, *inputs, deterministic=False, rngs=rngs
            )
            return (hidden**2).sum()

        return jax.jit(jax.value_and_grad(loss))(params)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        values_and_gradients(remat),
        values_and_gradients("none"),
    )


def test_bad_inputs_are_refused_while_tracing():
    packed, separate, _ = packed_and_separate()
    ids, mask = separate["input_ids"], separate["mask"]
    model = Evaluator(EvaluatorConfig(TINY))
    params = random_params(model, ids, mask)

    def apply(*args, **options):
        options = {"deterministic": True, **options}
        return model.apply({"params": params}, *args, **options)

    with pytest.raises(
        ValueError, match="num_segments is None, and segment_ids are gi"
    ):
        apply(packed["input_ids"], packed["mask"], packed["segment_ids"])
    with pytest.raises(
        ValueError, match="num_segments is 3, and segment_ids are missi"
    ):
        apply(ids, mask, num_segments=3)
    with pytest.raises(
        KeyError, match="pool 'last' is unknown; known are: first, mean"
    ):
        pooling.pooled(jnp.zeros((1, 2, 3)), jnp.ones((1, 1, 2), bool), "last")
    with pytest.raises(KeyError, match="remat 'all' is unknown; known are: none, dots"):
        Deberta(TINY, remat="all").init(
            jax.random.key(0), ids, mask, deterministic=True
        )
    tables = position_tables(TINY, params["encoder"])
    with pytest.raises(ValueError, match="tables are given, but deterministic is Fa"):
        apply(ids, mask, tables=tables, deterministic=False)
