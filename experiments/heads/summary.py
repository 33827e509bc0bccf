# SPDX-License-Identifier: Apache-2.0
"""Tables of finished cells: means over seeds, paired differences, what could be seen.

Figures are of pooled cells (row, value). On folds the held-out rows of all folds are
one table for each seed, and the figure of a recipe is the mean over its seeds. Every
resample draws clusters of near-duplicate prompts, the same for all recipes.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.heads.cells import Cell, Cells, Key, Unusable, row_keys
from fulcra_jax import scoring
from fulcra_jax.data import source, splits
from fulcra_jax.data.rows import Row

RESAMPLES = 2000
VISIBLE = 2.8
"""Standard errors that a difference needs to be seen in four cases of five, at 5 %."""


@dataclasses.dataclass(frozen=True)
class System:
    """A recipe on the held-out rows of some splits."""

    recipe: str
    seeds: tuple[int, ...]
    classes: np.ndarray
    """`[S, N, 10]` int in {-1, 0, 1}, one table for each seed."""
    cells: tuple[Cell, ...]
    probs: np.ndarray
    """`[S, N, 10, 3]` float32, those of the classes or before a decision."""


@dataclasses.dataclass(frozen=True)
class Held:
    """The held-out rows of some splits, pooled."""

    rows: list[Row]
    splits: tuple[str, ...]
    split: np.ndarray
    """`[N]` int: which of the splits a row is held out in."""


def held_rows(rows_by_split: dict[str, list[Row]]) -> Held:
    """Pools the labelled rows of splits."""
    rows, split = [], []
    for number, found in enumerate(rows_by_split.values()):
        some = [row for row in found if row.where.any()]
        rows += some
        split += [number] * len(some)
    return Held(rows, tuple(rows_by_split), np.array(split, int))


def systems_of(
    cells: Cells,
    held: Held,
    recipes: Sequence[str],
    settings: dict[Key, str],
    notes: list[str],
) -> list[System]:
    """The recipes that have all splits of at least one seed.

    Args:
      cells: the finished ones.
      held: the rows.
      recipes: in the order of the table.
      settings: digests that cells must have, by key; a key without one takes any.
      notes: gets a sentence for each cell whose predictions are missing, damaged or of
        other rows; its seed is left out.
    """
    finished, keys = cells.read(), row_keys(held.rows)
    found = []
    for recipe in recipes:
        seeds, tables, used = [], [], []
        for seed in sorted({key.seed for key in finished if key.recipe == recipe}):
            wanted = [Key(recipe, split, seed) for split in held.splits]
            if any(
                key not in finished
                or settings.get(key, finished[key].settings) != finished[key].settings
                for key in wanted
            ):
                continue
            table = np.zeros((len(held.rows), 10, 3), np.float32)
            try:
                for number, key in enumerate(wanted):
                    here = held.split == number
                    table[here] = cells.probs(key, keys[here])
            except (Unusable, FileNotFoundError) as error:
                notes.append(f"Left out: {recipe} seed {seed}: {error}")
                continue
            seeds.append(seed)
            tables.append(table)
            used += [finished[key] for key in wanted]
        if seeds:
            probs = np.stack(tables)
            classes = probs.argmax(-1) - 1
            found.append(System(recipe, tuple(seeds), classes, tuple(used), probs))
    return found


FIGURES = ("accuracy", "macro_f1", "f1_opposed", "f1_none", "f1_supported")


def _figures(counts: jax.Array) -> jax.Array:
    """`[5]` from a table `[3, 3]` of counts."""
    f1 = scoring.precision_recall_f1(counts).f1
    macro = scoring.macro_f1(counts)
    return jnp.stack([scoring.accuracy(counts), macro, f1[0], f1[1], f1[2]])


def _tables(classes: np.ndarray, labels: np.ndarray, where: np.ndarray) -> np.ndarray:
    """`[N, 3, 3]` counts of (label, prediction) in each row."""
    one = np.eye(3, dtype=np.float32)
    truth = one[np.rint(labels).astype(int) + 1] * where[..., None]
    return np.einsum("nvi,nvj->nij", truth, one[classes + 1])


@dataclasses.dataclass(frozen=True)
class Summary:
    """Figures of systems on the same rows, and differences to some of them."""

    systems: list[System]
    rows: int
    clusters: int
    opposed: int
    """Cells labelled -1."""
    mean: np.ndarray
    """`[R, 5]` of `FIGURES`, the mean over seeds."""
    spread: np.ndarray
    """`[R, 5]` standard deviation over seeds; NaN of one seed."""
    interval: np.ndarray
    """`[R, 5, 2]` of the mean over seeds, over clusters."""
    differences: list[dict[str, Any]]


def summarise(
    systems: Sequence[System], held: Held, against: Sequence[str], *, seed: int = 0
) -> Summary:
    """Means, spreads, intervals, and paired differences.

    Args:
      systems: R of them, on the rows of `held`.
      held: the rows.
      against: recipes that all others are compared with, where they are there; a pair
        is compared once.
      seed: of the bootstrap.

    Returns:
      The summary. p is two-sided, of the bootstrap; q its Benjamini-Hochberg value over
      all differences of one figure.

    Raises:
      ValueError: if there is no system.
    """
    if not systems:
        raise ValueError("heads: no recipe has all its cells; nothing to sum up.")
    labels, where = source.label_arrays(held.rows)
    cluster = splits.prompt_components([row.prompt for row in held.rows])
    G = int(cluster.max()) + 1
    totals = [
        np.stack([_tables(table, labels, where) for table in system.classes], 1)
        for system in systems
    ]  # [N, S, 3, 3] each
    sums = scoring.sum_by_cluster(
        [jnp.asarray(t) for t in totals], jnp.asarray(cluster), G
    )

    def of_all(tables: list[jax.Array]) -> jax.Array:
        return jnp.stack([jax.vmap(_figures)(t).mean(0) for t in tables])

    samples = np.asarray(
        jax.jit(
            lambda key, sums: scoring.cluster_bootstrap(
                key, sums, of_all, num_resamples=RESAMPLES
            )
        )(jax.random.key(seed), sums)
    )  # [RESAMPLES, R, 5]
    seeds = [np.asarray(jax.vmap(_figures)(jnp.asarray(t.sum(0)))) for t in totals]
    mean = np.stack([table.mean(0) for table in seeds])
    alone = np.full(len(FIGURES), np.nan)
    spread = np.stack([t.std(0, ddof=1) if len(t) > 1 else alone for t in seeds])
    low_high = scoring.confidence_interval(jnp.asarray(samples))
    return Summary(
        list(systems),
        len(held.rows),
        G,
        int((where & (np.rint(labels) == -1)).sum()),
        mean,
        spread,
        np.stack([np.asarray(end) for end in low_high], -1),
        _differences(systems, mean, samples, against),
    )


def _differences(
    systems: Sequence[System],
    mean: np.ndarray,
    samples: np.ndarray,
    against: Sequence[str],
) -> list[dict[str, Any]]:
    place = {system.recipe: number for number, system in enumerate(systems)}
    found: list[dict[str, Any]] = []
    for name in against:
        if name not in place:
            continue
        for system in systems:
            pair = {system.recipe, name}
            if len(pair) == 1 or any(
                {e["recipe"], e["against"]} == pair for e in found
            ):
                continue
            ours, theirs = place[system.recipe], place[name]
            entry: dict[str, Any] = {"recipe": system.recipe, "against": name}
            for figure in ("macro_f1", "f1_opposed"):
                column = FIGURES.index(figure)
                drawn = samples[:, ours, column] - samples[:, theirs, column]
                low, high = scoring.confidence_interval(jnp.asarray(drawn))
                tail = min((drawn <= 0).sum(), (drawn >= 0).sum())
                entry[figure] = {
                    "difference": float(mean[ours, column] - mean[theirs, column]),
                    "interval": [float(low), float(high)],
                    "p": min(1.0, 2 * (int(tail) + 1) / (len(drawn) + 1)),
                    "visible": VISIBLE * float(drawn.std(ddof=1)),
                }
            found.append(entry)
    for figure in ("macro_f1", "f1_opposed"):
        p = jnp.asarray([entry[figure]["p"] for entry in found], jnp.float32)
        if len(found):
            for entry, q in zip(found, scoring.benjamini_hochberg(p), strict=True):
                entry[figure]["q"] = float(q)
    return found
