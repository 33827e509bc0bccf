# SPDX-License-Identifier: Apache-2.0
"""The encoder against transformers' numbers (goldens/make_deberta.py) and facts."""

import dataclasses
import json
import pathlib

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from fulcra_jax import convert
from fulcra_jax.models import (
    Deberta,
    DebertaConfig,
    Evaluator,
    EvaluatorConfig,
    SharedHead,
    SharedHeadModule,
    attention,
    heads,
)

GOLDENS = pathlib.Path(__file__).parent / "goldens"
MODELS = ["v3", "v2_conv", "own_keys", "absolute", "c2p", "narrow"]
MODELS += ["v1", "v1_terms", "bert"]
# Hidden states are of order one; two layers of float32 sums in another order.
ATOL = 2e-5


def golden(name):
    with np.load(GOLDENS / f"deberta_{name}.npz") as arrays:
        return dict(arrays)


def golden_evaluator(name, folder):
    """The golden as a checkpoint directory, read back by `convert.load`."""
    arrays = golden(name)
    entries = json.loads(str(arrays["config"]))
    encoder = DebertaConfig.from_hf(entries)
    head = SharedHead(num_values=arrays["logits"].shape[-1] // 3)
    entries["fulcra"] = EvaluatorConfig(encoder, head).to_json()
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(entries))
    weights = {key[2:]: w for key, w in arrays.items() if key.startswith("w:")}
    safetensors.numpy.save_file(weights, folder / "model.safetensors")
    return arrays, *convert.load(folder)


def tokens(arrays):
    ids, mask, types = (
        jnp.asarray(arrays[key], jnp.int32)
        for key in ("input_ids", "attention_mask", "token_type_ids")
    )
    return ids, mask, types


def small(**fields):
    """A small v3-like encoder and three texts: full, padded, nothing but padding."""
    config = DebertaConfig(
        **{
            "vocab_size": 50,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "max_relative_positions": 16,
            "position_buckets": 8,
            **fields,
        }
    )
    ids = jax.random.randint(jax.random.key(1), (3, 9), 1, config.vocab_size)
    mask = jnp.arange(9)[None, :] < jnp.array([9, 5, 0])[:, None]
    model = Deberta(config)
    return model, fresh(model, ids, mask), ids, mask


def fresh(model, *inputs):
    """Random parameters of the right shapes; compiling `init` takes seconds."""
    rng = np.random.default_rng(0)
    key = jax.random.key(0)
    tree = jax.eval_shape(lambda: model.init(key, *inputs, deterministic=True))

    def leaf(path, shape):
        noise = rng.normal(0.0, 0.3, shape.shape).astype(np.float32)
        return jnp.asarray(noise + (path[-1].key == "scale"))

    return jax.tree.map_with_path(leaf, tree["params"])


def run(model, params, *args, **kwargs):
    kwargs = {"deterministic": True, **kwargs}
    return jax.jit(lambda p: model.apply({"params": p}, *args, **kwargs))(params)


@pytest.mark.parametrize("name", MODELS[:-1])
def test_slots_equal_the_original(name):
    arrays = golden(name)
    config = DebertaConfig.from_hf(json.loads(str(arrays["config"])))
    got = attention.relative_slots(
        len(arrays["slots"]),
        buckets=config.position_buckets,
        max_distance=config.max_distance,
    )
    np.testing.assert_array_equal(got, arrays["slots"])


def test_slots_of_realistic_sizes_equal_the_original():
    with np.load(GOLDENS / "deberta_slots.npz") as arrays:
        for name, want in arrays.items():
            length, buckets, distance = map(int, name.split("_"))
            got = attention.relative_slots(
                length, buckets=buckets, max_distance=distance
            )
            np.testing.assert_array_equal(got, want, err_msg=name)


