# SPDX-License-Identifier: Apache-2.0
"""What is noted beside a state in a checkpoint: what it consists of, and its bits."""

import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from fulcra_jax.training.fingerprint import fingerprints, named


class OtherArchitecture(ValueError):
    """The checkpoint is whole, but not of this model."""


def write(state: Any, metrics: Mapping[str, float] | None) -> dict[str, Any]:
    """A record of a state, to be written as JSON.

    Args:
      state: arrays; with several processes all of them have to call this.
      metrics: figures of the state, or None.

    >>> write({"a": jnp.zeros(2)}, None)["leaves"]
    {'a': ['float32 of shape (2,)', 804215951]}
    """
    numbers = fingerprints(state)
    record = {
        "leaves": {name: [kind, numbers[name]] for name, kind in kinds(state).items()},
        "metrics": None if metrics is None else dict(metrics),
    }
    return {**record, "crc32": _crc32(record)}


def read(text: bytes) -> dict[str, Any]:
    """A record that was written as JSON.

    Raises:
      ValueError: if it is not what was written. `LookupError` and `TypeError` as well.
    """
    record = json.loads(text)
    if record["crc32"] != _crc32(record):
        raise ValueError("its record is not what was saved")
    return record


def kinds(tree: Any) -> dict[str, str]:
    """Dtype and shape of every leaf, in words.

    >>> kinds({"a": jnp.zeros((2, 3))})
    {'a': 'float32 of shape (2, 3)'}
    """
    return {
        name: f"{np.dtype(leaf.dtype).name} of shape {tuple(leaf.shape)}"
        for name, leaf in named(tree).items()
    }


def check_kinds(here: Mapping[str, str], there: Mapping[str, str], where: str) -> None:
    """Raises OtherArchitecture with the first leaf that differs.

    Args:
      here: the leaves that are wanted.
      there: those of the checkpoint.
      where: what checkpoint it is, in words.
    """
    for name in sorted(here.keys() | there.keys()):
        want, held = here.get(name, "missing"), there.get(name, "missing")
        if want != held:
            raise OtherArchitecture(
                f"checkpoint: {where} is of another architecture: {name} is {held} "
                f"there, and {want} in this configuration."
            )


def check_bits(state: Any, leaves: Mapping[str, Any]) -> None:
    """Raises ValueError with the first leaf that is not what was saved.

    Args:
      state: what was read, on any mesh.
      leaves: those of the record.
    """
    for name, number in fingerprints(state).items():
        if number != leaves[name][1]:
            raise ValueError(f"{name} is not what was saved")


def _crc32(record: Mapping[str, Any]) -> int:
    noted = {name: record[name] for name in ("leaves", "metrics")}
    return zlib.crc32(json.dumps(noted, sort_keys=True).encode())
