# SPDX-License-Identifier: Apache-2.0
"""Rewards of an evaluator, rotary positions, tokenizers: what needs no rollout loop."""

import importlib
import sys
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
import transformers

from experiments.align import __main__ as align
from fulcra_jax import objectives, targets, values
from fulcra_jax.alignment import (
    PolicyTokenizer,
    ValueReward,
    rope_frequencies,
    rotate,
    target_column,
)

SECURITY, CONFORMITY = (values.BASIC.index(x) for x in ("Security", "Conformity"))


def evaluator_of(scores):
    """Scores the answer "3" as row 3."""
    rows = np.asarray(scores, np.float32)
    return SimpleNamespace(
        score=lambda prompts, answers: SimpleNamespace(
            scores=rows[[int(answer) for answer in answers]]
        )
    )


def random_scores(n=6):
    return np.random.default_rng(0).uniform(-1, 1, (n, 10)).astype(np.float32)


def texts(n):
    return {"prompts": ["?"] * n, "completions": [str(i) for i in range(n)]}


def test_a_reward_by_hand():
    scores = np.zeros((3, 10))
    scores[0, [SECURITY, CONFORMITY]] = 0.75, -0.2  # .25, and 1: -.2 says nothing
    scores[1, [SECURITY, CONFORMITY]] = 1.0, 1.0
    scores[2, [SECURITY, CONFORMITY]] = -1.0, 0.5  # 2 and .5
    reward = ValueReward(evaluator_of(scores), "harmless")
    assert reward(**texts(3)) == [-1.25, 0.0, -2.5]


@pytest.mark.parametrize("gate", ["none", "target", "official"])
@pytest.mark.parametrize("name", ["ideal", "uk"])
def test_rewards_are_those_of_objectives_to_the_last_bit(gate, name):
    scores, goal = random_scores(), targets.target(name)
    reward = ValueReward(evaluator_of(scores), name, gate=gate)
    judged = reward.judge(*texts(6).values(), {})
    want = objectives.baselign_reward(jnp.asarray(scores), goal, gate=gate)
    single = objectives.reward_per_value(jnp.asarray(scores), goal, gate=gate)
    np.testing.assert_array_equal(judged.rewards, want)
    np.testing.assert_array_equal(judged.per_value, single)
    assert reward(**texts(6)) == [float(x) for x in want]
    assert len(set(judged.rewards.tolist())) == 6


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [SECURITY, 0])
def test_a_failed_score_gets_the_worst_reward(broken, column):
    scores = random_scores()
    scores[2, column] = broken
    judged = ValueReward(evaluator_of(scores), "harmless").judge(*texts(6).values(), {})
    assert judged.failed.tolist() == [False, False, True, False, False, False]
    assert judged.rewards[2] == -4.0  # two values, each on the far side: 2 + 2
    assert judged.per_value[2].sum() == -4.0
    assert judged.rewards.argmin() == 2
    assert np.isfinite(judged.rewards).all()


def test_every_prompt_may_have_its_target():
    scores = random_scores(3)
    goals = np.stack([targets.EXPLICIT[x].vector for x in ("ideal", "harmless", "uk")])
    want = objectives.baselign_reward(
        jnp.asarray(scores), jnp.asarray(goals, jnp.float32)
    ).tolist()
    reward = ValueReward(evaluator_of(scores), column="goal")
    assert reward(**texts(3), goal=np.array(["ideal", "harmless", "uk"])) == want
    assert reward(**texts(3), goal=target_column(goals)) == want
    assert reward(**texts(3), goal=goals, mode="train") == want
    assert len(set(want)) == 3


def test_metrics_by_hand():
    scores = np.zeros((3, 10))
    scores[0, [SECURITY, CONFORMITY, 0]] = 0.75, 0.3, 0.9  # .3 still says nothing
    scores[1, [SECURITY, CONFORMITY, 0]] = 0.25, -0.5, 0.1
    scores[2] = np.nan
    reward = ValueReward(evaluator_of(scores), "harmless")
    found = reward.metrics(reward.judge(*texts(3).values(), {}))
    assert found["fulcra/failures"] == (1.0, np.sum)
    assert found["fulcra/no_connection"] == (0.5, np.mean)
    assert found["fulcra/score/Security"][0] == 0.5
    assert found["fulcra/score/Self-direction"][0] == 0.5
    mean = (-0.25 - 0.7 - 0.75 - (1 + (0.5 - 0.3) / 0.7) - 4) / 3
    assert found["fulcra/reward"][0] == pytest.approx(mean, rel=1e-6)
    assert sum(name.startswith("fulcra/score/") for name in found) == 10


