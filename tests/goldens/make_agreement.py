# SPDX-License-Identifier: Apache-2.0
"""Writes agreement.json: random rating tables and what other libraries answer for them.

Deterministic. The libraries do not fit into one environment (irrCAC pins scipy), so the
script runs twice; each run writes the tables, its own answers and its versions, and
keeps the answers of the other.

    python tests/goldens/make_agreement.py irrcac      irrCAC 0.4.4
    python tests/goldens/make_agreement.py libraries   krippendorff, statsmodels,
                                                       scikit-learn, nltk, pingouin

`make references` installs both environments, `make goldens-scoring` runs the script in
them.

Ratings: one string per rater, one character per unit: the category id, or "." if it is
missing. `unit_weights`: one digit per unit; the answers are those of the table in which
every unit is repeated that often. Sets: one list per rater, the elements of a unit as
digits, "" for the empty set, "." for a missing one. An answer that a library cannot
give is null, with the reason beside the code.
"""

import fractions
import itertools
import json
import math
import pathlib
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np

FILE = pathlib.Path(__file__).parent / "agreement.json"
DIGITS = 13
PACKAGES = {
    "irrcac": "irrCAC numpy pandas scipy",
    "libraries": "krippendorff statsmodels scikit-learn nltk pingouin numpy scipy",
}

# raters, categories, units, then what is special. Few pairs of raters and categories:
# the tests compile once for each.
TABLES: dict[str, dict[str, Any]] = {
    "two_by_two_small": {"shape": (2, 2, 8)},
    "two_by_two_skewed": {"shape": (2, 2, 120), "shares": (0.95, 0.05)},
    "two_by_two_missing": {"shape": (2, 2, 60), "missing": 0.3},
    "two_by_two_weighted": {"shape": (2, 2, 40), "missing": 0.2, "weighted": True},
    "two_ternary": {"shape": (2, 3, 30)},
    "two_ternary_fulcra": {"shape": (2, 3, 200), "shares": (0.05, 0.75, 0.2)},
    "two_ternary_missing": {"shape": (2, 3, 90), "missing": 0.4, "lonely": True},
    "two_ternary_unused": {"shape": (2, 3, 50), "shares": (0.0, 0.7, 0.3)},
    "two_ternary_noise": {"shape": (2, 3, 70), "copy": 0.0},
    "two_ternary_weighted": {"shape": (2, 3, 45), "weighted": True},
    "two_seven": {"shape": (2, 7, 150)},
    "two_seven_unused": {"shape": (2, 7, 40), "shares": (3, 2, 0, 1, 1, 0, 1)},
    "three_ternary": {"shape": (3, 3, 25)},
    "three_ternary_missing": {"shape": (3, 3, 100), "missing": 0.35, "lonely": True},
    "three_ternary_rare": {"shape": (3, 3, 150), "shares": (0.01, 0.97, 0.02)},
    "three_ternary_copies": {"shape": (3, 3, 60), "copy": 0.97},
    "five_ternary": {"shape": (5, 3, 200)},
    "five_ternary_missing": {"shape": (5, 3, 160), "missing": 0.25, "lonely": True},
    "five_ternary_unused": {"shape": (5, 3, 80), "shares": (0.0, 0.8, 0.2)},
    "five_ternary_weighted": {"shape": (5, 3, 60), "missing": 0.2, "weighted": True},
    "four_five": {"shape": (4, 5, 12), "missing": 0.1, "lonely": True},
    "four_five_skewed": {"shape": (4, 5, 100), "shares": (20, 5, 2, 1, 1)},
    "four_five_noise": {"shape": (4, 5, 40), "copy": 0.0, "missing": 0.2},
    "four_five_missing": {"shape": (4, 5, 75), "missing": 0.4, "lonely": True},
    "eight_four": {"shape": (8, 4, 50), "missing": 0.15},
    "eight_four_unused": {"shape": (8, 4, 50), "shares": (5, 0, 2, 1)},
    "eight_four_weighted": {"shape": (8, 4, 24), "missing": 0.3, "weighted": True},
    "twelve_seven": {"shape": (12, 7, 30), "missing": 0.3},
    "twelve_seven_unused": {
        "shape": (12, 7, 64),
        "shares": (2, 0, 5, 0, 0, 2, 0),
        "missing": 0.4,
        "lonely": True,
    },
}
WEIGHTS = ["identity", "linear", "quadratic", "ordinal"]
MORE_WEIGHTS = ["radical", "ratio", "circular", "bipolar"]
WITH_MORE_WEIGHTS = ["two_seven_unused", "four_five", "eight_four"]

