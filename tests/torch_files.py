# SPDX-License-Identifier: Apache-2.0
"""Files as torch.save writes them, and as nobody should, put together without torch."""

import io
import pickle
import struct
import zipfile

MAGIC = 0x1950A86A20F9469CFC6C
MACHINE = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
ITEM = {"FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8}


class Name:
    """A class or function by name: GLOBAL."""

    def __init__(self, module, name):
        self.line = f"c{module}\n{name}\n".encode()


class Call:
    """The result of a call: REDUCE."""

    def __init__(self, name, *args):
        self.name, self.args = name, args


class Persistent:
    """An object outside the pickle: BINPERSID."""

    def __init__(self, *identity):
        self.identity = identity


class Raw:
    """Instructions as they are."""

    def __init__(self, code):
        self.code = code


def code(item):
    """The instructions that put an object on the stack, without STOP."""
    match item:
        case Raw():
            return item.code
        case Name():
            return item.line
        case Call():
            return code(item.name) + code(item.args) + pickle.REDUCE
        case Persistent():
            return code(item.identity) + pickle.BINPERSID
        case dict():
            entries = b"".join(code(key) + code(item[key]) for key in item)
            return pickle.EMPTY_DICT + pickle.MARK + entries + pickle.SETITEMS
        case tuple():
            return pickle.MARK + b"".join(map(code, item)) + pickle.TUPLE
        case list():
            entries = b"".join(map(code, item))
            return pickle.EMPTY_LIST + pickle.MARK + entries + pickle.APPENDS
        case _:
            return pickle.dumps(item, protocol=2)[2:-1]


def dumped(item):
    """A whole pickle of protocol 2."""
    return pickle.PROTO + b"\x02" + code(item) + pickle.STOP


def storage(kind, key, numel, *view):
    """The persistent id of a storage."""
    return Persistent("storage", Name("torch", kind), key, "cpu", numel, *view)


def tensor(where, offset, shape, strides, function="_rebuild_tensor_v2", more=()):
    """A tensor over a storage."""
    hooks = Call(Name("collections", "OrderedDict"))
    name = Name("torch._utils", function)
    return Call(name, where, offset, shape, strides, False, hooks, *more)


def archive(found, data, *, more=(), compression=zipfile.ZIP_STORED):
    """A zip archive of an object, {key: bytes of a storage} and further entries."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as out:
        out.writestr("model/data.pkl", dumped(found))
        for name, entry in more:
            out.writestr(f"model/{name}", entry)
        for key, entry in data.items():
            out.writestr(f"model/data/{key}", entry)
    return file.getvalue()


def row(found, data, *, machine=MACHINE, magic=MAGIC, protocol=1001):
    """The layout before torch 1.6; `data` maps a key to (elements, bytes)."""
    parts = [dumped(item) for item in (magic, protocol, machine, found, list(data))]
    parts += [struct.pack("<q", numel) + raw for numel, raw in data.values()]
    return b"".join(parts)
