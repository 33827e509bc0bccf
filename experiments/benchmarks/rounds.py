# SPDX-License-Identifier: Apache-2.0
"""Variants timed in turn, round after round, and what else kept the processors busy.

A figure is the median over the rounds, a ratio that of two medians, its range that of
the ratios of single rounds: what slows a whole round down slows both sides. A round
beside which other processes worked is dropped and repeated; when no quiet one is found
any more, all rounds count and the measurement is void.
"""

import dataclasses
import os
import pathlib
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

STAT = pathlib.Path("/proc/stat")
CPUINFO = pathlib.Path("/proc/cpuinfo")
MOST_CALLS = 1000


class Once(NamedTuple):
    """One variant in one round."""

    seconds: float
    """Wall clock of a call."""
    cpu: float
    """Processor seconds of this process in a call, all threads together."""


class Round(NamedTuple):
    """Every variant once, and what others did meanwhile."""

    times: dict[str, Once]
    foreign: float | None
    """Share of the processors that others used, [0, 1]; None where nobody can tell."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """The rounds of some variants."""

    rounds: list[Round]
    dropped: list[Round]
    """Those with foreign load that were repeated."""
    void: bool
    """True if the rounds that count were not all quiet."""

    def seconds(self, name: str, what: str = "seconds") -> dict[str, float]:
        """Median and range of a variant; `what` may be "cpu" for processor seconds."""
        return spread([getattr(one.times[name], what) for one in self.rounds])

    def ratio(self, above: str, below: str, what: str = "seconds") -> dict[str, float]:
        """Ratio of the medians, and the range of the ratios of single rounds."""
        single = [
            getattr(one.times[above], what) / max(getattr(one.times[below], what), 1e-9)
            for one in self.rounds
        ]
        top, bottom = self.seconds(above, what), self.seconds(below, what)
        ratio = top["median"] / max(bottom["median"], 1e-9)
        return spread(single) | {"median": ratio}

    def to_json(self) -> dict[str, Any]:
        """All times, those of dropped rounds too."""
        return {
            "rounds": [_plain(one) for one in self.rounds],
            "dropped": [_plain(one) for one in self.dropped],
            "void": self.void,
        }


def measure(
    ways: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    retries: int,
    least_seconds: float,
    foreign_limit: float | None,
) -> Measured:
    """Times the variants in turn.

    Args:
      ways: what to call, by name; a call returns when its work is done.
      rounds: quiet rounds wanted.
      retries: rounds that may be repeated because of foreign load.
      least_seconds: a variant is called as often in a round as fills this time.
      foreign_limit: most share of the processors that others may use in a round; None
        keeps every round.

    Returns:
      The rounds. The variants change places from round to round.
    """
    calls = {name: _calls(way, least_seconds) for name, way in ways.items()}
    names, quiet, loud = list(ways), [], []
    while len(quiet) < rounds and len(quiet) + len(loud) < rounds + retries:
        turn = (len(quiet) + len(loud)) % len(names)
        one = _round(ways, calls, names[turn:] + names[:turn])
        if foreign_limit is None or (one.foreign or 0.0) <= foreign_limit:
            quiet.append(one)
        else:
            loud.append(one)
    if len(quiet) < rounds:
        return Measured(quiet + loud, [], True)
    return Measured(quiet, loud, False)


def _round(
    ways: Mapping[str, Callable[[], object]],
    calls: Mapping[str, int],
    order: Sequence[str],
) -> Round:
    times = {}
    busy, own, began = busy_seconds(), own_seconds(), time.perf_counter()
    for name in order:
        time.sleep(0.02)  # Idle threads of the library before it spin for a while.
        cpu, start = time.process_time(), time.perf_counter()
        for _ in range(calls[name]):
            ways[name]()
        seconds = time.perf_counter() - start
        cpu = time.process_time() - cpu
        times[name] = Once(seconds / calls[name], cpu / calls[name])
    wall, after = time.perf_counter() - began, busy_seconds()
    if busy is None or after is None or after <= busy:
        return Round(times, None)
    others = max(after - busy - (own_seconds() - own), 0.0)
    return Round(times, others / (wall * cores()))


def _calls(way: Callable[[], object], least_seconds: float) -> int:
    """How often to call; the first call, which is not counted, warms up."""
    way()
    start = time.perf_counter()
    way()
    seconds = max(time.perf_counter() - start, 1e-6)
    return max(1, min(MOST_CALLS, int(least_seconds / seconds) + 1))


def spread(numbers: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {
        "median": statistics.median(numbers),
        "low": min(numbers),
        "high": max(numbers),
    }


def between(numbers: Mapping[str, float], scale: float = 1.0) -> str:
    """`median (low-high)`, three digits.

    >>> between({"median": 0.0123, "low": 0.01, "high": 0.02}, 1e3)
    '12.3 (10-20)'
    """
    order = ("median", "low", "high")
    middle, low, high = (digits(numbers[name] * scale) for name in order)
    return f"{middle} ({low}-{high})"


def digits(number: float) -> str:
    """Three digits, all of those before the point.

    >>> [digits(x) for x in (0.01234, 1.234, 12345.6)]
    ['0.0123', '1.23', '12,346']
    """
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def directory(caller: str, out: str, files: Sequence[str]) -> pathlib.Path:
    """Makes the directory of the results and tries it, before anything is measured.

    Raises:
      OSError: if nothing can be written there, or one of the files is a directory.
    """
    path = pathlib.Path(out)
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{caller}: {path} is a file; out should be a directory.")
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OSError(
            f"{caller}: {path} cannot be written to ({error.strerror}); out should be "
            "a directory that can."
        ) from None
    for name in files:
        if (path / name).is_dir():
            raise IsADirectoryError(
                f"{caller}: {path / name} is a directory; it should be a file or free."
            )
    return path


def cores() -> int:
    """Processors that this process may use."""
    return len(_allowed())


def busy_seconds() -> float | None:
    """Seconds that our processors worked for anyone or were taken by the host.

    From /proc/stat, only the processors that this process may use; None elsewhere.
    """
    try:
        lines = STAT.read_text().splitlines()
    except OSError:
        return None
    names = {f"cpu{number}" for number in _allowed()}
    ticks = 0
    for line in lines:
        name, *fields = line.split()
        if name in names:
            user, nice, system, _, _, irq, soft, steal = map(int, fields[:8])
            ticks += user + nice + system + irq + soft + steal
    return ticks / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    """Processor seconds of this process and of its children that ended."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def load_average() -> tuple[float, ...]:
    """Runnable processes over the last 1, 5 and 15 minutes."""
    return tuple(round(x, 2) for x in os.getloadavg())


def machine() -> dict[str, Any]:
    """What the processors are."""
    model, flags = platform.processor() or platform.machine(), set()
    if CPUINFO.is_file():
        for line in CPUINFO.read_text().splitlines():
            name, _, text = line.partition(":")
            if name.strip() == "model name":
                model = text.strip()
            elif name.strip() == "flags":
                flags = set(text.split())
    bfloat16 = [name for name in ("amx_bf16", "avx512_bf16") if name in flags]
    return {
        "cpu": model,
        "cores": cores(),
        "bfloat16 instructions": ", ".join(bfloat16) or "none",
        "python": platform.python_version(),
        "foreign load": "from /proc/stat" if busy_seconds() else "cannot be told here",
    }


def _allowed() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _plain(one: Round) -> dict[str, Any]:
    times = {name: list(once) for name, once in one.times.items()}
    return {"foreign": one.foreign, "seconds and cpu": times}
