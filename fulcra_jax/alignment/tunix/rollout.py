# SPDX-License-Identifier: Apache-2.0
"""How answers are drawn: tunix's own sampler, with what a loss needs of it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from fulcra_jax.alignment.policy_tokenizer import PolicyTokenizer
from fulcra_jax.alignment.tunix import _imports


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How answers are drawn."""

    prompt_length: int = 64
    """Tokens that prompts are padded to."""
    answer_length: int = 64
    """Most tokens of an answer, its end included."""
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("prompt_length", "answer_length", "temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"rollout.Sampling: {name} is {getattr(self, name)}; expected more "
                    "than 0."
                )

    def config(self) -> _imports.RolloutConfig:
        """The same in tunix's words."""
        return _imports.RolloutConfig(
            max_prompt_length=self.prompt_length,
            max_tokens_to_generate=self.answer_length,
            kv_cache_size=self.prompt_length + self.answer_length,
            temperature=self.temperature,
            seed=self.seed,  # pyright: ignore[reportArgumentType] (an int does)
        )


class Rollout(_imports.VanillaRollout):
    """Tunix's own sampler with a key per call and the end of the answers.

    The noise of a call depends on (seed, `calls`) only: a run that is resumed at step n
    sets `calls` to n and draws what it would have drawn.
    """

    def __init__(
        self, rollout_actor: Any, tokenizer: Any, mesh: Any, rollout_config: Any
    ) -> None:
        """As tunix calls a rollout engine; `mesh` is that of the model."""
        del mesh
        config = rollout_actor.config
        super().__init__(
            rollout_actor,
            tokenizer,
            _imports.CacheConfig(
                cache_size=rollout_config.kv_cache_size,
                num_layers=config.num_layers,
                num_kv_heads=config.num_kv_heads,
                head_dim=config.head_dim,
            ),
        )
        self.calls = 0
        self._temperature = rollout_config.temperature

    def generate(
        self, prompts: list[str], rollout_config: Any, **_: Any
    ) -> _imports.RolloutOutput:
        """Draws an answer to every prompt."""
        if rollout_config.eos_tokens:
            raise ValueError(
                "rollout.Rollout: eos_tokens is set; only the tokenizer's own end can "
                "be kept, because the sampler does not say at which one it stopped."
            )
        key = jax.random.fold_in(jax.random.key(rollout_config.seed or 0), self.calls)
        self.calls += 1
        longest = rollout_config.max_tokens_to_generate
        drawn = self._sampler(
            input_strings=list(prompts),
            max_generation_steps=longest,
            max_prompt_length=rollout_config.max_prompt_length,
            temperature=rollout_config.temperature,
            top_p=rollout_config.top_p,
            top_k=rollout_config.top_k,
            seed=key,  # pyright: ignore[reportArgumentType] (a key does)
            forbidden_tokens=(self.pad_id(),),
        )
        # An answer that is shorter than the longest stopped at its end.
        ended = [
            np.append(row, self.eos_id()) if len(row) < longest else row
            for row in drawn.tokens
        ]
        return _imports.RolloutOutput(
            text=drawn.text,
            logits=[],
            tokens=ended,
            left_padded_prompt_tokens=np.asarray(drawn.padded_prompt_tokens),
            logprobs=None,
        )

    def get_per_token_logps(
        self, prompt_tokens: jax.Array, completion_tokens: jax.Array
    ) -> jax.Array:
        """`[B, T]` log-probabilities under the policy that drew, as it drew."""
        graph, state = self._sampler.model_def_and_state()
        return _imports.compute_per_token_logps(
            graph,
            state,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            pad_id=self.pad_id(),
            eos_id=self.eos_id(),
            temperature=self._temperature,
        )


def answer(
    model: nnx.Module,
    tokenizer: PolicyTokenizer,
    prompts: Sequence[str],
    sampling: Sampling,
    *,
    batch: int = 16,
) -> list[str]:
    """An answer to every prompt, drawn as in training; the same for the same seed."""
    config = sampling.config()
    rollout = Rollout(model, tokenizer, None, config)
    found: list[str] = []
    for at in range(0, len(prompts), batch):
        part = list(prompts[at : at + batch])
        full = part + part[-1:] * (batch - len(part))  # one shape, one program
        found += rollout.generate(full, config).text[: len(part)]
    return found
