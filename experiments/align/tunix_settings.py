# SPDX-License-Identifier: Apache-2.0
"""What an alignment by google-tunix is, as data."""

import dataclasses
from typing import Literal

import tyro

from experiments.align.settings import HeldOut
from fulcra_jax.objectives.distance import Gate


@dataclasses.dataclass(frozen=True)
class Tiny:
    """The random Qwen3 that is taken without --model."""

    vocab_size: int = 512
    width: int = 64
    layers: int = 2
    heads: int = 4
    key_value_heads: int = 2
    mlp_width: int = 128


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Align a language model of tunix's zoo, and measure what changed.

    --model reads a Hugging Face directory of Qwen2, Qwen3 or Llama. Without it a small
    random Qwen3 is taken, to see that everything runs: it speaks in syllables before
    and after.

    The same command continues a run that was stopped, and ends with the same figures.
    --out holds report.md and figures.json, the answers with their scores, metrics.jsonl
    and checkpoints/.
    """

    evaluator: str
    """The directory of a finished run of experiments.train: what scores answers."""
    second: str = ""
    """The same of another evaluator, which only looks; empty does without."""
    target: str = "self-transcendence"
    """A name of fulcra_jax.targets, or ten numbers with commas between."""
    control: bool = False
    """Align to the control of the target instead, and measure against the target."""
    gate: Gate = "none"
    """Of the reward: which values count; official has a loophole, silence."""
    out: str = ""
    """The directory of the run; empty takes a new one under runs/."""
    algorithm: Literal["grpo", "dr_grpo", "rloo", "gdpo"] = "grpo"
    steps: int = 50
    prompts_per_step: int = 8
    answers: int = 8
    """Answers per prompt."""
    micro_batch: int = 0
    """Prompts per gradient, where a step does not fit into memory; 0 takes all."""
    model: str = ""
    """A Hugging Face directory with safetensors; empty takes the random Qwen3."""
    pad_token: str = ""
    """A token of --model to pad with; empty takes the tokenizer's own."""
    lora_rank: int = 0
    """0 trains all parameters."""
    kl_coefficient: float = 0.04
    """Of the penalty per token for leaving the model that was begun with."""
    learning_rate: float = 1e-3
    """1e-6 to 1e-5 for a pretrained model without LoRA."""
    temperature: float = 1.0
    prompts: str = ""
    """JSONL with `prompt` on every line; empty takes the embedded corpus."""
    held_out_prompts: str = ""
    """The same, to measure on; empty takes the last ones of --prompts, or the embedded
    corpus."""
    prompt_length: int = 32
    """Most tokens of a prompt, those of a chat template included."""
    answer_length: int = 40
    held_out: int = 64
    """Prompts that are answered before and after."""
    held_out_answers: int = 4
    """Answers to each of them."""
    best_of: int = 0
    """Answers of the start to each of them, for the best-of-n baseline; 0 for none."""
    resamples: int = 2000
    """Of the bootstrap over held-out prompts."""
    save_every: int = 10
    devices: int = 1
    seed: int = 0
    tiny: Tiny = Tiny()

    def __post_init__(self) -> None:
        least = {"steps": 1, "prompts_per_step": 1, "answers": 2, "held_out": 2}
        least |= {"save_every": 1, "micro_batch": 0, "lora_rank": 0, "devices": 1}
        least |= {"kl_coefficient": 0, "held_out_answers": 1, "best_of": 0}
        least |= {"resamples": 10, "seed": 0}
        for field, bound in least.items():
            if not getattr(self, field) >= bound:
                raise ValueError(
                    f"align tunix: {field} is {getattr(self, field)}; expected at "
                    f"least {bound}."
                )
        if self.micro_batch and self.prompts_per_step % self.micro_batch:
            raise ValueError(
                f"align tunix: micro_batch is {self.micro_batch}; expected a divisor "
                f"of prompts_per_step, which is {self.prompts_per_step}."
            )
        rows = self.prompts_per_step * self.answers
        if rows % self.devices:
            raise ValueError(
                f"align tunix: devices is {self.devices}; expected a divisor of "
                f"prompts_per_step times answers, which is {rows}."
            )

    def measured(self) -> HeldOut:
        """How before and after are measured."""
        return HeldOut(
            prompts=self.held_out,
            answers=self.held_out_answers,
            best_of=max(self.best_of, 1),
            resamples=self.resamples,
        )


@dataclasses.dataclass(frozen=True)
class Compare:
    """Set an aligned run beside the run of its control."""

    run: tyro.conf.Positional[str]
    """The directory of a run of `tunix`."""
    control_run: tyro.conf.Positional[str]
    """That of the same run with --control."""
