# SPDX-License-Identifier: Apache-2.0
"""Rows in FULCRA's format: reading, splitting, tokenising, batching.

`Fulcra`, the TFDS builder, is imported when it is first asked for: TFDS loads slowly,
and reading a file needs none of it. The tokenizer is `fulcra_jax.data.tokenizer`.
"""

from typing import TYPE_CHECKING, Any

from fulcra_jax.data.rows import Policy as Policy
from fulcra_jax.data.rows import Reject as Reject
from fulcra_jax.data.rows import Row as Row
from fulcra_jax.data.rows import read_rows as read_rows
from fulcra_jax.data.rows import write_rejects as write_rejects
from fulcra_jax.data.source import Corpus as Corpus
from fulcra_jax.data.source import Embedded as Embedded
from fulcra_jax.data.source import Folder as Folder
from fulcra_jax.data.source import Release as Release
from fulcra_jax.data.source import read_folder as read_folder
from fulcra_jax.data.source import sample_rows as sample_rows

if TYPE_CHECKING:
    from fulcra_jax.data.fulcra import Fulcra as Fulcra


def __getattr__(name: str) -> Any:
    """The one late name; see the docstring of the module."""
    if name == "Fulcra":
        from fulcra_jax.data.fulcra import Fulcra

        return Fulcra
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
