# SPDX-License-Identifier: BSD-2-Clause
"""What calls, results, errors and set-ups look like as bytes. Only Python programs read them: to
the broker and the workers they are opaque.

A call:    version 1, kind and flags (1 byte), length of the prefix (u16), [digest of modules],
           function (a pickle, or the digest of one), end of the prefix, body.
           The prefix is the same for all calls of a function, so children keep what it means.
A value:   a pickle (it begins with 0x80), or a record with buffers (0x02).
An error:  0x03 and the pickle of a tuple (see encode_error).

Body and records with buffers: count (u32), size of the pickle (u64), sizes of the buffers (u64
each), the pickle, the buffers, each at a multiple of 64 from the start of the whole. Integers are
little-endian. Buffers of at least OUT_OF_BAND_BYTES stay out of pickles (protocol 5), so that large
arrays and bytes are not copied into them.

This file is imported by every child: it needs nothing of hostpool's.
"""

from __future__ import annotations

import collections
import copyreg
import functools
import importlib
import io
import itertools
import os
import pickle
import struct
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any, Optional, Union

Payload = Union[bytes, tuple[Any, ...]]

VERSION = 1

# Kinds of a call.
APPLY = 0        # func(*body)
APPLY_KWDS = 1   # func(*body[0], **body[1])
MAP_ONE = 2      # func(body)
STAR_ONE = 3     # func(*body)
MAP_CHUNK = 4    # [func(x) for x in body]
STAR_CHUNK = 5   # [func(*x) for x in body]
KIND_MASK = 0x0F

BY_DIGEST = 0x10    # the function is content, named by its digest
HAS_BUFFERS = 0x20  # the body begins with a table of buffers
HAS_MODULES = 0x40  # the digest of a pickled dict of modules comes first
FRESH = 0x80        # the function is an object with state: unpickle it for each call

DIGEST_BYTES = 16
PREFIX_MAX_BYTES = 0xFFFF
OUT_OF_BAND_BYTES = 16384
ALIGNMENT = 64

RECORD_BUFFERS = 2
RECORD_ERROR = 3

_HEADER = struct.Struct("<BBH")
_TABLE = struct.Struct("<IQ")
_PADDING = bytes(ALIGNMENT)

# Types whose pickles cannot have buffers, whatever they hold.
_PLAIN = frozenset((int, float, bool, str, type(None), complex, range))


class Large:
    """Stands for large bytes, or a bytearray, in something pickled: keeps it out of the pickle."""

    __slots__ = ("kind", "data")

    def __init__(self, data: Union[bytes, bytearray]) -> None:
        self.kind = type(data)
        self.data = data

    def __reduce__(self) -> Any:
        return self.kind, (pickle.PickleBuffer(self.data),)


def _is_large(value: Any) -> bool:
    kind = type(value)
    return (kind is bytes or kind is bytearray) and len(value) >= OUT_OF_BAND_BYTES


def lift(value: Any) -> Any:
    """value with its large bytes, on its outer two levels, replaced by Large."""
    kind = type(value)
    if kind is bytes or kind is bytearray:
        return Large(value) if len(value) >= OUT_OF_BAND_BYTES else value
    if kind is tuple or kind is list:
        if len(value) > 4096 or not any(map(_is_large, value)):
            return value
        return kind([Large(item) if _is_large(item) else item for item in value])
    if kind is dict and len(value) <= 4096 and any(map(_is_large, value.values())):
        return {key: Large(item) if _is_large(item) else item for key, item in value.items()}
    return value


def _collector(buffers: list[Any], frozen: list[bool]) -> Callable[[pickle.PickleBuffer], bool]:
    """frozen: gets an item if an array may not be written to."""
    def collect(buffer: pickle.PickleBuffer) -> bool:
        try:
            raw = buffer.raw()
        except BufferError:  # not contiguous: pickle deals with it, or says so
            return True
        if raw.readonly and type(raw.obj) is not bytes and not frozen:
            frozen.append(True)
        if raw.nbytes < OUT_OF_BAND_BYTES:
            return True  # in the pickle
        buffers.append(raw)
        return False
    return collect


