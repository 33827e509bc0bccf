# SPDX-License-Identifier: Apache-2.0
"""Examples whose first id says which one it is."""

import numpy as np

from fulcra_jax.data.batches import Examples
from fulcra_jax.data.tokenizer import Encoded


def examples(n, seed=0, longest=60):
    """N examples of 3 to `longest` tokens; the first id of example i is 100 + i."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, longest + 1, n)
    ids = [rng.integers(1, 100, length).astype(np.int32) for length in lengths]
    for number, text in enumerate(ids):
        text[0] = 100 + number
    where = rng.random((n, 10)) < 0.6
    where[:, 0] = True
    return Examples(
        Encoded(ids, [(np.arange(k) >= k // 2).astype(np.int32) for k in lengths]),
        rng.integers(-1, 2, (n, 10)).astype(np.float32),
        where,
    )
