# SPDX-License-Identifier: BSD-2-Clause
"""Which broker this process uses, and the one connection to it."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, Optional, TypeVar

from . import _hostpool, _sources, exceptions

__all__ = ["Connection", "connect", "cpu_count", "disconnect"]

_log = logging.getLogger("hostpool")
_T = TypeVar("_T")

_NODE_ONLINE = 1


class _Waits:
    """Inside a task: tells the worker that this child waits for other tasks, so that it may start
    one more in its place."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0

    def change(self, by: int) -> None:
        child = sys.modules.get("hostpool._child")
        if child is None:
            return
        with self.lock:
            before, self.count = self.count, self.count + by
            if (before == 0) != (self.count == 0):
                child.waits(self.count > 0)


_waits = _Waits()


class Connection:
    """A connection to one broker, shared by all that is done with it in this process."""

    def __init__(self, host: Optional[str] = None, token: Optional[str] = None,
                 token_file: Optional[str] = None, name: Optional[str] = None) -> None:
        self.key = (host, token, token_file)
        self.pools: weakref.WeakSet[Any] = weakref.WeakSet()
        self._delivering = 0
        self.farm: Any = None
        try:
            self.hub = _hostpool.Hub(host, token, token_file, name or _program_name(),
                                     self._deliver)
        except _hostpool.error as error:
            raise _translated(error) from None

    @property
    def host(self) -> str:
        """HOST:PORT of the broker."""
        return self.hub.host or ""

    def _deliver(self, ends: list[Any]) -> None:
        """Ends of tasks, on whatever thread serves the connection. After a KeyboardInterrupt it is
        called again with the same ends."""
        self._delivering = threading.get_ident()
        for end in ends:
            try:
                end[0]._ended(end)
            except KeyboardInterrupt:
                raise
            except BaseException:
                _log.exception("hostpool: an end of task %s was not taken", end[1])
        self._delivering = 0

    def may_wait(self) -> bool:
        """False on the thread that delivers results, in callbacks."""
        return self._delivering != threading.get_ident()

    def wait(self, flag: Any, timeout: Optional[float] = None) -> bool:
        """Waits until the flag is set."""
        _waits.change(1)
        try:
            return self.hub.wait(flag, timeout)
        except _hostpool.error as error:
            raise _translated(error) from None
        finally:
            _waits.change(-1)

    def call(self, function: Callable[..., _T], *args: Any, **keywords: Any) -> _T:
        """A blocking call of the hub; its errors become hostpool's."""
        try:
            return function(*args, **keywords)
        except _hostpool.error as error:
            raise _translated(error) from None

    def call_waiting(self, function: Callable[..., _T], *args: Any, **keywords: Any) -> _T:
        """As call, for calls that wait for tasks."""
        _waits.change(1)
        try:
            return self.call(function, *args, **keywords)
        finally:
            _waits.change(-1)

    def slot_count(self) -> int:
        """Slots of the workers that are online."""
        return sum(worker["slots"] for worker in self._online())

    def online_count(self) -> int:
        """Workers that are online."""
        return len(self._online())

    def _online(self) -> list[dict[str, Any]]:
        workers = self.call(self.hub.workers)
        return [worker for worker in workers if worker.get("state") in (_NODE_ONLINE, "online")]

    def close(self) -> None:
        """Ends the connection; pools on it are lost."""
        self.hub.close()

    def after_fork(self) -> None:
        """In a forked child: a connection of its own; the parent's pools are not usable here."""
        self._delivering = 0
        for pool in list(self.pools):
            pool._forked()
        self.pools = weakref.WeakSet()
        try:
            self.hub.after_fork()
        except _hostpool.error:
            pass  # told at the next use


def _program_name() -> str:
    path = sys.argv[0] if getattr(sys, "argv", None) else ""
    return f"{os.path.basename(path) or 'python'}:{os.getpid()}"


def _translated(error: Exception) -> exceptions.HostpoolError:
    return exceptions.from_status(getattr(error, "status", ""), str(error))


