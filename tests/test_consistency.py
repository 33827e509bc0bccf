# SPDX-License-Identifier: Apache-2.0
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fulcra_jax import scoring

SETS = {
    # class ids of (labels of pass 1, labels of pass 2), Jaccard, cell, vector
    "equal": ([2, 0, 1, 1], [2, 0, 1, 1], 1.0, 1.0, 1.0),
    "both silent": ([1, 1, 1, 1], [1, 1, 1, 1], 1.0, 1.0, 1.0),
    "one silent": ([1, 1, 1, 1], [1, 1, 2, 1], 0.0, 0.75, 0.0),
    "other sign": ([2, 1, 1, 1], [0, 1, 1, 1], 0.0, 0.75, 0.0),
    "half": ([2, 2, 1, 1], [2, 1, 1, 1], 0.5, 0.75, 0.0),
}


@pytest.mark.parametrize("name", SETS)
def test_two_passes_by_hand(name):
    first, second, jaccard, cell, vector = SETS[name]
    passes = jnp.array([[first], [second]])
    found = [
        float(scoring.pass_consistency(passes, kind=kind)[0])
        for kind in ("jaccard", "cell", "vector")
    ]
    assert found == pytest.approx([jaccard, cell, vector])


def jaccard(a, b):
    either = a | b
    return len(a & b) / len(either) if either else 1.0


def test_the_default_is_a_mean_over_pairs_of_signed_sets():
    rng = np.random.default_rng(0)
    passes = rng.integers(0, 3, (5, 20, 6))
    where = rng.random(passes.shape) < 0.8
    found = scoring.pass_consistency(jnp.asarray(passes), where=jnp.asarray(where))
    for n in range(20):
        likeness = []
        for p, q in itertools.combinations(range(5), 2):
            both = [v for v in range(6) if where[p, n, v] and where[q, n, v]]
            sets = [
                {(v, passes[r, n, v]) for v in both if passes[r, n, v] != 1}
                for r in (p, q)
            ]
            if both:
                likeness.append(jaccard(*sets))
        assert float(found[n]) == pytest.approx(np.mean(likeness), abs=1e-6)


def test_one_pass_says_nothing_of_consistency():
    passes = jnp.array([[[2, 1], [1, 1]]])
    for kind in ("jaccard", "cell", "vector"):
        assert np.isnan(scoring.pass_consistency(passes, kind=kind)).all()
    assert np.isnan(scoring.pair_agreement(passes[:, :, 0], 3)).all()


def test_pair_agreement_is_unbiased_and_majority_share_is_not():
    """Two fresh passes agree with probability sum p^2, however many they are."""
    p = np.array([0.5, 0.3, 0.2])
    passes = np.random.default_rng(0).choice(3, p=p, size=(5, 40_000))
    pairs = scoring.pair_agreement(jnp.asarray(passes), 3)
    share = scoring.majority_share(jnp.asarray(passes), 3)
    error = float(pairs.std()) / 200.0
    assert abs(float(pairs.mean()) - (p**2).sum()) < 4.0 * error
    assert float(share.min()) == pytest.approx(0.4)
    assert float(share.mean()) > p.max() + 0.05


def test_margin_and_entropy_of_a_tie():
    tie = jnp.array([[0], [0], [2], [2]])
    assert float(scoring.majority_margin(tie, 3)[0]) == 0.0
    bits = scoring.label_entropy(tie, 3, normalise=False)
    assert float(bits[0]) == pytest.approx(1.0)
    entropy = scoring.label_entropy(tie, 3)
    assert float(entropy[0]) == pytest.approx(1.0 / np.log2(3.0))


def test_without_an_answer_all_are_nan():
    passes, where = jnp.zeros((3, 2), jnp.int32), jnp.zeros((3, 2), bool)
    for function in (
        scoring.majority_share,
        scoring.majority_margin,
        scoring.label_entropy,
        scoring.pair_agreement,
    ):
        assert np.isnan(function(passes, 3, where=where)).all()


