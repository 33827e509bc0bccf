# SPDX-License-Identifier: Apache-2.0
"""Random small models against transformers itself: states, logits and gradients."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch warns of its own deprecated parts
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from transformers.models.deberta_v2 import modeling_deberta_v2 as reference

from fulcra_jax import convert
from fulcra_jax.convert import tables
from fulcra_jax.models import (
    Deberta,
    DebertaConfig,
    Evaluator,
    EvaluatorConfig,
    SharedHead,
    attention,
)

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

CHOICES = {
    "hidden_size": [16, 24],
    "num_attention_heads": [2, 4],
    "position_buckets": [-1, 4, 8, 9],
    "max_relative_positions": [-1, 13, 32],
    "pos_att_type": [["p2c", "c2p"], ["c2p"], ["p2c"], []],
    "share_att_key": [True, False],
    "norm_rel_ebd": ["layer_norm", "none"],
    "relative_attention": [True, True, True, False],
    "position_biased_input": [True, False],
    "type_vocab_size": [0, 3],
    "conv_kernel_size": [0, 3, 5],
    "conv_groups": [1, 2],
    "conv_act": ["tanh", "gelu"],
    "hidden_act": ["gelu", "gelu_new", "relu", "silu"],
    "pooler_hidden_act": ["gelu", "tanh"],
    "embedding_size": [None, 8],
}
SEEDS = list(range(8))


def draw(seed):
    """A random configuration, its transformers model and a batch."""
    rng = np.random.default_rng(seed)
    fields = {name: c[rng.integers(len(c))] for name, c in CHOICES.items()}
    config = EvaluatorConfig(
        DebertaConfig(
            vocab_size=40,
            num_hidden_layers=2,
            intermediate_size=20,
            max_position_embeddings=40,
            **fields,
        ),
        SharedHead(num_values=4),
    )
    entries = config.encoder.to_hf()
    theirs = transformers.DebertaV2Config(**entries, num_labels=12)
    theirs._attn_implementation = "eager"
    model = transformers.DebertaV2ForSequenceClassification(theirs).float().eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, leaf in model.named_parameters():
            is_scale = "LayerNorm.weight" in name
            leaf.copy_(is_scale + 0.3 * torch.randn(leaf.shape))
    length = int(rng.integers(15, 36))
    mask = np.ones((4, length), np.int64)
    mask[1, length // 2 :], mask[2, : length // 3], mask[3] = 0, 0, 0
    ids = rng.integers(1, 40, mask.shape) * mask
    types = rng.integers(0, 3, mask.shape) * mask
    return config, model, (ids, mask, types)


def to_tree(config, tensors):
    """Tensors by their names in a transformers classifier -> our tree."""
    tree = {}
    for row in tables.rows(config):
        head = row.name.startswith(("pooler.", "classifier."))
        tensor = tensors[row.name if head else f"deberta.{row.name}"]
        branch = tree
        for name in row.path[:-1]:
            branch = branch.setdefault(name, {})
        branch[row.path[-1]] = jnp.asarray(row.swap(tensor))
    return tree


@pytest.mark.parametrize("seed", SEEDS)
def test_states_logits_and_gradients(seed):
    config, model, (ids, mask, types) = draw(seed)
    out = model(
        input_ids=torch.from_numpy(ids),
        attention_mask=torch.from_numpy(mask),
        token_type_ids=torch.from_numpy(types),
        output_hidden_states=True,
    )
    rng = np.random.default_rng(seed)
    pull_logits = rng.normal(size=(4, 12)).astype(np.float32)
    pull_hidden = rng.normal(size=out.hidden_states[-1].shape).astype(np.float32)
    # Token 0 of the text that is all padding reaches the logits; keep it out.
    pull_logits[3] = 0
    loss = (out.logits * torch.from_numpy(pull_logits)).sum()
    loss += (out.hidden_states[-1] * torch.from_numpy(pull_hidden)).sum()
    loss.backward()
    named = dict(model.named_parameters())
    params = to_tree(config, {k: p.detach().numpy() for k, p in named.items()})
    want_grads = to_tree(
        config,
        {
            k: np.zeros(p.shape, np.float32) if p.grad is None else p.grad.numpy()
            for k, p in named.items()
        },
    )
    batch = (jnp.asarray(ids, jnp.int32), jnp.asarray(mask, bool))
    kwargs = {"token_type_ids": jnp.asarray(types, jnp.int32), "deterministic": True}

    @jax.jit
    @jax.grad
    def gradient(p):
        encoder = {"params": p["encoder"]}
        hidden = Deberta(config.encoder).apply(encoder, *batch, **kwargs)
        logits = Evaluator(config).apply({"params": p}, *batch, **kwargs).logits
        loss = (logits.reshape(4, 12) * pull_logits).sum()
        return loss + (hidden * pull_hidden).sum()

    @jax.jit
    def forward(p):
        encoder = {"params": p["encoder"]}
        states = Deberta(config.encoder).apply(
            encoder, *batch, all_states=True, **kwargs
        )
        return states, Evaluator(config).apply({"params": p}, *batch, **kwargs).logits

    states, logits = forward(params)
    for state, want in zip(states, out.hidden_states, strict=True):
        np.testing.assert_allclose(state, want.detach(), rtol=0, atol=2e-5)
    want = out.logits.detach().reshape(4, 4, 3)
    np.testing.assert_allclose(logits, want, rtol=0, atol=2e-5)
    got_grads = gradient(params)
    largest = max(float(abs(g).max()) for g in jax.tree.leaves(want_grads))
    for path, got in jax.tree.leaves_with_path(got_grads):
        want = want_grads
        for step in path:
            want = want[step.key]
        # Some leaves have a true gradient of zero: those by the scale of the tree.
        scale = max(float(abs(want).max()), 1e-2 * largest)
        error = float(abs(got - want).max()) / scale
        assert error <= 1e-4, (jax.tree_util.keystr(path), error)


@pytest.mark.parametrize(
    "which", [(512, 256, 512), (900, 256, 512), (900, -1, 300), (700, 48, 200)]
)
def test_slots(which):
    length, buckets, max_distance = which
    dummy = torch.zeros(1, length, 1)
    distance = reference.build_relative_position(dummy, dummy, buckets, max_distance)[0]
    span = buckets if buckets > 0 else max_distance
    want = torch.clamp(distance + span, 0, 2 * span - 1).numpy()
    got = attention.relative_slots(length, buckets=buckets, max_distance=max_distance)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("seed", [0, 1])
def test_an_exported_evaluator_is_a_transformers_classifier(seed, tmp_path):
    config, model, (ids, mask, types) = draw(seed)
    named = dict(model.named_parameters())
    params = to_tree(config, {k: p.detach().numpy() for k, p in named.items()})
    convert.save(tmp_path / "ours", config, params)

    loaded, info = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "ours", dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert loaded.config.id2label[2] == "value 0: +1"
    with torch.no_grad():
        want = loaded.eval()(
            input_ids=torch.from_numpy(ids),
            attention_mask=torch.from_numpy(mask),
            token_type_ids=torch.from_numpy(types),
        ).logits.reshape(4, 4, 3)
    got = jax.jit(
        lambda p: Evaluator(config).apply(
            {"params": p},
            jnp.asarray(ids, jnp.int32),
            jnp.asarray(mask, bool),
            token_type_ids=jnp.asarray(types, jnp.int32),
            deterministic=True,
        )
    )(params)
    np.testing.assert_allclose(got.logits, want, rtol=0, atol=2e-5)

    loaded.save_pretrained(tmp_path / "theirs")
    again, tree = convert.load(tmp_path / "theirs")
    assert again == config
    jax.tree.map(np.testing.assert_array_equal, tree, params)


def test_an_exported_encoder_is_a_transformers_model(tmp_path):
    config, model, _ = draw(2)
    model.deberta.save_pretrained(tmp_path / "theirs")
    encoder, params = convert.load(tmp_path / "theirs")
    assert encoder == config.encoder
    convert.save(tmp_path / "ours", encoder, params)
    loaded, info = transformers.AutoModel.from_pretrained(
        tmp_path / "ours", dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    for name, leaf in model.deberta.named_parameters():
        assert torch.equal(loaded.get_parameter(name), leaf), name
