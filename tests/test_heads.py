# SPDX-License-Identifier: Apache-2.0
"""The head that pools logits over tokens, against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from fulcra_jax.configs import SharedHead
from fulcra_jax.models import SharedHeadModule

HEAD = SharedHeadModule(SharedHead(pool="logsumexp", hidden=0), init_range=0.5)


def output(hidden, mask):
    params = HEAD.init(jax.random.key(0), hidden, mask, deterministic=True)
    found = HEAD.apply(params, hidden, mask, deterministic=True)
    return found.logits, params["params"]


def test_logits_are_pooled_over_the_tokens_that_count():
    hidden = jax.random.normal(jax.random.key(1), (2, 7, 16))
    mask = jnp.arange(7)[None] < jnp.array([[7], [4]])
    logits, params = output(hidden, mask)
    kernel, bias = params["values"]["kernel"], params["values"]["bias"]
    tokens = np.asarray(hidden @ kernel) + np.asarray(bias)
    for row, length in enumerate((7, 4)):
        want = scipy.special.logsumexp(tokens[row, :length], axis=0).reshape(10, 3)
        np.testing.assert_allclose(logits[row], want, atol=1e-5)


def test_padding_changes_nothing():
    hidden = jax.random.normal(jax.random.key(1), (1, 5, 16))
    longer = jnp.concatenate([hidden, jnp.full((1, 3, 16), 9.0)], 1)
    one, _ = output(hidden, jnp.ones((1, 5), bool))
    two, _ = output(longer, jnp.arange(8)[None] < 5)
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_a_row_of_padding_has_equal_logits_and_no_gradient():
    hidden = jax.random.normal(jax.random.key(1), (1, 5, 16))
    mask = jnp.zeros((1, 5), bool)
    logits, params = output(hidden, mask)
    assert np.ptp(np.asarray(logits)) == 0
    grads = jax.grad(
        lambda p, h: HEAD.apply(
            {"params": p}, h, mask, deterministic=True
        ).logits.sum(),
        argnums=(0, 1),
    )(params, hidden)
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(grads))
