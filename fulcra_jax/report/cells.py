# SPDX-License-Identifier: Apache-2.0
"""What a row contributes to the figures of an evaluation: counts, errors, ranks.

Everything here is prepared once; `Cells.sums` then costs one weighted sum per
resample. Axes: S weightings, N rows, V values, C = 3 classes, M bins, K sources.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import scoring
from fulcra_jax.report import resamples
from fulcra_jax.report.resamples import Figures, Ranking

BINS = 15
"""Bins of equal width of the calibration errors."""
_BLOCK = 1024
"""Tables whose figures are computed at once."""


class Column(NamedTuple):
    """One value: its scores and labels, ready to be ranked."""

    where: np.ndarray
    """`[N]` bool."""
    score: np.ndarray
    """`[N]` float, 0 where the row does not count; so is `label`."""
    label: np.ndarray
    score_ranking: Ranking
    label_ranking: Ranking
    opposed_ranking: Ranking
    """Of P(-1), or of -score where there are no probabilities."""
    supported_ranking: Ranking
    """Of P(+1), or of the score."""


@dataclasses.dataclass(frozen=True)
class Cells:
    """The cells of N rows, as sums over rows and columns to rank."""

    rows: dict[str, np.ndarray]
    """Arrays `[N, ...]` that add up over rows."""
    columns: list[Column]

    def sums(self, weights: np.ndarray) -> Figures:
        """Sums over the rows and rank statistics of every value, `[S, ...]` each."""
        found = {
            name: resamples.weighted_sums(weights, array)
            for name, array in self.rows.items()
        }
        ranked = [_ranked(weights, column) for column in self.columns]
        for name in ranked[0]:
            found[name] = np.stack([figures[name] for figures in ranked], 1)
        return found


def tables(classes: np.ndarray, labels: np.ndarray, where: np.ndarray) -> np.ndarray:
    """`[N, V, 3, 3]` float32: a one at [label, prediction] of each cell that counts.

    A fractional label (conflict policy "mean") is no class: the cell is not scored.
    """
    counts = where & (labels == np.rint(labels))
    ids = lambda x: np.clip(np.rint(x).astype(int) + 1, 0, 2)
    onehot = np.eye(3, dtype=np.float32)
    pair = onehot[ids(labels)][..., :, None] * onehot[ids(classes)][..., None, :]
    return pair * counts[..., None, None]


def prepare(
    classes: np.ndarray,
    scores: np.ndarray,
    probs: np.ndarray | None,
    labels: np.ndarray,
    where: np.ndarray,
    source: np.ndarray | None = None,
) -> Cells:
    """Cells of N rows.

    Args:
      classes: `[N, V]` int in {-1, 0, 1}.
      scores: `[N, V]` float; clipped to [-1, 1].
      probs: `[N, V, 3]` float, or None where there are none.
      labels: `[N, V]` float in [-1, 1].
      where: `[N, V]` bool.
      source: `[N]` int in [0, K), or None: then there is no "sources".
    """
    scores = np.clip(scores, -1.0, 1.0)
    table = tables(classes, labels, where)
    labelled = where.any(1)
    right = ((classes == np.rint(labels)) | ~where).all(1)
    rows = {
        "tables": table,
        "error": (np.where(where, scores - labels, 0.0) ** 2).sum(1),
        "cells": where.sum(1),
        "hit": right & labelled,
        "rows": labelled,
    }
    if source is not None:
        K = int(source.max()) + 1
        member = np.eye(K, dtype=np.float32)[source]
        rows["sources"] = member[:, :, None, None] * table.sum(1)[:, None]
    opposed, supported = -scores, scores
    if probs is not None:
        rows |= _calibration(probs, labels, where)
        opposed, supported = probs[..., 0], probs[..., 2]
    columns = []
    for v in range(labels.shape[1]):
        counts = where[:, v]
        columns.append(
            Column(
                counts,
                np.where(counts, scores[:, v], 0.0).astype(float),
                np.where(counts, labels[:, v], 0.0).astype(float),
                *(
                    resamples.ranking(x[:, v], counts)
                    for x in (scores, labels, opposed, supported)
                ),
            )
        )
    return Cells(rows, columns)


def _calibration(
    probs: np.ndarray, labels: np.ndarray, where: np.ndarray
) -> dict[str, np.ndarray]:
    """Sums over a row's values: confidence, hits and cells per bin, of the likeliest
    class and of each class; squared and logarithmic errors."""
    counts = where & (labels == np.rint(labels))
    N = len(labels)
    ids = np.where(counts, np.rint(labels), 0).astype(int) + 1
    truth = np.eye(3)[ids]
    probs = np.asarray(probs, np.float32)
    confidence = np.concatenate([probs.max(-1, keepdims=True), probs], -1)
    hits = np.concatenate([(probs.argmax(-1) == ids)[..., None], truth], -1)
    inner = np.linspace(0.0, 1.0, BINS + 1)[1:-1].astype(np.float32)
    place = np.searchsorted(inner, confidence)
    bins = np.zeros((N, 4, BINS, 3))
    row, value, panel = np.nonzero(np.broadcast_to(counts[..., None], place.shape))
    at = row, panel, place[row, value, panel]
    entries = np.stack([confidence, hits, np.ones_like(hits)], -1)
    np.add.at(bins, at, entries[row, value, panel])
    chance = np.where(counts, (probs * truth).sum(-1), 1.0)
    return {
        "bins": bins,
        "brier": (((probs - truth) ** 2).sum(-1) * counts).sum(1),
        "nll": -np.log(np.where(chance > 0.0, chance, 1.0)).sum(1),
        # Infinite, but times a weight of 0 infinity would be undefined.
        "excluded": ((chance <= 0.0) & counts).sum(1),
        "judged": counts.sum(1),
    }


def _ranked(weights: np.ndarray, column: Column) -> Figures:
    """Rank statistics of one value, `[S]` each."""
    weights = weights * column.where
    ranks = lambda ranking: resamples.weighted_ranks(weights, ranking)
    auroc = lambda ranking, positive: resamples.weighted_auroc(
        weights, ranks(ranking), positive
    )
    return {
        "spearman": resamples.weighted_correlation(
            weights, ranks(column.score_ranking), ranks(column.label_ranking)
        ),
        "pearson": resamples.weighted_correlation(weights, column.score, column.label),
        "auroc_opposed": auroc(column.opposed_ranking, column.label < 0),
        "auroc_supported": auroc(column.supported_ranking, column.label > 0),
    }


def calibration_figures(sums: Figures) -> Figures:
    """ECE, class-wise ECE, Brier score and log-likelihood from sums, `[S]` each."""
    judged = np.maximum(sums["judged"], 1.0)
    gap = np.abs(sums["bins"][..., 1] - sums["bins"][..., 0]).sum(-1) / judged[:, None]
    found = {
        "ece": gap[:, 0],
        "classwise_ece": gap[:, 1:].mean(1),
        "brier": sums["brier"] / judged,
        "nll": np.where(sums["excluded"] > 0, np.inf, sums["nll"] / judged),
    }
    return {
        name: np.where(sums["judged"] > 0, figure, np.nan)
        for name, figure in found.items()
    }


def table_figures(counts: np.ndarray) -> Figures:
    """Figures of confusion tables `[..., 3, 3]`, `[...]` each, per label `[..., 3]`."""
    flat = np.asarray(counts, np.float32).reshape(-1, 3, 3)
    # Blocks of one size, so that one program is compiled for all reports.
    blocks = np.zeros((-(-len(flat) // _BLOCK), _BLOCK, 3, 3), np.float32)
    blocks.reshape(-1, 3, 3)[: len(flat)] = flat
    parts = [jax.tree.map(np.asarray, _table_figures(block)) for block in blocks]
    return {
        name: np.concatenate([part[name] for part in parts])[: len(flat)].reshape(
            counts.shape[:-2] + first.shape[1:]
        )
        for name, first in parts[0].items()
    }


@jax.jit
@jax.vmap
def _table_figures(counts: jax.Array) -> dict[str, jax.Array]:
    by_label = scoring.precision_recall_f1(counts)
    macro = scoring.macro_f1(counts, present_only=True)
    several = (by_label.support > 0).sum() > 1
    return {
        "accuracy": scoring.accuracy(counts),
        "macro_f1": scoring.macro_f1(counts),
        # Where one label is all there is, any system that never strays would get 1.
        "macro_f1_present": jnp.where(several, macro, jnp.nan),
        "quadratic_kappa": scoring.quadratic_kappa(counts),
        "reversal_rate": scoring.reversal_rate(counts),
        "precision": by_label.precision,
        "recall": by_label.recall,
        "f1": by_label.f1,
        "support": by_label.support,
    }
