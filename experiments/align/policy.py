# SPDX-License-Identifier: Apache-2.0
"""One step of the policy: from scored answers to new parameters.

Axes: B answers (prompts x answers to each), P tokens of a prompt, R tokens of a
response, V values.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.align.settings import Training
from experiments.toy_lm import decoder as toy
from experiments.toy_lm import sampling
from fulcra_jax import objectives
from fulcra_jax.objectives.distance import Gate
from fulcra_jax.objectives.moments import RunningMoments


class State(NamedTuple):
    """All that a stopped run needs; keys and prompts follow from seed and step."""

    step: jax.Array
    params: Any
    optimizer: Any
    kl_coefficient: jax.Array
    moments: RunningMoments


class Answers(NamedTuple):
    """The drawn answers of a step."""

    prompts: jax.Array
    """`[B, P]`"""
    prompts_where: jax.Array
    """`[B, P]`"""
    tokens: jax.Array
    """`[B, R]`"""
    where: jax.Array
    """`[B, R]`"""
    log_prob: jax.Array
    """`[B, R]` under the policy that drew them."""


Metrics = dict[str, jax.Array]
Update = Callable[[State, Answers, jax.Array], tuple[State, Metrics]]


def make_optimizer(training: Training) -> optax.GradientTransformation:
    """Adam with a short warm-up and a clipped gradient."""
    warmup = min(10, training.steps * training.passes)
    return optax.chain(
        optax.clip_by_global_norm(training.clip_norm),
        optax.adam(optax.linear_schedule(0.0, training.learning_rate, warmup), b2=0.98),
    )


def init_state(params: Any, training: Training) -> State:
    """The state before the first step."""
    return State(
        jnp.zeros((), jnp.int32),
        params,
        make_optimizer(training).init(params),
        jnp.asarray(training.kl_coefficient, jnp.float32),
        objectives.initial_moments(),
    )


def make_update(
    config: toy.DecoderConfig,
    training: Training,
    reference: Any,
    target: jax.Array,
    gate: Gate,
    banned: jax.Array,
) -> Update:
    """The compiled step: reward, penalty, advantage, clipped policy gradient.

    Args:
      config: of the decoder.
      training: the hyperparameters.
      reference: parameters of the start.
      target: `[V]`.
      gate: of the reward; "official" is the one that was released.
      banned: `[W]` bool, ids that are never drawn.

    Returns:
      A function of the state, the answers and their scores `[B, V]`.
    """
    transformation = make_optimizer(training)
    worst = objectives.worst_reward(target, gate=gate)

    def log_prob(params: Any, answers: Answers) -> jax.Array:
        logits = sampling.response_logits(config, params, *answers[:4], banned)
        return sampling.log_probs(logits, answers.tokens, answers.where)

    def loss(
        params: Any, answers: Answers, advantages: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        new = log_prob(params, answers)
        losses = objectives.ppo_policy_loss(
            new, answers.log_prob, advantages, clip_low=training.clip,
            where=answers.where,
        )  # fmt: skip
        return objectives.masked_mean(losses, answers.where), new

    @jax.jit
    def update(
        state: State, reference: Any, answers: Answers, scores: jax.Array
    ) -> tuple[State, Metrics]:
        reward = objectives.baselign_reward(scores, target, gate=gate)
        reward = objectives.guard_reward(reward, worst=worst)
        moments = objectives.update_moments(state.moments, reward)
        k1 = objectives.kl_estimate(
            answers.log_prob, log_prob(reference, answers), where=answers.where
        ).sum(-1)
        total = objectives.scale_scores(reward, moments) - state.kl_coefficient * k1
        groups = total.reshape(training.prompts, training.answers)
        advantages = objectives.group_advantage(groups, kind=training.advantage)
        per_token = jnp.broadcast_to(
            advantages.reshape(-1, 1), answers.log_prob.shape
        ) * answers.where.astype(jnp.float32)
        params, optimizer = state.params, state.optimizer
        value, norm, new = jnp.zeros(()), jnp.zeros(()), answers.log_prob
        for _ in range(training.passes):
            (value, new), gradient = jax.value_and_grad(loss, has_aux=True)(
                params, answers, per_token
            )
            norm = optax.tree.norm(gradient)
            updates, optimizer = transformation.update(gradient, optimizer, params)
            params = optax.apply_updates(params, updates)
        coefficient = state.kl_coefficient
        if training.kl_target:
            coefficient = objectives.adaptive_kl_coefficient(
                coefficient, k1.mean(), target=training.kl_target,
                horizon=training.kl_horizon, batch_size=len(reward),
            )  # fmt: skip
        metrics: Metrics = {
            "loss": value,
            "reward": reward.mean(),
            "reward_deviation": reward.std(),
            "kl": k1.mean(),
            "kl_coefficient": state.kl_coefficient,
            "grad_norm": norm,
            "clipped": objectives.clip_fraction(
                new, answers.log_prob, per_token, clip_low=training.clip,
                where=answers.where,
            ),
        }  # fmt: skip
        state = State(state.step + 1, params, optimizer, coefficient, moments)
        return state, metrics

    return lambda state, answers, scores: update(state, reference, answers, scores)
