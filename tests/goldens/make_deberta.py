# SPDX-License-Identifier: Apache-2.0
"""Writes deberta_*.npz: tiny random DebertaV2 models of transformers and their outputs.

Needs torch 2.13.0 and transformers 5.12.1; the tests that read the files need neither.
Each file holds the configuration as JSON, the weights in float32 under their names in
the checkpoint, a batch padded in every way (not, right, left, all), all hidden states,
the classifier's logits and the position slots. `deberta_slots.npz` holds the slots of
realistic sizes.

Run: python tests/goldens/make_deberta.py
"""

import json
import pathlib

import numpy as np
import torch
import transformers
from transformers.models.deberta_v2 import modeling_deberta_v2 as reference

HERE = pathlib.Path(__file__).parent

TINY = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
    "type_vocab_size": 0,
    "relative_attention": True,
    "max_relative_positions": 12,
    "position_buckets": 8,
    "pos_att_type": ["p2c", "c2p"],
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "pad_token_id": 0,
    "layer_norm_eps": 1e-7,
}
MODELS = {
    "v3": {},
    "v2_conv": {"conv_kernel_size": 3, "conv_act": "gelu", "conv_groups": 2},
    "own_keys": {"share_att_key": False, "position_buckets": -1},
    "absolute": {
        "position_biased_input": True,
        "type_vocab_size": 2,
        "norm_rel_ebd": "none",
        "hidden_act": "gelu_new",
    },
    "c2p": {"pos_att_type": ["c2p"], "share_att_key": False},
    "narrow": {"embedding_size": 8, "pooler_hidden_act": "tanh"},
}
SLOTS = [  # length, buckets, max_distance
    (64, 256, 512),
    (700, 256, 512),
    (700, -1, 512),
    (600, 128, 512),
    (300, 32, 128),
    (300, 2, 64),
]
LENGTH = 17  # beyond max_relative_positions
LABELS = 6


def slots(length: int, buckets: int, max_distance: int) -> np.ndarray:
    """`[N, N]` row of the position table of every pair, as the model picks it."""
    dummy = torch.zeros(1, length, 1)
    distance = reference.build_relative_position(
        dummy, dummy, bucket_size=buckets, max_position=max_distance
    )[0]
    span = buckets if buckets > 0 else max_distance
    return torch.clamp(distance + span, 0, 2 * span - 1).numpy().astype(np.int16)


def batch(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Four texts: full, padded right, padded left, and nothing but padding."""
    ids = rng.integers(1, TINY["vocab_size"], (4, LENGTH))
    mask = np.ones((4, LENGTH), np.int64)
    mask[1, 11:], mask[2, :6], mask[3] = 0, 0, 0
    types = rng.integers(0, 2, (4, LENGTH))
    return {
        "input_ids": ids * mask,
        "attention_mask": mask,
        "token_type_ids": types * mask,
    }


def golden(overrides: dict, seed: int) -> dict[str, np.ndarray]:
    """Everything about one random model."""
    config = transformers.DebertaV2Config(**{**TINY, **overrides}, num_labels=LABELS)
    config._attn_implementation = "eager"
    model = transformers.DebertaV2ForSequenceClassification(config).float().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, leaf in model.named_parameters():
            noise = torch.randn(leaf.shape, generator=generator)
            # Large enough that attention is far from uniform.
            is_scale = "LayerNorm.weight" in name
            leaf.copy_(1 + 0.2 * noise if is_scale else 0.4 * noise)
        inputs = batch(np.random.default_rng(seed))
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        out = model(**tensors, output_hidden_states=True)
    entries = json.loads(config.to_json_string(use_diff=False))
    distance = config.max_relative_positions
    return {
        "config": np.array(json.dumps(entries, sort_keys=True)),
        "versions": np.array(f"torch {torch.__version__}, {transformers.__version__}"),
        "hidden": torch.stack(out.hidden_states).numpy(),
        "logits": out.logits.numpy(),
        "slots": slots(LENGTH, entries["position_buckets"], distance),
        **{name: array.astype(np.int16) for name, array in inputs.items()},
        **{f"w:{k}": leaf.detach().numpy() for k, leaf in model.named_parameters()},
    }


def main() -> None:
    """Writes all files beside this one."""
    for seed, (name, overrides) in enumerate(MODELS.items()):
        file = HERE / f"deberta_{name}.npz"
        np.savez_compressed(file, **golden(overrides, seed))
    tables = {"_".join(map(str, which)): slots(*which) for which in SLOTS}
    np.savez_compressed(HERE / "deberta_slots.npz", **tables)


if __name__ == "__main__":
    main()
