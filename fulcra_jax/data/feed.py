# SPDX-License-Identifier: Apache-2.0
"""Batches for training: planned by the step, read by threads, only the rows needed."""

import contextlib
import dataclasses
from collections.abc import Generator

import grain
import numpy as np

from fulcra_jax.data import batches
from fulcra_jax.data.batches import Batch
from fulcra_jax.data.plan import Layout, Packed, Plan
from fulcra_jax.data.tokens import Tokens


@dataclasses.dataclass(frozen=True)
class TokenDropout:
    """Random tokens are replaced by [MASK], against learning rows by heart."""

    rate: float
    """Chance of a token to be replaced, [0, 1)."""
    mask_id: int
    """The id of [MASK]."""
    keep: tuple[int, ...]
    """Ids that are never replaced, as [CLS] and [SEP]."""


class Feed:
    """The batches of a training, or some rows of each.

    A batch depends on the seed and the step alone, whatever was read before: what is
    stored of it in a checkpoint is the step.
    """

    def __init__(
        self,
        tokens: Tokens,
        plan: Plan,
        *,
        seed: int,
        pad_id: int,
        drop: TokenDropout | None = None,
        rows: np.ndarray | None = None,
    ) -> None:
        """What is read.

        Args:
          tokens: N texts with labels.
          plan: which of them stand where.
          seed: of order and token dropout.
          pad_id: the id that fills rows up.
          drop: token dropout; None for none.
          rows: `[b]` int, ascending: the rows of a batch that this process holds; None
            for all.

        Raises:
          ValueError: if a row is outside the batch.
        """
        B = plan.batch_size
        self._rows = np.arange(B) if rows is None else np.asarray(rows)
        if not len(self._rows) or self._rows.min() < 0 or self._rows.max() >= B:
            raise ValueError(
                f"feed.Feed: rows are {self._rows.tolist()!s:.60}; they should be at "
                f"least one of the {B} rows of a batch."
            )
        self._tokens, self._plan, self._seed = tokens, plan, seed
        self._pad_id, self._drop = pad_id, drop

    def batch(self, step: int) -> Batch:
        """The rows of one training step, from 0.

        Returns:
          `input_ids`, `mask`, `token_type_ids` `[b, T]`, `labels` and `where` `[b, V]`;
          of a packed plan also `segment_ids` `[b, T]` and `first` `[b, S]`, labels and
          where then being `[b, S, V]`.
        """
        layout = self._plan.layout(step, self._seed)
        at = np.searchsorted(self._rows, layout.row)
        at[at == len(self._rows)] = 0
        mine = self._rows[at] == layout.row
        own = Layout(
            at[mine], layout.offset[mine], layout.place[mine], layout.text[mine],
            layout.length,
        )  # fmt: skip
        batch = self._filled(own)
        if self._drop is not None:
            shape = (self._plan.batch_size, layout.length)
            batch = batches.drop_tokens(
                batch, step, rate=self._drop.rate, seed=self._seed,
                mask_id=self._drop.mask_id, keep=self._drop.keep,
                rows=self._rows, shape=shape,
            )  # fmt: skip
        return batch

    def iterate(
        self, begun: int, steps: int, *, threads: int = 2, prefetch: int = 8
    ) -> Generator[tuple[int, Batch], None, None]:
        """Steps and their batches, in order, read ahead by threads.

        Args:
          begun: the first step.
          steps: the step after the last.
          threads: that read; 0 reads when asked.
          prefetch: batches that are read ahead at most.

        Yields:
          The step, and its batch. Closing the generator ends the threads.
        """
        options = grain.ReadOptions(
            num_threads=threads, prefetch_buffer_size=prefetch if threads else 0
        )
        planned = grain.MapDataset.range(begun, steps).map(
            lambda step: (int(step), self.batch(int(step)))
        )
        with contextlib.closing(iter(planned.to_iter_dataset(options))) as found:
            yield from found

    def _filled(self, layout: Layout) -> Batch:
        """The texts at their places."""
        b, T, V = len(self._rows), layout.length, self._tokens.labels.shape[1]
        row, start, place, text = layout[:4]
        texts = self._tokens.read(text.tolist())
        ids = np.full((b, T), self._pad_id, np.int32)
        types, segments = np.zeros((b, T), np.int32), np.zeros((b, T), np.int32)
        for number, (own, kinds) in enumerate(texts):
            columns = slice(start[number], start[number] + len(own))
            ids[row[number], columns] = own
            types[row[number], columns] = kinds
            segments[row[number], columns] = place[number] + 1
        batch = {"input_ids": ids, "mask": segments > 0, "token_type_ids": types}
        labels, where = self._tokens.labels[text], self._tokens.where[text]
        if isinstance(self._plan, Packed):
            S = self._plan.max_segments
            batch |= {
                "segment_ids": segments,
                "first": np.zeros((b, S), np.int32),
                "labels": np.zeros((b, S, V), labels.dtype),
                "where": np.zeros((b, S, V), bool),
            }
            batch["first"][row, place] = start
            batch["labels"][row, place] = labels
            batch["where"][row, place] = where
            return batch
        return batch | {"labels": labels, "where": where}
