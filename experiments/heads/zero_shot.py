# SPDX-License-Identifier: Apache-2.0
"""Values whose labels were never trained on, scored from their definition.

For each value a training that leaves its labels out; the cell keeps what it says of all
ten. The same recipe trained on all labels stands beside it.
"""

import csv
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import prepare
from experiments.heads import running, tables, variants
from experiments.heads.cells import Cells, Key, Unusable, row_keys
from fulcra_jax import scoring, values
from fulcra_jax.data import source, splits

RECIPES = ("query-definition", "definition")
COMMON = (
    "Self-direction", "Achievement", "Security", "Conformity", "Benevolence",
    "Universalism",
)  # fmt: skip
"""Values with more than 20 labels of a sign on dev."""
RESAMPLES = 2000
COLUMNS = ("auroc", "auroc_trained", "macro_f1", "macro_f1_trained", "macro_f1_none")
"""Figures of a value: left out and trained on; the last of a system that always says
"not there"."""


class Found(NamedTuple):
    """Figures of a recipe on one value, or their mean over values."""

    recipe: str
    name: str
    """The value, or "mean"."""
    opposed: int
    """Labels -1."""
    supported: int
    """Labels +1."""
    figures: np.ndarray
    """`[5]` of `COLUMNS`."""
    intervals: np.ndarray
    """`[6, 2]` of the five, and of auroc - auroc_trained."""


def keys(
    recipes: Sequence[str], setting: running.Setting, names: Sequence[str] = COMMON
) -> list[Key]:
    """The cells: each value left out, and none.

    Raises:
      ValueError: if a recipe's head reads no definitions, or a value stands twice.
      KeyError: if a value is unknown.
    """
    if len(set(names)) != len(names):
        raise ValueError("compare_heads: a value stands twice in --values.")
    for name in names:
        if name not in values.BASIC:
            raise KeyError(
                f"compare_heads: the value {name!r} is unknown; known are: "
                f"{', '.join(values.BASIC)}."
            )
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
        found += [Key(recipe, f"zero-shot:{name}", 0) for name in names]
    return found


def write(
    setting: running.Setting,
    cells: Cells,
    wanted: Sequence[Key],
    *,
    encoder_known: bool,
) -> str:
    """Writes zero-shot.md and zero-shot.csv of what is finished; returns the Markdown.

    Args:
      setting: the base recipe, rows, encoder, and the folder of the tables.
      cells: the finished ones.
      wanted: of `keys`.
      encoder_known: as of `tables.checked`.
    """
    finished = cells.read()
    settings, notes = tables.checked(
        setting, cells, wanted, encoder_known=encoder_known
    )
    fit = {
        key
        for key in wanted
        if key in finished and settings.get(key) in (None, finished[key].settings)
    }
    notes.insert(0, tables.rows_note(setting))
    found: list[Found] = []
    for recipe in dict.fromkeys(key.recipe for key in wanted):
        left = [k for k in wanted if k in fit and k.recipe == recipe and ":" in k.split]
        if left and Key(recipe, "dev", 0) in fit:
            try:
                found += judge(setting, cells, recipe, left)
            except (Unusable, FileNotFoundError) as error:
                notes.append(f"Left out: {recipe}: {error}")
    if not found:
        return "\n".join(["zero-shot: nothing is finished.", *notes])
    text = markdown(found)
    if notes:
        text += "\n" + "\n".join(notes) + "\n"
    setting.out.mkdir(parents=True, exist_ok=True)
    (setting.out / "zero-shot.md").write_text(text, encoding="utf-8")
    _write_csv(found, setting.out / "zero-shot.csv")
    return text


def judge(
    setting: running.Setting, cells: Cells, recipe: str, left: Sequence[Key]
) -> list[Found]:
    """Figures of each value that was left out once, and their mean."""
    config = running.config_of(setting, left[0])
    rows = [r for r in prepare.read_corpus(config).rows["dev"] if r.where.any()]
    labels, where = source.label_arrays(rows)
    names, trained = row_keys(rows), Key(recipe, "dev", 0)
    told = [key.split.split(":")[1] for key in left]
    columns = [values.BASIC.index(name) for name in told]
    probs = np.stack(
        [
            np.stack([cells.probs(k, names)[:, v] for k in (key, trained)])
            for key, v in zip(left, columns, strict=True)
        ]
    )  # [V, 2, N, 3]
    truth, counts = np.rint(labels[:, columns]).T, where[:, columns].T
    figures, intervals = _figures(probs, truth, counts, [row.prompt for row in rows])
    ends = [*told, "mean"]
    opposed = [int((t[c] < 0).sum()) for t, c in zip(truth, counts, strict=True)]
    supported = [int((t[c] > 0).sum()) for t, c in zip(truth, counts, strict=True)]
    return [
        Found(recipe, name, minus, plus, row, interval)
        for name, minus, plus, row, interval in zip(
            ends, [*opposed, sum(opposed)], [*supported, sum(supported)],
            figures, intervals, strict=True,
        )
    ]  # fmt: skip


