# SPDX-License-Identifier: Apache-2.0
"""All heads: what holds for every one of them, and what each promises."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fulcra_jax import configs, convert, models
from fulcra_jax.configs import DebertaConfig, EvaluatorConfig
from fulcra_jax.models import Evaluator
from fulcra_jax.training import ceiling, sharding

ENCODER = DebertaConfig(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
    type_vocab_size=2,
    position_buckets=8,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
DEFINITIONS = tuple((1, 4 + v, *([6] * (v % 3)), 2) for v in range(10))
NAMES = tuple((20 + v,) for v in range(10))
HEADS = {
    "shared": configs.SharedHead(items=True),
    "shared, tokens": configs.SharedHead(pool="logsumexp", hidden=0, items=True),
    "independent": configs.IndependentHead(pool="mean", hidden=8, items=True),
    "independent, linear": configs.IndependentHead(hidden=0),
    "conditioned": configs.ConditionedHead(items=True),
    "conditioned, definition": configs.ConditionedHead(
        values="definition", definitions=DEFINITIONS
    ),
    "query": configs.QueryHead(heads=2, items=True),
    "query, definition": configs.QueryHead(
        values="definition", heads=2, definitions=DEFINITIONS
    ),
    "tokens": configs.TokenHead(definitions=NAMES),
    "tokens, text": configs.TokenHead(definitions=NAMES, sees="text", hidden=0),
    "prompted": configs.PromptedHead(definitions=DEFINITIONS),
    "prompted, packed": configs.PromptedHead(definitions=DEFINITIONS, packed=True),
    "hierarchical": configs.HierarchicalHead(pool="mean"),
    "hierarchical, noisy-or": configs.HierarchicalHead(aggregate="noisy-or"),
    "factored": configs.FactoredHead(items=True),
    "mixture": configs.MixtureHead(experts=3, items=True),
}


def texts():
    """Two texts, alone and in one row."""
    rng = np.random.default_rng(0)
    one, two = (np.r_[1, rng.integers(3, 40, n), 2].astype(np.int32) for n in (5, 3))
    alone = np.zeros((2, 9), np.int32)
    alone[0, :7], alone[1, :5] = one, two
    mask = np.arange(9) < np.array([[7], [5]])
    batch = {"input_ids": alone, "mask": mask, "token_type_ids": 0 * alone}
    row = np.r_[one, two, 0, 0][None]
    segments = np.r_[[1] * 7, [2] * 5, [0, 0]][None].astype(np.int32)
    packed = {
        "input_ids": row,
        "mask": segments > 0,
        "token_type_ids": 0 * row,
        "segment_ids": segments,
        "first": np.array([[0, 7, 0]], np.int32),
    }
    return batch, packed


apply_evaluator = jax.jit(models.apply_evaluator, static_argnums=0)


@functools.cache
def made(head, link="ternary"):
    """An evaluator and weights that are larger than at the beginning."""
    evaluator = Evaluator(EvaluatorConfig(ENCODER, head, link))
    ids = jnp.ones((1, 4), jnp.int32)
    shapes = jax.eval_shape(
        functools.partial(evaluator.init, deterministic=True),
        jax.random.key(0), ids, ids, token_type_ids=ids,
    )["params"]  # fmt: skip
    rng = np.random.default_rng(0)
    return evaluator, jax.tree.map(
        lambda leaf: rng.normal(0.1, 0.3, leaf.shape).astype(np.float32), shapes
    )


@pytest.mark.parametrize("name", HEADS)
def test_the_parameters_are_those_that_the_configuration_lists(name):
    params = made(HEADS[name])[1]
    found = {
        tuple(key.key for key in path): leaf.shape
        for path, leaf in jax.tree_util.tree_flatten_with_path(params["head"])[0]
    }
    assert found == HEADS[name].leaves(16, 3)
    places = sharding.shardings(params, sharding.PARAMS, sharding.make_mesh(1))
    assert jax.tree.structure(places) == jax.tree.structure(params)


@pytest.mark.parametrize("name", HEADS)
def test_shapes_gradients_and_texts_in_one_row_judged_as_alone(name):
    evaluator, params = made(HEADS[name])
    batch, packed = texts()

    @jax.jit
    def with_gradient(params):
        def total(params):
            output = models.apply_evaluator(evaluator, params, batch)
            return jnp.square(output.logits).sum(), output

        return jax.grad(total, has_aux=True)(params)

    grads, alone = with_gradient(params)
    assert alone.logits.shape == (2, 10, 3)
    assert alone.logits.dtype == jnp.float32
    unused = set() if name.startswith("hierarchical") else {"items"}
    for path, leaf in jax.tree_util.tree_flatten_with_path(grads["head"])[0]:
        assert np.isfinite(leaf).all()
        if path[0].key not in unused:
            assert np.abs(leaf).max() > 0
    if name == "prompted":
        return
    # Other padding, and another text before it.
    together = apply_evaluator(evaluator, params, packed)
    assert together.logits.shape == (1, 3, 10, 3)
    assert np.isfinite(together.logits).all()
    np.testing.assert_allclose(together.logits[0, :2], alone.logits, atol=2e-5)
    if getattr(HEADS[name], "items", False):
        assert alone.item_logits.shape == (2, 54, 3)
        np.testing.assert_allclose(
            together.item_logits[0, :2], alone.item_logits, atol=2e-5
        )
    else:
        assert alone.item_logits is None


@pytest.mark.parametrize("name", HEADS)
def test_a_saved_evaluator_is_the_same(name, tmp_path):
    head = HEADS[name]
    evaluator, params = made(head)
    convert.save(tmp_path, evaluator.config, params)
    config, loaded = convert.load(tmp_path)
    assert config == evaluator.config
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


def test_a_checkpoint_with_another_head_is_refused(tmp_path):
    params = made(HEADS["query"])[1]
    other = EvaluatorConfig(ENCODER, HEADS["factored"])
    with pytest.raises(ValueError, match="lacks head/values/kernel"):
        convert.save(tmp_path, other, params)


@pytest.mark.parametrize(
    ("name", "link"),
    [("shared", "tanh"), ("query", "ordinal"), ("independent", "presence")],
)
def test_other_links_have_their_logits(name, link):
    evaluator, params = made(HEADS[name], link)
    logits = apply_evaluator(evaluator, params, texts()[0]).logits
    assert logits.shape == (2, 10, configs.NUM_CLASSES[link])
    score = models.score(logits, link)
    assert np.abs(score).max() <= 1


def test_a_link_that_a_head_cannot_have_is_refused():
    with pytest.raises(ValueError, match="link is 'tanh'; it should be one of ternary"):
        EvaluatorConfig(ENCODER, configs.FactoredHead(), "tanh")


def test_ordinal_classes_are_ordered_and_sum_to_one():
    logits = 3 * jax.random.normal(jax.random.key(0), (50, 10, 2))
    probs = models.probs(logits, "ordinal")
    np.testing.assert_allclose(probs.sum(-1), 1, atol=1e-6)
    assert probs.min() >= 0
    higher = models.score(logits.at[..., 0].add(1.0), "ordinal")
    assert (higher > models.score(logits, "ordinal")).all()


@pytest.mark.parametrize("name", ["conditioned, definition", "query, definition"])
def test_a_value_is_judged_by_its_definition_alone(name):
    head = HEADS[name]
    evaluator, params = made(head)
    before = apply_evaluator(evaluator, params, texts()[0]).logits
    turned = dataclasses.replace(head, num_values=3, definitions=DEFINITIONS[4:7])
    other = Evaluator(EvaluatorConfig(ENCODER, turned))
    after = apply_evaluator(other, params, texts()[0]).logits
    np.testing.assert_allclose(after, before[:, 4:7], atol=1e-5)


def test_value_tokens_that_read_the_text_do_not_depend_on_each_other():
    head = HEADS["tokens, text"]
    evaluator, params = made(head)
    before = apply_evaluator(evaluator, params, texts()[0]).logits
    swapped = (*NAMES[:9], (39,))
    other = Evaluator(
        EvaluatorConfig(ENCODER, dataclasses.replace(head, definitions=swapped))
    )
    after = apply_evaluator(other, params, texts()[0]).logits
    np.testing.assert_allclose(after[:, :9], before[:, :9], atol=1e-6)
    assert np.abs(after[:, 9] - before[:, 9]).max() > 1e-3


def test_definitions_behind_the_text_are_as_a_pass_for_each():
    """One packed pass gives each value what it gets alone with its definition."""
    # Without distances: a definition further behind reads the same text.
    encoder = dataclasses.replace(ENCODER, pos_att_type=())
    head, params = HEADS["prompted, packed"], made(HEADS["prompted, packed"])[1]
    together = Evaluator(EvaluatorConfig(encoder, head))
    logits = apply_evaluator(together, params, texts()[0]).logits
    one = dataclasses.replace(head, num_values=1, definitions=DEFINITIONS[4:5])
    alone = Evaluator(EvaluatorConfig(encoder, one))
    np.testing.assert_allclose(
        apply_evaluator(alone, params, texts()[0]).logits[:, 0],
        logits[:, 4],
        atol=1e-5,
    )


def test_a_row_of_several_texts_is_refused_by_the_head_that_prompts():
    evaluator, params = made(HEADS["prompted"])
    with pytest.raises(ValueError, match=r"set text\.packed to False"):
        apply_evaluator(evaluator, params, texts()[1])


def test_a_head_without_its_definitions_says_so():
    evaluator = Evaluator(EvaluatorConfig(ENCODER, configs.PromptedHead()))
    with pytest.raises(ValueError, match="reads definitions, but its field"):
        apply_evaluator(evaluator, {}, texts()[0])


def test_evidence_lies_on_the_text_and_sums_to_one():
    evaluator, params = made(HEADS["query"])
    batch, packed = texts()
    evidence = np.asarray(apply_evaluator(evaluator, params, batch).evidence)
    assert evidence.shape == (2, 10, 9)
    np.testing.assert_allclose(evidence.sum(-1), 1, atol=1e-6)
    assert not evidence[1, :, 5:].any()
    together = np.asarray(apply_evaluator(evaluator, params, packed).evidence)
    np.testing.assert_allclose(together[0, 1, :, 7:12], evidence[1, :, :5], atol=1e-5)
    assert not together[0, 2].any()


def test_factors_multiply():
    evaluator, params = made(HEADS["factored"])
    probs = models.probs(
        apply_evaluator(evaluator, params, texts()[0]).logits, "ternary"
    )
    np.testing.assert_allclose(probs.sum(-1), 1, atol=1e-6)


@pytest.mark.parametrize("how", ["logsumexp", "max", "noisy-or"])
def test_a_value_is_there_where_one_of_its_items_is(how):
    items = jnp.full((54, 3), 0.0).at[:, 1].set(6.0)
    none = models.aggregate_items(items, how)
    one = models.aggregate_items(items.at[53, 0].set(12.0), how)  # be broadminded: -1
    assert none.basic.shape == (10, 3)
    assert none.refined.shape == (19, 3)
    assert none.higher.shape == (4, 3)
    assert (none.basic.argmax(-1) == 1).all()
    assert np.flatnonzero(one.basic.argmax(-1) != 1).tolist() == [9]
    assert np.flatnonzero(one.refined.argmax(-1) == 0).tolist() == [18]
    assert np.flatnonzero(one.higher.argmax(-1) == 0).tolist() == [3]


def test_noisy_or_is_the_chance_of_any():
    margins = jax.random.normal(jax.random.key(0), (54,))
    items = jnp.stack([margins * 0, margins * 0, margins], -1)
    basic = models.aggregate_items(items, "noisy-or").basic
    p = jax.nn.sigmoid(margins[:7])  # the items of self-direction
    want = 1 - jnp.prod(1 - p)
    np.testing.assert_allclose(jax.nn.sigmoid(basic[0, 2]), want, rtol=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_flops_are_those_of_what_is_read(name):
    config = EvaluatorConfig(ENCODER, HEADS[name])
    flops = ceiling.evaluator_flops(config, 2, 32)
    one = ceiling.evaluator_flops(EvaluatorConfig(ENCODER, configs.SharedHead()), 2, 32)
    if name == "prompted":
        assert 9 * one < flops < 25 * one
    else:
        assert 0.5 * one < flops < 4 * one
