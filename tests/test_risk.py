# SPDX-License-Identifier: Apache-2.0
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fulcra_jax.scoring import risk


def test_risk_and_coverage_equal_scipy():
    rng = np.random.default_rng(0)
    share = rng.choice([0.4, 0.6, 0.8, 1.0], 300, p=[0.1, 0.1, 0.2, 0.6])
    correct = rng.random(300) < 0.5 + 0.45 * share
    audit = rng.random(300) < 0.5
    thresholds = np.array([0.0, 0.6, 0.8, 1.0, 1.1])
    for simultaneous, level in [(False, 0.95), (True, 1 - 0.05 / 5)]:
        found = risk.risk_coverage(
            *map(jnp.asarray, (correct, np.where(audit, share, np.nan), thresholds)),
            where=jnp.asarray(audit),
            simultaneous=simultaneous,
        )
        for t, threshold in enumerate(thresholds):
            taken = audit & (share >= threshold)
            k, n = (taken & ~correct).sum(), taken.sum()
            assert found.accepted[t] == n
            assert found.coverage[t] == pytest.approx(n / audit.sum())
            if n == 0:
                assert jnp.isnan(found.error[t])
                assert found.upper[t] == 1.0
                continue
            bound = stats.binomtest(int(k), int(n), alternative="less")
            expected = bound.proportion_ci(level, method="exact").high
            assert found.error[t] == pytest.approx(k / n)
            assert found.upper[t] == pytest.approx(expected, rel=1e-5)


def test_all_wrong_is_bounded_by_one():
    curve = risk.risk_coverage(jnp.zeros(4, bool), jnp.ones(4), jnp.array([0.5]))
    assert curve.error.tolist() == [1.0]
    assert curve.upper.tolist() == [1.0]


def test_a_share_equal_to_the_threshold_is_accepted():
    """3 / 5 rounded down: 0.59999996 is no other share than 0.6."""
    below = np.nextafter(np.float32(0.6), np.float32(0.0))
    share = jnp.array([below, 0.6, 0.5999, np.nan, -np.inf], jnp.float32)
    thresholds = jnp.array([0.6, below, np.inf], jnp.float32)
    curve = risk.risk_coverage(jnp.ones(5, bool), share, thresholds)
    assert curve.accepted.tolist() == [2.0, 2.0, 0.0]


def test_no_threshold_gives_an_empty_curve():
    for simultaneous in (False, True):
        curve = risk.risk_coverage(
            jnp.ones(4, bool), jnp.ones(4), jnp.zeros(0), simultaneous=simultaneous
        )
        assert [x.shape for x in curve] == [(0,)] * 4


def test_refuses_what_does_not_fit():
    x = jnp.zeros(4)
    with pytest.raises(
        ValueError, match=r"share has shape \(3,\), so N=3, but correct"
    ):
        risk.risk_coverage(x > 0, x[:3], x)
    with pytest.raises(ValueError, match=r"risk_coverage: level is 1; expected"):
        risk.risk_coverage(x > 0, x, x, level=1)
    with pytest.raises(ValueError, match="risk_coverage: thresholds holds nan; expect"):
        risk.risk_coverage(x > 0, x, x * jnp.nan)
