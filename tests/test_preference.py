# SPDX-License-Identifier: Apache-2.0
"""Against TRL's frozen answers and gradients, optax, and cases by hand."""

import functools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fulcra_jax.objectives import anchored, odds, pairs, preference

HERE = pathlib.Path(__file__).parent / "goldens"
GOLDEN = {
    name: dict(np.load(HERE / f"preference_{name}.npz")) for name in ("trl_ppo", "trl")
}
BETAS = (0.1, 0.5)
KINDS = {
    "sigmoid": preference.dpo_loss,
    "robust": functools.partial(preference.robust_dpo_loss, label_smoothing=0.2),
    "hinge": preference.slic_loss,
    "ipo": preference.ipo_loss,
    "sppo_hard": anchored.sppo_loss,
    "apo_zero": anchored.apo_zero_loss,
}
both = pytest.mark.parametrize("which", ["trl_ppo", "trl"])
x = lambda *numbers: jnp.array(numbers, jnp.float32)


def close(actual, desired):
    """To 1e-6 of max(1, |x|)."""
    error = np.abs(np.asarray(actual, float) - desired)
    assert (error <= 1e-6 * np.maximum(1.0, np.abs(desired))).all(), error.max()


def agrees(loss, golden, name, arrays):
    """Values and gradients; the last pair is masked and holds -inf."""
    where = jnp.arange(arrays[0].shape[0]) < arrays[0].shape[0] - 1
    policy = [jnp.asarray(a) for a in arrays[:2]]
    rest = [jnp.asarray(a) for a in arrays[2:]]
    found = loss(*policy, *rest, where=where)
    total = lambda c, r: loss(c, r, *rest, where=where).sum()
    gradient = jnp.stack(jax.grad(total, argnums=(0, 1))(*policy))
    close(found[:-1], golden[name])
    close(gradient[:, :-1], golden[f"{name}_gradient"])
    assert found[-1] == 0.0
    assert not gradient[:, -1].any()


@both
def test_the_goldens_say_who_wrote_them(which):
    version = {"trl_ppo": "trl 0.11.4", "trl": "trl 1.16.0"}[which]
    assert str(GOLDEN[which]["library"]).startswith(f"{version}, torch 2")


@both
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("kind", KINDS)
def test_pairs_equal_trl(which, beta, kind):
    golden, given = GOLDEN[which], {}
    if which == "trl" and kind == "ipo":
        chosen, rejected = jnp.asarray(golden["token_where"].sum(-1))
        given = {"chosen_lengths": chosen, "rejected_lengths": rejected}
    loss = functools.partial(KINDS[kind], beta=beta, **given)
    agrees(loss, golden, f"{kind}_{beta}", golden["total"])


@pytest.mark.parametrize("beta", BETAS)
def test_smoothed_labels_equal_trl(beta):
    golden = GOLDEN["trl_ppo"]
    loss = functools.partial(preference.dpo_loss, beta=beta, label_smoothing=0.2)
    agrees(loss, golden, f"smooth_{beta}", golden["total"])


@both
def test_losses_without_a_reference_equal_trl(which):
    golden = GOLDEN[which]
    simpo = functools.partial(odds.simpo_loss, beta=2.0, gamma=0.5)
    agrees(simpo, golden, "simpo", golden["average"])
    ratio = lambda c, r, where: (
        odds.orpo_loss(c, r, coefficient=0.25, where=where)
        + jnp.where(where, jnp.where(where, c, 0.0), 0.0)
    )
    agrees(ratio, golden, "odds", golden["average"])


@pytest.mark.parametrize("name", ["kto_above", "kto_below"])
def test_kto_equals_trl(name):
    golden = GOLDEN["trl_ppo"]
    c, r, c_ref, r_ref = (jnp.asarray(a[:-1]) for a in golden["total"])
    moved = jnp.asarray(golden[f"{name}_mismatched"])
    anchor = anchored.kto_anchor(moved, jnp.zeros_like(moved))
    assert (anchor > 0.0) == (name == "kto_above")
    good = jnp.arange(2 * c.size) < c.size

    def loss(c, r):
        return anchored.kto_loss(
            jnp.concatenate([c, r]),
            jnp.concatenate([c_ref, r_ref]),
            good,
            anchor,
            beta=0.3,
            desirable_weight=1.2,
            undesirable_weight=0.7,
        )

    close(loss(c, r), golden[name])
    gradient = jax.grad(lambda c, r: loss(c, r).sum(), argnums=(0, 1))(c, r)
    close(jnp.stack(gradient), golden[f"{name}_gradient"])


