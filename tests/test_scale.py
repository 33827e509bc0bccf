# SPDX-License-Identifier: Apache-2.0
"""The same training on any mesh and number of processes; a run moves between them."""

import json
import pathlib
import signal
import time

import numpy as np
import pytest

from experiments import export
from experiments import train as script
from experiments.benchmarks import kills, meshes
from experiments.benchmarks.meshes import Layout
from fulcra_jax.inference import Predictor

ROOT = pathlib.Path(__file__).parents[1]
STEPS = 12
ARGUMENTS = meshes.Arguments(out="", steps=STEPS)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The run on one device, with dropout."""
    run = tmp_path_factory.mktemp("runs") / "one"
    meshes.finish(meshes.start(meshes.words(ARGUMENTS, run, 0.1), meshes.ONE))
    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    "layout",
    [Layout(1, 8, 2, fsdp=2, tensor=2), Layout(2, 4, 2, fsdp=4)],
    ids=lambda layout: layout.name,
)
def test_a_mesh_trains_as_one_device_does(one, tmp_path, layout):
    run = tmp_path / "run"
    meshes.finish(meshes.start(meshes.words(ARGUMENTS, run, 0.1), layout))
    loss, tree = meshes.difference(meshes.outcome(one), meshes.outcome(run))
    assert loss <= 1e-5
    assert tree <= 1e-5


@pytest.mark.slow
def test_a_run_goes_on_with_other_processes_and_another_mesh(one, tmp_path):
    run = tmp_path / "run"
    words = [*meshes.words(ARGUMENTS, run, 0.1), "--save-every", "4"]
    processes = meshes.start(words, Layout(2, 4, 2, fsdp=4))
    deadline = time.monotonic() + 120
    while kills.last_step(run) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    # One process is told to stop; all save and end well at the same step.
    processes[1].send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    for _, error in said:
        assert f"--resume {run}" in error
    at = kills.whole(run)
    assert 5 <= at < STEPS

    meshes.finish(
        meshes.start(["--resume", str(run)], Layout(1, 4, 2, fsdp=1, tensor=2))
    )
    loss, tree = meshes.difference(meshes.outcome(one), meshes.outcome(run))
    assert loss <= 1e-5
    assert tree <= 1e-5


@pytest.mark.slow
def test_processes_with_other_rows_are_refused(tmp_path):
    run = tmp_path / "run"
    words = meshes.words(ARGUMENTS, run, 0.0)
    pair = meshes.start(words, Layout(2, 1, 2), last=["--source.train", "100"])
    said = [process.communicate(timeout=120)[1] for process in pair]
    assert [process.returncode for process in pair] == [1, 1], said
    for error in said:
        assert "process 1 and process 0 have a different configuration" in error
    assert not run.exists()


@pytest.mark.slow
def test_packed_rows_parts_averages_and_the_best_checkpoint(tmp_path):
    run = tmp_path / "run"
    words = [
        "debug", "--run", str(run), "--text.packed", "--accumulate", "2",
        "--optimizer.average", "0.9", "--optimizer.layer-decay", "0.9",
        "--remat", "dots", "--eval-every", "10", "--keep-best", "macro_f1",
        "--mesh.data", "2", "--compute-dtype", "bfloat16", "--text.cache",
        str(tmp_path / "cache"),
    ]  # fmt: skip
    assert script.main(words) == 0
    lines = list(map(json.loads, (run / "metrics.jsonl").read_text().splitlines()))
    looks = {line["step"]: line["macro_f1"] for line in lines if line["split"] == "dev"}
    assert sorted(looks) == [10, 20, 30, 40]
    best = max(looks, key=lambda at: (looks[at], at))  # the newest of equals
    assert (run / "checkpoints" / str(best)).is_dir()
    trained = [line for line in lines if line["split"] == "train"]
    assert all(line["padding"] < 0.1 for line in trained)
    out = tmp_path / "exported"
    words = [str(run), "--out", str(out), "--step", str(best)]
    assert export.main(words) == 0
    texts = ["How do I rest?"], ["Take a day off and help a friend."]
    np.testing.assert_array_equal(
        Predictor.load(out).score(*texts).scores,
        Predictor.load(run / "model-best").score(*texts).scores,
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mesh.fsdp", "3"], "fsdp x tensor is 3, which should divide them"),
        (["--mesh.data", "99"], "needs 99 devices; there are 8"),
        (["--mesh.data", "8", "--batch-size", "12"], "no multiple of the 8 devices"),
        (["--mesh.tensor", "4", "--batch-size", "16"], "has 2 attention heads"),
        (["--accumulate", "5"], "and the 5 parts of a step"),
        (["--coordinator", "here"], "they go together: ADDRESS:PORT"),
        (["--num-hosts", "two"], "--num-hosts is 'two'; it should be an integer"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_devices_is_one_sentence(
    words, message, tmp_path, capsys
):
    run = tmp_path / "run"
    assert script.main(["debug", "--run", str(run), *words]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not run.exists()
