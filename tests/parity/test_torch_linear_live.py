# SPDX-License-Identifier: Apache-2.0
"""The reference in plain PyTorch reads what we read, and learns."""

import warnings

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch warns of its own deprecated parts
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from experiments.benchmarks import torch_linear_reference as reference

from experiments.benchmarks.torch_linear import Settings
from fulcra_jax.data import source
from fulcra_jax.data.rows import parse_record
from fulcra_jax.data.tokenizer import PairTokenizer

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

SIZES = dict(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
)
SETTINGS = Settings(max_length=24, epochs=6, batch_size=8, peak_lr=1e-2, warmup_steps=5)


@pytest.fixture(scope="module", params=["bert", "deberta"])
def folder(request, tmp_path_factory):
    """A tiny encoder in half precision, with a tokenizer."""
    path = tmp_path_factory.mktemp(request.param)
    rows = source.sample_rows(0, 100)
    texts = [text for row in rows for text in (row.prompt, row.response)]
    tokenizer = PairTokenizer.train(texts, 400)
    tokenizer.save(path)
    torch.manual_seed(0)
    if request.param == "bert":
        config = transformers.BertConfig(vocab_size=tokenizer.vocab_size, **SIZES)
        encoder = transformers.BertModel(config)
    else:
        config = transformers.DebertaV2Config(
            vocab_size=tokenizer.vocab_size, relative_attention=True,
            pos_att_type=["p2c", "c2p"], type_vocab_size=0, **SIZES,
        )  # fmt: skip
        encoder = transformers.DebertaV2Model(config)
    encoder.half().save_pretrained(path)
    return str(path)


def rows_of(count, seed):
    """Benevolence is supported by "always", opposed by "never"."""
    rng = np.random.default_rng(seed)
    words = "walk sing help read cook swim lie share".split()
    rows = []
    for line in range(count):
        word, more = rng.choice(words, 2)
        reply, sign = [("never", "-1"), ("always", "+1")][int(rng.integers(2))]
        record = {
            "dialogue": f"Human: should I {word} {more}?\nBob: {reply} {word} {more}",
            "value_items": [],
            "value_types": [f"benevolence: {sign}"],
        }
        rows.append(parse_record(record, file="made", line=line))
    return rows


def test_pairs_are_cut_and_marked_as_ours(folder):
    rows = source.sample_rows(1, 50)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for longest in (12, 40, 400):
        ours = PairTokenizer.load(folder).encode(
            [row.prompt for row in rows],
            [row.response for row in rows],
            max_length=longest,
        )
        for row, ids, kinds in zip(rows, ours.ids, ours.types, strict=True):
            got = reference._pair(tokenizer, row, longest)
            assert got == (ids.tolist(), kinds.tolist())


@pytest.mark.parametrize("pool", ["mean", "first"])
def test_it_learns_and_is_the_same_again(folder, pool):
    settings = Settings(**(vars(SETTINGS) | {"pool": pool}))
    train, held = rows_of(120, 0), rows_of(40, 1)
    found = reference.fit(folder, train, held, settings, 0, 1)
    labels, _ = source.label_arrays(held)
    classes = found.probs.argmax(-1) - 1
    column = int(np.abs(labels).sum(0).argmax())
    assert (classes[:, column] == labels[:, column]).mean() > 0.9
    assert found.steps == 90
    np.testing.assert_allclose(found.probs.sum(-1), 1, atol=1e-5)
    again = reference.fit(folder, train, held, settings, 0, 1)
    np.testing.assert_array_equal(again.probs, found.probs)
    other = reference.fit(folder, train, held, settings, 1, 1)
    assert np.abs(other.probs - found.probs).max() > 1e-4