def test_the_summary_puts_chance_beside_agreement():
    """Passes that know the base rates only: high agreement, all of it by chance."""
    rng = np.random.default_rng(0)
    rates = np.array([[0.05, 0.8, 0.15], [0.01, 0.97, 0.02]])
    passes = np.stack([rng.choice(3, p=p, size=(5, 4000)) for p in rates], axis=-1)
    summary = scoring.consistency_summary(jnp.asarray(passes))
    chance = (rates**2).sum(1)
    np.testing.assert_allclose(summary.observed, chance, atol=0.01)
    np.testing.assert_allclose(summary.expected, chance, atol=0.01)
    np.testing.assert_allclose(summary.base_rate, 1.0 - rates[:, 1], atol=0.01)
    np.testing.assert_allclose(summary.alpha, 0.0, atol=0.02)
    assert abs(float(summary.jaccard - summary.jaccard_by_chance)) < 0.02
    assert summary.reason.tolist() == [scoring.Reason.OK] * 2


def test_the_summary_of_passes_that_agree():
    rng = np.random.default_rng(1)
    truth = rng.choice(3, p=[0.05, 0.8, 0.15], size=(1, 500, 3))
    summary = scoring.consistency_summary(jnp.asarray(np.repeat(truth, 4, 0)))
    assert float(summary.jaccard) == 1.0
    assert float(summary.jaccard_by_chance) < 0.6
    np.testing.assert_allclose(summary.alpha, 1.0, rtol=1e-6)


def test_the_summary_gives_the_reason_of_alpha():
    """One text has two labels, both 1: alpha is undefined, Fleiss' kappa is not."""
    passes = jnp.array([[[1], [1], [2]], [[1], [1], [-1]]])
    summary = scoring.consistency_summary(passes, where=passes >= 0)
    assert np.isnan(summary.alpha[0])
    assert int(summary.reason[0]) == scoring.Reason.ONE_CATEGORY


def test_a_single_text_has_no_stranger():
    summary = scoring.consistency_summary(jnp.array([[[2, 1]], [[2, 1]]]))
    assert float(summary.jaccard) == 1.0
    assert np.isnan(summary.jaccard_by_chance)


def test_an_unknown_measure_is_named():
    with pytest.raises(KeyError, match="kind 'kappa' is unknown; known are: jaccard"):
        scoring.pass_consistency(jnp.zeros((2, 2, 2), jnp.int32), kind="kappa")


def test_signed_sets_need_three_categories():
    with pytest.raises(ValueError, match="num_categories is 5; expected 3"):
        scoring.signed_sets(jnp.zeros((2,), jnp.int32), num_categories=5)


CONSISTENCY = jnp.array([0.9, 0.4, jnp.nan, 0.7, 0.7, 0.1])


def test_review_by_threshold_takes_what_is_below_and_what_is_unknown():
    found = scoring.needs_review(CONSISTENCY, threshold=0.7)
    assert found.tolist() == [False, True, True, False, False, True]


def test_review_by_budget_takes_the_lowest():
    for budget in range(8):
        found = scoring.needs_review(CONSISTENCY, budget=budget)
        assert int(found.sum()) == min(budget, 6)
    found = scoring.needs_review(CONSISTENCY, budget=3)
    assert found.tolist() == [False, True, True, False, False, True]


def test_review_by_both_takes_the_lowest_below_the_threshold():
    found = scoring.needs_review(CONSISTENCY, threshold=0.5, budget=2)
    assert found.tolist() == [False, False, True, False, False, True]


def test_a_key_breaks_ties_at_random():
    ties = jnp.full((40,), 0.5)
    first = scoring.needs_review(ties, budget=10)
    assert first[:10].all()
    drawn = jax.vmap(lambda k: scoring.needs_review(ties, budget=10, key=k))(
        jax.random.split(jax.random.key(0), 400)
    )
    assert (drawn.sum(1) == 10).all()
    np.testing.assert_allclose(drawn.mean(0), 0.25, atol=0.12)


