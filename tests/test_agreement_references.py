# SPDX-License-Identifier: Apache-2.0
"""Agreement on random tables against the frozen answers of other libraries.

`goldens/agreement.json` holds the tables and the answers, `goldens/make_agreement.py`
wrote it. Tables with the same raters and categories are padded with unrated units,
which no coefficient counts, and compiled once.
"""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fulcra_jax import scoring

GOLDEN = json.loads(
    (pathlib.Path(__file__).parent / "goldens" / "agreement.json").read_text()
)
TABLES = GOLDEN["tables"]
NAMES = list(TABLES)
KINDS = {  # Name in irrCAC: ours.
    "gwet": "gwet",
    "fleiss": "fleiss",
    "conger": "conger",
    "bp": "brennan_prediger",
    "krippendorff": "krippendorff",
}
POINTS = {  # Scalar functions with category weights, by their name in the golden.
    "gwet": scoring.gwet_ac2,
    "fleiss": scoring.fleiss_kappa,
    "conger": scoring.conger_kappa,
    "bp": scoring.brennan_prediger,
    "percent": scoring.percent_agreement,
    "light": scoring.light_kappa,
    "cohen": scoring.cohen_kappa,
    "scott": scoring.scott_pi,
}
WEIGHTS = [
    *("identity", "linear", "quadratic", "ordinal"),
    *("radical", "ratio", "circular", "bipolar"),
]
COLUMNS = ["value", "standard error", "observed", "expected"]
NOT_SAID = {("cohen_table", "expected"), ("scott_table", "expected")}  # By irrCAC.
LEVELS = ["nominal", "ordinal", "interval", "ratio"]
FORMS = ["1,1", "2,1", "3,1", "1,k", "2,k", "3,k"]
QUICK = {"xla_backend_optimization_level": 0}
"""Most of the time goes into compilation of programs that run once."""


def size_of(name):
    return len(TABLES[name]["ratings"]), TABLES[name]["categories"]


# float32 has no formulas of its own, so the smaller half of the sizes is enough.
SINGLE = [(2, 3), (5, 3), (12, 7)]
RUNS = [(name, True) for name in NAMES]
RUNS += [(name, False) for name in NAMES if size_of(name) in SINGLE]
BOTH = pytest.mark.parametrize("x64", [True, False], ids=["x64", "float32"])


def tolerance(x64):
    return 1e-6 if x64 else 1e-5


def stacked(raters, categories):
    """Ratings `[T, R, N]`, where, weights `[T, N]` of all tables of one size."""
    names = [name for name in NAMES if size_of(name) == (raters, categories)]
    units = max(len(TABLES[name]["ratings"][0]) for name in names)
    ratings = np.ones((len(names), raters, units), np.int32)
    where = np.zeros(ratings.shape, bool)
    unit_weights = np.ones((len(names), units))
    for t, name in enumerate(names):
        rows = np.array([list(row) for row in TABLES[name]["ratings"]])
        n = rows.shape[1]
        where[t, :, :n] = rows != "."
        # A missing rating keeps the valid id 1, which must not be read.
        ratings[t, :, :n] = np.where(rows == ".", "1", rows).astype(int)
        unit_weights[t, :n] = list(map(int, TABLES[name].get("unit_weights", "1" * n)))
    return names, ratings, where, unit_weights


def weight_matrices(categories):
    """`[W, K, K]`; a ratio needs positive values."""
    values = range(1, categories + 1)
    return np.stack(
        [scoring.category_weights(kind, categories, values) for kind in WEIGHTS]
    )


def corrected(ratings, where, unit_weights, weights_wkk, *, raters, categories):
    """`Agreement` by "kind/weights"."""
    plan = [(name, kind, 1) for name, kind in KINDS.items()]
    if raters == 2:  # From contingency tables, so with n instead of n - 1.
        plan += [("cohen_table", "cohen", 0), ("scott_table", "scott", 0)]
    rows = {}
    for name, kind, ddof in plan:
        of_weights = functools.partial(
            scoring.chance_corrected,
            ratings,
            categories,
            kind=kind,
            ddof=ddof,
            where=where,
            unit_weights=unit_weights,
        )
        found = jax.vmap(lambda w, f=of_weights: f(weights=w))(weights_wkk)
        for i, weights in enumerate(WEIGHTS):
            rows[f"{name}/{weights}"] = jax.tree.map(lambda x, i=i: x[i], found)
    return rows


