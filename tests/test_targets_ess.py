# SPDX-License-Identifier: Apache-2.0
"""Targets from files like those of the European Social Survey; all rows made up."""

import csv

import jax.numpy as jnp
import numpy as np
import pytest

from fulcra_jax import targets
from fulcra_jax.targets.ess import VARIABLES

RNG = np.random.default_rng(2)


def respondent(country="NL", number=9, weight=1.0, answers=None):
    """One row in the survey's columns."""
    answers = RNG.integers(1, 7, 21) if answers is None else answers
    row = {"name": "ESS", "cntry": country, "essround": number, "anweight": weight}
    return row | {k: int(x) for k, x in zip(VARIABLES, answers, strict=True)}


def write(path, rows, **options):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), **options)
        writer.writeheader()
        writer.writerows(rows)
    return path


def answers_of(rows):
    return np.array([[row[k] for k in VARIABLES] for row in rows])


def expected(rows, **options):
    weights = jnp.asarray([row["anweight"] for row in rows])
    return targets.from_pvq21(jnp.asarray(answers_of(rows)), weights=weights, **options)


@pytest.mark.parametrize("center", [False, True])
def test_a_file_gives_what_its_answers_give(tmp_path, center):
    rows = [respondent(weight=w) for w in RNG.uniform(0.2, 3.0, 30)]
    path = write(tmp_path / "ess.csv", rows)
    found = targets.from_ess(path, country="NL", center=center)
    group = expected(rows, center=center)
    np.testing.assert_allclose(found.target, group.target, atol=1e-6)
    np.testing.assert_allclose(found.standard_error, group.standard_error, atol=1e-6)
    assert found.num_used == 30
    assert found.countries == {"NL": 30}
    assert found.rounds == {9: 30}
    assert found.weight == "anweight"
    assert found.sum_of_weights == pytest.approx(sum(r["anweight"] for r in rows))


def test_rows_in_the_place_of_a_file_and_names_in_any_case(tmp_path):
    rows = [respondent() for _ in range(8)]
    loud = [{k.upper(): v for k, v in row.items()} for row in rows]
    path = write(tmp_path / "ess.csv", loud)
    a, b = targets.from_ess(rows), targets.from_ess(str(path))
    np.testing.assert_array_equal(a.target, b.target)


def test_round_11_has_a_suffix_and_a_merged_file_both_columns(tmp_path):
    old = [respondent(number=10) for _ in range(6)]
    new = [respondent(number=11) for _ in range(6)]
    blank = dict.fromkeys((f"{k}a" for k in VARIABLES), "")
    suffixed = [
        {(f"{k}a" if k in VARIABLES else k): v for k, v in row.items()} for row in new
    ]
    merged = [row | blank for row in old]
    merged += [row | dict.fromkeys(VARIABLES, 99) | new for row, new in zip(
        old, suffixed, strict=True)]  # fmt: skip
    path = write(tmp_path / "merged.csv", merged)
    np.testing.assert_allclose(
        targets.from_ess(path).target, expected(old + new).target, atol=1e-6
    )
    alone = targets.from_ess(write(tmp_path / "eleven.csv", suffixed))
    np.testing.assert_allclose(alone.target, expected(new).target, atol=1e-6)
    only = targets.from_ess(path, round=11)
    np.testing.assert_array_equal(only.target, alone.target)
    assert only.rounds == {11: 6}


def test_two_answers_to_one_item_are_refused():
    row = respondent() | {"impfun": 2, "impfuna": 3}
    with pytest.raises(ValueError, match=r"row 0: impfun and impfuna hold \[2, 3\]"):
        targets.from_ess([row])


def test_countries_and_rounds_are_chosen():
    rows = [respondent("NL", 9), respondent("GB", 9), respondent("FR", 8)] * 4
    found = targets.from_ess(rows, country=["gb", "FR"], round=[8, 9])
    assert found.countries == {"FR": 4, "GB": 4}
    assert found.rounds == {8: 4, 9: 4}
    chosen = [row for row in rows if row["cntry"] != "NL"]
    np.testing.assert_allclose(found.target, expected(chosen).target, atol=1e-6)


