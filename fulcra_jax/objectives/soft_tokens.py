# SPDX-License-Identifier: Apache-2.0
"""Value matching by gradient: through relaxed tokens into the evaluator.

    soft = gumbel_softmax(key, policy_logits, temperature=1.0)
    embeddings = soft_embeddings(soft, evaluator_embedding)
    score = evaluator of the embeddings
    loss = value_matching_loss(score, target, kl, coefficient=0.1)

The gradient has less variance than REINFORCE at a temperature of 0.5 to 1, and a bias
that grows with the curvature of the evaluator. Cosine to the exact gradient on random
tanh evaluators of one token (8 of each, 5 words): almost linear ones above 0.97 with
`hard`; saturated ones with `hard` down to -0.93 (median 0.5 to 0.6), but above
0.93 without it at a temperature of 0.3. Check yours on a few prompts by enumeration.
The evaluator is differentiated where it was never trained, between its tokens, and a
policy finds what fools it there: always score decoded text again.

Axes: B sequences, T tokens, W vocabulary of the policy, X that of the evaluator, D
width.
"""

import jax
import jax.numpy as jnp

from fulcra_jax import _check
from fulcra_jax.objectives import distance


def gumbel_softmax(
    key: jax.Array,
    logits: jax.Array,
    *,
    temperature: float = 1.0,
    hard: bool = True,
    where: jax.Array | None = None,
) -> jax.Array:
    """Tokens drawn so that a gradient flows through the draw.

    y = softmax((logits + Gumbel noise) / temperature); hard: one-hot(argmax y) forward,
    y backward (straight-through).

    Args:
      key: a PRNG key.
      logits: `[..., W]` float; -inf for a token that cannot come.
      temperature: above 0: lower is nearer to a token and noisier in the gradient.
      hard: True gives whole tokens, so that the value of the loss is that of text; its
        gradient may point away from the target where the evaluator saturates.
      where: `[...]` bool, False where no token stands.

    Returns:
      `[..., W]` float, sums to 1; 0 where no token stands.

    Raises:
      ValueError: if shapes disagree or `temperature` is not above 0.

    Reference:
      Jang, Gu and Poole 2017 (arXiv 1611.01144); Maddison, Mnih and Teh 2017 (arXiv
      1611.00712).

    >>> y = gumbel_softmax(jax.random.key(0), jnp.array([0.0, 50.0, 0.0]))
    >>> y.tolist()
    [0.0, 1.0, 0.0]
    """
    caller = "soft_tokens.gumbel_softmax"
    if not temperature > 0.0:
        raise ValueError(
            f"{caller}: temperature is {temperature}; expected more than 0."
        )
    if where is not None and where.shape != logits.shape[:-1]:
        raise ValueError(
            f"{caller}: where has shape {where.shape}; expected {logits.shape[:-1]}, "
            "the shape of logits without W."
        )
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    present = jnp.ones(logits.shape[:-1], bool)
    if where is not None:
        present = jnp.asarray(where, bool)
    logits = jnp.where(present[..., None], logits, 0.0)
    noise = jax.random.gumbel(key, logits.shape, logits.dtype)
    soft = jax.nn.softmax((logits + noise) / temperature)
    if hard:
        drawn = jax.nn.one_hot(soft.argmax(-1), soft.shape[-1], dtype=soft.dtype)
        # In this order whole tokens come out exactly.
        soft = drawn + (soft - jax.lax.stop_gradient(soft))
    return jnp.where(present[..., None], soft, 0.0)


