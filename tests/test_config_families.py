# SPDX-License-Identifier: Apache-2.0
"""Configurations of DeBERTa v1 and BERT beside v2: read, written, refused."""

import json
import re

import pytest
from test_configs import V3_BASE

from fulcra_jax.configs import DebertaConfig, EvaluatorConfig, SharedHead, read_json

V1_BASE = {  # as published for microsoft/deberta-base
    "model_type": "deberta",
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "relative_attention": True,
    "pos_att_type": "c2p|p2c",
    "layer_norm_eps": 1e-7,
    "padding_idx": 0,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "type_vocab_size": 0,
    "vocab_size": 50265,
    "position_biased_input": False,
}
BERT_MULTILINGUAL = {  # as published for bert-base-multilingual-cased
    "architectures": ["BertForMaskedLM"],
    "attention_probs_dropout_prob": 0.1,
    "directionality": "bidi",
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 0,
    "pooler_fc_size": 768,
    "pooler_num_attention_heads": 12,
    "pooler_num_fc_layers": 3,
    "pooler_size_per_head": 128,
    "pooler_type": "first_token_transform",
    "type_vocab_size": 2,
    "vocab_size": 119547,
}


def test_published_files_of_v1_and_bert_are_read():
    v1 = DebertaConfig.from_hf(V1_BASE)
    assert (v1.span, v1.terms, v1.pos_att_type) == (512, 3, ("c2p", "p2c"))
    assert not v1.share_att_key
    bert = DebertaConfig.from_hf(BERT_MULTILINGUAL)
    assert (bert.vocab_size, bert.layer_norm_eps) == (119547, 1e-12)
    assert (bert.position_biased_input, bert.relative_attention) == (True, False)
    assert (bert.pooler_hidden_act, bert.terms) == ("tanh", 1)


def test_defaults_are_those_of_the_family():
    v1 = DebertaConfig.from_hf({"model_type": "deberta"})
    assert (v1.vocab_size, v1.hidden_size, v1.layer_norm_eps) == (50265, 768, 1e-7)
    assert (v1.type_vocab_size, v1.relative_attention) == (0, False)
    assert v1.position_biased_input
    bert = DebertaConfig.from_hf({"model_type": "bert"})
    assert (bert.vocab_size, bert.hidden_size, bert.layer_norm_eps) == (
        30522,
        768,
        1e-12,
    )
    assert bert.type_vocab_size == 2


@pytest.mark.parametrize("entries", [V3_BASE, V1_BASE, BERT_MULTILINGUAL])
def test_a_family_is_written_with_its_own_keys_and_read_back(entries):
    config = DebertaConfig.from_hf(entries)
    written = config.to_hf()
    assert DebertaConfig.from_hf(json.loads(json.dumps(written))) == config
    own = {"position_buckets", "share_att_key", "norm_rel_ebd", "conv_kernel_size"}
    assert (own <= written.keys()) == (entries is V3_BASE)
    assert own.isdisjoint(written) == (entries is not V3_BASE)
    assert ("pos_att_type" in written) == (entries is not BERT_MULTILINGUAL)


def test_the_scale_counts_what_the_original_counts():
    """v1 the length of its list, v2 what it knows of it, BERT nothing."""
    for kinds, v1, v2 in (
        ([], 1, 1),
        (["c2p"], 2, 2),
        ("p2c|c2p", 3, 3),
        (["p2c", "p2p"], 3, 2),
        (["p2c", "p2c"], 3, 2),
        (None, 1, 1),
    ):
        of_v1 = DebertaConfig.from_hf(V1_BASE | {"pos_att_type": kinds})
        of_v2 = DebertaConfig.from_hf(V3_BASE | {"pos_att_type": kinds})
        assert (of_v1.terms, of_v2.terms) == (v1, v2), kinds
    assert DebertaConfig.from_hf(V3_BASE | {"pos_att_type": "|p2c|"}).terms == 2
    # transformers would count the empty names of v1.
    with pytest.raises(ValueError, match=r"pos_att_type is \('', 'p2c'\); it should"):
        DebertaConfig.from_hf(V1_BASE | {"pos_att_type": "|p2c"})


def test_what_a_family_lacks_may_be_said_to_be_off():
    off = {
        "position_buckets": -1,
        "share_att_key": False,
        "norm_rel_ebd": "None",
        "conv_kernel_size": 0,
        "talking_head": False,
        "attention_head_size": None,
    }
    plain = {
        "relative_attention": False,
        "position_biased_input": True,
        "pos_att_type": [],
        "embedding_size": None,
        "position_embedding_type": "absolute",
        "is_decoder": False,
        "add_cross_attention": False,
    }
    assert DebertaConfig.from_hf(V1_BASE | off) == DebertaConfig.from_hf(V1_BASE)
    bert = DebertaConfig.from_hf(BERT_MULTILINGUAL)
    assert DebertaConfig.from_hf(BERT_MULTILINGUAL | off | plain) == bert


