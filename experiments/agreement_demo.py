# SPDX-License-Identifier: Apache-2.0
"""A simulated annotated file whose annotators' quality is known.

Three humans and two LLMs of five passes label responses, two to each prompt, each with
error rates of their own. An LLM has one belief per cell, wrong in all its passes, and
each pass departs from it now and then. A few lines are broken on purpose.
"""

import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fulcra_jax import values

ITEMS = 240
SOURCES = ("chat-model-a", "chat-model-b")
PASSES = 5
SLIP = 0.04
"""How often a pass of an LLM departs from its belief."""
SHARES = np.array([
    [.02, .62], [.003, .017], [.003, .012], [.02, .18], [.06, .03],
    [.08, .32], [.01, .06], [.06, .19], [.09, .41], [.07, .33],
])  # fmt: skip
"""Of -1 and +1, per value; roughly those of real rows, rare values included."""
QUALITY: dict[str, tuple[str, tuple[float, float, float]]] = {
    "ada": ("human", (0.92, 0.97, 0.93)),
    "ben": ("human", (0.85, 0.96, 0.88)),
    "cleo": ("human", (0.60, 0.85, 0.72)),
    "model-x": ("llm", (0.80, 0.95, 0.90)),
    "model-y": ("llm", (0.65, 0.97, 0.70)),
}
"""Kind, and how often -1, 0 and +1 are answered where they are true."""
_EVERY = 1 << 19  # lines between two calls of `progress`
_BROKEN = (
    '{"item": "r001", "value": "Power", "annotator": "ada", "kind": "human", "lab',
    '{"item": "r001", "value": "Humour", "annotator": "ada", "kind": "human", '
    '"label": 1}',
    '{"item": "r001", "value": "Power", "annotator": "ben", "kind": "human", '
    '"label": 2}',
)


def write(
    path: pathlib.Path,
    seed: int,
    items: int = ITEMS,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Writes the simulated file; `progress` is told of lines now and then."""
    with path.open("w", encoding="utf-8") as file:
        for line, record in enumerate(_records(np.random.default_rng(seed), items), 1):
            file.write(json.dumps(record) + "\n")
            if progress is not None and line % _EVERY == 0:
                progress(line)
        file.writelines(line + "\n" for line in _BROKEN)


def _records(rng: np.random.Generator, items: int) -> Iterator[dict[str, Any]]:
    draw = rng.random((items, len(values.BASIC)))
    lost, won = SHARES.T
    truth = np.where(draw < lost, 0, np.where(draw < lost + won, 2, 1))
    for name, (kind, quality) in QUALITY.items():
        belief = _erring(rng, truth, 1.0 - np.array(quality)[truth])
        for number in range(PASSES if kind == "llm" else 1):
            answer = belief
            if kind == "llm":
                answer = _erring(rng, belief, np.full(belief.shape, SLIP))
            silent = rng.random(belief.shape) < 0.01
            for n, v in np.ndindex(belief.shape):
                yield {
                    "item": f"r{n:03d}",
                    "value": values.BASIC[v],
                    "annotator": name,
                    "kind": kind,
                    "pass": number,
                    "label": None if silent[n, v] else int(answer[n, v]) - 1,
                    "source": SOURCES[n % len(SOURCES)],
                    "prompt_id": f"p{n // len(SOURCES):03d}",
                }


def _erring(
    rng: np.random.Generator, label: np.ndarray, rate: np.ndarray
) -> np.ndarray:
    wrong = rng.random(label.shape) < rate
    return np.where(wrong, (label + rng.integers(1, 3, label.shape)) % 3, label)
