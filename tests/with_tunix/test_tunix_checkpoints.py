# SPDX-License-Identifier: Apache-2.0
"""Models of Hugging Face, beside the same models in numpy."""

import doctest
import importlib
import json

import jax.numpy as jnp
import numpy as np
import pytest
from parts import HUB, LLAMA_3, hub_directory


def reference_logits(config, tensors, ids, frequencies):
    """The three families in float64, written after transformers' modeling files."""
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    t = {name: x.astype(np.float64) for name, x in tensors.items()}

    def norm(x, w):
        return w * x / np.sqrt((x**2).mean(-1, keepdims=True) + config["rms_norm_eps"])

    def project(x, at):
        return x @ t[at + ".weight"].T + t.get(at + ".bias", 0.0)

    def turn(x):
        angle = np.arange(len(ids))[:, None] * frequencies
        half = x.shape[-1] // 2
        z = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angle)[:, None]
        return np.concatenate([z.real, z.imag], -1)

    x = t["model.embed_tokens.weight"][ids]
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}."
        y = norm(x, t[at + "input_layernorm.weight"])
        q, k, v = (
            project(y, f"{at}self_attn.{name}_proj").reshape(len(ids), n, -1)
            for name, n in (("q", heads), ("k", groups), ("v", groups))
        )
        if at + "self_attn.q_norm.weight" in t:
            q = norm(q, t[at + "self_attn.q_norm.weight"])
            k = norm(k, t[at + "self_attn.k_norm.weight"])
        q, k = turn(q), turn(k)
        k, v = (np.repeat(z, heads // groups, 1) for z in (k, v))
        score = np.einsum("thd,shd->hts", q, k) / np.sqrt(q.shape[-1])
        score = np.where(np.tri(len(ids), dtype=bool), score, -np.inf)
        weight = np.exp(score - score.max(-1, keepdims=True))
        weight /= weight.sum(-1, keepdims=True)
        mixed = np.einsum("hts,shd->thd", weight, v).reshape(len(ids), -1)
        x = x + project(mixed, at + "self_attn.o_proj")
        y = norm(x, t[at + "post_attention_layernorm.weight"])
        gate = project(y, at + "mlp.gate_proj")
        gate = gate / (1 + np.exp(-gate)) * project(y, at + "mlp.up_proj")
        x = x + project(gate, at + "mlp.down_proj")
    out = t.get("lm_head.weight", t["model.embed_tokens.weight"])
    return norm(x, t["model.norm.weight"]) @ out.T


def logits_of(model, ids):
    n = len(ids)
    found, _ = model(
        jnp.asarray(ids)[None],
        jnp.arange(n)[None],
        None,
        jnp.tril(jnp.ones((1, n, n), bool)),
    )
    return np.asarray(found[0])


def frequencies_of(config):
    """Of heads of width 8, by hand."""
    plain = 10_000.0 ** -(np.arange(4) / 4)
    if "rope_scaling" not in config:
        return plain
    # Turns in 64 positions: 10.2 stays, 1.02 is blended, .10 and .01 slow down.
    share, slow = (64 * 0.1 / (2 * np.pi) - 1) / 3, plain / 8
    return np.array([1.0, (1 - share) * slow[1] + share * 0.1, slow[2], slow[3]])


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("qwen2", {}),
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen3", {}),
        ("qwen3", {"tie_word_embeddings": True}),
        ("qwen3", {"rope_scaling": LLAMA_3}),
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True, "rope_scaling": LLAMA_3}),
    ],
)
def test_a_checkpoint_is_loaded_as_it_is_meant(adapter, tmp_path, family, changes):
    config, tensors = hub_directory(tmp_path / "m", family, **changes)
    model = adapter.load_policy(tmp_path / "m", mesh=adapter.make_mesh())
    ids = np.random.default_rng(1).integers(0, 320, 40)
    want = reference_logits(config, tensors, ids, frequencies_of(config))
    with adapter.checkpoint_rope(config):
        inside = logits_of(model, ids)
    np.testing.assert_allclose(inside, want, atol=2e-4 * want.std())
    outside = np.abs(logits_of(model, ids) - want).max()
    if family == "qwen2":
        assert outside < 2e-4 * want.std()
    else:
        assert outside > 0.1 * want.std()  # the reason for the block