def dumps(value: Any, make: Optional[Callable[..., Any]] = None) -> tuple[bytes, list[Any]]:
    """The pickle of value and the buffers beside it. make: makes the pickler, for special ones."""
    buffers: list[Any] = []
    frozen: list[bool] = []
    collect = _collector(buffers, frozen)
    if make is None:
        data = pickle.dumps(lift(value), 5, buffer_callback=collect)
    else:
        file = io.BytesIO()
        make(file, 5, collect).dump(lift(value))
        data = file.getvalue()
    numpy = sys.modules.get("numpy")
    if frozen and numpy is not None:
        # With buffers beside it the pickle says that the copy may not be written to, either. As
        # multiprocessing pickles them, copies of arrays can always be written to.
        buffers.clear()
        file = io.BytesIO()
        pickler = (make or _make)(file, 5, collect)
        table = getattr(pickler, "dispatch_table", copyreg.dispatch_table)
        pickler.dispatch_table = collections.ChainMap({numpy.ndarray: _reduce_array}, table)
        pickler.dump(lift(value))
        data = file.getvalue()
    return data, buffers


def _make(file: Any, protocol: int, collect: Any) -> Any:
    return pickle.Pickler(file, protocol, buffer_callback=collect)


def _reduce_array(array: Any) -> Any:
    return array.__reduce_ex__(5 if array.flags.writeable else 4)


def join(head: bytes, data: bytes, buffers: Sequence[Any]) -> tuple[Any, ...]:
    """The pieces of something with buffers; head comes first."""
    table = _TABLE.pack(len(buffers), len(data)) + struct.pack(
        f"<{len(buffers)}Q", *(buffer.nbytes for buffer in buffers))
    pieces: list[Any] = [head + table + data]
    at = len(pieces[0])
    for buffer in buffers:
        padding = -at % ALIGNMENT
        if padding:
            pieces.append(_PADDING[:padding])
        pieces.append(buffer)
        at += padding + buffer.nbytes
    return tuple(pieces)


def split(data: Any, at: int) -> Any:
    """Unpickles what join made. at: size of the head. data: bytes-like; if it is writable, buffers
    are views of it; else those that were writable are copies."""
    view = memoryview(data).cast("B")
    count, size = _TABLE.unpack_from(view, at)
    at += _TABLE.size
    sizes = struct.unpack_from(f"<{count}Q", view, at)
    at += 8 * count
    pickled = view[at:at + size]
    at += size
    buffers: list[Any] = []
    for nbytes in sizes:
        at += -at % ALIGNMENT
        part = view[at:at + nbytes]
        if part.nbytes != nbytes:
            raise pickle.UnpicklingError("hostpool: a buffer is cut off")
        buffers.append(part if not view.readonly else bytearray(part))
        at += nbytes
    return pickle.loads(pickled, buffers=buffers)


# ---------------------------------------------------------------- values

def encode_value(value: Any, make: Optional[Callable[..., Any]] = None) -> Payload:
    """A value as bytes, or as pieces."""
    if make is None and type(value) in _PLAIN:
        return pickle.dumps(value, 5)
    data, buffers = dumps(value, make)
    return join(bytes((RECORD_BUFFERS,)), data, buffers) if buffers else data


def decode_value(data: Any) -> Any:
    """The value of encode_value's bytes."""
    kind = data[0] if type(data) is bytes else memoryview(data)[0]
    if kind == 0x80:
        return pickle.loads(data)
    if kind == RECORD_BUFFERS:
        return split(data, 1)
    raise pickle.UnpicklingError("hostpool: these bytes are no value")


# ---------------------------------------------------------------- errors

def encode_error(exc: BaseException, traceback_text: str, info: dict[str, Any]) -> bytes:
    """An exception with its traceback. info: host, node, attempt, pid, kind ("error" or "exit")."""
    kind = type(exc)
    facts = dict(info)
    facts["item"] = getattr(exc, "_hostpool_item", None)
    if isinstance(exc, SystemExit):
        facts["code"] = exc.code if isinstance(exc.code, (int, str, type(None))) else repr(exc.code)
    pickled: Optional[bytes] = None
    if isinstance(exc, Exception):
        try:
            exc.__dict__.pop("_hostpool_item", None)
            pickled = _dumps_result(exc)
        except BaseException:  # a __reduce__ may even exit, which would end the child here
            pickled = None
    try:
        text = str(exc)
    except BaseException:
        text = "(its text cannot be made)"
    name = f"{kind.__module__}.{kind.__qualname__}"
    record = (pickled, traceback_text, facts, name, text)
    try:
        return bytes((RECORD_ERROR,)) + pickle.dumps(record, 5)
    except Exception:
        plain = {key: str(value) for key, value in facts.items()}
        return bytes((RECORD_ERROR,)) + pickle.dumps((None, traceback_text, plain, name, text), 5)


def is_error(data: Any) -> bool:
    """Whether these bytes are of encode_error."""
    return bool(len(data)) and memoryview(data)[0] == RECORD_ERROR