FORMS = [(name, "skew") for name in MODELS]
FORMS += [("v3", "gather"), ("c2p", "gather"), ("v1", "gather")]


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_hidden_states_equal_the_original_at_every_position(name, form, tmp_path):
    arrays, config, params = golden_evaluator(name, tmp_path)
    ids, mask, types = tokens(arrays)
    model = Deberta(config.encoder, form=form)
    got = run(
        model, params["encoder"], ids, mask, token_type_ids=types, all_states=True
    )
    assert len(got) == len(arrays["hidden"])
    for state, want in zip(got, arrays["hidden"], strict=True):
        np.testing.assert_allclose(state, want, rtol=0, atol=ATOL)


@pytest.mark.parametrize("name", MODELS)
def test_head_on_the_original_states_gives_the_original_logits(name, tmp_path):
    arrays, config, params = golden_evaluator(name, tmp_path)
    head = SharedHeadModule(config.head, act=config.encoder.pooler_hidden_act)
    _, mask, _ = tokens(arrays)
    logits = run(head, params["head"], jnp.asarray(arrays["hidden"][-1]), mask)
    want = arrays["logits"].reshape(logits.shape)
    np.testing.assert_allclose(logits, want, rtol=0, atol=ATOL)


@pytest.mark.parametrize("name", ["absolute", "narrow", "v1_terms", "bert"])
def test_logits_equal_the_original(name, tmp_path):
    arrays, config, params = golden_evaluator(name, tmp_path)
    ids, mask, types = tokens(arrays)
    out = run(Evaluator(config), params, ids, mask, token_type_ids=types)
    want = arrays["logits"].reshape(out.logits.shape)
    np.testing.assert_allclose(out.logits, want, rtol=0, atol=ATOL)
    assert out.item_logits is None


@pytest.mark.parametrize("name", MODELS)
def test_parameter_count_equals_the_original(name, tmp_path):
    arrays, config, _ = golden_evaluator(name, tmp_path)
    ids, mask, _ = tokens(arrays)
    shapes = jax.eval_shape(
        lambda: Evaluator(config).init(jax.random.key(0), ids, mask, deterministic=True)
    )
    want = sum(w.size for key, w in arrays.items() if key.startswith("w:"))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == want


def test_more_padding_changes_nothing(tmp_path):
    arrays, config, params = golden_evaluator("v2_conv", tmp_path)
    ids, mask, _ = tokens(arrays)
    model = Deberta(config.encoder)
    wider = [jnp.pad(x, ((0, 0), (4, 60))) for x in (ids, mask)]
    wide = run(model, params["encoder"], *wider)[:, 4:-60]
    real = np.asarray(mask, bool)
    np.testing.assert_allclose(wide[real], arrays["hidden"][-1][real], atol=ATOL)


def test_what_stands_at_padding_changes_nothing():
    model, params, ids, mask = small(conv_kernel_size=3)

    @jax.jit
    def hidden(ids):
        return model.apply({"params": params}, ids, mask, deterministic=True)

    spoiled = jnp.where(mask, ids, 7)
    np.testing.assert_array_equal(hidden(spoiled), hidden(ids))


def test_batch_order_does_not_matter():
    model, params, ids, mask = small()

    @jax.jit
    def hidden(ids, mask):
        return model.apply({"params": params}, ids, mask, deterministic=True)

    order = jnp.array([2, 0, 1])
    want, got = hidden(ids, mask)[order], hidden(ids[order], mask[order])
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


def test_packed_texts_equal_single_texts():
    model, params, ids, _ = small(conv_kernel_size=5)
    packed = jnp.concatenate([ids[0, :5], ids[1, :4], jnp.zeros(3, jnp.int32)])[None]
    segments = jnp.array([[1] * 5 + [2] * 4 + [0] * 3])
    got = run(model, params, packed, segments > 0, segments)[0]
    one = run(model, params, ids[:1, :5], jnp.ones((1, 5), bool))[0]
    two = run(model, params, ids[1:2, :4], jnp.ones((1, 4), bool))[0]
    np.testing.assert_allclose(got[:5], one, rtol=0, atol=ATOL)
    np.testing.assert_allclose(got[5:9], two, rtol=0, atol=ATOL)


