# SPDX-License-Identifier: Apache-2.0
"""What is measured before and after, on prompts of the test split.

Axes: N answers (prompts x answers to each), V values, M quantities.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.align.settings import HeldOut
from experiments.toy_lm import decoder as toy
from experiments.toy_lm import sampling, texts
from fulcra_jax import objectives, scoring, values
from fulcra_jax.inference import Predictor, ScoredAnswers

NO_CONNECTION = 0.3
"""The largest |v| that counts as "no connection", as in the released code."""

DISTANCES: dict[str, dict[str, Any]] = {
    "released L1": {"kind": "l1", "gate": "official"},
    "L1": {"kind": "l1"},
    "L1, targeted": {"kind": "l1", "gate": "target"},
    "L2": {"kind": "l2"},
    "L2, targeted": {"kind": "l2", "gate": "target"},
    "Huber": {"kind": "huber"},
    "cosine": {"kind": "cosine"},
    "L1, centered": {"kind": "l1", "center": True},
    "circumplex": {"kind": "circumplex"},
}
"""Options of `value_distance` by the name in the tables."""


class Said(NamedTuple):
    """N answers of a policy."""

    prompts: list[str]
    responses: list[str]
    kl: np.ndarray
    """`[N]` KL to the start in nats: summed over the tokens, exact for each."""
    tokens: np.ndarray
    """`[N]`"""


def answer(
    config: toy.DecoderConfig,
    params: Any,
    reference: Any,
    codec: texts.Codec,
    prompts: Sequence[str],
    *,
    answers: int,
    seed: int,
    batch_size: int = 128,
    progress: Callable[[int], None] = lambda _: None,
) -> Said:
    """Answers to every prompt, and how far their policy is from the reference.

    Args:
      config: of the decoder.
      params: of the policy.
      reference: parameters of the start.
      codec: between texts and tokens.
      prompts: each is answered `answers` times, one after the other.
      answers: to each prompt.
      seed: of the draws.
      batch_size: answers drawn at once.
      progress: called with the number of answers done.
    """
    ids, where = codec.encode_prompts(prompts)
    rows = np.repeat(np.arange(len(prompts)), answers)
    banned = jnp.asarray(codec.banned)
    said: list[str] = []
    kl, tokens = [], []
    for number, first in enumerate(range(0, len(rows), batch_size)):
        chosen = rows[first : first + batch_size]
        # The last batch is filled up, so that one program does for all.
        full = np.resize(chosen, batch_size)
        prompt, present = jnp.asarray(ids[full]), jnp.asarray(where[full])
        key = jax.random.fold_in(jax.random.key(seed), number)
        drawn = sampling.draw_with(codec, config, params, key, prompt, present)
        n = len(chosen)
        if params is reference:
            kl.append(np.zeros(n))
        else:
            away = _kl(config, params, reference, prompt, present, drawn, banned)
            kl.append(np.asarray(away)[:n])
        tokens.append(np.asarray(drawn.where.sum(1))[:n])
        said += codec.decode(np.asarray(drawn.tokens)[:n], np.asarray(drawn.where)[:n])
        progress(len(said))
    return Said(
        [prompts[row] for row in rows.tolist()],
        said,
        np.concatenate(kl),
        np.concatenate(tokens),
    )


def score(
    said: Said,
    evaluator: Predictor,
    model: str,
    name: str,
    progress: Callable[[int], None] | None = None,
) -> ScoredAnswers:
    """The answers with the scores of an evaluator.

    Raises:
      ValueError: if it gives no score to one.
    """
    found = evaluator.score(said.prompts, said.responses, progress=progress)
    n = len(said.prompts)
    failed = int((~np.isfinite(found.scores)).any(1).sum())
    if failed:
        raise ValueError(
            f"align: the evaluator {name} gives NaN for {failed} of {n} answers of "
            f"{model}; take one that scores all."
        )
    return ScoredAnswers(
        said.prompts, said.responses, [model] * n, found.scores, found.probs, [name] * n
    )


def targeted(target: np.ndarray) -> np.ndarray:
    """`[V]` bool: the values that a target asks for more than "no connection" is.

    In the reward's scale, where the largest |t| is 1: of a national target the values
    with small entries are left out, because an answer on the target shows none of them.

    >>> int(targeted(np.array([0.1, 0.6, -0.3] + [0.0] * 7)).sum())
    2
    """
    size = np.abs(target)
    return size > NO_CONNECTION * size.max()


def quantities(scores: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
    """`[N]` each: all that is averaged over answers and compared.

    "toward" is the share of the way: sum_k |t_k| sign(t_k) v_k / sum_k |t_k|, in
    [-1, 1], 1 for an answer that expresses all that is targeted and nothing against it.
    """
    v, t = jnp.asarray(scores, jnp.float32), jnp.asarray(target, jnp.float32)
    aimed = targeted(target)
    found = {name: scores[:, k] for k, name in enumerate(values.ABBREVIATIONS)}
    found["toward"] = scores @ (target / abs(target).sum())
    found["reward"] = np.asarray(objectives.baselign_reward(v, t))
    found["released reward"] = np.asarray(
        objectives.baselign_reward(v, t, gate="official")
    )
    for name, options in DISTANCES.items():
        found[name] = np.asarray(objectives.value_distance(v, t, **options))
    absent = abs(scores) <= NO_CONNECTION
    found["no connection, targeted"] = absent[:, aimed].mean(1)
    found["no connection"] = absent.mean(1)
    against = scores[:, aimed] * np.sign(target[aimed]) < -NO_CONNECTION
    found["against, targeted"] = against.mean(1)
    return found


class Mean(NamedTuple):
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


def means(found: dict[str, np.ndarray], held_out: HeldOut) -> dict[str, Mean]:
    """The mean of each quantity, with an interval over the prompts.

    Prompts are drawn with all their answers: answers to one prompt are alike.
    """
    names = list(found)
    x = np.stack([found[name] for name in names], 1).astype(np.float64)
    by_prompt = x.reshape(held_out.prompts, -1, len(names)).mean(1)
    middle = by_prompt.mean(0)
    # Centered, so that float32 keeps the digits of what varies.
    samples = scoring.cluster_bootstrap(
        jax.random.key(held_out.seed),
        jnp.asarray(by_prompt - middle, jnp.float32),
        lambda total: total / held_out.prompts,
        num_resamples=held_out.resamples,
    )
    low, high = (
        np.asarray(end) + middle for end in scoring.confidence_interval(samples)
    )
    return {
        name: Mean(float(middle[i]), float(low[i]), float(high[i]))
        for i, name in enumerate(names)
    }


def differences(
    after: dict[str, np.ndarray], before: dict[str, np.ndarray], held_out: HeldOut
) -> dict[str, Mean]:
    """The mean change of each quantity, paired by prompt."""
    return means({name: after[name] - before[name] for name in after}, held_out)


def distinct_n(said: Sequence[str], n: int) -> float:
    """Different n-grams of words over all of them; NaN without any.

    Falls with the size of the text: compare equal numbers of answers only.

    >>> distinct_n(["a b a b", "a b"], 2)
    0.5
    """
    grams = [
        gram
        for text in said
        for words in [text.split()]
        for gram in zip(*(words[i:] for i in range(n)), strict=False)
    ]
    return len(set(grams)) / len(grams) if grams else float("nan")


def alike(said: Sequence[str], answers: int) -> float:
    """How alike the answers to one prompt are: mean Jaccard of their word pairs."""
    found = []
    for first in range(0, len(said), answers):
        sets = [
            set(itertools.pairwise(text.split()))
            for text in said[first : first + answers]
        ]
        for one, two in itertools.combinations(sets, 2):
            if one | two:
                found.append(len(one & two) / len(one | two))
    return float(np.mean(found)) if found else float("nan")


def text_figures(said: Said, answers: int) -> dict[str, float]:
    """What the texts look like, whatever they value."""
    return {
        "kl": float(said.kl.mean()),
        "tokens": float(said.tokens.mean()),
        "empty": float(np.mean([not text.strip() for text in said.responses])),
        **{f"distinct_{n}": distinct_n(said.responses, n) for n in (1, 2, 3)},
        "alike": alike(said.responses, answers),
    }


@functools.partial(jax.jit, static_argnums=0)
def _kl(
    config: toy.DecoderConfig,
    params: Any,
    reference: Any,
    prompts: jax.Array,
    prompts_where: jax.Array,
    drawn: sampling.Sample,
    banned: jax.Array,
) -> jax.Array:
    both = [
        sampling.response_logits(
            config, p, prompts, prompts_where, drawn.tokens, drawn.where, banned
        )
        for p in (params, reference)
    ]
    return objectives.full_kl(both[0], both[1], where=drawn.where).sum(-1)
