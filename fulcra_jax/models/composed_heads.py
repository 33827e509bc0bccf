# SPDX-License-Identifier: Apache-2.0
"""Heads that compose a value's classes of parts: items, factors, experts.

B batch, T tokens, D width, V values, C classes, S texts in a row, E experts.
"""

from typing import NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import _check, values
from fulcra_jax.configs import FactoredHead, HierarchicalHead, MixtureHead
from fulcra_jax.models.heads import (
    HeadModule,
    HeadOutput,
    one_text,
    pooled_texts,
    project_by_value,
    texts,
)


class Levels(NamedTuple):
    """Logits of the levels above the items, classes (-1, 0, +1)."""

    refined: jax.Array
    """`[..., 19, 3]`."""
    basic: jax.Array
    """`[..., 10, 3]`."""
    higher: jax.Array
    """`[..., 4, 3]`."""


def aggregate_items(item_logits: jax.Array, how: str = "logsumexp") -> Levels:
    """From 54 items to 19 refined, 10 basic values and 4 poles, softly.

    A margin is the logit of -1 or +1 over that of 0. That of a value is the smooth
    maximum, the maximum or the noisy-or of the margins of its items: a value is there
    where one of its items is. Basic values come from the items, as FULCRA's own table
    has "observing social norms" elsewhere than its table of refined values; poles come
    from basic values.

    Args:
      item_logits: `[..., 54, 3]` float in the order of `values.ITEMS`.
      how: "logsumexp", "max" or "noisy-or": P = 1 - prod(1 - sigmoid(margin)).

    Returns:
      Logits of the three levels, those of class 0 are zero, at least float32.

    Raises:
      ValueError: if there are not 54 items of 3 classes.
      KeyError: if `how` is unknown.

    Reference:
      Schwartz et al. 2012, table 1, for the levels; Yao et al. 2024, section 3.

    >>> items = jnp.zeros((54, 3)).at[0, 2].set(9.0)        # be creative: +1
    >>> levels = aggregate_items(items, "max")
    >>> levels.refined[0].tolist(), levels.basic[0].tolist(), levels.higher[0].tolist()
    ([0.0, 0.0, 9.0], [0.0, 0.0, 9.0], [0.0, 0.0, 9.0])
    """
    caller = "heads.aggregate_items"
    _check.known(caller, "how", how, ("logsumexp", "max", "noisy-or"))
    _check.shapes(caller, item_logits=(item_logits, "... I 3"))
    if item_logits.shape[-2] != len(values.ITEMS):
        raise ValueError(
            f"{caller}: item_logits has shape {tuple(item_logits.shape)}; there should "
            f"be {len(values.ITEMS)} items on its last axis but one."
        )
    wide = item_logits.astype(jnp.promote_types(item_logits.dtype, jnp.float32))
    margin_i2 = wide[..., ::2] - wide[..., 1:2]
    basic = _up(margin_i2, values.ITEM_TO_BASIC, how)
    margins = (
        _up(margin_i2, values.ITEM_TO_REFINED, how),
        basic,
        _up(basic, values.BASIC_TO_HIGHER_ORDER, how),
    )
    return Levels(*(_with_zero(margin) for margin in margins))


def _up(margin: jax.Array, table: np.ndarray, how: str) -> jax.Array:
    """Margins `[..., I, 2]` -> `[..., V, 2]` by a table `[I, V]` of 0 and 1."""
    member = jnp.asarray(table.T.astype(bool))[..., None]  # [V, I, 1]
    member = member.reshape((1,) * (margin.ndim - 2) + member.shape)
    each = margin[..., None, :, :]
    if how == "noisy-or":
        absent = jnp.where(member, jax.nn.log_sigmoid(-each), 0.0).sum(-2)
        absent = jnp.minimum(absent, -1e-7)
        return jnp.log(-jnp.expm1(absent)) - absent
    each = jnp.where(member, each, -1e9)
    return each.max(-2) if how == "max" else jax.nn.logsumexp(each, -2)


def _with_zero(margin: jax.Array) -> jax.Array:
    zero = jnp.zeros_like(margin[..., 0])
    return jnp.stack([margin[..., 0], zero, margin[..., 1]], -1)


