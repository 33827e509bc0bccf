# SPDX-License-Identifier: Apache-2.0
"""The benchmarks of training at scale: what they refuse, and what they count."""

import random
import subprocess

import pytest

from experiments.benchmarks import kills, meshes, shards, training


@pytest.mark.parametrize(
    ("main", "words", "message"),
    [
        (kills.main, ["--kills", "0"], "kills is 0; it should be at least 1"),
        (kills.main, ["--runs", "-1"], "runs is -1; it should be at least 1"),
        (kills.main, ["--steps", "19"], "steps is 19; it should be at least 20"),
        (kills.main, ["--save-every", "0"], "save_every is 0; it should be at least"),
        (kills.main, ["--kills", "99"], "have no room for 99 kills"),
        (kills.main, ["--seed", "x"], "invalid literal for int"),
        (meshes.main, ["--steps", "5"], "steps is 5; it should be more than the 5 in"),
        (meshes.main, ["--peak-lr", "nan"], "peak_lr is nan; it should be in (0, 10]"),
        (meshes.main, ["--peak-lr", "0"], "peak_lr is 0.0; it should be in (0, 10]"),
        (shards.main, ["--recipes", "none"], "recipe 'none' is unknown"),
        (shards.main, ["--devices", "0"], "devices is 0; it should be in [1, 1024]"),
        (shards.main, ["--devices", "9999"], "devices is 9999; it should be in [1"),
    ],
)
def test_bad_arguments_are_a_usage_error(main, words, message, tmp_path, capsys):
    out = [] if main is shards.main else ["--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stopped:
        main([*out, *words])
    assert stopped.value.code == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--layers", "-1"], "layers is -1; it should be at least 0"),
        (["--rows", "0"], "rows is 0; it should be at least 1"),
        (["--length", "0"], "length is 0; it should be at least 1"),
        (["--steps", "0"], "steps is 0; it should be at least 1"),
        (["--rounds", "0"], "rounds is 0; it should be at least 1"),
        (["--layers", "99999999"], "num_hidden_layers is 99999999; it should be a"),
        (["--rows", "99999999999999"], "not enough memory: "),
    ],
)
def test_what_training_cannot_measure_is_one_sentence(words, message, tmp_path, capsys):
    out = tmp_path / "out"
    assert training.main(["--model", "tiny", "--out", str(out), *words]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not list(tmp_path.rglob("training.*"))


@pytest.mark.parametrize("main", [kills.main, meshes.main])
def test_a_folder_that_is_taken_is_refused(main, tmp_path, capsys):
    (tmp_path / "mine").write_text("x")
    assert main(["--out", str(tmp_path)]) == 1
    assert "exists and is not empty" in capsys.readouterr().err
    assert main(["--out", str(tmp_path / "mine")]) == 1
    assert "mine is a file" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_eight_devices_hold_less_than_a_seventh_each(capsys):
    rows = shards.count(shards.Arguments(recipes=("base",)))
    held = {(row[1], row[2]): float(row[3].replace(",", "")) for row in rows}
    assert held["8", "1"] <= held["1", "1"] / 7
    # Tables of embeddings are not split over the axis "tensor".
    assert held["4", "2"] <= held["1", "1"] / 5
    # 184 million parameters, their average and two moments, 4 bytes each.
    assert held["1", "1"] == pytest.approx(4 * 4 * 184e6 / 2**20, rel=0.01)
    assert "MiB a device" in capsys.readouterr().out


def test_a_recipe_that_does_not_divide_is_one_sentence(capsys):
    meshes_of = shards.meshes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "meshes", lambda _: [shards.MeshShape(data=1, fsdp=5)])
        assert shards.main(["--recipes", "debug"]) == 1
    assert "5; 32 is not a multiple" in capsys.readouterr().err
    assert [shape.fsdp for shape in meshes_of(8)] == [1, 2, 4, 8, 4]


@pytest.mark.parametrize(
    ("patience", "command", "message"),
    [
        (0.0, ["sleep", "60"], "did not come to step 5 in time"),
        (60.0, ["true"], "ended before it was killed; see its log"),
    ],
)
def test_no_training_is_left_behind(patience, command, message, tmp_path, monkeypatch):
    monkeypatch.setattr(kills, "_PATIENCE", patience)
    process = subprocess.Popen(command, text=True)
    with pytest.raises(ValueError, match=message):
        kills.kill_when(process, tmp_path, 5, in_save=False)
    assert process.poll() is not None


def test_what_a_run_has_come_to_is_read_from_its_folder(tmp_path):
    assert (kills.last_step(tmp_path), kills.whole(tmp_path)) == (0, 0)
    assert not kills.half_written(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 4, "x": 1}\n{"step": 12, "lo')
    for name in ("8", "10", "damaged-20", "20.orbax-checkpoint-tmp"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert (kills.last_step(tmp_path), kills.whole(tmp_path)) == (12, 10)
    assert kills.half_written(tmp_path)


def test_a_run_that_fails_alone_ends_the_benchmark(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        kills, "start", lambda words, output: subprocess.Popen("false", stdout=output)
    )
    assert kills.main(["--out", str(tmp_path / "out")]) == 1
    assert "the run left alone failed; see " in capsys.readouterr().err
    process = subprocess.Popen(
        "echo why >&2; exit 3", shell=True, text=True, stderr=-1, stdout=-1
    )
    with pytest.raises(ValueError, match="meshes: a training failed: why"):
        meshes.finish([process])


def test_kills_are_spread_over_the_run(tmp_path, monkeypatch):
    """Each has a part of the run of its own, so that it gets somewhere before."""
    seen = []

    def kill(process, run, step, in_save):
        process.wait()
        seen.append((step, in_save))
        return {"run": run.name, "at": step, "in_save": in_save}

    monkeypatch.setattr(kills, "kill_when", kill)
    monkeypatch.setattr(
        kills, "start", lambda words, output: subprocess.Popen("true", stdout=output)
    )
    arguments = kills.Arguments(out="", steps=200)
    kills.one_run(arguments, tmp_path / "run", 4, random.Random(0))
    assert [(step - 1) // 40 for step, _ in seen] == [0, 1, 2, 3]
    assert [in_save for _, in_save in seen] == [True, False, True, False]