def points(ratings, where, unit_weights, weights_wkk, *, raters, categories):
    """The functions that return one number; Cohen and Scott of the first two raters."""
    shared = {"where": where, "unit_weights": unit_weights}
    rows = {"ac1": scoring.gwet_ac1(ratings, categories, **shared)}
    for name, function in POINTS.items():
        r = 2 if name in ("cohen", "scott") else raters
        of_weights = functools.partial(
            function,
            ratings[:r],
            categories,
            where=where[:r],
            unit_weights=unit_weights,
        )
        numbers = jax.vmap(lambda w, f=of_weights: f(weights=w))(weights_wkk)
        rows |= {f"{name}/{w}": numbers[i] for i, w in enumerate(WEIGHTS)}
    first_two = {"where": where[:2], "unit_weights": unit_weights}
    for i, weights in enumerate(WEIGHTS[:3]):
        named = {"weights": weights_wkk[i], **first_two}
        found = scoring.chance_corrected(
            ratings[:2], categories, kind="cohen", ddof=0, **named
        )
        null = scoring.cohen_null_error(ratings[:2], categories, **named)
        rows[f"cohen_errors/{weights}"] = jnp.stack([found.standard_error, null])
    for name, power in (("alpha", 1), ("alpha_of_squares", 2)):
        values = [k**power for k in range(1, categories + 1)]
        for level in LEVELS:
            rows[f"{name}/{level}"] = scoring.krippendorff_alpha(
                ratings, categories, level=level, category_values=values, **shared
            )
    totals = scoring.agreement_totals(ratings, categories, **shared)
    return rows, scoring.coefficients(totals)._asdict()


@functools.cache
def answers(function, raters, categories, x64, patterns=False):
    """Of every table of this size: the dict of `function`, as numpy."""
    names, *arrays = stacked(raters, categories)
    matrices = weight_matrices(categories)

    def one(ratings, where, unit_weights, weights_wkk):
        if patterns:
            table = scoring.pattern_table(
                ratings, categories, where=where, unit_weights=unit_weights
            )
            ratings, where, unit_weights = table.ratings, table.where, table.counts
        return function(
            ratings,
            where,
            unit_weights,
            weights_wkk,
            raters=raters,
            categories=categories,
        )

    with jax.enable_x64(x64):
        program = jax.jit(jax.vmap(one, (0, 0, 0, None)), compiler_options=QUICK)
        results = program(*map(jnp.asarray, (*arrays, matrices)))
    return {
        name: jax.tree.map(lambda x, t=t: np.asarray(x[t]), results)
        for t, name in enumerate(names)
    }


@functools.cache
def intervals(x64):
    """The limits of all `corrected` of all tables, by table and "kind/weights"."""
    found = {
        (name, key): row
        for name, run_x64 in RUNS
        if run_x64 == x64
        for key, row in answers(corrected, *size_of(name), x64)[name].items()
    }
    with jax.enable_x64(x64):
        together = jax.tree.map(lambda *x: jnp.stack(x), *found.values())
        limits = np.stack(jax.jit(scoring.agreement_interval)(together), axis=-1)
    return dict(zip(found, limits, strict=True))


def check_corrected(rows, theirs, atol):
    """Value, standard error, observed, expected."""
    assert theirs
    for key, their in theirs.items():
        row = rows[key]
        ours = row.coefficient, row.standard_error, row.observed, row.expected
        for our, number, what in zip(ours, their[:4], COLUMNS, strict=True):
            if number is None:
                assert (key.split("/")[0], what) in NOT_SAID
            else:
                np.testing.assert_allclose(
                    our, number, rtol=0, atol=atol, err_msg=f"{key} {what}"
                )
        assert row.reason == scoring.Reason.OK


def by_kind(theirs):
    """The answers of one table, grouped by coefficient."""
    kinds = {}
    for key, row in theirs.items():
        kinds.setdefault(key.split("/")[0], {})[key] = row
    return kinds


@pytest.mark.parametrize(
    ("name", "x64", "kind"),
    [(*run, kind) for run in RUNS for kind in by_kind(GOLDEN["irrcac"][run[0]])],
)
def test_chance_corrected_equals_irrcac(name, x64, kind):
    rows = answers(corrected, *size_of(name), x64)[name]
    check_corrected(rows, by_kind(GOLDEN["irrcac"][name])[kind], tolerance(x64))


@pytest.mark.parametrize(("name", "x64"), RUNS)
def test_intervals_equal_irrcac(name, x64):
    for key, their in GOLDEN["irrcac"][name].items():
        # Two to three standard errors from the value, so their errors add up.
        np.testing.assert_allclose(
            intervals(x64)[name, key],
            their[4:],
            rtol=0,
            atol=4.0 * tolerance(x64),
            err_msg=key,
        )


@pytest.mark.parametrize("name", [name for name in NAMES if size_of(name) == (5, 3)])
def test_patterns_give_the_same_as_their_units(name):
    rows = answers(corrected, *size_of(name), True, patterns=True)[name]
    check_corrected(rows, GOLDEN["irrcac"][name], 1e-6)


@pytest.mark.parametrize(("name", "x64"), RUNS)
def test_points_equal_irrcac(name, x64):
    rows, totals = answers(points, *size_of(name), x64)[name]
    theirs = GOLDEN["irrcac"][name]
    expected = {}
    for key, their in theirs.items():
        kind, weights = key.split("/")
        if kind in POINTS:
            expected[key] = their[0]
        if kind == "gwet":
            expected[f"percent/{weights}"] = their[2]
        if kind == "scott_table":
            expected[f"scott/{weights}"] = their[0]
    expected["ac1"] = theirs["gwet/identity"][0]
    check_points(rows, expected, tolerance(x64))
    expected = {
        "percent_agreement": theirs["gwet/identity"][2],
        "fleiss": theirs["fleiss/identity"][0],
        "ac1": theirs["gwet/identity"][0],
        "brennan_prediger": theirs["bp/identity"][0],
    }
    check_points(totals, expected, tolerance(x64))


