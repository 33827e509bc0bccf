# SPDX-License-Identifier: Apache-2.0
"""The pickles inside a torch file, read as data.

A pickle is a program. This is an interpreter of the few instructions that a state dict
needs; it never imports, calls or builds anything that the file names: a tensor becomes
a `Tensor`, which says where its elements lie, and every other name is refused. The
standard library's unpickler is not used, with its `find_class` restricted or not,
because a hostile file can make it fill memory (an index into the memo) or crash the
process (a deep tuple as a key) before any name is looked up.
"""

import dataclasses
import pickle
import struct
from typing import Any

from fulcra_jax.convert.torch_parts import (
    Refused,
    Storage,
    made,
    named,
    shown,
    storage_of,
)

LIMIT = 1 << 22
"""Most bytes of a pickle; a state dict takes about 150 for each tensor."""
_STEPS = 1 << 20

# Instructions followed by one number, or by a length and as many bytes of text.
_NUMBER = {
    pickle.PROTO: "<B",
    pickle.FRAME: "<Q",
    pickle.BININT: "<i",
    pickle.BININT1: "<B",
    pickle.BININT2: "<H",
    pickle.BINFLOAT: ">d",
    pickle.BINPUT: "<B",
    pickle.LONG_BINPUT: "<I",
    pickle.BINGET: "<B",
    pickle.LONG_BINGET: "<I",
}
_TEXT = {
    pickle.SHORT_BINUNICODE: "<B",
    pickle.BINUNICODE: "<I",
    pickle.BINUNICODE8: "<Q",
    pickle.LONG1: "<B",
}
_CONSTANT = {
    pickle.NONE: None,
    pickle.NEWTRUE: True,
    pickle.NEWFALSE: False,
    pickle.EMPTY_TUPLE: (),
}
_TUPLES = {pickle.TUPLE1: 1, pickle.TUPLE2: 2, pickle.TUPLE3: 3}


@dataclasses.dataclass(frozen=True)
class Pickle:
    """What one pickle holds.

    Attributes:
      found: the object: text, numbers, tuples, lists, dicts and `Tensor`.
      end: where the pickle ends in the bytes given.
      storages: every storage it mentions, the first mention of each key; later ones
        differ in their views only.
    """

    found: Any
    end: int
    storages: dict[str, Storage]


