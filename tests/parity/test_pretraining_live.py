# SPDX-License-Identifier: Apache-2.0
"""Masked-language-model heads against those of transformers."""

import drawn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import torch

from fulcra_jax import convert
from fulcra_jax.models import MaskedLm

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

# transformers' own head (legacy False) knows no narrower word embeddings.
CASES = [
    ("v1", True, {}),
    ("v1", False, {"embedding_size": None}),
    ("v2", True, {}),
    ("v2", False, {"embedding_size": None}),
    ("v3", False, {}),
    ("bert", None, {}),
]


@pytest.mark.parametrize(("family", "legacy", "fixed"), CASES)
def test_logits_and_gradients_of_masked_words(family, legacy, fixed, tmp_path):
    seed = 20 + len(fixed)
    config = (
        drawn.config_of(family, seed, relative_attention=True, **fixed)
        if (family != "bert")
        else drawn.config_of(family, seed)
    )
    fields = {} if legacy is None else {"legacy": legacy}
    model = drawn.theirs_of(config, "ForMaskedLM", seed, **fields)
    model.tie_weights()
    rng = np.random.default_rng(seed)
    mask = np.ones((3, 23), np.int64)
    mask[1, 15:], mask[2, :6] = 0, 0
    ids = rng.integers(1, config.vocab_size, mask.shape) * mask
    types = rng.integers(0, config.type_vocab_size or 3, mask.shape) * mask
    batch = (ids, mask, types)
    want = model(**drawn.torch_inputs(batch)).logits
    pull = rng.normal(size=want.shape).astype(np.float32) * mask[..., None]
    (want * torch.from_numpy(pull.astype(np.float32))).sum().backward()

    model.save_pretrained(tmp_path)
    read, params = convert.load_pretraining(tmp_path)
    assert read == config
    assert set(params) == {"encoder", "masked_lm"}
    inputs, kwargs = drawn.our_inputs(batch)

    @jax.jit
    def run(p):
        def loss(p):
            logits = MaskedLm(config).apply({"params": p}, *inputs, **kwargs)
            return (logits * pull).sum(), logits

        return jax.grad(loss, has_aux=True)(p)

    grads, logits = run(jax.tree.map(jnp.asarray, params))
    np.testing.assert_allclose(logits, want.detach(), rtol=0, atol=2e-5)
    words = model.get_input_embeddings().weight.grad.numpy()
    got = np.array(grads["encoder"]["embeddings"]["word"]["embedding"])
    # Word 0 pads: torch leaves its share of the lookup out, not that of the logits.
    scale = abs(words).max()
    np.testing.assert_allclose(got[1:], words[1:], rtol=0, atol=1e-4 * scale)
    name = (
        "cls.predictions.bias" if legacy is not False else "lm_predictions.lm_head.bias"
    )
    bias = dict(model.named_parameters())[name].grad.numpy()
    scale = abs(bias).max()
    got = grads["masked_lm"]["bias"]
    np.testing.assert_allclose(got, bias, rtol=0, atol=1e-4 * scale)
