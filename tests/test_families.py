# SPDX-License-Identifier: Apache-2.0
"""DeBERTa v1 and BERT as the same encoder: leaves, padding, packing, bad ids."""

import dataclasses
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_deberta import ATOL, fresh, run

from experiments import prepare
from experiments.recipes import RECIPES
from fulcra_jax.configs import Activation, DebertaConfig
from fulcra_jax.data import source
from fulcra_jax.inference import Predictor
from fulcra_jax.models import Deberta, Evaluator, embeddings
from fulcra_jax.models.activations import ACTIVATIONS

SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 9,
}
RELATIVE = {"relative_attention": True, "pos_att_type": "c2p|p2c"}
FAMILIES = {
    "bert": {"model_type": "bert"},
    "v1": {"model_type": "deberta", **RELATIVE},
    "v2": {"model_type": "deberta-v2", **RELATIVE, "position_buckets": 6},
}
LENGTHS = jnp.array([9, 5, 0])


def small(family, **fields):
    """An encoder with absolute positions, and three texts: full, padded, padding."""
    config = DebertaConfig.from_hf(SIZES | FAMILIES[family] | fields)
    ids = jax.random.randint(jax.random.key(1), (3, 9), 1, config.vocab_size)
    mask = jnp.arange(9)[None, :] < LENGTHS[:, None]
    model = Deberta(config)
    return model, fresh(model, ids, mask), ids, mask


def test_every_activation_of_the_configuration_is_there():
    assert set(get_args(Activation)) == set(ACTIVATIONS)


def test_a_leaf_that_the_original_lacks_does_not_exist():
    _, params, _, _ = small("v1")
    attention = params["layer_0"]["attention"]
    assert set(attention) == {
        "query",
        "key",
        "value",
        "output",
        "pos_key",
        "pos_query",
    }
    without_bias = {name for name, leaf in attention.items() if "bias" not in leaf}
    assert without_bias == {"key", "pos_key"}
    assert params["relative"]["embedding"].shape == (18, 16)
    _, params, _, _ = small("bert")
    assert set(params) == {"embeddings", "layer_0", "layer_1"}
    assert set(params["layer_0"]["attention"]) == {"query", "key", "value", "output"}


@pytest.mark.parametrize("family", list(FAMILIES))
def test_packed_texts_with_absolute_positions_equal_single_texts(family):
    """A row may be longer than the table; so may the padding at its end."""
    model, params, ids, _ = small(family)
    packed = jnp.concatenate([ids[0, :8], ids[1, :4], jnp.zeros(12, jnp.int32)])[None]
    segments = jnp.array([[1] * 8 + [2] * 4 + [0] * 12])
    types = jnp.zeros_like(packed).at[0, 5:8].set(1)
    kwargs = {"token_type_ids": types} if family == "bert" else {}
    got = run(model, params, packed, segments > 0, segments, **kwargs)[0]
    single = [(0, 8), (8, 12)]
    for start, end in single:
        text = packed[:, start:end]
        if kwargs:
            kwargs = {"token_type_ids": types[:, start:end]}
        want = run(model, params, text, jnp.ones_like(text), **kwargs)[0]
        np.testing.assert_allclose(got[start:end], want, rtol=0, atol=ATOL)
    assert bool(jnp.isfinite(got).all())


def test_positions_start_anew_wherever_the_segment_changes():
    table = jnp.arange(4.0)[:, None]
    segments = jnp.array([[3, 3, 3, 3, 1, 3, 3, 0], [5, 6, 6, 7, 7, 7, 7, 7]])
    mask = segments > 0
    mask = mask.at[1, 7].set(False)
    got = embeddings.positions(table, mask, segments)[..., 0]
    want = [[0, 1, 2, 3, 0, 0, 1, 0], [0, 0, 1, 0, 1, 2, 3, 0]]
    np.testing.assert_array_equal(got, want)


def test_a_segment_beyond_the_positions_is_refused_or_nan():
    model, params, ids, _ = small("bert")
    packed = jnp.concatenate([ids[0], ids[1, :3]])[None]
    segments = jnp.array([[1] * 10 + [2] * 2])
    words = "a segment of 10 tokens, but there are 9 absolute positions"
    with pytest.raises(ValueError, match=words):
        model.apply(
            {"params": params}, packed, segments > 0, segments, deterministic=True
        )
    assert bool(jnp.isnan(run(model, params, packed, segments > 0, segments)).any())


def test_what_stands_at_padding_changes_no_token_of_a_bert():
    model, params, ids, mask = small("bert")

    @jax.jit
    def hidden(ids):
        return model.apply({"params": params}, ids, mask, deterministic=True)

    spoiled = jnp.where(mask, ids, 7)
    got, want = (np.asarray(hidden(x))[np.asarray(mask)] for x in (spoiled, ids))
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("family", ["bert", "v1"])
def test_more_padding_on_the_right_changes_no_token(family):
    model, params, ids, mask = small(family, max_position_embeddings=40)
    wide = [jnp.pad(x, ((0, 0), (0, 21))) for x in (ids, mask)]
    want = np.asarray(run(model, params, ids, mask))
    got = np.asarray(run(model, params, *wide))[:, :9]
    real = np.asarray(mask)
    np.testing.assert_allclose(got[real], want[real], rtol=0, atol=ATOL)


