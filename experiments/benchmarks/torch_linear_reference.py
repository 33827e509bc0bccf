# SPDX-License-Identifier: Apache-2.0
"""The reference of torch_linear, in plain PyTorch; the only file of it that needs
torch."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import transformers

from fulcra_jax.data.rows import Row
from fulcra_jax.data.source import label_arrays


class Found(NamedTuple):
    """What a trained reference says, and what it cost."""

    probs: np.ndarray
    """`[N, 10, 3]`."""
    steps: int
    gflops: float
    """Of judging one response, as `training.ceiling` counts."""
    parameters: int
    threads: int
    version: str


class Linear(torch.nn.Module):
    """An encoder, the mean of its tokens or the first of them, one linear layer."""

    def __init__(self, folder: str, dropout: float, pool: str) -> None:
        """Args: folder: of the encoder. dropout: before the linear layer. pool: mean or
        first."""
        super().__init__()
        # float32 also where the file holds halves, as ours.
        self.encoder = transformers.AutoModel.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32
        )
        self.pool = pool
        self.dropout = torch.nn.Dropout(dropout)
        self.values = torch.nn.Linear(self.encoder.config.hidden_size, 30)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """`[B, 10, 3]` logits."""
        hidden = self.encoder(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None].to(hidden.dtype)
        pooled = hidden[:, 0]
        if self.pool == "mean":
            pooled = (hidden * mask).sum(1) / mask.sum(1)
        return self.values(self.dropout(pooled)).reshape(-1, 10, 3)


def fit(
    folder: str,
    train: Sequence[Row],
    held: Sequence[Row],
    settings: Any,
    seed: int,
    threads: int,
) -> Found:
    """Fine-tunes on `train`, judges `held`."""
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(seed)
    order = np.random.default_rng(seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        folder, local_files_only=True
    )
    model = Linear(folder, settings.dropout, settings.pool)
    labels, where = label_arrays(list(train))
    ids = torch.tensor(np.rint(labels).astype(np.int64) + 1)
    counts = torch.tensor(where)
    frequency = torch.bincount(ids[counts], minlength=3).double()
    weight = (1 / frequency.clamp(min=1).sqrt()).float()
    weight = weight / (weight[ids[counts]].mean())
    encoded = [_pair(tokenizer, row, settings.max_length) for row in train]
    batches = -(-len(train) // settings.batch_size)
    steps = batches * settings.epochs
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.peak_lr, weight_decay=settings.weight_decay
    )

    def rate(step: int) -> float:
        if step < settings.warmup_steps:
            return (step + 1) / settings.warmup_steps
        return max(0.0, (steps - step) / (steps - settings.warmup_steps))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    model.train()
    done, begun = 0, time.monotonic()
    for _ in range(settings.epochs):
        # Windows of eight batches, sorted: little padding.
        shuffled = order.permutation(len(train))
        wide = 8 * settings.batch_size
        rows: list[int] = []
        for start in range(0, len(shuffled), wide):
            window = shuffled[start : start + wide]
            rows += sorted(window.tolist(), key=lambda row: len(encoded[row][0]))
        starts = order.permutation(range(0, len(rows), settings.batch_size))
        for start in starts:
            chosen = rows[start : start + settings.batch_size]
            logits = model(_batch(tokenizer, [encoded[row] for row in chosen]))
            loss = torch.nn.functional.cross_entropy(
                logits.reshape(-1, 3), ids[chosen].reshape(-1), reduction="none"
            )
            here = counts[chosen].reshape(-1)
            loss = loss * weight[ids[chosen].reshape(-1)] * here
            optimizer.zero_grad()
            (loss.sum() / here.sum()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            done += 1
            if done % 50 == 0:
                left = (time.monotonic() - begun) / done * (steps - done)
                print(f"step {done}/{steps}, {left / 60:.1f} minutes left", flush=True)
    model.eval()
    pairs = [_pair(tokenizer, row, settings.max_length) for row in held]
    with torch.no_grad():
        probs = [
            model(_batch(tokenizer, pairs[start : start + 16])).softmax(-1).numpy()
            for start in range(0, len(pairs), 16)
        ]
    config = model.encoder.config
    flops = np.mean([_flops(config, len(pair[0])) for pair in pairs])
    return Found(
        np.concatenate(probs),
        steps,
        float(flops) / 1e9,
        # Without a pooler that is loaded and not used.
        sum(p.numel() for p in model.parameters() if p.grad is not None),
        torch.get_num_threads(),
        torch.__version__,
    )


def _pair(tokenizer: Any, row: Row, longest: int) -> tuple[list[int], list[int]]:
    """Ids and token types; the prompt is cut first, as ours is."""
    plain = tokenizer(
        [row.prompt, row.response], add_special_tokens=False, verbose=False
    )["input_ids"]
    response = plain[1][: longest - 3]
    prompt = plain[0][: longest - 3 - len(response)]
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    ids = [cls, *prompt, sep, *response, sep]
    return ids, [int(place >= len(prompt) + 2) for place in range(len(ids))]


def _batch(tokenizer: Any, pairs: Sequence[Any]) -> dict[str, torch.Tensor]:
    longest = max(len(ids) for ids, _ in pairs)
    filled = lambda rows, fill: torch.tensor(
        [[*row, *[fill] * (longest - len(row))] for row in rows]
    )
    return {
        "input_ids": filled([ids for ids, _ in pairs], tokenizer.pad_token_id),
        "token_type_ids": filled([types for _, types in pairs], 0),
        "attention_mask": filled([[1] * len(ids) for ids, _ in pairs], 0),
    }


def _flops(config: Any, length: int) -> float:
    T, D, F, L = (
        length, config.hidden_size, config.intermediate_size, config.num_hidden_layers,
    )  # fmt: skip
    return L * (8 * T * D * D + 4 * T * D * F + 4 * T * T * D) + 2 * D * 30