def read(data: bytes) -> Pickle:
    """Reads the pickle at the beginning of some bytes without running it.

    Args:
      data: the pickle, and perhaps more after it.

    Returns:
      What it holds, and where it ends.

    Raises:
      Refused: if it is damaged, names anything but the parts of tensors, or describes a
        tensor that its storage cannot hold.

    >>> import pickle
    >>> read(pickle.dumps({"epoch": 3}, protocol=2) + b"more").found
    {'epoch': 3}
    """
    return _Reader(data[:LIMIT]).read()


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stacks under the open marks
        self._memo: dict[int, Any] = {}
        self._storages: dict[str, Storage] = {}

    def read(self) -> Pickle:
        for _ in range(_STEPS):
            code = self._bytes(1)
            if code == pickle.STOP:
                return Pickle(self._pop(), self._at, self._storages)
            self._step(code)
        raise Refused(f"holds a pickle of more than {_STEPS} instructions")

    def _step(self, code: bytes) -> None:
        stack = self._stack
        if code in _NUMBER:
            self._number(code, *struct.unpack(*self._field(_NUMBER[code])))
        elif code in _TEXT:
            stack.append(self._text(code))
        elif code in _CONSTANT:
            stack.append(_CONSTANT[code])
        elif code in _TUPLES:
            items = [self._pop() for _ in range(_TUPLES[code])]
            stack.append(tuple(reversed(items)))
        elif code == pickle.EMPTY_DICT:
            stack.append({})
        elif code == pickle.EMPTY_LIST:
            stack.append([])
        elif code == pickle.MARK:
            self._below.append(stack)
            self._stack = []
        elif code == pickle.MEMOIZE:
            self._memo[len(self._memo)] = self._top()
        else:
            self._build(code)

    def _build(self, code: bytes) -> None:
        match code:
            case pickle.TUPLE:
                self._push(tuple(self._marked()))
            case pickle.APPEND:
                self._extend([self._pop()])
            case pickle.APPENDS:
                self._extend(self._marked())
            case pickle.SETITEM:
                entry = [self._pop(), self._pop()]
                self._update(entry[::-1])
            case pickle.SETITEMS:
                self._update(self._marked())
            case pickle.GLOBAL:
                self._push(named(self._line(), self._line()))
            case pickle.STACK_GLOBAL:
                name, module = self._pop(), self._pop()
                if not isinstance(module, str) or not isinstance(name, str):
                    raise Refused("is damaged: a name in its pickle is no text")
                self._push(named(module, name))
            case pickle.REDUCE:
                args, name = self._pop(), self._pop()
                self._push(made(name, args))
            case pickle.BINPERSID:
                storage = storage_of(self._pop())
                self._keep(storage)
                self._push(storage)
            case pickle.BUILD:
                # An OrderedDict's own attributes: `_metadata`, the versions of modules.
                self._pop()
                if not isinstance(self._top(), dict):
                    raise Refused("gives attributes to what is no dict")
            case _:
                raise Refused(
                    f"uses the pickle instruction {code!r} (byte {self._at - 1}), "
                    "which no state_dict() needs"
                )

    def _keep(self, storage: Storage) -> None:
        first = self._storages.setdefault(storage.key, storage)
        if (first.dtype, first.numel) != (storage.dtype, storage.numel):
            raise Refused(
                f"is damaged: the storage {shown(storage.key)} has {first.numel} "
                f"elements of {first.dtype} in one place and {storage.numel} of "
                f"{storage.dtype} in another"
            )

    def _number(self, code: bytes, number: Any) -> None:
        match code:
            case pickle.PROTO:
                if number > pickle.HIGHEST_PROTOCOL:
                    raise Refused(f"holds a pickle of the unknown protocol {number}")
            case pickle.FRAME:
                pass  # Only a hint of how much to read at once.
            case pickle.BINPUT | pickle.LONG_BINPUT:
                self._memo[number] = self._top()
            case pickle.BINGET | pickle.LONG_BINGET:
                if number not in self._memo:
                    raise Refused("is damaged: its pickle recalls what it never kept")
                self._push(self._memo[number])
            case _:
                self._push(number)

    def _text(self, code: bytes) -> str | int:
        (length,) = struct.unpack(*self._field(_TEXT[code]))
        raw = self._bytes(length)
        if code == pickle.LONG1:
            return int.from_bytes(raw, "little", signed=True)
        return _decoded(raw)

    def _field(self, form: str) -> tuple[str, bytes]:
        return form, self._bytes(struct.calcsize(form))

    def _bytes(self, count: int) -> bytes:
        found = self._data[self._at : self._at + count]
        self._at += count
        if len(found) < count:
            if len(self._data) == LIMIT:
                raise Refused(f"holds a pickle of more than {LIMIT} bytes")
            raise Refused("is cut off or damaged: a pickle in it has no end")
        return found

    def _line(self) -> str:
        end = self._data.find(b"\n", self._at, self._at + 1000)
        if end < 0:
            raise Refused("is damaged: a name in its pickle has no end")
        return _decoded(self._bytes(end + 1 - self._at)[:-1])

    def _push(self, item: Any) -> None:
        self._stack.append(item)

    def _top(self) -> Any:
        if not self._stack:
            raise Refused("is damaged: its pickle takes more than it has put")
        return self._stack[-1]

    def _pop(self) -> Any:
        self._top()
        return self._stack.pop()

    def _marked(self) -> list[Any]:
        if not self._below:
            raise Refused("is damaged: its pickle closes what it never opened")
        items, self._stack = self._stack, self._below.pop()
        return items

    def _extend(self, items: list[Any]) -> None:
        if not isinstance(self._top(), list):
            raise Refused("is damaged: its pickle appends to what is no list")
        self._stack[-1] += items

    def _update(self, items: list[Any]) -> None:
        if not isinstance(self._top(), dict) or len(items) % 2:
            raise Refused("is damaged: its pickle sets items of what is no dict")
        _set_items(self._stack[-1], zip(items[::2], items[1::2], strict=True))


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("is damaged: a text in its pickle is not UTF-8") from None


def _set_items(into: dict[Any, Any], items: Any) -> None:
    for key, item in items:
        # Other keys are never hashed: tuples may be nested without end, and integers
        # can be chosen to collide.
        if type(key) is not str:
            raise Refused(
                "has a dict with keys that are no texts, so it is no state_dict()"
            )
        into[key] = item
