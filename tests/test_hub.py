# SPDX-License-Identifier: Apache-2.0
"""Names on the hub, with a hub client that is a stand-in or has no network."""

import json
import pathlib
import sys
import types

import numpy as np
import pytest
import safetensors.numpy
from torch_files import archive, storage, tensor

from fulcra_jax import convert
from fulcra_jax.configs import DebertaConfig
from fulcra_jax.convert import hub, tables

TINY = DebertaConfig(
    vocab_size=12,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=10,
    max_relative_positions=16,
    position_buckets=4,
)
NAME = "owner/some-model.v1"
HOW = (
    r'run: hf download .* --exclude "\*\.h5" "\*\.ot" --local-dir DIR; then give DIR\.$'
)


def write_model(folder, *kinds):
    """One file of each kind: zeros as safetensors, ones as torch's file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(TINY.to_hf()))
    shapes = {row.name: row.file_shape for row in tables.rows(TINY)}
    if "model.safetensors" in kinds:
        zeros = {name: np.zeros(shape, "f4") for name, shape in shapes.items()}
        safetensors.numpy.save_file(zeros, folder / "model.safetensors")
    if "pytorch_model.bin" in kinds:
        found, data = {}, {}
        for name, shape in shapes.items():
            ones = np.ones(shape, "f2")
            strides = tuple(stride // 2 for stride in ones.strides)
            where = storage("HalfStorage", name, ones.size)
            found[name] = tensor(where, 0, shape, strides)
            data[name] = ones.tobytes()
        (folder / "pytorch_model.bin").write_bytes(archive(found, data))


class Errors(types.ModuleType):
    """The client's exceptions, as they inherit from each other."""

    class EntryNotFoundError(Exception):
        pass

    class LocalEntryNotFoundError(EntryNotFoundError, FileNotFoundError):
        pass

    class RepositoryNotFoundError(Exception):
        pass

    class GatedRepoError(RepositoryNotFoundError):
        pass

    class RevisionNotFoundError(Exception):
        pass


@pytest.fixture
def client(monkeypatch, tmp_path):
    """A client whose hub is a folder; `fail` is raised by every download."""
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("huggingface_hub")
    module.errors = Errors("huggingface_hub.errors")
    module.remote, module.fail, module.calls = tmp_path / "hub", None, []

    def hf_hub_download(name, file, *, revision, local_files_only):
        module.calls.append((name, file, revision, local_files_only))
        if module.fail is not None:
            raise module.fail
        path = module.remote / file
        if not path.is_file():
            raise Errors.EntryNotFoundError(file)
        return str(path)

    module.hf_hub_download = hf_hub_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", module.errors)
    return module


def test_a_name_is_downloaded_file_by_file(client):
    write_model(client.remote, "pytorch_model.bin")
    config, params = convert.load(NAME, revision="v2")
    assert config == TINY
    assert params["embeddings"]["word"]["embedding"].min() == 1
    files = ["config.json", "model.safetensors", "model.safetensors.index.json"]
    assert client.calls == [
        (NAME, file, "v2", False) for file in [*files, "pytorch_model.bin"]
    ]


def test_pretraining_heads_are_downloaded_too(client):
    write_model(client.remote, "model.safetensors")
    with pytest.raises(ValueError, match=r"begins with .* or 'mask_predictions\.'\.$"):
        convert.load_pretraining(NAME, revision="v2")
    assert client.calls == [
        (NAME, file, "v2", False) for file in ("config.json", "model.safetensors")
    ]


def test_no_second_kind_of_weights_is_downloaded(client):
    write_model(client.remote, "pytorch_model.bin", "model.safetensors")
    _, params = convert.load_encoder(NAME)
    assert params["embeddings"]["word"]["embedding"].max() == 0
    assert [call[1] for call in client.calls] == ["config.json", "model.safetensors"]
    assert {call[2] for call in client.calls} == {None}


