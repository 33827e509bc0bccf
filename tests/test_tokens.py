# SPDX-License-Identifier: Apache-2.0
"""A cache of tokens: the same as what was made, or nothing."""

import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from token_examples import examples

from fulcra_jax.data import batches, tokens
from fulcra_jax.data.tokenizer import Encoded, PairTokenizer

ROOT = pathlib.Path(__file__).parents[1]
KEY = "0123abcd"
FILES = (
    "tokens.array_record",
    "lengths.npy",
    "labels.npy",
    "where.npy",
    "meta.json",
)
DATA = examples(50)
TEXTS = [f"the quick brown fox number {i} jumps over the lazy dog" for i in range(20)]


def never():
    raise AssertionError("what is cached is not made again")


def same(found, data):
    """Whether tokens are those of the examples, bit for bit."""
    assert len(found) == len(data)
    every = np.arange(len(data))
    for (ids, types), *want in zip(found.read(every), *data.encoded, strict=True):
        np.testing.assert_array_equal(ids, want[0])
        np.testing.assert_array_equal(types, want[1])
        assert ids.dtype == types.dtype == np.int32
    for name in ("labels", "where"):
        np.testing.assert_array_equal(getattr(found, name), getattr(data, name))
        assert getattr(found, name).dtype == getattr(data, name).dtype
    assert found.lengths.tolist() == [len(ids) for ids in data.encoded.ids]
    assert found.lengths.dtype == np.int32


def names(root):
    return sorted(path.name for path in root.iterdir())


def run(code, *arguments, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(code)
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(script), *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_warm_is_cold_is_what_was_made(tmp_path):
    same(tokens.Tokens.in_memory(DATA), DATA)
    same(tokens.cached(tmp_path / "new" / "root", KEY, lambda: DATA), DATA)
    same(tokens.cached(tmp_path / "new" / "root", KEY, never), DATA)
    same(tokens.open_tokens(tmp_path / "new" / "root" / KEY), DATA)
    assert names(tmp_path / "new" / "root") == [KEY]


def test_any_rows_are_read_in_any_order_and_more_than_once(tmp_path):
    rows = np.array([7, 49, 0, 7])
    for found in (
        tokens.cached(tmp_path, KEY, lambda: DATA),
        tokens.Tokens.in_memory(DATA),
    ):
        ids, types = found.joined(rows)
        for array, texts in ((ids, DATA.encoded.ids), (types, DATA.encoded.types)):
            want = np.concatenate([texts[row] for row in rows])
            np.testing.assert_array_equal(array, want)
        assert found.read(np.zeros(0, int)) == []
        for row, shown in ((50, "50"), (-1, "-1")):
            with pytest.raises(ValueError, match=rf"rows holds {shown}; it should be"):
                found.read(np.array([row]))


def test_parts_are_written_as_they_come_and_make_one_cache(tmp_path):
    whole = examples(3000, longest=9)

    def parts():
        for start, end in ((0, 1), (1, 1500), (1500, 3000)):
            yield batches.Examples(
                Encoded(*(texts[start:end] for texts in whole.encoded)),
                whole.labels[start:end],
                whole.where[start:end],
            )

    same(tokens.cached(tmp_path, KEY, parts), whole)
    tokens.cached(tmp_path, "ffffffff", lambda: whole)
    for name in ("lengths.npy", "labels.npy", "where.npy"):
        one, other = (tmp_path / key / name for key in (KEY, "ffffffff"))
        assert one.read_bytes() == other.read_bytes()


def test_threads_read_at_a_time(tmp_path):
    found = tokens.cached(tmp_path, KEY, lambda: DATA)
    draws = np.random.default_rng(0).integers(0, 50, (200, 16))

    def firsts(rows):
        return [int(ids[0]) - 100 for ids, _ in found.read(rows)]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(firsts, draws)) == draws.tolist()


def test_what_is_open_stays_readable_though_it_is_moved_away(tmp_path):
    found = tokens.cached(tmp_path, KEY, lambda: DATA)
    again = tokens.open_tokens(tmp_path / KEY)
    shutil.rmtree(tmp_path / KEY)
    same(found, DATA)
    same(again, DATA)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [flip, cut, os.remove], ids=lambda f: f.__name__)
