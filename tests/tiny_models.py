# SPDX-License-Identifier: Apache-2.0
"""Model directories with random weights: evaluators that need no training."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.recipes import RECIPES
from fulcra_jax import convert, models
from fulcra_jax.configs import EvaluatorConfig, Link, SharedHead
from fulcra_jax.data.tokenizer import PairTokenizer

TEXTS = ["May I?", "Why?", "Tell me."], ["You may.", "Nobody knows.", "Never."]


def write(path: Any, seed: int, link: Link = "ternary") -> Any:
    """Writes a model of one layer to a directory; returns the directory."""
    tokenizer = PairTokenizer.train([*TEXTS[0], *TEXTS[1]], vocab_size=300)
    encoder = dataclasses.replace(
        RECIPES["debug"][1].evaluator.encoder, vocab_size=tokenizer.vocab_size
    )
    config = EvaluatorConfig(encoder, SharedHead(hidden=0), link)
    ids = jnp.ones((1, 8), jnp.int32)
    init = functools.partial(models.Evaluator(config).init, deterministic=True)
    shapes = jax.eval_shape(init, jax.random.key(0), ids, ids > 0)["params"]
    normal = functools.partial(np.random.default_rng(seed).normal, 0.0, 0.3)
    params = jax.tree.map(lambda leaf: normal(leaf.shape).astype(np.float32), shapes)
    convert.save(path, config, params)
    tokenizer.save(path, max_length=16)
    return path
