# SPDX-License-Identifier: Apache-2.0
"""JSON files."""

import json
import os
from pathlib import Path
from typing import Any

from fulcra_jax.configs._checks import cut


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """The object in a JSON file, or in the `config.json` of a directory.

    Raises:
      FileNotFoundError: if there is none.
      TypeError: if the path is no path.
      ValueError: if it is not a JSON object.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            f"configs: the path is {cut(path)}; it should be text or a Path."
        )
    file = Path(path)
    file = file / "config.json" if file.is_dir() else file
    if not file.is_file():
        raise FileNotFoundError(f"configs: there is no file {file}.")
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(f"configs: {file} is JSON nested too deeply.") from error
    except ValueError as error:
        raise ValueError(f"configs: {file} is not valid JSON: {error}.") from error
    if not isinstance(entries, dict):
        raise ValueError(f"configs: {file} holds no JSON object.")
    return entries