def test_a_damaged_cache_is_never_used(name, damage, tmp_path):
    tokens.cached(tmp_path, KEY, lambda: DATA)
    if name == "meta.json":
        # Not its white space, which may be damaged without harm.
        meta = tmp_path / KEY / name
        meta.write_text(json.dumps(json.loads(meta.read_text()), separators=(",", ":")))
    damage(tmp_path / KEY / name)
    blamed = ".*" if name == "meta.json" else name
    with pytest.raises(ValueError, match=rf"{KEY} is damaged: {blamed}"):
        tokens.open_tokens(tmp_path / KEY)
    with pytest.warns(UserWarning, match=r"^tokens.*\. It is written anew\.$") as said:
        found = tokens.cached(tmp_path, KEY, lambda: DATA)
    assert len(said) == 1
    same(found, DATA)
    same(tokens.cached(tmp_path, KEY, never), DATA)
    assert names(tmp_path) == [KEY]


def test_a_cache_of_other_sizes_than_its_arrays_is_damaged(tmp_path):
    """Checksums hold, contents do not fit together."""
    tokens.cached(tmp_path, KEY, lambda: DATA)
    tokens.cached(tmp_path, "ffffffff", lambda: examples(49))
    metas = [tmp_path / key / "meta.json" for key in (KEY, "ffffffff")]
    ours, theirs = (json.loads(path.read_text()) for path in metas)
    for name in FILES[:1], FILES[1:4]:
        mixed = dict(ours["files"])
        for file in name:
            mixed[file] = theirs["files"][file]
        folder = tmp_path / f"mixed-{name[0]}"
        shutil.copytree(tmp_path / KEY, folder)
        for file in name:
            shutil.copy(tmp_path / "ffffffff" / file, folder / file)
        (folder / "meta.json").write_text(json.dumps(ours | {"files": mixed}))
        with pytest.raises(ValueError, match=r"damaged: (its arrays|tokens\.array_re)"):
            tokens.open_tokens(folder)


def test_a_file_in_the_place_of_a_cache_is_replaced(tmp_path):
    (tmp_path / KEY).write_text("no folder")
    with pytest.warns(UserWarning, match="is damaged: it has no meta.json"):
        same(tokens.cached(tmp_path, KEY, lambda: DATA), DATA)
    assert names(tmp_path) == [KEY]


RACE = """
import pathlib, sys, time
import numpy as np
from token_examples import examples
from fulcra_jax.data import tokens
root, own, other = map(pathlib.Path, sys.argv[1:4])

def make():
    own.touch()
    while not other.exists():
        time.sleep(0.01)
    return examples(50)

found = tokens.cached(root, "0123abcd", make)
print(int(found.joined(np.arange(50))[0].sum()))
"""


def test_two_processes_may_make_the_same_cache(tmp_path):
    ready = [tmp_path / name for name in "ab"]
    root = tmp_path / "root"
    both = [run(RACE, root, *pair, tmp_path=tmp_path) for pair in (ready, ready[::-1])]
    want = sum(int(ids.sum()) for ids in DATA.encoded.ids)
    for process in both:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, "")
        assert int(out) == want
    same(tokens.cached(root, KEY, never), DATA)
    assert names(root) == [KEY]


KILLED = """
import os, signal, sys
from token_examples import examples
from fulcra_jax.data import tokens

def make():
    yield examples(50)
    os.kill(os.getpid(), signal.SIGKILL)

tokens.cached(sys.argv[1], "0123abcd", make)
"""


def test_a_killed_writer_leaves_nothing_that_counts(tmp_path):
    root = tmp_path / "root"
    process = run(KILLED, root, tmp_path=tmp_path)
    process.communicate(timeout=120)
    assert process.returncode == -9
    (left,) = names(root)
    assert left.endswith(".partial")
    same(tokens.cached(root, KEY, lambda: DATA), DATA)
    # It might be a living writer's: it stays until it has been still for a day.
    assert names(root) == [left, KEY]
    yesterday = time.time() - 25 * 3600
    for path in (root / left, *(root / left).iterdir()):
        os.utime(path, (yesterday, yesterday))
    tokens.cached(root, "ffffffff", lambda: DATA)
    assert names(root) == [KEY, "ffffffff"]


def test_what_goes_wrong_while_making_is_said_and_leaves_nothing(tmp_path):
    def make():
        yield DATA
        raise FileNotFoundError("the rows are gone")

    with pytest.raises(FileNotFoundError, match=r"^the rows are gone$"):
        tokens.cached(tmp_path, KEY, make)
    assert names(tmp_path) == []


