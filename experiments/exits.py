# SPDX-License-Identifier: Apache-2.0
"""How every script ends: one sentence for what went wrong, and an exit code."""

import sys
from collections.abc import Callable


class Interrupted(Exception):
    """Training stopped early, with a checkpoint to resume from."""


def exit_code(work: Callable[[], object]) -> int:
    """Runs a script's work: 0 when done, 1 on bad input, 130 when stopped by a signal.

    Errors of other kinds are mistakes of this project and keep their traceback.
    """
    try:
        work()
    except (ValueError, KeyError, OSError, FloatingPointError) as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        return 1
    except Interrupted as stopped:
        print(str(stopped), file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


def sentence(error: BaseException) -> str:
    """The message of an error in one line; KeyError would put it in quotes."""
    if isinstance(error, KeyError) and error.args:
        error = error.args[0]
    return " ".join(str(error).split())
