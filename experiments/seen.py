# SPDX-License-Identifier: Apache-2.0
"""Rows that a run has seen: figures on them say nothing about new ones."""

import pathlib
from collections.abc import Sequence

from experiments import prepare, rundir
from experiments.config import Config
from experiments.prepare import read_corpus
from fulcra_jax import inference
from fulcra_jax.data import source
from fulcra_jax.data.official import OfficialRow
from fulcra_jax.data.rows import Row


def trained_on(
    paths: Sequence[str | pathlib.Path], held: Sequence[Row] | Sequence[OfficialRow]
) -> list[str]:
    """A sentence for each run that was trained on some of the rows.

    Args:
      paths: of runs, of models of runs or of an ensemble; its bag of words counts too.
      held: the rows.

    Returns:
      Nothing of models without a run, and of runs whose rows are not at hand.
    """
    texts = [(row.prompt, row.response) for row in held]
    words, _ = inference.words_of(paths)
    told = []
    for path in [*inference.members_of(paths), *([words] if words else [])]:
        seen = {(row.prompt, row.response) for row in _training_rows(path)}
        count = sum(text in seen for text in texts)
        if count:
            told.append(f"{path} was trained on {count} of the {len(held)} rows")
    return told


def _training_rows(path: pathlib.Path) -> list[Row]:
    """Those of a run, or of a model's run; none where they are not at hand."""
    folder = path.resolve()
    if folder.name in ("model", "model-best") and not (folder / "config.py").is_file():
        folder = folder.parent
    try:
        return read_corpus(rundir.load_config(folder / "config.py")).rows["train"]
    except (OSError, ValueError, KeyError):
        return []


def warn_of(
    paths: Sequence[str | pathlib.Path], held: Sequence[Row] | Sequence[OfficialRow]
) -> None:
    """Prints what `trained_on` finds."""
    for sentence in trained_on(paths, held):
        print(f"warning: {sentence}; the figures flatter.", flush=True)


def warn_of_change(run: pathlib.Path, config: Config, corpus: source.Corpus) -> None:
    """Prints what `changed` finds."""
    if sentence := changed(run, config, corpus):
        print(
            f"warning: {sentence} The figures may be of rows that it has seen.",
            flush=True,
        )


def changed(run: pathlib.Path, config: Config, corpus: source.Corpus) -> str:
    """A sentence if the rows of a run are not those it was trained on, else ""."""
    rows = prepare.trained_on(config, corpus.rows["train"])
    try:
        rundir.check_data(run, config, rows)
    except ValueError as error:
        return str(error)
    return ""