def test_metrics_of_nothing_are_undefined():
    reward = ValueReward(evaluator_of(np.full((1, 10), np.nan)), "harmless")
    found = reward.metrics(reward.judge(["?"], ["0"], {}))
    assert np.isnan(found["fulcra/no_connection"][0])
    assert np.isnan(found["fulcra/score/Power"][0])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, "either target, for all prompts, or column"),
        ({"target": "ideal", "column": "goal"}, ValueError, "either target"),
        ({"target": np.ones(9)}, ValueError, r"shape \(9,\)"),
        ({"target": np.full(10, 2.0)}, ValueError, r"expected \[10\] in \[-1, 1\]"),
        ({"target": np.full(10, np.nan)}, ValueError, r"in \[-1, 1\]"),
        ({"target": "good"}, KeyError, "'good' is unknown; known are: ideal"),
        ({"target": "ideal", "gate": "half"}, KeyError, "gate 'half' is unknown"),
        ({"target": "ideal", "scale": "half"}, KeyError, "scale 'half' is unknown"),
        ({"target": "ideal", "threshold": 1.0}, ValueError, "threshold is 1.0"),
    ],
)
def test_a_reward_that_cannot_be_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        ValueReward(evaluator_of(np.zeros((1, 10))), **options)


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"other": [1]}, KeyError, "has no column 'goal'; it has: other"),
        ({"goal": np.zeros(20)}, ValueError, "target_column writes targets as texts"),
        ({"goal": ["ideal"]}, ValueError, r"has shape \(1,\); expected \(2, 10\)"),
        ({"goal": ["ideal", "good"]}, KeyError, "'good' is unknown"),
    ],
)
def test_a_column_that_cannot_be_is_refused(columns, error, message):
    reward = ValueReward(evaluator_of(np.zeros((2, 10))), column="goal")
    with pytest.raises(error, match=message):
        reward(**texts(2), **columns)


def test_without_tunix_one_sentence_says_how_to_install_it(monkeypatch, capsys):
    for name in list(sys.modules):
        if name.split(".")[0] == "tunix" or name.startswith("fulcra_jax.alignment.tun"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tunix", None)
    with pytest.raises(ImportError, match=r'pip install "fulcra_jax\[align\]"'):
        importlib.import_module("fulcra_jax.alignment.tunix")
    assert align.main(["tunix", "--evaluator", "nowhere"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert 'pip install "fulcra_jax[align]"' in said


def test_scores_of_another_shape_are_refused():
    wrong = SimpleNamespace(score=lambda *_: SimpleNamespace(scores=np.zeros((2, 9))))
    with pytest.raises(ValueError, match=r"scores have shape \(2, 9\); expected"):
        ValueReward(wrong, "ideal")(**texts(2))


def test_rotary_frequencies_by_hand():
    plain = {"rope_theta": 10_000.0, "hidden_size": 64, "num_attention_heads": 8}
    want = [1.0, 0.1, 0.01, 0.001]  # 10,000^(-2 i / 8)
    np.testing.assert_allclose(rope_frequencies(plain), want, rtol=1e-6)
    new = {
        "head_dim": 8,
        "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"},
    }
    np.testing.assert_array_equal(rope_frequencies(new), rope_frequencies(plain))
    old = {"hidden_size": 64, "num_attention_heads": 8}  # of the first Llama
    np.testing.assert_array_equal(rope_frequencies(old), rope_frequencies(plain))
    linear = plain | {"rope_scaling": {"type": "linear", "factor": 4.0}}
    np.testing.assert_allclose(rope_frequencies(linear), np.array(want) / 4, rtol=1e-6)


def test_the_scaling_of_llama_3_by_hand():
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 1000,
    }
    config = {"rope_theta": 10_000.0, "head_dim": 8, "rope_scaling": scaling}
    # Turns within 1,000 positions: 159.2 and 15.9, more than 4, stay; .159, less than
    # 1, is divided by 8; 1.59 is blended with (1.59 - 1) / 3.
    share = (1000 * 0.01 / (2 * np.pi) - 1) / 3
    blended = (1 - share) * 0.01 / 8 + share * 0.01
    np.testing.assert_allclose(
        rope_frequencies(config), [1.0, 0.1, blended, 0.001 / 8], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rope_scaling": {"rope_type": "yarn"}}, "'yarn' is unknown; known are: def"),
        ({"rope_theta": 1e4}, "no hidden_size"),
        (
            {"rope_theta": 1.0, "head_dim": 8, "rope_scaling": {"type": "linear"}},
            "fact",
        ),
    ],
)
def test_positions_that_are_not_known_are_refused(config, message):
    with pytest.raises(KeyError, match=message):
        rope_frequencies(config)


