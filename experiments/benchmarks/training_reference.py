# SPDX-License-Identifier: Apache-2.0
# pyright: reportMissingImports=false
"""The same training in transformers' Trainer; imported where torch is installed."""

import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers

from fulcra_jax.configs import DebertaConfig

VALUES, CLASSES = 10, 3


class _Rows(torch.utils.data.Dataset[Any]):
    """The rows of one batch, again and again."""

    def __init__(self, batch: dict[str, np.ndarray], steps: int) -> None:
        self._ids = torch.as_tensor(batch["input_ids"], dtype=torch.long)
        self._labels = torch.as_tensor(batch["labels"] + 1, dtype=torch.long)
        self._steps = steps

    def __len__(self) -> int:
        return len(self._ids) * self._steps

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = index % len(self._ids)
        return {
            "input_ids": self._ids[row],
            "attention_mask": torch.ones_like(self._ids[row]),
            "labels": self._labels[row],
        }


class _Clock(transformers.TrainerCallback):
    """Seconds of each step after the first few."""

    def __init__(self, warm: int) -> None:
        self.times: list[float] = []
        self._warm, self._begun = warm, 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._begun = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if state.global_step > self._warm:
            self.times.append(time.perf_counter() - self._begun)


def _cells(outputs: Any, labels: torch.Tensor, **_: Any) -> torch.Tensor:
    logits = outputs["logits"].float().reshape(-1, CLASSES)
    return torch.nn.functional.cross_entropy(logits, labels.reshape(-1))


def turn(
    config: DebertaConfig,
    batch: dict[str, np.ndarray],
    *,
    steps: int,
    warm: int,
    bfloat16: bool,
) -> Callable[[], list[float]]:
    """A turn of steps of the Trainer, on the GPU where there is one.

    Args:
      config: the encoder; the classifier has ten values of three classes.
      batch: the rows that are trained on.
      steps: timed steps.
      warm: steps before them.
      bfloat16: autocast to bfloat16; parameters and state stay float32.

    Returns:
      A function that trains and returns the seconds of each timed step.
    """
    entries: dict[str, Any] = config.to_hf() | {"num_labels": VALUES * CLASSES}
    model = transformers.DebertaV2ForSequenceClassification(
        transformers.DebertaV2Config(**entries)
    )

    def train() -> list[float]:
        clock = _Clock(warm)
        with tempfile.TemporaryDirectory() as folder:
            trainer = transformers.Trainer(
                model=model,
                args=transformers.TrainingArguments(
                    output_dir=folder,
                    max_steps=warm + steps,
                    per_device_train_batch_size=len(batch["input_ids"]),
                    learning_rate=1e-5,
                    weight_decay=0.01,
                    bf16=bfloat16,
                    use_cpu=not torch.cuda.is_available(),
                    save_strategy="no",
                    logging_strategy="no",
                    report_to=[],
                    disable_tqdm=True,
                    seed=0,
                ),
                train_dataset=_Rows(batch, warm + steps),
                compute_loss_func=_cells,
                callbacks=[clock],
            )
            with contextlib.redirect_stdout(io.StringIO()):
                trainer.train()
        return clock.times

    return train
