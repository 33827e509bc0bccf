# SPDX-License-Identifier: Apache-2.0
"""Definitions as token ids, and scoring values that were never trained on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fulcra_jax import configs, values
from fulcra_jax.configs import DebertaConfig, EvaluatorConfig
from fulcra_jax.data.tokenizer import PairTokenizer
from fulcra_jax.inference import Predictor, with_definitions
from fulcra_jax.models import Evaluator

TOKENIZER = PairTokenizer.train(["Be kind. Help the weak."], vocab_size=300)


def predictor(head):
    encoder = DebertaConfig(
        vocab_size=TOKENIZER.vocab_size,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        type_vocab_size=2,
    )
    config = EvaluatorConfig(encoder, with_definitions(head, TOKENIZER))
    one = jnp.ones((1, 4), int)
    params = Evaluator(config).init(jax.random.key(0), one, one, deterministic=True)
    params = jax.tree.map(lambda leaf: 5 * leaf, params["params"])
    return Predictor(config, params, TOKENIZER, max_length=32)


def test_definitions_stand_between_start_and_end():
    head = with_definitions(configs.PromptedHead(), TOKENIZER)
    assert isinstance(head, configs.PromptedHead)
    assert len(head.definitions) == 10
    for name, ids in zip(values.BASIC, head.definitions, strict=True):
        assert ids[0] == TOKENIZER.start_id
        assert ids[-1] == TOKENIZER.end_id
        want = f"{name}: {values.DEFINITIONS[name]}".lower()
        assert TOKENIZER.text(ids) == want


def test_a_head_that_reads_none_is_left_alone():
    head = configs.SharedHead()
    assert with_definitions(head, TOKENIZER) is head


def test_other_values_are_scored_by_their_definition():
    whole = predictor(configs.QueryHead(values="definition", heads=2))
    before = whole.score(["May I?"], ["Help the weak."]).scores
    names = ("Power", "Benevolence")
    some = whole.for_values({name: values.DEFINITIONS[name] for name in names})
    after = some.score(["May I?"], ["Help the weak."]).scores
    assert after.shape == (1, 2)
    np.testing.assert_allclose(after, before[:, [4, 8]], atol=1e-5)


def test_a_head_with_learned_values_cannot_judge_others():
    with pytest.raises(ValueError, match="SharedHead, which has learned its values"):
        predictor(configs.SharedHead()).for_values({"Thrift": "saving"})


def test_a_value_without_definition_is_refused():
    head = configs.PromptedHead()
    with pytest.raises(ValueError, match="'Thrift' has no definition"):
        with_definitions(head, TOKENIZER, {"Thrift": " "})
    with pytest.raises(ValueError, match="there is no value"):
        with_definitions(head, TOKENIZER, {})
    tokens = configs.TokenHead()
    with pytest.raises(ValueError, match="their number cannot change"):
        with_definitions(tokens, TOKENIZER, {"Thrift": "saving"})


@pytest.mark.parametrize("wrong", [((1,), (2,)), "text", (((),) * 10), ((-1,),) * 10])
def test_definitions_are_token_ids_of_every_value(wrong):
    with pytest.raises(ValueError, match=r"definitions is .* it should be empty, or"):
        dataclasses.replace(configs.PromptedHead(), definitions=wrong)