def test_what_is_out_of_the_question_is_never_reviewed():
    where = jnp.array([True, False, False, True, True, True])
    found = scoring.needs_review(CONSISTENCY, budget=10, where=where)
    assert found.tolist() == where.tolist()


def test_review_needs_a_threshold_or_a_budget():
    with pytest.raises(ValueError, match="neither threshold nor budget is given"):
        scoring.needs_review(CONSISTENCY)


def test_an_audit_sample_has_the_probability_it_says():
    where = jnp.arange(50) % 5 != 0
    keys = jax.random.split(jax.random.key(1), 4000)
    sample = jax.vmap(lambda k: scoring.audit_sample(k, 8, where=where))(keys)
    assert (sample.selected.sum(1) == 8).all()
    np.testing.assert_allclose(sample.probability[0], jnp.where(where, 0.2, 0.0))
    share = sample.selected.mean(0)
    np.testing.assert_allclose(share, jnp.where(where, 0.2, 0.0), atol=0.03)


def test_an_audit_larger_than_the_pool_takes_it_all():
    where = jnp.array([True, False, True])
    sample = scoring.audit_sample(jax.random.key(0), 8, where=where)
    assert sample.selected.tolist() == where.tolist()
    assert sample.probability.tolist() == [1.0, 0.0, 1.0]


def test_a_poisson_sample_has_the_probability_it_says():
    probability = jnp.linspace(0.0, 1.0, 11)
    keys = jax.random.split(jax.random.key(2), 4000)
    sample = jax.vmap(lambda k: scoring.poisson_sample(k, probability))(keys)
    np.testing.assert_allclose(sample.selected.mean(0), probability, atol=0.03)


def test_audit_probabilities_sum_to_the_size_and_stay_below_one():
    rate = jnp.asarray(np.random.default_rng(0).beta(0.3, 3.0, 200), jnp.float32)
    for size in (1.0, 20.0, 150.0, 500.0):
        found = scoring.audit_probability(rate, size)
        assert float(found.sum()) == pytest.approx(min(size, 200.0), rel=1e-4)
        assert 0.0 < float(found.min()) <= float(found.max()) <= 1.0


def test_audit_probabilities_follow_the_root_of_the_error_rate():
    found = scoring.audit_probability(
        jnp.array([0.01, 0.04, 0.16]), 0.7, uniform_share=0.0
    )
    np.testing.assert_allclose(found, [0.1, 0.2, 0.4], rtol=1e-5)


@pytest.mark.parametrize("size", [0.15, -3])
def test_a_number_of_texts_is_whole(size):
    where = jnp.ones(20, bool)
    with pytest.raises(ValueError, match=r"audit_sample: size is .* a whole number"):
        scoring.audit_sample(jax.random.key(0), size, where=where)
    with pytest.raises(ValueError, match=r"needs_review: budget is .* a whole number"):
        scoring.needs_review(CONSISTENCY, budget=size)


def test_a_consistency_equal_to_the_threshold_is_not_below_it():
    """3 / 5 as three roundings of it, and 2 / 3 of ten pairs summed in any order."""
    six = np.float32(0.6)
    near = jnp.array([np.nextafter(six, np.float32(0)), six - 2**-23, six, 0.5999])
    for review in (scoring.needs_review, jax.jit(scoring.needs_review)):
        found = review(near, threshold=0.6)
        assert found.tolist() == [False, False, False, True]
    passes = jnp.array([[2, 2, 2, 1, 1], [2, 2, 2, 2, 2], [2, 2, 2, 1, 1]])[:, None]
    consistency = scoring.pass_consistency(passes)  # (0.6 + 0.6 + 1) / 3
    assert not scoring.needs_review(consistency, threshold=2.2 / 3)[0]
    ends = jnp.array([-jnp.inf, 0.5, jnp.inf])
    assert scoring.needs_review(ends, threshold=jnp.inf).tolist() == [True, True, False]
    assert scoring.needs_review(ends, threshold=0.5).tolist() == [True, False, False]


