# SPDX-License-Identifier: Apache-2.0
"""Prompt and response as two segments of token ids.

The tokenizer is a Hugging Face directory when one is given, else one trained on the
corpus. Special tokens are placed here and not by the tokenizer's own template, because
that template differs between versions of transformers for the same checkpoint.
"""

import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

import numpy as np

from fulcra_jax import _extras

# transformers says at import that torch is missing; here it only tokenizes.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
try:
    import tokenizers
    import transformers
except ModuleNotFoundError as error:
    raise _extras.missing("fulcra_jax.data.tokenizer", "data", error) from error

from fulcra_jax.data.rows import RowError, check_text

_NOT_IDS = ("model_max_length", "is_local", "local_files_only", "name_or_path")
"""Fields of tokenizer_config.json that differ between a tokenizer and its copy."""

_MOST_PIECES = 2**20
"""More is no vocabulary; the library reserves memory for all of them at once."""
SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")


class Encoded(NamedTuple):
    """N pairs as ragged arrays."""

    ids: list[np.ndarray]
    """`[length]` int32 each: [CLS] prompt [SEP] response [SEP]."""
    types: list[np.ndarray]
    """`[length]` int32 each: 0 up to the first [SEP], 1 for the response."""


class PairTokenizer:
    """Turns (prompt, response) into ids; wraps a Hugging Face tokenizer."""

    def __init__(self, tokenizer: transformers.PreTrainedTokenizerBase) -> None:
        """Args: tokenizer: any fast tokenizer that has [CLS], [SEP] and [PAD]."""
        for name in ("cls_token_id", "sep_token_id", "pad_token_id"):
            if getattr(tokenizer, name) is None:
                raise ValueError(
                    f"tokenizer: it has no {name}; an encoder of the BERT family needs "
                    "[CLS], [SEP] and [PAD]."
                )
        self._tokenizer = tokenizer

    @property
    def vocab_size(self) -> int:
        """Number of ids, added tokens included."""
        return len(self._tokenizer)

    @property
    def pad_id(self) -> int:
        """The id that fills short rows."""
        return self._id_of(str(self._tokenizer.pad_token))

    @property
    def mask_id(self) -> int:
        """The id of [MASK], or of [UNK] in a tokenizer without it.

        Raises:
          ValueError: if the tokenizer has neither.
        """
        piece = self._tokenizer.mask_token or self._tokenizer.unk_token
        if piece is None:
            raise ValueError("tokenizer: it has neither [MASK] nor [UNK].")
        return self._id_of(str(piece))

    @property
    def start_id(self) -> int:
        """The id of [CLS]."""
        return self._id_of(str(self._tokenizer.cls_token))

    @property
    def end_id(self) -> int:
        """The id of [SEP]."""
        return self._id_of(str(self._tokenizer.sep_token))

    @property
    def special_ids(self) -> list[int]:
        """Ids of [CLS], [SEP], [PAD] and the like."""
        return list(self._tokenizer.all_special_ids)

    @property
    def max_length(self) -> int | None:
        """Most tokens of a pair, as saved with the tokenizer; None when not saved."""
        length = self._tokenizer.model_max_length
        # transformers stands "no limit" for by 1e30.
        return int(length) if length < 10**9 else None

    def encode(
        self, prompts: Sequence[str], responses: Sequence[str], *, max_length: int
    ) -> Encoded:
        """Ids of N pairs; what does not fit is cut from the end, the prompt first.

        The response is what is judged: it keeps its beginning as far as `max_length`
        allows, and the prompt gets the room that is left.

        Args:
          prompts: N texts.
          responses: N texts.
          max_length: most tokens of a pair, special tokens included; at least 4.

        Returns:
          The ids and segment types of the N pairs.

        Raises:
          ValueError: if the numbers of texts differ, one is no text, or `max_length`
            is below 4.
        """
        if len(prompts) != len(responses):
            raise ValueError(
                f"tokenizer.encode: there are {len(prompts)} prompts and "
                f"{len(responses)} responses; there should be as many."
            )
        if max_length < 4:
            raise ValueError(
                f"tokenizer.encode: max_length is {max_length}; it should be at least "
                "4."
            )
        for name, texts in (("prompts", prompts), ("responses", responses)):
            for place, text in enumerate(texts):
                try:
                    check_text(name, text)
                except RowError as error:
                    raise ValueError(
                        f"tokenizer.encode: {name}[{place}] {error.reason}"
                    ) from None
        cls, sep = self._tokenizer.cls_token_id, self._tokenizer.sep_token_id
        ids, types = [], []
        for prompt, response in zip(
            self._plain(prompts), self._plain(responses), strict=True
        ):
            response = response[: max_length - 3]
            prompt = prompt[: max_length - 3 - len(response)]
            row = [cls, *prompt, sep, *response, sep]
            ids.append(np.array(row, np.int32))
            types.append((np.arange(len(row)) >= len(prompt) + 2).astype(np.int32))
        return Encoded(ids, types)

    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts, without special tokens."""
        return self._plain(texts)

    def text(self, ids: Sequence[int]) -> str:
        """The text of ids; special tokens are left out."""
        plain = [int(i) for i in ids]
        return str(self._tokenizer.decode(plain, skip_special_tokens=True)).strip()

    def save(self, path: str | pathlib.Path, *, max_length: int | None = None) -> None:
        """Writes the tokenizer as a Hugging Face directory, with its `max_length`.

        Opened with transformers, one that was trained here adds no special tokens:
        `encode` places them.

        Raises:
          OSError: if it cannot be written there.
        """
        if max_length is not None:
            self._tokenizer.model_max_length = max_length
        self._write(pathlib.Path(path))

    def _write(self, folder: pathlib.Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._tokenizer.save_pretrained(str(folder))
        except Exception as error:  # the library has no class for a full disk
            why = " ".join(str(error).split())
            raise OSError(
                f"tokenizer.save: {folder} cannot be written to ({why})."
            ) from None

    def fingerprint(self) -> str:
        """A digest of all that decides the ids: equal for a tokenizer and its copy.

        Of the files that `save` writes, without the length limit that is saved with
        them (`encode` is given its own), and of the library's version.
        """
        digest = hashlib.sha256(tokenizers.__version__.encode())
        digest.update(transformers.__version__.encode())
        with tempfile.TemporaryDirectory() as folder:
            self._write(pathlib.Path(folder))
            for path in sorted(pathlib.Path(folder).rglob("*")):
                if not path.is_file():
                    continue
                content = path.read_bytes()
                if path.name == "tokenizer_config.json":
                    fields = json.loads(content)
                    for name in _NOT_IDS:
                        fields.pop(name, None)
                    content = json.dumps(fields, sort_keys=True).encode()
                digest.update(path.name.encode() + b"\0")
                digest.update(hashlib.sha256(content).digest())
        return digest.hexdigest()

    @classmethod
    def load(cls, path: str | pathlib.Path) -> "PairTokenizer":
        """Reads a Hugging Face tokenizer directory.

        Raises:
          FileNotFoundError: if there is no such directory, or no tokenizer in it.
          ValueError: if the tokenizer cannot be read.
        """
        path = pathlib.Path(path)
        if not path.is_dir():
            raise FileNotFoundError(
                f"{path} does not exist; give a Hugging Face tokenizer directory."
            )
        names = ("tokenizer.json", "spm.model", "vocab.json", "vocab.txt")
        if not any((path / name).is_file() for name in names):
            raise FileNotFoundError(
                f"{path}: holds no tokenizer; one of {', '.join(names)} should be "
                "there."
            )
        try:
            found = transformers.AutoTokenizer.from_pretrained(
                str(path), local_files_only=True
            )
        except Exception as error:  # the library raises whatever its parsers raise
            raise ValueError(
                f"{path}: the tokenizer there cannot be read ({type(error).__name__}: "
                f"{str(error)[:100]})."
            ) from error
        return cls(found)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "PairTokenizer":
        """A lower-casing byte-level BPE tokenizer trained on texts; deterministic.

        Every text can be written in its bytes, so nothing is ever unknown.

        Args:
          texts: the training texts only: held-out words must stay unseen.
          vocab_size: most pieces, special tokens and 256 bytes included.

        Raises:
          ValueError: if there is no text, no room for the bytes, or there are too many
            pieces.

        Reference:
          Sennrich et al. 2016, "Neural machine translation of rare words with subword
          units".
        """
        texts = list(texts)
        if not texts:
            raise ValueError("tokenizer.train: there is no text to train on.")
        least = 256 + len(SPECIAL)
        if not least <= vocab_size <= _MOST_PIECES:
            raise ValueError(
                f"tokenizer.train: vocab_size is {vocab_size}; it should be in "
                f"[{least}, {_MOST_PIECES}]."
            )
        model = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="[UNK]"))
        model.normalizer = tokenizers.normalizers.Sequence(
            [
                tokenizers.normalizers.NFKC(),
                tokenizers.normalizers.Lowercase(),
            ]
        )
        model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
        model.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            special_tokens=list(SPECIAL),
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        # One thread: the order of equally frequent merges must not depend on timing.
        before = os.environ.get("TOKENIZERS_PARALLELISM")
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        try:
            model.train_from_iterator(texts, trainer)
        finally:
            if before is None:
                del os.environ["TOKENIZERS_PARALLELISM"]
            else:
                os.environ["TOKENIZERS_PARALLELISM"] = before
        pad, start, end, unknown, masked = SPECIAL
        return cls(
            transformers.PreTrainedTokenizerFast(
                tokenizer_object=model,
                pad_token=pad,
                cls_token=start,
                sep_token=end,
                unk_token=unknown,
                mask_token=masked,
            )
        )

    def _id_of(self, piece: str) -> int:
        # transformers types the id as one of many things.
        return cast(int, self._tokenizer.convert_tokens_to_ids(piece))

    def _plain(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        # A text that spells "[SEP]" is a text: only the places above are special.
        # `verbose=False`: texts longer than the model are cut here, by intent.
        encoding = self._tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=True,
            verbose=False,
        )
        return encoding["input_ids"]  # pyright: ignore[reportReturnType]
