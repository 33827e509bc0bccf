# SPDX-License-Identifier: Apache-2.0
"""torch's files without torch: what is read, and what is refused unread."""

import contextlib
import os
import pathlib
import pickle
import re
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch_files as by_hand
from torch_files import Call, Name, Raw, archive, dumped, row, storage, tensor

from fulcra_jax.convert import torch_file, torch_pickle

GOLDENS = pathlib.Path(__file__).parent / "goldens"
LAYOUTS = ["torch_zip.bin", "torch_legacy.bin"]
HUGE = 1 << 62
FLOATS = np.arange(6, dtype=np.float32)
ONE = tensor(storage("FloatStorage", "0", 6), 0, (2, 3), (3, 1))


def read(path):
    with torch_file.open_file(path) as tensors:
        return {name: tensors.tensor(name) for name in tensors.names()}


def refusal(path, content):
    """What is said of a file, which must be one sentence that names it."""
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^convert.load: ") as error:
        read(path)
    said = str(error.value)
    assert said.startswith(f"convert.load: {path} ")
    assert said.endswith(".")
    assert "\n" not in said
    return said


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_torch_wrote_is_read_to_the_last_bit(layout):
    want = np.load(GOLDENS / "torch_files.npz")
    with torch_file.open_file(GOLDENS / layout) as tensors:
        assert tensors.names() == want.files
        for name in want.files:
            got = tensors.tensor(name)
            assert tensors.shape(name) == got.shape == want[name].shape, name
            assert got.dtype == want[name].dtype, name
            assert got.tobytes() == want[name].tobytes(), name
            assert got.flags.c_contiguous
            assert got.flags.writeable


def test_a_deflated_archive_is_read(tmp_path):
    with zipfile.ZipFile(GOLDENS / "torch_zip.bin") as archive:
        with zipfile.ZipFile(tmp_path / "x", "w", zipfile.ZIP_DEFLATED) as out:
            for name in archive.namelist():
                out.writestr(name, archive.read(name))
    got, want = read(tmp_path / "x"), read(GOLDENS / "torch_zip.bin")
    assert {name: got[name].tobytes() for name in got} == {
        name: want[name].tobytes() for name in want
    }


def test_old_spellings_of_a_tensor_are_read(tmp_path):
    found = {"a": tensor(storage("FloatStorage", "0", 6), 1, (2,), (3,))}
    view = ("view", 2, 4)  # elements 2 to 5 of the storage
    where = storage("FloatStorage", "0", 6, view)
    found["b"] = tensor(where, 1, (3,), (1,), "_rebuild_tensor")
    found["c"] = Call(Name("torch._utils", "_rebuild_parameter"), found["a"], True, ())
    (tmp_path / "x").write_bytes(row(found, {"0": (6, FLOATS.tobytes())}))
    got = read(tmp_path / "x")
    assert got["a"].tolist() == got["c"].tolist() == [1.0, 4.0]
    assert got["b"].tolist() == [3.0, 4.0, 5.0]


def test_strides_and_offsets_that_nothing_uses_may_be_anything(tmp_path):
    where = storage("FloatStorage", "0", 6)
    found = {
        "one": tensor(where, 5, (1, 1), ((1 << 63) - 1, 7)),
        "row": tensor(where, 2, (1, 2), (HUGE, 1)),
        "none": tensor(where, HUGE, (0, 3), (3, 1)),
    }
    (tmp_path / "x").write_bytes(archive(found, {"0": FLOATS.tobytes()}))
    got = read(tmp_path / "x")
    assert got["one"].tolist() == [[5.0]]
    assert got["row"].tolist() == [[2.0, 3.0]]
    assert got["none"].shape == (0, 3)


def test_a_storage_without_checksums_is_read(tmp_path):
    """torch.serialization.set_crc32_options(False) writes zeros."""
    content = bytearray(archive({"a": ONE}, {"0": FLOATS.tobytes()}))
    for signature, at in ((b"PK\x03\x04", 14), (b"PK\x01\x02", 16)):
        start = content.find(signature)
        while start >= 0:
            content[start + at : start + at + 4] = bytes(4)
            start = content.find(signature, start + 4)
    (tmp_path / "x").write_bytes(content)
    assert read(tmp_path / "x")["a"].tolist() == FLOATS.reshape(2, 3).tolist()


