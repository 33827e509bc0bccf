# SPDX-License-Identifier: Apache-2.0
"""Softmax attention a few heads at a time, with a gradient that keeps no probabilities.

Forward and backward go over the heads in chunks, so that on a CPU the scores of a chunk
stay in the cache, and no array `[H, B, T, S]` is kept in between: the backward pass
computes the scores again and needs of the forward pass one number per query (Dao et al.
2022, arXiv 2205.14135, without its tiles along the keys). Suffixes as in `attention`.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax.models import draws, position_bias

_KEPT = 2**22
"""Powers of e per layer that are kept on a CPU, 16 MiB in float32."""

_CACHED = 2**18
"""Scores that are computed at a time on a CPU, 1 MiB in float32."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Heads:
    """What differs between heads; the leading axis of each leaf is H."""

    q: jax.Array
    k: jax.Array
    v: jax.Array
    pos_q: jax.Array | None
    pos_k: jax.Array | None
    keys: jax.Array | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Kept:
    """What the backward pass is given: the powers of e, or the means to have them."""

    total: jax.Array
    """`[H, B, T, 1]`: the sum of the powers over the keys, or its logarithm."""
    powers: jax.Array | None
    """`[H, B, T, S]`: e to the score less the largest of the row."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Who:
    """A query attends to the keys of its own number, `[B, T]` int32 both.

    Rows of numbers in place of an array `[B, T, S]` of permissions.
    """

    asks: jax.Array
    answers: jax.Array
    least: jax.Array
    """`[B, T]` float: the score of what a query may not attend to. A query without any
    key has zero there: all its scores are equal, and their logarithm is a number."""
    reads: jax.Array | None = None
    """`[B, T]` int32: a second number that the query attends to, or None."""

    def may(self) -> jax.Array:
        """`[B, T, S]` bool."""
        own = self.asks[:, :, None] == self.answers[:, None, :]
        if self.reads is None:
            return own
        return own | (self.reads[:, :, None] == self.answers[:, None, :])


def who(
    mask: jax.Array,
    segment_ids: jax.Array | None,
    dtype: Any,
    *,
    padding_asks: bool,
    reads: jax.Array | None = None,
) -> Who:
    """Who attends to whom.

    Args:
      mask: `[B, T]` bool, False for padding, which never answers.
      segment_ids: `[B, T]` int, or None for one segment.
      dtype: of the scores.
      padding_asks: whether padding attends to the tokens of its segment, or to none.
      reads: `[B, T]` int: a segment that a token attends to besides its own, or None.

    >>> pair = who(jnp.array([[True, False]]), None, jnp.float32, padding_asks=True)
    >>> pair.may().tolist()
    [[[True, False], [True, False]]]
    """
    number = jnp.zeros(mask.shape, jnp.int32)
    if segment_ids is not None:
        number = jnp.asarray(segment_ids, jnp.int32)
    nobody = jnp.iinfo(jnp.int32).min
    asks = number if padding_asks else jnp.where(mask, number, nobody + 1)
    answers = jnp.where(mask, number, nobody)
    if reads is not None:
        reads = jnp.where(mask, jnp.asarray(reads, jnp.int32), asks)
    # A finite minimum: minus infinity minus itself is no number.
    least = jnp.asarray(jnp.finfo(dtype).min, dtype)
    pair = Who(asks, answers, least, reads)
    return dataclasses.replace(
        pair, least=jnp.where(pair.may().any(-1), least, jnp.zeros((), dtype))
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """What is static, and the computation of a few heads."""

    form: str
    scale: float
    slots: np.ndarray | None
    block: int | None
    rate: float
    keep: bool = False
    """Whether the backward pass is given the powers of e, or computes them again."""

    def _key(self) -> tuple:
        slots = None if self.slots is None else self.slots.tobytes()
        return self.form, self.scale, slots, self.block, self.threshold, self.keep

    def __hash__(self) -> int:
        return hash(self._key())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self._key() == other._key()

    @property
    def threshold(self) -> int:
        """Draws below it are dropped."""
        return round(self.rate * draws.STEPS)

    def scores(self, q, k, pos_q, pos_k) -> jax.Array:
        """`[H, B, T, S]`, at least float32."""
        q = q * jnp.asarray(self.scale, q.dtype)
        score_hbts = jnp.einsum("hbtk,hbsk->hbts", q, k)
        if self.slots is not None:
            if pos_q is not None:
                pos_q = pos_q * jnp.asarray(self.scale, pos_q.dtype)
            bias = position_bias.gather_bias
            if self.form == "skew":
                bias = functools.partial(position_bias.skew_bias, block=self.block)
            score_hbts += bias(q, k, pos_q, pos_k, slot_of_distance=self.slots)
        return score_hbts.astype(jnp.promote_types(q.dtype, jnp.float32))

    def masked_scores(self, heads: Heads, who: Who) -> jax.Array:
        """`[H, B, T, S]`, as good as minus infinity where a query may not attend."""
        score_hbts = self.scores(heads.q, heads.k, heads.pos_q, heads.pos_k)
        return jnp.where(who.may()[None], score_hbts, who.least[None, :, :, None])

    def survivors(self, keys: jax.Array | None, x_hbts: jax.Array) -> jax.Array:
        """x with the dropped entries at zero and the others scaled up."""
        if keys is None:
            return x_hbts
        return jax.vmap(lambda key, x: draws.survivors(key, self.rate, x))(keys, x_hbts)

    def forward(self, heads: Heads, who: Who) -> tuple[jax.Array, Kept]:
        """`[H, B, T, K]`, and what the backward pass is given."""
        score_hbts = self.masked_scores(heads, who)
        most = jax.lax.stop_gradient(score_hbts.max(-1, keepdims=True))
        power_hbts = jnp.exp(score_hbts - most)
        total = power_hbts.sum(-1, keepdims=True)
        kept_hbts = self.survivors(heads.keys, power_hbts).astype(heads.v.dtype)
        out = jnp.einsum("hbts,hbsk->hbtk", kept_hbts, heads.v)
        # Divided after the product: K numbers a row in place of S.
        out = (out.astype(total.dtype) / total).astype(heads.v.dtype)
        if self.keep:
            return out, Kept(total, power_hbts.astype(heads.v.dtype))
        return out, Kept(most + jnp.log(total), None)

    def backward(
        self,
        heads: Heads,
        who: Who,
        kept: Kept,
        along: jax.Array,
        g: jax.Array,
    ) -> Heads:
        """Cotangents of everything but the keys (Dao et al. 2022, algorithm 4).

        `along` is the sum of g times the output over the head's width.
        """
        if kept.powers is None:
            prob_hbts = jnp.exp(self.masked_scores(heads, who) - kept.total)
        else:
            prob_hbts = kept.powers.astype(kept.total.dtype) / kept.total
        kept_hbts = self.survivors(heads.keys, prob_hbts).astype(g.dtype)
        dv = jnp.einsum("hbts,hbtk->hbsk", kept_hbts, g)
        wide = prob_hbts.dtype
        dprob_hbts = jnp.einsum("hbtk,hbsk->hbts", g, heads.v).astype(wide)
        dprob_hbts = self.survivors(heads.keys, dprob_hbts)
        dscore_hbts = jnp.where(who.may()[None], prob_hbts * (dprob_hbts - along), 0)
        # The scores are linear in each input, so nothing of them is computed again.
        inputs = (heads.q, heads.k, heads.pos_q, heads.pos_k)
        _, pull = jax.vjp(self.scores, *inputs)
        dq, dk, dpos_q, dpos_k = pull(dscore_hbts)
        return Heads(dq, dk, dv, dpos_q, dpos_k, None)


def chunk_of(H: int, B: int, T: int) -> int:
    """How many heads to compute at a time on this backend, a divisor of H."""
    if jax.default_backend() != "cpu":
        return H
    fitting = [c for c in range(1, H + 1) if H % c == 0 and c * B * T * T <= _CACHED]
    return max(fitting, default=1)


def keeps(H: int, B: int, T: int) -> bool:
    """Whether to keep the powers of e on this backend."""
    return jax.default_backend() == "cpu" and H * B * T * T <= _KEPT


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def attend(plan: Plan, chunk: int, heads: Heads, who: Who) -> jax.Array:
    """`[H, B, T, K]`: attention of all heads, `chunk` of them at a time."""
    return _attend_fwd(plan, chunk, heads, who)[0]


def _attend_fwd(plan, chunk, heads, who):
    if chunk == heads.q.shape[0]:
        out, kept = plan.forward(heads, who)
    else:
        some = functools.partial(plan.forward, who=who)
        out, kept = _join(jax.lax.map(some, _split(heads, chunk)))
    return out, (heads, who, out, kept)


def _attend_bwd(plan, chunk, residuals, g):
    heads, who, out, kept = residuals
    wide = kept.total.dtype
    along = (g.astype(wide) * out.astype(wide)).sum(-1, keepdims=True)
    if chunk == heads.q.shape[0]:
        return plan.backward(heads, who, kept, along, g), None
    inputs = dataclasses.replace(heads, keys=None)
    fixed = _split((heads.keys, kept, along, g), chunk)

    def some(i, inputs):
        # The cotangents take the place of what has been read for the last time.
        take = functools.partial(jax.lax.dynamic_index_in_dim, index=i, keepdims=False)
        keys, kept, along, g = jax.tree.map(take, fixed)
        heads = dataclasses.replace(jax.tree.map(take, inputs), keys=keys)
        new = plan.backward(heads, who, kept, along, g)
        put = functools.partial(jax.lax.dynamic_update_index_in_dim, index=i, axis=0)
        return jax.tree.map(put, inputs, new)

    turns = heads.q.shape[0] // chunk
    return _join(jax.lax.fori_loop(0, turns, some, _split(inputs, chunk))), None


attend.defvjp(_attend_fwd, _attend_bwd)


def _split(tree: Any, chunk: int) -> Any:
    """`[H, ...]` -> `[H / chunk, chunk, ...]`."""
    return jax.tree.map(lambda x: x.reshape(-1, chunk, *x.shape[1:]), tree)


def _join(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)
