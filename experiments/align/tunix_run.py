# SPDX-License-Identifier: Apache-2.0
"""Moves a language model toward a target by a learner of google-tunix.

run.json         what was asked, of what, and by which evaluators
rejects.jsonl    lines of the files of prompts that are not used, where there are any
metrics.jsonl    a line a step; a run that was killed may lack the two before its
                 checkpoint
checkpoints/     states to resume from
scores_*.jsonl   answers to held-out prompts, before and after (see tunix_measure)
figures.json     every figure; report.md and *.png are made of it
"""

import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments import rundir
from experiments.align import prompts, tunix_log, tunix_measure, tunix_report
from experiments.align.tunix_policy import Policy, policy_of
from experiments.align.tunix_settings import Arguments
from experiments.exits import Interrupted, Stop
from fulcra_jax import objectives
from fulcra_jax.alignment import PolicyTokenizer, ValueReward
from fulcra_jax.data import rows
from fulcra_jax.training import writers

_MAY_DIFFER = ("out", "steps", "save_every")


def run(arguments: Arguments) -> pathlib.Path:
    """Runs, or continues, one alignment; returns its directory."""
    tunix_log.quiet()
    try:
        from fulcra_jax.alignment import tunix as adapter
    except ImportError as error:
        raise ValueError(str(error)) from None

    out = pathlib.Path(arguments.out or rundir.default_run("align-tunix"))
    with Stop() as stop, contextlib.ExitStack() as stack:
        heed = _heed(stop, out)
        # All that can be wrong with the input is found before the run exists.
        held = _held(out, arguments)
        goal = tunix_measure.goal_of(arguments)
        judged_by = tunix_measure.judges(arguments)
        mesh = adapter.make_mesh(arguments.devices)
        policy = policy_of(adapter, arguments, mesh, stack)
        sampling = adapter.Sampling(
            arguments.prompt_length,
            arguments.answer_length,
            arguments.temperature,
            arguments.seed,
            policy.ends,
        )
        config = _algorithm(adapter, arguments, goal.trained)
        chosen = prompts.choose(
            arguments.prompts,
            arguments.held_out_prompts,
            arguments.held_out,
            arguments.seed,
            _refuse(policy.tokenizer),
        )
        about = {
            "target": goal.target.tolist(),
            "trained": goal.trained.tolist(),
            "control_is_disjoint": goal.disjoint,
            "evaluators": {who: judge.name for who, judge in judged_by.items()},
            "prompts_sha256": chosen.sha256(),
        }
        _check_begun(out, held, about)
        heed()

        if held is None:
            _begin(out, arguments, about, chosen)
        _tell(policy, arguments, chosen)
        measured = tunix_measure.Measurement(
            out, arguments, chosen.held_out, judged_by, heed
        )

        def draw(model: Any, seed: int) -> Callable[[list[str], Any], Any]:
            drawn_as = dataclasses.replace(sampling, seed=arguments.seed + seed)
            reference = None if model is policy.start else policy.start
            return lambda asked, progress: adapter.answer(
                model, policy.tokenizer, asked, drawn_as,
                reference=reference, progress=progress,
            )  # fmt: skip

        name = pathlib.Path(arguments.model).name or "random Qwen3"
        if not measured.is_done("before", 0):
            measured.of(draw(policy.start, 1), "before", name, 0)
        if arguments.best_of and not (out / "scores_pool.npz").is_file():
            measured.pool(draw(policy.start, 2))
        lines = tunix_log.Lines(out / "metrics.jsonl", arguments.steps)
        learner = adapter.make_learner(
            policy.actor,
            policy.start if arguments.kl_coefficient else None,
            policy.tokenizer,
            ValueReward(
                judged_by["evaluator"].predictor, goal.trained, gate=arguments.gate
            ),
            config,
            optimizer=optax.chain(
                optax.clip_by_global_norm(1.0), optax.adam(arguments.learning_rate)
            ),
            steps=arguments.steps,
            sampling=sampling,
            mesh=mesh,
            batch=arguments.prompts_per_step,
            micro_batch=arguments.micro_batch or arguments.prompts_per_step,
            checkpoints=out / "checkpoints",
            checkpoint_options=_checkpoints(arguments),
            metrics=lines.add,
        )
        trainer = learner.rl_cluster.actor_trainer
        if trainer.train_steps:
            print(f"resumed at step {trainer.train_steps}")
        writers.cut(out / "metrics.jsonl", trainer.train_steps)
        if trainer.train_steps < arguments.steps:
            began = time.monotonic()
            learner.train(_batches(arguments, chosen.training, stop))
            print(f"trained in {time.monotonic() - began:.0f} s")
        lines.close()
        if trainer.train_steps < arguments.steps:
            raise Interrupted(
                f"stopped at step {trainer.train_steps} of {arguments.steps}; the same "
                f"command with --out {out} continues."
            )
        if not measured.is_done("after", trainer.train_steps):
            measured.of(draw(trainer.model, 1), "after", name, trainer.train_steps)
    figures = tunix_measure.figures(out, arguments, goal)
    figures["device"] = jax.devices()[0].device_kind
    rundir.write_whole(out / "figures.json", figures)
    tunix_report.write(out, arguments, figures)
    print(f"written to {out}")
    return out


