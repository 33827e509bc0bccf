# SPDX-License-Identifier: Apache-2.0
"""From a configuration and a batch to the cells of a step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import losses
from experiments.config import Config, Loss
from fulcra_jax import configs, models, objectives, values
from fulcra_jax.configs import DebertaConfig, EvaluatorConfig
from fulcra_jax.models import HeadOutput
from fulcra_jax.training import step

ENCODER = DebertaConfig(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
    type_vocab_size=2,
    relative_attention=False,
    position_biased_input=True,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
B, V, I = 4, 10, 54


class Given:
    """In the place of an evaluator: its parameters are its output."""

    def apply(self, variables, *args, **kwargs):
        return HeadOutput(**variables["params"])


def config_of(link="ternary", head=None, leave_out=(), **fields):
    evaluator = EvaluatorConfig(ENCODER, head or configs.SharedHead(), link)
    return Config(evaluator=evaluator, loss=Loss(**fields), leave_out=leave_out)


def problem(link="ternary", seed=0):
    """What an evaluator gives, and a batch with all targets; row 3 has no label."""
    rng = np.random.default_rng(seed)
    low = 0 if link == "presence" else -1
    output = {
        "logits": rng.normal(0.0, 2.0, (B, V, configs.evaluator.NUM_CLASSES[link])),
        "item_logits": rng.normal(0.0, 2.0, (B, I, 3)),
    }
    ids = np.zeros((B, 6), np.int32)
    batch = {
        "input_ids": ids,
        "mask": ids == 0,
        "token_type_ids": ids,
        "labels": rng.integers(low, 2, (B, V)).astype(np.float32),
        "where": (rng.random((B, V)) < 0.8) & (np.arange(B) < 3)[:, None],
        "items": rng.integers(-1, 2, (B, I)).astype(np.float32),
        "items_where": rng.random((B, I)) < 0.5,
        "teacher": rng.uniform(-1.0, 1.0, (B, V)).astype(np.float32),
        "teacher_where": rng.random((B, V)) < 0.5,
    }
    output = {name: jnp.asarray(x, jnp.float32) for name, x in output.items()}
    return output, batch


def cells(config, output, batch):
    """The cells, their weights, and the slope of the step's loss by the output."""
    cell_loss = losses.make_cell_loss(config, Given(), batch["labels"], batch["where"])

    def total(output):
        loss, weight = cell_loss(output, batch, jax.random.key(0))
        return objectives.masked_mean(loss, weight), (loss, weight)

    (_, (loss, weight)), slope = jax.jit(jax.value_and_grad(total, has_aux=True))(
        output
    )
    return np.asarray(loss), np.asarray(weight), slope


FORMS = {
    "ternary": lambda x, y, **k: objectives.ternary_cross_entropy(x, y, **k),
    "ordinal": lambda x, y, **k: objectives.ordinal_loss(x, y, **k),
    "tanh": lambda x, y, **k: objectives.tanh_mse(x[..., 0], y, **k),
    "presence": lambda x, y, **k: objectives.presence_loss(x[..., 0], y, **k),
}


@pytest.mark.parametrize("link", list(FORMS))
def test_labels_alone_are_the_links_own_loss_and_a_mask(link):
    output, batch = problem(link)
    loss, weight, _ = cells(config_of(link), output, batch)
    expected = FORMS[link](output["logits"], batch["labels"], where=batch["where"])
    assert weight.dtype == bool
    np.testing.assert_array_equal(weight, batch["where"])
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["sqrt", "balanced"])
@pytest.mark.parametrize("link", ["ternary", "ordinal", "presence"])
def test_class_weights_are_those_of_the_labels(name, link):
    output, batch = problem(link)
    loss, _, _ = cells(config_of(link, class_weights=name), output, batch)
    plain, _, _ = cells(config_of(link), output, batch)
    found = batch["labels"][batch["where"]]
    count = np.array([(found == y).sum() for y in (-1, 0, 1)])
    wanted = 1.0 / np.maximum(count, 1) ** (0.5 if name == "sqrt" else 1.0)
    wanted *= len(found) / wanted[(found + 1).astype(int)].sum()
    factor = wanted[(batch["labels"] + 1).astype(int)]
    np.testing.assert_allclose(loss, plain * factor, rtol=1e-5, atol=1e-7)


