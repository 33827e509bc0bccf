# SPDX-License-Identifier: Apache-2.0
"""Where each array lives on the mesh: ordered tables, first match wins.

`jax.jit` with these shardings is what used to be called pjit. A model holds no sharding
code; a head whose layers are named as those here needs no row of its own.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXES = ("data", "fsdp", "tensor")
Rules = Sequence[tuple[str, P]]

REPLICATED: Rules = ((".*", P()),)
"""Every device holds the whole tree."""

# Kernels are [in, out]. "tensor" splits heads and the inner width of the MLP, and what
# follows splits its input, so that a layer needs two sums over devices; "fsdp" splits
# the other axis. Tables are split over their width: 128,100 pieces divide by no 8.
ENCODER: Rules = (
    (r"encoder/(.*/)?embedding", P(None, "fsdp")),
    (r"encoder/embeddings/project/kernel", P(None, "fsdp")),
    (r"encoder/conv/kernel", P(None, None, "fsdp")),
    (r"encoder/.*/attention/output/kernel", P("tensor", "fsdp")),
    (r"encoder/.*/attention/\w+/kernel", P("fsdp", "tensor")),
    (r"encoder/.*/up/kernel", P("fsdp", "tensor")),
    (r"encoder/.*/down/kernel", P("tensor", "fsdp")),
    (r"encoder/.*/attention/output/bias", P()),
    (r"encoder/.*/(attention/\w+|up)/bias", P("tensor")),
    (r"encoder/.*(bias|scale)", P()),
)
HEADS: Rules = (
    (r"head/\w+/kernel", P("fsdp", None)),
    (r"head/.*", P()),
)
# Of adapters a is [in, r] and b [r, out]: split as their kernel is, the rank never.
LORA: Rules = (
    (r"lora/.*/(attention/output|down)/kernel/a", P("tensor", None)),
    (r"lora/.*/(attention/output|down)/kernel/b", P(None, "fsdp")),
    (r"lora/.*/(attention/\w+|up)/kernel/a", P("fsdp", None)),
    (r"lora/.*/(attention/\w+|up)/kernel/b", P(None, "tensor")),
    (r"lora/.*", P()),
)
PARAMS: Rules = (*LORA, *ENCODER, *HEADS)
"""The parameters of an evaluator, with adapters where it has them."""

# Moments and the average lie where their parameter does; counters everywhere.
STATE: Rules = (
    *((f"(.*/)?{pattern}", spec) for pattern, spec in PARAMS),
    (r"step|(.*/)?count", P()),
)
"""A training state: the paths of the parameters with something in front."""


@dataclasses.dataclass(frozen=True)
class MeshShape:
    """How the devices are spread over three axes; their product is used.

    Rows of a batch are split over "data" and "fsdp", parameters and optimizer state
    over "fsdp" and "tensor".
    """

    data: int = 0
    """Copies of the model; 0 takes all devices that the others leave."""
    fsdp: int = 1
    """Parts that parameters and optimizer state are stored in; gathered when used."""
    tensor: int = 1
    """Parts that the heads and the MLP of every layer are computed in."""

    def __post_init__(self) -> None:
        for axis, low in (("data", 0), ("fsdp", 1), ("tensor", 1)):
            size = getattr(self, axis)
            if not isinstance(size, int) or not low <= size <= 2**20:
                raise ValueError(
                    f"sharding.MeshShape: {axis} is {size!r}; it should be an integer "
                    f"of at least {low}."
                )


def make_mesh(shape: MeshShape | int = MeshShape()) -> Mesh:
    """A mesh with the axes "data", "fsdp" and "tensor".

    Args:
      shape: sizes of the axes; a number n is short for n copies, 0 for all devices.

    Returns:
      The mesh; with fewer devices than there are, over the first.

    Raises:
      ValueError: if there are fewer devices, they do not divide, or there are several
        hosts and not all their devices are used.
    """
    if isinstance(shape, int):
        shape = MeshShape(data=shape)
    devices = jax.devices()
    inner = shape.fsdp * shape.tensor
    data = shape.data or len(devices) // inner
    wanted = f"a mesh of data {shape.data or 'all'} x fsdp {shape.fsdp} x tensor "
    wanted += f"{shape.tensor}"
    if shape.data == 0 and len(devices) % inner:
        raise ValueError(
            f"sharding.make_mesh: {wanted} does not fit on {len(devices)} devices: "
            f"fsdp x tensor is {inner}, which should divide them."
        )
    count = data * inner
    if count > len(devices):
        raise ValueError(
            f"sharding.make_mesh: {wanted} needs {count} devices; there are "
            f"{len(devices)}."
        )
    if count < len(devices) and jax.process_count() > 1:
        raise ValueError(
            f"sharding.make_mesh: {wanted} needs {count} devices, but "
            f"{jax.process_count()} hosts have {len(devices)}; all should be used."
        )
    # Explicit axes, jax's default, break a sharded embedding lookup.
    return jax.make_mesh(
        (data, shape.fsdp, shape.tensor),
        AXES,
        axis_types=(AxisType.Auto,) * 3,
        devices=devices[:count],
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
        raise ValueError(
            f"sharding.shardings: no rule matches {name} of shape {leaf.shape}; each "
            "leaf needs one."
        )

    return jax.tree_util.tree_map_with_path(one, tree)


def abstract(tree: Any, places: Any) -> Any:
    """The tree of `jax.ShapeDtypeStruct`s with shardings, which a restore is told."""
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=place
        ),
        tree,
        places,
    )


def used(params: Any, places: Any) -> Any:
    """Parameters as a step computes with them: gathered from the axis "fsdp".

    Without it, the compiler may move activations, which are larger, in place of
    parameters. Their gradient takes the way back.

    Args:
      params: the tree, inside of `jax.jit`.
      places: shardings of that tree.
    """

    def gathered(place: NamedSharding) -> NamedSharding:
        spec = P(*(None if axis == "fsdp" else axis for axis in place.spec))
        return NamedSharding(place.mesh, spec)

    return jax.lax.with_sharding_constraint(params, jax.tree.map(gathered, places))


def bytes_per_device(tree: Any, places: Any) -> int:
    """The most bytes that one device holds of a tree with these shardings."""
    return sum(
        math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf, place in zip(
            jax.tree.leaves(tree), jax.tree.leaves(places), strict=True
        )
    )


def place_params(leaves: Any, places: Any) -> Any:
    """Arrays of the host on the mesh: each device is sent its own part and no more."""
    return jax.tree.map(
        lambda leaf, place: jax.make_array_from_callback(
            leaf.shape, place, lambda index: leaf[index]
        ),
        leaves,
        places,
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch spread over the axes "data" and "fsdp"."""
    return NamedSharding(mesh, P(AXES[:2]))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, P())


