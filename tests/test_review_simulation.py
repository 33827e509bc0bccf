# SPDX-License-Identifier: Apache-2.0
"""What the simulation is quoted for, on few runs."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import review_simulation


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("review")
    assert review_simulation.main(["--runs", "300", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def pipelines(folder):
    return json.loads((folder / "review_simulation.json").read_text())["pipelines"]


@pytest.mark.parametrize("name", ["human", "ppi", "finite", "dsl", "dsl_share"])
def test_random_review_covers(pipelines, name):
    # 300 runs: a standard error of .0126 around .95, three allowed.
    assert 0.912 <= pipelines[name]["coverage"] <= 0.988
    assert abs(pipelines[name]["bias"]) < 4.0 * pipelines[name]["bias_se"]
    assert pipelines[name]["claimed_over_actual"] == pytest.approx(1.0, abs=0.13)


@pytest.mark.parametrize("name", ["llm", "low"])
def test_doubtful_items_corrected_do_not_cover(pipelines, name):
    assert pipelines[name]["coverage"] < 0.7
    assert pipelines[name]["bias"] > 0.008


def test_predictions_save_labels(pipelines):
    assert pipelines["ppi"]["width"] < 0.85 * pipelines["human"]["width"]
    assert pipelines["finite"]["width"] < 0.92 * pipelines["ppi"]["width"]
    assert pipelines["dsl_share"]["width"] > pipelines["dsl"]["width"]


def test_the_model_is_as_described():
    """50,000 items: shares known to .003, three standard errors and more."""
    human, llm, share = review_simulation.draw(jax.random.key(1), 50_000)
    assert review_simulation.truth() == pytest.approx(0.15 * 0.95 + 0.85 * 0.025)
    positive = (human == review_simulation.POSITIVE).mean()
    assert positive == pytest.approx(review_simulation.truth(), abs=0.006)
    # Right belief and right human .88 * .95, both wrong alike .12 * .05 / 2, and the
    # majority misses a hard item's belief in about one of twenty.
    assert (human == llm).mean() == pytest.approx(0.83, abs=0.015)
    assert set(np.unique(np.round(share * 5)).tolist()) <= {2.0, 3.0, 4.0, 5.0}
    rates = review_simulation.error_rates(0)
    assert rates[0] > rates[1] > rates[2] > 0.05
    groups = review_simulation.stratum(jnp.array([0.4, 0.6, 0.8, 1.0]))
    assert groups.tolist() == [0, 0, 1, 2]


def test_the_table_names_every_pipeline(folder):
    text = (folder / "review_simulation.md").read_text()
    assert all(title in text for title in review_simulation.PIPELINES.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runs", "1"], "runs is 1"),
        (["--reviewed", "1.5"], "reviewed is 1.5 of 4000"),
        (["--seed", "-1"], "seed is -1; expected at least 0"),
        (["--seed", str(2**32)], "seed is 4294967296; expected at least 0"),
        (["--seed", str(2**70)], "expected at least 0 and less than 2^32"),
    ],
)
def test_bad_arguments_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        review_simulation.main(arguments)
    assert stopped.value.code == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in said
