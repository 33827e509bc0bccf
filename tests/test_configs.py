# SPDX-License-Identifier: Apache-2.0
"""Configurations: what is read, what is refused and in which words."""

import dataclasses
import json
import re

import pytest

from fulcra_jax.configs import DebertaConfig, EvaluatorConfig, SharedHead

# As published for microsoft/deberta-v3-base.
V3_BASE = {
    "model_type": "deberta-v2",
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "layer_norm_eps": 1e-7,
    "max_relative_positions": -1,
    "position_biased_input": False,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "type_vocab_size": 0,
    "vocab_size": 128100,
}


def test_the_published_v3_base_is_our_default():
    assert DebertaConfig.from_hf(V3_BASE) == DebertaConfig()


def test_what_a_file_leaves_out_is_what_transformers_would_take():
    config = DebertaConfig.from_hf({"model_type": "deberta-v2"})
    assert config.hidden_size == 1536
    assert config.num_hidden_layers == 24
    assert config.position_biased_input
    assert not config.relative_attention
    assert not config.share_att_key
    assert config.pos_att_type == ()
    assert config.norm_rel_ebd == "none"
    assert config.span == 512


def test_derived_sizes():
    config = DebertaConfig()
    assert (config.head_size, config.embedding_width) == (64, 768)
    assert (config.max_distance, config.span) == (512, 256)
    linear = dataclasses.replace(
        config, position_buckets=-1, max_relative_positions=128
    )
    assert (linear.max_distance, linear.span) == (128, 128)
    assert DebertaConfig(embedding_size=0) == DebertaConfig(embedding_size=None)


def test_from_hf_reads_a_file_and_a_directory(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(V3_BASE))
    assert DebertaConfig.from_hf(tmp_path) == DebertaConfig()
    assert DebertaConfig.from_hf(str(tmp_path / "config.json")) == DebertaConfig()


CONFIGS = [
    DebertaConfig(),
    DebertaConfig(embedding_size=128, attention_head_size=64, conv_kernel_size=3),
    DebertaConfig(pos_att_type=(), norm_rel_ebd="none", pad_token_id=None),
]


@pytest.mark.parametrize("config", CONFIGS, ids=["v3", "conv", "plain"])
def test_round_trip_through_json(config):
    assert DebertaConfig.from_hf(json.loads(json.dumps(config.to_hf()))) == config
    for head in (SharedHead(), SharedHead(3, "mean", hidden=0, dropout=0.0)):
        for link, classes in (("ternary", 3), ("tanh", 1)):
            whole = EvaluatorConfig(config, head, link)
            entries = json.loads(json.dumps(whole.to_json()))
            assert EvaluatorConfig.from_json(entries) == whole
            assert whole.num_classes == classes


def test_keys_that_leave_the_numbers_alone_are_accepted():
    harmless = {
        "architectures": ["DebertaV2ForMaskedLM"],
        "dtype": "float16",
        "torch_dtype": "float16",
        "transformers_version": "5.12.1",
        "id2label": {"0": "no"},
        "label2id": {"no": 0},
        "legacy": True,
        "pooling": {"dropout": 0, "hidden_act": "gelu"},
        "pooler_hidden_size": 768,
        "pruned_heads": {},
        "some_day": None,
    }
    assert DebertaConfig.from_hf(V3_BASE | harmless) == DebertaConfig()


