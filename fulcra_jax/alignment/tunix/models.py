# SPDX-License-Identifier: Apache-2.0
"""Policies of tunix's zoo: a random small one, and checkpoints of Hugging Face."""

import contextlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from fulcra_jax import _check
from fulcra_jax.alignment.rope import rope_frequencies, rotate
from fulcra_jax.alignment.tunix import _imports

_COMMON = (
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "rms_norm_eps",
)
_FIELDS = {
    "qwen2": (*_COMMON, "num_key_value_heads"),
    "qwen3": (*_COMMON, "num_key_value_heads", "head_dim"),
    "llama": _COMMON,
}
"""What config.json has to say of a family; for the rest there is one default."""

_NOT_COMPARED = (
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3_text",
    "gemma4",
    "gemma4_text",
    "qwen3_moe",
)
"""Families of tunix's zoo whose logits were not set beside another implementation."""


def random_qwen3(
    *,
    vocab_size: int,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    key_value_heads: int = 2,
    mlp_width: int = 128,
    seed: int = 0,
) -> nnx.Module:
    """A small Qwen3 with random parameters, to see that everything runs."""
    config = _imports.qwen3.ModelConfig(
        num_layers=layers,
        vocab_size=vocab_size,
        embed_dim=width,
        hidden_dim=mlp_width,
        num_heads=heads,
        head_dim=width // heads,
        num_kv_heads=key_value_heads,
        rope_theta=1_000_000,
        norm_eps=1e-6,
        use_tied_embedding=True,
    )
    return _imports.qwen3.Qwen3(config, rngs=nnx.Rngs(params=seed))


def read_config(path: pathlib.Path) -> dict[str, Any]:
    """The config.json of a model directory.

    Raises:
      FileNotFoundError: if there is none.
    """
    if not (path / "config.json").is_file():
        raise FileNotFoundError(
            f"{path}: holds no config.json; give a model directory."
        )
    return json.loads((path / "config.json").read_text(encoding="utf-8"))


def load_policy(path: pathlib.Path, *, mesh: jax.sharding.Mesh) -> nnx.Module:
    """A model of a Hugging Face directory with safetensors, in float32.

    Qwen2, Qwen3 and Llama; right inside `checkpoint_rope` only. Gemma in all its
    versions and the Qwen3 with experts are refused: tunix has models of them, but
    whether it loads them right was not compared with anything.

    Args:
      path: the directory.
      mesh: where the parameters go.

    Raises:
      FileNotFoundError: if there is no config.json.
      KeyError: if the family is another.
      ValueError: if the family was not compared, the checkpoint has a part that tunix's
        model has not, or a field is missing.
    """
    config = read_config(path)
    family = config.get("model_type", "")
    if family in _NOT_COMPARED:
        raise ValueError(
            f"models.load_policy: {path}: whether tunix 0.1.7 loads {family} right was "
            f"not compared with another implementation; expected {', '.join(_FIELDS)}."
        )
    _check.known(f"models.load_policy: {path}", "model_type", family, tuple(_FIELDS))
    missing = [name for name in _FIELDS[family] if config.get(name) is None]
    if missing:
        raise ValueError(f"models.load_policy: {path}: has no {', '.join(missing)}.")
    refuse = {"hidden_act": "silu", "mlp_bias": False, "use_sliding_window": False}
    refuse |= {} if family == "qwen2" else {"attention_bias": False}
    for name, can in refuse.items():
        if config.get(name, can) != can:
            raise ValueError(
                f"models.load_policy: {path}: {name} is {config[name]!r}; tunix's "
                f"{family} has {can!r} only."
            )
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if family == "qwen2" and kind != "default":
        raise ValueError(
            f"models.load_policy: {path}: rope_type is {kind!r}; tunix's qwen2 has "
            "'default' only."
        )
    heads = config["num_attention_heads"]
    fields = {
        "num_layers": config["num_hidden_layers"],
        "vocab_size": config["vocab_size"],
        "embed_dim": config["hidden_size"],
        "hidden_dim": config["intermediate_size"],
        "num_heads": heads,
        "head_dim": config.get("head_dim") or config["hidden_size"] // heads,
        "num_kv_heads": config.get("num_key_value_heads") or heads,
        "rope_theta": scaling.get("rope_theta") or config.get("rope_theta") or 10_000.0,
        "norm_eps": config["rms_norm_eps"],
    }
    tied = bool(config.get("tie_word_embeddings", False))
    asked, load = _family(family, fields, tied)
    if not list(path.glob("*.safetensors")):
        raise FileNotFoundError(f"{path}: holds no *.safetensors.")
    return load(str(path), asked, mesh, jnp.float32)


def _family(family: str, fields: dict[str, Any], tied: bool) -> tuple[Any, Any]:
    """The configuration of a family, and what loads it."""
    if family == "llama":
        asked = _imports.llama.ModelConfig(**fields, weight_tying=tied)
        return asked, _imports.llama_params.create_model_from_safe_tensors
    if family == "qwen2":
        asked = _imports.qwen2.ModelConfig(**fields, use_tied_embedding=tied)
        return asked, _imports.qwen2_params.create_model_from_safe_tensors
    asked = _imports.qwen3.ModelConfig(**fields, use_tied_embedding=tied)
    return asked, _imports.qwen3_params.create_model_from_safe_tensors


def end_tokens(path: pathlib.Path, *, end_id: int, pad_id: int) -> tuple[int, ...]:
    """All tokens that end an answer of a model, the tokenizer's own end first.

    Those of generation_config.json, or where it names none of config.json. Padding is
    none of them here, even if it is there: it is never drawn (`Rollout`).

    Args:
      path: a model directory.
      end_id: the tokenizer's own end.
      pad_id: what it pads with.

    Raises:
      ValueError: if the file is damaged, or an end is no token.
    """
    known: Any = None
    for name in ("generation_config.json", "config.json"):
        if known is not None or not (path / name).is_file():
            continue
        try:
            known = json.loads((path / name).read_text("utf-8")).get("eos_token_id")
        except (ValueError, AttributeError):
            raise ValueError(f"{path / name}: is damaged.") from None
        several = known if isinstance(known, list) else [known]
        if known is not None and not all(type(x) is int and x >= 0 for x in several):
            raise ValueError(
                f"{path / name}: eos_token_id is {known!r}; expected the number of a "
                "token, or several."
            )
    known = [] if known is None else known if isinstance(known, list) else [known]
    ends = dict.fromkeys([end_id, *known])
    return tuple(x for x in ends if x != pad_id)


@contextlib.contextmanager
def checkpoint_rope(config: Mapping[str, Any]) -> Iterator[None]:
    """Gives tunix's models the rotary positions of a checkpoint, inside the block.

    The Llama and the Qwen3 of tunix 0.1.7 turn by a base of 1e6 whatever config.json
    says, and know no scaling; its Qwen2 is right. What is compiled inside the block
    keeps its positions; all models of the family have the same ones there.

    Args:
      config: of config.json, with its model_type, as in `rope_frequencies`.

    Raises:
      KeyError: if the scaling is unknown.
    """
    frequencies = rope_frequencies(config)
    wrong = {"llama": _imports.llama, "qwen3": _imports.qwen3}
    module: Any = wrong.get(config["model_type"])
    if module is None:
        yield
        return

    def apply_rope(x: jax.Array, positions: jax.Array, head_dim: int) -> jax.Array:
        del head_dim
        return rotate(x, positions, frequencies)

    before = module.apply_rope
    module.apply_rope = apply_rope
    try:
        yield
    finally:
        module.apply_rope = before
