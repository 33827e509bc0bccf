# SPDX-License-Identifier: Apache-2.0
"""Rates with a clock that stands still unless told, and FLOPs against XLA's."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fulcra_jax import models
from fulcra_jax.configs import DebertaConfig, EvaluatorConfig, SharedHead
from fulcra_jax.training import ceiling, meter


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_the_first_step_only_starts_the_clock(clock):
    found = meter.Meter(clock=clock)
    assert math.isnan(found.rates()["examples_per_s"])
    clock.now += 30.0
    found.count(8, 100, 128)
    assert math.isnan(found.totals()["tokens_per_s"])
    clock.now += 2.0
    found.count(8, 100, 128)
    assert found.totals()["examples_per_s"] == 4.0
    assert found.totals()["tokens_per_s"] == 50.0


def test_a_step_that_compiles_is_left_out(clock):
    found = meter.Meter(clock=clock)
    found.count(8, 100, 128)
    clock.now += 1.0
    found.count(8, 64, 128)
    with found.waiting():
        clock.now += 5.0
    clock.now += 15.0
    found.count(8, 1, 256, compiled=True)
    clock.now += 3.0
    found.count(8, 32, 256)
    assert found.totals() == {
        "examples_per_s": 4.0,  # 16 in 4 s
        "tokens_per_s": 24.0,
        "padding": 0.75,  # 96 of 384 places hold a token
        "input_wait": 0.0,
    }
    assert found.left_out == (1, 20.0)


def test_rates_are_of_the_time_since_the_last_call_and_totals_of_all(clock):
    found = meter.Meter(clock=clock)
    found.count(1, 1, 1)
    for seconds in (1.0, 1.0):
        clock.now += seconds
        found.count(10, 10, 10)
    assert found.rates()["examples_per_s"] == 10.0
    clock.now += 8.0
    found.count(10, 10, 10)
    assert found.rates()["examples_per_s"] == 1.25
    assert math.isnan(found.rates()["examples_per_s"])
    assert found.totals()["examples_per_s"] == 3.0


def test_waiting_is_a_share_of_the_time_and_a_pause_is_not_time(clock):
    found = meter.Meter(clock=clock)
    with found.waiting():
        clock.now += 9.0  # before the first step
    found.count(1, 1, 1)
    with found.waiting():
        clock.now += 1.0
    with found.paused():
        clock.now += 50.0
    clock.now += 3.0
    found.count(4, 1, 1)
    assert found.rates()["input_wait"] == 0.25
    assert found.totals()["examples_per_s"] == 1.0


def test_waiting_counts_when_the_input_raises(clock):
    found = meter.Meter(clock=clock)
    found.count(1, 1, 1)

    def wait():
        with found.waiting():
            clock.now += 1.0
            raise KeyError

    with pytest.raises(KeyError):
        wait()
    clock.now += 1.0
    found.count(1, 1, 1)
    assert found.rates()["input_wait"] == 0.5


def test_the_share_of_the_ceiling_is_over_all_devices(clock):
    found = meter.Meter(devices=4, ceiling=1000.0, clock=clock)
    found.count(1, 1, 1, 600.0)
    clock.now += 0.5
    found.count(1, 1, 1, 600.0)
    assert found.rates()["ceiling_share"] == 0.3
    clock.now += 0.5
    found.count(1, 1, 1)
    assert math.isnan(found.rates()["ceiling_share"])
    assert "ceiling_share" not in meter.Meter(clock=clock).rates()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"devices": 0}, r"meter\.Meter: devices is 0; it should be at least 1"),
        ({"ceiling": 0.0}, r"ceiling is 0\.0; it should be positive and finite"),
        ({"ceiling": math.nan}, "ceiling is nan; it should be positive"),
    ],
)
def test_a_meter_against_nothing_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        meter.Meter(**words)


def test_memory_of_the_process_grows_with_what_it_holds():
    before = meter.memory_mib()
    held = np.ones(64 * 2**20, np.uint8)
    after = meter.memory_mib()
    assert after["resident_peak_mib"] >= after["resident_mib"] * 0.99
    # What numpy was given may have been in the process already, freed by others.
    assert after["resident_mib"] >= 64
    assert after["resident_peak_mib"] >= before["resident_peak_mib"]
    assert held[-1] == 1


def test_memory_of_devices_is_the_most_of_any(monkeypatch):
    class Device:
        def __init__(self, used, peak):
            self.stats = {"bytes_in_use": used, "peak_bytes_in_use": peak}

        def memory_stats(self):
            return self.stats

    devices = [Device(2**20, 4 * 2**20), Device(3 * 2**20, 3 * 2**20)]
    monkeypatch.setattr(meter.jax, "local_devices", lambda: devices)
    assert meter.memory_mib() == {"device_memory_mib": 3.0, "device_peak_mib": 4.0}


def test_the_ceiling_is_work_over_time():
    ticks = iter(range(1000))
    # Every look at the clock is a second later: a turn of two products takes one.
    found = ceiling.matmul_ceiling(
        jnp.float32, size=16, seconds=1e-9, clock=lambda: next(ticks)
    )
    assert found == 2 * (2 * 16**3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"size": 0}, r"ceiling\.matmul_ceiling: size is 0; it should be positive"),
        ({"seconds": 0.0}, r"seconds is 0\.0; it should be positive"),
    ],
)
def test_a_ceiling_of_nothing_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        ceiling.matmul_ceiling(jnp.float32, **words)


def small(**fields):
    fields = {"relative_attention": False, "pos_att_type": ()} | fields
    return DebertaConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=192, vocab_size=100, position_buckets=8,
        max_position_embeddings=64, **fields,
    )  # fmt: skip


def products(jaxpr):
    """FLOPs of the matrix products of a program, those in calls included."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            inner = math.prod(shape[axis] for axis in contracted)
            total += 2 * inner * math.prod(equation.outvars[0].aval.shape)
        times = equation.params.get("length", 1)
        for inside in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda leaf: hasattr(leaf, "eqns") or hasattr(leaf, "jaxpr"),
        ):
            inside = getattr(inside, "jaxpr", inside)
            if hasattr(inside, "eqns"):
                total += times * products(inside)
    return total


