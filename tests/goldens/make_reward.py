# SPDX-License-Identifier: Apache-2.0
"""Writes reward.npz: the running moments of TRL on batches of rewards.

Needs trl 0.11.4 (with transformers, torch and accelerate); the tests that read the file
need none of them. A case holds batches `[S, B]` with their mask; TRL sees what counts
only. After each batch: mean, variance, standard deviation and count of the moments, and
the batch as `PPOTrainer.step` scales it, (x / (std + eps)), 0 where masked.

Run: .venv-references/trl011/bin/python tests/goldens/make_reward.py
"""

import importlib.metadata
import pathlib
import types

import numpy as np
import torch
from trl.trainer.utils import RunningMoments

HERE = pathlib.Path(__file__).parent


def cases():
    """Name -> (batches, mask)."""
    rng = np.random.default_rng(0)
    usual = rng.normal(-1.5, 0.8, (6, 32))
    holes = rng.normal(-1.0, 0.5, (5, 16))
    mask = rng.random(holes.shape) < 0.7
    mask[0, 2:] = False  # Two rewards in the first batch.
    mask[0, :2] = True
    mask[2] = False  # Nothing: the moments stay.
    mask[3] = np.arange(16) < 9
    holes[~mask] = np.where(rng.random((~mask).sum()) < 0.5, np.inf, np.nan)
    far = rng.normal(-100.0, 0.5, (4, 64))
    small = rng.normal(0.0, 1e-3, (4, 8))
    return {
        "usual": (usual, np.ones(usual.shape, bool)),
        "holes": (holes, mask),
        "far": (far, np.ones(far.shape, bool)),
        "small": (small, np.ones(small.shape, bool)),
    }


def answers(batches, mask):
    """Moments after every batch, and the scaled batches."""
    running = RunningMoments(types.SimpleNamespace(use_distributed=False))
    moments, scaled = [], np.zeros_like(batches)
    for step, (x, counts) in enumerate(zip(batches, mask, strict=True)):
        seen = torch.from_numpy(x[counts])
        if counts.any():
            running.update(seen)
        moments.append([running.mean, running.var, running.std, running.count])
        eps = torch.finfo(torch.float32).eps
        scaled[step, counts] = (seen / (running.std + eps)).numpy()
    return np.asarray(moments, np.float64), scaled


def main():
    """Writes the file."""
    golden = {"trl": np.asarray(importlib.metadata.version("trl"))}
    golden["torch"] = np.asarray(importlib.metadata.version("torch"))
    for name, (batches, mask) in cases().items():
        batches = batches.astype(np.float32)
        moments, scaled = answers(batches, mask)
        golden |= {
            f"{name}.x": batches,
            f"{name}.where": mask,
            f"{name}.moments": moments,
            f"{name}.scaled": scaled,
        }
    np.savez_compressed(HERE / "reward.npz", **golden)


if __name__ == "__main__":
    main()
