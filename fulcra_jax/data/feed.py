# SPDX-License-Identifier: Apache-2.0
"""Training batches, made ahead of time: the rows of one host, by step.

The global batch is a function of (seed, step) alone and a host makes its rows of it:
the hosts' rows, one behind the other, are the global batch bit for bit. What there is
to store of the data is therefore the step, and it restores on any number of hosts.
B rows of the global batch, T tokens of a row, S places for texts in a row, V values.
"""

import dataclasses
import threading
from collections.abc import Generator

import grain
import numpy as np

from fulcra_jax import _check
from fulcra_jax.data import _targets, batches
from fulcra_jax.data.batches import Batch
from fulcra_jax.data.plan import Layout, Plan, Settings
from fulcra_jax.data.tokens import Tokens


@dataclasses.dataclass(frozen=True)
class TokenDropout:
    """Random tokens become [MASK], as `batches.drop_tokens` says."""

    rate: float
    """Chance of a token to be replaced, [0, 1)."""
    mask_id: int
    """The id of [MASK]."""
    keep: tuple[int, ...] = ()
    """Ids that are never replaced, as [CLS] and [SEP]."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.rate < 1.0:
            raise ValueError(
                f"feed.TokenDropout: rate is {self.rate}; it should be in [0, 1)."
            )


class Feed:
    """The batches of one host.

    >>> from fulcra_jax.data import batches, plan, tokenizer
    >>> ids = [np.array([1, 7, 2]), np.array([1, 2])]
    >>> encoded = tokenizer.Encoded(ids, [np.zeros_like(text) for text in ids])
    >>> labels = np.ones((2, 10), np.float32)
    >>> tokens = Tokens.in_memory(batches.Examples(encoded, labels, labels > 0))
    >>> packed = Feed(tokens, plan.Packed(1, capacity=6), seed=0, pad_id=0)
    >>> [(step, batch["input_ids"].tolist()) for step, batch in packed.iterate(0, 1)]
    [(0, [[1, 7, 2, 1, 2, 0]])]
    """

    plan: Plan
    """Of the global batches."""

    def __init__(
        self,
        tokens: Tokens,
        settings: Settings,
        *,
        seed: int,
        pad_id: int,
        drop: TokenDropout | None = None,
        rows: np.ndarray | None = None,
    ) -> None:
        """A feed over tokenised examples.

        Args:
          tokens: N examples, each with at least one cell that counts, of labels, items
            or teacher.
          settings: how a batch is laid out, `plan.Ladder` or `plan.Packed`.
          seed: of the order of the examples and of the dropout.
          pad_id: the id that fills short rows.
          drop: token dropout; None for none.
          rows: `[n]` int in [0, B): the rows of the global batch that this host holds,
            in this order; None for all.

        Raises:
          ValueError: if there is no example, one is without a label or longer than the
            longest row, there are no rows or one is out of range, or the seed is.
        """
        unlabelled = np.flatnonzero(~_targets.counted(tokens.targets))
        if len(unlabelled):
            raise ValueError(
                f"feed.Feed: example {unlabelled[0]} has no labelled cell; examples to "
                "train on should have one at least."
            )
        self.plan = settings.over(tokens.lengths, seed)
        self._tokens, self._seed, self._pad_id, self._drop = tokens, seed, pad_id, drop
        self._rows = np.arange(self.plan.batch_size)
        if rows is not None:
            rows = np.asarray(rows)
            _check.shapes("feed.Feed", rows=(rows, "n"))
            if not len(rows):
                raise ValueError("feed.Feed: rows is empty; a host should hold one.")
            _check.integers("feed.Feed", "rows", rows)
            _check.inside("feed.Feed", "rows", rows, self.plan.batch_size)
            self._rows = rows

    def steps(self, epochs: float) -> int:
        """Steps that show every example `epochs` times, rounded up."""
        return self.plan.steps(epochs)

    def examples_at(self, step: int) -> np.ndarray:
        """The numbers of the examples in the global batch of a step, row by row."""
        texts = self.plan.layout(step).texts
        return texts[texts >= 0]

    def batch(self, step: int) -> Batch:
        """This host's rows of the batch of a step, counted from 0.

        Returns:
          With a ladder what `batches.train_batch` gives: `input_ids`, `mask`,
          `token_type_ids` `[n, T]`, `labels` and `where` `[n, V]`. Packed rows have
          `segment_ids` `[n, T]` int32 too (1 for the first text of a row, 0 for
          padding), `first` `[n, S]` int32, the column of a text's first token, and
          `labels` and `where` `[n, S, V]`, False where there is no text. Items and
          teacher, where the examples have them, have the axes of `labels`.

        Raises:
          ValueError: if the step is negative, or the texts cannot be read.
        """
        layout = self.plan.layout(step)
        own = layout._replace(texts=layout.texts[self._rows])
        batch = _filled(self._tokens, own, self._pad_id, packed=self.plan.packed)
        if self._drop is None:
            return batch
        return batches.drop_tokens(
            batch,
            step,
            rate=self._drop.rate,
            seed=self._seed,
            mask_id=self._drop.mask_id,
            keep=self._drop.keep,
            share=(self._rows, self.plan.batch_size),
        )

    def iterate(
        self, begun: int, steps: int, *, threads: int = 2, prefetch: int = 4
    ) -> Generator[tuple[int, Batch], None, None]:
        """Steps [begun, steps) and their batches in order, made ahead by threads.

        An error of a thread is raised here, at its step. The threads end with the
        iterator, also when it is closed early; use `contextlib.closing` where the loop
        may be left.

        Args:
          begun: the first step: that of the checkpoint.
          steps: the step to stop before.
          threads: that make batches; 0 makes each when it is asked for.
          prefetch: most batches that wait to be taken, at least `threads`.

        Raises:
          ValueError: if a number is out of range.
        """
        caller = "feed.iterate"
        begun = _check.whole(caller, "begun", begun, 0)
        steps = _check.whole(caller, "steps", steps, begun)
        threads = _check.whole(caller, "threads", threads, 0)
        prefetch = _check.whole(caller, "prefetch", prefetch, max(threads, 1))
        return self._ahead(begun, steps, threads, prefetch)

    def _ahead(
        self, begun: int, steps: int, threads: int, prefetch: int
    ) -> Generator[tuple[int, Batch], None, None]:
        if begun == steps:
            return
        workers: set[threading.Thread] = set()

        def made(step: int) -> tuple[int, Batch]:
            workers.add(threading.current_thread())
            return step, self.batch(step)

        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
        dataset = grain.MapDataset.range(begun, steps).map(made)
        ready = iter(dataset.to_iter_dataset(options))
        try:
            yield from ready
        finally:
            ready.close()
            # Grain does not wait for batches that are being made.
            for worker in workers - {threading.current_thread()}:
                worker.join()


def _filled(tokens: Tokens, layout: Layout, pad_id: int, *, packed: bool) -> Batch:
    """The batch of a layout."""
    texts, shape = layout.texts, (len(layout.texts), layout.length)
    here = texts >= 0
    chosen = texts[here]
    ids, types = tokens.joined(chosen)
    lengths = np.zeros(texts.shape, np.int32)
    lengths[here] = tokens.lengths[chosen]
    batch = {
        "input_ids": np.full(shape, pad_id, np.int32),
        # Texts stand one behind the other, so that tokens come first in every row.
        "mask": np.arange(layout.length) < lengths.sum(1)[:, None],
        "token_type_ids": np.zeros(shape, np.int32),
    }
    targets = _targets.chosen(tokens.targets, texts, here)
    batch["input_ids"][batch["mask"]] = ids
    batch["token_type_ids"][batch["mask"]] = types
    if not packed:
        return batch | {name: array[:, 0] for name, array in targets.items()}
    batch |= targets
    batch["segment_ids"] = np.zeros(shape, np.int32)
    batch["segment_ids"][batch["mask"]] = np.repeat(
        here.nonzero()[1] + 1, lengths[here]
    )
    batch["first"] = np.where(here, np.cumsum(lengths, axis=1) - lengths, 0).astype(
        np.int32
    )
    return batch
