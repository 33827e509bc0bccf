# SPDX-License-Identifier: Apache-2.0
"""Storages of torch's files that lie, and what tensors do with them."""

import zipfile

import numpy as np
import pytest
from test_torch_file import FLOATS, ONE, read, refusal
from torch_files import archive, row, storage, tensor

from fulcra_jax.convert import torch_file, torch_parts

TWICE = {
    "numel": ("FloatStorage", 4_000_000, "has 6 elements of <f4 in one place and 4000"),
    "fewer": ("FloatStorage", 5, "and 5 of <f4 in another"),
    "dtype": ("LongStorage", 6, "and 6 of <i8 in another"),
}


@pytest.mark.parametrize("name", list(TWICE))
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_storage_described_in_two_ways_is_refused(name, compression, tmp_path):
    kind, numel, words = TWICE[name]
    other = tensor(storage(kind, "0", numel), 0, (numel,), (1,))
    raw = FLOATS.tobytes()
    for found in ({"a": ONE, "b": other}, {"a": ONE, "b": [storage(kind, "0", numel)]}):
        content = archive(found, {"0": raw}, compression=compression)
        assert words in refusal(tmp_path / "x", content)
        assert words in refusal(tmp_path / "x", row(found, {"0": (6, raw)}))


def test_two_views_of_a_storage_are_read(tmp_path):
    found = {
        name: tensor(storage("FloatStorage", "0", 6, ("v", start, 3)), 0, (3,), (1,))
        for name, start in (("a", 0), ("b", 3))
    }
    (tmp_path / "x").write_bytes(row(found, {"0": (6, FLOATS.tobytes())}))
    assert read(tmp_path / "x")["b"].tolist() == [3.0, 4.0, 5.0]


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_no_byte_beyond_a_storage_is_read(compression, tmp_path):
    """Whatever the pickle's checks let through."""
    content = archive({"a": ONE}, {"0": FLOATS.tobytes()}, compression=compression)
    (tmp_path / "x").write_bytes(content)
    far = torch_parts.Storage("<f4", "0", 100, 0, 100)
    with torch_file.open_file(tmp_path / "x") as opened:
        opened._tensors["b"] = torch_parts.Tensor(far, 3, (4,), (1,), 4)
        with pytest.raises(
            ValueError, match=r"beyond the 24 bytes of its storage 0\.$"
        ):
            opened.tensor("b")


def test_a_tensor_owns_its_memory(tmp_path):
    where = storage("FloatStorage", "0", 6)
    found = {"a": ONE, "b": tensor(where, 0, (3, 2), (1, 3))}
    (tmp_path / "x").write_bytes(archive(found, {"0": FLOATS.tobytes()}))
    for got in read(tmp_path / "x").values():
        while got.base is not None:
            assert isinstance(got.base, np.ndarray)
            got = got.base
        assert got.nbytes == 24


@pytest.mark.parametrize("metadata", [{"neg": True}, {"conj": True}, {"neg": False}, 3])
def test_a_tensor_with_a_negative_bit_is_refused(metadata, tmp_path):
    where = storage("FloatStorage", "0", 6)
    found = {"a": tensor(where, 0, (6,), (1,), more=(metadata,))}
    said = refusal(tmp_path / "x", archive(found, {"0": FLOATS.tobytes()}))
    assert "call its resolve_neg() or resolve_conj() before saving" in said
    assert f"({next(iter(metadata)) if isinstance(metadata, dict) else 'odd'})" in said


@pytest.mark.parametrize("metadata", [{}, None])
def test_empty_metadata_are_none(metadata, tmp_path):
    where = storage("FloatStorage", "0", 6)
    found = {"a": tensor(where, 0, (6,), (1,), more=(metadata,))}
    (tmp_path / "x").write_bytes(archive(found, {"0": FLOATS.tobytes()}))
    assert read(tmp_path / "x")["a"].tolist() == FLOATS.tolist()