@both
def test_sums_over_ragged_answers(which):
    golden = GOLDEN[which]
    where = jnp.asarray(golden["token_where"])
    for logs, total, present in zip(
        golden["token_log_prob"], golden["total"], (*where, *where), strict=True
    ):
        found = preference.sequence_log_prob(jnp.asarray(logs), where=present)
        close(found[:-1], total[:-1])
    logs, present = jnp.asarray(golden["token_log_prob"][1]), where[1]
    mean = preference.sequence_log_prob(logs, where=present, average=True)
    assert mean[2] == 0.0  # No token.
    expected = golden["total"][1, :-1] / np.maximum(present.sum(1), 1)[:-1]
    close(mean[:-1], expected)


def test_dpo_and_hinge_equal_optax():
    c, r, c_ref, r_ref = (jnp.asarray(a[:-1]) for a in GOLDEN["trl"]["total"])
    h = 0.3 * ((c - c_ref) - (r - r_ref))
    labels = jnp.linspace(0.0, 1.0, h.size)
    found = preference.dpo_loss(c, r, c_ref, r_ref, beta=0.3, labels=labels)
    close(found, optax.sigmoid_binary_cross_entropy(h, labels))
    found = preference.slic_loss(c, r, c_ref, r_ref, beta=0.3)
    close(found, optax.hinge_loss(h, jnp.ones_like(h)))


def test_no_gradient_flows_through_the_reference_labels_aside():
    zero = x(0.0, 1.0)
    for loss in KINDS.values():
        grads = jax.grad(lambda *a, f=loss: f(*a).sum(), argnums=(0, 2, 3))(
            x(-1.0, -2.0), x(-2.0, -1.5), -zero - 1.0, -zero - 2.0
        )
        assert grads[0].any()
        assert not grads[1].any()
        assert not grads[2].any()


def test_even_labels_are_least_at_the_margin_of_the_reference():
    ask = lambda c: preference.dpo_loss(c, x(-2.0), x(-1.0), x(-2.0), labels=x(0.5))[0]
    slope = jax.grad(lambda c: ask(c))
    assert slope(x(-1.0))[0] == pytest.approx(0.0, abs=1e-7)
    assert slope(x(-0.5))[0] > 0.0
    assert slope(x(-1.5))[0] < 0.0


def test_an_impossible_rejected_answer_costs_nothing():
    found = preference.dpo_loss(x(-1.0), x(-jnp.inf), x(-1.0), x(-1.0))
    assert found[0] == 0.0


def test_robust_is_unbiased():
    """Right labels with probability 1 - e and wrong with e: the loss of the right."""
    e, args = 0.3, (x(-2.0), x(-4.5), x(-3.0), x(-3.5))
    swapped = (args[1], args[0], args[3], args[2])
    robust = functools.partial(preference.robust_dpo_loss, label_smoothing=e)
    mean = (1 - e) * robust(*args) + e * robust(*swapped)
    close(mean, preference.dpo_loss(*args))


def test_modpo_by_hand_and_its_limits():
    args = x(-2.0), x(-4.0), x(-3.0), x(-3.5)
    margins, weights = jnp.array([[0.5, -1.0]]), x(0.25, 0.25)
    h = 0.1 * 1.5 - (0.125 - 0.25)
    found = preference.modpo_loss(*args, margins, weights, beta=0.1)
    close(found, [math.log1p(math.exp(-h / 0.5))])
    close(
        preference.modpo_loss(*args, margins, x(0.0, 0.0)), preference.dpo_loss(*args)
    )
    assert jnp.isnan(preference.modpo_loss(*args, margins, x(0.5, 0.5)))[0]
    masked = preference.modpo_loss(
        *args, margins, x(0.5, 0.5), where=jnp.array([False])
    )
    assert masked[0] == 0.0


