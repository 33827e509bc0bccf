# SPDX-License-Identifier: Apache-2.0
"""Calls of the agreement, consistency and review functions for test_contract.py."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from contract_arrays import C, Generator, N, V, ids, where

R = 4


def unit_weights(rng: Generator, n: int = N) -> jax.Array:
    return jnp.asarray(rng.uniform(0.5, 2.0, n), jnp.float32)


def ratings(raters: int = R) -> Callable[[Generator], dict[str, Any]]:
    return lambda rng: {
        "ratings": ids(rng, raters, N),
        "where": where(rng, raters, N),
        "unit_weights": unit_weights(rng),
    }


def passes(rng: Generator) -> dict[str, Any]:
    return {"ratings": ids(rng, R, N), "where": where(rng, R, N)}


def vectors(rng: Generator) -> dict[str, Any]:
    return {"ratings": ids(rng, R, N, V), "where": where(rng, R, N, V)}


def scores(rng: Generator) -> dict[str, Any]:
    level = rng.normal(size=N)
    return {
        "scores": jnp.asarray(level + rng.normal(size=(R, N)), jnp.float32),
        "where": jnp.asarray(rng.random((R, N)) < 0.95),
        "unit_weights": unit_weights(rng),
    }


def sets(rng: Generator, *shape: int) -> jax.Array:
    return jnp.asarray(rng.random(shape) < 0.4)


def agreement(rng: Generator) -> Any:
    from fulcra_jax import scoring

    return scoring.chance_corrected(ids(rng, R, N), C)


def totals(rng: Generator) -> Any:
    from fulcra_jax import scoring

    return scoring.agreement_totals(ids(rng, R, N), C)


def per_unit(rng: Generator) -> Any:
    from fulcra_jax import scoring

    return scoring.unit_totals(ids(rng, R, N), C)


CASES: dict[str, Callable[[Generator], dict[str, Any]]] = {
    "agreement.percent_agreement": ratings(),
    "agreement.brennan_prediger": ratings(),
    "agreement.gwet_ac1": ratings(),
    "agreement.gwet_ac2": ratings(),
    "kappa.cohen_kappa": ratings(2),
    "kappa.light_kappa": ratings(),
    "kappa.pairwise_kappa": ratings(),
    "kappa.conger_kappa": ratings(),
    "kappa.scott_pi": ratings(2),
    "kappa.fleiss_kappa": ratings(),
    "kappa.fleiss_kappa_by_category": ratings(),
    "alpha.krippendorff_alpha": ratings(),
    "alpha.ordinal_distance": lambda rng: {"margin": unit_weights(rng, C)},
    "alpha.alpha_of_coincidences": lambda rng: {
        "coincidence": jnp.asarray(rng.uniform(1.0, 5.0, (C, C)), jnp.float32),
        "distance": 1.0 - jnp.eye(C),
    },
    "standard_errors.chance_corrected": ratings(),
    "standard_errors.agreement_interval": lambda rng: {"found": agreement(rng)},
    "standard_errors.cohen_null_error": ratings(2),
    "standard_errors.fleiss_null_error": lambda rng: {
        "ratings": ids(rng, R, N),
        "where": jnp.broadcast_to(where(rng, 1, N), (R, N)),
        "unit_weights": unit_weights(rng),
    },
    "totals.agreement_totals": ratings(),
    "totals.agreement_coefficients": ratings(),
    "totals.coefficients": lambda rng: {"totals": totals(rng)},
    "totals.unit_totals": lambda rng: {
        "ratings": ids(rng, R, N),
        "where": where(rng, R, N),
    },
    "totals.resampled_coefficients": lambda rng: {
        "per_unit": per_unit(rng),
        "unit_weights": jnp.asarray(rng.uniform(0.5, 2.0, (5, N)), jnp.float32),
    },
    "patterns.pattern_table": ratings(2),
    "patterns.ratings_of_table": lambda rng: {
        "table": jnp.asarray(rng.integers(1, 9, (C, C)), jnp.float32)
    },
    "patterns.ratings_of_labels": lambda rng: {
        "labels": jnp.asarray(rng.integers(-1, 2, (R, N)), jnp.float32)
    },
    "icc.icc": scores,
    "icc.icc_interval": scores,
    "icc.mean_squares": scores,
    "sets.set_distance": lambda rng: {
        "first": sets(rng, N, V),
        "second": sets(rng, N, V),
    },
    "sets.set_alpha": lambda rng: {
        "sets": sets(rng, R, N, V),
        "where": where(rng, R, N),
        "unit_weights": unit_weights(rng),
    },
    "sets.signed_sets": lambda rng: {"ratings": ids(rng, N, V)},
    "views.mention_view": passes,
    "views.polarity_view": passes,
    "consistency.majority_share": passes,
    "consistency.majority_margin": passes,
    "consistency.label_entropy": passes,
    "consistency.pair_agreement": passes,
    "consistency.pass_consistency": vectors,
    "consistency.set_consistency": vectors,
    "consistency.consistency_summary": vectors,
    "review.needs_review": lambda rng: {
        "consistency": jnp.asarray(rng.random(N), jnp.float32),
        "where": where(rng, N),
    },
    "review.audit_sample": lambda rng: {
        "key": jax.random.key(int(rng.integers(1000))),
        "where": where(rng, N),
    },
    "review.poisson_sample": lambda rng: {
        "key": jax.random.key(int(rng.integers(1000))),
        "probability": jnp.asarray(rng.random(N), jnp.float32),
        "where": where(rng, N),
    },
    "review.audit_probability": lambda rng: {
        "error_rate": jnp.asarray(rng.uniform(0.05, 0.3, N), jnp.float32),
        "where": where(rng, N),
    },
}

TERNARY = {"num_categories": C}

STATIC: dict[str, dict[str, Any]] = {
    **{
        name: TERNARY
        for name in CASES
        if name.split(".")[0] in ("agreement", "kappa", "alpha", "standard_errors")
        and name
        not in (
            "alpha.ordinal_distance",
            "alpha.alpha_of_coincidences",
            "standard_errors.agreement_interval",
        )
    },
    **{
        f"consistency.{name}": TERNARY
        for name in (
            "majority_share",
            "majority_margin",
            "label_entropy",
            "pair_agreement",
        )
    },
    **{
        f"totals.{name}": TERNARY
        for name in ("agreement_totals", "agreement_coefficients", "unit_totals")
    },
    "kappa.cohen_kappa": {"num_categories": C, "weights": "quadratic"},
    "alpha.krippendorff_alpha": {"num_categories": C, "level": "ordinal"},
    "standard_errors.chance_corrected": {"num_categories": C, "kind": "conger"},
    "patterns.pattern_table": TERNARY,
    "icc.icc_interval": {"form": "2,k"},
    "sets.set_alpha": {"distance": "masi"},
    "sets.set_distance": {"distance": "masi"},
    "review.needs_review": {"threshold": 0.7, "budget": 6},
    "review.audit_sample": {"size": 5},
    "review.audit_probability": {"size": 6.0},
}

HOST = {
    "categories.category_weights",
    "categories.level_distance",
    "patterns.ratings_of_counts",
    "reasons.reason_text",
}
