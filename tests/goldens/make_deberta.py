# SPDX-License-Identifier: Apache-2.0
"""Writes deberta_*.npz: tiny random models of transformers and their outputs.

DeBERTa v2 (v3 is one of its settings), v1, and BERT.

Needs torch 2.13.0 and transformers 5.12.1; the tests that read the files need neither.
Each file holds the configuration as JSON, the weights in float32 under their names in
the checkpoint, a batch padded in every way (not, right, left, all), all hidden states,
the classifier's logits and, of DeBERTa, the position slots. `deberta_slots.npz` holds
the slots of realistic sizes.

Run: python tests/goldens/make_deberta.py
"""

import json
import pathlib

import numpy as np
import torch
import transformers
from transformers.models.deberta import modeling_deberta as reference_v1
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
# Of v1 the distances beyond its table, and the scale of a term that is not computed.
MODELS_V1 = {
    "v1": {},
    "v1_terms": {
        "pos_att_type": ["c2p", "p2p"],
        "position_biased_input": True,
        "type_vocab_size": 2,
        "embedding_size": 8,
        "max_relative_positions": -1,
    },
}
MODELS_BERT = {"bert": {"type_vocab_size": 2, "layer_norm_eps": 1e-12}}
ONLY_V2 = ("position_buckets", "share_att_key", "norm_rel_ebd")
ONLY_DEBERTA = (
    *ONLY_V2,
    "relative_attention",
    "max_relative_positions",
    "pos_att_type",
    "position_biased_input",
)
FAMILIES = {  # transformers' name, models, keys of TINY that the family lacks
    "DebertaV2": (MODELS, ()),
    "Deberta": (MODELS_V1, ONLY_V2),
    "Bert": (MODELS_BERT, ONLY_DEBERTA),
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


def slots_v1(length: int, max_distance: int) -> np.ndarray:
    """`[N, N]` rows of the whole table of v1, which cuts its middle out first."""
    dummy = torch.zeros(1, length, 1)
    distance = reference_v1.build_relative_position(dummy, dummy)[0]
    span = reference_v1.compute_attention_span(dummy, dummy, max_distance)
    row = torch.clamp(distance + span, 0, span * 2 - 1) + max_distance - span
    return row.numpy().astype(np.int16)


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


def golden(family: str, sizes: dict, seed: int) -> dict[str, np.ndarray]:
    """Everything about one random model."""
    config = getattr(transformers, f"{family}Config")(**sizes, num_labels=LABELS)
    config._attn_implementation = "eager"
    model = getattr(transformers, f"{family}ForSequenceClassification")(config)
    model = model.float().eval()
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
    picked = {}
    if family != "Bert":
        distance = config.max_relative_positions
        distance = config.max_position_embeddings if distance < 1 else distance
        picked["slots"] = (
            slots_v1(LENGTH, distance)
            if family == "Deberta"
            else slots(LENGTH, entries["position_buckets"], distance)
        )
    return {
        "config": np.array(json.dumps(entries, sort_keys=True)),
        "versions": np.array(f"torch {torch.__version__}, {transformers.__version__}"),
        "hidden": torch.stack(out.hidden_states).numpy(),
        "logits": out.logits.numpy(),
        **picked,
        **{name: array.astype(np.int16) for name, array in inputs.items()},
        **{f"w:{k}": leaf.detach().numpy() for k, leaf in model.named_parameters()},
    }


def main() -> None:
    """Writes all files beside this one."""
    for family, (models, lacks) in FAMILIES.items():
        tiny = {key: size for key, size in TINY.items() if key not in lacks}
        for seed, (name, overrides) in enumerate(models.items()):
            file = HERE / f"deberta_{name}.npz"
            np.savez_compressed(file, **golden(family, tiny | overrides, seed))
    tables = {"_".join(map(str, which)): slots(*which) for which in SLOTS}
    np.savez_compressed(HERE / "deberta_slots.npz", **tables)


if __name__ == "__main__":
    main()