def test_focal_and_positive_weight_reach_their_losses():
    output, batch = problem()
    loss, _, _ = cells(config_of(focal=2.0, label_smoothing=0.1), output, batch)
    expected = objectives.focal_loss(
        output["logits"], batch["labels"], gamma=2.0, label_smoothing=0.1,
        where=batch["where"],
    )  # fmt: skip
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-7)
    output, batch = problem("presence")
    loss, _, _ = cells(config_of("presence", positive_weight=3.0), output, batch)
    plain, _, _ = cells(config_of("presence"), output, batch)
    factor = np.where(batch["labels"] == 1, 3.0, 1.0)
    np.testing.assert_allclose(loss, plain * factor, rtol=1e-5, atol=1e-7)


def test_cells_of_labels_items_and_teacher_stand_behind_each_other():
    output, batch = problem()
    # What does not count may be anything.
    batch["items"][~batch["items_where"]] = np.nan
    batch["teacher"][~batch["teacher_where"]] = np.nan
    output["logits"] = (
        output["logits"]
        .at[3]
        .set(
            jnp.where(batch["teacher_where"][3][:, None], output["logits"][3], jnp.nan)
        )
    )
    loss, weight, slope = cells(config_of(items=0.25, teacher=0.5), output, batch)
    assert loss.shape == weight.shape == (B, V + I + V)
    np.testing.assert_array_equal(weight[:, :V], batch["where"])
    np.testing.assert_array_equal(weight[:, V : V + I], 0.25 * batch["items_where"])
    np.testing.assert_array_equal(weight[:, V + I :], 0.5 * batch["teacher_where"])
    items = objectives.ternary_cross_entropy(
        output["item_logits"], batch["items"], where=batch["items_where"]
    )
    np.testing.assert_allclose(loss[:, V : V + I], items, rtol=1e-5, atol=1e-7)
    away = models.score(output["logits"], "ternary") - batch["teacher"]
    expected = np.where(batch["teacher_where"], away**2, 0.0)
    np.testing.assert_allclose(loss[:, V + I :], expected, rtol=1e-4, atol=1e-6)
    for leaf in slope.values():
        assert jnp.isfinite(leaf).all()


@pytest.mark.parametrize("link", list(FORMS))
def test_a_teacher_whose_score_is_met_has_no_slope(link):
    output, batch = problem(link)
    score = np.asarray(models.score(output["logits"], link))
    batch = batch | {"where": np.zeros((B, V), bool), "teacher": score}
    loss, _, slope = cells(config_of(link, teacher=1.0), output, batch)
    np.testing.assert_allclose(loss[:, V:], 0.0, atol=1e-12)
    np.testing.assert_allclose(slope["logits"], 0.0, atol=1e-6)


@pytest.mark.parametrize("link", ["ternary", "ordinal"])
def test_a_soft_teacher_is_a_fractional_label_less_its_entropy(link):
    output, batch = problem(link)
    config = config_of(link, teacher=1.0, teacher_kind="soft")
    loss, _, _ = cells(config, output, batch)
    t = np.abs(batch["teacher"])
    entropy = -(t * np.log(t) + (1 - t) * np.log(1 - t))
    expected = FORMS[link](output["logits"], batch["teacher"]) - entropy
    expected = np.where(batch["teacher_where"], expected, 0.0)
    np.testing.assert_allclose(loss[:, V:], expected, rtol=1e-4, atol=1e-5)


