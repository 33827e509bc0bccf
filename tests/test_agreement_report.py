# SPDX-License-Identifier: Apache-2.0
"""The agreement report: figures by hand and by formula, degenerate files.

Shapes are few on purpose: what takes time here is compilation.
"""

import json

import jax
import numpy as np
import pytest

from fulcra_jax import scoring, values
from fulcra_jax.report import (
    agreement,
    agreement_tables,
    panel,
)

# Krippendorff 2011, section A: two observers, ten units, alpha .095.
MEG = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0]
OWEN = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]


def panel_of(ratings, kinds, owner=None, asked=None, prompts=None):
    """A panel of `[M, N, V]` class ids, -1 where missing."""
    ratings = np.asarray(ratings, np.int8)
    items = tuple(f"r{n}" for n in range(ratings.shape[1]))
    return panel.Panel(
        file="a.jsonl",
        items=items,
        values=values.BASIC[: ratings.shape[2]],
        annotators=tuple("abcdefghij"[: len(kinds)]),
        kinds=tuple(kinds),
        row_annotator=np.arange(len(ratings)) if owner is None else np.asarray(owner),
        ratings=ratings,
        asked=np.ones(ratings.shape, bool) if asked is None else asked,
        sources=tuple("xy"[n % 2] for n in range(len(items))),
        prompts=items if prompts is None else prompts,
    )


QUICK = agreement.Options(resamples=100)


@pytest.fixture(scope="module", autouse=True)
def compile_quickly():
    """Three numbers of annotators are three compilations, which take all the time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def observers():
    """Krippendorff's observers on one value; a second one that nobody mentions."""
    ratings = np.ones((2, 10, 2), int)
    ratings[:, :, 0] = np.array([MEG, OWEN]) + 1
    return panel_of(ratings, ("human", "human"))


@pytest.fixture(scope="module")
def two():
    return agreement.report(observers(), QUICK)


def test_published_example(two):
    group = two.per_value[0]
    assert (group.cells, group.units, group.labels) == (10, 10, (0, 14, 6))
    assert group.base_rate.value == pytest.approx(6 / 20)
    assert group.alpha.value == pytest.approx(0.095, abs=5e-4)
    assert group.alpha.value == pytest.approx(1 - 19 * 4 / (14 * 6), abs=1e-6)
    assert group.observed.value == pytest.approx(0.6)
    assert group.chance.value == pytest.approx(0.7**2 + 0.3**2)
    assert group.ac1.value == pytest.approx((0.6 - 0.21) / (1 - 0.21))
    assert group.light.value == pytest.approx((0.6 - 0.56) / (1 - 0.56), abs=1e-6)
    # Nobody says -1: two categories, whose mention is the label itself.
    assert group.mention.value == pytest.approx(group.alpha.value)
    assert group.alpha_interval.value == pytest.approx(group.alpha.value)
    assert group.polarity.reason.startswith("only one category occurs")
    assert group.polarity_units == 1
    assert group.needed(0.8) == pytest.approx(0.58 + 0.8 * 0.42)
    assert group.few  # 6 labels are not 0
    assert group.ac1.interval == "analytic"  # every item is a prompt of its own
    assert group.alpha.low < group.alpha.value < group.alpha.high


def test_a_value_that_nobody_mentions_is_undefined_with_a_reason(two):
    group = two.per_value[1]
    assert group.labels == (0, 20, 0)
    assert group.few
    assert group.observed.value == group.chance.value == 1.0
    for name in ("alpha", "alpha_interval", "ac1", "light", "mention", "polarity"):
        found = getattr(group, name)
        assert np.isnan(found.value), name
        assert found.reason, name
        assert not found.interval, name
    assert group.alpha.reason.startswith("only one category occurs")
    text = agreement_tables.markdown(two)
    assert "**Fewer than 10 labels are not 0, too few to say anything: Self-dir" in text
    assert "- undefined, because only one category occurs" in text
    entry = panel.plain(two)["per_value"][1]["alpha"]
    assert entry == {"value": None, "reason": group.alpha.reason}


def test_two_annotators(two):
    a, b = two.annotators
    assert a.kappa.value == b.kappa.value == two.pairs[0][1].value
    # Over all cells: 16 of 20 agree; 2 and 4 of 20 labels are +1.
    chance = 0.9 * 0.8 + 0.1 * 0.2
    assert a.kappa.value == pytest.approx((0.8 - chance) / (1 - chance), abs=1e-6)
    assert a.with_majority.value == pytest.approx(0.8)
    assert a.shares == pytest.approx((0.0, 0.9, 0.1))
    assert a.alpha_without.reason.startswith("only one rater")
    assert {x.reason for x in a.sensitivity} == {
        "two annotators cannot tell which of them errs"
    }
    assert two.shared == ((20, 20), (20, 20))
    assert two.against_humans == ()
    assert two.consistency == ()


