# SPDX-License-Identifier: Apache-2.0
"""All arms and seeds of a study, what they are compared with, and their figures.

study.json      what is studied, with checksums of the models
arms/           one folder for each arm and seed (see arm.py)
scores/         answers with scores, as JSONL: of the start, of each arm, of best-of-n;
                by the evaluator that gave the reward, and by the second one
figures.json    every figure; report.md and *.png are made of it
"""

import dataclasses
import json
import os
import pathlib
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import rundir
from experiments.align import arm, measure, report
from experiments.align.settings import HeldOut, Study
from experiments.exits import Stop
from experiments.progress import Counter
from experiments.toy_lm import files, texts
from fulcra_jax import alignment, catalogue, objectives, targets
from fulcra_jax.inference import Predictor, evaluator_id, read_scores, write_scores

EQUAL_KL = 64
"""Largest n for which best-of-n is taken to have the KL of its bound."""


class Models(NamedTuple):
    """What a study needs on disk."""

    start: arm.Start
    evaluator: Predictor
    second: Predictor
    sums: dict[str, str]
    """SHA-256 of the weights, by role."""


def run(study: Study) -> dict[str, Any]:
    """Trains and measures what is not there yet; returns all figures."""
    began = time.monotonic()
    out = pathlib.Path(study.out)
    target = targets.parse_target(study.target)
    control = targets.control_target(target)
    models = load(study)
    rundir.begin(out / "study.json", identity(study, models.sums))
    goals = {
        "target": arm.Goal(target, "none"),
        "control": arm.Goal(control.vector, "none"),
        "released": arm.Goal(target, "official"),
    }
    seconds: dict[str, float] = {}
    with Stop() as stop:
        prompts = texts.prompts(seed=1, n=study.held_out.prompts, split="test")
        start_figures(out, study, models, prompts)
        pool_figures(out, study, models, prompts)
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
                arm_figures(out, path, study, models, prompts)
                seconds[path.name] = _seconds(path)
    figures = collect(out, study, target, control)
    figures["seconds"] = seconds
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
        "decoder": catalogue.sha256_of(
            pathlib.Path(study.decoder, "decoder.safetensors")
        ),
        "evaluator": catalogue.sha256_of(_weights(study.evaluator)),
        "second": catalogue.sha256_of(_weights(study.second)),
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


def start_figures(
    out: pathlib.Path, study: Study, models: Models, prompts: list[str]
) -> None:
    """The answers of the start, scored; once."""
    if _scored(out, "start"):
        return
    print("the start answers", flush=True)
    config, params, codec = models.start
    said = measure.answer(
        config, params, params, codec, prompts,
        answers=study.held_out.answers, seed=study.held_out.seed,
    )  # fmt: skip
    _write_scored(out, "start", said, study, models)


def arm_figures(
    out: pathlib.Path,
    path: pathlib.Path,
    study: Study,
    models: Models,
    prompts: list[str],
) -> None:
    """The answers of an aligned decoder, scored; once."""
    if _scored(out, path.name):
        return
    config, reference, codec = models.start
    _, params, _ = files.load(path / "decoder")
    said = measure.answer(
        config, params, reference, codec, prompts,
        answers=study.held_out.answers, seed=study.held_out.seed,
    )  # fmt: skip
    _write_scored(out, path.name, said, study, models)


def pool_figures(
    out: pathlib.Path, study: Study, models: Models, prompts: list[str]
) -> None:
    """Many answers of the start to each prompt, scored; once."""
    known = out / "scores" / "pool.npz"
    if known.is_file():
        return
    n = study.held_out.best_of
    print(f"best-of-n: {len(prompts) * n:,} answers of the start", flush=True)
    total = len(prompts) * n
    config, params, codec = models.start
    said = measure.answer(
        config, params, params, codec, prompts, answers=n,
        seed=study.held_out.seed + 1, progress=Counter("drawn", total),
    )  # fmt: skip
    known.parent.mkdir(parents=True, exist_ok=True)
    half = known.with_name("pool.part.npz")
    found = {
        who: getattr(models, who)
        .score(said.prompts, said.responses, progress=Counter(f"scored, {who}", total))
        .scores
        for who in ("evaluator", "second")
    }
    np.savez_compressed(half, **found)
    os.replace(half, known)


