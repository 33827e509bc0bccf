# SPDX-License-Identifier: Apache-2.0
"""Aligns a language model to a target value vector and measures what changed.

python -m experiments.align toy                    three arms, three seeds

python -m experiments.align toy --target france    another target, by name

python -m experiments.align tunix --help           a language model of Tunix's zoo

python -m experiments.align tunix-compare RUN CONTROL    what the target itself did

The toy study needs three things that commands of their own make:

python -m experiments.pretrain_decoder --out runs/align/decoder

python -m experiments.train align-evaluator --run runs/align/evaluator

python -m experiments.train align-second --run runs/align/second
"""

import sys
from collections.abc import Sequence

import tyro

from experiments.align import study, tunix_report, tunix_run
from experiments.align.settings import Study
from experiments.align.tunix_settings import Arguments, Compare
from experiments.exits import exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = tyro.extras.subcommand_cli_from_dict(
        {"toy": Study, "tunix": Arguments, "tunix-compare": Compare},
        args=argv,
        prog="python -m experiments.align",
        description=__doc__,
    )

    def work() -> None:
        if isinstance(arguments, Study):
            study.run(arguments)
        elif isinstance(arguments, Compare):
            tunix_report.compare(arguments)
        else:
            tunix_run.run(arguments)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
