# SPDX-License-Identifier: Apache-2.0
"""One task of the scoring benchmark in fulcra_jax, timed.

`python -m experiments.benchmarks.scoring_ours TASK DATA.npy REPEATS` prints one line of
JSON. A process a task, so that its peak memory is its own. From ratings on the host to
results on the host: pattern codes and histograms are part of every time.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import scoring

K, RESAMPLES, ITERATIONS = 3, 1000, 20
RESULT_ITEMS = 1000


@jax.jit
def table_of(ratings: jax.Array) -> scoring.PatternTable:
    """The patterns of one value; an id of -1 counts as missing."""
    return scoring.pattern_table(ratings, K)


def stacked(tables: list[scoring.PatternTable]) -> scoring.PatternTable:
    """The tables of all values as one, without the long way back to the items."""
    small = [t._replace(pattern_of_unit=t.pattern_of_unit[:0]) for t in tables]
    return jax.tree.map(lambda *x: jnp.stack(x), *small)


@jax.jit
@jax.vmap
def coefficients_of(table: scoring.PatternTable) -> scoring.Coefficients:
    """Eight coefficients of every value."""
    return scoring.agreement_coefficients(
        table.ratings, K, where=table.where, unit_weights=table.counts
    )


@jax.jit
def resampled(key: jax.Array, tables: scoring.PatternTable) -> scoring.Coefficients:
    """Eight coefficients of every value and resample."""

    def of_value(one: tuple[jax.Array, scoring.PatternTable]) -> scoring.Coefficients:
        key, table = one
        weights = scoring.resample_counts(key, table.counts, num_resamples=RESAMPLES)
        per_unit = scoring.unit_totals(table.ratings, K, where=table.where)
        return scoring.resampled_coefficients(per_unit, weights)

    keys = jax.random.split(key, tables.counts.shape[0])
    return jax.lax.map(of_value, (keys, tables))


@jax.jit
def anonymous_table_of(ratings: jax.Array) -> scoring.PatternTable:
    """The patterns of one value without the raters' names, enough for alpha."""
    return scoring.pattern_table(ratings, K, anonymous=True)


@jax.jit
def resampled_alpha(key: jax.Array, tables: scoring.PatternTable) -> jax.Array:
    """Nominal alpha of every value and resample; nothing else is computed."""
    return resampled(key, tables).alpha_nominal


@jax.jit
@jax.vmap
def posterior_of(table: scoring.PatternTable) -> jax.Array:
    """Dawid-Skene posteriors of every value's patterns."""
    return scoring.dawid_skene(
        table.ratings,
        K,
        where=table.where,
        unit_weights=table.counts,
        pseudo_counts=0.0,
        num_iterations=ITERATIONS,
    ).probs


@jax.jit
def of_items(probs: jax.Array, pattern: jax.Array) -> jax.Array:
    """The posterior of an item is that of its pattern."""
    return probs[pattern]


def eight_coefficients(data: np.ndarray) -> Any:
    """All coefficients of all values."""
    return jax.device_get(coefficients_of(stacked([table_of(x) for x in data])))


def bootstrap(data: np.ndarray) -> Any:
    """All coefficients of all values and resamples."""
    tables = stacked([table_of(x) for x in data])
    return jax.device_get(resampled(jax.random.key(0), tables))


def bootstrap_alpha(data: np.ndarray) -> Any:
    """Nominal alpha of all values and resamples."""
    tables = stacked([anonymous_table_of(x) for x in data])
    return jax.device_get(resampled_alpha(jax.random.key(0), tables))


def dawid_skene(data: np.ndarray) -> Any:
    """Posteriors of all items of all values."""
    tables = [table_of(x) for x in data]
    probs = posterior_of(stacked(tables))
    return [
        np.asarray(of_items(probs[v], table.pattern_of_unit))
        for v, table in enumerate(tables)
    ]


def summary(task: str, result: Any) -> Any:
    """What is compared with the reference."""
    if task == "eight_coefficients":
        return {name: x.tolist() for name, x in result._asdict().items()}
    if task == "bootstrap":
        return np.std(result.alpha_nominal, axis=1).tolist()
    if task == "bootstrap_alpha":
        return np.std(result, axis=1).tolist()
    return result[0][:RESULT_ITEMS].tolist()


TASKS: dict[str, Callable[[np.ndarray], Any]] = {
    "eight_coefficients": eight_coefficients,
    "bootstrap": bootstrap,
    "bootstrap_alpha": bootstrap_alpha,
    "dawid_skene": dawid_skene,
}


def peak_memory() -> int:
    """Bytes; of this program alone, where ru_maxrss begins with that of its parent."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    raise OSError("peak memory: no VmHWM in /proc/self/status; it is there on Linux.")


def main() -> None:
    """Runs one task: once to compile, then the repeats that count."""
    task, path, repeats = sys.argv[1:]
    data = np.load(path)
    seconds, result = [], None
    for _ in range(int(repeats) + 1):
        start = time.perf_counter()
        result = TASKS[task](data)
        seconds.append(time.perf_counter() - start)
    report = {
        "first": seconds[0],
        "s": seconds[1:],
        "peak": peak_memory(),
        "result": summary(task, result),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
