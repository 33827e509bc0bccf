# SPDX-License-Identifier: Apache-2.0
"""Advantages, rewards and losses under names that tunix finds."""

import importlib
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from parts import Letters, policy, prompts_of, train

from fulcra_jax import objectives
from fulcra_jax.alignment import PolicyTokenizer, ValueReward, target_column


def test_registering_again_changes_nothing(adapter):
    registry = importlib.import_module("tunix.rl.function_registry").default_registry
    adapter.register()
    first = {
        (category, name): registry.get(category, name)
        for category in registry.list_categories()
        for name in registry.list_functions(category)
    }
    adapter.register()
    assert all(registry.get(*key) is entry for key, entry in first.items())
    names = {name for _, name in first if name.startswith("fulcra")}
    assert {"fulcra_grpo", "fulcra_dr_grpo", "fulcra_rloo", "fulcra_gdpo"} <= names
    assert {"fulcra", "fulcra_per_value", "fulcra_gspo"} <= names
    assert {"grpo", "sequence-level"} <= {name for _, name in first}  # tunix's own


@pytest.mark.parametrize("kind", ["grpo", "dr_grpo", "rloo"])
def test_advantages_through_the_registry(adapter, kind):
    config = adapter.grpo_config(answers=3, kind=kind)
    registry = importlib.import_module("tunix.rl.function_registry")
    estimate = registry.get_advantage_estimator(config.advantage_estimator)
    rewards = np.array([1.0, 2.0, 6.0, -1.0, -1.0, -1.0])
    # Of 1, 2, 6: mean 3, deviation 7 ** .5; means of the others 4, 3.5, 1.5.
    want = {
        "grpo": np.array([-2, -1, 3]) / 7**0.5,
        "dr_grpo": [-2, -1, 3],
        "rloo": [-3, -1.5, 4.5],
    }[kind]
    found = estimate(rewards=rewards, num_generations=3)
    np.testing.assert_allclose(found, [*want, 0, 0, 0], rtol=1e-5)
    with pytest.raises(ValueError, match=r"rewards has shape \(6, 2\); expected \[N\]"):
        estimate(rewards=np.zeros((6, 2)), num_generations=3)


def test_gdpo_through_the_registry(adapter):
    registry = importlib.import_module("tunix.rl.function_registry")
    rewards = np.zeros((4, 10))
    rewards[:, 5], rewards[:, 7] = [0, -1, 0, -1], [0, 0, -0.1, -0.1]
    # Each value is +-3 ** .5 / 2 within the group; then one scale for the batch.
    root = 3**0.5 / 2
    for weights, first, second in ((None, 1.0, 1.0), (np.eye(10)[5] * 2, 2.0, 0.0)):
        config = adapter.gdpo_config(answers=4, weights=weights)
        estimate = registry.get_advantage_estimator(config.advantage_estimator)
        total = root * np.array(
            [first + second, second - first, first - second, -first - second]
        )
        want = total / total.std(ddof=1)
        found = estimate(rewards=rewards, num_generations=4)
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)
    with pytest.raises(
        ValueError, match=r"rewards has shape \(4,\); expected \[N, V\]"
    ):
        estimate(rewards=rewards[:, 0], num_generations=4)


def test_a_learner_sees_the_rewards_to_the_last_bit(adapter, tokenizer):
    data = [
        {
            "prompts": prompts_of(0),
            "goal": target_column(np.eye(10)[[5, 7, 5, 7]]),
        }
    ] * 3  # the same prompts at every step
    reward = ValueReward(Letters(), column="goal")
    config = adapter.gdpo_config(answers=4, kl_coefficient=0.05)
    learner, seen, logged = train(
        adapter, tokenizer, config, data, reward, micro_batch=2, batch=4
    )
    assert len(seen) == 3
    for step in seen:
        scores = Letters().score(step["prompts"], step["completions"]).scores
        goal = np.repeat(np.eye(10, dtype=np.float32)[[5, 7, 5, 7]], 4, axis=0)
        want = objectives.reward_per_value(jnp.asarray(scores), jnp.asarray(goal))
        fine = np.isfinite(scores).all(1)
        assert 0 < fine.sum()
        np.testing.assert_array_equal(step["rewards"][fine], want[fine])
        assert (step["rewards"][~fine].sum(1) == -2.0).all()
        grouped = step["rewards"].reshape(4, 4, 10)
        np.testing.assert_array_equal(
            step["advantages"], objectives.gdpo_advantage(grouped).reshape(-1)
        )
    numbers = {(name, step): value for name, value, step in logged}
    for n, step in enumerate(seen, 1):
        mean = step["rewards"].sum(1).mean()
        assert numbers["fulcra/reward", n] == pytest.approx(mean, rel=1e-6)
    # The reference is the model that was begun with: no distance, then some.
    assert abs(numbers["actor/kl", 1]) < 1e-6 < numbers["actor/kl", 2]
    # New noise at every step.
    assert seen[0]["completions"] != seen[1]["completions"]
    assert learner.rl_cluster.actor_trainer.train_steps == 3


def test_a_policy_learns_what_is_rewarded(adapter, tokenizer):
    data = [{"prompts": prompts_of(step)} for step in range(12)]
    config = adapter.grpo_config(answers=8, kind="dr_grpo", kl_coefficient=0.0)
    reward = ValueReward(Letters(), np.eye(10)[5])
    _, seen, _ = train(adapter, tokenizer, config, data, reward)
    means = [step["rewards"].mean() for step in seen]
    spread = np.std([step["rewards"].mean() for step in seen[:4]])
    assert np.mean(means[-3:]) > np.mean(means[:3]) + 3 * spread


