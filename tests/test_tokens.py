# SPDX-License-Identifier: Apache-2.0
"""The cache of tokens: what comes out is what went in, or it is made anew."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from fulcra_jax.data import batches, source, tokens
from fulcra_jax.data.tokenizer import Encoded, PairTokenizer

HERE = pathlib.Path(__file__).parent


def made(N=9, seed=0):
    draws = np.random.default_rng(seed)
    lengths = draws.integers(1, 12, N)
    ids = [draws.integers(0, 200_000, n).astype(np.int32) for n in lengths]
    types = [draws.integers(0, 2, n).astype(np.int32) for n in lengths]
    labels = draws.random((N, 10)).astype(np.float32)
    return batches.Examples(Encoded(ids, types), labels, draws.random((N, 10)) < 0.5)


def check(found, examples):
    assert len(found) == len(examples)
    np.testing.assert_array_equal(found.labels, examples.labels)
    np.testing.assert_array_equal(found.where, examples.where)
    order = np.arange(len(examples))[::-1]
    for row, (ids, types) in zip(order, found.read(order.tolist()), strict=True):
        assert found.lengths[row] == len(ids)
        np.testing.assert_array_equal(ids, examples.encoded.ids[row])
        np.testing.assert_array_equal(types, examples.encoded.types[row])


def never():
    raise AssertionError("the cache should have served this")


def test_a_second_call_reads_what_the_first_wrote(tmp_path):
    examples = made()
    check(tokens.cached(tmp_path, "a", lambda: examples), examples)
    check(tokens.cached(tmp_path, "a", never), examples)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    check(tokens.Tokens.in_memory(examples), examples)
    check(tokens.cached(tmp_path, "none", lambda: made(0)), made(0))


def spoil_records(folder):
    path = folder / tokens.RECORDS
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def spoil_arrays(folder):
    (folder / tokens.ARRAYS).write_bytes(b"")


def spoil_about(folder):
    (folder / tokens.ABOUT).write_text("[]")


def other_version(folder):
    about = json.loads((folder / tokens.ABOUT).read_text())
    (folder / tokens.ABOUT).write_text(json.dumps(about | {"version": 0}))


def lose_records(folder):
    (folder / tokens.RECORDS).unlink()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_records, "tokens.array_record is damaged"),
        (spoil_arrays, "arrays.npz is damaged"),
        (spoil_about, "about.json is damaged"),
        (other_version, "is of version 0; it should be 1"),
        (lose_records, "there is no tokens.array_record"),
    ],
)
def test_a_damaged_copy_is_made_anew_with_a_word(tmp_path, spoil, reason):
    examples, said = made(), []
    tokens.cached(tmp_path, "a", lambda: examples)
    spoil(tmp_path / "a")
    with pytest.raises((ValueError, FileNotFoundError), match=reason):
        tokens.open_tokens(tmp_path / "a")
    check(tokens.cached(tmp_path, "a", lambda: examples, said.append), examples)
    assert len(said) == 1
    assert reason in said[0]
    check(tokens.cached(tmp_path, "a", never), examples)


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    def broken():
        examples = made()
        examples.encoded.ids[3] = "no ids"
        return examples

    with pytest.raises(ValueError, match="no ids"):
        tokens.cached(tmp_path, "a", broken)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot be written to .*--text.cache DIR"):
        tokens.cached(tmp_path / "file", "a", made)


@pytest.mark.slow
def test_processes_that_write_at_once_do_no_harm(tmp_path):
    code = (
        "import sys; sys.path[:0] = ['.', 'tests'];"
        "from test_tokens import made, check; from fulcra_jax.data import tokens;"
        "check(tokens.cached(sys.argv[1], 'a', lambda: made(400)), made(400))"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    both = [subprocess.Popen(words, cwd=HERE.parent) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    check(tokens.open_tokens(tmp_path / "a"), made(400))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_key_tells_rows_tokenizers_and_lengths_apart():
    texts = [row.response for row in source.sample_rows(0, 30)]
    one, other = (PairTokenizer.train(texts, size) for size in (300, 320))
    keys = {
        tokens.key_of("rows", one, 64),
        tokens.key_of("other rows", one, 64),
        tokens.key_of("rows", one, 65),
        tokens.key_of("rows", other, 64),
    }
    assert len(keys) == 4
    assert tokens.key_of("rows", PairTokenizer.train(texts, 300), 64) in keys
