# SPDX-License-Identifier: Apache-2.0
"""Rows in FULCRA's format: reading, splitting, tokenising, batching.

The TFDS builder stands in `fulcra_jax.data.fulcra` and the tokenizer in
`fulcra_jax.data.tokenizer`; neither is imported here, as both load slowly.
"""

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