def test_a_tensor_is_read_alone(tmp_path):
    """The memory of one small tensor, in a file of 64 MB with a hole."""
    numel = 1 << 24
    names = {"big": numel, "small": 4}
    found = {
        name: tensor(storage("FloatStorage", name, n), 0, (n,), (1,))
        for name, n in names.items()
    }
    pickles = row(found, {}).removesuffix(dumped([])) + dumped(list(names))
    with (tmp_path / "x").open("wb") as file:
        file.write(pickles + struct.pack("<q", numel))
        file.seek(4 * numel, os.SEEK_CUR)
        file.write(struct.pack("<q", 4) + FLOATS[:4].tobytes())
    with torch_file.open_file(tmp_path / "x") as tensors:
        assert tensors.shape("big") == (numel,)
        tracemalloc.start()
        assert tensors.tensor("small").tolist() == [0, 1, 2, 3]
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()


RUN = Call(Name("posix", "system"), "touch hostile")
DEEP = Raw(b")" + b"\x85" * 100_000)
FOREIGN = {
    "call": (RUN, "asks for the global posix.system; only tensors can be read; "),
    "eval": (Call(Name("builtins", "eval"), "1"), "asks for the global builtins.eval;"),
    "in a hook": (
        {"a": Call(Name("torch._utils", "_rebuild_tensor_v2"), RUN)},
        "posix",
    ),
    "module": (Name("transformers.models", "DebertaV2Model"), "DebertaV2Model;"),
    "other storage": (storage("QInt8Storage", "0", 1), "global torch.QInt8Storage;"),
    "control characters": (Name("a\x1b[2J", "b"), r"global a\\x1b\[2J\.b;"),
    "stack global": (Raw(b"\x8c\x02os\x8c\x06system\x93"), "global os.system;"),
    "instance": (Raw(b"(ios\nsystem\n"), r"pickle instruction b'i' \(byte 3\)"),
    "new object": (Raw(b"ccollections\nOrderedDict\n)\x81"), r"instruction b'\\x81'"),
    "extension": (Raw(b"\x82\x01"), r"instruction b'\\x82'"),
    "duplicate": (Raw(b"]2"), "instruction b'2'"),
    "text id": (Raw(b"Pmodule\n"), "instruction b'P'"),
    "buffer": (Raw(b"\x97"), r"instruction b'\\x97'"),
    "called storage": (Call(Name("torch", "FloatStorage"), 3), "makes no tensor"),
    "called text": (Call("posix.system", "ls"), "makes no tensor"),
    "called tensor": (Call(ONE, 1), "makes no tensor"),
    "arguments": (Raw(b"ccollections\nOrderedDict\n]R"), "arguments in its pickle"),
    "filled dict": (
        Call(Name("collections", "OrderedDict"), []),
        "an OrderedDict that",
    ),
    "attributes": ({"a": Raw(by_hand.code(ONE) + b"}b")}, "gives attributes to what"),
    "deep key": (Raw(b"}" + DEEP.code + b"Ns"), "keys that are no texts"),
    "number as key": ({1: ONE}, "keys that are no texts"),
    "memo": (Raw(b"j\xff\xff\xff\xff"), "recalls what it never kept"),
    "empty memo": (Raw(b"r\xff\xff\xff\x7f"), "takes more than it has put"),
    "long text": (Raw(b"\x8d" + b"\xff" * 7 + b"\x7f"), "a pickle in it has no end"),
    "long bytes": (Raw(b"\x8e" + b"\xff" * 7 + b"\x7f"), r"instruction b'\\x8e'"),
    "bad text": (Raw(b"\x8c\x02\xff\xff"), "is not UTF-8"),
    "endless name": (Raw(b"c" + b"a" * 2000), "a name in its pickle has no end"),
    "name of a number": (Raw(b"NN\x93"), "a name in its pickle is no text"),
    "unmarked": (Raw(b"Nu"), "closes what it never opened"),
    "odd": (Raw(b"}(Nu"), "sets items of what is no dict"),
    "append": (Raw(b"}Na"), "appends to what is no list"),
    "protocol": (Raw(b"\x80\x63N"), "unknown protocol 99"),
    "no dict": ([ONE], "holds an object of type list, not the dict of tensors"),
    "number": ({"epoch": 3}, "type int under 'epoch', not a tensor"),
    "nested": ({"model": {"a": ONE}}, "type dict under 'model', not a tensor"),
    "unprintable": ({"a\n": ONE}, r"unprintable name 'a\\n'"),
}


