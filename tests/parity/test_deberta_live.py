# SPDX-License-Identifier: Apache-2.0
"""Random small models against transformers itself: states, logits and gradients."""

import drawn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import ACT2FN, modeling_v1, modeling_v2, torch

from fulcra_jax.models import Deberta, Evaluator, SharedHeadModule, attention
from fulcra_jax.models.activations import ACTIVATIONS

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

LENGTHS = [1, 7, 64, 129, 512, 700]
CASES = [
    (family, seed, length)
    for family in drawn.FAMILIES
    for seed, length in enumerate(LENGTHS)
]
CASES += [(f, s, n) for f in ("v1", "v2") for s, n in ((6, 15), (7, 33), (8, 21))]


def too_long(config, length):
    absolute = config.encoder.position_biased_input
    return absolute and length > config.encoder.max_position_embeddings


@pytest.mark.parametrize(
    ("family", "seed", "length"), CASES, ids=[f"{f}-{n}" for f, _, n in CASES]
)
def test_states_logits_and_gradients(family, seed, length):
    fixed = {}
    if length == 700 and family in ("v1", "v2"):
        fixed = {"position_biased_input": False}
    config, model, batch = drawn.draw(family, seed, length, **fixed)
    inputs, kwargs = drawn.our_inputs(batch)
    params = drawn.params_of(config, model)
    if too_long(config, length):
        with pytest.raises((RuntimeError, IndexError)):
            model(**drawn.torch_inputs(batch))
        with pytest.raises(ValueError, match="T=700, but there are 512 absolute"):
            Evaluator(config).apply({"params": params}, *inputs, **kwargs)
        return
    out = model(**drawn.torch_inputs(batch), output_hidden_states=True)
    rng = np.random.default_rng(seed)
    pull_logits = rng.normal(size=(4, drawn.LABELS)).astype(np.float32)
    pull_hidden = rng.normal(size=out.hidden_states[-1].shape).astype(np.float32)
    # Token 0 of the text that is all padding reaches the logits; keep it out.
    pull_logits[3] = 0
    if family == "bert":
        # A row of padding is uniform in both, but in torch by rounding alone: the mask
        # is added, so its gradient is that of the scores.
        pull_hidden[3] = 0
    loss = (out.logits * torch.from_numpy(pull_logits)).sum()
    loss += (out.hidden_states[-1] * torch.from_numpy(pull_hidden)).sum()
    loss.backward()

    head = SharedHeadModule(config.head, act=config.encoder.pooler_hidden_act)

    @jax.jit
    def run(p):
        def loss(p):
            encoder, readout = {"params": p["encoder"]}, {"params": p["head"]}
            states = Deberta(config.encoder).apply(
                encoder, *inputs, all_states=True, **kwargs
            )
            output = head.apply(readout, states[-1], inputs[1], deterministic=True)
            logits = output.logits.reshape(4, drawn.LABELS)
            pull = (logits * pull_logits).sum() + (states[-1] * pull_hidden).sum()
            return pull, (states, logits)

        return jax.grad(loss, has_aux=True)(p)

    got_grads, (states, logits) = run(params)
    tokens = np.asarray(inputs[1])
    for state, want in zip(states, out.hidden_states, strict=True):
        got, want = np.asarray(state)[tokens], want.detach().numpy()[tokens]
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-5)
    want = out.logits.detach()
    starts = tokens[:, 0]
    np.testing.assert_allclose(logits[starts], want[starts], rtol=0, atol=2e-5)
    # Padding averages hundreds of values: torch's float32 sum of them is 3e-5 off.
    want_grads = drawn.gradients_of(config, model)
    with torch.no_grad():
        exact = model.double()(**drawn.torch_inputs(batch), output_hidden_states=True)
    for state, want in zip(states, exact.hidden_states, strict=True):
        np.testing.assert_allclose(state, want, rtol=0, atol=2e-5)
    np.testing.assert_allclose(logits, exact.logits, rtol=0, atol=2e-5)
    # torch gives the padding's word no gradient.
    words = got_grads["encoder"]["embeddings"]["word"]
    words["embedding"] = words["embedding"].at[0].set(0.0)
    errors = gradient_errors(got_grads, want_grads)
    assert max(errors.values()) <= 1e-4, errors


