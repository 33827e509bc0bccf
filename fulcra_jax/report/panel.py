# SPDX-License-Identifier: Apache-2.0
"""What an agreement report is made of: judgements, raters, patterns, figures.

The passes of one annotator are not independent answers, so they are collapsed to one
rater by majority; a tie is no answer. All cells (item, value) then fall into few
patterns of ratings, and every figure is a function of the counts of these patterns.

Axes: M rows (passes of annotators), R raters (annotators), N items, V values,
P patterns, X groups of cells (all, each value, each source).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import scoring
from fulcra_jax.scoring import aggregation, patterns

K = 3
"""Labels -1, 0, +1."""
NAN = float("nan")


@dataclasses.dataclass(frozen=True, eq=False)
class Panel:
    """The judgements of a file."""

    file: str
    items: tuple[str, ...]
    values: tuple[str, ...]
    annotators: tuple[str, ...]
    kinds: tuple[str, ...]
    """Of the annotators, "human" or "llm"."""
    row_annotator: np.ndarray
    """`[M]` int, an index into `annotators`."""
    ratings: np.ndarray
    """`[M, N, V]` int class ids 0, 1, 2 of labels -1, 0, +1; -1 without a label."""
    asked: np.ndarray
    """`[M, N, V]` bool: there is a judgement, be it null."""
    sources: tuple[str, ...]
    """Of the items; "" where not given."""
    prompts: tuple[str, ...]
    """Of the items: those of one prompt are resampled together."""

    def rows_of(self, annotator: int) -> np.ndarray:
        """The rows that hold the passes of an annotator."""
        return np.flatnonzero(self.row_annotator == annotator)


@dataclasses.dataclass(frozen=True)
class Figure:
    """A number, its interval if it has one, and why it is NaN if it is."""

    value: float
    low: float = NAN
    high: float = NAN
    interval: str = ""
    """How the interval was made; "" without one."""
    reason: str = ""
    """A clause without a full stop; "" for a number."""


@dataclasses.dataclass(frozen=True, eq=False)
class Cells:
    """One rating per rater and cell, and the patterns of ratings."""

    ratings: np.ndarray
    """`[R, N, V]` int8 class ids, -1 where missing."""
    ties: np.ndarray
    """`[R]` int, cells without a rating because the passes tie."""
    pattern_ratings: np.ndarray
    """`[R, P]` int32."""
    pattern_where: np.ndarray
    """`[R, P]` bool."""
    pattern_of_cell: np.ndarray
    """`[N, V]` int."""

    def counts(self, where: np.ndarray | None = None) -> np.ndarray:
        """`[P]` float32: how often each pattern occurs, where `[N, V]` is True."""
        found = self.pattern_of_cell if where is None else self.pattern_of_cell[where]
        size = self.pattern_ratings.shape[1]
        return np.bincount(found.reshape(-1), minlength=size).astype(np.float32)


def figure(value: Any, reason: Any = 0, clause: str = "is undefined here") -> Figure:
    """A figure without interval; `reason` is a code of `scoring.Reason`."""
    if not np.isnan(value):
        return Figure(float(value))
    code = int(reason)
    return Figure(NAN, reason=scoring.reason_text(code) if code else clause)


def with_analytic(found: Figure, made: Any, x: int, level: float) -> Figure:
    """The figure with the t interval of entry x of an `Agreement` of arrays."""
    if found.reason or not made.standard_error[x] > 0.0:
        return found
    one = jax.tree.map(lambda entry: jnp.asarray(entry[x]), made)
    low, high = jax.device_get(_t_interval(one, level))
    return dataclasses.replace(
        found, low=float(low), high=float(high), interval="analytic"
    )


_t_interval = jax.jit(
    lambda one, level: scoring.agreement_interval(one, level=level), static_argnums=1
)


def absent(reason: str) -> Figure:
    """A figure that does not exist."""
    return Figure(NAN, reason=reason)


def padded_passes(panel: Panel, annotator: int) -> np.ndarray:
    """`[P, N, V]` int8 passes of an annotator, padded to those of the busiest one.

    One shape for all annotators is one compilation.
    """
    rows = panel.rows_of(annotator)
    most = int(np.bincount(panel.row_annotator).max())
    passes = np.full((most, *panel.ratings.shape[1:]), -1, np.int8)
    passes[: len(rows)] = panel.ratings[rows]
    return passes


def cells_of(panel: Panel) -> Cells:
    """Collapses passes and tabulates the patterns of ratings."""
    collapsed, ties = [], []
    for a in range(len(panel.annotators)):
        rows = panel.rows_of(a)
        if len(rows) == 1:
            collapsed.append(panel.ratings[rows[0]])
            ties.append(0)
            continue
        labels, tied = jax.device_get(_collapse(padded_passes(panel, a)))
        collapsed.append(labels.astype(np.int8))
        ties.append(int(tied))
    ratings = np.stack(collapsed)
    flat = ratings.reshape(len(ratings), -1).astype(np.int32)
    # Of many raters only the patterns that occur are tabulated, on the host.
    few = (K + 1) ** len(ratings) <= patterns.FIXED
    table = (
        _all_patterns(flat)
        if few
        else scoring.pattern_table(jnp.asarray(flat), K, where=jnp.asarray(flat >= 0))
    )
    return Cells(
        ratings=ratings,
        ties=np.array(ties),
        pattern_ratings=np.asarray(table.ratings),
        pattern_where=np.asarray(table.where),
        pattern_of_cell=np.asarray(table.pattern_of_unit).reshape(ratings.shape[1:]),
    )


_all_patterns = jax.jit(lambda flat: scoring.pattern_table(flat, K, where=flat >= 0))


@jax.jit
def _collapse(passes: jax.Array) -> tuple[jax.Array, jax.Array]:
    flat = passes.reshape(len(passes), -1).astype(jnp.int32)
    one = aggregation.collapse_passes(flat, K)
    return one.labels.reshape(passes.shape[1:]), (
        ~one.where & ~jnp.isnan(one.confidence)
    ).sum()


def alpha_within(coincidence: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Nominal alpha whose chance is that of each value, and the chance agreement.

    1 - sum_v n_v D_o,v / sum_v n_v D_e,v: knowing which value is rare is no agreement.

    Args:
      coincidence: `[..., V, K, K]` Krippendorff's coincidences of the values.

    Returns:
      Two `[...]`: NaN where no value has two labels; the second only without a pair.
    """
    margin = coincidence.sum(-1)
    n_v = margin.sum(-1)
    unlike_v = n_v - jnp.trace(coincidence, axis1=-2, axis2=-1)
    other_v = (margin * (n_v[..., None] - margin)).sum(-1)
    expected_v = other_v / jnp.where(n_v > 1.0, n_v - 1.0, 1.0)
    expected, n = expected_v.sum(-1), n_v.sum(-1)
    some = expected > 1e-3  # at least 2, but for rounding
    alpha = 1.0 - unlike_v.sum(-1) / jnp.where(some, expected, 1.0)
    chance = 1.0 - expected / jnp.where(n > 0.0, n, 1.0)
    return jnp.where(some, alpha, jnp.nan), jnp.where(n > 0.0, chance, jnp.nan)


ONE_LABEL = "no value has two different labels"
"""Why `alpha_within` is NaN."""


def plain(report: Any) -> Any:
    """Dictionaries, lists, numbers and null for json: a NaN becomes null."""
    if isinstance(report, Figure):
        entry: dict[str, Any] = {"value": plain(report.value)}
        if report.interval:
            entry |= {"low": plain(report.low), "high": plain(report.high)}
            entry["interval"] = report.interval
        return entry | ({"reason": report.reason} if report.reason else {})
    if dataclasses.is_dataclass(report):
        fields = dataclasses.fields(report)
        return {
            field.name: plain(getattr(report, field.name))
            for field in fields
            if field.metadata.get("json", True)
        }
    if isinstance(report, dict):
        return {key: plain(entry) for key, entry in report.items()}
    if isinstance(report, list | tuple):
        return [plain(entry) for entry in report]
    if isinstance(report, float):
        # Figures are computed in float32.
        return round(report, 7) if np.isfinite(report) else None
    return report
