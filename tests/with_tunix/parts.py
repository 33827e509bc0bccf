# SPDX-License-Identifier: Apache-2.0
"""What several tests of the adapter to google-tunix are made of."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import optax
import safetensors.numpy
import transformers
from flax import nnx

from experiments.toy_lm import texts

LENGTHS = {"prompt_length": 16, "answer_length": 10}


def policy(adapter, tokenizer, mesh=None, sharp=1.0):
    model = adapter.random_qwen3(vocab_size=320, width=32, heads=2, key_value_heads=1)
    nnx.update(model, jax.tree.map(lambda x: x * sharp, nnx.state(model)))
    if mesh is not None:
        adapter.place(model, mesh)
    return model


class Letters:
    """Security by the share of vowels, Conformity by that of blanks; "z" fails."""

    def score(self, prompts, responses):
        scores = np.zeros((len(responses), 10), np.float32)
        for row, text in zip(scores, responses, strict=True):
            row[5] = sum(text.count(x) for x in "aeiou") / max(len(text), 1)
            row[7] = text.count(" ") / max(len(text), 1)
            row[0] = np.nan if "z" in text else 0.0
        return SimpleNamespace(scores=scores)


def prompts_of(step, n=4):
    return np.array(texts.prompts(step, n, "train"))


def train(adapter, tokenizer, config, data, reward, **options):
    """Trains on one device; returns the learner, what it saw and what it logged."""
    mesh = adapter.make_mesh(1)
    model = policy(adapter, tokenizer, mesh)
    seen, logged = [], []
    learner = adapter.make_learner(
        model,
        nnx.clone(model),
        tokenizer,
        reward,
        config,
        optimizer=optax.adam(1e-2),
        steps=len(data),
        sampling=adapter.Sampling(**LENGTHS),
        mesh=mesh,
        metrics=lambda *entry: logged.append(entry),
        **options,
    )
    learner.metric_fns = [lambda **kwargs: seen.append(kwargs) or {}]
    learner.train(data)
    return learner, seen, logged


HUB = {
    "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 48,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 320,
    "rms_norm_eps": 1e-6, "head_dim": 8, "hidden_act": "silu", "rope_theta": 10_000.0,
    "tie_word_embeddings": False,
}  # fmt: skip
LLAMA_3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}  # fmt: skip


def hub_tensors(family, config):
    """Random tensors under the names of transformers."""
    rng = np.random.default_rng(0)
    width, mlp = config["hidden_size"], config["intermediate_size"]
    head = width // config["num_attention_heads"]
    narrow = head * config["num_key_value_heads"]
    draw = lambda *shape: (0.2 * rng.normal(size=shape)).astype(np.float32)
    found = {
        "model.embed_tokens.weight": 5 * draw(config["vocab_size"], width),
        "model.norm.weight": 1 + draw(width),
    }
    if not config["tie_word_embeddings"]:
        found["lm_head.weight"] = draw(config["vocab_size"], width)
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}."
        for name, out, into in (
            ("self_attn.q_proj", width, width), ("self_attn.k_proj", narrow, width),
            ("self_attn.v_proj", narrow, width), ("self_attn.o_proj", width, width),
            ("mlp.gate_proj", mlp, width), ("mlp.up_proj", mlp, width),
            ("mlp.down_proj", width, mlp),
        ):  # fmt: skip
            found[f"{at}{name}.weight"] = draw(out, into)
            if family == "qwen2" and name[-6:] in ("q_proj", "k_proj", "v_proj"):
                found[f"{at}{name}.bias"] = draw(out)
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"{at}{name}.weight"] = 1 + draw(width)
        if family == "qwen3":
            for name in ("q_norm", "k_norm"):
                found[f"{at}self_attn.{name}.weight"] = 1 + draw(head)
    return found


def hub_directory(path, family, words=None, **changes):
    config = HUB | {"model_type": family} | changes
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    tensors = hub_tensors(family, config)
    safetensors.numpy.save_file(tensors, path / "model.safetensors")
    if words is not None:
        words.save(path / "plain")
        transformers.PreTrainedTokenizerFast(
            tokenizer_file=str(path / "plain" / "tokenizer.json"),
            eos_token="[SEP]", pad_token="[PAD]", bos_token="[CLS]", unk_token="[UNK]",
        ).save_pretrained(path)  # fmt: skip
    return config, tensors


def command(judges, out, *flags, **options):
    """Words of the command line for a run of seconds."""
    chosen = {
        "steps": 4, "prompts-per-step": 2, "answers": 2, "held-out": 3,
        "held-out-answers": 2, "save-every": 2, "prompt-length": 16,
        "answer-length": 8, "tiny.width": 32, "tiny.layers": 1, "resamples": 50,
        "evaluator": judges["judge"],
    } | options  # fmt: skip
    words = ["tunix", "--out", str(out), *flags]
    for name, given in chosen.items():
        words += [f"--{name}", str(given)]
    return words


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]