BAD_FAMILY = [
    (V1_BASE, {"position_buckets": 256}, "position_buckets is 256; it should be -1"),
    (V1_BASE, {"share_att_key": True}, "share_att_key is True; it should be False for"),
    (V1_BASE, {"norm_rel_ebd": "layer_norm"}, "it should be 'none' for model_type 'de"),
    (V1_BASE, {"conv_kernel_size": 3}, "conv_kernel_size is 3; it should be 0 for"),
    (V1_BASE, {"talking_head": True}, "talking_head is True; only False is supported"),
    (V1_BASE, {"pooler_hidden_size": 64}, "pooler_hidden_size is 64; only 768 is"),
    (BERT_MULTILINGUAL, {"is_decoder": True}, "is_decoder is True; only False is"),
    (BERT_MULTILINGUAL, {"add_cross_attention": True}, "add_cross_attention is True;"),
    (
        BERT_MULTILINGUAL,
        {"position_embedding_type": "relative_key"},
        "position_embedding_type is 'relative_key'; only 'absolute' is supported",
    ),
    (BERT_MULTILINGUAL, {"relative_attention": True}, "it should be False for model_t"),
    (BERT_MULTILINGUAL, {"position_biased_input": False}, "it should be True for mode"),
    (BERT_MULTILINGUAL, {"pos_att_type": "c2p"}, "pos_att_type is ('c2p',); it should"),
    (BERT_MULTILINGUAL, {"embedding_size": 128}, "embedding_size is 128; it should be"),
    (BERT_MULTILINGUAL, {"pooler_hidden_act": "gelu"}, "it should be 'tanh' for model"),
    (BERT_MULTILINGUAL, {"type_vocab_size": 0}, "type_vocab_size is 0; it should be p"),
    (BERT_MULTILINGUAL, {"pooler_type": "mean"}, "pooler_type is 'mean'; only 'first_"),
    (BERT_MULTILINGUAL, {"pruned_heads": {"1": [0]}}, "only {} is supported"),
    (BERT_MULTILINGUAL, {"quantization_config": {"bits": 4}}, "only None is supported"),
]


@pytest.mark.parametrize(("entries", "change", "words"), BAD_FAMILY)
def test_what_a_family_cannot_honour_is_refused(entries, change, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        DebertaConfig.from_hf(entries | change)


def test_the_way_to_a_configuration_of_a_family_is_named():
    words = (
        "should be -1 for model_type 'bert', which DebertaConfig.from_hf({'model_type'"
    )
    with pytest.raises(ValueError, match=re.escape(words)):
        DebertaConfig(model_type="bert")


@pytest.mark.parametrize("kind", ["BertConfig", "DebertaConfig", "DebertaV2Config"])
def test_configurations_of_transformers_are_read(kind, tmp_path):
    theirs = getattr(pytest.importorskip("transformers"), kind)(vocab_size=99)
    theirs.save_pretrained(tmp_path)
    config = DebertaConfig.from_hf(theirs)
    assert config.vocab_size == 99
    assert config == DebertaConfig.from_hf(tmp_path)


def test_what_is_no_configuration_is_shown_in_part():
    with pytest.raises(
        TypeError, match=r"path is \(1, .*\.\.\.; it should be text or a"
    ):
        DebertaConfig.from_hf((1,) * 999)


def test_a_decoder_is_refused_where_it_is_read_only():
    """transformers' DeBERTa does not look at it."""
    assert DebertaConfig.from_hf(V3_BASE | {"is_decoder": True}) == DebertaConfig()


SIZES = [
    "vocab_size",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "conv_groups",
    "type_vocab_size",
    "conv_kernel_size",
    "max_relative_positions",
    "position_buckets",
    "embedding_size",
    "attention_head_size",
]


@pytest.mark.parametrize("name", SIZES)
def test_a_size_beyond_every_model_is_refused(name):
    with pytest.raises(ValueError, match=rf"{name} is 16777217; .* at most 16777216"):
        DebertaConfig.from_hf(V3_BASE | {name: 2**24 + 1})


@pytest.mark.parametrize("layers", [1001, 10**9])
def test_layers_beyond_every_model_are_refused(layers):
    with pytest.raises(ValueError, match=r"num_hidden_layers is 1\d+; .* at most 1000"):
        DebertaConfig.from_hf(V3_BASE | {"num_hidden_layers": layers})
    assert DebertaConfig.from_hf(V3_BASE | {"num_hidden_layers": 1000})


def test_a_head_beyond_every_model_is_refused():
    with pytest.raises(ValueError, match=r"num_values is 1000000000; .* at most 10000"):
        SharedHead(num_values=10**9)
    with pytest.raises(ValueError, match=r"hidden is 1000000000; .* up to 16777216"):
        SharedHead(hidden=10**9)


@pytest.mark.parametrize("odd", [None, [], 3, "/etc/passwd"])
def test_an_evaluator_entry_that_is_no_object_is_refused(odd):
    """A text is never opened as a file."""
    entries = EvaluatorConfig(DebertaConfig()).to_json()
    for name in ("encoder", "head"):
        with pytest.raises(ValueError, match=rf"{name} is .*; it should be an object"):
            EvaluatorConfig.from_json(entries | {name: odd})
    with pytest.raises(ValueError, match=r"an evaluator is .*; it should be an object"):
        EvaluatorConfig.from_json(odd)


@pytest.mark.parametrize("odd", [None, [], {}, 3])
def test_a_head_type_that_is_no_text_is_refused(odd):
    entries = EvaluatorConfig(DebertaConfig()).to_json()
    with pytest.raises(ValueError, match=r"head type is .*; it should be one of"):
        EvaluatorConfig.from_json(entries | {"head": {"type": odd}})


def test_messages_are_short():
    for change in ({"model_type": "x" * 9999}, {"\n" + "x" * 9999: 1}):
        with pytest.raises(ValueError, match="configs") as error:
            DebertaConfig.from_hf(V3_BASE | change)
        assert len(str(error.value)) < 300
        assert "\n" not in str(error.value)


def test_deep_json_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="is JSON nested too deeply"):
        read_json(tmp_path)


@pytest.mark.parametrize("path", [None, 3, b"x"])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(TypeError, match=r"configs: the path is .*; it should be text"):
        DebertaConfig.from_hf(path)