@pytest.mark.parametrize("family", ["v1", "v2"])
@pytest.mark.parametrize("kinds", [["c2p", "p2p"], ["p2c", "p2c"], "P2C | c2p", None])
def test_terms_that_are_named_but_not_computed(family, kinds):
    fixed = {"pos_att_type": kinds, "relative_attention": True}
    config, model, batch = drawn.draw(family, 9, 7, **fixed)
    inputs, kwargs = drawn.our_inputs(batch)
    params = {"params": drawn.params_of(config, model)}
    with torch.no_grad():
        want = model(**drawn.torch_inputs(batch)).logits
    run = jax.jit(lambda p: Evaluator(config).apply(p, *inputs, **kwargs).logits)
    got = run(params).reshape(4, drawn.LABELS)
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-5)


def gradient_errors(got_grads, want_grads):
    """Per leaf, the largest error by the leaf's scale.

    Some leaves have a true gradient of zero: those by the scale of the tree.
    """
    largest = max(float(abs(g).max()) for g in jax.tree.leaves(want_grads))
    errors = {}
    for path, got in jax.tree.leaves_with_path(got_grads):
        want = want_grads
        for step in path:
            want = want[step.key]
        scale = max(float(abs(want).max()), 1e-2 * largest)
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        errors[name] = float(abs(got - want).max()) / scale
    return errors


@pytest.mark.parametrize(
    "which", [(512, 256, 512), (900, 256, 512), (900, -1, 300), (700, 48, 200)]
)
def test_slots_of_v2(which):
    length, buckets, max_distance = which
    dummy = torch.zeros(1, length, 1)
    distance = modeling_v2.build_relative_position(dummy, dummy, buckets, max_distance)[
        0
    ]
    span = buckets if buckets > 0 else max_distance
    want = torch.clamp(distance + span, 0, 2 * span - 1).numpy()
    got = attention.relative_slots(length, buckets=buckets, max_distance=max_distance)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    "which", [(1, 512), (64, 512), (512, 512), (700, 512), (90, 13)]
)
def test_slots_of_v1(which):
    """v1 cuts the middle out of its table and counts from there."""
    length, max_distance = which
    dummy = torch.zeros(1, length, 1)
    distance = modeling_v1.build_relative_position(dummy, dummy)[0]
    span = int(modeling_v1.compute_attention_span(dummy, dummy, max_distance))
    want = torch.clamp(distance + span, 0, 2 * span - 1) + max_distance - span
    got = attention.relative_slots(length, buckets=-1, max_distance=max_distance)
    np.testing.assert_array_equal(got, want.numpy())


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_activations(name):
    x = np.linspace(-30.0, 30.0, 2001).astype(np.float32)
    theirs = torch.tensor(x, requires_grad=True)
    out = ACT2FN[name](theirs)
    out.sum().backward()
    got, pull = jax.vjp(ACTIVATIONS[name], jnp.asarray(x))
    np.testing.assert_allclose(got, out.detach(), rtol=2e-6, atol=2e-6)
    # At a kink either side is right.
    smooth = ~np.isin(x, [-3.0, 0.0, 3.0, 6.0])
    slope = pull(jnp.ones_like(got))[0]
    np.testing.assert_allclose(
        slope[smooth], theirs.grad[torch.from_numpy(smooth)], rtol=1e-5, atol=1e-5
    )


def test_what_is_left_out_has_parameters():
    assert set(ACT2FN) - set(ACTIVATIONS) == {"prelu", "xielu"}
