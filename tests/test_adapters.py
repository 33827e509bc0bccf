# SPDX-License-Identifier: Apache-2.0
"""Runs with adapters or frozen layers: trained, resumed, exported, saved as data."""

import dataclasses
import re
import shutil

import jax
import numpy as np
import pytest

from experiments import adapters, config, export, prepare
from experiments import train as script
from experiments.adapters import Adapter
from experiments.heads import running
from experiments.recipes import RECIPES
from fulcra_jax import convert, models
from fulcra_jax.data import source
from fulcra_jax.inference import Predictor
from fulcra_jax.training import checkpoint, optimizer, sharding

pytestmark = pytest.mark.usefixtures("one_device")
WORDS = [
    "debug", "--source.train", "48", "--source.dev", "16", "--source.test", "16",
    "--steps", "6", "--save-every", "3", "--log-every", "1", "--text.cache", "",
    "--optimizer.average", "0.9", "--optimizer.freeze", "encoder/layer_0/up/.*",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(one_device, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "lora"
    words = ["--run", str(path), "--adapter.rank", "2", "--optimizer.peak-lr", "0.05"]
    assert script.main([*WORDS, *words]) == 0
    return path


def state_of(run):
    settings = config.load_config(run / "config.py")
    chosen = optimizer.make_optimizer(adapters.optimizer_of(settings), 10**9)
    init = prepare.make_init(settings, models.Evaluator(settings.evaluator), chosen)
    shapes = jax.eval_shape(init)
    places = sharding.shardings(shapes, sharding.STATE, sharding.make_mesh(1))
    with checkpoint.Checkpoints(run / "checkpoints", read_only=True) as saved:
        state = saved.restore(sharding.abstract(shapes, places))
    return settings, jax.jit(init)(), state


def test_only_adapters_and_head_are_trained(run):
    settings, first, state = state_of(run)
    assert settings.adapter == Adapter(rank=2)
    jax.tree.map(
        np.testing.assert_array_equal, state.params["encoder"], first.params["encoder"]
    )
    for name in ("lora", "head"):
        for before, after in zip(
            *(jax.tree.leaves(s.params[name]) for s in (first, state)), strict=True
        ):
            assert (np.asarray(before) != np.asarray(after)).any()
    shapes = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree.leaves_with_path((state.opt_state, state.average))
    }
    assert not [n for n in shapes if "/encoder/" in n and "lora/encoder/" not in n]


def test_the_exported_model_scores_as_the_merged_parameters(run, tmp_path):
    settings, _, state = state_of(run)
    rows = source.sample_rows(5, 6, "dev")
    texts = [row.prompt for row in rows], [row.response for row in rows]
    exported = Predictor.load(run)
    merged = adapters.merged(settings, state.best_params)
    own = Predictor(
        settings.evaluator, merged, exported.tokenizer, max_length=exported.max_length
    )
    # One file holds it, whatever trained it.
    assert sorted(exported.params) == ["encoder", "head"]
    np.testing.assert_allclose(
        exported.score(*texts).scores, own.score(*texts).scores, atol=1e-6
    )
    plain = Predictor(
        settings.evaluator,
        {name: state.best_params[name] for name in ("encoder", "head")},
        exported.tokenizer,
        max_length=exported.max_length,
    )
    apart = np.abs(plain.score(*texts).scores - exported.score(*texts).scores)
    assert apart.max() > 1e-3
    assert export.main([str(run), "--out", str(tmp_path / "again")]) == 0
    _, params = convert.load(tmp_path / "again")
    jax.tree.map(np.testing.assert_array_equal, params, convert.load(run / "model")[1])


def test_a_resumed_run_ends_the_same(run, tmp_path):
    half = tmp_path / "half"
    shutil.copytree(run, half, ignore=shutil.ignore_patterns("6", "model"))
    assert script.main(["--resume", str(half)]) == 0
    whole = (run / "model" / "model.safetensors").read_bytes()
    assert (half / "model" / "model.safetensors").read_bytes() == whole


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--adapter.rank", "2", "--adapter.pattern", "no"], "'no' matches no path of"),
        (["--optimizer.freeze", "encoder"], "freeze is 'encoder', which matches no pa"),
    ],
)
def test_a_pattern_that_matches_nothing_leaves_no_run(words, message, tmp_path, capsys):
    run = tmp_path / "run"
    assert script.main([*WORDS, "--run", str(run), *words]) == 1
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert said.count("\n") == 1
    assert not run.exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(rank=-1), "rank is -1; it should be in"),
        (dict(alpha=0.0), "alpha is 0.0; it should be a number above 0"),
        (dict(pattern="("), "pattern is '.', which is no regular expression"),
    ],
)
def test_an_adapter_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Adapter(**fields)


def test_configurations_without_adapters_are_what_they_were(tmp_path):
    """Files of older runs load, and finished cells of comparisons keep their digest."""
    plain = RECIPES["debug"][1]
    lora = dataclasses.replace(plain, adapter=Adapter(rank=4, alpha=8.0))
    path = tmp_path / "config.py"
    config.save_config(path, lora)
    assert config.load_config(path) == lora
    old = re.sub(r"adapter=Adapter\(.*?\), |, freeze=''", "", repr(plain))
    assert "Adapter" not in old
    assert "freeze" not in old
    path.write_text(old)
    assert config.load_config(path) == plain
    assert "adapter" not in running._changed(plain)
    assert "adapter=Adapter(rank=4, alpha=8.0)" in running._changed(lora)