def forward(config, rows, length, segments=None):
    # The plain form: the fast one computes more than the equation on purpose.
    evaluator = models.Evaluator(config, form="gather")
    ids = jnp.ones((rows, length), jnp.int32)
    where = None if segments is None else ids
    run = lambda params: evaluator.apply(
        {"params": params}, ids, ids > 0, where, num_segments=segments,
        deterministic=True,
    ).logits  # fmt: skip
    params = jax.eval_shape(
        lambda key: evaluator.init(key, ids, ids > 0, deterministic=True)["params"],
        jax.random.key(0),
    )
    return run, params


POOLING = 2 * 3 * 40 * 64
"""A product of members and hidden states for each text of a row; "first" without
segments takes a slice."""


@pytest.mark.parametrize(
    ("encoder", "head", "segments", "besides"),
    [
        (small(), SharedHead(), None, 0),
        (small(), SharedHead(), 3, 3 * POOLING),
        (small(), SharedHead(pool="mean"), 3, 3 * POOLING),
        (small(), SharedHead(pool="max"), 3, 0),
        (small(), SharedHead(pool="max"), None, 0),
        (small(), SharedHead(pool="logsumexp", hidden=8), None, 0),
        (small(), SharedHead(pool="logsumexp", hidden=0), 3, 0),
        (small(embedding_size=32), SharedHead(pool="max"), None, 0),
        (small(conv_kernel_size=3, conv_groups=2), SharedHead(pool="max"), None, 0),
    ],
)
def test_flops_are_those_of_the_products_in_the_program(
    encoder, head, segments, besides
):
    config = EvaluatorConfig(encoder, head)
    run, params = forward(config, 3, 40, segments)
    counted = ceiling.evaluator_flops(config, 3, 40, segments=segments or 1)
    assert counted == 3 * (products(jax.make_jaxpr(run)(params).jaxpr) - besides)


def test_the_position_terms_are_two_scores_more():
    plain = EvaluatorConfig(small())
    both = dataclasses.replace(
        plain,
        encoder=small(relative_attention=True, pos_att_type=("c2p", "p2c")),
    )
    one = dataclasses.replace(
        plain, encoder=small(relative_attention=True, pos_att_type=("c2p",))
    )
    more = [
        ceiling.evaluator_flops(config, 3, 40, positions=True)
        - ceiling.evaluator_flops(config, 3, 40)
        for config in (plain, one, both)
    ]
    term = 3 * 2 * (3 * 40 * 40 * 64) * 2
    assert more == [0, term, 2 * term]


def test_xla_counts_as_much():
    """It counts softmax, norms and the activation too, which are few at this width."""
    config = EvaluatorConfig(small())
    run, params = forward(config, 4, 64)
    loss = lambda params: jnp.square(run(params)).sum()
    program = jax.jit(jax.grad(loss)).lower(params).compile()
    ratio = program.cost_analysis()["flops"] / ceiling.evaluator_flops(config, 4, 64)
    assert 1.0 < ratio < 1.15  # 1.04 with jax 0.10.2


@pytest.mark.parametrize("name", ["rows", "length", "segments"])
def test_no_work_is_refused(name):
    words = {"rows": 1, "length": 1, "segments": 1} | {name: 0}
    with pytest.raises(ValueError, match=f"{name} is 0; it should be at least 1"):
        ceiling.evaluator_flops(EvaluatorConfig(small()), **words)
