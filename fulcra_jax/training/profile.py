# SPDX-License-Identifier: Apache-2.0
"""A trace of a few steps, by jax's profiler."""

import pathlib
from typing import Any

import jax


class Trace:
    """Traces some steps of a loop; a context manager that ends the trace in any case.

    ```
    with Trace(run / "profile", first=5, count=3) as trace:
        for number in range(begun, steps):
            trace.step(number, state)
            state, metrics = train_step(state, batch)
    ```

    The trace is FOLDER/plugins/profile/TIME/HOST.xplane.pb for TensorBoard's profile
    page or XProf, and HOST.trace.json.gz for Perfetto; each step is named "train" there
    and has its number.
    """

    def __init__(self, folder: str | pathlib.Path, first: int, count: int) -> None:
        """Which steps.

        Args:
          folder: of the trace; made when the trace begins.
          first: steps of this process before the trace. The step that compiles is 0; 1
            is the earliest of use.
          count: how many steps; 0 traces nothing.

        Raises:
          ValueError: if either is negative.
        """
        for name, number in (("first", first), ("count", count)):
            if number < 0:
                raise ValueError(
                    f"profile.Trace: {name} is {number}; it should be at least 0."
                )
        self._folder, self._first, self._count = pathlib.Path(folder), first, count
        self._begun: int | None = None
        self._running = False
        self._named: Any = None
        self._traced = 0

    @property
    def traced(self) -> int:
        """Steps in the trace so far; 0 as well if training ended before its first."""
        return self._traced

    def __enter__(self) -> "Trace":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def step(self, number: int, state: Any = None) -> None:
        """Says that a step begins, and so that the one before it has ended.

        Args:
          number: of the step, counted over the whole run.
          state: what the step before returned. The trace begins and ends when that is
            computed, so that no other step's work is in it.
        """
        if not self._count:
            return
        if self._begun is None:
            self._begun = number
        place = number - self._begun - self._first
        if self._named is not None:
            self._named.__exit__(None, None, None)
            self._named = None
        if place >= self._count:
            if self._running:
                jax.block_until_ready(state)
            self._stop()
        elif place >= 0:
            if not self._running:
                jax.block_until_ready(state)
                jax.profiler.start_trace(self._folder)
                self._running = True
            self._named = jax.profiler.StepTraceAnnotation("train", step_num=number)
            self._named.__enter__()
            self._traced += 1

    def _stop(self) -> None:
        if self._named is not None:
            self._named.__exit__(None, None, None)
            self._named = None
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
