# SPDX-License-Identifier: BSD-2-Clause
"""multiprocessing with a Pool whose processes are anywhere.

    from hostpool.multiprocessing import Pool

or, to change a program in one place, `import hostpool.multiprocessing as multiprocessing`.

Pool, cpu_count, get_context and the submodule pool are hostpool's. Everything else is the standard
library's own, on this host: Process, Queue, Lock, Manager, Value, ... A Manager's proxies can be
arguments of calls, where children can reach the manager's address; queues, locks and shared memory
cannot, as with the standard Pool under "spawn".
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import multiprocessing as _standard
import multiprocessing.context as _context
import sys
import types
from collections.abc import Sequence
# "as" tells type checkers that programs may import them from here.
from multiprocessing import active_children as active_children
from multiprocessing import AuthenticationError as AuthenticationError
from multiprocessing import BufferTooShort as BufferTooShort
from multiprocessing import current_process as current_process
from multiprocessing import freeze_support as freeze_support
from multiprocessing import parent_process as parent_process
from multiprocessing import ProcessError as ProcessError
from multiprocessing import TimeoutError as TimeoutError
from typing import TYPE_CHECKING, Any, Optional

from .. import _config

if TYPE_CHECKING:
    from ..pool import Pool as _Pool

__all__ = sorted({
    "Pool", "cpu_count", "get_context", "HostpoolContext", "AuthenticationError", "BufferTooShort",
    "ProcessError", "TimeoutError", "active_children", "current_process", "freeze_support",
    "parent_process", *_standard.__all__})


def cpu_count() -> int:
    """Slots of all workers of the broker: the processes that Pool() has."""
    return _config.cpu_count()


class HostpoolContext(_context.BaseContext):
    """A context of multiprocessing whose Pool is hostpool's; all else is the default context's."""

    _name = "hostpool"

    @property
    def Process(self) -> Any:
        """The default context's: a process on this host."""
        return _standard.get_context().Process

    def Pool(self, processes: Optional[int] = None, initializer: Any = None, initargs: Any = (),
             maxtasksperchild: Optional[int] = None, **options: Any) -> Any:
        """hostpool's Pool; options are its keyword arguments."""
        from ..pool import Pool
        return Pool(processes, initializer, initargs, maxtasksperchild, context=self, **options)

    def cpu_count(self) -> int:
        """Slots of all workers of the broker."""
        return _config.cpu_count()

    def get_context(self, method: Optional[str] = None) -> Any:
        """None, "hostpool": this one; else the standard library's, with its own Pool."""
        if method is None or method == "hostpool":
            return self
        return _standard.get_context(method)

    def get_start_method(self, allow_none: bool = False) -> Any:
        """That of processes on this host; children of pools have no choice."""
        return _standard.get_start_method(allow_none)

    def set_start_method(self, method: Optional[str], force: bool = False) -> None:
        """That of processes on this host."""
        _standard.set_start_method(method, force)


_default_context = HostpoolContext()


def get_context(method: Optional[str] = None) -> Any:
    """None, "hostpool": the context whose Pool is hostpool's; else the standard library's."""
    return _default_context.get_context(method)


def Pool(processes: Optional[int] = None, initializer: Any = None, initargs: Any = (),
         maxtasksperchild: Optional[int] = None, **options: Any) -> "_Pool":
    """hostpool's Pool (see hostpool.Pool); options are its keyword arguments."""
    pool: _Pool = _default_context.Pool(processes, initializer, initargs, maxtasksperchild,
                                        **options)
    return pool


def _attach(handle: Any, connection: Any = None) -> Any:
    """As hostpool.Pool.attach."""
    from ..pool import Pool as kind
    return kind.attach(handle, connection)


setattr(Pool, "attach", _attach)


def __getattr__(name: str) -> Any:
    if name == "pool":
        return importlib.import_module(__name__ + ".pool")
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(_standard, name)
    except AttributeError:
        pass
    if importlib.util.find_spec("multiprocessing." + name) is not None:
        return importlib.import_module("multiprocessing." + name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(dir(_standard)))


# ---------------------------------------------------------------- submodules

class _Alias(importlib.abc.Loader):
    """`import hostpool.multiprocessing.X` gives multiprocessing.X."""

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Optional[types.ModuleType]:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        name = module.__name__
        sys.modules[name] = importlib.import_module("multiprocessing." + name[len(__name__) + 1:])


class _AliasFinder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname: str, path: Optional[Sequence[str]],
                  target: Optional[types.ModuleType] = None
                  ) -> Optional[importlib.machinery.ModuleSpec]:
        if not fullname.startswith(__name__ + ".") or fullname == __name__ + ".pool":
            return None
        standard = "multiprocessing." + fullname[len(__name__) + 1:]
        found = importlib.util.find_spec(standard)
        if found is None:
            return None
        return importlib.machinery.ModuleSpec(
            fullname, _Alias(), is_package=found.submodule_search_locations is not None)


sys.meta_path.insert(0, _AliasFinder())
