# SPDX-License-Identifier: Apache-2.0
"""Which tensor of a file is which leaf of the parameter tree, written out.

The names are those of transformers' `DebertaV2Model` and
`DebertaV2ForSequenceClassification`, without the prefix "deberta.".
"""

import dataclasses
from collections.abc import Iterator
from typing import Literal

import numpy as np

from fulcra_jax.configs import DebertaConfig, EvaluatorConfig

Kind = Literal["same", "linear", "conv"]

# From the axes of a tensor in the file to those of the leaf.
_TO_LEAF: dict[Kind, tuple[int, ...] | None] = {
    "same": None,
    "linear": (1, 0),  # [out, in] -> [in, out]
    "conv": (2, 1, 0),  # [out, in / groups, taps] -> [taps, in / groups, out]
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One tensor of a file and one leaf of the tree.

    Attributes:
      name: the tensor's name in the file, without "deberta.".
      path: the leaf's path in the tree.
      shape: the leaf's shape.
      kind: how the axes of the two are ordered.
    """

    name: str
    path: tuple[str, ...]
    shape: tuple[int, ...]
    kind: Kind = "same"

    @property
    def file_shape(self) -> tuple[int, ...]:
        """The tensor's shape in the file. Each reordering is its own inverse."""
        axes = _TO_LEAF[self.kind]
        return self.shape if axes is None else tuple(self.shape[axis] for axis in axes)

    def swap(self, tensor: np.ndarray) -> np.ndarray:
        """From the file's order of axes to the leaf's, or back."""
        axes = _TO_LEAF[self.kind]
        return tensor if axes is None else np.transpose(tensor, axes)


# Heads and buffers of other models, and what an encoder has no use for.
OTHER_HEADS = ("lm_predictions.", "mask_predictions.", "cls.predictions.")
OWN_HEADS = ("pooler.", "classifier.", "qa_outputs.", "fulcra.head.")


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


def has_hf_head(config: EvaluatorConfig) -> bool:
    """Whether transformers' sequence classifier computes the same logits."""
    width = config.encoder.hidden_size
    return config.head.pool == "first" and config.head.width(width) == width


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
    yield from _norm("embeddings.LayerNorm", ("embeddings", "norm"), D)
    if config.relative_attention:
        yield table("encoder.rel_embeddings", ("relative",), 2 * config.span, D)
        if config.norm_rel_ebd == "layer_norm":
            yield from _norm("encoder.LayerNorm", ("relative_norm",), D)
    for i in range(config.num_hidden_layers):
        hf, ours = f"encoder.layer.{i}", f"layer_{i}"
        attention = ["query", "key", "value"]
        if config.relative_attention and not config.share_att_key:
            attention += ["pos_key"] if "c2p" in config.pos_att_type else []
            attention += ["pos_query"] if "p2c" in config.pos_att_type else []
        for name in attention:
            where = (ours, "attention", name)
            yield from _linear(f"{hf}.attention.self.{name}_proj", where, D, D)
        where = (ours, "attention", "output")
        yield from _linear(f"{hf}.attention.output.dense", where, D, D)
        where = (ours, "attention_norm")
        yield from _norm(f"{hf}.attention.output.LayerNorm", where, D)
        yield from _linear(f"{hf}.intermediate.dense", (ours, "up"), D, F)
        yield from _linear(f"{hf}.output.dense", (ours, "down"), F, D)
        yield from _norm(f"{hf}.output.LayerNorm", (ours, "mlp_norm"), D)
    if config.conv_kernel_size:
        kernel = (config.conv_kernel_size, D // config.conv_groups, D)
        yield Row("encoder.conv.conv.weight", ("conv", "kernel"), kernel, "conv")
        yield Row("encoder.conv.conv.bias", ("conv", "bias"), (D,))
        yield from _norm("encoder.conv.LayerNorm", ("conv", "norm"), D)


def _head(config: EvaluatorConfig) -> Iterator[Row]:
    D = config.encoder.hidden_size
    width = config.head.width(D)
    labels = config.head.num_values * config.num_classes
    if has_hf_head(config):
        yield from _linear("pooler.dense", ("head", "dense"), D, width)
        yield from _linear("classifier", ("head", "values"), width, labels)
        return
    leaves: dict[tuple[str, str], tuple[int, ...]] = {}
    if width:
        leaves |= {("dense", "kernel"): (D, width), ("dense", "bias"): (width,)}
    leaves[("values", "kernel")] = (width or D, labels)
    leaves[("values", "bias")] = (labels,)
    for path, shape in leaves.items():
        yield Row(f"fulcra.head.{'.'.join(path)}", ("head", *path), shape)


def _linear(name: str, path: tuple[str, ...], inputs: int, outputs: int):
    yield Row(f"{name}.weight", (*path, "kernel"), (inputs, outputs), "linear")
    yield Row(f"{name}.bias", (*path, "bias"), (outputs,))


def _norm(name: str, path: tuple[str, ...], width: int):
    yield Row(f"{name}.weight", (*path, "scale"), (width,))
    yield Row(f"{name}.bias", (*path, "bias"), (width,))
