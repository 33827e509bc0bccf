# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of DeBERTa v1 and BERT: their own names, and tensors of several parts."""

import json

import numpy as np
import pytest
import safetensors.numpy
from test_convert import BERT, CONFIGS, V1, random_params, rewrite

from fulcra_jax import convert
from fulcra_jax.convert import tables


def test_a_tensor_of_parts_is_read_and_written_once(tmp_path):
    """Every number of every tensor of the file comes back, and to its place."""
    for name, config in CONFIGS.items():
        rows = tables.rows(config)
        shapes = {row.name: row.file_shape for row in rows}
        start = 0
        want = {}
        for key, shape in shapes.items():
            size = int(np.prod(shape))
            numbers = np.arange(start, start + size, dtype=np.float32)
            want[key], start = numbers.reshape(shape), start + size
        leaves = {row.path: row.swap(want[row.name]) for row in rows}
        assert sum(leaf.size for leaf in leaves.values()) == start, name
        assert all(leaves[row.path].shape == row.shape for row in rows), name
        got = tables.tensors(rows, leaves)
        assert got.keys() == want.keys()
        for key, tensor in want.items():
            np.testing.assert_array_equal(got[key], tensor, err_msg=key)


def test_the_projection_of_v1_is_interleaved_head_by_head():
    """in_proj holds query, key and value of head 0, then those of head 1."""
    row = {row.path: row for row in tables.rows(V1)}
    rows = np.arange(24.0)[:, None] + np.zeros(8)  # 2 heads of width 4, three times
    for name, of_head_0 in (("query", 0), ("key", 4), ("value", 8)):
        kernel = row["layer_0", "attention", name, "kernel"].swap(rows)
        want = [
            *range(of_head_0, of_head_0 + 4),
            *range(of_head_0 + 12, of_head_0 + 16),
        ]
        np.testing.assert_array_equal(kernel[0], want)


NAMES = {
    "v1, hf head": [
        "deberta.encoder.layer.1.attention.self.in_proj.weight",
        "deberta.encoder.layer.0.attention.self.q_bias",
        "deberta.encoder.layer.0.attention.self.pos_q_proj.bias",
        "pooler.dense.weight",
    ],
    "bert, hf head": [
        "bert.encoder.layer.1.attention.self.query.weight",
        "bert.embeddings.token_type_embeddings.weight",
        "bert.pooler.dense.weight",
        "classifier.weight",
    ],
}


@pytest.mark.parametrize("name", list(NAMES))
def test_each_family_is_written_by_its_own_names(name, tmp_path):
    config = CONFIGS[name]
    convert.save(tmp_path, config, random_params(config))
    tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    assert set(NAMES[name]) <= tensors.keys()
    assert "deberta.encoder.layer.0.attention.self.pos_proj.bias" not in tensors
    entries = json.loads((tmp_path / "config.json").read_text())
    start = "Bert" if config.encoder == BERT else "Deberta"
    assert entries["architectures"] == [f"{start}ForSequenceClassification"]
    rate = "classifier_dropout" if config.encoder == BERT else "cls_dropout"
    assert entries[rate] == config.head.dropout
    assert "position_buckets" not in entries


def test_a_tensor_of_parts_of_another_shape_is_named_once(tmp_path):
    convert.save(tmp_path, V1, random_params(V1))
    name = "encoder.layer.1.attention.self.in_proj.weight"
    rewrite(tmp_path, lambda t: t | {name: np.zeros((23, 8), np.float32)})
    with pytest.raises(ValueError, match="where the configuration says") as error:
        convert.load(tmp_path)
    want = f"has {name} (23, 8) where the configuration says (24, 8)."
    assert str(error.value).endswith(want)
    assert str(error.value).count(name) == 1
