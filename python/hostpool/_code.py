# SPDX-License-Identifier: BSD-2-Clause
"""How functions, classes and constants get to the children of a pool.

- What a worker can import travels by name.
- Modules of the program that are neither of the standard library nor installed travel as source,
  once per pool and host, named by their digest; a child uses them only where it has none of its
  own.
- Lambdas, closures and what __main__ defines travel by value, by cloudpickle; those of an imported
  module have that module's globals in the child, where it can be imported. Without it, __main__
  travels as source, if it is a file, and is imported as multiprocessing's "spawn" does.
- Constants (hostpool.constant), large partial objects and code by value are contents: sent once per
  pool and host, loaded once per child.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
import threading
import types
from collections.abc import Callable
from functools import partial
from typing import Any, Optional

from . import _payload
from ._sources import digest_of, main_source, modules

# Functions whose bytes are fewer are part of each call; others become contents.
INLINE_BYTES = 512
# Contents up to this size are part of the pool's set-up, those beyond are fetched.
EMBED_BYTES = 1 << 20

_ATOMS = (int, float, bool, str, bytes, complex, type(None))


def _cloudpickle() -> Any:
    try:
        import cloudpickle  # type: ignore[import]
    except ImportError:
        return None
    return cloudpickle


def has_cloudpickle() -> bool:
    """Whether code can travel by value."""
    return _cloudpickle() is not None


# ---------------------------------------------------------------- constants

class Constant:
    """See constant()."""

    __slots__ = ("value", "_data", "__weakref__")

    def __init__(self, value: Any) -> None:
        self.value = value
        self._data: Optional[tuple[bytes, Any]] = None

    def __repr__(self) -> str:
        return f"hostpool.constant({type(self.value).__name__})"

    def __reduce__(self) -> Any:
        raise pickle.PicklingError(
            "hostpool.constant objects can be arguments of calls of a hostpool Pool only")


def constant(value: Any) -> Constant:
    """Makes value something that is sent once per pool and host, not once per task.

    Give the Constant as an argument, or inside one, or in a functools.partial: the function gets
    the value itself, unpickled once in each child and shared by its calls, so treat it as
    read-only. value must not change any more.
    """
    return value if isinstance(value, Constant) else Constant(value)


# ---------------------------------------------------------------- pickling

def _by_name(obj: Any) -> bool:
    """Whether pickle would find obj by its name, outside __main__."""
    module = getattr(obj, "__module__", None)
    if module is None or module in ("__main__", "__mp_main__"):
        return False
    found: Any = sys.modules.get(module)
    try:
        for part in obj.__qualname__.split("."):
            found = getattr(found, part)
    except AttributeError:
        return False
    return found is obj


def _is_simple_partial(func: Any) -> bool:
    return (type(func) is partial and not func.__dict__ and _by_name(func.func)
            and all(type(item) in _ATOMS for item in func.args)
            and all(type(item) in _ATOMS for item in func.keywords.values())
            and sum(len(item) for item in func.args if type(item) in (str, bytes)) < INLINE_BYTES)


def _is_main_global(obj: Any) -> bool:
    name = getattr(obj, "__qualname__", "")
    return (getattr(obj, "__module__", None) in ("__main__", "__mp_main__") and name.isidentifier()
            and getattr(sys.modules.get("__main__"), name, None) is obj)


def _reduce_proxy(obj: Any) -> Any:
    """A manager's proxy, with the key by which a child of another parent may connect."""
    reduced = obj.__reduce__()
    function, args = reduced[0], reduced[1]
    keywords = dict(args[-1])
    keywords.setdefault("authkey", bytes(obj._authkey))
    return function, (*args[:-1], keywords)


def _proxy_class() -> Any:
    managers = sys.modules.get("multiprocessing.managers")
    return managers.BaseProxy if managers is not None else None


def _no_cloudpickle(obj: Any) -> pickle.PicklingError:
    name = getattr(obj, "__qualname__", repr(obj))
    return pickle.PicklingError(
        f"hostpool: {name} cannot be sent to the workers, because it cannot be imported by name. "
        "Define it at the top of a module, or install cloudpickle (Debian: python3-cloudpickle)")


def _needs_value(obj: Any) -> bool:
    """Whether a function can only travel by value."""
    name = getattr(obj, "__qualname__", "")
    if "<" in name:  # <lambda>, <locals>
        return True
    return getattr(obj, "__module__", None) == "__main__" and main_source() is None


