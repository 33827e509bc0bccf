# SPDX-License-Identifier: Apache-2.0
"""A trace has the steps that were asked for and no others."""

import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from fulcra_jax.training.profile import Trace


def run(trace, begun, end, fails_at=None):
    step = jax.jit(lambda x: x @ x)
    state = jnp.eye(8)
    for number in range(begun, end):
        trace.step(number, state)
        state = step(state)
        if number == fails_at:
            raise KeyError(number)
    return state


def steps_in(folder):
    [path] = folder.glob("plugins/profile/*/*.trace.json.gz")
    with gzip.open(path) as file:
        found = json.load(file)["traceEvents"]
    return sorted(
        int(event["args"]["step_num"])
        for event in found
        if event.get("name") == "train"
    )


def test_a_trace_is_of_these_steps_counted_from_the_first_of_this_process(tmp_path):
    with Trace(tmp_path, first=2, count=3) as trace:
        run(trace, 100, 110)
        assert trace.traced == 3
    assert steps_in(tmp_path) == [102, 103, 104]


def test_a_trace_that_training_ends_is_written(tmp_path):
    with Trace(tmp_path, first=1, count=9) as trace:
        run(trace, 0, 3)
    assert steps_in(tmp_path) == [1, 2]


def test_a_trace_is_closed_on_errors(tmp_path):
    def fail():
        with Trace(tmp_path / "a", first=1, count=9) as trace:
            run(trace, 0, 9, fails_at=2)

    with pytest.raises(KeyError, match="2"):
        fail()
    assert steps_in(tmp_path / "a") == [1, 2]
    # The profiler is free again.
    with Trace(tmp_path / "b", first=0, count=1) as trace:
        run(trace, 0, 2)
    assert steps_in(tmp_path / "b") == [0]


@pytest.mark.parametrize(("first", "count"), [(0, 0), (99, 3)])
def test_no_trace_is_made_where_there_is_nothing_to_trace(tmp_path, first, count):
    with Trace(tmp_path, first=first, count=count) as trace:
        run(trace, 0, 3)
        assert trace.traced == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["first", "count"])
def test_a_negative_number_of_steps_is_refused(name):
    words = {"first": 0, "count": 1} | {name: -1}
    with pytest.raises(ValueError, match=rf"profile\.Trace: {name} is -1; it should"):
        Trace("x", **words)
