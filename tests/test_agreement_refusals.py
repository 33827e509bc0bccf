# SPDX-License-Identifier: Apache-2.0
"""What the agreement coefficients refuse, in one sentence each."""

import jax
import jax.numpy as jnp
import pytest

from fulcra_jax import scoring


def test_a_traced_number_of_categories_is_explained():
    with pytest.raises(ValueError, match="static_argnames='num_categories'"):
        jax.jit(scoring.gwet_ac1)(jnp.zeros((2, 3), int), 3)


def test_ratio_is_refused_for_labels_with_zero():
    ratings = jnp.array([[0, 1, 2], [0, 2, 2]])
    for x in (None, (-1, 0, 1), (0, 1, 2)):
        with pytest.raises(ValueError, match="ratio needs positive category_values"):
            scoring.krippendorff_alpha(ratings, 3, level="ratio", category_values=x)


BAD = {
    "ratings is a list; expected an array \\[R, N\\]": lambda r: scoring.gwet_ac1(
        [[0, 1], [1, 1]], 3
    ),
    "num_categories is True; expected a whole": lambda r: scoring.gwet_ac1(r, True),
    "expected \\[3, 3\\], as num_categories is 3": lambda r: scoring.fleiss_kappa(
        r, 3, weights=jnp.eye(2)
    ),
    "ratings has 3 raters; expected 2": lambda r: scoring.cohen_kappa(r, 3),
    "scott_pi: ratings has 3 raters": lambda r: scoring.scott_pi(r, 3),
    "num_categories is 0; expected a whole": lambda r: scoring.gwet_ac1(r, 0),
    "ratings has dtype float32; expected integer": lambda r: scoring.gwet_ac1(
        r.astype(jnp.float32), 3
    ),
    "where has shape \\(2, 4\\), so R=2": lambda r: scoring.percent_agreement(
        r, 3, where=jnp.ones((2, 4), bool)
    ),
    "weights holds a number that is NaN": lambda r: scoring.fleiss_kappa(
        r, 3, weights=jnp.full((3, 3), jnp.nan)
    ),
    "weights has 0 on its diagonal; expected 1": lambda r: scoring.fleiss_kappa(
        r, 3, weights=1.0 - jnp.eye(3)
    ),
    "unit_weights has shape \\(3,\\), so N=3": lambda r: scoring.krippendorff_alpha(
        r, 3, unit_weights=jnp.ones(3)
    ),
    "expected 3 increasing numbers": lambda r: scoring.krippendorff_alpha(
        r, 3, level="interval", category_values=(1, 3, 2)
    ),
    "level is 1.0; expected 0 < level < 1": lambda r: scoring.agreement_interval(
        scoring.chance_corrected(r, 3), level=1.0
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_arguments_are_named(message):
    with pytest.raises(ValueError, match=message):
        BAD[message](jnp.zeros((3, 4), jnp.int32))


UNKNOWN = {
    "weights 'cubic' is unknown": {"weights": "cubic"},
    "kind 'kappa' is unknown": {"kind": "kappa"},
}


@pytest.mark.parametrize("message", UNKNOWN)
def test_unknown_names_are_listed(message):
    with pytest.raises(KeyError, match=message):
        scoring.chance_corrected(jnp.zeros((3, 4), jnp.int32), 3, **UNKNOWN[message])


def test_an_unknown_level_is_named():
    with pytest.raises(KeyError, match="level 'metric' is unknown; known are: nominal"):
        scoring.krippendorff_alpha(jnp.zeros((2, 2), jnp.int32), 3, level="metric")