# targets, raters; as above, few numbers of raters
SCORES: dict[str, dict[str, Any]] = {
    "two_raters": {"shape": (10, 2)},
    "two_raters_missing": {"shape": (30, 2), "missing": 0.1},
    "biased_raters": {"shape": (12, 4), "bias": 3.0},
    "no_agreement": {"shape": (15, 4), "signal": 0.0},
    "negative": {"shape": (6, 4), "signal": 0.0, "seed": 2},
    "strong": {"shape": (30, 4), "signal": 5.0},
    "missing": {"shape": (25, 4), "missing": 0.1},
    "far_from_zero": {"shape": (20, 4), "centre": 50.0, "bias": 0.4},
    "ternary": {"shape": (40, 4), "ternary": True},
}
# Shrout and Fleiss 1979, table 2; published .17 .29 .71 .44 .62 .91 in this order.
SHROUT_FLEISS = ("9 6 8 7 10 6", "2 1 4 1 5 2", "5 3 6 2 6 4", "8 2 8 6 9 7")
FORMS = ("1,1", "2,1", "3,1", "1,k", "2,k", "3,k")  # In the order of pingouin.

# raters, units, elements
SETS: dict[str, dict[str, Any]] = {
    "two_raters": {"shape": (2, 20, 4)},
    "three_raters": {"shape": (3, 30, 6), "missing": 0.2},
    "items_of_a_row": {"shape": (5, 40, 9), "missing": 0.3, "rate": 0.25},
    "noise": {"shape": (3, 25, 5), "copy": 0.5},
    "with_empty_sets": {"shape": (4, 30, 5), "rate": 0.2, "empty": True},
}

Ratings = np.ndarray  # [R, N] float, NaN for missing


def draw_table(
    seed: int,
    shape: tuple[int, int, int],
    copy: float = 0.6,
    shares: tuple[float, ...] | None = None,
    missing: float = 0.0,
    lonely: bool = False,
    weighted: bool = False,
) -> dict[str, Any]:
    """Raters who see the truth with a chance of their own and else follow a bias."""
    raters, categories, units = shape
    rng = np.random.default_rng([seed, raters, categories, units])
    base = np.ones(categories) if shares is None else np.asarray(shares, float)
    base = base / base.sum()
    truth = rng.choice(categories, units, p=base)
    rows = []
    for _ in range(raters):
        bias = base * rng.uniform(0.5, 2.0, categories)
        guess = rng.choice(categories, units, p=bias / bias.sum())
        sees = rng.random(units) < copy * rng.uniform(0.8, 1.0)
        seen = rng.random(units) >= missing
        rows.append(np.where(seen, np.where(sees, truth, guess), np.nan))
    ratings = np.stack(rows)
    if missing:
        ratings[:, 0] = truth[0]  # Everybody has a rating.
    if lonely:
        ratings[:, 1] = np.nan
        ratings[1:, 2] = np.nan
        ratings[0, 2] = truth[2]
    codes = [["." if np.isnan(x) else str(int(x)) for x in row] for row in ratings]
    table = {"categories": categories, "ratings": ["".join(row) for row in codes]}
    if weighted:
        repeats = rng.integers(1, 5, units)
        table["unit_weights"] = "".join(map(str, repeats))
    return table


def expanded(table: dict[str, Any]) -> Ratings:
    """The ratings, every unit as often as its weight says."""
    rows = table["ratings"]
    ratings = np.array([[np.nan if x == "." else float(x) for x in r] for r in rows])
    if "unit_weights" in table:
        ratings = np.repeat(ratings, [int(x) for x in table["unit_weights"]], axis=1)
    return ratings


def draw_scores(
    shape: tuple[int, int],
    signal: float = 1.0,
    bias: float = 0.0,
    missing: float = 0.0,
    centre: float = 0.0,
    ternary: bool = False,
    seed: int = 0,
) -> list[list[float | None]]:
    """Scores `[R, N]` with three decimals; null is missing."""
    targets, raters = shape
    rng = np.random.default_rng([seed, targets, raters])
    truth = signal * rng.normal(size=(1, targets))
    noise = rng.normal(size=(raters, targets))
    scores = centre + truth + noise + bias * rng.normal(size=(raters, 1))
    scores = np.clip(np.round(scores), -1, 1) if ternary else scores.round(3)
    seen = rng.random((raters, targets)) >= missing
    return [
        [float(x) if there else None for x, there in zip(*both, strict=True)]
        for both in zip(scores, seen, strict=True)
    ]