def row_parts(mesh: Mesh) -> int:
    """Into how many parts the rows of a batch are split."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def host_rows(batch_size: int, mesh: Mesh) -> np.ndarray:
    """`[b]` int: the rows of a global batch that devices of this process hold."""
    indices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    numbers = np.arange(batch_size)
    return np.unique(np.concatenate([numbers[i] for i in indices.values() if i]))


def place_batch(
    batch: Mapping[str, np.ndarray], batch_size: int, mesh: Mesh
) -> dict[str, jax.Array]:
    """A batch on the mesh, from this process's rows of it.

    Args:
      batch: arrays `[b, ...]` of the rows that `host_rows` names.
      batch_size: rows of the global batch.
      mesh: the devices.

    Returns:
      Arrays `[batch_size, ...]`, their rows sharded.
    """
    place = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(
            place, array, (batch_size, *array.shape[1:])
        )
        for name, array in batch.items()
    }


def check_batch_size(batch_size: int, mesh: Mesh, accumulate: int = 1) -> None:
    """Raises ValueError if the rows of a batch do not divide over the devices."""
    parts = row_parts(mesh)
    if batch_size % (parts * accumulate):
        steps = f" and the {accumulate} parts of a step" if accumulate > 1 else ""
        raise ValueError(
            f"sharding.check_batch_size: batch_size is {batch_size}, which is no "
            f"multiple of the {parts} devices on the mesh axes 'data' and 'fsdp'"
            f"{steps}."
        )


def check_heads(heads: int, mesh: Mesh) -> None:
    """Raises ValueError if attention heads do not divide over the axis "tensor"."""
    if heads % mesh.shape["tensor"]:
        raise ValueError(
            f"sharding.check_heads: the encoder has {heads} attention heads, which is "
            f"no multiple of the {mesh.shape['tensor']} devices on the mesh axis "
            "'tensor'."
        )


def _check_divides(name: str, shape: tuple[int, ...], spec: Any, mesh: Mesh) -> None:
    if len(spec) > len(shape):
        raise ValueError(
            f"sharding.shardings: {name} has shape {shape}, but its rule names "
            f"{len(spec)} axes."
        )
    for n, axis in zip(shape, spec, strict=False):  # trailing axes are unsharded
        axes = axis if isinstance(axis, tuple) else (axis,)
        size = math.prod(mesh.shape[one] for one in axes if one is not None)
        if n % size:
            raise ValueError(
                f"sharding.shardings: {name} has {n} rows on mesh axis {axis!r} of "
                f"size {size}; {n} is not a multiple."
            )
