# SPDX-License-Identifier: Apache-2.0
"""Published examples of agreement, every figure of every one.

The file lies beside the repository; how its figures were verified stands in it. A
metric or a field that this test does not know fails.
"""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fulcra_jax import scoring

FILE = (
    pathlib.Path(__file__).parents[2]
    / "shared"
    / "data"
    / "agreement"
    / "examples.json"
)
EXAMPLES = {}
if FILE.is_file():
    EXAMPLES = {x["id"]: x for x in json.loads(FILE.read_text())["examples"]}
ENTRIES = [(name, i) for name, x in EXAMPLES.items() for i in range(len(x["expected"]))]
ENTRY_IDS = [
    f"{name}-{i}-{EXAMPLES[name]['expected'][i]['metric']}" for name, i in ENTRIES
]

pytestmark = pytest.mark.skipif(
    not EXAMPLES, reason="shared/data/agreement/examples.json is not here"
)

ARGUMENTS = {"metric", "weights", "level", "disagreement_weights"}
IGNORED = {
    "published": "the figure of the source, which `value` rounds to",
    "verified_by": "names of libraries",
}
# The library's function for tables leaves expected agreement at 0 for Scott's pi.
NOT_FILLED_IN = {("scott_pi", "pe"): 0.0}
KINDS = {
    "brennan_prediger": "brennan_prediger",
    "cohen_kappa": "cohen",
    "conger_kappa": "conger",
    "fleiss_kappa_missing": "fleiss",
    "gwet_ac1": "gwet",
    "gwet_ac2": "gwet",
    "krippendorff_alpha_weights": "krippendorff",
    "scott_pi": "scott",
}


def compiled(function, *static):
    """Most of the time goes into compilation of programs that run once or twice."""
    return jax.jit(
        function,
        static_argnames=("num_categories", *static),
        compiler_options={"xla_backend_optimization_level": 0},
    )


corrected = compiled(scoring.chance_corrected, "kind", "ddof")
interval = jax.jit(scoring.agreement_interval)
cohen_null_error = compiled(scoring.cohen_null_error)
krippendorff_alpha = compiled(scoring.krippendorff_alpha, "level", "category_values")
percent_agreement = compiled(scoring.percent_agreement)
brennan_prediger = compiled(scoring.brennan_prediger)


def read(example):
    """Ratings `[R, N]`, where, unit weights, K, category values or None, ddof."""
    data = example["data"]
    match example["kind"]:
        case "ratings_rater_by_unit":
            found = sorted({x for row in data for x in row if x is not None})
            missing = [[x is None for x in row] for row in data]
            # A missing rating keeps a valid id, which must not be read.
            ids = [[0 if x is None else found.index(x) for x in row] for row in data]
            values = None if isinstance(found[0], str) else tuple(found)
            weights = np.ones(len(data[0]))
            return np.array(ids), ~np.array(missing), weights, len(found), values, 1
        case "counts_unit_by_category":
            counts = np.array(data)
            ids = np.stack([np.repeat(np.arange(len(row)), row) for row in counts], 1)
            weights = np.ones(len(counts))
            return ids, np.ones(ids.shape, bool), weights, counts.shape[1], None, 1
        case "contingency_table":
            k = len(data)
            ids = np.indices((k, k)).reshape(2, -1)
            weights = np.ravel(data).astype(float)
            # Their standard errors divide by n, those of ratings by n - 1.
            return ids, np.ones(ids.shape, bool), weights, k, None, 0
        case kind:
            raise KeyError(f"{example['id']}: kind {kind!r} is not known here.")


def weight_matrix(entry, categories, values):
    if "disagreement_weights" in entry:
        distance = np.array(entry["disagreement_weights"], float)
        return 1.0 - distance / distance.max()
    name = entry.get("weights", "identity")
    return scoring.category_weights(name, categories, values)