def test_presence_takes_what_a_teacher_opposes_for_not_there():
    output, batch = problem("presence")
    config = config_of("presence", teacher=1.0, teacher_kind="soft")
    loss, _, slope = cells(config, output, batch)
    positive = np.maximum(batch["teacher"], 0.0)
    bce = optax.sigmoid_binary_cross_entropy(output["logits"][..., 0], positive)
    rest = np.clip(positive, 1e-12, 1.0), np.clip(1 - positive, 1e-12, 1.0)
    entropy = -(positive * np.log(rest[0]) + (1 - positive) * np.log(rest[1]))
    expected = np.where(batch["teacher_where"], bce - entropy, 0.0)
    np.testing.assert_allclose(loss[:, V:], expected, rtol=1e-4, atol=1e-5)
    assert jnp.isfinite(slope["logits"]).all()


@pytest.mark.parametrize("link", ["ternary", "tanh"])
def test_the_circle_is_added_to_the_label_cells(link):
    output, batch = problem(link)
    output["logits"] = output["logits"].at[3].set(jnp.nan)  # where no text is
    plain, _, _ = cells(config_of(link), output, batch)
    loss, _, slope = cells(config_of(link, circumplex=0.5), output, batch)
    score = models.score(output["logits"][:3], link)
    rest = objectives.circumplex_penalty(score, jnp.asarray(values.ring_angles()))
    added = (loss - plain)[:3]
    np.testing.assert_allclose(
        added, np.broadcast_to(0.5 * rest[:, None], (3, V)), rtol=1e-4, atol=1e-5
    )
    assert jnp.isfinite(slope["logits"]).all()
    assert not slope["logits"][3].any()


def test_nothing_is_told_of_values_that_are_left_out():
    output, batch = problem()
    batch = batch | {
        "items_where": np.ones((B, I), bool),
        "teacher_where": np.ones((B, V), bool),
    }
    left = values.BASIC.index("Security")
    config = config_of(items=1.0, teacher=1.0, leave_out=("Security",))
    _, weight, _ = cells(config, output, batch)
    assert (np.flatnonzero(weight[0, V + I :] == 0) == [left]).all()
    silent = np.flatnonzero(weight[0, V : V + I] == 0)
    assert {values.ITEMS[i] for i in silent} >= {"be neat and tidy", "have no debts"}
    assert len(silent) == values.item_to_basic()[:, left].sum()


def test_what_is_asked_for_and_not_there_is_said():
    output, batch = problem()
    alone = {"logits": output["logits"]}
    with pytest.raises(
        ValueError, match=r"loss\.items is 0\.5, but the SharedHead gives no logits of"
    ):
        cells(config_of(items=0.5), alone, batch)
    bare = {k: x for k, x in batch.items() if not k.startswith(("items", "teacher"))}
    for name in ("items", "teacher"):
        with pytest.raises(
            ValueError, match=rf"loss\.{name} is 0\.5, but the batch has no {name};"
        ):
            cells(config_of(**{name: 0.5}), output, bare)
    with pytest.raises(ValueError, match="link is presence, but a training row has"):
        cells(config_of("presence"), problem("presence")[0], batch)


def test_a_head_with_items_learns_from_all_cells():
    head = configs.SharedHead(pool="mean", items=True, dropout=0.0)
    loss = {"items": 0.1, "teacher": 0.5, "circumplex": 0.1}
    config = config_of(head=head, class_weights="balanced", focal=1.0, **loss)
    evaluator = models.Evaluator(config.evaluator)
    _, batch = problem()
    ids = jnp.asarray(batch["input_ids"])
    params = jax.jit(
        lambda key: evaluator.init(
            key, ids, ids > -1, token_type_ids=ids, deterministic=True
        )
    )(jax.random.key(0))["params"]
    cell_loss = losses.make_cell_loss(
        config, evaluator, batch["labels"], batch["where"]
    )
    sgd = optax.sgd(0.1)
    train_step = jax.jit(step.make_train_step(cell_loss, sgd, seed=0))
    state, first = train_step(step.init_state(params, sgd), batch)
    moved = jax.tree.map(jnp.subtract, state.params, params)
    for name in ("items", "values"):
        assert moved["head"][name]["kernel"].any()
    for _ in range(3):
        state, last = train_step(state, batch)
    assert last.loss < first.loss
