# SPDX-License-Identifier: Apache-2.0
"""Agreement with a teacher's scores, and weighted figures, against other libraries."""

import numpy as np
import pytest
import rich.console
from scipy import stats
from sklearn import metrics

from fulcra_jax import values
from fulcra_jax.report import cells, evaluation_tables, resamples, tables, teacher


@pytest.fixture(scope="module")
def scored():
    """What a teacher and a student say of 80 rows, of which 12 share their answer."""
    rng = np.random.default_rng(0)
    truth = np.clip(rng.normal(0.2, 0.6, (80, 10)), -1, 1).astype(np.float32)
    truth[:, 1] = 0.25  # a value of which the teacher always says the same
    student = np.clip(truth + rng.normal(0, 0.3, truth.shape), -1.2, 1.2)
    repeated = np.arange(80) < 12
    return student, teacher.Taught(truth, rng.integers(0, 40, 80), repeated)


@pytest.fixture(scope="module")
def found(scored):
    return teacher.evaluate("student", *scored, resamples=200)


@pytest.mark.parametrize("part", ["all", "unrepeated"])
def test_figures_are_those_of_other_libraries(scored, found, part):
    student, truth = scored
    rows = slice(None) if part == "all" else ~truth.repeated
    said, told = np.clip(student[rows], -1, 1), truth.teacher[rows]
    shown = found[part]
    assert shown["rows"] == len(said)
    r2, rho, r = {}, {}, {}
    for v, name in enumerate(values.BASIC):
        entry = shown["values"][name]
        assert entry["mse"] == pytest.approx(np.mean((said - told)[:, v] ** 2))
        if v == 1:
            assert entry["r2"] is entry["spearman"] is entry["pearson"] is None
            assert entry["r2_interval"] == [None, None]
            continue
        r2[v] = metrics.r2_score(told[:, v], said[:, v])
        rho[v] = stats.spearmanr(said[:, v], told[:, v]).statistic
        r[v] = stats.pearsonr(said[:, v], told[:, v]).statistic
        got = [entry[key] for key in ("r2", "spearman", "pearson")]
        assert got == pytest.approx([r2[v], rho[v], r[v]], abs=1e-6)
    means = [shown[key] for key in ("r2", "spearman", "pearson")]
    want = [np.mean(list(x.values())) for x in (r2, rho, r)]
    assert means == pytest.approx(want, abs=1e-6)
    spread = (told - told.mean(0, dtype=float)) ** 2
    pooled = 1 - ((said - told) ** 2).sum() / spread.sum()
    assert shown["r2_pooled"] == pytest.approx(pooled, abs=1e-6)
    sign = lambda x: np.where(np.abs(x) > 0.3, np.sign(x), 0).astype(int).ravel()
    f1 = metrics.f1_score(sign(told), sign(said), average=None, labels=[-1, 0, 1])
    got = [shown[key] for key in ("f1_opposed", "f1_none", "f1_supported")]
    assert got == pytest.approx(f1, abs=1e-6)
    entry = shown["values"]["Power"]
    counts = [entry[key] for key in ("n_below", "n_within", "n_above")]
    assert counts == np.bincount(sign(told[:, 4]) + 1, minlength=3).tolist()


def test_intervals_hold_the_figures(found):
    for key, _ in teacher.FIGURES:
        if key in found["all"]:
            low, high = found["all"][f"{key}_interval"]
            assert low <= found["all"][key] <= high, key
            assert low < high


def test_the_mean_of_other_rows_has_an_r2_of_zero_around_itself(scored):
    _, truth = scored
    outside = np.full(10, 0.1)
    other = teacher.Taught(truth.teacher, truth.cluster, truth.repeated, outside)
    constant = np.tile(outside, (80, 1))
    shown = teacher.evaluate("mean", constant, other, resamples=200)["all"]
    assert shown["r2_outside"] == pytest.approx(0, abs=1e-6)
    assert shown["r2_pooled"] < 0
    assert shown["spearman"] is None


def test_a_comparison_is_paired(scored):
    student, truth = scored
    same = teacher.compare(("a", "b"), student, student, truth, resamples=200)
    assert same["all"]["r2_pooled"] == {"difference": 0.0, "interval": [0.0, 0.0]}
    better = teacher.compare(
        ("teacher", "student"), truth.teacher, student, truth, resamples=200
    )
    for part in ("all", "unrepeated"):
        for key in ("r2_pooled", "spearman"):
            assert better[part][key]["interval"][0] > 0
    title, header, body = teacher.differences_table([better])
    assert title.startswith("teacher - student: paired")
    assert header == ["figure", "all rows", "unrepeated"]
    assert len(body) == len(teacher.FIGURES) - 1


def test_nothing_but_repeated_answers_leaves_one_column(scored):
    student, truth = scored
    canned = teacher.Taught(truth.teacher, truth.cluster, np.ones(80, bool))
    found = teacher.evaluate("student", student, canned, resamples=200)
    assert found["unrepeated"] is None
    assert teacher.agreement_table([found])[1] == ["figure", "all rows"]


def test_repeated_answers_are_compared_by_their_words():
    texts = ["Sorry,  I can't.", "sorry i can t", "No.", "Ja!", "no", "Nein"]
    got = teacher.repeated_answers(texts).tolist()
    assert got == [True, True, True, False, True, False]


