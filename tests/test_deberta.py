# SPDX-License-Identifier: Apache-2.0
"""The encoder against transformers' numbers (goldens/make_deberta.py) and facts."""

import dataclasses
import json
import pathlib
import re

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
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
    apply_evaluator,
    attention,
    heads,
)
from fulcra_jax.objectives import ternary_cross_entropy
from fulcra_jax.training.step import init_state, make_train_step

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
    states = jnp.asarray(arrays["hidden"][-1])
    logits = run(head, params["head"], states, mask).logits
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


@pytest.mark.parametrize("packed", [False, True])
def test_a_compiled_training_step_gathers_and_scatters_words_only(packed):
    encoder, _, ids, mask = small(conv_kernel_size=3, type_vocab_size=2)
    model = Evaluator(EvaluatorConfig(encoder.config))
    batch = {"input_ids": ids, "mask": mask, "token_type_ids": jnp.zeros_like(ids)}
    shape = (3, 10)
    if packed:
        segments = jnp.where(mask, 1 + jnp.arange(9)[None, :] // 5, 0)
        batch |= {"segment_ids": segments, "first": jnp.zeros((3, 2), jnp.int32)}
        shape = (3, 2, 10)
    batch |= {"labels": jnp.zeros(shape), "where": jnp.ones(shape, bool)}
    optimizer = optax.adamw(1e-3)

    def cells(params, batch, key):
        logits = apply_evaluator(model, params, batch, key=key).logits
        labels, where = batch["labels"], batch["where"]
        return ternary_cross_entropy(logits, labels, where=where), where

    step = make_train_step(cells, optimizer, seed=0)
    params = fresh(Evaluator(model.config), ids, mask)
    compiled = jax.jit(step).lower(init_state(params, optimizer), batch).compile()
    lines = compiled.as_text().splitlines()
    taken = []
    for line in lines:
        if found := re.search(r"= \w+\[([\d,]+)\]\S* gather\(", line):
            axes = map(int, found[1].split(","))
            taken.append(sorted(axis for axis in axes if axis > 1))
    # Words: 3 x 9 tokens, width 16. Rows of a position table: a window of 9 + 9 places,
    # 2 heads, head width 8; no axis of texts.
    assert taken.count([16, 27]) == 1
    assert [axes for axes in taken if axes not in ([16, 27], [2, 8, 18])] == []
    assert sum(" scatter(" in line for line in lines) <= 1


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