def decode_error(data: Any) -> tuple[Any, str, dict[str, Any], str, str]:
    """(pickled exception or None, traceback, info, class name, text)."""
    record: tuple[Any, str, dict[str, Any], str, str] = pickle.loads(memoryview(data)[1:])
    return record


# ---------------------------------------------------------------- in the child: results

class _ResultPickler(pickle.Pickler):
    """Lets classes and functions that came by value be pickled by name: the client has them."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, (type, types.FunctionType)) and obj.__module__ == "__main__":
            name = obj.__qualname__
            main = sys.modules.get("__main__")
            if name.isidentifier() and main is not None and name != "<lambda>":
                setattr(main, name, obj)
        return NotImplemented


def _make_result_pickler(file: Any, protocol: int, callback: Any) -> pickle.Pickler:
    return _ResultPickler(file, protocol, buffer_callback=callback)


def _dumps_result(value: Any) -> bytes:
    try:
        return pickle.dumps(value, 5)
    except Exception:
        file = io.BytesIO()
        _ResultPickler(file, 5).dump(value)
        return file.getvalue()


def encode_result(value: Any) -> Payload:
    """What a call returned. Raises what pickle raises."""
    try:
        return encode_value(value)
    except Exception as error:
        try:
            return encode_value(value, _make_result_pickler)
        except Exception:
            raise error from None


# ---------------------------------------------------------------- in the child: calls

class _Cache:
    """What this child knows of calls' prefixes and of contents."""

    def __init__(self) -> None:
        self.content: Any = None
        self.functions: dict[bytes, Any] = {}
        self.objects: dict[bytes, Any] = {}
        self.modules: set[bytes] = set()
        self.mains: dict[bytes, _Main] = {}


_cache = _Cache()


def load_object(digest: bytes) -> Any:
    """The object whose bytes have this digest; loaded once in each child. Pickles refer to it."""
    try:
        return _cache.objects[digest]
    except KeyError:
        pass
    value = decode_value(_cache.content.fetch(digest))
    _cache.objects[digest] = value
    return value


def load_code(data: bytes) -> Any:
    """An object that was pickled by value. Pickles refer to it."""
    return pickle.loads(data)


def _load_prefix(prefix: bytes) -> tuple[Callable[[], Any], bool]:
    """(what gives the function, whether it may be kept)."""
    flags = prefix[1]
    at = _HEADER.size
    if flags & HAS_MODULES:
        digest = prefix[at:at + DIGEST_BYTES]
        at += DIGEST_BYTES
        if digest not in _cache.modules:
            _cache.content.add_modules(pickle.loads(_cache.content.fetch(digest)))
            _cache.modules.add(digest)
    token = prefix[at:]
    if not flags & BY_DIGEST:
        return functools.partial(decode_value, token), not flags & FRESH
    if flags & FRESH:
        return lambda: decode_value(_cache.content.fetch(token)), False
    return functools.partial(load_object, token), True


def _function_of(prefix: bytes) -> Callable[..., Any]:
    try:
        function, get = _cache.functions[prefix]
    except KeyError:
        get, is_kept = _load_prefix(prefix)
        function = get()
        if len(_cache.functions) >= 4096:
            _cache.functions.clear()
        _cache.functions[prefix] = (function, None) if is_kept else (None, get)
        result: Callable[..., Any] = function
        return result
    return function if get is None else get()  # type: ignore[no-any-return]


def _run_chunk(mapper: Callable[..., Any], function: Callable[..., Any], body: Any) -> list[Any]:
    items = iter(body)
    try:
        return list(mapper(function, items))
    except Exception as error:
        # Which item it was: the iterator knows how many are left.
        try:
            error._hostpool_item = (  # type: ignore[attr-defined]
                len(body) - items.__length_hint__() - 1)
        except Exception:
            pass
        raise


def decode_call(payload: Any, content: Any) -> Callable[[], Any]:
    """What runs the call; calling it returns the value, or raises the task's exception."""
    _cache.content = content
    if type(payload) is not bytes:
        payload = memoryview(payload)
    version, flags, size = _HEADER.unpack_from(payload)
    if version != VERSION:
        raise pickle.UnpicklingError(
            f"hostpool: calls of version {version}; this worker's hostpool knows {VERSION}")
    function = _function_of(bytes(payload[:size]))
    if flags & HAS_BUFFERS:
        body = split(payload, size)
    else:
        body = pickle.loads(payload[size:])
    kind = flags & KIND_MASK
    if kind == APPLY:
        return functools.partial(function, *body)
    if kind == MAP_ONE:
        return functools.partial(function, body)
    if kind == APPLY_KWDS:
        return functools.partial(function, *body[0], **body[1])
    if kind == STAR_ONE:
        return functools.partial(function, *body)
    if kind == MAP_CHUNK:
        return functools.partial(_run_chunk, map, function, body)
    if kind == STAR_CHUNK:
        return functools.partial(_run_chunk, itertools.starmap, function, body)
    raise pickle.UnpicklingError(f"hostpool: calls of kind {kind} are not known here")


