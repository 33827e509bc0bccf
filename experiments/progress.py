# SPDX-License-Identifier: Apache-2.0
"""Step, loss, examples per second and time left, on a terminal or in a log."""

import sys
import time

import rich.console
import rich.progress

from experiments.exits import Interrupted, Stop

_QUIET = 10.0
"""Seconds between lines where the output is no terminal."""


class Progress:
    """A live line on a terminal; a line every ten seconds elsewhere."""

    def __init__(self, begun: int, steps: int) -> None:
        """Args: begun: steps done before. steps: steps in all."""
        self._begun, self._steps = begun, steps
        self._live = None
        if sys.stdout.isatty():
            self._live = rich.progress.Progress(
                rich.progress.TextColumn("step {task.completed}/{task.total}"),
                rich.progress.BarColumn(bar_width=24),
                rich.progress.TextColumn("{task.description}"),
                rich.progress.TextColumn("ETA"),
                rich.progress.TimeRemainingColumn(),
            )
            self._task = self._live.add_task("", total=steps, completed=begun)
        self._start = self._printed = time.monotonic()
        self._examples = self._tokens = 0
        self._loss: float | None = None

    def __enter__(self) -> "Progress":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def count(self, examples: int, tokens: int) -> None:
        """Adds the rows and tokens of a step; the clock starts after the first."""
        if self._examples == 0 and self._tokens == 0:
            self._start = time.monotonic()
        self._examples += examples
        self._tokens += tokens

    def rates(self) -> dict[str, float]:
        """Examples and tokens per second since the first step."""
        seconds = max(time.monotonic() - self._start, 1e-9)
        return {
            "examples_per_s": round(self._examples / seconds, 1),
            "tokens_per_s": round(self._tokens / seconds, 1),
        }

    def show(self, number: int, loss: float) -> None:
        """Shows a step; the loss is smoothed over about twenty."""
        self._loss = loss if self._loss is None else 0.95 * self._loss + 0.05 * loss
        rate = self.rates()["examples_per_s"]
        text = f"loss {self._loss:.4f}  {rate:.0f} examples/s"
        if self._live:
            self._live.update(self._task, completed=number, description=text)
            return
        now = time.monotonic()
        if now - self._printed >= _QUIET or number == self._steps:
            self._printed = now
            left = (now - self._start) / max(number - self._begun, 1)
            left *= self._steps - number
            print(f"step {number}/{self._steps}  {text}  ETA {left:.0f} s", flush=True)

    def say(self, text: str) -> None:
        """Prints a line without breaking the live one."""
        (self._live.console if self._live else rich.console.Console()).print(text)


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