def test_the_reward_is_a_plain_reward_function_as_well(adapter):
    """In tunix's own manager: what it sums is exact, and a failure is the worst."""
    module = importlib.import_module("tunix.rl.reward_manager")
    reward = ValueReward(Letters(), np.eye(10)[5])
    manager = module.SequenceRewardManager([reward], adapter.grpo_config(answers=2))
    answers = ["aeiou", "bcdfe", "azure", ""]
    found = manager(prompts=["?"] * 4, completions=answers, mode="train")
    assert found["rewards"].tolist() == [
        0.0,
        float(np.float32(0.2) - np.float32(1.0)),
        -2.0,
        -1.0,
    ]


def test_a_manager_wants_one_value_reward(adapter):
    config = adapter.grpo_config(answers=2)
    with pytest.raises(ValueError, match="should be one ValueReward"):
        adapter.RewardManager([lambda **_: [0.0]], config)


@pytest.mark.parametrize("kind", ["grpo", "dr_grpo"])
def test_the_loss_is_the_pure_one_with_the_gradient_of_the_reverse_kl(
    adapter, tokenizer, kind
):
    config = adapter.grpo_config(answers=2, kind=kind, kl_coefficient=0.5)
    config.temperature = 1.0
    registry = importlib.import_module("tunix.rl.function_registry")
    loss = registry.get_policy_loss_fn(config.policy_loss_fn)
    model = policy(adapter, tokenizer, sharp=3.0)
    rng = np.random.default_rng(0)
    prompt = jnp.asarray(rng.integers(5, 320, (2, 4)))
    answer = jnp.asarray([[7, 8, 9, 2], [9, 2, 0, 0]])
    where = answer != 0
    reference = jnp.asarray(rng.normal(-6, 1, (2, 4)), jnp.float32)
    gains = jnp.array([1.0, -1.0])
    example = SimpleNamespace(
        prompt_ids=prompt,
        completion_ids=answer,
        completion_mask=where,
        advantages=gains,
        ref_per_token_logps=reference,
        old_per_token_logps=None,
        segment_ids=None,
        sampler_is_weights=None,
    )

    def by_hand(model):
        ids = jnp.concatenate([prompt, answer], 1)
        attend = jnp.tril(jnp.ones((2, 8, 8), bool)) & (ids != 0)[:, None]
        positions = jnp.tile(jnp.arange(8), (2, 1))
        logits, _ = model(ids, positions, None, attend)
        log_p = jax.nn.log_softmax(logits[:, 3:-1])
        log_p = jnp.take_along_axis(log_p, answer[..., None], -1)[..., 0]
        # On-policy: A log p, and d log p with d = log p - log p_ref, whose gradient
        # on average is that of KL(policy || reference).
        away = jax.lax.stop_gradient(log_p - reference)
        per_token = -gains[:, None] * log_p + 0.5 * away * log_p
        per_token = jnp.where(where, per_token, 0.0)
        if kind == "dr_grpo":
            return per_token.sum() / 8.0
        return (per_token.sum(1) / where.sum(1)).mean()

    def ours(model):
        return loss(model, example, config, tokenizer.pad_id(), tokenizer.eos_id())[0]

    found, want = (
        jax.tree.leaves(nnx.jit(nnx.grad(f))(model)) for f in (ours, by_hand)
    )
    scale = max(float(jnp.abs(x).max()) for x in want)
    assert scale > 1e-3
    for one, other in zip(found, want, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * scale)


def test_packed_sequences_are_refused(adapter, tokenizer):
    config = adapter.grpo_config(answers=2)
    registry = importlib.import_module("tunix.rl.function_registry")
    loss = registry.get_policy_loss_fn(config.policy_loss_fn)
    packed = SimpleNamespace(segment_ids=jnp.zeros((1, 1)), sampler_is_weights=None)
    with pytest.raises(ValueError, match="packed sequences"):
        loss(None, packed, config, 0, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"answers": 1}, "answers is 1"),
        ({"answers": 2, "kl_coefficient": -0.1}, "kl_coefficient -0.1"),
        ({"answers": 2, "clip": 2.0}, "clip 2.0"),
        ({"answers": 2, "iterations": 0}, "iterations 0"),
    ],
)
def test_configurations_that_cannot_be_are_refused(adapter, options, message):
    for make in (adapter.grpo_config, adapter.gdpo_config):
        with pytest.raises(ValueError, match=message):
            make(**options)
    with pytest.raises(KeyError, match="kind 'ppo' is unknown"):
        adapter.grpo_config(answers=2, kind="ppo")


def test_a_learner_that_cannot_be_is_refused(adapter, tokenizer):
    common = {
        "optimizer": optax.sgd(1.0),
        "steps": 1,
        "sampling": adapter.Sampling(),
        "mesh": adapter.make_mesh(),
    }
    parts = (tokenizer, ValueReward(Letters(), "ideal"), adapter.grpo_config(answers=2))
    small = adapter.random_qwen3(vocab_size=8, width=8, heads=2, layers=1)
    outside = PolicyTokenizer(pieces=list, text=str, end_id=1, pad_id_=8)
    with pytest.raises(ValueError, match="pads with 8, but the model has 8 tokens"):
        adapter.make_learner(small, small, outside, *parts[1:], **common)
    with pytest.raises(ValueError, match="there is no reference"):
        adapter.make_learner(small, None, *parts, **common)
    with pytest.raises(ValueError, match="temperature is 0; expected more"):
        adapter.Sampling(temperature=0)