def test_an_unknown_country_or_round_lists_those_there_are():
    rows = [respondent("NL", 9), respondent("FR", 8)]
    with pytest.raises(KeyError, match="country 'UK' is unknown; known are: FR, NL"):
        targets.from_ess(rows, country="UK")
    with pytest.raises(KeyError, match="round '7' is unknown; known are: 8, 9"):
        targets.from_ess(rows, round=7)


def test_those_left_out_are_counted_by_reason():
    good = [respondent() for _ in range(5)]
    silent = respondent(answers=[77] * 6 + [1, 2, 3, 4, 5] * 3)
    same = [respondent(answers=[2] * 17 + [1, 3, 4, 5]) for _ in range(2)]
    light = [respondent(weight=w) for w in ("", 0, -1, "NA")]
    found = targets.from_ess([*good, silent, *same, *light])
    assert found.num_used == 5
    assert found.left_out == {
        "too many answers missing": 1,
        "too many answers the same": 2,
        "no weight above 0": 4,
    }
    np.testing.assert_allclose(found.target, expected(good).target, atol=1e-6)
    assert "left out: 1 too many answers missing, 2 too" in str(found)
    all_in = targets.from_ess(
        [*good, silent, *same], max_missing=None, max_same=None, weight=None
    )
    assert all_in.num_used == 8
    assert all_in.weight is None


def test_weights_pull_the_target(tmp_path):
    like, unlike = [1, 2] * 10 + [1], [6, 5] * 10 + [6]
    rows = [
        respondent(weight=3.0, answers=like),
        respondent(weight=1.0, answers=unlike),
    ]
    weighted = targets.from_ess(rows)
    plain = targets.from_ess(rows, weight=None)
    # The second is the first turned around: 3/4 - 1/4 of it, and nothing.
    own = targets.from_ess(rows[:1]).target
    np.testing.assert_allclose(weighted.target, 0.5 * own, atol=1e-6)
    np.testing.assert_allclose(plain.target, 0.0, atol=1e-6)


def test_missing_columns_are_named(tmp_path):
    row = respondent()
    del row["impfun"], row["ipcrtiv"]
    with pytest.raises(ValueError, match="rows has no column ipcrtiv, impfun; items"):
        targets.from_ess([row])
    path = write(tmp_path / "old.csv", [respondent() | {"dweight": 1.0}])
    with pytest.raises(
        ValueError, match=r"old.csv has no column pspwght; it has the weights anweight,"
    ):
        targets.from_ess(path, weight="pspwght")
    nowhere = respondent()
    del nowhere["cntry"], nowhere["essround"]
    with pytest.raises(ValueError, match="no column cntry, essround"):
        targets.from_ess([nowhere], country="NL", round=9)
    assert targets.from_ess([nowhere]).countries == {}


def test_a_bad_field_is_named_with_its_line(tmp_path):
    rows = [respondent(), respondent() | {"imprich": "Like me"}]
    path = write(tmp_path / "labels.csv", rows)
    with pytest.raises(
        ValueError, match=r"labels.csv, line 3: imprich is 'Like me'; expected a number"
    ):
        targets.from_ess(path)


def test_a_broken_line_is_named(tmp_path):
    path = write(tmp_path / "broken.csv", [respondent(), respondent()])
    path.write_text(path.read_text() + "ESS,NL,9\n")
    with pytest.raises(ValueError, match=r"broken.csv, line 4 has 3 fields; expected"):
        targets.from_ess(path)


def test_another_delimiter_and_a_byte_order_mark(tmp_path):
    rows = [respondent() for _ in range(4)]
    path = write(tmp_path / "ess.csv", rows, delimiter=";")
    path.write_text("\ufeff" + path.read_text(), encoding="utf-8")
    found = targets.from_ess(path, delimiter=";")
    np.testing.assert_allclose(found.target, expected(rows).target, atol=1e-6)
    with pytest.raises(ValueError, match="no column ipcrtiv"):
        targets.from_ess(path)


def test_nobody_is_left(tmp_path):
    with pytest.raises(ValueError, match="none of 1 respondents is left"):
        targets.from_ess([respondent(answers=[99] * 21)])
    with pytest.raises(ValueError, match="rows has no respondent"):
        targets.from_ess([])
    with pytest.raises(KeyError, match="weight 'pweight' is unknown"):
        targets.from_ess([respondent()], weight="pweight")  # pyright: ignore