def test_rotation_is_a_product_of_complex_numbers():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 3, 8)).astype(np.float32)
    positions = rng.integers(0, 500, (2, 5))
    frequencies = rope_frequencies({"rope_theta": 10_000.0, "head_dim": 8})
    angle = positions[..., None] * frequencies.astype(np.float64)
    turned = (x[..., :4] + 1j * x[..., 4:]) * np.exp(1j * angle)[:, :, None]
    found = rotate(jnp.asarray(x), jnp.asarray(positions), frequencies)
    want = np.concatenate([turned.real, turned.imag], -1)
    np.testing.assert_allclose(found, want, atol=2e-4)  # float32 of angles near 500


def test_rotation_refuses_frequencies_of_another_width():
    with pytest.raises(ValueError, match=r"frequencies has shape \(3,\); expected"):
        rotate(jnp.zeros((1, 1, 1, 8)), jnp.zeros((1, 1), int), np.ones(3))


def hub_tokenizer(**special):
    words = {x: i for i, x in enumerate("[PAD] [END] [BOS] [UNK] a b c d e f".split())}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, unk_token="[UNK]", **special
    )


def test_prompts_keep_their_end_and_fit():
    plain = hub_tokenizer(eos_token="[END]", pad_token="[PAD]")
    found = PolicyTokenizer.of_hub(plain, prompt_length=3)
    assert found.encode("a b c d e") == [6, 7, 8]
    assert found.encode("a") == [4]
    assert (found.bos_id(), found.eos_id(), found.pad_id()) == (None, 1, 0)
    assert found.decode([4, 5, 1]) == "a b"


@pytest.mark.tunix  # which brings jinja2, that chat templates need
def test_a_chat_template_is_applied_and_never_cut():
    plain = hub_tokenizer(eos_token="[END]", pad_token="[PAD]", bos_token="[BOS]")
    plain.chat_template = (
        "{{ bos_token }} f {% for m in messages %}{{ m.content }}{% endfor %} f"
    )
    found = PolicyTokenizer.of_hub(plain, prompt_length=5)
    assert found.encode("a b") == [2, 9, 4, 5, 9]
    with pytest.raises(ValueError, match="a prompt has 6 tokens; expected at most 5"):
        found.encode("a b c")


@pytest.mark.parametrize(
    ("special", "pad_token", "message"),
    [
        ({"eos_token": "[END]", "pad_token": "[END]"}, "", "the token that ends answ"),
        ({"eos_token": "[END]"}, "", "pads with nothing"),
        ({"eos_token": "[END]"}, "[END]", "the token that ends answers"),
        ({"eos_token": "[END]"}, "[FILL]", r"'\[FILL\]' is not in the vocabulary"),
        ({"pad_token": "[PAD]"}, "", "no token that ends answers"),
    ],
)
def test_padding_that_ends_answers_is_refused(special, pad_token, message):
    plain = hub_tokenizer(**special)
    with pytest.raises(ValueError, match=message):
        PolicyTokenizer.of_hub(plain, prompt_length=3, pad_token=pad_token)


def test_padding_may_be_named():
    plain = hub_tokenizer(eos_token="[END]", pad_token="[END]")
    found = PolicyTokenizer.of_hub(plain, prompt_length=3, pad_token="[PAD]")
    assert (found.eos_id(), found.pad_id()) == (1, 0)


def test_a_tokenizer_made_by_hand_is_checked_as_well():
    parts = {"pieces": lambda _: [4], "text": str, "end_id": 1}
    with pytest.raises(ValueError, match="token 1 both pads and ends"):
        PolicyTokenizer(**parts, pad_id_=1)
    with pytest.raises(ValueError, match="prompt_length is 2; expected more than 2"):
        PolicyTokenizer(**parts, pad_id_=0, before=(2,), after=(1,), prompt_length=2)