def draw_sets(
    seed: int,
    shape: tuple[int, int, int],
    copy: float = 0.85,
    missing: float = 0.0,
    rate: float = 0.4,
    empty: bool = False,
) -> list[list[str]]:
    """Noisy copies of a true set; no set is empty unless `empty`."""
    raters, units, elements = shape
    rng = np.random.default_rng([seed, raters, units, elements])
    truth = rng.random((units, elements)) < rate
    rows = []
    for _ in range(raters):
        guess = rng.random(truth.shape) < rate
        chosen = np.where(rng.random(truth.shape) < copy, truth, guess)
        if not empty:
            chosen[:, 0] |= ~chosen.any(axis=1)
        seen = rng.random(units) >= missing
        names = ["".join(map(str, np.flatnonzero(one))) for one in chosen]
        rows.append([n if there else "." for n, there in zip(names, seen, strict=True)])
    return rows


def digits(*numbers: float) -> list[float | None]:
    """Rounded for the file; what is not finite is null."""
    return [
        round(float(x), DIGITS) if math.isfinite(float(x)) else None for x in numbers
    ]


def answers_of_irrcac(which: str, table: dict[str, Any]) -> dict[str, Any]:
    """Value, standard error, observed, expected, interval, by "kind/weights".

    irrCAC leaves out units without ratings; its categories are 1 to K, because "ratio"
    refuses a 0; every other weight is the same as for 0 to K - 1. The standard errors
    of ratings divide by n (n - 1), those of contingency tables by n n.
    """
    import pandas
    from irrCAC.raw import CAC
    from irrCAC.table import CAC as TableCAC

    pandas.options.mode.chained_assignment = None  # irrCAC writes into a copy.
    ratings = expanded(table)
    categories = [k + 1.0 for k in range(table["categories"])]
    answers = {}
    for kind in WEIGHTS + MORE_WEIGHTS * (which in WITH_MORE_WEIGHTS):
        frame = pandas.DataFrame(ratings.T + 1.0)
        cac = CAC(frame, weights=kind, categories=categories, digits=15)
        for name in ("gwet", "fleiss", "conger", "bp", "krippendorff"):
            answers[f"{name}/{kind}"] = figures(getattr(cac, name)()["est"])
        if len(ratings) != 2:
            continue
        both = ~np.isnan(ratings).any(axis=0)
        counts = pandas.DataFrame(crossed(*ratings[:, both], table["categories"]))
        for name in ("cohen", "scott"):
            cac = TableCAC(counts, weights=kind, digits=15)
            answers[f"{name}_table/{kind}"] = figures(getattr(cac, name)()["est"])
            # These two do not fill in the expected agreement; it stays 0.
            answers[f"{name}_table/{kind}"][3] = None
    return answers


def figures(est: dict[str, Any]) -> list[float | None]:
    """What irrCAC says, as a row."""
    names = ("coefficient_value", "se", "pa", "pe")
    return digits(*(est[name] for name in names), *est["confidence_interval"])


def crossed(first: np.ndarray, second: np.ndarray, categories: int) -> np.ndarray:
    """Contingency table `[K, K]` of two complete rows."""
    counts = np.zeros((categories, categories), int)
    np.add.at(counts, (first.astype(int), second.astype(int)), 1)
    return counts


def answers_of_libraries(table: dict[str, Any]) -> dict[str, Any]:
    """krippendorff, statsmodels and scikit-learn on one table."""
    import krippendorff
    from sklearn.metrics import cohen_kappa_score
    from statsmodels.stats.inter_rater import cohens_kappa, fleiss_kappa

    ratings, categories = expanded(table), table["categories"]
    answers: dict[str, Any] = {}
    # Category values 1 to K, and their squares: a ratio needs a true zero below them.
    for name, power in (("alpha", 1.0), ("alpha_of_squares", 2.0)):
        for level in ("nominal", "ordinal", "interval", "ratio"):
            alpha = krippendorff.alpha(
                (ratings + 1.0) ** power,
                value_domain=(np.arange(categories) + 1.0) ** power,
                level_of_measurement=level,
            )
            answers[f"{name}/{level}"] = digits(alpha)

    pairs = {
        (a, b): ratings[[a, b]][:, ~np.isnan(ratings[[a, b]]).any(axis=0)]
        for a, b in itertools.combinations(range(len(ratings)), 2)
    }
    for kind in ("identity", "linear", "quadratic"):
        wt = None if kind == "identity" else kind
        # Of the first two raters: value, standard error, the same if kappa were 0.
        result: Any = cohens_kappa(crossed(*pairs[0, 1], categories), wt=wt)
        answers[f"cohen/{kind}"] = digits(
            result.kappa, result.std_kappa, result.std_kappa0
        )
        kappas = [
            cohen_kappa_score(*pair, labels=range(categories), weights=wt)
            for pair in pairs.values()
        ]
        answers[f"light/{kind}"] = digits(np.nanmean(kappas))
    if not np.isnan(ratings).any():  # statsmodels knows no missing ratings.
        counts = np.stack([(ratings == k).sum(axis=0) for k in range(categories)], 1)
        for method in ("fleiss", "randolph"):
            answers[method] = digits(fleiss_kappa(counts, method=method))
    return answers