def test_scores_that_do_not_fit_are_refused(scored):
    student, truth = scored
    with pytest.raises(ValueError, match=r"shape \(79, 10\), but the teacher's have"):
        teacher.evaluate("short", student[:-1], truth)
    with pytest.raises(ValueError, match="odd or the teacher holds a score that is no"):
        teacher.evaluate("odd", np.full((80, 10), np.nan), truth)
    with pytest.raises(ValueError, match="resamples is 0; it should be at least 1"):
        teacher.evaluate("student", student, truth, resamples=0)


def test_tables_fit_a_terminal(found):
    console = rich.console.Console(width=80, record=True, quiet=False)
    tables.show(teacher.agreement_table([found]), console)
    tables.show(teacher.values_table(found), console, most=4)
    text = console.export_text()
    assert "…" not in text
    assert "mean Spearman" in text
    lines = evaluation_tables.values_csv(found["all"]).splitlines()
    assert len(lines) == 12
    assert lines[0].startswith("value,n_below,n_within,n_above,r2,r2_low,r2_high,")
    assert lines[2].split(",")[4:7] == ["", "", ""]
    assert {line.count(",") for line in lines} == {15}


def test_a_weight_counts_as_so_many_copies_of_the_row():
    rng = np.random.default_rng(1)
    x = rng.integers(0, 6, 50) / 4.0  # ties
    y = rng.normal(size=50)
    where = rng.random(50) < 0.8
    weights = rng.integers(0, 3, 50)
    copies = np.repeat(np.arange(50), weights * where)
    counted = (weights * where)[None].astype(float)
    ranks = {}
    for name, z in (("x", x), ("y", y)):
        sorted_once = resamples.ranking(z, where)
        ranks[name] = resamples.weighted_ranks(counted, sorted_once)
        want = stats.rankdata(z[copies])
        np.testing.assert_allclose(ranks[name][0, copies], want)
    [rho] = resamples.weighted_correlation(counted, ranks["x"], ranks["y"])
    assert rho == pytest.approx(stats.spearmanr(x[copies], y[copies]).statistic)
    [r] = resamples.weighted_correlation(counted, x, y)
    assert r == pytest.approx(stats.pearsonr(x[copies], y[copies]).statistic)
    [area] = resamples.weighted_auroc(counted, ranks["x"], y > 0.5)
    assert area == pytest.approx(metrics.roc_auc_score(y[copies] > 0.5, x[copies]))
    constant = resamples.weighted_correlation(counted, np.full(50, 0.1), y)
    assert np.isnan(constant).all()
    assert np.isnan(resamples.weighted_auroc(counted, ranks["x"], y > 99)).all()


def test_sums_of_cells_are_those_of_the_copied_rows():
    rng = np.random.default_rng(2)
    N = 40
    probs = rng.dirichlet([0.4, 1, 1], (N, 10)).astype(np.float32)
    labels = rng.choice([-1.0, 0.0, 1.0, 0.5], (N, 10), p=[0.2, 0.5, 0.2, 0.1])
    where = rng.random((N, 10)) < 0.8
    source = rng.integers(0, 3, N)
    arrays = (probs.argmax(-1) - 1, probs[..., 2] - probs[..., 0], probs, labels, where)
    weights = rng.integers(0, 4, N)
    weights[source == 2] = 1  # the last source must not be lost
    copies = np.repeat(np.arange(N), weights)
    got = cells.prepare(*arrays, source).sums(weights[None].astype(float))
    copied = cells.prepare(*(x[copies] for x in arrays), source[copies])
    want = copied.sums(np.ones((1, len(copies))))
    assert got.keys() == want.keys()
    for name in got:
        np.testing.assert_allclose(got[name], want[name], atol=1e-4, err_msg=name)


def test_calibration_figures_are_those_of_scoring():
    import jax.numpy as jnp

    from fulcra_jax import scoring

    rng = np.random.default_rng(3)
    probs = rng.dirichlet([0.5, 1, 1], (60, 10)).astype(np.float32)
    labels = rng.integers(-1, 2, (60, 10)).astype(np.float32)
    where = rng.random((60, 10)) < 0.9
    classes, score = probs.argmax(-1) - 1, probs[..., 2] - probs[..., 0]
    prepared = cells.prepare(classes, score, probs, labels, where)
    found = cells.calibration_figures(prepared.sums(np.ones((1, 60))))
    flat = (
        jnp.asarray(probs.reshape(-1, 3)),
        jnp.asarray(labels.ravel().astype(int) + 1),
    )
    for name, figure in (
        ("ece", scoring.expected_calibration_error),
        ("classwise_ece", scoring.classwise_calibration_error),
        ("brier", scoring.brier),
        ("nll", scoring.negative_log_likelihood),
    ):
        want = float(figure(*flat, where=jnp.asarray(where.ravel())))
        assert found[name][0] == pytest.approx(want, abs=2e-6), name
    probs[0, 0], labels[0, 0], where[0, 0] = (1, 0, 0), 1, True
    prepared = cells.prepare(classes, score, probs, labels, where)
    weights = np.ones((2, 60))
    weights[1, 0] = 0
    nll = cells.calibration_figures(prepared.sums(weights))["nll"]
    assert nll[0] == np.inf
    assert np.isfinite(nll[1])
