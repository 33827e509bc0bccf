# SPDX-License-Identifier: Apache-2.0
"""The released answers of three LLMs and the authors' scores, where they are here."""

import json
import pathlib

import numpy as np
import pytest

from fulcra_jax.inference import ScoredAnswers

FOLDER = pathlib.Path(__file__).parents[2] / "shared" / "data" / "fulcra"
MODELS = ("gpt-4", "gpt-35-turbo", "mistral-large")

needed = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the shared official scores are not here"
)


def read(*splits: str) -> ScoredAnswers:
    """Answers of all three models; `value_reward` holds the ten scores, no probs."""
    records = [
        (model, json.loads(line))
        for model in MODELS
        for split in splits
        for line in (FOLDER / f"official_scores.{model}.{split}.jsonl")
        .read_text(encoding="utf-8")
        .splitlines()
    ]
    scores = np.array([record["value_reward"] for _, record in records], np.float32)
    return ScoredAnswers(
        prompts=[record["prompt"] for _, record in records],
        responses=[record["answer"] for _, record in records],
        models=[model for model, _ in records],
        scores=scores,
        probs=np.full((len(records), 10, 3), np.nan, np.float32),
        evaluators=["official"] * len(records),
    )