FULL = """
import resource, signal, sys
from token_examples import examples
from fulcra_jax.data import tokens
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), -1))
try:
    tokens.cached(sys.argv[1], "0123abcd", lambda: examples(2000))
except OSError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [100_000, 700_000])
def test_a_full_disk_is_one_sentence(limit, tmp_path):
    """A limit of file sizes stands for it; one for the records, one for an array."""
    pytest.importorskip("resource")
    root = tmp_path / "root"
    out, err = run(FULL, root, limit // 10, tmp_path=tmp_path).communicate(timeout=120)
    assert err == ""
    assert out.startswith(f"tokens.cached: {root}")
    assert "cannot be written to (" in out
    assert out.endswith("in a folder that can, on a disk with room.\n")
    assert out.count("\n") == 1
    assert names(root) == []


def test_a_place_that_cannot_be_written_to_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file cannot be written to \(.*\); the cache"):
        tokens.cached(tmp_path / "file", KEY, never)
    with pytest.raises(OSError, match=r"cannot be written to \(Not a directory\)"):
        tokens.cached(tmp_path / "file" / "below", KEY, never)


def test_what_cannot_be_read_is_one_sentence(tmp_path, monkeypatch):
    tokens.cached(tmp_path, KEY, lambda: DATA)

    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pathlib.Path, "read_bytes", denied)
    with pytest.raises(OSError, match=rf"{KEY} cannot be read \(Permission denied\)\."):
        tokens.cached(tmp_path, KEY, never)


def test_a_missing_cache_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none does not exist; tokens\.cached"):
        tokens.open_tokens(tmp_path / "none")


@pytest.mark.parametrize(
    "key", ["", "abc", "../../etc", "0123ABCD", "g" * 64, KEY + "\n"]
)
def test_a_key_that_is_none_is_refused(key, tmp_path):
    with pytest.raises(ValueError, match="it should be 8 to 128 hexadecimal digits"):
        tokens.cached(tmp_path, key, never)


def spoilt(**fields):
    """Three examples of which one is not."""
    ids, types = [np.array([1, 2, 3])] * 3, [np.array([0, 0, 1])] * 3
    ids[1], types[1] = fields.get("ids", ids[1]), fields.get("types", types[1])
    labels = np.zeros((fields.get("n", 3), 10), np.float32)
    return batches.Examples(Encoded(ids, types), labels, labels == 0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (spoilt(ids=np.zeros(0, int), types=np.zeros(0, int)), "example 1 has 0 ids"),
        (spoilt(types=np.zeros(2, int)), "example 1 has 3 ids and 2 types"),
        (spoilt(n=2), r"labels has shape \(2, 10\), so N=2, but"),
    ],
)
def test_what_is_no_example_is_named(data, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        tokens.cached(tmp_path, KEY, lambda: data)
    with pytest.raises(ValueError, match=message):
        tokens.Tokens.in_memory(data)
    assert names(tmp_path) == []


def test_what_cannot_be_stored_is_refused(tmp_path):
    for data, message in (
        (spoilt(ids=np.array([1, 2**31, 3])), "ids of text 1 hold 2147483648"),
        (spoilt(types=np.array([0, 256, 0])), r"types are in \[0, 256\]"),
        (spoilt(types=np.array([0, -1, 0])), r"types are in \[-1, 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            tokens.cached(tmp_path, KEY, lambda data=data: data)
    with pytest.raises(ValueError, match="there is no example to store"):
        tokens.cached(tmp_path, KEY, lambda: examples(0))
    assert names(tmp_path) == []


def test_a_key_changes_with_all_that_decides_the_content(tmp_path):
    tokenizer = PairTokenizer.train(TEXTS, 400)
    other = PairTokenizer.train(["other words " * 5, *TEXTS], 400)
    key = tokens.key_of("rows", tokenizer, 64)
    keys = {
        key,
        tokens.key_of("other rows", tokenizer, 64),
        tokens.key_of("rows", other, 64),
        tokens.key_of("rows", tokenizer, 65),
    }
    assert len(keys) == 4
    # A run that is resumed reads its tokenizer from its own folder.
    tokenizer.save(tmp_path, max_length=64)
    copy = PairTokenizer.load(tmp_path)
    assert tokens.key_of("rows", copy, 64) == key
    assert tokens.key_of("rows", PairTokenizer.train(TEXTS, 400), 64) == key


def test_importing_the_cache_and_the_feed_loads_no_tokenizer():
    code = """
import sys
import fulcra_jax.data.feed, fulcra_jax.data.tokens
assert not {"transformers", "tokenizers", "tensorflow", "flax"} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
