# SPDX-License-Identifier: Apache-2.0
"""The encoder's architecture, by Hugging Face's names.

The names are kept so that `config.json` can be read and written without a table of
synonyms. Defaults are those of deberta-v3-base; what a `config.json` leaves out takes
its family's default in Hugging Face instead, which is often another one.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, Protocol, get_args, runtime_checkable

from fulcra_jax.configs._checks import (
    MOST,
    cut,
    is_int,
    is_number,
    is_rate,
    need,
    one_of,
)
from fulcra_jax.configs.families import (
    DECODER_KEYS,
    DEFAULTS,
    FIXED,
    HARMLESS_KEYS,
    ONLY_IF,
    Activation,
    Family,
)
from fulcra_jax.configs.reading import read_json

_MOST_LAYERS = 1000


@runtime_checkable
class HasDict(Protocol):
    """A configuration of transformers."""

    def to_dict(self) -> dict[str, Any]:
        """What `config.json` would hold."""
        ...


@dataclasses.dataclass(frozen=True)
class DebertaConfig:
    """The encoder, by Hugging Face's names.

    `model_type` is the family: "deberta" (v1), "deberta-v2" (v2, v3 and mDeBERTa) or
    "bert". A field that a family does not have stands at the setting it computes with
    (`families.FIXED`), so start a v1 or a BERT from `from_hf`, which knows them.

    `max_relative_positions` below one means `max_position_embeddings`;
    `position_buckets` below one means one slot per distance; `conv_kernel_size` zero
    means no convolution; `embedding_size` zero or None means `hidden_size`;
    `attention_head_size` None means `hidden_size / num_attention_heads`. "p2p" in
    `pos_att_type` is never computed. `pooler_dropout` and `pooler_hidden_act` belong to
    the hidden layer of the head.

    Raises:
      ValueError: naming the field, what it is and what it should be.

    >>> DebertaConfig(pos_att_type="p2c|c2p").pos_att_type
    ('p2c', 'c2p')
    >>> DebertaConfig.from_hf({"model_type": "bert"}).relative_attention
    False
    """

    model_type: Family = "deberta-v2"
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
        kinds: Any = [] if self.pos_att_type is None else self.pos_att_type
        if isinstance(kinds, str):
            kinds = [part.strip() for part in kinds.lower().split("|")]
            if self.model_type != "deberta":  # v1 counts empty names in its scale
                kinds = [kind for kind in kinds if kind]
        if isinstance(kinds, list):
            object.__setattr__(self, "pos_att_type", tuple(kinds))
        object.__setattr__(self, "embedding_size", self.embedding_size or None)
        one_of(self, "model_type", get_args(Family))
        for name in (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
            "conv_groups",
        ):
            most = _MOST_LAYERS if name == "num_hidden_layers" else MOST
            want = f"a positive integer of at most {most}"
            need(self, name, is_int(getattr(self, name), 1, most), want)
        for name in ("type_vocab_size", "conv_kernel_size"):
            want = f"an integer >= 0 and at most {MOST}"
            need(self, name, is_int(getattr(self, name), 0), want)
        for name in ("max_relative_positions", "position_buckets"):
            want = f"an integer >= -1 and at most {MOST}"
            need(self, name, is_int(getattr(self, name), -1), want)
        for name in ("embedding_size", "attention_head_size"):
            size, want = getattr(self, name), f"positive or None, at most {MOST}"
            need(self, name, size is None or is_int(size, 1), want)
        for name in (
            "hidden_dropout_prob",
            "attention_probs_dropout_prob",
            "pooler_dropout",
        ):
            need(self, name, is_rate(getattr(self, name)), "a number in [0, 1)")
        for name in ("layer_norm_eps", "initializer_range"):
            need(self, name, is_number(getattr(self, name), 0.0), "a positive number")
        for name in ("relative_attention", "share_att_key", "position_biased_input"):
            need(self, name, isinstance(getattr(self, name), bool), "True or False")
        for name in ("hidden_act", "conv_act", "pooler_hidden_act"):
            one_of(self, name, get_args(Activation))
        for name, only in FIXED[self.model_type].items():
            family = repr(self.model_type)
            want = (
                f"{only!r} for model_type {family}, which "
                f"DebertaConfig.from_hf({{'model_type': {family}, ...}}) sets"
            )
            need(self, name, getattr(self, name) == only, want)
        self._check_attention()

    def _check_attention(self):
        D, H, pad = self.hidden_size, self.num_attention_heads, self.pad_token_id
        need(
            self,
            "num_attention_heads",
            D % H == 0,
            f"a divisor of hidden_size ({D})",
        )
        # The released models project from hidden_size back to hidden_size, so any
        # other head width cannot be run by either original implementation.
        need(
            self,
            "attention_head_size",
            self.attention_head_size in (None, D // H),
            f"hidden_size / num_attention_heads ({D // H})",
        )
        need(
            self,
            "pos_att_type",
            isinstance(self.pos_att_type, tuple)
            and all(kind in ("c2p", "p2c", "p2p") for kind in self.pos_att_type),
            "made of 'c2p', 'p2c' and 'p2p'",
        )
        need(
            self,
            "type_vocab_size",
            self.type_vocab_size > 0 or self.model_type != "bert",
            "positive for model_type 'bert'",
        )
        one_of(self, "norm_rel_ebd", ("none", "layer_norm"))
        need(
            self,
            "conv_kernel_size",
            self.conv_kernel_size == 0 or self.conv_kernel_size % 2 == 1,
            "odd, or zero for none",
        )
        need(
            self,
            "conv_groups",
            D % self.conv_groups == 0,
            f"a divisor of hidden_size ({D})",
        )
        need(
            self,
            "pad_token_id",
            pad is None or (is_int(pad, 0) and pad < self.vocab_size),
            f"None or in [0, {self.vocab_size})",
        )
        buckets = self.position_buckets
        need(
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

    @property
    def terms(self) -> int:
        """Terms that the attention's scale counts, whether computed or not.

        >>> DebertaConfig(pos_att_type=("c2p", "p2p")).terms
        2
        >>> v1 = {"model_type": "deberta", "pos_att_type": "c2p|p2p"}
        >>> DebertaConfig.from_hf(v1).terms
        3
        """
        if self.model_type == "deberta":  # the length of the list, with repetitions
            return 1 + len(self.pos_att_type)
        return 1 + len({"c2p", "p2c"} & set(self.pos_att_type))

    @classmethod
    def from_hf(
        cls, source: Mapping[str, Any] | HasDict | str | os.PathLike
    ) -> "DebertaConfig":
        """Reads Hugging Face's `config.json`.

        Args:
          source: the mapping itself, a configuration of transformers, the file, or a
            directory that holds `config.json`.

        Returns:
          The encoder's configuration. Missing keys take Hugging Face's default.

        Raises:
          FileNotFoundError: if there is no such file.
          ValueError: if it is no JSON object, another architecture, a field is out of
            range or not its family's, or a key is not known to leave the numbers alone.

        Reference:
          `DebertaConfig`, `DebertaV2Config` and `BertConfig` of transformers 5.12.1.

        >>> DebertaConfig.from_hf({"model_type": "deberta-v2"}).relative_attention
        False
        """
        if isinstance(source, Mapping):
            found = source
        elif isinstance(source, HasDict):
            found = source.to_dict()
        else:
            found = read_json(source)
        family: Any = found.get("model_type")
        if family not in get_args(Family):
            raise ValueError(
                f"configs.DebertaConfig: model_type is {cut(family)}; only 'deberta' "
                "(v1), 'deberta-v2' (v2, v3 and mDeBERTa) and 'bert' can be read."
            )
        fields = {field.name for field in dataclasses.fields(cls)}
        known = fields | HARMLESS_KEYS | set(ONLY_IF) | set(DECODER_KEYS)
        if unknown := sorted(k for k in set(found) - known if found[k] is not None):
            names = ", ".join(cut(key)[1:-1] for key in unknown[:8])
            raise ValueError(
                "configs.DebertaConfig: config.json has keys that are not supported "
                f"and may change the numbers: {names}."
            )
        lacks = FIXED[family]
        named = {
            key: found[key]
            for key in fields & set(found)
            if key not in lacks or found[key] is not None
        }
        if isinstance(named.get("norm_rel_ebd"), str):
            named["norm_rel_ebd"] = named["norm_rel_ebd"].strip().lower()
        config = cls(**(DEFAULTS[family] | lacks | named))
        only_if = {
            key: config.hidden_size if only == "hidden_size" else only
            for key, only in ONLY_IF.items()
        }
        if family == "bert":
            only_if |= dict.fromkeys(DECODER_KEYS, False)
        for key, only in only_if.items():
            if found.get(key) and found[key] != only:
                raise ValueError(
                    f"configs.DebertaConfig: {key} is {cut(found[key])}; only {only!r} "
                    "is supported."
                )
        return config

    def to_hf(self) -> dict[str, Any]:
        """The entries of Hugging Face's `config.json`; `from_hf` reads them back.

        Only keys of the family, and of those that transformers reads with `getattr`
        only those that are set: an entry that is None is not absent.
        """
        entries = dataclasses.asdict(self) | {"pos_att_type": list(self.pos_att_type)}
        absent = set(FIXED[self.model_type])
        absent |= {
            name
            for name in ("embedding_size", "attention_head_size")
            if entries[name] is None
        }
        return {name: entries[name] for name in entries if name not in absent}