class _MainGlobals:
    """Stands for the globals of __main__ in pickles of its functions: see _payload.main_globals."""

    def __init__(self, key: bytes, facts: dict[str, Any]) -> None:
        self.key = key
        self.facts = facts

    def __reduce__(self) -> Any:
        return _payload.main_globals, (self.key, self.facts)


class _MainNames:
    """Stands for what one function of __main__ uses of its globals."""

    def __init__(self, key: bytes, names: dict[str, Any], marks: dict[str, Any]) -> None:
        self.parts = (key, names, marks)

    def __reduce__(self) -> Any:
        return _payload.main_names, self.parts


class _ModuleGlobals:
    """Stands for the globals of an imported module in pickles of its functions: see
    _payload.module_globals."""

    def __init__(self, name: str, facts: dict[str, Any]) -> None:
        self.name = name
        self.facts = facts

    def __reduce__(self) -> Any:
        return _payload.module_globals, (self.name, self.facts)


class _ModuleNames:
    """Stands for what one function of a module uses of its globals."""

    def __init__(self, name: str, names: dict[str, Any]) -> None:
        self.parts = (name, names)

    def __reduce__(self) -> Any:
        return _payload.module_names, self.parts


def _module_globals(names: dict[str, Any]) -> Optional[_ModuleGlobals]:
    """What stands for the globals of a module that children may have, too; None: they are of no
    such module, or the program wants it by value."""
    name = names.get("__name__")
    if not isinstance(name, str) or name in ("__main__", "__mp_main__"):
        return None
    module: Any = sys.modules.get(name)
    if (getattr(module, "__dict__", None) is not names
            or getattr(module, "__spec__", None) is None):
        return None
    by_value: set[str] = getattr(_cloudpickle(), "list_registry_pickle_by_value", set)()
    parts = name.split(".")
    if any(".".join(parts[:count]) in by_value for count in range(1, len(parts) + 1)):
        return None
    return _ModuleGlobals(name, {fact: names[fact] for fact in _FACTS if fact in names})


# What functions that import relatively need of their globals.
_FACTS = ("__name__", "__package__", "__path__", "__file__")

_process_key = os.urandom(_payload.DIGEST_BYTES)


class _Program:
    """__main__ of this process, as functions of it that travel by value know it."""

    def __init__(self) -> None:
        self.key = b""
        self.objects: dict[int, tuple[Any, int]] = {}

    def globals_of(self, names: dict[str, Any]) -> _MainGlobals:
        """What stands for its globals."""
        if not self.key:
            found = main_source()
            self.key = _payload.main_key() or (
                _process_key if found is None else digest_of(found[0]))
        facts = {name: names[name] for name in ("__package__", "__file__") if name in names}
        return _MainGlobals(self.key, facts)

    def names_of(self, names: dict[str, Any]) -> _MainNames:
        """What stands for some of its globals, with marks that change when they do."""
        return _MainNames(self.key, names,
                          {name: self._mark(value) for name, value in names.items()})

    def _mark(self, value: Any) -> Any:
        if isinstance(value, types.ModuleType):
            return value.__name__
        if not isinstance(value, (type, types.FunctionType)):
            try:
                data, buffers = _payload.dumps(value)
                return b"".join(map(digest_of, (data, *buffers)))
            except Exception:  # it cannot be pickled plainly
                pass
        found = self.objects.setdefault(id(value), (value, len(self.objects)))
        return _process_key, found[1]


