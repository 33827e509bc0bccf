# SPDX-License-Identifier: Apache-2.0
"""The progress line, with a clock that stands still unless told."""

import types

import jax
import pytest

from experiments import progress
from experiments.progress import Progress
from fulcra_jax.training.meter import Meter


@pytest.fixture
def clock(monkeypatch):
    found = types.SimpleNamespace(now=50.0)
    fake = types.SimpleNamespace(monotonic=lambda: found.now)
    monkeypatch.setattr(progress, "time", fake)
    return found


def run(shown, meter, clock, step_seconds, compiles=()):
    """The first step takes a minute; those that compile, twenty seconds more."""
    clock.now += 60.0
    for number in range(1, len(step_seconds) + 2):
        if number > 1:
            with meter.waiting():
                clock.now += step_seconds[number - 2] / 4
            clock.now += step_seconds[number - 2] * 3 / 4
        clock.now += 20.0 * (number in compiles)
        meter.count(8, 100, 128, compiled=number in compiles)
        shown.show(number, 2.0)


def test_a_line_has_loss_speed_wait_and_the_time_left(clock, capsys):
    meter = Meter(clock=lambda: clock.now)
    with Progress(0, 100, meter) as shown:
        run(shown, meter, clock, [4.0, 4.0, 4.0])
    # Nothing is said of the first minute: it was compiling.
    assert capsys.readouterr().out.splitlines() == [
        "step 1/100  loss 2.0000",
        "step 4/100  loss 2.0000  2 examples/s  input wait 25%  ETA 0:06:24",
    ]


def test_no_speed_is_shown_of_a_step_that_was_only_dispatched(clock, capsys):
    meter = Meter(clock=lambda: clock.now)
    with Progress(0, 100, meter) as shown:
        meter.count(8, 100, 128)
        clock.now += 0.001
        meter.count(8, 100, 128)  # the second, while the first is computed
        clock.now += 60.0
        shown.show(1, 2.0)
    assert capsys.readouterr().out == "step 1/100  loss 2.0000\n"


def test_a_speed_is_told_after_five_seconds_of_steps(clock, capsys):
    meter = Meter(clock=lambda: clock.now)
    with Progress(0, 3, meter) as shown:
        run(shown, meter, clock, [2.0, 2.0])
    assert capsys.readouterr().out.splitlines()[-1] == "step 3/3  loss 2.0000"


def test_a_wait_that_counts_as_compiling_gives_no_negative_time_left(clock, capsys):
    # The wait for the first step lies between two dispatches, of which the second
    # compiles: it is left out, though it was over when the clock was read first.
    meter = Meter(clock=lambda: clock.now)
    with Progress(0, 100, meter) as shown:
        meter.count(8, 100, 128)
        clock.now += 0.001
        meter.count(8, 100, 128)
        clock.now += 15.0
        shown.show(1, 2.0)
        clock.now += 20.0
        meter.count(8, 100, 128, compiled=True)
        shown.show(2, 2.0)
        clock.now += 0.001
        meter.count(8, 100, 128)
        clock.now += 10.0
        shown.show(3, 2.0)
    assert capsys.readouterr().out.splitlines() == [
        f"step {number}/100  loss 2.0000" for number in (1, 2, 3)
    ]


def test_a_new_shape_that_compiles_does_not_prolong_the_time_left(clock, capsys):
    meter = Meter(clock=lambda: clock.now)
    with Progress(0, 104, meter) as shown:
        run(shown, meter, clock, [4.0, 4.0, 4.0], compiles=(3,))
        clock.now += 10.0  # a look at dev, which will come again
        shown.show(4, 2.0)
    # Steps 2 and 4 were timed, and took 8 s, with the look 18 s.
    assert capsys.readouterr().out.splitlines()[-1] == (
        "step 4/104  loss 2.0000  2 examples/s  input wait 25%  ETA 0:15:00"
    )


def test_without_input_nothing_is_said_of_waiting_for_it(clock, capsys):
    meter = Meter(clock=lambda: clock.now)
    with Progress(5, 10, meter) as shown:
        for number, seconds in ((6, 60.0), (7, 4.0), (8, 12.0)):
            clock.now += seconds
            meter.count(8, 100, 128)
            shown.show(number, 2.0)
    assert capsys.readouterr().out.splitlines()[-1] == (
        "step 8/10  loss 2.0000  1 examples/s  ETA 0:00:16"
    )


def test_only_the_first_process_prints(clock, capsys, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    meter = Meter(clock=lambda: clock.now)
    with Progress(0, 2, meter) as shown:
        run(shown, meter, clock, [4.0])
        shown.say("step 2: dev macro-F1 0.5")
    assert capsys.readouterr().out == ""


def test_on_a_terminal_the_line_has_the_time_left(clock, monkeypatch):
    monkeypatch.setattr(progress.sys.stdout, "isatty", lambda: True, raising=False)
    meter = Meter(clock=lambda: clock.now)
    shown = Progress(0, 100, meter)
    run(shown, meter, clock, [4.0, 4.0, 4.0])
    [task] = shown._live.tasks
    assert task.completed == 4
    assert task.description.endswith("input wait 25%  ETA 0:06:24")