def answers_of_icc(scores: list[list[float | None]]) -> dict[str, Any]:
    """Six coefficients: value, F, both degrees of freedom, 95 % interval."""
    import pandas
    import pingouin

    rows = [
        {"target": unit, "rater": rater, "score": score}
        for rater, row in enumerate(scores)
        for unit, score in enumerate(row)
    ]
    frame = pandas.DataFrame(rows).astype({"score": float})
    pingouin.options["round.column.CI95"] = DIGITS  # Otherwise two.
    table = pingouin.intraclass_corr(
        frame, targets="target", raters="rater", ratings="score", nan_policy="omit"
    )
    columns = ("ICC", "F", "df1", "df2")
    return {
        form: digits(*(row[column] for column in columns), *row["CI95"])
        for form, row in zip(FORMS, table.to_dict("records"), strict=True)
    }


Set = frozenset[str]


def jaccard(a: Set, b: Set) -> fractions.Fraction:
    """Exact distance; two empty sets are equal."""
    if a == b:
        return fractions.Fraction(0)
    return 1 - fractions.Fraction(len(a & b), len(a | b))


def masi(a: Set, b: Set) -> fractions.Fraction:
    """Exact distance of Passonneau (2006) with thirds."""
    if a == b:
        return fractions.Fraction(0)
    if not a & b:
        # Also the empty set and another: a subset, but nothing in common.
        return fractions.Fraction(1)
    thirds = 2 if a <= b or b <= a else 1
    return 1 - fractions.Fraction(thirds, 3) * (1 - jaccard(a, b))


def loop_alpha(
    rows: list[list[str]], distance: Callable[[Set, Set], fractions.Fraction]
) -> float:
    """Krippendorff's alpha by plain loops over all pairs, exact until the end."""
    units = [
        [frozenset(x) for x in unit if x != "."] for unit in zip(*rows, strict=True)
    ]
    units = [unit for unit in units if len(unit) >= 2]
    pooled = [x for unit in units for x in unit]
    within = sum(
        sum(distance(a, b) for a, b in itertools.permutations(unit, 2))
        / (len(unit) - 1)
        for unit in units
    )
    between = sum(distance(a, b) for a, b in itertools.permutations(pooled, 2))
    return float(1 - within * (len(pooled) - 1) / between)


def answers_of_sets(rows: list[list[str]]) -> dict[str, Any]:
    """Set alpha of nltk and of the loops above."""
    from nltk.metrics import agreement, distance

    answers: dict[str, Any] = {}
    triples = [
        (rater, unit, frozenset(x))
        for rater, row in enumerate(rows)
        for unit, x in enumerate(row)
        if x != "."
    ]
    for name, theirs, exact in (
        ("jaccard", distance.jaccard_distance, jaccard),
        ("masi", distance.masi_distance, masi),
    ):
        answers[name] = digits(loop_alpha(rows, exact))
        try:
            alpha = agreement.AnnotationTask(triples, distance=theirs).alpha()
        except ZeroDivisionError:  # nltk divides by the size of an empty union.
            alpha = math.nan
        answers[f"{name}_nltk"] = digits(alpha)
    return answers


def main(part: str) -> None:
    """Writes the tables and the answers of one part."""
    golden = json.loads(FILE.read_text()) if FILE.exists() else {}
    golden.setdefault("versions", {})[part] = " ".join(
        f"{name} {metadata.version(name)}" for name in PACKAGES[part].split()
    )
    tables = {n: draw_table(i, **TABLES[n]) for i, n in enumerate(TABLES)}
    scores = {n: draw_scores(**SCORES[n]) for n in SCORES}
    scores["shrout_fleiss"] = [[float(x) for x in r.split()] for r in SHROUT_FLEISS]
    sets = {n: draw_sets(i, **SETS[n]) for i, n in enumerate(SETS)}
    golden |= {"tables": tables, "scores": scores, "sets": sets}
    if part == "irrcac":
        golden["irrcac"] = {n: answers_of_irrcac(n, tables[n]) for n in tables}
    else:
        golden["libraries"] = {n: answers_of_libraries(tables[n]) for n in tables}
        golden["icc"] = {n: answers_of_icc(scores[n]) for n in scores}
        golden["set_alpha"] = {n: answers_of_sets(sets[n]) for n in sets}
    # One line per table, so that a change shows where it is.
    rooms = [
        f"{json.dumps(room)}: {{\n"
        + ",\n".join(
            f"{json.dumps(name)}: {json.dumps(entry, separators=(',', ':'))}"
            for name, entry in sorted(golden[room].items())
        )
        + "\n}"
        for room in sorted(golden)
    ]
    FILE.write_text("{\n" + ",\n".join(rooms) + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1])