def soft_embeddings(
    soft: jax.Array, embedding: jax.Array, *, vocabulary: jax.Array | None = None
) -> jax.Array:
    """What the evaluator reads: the mean embedding of relaxed tokens.

    soft @ M @ E, M the map from the policy's vocabulary to the evaluator's

    Args:
      soft: `[..., W]` float, of `gumbel_softmax`.
      embedding: `[X, D]` float, the embedding table of the evaluator.
      vocabulary: None where the two share a tokenizer; `[W]` int ids of the evaluator's
        token for each of the policy's (-1 for none: it is read as nothing), or `[W, X]`
        float.

    Returns:
      `[..., D]` float.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Jang, Gu and Poole 2017 (arXiv 1611.01144), section 3.

    >>> table = jnp.array([[1.0, 0.0], [0.0, 2.0]])
    >>> soft_embeddings(jnp.array([0.5, 0.5]), table).tolist()
    [0.5, 1.0]
    >>> soft_embeddings(jnp.array([1.0]), table, vocabulary=jnp.array([1])).tolist()
    [0.0, 2.0]
    """
    caller = "soft_tokens.soft_embeddings"
    dtype = jnp.promote_types(jnp.result_type(soft, embedding), jnp.float32)
    soft, embedding = soft.astype(dtype), embedding.astype(dtype)
    exact = jax.lax.Precision.HIGHEST
    if vocabulary is None:
        _check.shapes(caller, soft=(soft, "... W"), embedding=(embedding, "W D"))
        table = embedding
    elif vocabulary.ndim == 1:
        _check.shapes(
            caller,
            soft=(soft, "... W"),
            vocabulary=(vocabulary, "W"),
            embedding=(embedding, "X D"),
        )
        known = (vocabulary >= 0) & (vocabulary < embedding.shape[0])
        table = embedding[jnp.where(known, vocabulary, 0)]
        table = jnp.where(known[:, None], table, 0.0)
    else:
        _check.shapes(
            caller,
            soft=(soft, "... W"),
            vocabulary=(vocabulary, "W X"),
            embedding=(embedding, "X D"),
        )
        table = jnp.matmul(vocabulary.astype(dtype), embedding, precision=exact)
    return jnp.matmul(soft, table, precision=exact)


def value_matching_loss(
    score: jax.Array,
    target: jax.Array,
    kl: jax.Array,
    *,
    coefficient: float,
    kind: distance.Kind = "squared",
    weights: jax.Array | None = None,
    where: jax.Array | None = None,
) -> jax.Array:
    """Nearer to the target, not too far from the reference: what is differentiated.

    d(v, t) + coefficient KL

    Args:
      score: `[B, V]` float in [-1, 1], what the evaluator says of soft embeddings. Its
        distance is no measure of success: score the decoded text for that.
      target: `[V]` or `[B, V]` float.
      kl: `[B]` float, of whole answers: `full_kl` at every token, summed over them. It
        has a gradient of its own, and without it the policy leaves the language.
      coefficient: at least 0.
      kind: of `value_distance`.
      weights: `[V]` non-negative float, as there.
      where: `[B]` bool, False where an answer does not count.

    Returns:
      `[B]` float; 0 where an answer does not count.

    Raises:
      ValueError: if shapes disagree or `coefficient` is negative.
      KeyError: if `kind` is unknown.

    Reference:
      Jang, Gu and Poole 2017 (arXiv 1611.01144); Yao et al. 2024 (arXiv 2311.10766),
      section 5, for the distance.

    >>> score, target = jnp.array([[0.5, 0.0]]), jnp.array([1.0, 0.0])
    >>> value_matching_loss(score, target, jnp.array([2.0]), coefficient=0.25).tolist()
    [0.75]
    """
    caller = "soft_tokens.value_matching_loss"
    if not coefficient >= 0.0:
        raise ValueError(
            f"{caller}: coefficient is {coefficient}; expected at least 0."
        )
    _check.shapes(caller, score=(score, "B V"), kl=(kl, "B"), where=(where, "B"))
    present = jnp.ones(kl.shape, bool)
    if where is not None:
        present = jnp.asarray(where, bool)
    row = present[:, None]
    dtype = jnp.promote_types(jnp.result_type(score, target, kl), jnp.float32)
    score = jnp.where(row, score.astype(dtype), 0.0)
    target = target.astype(dtype)
    if target.ndim == 2:
        target = jnp.where(row, target, 0.0)
    away = distance.value_distance(score, target, kind=kind, weights=weights)
    loss = away + coefficient * jnp.where(present, kl.astype(dtype), 0.0)
    return jnp.where(present, loss, 0.0)