@pytest.mark.parametrize("family", ["bert", "v1"])
def test_a_row_of_padding_gives_no_nan_in_values_or_gradients(family):
    model, params, ids, mask = small(family)

    def loss(p):
        hidden = model.apply({"params": p}, ids, mask, deterministic=True)
        return hidden.sum(), hidden

    grads, hidden = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert bool(jnp.isfinite(hidden).all())
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(grads))


def test_packing_gathers_nothing_but_words():
    model, params, ids, mask = small("bert")
    segments = jnp.where(mask, 1, 0)

    def loss(p):
        return model.apply({"params": p}, ids, mask, segments, deterministic=True).sum()

    text = jax.jit(jax.grad(loss)).lower(params).as_text()
    assert text.count('"stablehlo.gather"') == 1
    assert text.count('"stablehlo.scatter"') == 1


BAD_IDS = [
    ({"input_ids": 50}, r"input_ids holds 50; it should be in \[0, 50\)"),
    ({"input_ids": -1}, r"input_ids holds -1; it should be in \[0, 50\)"),
    ({"token_type_ids": 2}, r"token_type_ids holds 2; it should be in \[0, 2\)"),
    ({"token_type_ids": -100}, r"token_type_ids holds -100; it should be"),
]


@pytest.mark.parametrize(("bad", "words"), BAD_IDS)
def test_an_id_outside_its_table_is_refused_or_nan(bad, words):
    model, params, ids, mask = small("bert")
    arrays = {"input_ids": ids, "token_type_ids": jnp.zeros_like(ids)}
    for name, number in bad.items():
        arrays[name] = arrays[name].at[1, 2].set(number)
    ids, types = arrays.values()

    def hidden_of(ids, types):
        return model.apply(
            {"params": params}, ids, mask, token_type_ids=types, deterministic=True
        )

    with pytest.raises(ValueError, match=f"deberta.Deberta: {words}"):
        hidden_of(ids, types)
    hidden = jax.jit(hidden_of)(ids, types)
    assert bool(jnp.isnan(hidden[1, 2]).all())
    assert bool(jnp.isfinite(hidden[0]).all())


def test_token_types_of_a_model_without_them_are_not_read():
    model, params, ids, mask = small("v1")
    got = model.apply(
        {"params": params},
        ids,
        mask,
        token_type_ids=ids,
        deterministic=True,
    )
    assert bool(jnp.isfinite(got).all())


def test_the_scale_of_v1_counts_a_term_that_is_not_computed():
    model, params, ids, mask = small("v1", pos_att_type=["c2p"])
    counted = dataclasses.replace(model.config, pos_att_type=("c2p", "p2p"))
    same_tree = fresh(Deberta(counted), ids, mask)
    assert jax.tree.map(jnp.shape, same_tree) == jax.tree.map(jnp.shape, params)
    one, two = (run(Deberta(c), params, ids, mask) for c in (model.config, counted))
    assert float(abs(one - two).max()) > 1e-3


def test_an_encoder_that_does_not_fit_the_texts_is_refused():
    config = RECIPES["debug"][1]
    tokenizer = prepare.make_tokenizer(config, source.sample_rows(0, 40))
    for fields, message in (
        (
            {"type_vocab_size": 1},
            r"tells no two token types apart \(type_vocab_size is",
        ),
        (
            {"position_biased_input": True, "max_position_embeddings": 20},
            "the encoder has 20 positions",
        ),
    ):
        encoder = dataclasses.replace(config.evaluator.encoder, **fields)
        evaluator = dataclasses.replace(config.evaluator, encoder=encoder)
        with pytest.raises(ValueError, match=message):
            prepare.fit_to_data(
                dataclasses.replace(config, evaluator=evaluator), tokenizer
            )


def test_predictor_names_the_pair_with_an_id_that_has_no_row():
    config = RECIPES["debug"][1]
    tokenizer = prepare.make_tokenizer(config, source.sample_rows(0, 40))
    evaluator = prepare.fit_to_data(config, tokenizer).evaluator
    ids = jnp.ones((1, 8), jnp.int32)
    init = Evaluator(evaluator).init
    params = init(jax.random.key(0), ids, ids > 0, deterministic=True)["params"]
    predictor = Predictor(evaluator, params, tokenizer, max_length=32)
    encoded = tokenizer.encode(["a", "b"], ["c", "d"], max_length=32)
    encoded.ids[1][2] = size = evaluator.encoder.vocab_size
    message = rf"pair 1: input_ids holds {size}; it should be in \[0, {size}\)"
    with pytest.raises(ValueError, match=message):
        predictor.score_encoded(encoded)