def test_orpo_keeps_its_digits_at_both_ends():
    c, r = np.array([-1e-5, -0.6931, -40.0]), np.array([-3.0, -1e-4, -1e-3])
    with jax.enable_x64(True):
        log_odds = lambda a: a - np.log(-np.expm1(a))
        expected = -c + 0.1 * np.log1p(np.exp(-(log_odds(c) - log_odds(r))))
        close(odds.orpo_loss(jnp.asarray(c), jnp.asarray(r)), expected)
    close(odds.orpo_loss(x(*c), x(*r)), expected)
    slope = jax.grad(lambda c: odds.orpo_loss(c, x(*r)).sum())(x(0.0, -1e-9, -80.0))
    assert jnp.isfinite(slope).all()


def test_the_anchor_counts_every_answer_of_every_device_once():
    p, where = (
        jnp.array([[3.0, 1.0], [5.0, jnp.nan]]),
        jnp.array([[1, 1], [1, 0]], bool),
    )
    anchor = functools.partial(anchored.kto_anchor, axis_name="devices")
    apart = jax.vmap(lambda p, w: anchor(p, jnp.zeros(2), where=w), axis_name="devices")
    assert apart(p, where).tolist() == [3.0, 3.0]


def test_kto_saturates_for_outliers():
    lost = anchored.kto_loss(x(500.0, 500.0), x(0.0, 0.0), x(1, 0) > 0, jnp.array(0.0))
    assert lost[0] < 1e-20
    assert lost[1] == 1.0


def test_pairs_are_nearest_and_farthest():
    distances = jnp.array([[3.0, 1.0, 2.0], [1.0, 1.0, 1.0], [jnp.nan, 1.0, 1.1]])
    found = pairs.value_pairs(distances, margin=0.5)
    assert found.chosen[0] == 1
    assert found.rejected[0] == 0
    assert found.valid.tolist() == [True, False, False]
    where = jnp.array([[False, True, True], [True] * 3, [True] * 3])
    found = pairs.value_pairs(distances, where=where)
    assert (int(found.rejected[0]), bool(found.valid[0])) == (2, True)
    assert found.valid.tolist() == [True, False, True]
    assert pairs.value_pairs(jnp.array([2.0])).valid.item() is False


def test_labels_follow_the_distances():
    found = pairs.preference_labels(x(0.0, 1.0, 1.0), x(1.0, 0.0, 1.0), temperature=0.5)
    close(found, [1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2)), 0.5])


def test_refuses_what_does_not_fit():
    a, b = jnp.zeros(2), jnp.zeros(3)
    with pytest.raises(ValueError, match=r"rejected has shape \(3,\), so B=3, but cho"):
        preference.dpo_loss(a, b, a, a)
    with pytest.raises(ValueError, match="dpo_loss: beta is 0; expected more than 0"):
        preference.dpo_loss(a, a, a, a, beta=0)
    with pytest.raises(ValueError, match=r"label_smoothing is 0.5; expected it in \[0"):
        preference.robust_dpo_loss(a, a, a, a, label_smoothing=0.5)
    with pytest.raises(ValueError, match="labels or label_smoothing, not both"):
        preference.dpo_loss(a, a, a, a, labels=a, label_smoothing=0.1)
    with pytest.raises(ValueError, match="only one of chosen_lengths and rejected_len"):
        preference.ipo_loss(a, a, a, a, chosen_lengths=a)
    with pytest.raises(ValueError, match=r"weights has shape \(3,\), so V=3, but marg"):
        preference.modpo_loss(a, a, a, a, jnp.zeros((2, 2)), b)
    with pytest.raises(ValueError, match="gamma is -1; expected at least 0"):
        odds.simpo_loss(a, a, gamma=-1)
    with pytest.raises(ValueError, match="coefficient is -1; expected at least 0"):
        odds.orpo_loss(a, a, coefficient=-1)
    with pytest.raises(ValueError, match=r"anchor has shape \(2,\); expected \[\]"):
        anchored.kto_loss(a, a, a > 0, a)
    with pytest.raises(ValueError, match="margin is -1; expected at least 0"):
        pairs.value_pairs(a, margin=-1)
    with pytest.raises(ValueError, match=r"where has shape \(3,\); expected \(2,\)"):
        pairs.value_pairs(a, where=b > 0)
    with pytest.raises(ValueError, match="temperature is 0; expected more than 0"):
        pairs.preference_labels(a, a, temperature=0)
