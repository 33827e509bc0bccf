# SPDX-License-Identifier: Apache-2.0
"""What tunix logs of a step, on one line of metrics.jsonl."""

import json
import logging
import math
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

_COLUMNS = {
    "fulcra/reward": "reward",
    "fulcra/no_connection": "no_connection",
    "fulcra/failures": "failures",
    "completions/mean_length": "length",
    "actor/kl": "kl",
    "actor/loss": "loss",
    "actor/entropy": "entropy",
    "actor/grad_norm": "grad_norm",
    "actor/pg_clipfrac": "clip_fraction",
}


class Lines:
    """Puts tunix's numbers of a step on one line of metrics.jsonl."""

    def __init__(self, path: pathlib.Path, steps: int) -> None:
        """Args: path: of the file. steps: in all."""
        self._path, self._steps = path, steps
        self._open: dict[int, dict[str, Any]] = {}
        self._printed = -math.inf

    def add(self, name: str, number: Any, step: int) -> None:
        """Takes a number; the line of a step is written when the next one has begun
        to be logged."""
        mean = float(np.mean(number))
        known = mean if math.isfinite(mean) else None
        line = self._open.setdefault(step, {"step": step, "score": {}})
        if name in _COLUMNS:
            line[_COLUMNS[name]] = known
        elif name.startswith("fulcra/score/"):
            line["score"][name.removeprefix("fulcra/score/")] = known
        if name == "actor/loss":
            self._write([s for s in self._open if s < step])

    def close(self) -> None:
        """Writes what is left."""
        self._write(list(self._open))

    def _write(self, steps: Sequence[int]) -> None:
        for step in sorted(steps):
            line = self._open.pop(step)
            if "reward" not in line:
                continue  # what tunix logs after the last step
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            now = time.monotonic()
            if now - self._printed >= 10.0 or step == self._steps:
                self._printed = now
                kl = "-" if line.get("kl") is None else f"{line['kl']:.4f}"
                print(
                    f"step {step}/{self._steps}  reward {line['reward']:.3f}  kl {kl}  "
                    f"no connection {line['no_connection']:.2f}",
                    flush=True,
                )


def quiet() -> None:
    """Drops what tunix says of every machine without a TPU."""
    logging.getLogger("absl").addFilter(
        lambda record: not record.getMessage().startswith("Skipping non-TPU device")
    )
