# SPDX-License-Identifier: Apache-2.0
"""What the agreement report makes of its figures: chance, readings, verdicts."""

import dataclasses
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_agreement_report import QUICK, observers, panel_of, seven_raters

from fulcra_jax import scoring, values
from fulcra_jax.report import (
    against_humans,
    agreement,
    agreement_cells,
    agreement_prose,
    agreement_tables,
    panel,
)
from fulcra_jax.report.panel import Figure


@pytest.fixture(scope="module", autouse=True)
def compile_quickly():
    """What takes time here is compilation."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def two():
    return agreement.report(observers(), QUICK)


@pytest.fixture(scope="module")
def seven():
    return seven_raters()


@pytest.fixture(scope="module")
def many(seven):
    return agreement.report(seven, QUICK)


def test_few_items_give_figures_but_no_verdict(two):
    assert two.per_value[0].prompts == 10
    assert two.per_value[0].too_small  # 10 units
    text = " ".join(agreement_prose.summary(two))
    assert "Too few items for a verdict: 20 cells" not in text  # 20 of 10 are enough
    group = two.pooled
    assert group is not None
    for few in ({"units": 19}, {"prompts": 9}):
        small = dataclasses.replace(group, **few)
        one = dataclasses.replace(small, few=False)
        assert agreement_cells.reading(one) == "too few items"
        report = dataclasses.replace(two, pooled=small, per_value=(one, one))
        text = " ".join(agreement_prose.summary(report))
        assert "Too few items for a verdict" in text
        assert "weakest value" not in text
    one = dataclasses.replace(group, few=False)
    report = dataclasses.replace(two, per_value=(one, one))
    assert "weakest value" in " ".join(agreement_prose.summary(report))


def test_polarity_of_few_units_is_a_number_of_units(two):
    group = dataclasses.replace(
        two.per_value[0],
        alpha=Figure(0.3),
        mention=Figure(0.5),
        polarity=Figure(0.1),
        polarity_units=9,
        few=False,
        units=30,
    )
    other = dataclasses.replace(group, alpha=Figure(0.4))

    def said(**changes):
        weakest = dataclasses.replace(group, **changes)
        report = dataclasses.replace(two, per_value=(weakest, other))
        text = " ".join(agreement_prose.summary(report))
        return text[text.index("The weakest value") :], agreement_cells.polarity(
            weakest
        )

    text, cell = said()
    assert (
        "disagree on whether it is there at all (alpha of mention .500, too f" in text
    )
    assert cell == "(9 units)"
    assert said(polarity_units=1)[1] == "(1 unit)"
    text, cell = said(polarity_units=10)
    assert "whether it is there at all and on its sign (alpha of mention .5" in text
    assert cell == ".100 (10 units)"
    text, _ = said(polarity_units=10, mention=Figure(0.7))
    assert "annotators disagree on its sign (" in text
    text, _ = said(mention=Figure(0.7))
    assert "disagree" not in text.split(".")[0]
    assert "annotators disagree" not in text


def test_humans_alone_stand_beside_everybody(many, two):
    assert many.pooled is not None
    text = agreement_tables.markdown(many)
    alone = agreement_cells.cell(many.pooled.human_alpha)
    assert f"pool humans and LLMs; alpha of the humans alone is {alone}" in text
    assert "| alpha of humans | reading |" in text
    assert "| alpha of humans |" not in agreement_tables.markdown(two)
    assert two.pooled.human_alpha.reason == "there is no LLM"
    entry = panel.plain(many)
    assert entry["per_value"][0]["human_alpha"]["value"] is not None
    assert entry["mean_alpha"]["value"] is not None


def test_an_annotator_is_named_only_if_he_stands_out(seven, many):
    named = lambda report: [
        line for line in agreement_prose.summary(report) if line.startswith("Without ")
    ]
    assert max(one.alpha_change.value for one in many.annotators) > 0.0
    assert named(many) == []
    ratings = seven.ratings.copy()
    ratings[1] = np.random.default_rng(1).integers(0, 3, ratings[1].shape)
    report = agreement.report(dataclasses.replace(seven, ratings=ratings), QUICK)
    (line,) = named(report)
    assert line.startswith("Without b alpha would be .")
    assert "look" not in line
    assert named(dataclasses.replace(report, items=29)) == []


def test_what_is_rounded_to_nothing_has_no_sign():
    assert agreement_cells.number(-0.0004) == ".000"
    assert agreement_cells.number(-0.004, [-0.004, 0.2]) == "-.004 [.00, .20]"
    assert agreement_cells.number(-0.05, [-0.06, -0.0]) == "-.050 [-.06, .00]"


def test_chance_within_values_by_hand():
    """Two pairs of observers: one of four units apart, and three units of one label."""
    first = jnp.array([[4.0, 1.0], [1.0, 2.0]])  # n 8, margins 5 and 3
    second = jnp.array([[6.0, 0.0], [0.0, 0.0]])
    alpha, chance = panel.alpha_within(jnp.stack([first, second]))
    assert float(alpha) == pytest.approx(1 - 2 / (30 / 7))
    assert float(chance) == pytest.approx(1 - 30 / 7 / 14)
    alpha, chance = panel.alpha_within(second[None])
    assert np.isnan(alpha)
    assert float(chance) == 1.0
    alpha, chance = panel.alpha_within(jnp.zeros((2, 3, 3)))
    assert np.isnan(alpha)
    assert np.isnan(chance)


def test_knowing_which_value_is_rare_is_no_agreement():
    rng = np.random.default_rng(0)
    shares = np.array([[0.02, 0.96, 0.02], [0.3, 0.2, 0.5]])
    ratings = np.stack(
        [rng.choice(3, (300, 3, 40), p=share) for share in shares], 1
    ).astype(np.int32)  # [S, V, R, N]

    @jax.jit
    @jax.vmap
    def alphas(ratings_vrn):
        of = jax.vmap(lambda x: scoring.agreement_totals(x, 3).coincidence)(ratings_vrn)
        return panel.alpha_within(of)[0], panel.alpha_within(of.sum(0)[None])[0]

    inside, pooled = alphas(ratings)
    assert abs(float(inside.mean())) < 0.01
    assert float(pooled.mean()) > 0.2


@pytest.fixture(scope="module")
def graded():
    """The same three humans, on frequent labels and on rare ones, and an LLM."""

    def made(rate, llm):
        rng = np.random.default_rng(3)
        truth = np.where(rng.random((40, 2)) < rate, rng.choice([0, 2], (40, 2)), 1)
        wrong = rng.random((4, 40, 2)) < 0.1
        ratings = np.where(wrong, rng.integers(0, 3, wrong.shape), truth)
        if llm == "zeros":
            ratings[3] = 1
        report = agreement.report(
            panel_of(ratings, ("human",) * 3 + ("llm",)),
            agreement.Options(resamples=100, disputed=40),
        )
        return report, ratings

    return made


def test_always_0_is_no_alternative_to_a_human(graded):
    report, _ = graded(0.05, "zeros")
    test = report.against_humans[0].alt_test
    assert test.winning_rate.value == test.zeros_winning_rate.value == 1.0
    assert (test.passes, test.zeros_pass) == (None, True)
    text = agreement_tables.markdown(report)
    assert "**says nothing here: always saying 0 passes as well**, winning rate" in text
    assert "a model that always says 0: winning rate 1.000, passes" in text
    entry = panel.plain(report)["against_humans"][0]["alt_test"]
    assert entry["passes"] is None
    assert entry["verdict"].startswith("says nothing here")
    assert entry["zeros_winning_rate"] == {"value": 1.0}


def test_an_llm_that_knows_more_than_0_passes(graded):
    report, ratings = graded(0.8, "good")
    test = report.against_humans[0].alt_test
    assert (test.passes, test.verdict, test.zeros_pass) == (True, "passes", False)
    assert "always says 0: winning rate .000, fails" in agreement_tables.markdown(
        report
    )
    for one in report.disputed:
        labels = ratings[:, int(one.item[1:])]
        both = (labels == 0).any(0) & (labels == 2).any(0)
        assert one.reversed == tuple(np.array(values.BASIC[:2])[both].tolist())
    assert any(one.reversed for one in report.disputed)
    assert "| yes |" in agreement_tables.markdown(report)


@pytest.mark.parametrize(
    ("passes", "zeros", "kappa", "verdict"),
    [
        (
            True,
            False,
            Figure(0.0),
            "says nothing here: the kappa with the humans is not",
        ),
        (True, False, Figure(np.nan, reason="x"), "says nothing here: the kappa with"),
        (True, None, Figure(0.1), "passes"),
        (False, True, Figure(0.1), "does not pass"),
    ],
)
def test_no_verdict_without_a_kappa_above_0(passes, zeros, kappa, verdict):
    assert against_humans._verdict(passes, zeros, kappa).startswith(verdict)


def test_readings():
    def group(alpha, few=False, too_small=False) -> Any:
        return types.SimpleNamespace(alpha=alpha, few=few, too_small=too_small)

    def at(low, high):
        return Figure(0.5 * (low + high), low, high, "bootstrap")

    for found, want in (
        (at(0.81, 0.9), "good"),
        (at(0.7, 0.9), "tentative"),
        (at(0.6, 0.7), "open"),
        (at(0.2, 0.6), "too low"),
        (Figure(0.9), "no interval"),
        (Figure(np.nan, reason="none"), "-"),
    ):
        assert agreement_cells.reading(group(found)) == want
        assert agreement_cells.reading(group(found, few=True)) == "too few labels"
        small = group(found, too_small=True)
        assert agreement_cells.reading(small) == "too few items"


def test_nobody_who_shares_no_cell_has_a_sensitivity():
    """a, b, c share the first cells, d and e others, f is alone."""
    rng = np.random.default_rng(0)
    truth = rng.choice(3, (90, 2), p=[0.3, 0.4, 0.3])
    wrong = rng.random((6, 90, 2)) < 0.1
    ratings = np.where(wrong, (truth + 1) % 3, truth)
    ratings[:3, 30:] = ratings[3:5, :30] = ratings[3:5, 60:] = ratings[5, :60] = -1
    report = agreement.report(panel_of(ratings, ("human",) * 6), QUICK)
    *three, d, e, f = (one.sensitivity for one in report.annotators)
    assert all(0.7 < one.value <= 1.0 for figures in three for one in figures)
    assert {one.reason for one in (*d, *e)} == {
        "two annotators cannot tell which of them errs"
    }
    assert {one.reason for one in f} == {"no cell is shared with another annotator"}
    assert "no cell is shared with another annotator: f (" in agreement_tables.markdown(
        report
    )
    # What c rates alone is no evidence for him.
    ratings = ratings[:3].copy()
    ratings[2] = np.where(np.arange(90)[:, None] < 28, -1, truth)
    report = agreement.report(panel_of(ratings, ("human",) * 3), QUICK)
    few = "fewer than 5 cells shared with others are estimated to be "
    assert [one.reason for one in report.annotators[2].sensitivity] == [
        few + label for label in ("-1", "0", "+1")
    ]