@pytest.mark.parametrize("terms", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("length", [1, 7, 65])
def test_skew_equals_gather_forward_and_backward(length, terms):
    H, B, K, P = 2, 3, 4, 64
    keys = jax.random.split(jax.random.key(length), 6)
    shapes = [(H, B, length, K)] * 4 + [(H, P, K)] * 2
    q, k, v, cotangent, pos_q, pos_k = (
        jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)
    )
    pos_q, pos_k = (
        p if on else None for p, on in zip((pos_q, pos_k), terms, strict=True)
    )
    ends = jnp.array([length, length // 2 + 1, 0])[:, None]
    mask = jnp.arange(length)[None, :] < ends
    slots = attention.slot_of_distance(length, buckets=32, max_distance=64)

    def attend(form):
        def f(*inputs):
            return attention.disentangled_attention(
                *inputs, mask, slot_of_distance=slots, scale=0.4, form=form
            )

        def both(*inputs):
            out, pull = jax.vjp(f, *inputs)
            return out, pull(cotangent)

        return jax.jit(both)(q, k, v, pos_q, pos_k)

    jax.tree.map(
        lambda got, want: np.testing.assert_allclose(got, want, rtol=0, atol=5e-6),
        attend("skew"),
        attend("gather"),
    )


@pytest.mark.parametrize("block", [1, 3, 8, 16])
def test_skew_does_not_depend_on_the_block(block):
    keys = jax.random.split(jax.random.key(0), 4)
    q, k = (jax.random.normal(key, (2, 1, 8, 4)) for key in keys[:2])
    pos_q, pos_k = (jax.random.normal(key, (2, 16, 4)) for key in keys[2:])
    slots = attention.slot_of_distance(8, buckets=8, max_distance=16)
    bias = attention.skew_bias(q, k, pos_q, pos_k, slot_of_distance=slots, block=block)
    want = attention.gather_bias(q, k, pos_q, pos_k, slot_of_distance=slots)
    np.testing.assert_allclose(bias, want, rtol=0, atol=1e-5)


def test_the_only_gather_with_a_batch_axis_is_the_word_lookup():
    model, params, ids, mask = small(conv_kernel_size=3, type_vocab_size=2)

    def loss(p):
        return model.apply({"params": p}, ids, mask, deterministic=True).sum()

    text = jax.jit(jax.grad(loss)).lower(params).as_text()
    batched = f"tensor<{ids.shape[0]}x"
    gathers = [
        line
        for line in text.splitlines()
        if '"stablehlo.gather"' in line and f"-> {batched}" in line
    ]
    assert len(gathers) == 1
    assert text.count('"stablehlo.scatter"') == 1


def test_a_row_of_padding_gives_no_nan_in_values_or_gradients():
    model, params, ids, mask = small(conv_kernel_size=3, num_hidden_layers=1)

    def loss(p):
        hidden = model.apply({"params": p}, ids, mask, deterministic=True)
        return hidden.sum(), hidden

    grads, hidden = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert bool(jnp.isfinite(hidden).all())
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(grads))


def test_bfloat16_computes_and_float32_comes_out():
    encoder, _, ids, mask = small(num_hidden_layers=1)
    config = EvaluatorConfig(encoder.config)
    full, half = Evaluator(config), Evaluator(config, dtype=jnp.bfloat16)
    params = fresh(full, ids, mask)
    want = run(full, params, ids, mask).logits
    got = run(half, params, ids, mask).logits
    assert got.shape == (3, 10, 3)
    assert got.dtype == jnp.float32
    # bfloat16 keeps 8 bits: a sum of 16 products of order one is 0.02 off.
    np.testing.assert_allclose(got, want, rtol=0, atol=0.1)
    bare = Deberta(encoder.config, dtype=jnp.bfloat16)
    hidden = jax.eval_shape(
        lambda p: bare.apply({"params": p}, ids, mask, deterministic=True),
        params["encoder"],
    )
    assert hidden.dtype == jnp.bfloat16


def test_dropout_follows_its_key_and_needs_one():
    encoder, _, ids, mask = small(num_hidden_layers=1)
    model = Evaluator(EvaluatorConfig(encoder.config))
    params = fresh(model, ids, mask)

    @jax.jit
    def logits(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return model.apply(
            {"params": params}, ids, mask, deterministic=False, rngs=rngs
        ).logits

    np.testing.assert_array_equal(logits(0), logits(0))
    assert float(jnp.abs(logits(0) - logits(1)).max()) > 1e-3
    with pytest.raises(flax.errors.InvalidRngError, match="dropout"):
        model.apply({"params": params}, ids, mask, deterministic=False)


def test_dropout_keeps_the_mean_and_the_rate():
    x = attention.dropout(jnp.ones((200, 100)), 0.25, jax.random.key(0))
    # 20000 draws: the standard error of the share is 0.003.
    assert abs(float((x == 0).mean()) - 0.25) < 0.015
    assert abs(float(x.mean()) - 1.0) < 0.02


def test_heads_pool_only_tokens():
    hidden = jnp.array([[[1.0], [3.0], [9.0]], [[5.0], [5.0], [5.0]]])
    mask = jnp.array([[True, True, False], [False, False, False]])
    got = {pool: heads.pooled(hidden, mask, pool) for pool in ("mean", "max", "first")}
    np.testing.assert_array_equal(got["mean"], [[2.0], [0.0]])
    np.testing.assert_array_equal(got["max"], [[3.0], [0.0]])
    np.testing.assert_array_equal(got["first"], [[1.0], [5.0]])


def test_a_linear_head_has_one_projection():
    head = SharedHeadModule(SharedHead(num_values=4, hidden=0), num_classes=1)
    hidden, mask = jnp.ones((2, 3, 5)), jnp.ones((2, 3), bool)
    params = fresh(head, hidden, mask)
    assert jax.tree.map(jnp.shape, params) == {
        "values": {"kernel": (5, 4), "bias": (4,)}
    }


def test_links_agree_with_the_definition():
    logits = jnp.log(jnp.array([[[1.0, 1.0, 2.0]], [[6.0, 1.0, 1.0]]]))
    np.testing.assert_allclose(heads.score(logits, "ternary"), [[0.25], [-0.625]])
    np.testing.assert_allclose(heads.probs(logits, "ternary").sum(-1), 1.0, rtol=1e-6)
    one = jnp.array([[0.5], [-20.0]])
    np.testing.assert_allclose(heads.score(one, "tanh"), np.tanh([0.5, -20.0]))
    assert bool(jnp.isnan(heads.probs(one, "tanh")).all())
    assert heads.probs(one, "tanh").shape == (2, 3)
    assert heads.score(logits.astype(jnp.bfloat16), "ternary").dtype == jnp.float32


def test_bad_inputs_are_refused_while_tracing():
    model, params, ids, mask = small()
    with pytest.raises(ValueError, match=r"mask has shape \(3, 8\), so T=8"):
        run(model, params, ids, mask[:, :8])
    fields = {"position_biased_input": True, "max_position_embeddings": 8}
    absolute = Deberta(dataclasses.replace(model.config, **fields))
    with pytest.raises(ValueError, match="T=9, but there are 8 absolute positions"):
        absolute.init(jax.random.key(0), ids, mask, deterministic=True)
    with pytest.raises(KeyError, match="link 'logit' is unknown; known are: ternary"):
        heads.score(jnp.zeros((1, 3)), "logit")
    with pytest.raises(ValueError, match=r"expected \[..., V, 3\]"):
        heads.probs(jnp.zeros((1, 2)), "ternary")
    with pytest.raises(KeyError, match="pool 'last' is unknown"):
        heads.pooled(jnp.zeros((1, 2, 3)), jnp.ones((1, 2), bool), "last")
    x = jnp.zeros((1, 1, 3, 2))
    with pytest.raises(ValueError, match="has 3 entries, but q has T=3, which needs 5"):
        attention.skew_bias(x, x, None, None, slot_of_distance=np.arange(3))
    with pytest.raises(KeyError, match="form 'roll' is unknown; known are: skew"):
        attention.disentangled_attention(
            x,
            x,
            x,
            None,
            None,
            jnp.ones((1, 3), bool),
            slot_of_distance=None,
            scale=1.0,
            form="roll",
        )
