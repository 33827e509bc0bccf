# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from fulcra_jax import scoring

SEEDS = [0, 1, 2, 3]

# Eager, every primitive would be compiled alone, which takes most of the time.
confusion = jax.jit(scoring.confusion)
auroc = jax.jit(scoring.auroc)
pearson = jax.jit(scoring.pearson)
spearman = jax.jit(scoring.spearman)

# Rows are labels -1, 0, +1. By hand: accuracy 16/29; hits 2, 9, 5; labels 4, 19, 6;
# predictions 8, 10, 11.
BY_HAND = np.array([[2.0, 1.0, 1.0], [5.0, 9.0, 5.0], [1.0, 0.0, 5.0]])


def table(seed, n=300, classes=3):
    """Labels, predictions that agree in half of the entries, and a mask."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, n, p=[0.1, 0.6, 0.3])
    predicted = np.where(rng.random(n) < 0.5, labels, rng.integers(0, classes, n))
    return predicted, labels, rng.random(n) < 0.7


def counts_of(predicted, labels, where):
    return confusion(
        jnp.asarray(predicted), jnp.asarray(labels), where=jnp.asarray(where)
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_class_metrics_equal_sklearn(seed):
    predicted, labels, where = table(seed)
    p, y = predicted[where], labels[where]

    with jax.enable_x64(True):
        counts = counts_of(predicted, labels, where).astype(float)
        scores = jax.jit(scoring.precision_recall_f1)(counts)
        metrics = scoring.accuracy, scoring.macro_f1, scoring.quadratic_kappa
        accuracy, macro, kappa = (jax.jit(metric)(counts) for metric in metrics)

    np.testing.assert_array_equal(counts, sklearn.metrics.confusion_matrix(y, p))
    theirs = sklearn.metrics.precision_recall_fscore_support(y, p)
    for our, their in zip(scores, theirs, strict=True):
        np.testing.assert_allclose(our, their, rtol=1e-14)
    np.testing.assert_allclose(
        accuracy, sklearn.metrics.accuracy_score(y, p), rtol=1e-14
    )
    np.testing.assert_allclose(
        macro, sklearn.metrics.f1_score(y, p, average="macro"), rtol=1e-14
    )
    np.testing.assert_allclose(
        kappa,
        sklearn.metrics.cohen_kappa_score(y, p, weights="quadratic"),
        rtol=1e-12,
    )


def test_class_metrics_by_hand():
    scores = scoring.precision_recall_f1(jnp.asarray(BY_HAND))
    np.testing.assert_allclose(scores.precision, [2 / 8, 9 / 10, 5 / 11], rtol=1e-6)
    np.testing.assert_allclose(scores.recall, [2 / 4, 9 / 19, 5 / 6], rtol=1e-6)
    np.testing.assert_allclose(scores.f1, [4 / 12, 18 / 29, 10 / 17], rtol=1e-6)
    np.testing.assert_array_equal(scores.support, [4, 19, 6])
    assert scoring.accuracy(jnp.asarray(BY_HAND)) == pytest.approx(16 / 29)
    # Opposite signs: one -1 taken for +1 and one +1 for -1, of ten non-zero labels.
    assert scoring.reversal_rate(jnp.asarray(BY_HAND)) == pytest.approx(0.2)


def test_quadratic_kappa_by_hand():
    # Two classes, so the weights are plain: observed agreement .7, by chance .5.
    kappa = scoring.quadratic_kappa(jnp.array([[3.0, 1.0], [2.0, 4.0]]))
    assert kappa == pytest.approx((0.7 - 0.5) / (1.0 - 0.5))
    # A pair two classes apart counts four times.
    far = jnp.array([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    expected = (0.5 * 0.75 + 0.5 * 0.25) * 4.0
    assert scoring.quadratic_kappa(far) == pytest.approx(1.0 - 0.25 * 4.0 / expected)


def test_macro_f1_of_a_class_that_does_not_occur():
    labels, predicted = np.array([1, 1, 2, 2]), np.array([1, 2, 2, 2])
    counts = counts_of(predicted, labels, np.ones(4, bool))
    pooled = sklearn.metrics.f1_score(
        labels, predicted, labels=[0, 1, 2], average="macro", zero_division=0
    )
    present = sklearn.metrics.f1_score(
        labels, predicted, labels=[1, 2], average="macro"
    )
    assert scoring.macro_f1(counts) == pytest.approx(pooled, rel=1e-6)
    assert scoring.macro_f1(counts, present_only=True) == pytest.approx(
        present, rel=1e-6
    )
    scores = scoring.precision_recall_f1(counts)
    assert np.isnan([scores.precision[0], scores.recall[0], scores.f1[0]]).all()


def test_predicting_a_class_without_labels_lowers_only_the_pooled_macro():
    # F1 by hand: class 0 is predicted once and never right, class 1 has 2 * 2 / 5.
    counts = jnp.array([[0.0, 0.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    assert scoring.macro_f1(counts) == pytest.approx((0.0 + 0.8 + 0.0) / 3.0)
    assert scoring.macro_f1(counts, present_only=True) == pytest.approx(0.8)


@pytest.mark.parametrize(
    "metric",
    [
        scoring.accuracy,
        scoring.macro_f1,
        lambda counts: scoring.macro_f1(counts, present_only=True),
        scoring.quadratic_kappa,
        scoring.reversal_rate,
    ],
)
def test_an_empty_table_is_undefined(metric):
    assert jnp.isnan(metric(jnp.zeros((3, 3))))


def test_one_single_class_is_undefined_for_kappa_and_reversal():
    only_zeros = jnp.array([[0.0, 0.0, 0.0], [0.0, 7.0, 0.0], [0.0, 0.0, 0.0]])
    assert jnp.isnan(scoring.quadratic_kappa(only_zeros))
    assert jnp.isnan(scoring.reversal_rate(only_zeros))
    assert scoring.accuracy(only_zeros) == 1.0


def test_ids_outside_the_range_are_counted_nowhere():
    counts = confusion(jnp.array([0, 3, 1, -1]), jnp.array([0, 1, -1, 2]))
    np.testing.assert_array_equal(counts, np.diag([1.0, 0.0, 0.0]))


def test_confusions_of_parts_add_up():
    predicted, labels, where = table(0)
    parts = [
        counts_of(predicted[part], labels[part], where[part])
        for part in (slice(0, 100), slice(100, 300))
    ]
    np.testing.assert_array_equal(
        parts[0] + parts[1], counts_of(predicted, labels, where)
    )


def test_classes_from_score_with_both_cuts():
    score = jnp.array([-1.0, -0.5, -0.31, -0.3, 0.0, 0.29, 0.31, 0.5, 0.51, jnp.nan])
    nearest = [0, 1, 1, 1, 1, 1, 1, 1, 2, -1]
    present = [0, 0, 0, 1, 1, 1, 2, 2, 2, -1]
    assert scoring.classes_from_score(score).tolist() == nearest
    assert scoring.classes_from_score(score, 0.3).tolist() == present
    # The nearest of -1, 0, +1, as numpy rounds (a half to the even 0).
    np.testing.assert_array_equal(
        scoring.classes_from_score(score[:-1]), np.round(score[:-1]) + 1
    )


def test_exact_match_reads_only_cells_that_count():
    predicted = jnp.array([[0, 1], [2, 1], [2, 2], [0, 0]])
    labels = jnp.array([[0, 1], [2, 2], [2, 1], [1, 1]])
    where = jnp.array([[True, True], [True, True], [True, False], [False, False]])
    # Row 0 and row 2 match, row 1 does not, row 3 has no cell.
    assert scoring.exact_match(predicted, labels, where=where) == pytest.approx(2 / 3)
    assert jnp.isnan(scoring.exact_match(predicted, labels, where=where & False))


@pytest.mark.parametrize("seed", SEEDS)
def test_mean_squared_error_equals_sklearn(seed):
    rng = np.random.default_rng(seed)
    score, labels = rng.uniform(-1, 1, 200), rng.integers(-1, 2, 200)
    where = rng.random(200) < 0.6
    with jax.enable_x64(True):
        ours = scoring.mean_squared_error(
            jnp.asarray(score), jnp.asarray(labels), where=jnp.asarray(where)
        )
    theirs = sklearn.metrics.mean_squared_error(labels[where], score[where])
    np.testing.assert_allclose(ours, theirs, rtol=1e-14)
    assert jnp.isnan(
        scoring.mean_squared_error(jnp.zeros(2), jnp.zeros(2), where=jnp.zeros(2) > 0)
    )


def columns(seed, n=250):
    """Scores with many ties, scores without, labels and a mask."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([-1, 0, 1], n, p=[0.1, 0.6, 0.3])
    smooth = 0.4 * labels + rng.normal(0, 1, n)
    return smooth.round(1), smooth, labels, rng.random(n) < 0.7


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("which", [0, 1])
def test_correlations_equal_scipy(seed, which):
    tied, smooth, labels, where = columns(seed)
    score = (tied, smooth)[which]
    with jax.enable_x64(True):
        arrays = jnp.asarray(score), jnp.asarray(labels)
        r = pearson(*arrays, where=jnp.asarray(where))
        rho = spearman(*arrays, where=jnp.asarray(where))
    theirs_r = scipy.stats.pearsonr(score[where], labels[where]).statistic
    theirs_rho = scipy.stats.spearmanr(score[where], labels[where]).statistic
    np.testing.assert_allclose(r, theirs_r, rtol=1e-12)
    np.testing.assert_allclose(rho, theirs_rho, rtol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("which", [0, 1])
def test_auroc_equals_sklearn(seed, which):
    tied, smooth, labels, where = columns(seed)
    score = (tied, smooth)[which]
    with jax.enable_x64(True):
        ours = auroc(
            jnp.asarray(score), jnp.asarray(labels == -1), where=jnp.asarray(where)
        )
    theirs = sklearn.metrics.roc_auc_score(labels[where] == -1, score[where])
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_float32_keeps_its_digits_on_many_items():
    """Sums of ranks reach 2e9 here; the result must not lose the digits of float32."""
    rng = np.random.default_rng(0)
    n = 60_000
    positive = rng.random(n) < 0.999  # One side is rare.
    score = (rng.normal(0, 1, n) + positive).astype(np.float32)
    ours = auroc(jnp.asarray(score), jnp.asarray(positive))
    theirs = sklearn.metrics.roc_auc_score(positive, score)
    assert ours == pytest.approx(theirs, abs=1e-6)
    rho = spearman(jnp.asarray(score), jnp.asarray(score**3))
    assert rho == pytest.approx(1.0, abs=1e-6)


def test_auroc_by_hand_and_its_edges():
    score = jnp.array([0.1, 0.4, 0.4, 0.8])
    # Pairs (positive, negative): a win, a tie, and two wins: 3.5 of 4.
    assert auroc(score, jnp.array([False, False, True, True])) == 0.875
    assert auroc(-score, jnp.array([False, False, True, True])) == 0.125
    assert auroc(jnp.zeros(5), jnp.arange(5) < 2) == 0.5
    assert jnp.isnan(auroc(score, jnp.ones(4, bool)))
    assert jnp.isnan(auroc(score, jnp.zeros(4, bool)))


def test_infinite_scores_do_not_tie_with_masked_ones():
    score = jnp.array([jnp.inf, 5.0, 1.0, 0.0])
    where = jnp.array([True, False, True, True])
    area = auroc(score, jnp.array([True, True, False, False]), where=where)
    assert area == 1.0


@pytest.mark.parametrize("metric", [pearson, spearman])
@pytest.mark.parametrize("constant", [0.0, 0.1, 1e8])
def test_correlation_with_a_constant_is_undefined(metric, constant):
    # 0.1 summed and divided is off by an ulp, which must not pass for spread.
    x, y = jnp.arange(7.0), jnp.full(7, constant)
    assert jnp.isnan(metric(x, y))
    assert jnp.isnan(metric(y, x))
    # Spread in entries that do not count is no spread.
    z = y.at[0].set(3.0)
    assert jnp.isnan(metric(x, z, where=jnp.arange(7) > 0))


@pytest.mark.parametrize("metric", [pearson, spearman])
def test_correlation_needs_two_pairs(metric):
    x = jnp.array([1.0, 2.0, 4.0])
    assert jnp.isnan(metric(x, x, where=jnp.array([True, False, False])))
    assert jnp.isnan(metric(x[:0], x[:0]))
    assert metric(x, -x, where=jnp.array([True, False, True])) == pytest.approx(-1.0)


@pytest.mark.parametrize("metric", [pearson, spearman, auroc])
def test_a_nan_that_counts_is_not_hidden(metric):
    x = jnp.array([1.0, jnp.nan, 4.0, 2.0])
    assert jnp.isnan(metric(x, jnp.array([0, 1, 1, 0])))


def test_permuting_the_items_changes_nothing():
    predicted, labels, where = table(5)
    tied = columns(5, n=300)[0]
    order = np.random.default_rng(9).permutation(300)
    for metric, x in [
        (confusion, predicted),
        (spearman, tied),
        (pearson, tied),
    ]:
        plain = metric(jnp.asarray(x), jnp.asarray(labels), where=jnp.asarray(where))
        moved = metric(
            jnp.asarray(x[order]),
            jnp.asarray(labels[order]),
            where=jnp.asarray(where[order]),
        )
        # Sums run in another order: a few ulp of numbers near 1.
        np.testing.assert_allclose(moved, plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: scoring.confusion(jnp.zeros(4, int), jnp.zeros(5, int)),
            r"prediction\.confusion: labels has shape \(5,\), so N=5, but predicted",
        ),
        (
            lambda: scoring.precision_recall_f1(jnp.zeros((2, 3))),
            r"precision_recall_f1: counts has shape \(2, 3\), so C=3, but",
        ),
        (lambda: scoring.accuracy(jnp.zeros((2, 3))), r"prediction\.accuracy: counts"),
        (lambda: scoring.macro_f1(jnp.zeros((2, 3))), r"prediction\.macro_f1: counts"),
        (
            lambda: scoring.quadratic_kappa(jnp.zeros(3)),
            r"quadratic_kappa: counts has shape \(3,\); expected \[C, C\]",
        ),
        (
            lambda: scoring.reversal_rate(jnp.zeros((2, 2))),
            r"reversal_rate: counts has shape \(2, 2\); expected \[3, 3\]",
        ),
        (
            lambda: scoring.exact_match(jnp.zeros((4, 2), int), jnp.zeros((4, 3), int)),
            r"exact_match: labels has shape \(4, 3\), so V=3",
        ),
        (
            lambda: scoring.mean_squared_error(jnp.zeros(4), jnp.zeros(5)),
            r"mean_squared_error: labels has shape \(5,\), so N=5",
        ),
        (
            lambda: scoring.pearson(jnp.zeros(4), jnp.zeros(5)),
            r"correlation\.pearson: y has shape \(5,\), so N=5",
        ),
        (
            lambda: scoring.spearman(jnp.zeros(4), jnp.zeros((4, 1))),
            r"correlation\.spearman: y has shape \(4, 1\); expected \[N\]",
        ),
        (
            lambda: scoring.auroc(jnp.zeros(4), jnp.zeros(4), where=jnp.ones(3, bool)),
            r"correlation\.auroc: where has shape \(3,\), so N=3, but score has N=4",
        ),
    ],
)
def test_errors_name_the_array_at_fault(call, message):
    with pytest.raises(ValueError, match=message):
        call()
