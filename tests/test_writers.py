# SPDX-License-Identifier: Apache-2.0
"""What the writers write, read back; and that a broken dashboard stops nothing."""

import errno
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import struct
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from fulcra_jax.training import dashboards, writers
from fulcra_jax.training.writers import JsonLines, Writers

needs_tensorboardx = pytest.mark.skipif(
    importlib.util.find_spec("tensorboardX") is None,
    reason="tensorboardX is not installed",
)
needs_wandb = pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None, reason="wandb is not installed"
)


def lines(path):
    # JSON proper has no NaN.
    def refuse(word):
        raise AssertionError(word)

    text = path.read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in text]


def test_a_line_has_time_step_split_and_the_figures(tmp_path):
    path = tmp_path / "metrics.jsonl"
    figures = {
        "loss": jnp.float32(0.5), "rows": np.int64(7), "f1": None,
        "nan": float("nan"), "inf": -np.inf,
    }  # fmt: skip
    JsonLines(path).write(3, "train", figures)
    JsonLines(path).write(4, "dev", {"f1": 0.25})
    first, second = lines(path)
    assert list(first)[:3] == ["time", "step", "split"]
    assert first.pop("time") <= second.pop("time")
    assert first == {
        "step": 3, "split": "train", "loss": 0.5, "rows": 7, "f1": None, "nan": None,
        "inf": None,
    }  # fmt: skip
    assert isinstance(first["rows"], int)
    assert second == {"step": 4, "split": "dev", "f1": 0.25}


def test_a_figure_does_not_take_the_place_of_the_step(tmp_path):
    with pytest.raises(ValueError, match=r"writers\.JsonLines: a figure is named step"):
        JsonLines(tmp_path / "a").write(3, "train", {"step": 4})
    assert not (tmp_path / "a").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_under_the_json_lines_stops_the_training():
    with (
        Writers([JsonLines("/dev/full")]) as all_writers,
        pytest.raises(OSError, match="No space left"),
    ):
        all_writers.write(1, "train", {"loss": 1.0})


def test_a_line_that_fits_in_part_is_no_line(tmp_path, monkeypatch):
    class Short:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def write(self, line):
            return len(line) - 1

    monkeypatch.setattr(pathlib.Path, "open", lambda *_, **__: Short())
    with pytest.raises(OSError, match="the line of step 9 does not fit into"):
        JsonLines(tmp_path / "a").write(9, "train", {})


def test_cut_keeps_whole_lines_up_to_the_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    kept = '{"step": 1, "x": 1}\n{"step": 2}\n'
    path.write_bytes(
        kept.encode()
        + b"[" * 10**5
        + b'\n[]\n{"step": "2"}\n{"step": 3}\n{"step": 2, "\xff\n{"ste'
    )
    writers.cut(path, 2)
    assert path.read_text() == kept
    writers.cut(path, 0)
    assert path.read_text() == ""
    writers.cut(tmp_path / "none", 2)
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]


class Broken:
    """A dashboard that fails at one of its calls."""

    def __init__(self, at):
        self.at, self.calls = at, []

    def _call(self, name):
        self.calls.append(name)
        if name == self.at:
            raise RuntimeError("the network\nis gone")

    def open(self):
        self._call("open")

    def write(self, step, split, figures):
        self._call("write")

    def close(self):
        self._call("close")


@pytest.mark.parametrize(
    ("at", "done", "calls"),
    [
        ("open", "opened", ["open", "close"]),
        ("write", "written", ["open", "write", "close"]),
        ("close", "closed", ["open", "write", "write", "close"]),
    ],
)
def test_a_broken_dashboard_is_dropped_with_one_sentence(tmp_path, at, done, calls):
    path, said, broken = tmp_path / "metrics.jsonl", [], Broken(at)
    with Writers([broken, JsonLines(path)], said.append) as all_writers:
        for step in (1, 2):
            all_writers.write(step, "train", {"loss": 1.0})
    assert [line["step"] for line in lines(path)] == [1, 2]
    assert broken.calls == calls
    assert said == [
        f"writers: Broken could not be {done} and is dropped "
        "(RuntimeError: the network is gone); training goes on."
    ]


def test_the_sentence_goes_to_stderr(capsys):
    with Writers([Broken("open")]):
        pass
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.startswith("writers: Broken could not be opened")


def test_what_was_opened_is_closed_when_the_json_lines_cannot_be(tmp_path):
    other = Broken("never")
    with pytest.raises(FileNotFoundError, match="none"):
        Writers([other, JsonLines(tmp_path / "none" / "a")]).__enter__()
    assert other.calls == ["open", "close"]


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(writers.jax, "process_index", lambda: 1)
    with Writers([JsonLines(tmp_path / "a")]) as all_writers:
        all_writers.write(1, "train", {"loss": 1.0})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("package", "make"),
    [
        ("tensorboardX", lambda: dashboards.TensorBoard("x")),
        ("wandb", lambda: dashboards.WeightsAndBiases("x", "n", {})),
    ],
)
def test_a_missing_library_is_one_sentence(package, make, monkeypatch):
    # None is found as if it were not installed.
    monkeypatch.setitem(sys.modules, package, None)
    want = rf'{package} is not installed; pip install "fulcra_jax\[watch\]" installs'
    with pytest.raises(ImportError, match=want):
        make()


# TensorBoard.


