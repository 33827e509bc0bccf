# SPDX-License-Identifier: Apache-2.0
"""The alignment study as a command: what it leaves, that it resumes, what it refuses.

At a size that says only whether it runs.
"""

import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from experiments import pretrain_decoder, train
from experiments.align import __main__ as script
from experiments.align import arm, report
from experiments.toy_lm import decoder as toy
from experiments.toy_lm import files, texts
from fulcra_jax.inference import read_scores

ROOT = pathlib.Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def models(one_device, tmp_path_factory):
    """A tiny decoder and two tiny evaluators, as words of the command line."""
    root = tmp_path_factory.mktemp("models")
    pretrain_decoder.pretrain(
        pretrain_decoder.Arguments(
            out=str(root / "decoder"), dialogues=200, steps=60, batch_size=8,
            vocab_size=400, lengths=texts.Lengths(prompt=12, response=12),
            decoder=toy.DecoderConfig(width=16, layers=1, heads=2, mlp=32),
        )
    )  # fmt: skip
    words = ["--source.train", "64", "--source.dev", "24", "--source.test", "24"]
    for seed, name in enumerate(("evaluator", "second")):
        run = ["debug", "--run", str(root / name), "--steps", "8", *words]
        assert train.main([*run, "--seed", str(seed)]) == 0
    return {name: str(root / name) for name in ("decoder", "evaluator", "second")}


def words_of(models, out, **more):
    given = models | {
        "out": str(out),
        "training.steps": "5",
        "training.prompts": "2",
        "training.answers": "2",
        "training.prompt-pool": "8",
        "training.save-every": "2",
        "held-out.prompts": "3",
        "held-out.answers": "2",
        "held-out.best-of": "4",
        "held-out.resamples": "50",
    }
    given |= {name.replace("_", "-"): text for name, text in more.items()}
    return [w for name, text in given.items() for w in (f"--{name}", *text.split())]


@pytest.fixture(scope="module")
def finished(models, tmp_path_factory):
    out = tmp_path_factory.mktemp("studies") / "whole"
    assert script.main(["toy", *words_of(models, out, seeds="0")]) == 0
    return out


@pytest.mark.slow
def test_a_study_leaves_scores_figures_tables_and_pictures(finished, capsys):
    figures = json.loads((finished / "figures.json").read_text())
    assert set(figures["arms"]) == {"target-seed0", "control-seed0", "released-seed0"}
    assert set(figures["specificity"]) == {"seed0"}
    start = read_scores(finished / "scores" / "start.jsonl")
    assert len(start.prompts) == 6
    assert len(set(start.prompts)) == 3
    assert set(start.models) == {"start"}
    second = read_scores(finished / "scores" / "start.second.jsonl")
    assert second.responses == start.responses
    assert set(second.evaluators).isdisjoint(start.evaluators)
    # The mean of the table is that of the file of scores.
    mean = figures["start"]["evaluator"]["SD"][0]
    assert mean == pytest.approx(start.scores[:, 0].mean(), abs=1e-6)
    text = (finished / "report.md").read_text()
    for part in ("second evaluator", "best of n", "distinct-2", "## Answers"):
        assert part in text
    for name in ("change", "change-second", "curves", "map"):
        assert (finished / f"{name}.png").stat().st_size > 5000
    lines = report.metrics(finished / "arms" / "target-seed0")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert lines[0]["kl"] == pytest.approx(0.0, abs=1e-4)  # it starts at the reference


