# SPDX-License-Identifier: Apache-2.0
"""What is made of finished cells: a bag of words beside a recipe, decisions from other
folds."""

import dataclasses

import numpy as np
import pytest

from experiments.heads import decided
from experiments.heads.summary import Held, System
from fulcra_jax.data.rows import Row

N = 60


def rows(labels):
    cells = np.ones(10, bool)
    return [
        Row(
            prompt=f"question {n}",
            response="answer",
            items=np.zeros(54, np.int8),
            items_where=np.zeros(54, bool),
            labels=np.asarray(line, np.float32),
            where=cells,
            conflict=~cells,
            types=(),
            status="labelled",
            query_source="",
            response_source="",
            file="",
            line=n,
        )
        for n, line in enumerate(labels)
    ]


def held_and_system(splits=("fold0", "fold1", "fold2")):
    """Class +1 is said too rarely: a bias has something to mend."""
    rng = np.random.default_rng(0)
    labels = rng.choice([-1, 0, 1], (N, 10), p=[0.1, 0.6, 0.3])
    logits = np.eye(3)[labels + 1] * 2.0 + rng.normal(0, 0.7, (N, 10, 3))
    logits[..., 2] -= 2.0
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    probs = probs[None].astype(np.float32)
    split = np.arange(N) % len(splits)
    held = Held(rows(labels), tuple(splits), split)
    return held, System("mine", (0,), probs.argmax(-1) - 1, (), probs), labels


def test_decisions_mend_a_shifted_class():
    held, system, labels = held_and_system()
    found = decided.decided(system, held)
    assert found.recipe == "mine, decided"
    before = (system.classes[0] == labels).mean()
    assert (found.classes[0] == labels).mean() > before + 0.03
    np.testing.assert_array_equal(found.probs, system.probs)


def test_no_row_decides_its_own_class():
    held, system, _ = held_and_system()
    found = decided.decided(system, held)
    other = [
        dataclasses.replace(row, labels=-row.labels) if number % 3 == 1 else row
        for number, row in enumerate(held.rows)
    ]
    changed = decided.decided(system, Held(other, held.splits, held.split))
    own = held.split == 1
    np.testing.assert_array_equal(found.classes[:, own], changed.classes[:, own])
    assert (found.classes[:, ~own] != changed.classes[:, ~own]).any()


def test_one_split_leaves_nothing_to_fit_on():
    held, system, _ = held_and_system(("dev",))
    with pytest.raises(ValueError, match="there is only dev"):
        decided.decided(system, held)


def test_a_bag_of_words_counts_half():
    _, system, _ = held_and_system()
    words = System("TF-IDF + LR", (0,), -system.classes, (), system.probs[..., ::-1])
    found = decided.fused(system, words)
    assert found.recipe == "mine & TF-IDF + LR"
    np.testing.assert_allclose(found.probs.sum(-1), 1.0, rtol=1e-5)
    # The two say the opposite of each other with equal weight.
    np.testing.assert_allclose(found.probs[..., 0], found.probs[..., 2], rtol=1e-5)


@pytest.mark.parametrize("several", [True, False])
def test_what_is_made_of_which_system(several):
    held, system, _ = held_and_system(("fold0", "fold1") if several else ("dev",))
    named = [
        System(name, (0,), system.classes, (), system.probs)
        for name in ("majority", "TF-IDF + LR", "shared")
    ]
    names = [one.recipe for one in decided.with_derived(named, held)]
    plain = ["majority", "TF-IDF + LR", "shared", "shared & TF-IDF + LR"]
    more = [
        "majority", "TF-IDF + LR", "TF-IDF + LR, decided", "shared",
        "shared & TF-IDF + LR", "shared, decided", "shared & TF-IDF + LR, decided",
    ]  # fmt: skip
    assert names == (more if several else plain)
    alone = [one.recipe for one in decided.with_derived(named[2:], held)]
    assert alone == (["shared", "shared, decided"] if several else ["shared"])


def test_words_stand_beside_probabilities_only():
    held, system, _ = held_and_system()
    words = dataclasses.replace(system, recipe=decided.WORDS)
    named = np.eye(3, dtype=np.float32)[system.classes + 1]
    classes_only = dataclasses.replace(system, recipe="tanh", probs=named)
    names = [s.recipe for s in decided.with_derived([words, classes_only], held)]
    assert "tanh, decided" in names
    assert "tanh" + decided.FUSED not in names
