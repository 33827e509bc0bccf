# SPDX-License-Identifier: Apache-2.0
"""Policy and value losses, the GRPO family: against TRL, verl, rlax and optax."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fulcra_jax.objectives import grpo, kl, policy
from fulcra_jax.objectives.reduce import masked_mean

GOLDENS = pathlib.Path(__file__).parent / "goldens"
KINDS = ["grpo", "bnpo", "dapo", "dr_grpo", "gspo", "cispo"]


def golden(name):
    """The inputs under their names, the answers of the library apart."""
    read = dict(np.load(GOLDENS / f"policy_{name}.npz"))
    inputs = {k[3:]: jnp.asarray(v) for k, v in read.items() if k.startswith("in_")}
    return inputs, read


def assert_close(actual, desired):
    np.testing.assert_allclose(actual, desired, rtol=1e-6, atol=1e-6)


def row(*numbers):
    return jnp.array([numbers], jnp.float32)


def mean_policy_loss(x, **more):
    def loss(log_prob):
        tokens = policy.ppo_policy_loss(
            log_prob, x["old_log_prob"], x["advantages"], where=x["where"], **more
        )
        return masked_mean(tokens, x["where"])

    return jax.value_and_grad(loss)(x["log_prob"])


def mean_value_loss(x):
    def loss(values):
        tokens = policy.ppo_value_loss(
            values, x["old_values"], x["returns"], where=x["where"]
        )
        return masked_mean(tokens, x["where"])

    return jax.value_and_grad(loss)(x["values"])


def test_log_probs_and_entropy_equal_trl_and_optax():
    x, g = golden("trl_ppo")
    log_prob = policy.token_log_probs(x["logits"], x["tokens"])
    entropy = policy.token_entropy(x["logits"])
    assert_close(log_prob, g["token_log_probs"])
    assert_close(entropy, g["entropy"])
    theirs = optax.softmax_cross_entropy_with_integer_labels(x["logits"], x["tokens"])
    assert_close(log_prob, -theirs)
    theirs = optax.softmax_cross_entropy(x["logits"], jax.nn.softmax(x["logits"]))
    assert_close(entropy, theirs)


def test_temperature_is_that_of_the_sampling():
    x, _ = golden("trl_ppo")
    warm = policy.token_log_probs(x["logits"], x["tokens"], temperature=2.0)
    assert_close(warm, policy.token_log_probs(x["logits"] / 2.0, x["tokens"]))
    hot = policy.token_entropy(x["logits"], temperature=1e6)
    assert_close(hot, np.full(hot.shape, np.log(5.0)))


def test_excluded_tokens():
    logits = jnp.array([[0.0, -jnp.inf, 0.0]])
    assert_close(policy.token_entropy(logits), [np.log(2.0)])
    grad = jax.grad(lambda z: policy.token_entropy(z).sum())(logits)
    assert jnp.isfinite(grad).all()
    found = policy.token_log_probs(jnp.repeat(logits, 4, 0), jnp.array([0, 1, 3, -1]))
    assert_close(found[:2], [-np.log(2.0), -np.inf])
    assert jnp.isnan(found[2:]).all()


def test_ppo_losses_equal_trl():
    x, g = golden("trl_ppo")
    loss, grad = mean_policy_loss(x)
    assert_close(loss, g["policy_loss"])
    assert_close(grad, g["policy_grad"])
    loss, grad = mean_value_loss(x)
    assert_close(loss, g["value_loss"])
    assert_close(grad, g["value_grad"])
    fraction = policy.clip_fraction(
        x["log_prob"], x["old_log_prob"], x["advantages"], where=x["where"]
    )
    assert_close(fraction, g["clipfrac"])
    assert 0.1 < fraction < 0.9
    found = policy.approximate_kl(x["log_prob"], x["old_log_prob"], where=x["where"])
    assert_close(found, g["approxkl"])


@pytest.mark.parametrize("threshold", [0.5, 1.1])
def test_the_ratio_threshold_equals_trl(threshold):
    x, g = golden("trl_ppo")
    loss, grad = mean_policy_loss(x, ratio_threshold=threshold)
    assert_close(loss, g[f"policy_loss_{threshold}"])
    assert bool(grad.any()) == bool(loss != 0.0)


def test_the_ratio_threshold_was_tested_on_both_sides():
    _, g = golden("trl_ppo")
    assert (g["policy_loss_0.5"] == 0.0) != (g["policy_loss_1.1"] == 0.0)


def test_ppo_losses_equal_verl():
    x, g = golden("verl")
    loss, grad = mean_policy_loss(x, clip_high=0.28, dual_clip=3.0)
    assert_close(loss, g["dual_clip"])
    assert_close(grad, g["dual_clip_grad"])
    assert mean_policy_loss(x, clip_high=0.28)[0] > loss + 0.01  # it acts
    fraction = policy.clip_fraction(
        x["log_prob"],
        x["old_log_prob"],
        x["advantages"],
        clip_high=0.28,
        where=x["where"],
    )
    assert_close(fraction, g["clip_fraction"])
    loss, grad = mean_value_loss(x)
    assert_close(loss, g["value_loss"])
    assert_close(grad, g["value_loss_grad"])


def test_the_policy_loss_equals_rlax():
    x, g = golden("rlax")
    loss, grad = mean_policy_loss(x)
    assert_close(loss, g["policy_loss"])
    assert_close(grad, g["policy_grad"])


@pytest.mark.parametrize(
    ("ratio", "gain", "loss", "slope"),
    [
        (1.1, 1.0, -1.1, -1.1),
        (1.5, 1.0, -1.2, 0.0),  # good and likely enough
        (0.5, 1.0, -0.5, -0.5),
        (0.5, -1.0, 0.8, 0.0),  # bad and rare enough
        (1.5, -1.0, 1.5, 1.5),
        (9.0, -1.0, 3.0, 0.0),  # the dual clip
    ],
)
def test_where_clipping_acts(ratio, gain, loss, slope):
    def fn(log_prob):
        return policy.ppo_policy_loss(
            log_prob, row(0.0), row(gain), dual_clip=3.0
        ).sum()

    found = jax.value_and_grad(fn)(row(np.log(ratio)))
    assert_close(found[0], loss)
    assert_close(found[1], row(slope))


def test_far_ratios_stay_finite():
    for gain in (1.0, -1.0):
        fn = lambda lp, gain=gain: policy.ppo_policy_loss(
            lp, row(0.0, 0.0), row(gain, gain)
        ).sum()
        loss, grad = jax.value_and_grad(fn)(row(1e4, -1e4))
        assert jnp.isfinite(loss)
        assert jnp.isfinite(grad).all()


def test_reinforce_is_ppo_at_the_first_step():
    x, _ = golden("verl")
    plain = jax.grad(
        lambda lp: policy.reinforce_loss(lp, x["advantages"], where=x["where"]).sum()
    )
    clipped = jax.grad(
        lambda lp: policy.ppo_policy_loss(
            lp, x["log_prob"], x["advantages"], where=x["where"]
        ).sum()
    )
    assert_close(plain(x["log_prob"]), clipped(x["log_prob"]))
    assert_close(plain(x["log_prob"]), -x["advantages"] * x["where"])


def test_gradients_flow_through_the_policy_only():
    for fn in (policy.ppo_policy_loss, policy.ppo_value_loss):
        args = (row(0.1), row(0.0), row(2.0))
        grads = jax.grad(lambda *x, fn=fn: fn(*x).sum(), argnums=(0, 1, 2))(*args)
        assert grads[0].any()
        assert not grads[1].any()
        assert not grads[2].any()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("token_mean", {"kind": "token_mean"}),
        ("token_mean_40", {"kind": "token_mean", "size": 40}),
        ("sequence_mean", {"kind": "sequence_mean"}),
        ("constant", {"kind": "constant", "size": 6 * 9}),
    ],
)
def test_aggregation_equals_verl(name, settings):
    x, g = golden("verl")
    losses = x["spoiled"] if settings["kind"] == "token_mean" else x["rewards"]
    found = grpo.aggregate_tokens(losses, where=x["where"], **settings)
    assert_close(found, g[name])


def family(kind, x, **more):
    def loss(log_prob):
        return grpo.grpo_loss(
            log_prob,
            x["old_log_prob"],
            x["score"],
            kind=kind,
            clip_high=3.0 if kind == "cispo" else 0.28,
            max_length=9,
            num_tokens=40.0,
            reference_log_prob=x["reference_log_prob"],
            where=x["where"],
            **more,
        )

    return jax.value_and_grad(loss)(x["log_prob"])


PENALTY = {
    "": {},
    "_kl": {"kl_coefficient": 0.5, "kl_corrected": False},
    "_corrected": {"kl_coefficient": 0.5},
}
SAME = [f"{kind}{name}" for kind in KINDS for name in PENALTY]
SAME.remove("gspo_corrected")  # see the next test


@pytest.mark.parametrize("name", SAME)
def test_grpo_losses_equal_trl(name):
    x, g = golden("trl")
    assert (x["where"].sum(1) == 0).any()
    kind = next(k for k in KINDS[::-1] if name.startswith(k))
    loss, grad = family(kind, x, **PENALTY[name.removeprefix(kind)])
    assert_close(loss, g[name])
    assert_close(grad, g[f"{name}_grad"])


def test_the_corrected_kl_of_gspo_is_that_of_grpo():
    """TRL takes the ratio of the sequence, which is not that of the token drawn."""
    x, g = golden("trl")
    with_kl = family("gspo", x, kl_coefficient=0.5)[0]
    added = with_kl - family("gspo", x)[0]
    assert_close(added, family("grpo", x, kl_coefficient=0.5)[0] - family("grpo", x)[0])
    assert abs(added) > 0.01
    assert abs(with_kl - g["gspo_corrected"]) > 1e-4


def test_rloo_equals_trl():
    x, g = golden("trl")

    def loss(log_prob):
        return grpo.rloo_loss(
            log_prob,
            x["old_log_prob"],
            x["score"],
            clip_high=0.28,
            where=x["where"],
        ).mean()

    # TRL counts an empty answer with the ratio 1 and the loss -A; here it is 0.
    empty = x["score"][~x["where"].any(1)].sum() / 6
    found, grad = jax.value_and_grad(loss)(x["log_prob"])
    assert_close(found - empty, g["rloo"])
    assert_close(grad, g["rloo_grad"])


def test_parts_of_a_batch_add_up():
    """dapo divides by the tokens of all parts, so that their losses are a sum."""
    x, _ = golden("trl")
    tokens = x["where"].sum()
    loss = lambda x: grpo.grpo_loss(
        x["log_prob"],
        x["old_log_prob"],
        x["score"],
        num_tokens=tokens,
        where=x["where"],
    )
    parts = [{k: v[rows] for k, v in x.items()} for rows in (slice(2), slice(2, 6))]
    assert_close(loss(parts[0]) + loss(parts[1]), loss(x))


def test_what_each_kind_weighs():
    """Two answers of one and three tokens, A = (1, -1), on-policy."""
    log_prob = jnp.full((2, 3), -1.0)
    where = jnp.array([[1, 0, 0], [1, 1, 1]], bool)
    found = {
        kind: grpo.grpo_loss(
            log_prob, log_prob, jnp.array([1.0, -1.0]), kind=kind, where=where
        ).item()
        for kind in KINDS
    }
    expected = {"grpo": 0.0, "bnpo": 0.5, "dapo": 0.5, "dr_grpo": 1 / 3, "gspo": 0.0}
    # cispo holds the log-probability itself.
    assert found == pytest.approx(expected | {"cispo": -0.5}, abs=1e-6)


def test_gspo_moves_all_tokens_of_an_answer_alike():
    x, _ = golden("trl")
    _, grad = family("gspo", x)
    some = np.asarray(x["where"])
    for b in np.flatnonzero(some.any(1)):
        assert np.ptp(grad[b][some[b]]) < 1e-7
    assert not grad[~some].any()


@pytest.mark.parametrize("kind", KINDS)
def test_no_token_at_all_gives_0(kind):
    nan = jnp.full((2, 3), jnp.nan)
    loss, grad = jax.value_and_grad(grpo.grpo_loss)(
        nan,
        nan,
        jnp.full(2, jnp.nan),
        kind=kind,
        reference_log_prob=nan,
        kl_coefficient=0.1,
        where=jnp.zeros((2, 3), bool),
    )
    assert loss == 0.0
    assert not grad.any()


def test_the_penalty_of_grpo_is_the_kl_of_the_tokens():
    x, _ = golden("trl")
    still = x | {"old_log_prob": x["log_prob"]}
    added = family("bnpo", still, kl_coefficient=1.0)[0] - family("bnpo", still)[0]
    estimate = kl.kl_estimate(
        x["log_prob"], x["reference_log_prob"], kind="k3", where=x["where"]
    )
    assert_close(added, masked_mean(estimate, x["where"]))


def test_bad_arguments():
    two, one = jnp.zeros((2, 3)), jnp.zeros(2)
    loss = policy.ppo_policy_loss
    with pytest.raises(ValueError, match=r"clip_low is 1.5; expected it in \[0, 1\]"):
        loss(two, two, two, clip_low=1.5)
    with pytest.raises(ValueError, match=r"clip_high is -0.1; expected at least 0"):
        loss(two, two, two, clip_high=-0.1)
    with pytest.raises(ValueError, match=r"dual_clip is 1.0; expected more than 1"):
        loss(two, two, two, dual_clip=1.0)
    with pytest.raises(ValueError, match=r"advantages has shape \(2,\)"):
        loss(two, two, one)
    with pytest.raises(ValueError, match=r"clip_fraction: advantages has shape"):
        policy.clip_fraction(two, two, one)
    with pytest.raises(ValueError, match=r"approximate_kl: old_log_prob has shape"):
        policy.approximate_kl(two, two[:1])
    with pytest.raises(ValueError, match=r"reinforce_loss: advantages has shape"):
        policy.reinforce_loss(two, one)
    with pytest.raises(ValueError, match=r"clip is 0.0; expected more than 0"):
        policy.ppo_value_loss(two, two, two, clip=0.0)
    with pytest.raises(ValueError, match=r"returns has shape \(2,\)"):
        policy.ppo_value_loss(two, two, one)
    with pytest.raises(ValueError, match=r"temperature is 0.0; expected more than 0"):
        policy.token_entropy(two, temperature=0.0)
    with pytest.raises(ValueError, match=r"tokens has shape \(3,\); expected \(2,\)"):
        policy.token_log_probs(two, jnp.zeros(3, int))
    with pytest.raises(ValueError, match=r"where has shape \(2, 3\); expected \(2,\)"):
        policy.token_entropy(two, where=two > 0)


def test_bad_arguments_of_the_family():
    two, one = jnp.zeros((2, 3)), jnp.zeros(2)
    with pytest.raises(KeyError, match="aggregate_tokens: kind 'sum' is unknown"):
        grpo.aggregate_tokens(two, kind="sum")  # type: ignore
    with pytest.raises(ValueError, match="'constant' needs size"):
        grpo.aggregate_tokens(two, kind="constant")
    with pytest.raises(KeyError, match="grpo_loss: kind 'ppo' is unknown"):
        grpo.grpo_loss(two, two, one, kind="ppo")  # type: ignore
    with pytest.raises(ValueError, match="reference_log_prob is not given"):
        grpo.grpo_loss(two, two, one, kl_coefficient=0.1)
    with pytest.raises(ValueError, match=r"advantages has shape \(2, 3\)"):
        grpo.grpo_loss(two, two, two)
    with pytest.raises(ValueError, match=r"rloo_loss: advantages has shape \(2, 3\)"):
        grpo.rloo_loss(two, two, two)


def test_a_broken_policy_does_not_look_sure_of_itself():
    assert jnp.isnan(policy.token_entropy(jnp.array([[jnp.nan, 0.0]]))).all()
    one = jnp.ones((1, 1))
    assert jnp.isnan(policy.clip_fraction(one * jnp.nan, one, one))


def test_the_coefficient_of_the_controller_can_be_traced():
    lp, old = jnp.full((2, 3), -1.0), jnp.full((2, 3), -1.2)
    reference, gain = jnp.full((2, 3), -2.0), jnp.ones(2)
    loss = lambda c: grpo.grpo_loss(
        lp, old, gain, reference_log_prob=reference, kl_coefficient=c
    )
    traced = jax.jit(loss)(jnp.float32(0.3))
    np.testing.assert_allclose(traced, loss(0.3), rtol=1e-6)
    assert float(traced) != pytest.approx(float(loss(0.0)))
