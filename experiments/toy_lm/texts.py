# SPDX-License-Identifier: Apache-2.0
"""Prompts and responses made of the embedded corpus, as arrays of tokens."""

import dataclasses
import pathlib
import random
import re
from collections.abc import Sequence

import numpy as np

from fulcra_jax.data import rows, sample
from fulcra_jax.data.tokenizer import PairTokenizer

_SENTENCE = re.compile(r"(?<=[.!?])\s+")


@dataclasses.dataclass(frozen=True)
class Lengths:
    """How long texts may be."""

    prompt: int = 32
    """Tokens of a prompt; a longer one keeps its end."""
    response: int = 72
    """Tokens of a response, its end included."""

    def __post_init__(self) -> None:
        for field, least in (("prompt", 4), ("response", 2)):
            number = getattr(self, field)
            if not isinstance(number, int) or not least <= number <= 65536:
                raise ValueError(
                    f"texts.Lengths: {field} is {number!r}; it should be a whole "
                    f"number of tokens in [{least}, 65536]."
                )


def dialogues(seed: int, n: int, split: sample.Split) -> list[tuple[str, str]]:
    """(prompt, response) pairs of the corpus."""
    found = []
    for record in sample.sample_records(seed, n, split):
        found.append(rows.split_dialogue(record["dialogue"]))
    return found


def dense_dialogues(seed: int, n: int, split: sample.Split) -> list[tuple[str, str]]:
    """(prompt, response) pairs whose responses speak of more values than the corpus.

    A response is five statements, mostly on different values, and up to two fillers.
    The released evaluator finds no connection in 62 % of the cells of real LLMs'
    answers; in the corpus it is 80 %, which leaves a policy too few values to lose.
    """
    plain = sample.fillers(split)
    said = [text for text, _, _ in sample.sample_statements(seed, 5 * n, split)]
    found = []
    for i, (prompt, _) in enumerate(dialogues(seed, n, split)):
        rng = random.Random(f"{seed}/{split}/dense/{i}")
        sentences = said[5 * i : 5 * i + 5]
        for _ in range(int(3 * rng.random())):
            place = int(6 * rng.random())
            sentences.insert(place, plain[int(len(plain) * rng.random())])
        found.append((prompt, " ".join(sentences)))
    return found


def prompts(seed: int, n: int, split: sample.Split) -> list[str]:
    """The first n different prompts of a split."""
    seen: dict[str, None] = {}
    size = 2 * n
    while len(seen) < n:
        seen.update(dict.fromkeys(p for p, _ in dialogues(seed, size, split)))
        if size > 100 * n:
            raise ValueError(
                f"texts.prompts: the {split} split has {len(seen)} different prompts; "
                f"{n} were asked for."
            )
        size *= 2
    return list(seen)[:n]


class Codec:
    """Between texts and the decoder's tokens."""

    def __init__(self, tokenizer: PairTokenizer, lengths: Lengths) -> None:
        """Wraps the tokenizer that the decoder was trained with."""
        self.tokenizer = tokenizer
        self.lengths = lengths
        self.end_id, self.start_id = tokenizer.end_id, tokenizer.start_id
        self.pad_id = tokenizer.pad_id
        self.banned = np.zeros(tokenizer.vocab_size, bool)
        self.banned[tokenizer.special_ids] = True
        self.banned[self.end_id] = False

    def encode_prompts(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """`[B, P]` ids, padded on the left, and `[B, P]` bool where one stands."""
        width = self.lengths.prompt
        ids = np.full((len(texts), width), self.pad_id, np.int32)
        where = np.zeros((len(texts), width), bool)
        for row, plain in enumerate(self.tokenizer.pieces(texts)):
            plain = [self.start_id, *plain[-(width - 2) :], self.end_id]
            ids[row, width - len(plain) :] = plain
            where[row, width - len(plain) :] = True
        return ids, where

    def encode_responses(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """`[B, R]` ids and bool: as many whole sentences as fit, and the end."""
        width = self.lengths.response
        ids = np.full((len(texts), width), self.pad_id, np.int32)
        where = np.zeros((len(texts), width), bool)
        for row, text in enumerate(texts):
            kept: list[int] = []
            for sentence in self.tokenizer.pieces(_SENTENCE.split(text)):
                if len(kept) + len(sentence) > width - 1:
                    break
                kept += sentence
            ids[row, : len(kept) + 1] = [*kept, self.end_id]
            where[row, : len(kept) + 1] = True
        return ids, where

    def decode(self, tokens: np.ndarray, where: np.ndarray) -> list[str]:
        """The texts of `[B, R]` tokens."""
        return [
            self.tokenizer.text(row[present])
            for row, present in zip(tokens, where, strict=True)
        ]

    @classmethod
    def load(cls, path: pathlib.Path, lengths: Lengths) -> "Codec":
        """Reads the tokenizer that stands beside a decoder."""
        return cls(PairTokenizer.load(path), lengths)
