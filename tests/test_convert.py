# SPDX-License-Identifier: Apache-2.0
"""Checkpoint directories: round trips, foreign spellings, and what is refused."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors.numpy

from fulcra_jax import convert
from fulcra_jax.configs import DebertaConfig, EvaluatorConfig, SharedHead
from fulcra_jax.convert import tables

TINY = DebertaConfig(
    vocab_size=12,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=10,
    max_relative_positions=16,
    position_buckets=4,
)
FULL = dataclasses.replace(
    TINY,
    position_biased_input=True,
    max_position_embeddings=6,
    type_vocab_size=2,
    embedding_size=4,
    share_att_key=False,
    conv_kernel_size=3,
    conv_groups=2,
)
BERT = DebertaConfig.from_hf(
    {
        "model_type": "bert",
        "vocab_size": 12,
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 10,
        "max_position_embeddings": 6,
    }
)
V1 = DebertaConfig.from_hf(
    {
        **BERT.to_hf(),
        "model_type": "deberta",
        "relative_attention": True,
        "max_relative_positions": 16,
        "pos_att_type": "c2p|p2c",
        "position_biased_input": False,
    }
)
CONFIGS = {
    "encoder": TINY,
    "everything": FULL,
    "hf head": EvaluatorConfig(TINY),
    "tanh": EvaluatorConfig(FULL, link="tanh"),
    "mean": EvaluatorConfig(TINY, SharedHead(pool="mean")),
    "linear": EvaluatorConfig(TINY, SharedHead(num_values=3, hidden=0)),
    "plain": dataclasses.replace(TINY, relative_attention=False),
    "v1": V1,
    "v1, hf head": EvaluatorConfig(V1),
    "v1, narrow": dataclasses.replace(
        V1, embedding_size=4, pos_att_type=("p2c",), position_biased_input=True
    ),
    "v1, plain": dataclasses.replace(V1, relative_attention=False),
    "bert": BERT,
    "bert, hf head": EvaluatorConfig(BERT),
    "bert, mean": EvaluatorConfig(BERT, SharedHead(pool="mean")),
}


def random_params(config, seed=0):
    rng = np.random.default_rng(seed)
    tree = {}
    for row in tables.rows(config):
        branch = tree
        for name in row.path[:-1]:
            branch = branch.setdefault(name, {})
        branch[row.path[-1]] = rng.normal(size=row.shape).astype(np.float32)
    return tree


def flat(tree, path=()):
    for name, branch in tree.items():
        if isinstance(branch, dict):
            yield from flat(branch, (*path, name))
        else:
            yield (*path, name), branch


def assert_equal(got, want):
    got, want = dict(flat(got)), dict(flat(want))
    assert got.keys() == want.keys()
    for path, leaf in want.items():
        assert got[path].dtype == np.float32
        np.testing.assert_array_equal(got[path], leaf, err_msg="/".join(path))


def rewrite(folder, change):
    """Applies `change` to the dict of tensors in a checkpoint."""
    file = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(file)
    safetensors.numpy.save_file(change(tensors), file)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_round_trip(name, tmp_path):
    config, params = CONFIGS[name], random_params(CONFIGS[name])
    convert.save(tmp_path / "new" / "folder", config, params)
    read, tree = convert.load(tmp_path / "new" / "folder")
    assert read == config
    assert_equal(tree, params)


def test_every_leaf_has_one_row_and_every_name_is_used_once():
    for config in CONFIGS.values():
        rows = tables.rows(config)
        assert len({row.path for row in rows}) == len(rows)
        whole = [row.name for row in rows if row.part is None]
        parts = {}
        for row in rows:
            if row.part is not None:
                parts.setdefault(row.name, []).append(row)
        assert len(set(whole) | parts.keys()) == len(whole) + len(parts)
        for name, found in parts.items():
            count = found[0].part[1]
            assert [row.part[0] for row in found] == list(range(count)), name
            assert len({(row.part[1:], row.file_shape) for row in found}) == 1


ENCODERS = {
    "hf head": TINY,
    "mean": TINY,
    "encoder": TINY,
    "v1, hf head": V1,
    "bert, hf head": BERT,
}


@pytest.mark.parametrize("name", list(ENCODERS))
def test_load_encoder_leaves_the_head_out(name, tmp_path):
    config, params = CONFIGS[name], random_params(CONFIGS[name])
    convert.save(tmp_path, config, params)
    read, tree = convert.load_encoder(tmp_path)
    assert read == ENCODERS[name]
    assert_equal(tree, params.get("encoder", params))


def test_a_foreign_classifier_loads_as_an_encoder(tmp_path):
    config = EvaluatorConfig(TINY)
    params = random_params(config)
    convert.save(tmp_path, config, params)
    entries = json.loads((tmp_path / "config.json").read_text())
    del entries["fulcra"]
    (tmp_path / "config.json").write_text(json.dumps(entries))
    left = (
        r"model\.safetensors holds a trained head that is not read: classifier\.bias, "
        r"classifier\.weight, pooler\.dense\.bias, pooler\.dense\.weight; load_encoder "
    )
    with pytest.warns(UserWarning, match=left):
        read, tree = convert.load(tmp_path)
    assert read == TINY
    assert_equal(tree, params["encoder"])
    read, tree = convert.load_encoder(tmp_path)  # in silence
    assert read == TINY
    assert_equal(tree, params["encoder"])


OTHERS = {
    "deberta.": [
        "lm_predictions.lm_head.bias",
        "mask_predictions.dense.weight",
        "cls.predictions.bias",
        "deberta.embeddings.position_embeddings.weight",
    ],
    "bert.": [
        "cls.predictions.transform.LayerNorm.gamma",
        "cls.seq_relationship.weight",
        "bert.pooler.dense.weight",
        "bert.embeddings.position_ids",
    ],
}


@pytest.mark.parametrize("config", [TINY, V1, BERT], ids=["v2", "v1", "bert"])
def test_old_spellings_and_other_heads_are_understood(config, tmp_path):
    params = random_params(config)
    convert.save(tmp_path, config, params)
    prefix = tables.prefix(config)

    def old(tensors):
        renamed = {
            prefix
            + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): tensor
            for name, tensor in tensors.items()
        }
        return renamed | {name: np.zeros(2, np.float32) for name in OTHERS[prefix]}

    rewrite(tmp_path, old)
    assert_equal(convert.load(tmp_path)[1], params)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_precisions_become_float32(dtype, tmp_path):
    params = random_params(TINY)
    convert.save(tmp_path, TINY, params)
    rewrite(tmp_path, lambda t: {name: x.astype(dtype) for name, x in t.items()})
    tree = convert.load(tmp_path)[1]
    for path, leaf in flat(params):
        got = dict(flat(tree))[path]
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, leaf.astype(dtype).astype(np.float32))


def test_the_names_are_those_of_transformers(tmp_path):
    convert.save(tmp_path, EvaluatorConfig(TINY), random_params(EvaluatorConfig(TINY)))
    tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    assert tensors["classifier.weight"].shape == (30, 8)
    assert tensors["pooler.dense.weight"].shape == (8, 8)
    assert tensors["deberta.encoder.rel_embeddings.weight"].shape == (8, 8)
    assert tensors["deberta.encoder.layer.1.intermediate.dense.weight"].shape == (10, 8)
    entries = json.loads((tmp_path / "config.json").read_text())
    assert entries["architectures"] == ["DebertaV2ForSequenceClassification"]
    assert len(entries["id2label"]) == 30
    assert entries["id2label"]["0"] == "Self-direction: -1"
    assert entries["id2label"]["29"] == "Universalism: +1"
    assert entries["label2id"]["Stimulation: 0"] == 4


def test_a_full_directory_is_not_overwritten_unasked(tmp_path):
    convert.save(tmp_path, TINY, random_params(TINY))
    with pytest.raises(FileExistsError, match="is not empty; overwrite=True writes"):
        convert.save(tmp_path, TINY, random_params(TINY))
    other = random_params(TINY, seed=1)
    convert.save(tmp_path, TINY, other, overwrite=True)
    assert_equal(convert.load(tmp_path)[1], other)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    with pytest.raises(FileExistsError, match="is a file, not a directory"):
        convert.save(tmp_path / "config.json", TINY, other)


def test_save_names_a_configuration_that_is_none(tmp_path):
    class BertConfig:
        pass

    params = random_params(TINY)
    for config, kind in ((BertConfig(), "BertConfig"), (params, "dict")):
        with pytest.raises(ValueError, match=rf"save: config is of type {kind}; it sh"):
            convert.save(tmp_path / "x", config, params)
    assert not (tmp_path / "x").exists()


def test_save_names_leaves_that_do_not_fit(tmp_path):
    params = random_params(TINY)
    params["extra"] = np.zeros(3)
    del params["layer_0"]["up"]["bias"]
    params["relative"]["embedding"] = np.zeros((2, 2))
    with pytest.raises(ValueError, match="params lacks") as error:
        convert.save(tmp_path / "x", TINY, params)
    assert "lacks layer_0/up/bias (10,);" in str(error.value)
    assert "has no place for extra (3,);" in str(error.value)
    assert "has relative/embedding (2, 2) where the configuration says (8, 8)." in str(
        error.value
    )
    assert not (tmp_path / "x").exists()


WORD = "embeddings.word_embeddings.weight"
CHANGES = [
    (lambda t: t | {"extra": np.zeros(3)}, r"has no place for extra \(3,\)\.$"),
    (
        lambda t: {k: v for k, v in t.items() if k != WORD},
        r"lacks embeddings\.word_embeddings\.weight \(12, 8\)\.$",
    ),
    (
        lambda t: t | {WORD: np.zeros((3, 8), np.float32)},
        r"word_embeddings\.weight \(3, 8\) where the configuration says \(12, 8\)\.$",
    ),
    (
        lambda t: t | {f"deberta.{WORD}": t[WORD]},
        r"holds embeddings\.word_embeddings\.weight twice, as .* and .*\.$",
    ),
    (
        lambda t: {"x": np.zeros(1)},
        r"lacks .*, and \d+ more; has no place for x \(1,\)",
    ),
]


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_tensors_that_do_not_fit_are_named(change, words, tmp_path):
    convert.save(tmp_path, TINY, random_params(TINY))
    rewrite(tmp_path, change)
    with pytest.raises(ValueError, match=words):
        convert.load(tmp_path)


def test_a_checkpoint_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no directory .*nowhere"):
        convert.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"there is no file .*config\.json"):
        convert.load(tmp_path)
    run = tmp_path / "run"
    convert.save(run / "model", TINY, random_params(TINY))
    with pytest.raises(FileNotFoundError, match=r"directory of a run, .*run.model\.$"):
        convert.load(run)
    with pytest.raises(FileNotFoundError, match=r"is a file; give its .*run.model\.$"):
        convert.load(run / "model" / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(TINY.to_hf()))
    with pytest.raises(FileNotFoundError, match=r"there is no model\.safetensors in"):
        convert.load(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 300, -7])
def test_a_damaged_file_is_named(keep, tmp_path):
    convert.save(tmp_path, TINY, random_params(TINY))
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        convert.load(tmp_path)


def test_another_architecture_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "roberta"}))
    with pytest.raises(ValueError, match="model_type is 'roberta'; only 'deberta' "):
        convert.load(tmp_path)


def test_weights_of_another_family_are_named(tmp_path):
    convert.save(tmp_path, BERT, random_params(BERT))
    (tmp_path / "config.json").write_text(json.dumps(V1.to_hf()))
    words = r"lacks .*in_proj.* has no place for .*self\.query\.weight"
    with pytest.raises(ValueError, match=words):
        convert.load(tmp_path)


def test_a_configuration_that_disagrees_with_itself_is_named(tmp_path):
    config = EvaluatorConfig(TINY)
    convert.save(tmp_path, config, random_params(config))
    entries = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(entries | {"vocab_size": 13}))
    with pytest.raises(ValueError, match="'fulcra' disagree on vocab_size"):
        convert.load(tmp_path)
