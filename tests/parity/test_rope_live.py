# SPDX-License-Identifier: Apache-2.0
"""Rotary positions against those of transformers."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch warns of its own deprecated parts
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from transformers.models.llama import modeling_llama as reference

from fulcra_jax.alignment import rope_frequencies, rotate

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

SCALINGS = {
    "default": {},
    "linear": {"rope_type": "linear", "factor": 4.0},
    # Of meta-llama/Llama-3.2-1B.
    "llama3": {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
@pytest.mark.parametrize("kind", list(SCALINGS))
def test_queries_are_turned_as_by_llama(kind, theta):
    fields = {"hidden_size": 128, "num_attention_heads": 2}
    scaling = {"rope_theta": theta, "rope_type": "default"} | SCALINGS[kind]
    config = transformers.LlamaConfig(
        **fields, max_position_embeddings=131_072, rope_parameters=scaling
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 7, 2, 64)).astype(np.float32)
    positions = rng.integers(0, 1000, (2, 7))
    turn = reference.LlamaRotaryEmbedding(config)
    cos, sin = turn(torch.tensor(x), torch.tensor(positions))
    heads_first = torch.tensor(x).transpose(1, 2)
    want, _ = reference.apply_rotary_pos_emb(heads_first, heads_first, cos, sin)

    # As transformers writes it, and as the files of the hub have it.
    for written in (
        config.to_dict(),
        fields | {"rope_theta": theta, "rope_scaling": SCALINGS[kind] or None},
    ):
        frequencies = rope_frequencies(written)
        np.testing.assert_allclose(frequencies, turn.inv_freq.numpy(), rtol=1e-6)
        found = rotate(jnp.asarray(x), jnp.asarray(positions), frequencies)
        # An angle near 1,000 is known to 6e-5 in float32.
        np.testing.assert_allclose(found, want.transpose(1, 2).numpy(), atol=5e-4)
