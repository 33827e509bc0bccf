# SPDX-License-Identifier: Apache-2.0
"""Encoders with heads of masked words: written and read again; logits where asked."""

import jax
import numpy as np
import pytest
import safetensors.numpy
from test_pretraining import BERT, V1, V3, inputs

from fulcra_jax import convert
from fulcra_jax.configs import DebertaConfig
from fulcra_jax.models import MaskedLm


def made(sizes, enhanced):
    config = DebertaConfig.from_hf(sizes)
    model = MaskedLm(config, enhanced)
    ids, mask = inputs()
    init = lambda: model.init(jax.random.key(0), ids, mask, deterministic=True)
    draws = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: draws.normal(0, 0.3, leaf.shape).astype(np.float32),
        jax.eval_shape(init)["params"],
    )
    return config, model, params


@pytest.mark.parametrize(
    ("sizes", "enhanced", "names"),
    [
        (
            BERT,
            False,
            {"cls.predictions.bias", "bert.encoder.layer.0.output.dense.bias"},
        ),
        (V1, False, {"cls.predictions.transform.dense.weight"}),
        (V3, False, {"cls.predictions.bias", "deberta.encoder.rel_embeddings.weight"}),
        (
            V3,
            True,
            {
                "lm_predictions.lm_head.bias",
                "deberta.embeddings.position_embeddings.weight",
            },
        ),
    ],
)
def test_what_is_written_is_read_again(sizes, enhanced, names, tmp_path):
    config, _, params = made(sizes, enhanced)
    convert.save_pretraining(tmp_path / "x", config, params)
    assert names <= set(safetensors.numpy.load_file(tmp_path / "x/model.safetensors"))
    again, found = convert.load_pretraining(tmp_path / "x")
    assert again == config
    jax.tree.map(np.testing.assert_array_equal, found, params)
    jax.tree.map(
        np.testing.assert_array_equal,
        convert.load_encoder(tmp_path / "x")[1],
        params["encoder"],
    )
    with pytest.raises(FileExistsError, match="is not empty"):
        convert.save_pretraining(tmp_path / "x", config, params)
    convert.save_pretraining(tmp_path / "x", config, params, overwrite=True)


def test_an_encoder_without_its_head_is_refused(tmp_path):
    config, _, params = made(BERT, False)
    del params["masked_lm"]
    with pytest.raises(ValueError, match="params lacks masked_lm/dense/kernel"):
        convert.save_pretraining(tmp_path / "x", config, params)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(("sizes", "enhanced"), [(BERT, False), (V3, True)])
def test_logits_at_named_columns_are_those_of_all(sizes, enhanced):
    _, model, params = made(sizes, enhanced)
    ids, mask = inputs()
    at = np.array([[3, 0], [1, 5]])
    apply = lambda at: model.apply(
        {"params": params}, ids, mask, at=at, deterministic=True
    )
    whole = np.asarray(apply(None))
    np.testing.assert_allclose(
        apply(at), np.stack([whole[row, at[row]] for row in (0, 1)]), atol=1e-5
    )
    with pytest.raises(ValueError, match=r"at has shape \(3, 2\)"):
        apply(np.zeros((3, 2), np.int32))