class _Special:
    """What the special pickler does with one object. `whole`: the object that is pickled by value
    as a whole, or None: then code of __main__ becomes a content of its own."""

    def __init__(self, encoder: "Encoder", whole: Any, may_put: bool) -> None:
        self.encoder = encoder
        self.whole = whole
        self.may_put = may_put
        self.proxy = _proxy_class()
        self.names: Any = getattr(sys.modules.get("__main__"), "__dict__", {})
        self.globals = encoder.program.globals_of(self.names)

    def share(self, reduced: Any) -> None:
        """Changes how cloudpickle reduces a function, so that it shares its globals in the child
        with all others of __main__, or of its module there. cloudpickle itself shares them within
        one pickle only."""
        try:
            stand_in, slots = reduced[1][1], reduced[2][1]
            if stand_in is self.globals:
                slots["__globals__"] = self.encoder.program.names_of(slots["__globals__"])
            elif type(stand_in) is _ModuleGlobals:
                slots["__globals__"] = _ModuleNames(stand_in.name, slots["__globals__"])
        except (IndexError, KeyError, TypeError):
            pass  # by name, or a cloudpickle that does it otherwise

    def reduce(self, obj: Any) -> Any:
        if type(obj) is Constant:
            return _payload.load_object, (self.encoder.constant(obj, self.may_put),)
        if isinstance(obj, (type, types.FunctionType)):
            if self.whole is None and self.may_put and has_cloudpickle() and _is_main_global(obj):
                return _payload.load_object, (self.encoder.code(obj),)
            if not has_cloudpickle() and isinstance(obj, types.FunctionType) and _needs_value(obj):
                raise _no_cloudpickle(obj)
            return NotImplemented
        if self.proxy is not None and isinstance(obj, self.proxy):
            return _reduce_proxy(obj)
        return NotImplemented


def _make_pickler_class() -> Any:
    cloudpickle = _cloudpickle()
    base: Any = pickle.Pickler if cloudpickle is None else cloudpickle.CloudPickler

    class SpecialPickler(base):  # type: ignore[misc]
        """A pickler that asks a _Special first."""

        def __init__(self, special: _Special, file: Any, callback: Any) -> None:
            super().__init__(file, 5, buffer_callback=callback)
            self._special = special
            if cloudpickle is not None:
                self.globals_ref: dict[int, Any] = {id(special.names): special.globals}

        def reducer_override(self, obj: Any) -> Any:
            reduced = self._special.reduce(obj)
            if reduced is NotImplemented and cloudpickle is not None:
                if type(obj) is types.FunctionType and id(obj.__globals__) not in self.globals_ref:
                    stand_in = _module_globals(obj.__globals__)
                    if stand_in is not None:
                        self.globals_ref[id(obj.__globals__)] = stand_in
                reduced = super().reducer_override(obj)
                if type(obj) is types.FunctionType:
                    self._special.share(reduced)
            return reduced

    return SpecialPickler


_pickler_class: Any = None


def _pickler(special: _Special) -> Callable[..., Any]:
    global _pickler_class
    if _pickler_class is None:
        _pickler_class = _make_pickler_class()

    def make(file: io.BytesIO, protocol: int, callback: Any) -> Any:
        return _pickler_class(special, file, callback)
    return make


# ---------------------------------------------------------------- functions of calls

class Function:
    """A function as calls name it. prefixes: the prefix for each kind of call, with and without
    buffers. is_special: its arguments needed the special pickler, so do not try the plain one."""

    __slots__ = ("flags", "token", "modules", "prefixes", "is_special", "target", "cells")

    def __init__(self, target: Any, token: bytes, flags: int, modules: bytes) -> None:
        self.target = target
        self.token = token
        self.flags = flags
        self.modules = modules
        self.prefixes: dict[int, bytes] = {}
        self.is_special = False
        self.cells: Any = None

    def prefix(self, kind: int) -> bytes:
        flags = kind | self.flags
        body = self.token
        if self.modules:
            flags |= _payload.HAS_MODULES
            body = self.modules + body
        prefix = _payload._HEADER.pack(_payload.VERSION, flags, 4 + len(body)) + body
        self.prefixes[kind] = prefix
        return prefix


def _cells_of(func: Any) -> Any:
    """What makes two uses of a closure differ, cheaply."""
    closure = getattr(func, "__closure__", None)
    if not closure:
        return None
    try:
        return tuple([id(cell.cell_contents) for cell in closure])
    except ValueError:  # an empty cell
        return None


