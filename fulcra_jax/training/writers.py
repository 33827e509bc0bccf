# SPDX-License-Identifier: Apache-2.0
"""Where the figures of a run go: JSON lines always, dashboards where they are wanted.

A dashboard that fails is dropped with one sentence: a network or a disk that is gone
stops no training. The JSON lines are the run's record: where they fail, it stops.
"""

import json
import math
import numbers
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax

Figures = Mapping[str, Any]
"""Name -> number; None and what is not finite is "not known"."""

_RESERVED = ("time", "step", "split")


class Writer(Protocol):
    """What `Writers` needs of each."""

    def open(self) -> None:
        """Makes ready; called once, before the first line."""

    def write(self, step: int, split: str, figures: Figures) -> None:
        """Takes the figures of a step."""

    def close(self) -> None:
        """Ends; called once."""


class JsonLines:
    """One JSON object a line: time, step, split and the figures.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "metrics.jsonl"
    ...     JsonLines(path).write(3, "train", {"loss": 0.5, "rate": float("nan")})
    ...     line = json.loads(path.read_text())
    >>> line["step"], line["split"], line["loss"], line["rate"]
    (3, 'train', 0.5, None)
    """

    def __init__(self, path: str | pathlib.Path) -> None:
        """Args: path: of the file; lines are added to what it holds."""
        self._path = pathlib.Path(path)

    def open(self) -> None:
        """Makes the file, so that one that cannot be written is found at once."""
        self._path.open("ab").close()

    def write(self, step: int, split: str, figures: Figures) -> None:
        """Adds a line, which is in the file, whole, when this returns.

        Args:
          step: the step that the figures are of.
          split: "train" or "dev".
          figures: name -> number; one that is not finite is written as null.

        Raises:
          ValueError: if a figure is named time, step or split.
          OSError: if the line cannot be written whole.
        """
        taken = [name for name in _RESERVED if name in figures]
        if taken:
            raise ValueError(
                f"writers.JsonLines: a figure is named {taken[0]}; it should have "
                f"another name than {', '.join(_RESERVED)}, which every line has."
            )
        entries = {"time": round(time.time(), 3), "step": int(step), "split": split}
        entries |= {name: plain(number) for name, number in figures.items()}
        line = (json.dumps(entries, allow_nan=False) + "\n").encode()
        # One call to the system: a kill leaves the line or nothing of it.
        with self._path.open("ab", buffering=0) as file:
            if file.write(line) != len(line):
                raise OSError(
                    f"writers.JsonLines: the line of step {step} does not fit into "
                    f"{self._path}; the disk should have room for it."
                )

    def close(self) -> None:
        """Nothing is left to do."""


def cut(path: str | pathlib.Path, step: int) -> None:
    """Drops the lines after a step, which a resumed run will write again.

    So it does with a line that is cut in half. The old file stays until the new one is
    whole. Call it in one process only.

    Args:
      path: a file of JSON lines; nothing happens where there is none.
      step: the last step to keep.
    """
    path = pathlib.Path(path)
    if not path.exists():
        return
    kept = []
    for line in path.read_bytes().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + b"\n")
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # a line that a kill cut in half
    half = path.with_name(path.name + ".part")
    half.write_bytes(b"".join(kept))
    half.replace(path)


class Writers:
    """Writes to all; a context manager that opens and closes them.

    Of many processes only the first writes.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "metrics.jsonl"
    ...     with Writers([JsonLines(path)]) as writers:
    ...         writers.write(1, "train", {"loss": 0.5})
    ...     path.read_text().count("loss")
    1
    """

    def __init__(
        self, writers: Sequence[Writer], say: Callable[[str], None] | None = None
    ) -> None:
        """What to write to.

        Args:
          writers: a `JsonLines` that fails raises; any other is dropped.
          say: is given the sentence when one is dropped; None prints it to stderr.
        """
        self._writers = list(writers)
        self._say = say or _to_stderr

    def __enter__(self) -> "Writers":
        if jax.process_index() != 0:
            self._writers = []
        try:
            self._each("opened", lambda writer: writer.open())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._each("closed", lambda writer: writer.close())

    def write(self, step: int, split: str, figures: Figures) -> None:
        """Writes the figures of a step to all.

        Raises:
          ValueError: as `JsonLines.write`.
          OSError: as `JsonLines.write`.
        """
        self._each("written", lambda writer: writer.write(step, split, figures))

    def _each(self, done: str, act: Callable[[Writer], None]) -> None:
        for writer in list(self._writers):
            try:
                act(writer)
            except Exception as error:  # a dashboard fails in ways of its own
                if isinstance(writer, JsonLines):
                    raise
                self._drop(writer, done, error)

    def _drop(self, writer: Writer, done: str, error: Exception) -> None:
        self._writers.remove(writer)
        reason = " ".join(str(error).split())[:200] or "it gives no reason"
        self._say(
            f"writers: {type(writer).__name__} could not be {done} and is dropped "
            f"({type(error).__name__}: {reason}); training goes on."
        )
        if done == "closed":
            return
        try:
            writer.close()
        except Exception:  # it failed already, and that has been said
            return


def _to_stderr(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def plain(number: Any) -> int | float | None:
    """A number that JSON has; None for None and for what is not finite.

    >>> plain(np.float32(0.5)), plain(np.int32(2)), plain(float("inf"))
    (0.5, 2, None)
    """
    if number is None or isinstance(number, numbers.Integral):
        return None if number is None else int(number)
    real = float(number)
    return real if math.isfinite(real) else None
