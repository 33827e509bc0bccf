# SPDX-License-Identifier: Apache-2.0
"""Batches as a function of (seed, step) alone.

Rows are drawn from an endless stream of epochs, each a permutation of all rows. A
window of the stream is sorted by length and cut into batches, so that a batch holds
rows of similar length and is padded only to the next rung of a ladder of lengths: few
shapes to compile, little padding. The batch at a step depends on nothing that happened
before it, so training resumes anywhere and on any number of processes.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np

from fulcra_jax.data.tokenizer import Encoded

LADDER = (32, 64, 96, 128, 192, 256, 384, 512)
WINDOW = 16
"""Batches per window that is sorted by length."""

Batch = dict[str, np.ndarray]
"""input_ids, mask, token_type_ids `[B, T]`; labels float32 and where bool `[B, 10]`."""


@dataclasses.dataclass(frozen=True)
class Examples:
    """N tokenised pairs and their labels."""

    encoded: Encoded
    labels: np.ndarray
    """`[N, 10]` float32 in [-1, 1]."""
    where: np.ndarray
    """`[N, 10]` bool."""

    def __len__(self) -> int:
        return len(self.encoded.ids)


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
        "labels": np.zeros((size, examples.labels.shape[1]), np.float32),
        "where": np.zeros((size, examples.labels.shape[1]), bool),
    }
    for place, row in enumerate(rows):
        ids, types = examples.encoded.ids[row], examples.encoded.types[row]
        batch["input_ids"][place, : len(ids)] = ids
        batch["token_type_ids"][place, : len(ids)] = types
        batch["mask"][place, : len(ids)] = True
    batch["labels"][: len(rows)] = examples.labels[rows]
    batch["where"][: len(rows)] = examples.where[rows]
    return batch


def rung(lengths: np.ndarray, ladder: Sequence[int]) -> int:
    """The first rung that holds rows of these lengths.

    >>> rung(np.array([7, 40]), (32, 64, 128))
    64
    """
    return next(rung for rung in ladder if rung >= lengths.max())


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
    lengths = np.array([len(ids) for ids in examples.encoded.ids], np.int32)
    check_lengths("batches.train_batch", lengths, ladder)
    rows = train_rows(lengths, step, batch_size=batch_size, seed=seed)
    return _pad(examples, rows, rung(lengths[rows], ladder), batch_size, pad_id)


def check_lengths(caller: str, lengths: np.ndarray, ladder: Sequence[int]) -> None:
    """Raises ValueError if there is no row, or one is longer than the ladder."""
    if not len(lengths):
        raise ValueError(f"{caller}: there is no labelled row to train on.")
    if lengths.max() > ladder[-1]:
        raise ValueError(
            f"{caller}: a row has {lengths.max()} tokens, but the ladder ends at "
            f"{ladder[-1]}."
        )


def train_rows(
    lengths: np.ndarray, step: int, *, batch_size: int, seed: int
) -> np.ndarray:
    """The rows of one training step, which `train_batch` pads.

    Args:
      lengths: `[N]` int, tokens of each row.
      step: from 0.
      batch_size: B.
      seed: of the permutations.

    Returns:
      `[B]` int in [0, N), rows of like length.
    """
    window, place = divmod(step, WINDOW)
    first = window * WINDOW * batch_size
    stream = _stream(len(lengths), first, WINDOW * batch_size, seed)
    # Equal lengths keep the order of the stream, which is random.
    by_length = stream[np.argsort(lengths[stream], kind="stable")]
    order = np.random.Generator(np.random.Philox(key=[seed, window])).permutation(
        WINDOW
    )
    start = int(order[place]) * batch_size
    return by_length[start : start + batch_size]


def drop_tokens(
    batch: Batch,
    step: int,
    *,
    rate: float,
    seed: int,
    mask_id: int,
    keep: Sequence[int],
    rows: np.ndarray | None = None,
    shape: tuple[int, int] | None = None,
) -> Batch:
    """The batch with random tokens replaced by [MASK], against learning rows by heart.

    Args:
      batch: from `train_batch`.
      step: from 0; with the seed it decides which tokens.
      rate: chance of a token to be replaced, [0, 1).
      seed: of the draws.
      mask_id: the id of [MASK].
      keep: ids that are never replaced, as [CLS] and [SEP].
      rows: `[b]` int, which rows of the whole batch these are; None for all.
      shape: (B, T) of the whole batch, for which is drawn; with `rows`.

    Returns:
      The batch with other `input_ids`; the same one at rate 0.
    """
    if rate == 0.0:
        return batch
    # Keys of the permutations have smaller second words.
    draws = np.random.Generator(np.random.Philox(key=[seed, 2**33 + step]))
    ids = batch["input_ids"]
    drawn = draws.random(ids.shape if shape is None else shape, np.float32)
    if rows is not None:
        drawn = drawn[rows]
    drop = (drawn < rate) & batch["mask"]
    drop &= ~np.isin(ids, keep)
    return batch | {"input_ids": np.where(drop, np.int32(mask_id), ids)}


def _stream(N: int, first: int, count: int, seed: int) -> np.ndarray:
    """Entries [first, first + count) of the endless stream of permutations of N."""
    epochs = range(first // N, (first + count - 1) // N + 1)
    permutations = [permutation(N, seed, epoch) for epoch in epochs]
    return np.concatenate(permutations)[first - epochs[0] * N :][:count]


# Of a million rows one takes as long as a step: the last few are kept.
@functools.lru_cache(maxsize=8)
def permutation(N: int, seed: int, epoch: int) -> np.ndarray:
    """The order of N rows in an epoch; a read-only array."""
    # Philox counts up by draw; a key of its own for each epoch keeps them apart, and
    # the second word keeps epochs apart from the windows above.
    draws = np.random.Generator(np.random.Philox(key=[seed, 2**32 + epoch]))
    order = draws.permutation(N)
    order.setflags(write=False)
    return order


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
    lengths = np.array([len(ids) for ids in examples.encoded.ids], np.int64)
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        length = rung(lengths[rows], ladder)
        yield rows, _pad(examples, rows, length, batch_size, pad_id)
