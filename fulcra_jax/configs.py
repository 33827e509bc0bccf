# SPDX-License-Identifier: Apache-2.0
"""What a model is made of: frozen, validated, free of jax and flax.

The encoder keeps Hugging Face's names for `deberta-v2` (which is DeBERTa v2, v3 and
mDeBERTa), so that `config.json` can be read and written without a table of synonyms.
Defaults are those of deberta-v3-base; what a `config.json` leaves out takes Hugging
Face's default instead, which is often another one.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

Activation = Literal["gelu", "gelu_new", "relu", "silu", "tanh"]
Pool = Literal["first", "mean", "max", "logsumexp"]
Link = Literal["ternary", "tanh"]

NUM_CLASSES: dict[str, int] = {"ternary": 3, "tanh": 1}
"""Classes per value of each link."""

MODEL_TYPE = "deberta-v2"

HARMLESS_KEYS = frozenset(
    """
    _attn_implementation_autoset _commit_hash _name_or_path add_cross_attention
    architectures attn_implementation bad_words_ids begin_suppress_tokens bos_token_id
    chunk_size_feed_forward classifier_dropout cls_dropout cross_attention_hidden_size
    decoder_start_token_id diversity_penalty do_sample dtype early_stopping
    encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty
    finetuning_task forced_bos_token_id forced_eos_token_id fulcra
    gradient_checkpointing id2label is_decoder is_encoder_decoder label2id legacy
    length_penalty max_length min_length model_type name_or_path no_repeat_ngram_size
    num_beam_groups num_beams num_labels num_return_sequences output_attentions
    output_hidden_states output_scores padding_idx pooling prefix problem_type
    remove_invalid_values repetition_penalty return_dict return_dict_in_generate
    sep_token_id suppress_tokens task_specific_params temperature tf_legacy_loss
    tie_encoder_decoder tie_word_embeddings tokenizer_class top_k top_p torch_dtype
    torchscript transformers_version typical_p use_bfloat16 use_cache
    """.split()
)
"""Keys of a `config.json` that do not change the encoder's numbers."""

_HF_DEFAULTS: dict[str, Any] = {
    "vocab_size": 128100,
    "hidden_size": 1536,
    "num_hidden_layers": 24,
    "num_attention_heads": 24,
    "intermediate_size": 6144,
    "relative_attention": False,
    "position_buckets": -1,
    "pos_att_type": (),
    "share_att_key": False,
    "norm_rel_ebd": "none",
    "position_biased_input": True,
}
"""Where a key missing from `config.json` means something else than our default."""


