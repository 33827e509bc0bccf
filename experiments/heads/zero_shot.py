# SPDX-License-Identifier: Apache-2.0
"""Values whose labels were never trained on, scored from their definition.

For each value a training that leaves its labels out; the cell keeps what it says of all
ten. The same recipe trained on all labels stands beside it.
"""

import pathlib
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from experiments import prepare
from experiments.heads import running, variants
from experiments.heads.cells import Cells, Key, row_keys
from fulcra_jax import scoring, values
from fulcra_jax.data import source

RECIPES = ("query-definition", "definition")
COMMON = (
    "Self-direction", "Achievement", "Security", "Conformity", "Benevolence",
    "Universalism",
)  # fmt: skip
"""Values with more than 20 labels of a sign on dev."""


def keys(recipes: Sequence[str], setting: running.Setting) -> list[Key]:
    """The cells: each common value left out, and none.

    Raises:
      ValueError: if a recipe's head reads no definitions.
    """
    found: list[Key] = []
    for recipe in recipes:
        head = variants.apply(setting.base, recipe).evaluator.head
        if not head.reads_definitions:
            raise ValueError(
                f"compare_heads: {recipe} has a {type(head).__name__}, which learns "
                "its values; zero-shot needs a head that reads definitions, as "
                f"{', '.join(RECIPES)}."
            )
        found.append(Key(recipe, "dev", 0))
        found += [Key(recipe, f"zero-shot:{name}", 0) for name in COMMON]
    return found


def write(
    cells: Cells, setting: running.Setting, wanted: Sequence[Key], folder: pathlib.Path
) -> str:
    """Writes zero-shot.md: AUROC and F1 of each value, left out and trained on."""
    config = running.config_of(setting, wanted[0])
    rows = [r for r in prepare.read_corpus(config).rows["dev"] if r.where.any()]
    labels, where = source.label_arrays(rows)
    finished, names = cells.read(), row_keys(rows)
    lines = [
        "## zero-shot: a value scored from its definition alone, dev, seed 0",
        "",
        "AUROC of the score for +1 against the rest (.5 is chance), and macro-F1 over "
        "the labels that occur; left out / trained on. Always 0 is the figure of a "
        "system that never finds the value.",
        "",
        "| recipe | value | +1 | -1 | AUROC left out | trained | macro-F1 left out "
        "| trained | always 0 |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for key in wanted:
        if key.split == "dev" or key not in finished:
            continue
        value = key.split.split(":")[1]
        column = values.BASIC.index(value)
        truth, counts = labels[:, column], where[:, column]
        told = []
        for split in (key.split, "dev"):
            other = Key(key.recipe, split, key.seed)
            if other not in finished:
                told.append((float("nan"), float("nan")))
                continue
            probs = cells.probs(other, names)[:, column]
            told.append(_figures(probs, truth, counts))
        nothing = _macro(np.ones(len(truth), int), truth, counts)
        lines.append(
            f"| {key.recipe} | {value} | {int((truth[counts] > 0).sum())} | "
            f"{int((truth[counts] < 0).sum())} | {told[0][0]:.3f} | {told[1][0]:.3f} | "
            f"{told[0][1]:.3f} | {told[1][1]:.3f} | {nothing:.3f} |"
        )
    text = "\n".join(lines) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "zero-shot.md").write_text(text, encoding="utf-8")
    return text


def _figures(
    probs: np.ndarray, truth: np.ndarray, counts: np.ndarray
) -> tuple[float, float]:
    score = jnp.asarray(probs[:, 2] - probs[:, 0])
    auroc = scoring.auroc(score, jnp.asarray(truth > 0), where=jnp.asarray(counts))
    return float(auroc), _macro(probs.argmax(-1), truth, counts)


def _macro(ids: np.ndarray, truth: np.ndarray, counts: np.ndarray) -> float:
    table = scoring.confusion(
        jnp.asarray(ids),
        jnp.asarray(np.rint(truth).astype(int) + 1),
        where=jnp.asarray(counts),
    )
    return float(scoring.macro_f1(table, present_only=True))
