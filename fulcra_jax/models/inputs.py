# SPDX-License-Identifier: Apache-2.0
"""What the encoder can read: batches, ids, position tables."""

from typing import Any

import numpy as np

from fulcra_jax import _check
from fulcra_jax.configs import DebertaConfig, EvaluatorConfig


def check_config(caller: str, config: Any, kind: type) -> None:
    """Raises ValueError if a configuration is not of the class that is needed."""
    if isinstance(config, kind):
        return
    hint = ""
    if kind is EvaluatorConfig and isinstance(config, DebertaConfig):
        hint = ", for instance EvaluatorConfig(config)"
    elif isinstance(config, EvaluatorConfig):
        hint = ", here config.encoder"
    raise ValueError(
        f"{caller}: config is of type {type(config).__name__}; it should be of type "
        f"{kind.__name__}{hint}."
    )


def check_ids(
    caller: str, config: DebertaConfig, input_ids: Any, token_type_ids: Any = None
) -> None:
    """Raises ValueError if an id or a token type is outside its table.

    While tracing nothing can be read and nothing is raised: the encoder gives NaN.

    Args:
      caller: the public name to blame.
      config: the encoder's.
      input_ids: ints of any shape.
      token_type_ids: ints of any shape, or None.
    """
    _check.inside(caller, "input_ids", input_ids, config.vocab_size)
    if token_type_ids is not None and config.type_vocab_size:
        _check.inside(caller, "token_type_ids", token_type_ids, config.type_vocab_size)


def check_inputs(
    caller: str,
    config: DebertaConfig,
    input_ids: Any,
    mask: Any,
    segment_ids: Any = None,
    token_type_ids: Any = None,
) -> dict[str, int]:
    """The sizes B and T of a batch that the encoder can read.

    Raises:
      ValueError: as `Deberta`.
    """
    for name, array in (("input_ids", input_ids), ("mask", mask)):
        if array is None:
            raise ValueError(f"{caller}: {name} is None; expected an array [B, T].")
    size = _check.shapes(
        caller,
        input_ids=(input_ids, "B T"),
        mask=(mask, "B T"),
        segment_ids=(segment_ids, "B T"),
        token_type_ids=(token_type_ids, "B T"),
    )
    if not size["B"] or not size["T"]:
        raise ValueError(
            f"{caller}: input_ids has shape {tuple(input_ids.shape)}; there should be "
            "a row and a token."
        )
    _check.integers(caller, "input_ids", input_ids)
    _check.integers(caller, "token_type_ids", token_type_ids)
    _check.segments(caller, segment_ids)
    _check.flags(caller, "mask", mask)
    _check.runs(caller, segment_ids, mask)
    check_ids(caller, config, input_ids, token_type_ids)
    return size


def check_tables(config: DebertaConfig, tables: Any) -> None:
    """Raises ValueError if they are not `position_tables` of this configuration."""
    count = len(tables) if isinstance(tables, tuple | list) else None
    if count != config.num_hidden_layers:
        found = type(tables).__name__ if count is None else f"of {count} layers"
        raise ValueError(
            f"deberta.Deberta: tables are {found}; expected what position_tables "
            f"returns, of {config.num_hidden_layers} layers."
        )
    H, K, rows = config.num_attention_heads, config.head_size, 2 * config.span
    for layer, pair in enumerate(tables):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ValueError(
                f"deberta.Deberta: tables of layer {layer} are {pair!r:.40}; expected "
                "position queries and position keys."
            )
        for term, table in zip(("p2c", "c2p"), pair, strict=True):
            needed = config.relative_attention and term in config.pos_att_type
            shape = None if table is None else tuple(np.shape(table))
            want = (H, rows, K) if needed else None
            if shape != want:
                raise ValueError(
                    f"deberta.Deberta: the {term} table of layer {layer} has shape "
                    f"{shape}; this configuration has {want}. Use its position_tables."
                )