# ---------------------------------------------------------------- in the child: code by value

class _Main:
    """The globals of a program whose functions came by value. They share them, as they do in the
    program: what the initializer sets is seen by all of them."""

    __slots__ = ("names", "sent")

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names
        # What the client sent last: its mark there, and the value here.
        self.sent: dict[str, tuple[Any, Any]] = {}

    def is_kept(self, name: str, value: Any, mark: Any) -> bool:
        """Whether the child's own value stays: the client's is not new, or has been replaced."""
        if name not in self.names:
            return False
        own = self.names[name]
        if name in self.sent:
            return self.sent[name][0] == mark or own is not self.sent[name][1]
        # A class or function may be here because a result named it.
        return not (isinstance(own, _CODE) and isinstance(value, _CODE))


_CODE = (type, types.FunctionType)


def main_key() -> Any:
    """Names the program this child runs code of; None: of none so far."""
    return next(iter(_cache.mains), None)


def main_globals(key: bytes, facts: dict[str, Any]) -> dict[str, Any]:
    """The globals of this program's functions. Pickles refer to it. The first program's are those
    of __main__; more come from other clients of the pool."""
    main = _cache.mains.get(key)
    if main is None:
        names = {} if _cache.mains else sys.modules["__main__"].__dict__
        main = _cache.mains[key] = _Main(names)
        for name, value in facts.items():
            if names.get(name) is None:
                names[name] = value
    return main.names


def main_names(key: bytes, names: dict[str, Any], marks: dict[str, Any]) -> dict[str, Any]:
    """Which of the globals that came with a function are to be set. Pickles refer to it."""
    main = _cache.mains[key]
    new = {}
    for name, value in names.items():
        if not main.is_kept(name, value, marks[name]):
            new[name] = value
            main.sent[name] = (marks[name], value)
    return new


def _imported(name: str) -> Any:
    """The module of this name, or None: this child cannot import it."""
    try:
        return importlib.import_module(name)
    except Exception:  # modules run any code
        return None


def module_globals(name: str, facts: dict[str, Any]) -> dict[str, Any]:
    """The globals of a function by value that a module has made: this child's own module's, so that
    it sees what the module's other functions see; where there is no such module, some of its own.
    Pickles refer to it."""
    module = _imported(name)
    own: dict[str, Any] = facts if module is None else module.__dict__
    return own


def module_names(name: str, names: dict[str, Any]) -> dict[str, Any]:
    """Which of the client's globals that came with such a function are to be set: those that the
    module here lacks. Pickles refer to it."""
    module = _imported(name)
    own: dict[str, Any] = {} if module is None else module.__dict__
    return {key: value for key, value in names.items() if key not in own}


# ---------------------------------------------------------------- set-up of children

def encode_setup(setup: dict[str, Any]) -> bytes:
    """The payload of a pool: what each of its children is set up with."""
    return bytes((VERSION,)) + pickle.dumps(setup, 5)


def decode_setup(payload: Any) -> dict[str, Any]:
    """The dict of encode_setup."""
    view = memoryview(payload)
    if not len(view):
        return {}
    if view[0] != VERSION:
        raise pickle.UnpicklingError(
            f"hostpool: a set-up of version {view[0]}; this worker's hostpool knows {VERSION}")
    setup: dict[str, Any] = pickle.loads(view[1:])
    return setup


def enter(setup: dict[str, Any], content: Any) -> None:
    """Makes this child what the set-up says, besides modules, path and initializer."""
    _cache.content = content
    for digest, data in setup.get("contents", {}).items():
        content.seed(digest, data)
    if setup.get("main") is None:
        main = types.ModuleType("__main__")
        main.__dict__["__builtins__"] = __builtins__
        sys.modules["__main__"] = main
    if "argv" in setup:
        sys.argv[:] = setup["argv"]
    folder = setup.get("cwd")
    if folder:
        try:
            os.chdir(folder)
        except OSError:
            pass  # another host: tasks must not count on files of the client's then
