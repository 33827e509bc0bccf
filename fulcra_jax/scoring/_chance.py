# SPDX-License-Identifier: Apache-2.0
"""Observed and expected agreement: the two halves of every coefficient.

Axes: R raters (G, H when two of them), N units, K and L categories.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from fulcra_jax.scoring import _ratings, categories
from fulcra_jax.scoring._ratings import Counted, divide, ratio
from fulcra_jax.scoring.reasons import Reason

Kind = Literal[
    "cohen", "conger", "scott", "fleiss", "brennan_prediger", "gwet", "krippendorff"
]
Weights = categories.Weights | np.ndarray | jax.Array

EXACT = jax.lax.Precision.HIGHEST
"""Counts above 2,048 would lose digits in an accelerator's default precision."""


def weight_matrix(caller: str, weights: Weights, table: Counted) -> jax.Array:
    """The `[K, K]` agreement weights in the work dtype."""
    k = table.counts.shape[-1]
    if isinstance(weights, str):
        weights = categories.category_weights(weights, k)
    if tuple(weights.shape) != (k, k):
        raise ValueError(
            f"{caller}: weights has shape {tuple(weights.shape)}; expected [{k}, {k}], "
            f"as num_categories is {k}."
        )
    if not isinstance(weights, Tracer):
        given = np.asarray(weights)
        if not np.isfinite(given).all() or (given > 1.0).any():
            raise ValueError(
                f"{caller}: weights holds a number that is NaN, infinite or above 1; "
                "expected agreement weights, 1 on the diagonal (1 - distance)."
            )
        if not np.allclose(np.diag(given), 1.0):
            raise ValueError(
                f"{caller}: weights has {np.diag(given).min():g} on its diagonal; "
                "expected 1, as a category agrees with itself (1 - distance)."
            )
    return jnp.asarray(weights, table.weight.dtype)


def usable(caller: str, kind: Kind, table: Counted) -> Counted:
    """The ratings a coefficient reads: for two raters only units that both rated."""
    if kind not in ("cohen", "scott"):
        return table
    raters = table.onehot.shape[0]
    if raters != 2:
        raise ValueError(
            f"{caller}: ratings has {raters} raters; expected 2. For more raters use "
            "conger_kappa, light_kappa, fleiss_kappa or krippendorff_alpha."
        )
    both_n = table.total == 2.0
    return table._replace(
        onehot=jnp.where(both_n[None, :, None], table.onehot, 0.0),
        counts=jnp.where(both_n[:, None], table.counts, 0.0),
        total=jnp.where(both_n, table.total, 0.0),
    )


def disagreement(weights_kk: jax.Array) -> jax.Array:
    """`[K, K]` 1 - weights. Where one label is rare, agreement is close to 1 and so is
    what chance gives; their distance to 1 has the digits, and all is computed from it.
    """
    return 1.0 - weights_kk


def disagreeing_share(table: Counted, distance_kk: jax.Array) -> jax.Array:
    """`[N]` the share of disagreeing pairs of a unit's ratings; 0 without a pair."""
    unlike_nk = jnp.matmul(table.counts, distance_kk, precision=EXACT)
    pairs_n = table.total * (table.total - 1.0)
    unlike_n = (table.counts * unlike_nk).sum(-1)
    return divide(unlike_n, jnp.where(table.paired, pairs_n, 0.0))


def observed_disagreement(table: Counted, distance_kk: jax.Array) -> jax.Array:
    """1 - p_a, NaN without a pair."""
    weight_n = jnp.where(table.paired, table.weight, 0.0)
    total = (weight_n * disagreeing_share(table, distance_kk)).sum()
    return ratio(total, weight_n.sum())


def unit_shares(table: Counted) -> jax.Array:
    """`[N, K]` n_uk / r_u; 0 for a unit without ratings."""
    return divide(table.counts, table.total[:, None])


def category_shares(table: Counted) -> jax.Array:
    """`[K]` pi: the mean of the units' shares, NaN without ratings."""
    weight_n = jnp.where(table.rated, table.weight, 0.0)
    total_k = jnp.matmul(weight_n, unit_shares(table), precision=EXACT)
    return ratio(total_k, weight_n.sum())


def rater_shares(table: Counted) -> tuple[jax.Array, jax.Array]:
    """`[R, K]` every rater's category shares and `[R]` his number of ratings."""
    count_rk = jnp.einsum("rnk,n->rk", table.onehot, table.weight, precision=EXACT)
    count_r = count_rk.sum(-1)
    return divide(count_rk, count_r[:, None]), count_r


def expected_disagreement(
    kind: Kind, table: Counted, weights_kk: jax.Array
) -> jax.Array:
    """1 - p_e of a coefficient (that of alpha stands in `alpha`)."""
    k = weights_kk.shape[0]
    distance_kk = disagreement(weights_kk)
    match kind:
        case "brennan_prediger":
            return distance_kk.sum() / k**2
        case "gwet":
            pi_k = category_shares(table)
            spread = (pi_k * (1.0 - pi_k)).sum()
            return 1.0 - weights_kk.sum() / (k * max(k - 1, 1)) * spread
        case "fleiss" | "scott":
            pi_k = category_shares(table)
            return (distance_kk * jnp.outer(pi_k, pi_k)).sum()
        case "conger" | "cohen":
            share_rk, count_r = rater_shares(table)
            # All pairs of raters less each rater with himself.
            others_rk = share_rk.sum(0)[None] - share_rk
            both_kl = jnp.matmul(share_rk.T, others_rk, precision=EXACT)
            raters = (count_r > 0.0).sum().astype(share_rk.dtype)
            return ratio((distance_kk * both_kl).sum(), raters * (raters - 1.0))
        case _:
            raise ValueError(f"_chance.expected_disagreement: no case for {kind!r}.")