def test_a_mask_of_numbers_is_not_taken_bit_by_bit():
    where = jnp.array([2, 1, 0, 4, 1, 2])
    for options in ({"threshold": 0.8}, {"budget": 3}):
        found = scoring.needs_review(CONSISTENCY, where=where, **options)
        expected = scoring.needs_review(CONSISTENCY, where=where > 0, **options)
        assert found.dtype == bool
        assert found.tolist() == expected.tolist()
    passes = jnp.asarray(np.random.default_rng(0).integers(0, 3, (3, 6, 2)))
    mask = jnp.asarray(np.random.default_rng(1).integers(0, 3, (3, 6, 2)))
    for function in (scoring.pass_consistency, scoring.consistency_summary):
        jax.tree.map(
            np.testing.assert_array_equal,
            function(passes, where=mask),
            function(passes, where=mask > 0),
        )


def test_audit_probabilities_sum_to_the_size_even_if_few_can_be_wrong():
    found = scoring.audit_probability(
        jnp.array([0.0, 0.0, 0.5, 0.0]),
        2.0,
        uniform_share=0.0,
        where=jnp.array([True, True, True, False]),
    )
    np.testing.assert_allclose(found, [0.5, 0.5, 1.0, 0.0])
    rate = jnp.asarray(0.25 ** np.arange(40.0), jnp.float32)
    for size in (1.0, 7.5, 30.0, 40.0):
        found = scoring.audit_probability(rate, size, uniform_share=0.0)
        assert float(found.sum()) == pytest.approx(size, rel=1e-5)
        assert (jnp.diff(found) <= 0.0).all()
        assert found.max() <= 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": -1.0}, r"size holds -1\.0; expected a number in \[0, inf\]"),
        ({"size": np.nan}, "size holds nan; expected a number in"),
        ({"uniform_share": 1.5}, r"uniform_share holds 1\.5; expected a number in \["),
        ({"uniform_share": -0.1}, r"uniform_share holds -0\.1; expected a number in"),
        ({"error_rate": jnp.array([0.1, np.nan])}, "error_rate holds nan; expected a"),
        ({"error_rate": jnp.array([0.1, 1.5])}, r"error_rate holds 1\.5; expected a"),
    ],
)
def test_audit_probabilities_refuse_numbers_out_of_range(arguments, message):
    given = {"error_rate": jnp.array([0.1, 0.2]), "size": 1.0, **arguments}
    with pytest.raises(ValueError, match=message):
        scoring.audit_probability(**given)


def test_an_unknown_probability_draws_nothing():
    key, probability = jax.random.key(0), jnp.array([1.0, np.nan])
    with pytest.raises(ValueError, match="poisson_sample: probability holds nan; exp"):
        scoring.poisson_sample(key, probability)
    masked = scoring.poisson_sample(key, probability, where=jnp.array([1, 0]))
    traced = jax.jit(scoring.poisson_sample)(key, probability)
    for sample in (masked, traced):
        assert sample.selected.tolist() == [True, False]
        assert sample.probability.tolist() == [1.0, 0.0]


def test_review_refuses_what_is_no_threshold_or_budget():
    with pytest.raises(ValueError, match="threshold holds nan; expected a number"):
        scoring.needs_review(CONSISTENCY, threshold=np.nan)
    with pytest.raises(ValueError, match=r"threshold has shape \(2,\); expected one"):
        scoring.needs_review(CONSISTENCY, threshold=jnp.ones(2))
    with pytest.raises(ValueError, match=r"budget is .* a whole number of texts"):
        scoring.needs_review(CONSISTENCY, budget=jnp.array([1, 2]))
