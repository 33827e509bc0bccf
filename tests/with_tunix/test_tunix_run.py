# SPDX-License-Identifier: Apache-2.0
"""The script that aligns by google-tunix, at a size that says whether it runs."""

import importlib
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from parts import LLAMA_3, command, hub_directory, lines_of

from experiments.align import __main__ as script
from fulcra_jax import values
from fulcra_jax.inference import read_scores

ROOT = pathlib.Path(__file__).parents[2]
EVERYTHING = {"best-of": 4, "learning-rate": 1e-2, "kl-coefficient": 0.01}


@pytest.fixture(scope="module")
def whole(adapter, judges, tmp_path_factory):
    """A finished run with all that can be measured."""
    out = tmp_path_factory.mktemp("aligned") / "whole"
    options = EVERYTHING | {"second": judges["second"]}
    assert script.main(command(judges, out, **options)) == 0
    return out


def test_a_run_leaves_figures_of_both_evaluators(whole):
    metrics = lines_of(whole / "metrics.jsonl")
    assert [line["step"] for line in metrics] == [1, 2, 3, 4]
    assert all(-4.0 <= line["reward"] <= 0.0 for line in metrics)
    assert all(len(line["score"]) == 10 for line in metrics)
    assert abs(metrics[0]["kl"]) < 1e-6 < metrics[-1]["kl"]
    assert metrics[0]["failures"] == 0.0
    before, after = (
        read_scores(whole / f"scores_{name}.jsonl") for name in ("before", "after")
    )
    assert before.prompts == after.prompts
    assert len(before.prompts) == 6
    assert len(set(before.prompts)) == 3
    assert before.responses != after.responses
    second = read_scores(whole / "scores_after.second.jsonl")
    assert second.responses == after.responses
    assert set(second.evaluators).isdisjoint(after.evaluators)

    figures = json.loads((whole / "figures.json").read_text())
    entry = figures["arms"]["target"]
    for who, (one, other) in {
        "evaluator": (before, after),
        "second": (read_scores(whole / "scores_before.second.jsonl"), second),
    }.items():
        for k, name in enumerate(values.ABBREVIATIONS):
            change = (other.scores[:, k] - one.scores[:, k]).mean()
            mean, low, high = entry["change"][who][name]
            assert mean == pytest.approx(change, abs=1e-6)
            assert low - 1e-6 <= mean <= high + 1e-6
    low, high = entry["text"]["kl_interval"]
    assert 0.0 < low <= entry["text"]["kl"] <= high
    assert figures["start"]["text"]["kl"] == 0.0
    best = entry["best_of_n"]
    assert 1 <= best["n"] <= 4
    assert best["kl_bound"] == pytest.approx(math.log(best["n"]) - 1 + 1 / best["n"])
    report = (whole / "report.md").read_text()
    for part in ("second evaluator", "best of n", "distinct-2", "circumplex", "KL to"):
        assert part in report
    for name in ("change", "change-second", "curves", "map"):
        assert (whole / f"{name}.png").stat().st_size > 5000


def test_a_run_stopped_by_a_signal_ends_as_one_that_was_not(
    adapter, judges, whole, tmp_path, capsys
):
    out = tmp_path / "stopped"
    words = command(judges, out, **EVERYTHING, second=judges["second"])
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.align", *words],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "8", "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    deadline = time.monotonic() + 180
    while not (out / "metrics.jsonl").exists():
        assert process.poll() is None, "the run ended before it was stopped"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=90)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert f"the same command with --out {out} continues" in " ".join(said.split())
    assert not (out / "after.text.json").exists()

    assert script.main(words) == 0
    assert "resumed at step" in capsys.readouterr().out
    for name in (
        "scores_before.jsonl", "scores_after.jsonl", "scores_after.second.jsonl",
        "metrics.jsonl", "figures.json", "report.md",
    ):  # fmt: skip
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name

    # Once more: nothing is trained or drawn again, what was begun is kept to.
    before = (out / "scores_after.jsonl").stat().st_mtime_ns
    assert script.main(words) == 0
    assert (out / "scores_after.jsonl").stat().st_mtime_ns == before
    assert script.main([*words, "--seed", "1"]) == 1
    assert "was begun with other arguments (seed)" in capsys.readouterr().err


