# SPDX-License-Identifier: Apache-2.0
"""The `fulcra` command; thin: it parses, calls and prints.

fulcra score --run RUN --prompt "..." --response "..."   one response, with bars

fulcra score --run RUN --data FILE --out SCORES.jsonl    a file of them

fulcra rows FILE                                         what a file holds, what is bad
"""

import sys
from collections.abc import Sequence

import tyro

from fulcra_jax.cli import rows, score

COMMANDS = {"score": score.Score, "rows": rows.Rows}


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = tyro.extras.subcommand_cli_from_dict(
        COMMANDS, args=argv, prog="fulcra", description=__doc__
    )
    try:
        match arguments:
            case score.Score():
                score.run(arguments)
            case _:
                rows.run(arguments)
    except (ValueError, KeyError, OSError) as error:
        text = error.args[0] if isinstance(error, KeyError) else error
        print(f"error: {text}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0
