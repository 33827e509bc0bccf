# SPDX-License-Identifier: Apache-2.0
"""Which tensor of a file is which leaf of the parameter tree, written out.

The names are those of transformers' encoders and sequence classifiers of the three
families, without the prefix "deberta." or "bert.".
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import numpy as np

from fulcra_jax.configs import DebertaConfig, EvaluatorConfig, SharedHead

Kind = Literal["same", "linear", "conv"]

# From the axes of a tensor in the file to those of the leaf.
_TO_LEAF: dict[Kind, tuple[int, ...] | None] = {
    "same": None,
    "linear": (1, 0),  # [out, in] -> [in, out]
    "conv": (2, 1, 0),  # [out, in / groups, taps] -> [taps, in / groups, out]
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One tensor of a file, or a part of it, and one leaf of the tree.

    Attributes:
      name: the tensor's name in the file, without "deberta." or "bert.".
      path: the leaf's path in the tree.
      shape: the leaf's shape.
      kind: how the axes of the two are ordered.
      part: (index, number of parts, number of heads) where the tensor's first axis
        holds several leaves, head by head: all parts of head 0, then those of head 1.
    """

    name: str
    path: tuple[str, ...]
    shape: tuple[int, ...]
    kind: Kind = "same"
    part: tuple[int, int, int] | None = None

    @property
    def file_shape(self) -> tuple[int, ...]:
        """The tensor's shape in the file. Each reordering is its own inverse."""
        axes = _TO_LEAF[self.kind]
        shape = self.shape if axes is None else tuple(self.shape[axis] for axis in axes)
        return shape if self.part is None else (self.part[1] * shape[0], *shape[1:])

    def swap(self, tensor: np.ndarray) -> np.ndarray:
        """The leaf, from the tensor in the file."""
        if self.part is not None:
            index, count, heads = self.part
            by_head = tensor.reshape(heads, count, -1, *tensor.shape[1:])
            tensor = by_head[:, index].reshape(-1, *tensor.shape[1:])
        return self._reordered(tensor)

    def put(self, leaf: np.ndarray, tensor: np.ndarray) -> None:
        """Writes the leaf into the tensor of the file, or into its part of it."""
        leaf = self._reordered(leaf)
        if self.part is None:
            tensor[...] = leaf
            return
        index, count, heads = self.part
        by_head = tensor.reshape(heads, count, -1, *tensor.shape[1:])
        by_head[:, index] = leaf.reshape(heads, -1, *leaf.shape[1:])

    def _reordered(self, array: np.ndarray) -> np.ndarray:
        axes = _TO_LEAF[self.kind]
        return array if axes is None else np.transpose(array, axes)


def tensors(
    rows: Iterable[Row], leaves: Mapping[tuple[str, ...], np.ndarray]
) -> dict[str, np.ndarray]:
    """The tensors of a file, float32, from the leaves of a tree."""
    out: dict[str, np.ndarray] = {}
    for row in rows:
        tensor = out.setdefault(row.name, np.empty(row.file_shape, np.float32))
        row.put(np.asarray(leaves[row.path], np.float32), tensor)
    return out


# Heads and buffers of other models, and what an encoder has no use for. BERT's pooler
# is pretrained; what stands in `CLASSIFIERS` somebody trained for a purpose.
OTHER_HEADS = (
    "lm_predictions.",
    "mask_predictions.",
    "cls.predictions.",
    "cls.seq_relationship.",
)
CLASSIFIERS = ("classifier.", "qa_outputs.", "fulcra.head.")
OWN_HEADS = ("pooler.", *CLASSIFIERS)


def ignored(config: DebertaConfig | EvaluatorConfig) -> tuple[str, ...]:
    """Beginnings of names in a file that are left out on purpose."""
    encoder = config.encoder if isinstance(config, EvaluatorConfig) else config
    names = (*OTHER_HEADS, "embeddings.position_ids")
    if not isinstance(config, EvaluatorConfig):
        names += OWN_HEADS
    if not encoder.position_biased_input:
        names += ("embeddings.position_embeddings.weight",)
    if not encoder.relative_attention:
        names += ("encoder.LayerNorm.",)
    return names


def rows(config: DebertaConfig | EvaluatorConfig) -> list[Row]:
    """Every tensor of the model, in the order of computation."""
    if isinstance(config, DebertaConfig):
        return list(_encoder(config))
    encoder = [
        dataclasses.replace(row, path=("encoder", *row.path))
        for row in _encoder(config.encoder)
    ]
    return encoder + list(_head(config))


def prefix(config: DebertaConfig) -> str:
    """What stands before the encoder's names in the file of a whole model."""
    return "bert." if config.model_type == "bert" else "deberta."


def has_hf_head(config: EvaluatorConfig) -> bool:
    """Whether transformers' sequence classifier computes the same logits."""
    head, width = config.head, config.encoder.hidden_size
    if type(head) is not SharedHead or head.items:
        return False
    return head.pool == "first" and head.width(width) == width


