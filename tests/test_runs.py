# SPDX-License-Identifier: Apache-2.0
"""What befalls the folder of a run: a full disk, another process, an export."""

import json
import os
import pathlib
import shutil
import signal
import sys

import jax
import pytest

from experiments import export, rundir
from experiments import train as script
from fulcra_jax.training import ceiling, checkpoint, dashboards, hosts
from tests.small_disk import mounted
from tests.test_profile import steps_in

pytestmark = pytest.mark.usefixtures("one_device", "quick_ceiling")
SMALL = [
    "debug", "--source.train", "48", "--source.dev", "16", "--source.test", "16",
    "--steps", "12", "--save-every", "3", "--log-every", "1", "--text.cache", "",
]  # fmt: skip


@pytest.fixture(scope="module")
def quick_ceiling():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ceiling, "matmul_ceiling", lambda _: 1e12)
        yield


@pytest.fixture(scope="module")
def finished(one_device, quick_ceiling, tmp_path_factory):
    """A small run, of which two steps were traced."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    assert script.main([*SMALL, "--run", str(run), "--profile", "2"]) == 0
    return run


@pytest.fixture
def copy(finished, tmp_path):
    return pathlib.Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.fixture
def small_disk(tmp_path):
    with mounted(tmp_path / "disk") as disk:
        yield disk


def fill(disk, left):
    """Leaves so many bytes of the disk."""
    found = os.statvfs(disk)
    size = found.f_bavail * found.f_frsize - left
    (disk / "filling").write_bytes(b"x" * size)
    return disk / "filling"


def refused(main, words, capsys):
    """The one sentence that a command ends with."""
    capsys.readouterr()
    assert main(words) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1, said
    return said


def weights(run):
    return (run / "model" / "model.safetensors").read_bytes()


def test_a_profile_is_of_the_steps_that_were_asked_for(finished):
    # The step that compiles and the one after it are not among them.
    assert steps_in(finished / "profile") == [2, 3]


def test_no_step_begins_that_a_kill_would_make_too_dear(tmp_path, monkeypatch):
    run, hands, behind = tmp_path / "run", hosts.Vote.hands, []

    def look(*words):  # once before each step
        whole = [int(path.name) for path in (run / "checkpoints").iterdir()
                 if path.name.isdigit()]  # fmt: skip
        behind.append(len(behind) + 1 - max(whole, default=0))
        return hands(*words)

    monkeypatch.setattr(hosts.Vote, "hands", look)
    words = ["--run", str(run), "--steps", "30", "--save-every", "5"]
    assert script.main([*SMALL, *words]) == 0
    assert len(behind) == 30
    assert max(behind) == 5


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_good_checkpoint(
    finished, small_disk, monkeypatch, capsys
):
    run, save = small_disk / "run", checkpoint.Checkpoints.save

    def fill_first(self, step, *rest):
        if step == 6:
            self.wait()  # for what is still being written of step 3
            fill(small_disk, 20 * 1024)
        save(self, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoints, "save", fill_first)
        said = refused(script.main, [*SMALL, "--run", str(run), "--keep", "1"], capsys)
    assert "(the disk is full); checkpoint 3 remains, free space and resume" in said
    (small_disk / "filling").unlink()
    assert script.main(["--resume", str(run)]) == 0
    assert "resumed at step 3" in capsys.readouterr().out
    assert weights(run) == weights(finished)


@pytest.mark.parametrize("left", [0, 4096, 20 * 1024, 60 * 1024])
def test_a_run_that_does_not_fit_on_the_disk_is_not_begun(small_disk, left, capsys):
    run = small_disk / "run"
    filling = fill(small_disk, left)
    said = refused(script.main, [*SMALL, "--run", str(run)], capsys)
    assert "No space left on device" in said
    assert list(small_disk.iterdir()) == [filling]


def test_an_export_that_does_not_fit_leaves_nothing(finished, small_disk, capsys):
    filling = fill(small_disk, 60 * 1024)
    out = small_disk / "out"
    refused(export.main, [str(finished), "--out", str(out)], capsys)
    assert list(small_disk.iterdir()) == [filling]
    filling.unlink()
    assert export.main([str(finished), "--out", str(out), "--step", "12"]) == 0
    assert (out / "model.safetensors").read_bytes() == weights(finished)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["RUN", "--out", "OUT", "--step", "7"], "holds no step 7; it has 9, 12"),
        (["OUT", "--out", "NEW"], "is no run: it holds no config.py and run.json"),
        (["RUN", "--out", "RUN"], "exists and is not empty"),
        (["RUN", "--out", "TAKEN"], "taken.partial exists and is not empty"),
    ],
)
def test_an_export_that_is_refused_leaves_nothing(
    finished, tmp_path, words, message, capsys
):
    (tmp_path / "taken.partial").mkdir()
    (tmp_path / "taken.partial" / "mine").touch()
    places = {"RUN": finished, "OUT": tmp_path / "out", "NEW": tmp_path / "new"}
    places["TAKEN"] = tmp_path / "taken"
    words = [str(places.get(word, word)) for word in words]
    assert message in refused(export.main, words, capsys)
    assert [path.name for path in tmp_path.rglob("*")] == ["taken.partial", "mine"]


def test_an_export_of_a_step_below_the_newest_is_a_usage_error(finished, capsys):
    with pytest.raises(SystemExit) as stopped:
        export.main([str(finished), "--out", "x", "--step", "-5"])
    assert stopped.value.code == 2
    assert "step is -5; it should be that of a" in capsys.readouterr().err


def test_an_export_makes_no_folder_in_a_run_without_checkpoints(copy, capsys):
    shutil.rmtree(copy / "checkpoints")
    words = [str(copy), "--out", str(copy.with_name("out"))]
    assert "holds no whole checkpoint" in refused(export.main, words, capsys)
    assert not (copy / "checkpoints").exists()


def test_a_run_in_use_is_refused_and_can_be_exported(copy, tmp_path, capsys):
    with rundir.claimed(copy):
        said = refused(script.main, ["--resume", str(copy)], capsys)
        assert "copy is in use: another process trains there" in said
        half = copy / "checkpoints" / "15.orbax-checkpoint-tmp"
        half.mkdir()
        assert export.main([str(copy), "--out", str(tmp_path / "out")]) == 0
        assert half.is_dir()
    with rundir.claimed(copy):  # free again
        pass


def change(path):
    path.write_text(path.read_text().replace("[MASK]", "[MUSK]"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change, "tokenizer/tokenizer.json has been changed since the run was begun"),
        (pathlib.Path.unlink, "tokenizer/tokenizer.json is missing since the run was"),
    ],
)
def test_another_tokenizer_is_refused_on_resume(copy, spoil, message, capsys):
    spoil(copy / "tokenizer" / "tokenizer.json")
    shutil.rmtree(copy / "model")
    assert message in refused(script.main, ["--resume", str(copy)], capsys)
    assert not (copy / "model").exists()


def test_a_run_of_version_0_1_has_no_checksum_of_its_tokenizer(copy, capsys):
    begun = json.loads((copy / "run.json").read_text())
    del begun["tokenizer_sha256"]
    (copy / "run.json").write_text(json.dumps(begun))
    assert script.main(["--resume", str(copy)]) == 0
    assert "already finished at 12 steps" in capsys.readouterr().out


def test_a_signal_is_heard_by_a_run_that_saves_at_every_step(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(
        script, "_introduce", lambda *_: os.kill(os.getpid(), signal.SIGTERM)
    )
    run = tmp_path / "run"
    assert script.main([*SMALL, "--run", str(run), "--save-every", "1"]) == 0
    assert "stopped at step 1 of 12; resume with" in capsys.readouterr().err
    assert rundir.has_checkpoint(run)


def test_a_device_without_memory_is_one_sentence(tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise jax.errors.JaxRuntimeError(text)

    monkeypatch.setattr(script, "_train", fail)
    words = [*SMALL, "--run", str(tmp_path / "run")]
    text = "RESOURCE_EXHAUSTED: Out of memory allocating 7 bytes."
    said = refused(script.main, words, capsys)
    assert "a device has no memory left (RESOURCE_EXHAUSTED: Out of memory a" in said
    text = "INTERNAL: something else"  # a mistake, and keeps its traceback
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        script.main(words)


@pytest.mark.parametrize("writer", ["tensorboard", "wandb"])
def test_a_writer_without_its_library_is_one_sentence(
    writer, tmp_path, monkeypatch, capsys
):
    library = dashboards.LIBRARIES[writer]
    monkeypatch.setitem(sys.modules, library, None)
    run = tmp_path / "run"
    said = refused(
        script.main, [*SMALL, "--run", str(run), "--writers", writer], capsys
    )
    assert f"writers has {writer}; dashboards.check: {library} is not inst" in said
    assert not run.exists()
