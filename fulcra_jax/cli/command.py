# SPDX-License-Identifier: Apache-2.0
"""Scores answers with a trained evaluator, and chooses among them by their scores.

fulcra score --run RUN --prompt "..." --response "..."   one response, with bars

fulcra score --run RUN --data FILE --out SCORES.jsonl    a file of them

fulcra evaluate --run RUN --data FILE                    how well it judges a file

fulcra rerank SCORES.jsonl --target ideal                the best answer to each prompt

fulcra pairs SCORES.jsonl --target ideal --out PAIRS.jsonl   preference pairs for DPO

fulcra rows FILE                                         what a file holds, what is bad
"""

import sys
from collections.abc import Sequence

import tyro

from fulcra_jax.cli import evaluate, pairs, rerank, rows, score

COMMANDS = {
    "score": score.Score,
    "evaluate": evaluate.Evaluate,
    "rerank": rerank.Rerank,
    "pairs": pairs.Pairs,
    "rows": rows.Rows,
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = tyro.extras.subcommand_cli_from_dict(
        COMMANDS, args=argv, prog="fulcra", description=__doc__
    )
    try:
        match arguments:
            case score.Score():
                score.run(arguments)
            case evaluate.Evaluate():
                evaluate.run(arguments)
            case rerank.Rerank():
                rerank.run(arguments)
            case pairs.Pairs():
                pairs.run(arguments)
            case _:
                rows.run(arguments)
    except (ValueError, KeyError, OSError, ModuleNotFoundError) as error:
        text = error.args[0] if isinstance(error, KeyError) else error
        print(f"error: {text}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0
