# SPDX-License-Identifier: Apache-2.0
"""Is it damage? What reading a checkpoint may raise, decided once for all processes."""

import contextlib
import gc
import inspect
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from fulcra_jax.training.record import OtherArchitecture

# Found by damaging a checkpoint byte by byte. Any other OSError, a lack of memory or
# another architecture is none.
DAMAGE = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    FileNotFoundError,
    NotADirectoryError,
)
"""What is missing, cut, empty or changed in a checkpoint shows as one of these."""

_PASSING = ("RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "UNAVAILABLE", "DEADLINE")
"""Reasons of tensorstore, which wraps all it has in ValueError, that are no damage."""


def attempt(work: Callable[[], Any]) -> tuple[Any, str]:
    """Does a part of reading; the same outcome on every process.

    A file may be damaged that one process reads and the others do not. Alone it would
    go on with the checkpoint before, and all would wait for each other for ever.

    Args:
      work: what to do. It must not wait for other processes before it may fail.

    Returns:
      What the work returned and "", or None and what is damaged.

    Raises:
      Exception: whatever is no damage.

    >>> attempt(lambda: 1)
    (1, '')
    >>> attempt(lambda: [1, 2][2])
    (None, 'list index out of range')
    """
    done, fault, reason, grade = None, None, "", 0
    try:
        done = work()
    except Exception as error:  # what is no damage is raised below, on all at once
        if _is_damage(error):
            reason, grade = line(_first(error)), 1
        else:
            fault, grade = error, 2
    if jax.process_count() > 1:
        grade = int(multihost_utils.process_allgather(np.int32(grade)).max())
    if grade == 2:
        raise fault or RuntimeError("checkpoint: another process could not read it.")
    if grade == 1:
        return None, reason or "another process cannot read its part"
    return done, ""


def line(error: BaseException) -> str:
    """The beginning of an error's message, in one line.

    >>> line(ValueError("this\\nand that"))
    'this and that'
    """
    return " ".join(f"{error!s:.160}".split()) or type(error).__name__


def _is_damage(error: Exception) -> bool:
    if isinstance(error, OtherArchitecture):
        return False
    first = _first(error)
    if any(word in str(first) for word in _PASSING):
        return False
    return isinstance(first, DAMAGE)


def _first(error: BaseException) -> BaseException:
    """Orbax raises a bare Exception for a leaf; what happened is its cause."""
    while type(error) is Exception and error.__cause__ is not None:
        error = error.__cause__
    return error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps pages of traces of the libraries from the terminal, inside the block.

    Orbax logs every error that it raises as well. And where reading one leaf fails, it
    leaves the reading of all others to itself, of which Python then tells for each.

    >>> with quiet():
    ...     pass
    """
    before = sys.unraisablehook

    def hook(found: Any) -> None:
        late = str(found.exc_value) == "Event loop is closed"
        if not late and not inspect.iscoroutine(found.object):
            before(found)

    def keep(logged: logging.LogRecord) -> bool:
        if logged.name == "asyncio":
            return "orbax" not in logged.getMessage()
        return not (logged.exc_info and "orbax" in logged.pathname)

    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    sys.unraisablehook = hook
    for logger in loggers:
        logger.addFilter(keep)
    try:
        yield
    finally:
        gc.collect()
        for logger in loggers:
            logger.removeFilter(keep)
        sys.unraisablehook = before