def pairable(table: Counted) -> Counted:
    """Only the units with two ratings: alpha reads no others."""
    return table._replace(
        onehot=jnp.where(table.paired[None, :, None], table.onehot, 0.0),
        counts=jnp.where(table.paired[:, None], table.counts, 0.0),
        total=jnp.where(table.paired, table.total, 0.0),
    )


def coincidences(table: Counted) -> jax.Array:
    """`[K, K]` o_kl = sum_u n_uk (n_ul - [k = l]) / (r_u - 1) over r_u >= 2."""
    weight_n = divide(jnp.where(table.paired, table.weight, 0.0), table.total - 1.0)
    weighted_nk = table.counts * weight_n[:, None]
    pairs_kk = jnp.matmul(weighted_nk.T, table.counts, precision=EXACT)
    return pairs_kk - jnp.diag(weighted_nk.sum(0))


def reason_of(
    table: Counted,
    read: Counted | None = None,
    *,
    distance: jax.Array | None = None,
    expected: jax.Array | None = None,
) -> jax.Array:
    """`[]` int32 code of `Reason`: why nothing can be said of these ratings.

    `read` is the part of the table that a coefficient reads; what is wrong with the
    whole comes first, because it says more. `distance` `[K, K]` and the `expected`
    disagreement tell whether two of the categories that occur can disagree at all.
    """
    if read is not None:
        whole = reason_of(table)
        part = reason_of(read, distance=distance, expected=expected)
        return jnp.where(whole == Reason.OK, part, whole)
    present_rn = (table.onehot.sum(-1) > 0.0) & (table.weight > 0.0)[None]
    raters = present_rn.any(1).sum()
    occurs_k = jnp.where(table.rated[:, None], table.counts, 0.0).sum(0) > 0.0
    cases = (
        (table.rated.sum() == 0, Reason.NO_RATINGS),
        (raters < 2, Reason.ONE_RATER),
        (table.paired.sum() == 0, Reason.NO_PAIRS),
        (occurs_k.sum() < 2, Reason.ONE_CATEGORY),
        (~_can_disagree(occurs_k, distance, expected), Reason.NO_DISAGREEMENT),
    )
    return jnp.select(
        [condition for condition, _ in cases],
        [jnp.int32(reason) for _, reason in cases],
        jnp.int32(Reason.OK),
    )


def _can_disagree(
    occurs_k: jax.Array, distance_kk: jax.Array | None, expected: jax.Array | None
) -> jax.Array:
    """`[]` bool: two categories that occur are some distance apart."""
    possible = jnp.array(True)
    if distance_kk is not None:
        both_kk = occurs_k[:, None] & occurs_k[None]
        possible &= (both_kk & (distance_kk != 0.0)).any()
    if expected is not None:
        possible &= expected != 0.0
    return possible


def corrected(observed: jax.Array, expected: jax.Array, reason: jax.Array) -> jax.Array:
    """1 - observed / expected disagreement, NaN with a reason; finite gradients."""
    observed, expected = defined(reason, observed, expected)
    return jnp.where(reason == Reason.OK, 1.0 - observed / expected, jnp.nan)


def defined(
    reason: jax.Array, observed: jax.Array, expected: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Both, and 0 of 1 where there is a reason against them: nothing divides by 0."""
    ok = reason == Reason.OK
    return jnp.where(ok, observed, 0.0), jnp.where(ok, expected, 1.0)


def pair_tables(table: Counted) -> jax.Array:
    """`[R, R, K, K]` contingency tables of every two raters, on units both rated."""
    r, n, k = table.onehot.shape
    flat_nq = table.onehot.transpose(1, 0, 2).reshape(n, r * k)
    weighted_nq = flat_nq * table.weight[:, None]
    tables_qq = jnp.matmul(flat_nq.T, weighted_nq, precision=EXACT)
    return tables_qq.reshape(r, k, r, k).transpose(0, 2, 1, 3)


def kappa_of_tables(tables: jax.Array, weights_kk: jax.Array) -> jax.Array:
    """`[R, R]` Cohen's kappa of contingency tables; NaN on the diagonal."""
    total = tables.sum((-1, -2))
    rows, columns = tables.sum(-1), tables.sum(-2)
    disagree_kk = disagreement(weights_kk)
    observed = jnp.einsum("ghkl,kl->gh", tables, disagree_kk, precision=EXACT)
    expected = jnp.einsum("ghk,ghl,kl->gh", rows, columns, disagree_kk, precision=EXACT)
    # A table with one category only has 0 expected disagreement.
    off = 1.0 - jnp.eye(tables.shape[0], dtype=tables.dtype)
    return 1.0 - ratio(observed * total * off, expected * off)


def mean_of_defined(x: jax.Array) -> jax.Array:
    """The mean of the entries that are not NaN; NaN without any."""
    defined = ~jnp.isnan(x)
    return ratio(jnp.where(defined, x, 0.0).sum(), defined.sum().astype(x.dtype))


def coefficient(
    caller: str,
    kind: Kind,
    ratings: jax.Array,
    num_categories: int,
    weights: Weights,
    where: jax.Array | None,
    unit_weights: jax.Array | None,
) -> jax.Array:
    """The coefficient of checked ratings, for the public functions."""
    table = _ratings.counted(caller, ratings, num_categories, where, unit_weights)
    table = usable(caller, kind, table)
    weights_kk = weight_matrix(caller, weights, table)
    distance_kk = disagreement(weights_kk)
    observed = observed_disagreement(table, distance_kk)
    expected = expected_disagreement(kind, table, weights_kk)
    reason = reason_of(table, distance=distance_kk, expected=expected)
    return corrected(observed, expected, reason)
