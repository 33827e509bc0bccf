# SPDX-License-Identifier: Apache-2.0
"""What the logits of a value mean: class probabilities and a score in [-1, 1].

Class order is (-1, 0, +1) everywhere. V values, C logits per value.
"""

import jax
import jax.numpy as jnp

from fulcra_jax import _check
from fulcra_jax.configs import NUM_CLASSES, Link


def probs(logits: jax.Array, link: Link) -> jax.Array:
    """Class probabilities of each value.

    "ternary": the softmax. "ordinal": logits (s, w) are a location and a width, e =
    softplus(w), P(y > -1) = sigmoid(s + e), P(y > 0) = sigmoid(s - e). "presence":
    P(+1) = sigmoid of the logit, P(0) the rest, P(-1) = 0.

    Args:
      logits: `[..., V, C]` float, C = 3 for "ternary", 2 for "ordinal", 1 for "tanh"
        and "presence".
      link: what the logits mean.

    Returns:
      `[..., V, 3]` at least float32, classes (-1, 0, +1), summing to one. NaN for
      "tanh", whose single logit says nothing of probabilities without a calibration.

    Raises:
      KeyError: if the link is unknown.
      ValueError: if C is not the link's.

    Reference:
      Yao et al. 2024 (arXiv 2311.10766), section 4.2: labels -1, 0, +1 per value;
      McCullagh 1980, "Regression models for ordinal data", for the cumulative link.

    >>> print(probs(jnp.log(jnp.array([[1.0, 1.0, 2.0]])), "ternary"))
    [[0.25 0.25 0.5 ]]
    >>> print(probs(jnp.array([[0.0]]), "presence"))
    [[0.  0.5 0.5]]
    """
    logits = _wide(logits, link, "heads.probs")
    match link:
        case "ternary":
            return jax.nn.softmax(logits, axis=-1)
        case "ordinal":
            below, over = _tails(logits)
            return jnp.stack([below, 1.0 - below - over, over], axis=-1)
        case "presence":
            p = jax.nn.sigmoid(logits[..., 0])
            return jnp.stack([jnp.zeros_like(p), 1.0 - p, p], axis=-1)
    return jnp.full((*logits.shape[:-1], 3), jnp.nan, logits.dtype)


def score(logits: jax.Array, link: Link) -> jax.Array:
    """How far the response supports (+1) or opposes (-1) each value.

    P(+1) - P(-1); under "tanh" the tanh of the logit.

    Args:
      logits: `[..., V, C]` float, as `probs` takes them.
      link: what the logits mean.

    Returns:
      `[..., V]` at least float32, in [-1, 1]; under "presence" in [0, 1].

    Raises:
      KeyError: if the link is unknown.
      ValueError: if C is not the link's.

    Reference:
      Yao et al. 2024 (arXiv 2311.10766), section 4.2.

    >>> print(score(jnp.log(jnp.array([[1.0, 1.0, 2.0]])), "ternary"))
    [0.25]
    >>> print(score(jnp.array([[0.0, 1.0]]), "ordinal"))
    [0.]
    """
    logits = _wide(logits, link, "heads.score")
    match link:
        case "ternary":
            chance = jax.nn.softmax(logits, axis=-1)
            return chance[..., 2] - chance[..., 0]
        case "ordinal":
            below, over = _tails(logits)
            return over - below
        case "presence":
            return jax.nn.sigmoid(logits[..., 0])
    return jnp.tanh(logits[..., 0])


def _tails(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """P(-1) and P(+1) of the cumulative link."""
    middle, half = logits[..., 0], jax.nn.softplus(logits[..., 1])
    return jax.nn.sigmoid(-middle - half), jax.nn.sigmoid(middle - half)


def _wide(logits: jax.Array, link: str, caller: str) -> jax.Array:
    _check.known(caller, "link", link, NUM_CLASSES)
    _check.shapes(caller, logits=(logits, f"... V {NUM_CLASSES[link]}"))
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
