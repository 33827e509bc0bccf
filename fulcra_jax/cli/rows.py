# SPDX-License-Identifier: Apache-2.0
"""`fulcra rows`: what a file in FULCRA's format holds, and what is bad in it."""

import dataclasses
from collections import Counter
from typing import Annotated

import tyro

from fulcra_jax import values
from fulcra_jax.cli.files import check_new
from fulcra_jax.data import source
from fulcra_jax.data.rows import Policy, read_rows, write_rejects
from fulcra_jax.report import tables


@dataclasses.dataclass(frozen=True)
class Rows:
    """Reads a file in FULCRA's format and reports labels, conflicts and bad lines."""

    file: Annotated[str, tyro.conf.Positional]
    """The .jsonl file."""
    rejects: str = ""
    """Where to write the bad lines with their reasons; it must not exist."""
    conflict: str = "mask"
    """What becomes of a value with both signs; see fulcra_jax.data.Policy."""


def run(arguments: Rows) -> None:
    """Runs `fulcra rows`."""
    check_new(arguments.rejects, "--rejects")
    policy = Policy(conflict=arguments.conflict)  # pyright: ignore[reportArgumentType]
    found, rejects = read_rows(arguments.file, policy)
    labels, where = source.label_arrays(found)
    body = [
        [
            name,
            *(
                str(int((where[:, column] & (labels[:, column] == label)).sum()))
                for label in (-1, 0, 1)
            ),
            str(sum(bool(row.conflict[column]) for row in found)),
        ]
        for column, name in enumerate(values.BASIC)
    ]
    title = f"{arguments.file}: {len(found)} rows"
    tables.show((title, ["value", "-1", "0", "+1", "both signs"], body))
    sources = Counter(row.response_source for row in found)
    status = Counter(row.status for row in found)
    print("status:", ", ".join(f"{name} {n}" for name, n in status.items()))
    print(
        "responses by:", ", ".join(f"{name} {n}" for name, n in sources.most_common())
    )
    print(f"set aside: {len(rejects)}")
    for reject in rejects[:10]:
        print(f"  {reject}")
    if len(rejects) > 10:
        print(f"  ... and {len(rejects) - 10} more")
    if arguments.rejects:
        write_rejects(arguments.rejects, rejects)
    if not found:
        raise ValueError(
            f"{arguments.file}: no row could be read; the first is {rejects[0]}"
        )
