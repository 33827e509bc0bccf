# SPDX-License-Identifier: Apache-2.0
"""Figures against scikit-learn, and what tables and pictures do with them."""

import json

import numpy as np
import pytest
import rich.console
from sklearn import metrics

from fulcra_jax import values
from fulcra_jax.report import evaluation, figures, tables


def system(seed, labels, noise, name="system"):
    """Answers that are right but for a share of noise."""
    rng = np.random.default_rng(seed)
    other = rng.integers(-1, 2, labels.shape)
    classes = np.where(rng.random(labels.shape) < noise, other, labels).astype(int)
    probs = np.full((*labels.shape, 3), 0.1, np.float32)
    np.put_along_axis(probs, classes[..., None] + 1, 0.8, -1)
    return evaluation.Answers(name, classes, probs[..., 2] - probs[..., 0], probs)


@pytest.fixture(scope="module")
def truth():
    rng = np.random.default_rng(0)
    labels = rng.choice([-1.0, 0.0, 1.0], (120, 10), p=[0.1, 0.6, 0.3])
    where = rng.random((120, 10)) < 0.9
    labels[:, 2] = 0  # a value that nobody mentions
    cluster = rng.integers(0, 60, 120)
    group = tuple("ab"[i % 2] for i in range(120))
    return evaluation.Truth(labels.astype(np.float32), where, cluster, group)


@pytest.fixture(scope="module")
def report(truth):
    return evaluation.evaluate(system(1, truth.labels, 0.3), truth)


def test_pooled_figures_are_those_of_scikit_learn(truth, report):
    answers = system(1, truth.labels, 0.3)
    y = truth.labels[truth.where].astype(int)
    p = answers.classes[truth.where]
    pooled = report["pooled"]
    assert pooled["accuracy"] == pytest.approx(metrics.accuracy_score(y, p), abs=1e-6)
    f1 = metrics.f1_score(y, p, average=None, labels=[-1, 0, 1])
    got = [pooled[name] for name in ("f1_opposed", "f1_none", "f1_supported")]
    np.testing.assert_allclose(got, f1, atol=1e-6)
    assert pooled["macro_f1"] == pytest.approx(f1.mean(), abs=1e-6)
    kappa = metrics.cohen_kappa_score(y, p, weights="quadratic")
    assert pooled["quadratic_kappa"] == pytest.approx(kappa, abs=1e-6)
    error = np.mean((answers.scores - truth.labels)[truth.where] ** 2)
    assert pooled["mse"] == pytest.approx(error, abs=1e-6)
    right = ((answers.classes == truth.labels) | ~truth.where).all(1)
    assert pooled["exact_match"] == pytest.approx(right.mean(), abs=1e-6)
    assert report["labels"]["-1"]["support"] == (y == -1).sum()


def test_figures_per_value_are_those_of_its_column(truth, report):
    answers = system(1, truth.labels, 0.3)
    for column, name in enumerate(values.BASIC):
        where = truth.where[:, column]
        y = truth.labels[where, column].astype(int)
        p = answers.classes[where, column]
        entry = report["values"][name]
        present = sorted(set(y.tolist()))
        assert entry["n_opposed"] == (y == -1).sum()
        if len(present) == 1:
            assert entry["macro_f1"] is None
            assert entry["macro_f1_interval"] == [None, None]
            continue
        want = metrics.f1_score(y, p, average="macro", labels=present)
        assert entry["macro_f1"] == pytest.approx(want, abs=1e-6)
        if -1 in present:
            area = metrics.roc_auc_score(y < 0, answers.probs[where, column, 0])
            assert entry["auroc_opposed"] == pytest.approx(area, abs=1e-6)


def test_a_value_without_labels_is_undefined_not_zero(report):
    entry = report["values"]["Hedonism"]
    assert entry["n_supported"] == entry["n_opposed"] == 0
    for name in ("f1_opposed", "f1_supported", "spearman", "auroc_supported"):
        assert entry[name] is None
    assert report["mean"]["f1_supported"] is not None