@pytest.mark.slow
def test_a_finished_study_is_not_trained_again_and_takes_more_seeds(
    models, finished, capsys
):
    before = (finished / "arms" / "target-seed0" / "metrics.jsonl").stat().st_mtime_ns
    more = words_of(models, finished, seeds="0 1", arms="target")
    assert script.main(["toy", *more]) == 0
    after = (finished / "arms" / "target-seed0" / "metrics.jsonl").stat().st_mtime_ns
    assert before == after
    assert (finished / "arms" / "target-seed1" / "decoder").is_dir()
    weights = [
        (finished / "arms" / f"target-seed{seed}" / "decoder" / "decoder.safetensors")
        for seed in (0, 1)
    ]
    assert weights[0].read_bytes() != weights[1].read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_study_ends_the_same(models, finished, tmp_path, sign):
    out = tmp_path / "stopped"
    words = words_of(models, out, seeds="0", arms="target")
    command = [sys.executable, "-m", "experiments.align", "toy", *words]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "8"},
    )  # fmt: skip
    path = out / "arms" / "target-seed0"
    steps = random.Random(sign).randint(1, 4)
    deadline = time.monotonic() + 180
    while len(report.metrics(path)) < steps:
        assert process.poll() is None, "the study ended before it was interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(sign)
    _, said = process.communicate(timeout=90)
    assert process.returncode == (-9 if sign == signal.SIGKILL else 130)
    assert "Traceback" not in said
    assert not arm.is_finished(path)

    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "8"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    whole = finished / "arms" / "target-seed0"
    weights = pathlib.Path("decoder") / "decoder.safetensors"
    assert (path / weights).read_bytes() == (whole / weights).read_bytes()
    trim = lambda lines: [
        {k: x for k, x in y.items() if k not in ("time", "seconds")} for y in lines
    ]
    assert trim(report.metrics(path)) == trim(report.metrics(whole))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"target": "atlantis"}, "'atlantis' is unknown"),
        ({"target": "1,2"}, "should be a name, or 10 numbers"),
        ({"target": "0,0,0,0,0,0,0,0,0,0"}, "zero everywhere"),
        ({"decoder": "nowhere"}, "experiments.pretrain_decoder --out nowhere"),
        ({"evaluator": "nowhere"}, "nowhere does not exist"),
    ],
)
def test_a_study_refuses_in_one_sentence(models, tmp_path, more, message, capsys):
    assert script.main(["toy", *words_of(models, tmp_path / "x", **more)]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_a_study_is_not_mixed_with_another(models, finished, capsys):
    words = words_of(models, finished, seeds="0", target="harmless")
    assert script.main(["toy", *words]) == 1
    assert "was begun with another target: 'ideal'" in capsys.readouterr().err


def damaged(finished, tmp_path):
    return pathlib.Path(shutil.copytree(finished, tmp_path / "damaged"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "spoil", "message"),
    [
        ("scores/pool.npz", lambda data: data[: len(data) // 2], "the same command"),
        ("scores/pool.npz", lambda _: b"", "the same command draws it again"),
        ("scores/start.text.json", lambda _: b"{}", "delete .*start.jsonl"),
        ("scores/start.jsonl", lambda data: data[: data.rindex(b"{")], "of another"),
        ("arms/target-seed0/metrics.jsonl", lambda _: b"[]\n", "line 1 is damaged"),
        ("study.json", lambda _: b"[]", "is damaged; begin in a new folder"),
    ],
)
def test_a_damaged_study_says_what_to_do(
    models, finished, tmp_path, file, spoil, message, capsys
):
    out = damaged(finished, tmp_path)
    (out / file).write_bytes(spoil((out / file).read_bytes()))
    assert script.main(["toy", *words_of(models, out, seeds="0")]) == 1
    said = capsys.readouterr().err
    assert re.search(message, said)
    assert said.count("\n") == 1


@pytest.mark.slow
def test_another_tokenizer_is_another_decoder(models, finished, tmp_path, capsys):
    decoder = tmp_path / "decoder"
    shutil.copytree(models["decoder"], decoder)
    entries = json.loads((decoder / "decoder.json").read_text())
    entries["lengths"]["response"] = 6
    (decoder / "decoder.json").write_text(json.dumps(entries))
    words = words_of(models, finished, seeds="0", decoder=str(decoder))
    assert script.main(["toy", *words]) == 1
    assert "was begun with another sha256.decoder" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("always:checkpoint. step 5:UserWarning")
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    models, finished, tmp_path, capsys
):
    out = damaged(finished, tmp_path)
    path = out / "arms" / "target-seed0"
    shutil.rmtree(path / "decoder")
    (out / "scores" / "target-seed0.jsonl").unlink()
    for file in (path / "checkpoints" / "5").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    assert script.main(["toy", *words_of(models, out, seeds="0")]) == 0
    said = capsys.readouterr().err
    assert re.search(r"warning: checkpoint: step 5 in .*checkpoints is damaged", said)
    assert "Traceback" not in said
    assert (path / "checkpoints" / "damaged-5").is_dir()
    assert (path / "decoder").is_dir()


@pytest.mark.slow
def test_the_reward_giver_cannot_be_its_own_check(models, tmp_path, capsys):
    words = words_of(models, tmp_path / "x", second=models["evaluator"])
    assert script.main(["toy", *words]) == 1
    assert "is the one that gives the reward" in capsys.readouterr().err


@pytest.mark.slow
def test_a_damaged_decoder_is_named(models, tmp_path):
    folder = tmp_path / "decoder"
    folder.mkdir()
    for path in pathlib.Path(models["decoder"]).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    weights = folder / "decoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match="the decoder is damaged"):
        files.load(folder)
    entries = json.loads((folder / "decoder.json").read_text())
    entries["decoder"]["width"] = 32
    (folder / "decoder.json").write_text(json.dumps(entries))
    weights.write_bytes(pathlib.Path(models["decoder"], weights.name).read_bytes())
    with pytest.raises(ValueError, match=r"do not fit its decoder\.json"):
        files.load(folder)
