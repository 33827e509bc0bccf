# SPDX-License-Identifier: Apache-2.0
"""Value heads: from hidden states to logits per value, and what the logits mean.

Class order is (-1, 0, +1) everywhere. B batch, T tokens, D width, V values, C classes.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fulcra_jax import _check
from fulcra_jax.configs import NUM_CLASSES, Activation, Link, SharedHead
from fulcra_jax.models import attention
from fulcra_jax.models.activations import ACTIVATIONS


class HeadOutput(NamedTuple):
    """What an evaluator returns.

    Attributes:
      logits: `[B, V, C]` float32.
      item_logits: `[B, 54, C]` of a head that judges single items, else None.
      evidence: `[B, V, T]` weights of a head that says where it looked, else None.
    """

    logits: jax.Array
    item_logits: jax.Array | None = None
    evidence: jax.Array | None = None


def probs(logits: jax.Array, link: Link) -> jax.Array:
    """Class probabilities of each value.

    Args:
      logits: `[..., V, C]` float, C = 3 for "ternary" and 1 for "tanh".
      link: what the logits mean.

    Returns:
      `[..., V, 3]` at least float32, classes (-1, 0, +1), summing to one. NaN for
      "tanh", whose single logit says nothing of probabilities without a calibration.

    Raises:
      KeyError: if the link is unknown.
      ValueError: if C is not the link's.

    Reference:
      Yao et al. 2024 (arXiv 2311.10766), section 4.2: labels -1, 0, +1 per value.

    >>> print(probs(jnp.log(jnp.array([[1.0, 1.0, 2.0]])), "ternary"))
    [[0.25 0.25 0.5 ]]
    """
    logits = _wide(logits, link, "heads.probs")
    if link == "ternary":
        return jax.nn.softmax(logits, axis=-1)
    return jnp.full((*logits.shape[:-1], 3), jnp.nan, logits.dtype)


def score(logits: jax.Array, link: Link) -> jax.Array:
    """How far the response supports (+1) or opposes (-1) each value.

    "ternary": P(+1) - P(-1). "tanh": tanh of the logit.

    Args:
      logits: `[..., V, C]` float, C = 3 for "ternary" and 1 for "tanh".
      link: what the logits mean.

    Returns:
      `[..., V]` at least float32, in [-1, 1].

    Raises:
      KeyError: if the link is unknown.
      ValueError: if C is not the link's.

    Reference:
      Yao et al. 2024 (arXiv 2311.10766), section 4.2.

    >>> print(score(jnp.log(jnp.array([[1.0, 1.0, 2.0]])), "ternary"))
    [0.25]
    """
    logits = _wide(logits, link, "heads.score")
    if link == "ternary":
        chance = jax.nn.softmax(logits, axis=-1)
        return chance[..., 2] - chance[..., 0]
    return jnp.tanh(logits[..., 0])


def _wide(logits: jax.Array, link: str, caller: str) -> jax.Array:
    _check.known(caller, "link", link, NUM_CLASSES)
    _check.shapes(caller, logits=(logits, f"... V {NUM_CLASSES[link]}"))
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


class SharedHeadModule(nn.Module):
    """One projection that reads all values off one pooled vector.

    ```
    dense/{kernel [D, hidden], bias [hidden]}       unless the head is linear
    values/{kernel [hidden or D, V C], bias [V C]}
    ```

    With `pool="first"` it takes the token at position 0, as the original does: pad on
    the right. With `pool="logsumexp"` the projection reads every token, and the logits
    are pooled: a smooth "some token shows it" (Maron and Lozano-Perez 1997).

    Attributes:
      config: the head.
      num_classes: C.
      dtype: compute dtype of the hidden layer; the projection is float32.
      act: activation of the hidden layer.
      input_dropout: dropout rate before the hidden layer.
      init_range: standard deviation of the initial weights.
    """

    config: SharedHead
    num_classes: int = 3
    dtype: Any = jnp.float32
    act: Activation = "gelu"
    input_dropout: float = 0.0
    init_range: float = 0.02

    def inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        """What the encoder should read in place of `batch`: the batch itself."""
        return batch

    @nn.compact
    def __call__(
        self, hidden: jax.Array, mask: jax.Array, *, deterministic: bool
    ) -> jax.Array:
        """Logits of all values.

        Args:
          hidden: `[B, T, D]` float, the encoder's last layer.
          mask: `[B, T]` bool or 0/1, False for padding.
          deterministic: True turns dropout off.

        Returns:
          `[B, V, C]` float32. A row of padding only pools to zero under "mean" and
          "max", and to equal logits under "logsumexp".

        Raises:
          ValueError: if shapes disagree.
        """
        size = _check.shapes(
            "heads.SharedHeadModule", hidden=(hidden, "B T D"), mask=(mask, "B T")
        )
        init = nn.initializers.normal(self.init_range)
        late = self.config.pool == "logsumexp"
        x = hidden if late else pooled(hidden, mask.astype(bool), self.config.pool)
        width = self.config.width(size["D"])
        if width:
            x = self._dropout(x, self.input_dropout, deterministic)
            x = nn.Dense(width, dtype=self.dtype, kernel_init=init, name="dense")(x)
            x = ACTIVATIONS[self.act](x)
        x = self._dropout(x, self.config.dropout, deterministic)
        V, C = self.config.num_values, self.num_classes
        out = nn.Dense(V * C, dtype=jnp.float32, kernel_init=init, name="values")
        logits = out(x.astype(jnp.float32))
        if late:
            where = mask.astype(bool)[..., None]
            # Finite, so that a row of padding only has neither NaN nor gradient.
            least = jnp.asarray(-1e9, logits.dtype)
            logits = jax.nn.logsumexp(jnp.where(where, logits, least), axis=1)
        return logits.reshape(-1, V, C)

    def _dropout(self, x: jax.Array, rate: float, deterministic: bool) -> jax.Array:
        if deterministic or rate == 0.0:
            return x
        return attention.dropout(x, rate, self.make_rng("dropout"))


def pooled(hidden: jax.Array, mask: jax.Array, pool: str) -> jax.Array:
    """One vector per text.

    Args:
      hidden: `[B, T, D]` float.
      mask: `[B, T]` bool, False for padding.
      pool: "first" (position 0, whatever the mask), "mean" or "max" over the tokens.

    Returns:
      `[B, D]` in the dtype of `hidden`; zero for a row of padding under "mean", "max".

    Raises:
      KeyError: if the pool is unknown.
      ValueError: if shapes disagree.

    Reference:
      Reimers and Gurevych 2019 (arXiv 1908.10084), section 3, for the three.

    >>> hidden = jnp.array([[[1.0], [3.0], [9.0]]])
    >>> mask = jnp.array([[True, True, False]])
    >>> [float(pooled(hidden, mask, pool)[0, 0]) for pool in ("first", "mean", "max")]
    [1.0, 2.0, 3.0]
    """
    _check.shapes("heads.pooled", hidden=(hidden, "B T D"), mask=(mask, "B T"))
    _check.known("heads.pooled", "pool", pool, ("first", "mean", "max"))
    if pool == "first":
        return hidden[:, 0]
    wide = hidden.astype(jnp.promote_types(hidden.dtype, jnp.float32))
    where = mask[..., None]
    if pool == "mean":
        total = jnp.where(where, wide, 0.0).sum(1)
        x = total / jnp.maximum(where.sum(1), 1).astype(wide.dtype)
    else:
        least = jnp.where(where, wide, jnp.finfo(wide.dtype).min).max(1)
        x = jnp.where(where.any(1), least, 0.0)
    return x.astype(hidden.dtype)