def _heed(stop: Stop, out: pathlib.Path) -> Callable[[], None]:
    """Ends the run, where nothing is half done, if that was wished."""

    def heed() -> None:
        if stop.asked:
            raise Interrupted(f"stopped; the same command with --out {out} continues.")

    return heed


def _held(out: pathlib.Path, arguments: Arguments) -> dict[str, Any] | None:
    """The run.json of a run that was begun, None of a new one; raises if by others."""
    if not (out / "run.json").is_file():
        rundir.check_free(out)
        return None
    try:
        held = json.loads((out / "run.json").read_text(encoding="utf-8"))
        begun = dict(held["arguments"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{out}/run.json is damaged or of another script; give a new directory."
        ) from None
    now = json.loads(json.dumps(dataclasses.asdict(arguments)))
    other = [k for k in now if now[k] != begun.get(k) and k not in _MAY_DIFFER]
    if other:
        raise ValueError(
            f"{out} was begun with other arguments ({', '.join(other)}); give them "
            "again to continue it, or a new directory."
        )
    return held


def _check_begun(
    out: pathlib.Path, held: dict[str, Any] | None, about: dict[str, Any]
) -> None:
    """Raises if evaluators or prompts are not those that a run was begun with."""
    other = [k for k in about if held is not None and held.get(k) != about[k]]
    if other:
        raise ValueError(
            f"{out}: {', '.join(other)} changed since the run was begun; restore the "
            "files, or give a new directory."
        )


def _begin(
    out: pathlib.Path,
    arguments: Arguments,
    about: dict[str, Any],
    chosen: prompts.Prompts,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    if chosen.rejects:
        rows.write_rejects(out / "rejects.jsonl", chosen.rejects)
    entries = rundir.about(("google-tunix", "qwix")) | about
    entries |= {"notes": chosen.notes, "arguments": dataclasses.asdict(arguments)}
    rundir.write_whole(out / "run.json", entries)


def _tell(policy: Policy, arguments: Arguments, chosen: prompts.Prompts) -> None:
    lora = nnx.state(policy.actor, nnx.LoRAParam)
    trained = lora if jax.tree.leaves(lora) else nnx.state(policy.actor)
    size = lambda state: sum(x.size for x in jax.tree.leaves(state))
    print(
        f"policy: {size(nnx.state(policy.start)):,} parameters, {size(trained):,} of "
        f"them trained; {arguments.steps} steps of {arguments.prompts_per_step} x "
        f"{arguments.answers} answers; {len(chosen.training):,} prompts to train on, "
        f"{len(chosen.held_out):,} held out"
    )
    for note in chosen.notes:
        print(note)


def _refuse(tokenizer: PolicyTokenizer) -> Callable[[str], str]:
    """Says why a prompt cannot be used."""

    def refuse(prompt: str) -> str:
        try:
            tokenizer.encode(prompt)
        except ValueError as error:
            return f"{error} --prompt-length gives more room"
        return ""

    return refuse


def _algorithm(adapter: Any, arguments: Arguments, goal: np.ndarray) -> Any:
    options = {
        "answers": arguments.answers,
        "kl_coefficient": arguments.kl_coefficient,
    }
    if arguments.algorithm == "gdpo":
        weights = objectives.target_weights(jnp.asarray(goal, jnp.float32))
        return adapter.gdpo_config(weights=weights, **options)
    return adapter.grpo_config(kind=arguments.algorithm, **options)


def _batches(arguments: Arguments, given: list[str], stop: Stop) -> Iterator[Any]:
    """The prompts of a step are a function of (seed, step); none after a signal."""
    pool = np.array(given)
    for step in range(arguments.steps):
        if stop.asked:
            return
        rng = np.random.default_rng((arguments.seed, step))
        yield {"prompts": rng.choice(pool, arguments.prompts_per_step)}


def _checkpoints(arguments: Arguments) -> Any:
    import orbax.checkpoint

    return orbax.checkpoint.CheckpointManagerOptions(
        save_interval_steps=arguments.save_every,
        max_to_keep=2,
        enable_async_checkpointing=False,
    )