def test_disputed_items_are_ranked(two):
    assert two.disputed_items == 4
    first = two.disputed[0]
    assert (first.item, first.source) == ("r0", "x")
    assert first.score == pytest.approx(0.5)  # one of two values
    assert first.values == (("Self-direction", 1.0, (0, 1)),)
    assert [one.item for one in two.disputed] == ["r0", "r2", "r5", "r8"]
    assert {one.reversed for one in two.disputed} == {()}  # nobody says -1


def test_all_null(two):
    nothing = np.full((2, 10, 2), -1)
    report = agreement.report(panel_of(nothing, ("human", "human")), QUICK)
    assert (report.judgements, report.nulls, report.disputed_items) == (40, 40, 0)
    assert report.pooled is not None
    assert report.pooled.alpha.reason == "no rating is present"
    assert report.pooled.base_rate.reason == "no rating is present"
    assert report.annotators[0].kappa.reason
    text = agreement_tables.markdown(report)
    assert "Alpha is undefined: no rating is present" in text
    assert "The annotators disagree on nothing" in text
    json.dumps(panel.plain(report), allow_nan=False)


def test_one_prompt_gives_no_interval(two):
    ratings = np.ones((2, 10, 2), int)
    ratings[:, :, 0] = np.array([MEG, OWEN]) + 1
    same = panel_of(ratings, ("human", "human"), prompts=("p",) * 10)
    report = agreement.report(same, QUICK)
    group = report.per_value[0]
    text = agreement_tables.markdown(report)
    assert "no intervals, because all items share one prompt: give every pro" in text
    assert "10 items of 1 prompt, 2 values" in text
    assert "no intervals" not in agreement_tables.markdown(two)
    assert " (a) |" in agreement_tables.markdown(two)
    assert group.alpha.value == two.per_value[0].alpha.value
    assert group.alpha.interval == group.ac1.interval == ""


def test_one_annotator_has_self_consistency_only():
    """Two passes by hand: texts agree on 1, 2 and 0 of the sets they name."""
    passes = np.array(
        [[[2, 1], [2, 0], [2, 1], [1, 1]], [[2, 1], [2, 0], [0, 1], [1, -1]]]
    )
    one = panel_of(passes, ("llm",), owner=[0, 0])
    report = agreement.report(one, QUICK)
    assert report.pooled is None
    assert report.per_value == report.per_source == report.pairs == ()
    (found,) = report.consistency
    assert (found.passes, found.items, found.cells) == (2, 4, 8)
    # Jaccards 1, 1, 0, and 1 of two empty sets.
    assert found.jaccard.value == pytest.approx(0.75)
    assert found.equal_vectors.value == pytest.approx(0.75)
    assert found.below == ((0.6, 1), (0.8, 1))
    assert (found.ties, found.too_few) == (1, 0)
    assert found.texts == (
        ("r0", 1.0, ()),
        ("r1", 1.0, ()),
        ("r2", 0.0, ("Self-direction",)),
        ("r3", 1.0, ()),  # one pass is silent on the second value
    )
    assert "texts" not in panel.plain(found)
    first, second = found.values
    assert first.observed.value == pytest.approx(0.75)
    assert first.base_rate.value == pytest.approx(6 / 8)
    assert first.chance.value == pytest.approx((1 + 25 + 4) / 64)
    assert second.observed.value == 1.0
    text = agreement_tables.markdown(report)
    assert "Only one annotator (a) is in the file" in text
    assert "## 2." not in text
    assert report.annotators[0].kappa.reason == "there is no other annotator"


def test_one_text_has_nothing_to_be_compared_with_by_chance():
    passes = np.array([[[2, 1]], [[2, 1]]])
    report = agreement.report(panel_of(passes, ("llm",), owner=[0, 0]), QUICK)
    found = report.consistency[0]
    assert found.jaccard.value == 1.0
    assert found.jaccard_by_chance.reason == "there is no second text to compare with"


