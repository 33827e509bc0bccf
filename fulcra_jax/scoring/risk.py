# SPDX-License-Identifier: Apache-2.0
"""How wrong accepted answers are: the share of errors against the share accepted.

Axes: N items judged, T thresholds.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from fulcra_jax import _check
from fulcra_jax.scoring import _distributions


class RiskCoverage(NamedTuple):
    """What accepting above each threshold means, each `[T]`."""

    coverage: jax.Array
    error: jax.Array
    upper: jax.Array
    accepted: jax.Array


def risk_coverage(
    correct: jax.Array,
    share: jax.Array,
    thresholds: jax.Array,
    *,
    level: float = 0.95,
    simultaneous: bool = False,
    where: jax.Array | None = None,
) -> RiskCoverage:
    """How wrong the LLM is where its passes agree: accept if share >= threshold.

    A share counts as equal to a threshold from 8 eps (relative) below it: 3 / 5 = 0.6,
    whichever way the two were rounded.

    With k of n accepted audit items wrong, the bound is the one-sided one of Clopper
    and Pearson: the `level` quantile of beta(k + 1, n - k).

    Each bound holds for a threshold fixed in advance. Whoever looks at all and picks
    the best needs `simultaneous=True`: every bound then at 1 - (1 - level) / T, so
    that all T hold together (Bonferroni) and any choice among them is covered.

    Args:
      correct: `[N]` bool, whether the LLM's answer equals the human's.
      share: `[N]` float, the share of the passes behind the answer; NaN, of no
        passes, is accepted at no threshold.
      thresholds: `[T]` float; T may be 0.
      level: the confidence of the bounds, in (0, 1).
      simultaneous: whether the bounds hold for all thresholds at once.
      where: `[N]` bool, True for the items of the audit: a simple random sample. The
        items that a human looked at for their low share are none.

    Returns:
      Per threshold `[T]`: `coverage`, the share of the audit that is accepted; `error`,
      the share wrong among them, NaN if none is accepted; `upper`, its bound, 1 if
      nothing is accepted; `accepted`, their number. All but the last two NaN without an
      audit.

    Raises:
      ValueError: if the shapes disagree, `level` is not between 0 and 1 or a threshold
        is NaN.

    Reference:
      Clopper and Pearson 1934 (doi 10.1093/biomet/26.4.404); Geifman and El-Yaniv 2017
      (arXiv 1705.08500), "Selective classification for deep neural networks".

    >>> correct, share = jnp.arange(40) != 0, jnp.where(jnp.arange(40) < 10, 0.6, 1.0)
    >>> curve = risk_coverage(correct, share, jnp.array([0.6, 1.0]))
    >>> [round(float(x), 3) for x in (*curve.error, *curve.upper)]
    [0.025, 0.0, 0.113, 0.095]
    """
    caller = "risk.risk_coverage"
    if not 0.0 < level < 1.0:
        raise ValueError(f"{caller}: level is {level}; expected 0 < level < 1.")
    size = _check.shapes(
        caller,
        correct=(correct, "N"),
        share=(share, "N"),
        thresholds=(thresholds, "T"),
        where=(where, "N"),
    )
    if not isinstance(thresholds, Tracer) and np.isnan(np.asarray(thresholds)).any():
        raise ValueError(f"{caller}: thresholds holds nan; expected numbers.")
    dtype = _dtype(share, thresholds)
    share, thresholds = (jnp.asarray(x, dtype) for x in (share, thresholds))
    audit = jnp.ones(share.shape, bool) if where is None else jnp.asarray(where, bool)
    share = jnp.where(audit, share, 0.0)
    share_tn, threshold_tn = share[None], thresholds[:, None]
    slack_tn = jnp.minimum(jnp.abs(share_tn), jnp.abs(threshold_tn))
    slack_tn = 8.0 * jnp.finfo(dtype).eps * slack_tn
    equal_tn = jnp.abs(share_tn - threshold_tn) <= slack_tn
    # -inf is infinitely far below inf, and no slack makes them equal.
    equal_tn &= jnp.isfinite(slack_tn)
    taken = audit[None] & ((share_tn >= threshold_tn) | equal_tn)
    wrong = taken & ~jnp.asarray(correct, bool)[None]
    n, k = taken.sum(1).astype(dtype), wrong.sum(1).astype(dtype)
    total = audit.sum().astype(dtype)
    confidence = 1.0 - (1.0 - level) / (max(size["T"], 1) if simultaneous else 1)
    inner = k < n
    upper = _distributions.beta_quantile(
        jnp.asarray(confidence, dtype), k + 1.0, jnp.where(inner, n - k, 1.0)
    )
    return RiskCoverage(
        coverage=jnp.where(total > 0.0, n / jnp.maximum(total, 1.0), jnp.nan),
        error=jnp.where(n > 0.0, k / jnp.maximum(n, 1.0), jnp.nan),
        upper=jnp.where(inner, upper, 1.0),
        accepted=n,
    )


def _dtype(*arrays: jax.Array) -> jnp.dtype:
    floats = [x.dtype for x in arrays if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.result_type(jnp.float32, *floats) if floats else jnp.zeros(()).dtype
