# SPDX-License-Identifier: Apache-2.0
"""Configurations: written and read back, and refused in a sentence."""

import dataclasses

import pytest

from experiments.config import Config, Loss, Text, load_config, save_config
from experiments.recipes import RECIPES
from fulcra_jax.configs import DebertaConfig, EvaluatorConfig, SharedHead
from fulcra_jax.data.source import Folder
from fulcra_jax.training.optimizer import Optimizer, learning_rate

FIVE_VALUES = EvaluatorConfig(DebertaConfig(), SharedHead(num_values=5))
TANH = EvaluatorConfig(DebertaConfig(), link="tanh")


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_is_read_back_as_it_was(name, tmp_path):
    config = dataclasses.replace(RECIPES[name][1], source=Folder("a 'b' \\ c"))
    save_config(tmp_path / "config.py", config)
    assert load_config(tmp_path / "config.py") == config


def test_a_loss_is_read_back_also_from_before_it_had_more_fields(tmp_path):
    path = tmp_path / "config.py"
    path.write_text("Config(loss=Loss(class_weights='sqrt', label_smoothing=0.1))")
    config = load_config(path)
    assert config.loss == Loss(class_weights="sqrt", label_smoothing=0.1)
    loss = Loss(
        class_weights="balanced", focal=1.0, items=0.25, teacher=0.5,
        teacher_kind="soft", circumplex=0.1,
    )  # fmt: skip
    save_config(path, dataclasses.replace(config, loss=loss))
    assert load_config(path).loss == loss


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("__import__('os').system('true')", "is no part of a configuration"),
        ("Config(seed=open('x'))", "is no part of a configuration"),
        ("Config(seed=[1 for _ in 'a'])", "is no part of a configuration"),
        ("Config(colour=1)", "unexpected keyword"),
        ("Config(", "is no configuration"),
        ("Text()", "holds a Text, not a Config"),
        ("Config(source=5)", "source is 5; it should be a"),
        ("Config(text=None)", "text is None; it should be a Text"),
        ("Config(steps=8.5)", "steps is 8.5; it should be a int"),
        ("Config(keep=True)", "Config: keep is True; it should be a int"),
        ("Config(epochs='a')", "Config: epochs is 'a'; it should be a float"),
        ("Config(text=Text(cache=3))", "Text: cache is 3; it should be a str"),
        ("Config(text=Text(packed='x'))", "packed is 'x'; it should be a bool"),
        ("Config(optimizer=(1, 2))", "optimizer is .*; it should be a Optimizer"),
        ("Config(loss=Loss(items='x'))", "Loss: items is 'x'; it should be a float"),
        ("Config(batch_size=0)", r"batch_size is 0; it should be in \[1"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(text, message, tmp_path):
    (tmp_path / "config.py").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_config(tmp_path / "config.py")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Config(seed=-1), "seed is -1"),
        (lambda: Config(epochs=0.0), "epochs and steps are both 0"),
        (lambda: Config(compute_dtype="float16"), "one of: float32, bfloat16"),
        (lambda: Text(max_length=2), r"max_length is 2; it should be in \[8"),
        (lambda: Text(ladder=(64, 32)), "ascending positive lengths"),
        (lambda: Loss(label_smoothing=1.0), r"label_smoothing is 1.0"),
        (lambda: Loss(class_weights="log"), "one of: none, sqrt, balanced"),
        (lambda: Loss(teacher_kind="hard"), "one of: squared, soft"),
        (lambda: Loss(focal=-1.0), "focal is -1.0; it should be a number of at least"),
        (lambda: Loss(items=float("nan")), "items is nan; it should be a number"),
        (lambda: Loss(positive_weight=0.0), "positive_weight is 0.0; it should be a"),
        (lambda: Config(evaluator=TANH, loss=Loss(focal=2.0)), "the link is tanh"),
        (
            lambda: Config(loss=Loss(positive_weight=2.0)),
            "the link is ternary; it should be presence",
        ),
        (
            lambda: Config(evaluator=TANH, loss=Loss(teacher=1.0, teacher_kind="soft")),
            "the link tanh has no classes; it should be squared",
        ),
        (lambda: Optimizer(peak_lr=0.0), r"peak_lr is 0.0; it should be in \(0"),
        (lambda: Optimizer(peak_lr=float("nan")), "peak_lr is nan"),
        (lambda: Optimizer(b1=1.0), "b1 is 1.0"),
        (lambda: Optimizer(eps=0.0), r"eps is 0.0; it should be in \(0"),
        (lambda: Config(evaluator=FIVE_VALUES), "num_values is 5; it should be 10"),
        (lambda: Optimizer(schedule="step"), "cosine, linear or constant"),
        (lambda: learning_rate(Optimizer(), 50), "there are only 50 steps"),
    ],
)
def test_fields_out_of_range_say_what_they_should_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_paper_recipe_is_that_of_the_release():
    config = RECIPES["paper"][1]
    optimizer = config.optimizer
    assert (config.batch_size, config.epochs, config.seed) == (32, 10.0, 2023)
    assert (optimizer.peak_lr, optimizer.warmup_steps) == (1e-5, 50)
    assert (optimizer.b1, optimizer.b2, optimizer.weight_decay) == (0.9, 0.95, 0.0)
    assert optimizer.schedule == "cosine"
    assert config.text.max_length == 512
    encoder = config.evaluator.encoder
    assert (encoder.hidden_size, encoder.num_hidden_layers) == (1024, 24)
    assert RECIPES["paper-tanh"][1].evaluator.link == "tanh"


def test_the_schedule_warms_up_and_decays_to_zero():
    rate = learning_rate(Optimizer(peak_lr=1e-3, warmup_steps=10), 100)
    assert float(rate(0)) == 0.0
    assert float(rate(10)) == pytest.approx(1e-3)
    assert float(rate(55)) == pytest.approx(0.5e-3)
    assert float(rate(100)) == pytest.approx(0.0, abs=1e-9)
