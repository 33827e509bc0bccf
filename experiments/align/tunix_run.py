# SPDX-License-Identifier: Apache-2.0
"""Moves a language model toward a target by a learner of google-tunix.

python -m experiments.align tunix --evaluator runs/NAME --target harmless

python -m experiments.align tunix --evaluator runs/NAME --model DIR --lora-rank 8

Without --model a small random Qwen3 is taken, to see that everything runs: it speaks
in syllables before and after. --model reads a Hugging Face directory of Qwen2, Qwen3
or Llama.

The same command goes on with a run that was stopped, and ends with the same parameters.
--out holds run.json, metrics.jsonl, checkpoints/ and, of answers to held-out prompts,
scores_before.jsonl and scores_after.jsonl. A run that was killed may lack the lines of
metrics.jsonl of the two steps before its checkpoint.
"""

import contextlib
import dataclasses
import json
import logging
import math
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments import rundir
from experiments.toy_lm import texts
from fulcra_jax import objectives, targets, values
from fulcra_jax.alignment import PolicyTokenizer, ValueReward
from fulcra_jax.data.tokenizer import PairTokenizer
from fulcra_jax.inference import (
    Predictor,
    ScoredAnswers,
    evaluator_id,
    read_scores,
    write_scores,
)

_POOL = 512
_LORA = ".*(q|k|v|o|gate|up|down)_proj"
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