def test_a_control_is_trained_otherwise_and_measured_alike(
    adapter, judges, whole, tmp_path, capsys
):
    out = tmp_path / "control"
    options = EVERYTHING | {"second": judges["second"], "best-of": 0}
    assert script.main(command(judges, out, "--control", **options)) == 0
    run = json.loads((out / "run.json").read_text())
    trained = np.array(run["trained"])
    assert trained[8:].tolist() == [0, 0]  # not what self-transcendence asks for
    assert trained.sum() == 2
    assert run["target"] == [0, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    assert (out / "scores_before.jsonl").read_bytes() == (
        whole / "scores_before.jsonl"
    ).read_bytes()
    assert script.main(["tunix-compare", str(whole), str(out)]) == 0
    figures = json.loads((whole / "control.json").read_text())
    for who, ending in (("evaluator", ""), ("second", ".second")):
        ends = [
            read_scores(path / f"scores_after{ending}.jsonl").scores[:, 8:].mean()
            for path in (whole, out)
        ]
        mean, low, high = figures["beyond"][who]["toward"]
        assert mean == pytest.approx(ends[0] - ends[1], abs=1e-6)
        assert low - 1e-6 <= mean <= high + 1e-6
    assert "beyond the control" in (whole / "control.md").read_text()
    assert (whole / "control.png").stat().st_size > 5000
    capsys.readouterr()
    assert script.main(["tunix-compare", str(out), str(whole)]) == 1
    assert "should be a run without --control" in capsys.readouterr().err


def test_a_checkpoint_is_aligned_by_lora(adapter, judges, words, tmp_path, capsys):
    hub_directory(tmp_path / "model", "llama", words, rope_scaling=LLAMA_3)
    prompts = tmp_path / "prompts.jsonl"
    asked = [f"May I take {n} of them?" for n in range(8)]
    lines = [json.dumps({"prompt": prompt}) for prompt in asked]
    prompts.write_text("\n".join([*lines[:4], "{broken", *lines[4:]]))
    options = {
        "model": tmp_path / "model", "lora-rank": 2, "algorithm": "gdpo",
        "target": "0,0,0,0,0,1,0,.5,0,0", "steps": 2, "micro-batch": 1,
        "prompts": prompts, "gate": "target",
    }  # fmt: skip
    assert script.main(command(judges, tmp_path / "run", **options)) == 0
    said = capsys.readouterr().out
    # Rank 2: 7 projections of 2 layers, (32 + 32), (32 + 16) twice, and so on.
    per_layer = 2 * ((32 + 32) * 2 + (32 + 16) * 2 + (32 + 48) * 3)
    assert f"{2 * per_layer:,} of them trained" in said
    assert "5 prompts to train on, 3 held out" in said
    assert f"{prompts}:5: line: is not valid JSON" in said
    assert lines_of(tmp_path / "run" / "rejects.jsonl")[0]["line"] == 5
    metrics = lines_of(tmp_path / "run" / "metrics.jsonl")
    assert [line["step"] for line in metrics] == [1, 2]
    answered = read_scores(tmp_path / "run" / "scores_after.jsonl").prompts
    assert list(dict.fromkeys(answered)) == asked[5:]
    model = importlib.import_module("tunix.models.llama3.model")
    assert model.apply_rope.__module__ == "tunix.models.llama3.model"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "good"}, "'good' is unknown"),
        ({"target": "1,2"}, "target is '1,2'"),
        ({"evaluator": "nowhere"}, "nowhere does not exist"),
        ({"second": "judge"}, "is the one that gives the reward"),
        ({"model": "nowhere"}, "holds no config.json"),
        ({"prompts": "nowhere"}, "nowhere: does not exist"),
        ({"micro-batch": 3}, "micro_batch is 3; expected a divisor"),
        ({"answers": 1}, "answers is 1; expected at least 2"),
        ({"temperature": 0}, "temperature is 0"),
    ],
)
def test_the_script_refuses_in_one_sentence(
    adapter, judges, tmp_path, options, message, capsys
):
    out = tmp_path / "run"
    options = {name: judges.get(given, given) for name, given in options.items()}
    try:
        code = script.main(command(judges, out, **options))
    except SystemExit as left:  # what the command line itself refuses
        code = left.code
    assert code != 0
    told = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in told
    assert not out.exists()