class HierarchicalHeadModule(HeadModule):
    """Items, and basic values made of them by `aggregate_items`.

    ```
    dense/{kernel [D, hidden], bias [hidden]}   unless the head is linear
    items/{kernel [hidden or D, 162], bias [162]}
    offset [V, 2]                               added to the margins of -1 and +1
    ```
    """

    config: HierarchicalHead

    @nn.compact
    def __call__(
        self,
        hidden: jax.Array,
        mask: jax.Array,
        segment_ids: jax.Array | None = None,
        *,
        num_segments: int | None = None,
        definitions: jax.Array | None = None,
        deterministic: bool,
    ) -> HeadOutput:
        """Logits of values and items; arguments and errors as `SharedHeadModule`."""
        config = self.config
        caller = "heads.HierarchicalHeadModule"
        member_bst = texts(caller, hidden, mask, segment_ids, num_segments)
        x = pooled_texts(hidden, member_bst, config.pool, segment_ids)
        x = self.hidden_layer(x, config.width(hidden.shape[-1]), deterministic)
        items = cast(jax.Array, self.items(x))  # the configuration says so
        basic = aggregate_items(items, config.aggregate).basic
        offset_v2 = self.zeros("offset", (config.num_values, 2))
        return one_text(
            HeadOutput(basic + _with_zero(offset_v2)[None, None], items), segment_ids
        )


class FactoredHeadModule(HeadModule):
    """Relevance and sign of each value, as logits of three classes.

    ```
    dense/{kernel [D, hidden], bias [hidden]}       unless the head is linear
    values/{kernel [hidden or D, 2 V], bias [2 V]}  relevance, sign
    items/{kernel [hidden or D, 162], bias [162]}   with items
    ```
    """

    config: FactoredHead

    @nn.compact
    def __call__(
        self,
        hidden: jax.Array,
        mask: jax.Array,
        segment_ids: jax.Array | None = None,
        *,
        num_segments: int | None = None,
        definitions: jax.Array | None = None,
        deterministic: bool,
    ) -> HeadOutput:
        """Log-probabilities of all values; as `SharedHeadModule`."""
        config = self.config
        caller = "heads.FactoredHeadModule"
        member_bst = texts(caller, hidden, mask, segment_ids, num_segments)
        x = pooled_texts(hidden, member_bst, config.pool, segment_ids)
        x = self.hidden_layer(x, config.width(hidden.shape[-1]), deterministic)
        V = config.num_values
        pair = self.project(2 * V, "values", x).reshape(*x.shape[:2], V, 2)
        relevance, sign = pair[..., 0], pair[..., 1]
        there = jax.nn.log_sigmoid(relevance)
        logits = jnp.stack(
            [
                there + jax.nn.log_sigmoid(-sign),
                jax.nn.log_sigmoid(-relevance),
                there + jax.nn.log_sigmoid(sign),
            ],
            -1,
        )
        return one_text(HeadOutput(logits, self.items(x)), segment_ids)


class MixtureHeadModule(HeadModule):
    """Hidden layers that a gate mixes for each value (Ma et al. 2018, MMoE).

    ```
    experts/{kernel [D, E hidden], bias [E hidden]}
    gate/{kernel [D, V E], bias [V E]}
    kernel [V, hidden, C], bias [V, C]
    items/{kernel [D, 162], bias [162]}             with items
    ```
    """

    config: MixtureHead

    @nn.compact
    def __call__(
        self,
        hidden: jax.Array,
        mask: jax.Array,
        segment_ids: jax.Array | None = None,
        *,
        num_segments: int | None = None,
        definitions: jax.Array | None = None,
        deterministic: bool,
    ) -> HeadOutput:
        """Logits of all values; arguments and errors as `SharedHeadModule`."""
        config, D = self.config, hidden.shape[-1]
        V, E, width = config.num_values, config.experts, config.width(D)
        caller = "heads.MixtureHeadModule"
        member_bst = texts(caller, hidden, mask, segment_ids, num_segments)
        x_bsd = pooled_texts(hidden, member_bst, config.pool, segment_ids)
        items = self.items(x_bsd)
        x_bsd = self.drop(x_bsd, self.input_dropout, deterministic)
        shape = x_bsd.shape[:2]
        told = self.activated(self.project(E * width, "experts", x_bsd))
        gate = self.project(V * E, "gate", x_bsd).reshape(*shape, V, E)
        x_bsvd = jnp.einsum(
            "bsve,bseh->bsvh",
            jax.nn.softmax(gate, -1).astype(self.dtype),
            told.reshape(*shape, E, width),
        )
        x_bsvd = self.drop(x_bsvd, config.dropout, deterministic)
        logits = project_by_value(self, x_bsvd, V, self.num_classes)
        return one_text(HeadOutput(logits, items), segment_ids)
