# SPDX-License-Identifier: Apache-2.0
"""Which files of a checkpoint directory are read, and split weights."""

import json

import numpy as np
import pytest
import safetensors.numpy
from torch_files import archive, storage, tensor

from fulcra_jax import convert
from fulcra_jax.configs import DebertaConfig
from fulcra_jax.convert import tables, weights

TINY = DebertaConfig(
    vocab_size=12,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=10,
    max_relative_positions=16,
    position_buckets=4,
)


def tensors_of(number):
    """Every tensor of the model, all of them filled with one number."""
    shapes = {row.name: row.file_shape for row in tables.rows(TINY)}
    return {name: np.full(shape, number, "f4") for name, shape in shapes.items()}


def write_safetensors(path, tensors):
    safetensors.numpy.save_file(tensors, path)


def write_torch(path, tensors):
    found, data = {}, {}
    for key, (name, array) in enumerate(tensors.items()):
        strides = tuple(stride // 4 for stride in array.strides)
        where = storage("FloatStorage", str(key), array.size)
        found[name] = tensor(where, 0, array.shape, strides)
        data[str(key)] = array.tobytes()
    path.write_bytes(archive(found, data))


WRITE = {"model.safetensors": write_safetensors, "pytorch_model.bin": write_torch}


def write(folder, kind, number):
    """The model in one of the four forms, filled with a number."""
    (folder / "config.json").write_text(json.dumps(TINY.to_hf()))
    name = kind.removesuffix(".index.json")
    tensors = tensors_of(number)
    if name == kind:
        WRITE[name](folder / name, tensors)
        return
    stem, suffix = name.split(".")
    where = {}
    for part in range(3):
        shard = f"{stem}-0000{part + 1}-of-00003.{suffix}"
        names = list(tensors)[part::3]
        WRITE[name](folder / shard, {name: tensors[name] for name in names})
        where |= dict.fromkeys(names, shard)
    entries = {"metadata": {"total_size": 1}, "weight_map": where}
    (folder / kind).write_text(json.dumps(entries))


def number_in(folder):
    """The one number that all leaves hold."""
    config, params = convert.load(folder)
    assert config == TINY
    assert params["layer_0"]["up"]["kernel"].shape == (8, 10)
    return params["layer_0"]["up"]["kernel"][0, 0]


@pytest.mark.parametrize("kind", weights.FILES)
def test_each_form_of_the_weights_is_read(kind, tmp_path):
    write(tmp_path, kind, 5)
    assert number_in(tmp_path) == 5
    with weights.open_weights(tmp_path) as tensors:
        assert tensors.path == tmp_path / kind
        assert sorted(tensors.names()) == sorted(tensors_of(5))
        assert tensors.shape("embeddings.LayerNorm.weight") == (8,)
        np.testing.assert_array_equal(
            tensors.tensor("embeddings.LayerNorm.weight"), np.full(8, 5, "f4")
        )


def test_the_first_form_that_is_there_is_read(tmp_path):
    for number, kind in reversed(list(enumerate(weights.FILES))):
        write(tmp_path, kind, number)
        assert number_in(tmp_path) == number


def test_a_file_of_torch_with_other_tensors_is_named(tmp_path):
    write(tmp_path, "pytorch_model.bin", 1)
    write_torch(tmp_path / "pytorch_model.bin", {"extra": np.zeros(3, "f4")})
    with pytest.raises(
        ValueError, match=r"pytorch_model\.bin lacks .* extra \(3,\)\.$"
    ):
        convert.load(tmp_path)


INDEXES = {
    "no json": ("{", "is not valid JSON"),
    "nested": ("[" * 100_000, "is not valid JSON"),
    "list": ("[]", "has no weight_map of tensors to files"),
    "empty": ("{}", "has no weight_map of tensors to files"),
    "no map": ({"weight_map": ["a"]}, "has no weight_map of tensors to files"),
    "above": ({"weight_map": {"a": "../x.bin"}}, r"a is in '\.\./x\.bin', which is no"),
    "above itself": ({"weight_map": {"a": ".."}}, "which is no file beside it"),
    "root": ({"weight_map": {"a": "/etc/passwd"}}, "which is no file beside it"),
    "windows": ({"weight_map": {"a": "C:x.bin"}}, "which is no file beside it"),
    "backslash": ({"weight_map": {"a": "..\\x.bin"}}, "which is no file beside it"),
    "zero": ({"weight_map": {"a": "x\0.bin"}}, "which is no file beside it"),
    "number": ({"weight_map": {"a": 3}}, "a is in '3', which is no file beside it"),
}


@pytest.mark.parametrize("name", list(INDEXES))
@pytest.mark.parametrize("kind", [k for k in weights.FILES if k.endswith("json")])
def test_an_index_that_is_none_is_refused(name, kind, tmp_path):
    entries, words = INDEXES[name]
    text = entries if isinstance(entries, str) else json.dumps(entries)
    write(tmp_path, kind, 1)
    (tmp_path / kind).write_text(text)
    with pytest.raises(ValueError, match=words) as error:
        convert.load(tmp_path)
    assert kind in str(error.value)


@pytest.mark.parametrize("kind", [k for k in weights.FILES if k.endswith("json")])
def test_an_index_and_files_that_disagree_are_named(kind, tmp_path):
    write(tmp_path, kind, 1)
    entries = json.loads((tmp_path / kind).read_text())
    where = entries["weight_map"]
    first, second = next(iter(where)), list(where)[-1]

    def rewritten(changed):
        (tmp_path / kind).write_text(json.dumps({"weight_map": changed}))

    rewritten(where | {first: where[second]})
    with pytest.raises(ValueError, match=f"says that {first} is in .*, which lacks it"):
        convert.load(tmp_path)
    rewritten({name: file for name, file in where.items() if name != first})
    with pytest.raises(ValueError, match=f"has {first}, which .* does not say"):
        convert.load(tmp_path)
    rewritten(where | {first: kind})  # the index itself
    with pytest.raises(ValueError, match=r"damaged|no file of torch\.save"):
        convert.load(tmp_path)
    rewritten(where)
    (tmp_path / where[second]).unlink()
    with pytest.raises(FileNotFoundError, match=f"names {where[second]}, which is not"):
        convert.load(tmp_path)


def test_no_weights_are_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"nor pytorch_model\.bin, nor the index"
    ):
        with weights.open_weights(tmp_path):
            pass
