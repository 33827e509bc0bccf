# SPDX-License-Identifier: Apache-2.0
"""A head in one file: known to training, checkpoints and configurations."""

import sys

import pytest

from experiments import train
from fulcra_jax import configs, models
from fulcra_jax.inference import Predictor

FILE = '''
import dataclasses
import flax.linen as nn
from fulcra_jax import configs, models
from fulcra_jax.models import HeadOutput, pooling

@dataclasses.dataclass(frozen=True)
class MyHead(configs.PooledHead):
    """Reads the maximum of the tokens, linearly."""

    def leaves(self, width, classes):
        """One layer."""
        return configs.dense("values", width, self.num_values * classes)

class MyHeadModule(models.HeadModule):
    """values/{kernel [D, V C], bias [V C]}."""

    config: MyHead

    @nn.compact
    def __call__(self, hidden, mask, segment_ids=None, *, num_segments=None,
                 definitions=None, deterministic):
        member = pooling.members("MyHead", mask, segment_ids, num_segments)
        x = pooling.pooled(hidden, member, "max")
        V, C = self.config.num_values, self.num_classes
        logits = self.project(V * C, "values", x).reshape(*x.shape[:2], V, C)
        return HeadOutput(logits[:, 0] if segment_ids is None else logits)

models.register_head(MyHead, MyHeadModule)
'''


@pytest.fixture
def own_head(tmp_path, monkeypatch):
    (tmp_path / "own_head_file.py").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("FULCRA_HEADS", "own_head_file")
    models.load_registered()
    yield sys.modules["own_head_file"].MyHead
    configs.HEADS.pop("MyHead")
    sys.modules.pop("own_head_file")


@pytest.mark.slow
def test_a_head_in_one_file_is_trained_saved_and_loaded(own_head, tmp_path, one_device):
    import dataclasses

    from experiments.recipes import RECIPES

    config = RECIPES["debug"][1]
    evaluator = dataclasses.replace(config.evaluator, head=own_head(pool="mean"))
    config = dataclasses.replace(config, evaluator=evaluator, steps=10)
    train.train(config, tmp_path / "run")
    predictor = Predictor.load(tmp_path / "run")
    assert type(predictor.config.head) is own_head
    assert predictor.score(["May I?"], ["No."]).scores.shape == (1, 10)


def test_a_name_that_is_taken_is_refused():
    class SharedHead(configs.Head):
        pass

    with pytest.raises(ValueError, match="there is a head SharedHead already"):
        models.register_head(SharedHead, models.SharedHeadModule)


def test_what_is_no_head_is_refused():
    with pytest.raises(ValueError, match=r"class derived from configs\.Head"):
        models.register_head(int, models.SharedHeadModule)  # pyright: ignore
    with pytest.raises(ValueError, match=r"class derived from models\.HeadModule"):
        models.register_head(configs.SharedHead, int)  # pyright: ignore


def test_a_module_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("FULCRA_HEADS", "no_such_module_here")
    with pytest.raises(ValueError, match="FULCRA_HEADS names 'no_such_module_here'"):
        models.load_registered()