@dataclasses.dataclass(frozen=True)
class DebertaConfig:
    """The encoder, by Hugging Face's names.

    `max_relative_positions` below one means `max_position_embeddings`;
    `position_buckets` below one means one slot per distance; `conv_kernel_size` zero
    means no convolution; `embedding_size` zero or None means `hidden_size`;
    `attention_head_size` None means `hidden_size / num_attention_heads`.
    `pooler_dropout` and `pooler_hidden_act` belong to the hidden layer of the head.

    Raises:
      ValueError: naming the field, what it is and what it should be.

    >>> DebertaConfig(pos_att_type="p2c|c2p").pos_att_type
    ('p2c', 'c2p')
    """

    vocab_size: int = 128100
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: Activation = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 0
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-7
    relative_attention: bool = True
    max_relative_positions: int = -1
    position_buckets: int = 256
    pos_att_type: tuple[str, ...] = ("p2c", "c2p")
    share_att_key: bool = True
    norm_rel_ebd: str = "layer_norm"
    position_biased_input: bool = False
    pad_token_id: int | None = 0
    embedding_size: int | None = None
    attention_head_size: int | None = None
    conv_kernel_size: int = 0
    conv_act: Activation = "tanh"
    conv_groups: int = 1
    pooler_dropout: float = 0.0
    pooler_hidden_act: Activation = "gelu"

    def __post_init__(self):
        kinds = self.pos_att_type or ()
        if isinstance(kinds, str):
            kinds = [part.strip() for part in kinds.lower().split("|") if part.strip()]
        object.__setattr__(self, "pos_att_type", tuple(kinds))
        object.__setattr__(self, "embedding_size", self.embedding_size or None)
        for name in (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
            "conv_groups",
        ):
            _need(self, name, _is_int(getattr(self, name), 1), "a positive integer")
        for name in ("type_vocab_size", "conv_kernel_size"):
            _need(self, name, _is_int(getattr(self, name), 0), "an integer >= 0")
        for name in ("max_relative_positions", "position_buckets"):
            _need(self, name, _is_int(getattr(self, name), -1), "an integer >= -1")
        for name in ("embedding_size", "attention_head_size"):
            size = getattr(self, name)
            _need(self, name, size is None or _is_int(size, 1), "positive or None")
        for name in (
            "hidden_dropout_prob",
            "attention_probs_dropout_prob",
            "pooler_dropout",
        ):
            _need(self, name, _is_rate(getattr(self, name)), "a number in [0, 1)")
        for name in ("layer_norm_eps", "initializer_range"):
            _need(self, name, _is_number(getattr(self, name), 0.0), "a positive number")
        for name in ("relative_attention", "share_att_key", "position_biased_input"):
            _need(self, name, isinstance(getattr(self, name), bool), "True or False")
        for name in ("hidden_act", "conv_act", "pooler_hidden_act"):
            _one_of(self, name, get_args(Activation))
        self._check_attention()

    def _check_attention(self):
        D, H, pad = self.hidden_size, self.num_attention_heads, self.pad_token_id
        _need(
            self,
            "num_attention_heads",
            D % H == 0,
            f"a divisor of hidden_size ({D})",
        )
        # The released models project from hidden_size back to hidden_size, so any
        # other head width cannot be run by either original implementation.
        _need(
            self,
            "attention_head_size",
            self.attention_head_size in (None, D // H),
            f"hidden_size / num_attention_heads ({D // H})",
        )
        _need(
            self,
            "pos_att_type",
            set(self.pos_att_type) <= {"c2p", "p2c"},
            "made of 'c2p' and 'p2c' ('p2p' is not computed)",
        )
        _one_of(self, "norm_rel_ebd", ("none", "layer_norm"))
        _need(
            self,
            "conv_kernel_size",
            self.conv_kernel_size == 0 or self.conv_kernel_size % 2 == 1,
            "odd, or zero for none",
        )
        _need(
            self,
            "conv_groups",
            D % self.conv_groups == 0,
            f"a divisor of hidden_size ({D})",
        )
        _need(
            self,
            "pad_token_id",
            pad is None or (_is_int(pad, 0) and pad < self.vocab_size),
            f"None or in [0, {self.vocab_size})",
        )
        buckets = self.position_buckets
        _need(
            self,
            "position_buckets",
            buckets < 1 or 2 <= buckets < 2 * (self.max_distance - 1),
            "below one, or at least 2 and below twice the largest distance "
            f"({self.max_distance - 1})",
        )

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def embedding_width(self) -> int:
        """Width of the word embeddings before they are projected."""
        return self.embedding_size or self.hidden_size

    @property
    def max_distance(self) -> int:
        """The distance between two tokens from which all distances are alike."""
        if self.max_relative_positions < 1:
            return self.max_position_embeddings
        return self.max_relative_positions

    @property
    def span(self) -> int:
        """Position slots per direction; the relative table has twice as many rows."""
        return self.position_buckets if self.position_buckets > 0 else self.max_distance

    @classmethod
    def from_hf(cls, source: Mapping[str, Any] | str | os.PathLike) -> "DebertaConfig":
        """Reads Hugging Face's `config.json`.

        Args:
          source: the mapping itself, the file, or a directory that holds `config.json`.

        Returns:
          The encoder's configuration. Missing keys take Hugging Face's default.

        Raises:
          FileNotFoundError: if there is no such file.
          ValueError: if it is no JSON object, another architecture, a field is out of
            range, or a key is not known to leave the numbers alone.

        Reference:
          `DebertaV2Config` of transformers 5.12.1.

        >>> DebertaConfig.from_hf({"model_type": "deberta-v2"}).relative_attention
        False
        """
        found = source if isinstance(source, Mapping) else read_json(source)
        model_type = found.get("model_type")
        if model_type != MODEL_TYPE:
            raise ValueError(
                f"configs.DebertaConfig: model_type is {model_type!r}; only "
                f"{MODEL_TYPE!r} (DeBERTa v2, v3 and mDeBERTa) can be read."
            )
        fields = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(
            key
            for key in set(found) - fields - HARMLESS_KEYS - set(_ONLY_IF)
            if found[key] is not None
        )
        if unknown:
            raise ValueError(
                "configs.DebertaConfig: config.json has keys that are not supported "
                f"and may change the numbers: {', '.join(unknown)}."
            )
        named = {key: found[key] for key in fields & set(found)}
        if isinstance(named.get("norm_rel_ebd"), str):
            named["norm_rel_ebd"] = named["norm_rel_ebd"].strip().lower()
        config = cls(**(_HF_DEFAULTS | named))
        for key, allowed in _ONLY_IF.items():
            want = config.hidden_size if allowed == "hidden_size" else allowed
            if found.get(key) and found[key] != want:
                raise ValueError(
                    f"configs.DebertaConfig: {key} is {found[key]!r}; only {want!r} is "
                    "supported."
                )
        return config

    def to_hf(self) -> dict[str, Any]:
        """The entries of Hugging Face's `config.json`; `from_hf` reads them back."""
        entries = {"model_type": MODEL_TYPE} | dataclasses.asdict(self)
        entries["pos_att_type"] = list(self.pos_att_type)
        # transformers reads these with getattr: an entry that is None is not absent.
        for name in ("embedding_size", "attention_head_size"):
            if entries[name] is None:
                del entries[name]
        return entries


_ONLY_IF: dict[str, Any] = {
    "pooler_hidden_size": "hidden_size",
    "pruned_heads": {},
    "quantization_config": None,
}
"""Keys that are read by transformers but supported here with one setting only."""


@dataclasses.dataclass(frozen=True)
class SharedHead:
    """One projection that reads all values off one pooled vector in a single pass.

    With `pool="first"` and `hidden=None` it is Hugging Face's pooler and classifier.

    Attributes:
      num_values: V, how many values are judged.
      pool: the first token, or mean or maximum over the tokens that are not padding.
        "logsumexp" reads logits off every token and pools those: what a phrase shows
        is not diluted by the length of the text, which helps a small encoder that is
        trained from scratch.
      hidden: width of the hidden layer; None is the encoder's width, 0 means linear.
      dropout: rate before the projection.
    """

    num_values: int = 10
    pool: Pool = "first"
    hidden: int | None = None
    dropout: float = 0.1

    def __post_init__(self):
        _need(self, "num_values", _is_int(self.num_values, 1), "a positive integer")
        _one_of(self, "pool", get_args(Pool))
        _need(
            self,
            "hidden",
            self.hidden is None or _is_int(self.hidden, 0),
            "None (the encoder's width), 0 (linear) or a width",
        )
        _need(self, "dropout", _is_rate(self.dropout), "a number in [0, 1)")

    def width(self, encoder_width: int) -> int:
        """Width of the hidden layer on an encoder of that width; 0 means linear."""
        return encoder_width if self.hidden is None else self.hidden


HEADS: dict[str, type[SharedHead]] = {"SharedHead": SharedHead}
"""The heads by the name that tags them in JSON."""


@dataclasses.dataclass(frozen=True)
class EvaluatorConfig:
    """An encoder, the head that reads values off it, and what the logits mean.

    Attributes:
      encoder: the encoder.
      head: the head.
      link: "ternary" has three logits per value (classes -1, 0, +1), "tanh" one.
    """

    encoder: DebertaConfig
    head: SharedHead = dataclasses.field(default_factory=SharedHead)
    link: Link = "ternary"

    def __post_init__(self):
        _need(
            self,
            "encoder",
            isinstance(self.encoder, DebertaConfig),
            "a DebertaConfig",
        )
        known = tuple(HEADS.values())
        _need(self, "head", isinstance(self.head, known), f"one of {', '.join(HEADS)}")
        _one_of(self, "link", get_args(Link))

    @property
    def num_classes(self) -> int:
        """C, the logits per value."""
        return NUM_CLASSES[self.link]

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers; `from_json` reads them back."""
        head = {"type": type(self.head).__name__} | dataclasses.asdict(self.head)
        return {"encoder": self.encoder.to_hf(), "head": head, "link": self.link}

    @classmethod
    def from_json(cls, entries: Mapping[str, Any]) -> "EvaluatorConfig":
        """Reads what `to_json` wrote.

        Raises:
          KeyError: if the head's type is unknown; the message lists the known.
          ValueError: if an entry is missing, unknown or out of range.
        """
        _same_keys("configs.EvaluatorConfig", entries, {"encoder", "head", "link"})
        head = dict(entries["head"])
        kind = head.pop("type", None)
        if kind not in HEADS:
            raise KeyError(
                f"configs.EvaluatorConfig: head type {kind!r} is unknown; known are: "
                f"{', '.join(HEADS)}."
            )
        fields = {field.name for field in dataclasses.fields(HEADS[kind])}
        _same_keys(f"configs.{kind}", head, fields)
        encoder = DebertaConfig.from_hf(entries["encoder"])
        return cls(encoder, HEADS[kind](**head), entries["link"])


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """The object in a JSON file, or in the `config.json` of a directory.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if it is not a JSON object.
    """
    file = Path(path)
    file = file / "config.json" if file.is_dir() else file
    if not file.is_file():
        raise FileNotFoundError(f"configs: there is no file {file}.")
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"configs: {file} is not valid JSON: {error}.") from error
    if not isinstance(entries, dict):
        raise ValueError(f"configs: {file} holds no JSON object.")
    return entries


def _is_int(number: Any, least: int) -> bool:
    whole = isinstance(number, int) and not isinstance(number, bool)
    return whole and number >= least


def _is_number(number: Any, above: float) -> bool:
    real = isinstance(number, int | float) and not isinstance(number, bool)
    return real and above < number < float("inf")


def _is_rate(number: Any) -> bool:
    return (number == 0 and not isinstance(number, bool)) or (
        _is_number(number, 0.0) and number < 1
    )


def _need(config: Any, field: str, holds: bool, want: str) -> None:
    if not holds:
        raise ValueError(
            f"configs.{type(config).__name__}: {field} is {getattr(config, field)!r}; "
            f"it should be {want}."
        )


def _one_of(config: Any, field: str, known: tuple[str, ...]) -> None:
    want = f"one of {', '.join(known)}"
    _need(config, field, getattr(config, field) in known, want)


def _same_keys(caller: str, entries: Mapping[str, Any], want: set[str]) -> None:
    missing, surplus = sorted(want - set(entries)), sorted(set(entries) - want)
    if missing or surplus:
        raise ValueError(
            f"{caller}: entries are missing: {', '.join(missing) or 'none'}; "
            f"unknown: {', '.join(surplus) or 'none'}."
        )
