# SPDX-License-Identifier: Apache-2.0
"""Near-duplicate components against the definition, and what the splits promise."""

import itertools

import numpy as np
import pytest

from fulcra_jax.data import splits


def prompts(n, seed=0):
    """Texts of 1 to 9 words out of 12, so that near duplicates abound."""
    rng = np.random.default_rng(seed)
    words = [f"w{i}" for i in range(12)]
    return [" ".join(rng.choice(words, rng.integers(1, 10))) for _ in range(n)]


def by_definition(texts, threshold):
    sets = [splits.tokens_of(text) for text in texts]
    parent = list(range(len(texts)))

    def root(i):
        while parent[i] != i:
            i = parent[i]
        return i

    for i, j in itertools.combinations(range(len(texts)), 2):
        if len(sets[i] & sets[j]) >= threshold * len(sets[i] | sets[j]) - 1e-9:
            parent[root(i)] = root(j)
    number = {}
    return [number.setdefault(root(i), len(number)) for i in range(len(texts))]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_components_are_those_of_all_pairs(threshold, seed):
    texts = prompts(60, seed)
    got = splits.prompt_components(texts, threshold)
    assert got.tolist() == by_definition(texts, threshold)


def test_case_signs_and_order_of_words_do_not_matter():
    got = splits.prompt_components(["Do I lie?", "lie I DO", "???", "???", "!!!"])
    assert got.tolist() == [0, 0, 1, 1, 2]


def test_no_component_straddles_and_shares_hold():
    texts = [f"alpha{i // 3} beta{i // 3} gamma{i // 3} {i % 3}" for i in range(300)]
    component = splits.prompt_components(texts)
    names = splits.assign_components(component, texts)
    for node in set(component.tolist()):
        held = {name for name, c in zip(names, component, strict=True) if c == node}
        assert len(held) == 1
    assert names.count("train") == pytest.approx(240, abs=3)
    assert names.count("dev") == pytest.approx(30, abs=3)


def test_the_split_does_not_depend_on_the_order_of_the_rows():
    texts = list(dict.fromkeys(prompts(80, 3)))
    order = np.random.default_rng(0).permutation(len(texts))
    shuffled = [texts[i] for i in order]
    one = splits.assign_components(splits.prompt_components(texts), texts)
    two = splits.assign_components(splits.prompt_components(shuffled), shuffled)
    assert dict(zip(texts, one, strict=True)) == dict(zip(shuffled, two, strict=True))


def test_another_seed_is_another_split():
    texts = [f"unique{i} word{i} here{i}" for i in range(50)]
    component = splits.prompt_components(texts)
    split = lambda seed: splits.assign_components(component, texts, seed=seed)
    assert split(0) == split(0)
    assert split(0) != split(1)


def test_folds_are_even():
    texts = [f"unique{i} word{i} here{i}" for i in range(50)]
    folds = {str(fold): 1.0 for fold in range(5)}
    names = splits.assign_components(splits.prompt_components(texts), texts, folds)
    assert [names.count(fold) for fold in folds] == [10] * 5


def test_fixed_components_stay():
    component = np.array([0, 1, 2, 3])
    names = splits.assign_components(component, list("abcd"), fixed={2: "test"})
    assert names[2] == "test"


def test_bad_arguments_say_what_is_wrong():
    with pytest.raises(ValueError, match=r"threshold is 0.0; it should be in \(0, 1\]"):
        splits.prompt_components(["a"], 0.0)
    with pytest.raises(ValueError, match="every share should be positive"):
        splits.assign_components(np.array([0]), ["a"], {"train": 0.0})
    with pytest.raises(ValueError, match="component has 1 entries, but there are 2"):
        splits.assign_components(np.array([0]), ["a", "b"])