def test_annotators_who_never_meet():
    ratings = np.full((2, 10, 2), -1)
    ratings[0, :5], ratings[1, 5:] = 1, 2
    report = agreement.report(panel_of(ratings, ("human", "llm")), QUICK)
    assert report.pairs[0][1].reason == "no cell that both rated"
    assert report.pooled is not None
    assert report.pooled.alpha.reason == "no unit has two ratings"
    test = report.against_humans[0].alt_test
    assert test.passes is None
    assert "it takes two humans at least" in agreement_tables.markdown(report)


def within(ratings):
    """Alpha and its chance agreement, by pairs of ratings: `[R, N, V]` ids or -1."""
    unlike = expected = total = 0.0
    for column in np.moveaxis(np.asarray(ratings, int), 2, 0):
        units = [unit[unit >= 0] for unit in column.T]
        units = [unit for unit in units if len(unit) >= 2]
        for unit in units:
            unlike += (unit[:, None] != unit).sum() / (len(unit) - 1)
        every = np.concatenate(units)
        total += len(every)
        expected += (every[:, None] != every).sum() / (len(every) - 1)
    return 1.0 - unlike / expected, 1.0 - expected / total


def seven_raters():
    """More raters than have a table of all patterns, with gaps and an LLM's passes."""
    rng = np.random.default_rng(0)
    truth = rng.choice(3, (60, 3), p=[0.1, 0.6, 0.3])
    wrong = rng.random((9, 60, 3)) < 0.25
    ratings = np.where(wrong, rng.integers(0, 3, wrong.shape), truth)
    ratings = np.where(rng.random(wrong.shape) < 0.2, -1, ratings)
    kinds = ("human",) * 3 + ("llm",) * 4
    owner = [0, 1, 2, 3, 4, 5, 6, 6, 6]
    return panel_of(
        ratings, kinds, owner, prompts=tuple(f"p{n // 3}" for n in range(60))
    )


@pytest.fixture(scope="module")
def seven():
    return seven_raters()


@pytest.fixture(scope="module")
def many(seven):
    return agreement.report(seven, QUICK)


def test_figures_are_those_of_the_scoring_functions(seven, many):
    cells = panel.cells_of(seven)
    last = np.array(
        [
            np.bincount(column[column >= 0], minlength=3)
            for column in seven.ratings[6:].reshape(3, -1).T
        ]
    )
    most = (last == last.max(1, keepdims=True)) & (last > 0)
    majority = np.where(most.sum(1) == 1, most.argmax(1), -1)
    np.testing.assert_array_equal(cells.ratings[6].ravel(), majority)
    assert cells.ties[6] == (most.sum(1) > 1).sum()
    flat = cells.ratings.reshape(7, -1).astype(int)
    of_value = np.tile(np.arange(3) == 1, 60)
    coefficients = jax.jit(scoring.agreement_coefficients, static_argnums=1)
    for group, counts in (
        (many.pooled, np.ones(180, bool)),
        (many.per_value[1], of_value),
    ):
        table = np.where(counts, flat, -1)
        want = coefficients(table, 3)
        if group is many.pooled:
            alpha, chance = within(cells.ratings)
            assert group.chance.value == pytest.approx(chance, abs=1e-5)
            humans = within(cells.ratings[:3])[0]
        else:
            alpha = float(want.alpha_nominal)
            humans = within(cells.ratings[:3, :, 1:2])[0]
        assert group.alpha.value == pytest.approx(alpha, abs=1e-5)
        assert group.human_alpha.value == pytest.approx(humans, abs=1e-5)
        assert group.human_alpha.low < humans < group.human_alpha.high
        assert group.prompts == 20
        assert group.ac1.value == pytest.approx(float(want.ac1), abs=1e-5)
        assert group.light.value == pytest.approx(float(want.light), abs=1e-5)
        assert group.observed.value == pytest.approx(
            float(want.percent_agreement), abs=1e-5
        )
        assert group.labels == tuple((table == k).sum() for k in range(3))
        assert group.units == ((table >= 0).sum(0) >= 2).sum()
        assert group.ac1.interval.startswith("bootstrap")  # three items a prompt
        assert group.alpha.low < group.alpha.value < group.alpha.high
    source = many.per_source[1]
    rows = np.array([s == "y" for s in seven.sources])
    assert source.name == "y"
    alpha, _ = within(cells.ratings[:, rows])
    assert source.alpha.value == pytest.approx(alpha, abs=1e-5)
    assert source.alpha.low < alpha < source.alpha.high
    means = [group.alpha.value for group in many.per_value]
    assert many.mean_alpha.value == pytest.approx(np.mean(means), abs=1e-6)


