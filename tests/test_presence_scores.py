# SPDX-License-Identifier: Apache-2.0
"""Scores of presence: the released evaluator's rule, closed forms, scikit-learn."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from fulcra_jax import scoring


def table(seed=0, n=200, v=6):
    rng = np.random.default_rng(seed)
    labels = rng.random((n, v)) < np.linspace(0.05, 0.5, v)
    probs = np.clip(0.3 * labels + 0.5 * rng.random((n, v)), 0.0, 1.0)
    return probs.astype(np.float32), labels


def released(there, labels):
    """The rule of the task's evaluator: categories without a label are left out."""
    precisions, recalls, f1s = [], [], []
    for said, is_there in zip(there.T, labels.T, strict=True):
        if not is_there.any():
            continue
        hits = (said & is_there).sum()
        p, r = hits / said.sum() if said.any() else 0.0, hits / is_there.sum()
        precisions.append(p)
        recalls.append(r)
        f1s.append(2 * p * r / (p + r) if p + r else 0.0)
    p, r = np.mean(precisions), np.mean(recalls)
    return 2 * p * r / (p + r), np.mean(f1s), p, r


def test_averages_are_those_of_the_released_evaluator():
    probs, labels = table()
    labels[:, 2] = False  # a category without a label
    there = probs > 0.5
    there[:, 1] = False  # one that is never predicted
    counts = scoring.presence_counts(jnp.asarray(there), jnp.asarray(labels))
    np.testing.assert_allclose(
        scoring.macro_scores(counts), released(there, labels), rtol=1e-6
    )


def test_scores_of_each_category_are_those_of_scikit_learn():
    probs, labels = table()
    there = probs > 0.4
    counts = scoring.presence_counts(jnp.asarray(there), jnp.asarray(labels))
    expected = metrics.precision_recall_fscore_support(labels, there, average=None)
    for ours, theirs in zip(scoring.presence_scores(counts), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_undefined_scores_are_nan():
    nothing = scoring.presence_scores(jnp.zeros((2, 3)))
    assert jnp.isnan(jnp.stack(nothing[:3])).all()
    assert jnp.isnan(jnp.stack(scoring.macro_scores(jnp.zeros((2, 3))))).all()
    silent = scoring.macro_scores(jnp.array([[0.0, 0.0, 4.0]]))
    assert [float(x) for x in silent] == [0.0, 0.0, 0.0, 0.0]


def test_a_fitted_threshold_is_near_the_best_of_a_search():
    probs, labels = table()
    cut = float(scoring.fit_threshold(jnp.asarray(probs), jnp.asarray(labels)))
    best = max(released(probs >= t, labels)[0] for t in np.linspace(0.05, 0.79, 200))
    # It is the middle of a plateau, so it may lie a little below the highest step.
    assert released(probs >= cut, labels)[0] > best - 0.03


def test_thresholds_of_rare_categories_are_drawn_to_the_common_one():
    probs, labels = table()
    probs[:, 0] *= 0.1  # rare, and on another scale
    arrays = jnp.asarray(probs), jnp.asarray(labels)
    common = float(scoring.fit_threshold(*arrays))
    free = scoring.fit_thresholds(*arrays, prior=0.0)
    drawn = scoring.fit_thresholds(*arrays, prior=50.0)
    assert float(free[0]) < float(drawn[0]) < common
    np.testing.assert_allclose(
        scoring.fit_thresholds(*arrays, prior=1e9), common, rtol=1e-4
    )
    none = scoring.fit_thresholds(arrays[0], arrays[1].at[:, 3].set(False))
    lone = scoring.fit_threshold(arrays[0], arrays[1].at[:, 3].set(False))
    assert float(none[3]) == pytest.approx(float(lone), rel=1e-5)


def test_shapes_that_disagree_are_refused():
    probs, labels = map(jnp.asarray, table())
    with pytest.raises(ValueError, match=r"presence_counts: labels has shape \(9, 6\)"):
        scoring.presence_counts(probs > 0.5, labels[:9])
    with pytest.raises(ValueError, match=r"presence_scores: counts has shape \(3,\)"):
        scoring.presence_scores(jnp.zeros(3))
    with pytest.raises(ValueError, match=r"macro_scores: counts has shape \(3, 2\)"):
        scoring.macro_scores(jnp.zeros((3, 2)))
    for fit in (scoring.fit_threshold, scoring.fit_thresholds):
        with pytest.raises(ValueError, match=f"presence.{fit.__name__}: labels has"):
            fit(probs, labels[:9])
