# SPDX-License-Identifier: Apache-2.0
"""Splits that never let near-duplicate prompts straddle.

Two prompts are near duplicates when the Jaccard similarity of their token sets is at
least 0.7; a connected component of such pairs goes to one split as a whole. With splits
by exact prompt, the same templates stand on both sides and the figures are flattered.
"""

import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

THRESHOLD = 0.7
SHARES = {"train": 0.8, "dev": 0.1, "test": 0.1}


def tokens_of(prompt: str) -> frozenset[str]:
    """The set of words of a prompt, in lower case; all else is a blank.

    >>> sorted(tokens_of("Don't lie, don't!"))
    ['don', 'lie', 't']
    """
    # A prompt of signs only is its own single token, so that equal ones still meet.
    words = re.findall(r"[^\W_]+", prompt.lower())
    return frozenset(words or [prompt.strip()])


def prompt_components(
    prompts: Sequence[str], threshold: float = THRESHOLD
) -> np.ndarray:
    """Which prompts belong together: connected components of near duplicates.

    Exact: an inverted index over the rarest tokens of each prompt finds every pair that
    can reach the threshold (prefix filtering), and each pair is then compared.

    Args:
      prompts: N texts.
      threshold: least Jaccard similarity of the token sets of near duplicates, (0, 1].

    Returns:
      `[N]` int32 component of each prompt, numbered by first appearance.

    Raises:
      ValueError: if the threshold is not in (0, 1].

    Reference:
      Chaudhuri, Ganti & Kaushik 2006, "A primitive operator for similarity joins".

    >>> prompt_components(["How do I lie well?", "how do I LIE well", "What is rice?"])
    array([0, 0, 1], dtype=int32)
    """
    if not 0.0 < threshold <= 1.0:
        raise ValueError(
            f"splits.prompt_components: threshold is {threshold}; it should be in (0, "
            "1]."
        )
    sets = list({tokens: None for tokens in map(tokens_of, prompts)})
    parent = list(range(len(sets)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    frequency = Counter(token for tokens in sets for token in tokens)
    index: dict[str, list[int]] = defaultdict(list)
    for node in sorted(range(len(sets)), key=lambda node: len(sets[node])):
        mine = sets[node]
        least = math.ceil(threshold * len(mine) - 1e-9)
        rarest = sorted(mine, key=lambda token: (frequency[token], token))
        prefix = rarest[: len(mine) - least + 1]
        for other in {other for token in prefix for other in index[token]}:
            theirs = sets[other]
            # Sizes ascend, so the other set is never the larger one.
            if len(theirs) < least or root(other) == root(node):
                continue
            shared = len(mine & theirs)
            if shared >= threshold * (len(mine) + len(theirs) - shared) - 1e-9:
                parent[root(other)] = root(node)
        for token in prefix:
            index[token].append(node)
    node_of = {tokens: node for node, tokens in enumerate(sets)}
    number: dict[int, int] = {}
    return np.array(
        [
            number.setdefault(root(node_of[tokens_of(prompt)]), len(number))
            for prompt in prompts
        ],
        np.int32,
    )


def assign_components(
    component: np.ndarray,
    prompts: Sequence[str],
    shares: Mapping[str, float] = SHARES,
    *,
    fixed: Mapping[int, str] | None = None,
    seed: int = 0,
) -> list[str]:
    """Gives every component to one split: largest first, into the emptiest split.

    Args:
      component: `[N]` int, from `prompt_components`.
      prompts: the N prompts; equally large components are ordered by a hash of their
        smallest prompt, so that the order of the rows does not matter.
      shares: name -> positive weight; equal weights give cluster folds.
      fixed: components whose split is already known; the shares are those of the rest.
      seed: another seed gives another split of the same quality.

    Returns:
      The split of each of the N rows.

    Raises:
      ValueError: if the shares are not positive, or the lengths differ.

    Reference:
      Longest-processing-time scheduling (Graham 1969).

    >>> assign_components(np.array([0, 0, 1]), ["a", "a!", "b"], {"x": 2.0, "y": 1.0})
    ['x', 'x', 'y']
    """
    if not shares or min(shares.values()) <= 0:
        raise ValueError(
            f"splits.assign_components: shares is {dict(shares)}; every share should "
            "be positive."
        )
    if len(component) != len(prompts):
        raise ValueError(
            f"splits.assign_components: component has {len(component)} entries, but "
            f"there are {len(prompts)} prompts."
        )
    members: dict[int, list[int]] = defaultdict(list)
    for row, node in enumerate(component.tolist()):
        members[node].append(row)

    def order(node: int) -> tuple[int, str]:
        first = min(" ".join(sorted(tokens_of(prompts[row]))) for row in members[node])
        digest = hashlib.sha256(f"{seed}|{first}".encode()).hexdigest()
        return -len(members[node]), digest

    fixed = fixed or {}
    held = dict.fromkeys(shares, 0)
    split_of: dict[int, str] = {}
    for node in sorted(members, key=order):
        if node in fixed:
            split_of[node] = fixed[node]
            continue
        split = min(held, key=lambda name: held[name] / shares[name])
        held[split] += len(members[node])
        split_of[node] = split
    return [split_of[node] for node in component.tolist()]
