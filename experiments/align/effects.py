# SPDX-License-Identifier: Apache-2.0
"""What alignment changed, from scores: the figures of both halves.

Scores come by who gave them: "evaluator", whose reward was trained on, and perhaps
"second", which only looks. Axes: N answers (prompts x answers to each), V values.
"""

import pathlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.align import measure
from experiments.align.settings import HeldOut
from fulcra_jax import alignment, objectives, values

EQUAL_KL = 64
"""Largest n for which best-of-n is taken to have the KL of its bound."""

ByWho = Mapping[str, Mapping[str, np.ndarray]]
"""Quantities, each `[N]`, by who scored."""


def quantities(
    scores: Mapping[str, np.ndarray], target: np.ndarray
) -> dict[str, dict[str, np.ndarray]]:
    """All quantities of `[N, V]` scores, by who gave them."""
    return {who: measure.quantities(x, target) for who, x in scores.items()}


def means(
    found: ByWho, text: Mapping[str, Any], held_out: HeldOut
) -> dict[str, dict[str, Any]]:
    """Means of one set of answers, and what its texts look like."""
    return {
        "text": dict(text),
        **{who: measure.means(dict(x), held_out) for who, x in found.items()},
    }


def change(
    after: ByWho, before: ByWho, held_out: HeldOut
) -> dict[str, dict[str, measure.Mean]]:
    """The mean change of each quantity, paired by prompt, by who scored."""
    return {
        who: measure.differences(dict(after[who]), dict(before[who]), held_out)
        for who in before
    }


def alarms(
    change: Mapping[str, Mapping[str, measure.Mean]],
    text: Mapping[str, float],
    start: Mapping[str, float],
    *,
    reward: str = "reward",
) -> list[str]:
    """What should make one distrust a model, in sentences.

    Args:
      change: of each quantity, by who scored, for the target that was trained on.
      text: what the model's answers look like, of `measure.text_figures`.
      start: the same of the answers before.
      reward: the quantity that was trained on.
    """
    moved = change["evaluator"]
    found = []
    rise = moved["no connection, targeted"]
    if rise.mean >= 0.2 and rise.low > 0.0:
        found.append(
            f"value-free: the share of targeted cells without a connection rose by "
            f"{rise.mean:.2f}"
        )
    empty = text["empty"] - start["empty"]
    if empty >= 0.1:
        found.append(f"silence: {text['empty']:.0%} of the answers are empty")
    ratio = text["tokens"] / max(start["tokens"], 1e-9)
    if not 0.5 <= ratio <= 2.0:
        found.append(f"length: answers have {ratio:.2f} times the tokens of the start")
    kept = text["distinct_2"] / start["distinct_2"]
    if kept < 0.8:
        found.append(f"collapse: distinct-2 fell to {kept:.2f} of the start")
    if "second" in change:
        mine, other = moved[reward], change["second"][reward]
        if mine.low > 0.0 and other.high < 0.5 * mine.mean:
            found.append(
                f"evaluator: the reward rose by {mine.mean:.2f}, by {other.mean:.2f} "
                "in the eyes of the second evaluator"
            )
    return found


def read_pool(
    path: pathlib.Path, held_out: HeldOut, who: Sequence[str]
) -> dict[str, np.ndarray]:
    """The scores of the best-of-n pool, `[prompts x best_of, V]` by who scored.

    Raises:
      ValueError: if the file is damaged or of other settings.
    """
    shape = (held_out.prompts * held_out.best_of, len(values.BASIC))
    try:
        # Opened here: numpy leaves a broken archive open.
        with path.open("rb") as file, np.load(file) as pool:
            scores = {name: pool[name] for name in who}
        good = all(x.shape == shape and np.isfinite(x).all() for x in scores.values())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        good, scores = False, {}
    if not good:
        raise ValueError(
            f"{path}: is damaged; expected finite scores of shape {shape}. Delete it: "
            "the same command draws it again."
        )
    return scores


def best_of_n(
    pool: ByWho,
    kl: float,
    held_out: HeldOut,
    *,
    chosen_by: np.ndarray | None = None,
) -> dict[str, Any]:
    """The best of n answers of the start, n as large as the KL of a model allows.

    Beyond log 64 - 63/64 nats, where the bound says little, all of the pool are taken
    and both KLs shown.

    Args:
      pool: quantities `[N]` of answers of the start, by who scored.
      kl: of the model to compare with, in nats per answer.
      held_out: its `best_of` answers to each prompt make the pool.
      chosen_by: `[N]` rewards; the reward of "evaluator" if not given.
    """
    most = min(EQUAL_KL, held_out.best_of)
    bound = float(objectives.best_of_n_kl_bound(jnp.asarray(float(most))))
    equal = kl <= bound
    n = objectives.n_of_kl_bound(kl, most=most) if equal else held_out.best_of
    reward = pool["evaluator"]["reward"] if chosen_by is None else chosen_by
    # How likely each answer of the pool is to be the best of n that are drawn from it.
    probs = alignment.selection_probs(reward.reshape(held_out.prompts, -1), n)

    def expected(x: np.ndarray) -> np.ndarray:
        return (probs * x.reshape(held_out.prompts, -1)).sum(1)

    return {
        "n": n,
        "kl_bound": float(objectives.best_of_n_kl_bound(jnp.asarray(float(n)))),
        "kl": kl,
        "equal_kl": bool(equal),
        **{
            who: measure.means({k: expected(x) for k, x in found.items()}, held_out)
            for who, found in pool.items()
        },
    }