def test_intervals_hold_the_figure_and_widen_with_clusters(truth, report):
    for name, (low, high) in report["interval"].items():
        assert low < report["pooled"][name] < high, name
    answers = system(1, truth.labels, 0.3)
    copies = 4
    stack = lambda x: np.concatenate([x] * copies)
    copied = evaluation.Answers(
        "copied", stack(answers.classes), stack(answers.scores), stack(answers.probs)
    )
    alone = evaluation.Truth(
        stack(truth.labels), stack(truth.where), np.arange(120 * copies)
    )
    together = evaluation.Truth(
        stack(truth.labels), stack(truth.where), stack(truth.cluster)
    )
    width = lambda t: np.ptp(evaluation.evaluate(copied, t)["interval"]["macro_f1"])
    # Copies of a row are no new evidence; counting them as rows halves the interval.
    assert width(together) > 1.5 * width(alone)


def test_a_system_compared_with_itself_differs_by_nothing(truth):
    answers = system(1, truth.labels, 0.3)
    same = evaluation.compare(answers, answers, truth)
    assert same["macro_f1"] == {"difference": 0.0, "interval": [0.0, 0.0]}
    better = evaluation.compare(answers, system(2, truth.labels, 0.8), truth)
    assert better["macro_f1"]["interval"][0] > 0


def test_sources_are_reported_apart(truth, report):
    assert {name: entry["rows"] for name, entry in report["sources"].items()} == {
        "a": 60,
        "b": 60,
    }


def test_quick_figures_are_the_pooled_ones(truth, report):
    answers = system(1, truth.labels, 0.3)
    quick = evaluation.quick_figures(answers.classes, truth.labels, truth.where)
    for name, figure in quick.items():
        assert figure == pytest.approx(report["pooled"][name])


def test_a_system_without_probabilities_has_no_calibration(truth):
    answers = system(1, truth.labels, 0.3)
    bare = evaluation.Answers("bare", answers.classes, answers.scores)
    report = evaluation.evaluate(bare, truth)
    assert set(report["calibration"].values()) == {None}
    json.loads(evaluation.dumps(report))


def test_shapes_that_differ_say_so(truth):
    answers = system(1, truth.labels[:5], 0.3)
    with pytest.raises(ValueError, match=r"answers \(5, 10\) cells, but there are"):
        evaluation.evaluate(answers, truth)
    with pytest.raises(ValueError, match="no cell is labelled"):
        evaluation.Truth(truth.labels, np.zeros_like(truth.where), truth.cluster)


def test_tables_fit_eighty_characters_and_markdown_has_all(report, truth):
    worse = evaluation.evaluate(system(2, truth.labels, 0.8, "TF-IDF + LR"), truth)
    console = rich.console.Console(width=80, record=True, file=None, quiet=False)
    for table, most in (
        (tables.systems_table([report, worse]), 9),
        (tables.labels_table(report), 9),
        (tables.values_table(report), 8),
    ):
        with console.capture() as shown:
            tables.show(table, console, most=most)
        assert "\N{HORIZONTAL ELLIPSIS}" not in shown.get()
        text = tables.markdown(table)
        header = next(line for line in text.splitlines() if line.startswith("|"))
        assert header.count("|") == len(table[1]) + 1
        assert "Self-direction" in text or table[1][0] != "value"


def test_bars_point_where_the_score_does():
    scores = np.array([1.0, -1.0, 0.0, *[0.1] * 7])
    probs = np.full((10, 3), np.nan)
    console = rich.console.Console(width=80)
    with console.capture() as shown:
        console.print(tables.value_bars(scores, probs))
    lines = shown.get().splitlines()
    assert "|##########" in lines[1]
    assert "##########|" in lines[2]
    assert "#" not in lines[3]


def test_pictures_are_written(report, tmp_path):
    figures.per_value([report, report], tmp_path / "value.png")
    lines = [
        {"step": 1, "split": "train", "loss": 1.0},
        {"step": 2, "split": "dev", "macro_f1": 0.5},
    ]
    figures.training_curve(lines, tmp_path / "curve.png")
    for name in ("value.png", "curve.png"):
        data = (tmp_path / name).read_bytes()
        assert data.startswith(b"\x89PNG")
        assert len(data) > 5000
    figures.per_value([report, report], tmp_path / "again.png")
    again = (tmp_path / "again.png").read_bytes()
    assert again == (tmp_path / "value.png").read_bytes()
