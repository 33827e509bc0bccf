# SPDX-License-Identifier: Apache-2.0
"""Step, loss, examples per second and time left, on a terminal or in a log."""

import datetime
import math
import sys
import time

import jax
import rich.console
import rich.progress

from experiments.exits import Interrupted, Stop
from fulcra_jax.training.meter import Meter

_QUIET = 10.0
"""Seconds between lines where the output is no terminal."""
_ENOUGH = 5.0
"""Seconds of timed steps from which on a speed is one: the first dispatches wait for
nothing, so that a few of them alone look infinitely fast."""


class Progress:
    """A live line on a terminal; a line every ten seconds elsewhere.

    Of many processes only the first prints.
    """

    def __init__(self, begun: int, steps: int, meter: Meter) -> None:
        """What to show.

        Args:
          begun: steps done before.
          steps: steps in all.
          meter: counts the steps.
        """
        self._begun, self._steps, self._meter = begun, steps, meter
        self._prints = jax.process_index() == 0
        self._live = None
        if self._prints and sys.stdout.isatty():
            self._live = rich.progress.Progress(
                rich.progress.TextColumn("step {task.completed}/{task.total}"),
                rich.progress.BarColumn(bar_width=24),
                rich.progress.TextColumn("{task.description}"),
            )
            self._task = self._live.add_task("", total=steps, completed=begun)
        self._printed = time.monotonic()
        self._loss: float | None = None
        self._first: tuple[int, float] | None = None  # timed steps, seconds

    def __enter__(self) -> "Progress":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, number: int, loss: float) -> None:
        """Shows a step; the loss is smoothed over about twenty."""
        self._loss = loss if self._loss is None else 0.95 * self._loss + 0.05 * loss
        now = time.monotonic()
        # Without the steps that compiled: there are few of them left to come.
        steps, seconds = self._meter.left_out
        spent = number - steps, now - seconds
        if self._first is None:
            self._first = spent
        if not self._prints:
            return
        left = self._left(number, *spent)
        parts = [f"loss {self._loss:.4f}"]
        # What was timed when the first step's loss is read is a dispatch, no step.
        if left:
            parts += self._speed()
        text = "  ".join(parts + left)
        if self._live:
            self._live.update(self._task, completed=number, description=text)
        elif now - self._printed >= _QUIET or number == self._steps:
            self._printed = now
            print(f"step {number}/{self._steps}  {text}", flush=True)

    def _speed(self) -> list[str]:
        totals = self._meter.totals()
        if math.isnan(totals["examples_per_s"]):
            return []
        said = [f"{totals['examples_per_s']:.0f} examples/s"]
        if totals["input_wait"]:  # 0 where there is no input to wait for
            said.append(f"input wait {totals['input_wait']:.0%}")
        return said

    def _left(self, number: int, steps: int, seconds: float) -> list[str]:
        """The time left, once steps besides the first, which compiles, were timed."""
        first, start = self._first or (steps, seconds)
        if steps <= first or seconds - start < _ENOUGH:
            return []
        left = (seconds - start) / (steps - first) * (self._steps - number)
        return [f"ETA {datetime.timedelta(seconds=round(left))}"]

    def say(self, text: str) -> None:
        """Prints a line without breaking the live one."""
        if self._prints:
            console = self._live.console if self._live else rich.console.Console()
            console.print(text)


class Counter:
    """Says how many of n are done, every ten seconds: for work without a loss.

    Between two calls it heeds the wish to stop.
    """

    def __init__(self, what: str, n: int, stop: Stop | None = None) -> None:
        """Args: what: is counted. n: how many in all. stop: the wish."""
        self._what, self._n, self._stop = what, n, stop
        self._start = self._printed = time.monotonic()

    def __call__(self, done: int) -> None:
        """Args: done: how many so far.

        Raises:
          Interrupted: if somebody wants it to stop.
        """
        if self._stop is not None and self._stop.asked:
            raise Interrupted(
                f"stopped with {done:,} of {self._n:,} {self._what}; the same command "
                "draws these anew and goes on."
            )
        now = time.monotonic()
        if now - self._printed >= _QUIET and done < self._n:
            self._printed = now
            left = (now - self._start) / max(done, 1) * (self._n - done)
            print(f"{self._what} {done:,}/{self._n:,}  ETA {left:.0f} s", flush=True)
