# SPDX-License-Identifier: Apache-2.0
"""The adapter to google-tunix, on models of a hundred thousand random parameters."""

import doctest
import importlib
import json
import warnings
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy
import transformers
from flax import nnx

from experiments import train as evaluator_script
from experiments.align import __main__ as script
from experiments.toy_lm import texts
from fulcra_jax import objectives
from fulcra_jax.alignment import PolicyTokenizer, ValueReward, target_column
from fulcra_jax.data.tokenizer import PairTokenizer
from fulcra_jax.inference import read_scores
from fulcra_jax.training import sharding

# Tunix and what it stands on use what jax and flax are about to drop.
pytestmark = [
    pytest.mark.tunix,
    *(
        pytest.mark.filterwarnings(f"ignore:{message}:DeprecationWarning")
        for message in (
            "jax.experimental.shard_map is deprecated",
            "jax.interpreters.pxla.thread_resources is deprecated",
            ".with mesh.. context manager has been deprecated",
            "'sharding' is deprecated, use 'out_sharding'",
            "'.value' access is now deprecated",
            "optax.global_norm is deprecated",
            ".flax.nnx.State. will be deprecated",
            "The 'm.iter_modules..' method is deprecated",
            "'VariableState' was removed",
            "Using deprecated _init_cache in Tunix sampler",
        )
    ),
]

LENGTHS = {"prompt_length": 16, "answer_length": 10}


