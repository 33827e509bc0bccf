# SPDX-License-Identifier: Apache-2.0
"""Advantages, losses and reward managers under names that tunix finds."""

import dataclasses
from collections.abc import Callable
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fulcra_jax import _check, objectives
from fulcra_jax.alignment.tunix import _imports
from fulcra_jax.alignment.value_reward import ValueReward
from fulcra_jax.objectives.group import GroupKind

LOSSES = ("grpo", "bnpo", "dr_grpo", "gspo")
_LOSS_OF = {"grpo": "grpo", "dr_grpo": "dr_grpo", "rloo": "dr_grpo", "gdpo": "grpo"}


class RewardManager(_imports.AbstractRewardManager):
    """Rewards of one `ValueReward`, with a log of every value.

    "fulcra" gives tunix `[N]` rewards, "fulcra_per_value" `[N, V]` for `gdpo_config`.
    """

    per_value = False

    def __init__(self, reward_fns: Any, algo_config: Any, **_: Any) -> None:
        """As tunix calls a reward manager."""
        super().__init__(reward_fns, algo_config)
        if len(self.reward_fns) != 1 or not isinstance(self.reward_fns[0], ValueReward):
            raise ValueError(
                "registry.RewardManager: reward_fns should be one ValueReward; to add "
                'rewards of other kinds take reward_manager="sequence-level".'
            )

    def __call__(
        self, prompts: list[str], completions: list[str], **columns: Any
    ) -> dict[str, Any]:
        """Rewards, and what to log of them."""
        reward: Any = self.reward_fns[0]
        judged = reward.judge(prompts, completions, columns)
        return {
            "rewards": judged.per_value if self.per_value else judged.rewards,
            "log_metrics": reward.metrics(judged),
        }


class PerValueRewardManager(RewardManager):
    """`[N, V]` rewards, for `gdpo_config`."""

    per_value = True


def register() -> None:
    """Enters advantages, losses and reward managers in tunix's registry.

    Advantages: fulcra_grpo, fulcra_dr_grpo, fulcra_rloo, fulcra_gdpo. Losses:
    fulcra_grpo, fulcra_bnpo, fulcra_dr_grpo, fulcra_gspo. Reward managers: fulcra,
    fulcra_per_value. The configurations below do it themselves; doing it again changes
    nothing.
    """
    for kind in get_args(GroupKind):
        _enter("advantage_estimator", f"fulcra_{kind}", _group_advantage(kind))
    _enter("advantage_estimator", "fulcra_gdpo", _gdpo_advantage(None))
    for kind in LOSSES:
        _enter("policy_loss_fn", f"fulcra_{kind}", _policy_loss(kind))
    _enter("reward_manager", "fulcra", RewardManager)
    _enter("reward_manager", "fulcra_per_value", PerValueRewardManager)


def grpo_config(
    *,
    answers: int,
    kind: GroupKind = "grpo",
    kl_coefficient: float = 0.04,
    clip: float = 0.2,
    iterations: int = 1,
) -> _imports.GRPOConfig:
    """GRPO, Dr. GRPO or RLOO with the advantages and losses of this project.

    For `GRPOLearner`. Tunix's PPO learner is no alternative: in 0.1.7 it adds rewards
    to an array of integers, so that -0.84 counts as 0.

    Args:
      answers: to every prompt, at least 2.
      kind: as in `group_advantage`; rloo takes the loss of dr_grpo, a plain sum.
      kl_coefficient: of the penalty per token, whose gradient is the reverse KL.
      clip: of the ratio.
      iterations: updates per batch of answers.

    Raises:
      ValueError: if a number is out of range.
      KeyError: if `kind` is unknown.

    Reference:
      Shao et al. 2024 (arXiv 2402.03300); Liu et al. 2025 (arXiv 2503.20783); Ahmadian
      et al. 2024 (arXiv 2402.14740).
    """
    _check.known("registry.grpo_config", "kind", kind, get_args(GroupKind))
    return _config(kind, f"fulcra_{kind}", answers, kl_coefficient, clip, iterations)


def gdpo_config(
    *,
    answers: int,
    weights: Any = None,
    kl_coefficient: float = 0.04,
    clip: float = 0.2,
    iterations: int = 1,
) -> _imports.GRPOConfig:
    """GDPO over the values: each is brought to one scale before they are added.

    That takes the degrees of a graded target out of its rewards again: give them as
    `weights`, for example `objectives.target_weights`. Targets per prompt weigh all
    values the same.

    Args:
      answers: to every prompt, at least 2.
      weights: `[V]` non-negative float; 1 if not given.
      kl_coefficient: as in `grpo_config`.
      clip: as in `grpo_config`.
      iterations: as in `grpo_config`.

    Raises:
      ValueError: if a number is out of range.

    Reference:
      Liu et al. 2026 (arXiv 2601.05242).
    """
    name = "fulcra_gdpo"
    if weights is not None:
        weights = np.asarray(weights, np.float32)
        name += f"{weights.tolist()}"
        _enter("advantage_estimator", name, _gdpo_advantage(weights))
    config = _config("gdpo", name, answers, kl_coefficient, clip, iterations)
    return dataclasses.replace(config, reward_manager="fulcra_per_value")


