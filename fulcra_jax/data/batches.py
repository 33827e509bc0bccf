# SPDX-License-Identifier: Apache-2.0
"""Batches as a function of (seed, step) alone.

Rows are drawn from an endless stream of epochs, each a permutation of all rows. A
window of the stream is sorted by length and cut into batches, so that a batch holds
rows of similar length and is padded only to the next rung of a ladder of lengths: few
shapes to compile, little padding. The batch at a step depends on nothing that happened
before it, so training resumes anywhere and on any number of processes. `plan` says
which rows; `feed` makes the same batches from texts on disk, and packed ones.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fulcra_jax.data import _targets, plan

if TYPE_CHECKING:
    # Its module loads transformers.
    from fulcra_jax.data.tokenizer import Encoded

LADDER = (32, 64, 96, 128, 192, 256, 384, 512)

Batch = dict[str, np.ndarray]
"""input_ids, mask, token_type_ids `[B, T]`; labels float32 and where bool `[B, 10]`;
where a training asks for them, items `[B, 54]` and teacher `[B, 10]`, float32, with
items_where and teacher_where, bool."""


@dataclasses.dataclass(frozen=True)
class Examples:
    """N tokenised pairs and what they are trained towards."""

    encoded: "Encoded"
    labels: np.ndarray
    """`[N, 10]` float32 in [-1, 1]."""
    where: np.ndarray
    """`[N, 10]` bool."""
    items: np.ndarray | None = None
    """`[N, 54]` float32 in {-1, 0, 1}, in the order of `values.ITEMS`; None: no
    target."""
    items_where: np.ndarray | None = None
    """`[N, 54]` bool."""
    teacher: np.ndarray | None = None
    """`[N, 10]` float32 in [-1, 1]: the scores of another evaluator; None: no
    target."""
    teacher_where: np.ndarray | None = None
    """`[N, 10]` bool."""

    def __post_init__(self) -> None:
        _targets.check("batches.Examples", self.targets)

    def __len__(self) -> int:
        return len(self.encoded.ids)

    @property
    def targets(self) -> dict[str, np.ndarray]:
        """Arrays `[N, ...]` by the name that they have in a batch; no None."""
        every = {name: getattr(self, name) for name in _targets.NAMES}
        return {name: array for name, array in every.items() if array is not None}

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """`[N]` int64: tokens of each pair."""
        return np.array([len(ids) for ids in self.encoded.ids], np.int64)


def ladder_up_to(max_length: int, ladder: Sequence[int] = LADDER) -> tuple[int, ...]:
    """The rungs below `max_length`, and `max_length` itself.

    >>> ladder_up_to(100)
    (32, 64, 96, 100)
    """
    return (*(rung for rung in ladder if rung < max_length), max_length)


def _pad(
    examples: Examples, rows: np.ndarray, length: int, size: int, pad_id: int
) -> Batch:
    """The rows as a batch of `size` x `length`; surplus places are masked."""
    batch = {
        "input_ids": np.full((size, length), pad_id, np.int32),
        "mask": np.zeros((size, length), bool),
        "token_type_ids": np.zeros((size, length), np.int32),
    }
    for place, row in enumerate(rows):
        ids, types = examples.encoded.ids[row], examples.encoded.types[row]
        batch["input_ids"][place, : len(ids)] = ids
        batch["token_type_ids"][place, : len(ids)] = types
        batch["mask"][place, : len(ids)] = True
    here = np.arange(size) < len(rows)
    texts = np.resize(rows, size)
    return batch | _targets.chosen(examples.targets, texts, here)


def train_batch(
    examples: Examples,
    step: int,
    *,
    batch_size: int,
    seed: int,
    ladder: Sequence[int],
    pad_id: int,
) -> Batch:
    """The batch of one training step.

    Draws the order of an epoch at every call; `feed.Feed` keeps it between steps.

    Args:
      examples: N rows, each with at least one cell that counts.
      step: from 0.
      batch_size: B.
      seed: of the permutations.
      ladder: ascending lengths; the last one holds every row.
      pad_id: the id that fills short rows.

    Returns:
      A batch of B rows, padded to a rung.

    Raises:
      ValueError: if there is no row, or a row is longer than the ladder.
    """
    if len(examples) == 0:
        raise ValueError("batches.train_batch: there is no labelled row to train on.")
    if examples.lengths.max() > ladder[-1]:
        raise ValueError(
            f"batches.train_batch: a row has {examples.lengths.max()} tokens, but the "
            f"ladder ends at {ladder[-1]}."
        )
    rungs = plan.Ladder(batch_size, tuple(ladder))
    layout = rungs.over(examples.lengths, seed).layout(step)
    return _pad(examples, layout.texts[:, 0], layout.length, batch_size, pad_id)


def drop_tokens(
    batch: Batch,
    step: int,
    *,
    rate: float,
    seed: int,
    mask_id: int,
    keep: Sequence[int],
    share: tuple[np.ndarray, int] | None = None,
) -> Batch:
    """The batch with random tokens replaced by [MASK], against learning rows by heart.

    Args:
      batch: from `train_batch`.
      step: from 0; with the seed it decides which tokens.
      rate: chance of a token to be replaced, [0, 1).
      seed: of the draws.
      mask_id: the id of [MASK].
      keep: ids that are never replaced, as [CLS] and [SEP].
      share: where `batch` is some rows of a larger one: which, `[rows]` int, and how
        many that one has. Its tokens are then replaced as they are there.

    Returns:
      The batch with other `input_ids`; the same one at rate 0.
    """
    if rate == 0.0:
        return batch
    draws = np.random.Generator(np.random.Philox(key=[seed, plan.DROPS + step]))
    ids = batch["input_ids"]
    # All rows are drawn for, also by a host that holds a few of them.
    rows, size = (slice(None), len(ids)) if share is None else share
    below = draws.random((size, ids.shape[1]), np.float32) < rate
    drop = below[rows] & batch["mask"]
    drop &= ~np.isin(ids, keep)
    return batch | {"input_ids": np.where(drop, np.int32(mask_id), ids)}


def eval_batches(
    examples: Examples, *, batch_size: int, ladder: Sequence[int], pad_id: int
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Every row once, in order of length.

    Args:
      examples: N rows.
      batch_size: B; the last batch is filled up with masked places.
      ladder: ascending lengths; the last one holds every row.
      pad_id: the id that fills short rows.

    Yields:
      The indices of up to B rows, and their batch.
    """
    order = np.argsort(examples.lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        longest = examples.lengths[rows].max()
        length = next(rung for rung in ladder if rung >= longest)
        yield rows, _pad(examples, rows, length, batch_size, pad_id)
