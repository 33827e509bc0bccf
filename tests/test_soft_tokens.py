# SPDX-License-Identifier: Apache-2.0
"""Soft tokens against discrete ones, and their gradient against enumeration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fulcra_jax.objectives import distance, soft_tokens

W, D, V = 5, 4, 3


def evaluator(embeddings):
    """A tiny evaluator: values of the mean embedding of an answer."""
    mix = np.random.default_rng(7).normal(size=(D, V)).astype(np.float32)
    return jnp.tanh(embeddings.mean(-2) @ mix)


def table(rows=W):
    return jnp.asarray(np.random.default_rng(3).normal(size=(rows, D)), jnp.float32)


def logits(*shape):
    return jnp.asarray(np.random.default_rng(11).normal(size=(*shape, W)), jnp.float32)


def test_hard_tokens_are_what_the_gumbel_maximum_draws():
    key = jax.random.key(0)
    asked = logits(2, 6)
    noise = jax.random.gumbel(key, asked.shape, asked.dtype)
    hard = soft_tokens.gumbel_softmax(key, asked, temperature=0.5)
    np.testing.assert_array_equal(hard, jax.nn.one_hot((asked + noise).argmax(-1), W))


def test_tokens_come_with_the_probabilities_of_the_policy():
    asked = jnp.broadcast_to(logits(), (20000, W))
    drawn = soft_tokens.gumbel_softmax(jax.random.key(1), asked)
    # Five standard errors of a share.
    np.testing.assert_allclose(
        drawn.mean(0), jax.nn.softmax(asked[0]), atol=5 * 0.5 / np.sqrt(20000)
    )


def test_a_token_that_cannot_come_never_comes_and_has_no_gradient():
    asked = logits(50).at[:, 2].set(-jnp.inf)
    total = lambda x: (
        soft_tokens.gumbel_softmax(jax.random.key(2), x) * jnp.arange(5.0)[None]
    ).sum()
    drawn = soft_tokens.gumbel_softmax(jax.random.key(2), asked)
    assert not drawn[:, 2].any()
    slope = jax.grad(total)(asked)
    assert jnp.isfinite(slope).all()
    assert not slope[:, 2].any()


def test_the_value_of_hard_tokens_is_that_of_the_text():
    where = jnp.array([[True, True, True], [True, True, True]])
    hard = soft_tokens.gumbel_softmax(jax.random.key(4), logits(2, 3), where=where)
    ids = hard.argmax(-1)
    target, kl = jnp.array([1.0, 0.0, -1.0]), jnp.array([0.5, 2.0])
    found = soft_tokens.value_matching_loss(
        evaluator(soft_tokens.soft_embeddings(hard, table())),
        target,
        kl,
        coefficient=0.1,
    )
    discrete = distance.value_distance(evaluator(table()[ids]), target, kind="squared")
    np.testing.assert_array_equal(found, discrete + 0.1 * kl)


@pytest.mark.parametrize(
    ("scale", "temperature", "hard"),
    [(0.1, 1.0, True), (0.1, 1.0, False), (1.0, 0.3, False)],
)
def test_the_gradient_points_where_enumeration_does(scale, temperature, hard):
    """One token: the exact gradient of E[loss] is a sum over five tokens.

    Straight-through is left out where the evaluator saturates: it may point away there.
    """
    cosines = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        numbers = lambda *shape, rng=rng: jnp.asarray(
            rng.normal(size=shape), jnp.float32
        )
        mix, words, asked = scale * numbers(D, V), numbers(W, D), numbers(1, W)
        target = jnp.tanh(numbers(V))
        of = lambda e, mix=mix, target=target: distance.value_distance(
            jnp.tanh(e.mean(-2) @ mix), target, kind="squared"
        )
        each = of(words[:, None, :])
        expected = lambda x, each=each: (jax.nn.softmax(x[0]) * each).sum()

        def loss(x, key, words=words, of=of):
            drawn = soft_tokens.gumbel_softmax(
                key, x, temperature=temperature, hard=hard
            )
            return of(soft_tokens.soft_embeddings(drawn, words))

        keys = jax.random.split(jax.random.key(5), 4000)
        found = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(asked, keys).mean(0)
        exact = jax.grad(expected)(asked)
        cosines.append(
            float(
                (found * exact).sum() / jnp.linalg.norm(found) / jnp.linalg.norm(exact)
            )
        )
    assert min(cosines) > 0.9, cosines


def test_a_cold_soft_token_is_the_hard_one():
    key, asked = jax.random.key(6), logits(4)
    cold = soft_tokens.gumbel_softmax(key, asked, temperature=1e-3, hard=False)
    hard = soft_tokens.gumbel_softmax(key, asked, temperature=1e-3)
    np.testing.assert_allclose(cold, hard, atol=1e-5)


def test_vocabularies_as_ids_and_as_a_matrix_agree():
    ids = jnp.array([2, -1, 0, 1, 1])
    dense = jax.nn.one_hot(ids, 3)
    soft = jax.nn.softmax(logits(2, 3))
    by_ids = soft_tokens.soft_embeddings(soft, table(3), vocabulary=ids)
    by_matrix = soft_tokens.soft_embeddings(soft, table(3), vocabulary=dense)
    np.testing.assert_allclose(by_ids, by_matrix, atol=1e-6)
    nothing = soft_tokens.soft_embeddings(jnp.eye(W)[1], table(3), vocabulary=ids)
    assert not nothing.any()
    # An id that the evaluator does not have is read as nothing as well.
    past = soft_tokens.soft_embeddings(
        jnp.eye(W)[0], table(3), vocabulary=ids.at[0].set(3)
    )
    assert not past.any()


def test_the_loss_adds_the_kl_and_masks_it():
    score, target = jnp.array([[0.5, 0.0], [jnp.nan] * 2]), jnp.array([1.0, -0.5])
    ask = lambda s, k: soft_tokens.value_matching_loss(
        s, target, k, coefficient=2.0, kind="l1", where=jnp.array([True, False])
    )
    kl = jnp.array([0.25, jnp.nan])
    assert ask(score, kl).tolist() == [1.5, 0.0]
    slopes = jax.grad(lambda *a: ask(*a).sum(), argnums=(0, 1))(score, kl)
    assert slopes[0].tolist() == [[-1.0, 1.0], [0.0, 0.0]]
    assert slopes[1].tolist() == [2.0, 0.0]


def test_refuses_what_does_not_fit():
    key, soft = jax.random.key(0), jnp.zeros((2, 3, W))
    with pytest.raises(ValueError, match="temperature is 0; expected more than 0"):
        soft_tokens.gumbel_softmax(key, soft, temperature=0)
    with pytest.raises(ValueError, match=r"where has shape \(2,\); expected \(2, 3\)"):
        soft_tokens.gumbel_softmax(key, soft, where=jnp.ones(2, bool))
    with pytest.raises(ValueError, match=r"embedding has shape \(3, 4\), so W=3, but"):
        soft_tokens.soft_embeddings(soft, table(3))
    with pytest.raises(ValueError, match=r"vocabulary has shape \(2,\), so W=2, but"):
        soft_tokens.soft_embeddings(soft, table(), vocabulary=jnp.array([0, 1]))
    with pytest.raises(ValueError, match="X=3, but vocabulary has X=4"):
        soft_tokens.soft_embeddings(soft, table(3), vocabulary=jnp.zeros((W, 4)))
    a, row = jnp.zeros((2, V)), jnp.zeros(2)
    with pytest.raises(ValueError, match="coefficient is -1; expected at least 0"):
        soft_tokens.value_matching_loss(a, a, row, coefficient=-1)
    with pytest.raises(ValueError, match=r"kl has shape \(3,\), so B=3, but score"):
        soft_tokens.value_matching_loss(a, a, jnp.zeros(3), coefficient=0.1)
    with pytest.raises(KeyError, match="kind 'kl' is unknown"):
        soft_tokens.value_matching_loss(a, a, row, coefficient=0.1, kind="kl")
