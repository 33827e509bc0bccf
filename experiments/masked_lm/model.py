# SPDX-License-Identifier: Apache-2.0
"""The encoder with its head of masked words: where it begins, its loss, its optimizer.

B rows, T tokens of a row, S masked tokens of a row, D width, E width of the word
embeddings, W vocabulary.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.recipes import small_encoder
from fulcra_jax import convert
from fulcra_jax.configs import DebertaConfig
from fulcra_jax.data.tokenizer import PairTokenizer
from fulcra_jax.models import MaskedLm
from fulcra_jax.training import step
from fulcra_jax.training.optimizer import Optimizer, make_optimizer

SIZES: dict[str, DebertaConfig] = {
    "tiny": small_encoder(32, 1, num_attention_heads=2),
    "small": small_encoder(256, 4),
}
"""Encoders from scratch."""


class Start(NamedTuple):
    """Where a training begins."""

    config: DebertaConfig
    params: Any
    """The tree of `MaskedLm`."""
    new_head: bool
    """Whether the encoder is trained already and the head is not."""


def start(
    folder: str,
    size: str,
    tokenizer: PairTokenizer,
    ids: Sequence[np.ndarray],
    *,
    max_length: int,
    seed: int,
) -> Start:
    """The parameters before the first step.

    Args:
      folder: a Hugging Face directory; empty for random weights.
      size: of `SIZES`, where folder is empty.
      tokenizer: gives the ids.
      ids: N arrays `[length]`, of the texts to train on: a new head begins with the
        frequencies of the words as its bias, and where D = E with the identity as its
        map, so that it moves the encoder as little as a new head can.
      max_length: tokens of a row.
      seed: of what is random.

    Raises:
      FileNotFoundError: if there is no such directory.
      ValueError: if the tokenizer does not fit, or a row is longer than the encoder's
        positions reach.
    """
    if folder:
        config, params = _load(folder)
        if tokenizer.vocab_size > config.vocab_size:
            raise ValueError(
                f"pretrain_encoder: the tokenizer has {tokenizer.vocab_size} pieces, "
                f"but the encoder in {folder} knows {config.vocab_size}; give the "
                "directory its own tokenizer."
            )
    else:
        config = dataclasses.replace(SIZES[size], vocab_size=tokenizer.vocab_size)
        params = {}
    absolute = config.position_biased_input or "mask_decoder" in params
    if absolute and max_length > config.max_position_embeddings:
        raise ValueError(
            f"pretrain_encoder: max_length is {max_length}, but the encoder has "
            f"{config.max_position_embeddings} positions."
        )
    if "masked_lm" in params:
        return Start(config, params, False)
    fresh = _fresh(config, seed)
    head = fresh["masked_lm"]
    head["bias"] = _log_frequencies(ids, config.vocab_size)
    if params:
        D, E = config.hidden_size, config.embedding_width
        if D == E:
            head["dense"]["kernel"] = np.eye(D, dtype=np.float32)
        return Start(config, params | {"masked_lm": head}, True)
    return Start(config, fresh | {"masked_lm": head}, False)


def _load(folder: str) -> tuple[DebertaConfig, dict[str, Any]]:
    """The encoder, with its head of masked words where it has one."""
    if not pathlib.Path(folder).is_dir():
        raise FileNotFoundError(
            f"pretrain_encoder: encoder is {folder}, which does not exist; give a "
            "Hugging Face directory with config.json, weights and a tokenizer."
        )
    config, encoder = convert.load_encoder(folder)
    try:
        found = convert.load_pretraining(folder)[1]
    except ValueError as error:
        if "holds no pretraining head" not in str(error):
            raise
        return config, {"encoder": encoder}
    names = ("encoder", "masked_lm", "mask_decoder")
    if "masked_lm" not in found:
        names = ("encoder",)
    return config, {name: found[name] for name in names if name in found}


def _fresh(config: DebertaConfig, seed: int) -> dict[str, Any]:
    ids = jnp.zeros((1, 8), jnp.int32)
    init = jax.jit(
        lambda key: MaskedLm(config).init(key, ids, ids > -1, deterministic=True)
    )
    return jax.device_get(init(jax.random.key(seed))["params"])


def _log_frequencies(ids: Sequence[np.ndarray], W: int) -> np.ndarray:
    counts = np.bincount(np.concatenate(ids), minlength=W)
    return np.log((counts + 1.0) / (counts.sum() + W)).astype(np.float32)


def cell_loss(begin: Start, compute_dtype: str) -> step.CellLoss:
    """-log p of what stood at every masked place, `[B, S]`, and which places count."""
    model = MaskedLm(
        begin.config, "mask_decoder" in begin.params, jnp.dtype(compute_dtype)
    )

    def cells(params: Any, batch: Any, key: jax.Array | None) -> tuple[Any, Any]:
        found = model.apply(
            {"params": params},
            jnp.asarray(batch["input_ids"]),
            jnp.asarray(batch["mask"]),
            jnp.asarray(batch["segment_ids"]),
            token_type_ids=jnp.asarray(batch["token_type_ids"]),
            at=jnp.asarray(batch["at"]),
            deterministic=key is None,
            rngs=None if key is None else {"dropout": key},
        )
        # Linen types the result as the module's output or (output, variables).
        loss = optax.softmax_cross_entropy_with_integer_labels(
            cast(jax.Array, found), jnp.asarray(batch["targets"])
        )
        return loss, jnp.asarray(batch["where"])

    return cells


def held_out_loss(cells: Any) -> Callable[[Any, Sequence[Any]], float]:
    """A function (params, masked batches) -> mean over all masked tokens, in nats."""

    @jax.jit
    def total(params: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
        loss, where = cells(params, batch, None)
        return jnp.where(where, loss, 0.0).sum(), where.sum()

    def measure(params: Any, masked: Sequence[Any]) -> float:
        sums = [jax.device_get(total(params, batch)) for batch in masked]
        return float(sum(s for s, _ in sums) / sum(n for _, n in sums))

    return measure


def optimizer(config: Optimizer, steps: int, rest: int) -> optax.GradientTransformation:
    """The optimizer of a run; the encoder rests for some steps and joins in over as
    many, so that what a new head has still to learn does not disturb it.

    Args:
      config: of the rates.
      steps: in all.
      rest: steps in which the head learns alone; 0 for none.
    """
    made = make_optimizer(config, steps)
    if not rest:
        return made

    def factor(count: Any) -> jax.Array:
        return jnp.clip((count - rest + 1) / rest, 0.0, 1.0)

    def encoders(tree: Any) -> Any:
        return {
            name: jax.tree.map(lambda _, own=name: own != "masked_lm", branch)
            for name, branch in tree.items()
        }

    return optax.chain(made, optax.masked(optax.scale_by_schedule(factor), encoders))
