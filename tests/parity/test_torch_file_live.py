# SPDX-License-Identifier: Apache-2.0
"""Random state dicts and a DeBERTa, saved by torch itself, read without it."""

import collections
import json
import sys
import warnings

import jax
import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch warns of its own deprecated parts
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")

from fulcra_jax import convert
from fulcra_jax.convert import torch_file

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

SAVE = {
    "zip": {},
    "zip, protocol 4": {"pickle_protocol": 4},
    "row": {"_use_new_zipfile_serialization": False},
    "row, protocol 4": {
        "_use_new_zipfile_serialization": False,
        "pickle_protocol": 4,
    },
}
DTYPES = [
    *(torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.bool),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8),
]


def random_tensor(rng, earlier):
    """A new tensor of any dtype, or a view of an earlier one, in any arrangement."""
    if earlier and rng.random() < 0.4:
        tensor = earlier[rng.integers(len(earlier))]
    else:
        shape = rng.integers(0, 6, rng.integers(0, 4)).tolist()
        numbers = torch.from_numpy(np.asarray(rng.normal(size=shape) * 50))
        tensor = numbers.to(DTYPES[rng.integers(len(DTYPES))])
    if tensor.ndim:
        tensor = tensor.permute(*rng.permutation(tensor.ndim).tolist())
        start, step = int(rng.integers(0, 2)), int(rng.integers(1, 3))
        tensor = tensor[start::step]
    if tensor.is_floating_point() and rng.random() < 0.3:
        tensor = torch.nn.Parameter(tensor, requires_grad=bool(rng.integers(2)))
    return tensor


@pytest.mark.parametrize("how", list(SAVE))
@pytest.mark.parametrize("seed", list(range(20)))
def test_random_state_dicts_are_read_to_the_last_bit(seed, how, tmp_path):
    rng = np.random.default_rng(seed)
    found = collections.OrderedDict()
    for i in range(rng.integers(0, 30)):
        found[f"layer.{i}.weight"] = random_tensor(rng, list(found.values()))
    found._metadata = {"": {"version": 1}}
    torch.save(found, tmp_path / "x", **SAVE[how])
    # Not even torch's own restricted reader knows protocol 4.
    theirs = torch.load(tmp_path / "x", weights_only=False)
    with torch_file.open_file(tmp_path / "x") as tensors:
        assert tensors.names() == list(theirs)
        for name, want in theirs.items():
            want = want.detach()
            want = (want.float() if want.dtype == torch.bfloat16 else want).numpy()
            got = tensors.tensor(name)
            assert tensors.shape(name) == got.shape == want.shape
            assert got.dtype == want.dtype
            assert got.tobytes() == want.tobytes()


def test_what_is_no_state_dict_is_refused(tmp_path, monkeypatch):
    # For constants of torch, pickle searches every module; transformers' load lazily,
    # and some need what is not installed.
    for name in [name for name in sys.modules if name.startswith("transformers")]:
        monkeypatch.delitem(sys.modules, name)
    linear = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(linear.parameters())
    scripted = torch.jit.script(linear)
    scripted.save(str(tmp_path / "scripted"))
    cases = {
        "module": (linear, "asks for the global torch.nn.modules.linear.Linear;"),
        "optimizer": (optimizer.state_dict(), "are no texts|type dict|type list"),
        "run": ({"model": linear.state_dict(), "step": 3}, "type dict under 'model'"),
        "quantized": (
            {"a": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)},
            "asks for the global torch",
        ),
        "sparse": ({"a": torch.eye(2).to_sparse()}, "asks for the global torch"),
        "complex": ({"a": torch.ones(2, dtype=torch.complex64)}, "ComplexFloatStorage"),
        "expanded": ({"a": torch.ones(1).expand(5)}, "reaches beyond its storage"),
    }
    for name, (found, words) in cases.items():
        for settings in (SAVE["zip"], SAVE["row"]):
            torch.save(found, tmp_path / name, **settings)
            with pytest.raises(ValueError, match=words):
                with torch_file.open_file(tmp_path / name):
                    pass
    with pytest.raises(ValueError, match="is a TorchScript archive"):
        with torch_file.open_file(tmp_path / "scripted"):
            pass


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("how", ["zip", "row", "split"])
def test_a_model_of_transformers_loads_as_from_its_safetensors(how, dtype, tmp_path):
    entries = {
        "vocab_size": 40,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "type_vocab_size": 0,
        "relative_attention": True,
        "position_buckets": 8,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
    }
    config = transformers.DebertaV2Config(**entries)
    torch.manual_seed(0)
    model = transformers.DebertaV2ForMaskedLM(config).to(getattr(torch, dtype))
    model.save_pretrained(tmp_path / "safe")
    weights = model.state_dict()
    folder = tmp_path / "torch"
    folder.mkdir()
    text = (tmp_path / "safe" / "config.json").read_text()
    (folder / "config.json").write_text(text)
    if how == "split":
        where = {name: f"part-{i % 3}.bin" for i, name in enumerate(weights)}
        for file in set(where.values()):
            part = {name: weights[name] for name in weights if where[name] == file}
            torch.save(part, folder / file)
        index = folder / "pytorch_model.bin.index.json"
        index.write_text(json.dumps({"weight_map": where}))
    else:
        torch.save(weights, folder / "pytorch_model.bin", **SAVE[how])
    want_config, want = convert.load_encoder(tmp_path / "safe")
    got_config, got = convert.load_encoder(folder)
    assert got_config == want_config
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(np.testing.assert_array_equal, got, want)
    leaf = got["layer_1"]["up"]["kernel"]
    theirs = model.deberta.encoder.layer[1].intermediate.dense.weight
    assert leaf.dtype == np.float32
    np.testing.assert_array_equal(leaf, theirs.detach().float().numpy().T)
