# SPDX-License-Identifier: Apache-2.0
"""Training and judging one cell of the comparison."""

import dataclasses
import gc
import hashlib
import json
import pathlib
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import floors, prepare, rundir, train
from experiments.config import Config
from experiments.heads import variants
from experiments.heads.cells import Cell, Cells, Key, row_keys
from fulcra_jax.convert import weights
from fulcra_jax.data import source
from fulcra_jax.data.rows import Row
from fulcra_jax.inference import Predictor
from fulcra_jax.report import evaluation
from fulcra_jax.training import ceiling

FLOORS = ("majority", "TF-IDF + LR")
"""Systems that need no training step; they are cells like the others."""

Judged = tuple[np.ndarray, dict[str, Any]]
"""Probabilities of the held-out rows, and the fields of the cell about the training."""


class Setting(NamedTuple):
    """What all cells of a comparison share."""

    base: Config
    data: str
    """A folder of rows; empty is the embedded corpus."""
    encoder: str
    """A Hugging Face directory; empty trains one from random weights."""
    out: pathlib.Path
    """Where runs are kept while they are trained."""
    name: str = ""
    """What the encoder is called behind "@" in the names of recipes; "" is none."""


def config_of(setting: Setting, key: Key) -> Config:
    """The configuration of a cell."""
    config = variants.apply(setting.base, key.variants)
    kind, _, value = key.split.partition(":")
    if kind == "zero-shot":
        config = dataclasses.replace(config, leave_out=(value,))
    if setting.data:
        taught = config.loss.teacher > 0
        rows: Any = source.Folder(setting.data, teacher=taught)
        if kind.startswith("fold"):
            fold = int(kind.removeprefix("fold"))
            rows = source.Fold(setting.data, fold, teacher=taught)
        config = dataclasses.replace(config, source=rows)
    return dataclasses.replace(config, seed=key.seed, pretrained=setting.encoder)


def settings_of(config: Config, recipe: str) -> str:
    """Digest of all that decides a cell's numbers, wherever its files lie."""
    told = ""
    if recipe not in FLOORS:
        text = dataclasses.replace(config.text, cache="")
        plain = dataclasses.replace(
            config, source=source.Embedded(), pretrained="", text=text
        )
        told = f"{_changed(plain)}|{encoder_id(config.pretrained)}"
    return digest(config, told)


def digest(config: Config, told: str) -> str:
    """Twelve digits of the rows that a configuration names and of what is told."""
    corpus = prepare.read_corpus(config).rows
    rows = [*corpus["train"], *corpus["dev"]]
    parts = [rundir.fingerprint(rows, items=config.loss.items > 0)]
    parts += [told] if told else []
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:12]


def commit() -> str:
    """The commit of the working tree, shortened."""
    return str(rundir.about()["commit"])[:9]


_LATER = ("adapter",)
"""Parts of the configuration that came after the first finished cells."""


def _changed(config: Any) -> str:
    """What is not as by default: a field that is added later changes no digest."""
    told = []
    for field in dataclasses.fields(config):
        held = getattr(config, field.name)
        if held == field.default and field.name in _LATER:
            continue
        if dataclasses.is_dataclass(held):
            told.append(f"{field.name}={_changed(held)}")
        elif held != field.default:
            told.append(f"{field.name}={held!r}")
    return f"{type(config).__name__}({', '.join(told)})"


