# SPDX-License-Identifier: Apache-2.0
"""A signal is a wish; a second one ends the process, unless it is an echo."""

import os
import signal
import types

import jax
import pytest

from experiments import exits


@pytest.fixture
def clock(monkeypatch):
    found = types.SimpleNamespace(now=50.0)
    fake = types.SimpleNamespace(monotonic=lambda: found.now)
    monkeypatch.setattr(exits, "time", fake)
    return found


@pytest.fixture
def ended(monkeypatch):
    """The codes that the process would have ended with."""
    found = []
    monkeypatch.setattr(os, "_exit", found.append)
    return found


def test_sigterm_from_job_and_launcher_is_one_wish(clock, ended):
    with exits.Stop() as stop:
        signal.raise_signal(signal.SIGTERM)
        clock.now += 1.0
        signal.raise_signal(signal.SIGTERM)
        assert (stop.asked, stop.by, ended) == (True, "SIGTERM", [])
        clock.now += 10.0
        signal.raise_signal(signal.SIGTERM)
    assert ended == [130]


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_after_another_signal_ends_at_once(clock, ended, first):
    with exits.Stop():
        signal.raise_signal(first)
        assert ended == []
        signal.raise_signal(signal.SIGINT)
    assert ended == [130]


def test_what_is_raised_while_tracing_stays_one_sentence():
    def refuse(x):
        raise ValueError("step: x is 1; it should be 2.")

    with pytest.raises(ValueError, match="it should be 2") as caught:
        jax.jit(refuse)(1.0)
    caught.value.add_note("in row 7")
    assert exits.sentence(caught.value) == "step: x is 1; it should be 2. in row 7"