@pytest.fixture(scope="module")
def adapter():
    """Tunix adds arrays of different rank; importing it changes settings of flax."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("tunix")
        module = importlib.import_module("fulcra_jax.alignment.tunix")
    jax.config.update("jax_numpy_rank_promotion", "allow")
    yield module
    jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module")
def words():
    return PairTokenizer.train(
        [text for pair in texts.dialogues(0, 200, "train") for text in pair], 320
    )


@pytest.fixture(scope="module")
def tokenizer(words):
    return PolicyTokenizer(
        pieces=lambda text: words.pieces([text])[0],
        text=words.text,
        end_id=words.end_id,
        pad_id_=words.pad_id,
        before=(words.start_id,),
        after=(words.end_id,),
        prompt_length=LENGTHS["prompt_length"],
    )


def policy(adapter, tokenizer, mesh=None, sharp=1.0):
    model = adapter.random_qwen3(vocab_size=320, width=32, heads=2, key_value_heads=1)
    nnx.update(model, jax.tree.map(lambda x: x * sharp, nnx.state(model)))
    if mesh is not None:
        adapter.place(model, mesh)
    return model


class Letters:
    """Security by the share of vowels, Conformity by that of blanks; "z" fails."""

    def score(self, prompts, responses):
        scores = np.zeros((len(responses), 10), np.float32)
        for row, text in zip(scores, responses, strict=True):
            row[5] = sum(text.count(x) for x in "aeiou") / max(len(text), 1)
            row[7] = text.count(" ") / max(len(text), 1)
            row[0] = np.nan if "z" in text else 0.0
        return SimpleNamespace(scores=scores)


def prompts_of(step, n=4):
    return np.array(texts.prompts(step, n, "train"))


def train(adapter, tokenizer, config, data, reward, **options):
    """Trains on one device; returns the learner, what it saw and what it logged."""
    mesh = adapter.make_mesh(1)
    model = policy(adapter, tokenizer, mesh)
    seen, logged = [], []
    learner = adapter.make_learner(
        model,
        nnx.clone(model),
        tokenizer,
        reward,
        config,
        optimizer=optax.adam(1e-2),
        steps=len(data),
        sampling=adapter.Sampling(**LENGTHS),
        mesh=mesh,
        metrics=lambda *entry: logged.append(entry),
        **options,
    )
    learner.metric_fns = [lambda **kwargs: seen.append(kwargs) or {}]
    learner.train(data)
    return learner, seen, logged


# Advantages and rewards


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


# Sampling


@pytest.fixture(scope="module")
def drawn(adapter, tokenizer):
    """Two calls of one rollout, of a policy that ends often."""
    model = policy(adapter, tokenizer)
    table = model.embedder.input_embedding
    # The end and padding are as likely as a tenth of all other tokens together.
    table[...] = table[...].at[tokenizer.eos_id()].set(0.0)
    sampling = adapter.Sampling(16, 24, temperature=2.0)
    config = sampling.config()
    rollout = adapter.Rollout(model, tokenizer, None, config)
    prompts = list(prompts_of(0, 16))
    return rollout, [rollout.generate(prompts, config) for _ in range(2)]


def test_every_call_draws_anew_and_a_resumed_one_the_same(adapter, tokenizer, drawn):
    rollout, (first, second) = drawn
    assert first.text != second.text
    config = adapter.Sampling(16, 24, temperature=2.0).config()
    again = adapter.Rollout(rollout.model(), tokenizer, None, config)
    again.calls = 1
    assert again.generate(list(prompts_of(0, 16)), config).text == second.text


def test_an_answer_keeps_its_end_and_holds_no_padding(tokenizer, drawn):
    _, outputs = drawn
    rows = [row for output in outputs for row in output.tokens]
    short = [row for row in rows if len(row) < 24]
    assert short
    for row in rows:
        inside = row[:-1] if len(row) < 24 else row[:23]
        assert tokenizer.eos_id() not in inside
        assert tokenizer.pad_id() not in row
    assert all(row[-1] == tokenizer.eos_id() for row in short)


def test_old_log_probabilities_are_those_it_drew_with(tokenizer, drawn):
    rollout, (output, _) = drawn
    row = output.tokens[0]
    prompt = output.left_padded_prompt_tokens[0]
    found = rollout.get_per_token_logps(
        jnp.asarray(prompt)[None], jnp.asarray(row)[None]
    )
    ids = np.concatenate([prompt[prompt != tokenizer.pad_id()], row])
    logits, _ = rollout.model()(
        jnp.asarray(ids)[None],
        jnp.arange(len(ids))[None],
        None,
        jnp.tril(jnp.ones((1, len(ids), len(ids)), bool)),
    )
    scaled = np.asarray(logits[0], np.float64)[-len(row) - 1 : -1] / 2.0
    want = scaled - np.log(np.exp(scaled).sum(-1, keepdims=True))
    np.testing.assert_allclose(found[0], want[np.arange(len(row)), row], atol=1e-4)


def test_one_end_only(adapter, tokenizer, drawn):
    rollout, _ = drawn
    config = adapter.Sampling(16, 24).config()
    config.eos_tokens = [1, 2]
    with pytest.raises(ValueError, match="eos_tokens is set"):
        rollout.generate(["a"], config)


def test_answers_do_not_depend_on_how_many_are_asked_for(adapter, tokenizer):
    model = policy(adapter, tokenizer)
    sampling = adapter.Sampling(**LENGTHS)
    some = list(prompts_of(0, 6))
    whole = adapter.answer(model, tokenizer, some, sampling, batch=4)
    assert len(whole) == 6
    part = adapter.answer(model, tokenizer, some[:4], sampling, batch=4)
    assert part == whole[:4]


# Loss


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


# Checkpoints of Hugging Face


HUB = {
    "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 48,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 320,
    "rms_norm_eps": 1e-6, "head_dim": 8, "hidden_act": "silu", "rope_theta": 10_000.0,
    "tie_word_embeddings": False,
}  # fmt: skip
LLAMA_3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}  # fmt: skip


def hub_tensors(family, config):
    """Random tensors under the names of transformers."""
    rng = np.random.default_rng(0)
    width, mlp = config["hidden_size"], config["intermediate_size"]
    head = width // config["num_attention_heads"]
    narrow = head * config["num_key_value_heads"]
    draw = lambda *shape: (0.2 * rng.normal(size=shape)).astype(np.float32)
    found = {
        "model.embed_tokens.weight": 5 * draw(config["vocab_size"], width),
        "model.norm.weight": 1 + draw(width),
    }
    if not config["tie_word_embeddings"]:
        found["lm_head.weight"] = draw(config["vocab_size"], width)
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}."
        for name, out, into in (
            ("self_attn.q_proj", width, width), ("self_attn.k_proj", narrow, width),
            ("self_attn.v_proj", narrow, width), ("self_attn.o_proj", width, width),
            ("mlp.gate_proj", mlp, width), ("mlp.up_proj", mlp, width),
            ("mlp.down_proj", width, mlp),
        ):  # fmt: skip
            found[f"{at}{name}.weight"] = draw(out, into)
            if family == "qwen2" and name[-6:] in ("q_proj", "k_proj", "v_proj"):
                found[f"{at}{name}.bias"] = draw(out)
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"{at}{name}.weight"] = 1 + draw(width)
        if family == "qwen3":
            for name in ("q_norm", "k_norm"):
                found[f"{at}self_attn.{name}.weight"] = 1 + draw(head)
    return found


def hub_directory(path, family, words=None, **changes):
    config = HUB | {"model_type": family} | changes
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    tensors = hub_tensors(family, config)
    safetensors.numpy.save_file(tensors, path / "model.safetensors")
    if words is not None:
        words.save(path / "plain")
        transformers.PreTrainedTokenizerFast(
            tokenizer_file=str(path / "plain" / "tokenizer.json"),
            eos_token="[SEP]", pad_token="[PAD]", bos_token="[CLS]", unk_token="[UNK]",
        ).save_pretrained(path)  # fmt: skip
    return config, tensors


def reference_logits(config, tensors, ids, frequencies):
    """The three families in float64, written after transformers' modeling files."""
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    t = {name: x.astype(np.float64) for name, x in tensors.items()}

    def norm(x, w):
        return w * x / np.sqrt((x**2).mean(-1, keepdims=True) + config["rms_norm_eps"])

    def project(x, at):
        return x @ t[at + ".weight"].T + t.get(at + ".bias", 0.0)

    def turn(x):
        angle = np.arange(len(ids))[:, None] * frequencies
        half = x.shape[-1] // 2
        z = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angle)[:, None]
        return np.concatenate([z.real, z.imag], -1)

    x = t["model.embed_tokens.weight"][ids]
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}."
        y = norm(x, t[at + "input_layernorm.weight"])
        q, k, v = (
            project(y, f"{at}self_attn.{name}_proj").reshape(len(ids), n, -1)
            for name, n in (("q", heads), ("k", groups), ("v", groups))
        )
        if at + "self_attn.q_norm.weight" in t:
            q = norm(q, t[at + "self_attn.q_norm.weight"])
            k = norm(k, t[at + "self_attn.k_norm.weight"])
        q, k = turn(q), turn(k)
        k, v = (np.repeat(z, heads // groups, 1) for z in (k, v))
        score = np.einsum("thd,shd->hts", q, k) / np.sqrt(q.shape[-1])
        score = np.where(np.tri(len(ids), dtype=bool), score, -np.inf)
        weight = np.exp(score - score.max(-1, keepdims=True))
        weight /= weight.sum(-1, keepdims=True)
        mixed = np.einsum("hts,shd->thd", weight, v).reshape(len(ids), -1)
        x = x + project(mixed, at + "self_attn.o_proj")
        y = norm(x, t[at + "post_attention_layernorm.weight"])
        gate = project(y, at + "mlp.gate_proj")
        gate = gate / (1 + np.exp(-gate)) * project(y, at + "mlp.up_proj")
        x = x + project(gate, at + "mlp.down_proj")
    out = t.get("lm_head.weight", t["model.embed_tokens.weight"])
    return norm(x, t["model.norm.weight"]) @ out.T


def logits_of(model, ids):
    n = len(ids)
    found, _ = model(
        jnp.asarray(ids)[None],
        jnp.arange(n)[None],
        None,
        jnp.tril(jnp.ones((1, n, n), bool)),
    )
    return np.asarray(found[0])


def frequencies_of(config):
    """Of heads of width 8, by hand."""
    plain = 10_000.0 ** -(np.arange(4) / 4)
    if "rope_scaling" not in config:
        return plain
    # Turns in 64 positions: 10.2 stays, 1.02 is blended, .10 and .01 slow down.
    share, slow = (64 * 0.1 / (2 * np.pi) - 1) / 3, plain / 8
    return np.array([1.0, (1 - share) * slow[1] + share * 0.1, slow[2], slow[3]])


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("qwen2", {}),
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen3", {}),
        ("qwen3", {"tie_word_embeddings": True}),
        ("qwen3", {"rope_scaling": LLAMA_3}),
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True, "rope_scaling": LLAMA_3}),
    ],
)
def test_a_checkpoint_is_loaded_as_it_is_meant(adapter, tmp_path, family, changes):
    config, tensors = hub_directory(tmp_path / "m", family, **changes)
    model = adapter.load_policy(tmp_path / "m", mesh=adapter.make_mesh())
    ids = np.random.default_rng(1).integers(0, 320, 40)
    want = reference_logits(config, tensors, ids, frequencies_of(config))
    with adapter.checkpoint_rope(config):
        inside = logits_of(model, ids)
    np.testing.assert_allclose(inside, want, atol=2e-4 * want.std())
    outside = np.abs(logits_of(model, ids) - want).max()
    if family == "qwen2":
        assert outside < 2e-4 * want.std()
    else:
        assert outside > 0.1 * want.std()  # the reason for the block