@pytest.mark.parametrize("name", list(FOREIGN))
@pytest.mark.parametrize("layout", ["zip", "row"])
def test_a_pickle_that_is_no_state_dict_is_refused_unrun(
    name, layout, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    found, words = FOREIGN[name]
    raw = FLOATS.tobytes()
    zipped = layout == "zip"
    content = archive(found, {"0": raw}) if zipped else row(found, {"0": (6, raw)})
    said = refusal(tmp_path / "x", content)
    assert re.search(words, said), said
    assert not (tmp_path / "hostile").exists()


LIES = {
    "shape": ((0, (7,), (1,)), "reaches beyond its storage 0, which has 6 elements"),
    "offset": ((1, (2, 3), (3, 1)), "reaches beyond its storage"),
    "stride": ((0, (2, 3), (4, 1)), "reaches beyond its storage"),
    "huge": ((0, (HUGE, HUGE), (HUGE, HUGE)), "reaches beyond its storage"),
    "expanded": ((0, (HUGE, HUGE), (0, 0)), "reaches beyond its storage"),
    "negative offset": ((-1, (2,), (1,)), "whose offset is no count"),
    "negative size": ((0, (-2, -3), (3, 1)), "whose shape or strides are no counts"),
    "negative stride": ((5, (6,), (-1,)), "whose shape or strides are no counts"),
    "overflow": ((0, (1 << 64,), (1,)), "whose shape or strides are no counts"),
    "truth": ((0, (True,), (1,)), "whose shape or strides are no counts"),
    "empty": ((0, (HUGE, 0), (1, 1)), "an empty tensor of the impossible shape"),
    "axes": ((0, (2, 3), (1,)), "of 2 axes and 1 strides"),
    "many axes": ((0, (1,) * 99, (1,) * 99), "of 99 axes"),
}


@pytest.mark.parametrize("name", list(LIES))
def test_a_tensor_larger_than_its_storage_is_refused(name, tmp_path):
    where, words = LIES[name]
    found = {"a": tensor(storage("FloatStorage", "0", 6), *where)}
    assert words in refusal(tmp_path / "x", archive(found, {"0": FLOATS.tobytes()}))
    content = row(found, {"0": (6, FLOATS.tobytes())})
    assert words in refusal(tmp_path / "x", content)


@pytest.mark.parametrize("numel", [5, 7, 1 << 40, (1 << 63) - 1])
def test_a_storage_of_another_size_is_refused(numel, tmp_path):
    found = {"a": tensor(storage("FloatStorage", "0", numel), 0, (1,), (1,))}
    said = refusal(tmp_path / "x", archive(found, {"0": FLOATS.tobytes()}))
    assert (
        f"holds 24 bytes in model/data/0, but the tensors in it take {4 * numel}"
        in (said)
    )
    said = refusal(tmp_path / "x", row(found, {"0": (6, FLOATS.tobytes())}))
    assert (
        "should have 5 elements" if numel == 5 else "is cut off: the storage 0"
    ) in (said)


STORAGES = {
    "negative": (storage("FloatStorage", "0", -1), "not described as one"),
    "no number": (storage("FloatStorage", "0", "6"), "not described as one"),
    "no kind": (by_hand.Persistent("storage", "x", "0", "cpu", 6), "not described"),
    "module": (by_hand.Persistent("module", None, "a", "b"), "not described as one"),
    "view": (storage("FloatStorage", "0", 6, ("v", 3, 4)), "a view beyond the end"),
    "no view": (storage("FloatStorage", "0", 6, "v"), "not described as one"),
    "lacking": (storage("FloatStorage", "1", 6), "lacks "),
    "path": (storage("FloatStorage", "../0", 6), "lacks "),
}


@pytest.mark.parametrize("name", list(STORAGES))
def test_a_storage_that_is_none_is_refused(name, tmp_path):
    where, words = STORAGES[name]
    found = {"a": tensor(where, 0, (1,), (1,))}
    assert words in refusal(tmp_path / "x", archive(found, {"0": FLOATS.tobytes()}))
    assert words in refusal(tmp_path / "x", row(found, {"0": (6, FLOATS.tobytes())}))


RAW = FLOATS.tobytes()
STATE = {"a": ONE}
BIG = 1 << 23
ZEROS = {"a": tensor(storage("FloatStorage", "0", BIG), 0, (BIG,), (1,))}
OTHER = {
    "empty": (b"", "is empty"),
    "text": (b"<!DOCTYPE html>", "no file of torch.save; it begins with b'<!DOCTYP'"),
    "plain pickle": (dumped({"a": 1}), "is no file of torch.save"),
    "hostile plain pickle": (dumped(RUN), "asks for the global posix.system"),
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\n", "a git-lfs pointer"),
    "tar": (bytes(257) + b"ustar" + bytes(300), "is a tar archive, as torch before"),
    "foreign zip": (
        archive(STATE, {}).replace(b"data.pkl", b"data.txt"),
        "is a zip archive with 0 data.pkl",
    ),
    "torchscript": (
        archive(STATE, {"0": RAW}, more=[("code/a.py", b""), ("constants.pkl", b"")]),
        "is a TorchScript archive",
    ),
    "big zip": (
        archive(STATE, {"0": RAW}, more=[("byteorder", b"big")]),
        "written on a big-endian machine",
    ),
    "big row": (
        row(STATE, {"0": (6, RAW)}, machine={"little_endian": False}),
        "written on a big-endian machine",
    ),
    "machine": (row(STATE, {}, machine=3), "does not describe a machine"),
    "protocol": (row(STATE, {}, protocol=1002), "its protocol is not 1001"),
    "no list": (row(STATE, {}).removesuffix(dumped([])) + dumped(3), "no list of"),
    "surplus": (row(STATE, {"0": (6, RAW), "1": (0, b"")}), "storage 1 that no tensor"),
    "count": (row(STATE, {"0": (HUGE, RAW)}), "should have 6 elements"),
    "short": (
        row(STATE, {"0": (6, RAW[:9])}),
        "24 bytes, but the file ends after 9 of",
    ),
    "large pickle": (
        archive([Raw(b"N" * torch_pickle.LIMIT)], {}),
        "holds model/data.pkl of 4194",
    ),
    "long pickle": (
        row([Raw(b"N" * (1 << 20))], {}),
        "a pickle of more than 1048576 instructions",
    ),
    "endless pickle": (
        row(Raw(b"\x95" * 2 * torch_pickle.LIMIT), {}),
        "a pickle of more than 4194304 bytes",
    ),
    "zip bomb": (
        archive(ZEROS, {"0": bytes(4 * BIG)}, compression=zipfile.ZIP_DEFLATED),
        "unpack to 33554432: too many to believe",
    ),
    "bzip2": (
        archive(STATE, {"0": RAW}, compression=zipfile.ZIP_BZIP2),
        "neither stored nor deflated",
    ),
}


@pytest.mark.parametrize("name", list(OTHER))
def test_other_files_are_named(name, tmp_path):
    content, words = OTHER[name]
    assert words in refusal(tmp_path / "x", content)


def test_an_entry_named_twice_is_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        content = archive(STATE, {"0": RAW}, more=[("data/0", RAW)])
    assert "two entries of one name" in refusal(tmp_path / "x", content)


def test_a_flipped_byte_of_an_archive_is_found(tmp_path):
    content = bytearray(archive(STATE, {"0": RAW}))
    content[content.find(RAW) + 5] ^= 1
    assert "the checksum of the storage 0 is another" in refusal(
        tmp_path / "x", content
    )


def test_a_directory_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(ValueError, match="is a directory, not a file"):
        read(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read(tmp_path / "x")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_cut_and_flipped_byte_is_a_sentence_or_a_read(layout, tmp_path):
    content = (GOLDENS / layout).read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "x"
    for length in range(0, len(content), 50):
        refusal(path, content[:length])
    for at in range(0, len(content), 7):
        changed = bytearray(content)
        changed[at] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        with contextlib.suppress(ValueError):  # many bytes are padding or numbers
            read(path)


def test_a_pickle_of_every_protocol_since_two_is_read():
    found = {
        "text \u00e4": [1, -1, 70_000, 1 << 40, 0.5, None, True],
        "b": ((), (1, 2)),
    }
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        content = pickle.dumps(found, protocol=protocol)
        got = torch_pickle.read(content + b"more")
        assert got.found == found
        assert got.end == len(content)
