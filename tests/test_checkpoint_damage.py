# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that were damaged, interrupted, or did not fit on the disk."""

import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fulcra_jax.training.checkpoint import Checkpoints
from tests.small_disk import mounted

# Orbax leaves a coroutine of its own unawaited when it gives up on a damaged file.
pytestmark = pytest.mark.filterwarnings(
    "ignore:coroutine .* was never awaited:RuntimeWarning"
)

ROOT = pathlib.Path(__file__).parents[1]


def state(number):
    draw = np.random.default_rng(number).normal
    return {
        "a": jnp.asarray(draw(size=(40, 16)), jnp.float32),
        "b": jnp.asarray(draw(size=(64,)), jnp.bfloat16),
        "c": jnp.full((300,), 2.5 + number),
    }


def equal(found, want):
    return all(np.array_equal(found[name], leaf) for name, leaf in want.items())


def save(folder, steps, keep=5):
    with Checkpoints(folder, keep=keep) as saved:
        for number in steps:
            saved.save(number, state(number))


def data_files(folder):
    files = [path for path in (folder / "state" / "d").iterdir() if path.is_file()]
    assert files
    return files


def cut(folder):
    for path in data_files(folder):
        path.write_bytes(path.read_bytes()[:-40])


def empty_everything(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


def delete_data(folder):
    shutil.rmtree(folder / "state" / "d")


def flip(folder):
    for path in data_files(folder):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0x10
        path.write_bytes(content)


def delete_item(folder):
    shutil.rmtree(folder / "state")


def delete_record(folder):
    shutil.rmtree(folder / "record")


def change_record(folder):
    path = folder / "record" / "record.json"
    path.write_text(path.read_text().replace("float32", "float16", 1))


def empty_tree(folder):
    (folder / "state" / "_METADATA").write_bytes(b"")


def empty_shapes(folder):
    (folder / "state" / "array_metadatas" / "process_0").write_bytes(b"")


def other_content(folder):
    """Files without a fault, of another state: nothing but a fingerprint shows it."""
    shutil.rmtree(folder / "state")
    shutil.copytree(folder.parent / "1" / "state", folder / "state")


DAMAGES = [
    cut, empty_everything, delete_data, flip, delete_item, delete_record,
    change_record, empty_tree, empty_shapes, other_content,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_used(tmp_path, damage):
    save(tmp_path, [1, 2])
    damage(tmp_path / "2")
    left = sorted(path.name for path in (tmp_path / "2").rglob("*"))
    with Checkpoints(tmp_path) as saved:
        with pytest.warns(UserWarning, match="is damaged") as said:
            found = saved.restore(state(0))
        assert saved.latest_step() == 1
        assert equal(found, state(1))
        saved.save(2, state(7))
        saved.wait()
        assert equal(saved.restore(state(0)), state(7))
    assert len(said) == 1
    assert str(said[0].message).startswith(
        f"checkpoint: step 2 in {tmp_path} is damaged ("
    )
    assert str(said[0].message).endswith(
        "; it is now called damaged-2, and step 1 is used."
    )
    assert "\n" not in str(said[0].message)
    assert left == sorted(path.name for path in (tmp_path / "damaged-2").rglob("*"))


def test_the_first_leaf_that_differs_is_named(tmp_path):
    save(tmp_path, [1, 2])
    other_content(tmp_path / "2")
    with (
        Checkpoints(tmp_path) as saved,
        pytest.warns(UserWarning, match=r"is damaged \(a is not what was saved\)"),
    ):
        saved.restore(state(0))


def test_several_are_damaged_and_names_are_taken(tmp_path):
    (tmp_path / "damaged-3").mkdir()
    save(tmp_path, [1, 2, 3])
    flip(tmp_path / "2")
    cut(tmp_path / "3")
    with Checkpoints(tmp_path) as saved:
        with pytest.warns(UserWarning, match="is damaged") as said:
            assert equal(saved.restore(state(0)), state(1))
    assert [str(one.message).split("now called ")[1] for one in said] == [
        "damaged-2, and step 1 is used.",
        "damaged-3-2, and step 1 is used.",
    ]
    assert {"1", "damaged-2", "damaged-3", "damaged-3-2"} <= set(os.listdir(tmp_path))


def test_when_all_are_damaged_nothing_begins_anew(tmp_path):
    save(tmp_path, [1, 2])
    delete_item(tmp_path / "1")
    flip(tmp_path / "2")
    for _ in range(2):  # nor when asked again
        with Checkpoints(tmp_path) as saved:
            with pytest.raises(
                ValueError,
                match=r"step 2 in .* cannot be read \(.*\), and neither can 1 before",
            ):
                saved.restore(state(0))
            assert saved.latest_step() == 2
    shutil.rmtree(tmp_path / "1")
    with Checkpoints(tmp_path) as saved:
        with pytest.raises(ValueError, match="and there is no other; put a copy in"):
            saved.newest(state(0))


def test_a_damaged_step_that_was_asked_for_is_an_error(tmp_path):
    save(tmp_path, [1, 2])
    flip(tmp_path / "2")
    with Checkpoints(tmp_path) as saved:
        with pytest.raises(ValueError, match=r"step 2 in .* ask for another step"):
            saved.restore(state(0), step=2)
        assert equal(saved.restore(state(0), step=1), state(1))
    assert (tmp_path / "2").is_dir()


def test_a_file_that_may_not_be_read_is_no_damage(tmp_path, monkeypatch):
    save(tmp_path, [1, 2])

    def refuse(_):
        raise PermissionError("not yours")

    monkeypatch.setattr("fulcra_jax.training.record.read", refuse)
    with Checkpoints(tmp_path) as saved:
        with pytest.raises(PermissionError, match="not yours"):
            saved.restore(state(0))
    assert (tmp_path / "2").is_dir()


def test_the_damaged_best_is_forgotten(tmp_path):
    with Checkpoints(tmp_path, keep=2, best="f1") as saved:
        for number, figure in ((1, 0.1), (2, 0.9)):
            saved.save(number, state(number), {"f1": figure})
    change_record(tmp_path / "2")
    with Checkpoints(tmp_path, keep=2, best="f1") as saved:
        assert saved.best_step() == 1
        with pytest.warns(UserWarning, match="its record is not what was saved"):
            saved.restore(state(0))
        for number in (3, 4, 5):
            saved.save(number, state(number))
        saved.wait()
        assert saved.best_step() == 1
    assert {"1", "4", "5", "damaged-2"} == set(os.listdir(tmp_path))


@pytest.mark.slow
def test_no_flipped_byte_goes_unseen(tmp_path):
    """Whatever byte it is: the state as it was saved, or the one before."""
    save(tmp_path / "whole", [1, 2])
    generator = np.random.default_rng(0)
    files = sorted(p for p in (tmp_path / "whole" / "2").rglob("*") if p.is_file())
    seen = 0
    for trial in range(3 * len(files)):
        folder = tmp_path / f"trial-{trial}"
        shutil.copytree(tmp_path / "whole", folder)
        path = folder / files[trial % len(files)].relative_to(tmp_path / "whole")
        content = bytearray(path.read_bytes())
        if not content:
            continue
        content[generator.integers(len(content))] ^= 1 << generator.integers(8)
        path.write_bytes(content)
        with Checkpoints(folder) as saved, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = saved.restore(state(0))
            whole = saved.latest_step() == 2
        assert equal(found, state(2 if whole else 1)), path
        seen += not whole
    assert seen > len(files) / 2


@pytest.fixture
def small_disk(tmp_path):
    with mounted(tmp_path / "disk") as disk:
        yield disk


def noise(count):
    """Nothing that could be compressed."""
    bits = np.random.default_rng(count).integers(0, 2**32, count, np.uint32)
    return {"a": jnp.asarray(bits)}


FULL = (
    r"step 2 could not be written to .*\(the disk is full\); checkpoint 1 remains, "
    r"free space and resume\.$"
)


@pytest.mark.parametrize("when", ["wait", "save", "exit", "restore"])
def test_a_full_disk_leaves_the_one_before(small_disk, when):
    small, large = noise(20_000), noise(600_000)
    with Checkpoints(small_disk / "c") as saved:
        saved.save(1, small)

    def fill():
        with Checkpoints(small_disk / "c") as saved:
            saved.save(2, large)
            match when:
                case "wait":
                    saved.wait()
                case "save":
                    saved.save(3, small)
                case "restore":
                    saved.restore(small)

    with pytest.raises(OSError, match=FULL):
        fill()
    assert not (small_disk / "c" / "2").exists()
    with Checkpoints(small_disk / "c") as saved:
        assert saved.latest_step() == 1
        assert equal(saved.restore(small), small)
        saved.save(2, small)
    assert sorted(os.listdir(small_disk / "c")) == ["1", "2"]


def test_after_a_full_disk_the_same_manager_goes_on(small_disk):
    small, large = noise(20_000), noise(600_000)
    with Checkpoints(small_disk / "c", keep=1) as saved:
        saved.save(1, small)
        saved.save(2, large)
        with pytest.raises(OSError, match=FULL):
            saved.wait()
        saved.wait()  # said once
        assert saved.latest_step() == 1
        assert equal(saved.restore(small), small)
        saved.save(2, small)
        saved.wait()
        assert saved.latest_step() == 2
    assert os.listdir(small_disk / "c") == ["2"]


def test_a_full_disk_does_not_hide_what_ended_the_block(small_disk):
    def fill():
        with Checkpoints(small_disk / "c") as saved:
            saved.save(1, noise(600_000))
            raise FloatingPointError("NaN at step 2")

    with pytest.raises(FloatingPointError, match=r"^NaN at step 2") as raised:
        fill()
    assert str(raised.value) == "NaN at step 2"
    (note,) = raised.value.__notes__
    assert note.endswith(
        "(the disk is full); no checkpoint remains, free space and resume."
    )


def test_a_write_that_fails_otherwise_gives_its_reason(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Checkpoints(tmp_path) as saved:
        saved.save(1, noise(20_000))
        saved.wait()
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        try:
            saved.save(2, noise(100_000))
            with pytest.raises(
                OSError,
                match=r"step 2 could not be .*; checkpoint 1 remains, resume when that",
            ):
                saved.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert equal(saved.restore(noise(20_000)), noise(20_000))


def test_ctrl_c_finishes_the_save_that_was_begun(tmp_path):
    def interrupted():
        with Checkpoints(tmp_path) as saved:
            saved.save(1, state(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == ["1"]


KILLED = """
import os, sys, time
import jax.numpy as jnp
from fulcra_jax.training.checkpoint import Checkpoints
from tests.small_disk import mounted

saved = Checkpoints(sys.argv[1]).__enter__()
saved.save(1, {"a": jnp.arange(4.0)})
saved.wait()
# A checkpoint appears by a rename; from here on there is none.
os.rename = os.replace = lambda *_, **__: time.sleep(600)
saved.save(2, {"a": jnp.zeros(4)})
print("begun", flush=True)
saved.wait()
"""


def test_a_killed_save_leaves_the_one_before(tmp_path):
    words = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            deadline = time.monotonic() + 60
            while not list(tmp_path.glob("2.orbax*")):
                assert time.monotonic() < deadline, "no temporary folder appeared"
                time.sleep(0.01)
        finally:
            process.send_signal(signal.SIGKILL)
    assert list(tmp_path.glob("2.orbax*"))
    with Checkpoints(tmp_path) as saved:
        assert saved.latest_step() == 1
        like = {"a": jax.ShapeDtypeStruct((4,), jnp.float32)}
        np.testing.assert_array_equal(saved.restore(like)["a"], [0.0, 1.0, 2.0, 3.0])
        saved.save(2, {"a": jnp.ones(4)})
    assert sorted(os.listdir(tmp_path)) == ["1", "2"]