def ranges_of(ids: list[int]) -> list[tuple[int, int]]:
    """(first, count) of runs of ids."""
    ids.sort()
    ranges: list[tuple[int, int]] = []
    first = last = ids[0]
    for number in ids[1:]:
        if number == last:
            continue
        if number != last + 1:
            ranges.append((first, last - first + 1))
            first = number
        last = number
    ranges.append((first, last - first + 1))
    return ranges


# ---------------------------------------------------------------- the process's connections

class _State:
    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.connections: dict[Any, Connection] = {}
        self.default: Optional[Connection] = None


_state = _State()


def connection_to(host: Optional[str] = None, token: Optional[str] = None,
                  token_file: Optional[str] = None, name: Optional[str] = None) -> Connection:
    """The connection of this process to that broker."""
    with _state.lock:
        key = (host, token, token_file)
        connection = _state.connections.get(key)
        if connection is None:
            connection = Connection(host, token, token_file, name)
            _state.connections[key] = connection
        return connection


def connect(host: Optional[str] = None, token: Optional[str] = None,
            token_file: Optional[str] = None, name: Optional[str] = None) -> Connection:
    """Uses this broker, "HOST:PORT", from now on; None: that of HOSTPOOL_HOST, or this host's.

    It connects in the background, and again whenever the connection is lost. token, token_file: the
    secret the broker asks for. name: of this client, in the broker's lists.
    """
    with _state.lock:
        _state.default = connection_to(host, token, token_file, name)
        return _state.default


def use(connection: Connection) -> None:
    """Makes it the connection of new pools."""
    with _state.lock:
        _state.default = connection


def dropped(connection: Connection) -> None:
    """Its broker ends: ends its pools, and forgets it."""
    for pool in list(connection.pools):
        pool._at_exit()
    connection.close()
    forget(connection)


def forget(connection: Connection) -> None:
    """New pools do not use it."""
    with _state.lock:
        if _state.default is connection:
            _state.default = None
        for key, value in list(_state.connections.items()):
            if value is connection:
                del _state.connections[key]


def disconnect() -> None:
    """Back to the broker of HOSTPOOL_HOST, or a private one, for new pools."""
    with _state.lock:
        _state.default = None


def check_not_importing_main() -> None:
    """RuntimeError: this is a child that imports the program, whose top level makes a pool."""
    content = sys.modules.get("hostpool._content")
    if content is not None and content.is_importing_main:
        raise RuntimeError(
            "the program makes a Pool while a child of a pool imports it: put that below "
            "`if __name__ == \"__main__\":`, or install cloudpickle (Debian: python3-cloudpickle)")


def default_connection() -> Connection:
    """The broker new pools use; starts a private one if none is configured."""
    with _state.lock:
        if _state.default is None:
            if os.environ.get("HOSTPOOL_HOST"):
                _state.default = connection_to()
            else:
                from . import _local
                _state.default = _local.local().connection
        return _state.default


def cpu_count() -> int:
    """Slots of all workers that are online: the processes a Pool() has."""
    with _state.lock:
        if _state.default is None and not os.environ.get("HOSTPOOL_HOST"):
            return os.cpu_count() or 1  # what a private broker would offer
        connection = default_connection()
    return connection.slot_count() or 1


def _after_fork() -> None:
    _state.lock = threading.RLock()
    _waits.lock = threading.Lock()
    _waits.count = 0
    _sources.after_fork()
    for connection in list(_state.connections.values()):
        connection.after_fork()


os.register_at_fork(after_in_child=_after_fork)


def hush_daemons() -> None:
    """At the end of the program, before pools end. Only daemon threads are left beside this one:
    that pools end under them is no news for anybody."""
    show = threading.excepthook

    def hook(args: Any) -> None:
        error = args.exc_value
        if not (isinstance(error, exceptions.HostpoolError)  # PoolTerminated, TaskGone, ...
                or (type(error) is ValueError and str(error) == "Pool not running")):
            show(args)
    threading.excepthook = hook


def _at_exit() -> None:
    """As multiprocessing does: pools that are still open are terminated."""
    hush_daemons()
    for connection in list(_state.connections.values()):
        for pool in list(connection.pools):
            try:
                pool._at_exit()
            except Exception:
                _log.debug("hostpool: a pool could not be ended at exit", exc_info=True)


atexit.register(_at_exit)