def events(folder):
    """Every event of every file, in the order of the files."""
    from tensorboardX.proto import event_pb2

    found = []
    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            found.append(event_pb2.Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def shown(folder):
    """Curve -> step -> number, as TensorBoard reads it: a start hides later steps."""
    found = {}
    for event in events(folder):
        if event.HasField("session_log"):
            assert event.session_log.status == event.session_log.START
            for curve in found.values():
                for step in [step for step in curve if step >= event.step]:
                    del curve[step]
        for entry in event.summary.value:
            if not entry.HasField("tensor"):
                curve = found.setdefault(entry.tag, {})
                assert event.step not in curve, "shown twice"
                curve[event.step] = entry.simple_value
    return found


@needs_tensorboardx
def test_tensorboard_reads_the_figures_and_the_configuration(tmp_path):
    board = dashboards.TensorBoard(tmp_path / "tb", "Config(\n    seed=1)")
    board.open()
    board.write(5, "train", {"loss": 0.5, "rate": float("nan"), "f1": None})
    board.write(5, "dev", {"macro_f1": 0.25})
    # On disk before it is closed: a kill loses nothing.
    assert shown(tmp_path / "tb") == {
        "train/loss": {5: 0.5},
        "dev/macro_f1": {5: 0.25},
    }
    board.close()
    assert events(tmp_path / "tb")[0].file_version == "brain.Event:2"
    texts = [
        entry.tensor.string_val[0].decode()
        for event in events(tmp_path / "tb")
        for entry in event.summary.value
        if entry.HasField("tensor")
    ]
    assert texts == ["    Config(\n        seed=1)"]


@needs_tensorboardx
def test_a_resumed_run_shows_no_step_twice(tmp_path):
    for begun, steps in ((0, (1, 2, 3, 4)), (2, (3, 4, 5))):
        board = dashboards.TensorBoard(tmp_path, begun=begun)
        board.open()
        for step in steps:
            board.write(step, "train", {"loss": begun + step / 8})
        board.close()
    assert shown(tmp_path) == {
        "train/loss": {1: 0.125, 2: 0.25, 3: 2.375, 4: 2.5, 5: 2.625}
    }


@needs_tensorboardx
def test_a_full_disk_under_tensorboard_stops_nothing(tmp_path, monkeypatch):
    from tensorboardX import event_file_writer

    board, said = dashboards.TensorBoard(tmp_path), []

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with Writers([board], said.append) as all_writers:
        with monkeypatch.context() as patch:
            patch.setattr(event_file_writer.EventsWriter, "flush", full)
            # tensorboardX's own writer would block at the eleventh.
            for step in range(40):
                all_writers.write(step, "train", {"loss": 1.0})
        board.close()
    assert len(said) == 1
    assert "TensorBoard could not be written and is dropped (OSError" in said[0]


# Weights & Biases.


class FakeRun:
    def __init__(self, words):
        self.words, self.step, self.logged, self.finished = words, 0, [], False

    def log(self, figures, step):
        self.logged.append((step, figures))

    def finish(self):
        self.finished = True


@pytest.fixture
def fake_wandb(monkeypatch):
    fake = types.ModuleType("wandb")
    fake.__spec__ = importlib.machinery.ModuleSpec("wandb", None)  # it is installed
    fake.runs = []
    fake.next_step = 0

    def init(**words):
        run = FakeRun(words)
        run.step = fake.next_step
        fake.runs.append(run)
        return run

    fake.init, fake.Settings = init, lambda **words: words
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_weights_and_biases_continues_the_same_run(tmp_path, fake_wandb):
    figures = {"loss": 0.5, "nan": float("nan")}
    for fake_wandb.next_step in (0, 4):
        board = dashboards.WeightsAndBiases(tmp_path, "name", {"seed": 1})
        board.open()
        for step in (3, 4):
            board.write(step, "train", figures)
        board.close()
    first, second = fake_wandb.runs
    assert first.words["id"] == second.words["id"]
    assert first.words["id"] == (tmp_path / "wandb-id.txt").read_text().strip()
    assert first.words["resume"] == "allow"
    assert first.words["dir"] == str(tmp_path)
    assert (first.words["name"], first.words["config"]) == ("name", {"seed": 1})
    assert "mode" not in first.words  # WANDB_MODE decides
    assert first.logged == [(3, {"train/loss": 0.5}), (4, {"train/loss": 0.5})]
    assert second.logged == [(4, {"train/loss": 0.5})]
    assert first.finished
    assert second.finished


def test_two_runs_are_two_and_a_given_id_is_kept(tmp_path, fake_wandb):
    for name in ("a", "b"):
        board = dashboards.WeightsAndBiases(tmp_path / name, name, {})
        board.open()
    assert len({run.words["id"] for run in fake_wandb.runs}) == 2
    for resume_id in ("given", None):
        board = dashboards.WeightsAndBiases(tmp_path / "a", "a", {}, resume_id)
        board.open()
    assert [run.words["id"] for run in fake_wandb.runs[2:]] == ["given", "given"]


def test_no_network_drops_weights_and_biases(tmp_path, fake_wandb):
    def init(**_):
        raise TimeoutError("no answer in 60 s")

    fake_wandb.init = init
    said = []
    board = dashboards.WeightsAndBiases(tmp_path, "name", {})
    with Writers([board, JsonLines(tmp_path / "a")], said.append) as all_writers:
        all_writers.write(1, "train", {"loss": 1.0})
    assert len(lines(tmp_path / "a")) == 1
    assert "WeightsAndBiases could not be opened" in said[0]


@needs_wandb
@pytest.mark.slow
def test_weights_and_biases_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for _ in range(2):
        board = dashboards.WeightsAndBiases(tmp_path, "name", {"seed": 1})
        board.open()
        board.write(1, "train", {"loss": 0.5})
        board.close()
    run_id = (tmp_path / "wandb-id.txt").read_text().strip()
    kept = list((tmp_path / "wandb").glob(f"offline-run-*-{run_id}"))
    assert kept
    assert all((folder / f"run-{run_id}.wandb").stat().st_size > 0 for folder in kept)
