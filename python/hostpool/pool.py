# SPDX-License-Identifier: BSD-2-Clause
"""multiprocessing's Pool, with processes on any number of hosts."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Optional, Union

from . import _code, _config, _hostpool, _payload, exceptions
from ._config import Connection
from ._feed import _batches, _MapFeed, _shown
from ._outcome import SLICE_CHUNKS
from ._streams import _DIRECT, IMapIterator, IMapUnorderedIterator, Stream
from .results import ApplyResult, MapResult

__all__ = ["Pool", "PoolHandle"]

# States, by multiprocessing's names.
INIT = "INIT"
RUN = "RUN"
CLOSE = "CLOSE"
TERMINATE = "TERMINATE"

_FORKED = "FORKED"

# How long the pool is ended after its client is gone, if it did not detach.
ORPHAN_SECONDS = 60.0
# Maps of more chunks than this are submitted by a thread, not by map_async itself.
ASYNC_CHUNKS = 4 * SLICE_CHUNKS
INFO_SECONDS = 1.0
# So many arrived results the broker is not told of before the pool ends, and so many more are told
# together.
FORGET_COUNT = 8192
CHILD_START_SECONDS = 60.0
END_SECONDS = 10.0
OPEN_SECONDS = 60.0
PROCESSES_MAX = 65536

_PHASE_ENDED = 4

# Results over this the broker is told of at once when they have arrived.
LARGE_BYTES = 1 << 16


class PoolHandle(NamedTuple):
    """Names a pool; can be pickled, and given to Pool.attach() in another process or on another
    host."""

    id: int
    host: str
    durable: bool = True


class _Ledger:
    """Which results have arrived here, so that the broker need not keep them.

    They are told late, many at once, and the last FORGET_COUNT only at the end: detach() can still
    keep those. Large ones are told at once: their room at the broker is worth a message.
    """

    __slots__ = ("connection", "is_keeping", "ids", "lock")

    def __init__(self, connection: Connection, is_keeping: bool) -> None:
        self.connection = connection
        self.is_keeping = is_keeping
        self.ids: list[int] = []
        self.lock = threading.Lock()

    def delivered(self, first: int, count: int = 1, size: int = 0) -> None:
        """The results of these tasks have arrived; size: bytes of one of them, about."""
        if self.is_keeping:
            return
        if size > LARGE_BYTES:
            self._forget([(first, count)])
        elif count == 1:
            self.ids.append(first)
        else:
            self.ids.extend(range(first, first + count))
        if len(self.ids) >= 2 * FORGET_COUNT:
            self.tell(FORGET_COUNT)

    def keep(self) -> None:
        """From now on the broker keeps results, also those it was not told of yet."""
        self.is_keeping = True
        self.ids = []

    def tell(self, keep_count: int = 0) -> None:
        """Tells the broker what has arrived, but for the last ones."""
        with self.lock:
            count = max(0, len(self.ids) - keep_count)
            ids = self.ids[:count]
            del self.ids[:count]  # others may append meanwhile
        if ids and not self.is_keeping:
            self._forget(_config.ranges_of(ids))

    def _forget(self, ranges: list[tuple[int, int]]) -> None:
        try:
            self.connection.hub.forget(ranges)
        except _hostpool.error:
            pass  # a hint


class _Child:
    """A process of a pool, as programs look at pool._pool[i]."""

    def __init__(self, pool: "Pool", index: int) -> None:
        self._owner = pool
        self._index = index
        self._found: Optional[tuple[str, int]] = None

    def _find(self) -> Optional[tuple[str, int]]:
        if self._found is None:
            self._found = self._owner._child_at(self._index)
        return self._found

    @property
    def pid(self) -> Optional[int]:
        """Process id, on its host; waits until the process is set up."""
        found = self._find()
        return found[1] if found is not None else None

    ident = pid

    @property
    def host(self) -> Optional[str]:
        """Name of its worker."""
        found = self._find()
        return found[0] if found is not None else None

    @property
    def name(self) -> str:
        """As multiprocessing names pool workers."""
        return f"HostPoolWorker-{self._index + 1}"

    daemon = True

    def is_alive(self) -> bool:
        """Whether the pool has it now."""
        found = self._find()
        return found is not None and found in self._owner._children_now()

    @property
    def exitcode(self) -> Optional[int]:
        """None while it lives; else 0 (how it ended is told by the calls it ran)."""
        return None if self.is_alive() else 0

    def __repr__(self) -> str:
        return f"<{self.name} of {self._owner!r}>"


class Pool:
    """A pool of processes that run calls, on the workers of a broker.

    processes: how many; None: one for each slot of each worker, also of those that come later.
    initializer(*initargs) is called in each child first. maxtasksperchild: a child is replaced
    after this many calls (chunks, for maps). context is accepted and not used.

    Beyond multiprocessing's arguments:
    durable: calls and results are on the broker's disk and survive its restart; False: in its
    memory only, faster. keep_results: the broker keeps results that were delivered, for
    hostpool.attach().
    name, priority, tags, tenant: as for other tasks. timeout: seconds after which a call is killed.
    max_losses: how often a call is run again after its worker was lost. child_losses: the same
    after the death of its process alone. orphan_timeout: seconds without this client after which
    the pool is ended, unless detach() was called. interpreter: absolute path of the Python that
    children run, on workers that have and allow it, on no others; None: this one's where a worker
    has and allows it, else the worker's own of the same version. connection: of hostpool.connect(),
    None: the default.
    """

    def __init__(self, processes: Optional[int] = None,
                 initializer: Optional[Callable[..., object]] = None,
                 initargs: Iterable[Any] = (), maxtasksperchild: Optional[int] = None,
                 context: Any = None, *, durable: bool = True, keep_results: bool = False,
                 name: Optional[str] = None, priority: Optional[int] = None,
                 tags: Iterable[str] = (), tenant: Optional[str] = None,
                 timeout: Optional[float] = None, max_losses: Optional[int] = None,
                 child_losses: Optional[int] = None, orphan_timeout: float = ORPHAN_SECONDS,
                 interpreter: Optional[str] = None,
                 connection: Optional[Connection] = None) -> None:
        self._state = INIT
        self._id = 0
        _config.check_not_importing_main()
        if processes is not None and processes < 1:
            raise ValueError("Number of processes must be at least 1")
        if processes is not None and processes > PROCESSES_MAX:
            raise exceptions.QuotaExceeded(
                f"a pool has at most {PROCESSES_MAX} processes, not {processes}", "too_big")
        if maxtasksperchild is not None:
            if not isinstance(maxtasksperchild, int) or maxtasksperchild <= 0:
                raise ValueError("maxtasksperchild must be a positive int or None")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if interpreter is not None and not os.path.isabs(interpreter):
            raise ValueError(f"interpreter must be an absolute path, not {interpreter!r}")
        self._ctx = context
        self._asked = processes
        self._maxtasksperchild = maxtasksperchild
        self._initializer = initializer
        self._initargs = tuple(initargs)
        self._prepare(connection or _config.default_connection(), durable, keep_results)
        task: dict[str, Any] = {"durable": durable}
        for key, value in (("priority", priority), ("tenant", tenant),
                           ("tags", list(tags) or None)):
            if value is not None:
                task[key] = value
        setup = self._encoder.setup(initializer, self._initargs, interpreter)
        options = _hostpool.Options(
            kind="pool", processes=processes or 0, calls_per_child=maxtasksperchild or 0,
            language=f"python{sys.version_info[0]}.{sys.version_info[1]}",
            interpreter=interpreter or sys.executable or None,
            orphan_ms=int(orphan_timeout * 1000), name=name or _default_name(), **task)
        self._id = self._connection.call(self._hub.pool_open, options, setup,
                                         timeout=OPEN_SECONDS)
        for key, value in (("hard_timeout_ms", None if timeout is None else int(timeout * 1000)),
                           ("max_losses", max_losses), ("child_losses", child_losses)):
            if value is not None:
                task[key] = value
        self._opened(_hostpool.Options(kind="call", pool=self._id, **task), is_owner=True)
        self._encoder.opened()

    def _prepare(self, connection: Connection, durable: bool, keep_results: bool) -> None:
        self._connection = connection
        self._hub = connection.hub
        self._durable = durable
        self._ledger = _Ledger(connection, keep_results)
        self._encoder = _code.Encoder(self._put, connection.may_wait)
        self._jobs = itertools.count()
        self._cache: dict[int, ApplyResult] = {}
        self._feeds: set[Any] = set()
        self._streams: weakref.WeakSet[Stream] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._changed = _hostpool.Flag()
        self._info: Any = None
        self._info_time = 0.0
        self._is_ended = False
        self._is_late = False  # closed, but the broker is told by join()

    def _opened(self, options: Any, is_owner: bool) -> None:
        self._options = options
        self._is_owner = is_owner
        self._pid = os.getpid()
        self._connection.pools.add(self)
        self._state = RUN

    @classmethod
    def attach(cls, handle: Union[PoolHandle, int],
               connection: Optional[Connection] = None) -> "Pool":
        """The pool with this handle (Pool.handle), or id, made by another process. It can be used
        as any other; it is not ended when this process ends, or leaves a `with`, only by close()
        and terminate()."""
        if isinstance(handle, int):
            handle = PoolHandle(handle, "", True)
        if connection is None:
            connection = _config.default_connection()
        pool = cls.__new__(cls)
        pool._state = INIT
        pool._id = handle.id
        pool._ctx = pool._initializer = pool._maxtasksperchild = pool._asked = None
        pool._initargs = ()
        pool._prepare(connection, handle.durable, False)
        pool._info = connection.call(connection.hub.pool_info, handle.id)
        pool._info_time = time.monotonic()
        pool._opened(_hostpool.Options(kind="call", pool=handle.id, durable=handle.durable),
                     is_owner=False)
        pool._encoder.opened()
        return pool

    # ------------------------------------------------------------ what results tell it

    def _put(self, digest: bytes, data: Any) -> None:
        self._connection.call(self._hub.pool_put, self._id, digest, data)

    def _enter(self, result: ApplyResult) -> int:
        job = next(self._jobs)
        self._cache[job] = result
        return job

    def _leave(self, job: int) -> None:
        self._cache.pop(job, None)
        if self._state != RUN and not self._cache:
            self._changed.set()

    def _feed_ended(self, feed: Any) -> None:
        """A map or imap has submitted all it has."""
        with self._lock:
            self._feeds.discard(feed)
            is_last = not self._feeds and self._state == CLOSE
        if is_last:
            self._end_at_broker(terminate=False)
        self._changed.set()

    # ------------------------------------------------------------ calls

    def _check_running(self) -> None:
        if self._state != RUN:
            if self._state == _FORKED:
                raise ValueError("Pool not running: it belongs to the process that this one was "
                                 "forked from; make a Pool here, or use Pool.attach(pool.handle)")
            raise ValueError("Pool not running")

    def apply(self, func: Callable[..., Any], args: Iterable[Any] = (),
              kwds: Mapping[str, Any] = {}) -> Any:
        """func(*args, **kwds) in a child; waits for it."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(self, func: Callable[..., Any], args: Iterable[Any] = (),
                    kwds: Mapping[str, Any] = {},
                    callback: Optional[Callable[[Any], object]] = None,
                    error_callback: Optional[Callable[[BaseException], object]] = None
                    ) -> ApplyResult:
        """func(*args, **kwds) in a child. The result's get() waits for it. callback(value) or
        error_callback(exception) is called on the thread that brings results in."""
        if self._state != RUN:
            self._check_running()
        result = ApplyResult(self, callback, error_callback)
        try:
            encoder = self._encoder
            function = encoder.function(func)
            if kwds:
                payload = encoder.encode(function, _payload.APPLY_KWDS, (tuple(args), dict(kwds)))
            else:
                payload = encoder.encode(function, _payload.APPLY,
                                         args if type(args) is tuple else tuple(args))
            self._hub.submit(self._options, payload, result)
        except Exception as error:
            result._fail(self._terminated() if self._state == TERMINATE else _shown(error))
        except BaseException:  # ^C: nobody will ask for it, nor may join() wait for it
            self._leave(result._job)
            raise
        return result

    def map(self, func: Callable[[Any], Any], iterable: Iterable[Any],
            chunksize: Optional[int] = None) -> list[Any]:
        """[func(x) for x in iterable], in children; waits for it."""
        result = self._map(func, iterable, False, chunksize, None, None, True)
        return result.get()  # type: ignore[no-any-return]

    def map_async(self, func: Callable[[Any], Any], iterable: Iterable[Any],
                  chunksize: Optional[int] = None,
                  callback: Optional[Callable[[list[Any]], object]] = None,
                  error_callback: Optional[Callable[[BaseException], object]] = None) -> MapResult:
        """map() that does not wait."""
        return self._map(func, iterable, False, chunksize, callback, error_callback, False)

    def starmap(self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]],
                chunksize: Optional[int] = None) -> list[Any]:
        """[func(*x) for x in iterable], in children; waits for it."""
        result = self._map(func, iterable, True, chunksize, None, None, True)
        return result.get()  # type: ignore[no-any-return]

    def starmap_async(self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]],
                      chunksize: Optional[int] = None,
                      callback: Optional[Callable[[list[Any]], object]] = None,
                      error_callback: Optional[Callable[[BaseException], object]] = None
                      ) -> MapResult:
        """starmap() that does not wait."""
        return self._map(func, iterable, True, chunksize, callback, error_callback, False)

    def _map(self, func: Callable[..., Any], iterable: Any, is_star: bool,
             chunksize: Optional[int], callback: Any, error_callback: Any,
             is_waiting: bool) -> MapResult:
        self._check_running()
        if not hasattr(iterable, "__len__"):
            iterable = list(iterable)
        length = len(iterable)
        if chunksize is None:
            chunksize, extra = divmod(length, self.processes * 4)
            if extra:
                chunksize += 1
        elif chunksize < 1 and length:
            raise ValueError(f"Chunksize must be 1+, not {chunksize!r}")
        result = MapResult(self, chunksize if length else 0, length, callback, error_callback)
        if not length:
            return result
        feed = _MapFeed(self, result, func, iterable, is_star)
        del iterable
        with self._lock:
            self._feeds.add(feed)
        if is_waiting or length <= chunksize * ASYNC_CHUNKS:
            feed.run()
        else:
            threading.Thread(target=feed.run, name="hostpool-feeder", daemon=True).start()
        return result

    def imap(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1, *,
             buffersize: Optional[int] = None) -> Any:
        """An iterator of func(x) for x in iterable, in order.

        iterable is taken lazily: at most buffersize items are taken and not yet consumed; None: as
        many as keep the processes busy in bounded memory, at least 4 chunks for each process.
        close() lifts the limit. With chunksize 1 the iterator has next(timeout).
        """
        return self._imap(IMapIterator, func, iterable, chunksize, buffersize)

    def imap_unordered(self, func: Callable[[Any], Any], iterable: Iterable[Any],
                       chunksize: int = 1, *, buffersize: Optional[int] = None) -> Any:
        """imap() whose values come as they are ready."""
        return self._imap(IMapUnorderedIterator, func, iterable, chunksize, buffersize)

    def _imap(self, kind: type[IMapIterator], func: Callable[[Any], Any], iterable: Any,
              chunksize: int, buffersize: Optional[int]) -> Any:
        self._check_running()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize!r}")
        if buffersize is not None and buffersize < 1:
            raise ValueError(f"buffersize must be None or 1+, not {buffersize!r}")
        function = self._encoder.function(func, True)
        is_direct = type(iterable) in _DIRECT
        items = iterable if chunksize == 1 else _batches(iterable, chunksize)
        limit = None if buffersize is None else max(1, -(-buffersize // chunksize))
        stream = Stream(self, function,
                        _payload.MAP_ONE if chunksize == 1 else _payload.MAP_CHUNK, items,
                        is_direct, limit, 4 * self.processes, chunksize)
        with self._lock:
            self._feeds.add(stream)
            self._streams.add(stream)
        iterator = kind(stream)
        stream.start()
        if chunksize == 1:
            return iterator
        return (item for chunk in iterator for item in chunk)

    # ------------------------------------------------------------ its processes

    @property
    def processes(self) -> int:
        """Children it has to have now: as asked for, else the slots of the workers."""
        if self._asked is not None:
            return self._asked
        return max(1, int(self._information()["processes"]) or self._connection.slot_count())

    _processes = processes

    @property
    def id(self) -> int:
        """Id of the pool's task."""
        return self._id

    @property
    def handle(self) -> PoolHandle:
        """What Pool.attach() needs in another process. The pool itself cannot be pickled."""
        return PoolHandle(self._id, self._connection.host, self._durable)

    def _information(self, max_age: float = INFO_SECONDS) -> Any:
        now = time.monotonic()
        if self._info is None or now - self._info_time > max_age:
            if not self._connection.may_wait():
                return self._info or {"processes": 0, "children": []}
            try:
                self._info = self._connection.call(self._hub.pool_info, self._id)
            except exceptions.TaskGone:  # it has ended
                self._info = {"processes": (self._info or {}).get("processes", 0),
                              "children": []}
            self._info_time = now
        return self._info

    def _children_now(self) -> list[tuple[str, int]]:
        if self._is_ended or self._state == _FORKED:
            return []
        return [(child[0], child[1]) for child in self._information(0.0)["children"]]

    def _child_at(self, index: int) -> Optional[tuple[str, int]]:
        until = time.monotonic() + CHILD_START_SECONDS
        while self._state in (RUN, CLOSE):
            children = self._children_now()
            if index < len(children) and len(children) >= self.processes:
                return children[index]
            if time.monotonic() > until or self._information(INFO_SECONDS).get("error"):
                return children[index] if index < len(children) else None
            time.sleep(0.005)
        return None

    @property
    def _pool(self) -> list[_Child]:
        """The processes, for programs that look: pid, is_alive(), exitcode."""
        return [_Child(self, index) for index in range(self.processes)]

    def _repopulate_pool(self) -> None:
        """Nothing: workers replace children by themselves."""

    def _maintain_pool(self) -> None:
        """Nothing: workers replace children by themselves."""

    # ------------------------------------------------------------ ending

    def close(self) -> None:
        """No more calls; those submitted are run, also what imap and map have not submitted yet."""
        with self._lock:
            if self._state != RUN:
                return
            self._state = CLOSE
            feeds = list(self._feeds)
            # As with multiprocessing, each process runs the initializer, calls or not: see join().
            self._is_late = self._initializer is not None and next(self._jobs) == 0
        for feed in feeds:
            feed.release()
        if not feeds and not self._is_late:
            self._end_at_broker(terminate=False)

    def terminate(self) -> None:
        """Ends the calls that run, drops those that do not. What waits for their results gets
        PoolTerminated."""
        with self._lock:
            if self._state in (TERMINATE, _FORKED, INIT) or self._is_ended:
                self._state = self._state if self._state in (_FORKED, INIT) else TERMINATE
                return
            self._state = TERMINATE
        self._fail_all(self._terminated())
        self._end_at_broker(terminate=True)
        self._ledger.tell()

    @staticmethod
    def _terminated() -> Exception:
        return exceptions.PoolTerminated("the pool was terminated")

    def _fail_all(self, error: BaseException) -> None:
        """Whatever waits for something of the pool gets the exception."""
        self._options.end()  # threads that wait for room to submit
        with self._lock:
            feeds = {*self._feeds, *self._streams}
        for feed in feeds:
            feed.fail(error)
        for result in list(self._cache.values()):
            result._fail(error)
        self._changed.set()

    def _lose(self, error: BaseException) -> None:
        """Its broker is gone for good."""
        self._is_ended = True
        if self._state in (RUN, CLOSE):
            self._state = TERMINATE
        self._fail_all(error)

    def _end_at_broker(self, terminate: bool) -> None:
        if self._is_ended or os.getpid() != self._pid:
            return
        if not self._connection.may_wait():
            _in_thread(self._end_now, terminate)
            return
        self._end_now(terminate)

    def _end_now(self, terminate: bool) -> None:
        try:
            if not terminate:
                self._hub.flush(None)  # calls that are still queued here must not come too late
            self._hub.pool_end(self._id, terminate, END_SECONDS)
        except _hostpool.error as error:
            # Gone already, or out of reach: then it is ended as an orphan.
            if error.status not in ("not_found", "illegal_state", "timeout", "stopped",
                                    "unreachable", "broker_lost", "session_lost"):
                raise exceptions.from_status(error.status, str(error)) from None

    def join(self) -> None:
        """Waits until all calls and all processes have ended. close() or terminate() comes
        first."""
        if self._state == RUN:
            raise ValueError("Pool is still running")
        if self._state not in (CLOSE, TERMINATE):
            raise ValueError("In unknown state")
        if not self._connection.may_wait():
            raise RuntimeError("a callback cannot join a pool: it runs on the thread that delivers "
                               "what join() waits for")
        while True:
            self._changed.clear()
            if not self._feeds or self._state == TERMINATE:
                break  # a terminated pool takes no more from iterables, which may block for good
            self._connection.wait(self._changed)
        if self._is_late and self._state == CLOSE:
            self._is_late = False
            self._child_at(self.processes - 1)
            self._end_at_broker(terminate=False)
        if not self._is_ended:
            self._wait_for_end()
            self._is_ended = True
        while True:
            self._changed.clear()
            if not self._cache:
                break
            self._connection.wait(self._changed)
        self._ledger.tell()

    def _wait_for_end(self) -> None:
        while True:
            limit = None if self._state == CLOSE else END_SECONDS
            try:
                if self._connection.call_waiting(self._hub.task_wait, [(self._id, 1)], limit):
                    return
            except exceptions.TaskGone:
                return
            except exceptions.BrokerLost:
                if self._state != TERMINATE:
                    raise
            if self._state == TERMINATE and not self._hub.connected:
                return  # the broker ends it as an orphan, when it is back

    def detach(self) -> None:
        """Lets this client leave: the pool and its calls live on without it, and results are kept
        for hostpool.attach(): those still to come, and of those that have arrived here at least the
        last 8,192 of up to 64 KiB. Larger ones are dropped at the broker as soon as they arrive,
        unless the pool was made with keep_results, which keeps all. Waits until the broker has what
        was submitted. close() it, too, if its processes are to end with the last call."""
        self._check_usable()
        self._ledger.keep()
        while self._feeds:
            self._changed.clear()
            if self._feeds:
                self._connection.wait(self._changed)
        self._connection.call(self._hub.flush, None)
        self._connection.call(self._hub.pool_detach, self._id)
        self._is_owner = False

    def _check_usable(self) -> None:
        if self._state not in (RUN, CLOSE):
            raise ValueError("Pool not running")

    def _at_exit(self) -> None:
        if self._state in (RUN, CLOSE) and self._is_owner:
            self.terminate()
        self._ledger.tell()

    def _forked(self) -> None:
        """This is a forked child of the process that has the pool."""
        self._state = _FORKED
        self._ledger = _Ledger(self._connection, True)
        self._lock = threading.Lock()
        error = exceptions.PoolTerminated("this is a forked child of the process that waits for it")
        for feed in {*self._feeds, *self._streams}:
            feed.forked(error)
        for result in list(self._cache.values()):
            result._forked(error)
        self._cache = {}
        self._feeds = set()

    def __enter__(self) -> "Pool":
        self._check_running()
        return self

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        if self._is_owner:
            self.terminate()

    def __del__(self, _warn: Any = warnings.warn, _RUN: str = RUN) -> None:
        if getattr(self, "_state", None) != _RUN or not self._is_owner:
            return
        _warn(f"unclosed running multiprocessing pool {self!r}", ResourceWarning, source=self)
        if not sys.is_finalizing() and not self._is_ended:
            self._ledger.tell()
            hub, number = self._hub, self._id
            _in_thread(_end_quietly, hub, number)

    def __repr__(self) -> str:
        cls = type(self)
        size = self._asked
        if size is None:
            size = (getattr(self, "_info", None) or {}).get("processes", 0)
        return (f"<{cls.__module__}.{cls.__qualname__} state={self._state} "
                f"pool_size={size} id={self._id}>")

    def __reduce__(self) -> Any:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled; "
                                  "pool.handle can, for Pool.attach()")


def _end_quietly(hub: Any, number: int) -> None:
    try:
        hub.pool_end(number, True, END_SECONDS)
    except _hostpool.error:
        pass  # it is ended as an orphan


def _in_thread(function: Callable[..., object], *args: Any) -> None:
    threading.Thread(target=function, args=args, name="hostpool-end", daemon=True).start()


def _default_name() -> str:
    path = sys.argv[0] if getattr(sys, "argv", None) else ""
    return os.path.basename(path) or "python"