class Encoder:
    """Turns calls into payloads, for one pool. Thread-safe.

    put(digest, data): gives the pool a content; called once for each. may_put(): whether that may
    be done now (it waits for the broker, which the thread that delivers results must not).
    """

    def __init__(self, put: Callable[[bytes, Any], object],
                 may_put: Callable[[], bool]) -> None:
        self._put = put
        self._may_put = may_put
        self._lock = threading.Lock()
        self._functions: dict[Any, Function] = {}
        self._have: set[bytes] = set()
        self._codes: dict[int, tuple[Any, bytes]] = {}
        self.program = _Program()
        self._is_open = False
        self._early: list[tuple[bytes, Any]] = []
        self._base_modules = 0
        self._modules_digest = b""
        self._modules_count = 0
        self._seen_modules = -1

    # ------------------------------------------------------------ set-up

    def setup(self, initializer: Optional[Callable[..., Any]], initargs: tuple[Any, ...],
              interpreter: Optional[str] = None) -> bytes:
        """The payload of the pool. interpreter: the only one whose children will do. Raises what
        pickling the initializer raises."""
        call = None
        if initializer is not None:
            function = self.function(initializer, True)
            call = self.encode(function, _payload.APPLY, tuple(initargs))
            if isinstance(call, tuple):
                call = b"".join(bytes(piece) for piece in call)
        self._base_modules = self._modules_count = modules.scan()
        self._seen_modules = len(sys.modules)
        contents = dict(modules.sources)
        main = None
        if not has_cloudpickle():
            found = main_source()
            if found is not None:
                digest = digest_of(found[0])
                contents[digest] = found[0]
                main = (digest, found[1], found[2])
        late = []
        for digest, data in self._early:
            if memoryview(data).nbytes <= EMBED_BYTES:
                contents[digest] = bytes(data)
            else:
                late.append((digest, data))
        self._early = late
        return _payload.encode_setup({
            "modules": dict(modules.table), "main": main, "contents": contents, "init": call,
            "path": [os.path.abspath(place or os.curdir) for place in sys.path
                     if isinstance(place, str)],
            "cwd": _cwd(), "argv": list(sys.argv) if hasattr(sys, "argv") else [""],
            "interpreter": interpreter,
        })

    def opened(self) -> None:
        """The pool exists now: gives it what the set-up needs beyond its payload."""
        with self._lock:
            self._is_open = True
            early, self._early = self._early, []
        for digest, data in early:
            self._put(digest, data)

    # ------------------------------------------------------------ contents

    def _content(self, data: Any, digest: Optional[bytes] = None) -> bytes:
        digest = digest or digest_of(data)
        with self._lock:
            if digest in self._have:
                return digest
            self._have.add(digest)
            if not self._is_open:
                self._early.append((digest, data))
                return digest
        # Without the lock: the thread that brings the reply may be about to take it. A call that
        # names the content may overtake it: children look again for a while.
        try:
            self._put(digest, data)
        except BaseException:
            self._have.discard(digest)
            raise
        return digest

    def _whole(self, obj: Any) -> bytes:
        """obj by value, in one piece of bytes."""
        special = _Special(self, obj, self._may_put())
        value = _payload.encode_value(obj, _pickler(special))
        self._note_cloudpickle()
        return value if isinstance(value, bytes) else b"".join(value)

    def code(self, obj: Any) -> bytes:
        """Digest of a class or function of __main__, by value."""
        found = self._codes.get(id(obj))
        if found is not None and found[0] is obj:
            return found[1]
        digest = self._content(self._whole(obj))
        self._codes[id(obj)] = (obj, digest)
        return digest

    def constant(self, constant_: Constant, may_put: bool) -> bytes:
        """Digest of a constant's value."""
        if constant_._data is None:
            data = self._whole(constant_.value)
            constant_._data = (digest_of(data), data)
        digest, data = constant_._data
        if digest not in self._have and not may_put:
            raise pickle.PicklingError(
                "hostpool: a callback cannot use a constant that the pool has not seen before")
        return self._content(data, digest)

    def _note_cloudpickle(self) -> None:
        """A worker without cloudpickle gets ours: it is pure Python."""
        if "cloudpickle" in sys.modules and "cloudpickle" not in modules.table:
            modules.add_package("cloudpickle")
            self._seen_modules = -1

    # ------------------------------------------------------------ functions

    def _new_modules(self) -> bytes:
        """Digest of the table of modules that the set-up did not name; b"" if there are none."""
        count = modules.scan()
        self._seen_modules = len(sys.modules)
        if count == self._modules_count or not self._is_open or not self._may_put():
            return self._modules_digest
        table = dict(modules.table)
        for digest, _, _ in table.values():
            self._content(modules.sources[digest], digest)
        self._modules_digest = self._content(pickle.dumps(table, 5))
        self._modules_count = count
        self._functions.clear()
        return self._modules_digest

    def function(self, func: Callable[..., Any], many: bool = False) -> Function:
        """How calls name func. many: it is for many calls. Raises what pickle raises."""
        if len(sys.modules) != self._seen_modules and self._is_open:
            self._new_modules()
        try:
            found = self._functions.get(func)
        except TypeError:  # not hashable
            return self._make_function(func, many)
        if found is not None and found.target is func:
            if found.cells is None or found.cells == _cells_of(func):
                if not found.flags & _payload.BY_DIGEST and len(found.token) > INLINE_BYTES:
                    return self._used_again(found)
                return found
        return self._make_function(func, many)

    def _used_again(self, found: Function) -> Function:
        """A large function that came inline at its first use becomes a content at the second."""
        if self._may_put():
            function = Function(found.target, self._content(found.token),
                                found.flags | _payload.BY_DIGEST, found.modules)
            function.cells = found.cells
            self._functions[found.target] = function
            return function
        return found

    def _make_function(self, func: Callable[..., Any], many: bool) -> Function:
        is_kept, flags = True, 0
        if _by_name(func) or _is_simple_partial(func):
            token = pickle.dumps(func, 5)
        elif isinstance(func, (types.FunctionType, type)):
            token = self._by_value(func)
        else:
            token, is_kept, flags = self._object(func), False, _payload.FRESH
        is_content = len(token) > INLINE_BYTES and (many or not is_kept) and self._may_put()
        if is_content or len(token) > _payload.PREFIX_MAX_BYTES - 64:
            if not self._may_put():
                raise pickle.PicklingError(
                    "hostpool: a callback cannot use so large a function for the first time")
            token, flags = self._content(token), flags | _payload.BY_DIGEST
            if isinstance(func, partial):
                flags &= ~_payload.FRESH  # its arguments are loaded once in each child
        function = Function(func, token, flags, self._new_modules())
        if is_kept:
            function.cells = _cells_of(func)
            if len(self._functions) >= 1024:
                self._functions.clear()
            self._functions[func] = function
        return function

    def _by_value(self, func: Any) -> bytes:
        if has_cloudpickle():
            return self._whole(func)
        if isinstance(func, types.FunctionType) and _needs_value(func):
            raise _no_cloudpickle(func)
        return pickle.dumps(func, 5)

    def _object(self, func: Any) -> bytes:
        """The bytes of a callable object: a partial, a bound method, ..."""
        data, buffers, _ = self._dumps(func, False)
        if buffers:
            return b"".join(_payload.join(bytes((_payload.RECORD_BUFFERS,)), data, buffers))
        return data

    # ------------------------------------------------------------ arguments

    def _dumps(self, value: Any, is_special: bool) -> tuple[bytes, list[Any], bool]:
        """(pickle, buffers, whether the special pickler made it)."""
        error: Optional[BaseException] = None
        if not is_special:
            try:
                data, buffers = _payload.dumps(value)
                if b"__main__" not in data and (
                        b"multiprocessing.managers" not in data or b"RebuildProxy" not in data):
                    return data, buffers, False
            except (pickle.PicklingError, AttributeError, TypeError) as caught:
                error = caught
        special = _Special(self, None, self._may_put())
        try:
            data, buffers = _payload.dumps(value, _pickler(special))
        except _EXPECTED as caught:
            if error is None or "hostpool" in str(caught):
                raise
            raise error from None
        if b"cloudpickle" in data:
            self._note_cloudpickle()
        return data, buffers, True

    def encode(self, function: Function, kind: int, body: Any) -> _payload.Payload:
        """The payload of one call. Raises what pickle raises."""
        if type(body) in _PLAIN or (type(body) is tuple and len(body) < 8
                                    and all(map(_PLAIN.__contains__, map(type, body)))):
            return (function.prefixes.get(kind) or function.prefix(kind)) + pickle.dumps(body, 5)
        data, buffers, is_special = self._dumps(body, function.is_special)
        function.is_special = is_special
        prefix = function.prefixes.get(kind) or function.prefix(kind)
        if not buffers:
            return prefix + data
        kind |= _payload.HAS_BUFFERS
        return _payload.join(function.prefixes.get(kind) or function.prefix(kind), data, buffers)


# What needs none of the care that encode() takes.
_PLAIN = _payload._PLAIN
_EXPECTED = (pickle.PicklingError, AttributeError, TypeError, RecursionError)


def _cwd() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""


def size_of(payload: _payload.Payload) -> int:
    """Bytes of a payload."""
    if isinstance(payload, bytes):
        return len(payload)
    return sum(memoryview(piece).nbytes for piece in payload)

