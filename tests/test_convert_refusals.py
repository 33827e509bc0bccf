# SPDX-License-Identifier: Apache-2.0
"""What is refused of weights and trees that fit by name and shape."""

import json
import struct

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from test_convert import TINY, WORD, assert_equal, random_params, rewrite
from test_pretraining import V3, saved

from fulcra_jax import convert
from fulcra_jax.configs import EvaluatorConfig
from fulcra_jax.convert import weights

DTYPES = ["int8", "uint8", "int32", "int64", "bool", "complex64"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_that_are_no_floats_are_refused(dtype, tmp_path):
    params = random_params(TINY)
    convert.save(tmp_path, TINY, params)
    rewrite(tmp_path, lambda t: t | {WORD: t[WORD].astype(dtype)})
    with pytest.raises(ValueError, match=f"{WORD} of dtype {dtype}; it should be one"):
        convert.load(tmp_path)
    params["embeddings"]["word"]["embedding"] = np.zeros((12, 8), dtype)
    with pytest.raises(ValueError, match=f"params has .* of dtype {dtype}; it should"):
        convert.save(tmp_path / "new", TINY, params)


def test_ignored_integers_stay_ignored(tmp_path):
    params = random_params(TINY)
    convert.save(tmp_path, TINY, params)
    ids = {"embeddings.position_ids": np.arange(6)[None]}
    rewrite(tmp_path, lambda t: t | ids)
    assert_equal(convert.load(tmp_path)[1], params)


def test_numbers_too_large_for_float32_are_refused(tmp_path):
    params = random_params(TINY)
    convert.save(tmp_path, TINY, params)
    wide = np.full((12, 8), 1e300)
    rewrite(tmp_path, lambda t: t | {WORD: wide})
    with pytest.raises(ValueError, match="that are too large for float32"):
        convert.load(tmp_path)
    params["embeddings"]["word"]["embedding"] = wide
    with pytest.raises(ValueError, match="that are too large for float32"):
        convert.save(tmp_path / "new", TINY, params)


def test_float8_is_named(tmp_path):
    entry = {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}
    head = json.dumps({"a": entry}).encode()
    raw = struct.pack("<Q", len(head)) + head + bytes(2)
    (tmp_path / "model.safetensors").write_bytes(raw)
    with weights.open_weights(tmp_path) as tensors:
        with pytest.raises(ValueError, match="has a of dtype F8_E4M3; it should be"):
            tensors.tensor("a")


NO_WEIGHTS = [(b"version https://git-lfs.github.com", "a git-lfs pointer")]
NO_WEIGHTS += [(b"<!DOCTYPE html>", "no safetensors file; it begins with b'<!DOCTYP'")]


@pytest.mark.parametrize(("content", "words"), NO_WEIGHTS)
def test_a_pointer_and_a_page_are_named(content, words, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        with weights.open_weights(tmp_path):
            pass


def test_a_file_name_too_long_is_refused(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "x" * 300}}))
    with pytest.raises(ValueError, match="which is no file beside it"):
        weights.shards(index)


def test_a_failed_save_leaves_nothing_and_the_old_pair(tmp_path, monkeypatch):
    params = random_params(TINY)
    convert.save(tmp_path, TINY, params)
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / ".model.safetensors.part").symlink_to(victim)

    def fails(*_, **__):
        raise safetensors.SafetensorError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(safetensors.numpy, "save_file", fails)
        with pytest.raises(OSError, match="cannot be written: no space"):
            convert.save(tmp_path, TINY, random_params(TINY, 1), overwrite=True)
    assert_equal(convert.load(tmp_path)[1], params)
    convert.save(tmp_path, TINY, random_params(TINY, 1), overwrite=True)
    assert victim.read_text() == "mine"
    assert not list(tmp_path.glob(".save-*"))


def test_an_interruption_leaves_no_wrong_pair(tmp_path, monkeypatch):
    convert.save(tmp_path, TINY, random_params(TINY))

    def fails(*_):
        raise OSError("cut")

    monkeypatch.setattr("fulcra_jax.convert.checkpoint.os.replace", fails)
    with pytest.raises(OSError, match="cannot be written: cut"):
        convert.save(tmp_path, TINY, random_params(TINY, 1), overwrite=True)
    with pytest.raises(FileNotFoundError, match=r"no file .*config\.json"):
        convert.load(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_directory_as_target_is_refused(name, tmp_path):
    (tmp_path / name).mkdir()
    with pytest.raises(FileExistsError, match=f"{name} is a directory; it should be"):
        convert.save(tmp_path, TINY, random_params(TINY), overwrite=True)
    assert len(list(tmp_path.iterdir())) == 1


BAD_PARAMS = [(None, "type NoneType; it should be a mapping"), ({1: 2}, "the key 1;")]
BAD_PARAMS += [({"a": "x"}, "params has a of type str; it should be an array")]


@pytest.mark.parametrize(("params", "words"), BAD_PARAMS)
def test_params_that_are_no_tree_are_refused(params, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        convert.save(tmp_path / "x", TINY, params)


@pytest.mark.parametrize("path", [None, 3, b"x"])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(TypeError, match=r"convert\.load: the path is .*; it should be"):
        convert.load(path)


def test_names_in_messages_are_short_and_printable(tmp_path):
    convert.save(tmp_path, TINY, random_params(TINY))
    name = "a\n\x1b" + "b" * 9999
    rewrite(tmp_path, lambda t: t | {name: np.zeros(2, np.float32)})
    with pytest.raises(ValueError, match=r"has no place for a\\n\\x1bbbb") as error:
        convert.load(tmp_path)
    assert len(str(error.value)) < 400


def test_an_unknown_head_in_a_file_is_refused(tmp_path):
    config = EvaluatorConfig(TINY)
    convert.save(tmp_path, config, random_params(config))
    entries = json.loads((tmp_path / "config.json").read_text())
    entries["fulcra"]["head"]["type"] = "X"
    (tmp_path / "config.json").write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=r"^configs.* head type 'X' is unknown"):
        convert.load(tmp_path)


def test_pretraining_reads_nothing_before_it_compares(tmp_path, monkeypatch):
    more = {"bomb": np.zeros(2, np.float32)}
    saved(tmp_path, V3, "replaced", **more)
    read = []
    monkeypatch.setattr(
        weights._Safetensors, "tensor", lambda _, name: read.append(name)
    )
    with pytest.raises(ValueError, match="has no place for bomb"):
        convert.load_pretraining(tmp_path)
    assert not read


def test_both_spellings_of_a_head_are_refused(tmp_path):
    more = {"mask_predictions.classifer.bias": np.ones(1, np.float32)}
    saved(tmp_path, V3, "replaced", **more)
    with pytest.raises(ValueError, match=r"holds mask_predictions\.cla.* twice, as"):
        convert.load_pretraining(tmp_path)
