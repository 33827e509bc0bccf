# SPDX-License-Identifier: Apache-2.0
"""What the names in a torch file stand for: records that say where tensors lie."""

import dataclasses
from typing import Any

_MOST_DIMENSIONS = 32
_MOST = (1 << 63) - 1

STORAGES = {
    "torch.FloatStorage": "<f4",
    "torch.HalfStorage": "<f2",
    "torch.BFloat16Storage": "bfloat16",
    "torch.DoubleStorage": "<f8",
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2",
    "torch.CharStorage": "<i1",
    "torch.ByteStorage": "<u1",
    "torch.BoolStorage": "bool",
}
_ORDERED = "collections.OrderedDict"
_TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
_PARAMETERS = (
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
)
_KNOWN = {_ORDERED, *_TENSORS, *_PARAMETERS, *STORAGES}


class Refused(ValueError):
    """What is wrong with a file, as the rest of a sentence that begins with its name.

    >>> print(Refused("is empty"))
    is empty
    """


class Foreign(Refused):
    """The file names a class or function that makes no tensor.

    >>> isinstance(Foreign("asks for the global posix.system"), Refused)
    True
    """


@dataclasses.dataclass(frozen=True)
class Storage:
    """A run of numbers somewhere in the file.

    Attributes:
      dtype: of its elements: numpy's letters, "bool" or "bfloat16".
      key: its name in the file.
      numel: how many elements it has.
      start: the first element that a view of it shows; 0 without a view.
      count: how many elements the view shows; `numel` without a view.
    """

    dtype: str
    key: str
    numel: int
    start: int
    count: int


