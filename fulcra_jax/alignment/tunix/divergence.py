# SPDX-License-Identifier: Apache-2.0
"""How far a policy is from a reference, on answers that it drew.

Axes: B answers, T tokens of an answer, W vocabulary.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from fulcra_jax import objectives
from fulcra_jax.alignment.tunix import _imports


def answer_kl(
    policy: nnx.Module,
    reference: nnx.Module,
    prompt_ids: jax.Array,
    answer_ids: jax.Array,
    *,
    pad_id: int,
    end_id: int,
    temperature: float,
) -> jax.Array:
    """KL(policy || reference) of whole answers.

    sum_t sum_w p(w | y_<t) log p(w | y_<t) / r(w | y_<t)

    Exact for every token after what was drawn before it; its mean over answers that the
    policy drew is the KL of whole answers, with less noise than log p(y) / r(y), whose
    mean is the same. Both models are taken as `Rollout` draws: at its temperature,
    and never padding.

    Args:
      policy: what drew the answers.
      reference: of the same vocabulary.
      prompt_ids: `[B, P]` int, padded on the left.
      answer_ids: `[B, T]` int, padded on the right; the end counts.
      pad_id: of the tokenizer.
      end_id: of the tokenizer.
      temperature: of the draw, above 0.

    Returns:
      `[B]` non-negative float32, in nats.

    Reference:
      Amini et al. 2025 (arXiv 2504.10637), the estimator of Rao and Blackwell.
    """

    def logits_of(model: nnx.Module) -> jax.Array:
        graph, state = nnx.split(model)
        _, logits = _imports.compute_per_token_logps(
            graph,
            state,
            prompt_tokens=prompt_ids,
            completion_tokens=answer_ids,
            pad_id=pad_id,
            eos_id=end_id,
            return_logits=True,
            temperature=temperature,
        )
        return logits

    return _summed(logits_of(policy), logits_of(reference), answer_ids, pad_id)


@jax.jit
def _summed(
    logits: jax.Array, reference: jax.Array, answer_ids: jax.Array, pad_id: int
) -> jax.Array:
    padding_w = jnp.arange(logits.shape[-1]) == pad_id
    never = jnp.where(padding_w, -jnp.inf, 0.0)[None, None]
    kl_bt = objectives.full_kl(
        logits + never, reference + never, where=answer_ids != pad_id
    )
    return kl_bt.sum(-1)
