# SPDX-License-Identifier: Apache-2.0
"""Where each array lives on the mesh: one table, first match wins.

`jax.jit` with these shardings is what used to be called pjit.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

Rules = Sequence[tuple[str, PartitionSpec]]

REPLICATED: Rules = ((".*", PartitionSpec()),)
"""Data parallelism: every device holds all parameters and a share of the batch."""


def make_mesh(num_devices: int = 0) -> Mesh:
    """A mesh with the one axis "data".

    Args:
      num_devices: how many devices to use; 0 means all.

    Raises:
      ValueError: if there are fewer devices.
    """
    devices = jax.devices()
    if not 0 <= num_devices <= len(devices):
        raise ValueError(
            f"sharding.make_mesh: num_devices is {num_devices}; it should be in "
            f"[0, {len(devices)}], as there are {len(devices)} devices."
        )
    count = num_devices or len(devices)
    # Explicit axes, jax's default, break a sharded embedding lookup.
    return jax.make_mesh(
        (count,), ("data",), axis_types=(AxisType.Auto,), devices=devices[:count]
    )


def shardings(tree: Any, rules: Rules, mesh: Mesh) -> Any:
    """A sharding per leaf, from the first rule whose pattern matches the whole path.

    Args:
      tree: arrays or `jax.ShapeDtypeStruct`s.
      rules: (regular expression over "a/b/kernel", PartitionSpec), in order.
      mesh: the devices.

    Raises:
      ValueError: if a leaf matches no rule, or a sharded axis does not divide evenly.
    """

    def one(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for pattern, spec in rules:
            if re.fullmatch(pattern, name):
                _check_divides(name, leaf.shape, spec, mesh)
                return NamedSharding(mesh, spec)
        raise ValueError(f"sharding: no rule matches {name} of shape {leaf.shape}.")

    return jax.tree_util.tree_map_with_path(one, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch spread over the axis "data"."""
    return NamedSharding(mesh, PartitionSpec("data"))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises ValueError if the rows of a batch do not divide over the devices."""
    if batch_size % mesh.shape["data"]:
        raise ValueError(
            f"sharding: batch_size is {batch_size}, which is no multiple of the "
            f"{mesh.shape['data']} devices on the mesh axis 'data'."
        )


def _check_divides(name: str, shape: tuple[int, ...], spec: Any, mesh: Mesh) -> None:
    for n, axis in zip(shape, spec, strict=False):  # trailing axes are unsharded
        if axis is not None and n % mesh.shape[axis]:
            raise ValueError(
                f"sharding: {name} has {n} rows on mesh axis {axis!r} of size "
                f"{mesh.shape[axis]}; {n} is not a multiple."
            )
