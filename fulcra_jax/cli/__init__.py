# SPDX-License-Identifier: Apache-2.0
"""The `fulcra` command; thin: it parses, calls and prints (`command`)."""

import sys
from collections.abc import Sequence

from fulcra_jax import _extras


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    # Imported here: a command that lacks a package should say so in one line.
    try:
        from fulcra_jax.cli import command
    except ModuleNotFoundError as error:
        print(
            f"error: {_extras.missing('fulcra_jax.cli', 'cli', error)}",
            file=sys.stderr,
        )
        return 1
    return command.main(argv)