def collect(
    out: pathlib.Path, study: Study, target: np.ndarray, control: targets.Control
) -> dict[str, Any]:
    """All figures, from the files of scores."""
    held_out = study.held_out
    figures: dict[str, Any] = {
        "target": target.tolist(),
        "control": control.vector.tolist(),
        "control_is_disjoint": control.disjoint,
        "start": _figures(out, "start", target, held_out),
        "arms": {},
        "specificity": {},
    }
    before = _quantities(out, "start", target)
    for seed in study.seeds:
        after = {
            name: _quantities(out, f"{name}-seed{seed}", target) for name in study.arms
        }
        for name in study.arms:
            key = f"{name}-seed{seed}"
            entry = _figures(out, key, target, held_out)
            entry |= {"arm": name, "seed": seed}
            entry["change"] = {
                who: measure.differences(after[name][who], before[who], held_out)
                for who in before
            }
            entry["alarms"] = alarms(entry, figures["start"])
            if name == "target":
                entry["best_of_n"] = best_of_n(out, entry, target, held_out)
            figures["arms"][key] = entry
        if {"target", "control"} <= set(after):
            # Before is the same, so that the difference of the changes is that of the
            # ends, prompt by prompt.
            figures["specificity"][f"seed{seed}"] = {
                who: measure.differences(
                    after["target"][who], after["control"][who], held_out
                )["toward"]
                for who in before
            }
    return figures


def alarms(entry: dict[str, Any], start: dict[str, Any]) -> list[str]:
    """What should make one distrust an arm, in sentences."""
    change = entry["change"]["evaluator"]
    found = []
    rise = change["no connection, targeted"].mean
    if rise >= 0.2:
        found.append(
            f"value-free: the share of targeted cells without a connection rose by "
            f"{rise:.2f}"
        )
    kept = entry["text"]["distinct_2"] / start["text"]["distinct_2"]
    if kept < 0.8:
        found.append(f"collapse: distinct-2 fell to {kept:.2f} of the start")
    ratio = entry["text"]["tokens"] / start["text"]["tokens"]
    if not 0.5 <= ratio <= 2.0:
        found.append(f"length: answers have {ratio:.2f} times the tokens of the start")
    mine, other = (
        entry["change"][who]["reward"].mean for who in ("evaluator", "second")
    )
    if mine > 0.0 and other < 0.25 * mine:
        found.append(
            f"evaluator: the reward rose by {mine:.2f}, by {other:.2f} in the eyes of "
            "the second evaluator"
        )
    return found


def best_of_n(
    out: pathlib.Path, entry: dict[str, Any], target: np.ndarray, held_out: HeldOut
) -> dict[str, Any]:
    """The best of n answers of the start, n as large as the KL of the arm allows."""
    kl = entry["text"]["kl"]
    bound = float(objectives.best_of_n_kl_bound(jnp.asarray(float(EQUAL_KL))))
    equal = kl <= bound
    n = objectives.n_of_kl_bound(kl, most=EQUAL_KL) if equal else held_out.best_of
    n = min(n, held_out.best_of)
    pool = np.load(out / "scores" / "pool.npz")
    by_who = {who: measure.quantities(pool[who], target) for who in pool.files}
    reward = by_who["evaluator"]["reward"].reshape(held_out.prompts, -1)
    # How likely each answer of the pool is to be the best of n that are drawn from it.
    probs = alignment.selection_probs(reward, n)

    def expected(x: np.ndarray) -> np.ndarray:
        return (probs * x.reshape(held_out.prompts, -1)).sum(1)

    return {
        "n": n,
        "kl_bound": float(objectives.best_of_n_kl_bound(jnp.asarray(float(n)))),
        "kl": kl,
        "equal_kl": bool(equal),
        **{
            who: measure.means({k: expected(x) for k, x in found.items()}, held_out)
            for who, found in by_who.items()
        },
    }


def _figures(
    out: pathlib.Path, name: str, target: np.ndarray, held_out: HeldOut
) -> dict[str, Any]:
    """Means of one set of answers in the eyes of both evaluators, and its texts."""
    found = _quantities(out, name, target)
    return {
        "text": json.loads((out / "scores" / f"{name}.text.json").read_text()),
        **{who: measure.means(x, held_out) for who, x in found.items()},
    }


def _quantities(
    out: pathlib.Path, name: str, target: np.ndarray
) -> dict[str, dict[str, np.ndarray]]:
    return {
        who: measure.quantities(read_scores(_file(out, name, who)).scores, target)
        for who in ("evaluator", "second")
    }


def _file(out: pathlib.Path, name: str, who: str) -> pathlib.Path:
    ending = ".jsonl" if who == "evaluator" else ".second.jsonl"
    return out / "scores" / f"{name}{ending}"


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
    for who in ("second", "evaluator"):
        identity = evaluator_id(getattr(study, who))
        answers = measure.score(said, getattr(models, who), name, identity)
        write_scores(_file(out, name, who), answers)


def _weights(run: str) -> pathlib.Path:
    path = pathlib.Path(run)
    path = path / "model" if (path / "model").is_dir() else path
    return path / "model.safetensors"


def _seconds(path: pathlib.Path) -> float:
    """Seconds of training, from the first line of metrics to the last."""
    lines = report.metrics(path)
    return lines[-1]["time"] - lines[0]["time"] if lines else float("nan")