def _figures(
    probs: np.ndarray, truth: np.ndarray, counts: np.ndarray, prompts: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """`[V + 1, 5]` figures and `[V + 1, 6, 2]` intervals, the last of the mean."""
    score = jnp.asarray(probs[..., 2] - probs[..., 0])  # [V, 2, N]
    above = jnp.sign(score[..., :, None] - score[..., None, :]) / 2 + 0.5
    positive = jnp.asarray((truth > 0) & counts, jnp.float32)  # [V, N]
    negative = jnp.asarray((truth <= 0) & counts, jnp.float32)
    one = np.eye(3, dtype=np.float32)
    ids = np.concatenate(
        [probs.argmax(-1), np.ones((len(truth), 1, truth.shape[1]), int)], 1
    )  # [V, 3, N]: left out, trained on, always 0
    label = jnp.asarray(one[truth.astype(int) + 1] * counts[..., None])
    said = jnp.asarray(one[ids])
    macro = jax.vmap(jax.vmap(lambda t: scoring.macro_f1(t, present_only=True)))

    def statistic(weights: jax.Array) -> jax.Array:
        plus, minus = positive * weights[None], negative * weights[None]
        pairs = jnp.einsum("vn,vsnm,vm->vs", plus, above, minus)
        auroc = pairs / (plus.sum(-1) * minus.sum(-1))[:, None]
        table = jnp.einsum("vnc,vsnd,n->vscd", label, said, weights)
        each = jnp.concatenate([auroc, macro(table)], -1)
        return jnp.concatenate([each, each.mean(0, keepdims=True)])

    cluster = jnp.asarray(splits.prompt_components(prompts))
    samples = scoring.bootstrap(
        jax.random.key(0), statistic, len(prompts), cluster=cluster,
        num_clusters=int(cluster.max()) + 1, num_resamples=RESAMPLES,
    )  # fmt: skip
    samples = jnp.concatenate([samples, samples[..., :1] - samples[..., 1:2]], -1)
    low, high = scoring.confidence_interval(samples)
    ends = np.stack([np.asarray(low), np.asarray(high)], -1)
    return np.asarray(statistic(jnp.ones(len(prompts)))), ends


def markdown(found: Sequence[Found]) -> str:
    """The table."""
    lines = [
        "## zero-shot: a value scored from its definition alone, dev, seed 0",
        "",
        "AUROC of the score for +1 against the rest (.5 is chance), and macro-F1 over "
        "the labels that occur; left out / trained on, [95 % interval over clusters of "
        "prompts]. Always 0 is the figure of a system that never finds the value.",
        "",
        "| recipe | value | +1 | -1 | AUROC left out | trained | difference "
        "| macro-F1 left out | trained | always 0 |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in found:
        shown = [f"{number:.3f}" for number in row.figures]
        ends = [f"[{low:.3f}, {high:.3f}]" for low, high in row.intervals]
        low, high = row.intervals[5]
        lines.append(
            f"| {row.recipe} | {row.name} | {row.supported} | {row.opposed} | "
            f"{shown[0]} {ends[0]} | {shown[1]} {ends[1]} | "
            f"{row.figures[0] - row.figures[1]:+.3f} [{low:+.3f}, {high:+.3f}] | "
            f"{shown[2]} {ends[2]} | {shown[3]} | {shown[4]} |"
        )
    return "\n".join(lines) + "\n"


def _write_csv(found: Sequence[Found], path: pathlib.Path) -> None:
    columns = [*COLUMNS, "auroc_difference"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        ends = [f"{column}_{end}" for column in columns for end in ("low", "high")]
        writer.writerow(["recipe", "value", "plus", "minus", *columns, *ends])
        for row in found:
            numbers = [*row.figures, row.figures[0] - row.figures[1]]
            shown = [f"{number:.4f}" for number in (*numbers, *row.intervals.ravel())]
            writer.writerow([*row[:2], row.supported, row.opposed, *shown])
