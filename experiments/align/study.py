# SPDX-License-Identifier: Apache-2.0
"""All arms and seeds of a study, what they are compared with, and their figures.

study.json      what is studied, with checksums of the models
arms/           one folder for each arm and seed (see arm.py)
scores/         answers with scores, as JSONL: of the start, of each arm, of best-of-n;
                by the evaluator that gave the reward, and by the second one
figures.json    every figure; report.md and *.png are made of it
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import rundir
from experiments.align import arm, effects, measure, report
from experiments.align.settings import Study
from experiments.exits import Stop
from experiments.progress import Counter
from experiments.toy_lm import files, texts
from fulcra_jax import targets
from fulcra_jax.inference import Predictor, evaluator_id, read_scores, write_scores

WHO = ("evaluator", "second")
_PARTS = (
    "decoder.json",
    "decoder.safetensors",
    "config.json",
    "model.safetensors",
    "tokenizer.json",
)


class Models(NamedTuple):
    """What a study needs on disk."""

    start: arm.Start
    evaluator: Predictor
    second: Predictor
    sums: dict[str, str]
    """SHA-256 of weights, configuration and tokenizer, by role."""


def run(study: Study) -> dict[str, Any]:
    """Trains and measures what is not there yet; returns all figures."""
    began = time.monotonic()
    out = pathlib.Path(study.out)
    target = targets.parse_target(study.target)
    control = targets.control_target(target)
    models = load(study)
    rundir.begin(out / "study.json", identity(study, models.sums))
    if not (out / "run.json").is_file():
        rundir.write_whole(out / "run.json", rundir.about())
    goals = {
        "target": arm.Goal(target, "none"),
        "control": arm.Goal(control.vector, "none"),
        "released": arm.Goal(target, "official"),
    }
    with Stop() as stop:
        if not _scored(out, "start"):
            answer(out, "start", models.start.params, study, models)
        draw_pool(out, study, models, stop)
        for seed in study.seeds:
            for name in study.arms:
                if stop.asked:
                    raise KeyboardInterrupt
                path = arm.folder(study, name, seed)
                if not arm.is_finished(path):
                    print(f"arm {path.name}", flush=True)
                    arm.train(
                        path, goals[name], seed, study.training, models.start,
                        models.evaluator, stop,
                    )  # fmt: skip
                if stop.asked:
                    raise KeyboardInterrupt
                if not _scored(out, path.name):
                    _, params, _ = files.load(path / "decoder")
                    answer(out, path.name, params, study, models)
    figures = collect(out, study, goals, control.disjoint)
    figures["seconds"] = {
        name: _seconds(out / "arms" / name) for name in figures["arms"]
    }
    figures["device"] = jax.devices()[0].device_kind
    rundir.write_whole(out / "figures.json", figures)
    report.write(out, study, figures)
    print(f"this call took {time.monotonic() - began:.0f} s; {out}/report.md")
    return figures


def load(study: Study) -> Models:
    """Reads decoder and evaluators.

    Raises:
      FileNotFoundError: if one of them is not there.
      ValueError: if reward and check are one and the same evaluator.
    """
    config, params, codec = files.load(pathlib.Path(study.decoder))
    evaluator, second = (
        Predictor.load(path, batch_size=64) for path in (study.evaluator, study.second)
    )
    sums = {
        role: _checksum(pathlib.Path(getattr(study, role)))
        for role in ("decoder", *WHO)
    }
    if sums["evaluator"] == sums["second"]:
        raise ValueError(
            f"align: the second evaluator {study.second} is the one that gives the "
            "reward; expected another, which was not trained against."
        )
    return Models(arm.Start(config, params, codec), evaluator, second, sums)


def identity(study: Study, sums: dict[str, str]) -> dict[str, Any]:
    """What has to stay when a study goes on; arms and seeds may be added."""
    entries = dataclasses.asdict(study)
    for free in ("out", "arms", "seeds", "decoder", "evaluator", "second"):
        del entries[free]
    return entries | {"sha256": sums}


def answer(
    out: pathlib.Path, name: str, params: Any, study: Study, models: Models
) -> None:
    """The answers of a policy to the held-out prompts, scored."""
    print(f"answers of {name}", flush=True)
    config, reference, codec = models.start
    said = measure.answer(
        config, params, reference, codec, _prompts(study),
        answers=study.held_out.answers, seed=study.held_out.seed,
    )  # fmt: skip
    _write_scored(out, name, said, study, models)


def draw_pool(out: pathlib.Path, study: Study, models: Models, stop: Stop) -> None:
    """Many answers of the start to each prompt, scored; once."""
    known = _pool(out)
    if known.is_file():
        return
    prompts, n = _prompts(study), study.held_out.best_of
    total = len(prompts) * n
    print(f"best-of-n: {total:,} answers of the start", flush=True)
    config, params, codec = models.start
    said = measure.answer(
        config, params, params, codec, prompts, answers=n,
        seed=study.held_out.seed + 1, progress=Counter("answers drawn", total, stop),
    )  # fmt: skip
    known.parent.mkdir(parents=True, exist_ok=True)
    half = known.with_name("pool.part.npz")
    found = {
        who: getattr(models, who)
        .score(
            said.prompts,
            said.responses,
            progress=Counter(f"answers scored, {who}", total, stop),
        )
        .scores
        for who in WHO
    }
    np.savez_compressed(half, **found)
    os.replace(half, known)


def collect(
    out: pathlib.Path, study: Study, goals: Mapping[str, arm.Goal], disjoint: bool
) -> dict[str, Any]:
    """All figures of all arms that are there, from the files of scores."""
    held_out, target = study.held_out, goals["target"].target
    scores = _scores(out, study, "start")
    before = effects.quantities(scores, target)
    control_before = effects.quantities(scores, goals["control"].target)
    start = effects.means(before, _text(out, "start"), held_out)
    pool = effects.quantities(effects.read_pool(_pool(out), held_out, WHO), target)
    figures: dict[str, Any] = {
        "target": target.tolist(),
        "control": goals["control"].target.tolist(),
        "control_is_disjoint": disjoint,
        "start": start,
        "arms": {},
        "specificity": {},
    }
    for seed in _seeds(out):
        after = {}
        for name, goal in goals.items():
            key = f"{name}-seed{seed}"
            if not _scored(out, key):
                continue
            scores = _scores(out, study, key)
            after[name] = effects.quantities(scores, target)
            entry: dict[str, Any] = effects.means(
                after[name], _text(out, key), held_out
            )
            entry |= {"arm": name, "seed": seed}
            entry["change"] = own = effects.change(after[name], before, held_out)
            if name == "control":
                # An arm is distrusted for what it was trained on, not for the target.
                aimed = effects.quantities(scores, goal.target)
                own = effects.change(aimed, control_before, held_out)
            entry["alarms"] = effects.alarms(
                own, entry["text"], start["text"],
                reward="released reward" if goal.gate == "official" else "reward",
            )  # fmt: skip
            if name == "target":
                entry["best_of_n"] = effects.best_of_n(
                    pool, entry["text"]["kl"], held_out
                )
            figures["arms"][key] = entry
        if {"target", "control"} <= set(after):
            # Before is the same, so that the difference of the changes is that of the
            # ends, prompt by prompt.
            beyond = effects.change(after["target"], after["control"], held_out)
            figures["specificity"][f"seed{seed}"] = {
                who: x["toward"] for who, x in beyond.items()
            }
    return figures


def _seeds(out: pathlib.Path) -> list[int]:
    """The seeds of the arms that have scores."""
    names = (path.name for path in (out / "scores").glob("*-seed*.text.json"))
    found = (re.fullmatch(r"[a-z]+-seed(\d+)\.text\.json", name) for name in names)
    return sorted({int(match[1]) for match in found if match})


def _text(out: pathlib.Path, name: str) -> dict[str, float]:
    """What the texts of a set of answers look like."""
    path = out / "scores" / f"{name}.text.json"
    try:
        text = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        text = None
    if not isinstance(text, dict) or not {"kl", "distinct_2"} <= set(text):
        raise ValueError(_again(path, out, name))
    return text


def _scores(out: pathlib.Path, study: Study, name: str) -> dict[str, np.ndarray]:
    """The scores of a set of answers, by who scored."""
    prompts = np.repeat(_prompts(study), study.held_out.answers).tolist()
    scores = {}
    for who in WHO:
        answers = read_scores(_file(out, name, who))
        if answers.prompts != prompts:
            raise ValueError(_again(_file(out, name, who), out, name))
        scores[who] = answers.scores
    return scores


def _again(path: pathlib.Path, out: pathlib.Path, name: str) -> str:
    return (
        f"{path}: is damaged or of another study; delete {out}/scores/{name}.jsonl, "
        "and the same command makes it again."
    )


@functools.cache
def _prompts(study: Study) -> list[str]:
    return texts.prompts(seed=1, n=study.held_out.prompts, split="test")


def _file(out: pathlib.Path, name: str, who: str) -> pathlib.Path:
    ending = ".jsonl" if who == "evaluator" else ".second.jsonl"
    return out / "scores" / f"{name}{ending}"


def _pool(out: pathlib.Path) -> pathlib.Path:
    return out / "scores" / "pool.npz"


def _scored(out: pathlib.Path, name: str) -> bool:
    return _file(out, name, "evaluator").is_file()


def _write_scored(
    out: pathlib.Path, name: str, said: measure.Said, study: Study, models: Models
) -> None:
    """The file that says "done" comes last."""
    (out / "scores").mkdir(parents=True, exist_ok=True)
    rundir.write_whole(
        out / "scores" / f"{name}.text.json",
        measure.text_figures(said, study.held_out.answers),
    )
    for who in reversed(WHO):
        identity = evaluator_id(getattr(study, who))
        answers = measure.score(said, getattr(models, who), name, identity)
        write_scores(_file(out, name, who), answers)


def _checksum(path: pathlib.Path) -> str:
    """SHA-256 of a model's weights, configuration and tokenizer."""
    path = path / "model" if (path / "model").is_dir() else path
    digest = hashlib.sha256()
    for name in _PARTS:
        if (path / name).is_file():
            digest.update(name.encode() + (path / name).read_bytes())
    return digest.hexdigest()


def _seconds(path: pathlib.Path) -> float | None:
    """Seconds of training; of the logged steps, pauses left out."""
    lines = report.metrics(path)
    return round(sum(line["seconds"] for line in lines), 1) if lines else None
