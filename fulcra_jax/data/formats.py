# SPDX-License-Identifier: Apache-2.0
"""Which format a file has."""

import json
import pathlib

from fulcra_jax.data.rows import lines_of

_SNIFFED = 20
"""Broken lines after which a file counts as unknown."""


def sniff(path: str | pathlib.Path) -> str:
    """The format of a file, judged by its name and its first line that is JSON.

    Returns:
      "fulcra", "official_scores" (prompt, answer, value_reward), "prompts" (prompt,
      safety_issues), "preferences" (chosen, rejected), "model_scores" (a table of value
      vectors of models), "valueeval" (a .tsv) or "unknown".

    Raises:
      FileNotFoundError: if there is no such file.
    """
    path = pathlib.Path(path)
    if path.suffix == ".tsv":
        return "valueeval" if path.is_file() else "unknown"
    if path.suffix not in (".jsonl", ".json"):
        return "unknown"
    seen = 0
    for seen, raw in lines_of(path):
        try:
            record = json.loads(raw)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            # A broken line says nothing; its reader names it.
            if seen >= _SNIFFED:
                break
            continue
        keys = set(record)
        for name, needed in (
            ("fulcra", {"dialogue"}),
            ("official_scores", {"prompt", "answer", "value_reward"}),
            ("preferences", {"chosen", "rejected"}),
            ("model_scores", {"data"}),
            ("prompts", {"prompt", "safety_issues"}),
        ):
            if needed <= keys:
                return name
        # A record that lacks its dialogue is FULCRA's if it has the labels.
        return "fulcra" if keys & {"value_types", "value_items"} else "unknown"
    return "unknown" if seen else "empty"