def test_the_block_ends_with_an_error_as_well(adapter):
    model = importlib.import_module("tunix.models.llama3.model")
    before, held = model.apply_rope, []
    config = {"model_type": "llama", "rope_theta": 1, "head_dim": 2}

    def fail():
        with adapter.checkpoint_rope(config):
            held.append(model.apply_rope)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert held[0] is not before
    assert model.apply_rope is before


@pytest.mark.parametrize(
    ("family", "changes", "error", "message"),
    [
        ("gemma2", {}, ValueError, "loads gemma2 right was not compared"),
        ("qwen3_moe", {}, ValueError, "expected qwen2, qwen3, llama"),
        ("gpt2", {}, KeyError, "'gpt2' is unknown; known are: qwen2, qwen3, llama"),
        ("qwen3", {"hidden_act": "gelu"}, ValueError, "hidden_act is 'gelu'"),
        ("qwen3", {"attention_bias": True}, ValueError, "attention_bias is True"),
        ("llama", {"mlp_bias": True}, ValueError, "mlp_bias is True"),
        ("qwen2", {"use_sliding_window": True}, ValueError, "use_sliding_window is Tr"),
        (
            "qwen2",
            {"rope_scaling": {"type": "yarn"}},
            ValueError,
            "rope_type is 'yarn'",
        ),
    ],
)
def test_checkpoints_that_tunix_would_load_wrong_are_refused(
    adapter, tmp_path, family, changes, error, message
):
    path = tmp_path / "m"
    path.mkdir()
    config = HUB | {"model_type": family} | changes
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(error, match=message):
        adapter.load_policy(path, mesh=adapter.make_mesh())


def test_a_directory_without_a_model_is_refused(adapter, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        adapter.load_policy(tmp_path, mesh=adapter.make_mesh())
    (tmp_path / "config.json").write_text(json.dumps(HUB | {"model_type": "qwen3"}))
    with pytest.raises(FileNotFoundError, match=r"holds no \*\.safetensors"):
        adapter.load_policy(tmp_path, mesh=adapter.make_mesh())


def test_examples_in_the_docstrings(adapter):
    for name in ("divergence", "learner", "models", "registry", "rollout"):
        module = importlib.import_module(f"fulcra_jax.alignment.tunix.{name}")
        assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("files", "want"),
    [
        ({}, (7,)),
        ({"config.json": 9}, (7, 9)),
        ({"generation_config.json": [9, 7], "config.json": 8}, (7, 9)),
        ({"generation_config.json": None, "config.json": [8]}, (7, 8)),
        # Qwen2.5 pads with one of its ends: that one is never drawn.
        ({"generation_config.json": [7, 3]}, (7,)),
    ],
)
def test_all_ends_of_a_model_are_found(adapter, tmp_path, files, want):
    for name, ends in files.items():
        entries = {} if ends is None else {"eos_token_id": ends}
        (tmp_path / name).write_text(json.dumps(entries))
    assert adapter.end_tokens(tmp_path, end_id=7, pad_id=3) == want


def test_an_end_that_is_no_token_is_refused(adapter, tmp_path):
    path = tmp_path / "generation_config.json"
    path.write_text('{"eos_token_id": ["</s>"]}')
    with pytest.raises(ValueError, match="expected the number of a token"):
        adapter.end_tokens(tmp_path, end_id=7, pad_id=3)
    path.write_text("[")
    with pytest.raises(ValueError, match="is damaged"):
        adapter.end_tokens(tmp_path, end_id=7, pad_id=3)
