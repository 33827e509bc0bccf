# SPDX-License-Identifier: Apache-2.0
"""How fast a run trains, how much of that is padding or waiting, and its memory."""

import contextlib
import math
import pathlib
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax


class _Sums(NamedTuple):
    """What was counted between two moments."""

    seconds: float = 0.0
    waited: float = 0.0
    examples: int = 0
    tokens: int = 0
    places: int = 0
    flops: float = 0.0


def _added(one: _Sums, other: _Sums) -> _Sums:
    return _Sums(
        one.seconds + other.seconds,
        one.waited + other.waited,
        one.examples + other.examples,
        one.tokens + other.tokens,
        one.places + other.places,
        one.flops + other.flops,
    )


class Meter:
    """Rates of a training loop, without the time that compiling takes.

    It is told of each step once it is dispatched; the time of a step is the time since
    the one before. The first step of a process only starts the clock. With a loop that
    reads the metrics one step late, the device works on the step before meanwhile: over
    a few steps the two come to the same.

    >>> now = iter([10.0, 10.5, 10.75, 12.0])
    >>> meter = Meter(devices=2, ceiling=1e6, clock=lambda: next(now))
    >>> meter.count(8, 90, 128, 2e6)  # compiles, at 10.0
    >>> with meter.waiting():  # from 10.5 to 10.75
    ...     pass
    >>> meter.count(8, 96, 128, 2e6)  # at 12.0
    >>> rates = meter.rates()
    >>> rates["examples_per_s"], rates["tokens_per_s"], rates["padding"]
    (4.0, 48.0, 0.25)
    >>> rates["input_wait"], rates["ceiling_share"]
    (0.125, 0.5)
    """

    def __init__(
        self,
        *,
        devices: int = 1,
        ceiling: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """What the rates are measured against.

        Args:
          devices: that share the work told of, over all processes if the counts are.
            Give 1 on a CPU: devices there share the cores that the ceiling is of.
          ceiling: FLOP/s of one device, as `ceiling.matmul_ceiling`; None if unknown.
          clock: seconds.

        Raises:
          ValueError: if devices or ceiling are not positive.
        """
        if devices < 1:
            raise ValueError(
                f"meter.Meter: devices is {devices}; it should be at least 1."
            )
        if ceiling is not None and not 0.0 < ceiling < math.inf:
            raise ValueError(
                f"meter.Meter: ceiling is {ceiling}; it should be positive and finite."
            )
        self._ceiling = None if ceiling is None else devices * ceiling
        self._clock = clock
        self._last: float | None = None
        self._waited = self._paused = 0.0
        self._left_out = 0, 0.0
        self._window, self._total = _Sums(), _Sums()

    def count(
        self,
        examples: int,
        tokens: int,
        places: int,
        flops: float = 0.0,
        *,
        compiled: bool = False,
    ) -> None:
        """Counts a step, when it has been dispatched.

        Args:
          examples: texts in its batch.
          tokens: tokens that are no padding.
          places: rows times length.
          flops: of the model, as `ceiling.evaluator_flops`; 0 if unknown.
          compiled: True if this step compiled a program (a new shape): it is left out.
        """
        now = self._clock()
        if self._last is not None:
            seconds = max(now - self._last - self._paused, 0.0)
            if compiled:
                self._left_out = self._left_out[0] + 1, self._left_out[1] + seconds
            else:
                step = _Sums(seconds, self._waited, examples, tokens, places, flops)
                self._window = _added(self._window, step)
                self._total = _added(self._total, step)
        self._last = now
        self._waited = self._paused = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the wait for the next batch."""
        start = self._clock()
        try:
            yield
        finally:
            self._waited += self._clock() - start

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Around what is no training, as a look at dev: its time is left out."""
        start = self._clock()
        try:
            yield
        finally:
            self._paused += self._clock() - start

    @property
    def left_out(self) -> tuple[int, float]:
        """How many steps were left out because they compiled, and their seconds.

        The first is not among them: the clock starts when it is counted.
        """
        return self._left_out

    def rates(self) -> dict[str, float]:
        """Rates since the last call.

        Returns:
          examples_per_s; tokens_per_s; padding, the share of places without a token;
          input_wait, the share of time spent waiting for input; and, if the ceiling is
          known, ceiling_share: model FLOP/s over the ceiling of all devices. NaN where
          no step was timed since, or no FLOPs are known.
        """
        found = self._rates_of(self._window)
        self._window = _Sums()
        return found

    def totals(self) -> dict[str, float]:
        """Rates over all steps of this process, as `rates`."""
        return self._rates_of(self._total)

    def _rates_of(self, sums: _Sums) -> dict[str, float]:
        found = {
            "examples_per_s": _ratio(sums.examples, sums.seconds),
            "tokens_per_s": _ratio(sums.tokens, sums.seconds),
            "padding": 1.0 - _ratio(sums.tokens, sums.places),
            "input_wait": _ratio(sums.waited, sums.seconds),
        }
        if self._ceiling is not None:
            flops = sums.flops or math.nan
            found["ceiling_share"] = _ratio(flops, sums.seconds) / self._ceiling
        return {name: float(f"{rate:.6g}") for name, rate in found.items()}


def memory_mib() -> dict[str, float]:
    """Memory in use and its peak, in MiB.

    Returns:
      device_memory_mib and device_peak_mib, the most of any device of this process,
      where devices keep count (GPU, TPU); else resident_mib (on Linux) and
      resident_peak_mib of the process.

    >>> memory_mib()["resident_peak_mib"] > 1
    True
    """
    stats = [device.memory_stats() for device in jax.local_devices()]
    held = [entry for entry in stats if entry]
    if held:
        names = {
            "device_memory_mib": "bytes_in_use",
            "device_peak_mib": "peak_bytes_in_use",
        }
        return {
            name: round(max(entry.get(field, 0) for entry in held) / 2**20, 1)
            for name, field in names.items()
        }
    found = {}
    statm = pathlib.Path("/proc/self/statm")
    if statm.is_file():
        pages = int(statm.read_text().split()[1])
        found["resident_mib"] = round(pages * resource.getpagesize() / 2**20, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # KiB, but for macOS, which counts bytes.
    found["resident_peak_mib"] = round(
        peak / (2**20 if sys.platform == "darwin" else 2**10), 1
    )
    return found


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