BAD_FIELDS = [
    ({"vocab_size": 0}, "vocab_size is 0; it should be a positive integer"),
    ({"num_hidden_layers": 2.0}, "num_hidden_layers is 2.0; it should be a positive"),
    ({"hidden_size": True}, "hidden_size is True; it should be a positive integer"),
    ({"type_vocab_size": -1}, "type_vocab_size is -1; it should be an integer >= 0"),
    ({"position_buckets": -2}, "position_buckets is -2; it should be an integer >= -1"),
    ({"position_buckets": 1}, "position_buckets is 1; it should be below one, or at"),
    ({"position_buckets": 1022}, "below twice the largest distance (511)"),
    ({"embedding_size": -4}, "embedding_size is -4; it should be positive or None"),
    ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob is 1.0; it should be a number"),
    ({"pooler_dropout": "no"}, "pooler_dropout is 'no'; it should be a number in"),
    ({"layer_norm_eps": 0}, "layer_norm_eps is 0; it should be a positive number"),
    ({"share_att_key": 1}, "share_att_key is 1; it should be True or False"),
    (
        {"hidden_act": "prelu"},
        "hidden_act is 'prelu'; it should be one of gelu, gelu_1",
    ),
    ({"num_attention_heads": 7}, "num_attention_heads is 7; it should be a divisor of"),
    (
        {"attention_head_size": 32},
        "attention_head_size is 32; it should be hidden_size",
    ),
    (
        {"pos_att_type": "p2c|c2c"},
        "pos_att_type is ('p2c', 'c2c'); it should be made of",
    ),
    (
        {"norm_rel_ebd": "batch"},
        "norm_rel_ebd is 'batch'; it should be one of none, lay",
    ),
    ({"conv_kernel_size": 4}, "conv_kernel_size is 4; it should be odd, or zero"),
    ({"conv_groups": 5}, "conv_groups is 5; it should be a divisor of hidden_size"),
    (
        {"pad_token_id": 128100},
        "pad_token_id is 128100; it should be None or in [0, 12",
    ),
]


@pytest.mark.parametrize(("fields", "words"), BAD_FIELDS)
def test_a_bad_field_is_named_with_what_it_should_be(fields, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        DebertaConfig(**fields)


BAD_FILES = [
    ({"model_type": "roberta"}, "model_type is 'roberta'; only 'deberta' (v1), 'deb"),
    ({"model_type": None}, "model_type is None; only 'deberta' (v1), 'deberta-v2'"),
    ({"rotary": True}, "may change the numbers: rotary"),
    ({"talking_head": "all"}, "talking_head is 'all'; only False is supported"),
    ({"pooler_hidden_size": 64}, "pooler_hidden_size is 64; only 768 is supported"),
    ({"pruned_heads": {"0": [1]}}, "pruned_heads is {'0': [1]}; only {} is supported"),
]


@pytest.mark.parametrize(("entries", "words"), BAD_FILES)
def test_a_file_that_cannot_be_read_right_is_refused(entries, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        DebertaConfig.from_hf(V3_BASE | entries)


def test_a_bad_path_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*config\.json"):
        DebertaConfig.from_hf(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON"):
        DebertaConfig.from_hf(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"config\.json holds no JSON object"):
        DebertaConfig.from_hf(tmp_path)


BAD_HEADS = [
    ({"num_values": 0}, "num_values is 0; it should be a positive integer"),
    ({"pool": "last"}, "pool is 'last'; it should be one of first, mean, max"),
    ({"hidden": -1}, "hidden is -1; it should be None (the encoder's width), 0"),
    ({"dropout": 1}, "dropout is 1; it should be a number in [0, 1)"),
]


@pytest.mark.parametrize(("fields", "words"), BAD_HEADS)
def test_a_bad_head_is_refused(fields, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        SharedHead(**fields)


def test_a_bad_evaluator_is_refused():
    encoder = DebertaConfig()
    with pytest.raises(ValueError, match="encoder is 3; it should be a DebertaConfig"):
        EvaluatorConfig(3)
    with pytest.raises(ValueError, match="head is 'x'; it should be one of SharedHead"):
        EvaluatorConfig(encoder, "x")
    with pytest.raises(
        ValueError, match="link is 'logit'; it should be one of ternary"
    ):
        EvaluatorConfig(encoder, link="logit")


def test_bad_evaluator_entries_are_named():
    entries = EvaluatorConfig(DebertaConfig()).to_json()
    head = entries["head"]
    with pytest.raises(KeyError, match="'NoHead' is unknown; known are: SharedHead"):
        EvaluatorConfig.from_json(entries | {"head": head | {"type": "NoHead"}})
    with pytest.raises(ValueError, match="missing: none; unknown: depth"):
        EvaluatorConfig.from_json(entries | {"head": head | {"depth": 2}})
    with pytest.raises(ValueError, match="missing: link; unknown: none"):
        EvaluatorConfig.from_json({k: v for k, v in entries.items() if k != "link"})
