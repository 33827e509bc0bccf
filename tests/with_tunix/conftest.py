# SPDX-License-Identifier: Apache-2.0
"""Marks and fixtures of the tests that need google-tunix (`make align`)."""

import importlib
import pathlib
import warnings

import jax
import parts
import pytest

from experiments import train
from experiments.toy_lm import texts
from fulcra_jax.alignment import PolicyTokenizer
from fulcra_jax.data.tokenizer import PairTokenizer
from fulcra_jax.training import sharding

HERE = pathlib.Path(__file__).parent

# Tunix and what it stands on use what jax and flax are about to drop.
DROPPED = (
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


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.tunix)
            for message in DROPPED:
                ignore = f"ignore:{message}:DeprecationWarning"
                item.add_marker(pytest.mark.filterwarnings(ignore))


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
        prompt_length=parts.LENGTHS["prompt_length"],
    )


@pytest.fixture(scope="session")
def judges(tmp_path_factory):
    """Two finished tiny evaluators."""
    root = tmp_path_factory.mktemp("runs")
    size = ["--source.train", "64", "--source.dev", "24", "--source.test", "24"]
    real = sharding.make_mesh
    with pytest.MonkeyPatch.context() as patch:  # eight devices on two cores are slow
        patch.setattr(sharding, "make_mesh", lambda _=0: real(1))
        for seed, name in enumerate(("judge", "second")):
            run = ["debug", "--run", str(root / name), "--steps", "8", *size]
            assert train.main([*run, "--seed", str(seed)]) == 0
    return {name: str(root / name) for name in ("judge", "second")}