def encoder_id(folder: str) -> str:
    """Twelve digits of the SHA-256 of an encoder's weights; "" without a folder."""
    if not folder:
        return ""
    with weights.open_weights(pathlib.Path(folder)) as tensors:
        path = pathlib.Path(tensors.path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def settings_of_key(setting: Setting, key: Key) -> str:
    """The digest that a cell must have to be this one."""
    return settings_of(_config(setting, key), key.recipe)


def _config(setting: Setting, key: Key) -> Config:
    """As `config_of`; of a floor only its rows count."""
    named = key
    if key.recipe in FLOORS:
        named = dataclasses.replace(key, recipe="shared")
    return config_of(setting, named)


def run_cell(setting: Setting, key: Key, cells: Cells) -> Cell:
    """Trains and judges a cell, and writes it down."""
    config = _config(setting, key)
    settings = settings_of(config, key.recipe)
    rows = prepare.read_corpus(config).rows
    held = [row for row in rows["dev"] if row.where.any()]
    if key.recipe in FLOORS:
        probs, told = _floor(key.recipe, rows["train"], held)
    else:
        # Another stage's run of that name is another run, and is not gone on with.
        run = setting.out / "runs" / f"{key.file.removesuffix('.npz')}.{settings}"
        probs, told = _trained(run, config, held)
    probs = probs.astype(np.float16).astype(np.float32)  # as they are kept
    labels, where = source.label_arrays(held)
    figures = evaluation.quick_figures(probs.argmax(-1) - 1, labels, where)
    cell = Cell(
        key.recipe, key.split, key.seed, settings, len(held),
        **{name: round(number, 4) for name, number in figures.items()},
        **told,
        device=f"{jax.devices()[0].device_kind} x {jax.device_count()}",
        commit=commit(),
    )  # fmt: skip
    cells.add(cell, row_keys(held), probs)
    return cell


def _trained(run: pathlib.Path, config: Config, held: list[Row]) -> Judged:
    begun = time.monotonic() - _spent(run)
    if not (run / "model").is_dir():
        train.train(config, run, resume=(run / "config.py").is_file())
    seconds = time.monotonic() - begun
    predictor = Predictor.load(run)
    answers = predictor.score(
        [row.prompt for row in held], [row.response for row in held]
    )
    judged = predictor.config
    lengths = [len(ids) for ids in _encoded(predictor, held)]
    told = {
        "steps": steps_of(run),
        "seconds": round(seconds, 1),
        "gflops": round(_gflops(judged, lengths), 4),
        "passes": judged.head.reads(1, 8, 1)[0],
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(predictor.params)),
    }
    probs = answers.probs
    if np.isnan(probs).any():  # a link without probabilities: the nearest label
        probs = np.eye(3, dtype=np.float32)[answers.classes() + 1]
    shutil.rmtree(run)
    jax.clear_caches()
    gc.collect()
    return probs, told


def _spent(run: pathlib.Path) -> float:
    """Seconds that a run was trained for before it was killed; of one that was killed
    more than once, the pauses count too."""
    metrics = run / "metrics.jsonl"
    if not metrics.is_file():
        return 0.0
    whole = metrics.read_bytes().rpartition(b"\n")[0].splitlines()
    begun = (run / "config.py").stat().st_mtime
    return max(0.0, json.loads(whole[-1])["time"] - begun) if whole else 0.0


def _encoded(predictor: Predictor, held: Sequence[Row]) -> list[np.ndarray]:
    return predictor.tokenizer.encode(
        [row.prompt for row in held],
        [row.response for row in held],
        max_length=predictor.max_length,
    ).ids


def _gflops(judged: Any, lengths: Sequence[int]) -> float:
    each = [ceiling.evaluator_flops(judged, 1, n, positions=True) for n in lengths]
    return float(np.mean(each)) / 3 / 1e9  # a third of a training step's


def steps_of(run: pathlib.Path) -> int:
    """The last step of a run's metrics."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return max(int(json.loads(line)["step"]) for line in lines)


def _floor(name: str, train_rows: list[Row], held: list[Row]) -> Judged:
    begun = time.monotonic()
    fit: Callable[..., evaluation.Answers] = floors.tfidf
    if name == "majority":
        fit = floors.majority
    answers = fit([row for row in train_rows if row.where.any()], held)
    probs = answers.probs
    if probs is None:
        probs = np.eye(3, dtype=np.float32)[answers.classes + 1]
    told = {"steps": 0, "seconds": round(time.monotonic() - begun, 1)}
    return probs, told | {"gflops": 0.0, "passes": 0, "parameters": 0}