@dataclasses.dataclass(frozen=True)
class Tiny:
    """The random Qwen3."""

    vocab_size: int = 512
    width: int = 64
    layers: int = 2
    heads: int = 4
    key_value_heads: int = 2
    mlp_width: int = 128


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to align, to what, and how."""

    evaluator: str
    """The directory of a finished run of experiments.train: what scores answers."""
    target: str = "self-transcendence"
    """A name of `fulcra_jax.targets.EXPLICIT`."""
    out: str = ""
    """The directory of the run; empty takes a new one under runs/."""
    algorithm: Literal["grpo", "dr_grpo", "rloo", "gdpo"] = "grpo"
    steps: int = 50
    prompts: int = 8
    """Prompts per step."""
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
    prompt_length: int = 32
    """Most tokens of a prompt, those of a chat template included."""
    answer_length: int = 40
    held_out: int = 64
    """Prompts that are answered before and after."""
    save_every: int = 10
    devices: int = 1
    seed: int = 0
    tiny: Tiny = Tiny()

    def __post_init__(self) -> None:
        least = {"steps": 1, "prompts": 1, "answers": 2, "held_out": 2, "save_every": 1}
        least |= {"micro_batch": 0, "lora_rank": 0, "kl_coefficient": 0, "devices": 1}
        for field, bound in least.items():
            if getattr(self, field) < bound:
                raise ValueError(
                    f"align tunix: {field} is {getattr(self, field)}; expected at "
                    f"least {bound}."
                )
        if self.micro_batch and self.prompts % self.micro_batch:
            raise ValueError(
                f"align tunix: micro_batch is {self.micro_batch}; expected a divisor "
                f"of prompts, which is {self.prompts}."
            )
        if self.prompts * self.answers % self.devices:
            raise ValueError(
                f"align tunix: devices is {self.devices}; expected a divisor of "
                f"prompts times answers, which is {self.prompts * self.answers}."
            )


def run(arguments: Arguments) -> pathlib.Path:
    """Runs, or continues, one alignment; returns its directory."""
    _quiet()
    try:
        from fulcra_jax.alignment import tunix as adapter
    except ImportError as error:
        raise ValueError(str(error)) from None

    # All that can be wrong with the input is found before the run exists.
    out = pathlib.Path(arguments.out or rundir.default_run("align-tunix"))
    resume = _begun(out, arguments)
    goal = np.asarray(targets.target(arguments.target))
    predictor = Predictor.load(arguments.evaluator)
    mesh = adapter.make_mesh(arguments.devices)
    sampling = adapter.Sampling(
        arguments.prompt_length,
        arguments.answer_length,
        arguments.temperature,
        arguments.seed,
    )
    config = _algorithm(adapter, arguments, goal)
    unseen = texts.prompts(arguments.seed, arguments.held_out, "test")
    with contextlib.ExitStack() as stack:
        model, tokenizer = _policy(adapter, arguments, mesh, stack)
        actor, reference = model, nnx.clone(model)
        if arguments.lora_rank:
            actor, reference = _with_lora(model, arguments), model
            adapter.place(actor, mesh)

        # The run exists from here on.
        if not resume:
            out.mkdir(parents=True, exist_ok=True)
            entries = rundir.about(("google-tunix", "qwix"))
            rundir.write_json(
                out / "run.json",
                entries | {"arguments": dataclasses.asdict(arguments)},
            )
        trained = sum(x.size for x in jax.tree.leaves(_trained(actor)))
        print(
            f"policy: {sum(x.size for x in jax.tree.leaves(nnx.state(model))):,} "
            f"parameters, {trained:,} of them trained; {arguments.steps} steps of "
            f"{arguments.prompts} x {arguments.answers} answers"
        )
        at_first = adapter.Sampling(
            sampling.prompt_length,
            sampling.answer_length,
            sampling.temperature,
            sampling.seed + 1,
        )

        def measure(policy: Any, name: str) -> None:
            found = adapter.answer(policy, tokenizer, unseen, at_first)
            _score(out / f"scores_{name}.jsonl", predictor, arguments, unseen, found)

        if not (out / "scores_before.jsonl").exists():
            measure(model, "before")
        lines = Lines(out / "metrics.jsonl", arguments.steps)
        learner = adapter.make_learner(
            actor,
            reference if arguments.kl_coefficient else None,
            tokenizer,
            ValueReward(predictor, goal),
            config,
            optimizer=optax.chain(
                optax.clip_by_global_norm(1.0), optax.adam(arguments.learning_rate)
            ),
            steps=arguments.steps,
            sampling=sampling,
            mesh=mesh,
            batch=arguments.prompts,
            micro_batch=arguments.micro_batch or arguments.prompts,
            checkpoints=out / "checkpoints",
            checkpoint_options=_checkpoints(arguments),
            metrics=lines.add,
        )
        trainer = learner.rl_cluster.actor_trainer
        if resume:
            print(f"resumed at step {trainer.train_steps}")
        rundir.cut_metrics(out / "metrics.jsonl", trainer.train_steps)
        began = time.monotonic()
        learner.train(_batches(arguments))
        lines.close()
        print(f"trained in {time.monotonic() - began:.0f} s")
        measure(trainer.model, "after")
    show(out, goal)
    return out


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


def show(out: pathlib.Path, goal: np.ndarray) -> None:
    """Prints the mean scores before and after, and the mean change with its error."""
    before, after = (
        read_scores(out / f"scores_{name}.jsonl").scores for name in ("before", "after")
    )
    change = after - before
    error = change.std(0, ddof=1) / math.sqrt(len(change))
    print(f"{len(change)} held-out prompts   target  before   after  change")
    for k, name in enumerate(values.BASIC):
        print(
            f"{name:<20}{goal[k]:>9.2f}{before[:, k].mean():>8.3f}"
            f"{after[:, k].mean():>8.3f}{change[:, k].mean():>+8.3f} ± {error[k]:.3f}"
        )
    reward = [
        np.asarray(objectives.baselign_reward(jnp.asarray(x), jnp.asarray(goal)))
        for x in (before, after)
    ]
    print(f"mean reward {reward[0].mean():.3f} before, {reward[1].mean():.3f} after")
    print(f"written to {out}")


def _begun(out: pathlib.Path, arguments: Arguments) -> bool:
    """Whether the run was begun; raises if by other arguments."""
    if not (out / "run.json").is_file():
        rundir.check_free(out)
        return False
    try:
        held = json.loads((out / "run.json").read_text(encoding="utf-8"))["arguments"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{out}/run.json is damaged or of another script; give a new directory."
        ) from None
    now = dataclasses.asdict(arguments)
    may_differ = ("out", "steps", "save_every")
    other = [k for k in now if now[k] != held.get(k) and k not in may_differ]
    if other:
        raise ValueError(
            f"{out} was begun with other arguments ({', '.join(other)}); give them "
            "again to continue it, or a new directory."
        )
    return True


def _policy(
    adapter: Any, arguments: Arguments, mesh: Any, stack: contextlib.ExitStack
) -> tuple[nnx.Module, PolicyTokenizer]:
    if not arguments.model:
        pairs = texts.dialogues(arguments.seed, 1000, "train")
        plain = PairTokenizer.train(
            [text for pair in pairs for text in pair], arguments.tiny.vocab_size
        )
        fields = dataclasses.asdict(arguments.tiny) | {"vocab_size": plain.vocab_size}
        model = adapter.random_qwen3(**fields, seed=arguments.seed)
        adapter.place(model, mesh)
        return model, PolicyTokenizer(
            pieces=lambda text: plain.pieces([text])[0],
            text=plain.text,
            end_id=plain.end_id,
            pad_id_=plain.pad_id,
            before=(plain.start_id,),
            after=(plain.end_id,),
            prompt_length=arguments.prompt_length,
        )
    import transformers

    path = pathlib.Path(arguments.model)
    entries = adapter.read_config(path)
    tokenizer = PolicyTokenizer.of_hub(
        transformers.AutoTokenizer.from_pretrained(str(path), local_files_only=True),
        prompt_length=arguments.prompt_length,
        pad_token=arguments.pad_token,
    )
    model = adapter.load_policy(path, mesh=mesh)
    stack.enter_context(adapter.checkpoint_rope(entries))
    return model, tokenizer


def _with_lora(model: Any, arguments: Arguments) -> Any:
    """The model with low-rank parts beside its weights, which it shares."""
    import qwix  # pyright: ignore[reportMissingImports]

    found = qwix.apply_lora_to_model(
        model,
        qwix.LoraProvider(
            module_path=_LORA,
            rank=arguments.lora_rank,
            alpha=2.0 * arguments.lora_rank,
        ),
        rngs=nnx.Rngs(arguments.seed),
        **model.get_model_input(),
    )
    if not jax.tree.leaves(nnx.state(found, nnx.LoRAParam)):
        raise ValueError("align tunix: the model has no projection that LoRA knows.")
    return found


def _trained(actor: Any) -> Any:
    lora = nnx.state(actor, nnx.LoRAParam)
    return lora if jax.tree.leaves(lora) else nnx.state(actor)


def _algorithm(adapter: Any, arguments: Arguments, goal: np.ndarray) -> Any:
    options = {
        "answers": arguments.answers,
        "kl_coefficient": arguments.kl_coefficient,
    }
    if arguments.algorithm == "gdpo":
        weights = objectives.target_weights(jnp.asarray(goal))
        return adapter.gdpo_config(weights=weights, **options)
    return adapter.grpo_config(kind=arguments.algorithm, **options)


def _batches(arguments: Arguments) -> Iterator[Any]:
    """The prompts of a step are a function of (seed, step)."""
    pool = np.array(texts.prompts(arguments.seed, _POOL, "train"))
    for step in range(arguments.steps):
        rng = np.random.default_rng((arguments.seed, step))
        yield {"prompts": rng.choice(pool, arguments.prompts)}


def _score(
    path: pathlib.Path,
    predictor: Predictor,
    arguments: Arguments,
    prompts: list[str],
    answers: list[str],
) -> None:
    found = predictor.score(prompts, answers)
    policy = pathlib.Path(arguments.model).name or "random Qwen3"
    name = path.stem.removeprefix("scores_")
    write_scores(
        path,
        ScoredAnswers(
            prompts,
            answers,
            [f"{policy}, {name}"] * len(prompts),
            found.scores,
            found.probs,
            [evaluator_id(arguments.evaluator)] * len(prompts),
        ),
    )


def _checkpoints(arguments: Arguments) -> Any:
    import orbax.checkpoint

    return orbax.checkpoint.CheckpointManagerOptions(
        save_interval_steps=arguments.save_every,
        max_to_keep=2,
        enable_async_checkpointing=False,
    )


def _quiet() -> None:
    """Drops what tunix says of every machine without a TPU."""
    logging.getLogger("absl").addFilter(
        lambda record: not record.getMessage().startswith("Skipping non-TPU device")
    )