def _config(
    kind: str,
    estimator: str,
    answers: int,
    kl_coefficient: float,
    clip: float,
    iterations: int,
) -> _imports.GRPOConfig:
    if answers < 2 or iterations < 1 or kl_coefficient < 0.0 or not 0.0 <= clip <= 1.0:
        raise ValueError(
            f"registry: answers is {answers}, iterations {iterations}, kl_coefficient "
            f"{kl_coefficient} and clip {clip}; expected at least 2, 1 and 0, and a "
            "clip in [0, 1]."
        )
    register()
    return _imports.GRPOConfig(
        advantage_estimator=estimator,
        policy_loss_fn=f"fulcra_{_LOSS_OF[kind]}",
        reward_manager="fulcra",
        num_generations=answers,
        num_iterations=iterations,
        beta=kl_coefficient,
        kl_loss_mode="low_var_kl",  # of tunix's own loss, should someone put it back
        epsilon=clip,
    )


def _enter(category: str, name: str, entry: Any) -> None:
    registry = _imports.default_registry
    if name not in registry.list_functions(category):
        registry.register(category, name)(entry)


def _group_advantage(kind: GroupKind) -> Callable[..., np.ndarray]:
    def advantage(rewards: Any, num_generations: int) -> np.ndarray:
        if np.ndim(rewards) != 1:
            raise ValueError(
                f"registry.fulcra_{kind}: rewards has shape {np.shape(rewards)}; "
                "expected [N]. Rewards of every value go through gdpo_config."
            )
        grouped = jnp.asarray(rewards).reshape(-1, num_generations)
        return np.asarray(objectives.group_advantage(grouped, kind=kind)).reshape(-1)

    return advantage


def _gdpo_advantage(weights: np.ndarray | None) -> Callable[..., np.ndarray]:
    def advantage(rewards: Any, num_generations: int) -> np.ndarray:
        if np.ndim(rewards) != 2:
            raise ValueError(
                f"registry.fulcra_gdpo: rewards has shape {np.shape(rewards)}; "
                'expected [N, V], which reward_manager="fulcra_per_value" gives.'
            )
        grouped = jnp.asarray(rewards)
        grouped = grouped.reshape(-1, num_generations, grouped.shape[-1])
        weigh = None if weights is None else jnp.asarray(weights)
        found = objectives.gdpo_advantage(grouped, weights=weigh)
        return np.asarray(found).reshape(-1)

    return advantage


def _policy_loss(kind: Any) -> Callable[..., tuple[jax.Array, dict[str, jax.Array]]]:
    def loss(
        model: nnx.Module,
        train_example: Any,
        algo_config: Any,
        pad_id: int,
        eos_id: int,
        **_: Any,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        example = train_example
        if example.segment_ids is not None or example.sampler_is_weights is not None:
            raise ValueError(
                f"registry.fulcra_{kind}: packed sequences and weights of another "
                "sampler are not known here; leave max_seq_token_per_tpu unset."
            )
        graph, state = nnx.split(model)
        log_prob, logits = _imports.compute_per_token_logps(
            graph,
            state,
            prompt_tokens=example.prompt_ids,
            completion_tokens=example.completion_ids,
            pad_id=pad_id,
            eos_id=eos_id,
            stop_gradient=False,
            return_logits=True,
            temperature=algo_config.temperature,
        )
        where = example.completion_mask.astype(bool)
        now = jax.lax.stop_gradient(log_prob)
        old = example.old_per_token_logps
        old = now if old is None else old
        reference = example.ref_per_token_logps
        total = objectives.grpo_loss(
            log_prob,
            old,
            example.advantages,
            kind=kind,
            clip_low=algo_config.epsilon,
            reference_log_prob=reference,
            kl_coefficient=algo_config.beta or 0.0,
            where=where,
        )
        gain = jnp.broadcast_to(example.advantages[:, None], where.shape)
        apart = jnp.float32(jnp.nan)
        if reference is not None:
            estimate = objectives.kl_estimate(now, reference, kind="k3", where=where)
            apart = objectives.masked_mean(estimate, where)
        entropy = objectives.token_entropy(jax.lax.stop_gradient(logits), where=where)
        clipped = objectives.clip_fraction(
            now, old, gain, clip_low=algo_config.epsilon, where=where
        )
        return total, {
            "kl": apart,
            "pg_clipfrac": clipped,
            "entropy": objectives.masked_mean(entropy, where),
        }

    return loss
