# SPDX-License-Identifier: Apache-2.0
"""How every script ends: one sentence for what went wrong, and an exit code."""

import contextlib
import os
import pathlib
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_ECHO = 10.0
"""Seconds in which a second SIGTERM is taken for the first."""


class Interrupted(Exception):
    """Work stopped early, with something to go on from; `code` is the exit code."""

    def __init__(self, message: str, code: int = 130) -> None:
        super().__init__(message)
        self.code = code


def exit_code(work: Callable[[], object]) -> int:
    """Runs a script's work: 0 when done, 1 on bad input, 130 when stopped by Ctrl-C.

    Errors of other kinds are mistakes of this project and keep their traceback.
    """
    try:
        with plain_warnings():
            work()
    except (ValueError, KeyError, OSError, FloatingPointError) as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        return 1
    except MemoryError as error:
        reason = sentence(error) or "no more is given"
        print(f"error: not enough memory: {reason}", file=sys.stderr)
        return 1
    except Interrupted as stopped:
        print(str(stopped), file=sys.stderr)
        return stopped.code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


def sentence(error: BaseException) -> str:
    """The message of an error in one line; KeyError would put it in quotes."""
    text = str(error)
    if isinstance(error, KeyError) and error.args:
        text = str(error.args[0])
    # jax adds a note about its tracebacks to what is raised while it traces.
    notes = [x for x in getattr(error, "__notes__", []) if not x.startswith("-----")]
    return " ".join(" ".join([text, *notes]).split())


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """Shows this project's own warnings as one sentence, without path and line."""
    with warnings.catch_warnings():
        before = warnings.showwarning

        def show(message: Any, category: Any, filename: str, *rest: Any) -> None:
            if pathlib.Path(filename).is_relative_to(_ROOT):
                print(f"warning: {message}", file=sys.stderr, flush=True)
            else:
                before(message, category, filename, *rest)

        warnings.showwarning = show
        yield


class Stop:
    """Turns Ctrl-C and SIGTERM into a wish that the training loop heeds.

    An exception from a signal may be lost in a callback of the runtime, or leave it in
    pieces; a wish is heard between two steps. The second one ends the process at once,
    but for a SIGTERM that follows another within ten seconds: a scheduler that ends a
    job may send it to the process and to its launcher, which passes it on.
    """

    def __enter__(self) -> "Stop":
        self.asked = False
        self.by = ""
        self._at = 0.0
        self._before = {
            sign: signal.signal(sign, self._ask)
            for sign in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for sign, handler in self._before.items():
            signal.signal(sign, handler)

    def _ask(self, number: int, _: object) -> None:
        name = signal.Signals(number).name
        if self.asked:
            echo = time.monotonic() - self._at < _ECHO
            if echo and name == self.by == "SIGTERM":
                return
            print(f"\n{name} again: stopped at once", file=sys.stderr, flush=True)
            os._exit(130)
        self.asked = True
        self.by = name
        self._at = time.monotonic()
        when = f" after {_ECHO:.0f} s" if name == "SIGTERM" else ""
        print(
            f"\n{name}: stopping after a step or two; once more{when} stops at once",
            file=sys.stderr,
            flush=True,
        )