def test_the_block_ends_with_an_error_as_well(adapter):
    model = importlib.import_module("tunix.models.llama3.model")
    before, held = model.apply_rope, []
    config = {"model_type": "llama", "rope_theta": 1, "head_dim": 2}

    def fail():
        with adapter.checkpoint_rope(config):
            held.append(model.apply_rope)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert held[0] is not before
    assert model.apply_rope is before


@pytest.mark.parametrize(
    ("family", "changes", "error", "message"),
    [
        ("gemma2", {}, KeyError, "'gemma2' is unknown; known are: qwen2, qwen3, llama"),
        ("qwen3", {"hidden_act": "gelu"}, ValueError, "hidden_act is 'gelu'"),
        ("qwen3", {"attention_bias": True}, ValueError, "attention_bias is True"),
        ("llama", {"mlp_bias": True}, ValueError, "mlp_bias is True"),
        ("qwen2", {"use_sliding_window": True}, ValueError, "use_sliding_window is Tr"),
        (
            "qwen2",
            {"rope_scaling": {"type": "yarn"}},
            ValueError,
            "rope_type is 'yarn'",
        ),
    ],
)
def test_checkpoints_that_tunix_would_load_wrong_are_refused(
    adapter, tmp_path, family, changes, error, message
):
    path = tmp_path / "m"
    path.mkdir()
    config = HUB | {"model_type": family} | changes
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(error, match=message):
        adapter.load_policy(path, mesh=adapter.make_mesh())


