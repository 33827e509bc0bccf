# SPDX-License-Identifier: Apache-2.0
"""Random small models of transformers, their configuration and weights as ours."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch warns of its own deprecated parts
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from transformers.activations import ACT2FN as ACT2FN
    from transformers.models.deberta import modeling_deberta
    from transformers.models.deberta_v2 import modeling_deberta_v2

from fulcra_jax.configs import DebertaConfig, EvaluatorConfig, SharedHead
from fulcra_jax.convert import tables
from fulcra_jax.models.activations import ACTIVATIONS

modeling_v1, modeling_v2 = modeling_deberta, modeling_deberta_v2
LONGEST = 512
"""Absolute positions, and linear relative ones, of the models drawn."""

_SIZES = {
    "hidden_size": [16, 24],
    "num_attention_heads": [2, 4],
    "hidden_act": list(ACTIVATIONS),
}
_DEBERTA = _SIZES | {
    "max_relative_positions": [-1, 13, 32],
    "relative_attention": [True, True, True, False],
    "position_biased_input": [True, False],
    "type_vocab_size": [0, 3],
    "pooler_hidden_act": list(ACTIVATIONS),
    "embedding_size": [None, 8],
}
_BOTH = [["p2c", "c2p"], ["c2p", "p2c"]]
CHOICES = {
    "v1": _DEBERTA
    | {
        "model_type": ["deberta"],
        "pos_att_type": [*_BOTH, ["c2p"], ["p2c"], [], ["c2p", "p2p"], ["p2c"] * 2],
    },
    "v2": _DEBERTA
    | {
        "model_type": ["deberta-v2"],
        "pos_att_type": [*_BOTH, ["c2p"], ["p2c"], [], ["p2c", "p2p"], ["c2p"] * 2],
        "position_buckets": [-1, 4, 8, 9],
        "share_att_key": [True, False],
        "norm_rel_ebd": ["layer_norm", "none"],
        "conv_kernel_size": [0, 3, 5],
        "conv_groups": [1, 2],
        "conv_act": list(ACTIVATIONS),
    },
    # All choices of the released v3; buckets as there, and smaller ones.
    "v3": _SIZES
    | {
        "model_type": ["deberta-v2"],
        "hidden_act": ["gelu"],
        "pos_att_type": [["p2c", "c2p"]],
        "max_relative_positions": [-1],
        "position_buckets": [256, 32],
        "share_att_key": [True],
        "norm_rel_ebd": ["layer_norm"],
        "relative_attention": [True],
        "position_biased_input": [False],
    },
    "bert": _SIZES | {"model_type": ["bert"], "type_vocab_size": [1, 2, 3]},
}
FAMILIES = list(CHOICES)
LABELS = 12


def _fields(family, rng):
    return {name: c[rng.integers(len(c))] for name, c in CHOICES[family].items()}


def config_of(family, seed, **fixed):
    """A random configuration of an encoder."""
    fields = _fields(family, np.random.default_rng(seed)) | fixed
    sizes = {
        "vocab_size": 40,
        "num_hidden_layers": 2,
        "intermediate_size": 20,
        "max_position_embeddings": LONGEST,
    }
    return DebertaConfig.from_hf(sizes | fields)


def filled(model, seed):
    """The model in float32 and evaluation mode, with weights that tell parts apart."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, leaf in model.named_parameters():
            is_scale = "LayerNorm.weight" in name
            leaf.copy_(is_scale + 0.3 * torch.randn(leaf.shape))
    return model.float().eval()


def theirs_of(config, kind, seed, **fields):
    """transformers' model of a configuration, `kind` as in `AutoModelForMaskedLM`."""
    name = {"deberta": "Deberta", "deberta-v2": "DebertaV2", "bert": "Bert"}
    start = name[config.model_type]
    theirs = getattr(transformers, f"{start}Config")(**config.to_hf(), **fields)
    theirs._attn_implementation = "eager"
    return filled(getattr(transformers, f"{start}{kind}")(theirs), seed)


def draw(family, seed, length, **fixed):
    """A random evaluator, transformers' classifier of it, and a batch of four texts.

    The texts are full, padded right, padded left, and nothing but padding.
    """
    encoder = config_of(family, seed, **fixed)
    config = EvaluatorConfig(encoder, SharedHead(num_values=LABELS // 3))
    model = theirs_of(encoder, "ForSequenceClassification", seed, num_labels=LABELS)
    rng = np.random.default_rng(seed)
    mask = np.ones((4, length), np.int64)
    mask[1, length // 2 :], mask[2, : length // 3], mask[3] = 0, 0, 0
    ids = rng.integers(1, encoder.vocab_size, mask.shape) * mask
    types = rng.integers(0, encoder.type_vocab_size or 3, mask.shape) * mask
    return config, model, (ids, mask, types)


def torch_inputs(batch):
    """The batch as transformers takes it."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    return {k: torch.from_numpy(x) for k, x in zip(names, batch, strict=True)}


def our_inputs(batch):
    """The batch as `(ids, mask)` and keywords of our models."""
    ids, mask, types = batch
    inputs = (jnp.asarray(ids, jnp.int32), jnp.asarray(mask, bool))
    types = jnp.asarray(types, jnp.int32)
    return inputs, {"token_type_ids": types, "deterministic": True}


def to_tree(rows, tensors):
    """Tensors by their names in a whole transformers model -> our tree."""
    tensors = {
        k.removeprefix("deberta.").removeprefix("bert."): t for k, t in tensors.items()
    }
    tree = {}
    for row in rows:
        branch = tree
        for name in row.path[:-1]:
            branch = branch.setdefault(name, {})
        branch[row.path[-1]] = jnp.asarray(row.swap(tensors[row.name]))
    return tree


def params_of(config, model):
    """The model's weights as our tree."""
    named = {k: p.detach().numpy() for k, p in model.named_parameters()}
    return to_tree(tables.rows(config), named)


def gradients_of(config, model):
    """The model's gradients as our tree; zero where torch has none."""
    named = {
        k: np.zeros(p.shape, np.float32) if p.grad is None else p.grad.numpy()
        for k, p in model.named_parameters()
    }
    return to_tree(tables.rows(config), named)
