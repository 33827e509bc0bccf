# SPDX-License-Identifier: Apache-2.0
"""Definitions of values as token ids, for heads that read them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from fulcra_jax import values
from fulcra_jax.configs import Head, TokenHead
from fulcra_jax.data.tokenizer import PairTokenizer


def with_definitions(
    head: Head,
    tokenizer: PairTokenizer,
    definitions: Mapping[str, str] = values.DEFINITIONS,
) -> Head:
    """The head with the definitions that it reads, as token ids.

    Args:
      head: any; one that reads no definitions is returned as it is.
      tokenizer: the evaluator's.
      definitions: name of each value -> its definition; their number becomes the
        head's `num_values`. The encoder reads "Name: definition" between [CLS] and
        [SEP]; a `TokenHead` the first piece of the name.

    Returns:
      The head.

    Raises:
      ValueError: if a value has no definition, or the number of values cannot change.

    >>> from fulcra_jax.configs import QueryHead
    >>> told = PairTokenizer.train(["help"], vocab_size=300)
    >>> head = QueryHead(values="definition")
    >>> len(with_definitions(head, told, {"Thrift": "saving"}).definitions)
    1
    """
    if not head.reads_definitions:
        return head
    for name, text in definitions.items():
        if not isinstance(text, str) or not text.strip():
            raise ValueError(
                f"definitions: {name!r} has no definition; a "
                f"{type(head).__name__} judges a value by what it is said to be."
            )
    if not definitions:
        raise ValueError("definitions: there is no value; give one at least.")
    if isinstance(head, TokenHead):
        if len(definitions) != head.num_values:
            raise ValueError(
                f"definitions: there are {len(definitions)} values, but the TokenHead "
                f"has learned {head.num_values}; their number cannot change."
            )
        ids = [[pieces[0]] for pieces in tokenizer.pieces(list(definitions))]
    else:
        texts = [f"{name}: {text}" for name, text in definitions.items()]
        ids = [
            [tokenizer.start_id, *pieces, tokenizer.end_id]
            for pieces in tokenizer.pieces(texts)
        ]
    changed: Any = dataclasses.replace(
        head,
        num_values=len(ids),
        definitions=tuple(tuple(row) for row in ids),  # pyright: ignore[reportCallIssue]
    )
    return changed