def _encoder(config: DebertaConfig) -> Iterator[Row]:
    D, E, F = config.hidden_size, config.embedding_width, config.intermediate_size

    def table(name: str, path: tuple[str, ...], rows: int, width: int) -> Row:
        return Row(f"{name}.weight", (*path, "embedding"), (rows, width))

    words = "embeddings.word_embeddings"
    yield table(words, ("embeddings", "word"), config.vocab_size, E)
    if config.position_biased_input:
        count = config.max_position_embeddings
        where = ("embeddings", "position")
        yield table("embeddings.position_embeddings", where, count, E)
    if config.type_vocab_size:
        where = ("embeddings", "token_type")
        types = "embeddings.token_type_embeddings"
        yield table(types, where, config.type_vocab_size, E)
    if E != D:
        where = ("embeddings", "project", "kernel")
        yield Row("embeddings.embed_proj.weight", where, (E, D), "linear")
    yield from norm("embeddings.LayerNorm", ("embeddings", "norm"), D)
    if config.relative_attention:
        yield table("encoder.rel_embeddings", ("relative",), 2 * config.span, D)
        if config.norm_rel_ebd == "layer_norm":
            yield from norm("encoder.LayerNorm", ("relative_norm",), D)
    for i in range(config.num_hidden_layers):
        hf, ours = f"encoder.layer.{i}", f"layer_{i}"
        attention = {"deberta": _v1, "deberta-v2": _v2, "bert": _bert}
        inner = (ours, "attention")
        yield from attention[config.model_type](config, f"{hf}.attention.self", inner)
        where = (ours, "attention", "output")
        yield from linear(f"{hf}.attention.output.dense", where, D, D)
        where = (ours, "attention_norm")
        yield from norm(f"{hf}.attention.output.LayerNorm", where, D)
        yield from linear(f"{hf}.intermediate.dense", (ours, "up"), D, F)
        yield from linear(f"{hf}.output.dense", (ours, "down"), F, D)
        yield from norm(f"{hf}.output.LayerNorm", (ours, "mlp_norm"), D)
    if config.conv_kernel_size:
        kernel = (config.conv_kernel_size, D // config.conv_groups, D)
        yield Row("encoder.conv.conv.weight", ("conv", "kernel"), kernel, "conv")
        yield Row("encoder.conv.conv.bias", ("conv", "bias"), (D,))
        yield from norm("encoder.conv.LayerNorm", ("conv", "norm"), D)


def _v2(config: DebertaConfig, hf: str, ours: tuple[str, ...]) -> Iterator[Row]:
    D = config.hidden_size
    names = ["query", "key", "value"]
    if not config.share_att_key:
        names += _own_positions(config)
    for name in names:
        yield from linear(f"{hf}.{name}_proj", (*ours, name), D, D)


def _v1(config: DebertaConfig, hf: str, ours: tuple[str, ...]) -> Iterator[Row]:
    D, H = config.hidden_size, config.num_attention_heads
    for index, name in enumerate(("query", "key", "value")):
        where = (*ours, name, "kernel")
        yield Row(f"{hf}.in_proj.weight", where, (D, D), "linear", (index, 3, H))
    yield Row(f"{hf}.q_bias", (*ours, "query", "bias"), (D,))
    yield Row(f"{hf}.v_bias", (*ours, "value", "bias"), (D,))
    names = _own_positions(config)
    if "pos_key" in names:
        where = (*ours, "pos_key", "kernel")
        yield Row(f"{hf}.pos_proj.weight", where, (D, D), "linear")
    if "pos_query" in names:
        yield from linear(f"{hf}.pos_q_proj", (*ours, "pos_query"), D, D)


def _bert(config: DebertaConfig, hf: str, ours: tuple[str, ...]) -> Iterator[Row]:
    D = config.hidden_size
    for name in ("query", "key", "value"):
        yield from linear(f"{hf}.{name}", (*ours, name), D, D)


def _own_positions(config: DebertaConfig) -> list[str]:
    """The projections of relative positions, where they are not those of content."""
    terms = config.pos_att_type if config.relative_attention else ()
    return [
        name
        for term, name in (("c2p", "pos_key"), ("p2c", "pos_query"))
        if term in terms
    ]


def _head(config: EvaluatorConfig) -> Iterator[Row]:
    D = config.encoder.hidden_size
    labels = config.head.num_values * config.num_classes
    if has_hf_head(config):
        yield from linear("pooler.dense", ("head", "dense"), D, D)
        yield from linear("classifier", ("head", "values"), D, labels)
        return
    for path, shape in config.head.leaves(D, config.num_classes).items():
        yield Row(f"fulcra.head.{'.'.join(path)}", ("head", *path), shape)


def linear(
    name: str, path: tuple[str, ...], inputs: int, outputs: int
) -> Iterator[Row]:
    """A linear layer's weight and bias."""
    yield Row(f"{name}.weight", (*path, "kernel"), (inputs, outputs), "linear")
    yield Row(f"{name}.bias", (*path, "bias"), (outputs,))


def norm(name: str, path: tuple[str, ...], width: int) -> Iterator[Row]:
    """A layer norm's weight and bias."""
    yield Row(f"{name}.weight", (*path, "scale"), (width,))
    yield Row(f"{name}.bias", (*path, "bias"), (width,))