def test_a_directory_without_a_model_is_refused(adapter, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        adapter.load_policy(tmp_path, mesh=adapter.make_mesh())
    (tmp_path / "config.json").write_text(json.dumps(HUB | {"model_type": "qwen3"}))
    with pytest.raises(FileNotFoundError, match=r"holds no \*\.safetensors"):
        adapter.load_policy(tmp_path, mesh=adapter.make_mesh())


def test_examples_in_the_docstrings(adapter):
    for name in ("learner", "models", "registry", "rollout"):
        module = importlib.import_module(f"fulcra_jax.alignment.tunix.{name}")
        assert doctest.testmod(module).failed == 0


# The script


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """A finished tiny evaluator."""
    path = tmp_path_factory.mktemp("runs") / "judge"
    size = ["--source.train", "64", "--source.dev", "24", "--source.test", "24"]
    real = sharding.make_mesh
    with pytest.MonkeyPatch.context() as patch:  # eight devices on two cores are slow
        patch.setattr(sharding, "make_mesh", lambda _=0: real(1))
        words = ["debug", "--run", str(path), "--steps", "8", *size]
        assert evaluator_script.main(words) == 0
    return path


def command(judge, out, **options):
    chosen = {
        "steps": 4, "prompts": 2, "answers": 2, "held-out": 3, "save-every": 2,
        "prompt-length": 16, "answer-length": 8, "tiny.width": 32, "tiny.layers": 1,
    } | options  # fmt: skip
    words = ["tunix", "--evaluator", str(judge), "--out", str(out)]
    for name, given in chosen.items():
        words += [f"--{name}", str(given)]
    return words


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_that_goes_on_ends_as_one_that_was_not_stopped(
    adapter, judge, tmp_path, capsys
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert script.main(command(judge, whole)) == 0
    assert script.main(command(judge, parts, steps=3)) == 0
    assert script.main(command(judge, parts)) == 0
    assert "resumed at step 3" in capsys.readouterr().out
    for name in ("scores_before.jsonl", "scores_after.jsonl", "metrics.jsonl"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name
    metrics = lines_of(whole / "metrics.jsonl")
    assert [line["step"] for line in metrics] == [1, 2, 3, 4]
    assert all(-4.0 <= line["reward"] <= 0.0 for line in metrics)
    assert all(len(line["score"]) == 10 for line in metrics)
    assert abs(metrics[0]["kl"]) < 1e-6 < metrics[-1]["kl"]
    assert metrics[0]["failures"] == 0.0
    before, after = (
        read_scores(whole / f"scores_{name}.jsonl") for name in ("before", "after")
    )
    assert before.prompts == after.prompts
    assert before.responses != after.responses
    assert json.loads((whole / "run.json").read_text())["arguments"]["steps"] == 4

    assert script.main(command(judge, whole, seed=1)) == 1
    said = capsys.readouterr().err
    assert "was begun with other arguments (seed)" in said


def test_a_checkpoint_is_aligned_by_lora(adapter, judge, words, tmp_path, capsys):
    hub_directory(tmp_path / "model", "llama", words, rope_scaling=LLAMA_3)
    options = {
        "model": tmp_path / "model", "lora-rank": 2, "algorithm": "gdpo",
        "target": "uk", "steps": 2, "micro-batch": 1,
    }  # fmt: skip
    assert script.main(command(judge, tmp_path / "run", **options)) == 0
    said = capsys.readouterr().out
    # Rank 2: 7 projections of 2 layers, (32 + 32), (32 + 16) twice, and so on.
    per_layer = 2 * ((32 + 32) * 2 + (32 + 16) * 2 + (32 + 48) * 3)
    assert f"{2 * per_layer:,} of them trained" in said
    metrics = lines_of(tmp_path / "run" / "metrics.jsonl")
    assert [line["step"] for line in metrics] == [1, 2]
    model = importlib.import_module("tunix.models.llama3.model")
    assert model.apply_rope.__module__ == "tunix.models.llama3.model"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "good"}, "'good' is unknown"),
        ({"evaluator": "nowhere"}, "nowhere does not exist"),
        ({"model": "nowhere"}, "holds no config.json"),
        ({"micro-batch": 3}, "micro_batch is 3; expected a divisor"),
        ({"answers": 1}, "answers is 1; expected at least 2"),
        ({"temperature": 0}, "temperature is 0"),
    ],
)
def test_the_script_refuses_in_one_sentence(
    adapter, judge, tmp_path, options, message, capsys
):
    out = tmp_path / "run"
    try:
        code = script.main(command(judge, out, **options))
    except SystemExit as left:  # what the command line itself refuses
        code = left.code
    assert code != 0
    told = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in told
    assert not out.exists()
