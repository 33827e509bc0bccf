# SPDX-License-Identifier: Apache-2.0
"""Training: the same on any mesh, resumes bit for bit, refuses in one sentence."""

import json
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import losses, prepare
from experiments import train as script
from experiments.recipes import RECIPES
from fulcra_jax import models
from fulcra_jax.data import batches, source, tokens
from fulcra_jax.inference import Predictor
from fulcra_jax.training import optimizer, sharding, step

ROOT = pathlib.Path(__file__).parents[1]
SMALL = [
    "--source.train", "96", "--source.dev", "24", "--source.test", "24",
    "--steps", "24", "--save-every", "5", "--log-every", "1",
]  # fmt: skip


def command(*words):
    return [sys.executable, "-m", "experiments.train", *words]


def run_process(*words, check=True):
    done = subprocess.run(command(*words), cwd=ROOT, capture_output=True, text=True)
    if check:
        assert done.returncode == 0, done.stderr
    return done


def steps_logged(run):
    path = run / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def wait_for_steps(process, run, steps):
    deadline = time.monotonic() + 120
    while steps_logged(run) < steps:
        assert process.poll() is None, "training ended before it was interrupted"
        assert time.monotonic() < deadline, "training did not get so far in two minutes"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished small run, made by a process of its own."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    run_process("debug", "--run", str(run), *SMALL)
    return run


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_killed_run_ends_with_the_same_parameters(finished, tmp_path, seed):
    run = tmp_path / "killed"
    process = subprocess.Popen(
        command("debug", "--run", str(run), *SMALL),
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for_steps(process, run, random.Random(seed).randint(1, 20))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (run / "model").exists()

    run_process("--resume", str(run))

    whole = (finished / "model" / "model.safetensors").read_bytes()
    assert (run / "model" / "model.safetensors").read_bytes() == whole
    losses = [
        [
            (entry["step"], entry["loss"])
            for entry in map(
                json.loads, (path / "metrics.jsonl").read_text().splitlines()
            )
            if entry["split"] == "train"
        ]
        for path in (finished, run)
    ]
    assert losses[0] == losses[1]
    assert [number for number, _ in losses[1]] == list(range(1, 25))


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_saves_says_how_to_go_on_and_ends_the_same(
    finished, tmp_path, sign
):
    run = tmp_path / "stopped"
    process = subprocess.Popen(
        command("debug", "--run", str(run), *SMALL, "--save-every", "1000"),
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for_steps(process, run, 3)
    process.send_signal(sign)
    _, said = process.communicate(timeout=60)
    # A machine that is taken away is no failure.
    assert process.returncode == (130 if sign == signal.SIGINT else 0)
    assert f"--resume {run}" in said
    assert "Traceback" not in said

    run_process("--resume", str(run))

    whole = (finished / "model" / "model.safetensors").read_bytes()
    assert (run / "model" / "model.safetensors").read_bytes() == whole


def test_a_run_directory_holds_what_it_should(finished):
    begun = json.loads((finished / "run.json").read_text())
    assert {"command", "commit", "versions", "device", "data_sha256"} <= set(begun)
    assert "experiments.train" in begun["command"]
    lines = [
        json.loads(line)
        for line in (finished / "metrics.jsonl").read_text().splitlines()
    ]
    assert {"step", "loss", "examples_per_s", "learning_rate"} <= set(lines[0])
    assert lines[-1]["split"] == "dev"
    assert lines[-1]["macro_f1"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["debug", "--data", "nowhere"], "nowhere does not exist"),
        (["debug", "--batch-size", "12", "--mesh.data", "8"], "no multiple of the 8"),
        (["debug", "--mesh.data", "99"], "needs 99 devices; there are"),
        (["debug", "--optimizer.warmup-steps", "40"], "there are only 40 steps"),
        (["debug", "--pretrained", "nowhere"], "nowhere, which does not exist"),
        (["debug", "--text.tokenizer", "nowhere"], "nowhere does not exist"),
        (["debug", "--text.vocab-size", "99999999999"], "it should be in .261, "),
        (["debug", "--profile", "-1"], "--profile is -1; it should be a number of st"),
        (["demo-real"], "the recipe demo-real needs rows: give --data"),
        (["paper", "--data", "x"], "the recipe paper needs weights: give --pretrained"),
        (["--resume", "nowhere"], "nowhere is no run"),
        (["--resume", "x", "--run", "y"], "--resume takes no other argument"),
        (["--resume", "x", "--mesh.data=1", "--steps=9"], "takes no other argument"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    words, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert script.main(words) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert re.search(message, said), said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_field_out_of_range_is_refused_by_the_command_line(tmp_path, capsys):
    run = tmp_path / "run"
    with pytest.raises(SystemExit) as stopped:
        script.main(["debug", "--run", str(run), "--batch-size", "0"])
    assert stopped.value.code == 2
    assert "batch_size is 0; it should be in" in capsys.readouterr().err
    assert not run.exists()


def test_a_run_never_overwrites_another(finished, capsys):
    before = sorted((path, path.stat().st_mtime_ns) for path in finished.rglob("*"))
    assert script.main(["debug", "--run", str(finished)]) == 1
    assert "a run never overwrites another" in capsys.readouterr().err
    assert before == sorted(
        (path, path.stat().st_mtime_ns) for path in finished.rglob("*")
    )


def test_a_checkpoint_of_another_architecture_is_refused(finished, tmp_path, capsys):
    run = tmp_path / "other"
    shutil.copytree(finished, run)
    text = (run / "config.py").read_text()
    (run / "config.py").write_text(
        text.replace("intermediate_size=128", "intermediate_size=64")
    )
    assert script.main(["--resume", str(run)]) == 1
    said = capsys.readouterr().err
    assert "is of another architecture" in said
    assert "(128, 32)" in said
    assert "(64, 32)" in said


def test_a_changed_configuration_is_refused_on_resume(finished, tmp_path, capsys):
    run = tmp_path / "other"
    shutil.copytree(finished, run)
    text = (run / "config.py").read_text()
    (run / "config.py").write_text(text.replace("pool='mean'", "pool='first'"))
    assert script.main(["--resume", str(run)]) == 1
    assert "config.py has been changed" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"data_sha256": 1}', "\x00"])
def test_a_damaged_record_of_the_run_is_refused(finished, tmp_path, capsys, text):
    run = tmp_path / "other"
    shutil.copytree(finished, run)
    (run / "run.json").write_text(text)
    assert script.main(["--resume", str(run)]) == 1
    said = capsys.readouterr().err
    assert "run.json is damaged" in said
    assert said.count("\n") == 1


@pytest.mark.slow
def test_a_run_stopped_before_its_first_step_resumes(finished, tmp_path):
    run = tmp_path / "early"
    process = subprocess.Popen(
        command("debug", "--run", str(run), *SMALL),
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (run / "run.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "Traceback" not in said

    run_process("--resume", str(run))

    whole = (finished / "model" / "model.safetensors").read_bytes()
    assert (run / "model" / "model.safetensors").read_bytes() == whole


@pytest.mark.slow
def test_a_damaged_checkpoint_is_set_aside_and_the_run_ends_the_same(
    finished, tmp_path
):
    run = tmp_path / "damaged"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "model")
    for file in (run / "checkpoints" / "24").rglob("d/*"):
        file.write_bytes(file.read_bytes()[:-20])
    said = run_process("--resume", str(run))
    assert re.search(r"^warning: checkpoint: step 24 in .* is damaged", said.stderr)
    assert said.stderr.count("\n") == 1
    assert "resumed at step 20" in said.stdout
    whole = (finished / "model" / "model.safetensors").read_bytes()
    assert (run / "model" / "model.safetensors").read_bytes() == whole


def test_changed_data_is_refused_on_resume(finished, tmp_path, capsys):
    run = tmp_path / "other"
    shutil.copytree(finished, run)
    text = (run / "config.py").read_text()
    (run / "config.py").write_text(text.replace("train=96", "train=95"))
    assert script.main(["--resume", str(run)]) == 1
    assert "the training rows have changed" in capsys.readouterr().err


def test_nan_stops_the_run_and_names_the_step(tmp_path, capsys, monkeypatch):
    real = losses.make_cell_loss

    def broken(config, evaluator, labels, where):
        cell_loss = real(config, evaluator, labels, where)

        def loss(params, batch, key):
            cells, where = cell_loss(params, batch, key)
            # The key differs by step: about every fourth one breaks.
            bad = jax.random.bernoulli(key, 0.25)
            return cells * jnp.where(bad, jnp.nan, 1.0), where

        return loss

    monkeypatch.setattr(losses, "make_cell_loss", broken)
    run = tmp_path / "nan"
    assert script.main(["debug", "--run", str(run), "--mesh.data", "1", *SMALL]) == 1
    said = capsys.readouterr().err
    found = re.search(r"the loss is nan at step (\d+); the gradient is not", said)
    assert found, said
    assert re.search(r"in \d+ of \d+ leaves, the first is encoder/", said), said
    assert not (run / "model").exists()
    # Nothing after the last good step is kept.
    kept = [int(path.name) for path in (run / "checkpoints").glob("[0-9]*")]
    assert all(step < int(found[1]) for step in kept)


def test_one_device_and_eight_train_alike():
    config = RECIPES["debug"][1]
    rows = source.sample_rows(0, 64)
    tokenizer = prepare.make_tokenizer(config, rows)
    config = prepare.fit_to_data(config, tokenizer)
    examples = prepare.encode(config, tokenizer, rows)
    evaluator = models.Evaluator(config.evaluator)
    transformation = optimizer.make_optimizer(
        optimizer.Optimizer(peak_lr=1e-4, warmup_steps=2), 20
    )
    results = []
    for devices in (1, 8):
        mesh = sharding.make_mesh(devices)
        ids = jnp.zeros((1, 8), jnp.int32)
        params = evaluator.init(
            jax.random.key(0), ids, ids > -1, token_type_ids=ids, deterministic=True
        )["params"]
        state = step.init_state(params, transformation)
        places = sharding.shardings(state, sharding.REPLICATED, mesh)
        rows_place = sharding.batch_sharding(mesh)
        train_step = jax.jit(
            step.make_train_step(
                losses.make_cell_loss(
                    config, evaluator, examples.labels, examples.where
                ),
                transformation,
                seed=0,
            ),
            in_shardings=(places, rows_place),
            out_shardings=(places, None),
        )
        state = jax.device_put(state, places)
        told = []
        for number in range(10):
            batch = batches.train_batch(
                examples, number, batch_size=16, seed=0, ladder=(96,), pad_id=0
            )
            state, metrics = train_step(state, jax.device_put(batch, rows_place))
            told.append(float(metrics.loss))
        results.append((told, jax.tree.map(np.asarray, state.params)))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5)
    # Adam amplifies rounding where a gradient is zero: compare the tree as a whole.
    flat = [
        np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])
        for _, params in results
    ]
    assert np.linalg.norm(flat[0] - flat[1]) <= 1e-5 * np.linalg.norm(flat[0])


