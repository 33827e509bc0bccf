# SPDX-License-Identifier: Apache-2.0
"""How answers are drawn: tunix's own sampler, with what a loss needs of it."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fulcra_jax.alignment.policy_tokenizer import PolicyTokenizer
from fulcra_jax.alignment.tunix import _imports
from fulcra_jax.alignment.tunix.divergence import answer_kl


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How answers are drawn."""

    prompt_length: int = 64
    """Tokens that prompts are padded to."""
    answer_length: int = 64
    """Most tokens of an answer, its end included."""
    temperature: float = 1.0
    seed: int = 0
    ends: tuple[int, ...] = ()
    """All that ends an answer; the tokenizer's own end if empty. See `end_tokens`."""

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
            eos_tokens=list(self.ends) or None,
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
        # The sampler cuts answers before their end and does not say at which one it
        # stopped: what it drew is taken from where it leaves its last step.
        self._drawn: Any = None
        sampler: Any = self._sampler
        decode = sampler._compiled_decode_fn

        def decode_and_keep(*args: Any) -> Any:
            state = decode(*args)
            self._drawn = state.token_buffer
            return state

        sampler._compiled_decode_fn = decode_and_keep

    def generate(
        self, prompts: list[str], rollout_config: Any, **_: Any
    ) -> _imports.RolloutOutput:
        """Draws an answer to every prompt."""
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
            eos_tokens=rollout_config.eos_tokens,
            forbidden_tokens=(self.pad_id(),),
        )
        whole = np.asarray(self._drawn)[:, np.shape(drawn.padded_prompt_tokens)[1] :]
        ended = [
            row[: min(len(cut) + 1, longest)]
            for row, cut in zip(whole, drawn.tokens, strict=True)
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


class Answers(NamedTuple):
    """N answers of a model."""

    texts: list[str]
    tokens: np.ndarray
    """`[N]` int32 how many, the end included."""
    kl: np.ndarray
    """`[N]` float32 nats to the reference; 0 without one."""


def answer(
    model: nnx.Module,
    tokenizer: PolicyTokenizer,
    prompts: Sequence[str],
    sampling: Sampling,
    *,
    reference: nnx.Module | None = None,
    batch: int = 16,
    progress: Callable[[int], None] = lambda _: None,
) -> Answers:
    """An answer to every prompt, drawn as in training; the same for the same seed.

    Args:
      model: what answers.
      tokenizer: of it.
      prompts: N texts.
      sampling: how answers are drawn.
      reference: what the KL is taken to, by `answer_kl`; None for none.
      batch: answers drawn at once.
      progress: called with the number of answers done.
    """
    config = sampling.config()
    rollout = Rollout(model, tokenizer, None, config)
    texts: list[str] = []
    tokens, kl = [np.zeros(0, np.int32)], [np.zeros(0, np.float32)]
    for at in range(0, len(prompts), batch):
        part = list(prompts[at : at + batch])
        n = len(part)
        full = part + part[-1:] * (batch - n)  # one shape, one program
        output = rollout.generate(full, config)
        texts += output.text[:n]
        tokens.append(np.array([len(row) for row in output.tokens[:n]], np.int32))
        away = np.zeros(n, np.float32)
        if reference is not None:
            rows = np.full((batch, sampling.answer_length), tokenizer.pad_id())
            for place, row in enumerate(output.tokens):
                rows[place, : len(row)] = row
            away = answer_kl(
                model,
                reference,
                jnp.asarray(output.left_padded_prompt_tokens),
                jnp.asarray(rows),
                pad_id=tokenizer.pad_id(),
                end_id=tokenizer.eos_id(),
                temperature=sampling.temperature,
            )
        kl.append(np.asarray(away)[:n])
        progress(len(texts))
    return Answers(texts, np.concatenate(tokens), np.concatenate(kl))