def test_an_annotator_against_the_others(seven, many):
    flat = panel.cells_of(seven).ratings.reshape(7, -1).astype(int)
    others = np.delete(flat, 2, 0)
    counts = np.stack([(others == k).sum(0) for k in range(3)])
    most = (counts == counts.max(0)) & (counts > 0)
    majority = np.where(most.sum(0) == 1, most.argmax(0), -1)
    both = (majority >= 0) & (flat[2] >= 0)
    found = many.annotators[2]
    agreed = (majority == flat[2])[both].mean()
    assert found.with_majority.value == pytest.approx(agreed, abs=1e-6)
    without = within(others.reshape(6, 60, 3))[0]
    assert found.alpha_without.value == pytest.approx(without, abs=1e-5)
    assert many.pooled is not None
    assert found.alpha_change.value == pytest.approx(
        without - many.pooled.alpha.value, abs=1e-5
    )
    # 75 % are right, and a third of the others by chance: .83.
    for one in found.sensitivity:
        assert 0.65 < one.value < 0.97
    kappas = [one.value for h, one in enumerate(many.pairs[2]) if h != 2]
    assert found.kappa.value == pytest.approx(np.mean(kappas), abs=1e-6)


def test_llms_against_humans(seven, many):
    flat = panel.cells_of(seven).ratings.reshape(7, -1).astype(int)
    counts = np.stack([(flat[:3] == k).sum(0) for k in range(3)])
    most = (counts == counts.max(0)) & (counts > 0)
    majority = np.where(most.sum(0) == 1, most.argmax(0), -1)
    one = many.against_humans[0]
    name, kappa, table = one.values[0]
    both = (majority >= 0) & (flat[3] >= 0)
    want = np.zeros((3, 3), int)
    np.add.at(want, (majority[both], flat[3][both]), 1)
    assert name == "all cells"
    np.testing.assert_array_equal(table, want)
    rows, columns = want.sum(1) / want.sum(), want.sum(0) / want.sum()
    expected = rows @ columns
    observed = np.trace(want) / want.sum()
    assert kappa.value == pytest.approx((observed - expected) / (1 - expected))
    assert one.human_ties == ((most.sum(0) > 1) & (flat[3] >= 0)).sum()
    test = one.alt_test
    assert [h.name for h in test.humans] == ["a", "b", "c"]
    assert 0 < test.humans[0].items <= 60
    assert (
        test.humans[0].cells
        == ((flat[0] >= 0) & (flat[3] >= 0) & ((flat[1] >= 0) | (flat[2] >= 0))).sum()
    )
    assert test.conditions == ()
    assert len(many.against_humans) == 4


def test_the_report_does_not_depend_on_anything_but_the_seed(seven, many):
    assert panel.plain(agreement.report(seven, QUICK)) == panel.plain(many)
    other = agreement.report(seven, agreement.Options(resamples=100, seed=1))
    assert other.pooled is not None
    assert many.pooled is not None
    assert other.pooled.alpha.low != many.pooled.alpha.low
    assert other.pooled.alpha.value == many.pooled.alpha.value


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resamples": 99}, "resamples is 99; expected at least 100"),
        ({"resamples": 100_001}, "expected at least 100 and at most 100000"),
        ({"level": 1.0}, r"level is 1\.0; expected 0\.5 <= level <= 0\.9999"),
        ({"level": 0.9999999999}, r"expected 0\.5 <= level <= 0\.9999"),
        ({"level": 0.49}, r"expected 0\.5 <= level <= 0\.9999"),
        ({"level": float("nan")}, r"level is nan; expected 0\.5 <= level"),
        ({"level": 0.999}, "level 0.999 takes at least 2000 resamples, but resamples"),
        ({"disputed": -1}, "disputed is -1; expected at least 0"),
        ({"seed": -1}, r"seed is -1; expected 0 <= seed < 2\^32"),
        ({"seed": 1 << 32}, r"expected 0 <= seed < 2\^32"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        agreement.Options(**options)


def test_the_highest_level_has_finite_ends():
    options = agreement.Options(level=0.9999, resamples=20_000, seed=(1 << 32) - 1)
    report = agreement.report(observers(), options)
    assert report.pooled is not None
    for group in (report.pooled, *report.per_value):
        for found in (group.alpha, group.ac1):
            assert np.isfinite([found.low, found.high]).all() == bool(found.interval)
    assert report.per_value[0].ac1.interval == "analytic"
    assert "intervals 99.99%: alpha" in agreement_tables.markdown(report)