def test_shuffled_labels_keep_texts_and_label_counts():
    config = RECIPES["debug"][1]
    rows = source.sample_rows(0, 40)
    examples = prepare.encode(config, prepare.make_tokenizer(config, rows), rows)
    examples = tokens.Tokens.in_memory(examples)
    shuffled = prepare.shuffle_labels(examples, 0)
    for ours, theirs in zip(
        shuffled.joined(np.arange(40)), examples.joined(np.arange(40)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert (shuffled.labels != examples.labels).any()
    np.testing.assert_array_equal(
        np.sort(shuffled.labels, axis=0), np.sort(examples.labels, axis=0)
    )


def test_predictor_scores_do_not_depend_on_company_or_order(finished):
    predictor = Predictor.load(finished)
    rows = source.sample_rows(5, 40, "dev")
    prompts, responses = [r.prompt for r in rows], [r.response for r in rows]
    together = predictor.score(prompts, responses)
    backward = predictor.score(prompts[::-1], responses[::-1])
    alone = predictor.score(prompts[:1], responses[:1])
    assert together.scores.shape == (40, 10)
    assert together.probs.shape == (40, 10, 3)
    np.testing.assert_allclose(together.probs.sum(-1), 1.0, atol=1e-6)
    np.testing.assert_allclose(backward.scores[::-1], together.scores, atol=1e-6)
    np.testing.assert_allclose(alone.scores[0], together.scores[0], atol=1e-5)
    np.testing.assert_allclose(
        together.scores, together.probs[..., 2] - together.probs[..., 0], atol=1e-6
    )
    nothing = predictor.score([], [])
    assert nothing.scores.shape == (0, 10)


def test_predictor_refuses_what_is_no_evaluator(finished, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Predictor.load(tmp_path / "none")
    unfinished = tmp_path / "unfinished"
    shutil.copytree(finished, unfinished, ignore=shutil.ignore_patterns("model"))
    with pytest.raises(FileNotFoundError, match="the run is not finished"):
        Predictor.load(unfinished)
