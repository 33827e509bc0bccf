# SPDX-License-Identifier: Apache-2.0
"""Which tokens are masked: drawn anew for every batch, from the seed and the step.

B rows, T tokens of a row, S places for masked tokens in a row.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from fulcra_jax.data.tokenizer import PairTokenizer

# Second words of the generator's key that no other draw of a training has.
_STEPS, _HELD_OUT = 2**35, 2**36


@dataclasses.dataclass(frozen=True, eq=False)
class Masking:
    """80 % of the chosen tokens become [MASK], 10 % another one, 10 % stay.

    Reference:
      Devlin et al. 2019 (arXiv 1810.04805), section 3.1.
    """

    rate: float
    """Share of the tokens of a row that are chosen, (0, 1)."""
    seed: int
    mask_id: int
    special: np.ndarray
    """Ids that are never chosen and never stand in for another."""
    plain: np.ndarray
    """All other ids."""

    @classmethod
    def of(cls, tokenizer: PairTokenizer, *, rate: float, seed: int) -> "Masking":
        """The masking of a tokenizer's ids."""
        special = np.unique([*tokenizer.special_ids, tokenizer.mask_id])
        plain = np.setdiff1d(np.arange(tokenizer.vocab_size), special)
        return cls(rate, seed, tokenizer.mask_id, special, plain.astype(np.int32))

    def training(
        self, batch: Mapping[str, np.ndarray], step: int
    ) -> dict[str, np.ndarray]:
        """The batch of a step, masked; see `apply`."""
        return self.apply(batch, _STEPS + step)

    def held_out(
        self, batch: Mapping[str, np.ndarray], number: int
    ) -> dict[str, np.ndarray]:
        """A batch of held-out rows, masked the same whenever it is looked at."""
        return self.apply(batch, _HELD_OUT + number)

    def apply(
        self, batch: Mapping[str, np.ndarray], number: int
    ) -> dict[str, np.ndarray]:
        """What the model reads, and what it has to find.

        Args:
          batch: `input_ids`, `mask`, `segment_ids`, `token_type_ids`, all `[B, T]`.
          number: of the draws, besides the seed.

        Returns:
          These arrays, with masked `input_ids`; `at` `[B, S]` int32, the columns of
          chosen tokens, `targets` `[B, S]` int32, what stood there, and `where`
          `[B, S]` bool, False for places that are not used. S is the share of T, and of
          a row that share of its tokens is chosen, one at least.
        """
        ids, mask = batch["input_ids"], batch["mask"]
        draws = np.random.Generator(np.random.Philox(key=[self.seed, number]))
        may = mask & ~np.isin(ids, self.special)
        count = may.sum(1)
        chosen = np.where(count, np.maximum(np.rint(self.rate * count), 1), 0)
        S = max(1, int(np.rint(self.rate * ids.shape[1])))
        at = np.argsort(np.where(may, draws.random(ids.shape), 2.0), axis=1)[:, :S]
        where = np.arange(S) < chosen[:, None]
        targets = np.take_along_axis(ids, at, axis=1)
        fate = draws.random(at.shape)
        other = draws.choice(self.plain, at.shape)
        shown = np.where(fate < 0.8, self.mask_id, np.where(fate < 0.9, other, targets))
        read = ids.copy()
        np.put_along_axis(read, at, np.where(where, shown, targets), axis=1)
        names = ("mask", "segment_ids", "token_type_ids")
        return {name: batch[name] for name in names} | {
            "input_ids": read.astype(np.int32),
            "at": at.astype(np.int32),
            "targets": np.where(where, targets, 0).astype(np.int32),
            "where": where,
        }
