# SPDX-License-Identifier: Apache-2.0
"""A learner of tunix, with all its roles on one mesh."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

from fulcra_jax.alignment.policy_tokenizer import PolicyTokenizer
from fulcra_jax.alignment.tunix import _imports
from fulcra_jax.alignment.tunix.rollout import Rollout, Sampling
from fulcra_jax.alignment.value_reward import ValueReward


def make_learner(
    actor: Any,
    reference: nnx.Module | None,
    tokenizer: PolicyTokenizer,
    reward: ValueReward,
    config: _imports.GRPOConfig,
    *,
    optimizer: Any,
    steps: int,
    sampling: Sampling,
    mesh: jax.sharding.Mesh,
    micro_batch: int | None = None,
    batch: int | None = None,
    checkpoints: pathlib.Path | None = None,
    checkpoint_options: Any = None,
    metrics: Callable[[str, Any, int], None] | None = None,
) -> _imports.GRPOLearner:
    """A learner with all roles on one mesh; it resumes from `checkpoints`.

    `learner.train(dataset)` takes batches {"prompts": array of texts, column: array}
    and begins at the first of them: a resumed run skips those it has seen. The trained
    model is `learner.rl_cluster.actor_trainer.model`.

    Args:
      actor: what is trained, an `nnx.Module` of tunix; with LoRA, only that.
      reference: what the KL penalty pulls to; None without penalty.
      tokenizer: of both.
      reward: of `config`'s manager.
      config: of `grpo_config` or `gdpo_config`.
      optimizer: an optax transformation.
      steps: after which training ends.
      sampling: how answers are drawn.
      mesh: with the axes "fsdp" and "tp"; see `make_mesh`.
      micro_batch: prompts per gradient; all of a batch if not given.
      batch: prompts per step; needed with `micro_batch`.
      checkpoints: a directory; None saves nothing.
      checkpoint_options: of orbax's CheckpointManager.
      metrics: called with (name, number, step), the step from 1 on; the numbers of
        a step come in two parts, and the last ones at the end.

    Raises:
      ValueError: if the tokenizer pads with an id that the model does not have, or the
        penalty has no reference.
    """
    vocabulary = actor.config.vocab_size
    if tokenizer.pad_id() >= vocabulary:
        raise ValueError(
            f"learner.make_learner: the tokenizer pads with {tokenizer.pad_id()}, but "
            f"the model has {vocabulary} tokens; pad with one that it has."
        )
    if config.beta and reference is None:
        raise ValueError(
            f"learner.make_learner: kl_coefficient is {config.beta}, but there is no "
            "reference to keep to."
        )
    backend = None if metrics is None else _Listener(metrics)
    cluster = _imports.RLCluster(
        actor=actor,
        reference=reference,
        tokenizer=tokenizer,
        cluster_config=_imports.ClusterConfig(
            role_to_mesh=dict.fromkeys(_imports.Role, mesh),
            rollout_engine=Rollout,
            rollout_config=sampling.config(),
            training_config=_imports.RLTrainingConfig(
                actor_optimizer=optimizer,
                eval_every_n_steps=steps + 1,
                max_steps=steps * config.num_iterations,
                mini_batch_size=batch,
                train_micro_batch_size=micro_batch,
                compute_logps_micro_batch_size=micro_batch,
                rollout_micro_batch_size=batch,
                checkpoint_root_directory=checkpoints and str(checkpoints.resolve()),
                checkpointing_options=checkpoint_options,
                metrics_logging_options=backend
                and _imports.MetricsLoggerOptions(
                    log_dir="", backend_kwargs={"custom_backend": [lambda: backend]}
                ),
            ),
        ),
    )
    learner = _imports.GRPOLearner(cluster, config, reward)
    cluster.actor_trainer.with_rl_metrics_to_log(
        dict.fromkeys(("kl", "pg_clipfrac", "entropy"), np.mean)
    )
    # Where a resumed run goes on. Tunix counts updates, of which a batch may have
    # several, and does not save the number of batches with its last checkpoint.
    done = cluster.actor_trainer.train_steps // config.num_iterations
    cluster.global_steps = done
    cluster.rollout.calls = done  # pyright: ignore[reportAttributeAccessIssue]
    learner._last_iter_step //= config.num_iterations
    return learner


def make_mesh(devices: int = 1) -> jax.sharding.Mesh:
    """A mesh of the first devices, over which rows and parameters are spread."""
    return jax.sharding.Mesh(
        np.array(jax.devices()[:devices]).reshape(devices, 1), ("fsdp", "tp")
    )


def place(model: nnx.Module, mesh: jax.sharding.Mesh) -> None:
    """Puts the parameters where their annotations say on the mesh.

    Tunix copies a model that is not on its mesh; LoRA and its reference would then no
    longer share their weights.
    """
    state = nnx.state(model)
    specs = nnx.get_partition_spec(state)
    at = lambda x, spec: jax.device_put(
        x, jax.sharding.NamedSharding(mesh, spec or jax.sharding.PartitionSpec())
    )
    nnx.update(model, jax.tree.map(at, state, specs))


class _Listener:
    """Passes tunix's numbers on to a function."""

    def __init__(self, metrics: Callable[[str, Any, int], None]) -> None:
        self._metrics: Callable[[str, Any, int], None] | None = metrics

    def log_scalar(self, event: str, value: Any, **fields: Any) -> None:
        """As jax.monitoring calls it, with all there is in the process."""
        prefix, _, name = event.partition("/train/")
        if name and self._metrics:
            # Tunix counts batches from 0 and updates from 1.
            step = int(fields["step"]) + (prefix != "actor")
            self._metrics(f"{prefix}/{name}", value, step)

    def close(self) -> None:
        """Hears nothing any more: jax keeps its listeners as long as the process."""
        self._metrics = None