def test_all_parts_of_split_weights_are_downloaded(client):
    write_model(client.remote)
    where = {"a": "one.bin", "b": "two.bin", "c": "one.bin"}
    index = client.remote / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    (client.remote / "one.bin").write_bytes(b"")
    with pytest.raises(
        FileNotFoundError, match=r"it has no two\.bin\. Where .* " + HOW
    ):
        convert.load(NAME)
    (client.remote / "two.bin").write_bytes(b"")
    assert hub.directory(NAME) == client.remote
    assert [call[1] for call in client.calls[-2:]] == ["one.bin", "two.bin"]
    index.write_text(json.dumps({"weight_map": {"a": "../one.bin"}}))
    with pytest.raises(ValueError, match="which is no file beside it"):
        convert.load(NAME)
    assert client.calls[-1][1] == "pytorch_model.bin.index.json"


FAILURES = {
    "gated": (Errors.GatedRepoError("x"), "its terms have to be accepted"),
    "missing": (Errors.RepositoryNotFoundError("x"), "there is no such name, or it is"),
    "revision": (Errors.RevisionNotFoundError("x"), "it has no such revision"),
    "no file": (Errors.EntryNotFoundError("x"), r"it has no config\.json"),
    "offline": (
        Errors.LocalEntryNotFoundError("x"),
        r"the cache has no config\.json of it, and the hub cannot be reached",
    ),
    "any other": (RuntimeError("a\nb"), "RuntimeError: a b"),
}


@pytest.mark.parametrize("name", list(FAILURES))
def test_a_failed_download_says_what_to_do(name, client):
    client.fail, words = FAILURES[name]
    with pytest.raises(FileNotFoundError, match=words) as error:
        convert.load(NAME, revision="v2")
    said = str(error.value)
    assert said.startswith(f"convert.load: there is no directory {NAME}, and it cannot")
    assert f"hf download {NAME} --revision v2 --exclude" in said
    assert "\n" not in said
    assert len(client.calls) == 1


def test_weights_that_nobody_has_are_named(client):
    write_model(client.remote)
    with pytest.raises(
        FileNotFoundError, match=r"has no model\.safetensors or .*" + HOW
    ):
        convert.load(NAME)


def test_a_download_of_two_versions_is_refused(client, tmp_path):
    write_model(client.remote)
    write_model(tmp_path / "newer", "model.safetensors")
    inner = client.hf_hub_download

    def moved(name, file, **settings):
        if file != "config.json":
            client.remote = tmp_path / "newer"
        return inner(name, file, **settings)

    client.hf_hub_download = moved
    with pytest.raises(FileNotFoundError, match="it changed while it was downloaded"):
        convert.load(NAME)


def test_without_the_client_it_is_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    missing = r"needs the package huggingface_hub, .* \(pip install huggingface_hub br"
    with pytest.raises(FileNotFoundError, match=missing):
        convert.load(NAME)


def test_directories_come_first(client, tmp_path):
    write_model(tmp_path / NAME, "model.safetensors")
    assert convert.load(NAME)[0] == TINY
    assert client.calls == []
    with pytest.raises(ValueError, match="the revision 'v2' is for names on the hub"):
        convert.load(NAME, revision="v2")


PATHS = [
    *("nowhere", "./owner/name", "../owner/name", "/owner/name", "~/name", "a/b/c"),
    *("owner/", "/name", "", "owner/.name", "owner/na me", "owner\\name", "a/b\n"),
    *("file/name", pathlib.Path("owner/name")),
]


@pytest.mark.parametrize("path", PATHS)
def test_other_paths_stay_paths(path, client, tmp_path):
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "name").write_text("")
    with pytest.raises(FileNotFoundError):
        convert.load(path)
    assert client.calls == []


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """The real client without a network, and the folder of its cache."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    cache = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    return cache


def cached(cache, *kinds):
    folder = cache / f"models--{NAME.replace('/', '--')}"
    commit = "0123456789" * 4
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    write_model(folder / "snapshots" / commit, *kinds)
    return folder / "snapshots" / commit, commit


def test_the_real_client_finds_its_cache_offline(offline):
    folder, commit = cached(offline, "pytorch_model.bin")
    assert hub.directory(NAME) == folder
    config, params = convert.load(NAME, revision=commit)
    assert config == TINY
    assert params["embeddings"]["word"]["embedding"].min() == 1


def test_the_real_client_says_what_its_cache_lacks(offline):
    with pytest.raises(FileNotFoundError, match=r"cache has no config\.json .*" + HOW):
        convert.load(NAME)
    cached(offline)
    with pytest.raises(
        FileNotFoundError, match=r"has no model\.safetensors or .*" + HOW
    ):
        convert.load(NAME)