@pytest.mark.parametrize(("name", "x64"), RUNS)
def test_points_equal_krippendorff_statsmodels_and_sklearn(name, x64):
    rows, totals = answers(points, *size_of(name), x64)[name]
    theirs = GOLDEN["libraries"][name]
    expected = {key: their[0] for key, their in theirs.items()}
    for weights in WEIGHTS[:3]:
        # The standard error, and the one if kappa were 0.
        expected[f"cohen_errors/{weights}"] = theirs[f"cohen/{weights}"][1:]
    if "randolph" in expected:  # Only for complete ratings.
        expected["bp/identity"] = expected.pop("randolph")
        expected["fleiss/identity"] = expected.pop("fleiss")
    check_points(rows, expected, tolerance(x64))
    expected = {
        "alpha_nominal": expected["alpha/nominal"],
        "alpha_ordinal": expected["alpha/ordinal"],
        "alpha_interval": expected["alpha/interval"],
        "light": expected["light/identity"],
    }
    check_points(totals, expected, tolerance(x64))


def check_points(ours, expected, atol):
    assert expected
    for key, number in expected.items():
        np.testing.assert_allclose(ours[key], number, rtol=0, atol=atol, err_msg=key)


@pytest.mark.parametrize("weights", WEIGHTS[:4])
@pytest.mark.parametrize("key", POINTS)
def test_weights_by_name_are_those_of_the_matrix(key, weights):
    rows, _ = answers(points, 2, 3, True)["two_ternary_fulcra"]
    names, ratings, where, _ = stacked(2, 3)
    t = names.index("two_ternary_fulcra")
    with jax.enable_x64(True):
        named = POINTS[key](
            jnp.asarray(ratings[t]), 3, weights=weights, where=jnp.asarray(where[t])
        )
    np.testing.assert_allclose(named, rows[f"{key}/{weights}"], rtol=1e-12)


@functools.cache
def correlations(raters, x64):
    """`Icc` by table and form, of all tables with so many raters."""
    tables = {k: np.array(x, float) for k, x in GOLDEN["scores"].items()}
    tables = {k: x for k, x in tables.items() if len(x) == raters}
    units = max(x.shape[1] for x in tables.values())
    padded = [
        np.pad(x, ((0, 0), (0, units - x.shape[1])), constant_values=np.nan)
        for x in tables.values()
    ]

    def one(scores):
        where = ~jnp.isnan(scores)
        return {
            form: scoring.icc_interval(scores, form=form, where=where) for form in FORMS
        }

    with jax.enable_x64(x64):
        scores = jnp.asarray(np.stack(padded), float if x64 else jnp.float32)
        found = jax.jit(jax.vmap(one), compiler_options=QUICK)(scores)
    return {
        (name, form): [float(x[t]) for x in found[form]]
        for t, name in enumerate(tables)
        for form in FORMS
    }


@BOTH
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", GOLDEN["scores"])
def test_intraclass_correlation_equals_pingouin(name, form, x64):
    ours = correlations(len(GOLDEN["scores"][name]), x64)[name, form]
    coefficient, f, df1, df2, low, high = GOLDEN["icc"][name][form]
    # Ends of an interval may be far below -1, and F is not bounded: relative, too.
    np.testing.assert_allclose(
        ours,
        [coefficient, low, high, f, df1, df2],
        rtol=tolerance(x64),
        atol=tolerance(x64),
    )


def test_intraclass_correlation_equals_shrout_and_fleiss():
    """Table 4 of the paper of 1979, to its two decimals."""
    ours = [correlations(4, False)["shrout_fleiss", form][0] for form in FORMS]
    published = [0.17, 0.29, 0.71, 0.44, 0.62, 0.91]
    np.testing.assert_allclose(ours, published, atol=0.005)


@BOTH
@pytest.mark.parametrize("distance", ["jaccard", "masi"])
@pytest.mark.parametrize("name", GOLDEN["sets"])
def test_set_alpha_equals_nltk_and_plain_loops(name, distance, x64):
    rows = GOLDEN["sets"][name]
    elements = 1 + max(
        int(element) for row in rows for x in row for element in x if x != "."
    )
    where = np.array([[x != "." for x in row] for row in rows])
    # A missing set is full of elements, which must not be read.
    members = [
        [[x == "." or str(m) in x for m in range(elements)] for x in row]
        for row in rows
    ]
    with jax.enable_x64(x64):
        ours = jax.jit(scoring.set_alpha, static_argnames="distance")(
            jnp.asarray(members), distance=distance, where=jnp.asarray(where)
        )
    theirs = GOLDEN["set_alpha"][name]
    assert ours == pytest.approx(theirs[distance][0], abs=tolerance(x64))
    if name == "with_empty_sets":
        assert theirs[f"{distance}_nltk"] == [None]  # It divides by the empty union.
    else:
        assert ours == pytest.approx(theirs[f"{distance}_nltk"][0], abs=tolerance(x64))