def corrected_figures(entry, ratings, where, weights, categories, values, ddof):
    """Of the coefficients that have a standard error."""
    metric = entry["metric"]
    matrix = jnp.asarray(weight_matrix(entry, categories, values))
    shared = {"where": where, "unit_weights": weights, "weights": matrix}
    found = corrected(ratings, categories, kind=KINDS[metric], ddof=ddof, **shared)
    figures = {
        "value": found.coefficient,
        "se": found.standard_error,
        "pa": found.observed,
        "pe": found.expected,
        "ci95": interval(found),
    }
    if metric == "cohen_kappa":
        figures["se_statsmodels"] = figures["se_irrcac"] = found.standard_error
        figures["se_null_statsmodels"] = cohen_null_error(ratings, categories, **shared)
    return figures


def fleiss_figures(entry, ratings, where, weights, categories, values, ddof):
    del entry, values, ddof
    return figures_of_1971(ratings, categories, where, weights)


@compiled
def figures_of_1971(ratings, num_categories, where, weights):
    """Of the original, on complete ratings."""
    shared = {"where": where, "unit_weights": weights}
    kappa = scoring.fleiss_kappa(ratings, num_categories, **shared)
    error = scoring.fleiss_null_error(ratings, num_categories, **shared)
    totals = scoring.agreement_totals(ratings, num_categories, **shared)
    return {
        "value": kappa,
        "se_null_fleiss1979": error,
        "z_null": kappa / error,
        "pbar": scoring.percent_agreement(ratings, num_categories, **shared),
        "pe": scoring.chance_corrected(
            ratings, num_categories, kind="fleiss", **shared
        ).expected,
        "category_shares": totals.shares / len(ratings[0]),
        "kappa_by_category": scoring.fleiss_kappa_by_category(
            ratings, num_categories, **shared
        ),
    }


def alpha_figures(entry, ratings, where, weights, categories, values, ddof):
    del ddof
    alpha = krippendorff_alpha(
        ratings,
        categories,
        level=entry["level"],
        category_values=values,
        where=where,
        unit_weights=weights,
    )
    return {"value": alpha}


def one_figure(function, entry, ratings, where, weights, categories, values, ddof):
    del entry, values, ddof
    return {
        "value": function(ratings, categories, where=where, unit_weights=weights),
    }


METRICS = dict.fromkeys(KINDS, corrected_figures) | {
    "fleiss_kappa": fleiss_figures,
    "krippendorff_alpha": alpha_figures,
    "percent_agreement": functools.partial(one_figure, percent_agreement),
    "randolph_free_marginal_kappa": functools.partial(one_figure, brennan_prediger),
}


def checked_fields(entry):
    """The fields of an entry that hold a figure to compare."""
    return [
        field
        for field in entry
        if field not in ARGUMENTS
        and field not in IGNORED
        and NOT_FILLED_IN.get((entry["metric"], field)) != entry[field]
    ]


@pytest.mark.parametrize("x64", [True, False], ids=["x64", "float32"])
@pytest.mark.parametrize(("name", "index"), ENTRIES, ids=ENTRY_IDS)
def test_example(name, index, x64):
    example = EXAMPLES[name]
    entry = example["expected"][index]
    ratings, where, weights, *rest = read(example)
    with jax.enable_x64(x64):
        arrays = jnp.asarray(ratings), jnp.asarray(where), jnp.asarray(weights)
        figures = METRICS[entry["metric"]](entry, *arrays, *rest)
        figures = jax.tree.map(np.asarray, figures)
    fields = checked_fields(entry)
    assert "value" in fields
    tolerance = 1e-6 if x64 else 1e-5
    for field in fields:
        np.testing.assert_allclose(
            figures[field], entry[field], rtol=tolerance, atol=tolerance, err_msg=field
        )


def test_all_examples_are_here():
    assert len(ENTRIES) >= 172
    assert (
        sum(len(checked_fields(EXAMPLES[n]["expected"][i])) for n, i in ENTRIES) >= 564
    )
