# SPDX-License-Identifier: Apache-2.0
"""Which rows these are, as a number: for runs and decisions that must know theirs."""

import hashlib
from collections.abc import Sequence

from fulcra_jax.data.rows import Row


def fingerprint(rows: Sequence[Row], *, items: bool = False) -> str:
    """SHA-256 over texts, labels and a teacher's scores, in order.

    Args:
      rows: of a training.
      items: whether it trains on the items too, which then count.
    """
    digest = hashlib.sha256()
    for row in rows:
        for part in (row.prompt, row.response):
            digest.update(part.encode("utf-8", "backslashreplace") + b"\0")
        digest.update(row.labels.tobytes() + row.where.tobytes())
        if row.teacher is not None:
            digest.update(b"teacher" + row.teacher.tobytes())
        if items:
            digest.update(b"items" + row.items.tobytes() + row.items_where.tobytes())
    return digest.hexdigest()