@dataclasses.dataclass(frozen=True)
class Tensor:
    """Which elements of a storage make a tensor.

    Attributes:
      storage: where its elements lie.
      offset: its first element, counted from the beginning of the storage's view.
      shape: its shape.
      strides: in elements.
      extent: how many elements of the storage lie between its first and its last, both
        included; 0 for a tensor without elements.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    extent: int


@dataclasses.dataclass(frozen=True)
class Name:
    """A class or function that a file names; never looked up.

    Attributes:
      text: the module and the name in it, with a point between.
    """

    text: str


def shown(text: str) -> str:
    """A name out of a file, safe to print: short, without control characters.

    >>> print(shown("a" + chr(10) + "b"))
    a\\nb
    """
    return ascii(text[:100])[1:-1][:100]


def named(module: str, name: str) -> Name:
    """The name of a class or function, if a state dict may ask for it.

    Raises:
      Foreign: if it is another.

    >>> named("torch", "HalfStorage")
    Name(text='torch.HalfStorage')
    """
    text = f"{module}.{name}"
    if text not in _KNOWN:
        raise Foreign(
            f"asks for the global {shown(text)}; only tensors can be read; nothing of "
            "it was run. If the file is yours, save the model's state_dict() instead"
        )
    return Name(text)


def made(name: Any, args: Any) -> Any:
    """What stands for the result of calling a known name.

    Args:
      name: the `Name` called.
      args: its arguments.

    Returns:
      An empty dict for an OrderedDict, a `Tensor` for a tensor or a parameter.

    Raises:
      Refused: if it is none of these, or the tensor reaches beyond its storage.

    >>> made(named("collections", "OrderedDict"), ())
    {}
    """
    text = name.text if isinstance(name, Name) else ""
    if not isinstance(args, tuple):
        raise Refused("is damaged: arguments in its pickle are no tuple")
    if text == _ORDERED:
        if args:  # Python 2 gave the items here.
            raise Refused("has an OrderedDict that is not made empty and then filled")
        return {}
    if text in _TENSORS:
        return _tensor(args)
    if text in _PARAMETERS and args and isinstance(args[0], Tensor):
        return args[0]
    raise Refused("is damaged: its pickle calls what makes no tensor")


def storage_of(identity: Any) -> Storage:
    """The storage that a persistent id describes.

    Args:
      identity: ("storage", kind, key, device, elements) and perhaps a view, which is
        None or (key, start, elements).

    Raises:
      Refused: if it is no such description, or the view is larger than the storage.

    >>> storage_of(("storage", named("torch", "HalfStorage"), "0", "cpu", 12)).dtype
    '<f2'
    """
    damaged = Refused("is damaged: a storage in its pickle is not described as one")
    if not isinstance(identity, tuple) or len(identity) not in (5, 6):
        raise damaged
    word, kind, key, _, numel, *rest = identity
    view = rest[0] if rest else None
    if not isinstance(kind, Name) or kind.text not in STORAGES:
        raise damaged
    if not isinstance(word, str) or word != "storage" or not isinstance(key, str):
        raise damaged
    if not _is_count(numel):
        raise damaged
    start, count = 0, numel
    if view is not None:
        if not isinstance(view, tuple) or len(view) != 3:
            raise damaged
        start, count = view[1:]
        if not _is_count(start) or not _is_count(count) or start + count > numel:
            raise Refused(
                f"has a view beyond the end of the storage {shown(key)}, which has "
                f"{numel} elements"
            )
    return Storage(STORAGES[kind.text], key, numel, start, count)


def state_dict(found: Any) -> dict[str, Tensor]:
    """The object in a file, if it is a dict of tensors.

    Raises:
      Refused: if it is anything else.

    >>> state_dict({})
    {}
    """
    if not isinstance(found, dict):
        raise Refused(f"holds {_a(found)}, not the dict of tensors of a state_dict()")
    for name, tensor in found.items():
        if not name.isprintable():
            raise Refused(f"has a tensor of the unprintable name '{shown(name)}'")
        if not isinstance(tensor, Tensor):
            raise Refused(
                f"holds {_a(tensor)} under '{shown(name)}', not a tensor; only a "
                "state_dict() can be read, not what else a training run saves"
            )
    return found


def _a(found: Any) -> str:
    return f"an object of type {type(found).__name__}"


def _tensor(args: tuple[Any, ...]) -> Tensor:
    """From (storage, offset, shape, strides, gradient, hooks, metadata)."""
    if len(args) < 4 or not isinstance(args[0], Storage):
        raise Refused("is damaged: a tensor in its pickle has no storage")
    storage, offset, shape, strides = args[:4]
    if args[6:] and args[6] is not None and args[6] != {}:
        what = ", ".join(map(shown, args[6])) if isinstance(args[6], dict) else "odd"
        raise Refused(
            f"has a tensor with metadata ({what}), which change its numbers; call its "
            "resolve_neg() or resolve_conj() before saving"
        )
    for axes in (shape, strides):
        if not isinstance(axes, tuple) or not all(_is_count(axis) for axis in axes):
            raise Refused("has a tensor whose shape or strides are no counts")
    if len(shape) != len(strides) or len(shape) > _MOST_DIMENSIONS:
        raise Refused(f"has a tensor of {len(shape)} axes and {len(strides)} strides")
    if not _is_count(offset):
        raise Refused("has a tensor whose offset is no count")
    elements, outline = 1, 1
    for size in shape:
        elements *= size
        outline *= max(size, 1)
    if not elements:
        # Its offset may lie anywhere; but numpy counts the other axes as well.
        if outline > _MOST // 16:
            raise Refused(f"has an empty tensor of the impossible shape {shape}")
        return Tensor(storage, 0, shape, strides, 0)
    # The stride of an axis of one is never used and may be any number.
    strides = tuple(s if n > 1 else 0 for n, s in zip(shape, strides, strict=True))
    extent = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    # The second: a stride of 0 makes a small storage look like a huge tensor.
    if offset + extent > storage.count or elements > storage.count:
        raise Refused(
            f"has a tensor of shape {shape} that reaches beyond its storage "
            f"{shown(storage.key)}, which has {storage.count} elements"
        )
    return Tensor(storage, offset, shape, strides, extent)


def _is_count(number: Any) -> bool:
    return type(number) is int and 0 <= number <= _MOST
