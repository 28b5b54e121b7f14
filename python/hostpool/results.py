# SPDX-License-Identifier: BSD-2-Clause
"""What the asynchronous methods of a Pool return."""

from __future__ import annotations

import logging
import re
import signal
import sys
import threading
import time
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import TimeoutError
from typing import TYPE_CHECKING, Any, Optional, cast

from . import _hostpool, _payload, exceptions
from .exceptions import RemoteTraceback

if TYPE_CHECKING:
    from ._config import Connection
    from .pool import Pool

__all__ = ["ApplyResult", "AsyncResult", "IMapIterator", "IMapUnorderedIterator", "MapResult"]

_log = logging.getLogger("hostpool")

# Places in the tuple of an end.
USER, ID, STATE, REASON, ATTEMPT, NODE, RESULT, ERROR = range(8)
EXIT_CODE, SIGNAL, MAXRSS_KB, OUT, ERR, STATUS, TEXT, INDEX = range(8, 16)

# Of proto/states.toml (hostpool._messages is large, and not needed for anything else).
STATE_DONE, STATE_FAILED, STATE_CANCELLED, STATE_EXPIRED, STATE_GONE = 9, 10, 11, 12, 13

REASON_ERROR, REASON_EXIT, REASON_SIGNAL, REASON_CHILD_SIGNAL, REASON_CHILD_EXIT = 1, 2, 3, 4, 5
REASON_OOM, REASON_TIMEOUT = 6, 7
REASON_RESULT_TOO_BIG, REASON_DEADLINE, REASON_CANCELLED = 12, 13, 16
REASON_DAMAGED, REASON_INIT_FAILED, REASON_POOL_ENDED = 18, 19, 20

CANCEL_FORCE, CANCEL_QUEUED = 0, 2

# Chunks submitted and decoded together.
SLICE_CHUNKS = 4096
SLICE_BYTES = 4 << 20

LOOK_SECONDS = 5.0

_decode_lock = threading.Lock()

# The result of a task of another kind that has none.
_NOTHING = b"\x80\x05N."

Outcome = tuple[bool, Any]


# ---------------------------------------------------------------- from ends to exceptions

def _rebuild_exception(end: Any) -> BaseException:
    """The task's own exception, with the remote traceback as its cause."""
    pickled, text, info, name, message = _payload.decode_error(end[RESULT])
    if info.get("kind") == "exit":
        return exceptions.WorkerExit(info.get("code"), host=end[NODE] or info.get("host"))
    error: Optional[BaseException] = None
    reason = ""
    if pickled is not None:
        try:
            error = _payload.decode_value(pickled)
        except BaseException as caught:
            if isinstance(caught, KeyboardInterrupt):
                raise
            reason = f" (it cannot be unpickled here: {caught!r})"
    if not isinstance(error, Exception):
        error = exceptions.RemoteError(f"{name}: {message}{reason}", name)
    error.__cause__ = _remote_traceback(text, info, end)
    return error


def _remote_traceback(text: str, info: dict[str, Any], end: Any) -> BaseException:
    host = info.get("host") or end[NODE]
    lines = (f"host: {host}\nworker: {info.get('node') or end[NODE]}, pid {info.get('pid')}\n"
             f"attempt: {end[ATTEMPT]}\n")
    cause: BaseException = RemoteTraceback(f'\n"""\n{text}\n{lines}"""')
    return cause


def _lost(end: Any) -> BaseException:
    peak = end[MAXRSS_KB]
    return exceptions.WorkerLost(
        signal=end[SIGNAL] or (int(signal.SIGKILL) if end[REASON] == REASON_OOM else None),
        oom=end[REASON] == REASON_OOM, host=end[NODE], peak_rss=peak * 1024 if peak else None,
        attempts=end[ATTEMPT])


def _failure(end: Any) -> BaseException:
    """The exception of a task that failed."""
    reason = end[REASON]
    result = end[RESULT]
    if result is not None and _payload.is_error(result):
        return _rebuild_exception(end)
    text = end[ERROR] or ""
    if reason == REASON_POOL_ENDED:
        return exceptions.PoolTerminated(text or "the pool was terminated")
    if reason == REASON_INIT_FAILED:
        return exceptions.InitializerError(text or "no child of the pool could be set up")
    if reason in (REASON_EXIT, REASON_CHILD_EXIT):
        return exceptions.WorkerExit(end[EXIT_CODE], host=end[NODE])
    if reason in (REASON_TIMEOUT, REASON_DEADLINE):
        return exceptions.TaskTimeout(text or "the task took too long")
    if reason == REASON_RESULT_TOO_BIG:
        return exceptions.QuotaExceeded(text or "the result is too big", "too_big")
    if reason == REASON_CANCELLED:
        return exceptions.TaskCancelled(text or "the task was cancelled")
    if reason in (REASON_ERROR, REASON_DAMAGED):
        return exceptions.RemoteError(text or "the task failed")
    return _lost(end)


def exception_of(end: Any) -> BaseException:
    """The exception of a task that did not succeed."""
    state = end[STATE]
    if end[STATUS] != "ok":
        if end[STATUS] == "not_found" or state >= STATE_GONE:
            return exceptions.TaskGone(end[TEXT] or "the broker does not keep the task any more")
        return exceptions.from_status(end[STATUS], end[TEXT])
    if state == STATE_CANCELLED:
        if end[REASON] == REASON_POOL_ENDED:
            return exceptions.PoolTerminated(end[ERROR] or "the pool was terminated")
        return exceptions.TaskCancelled(end[ERROR] or "the task was cancelled")
    if state == STATE_EXPIRED:
        return exceptions.TaskTimeout(end[ERROR] or "the task expired")
    if state >= STATE_GONE:
        return exceptions.TaskGone(end[ERROR] or "the broker does not keep the task any more")
    return _failure(end)


def _is_success(end: Any) -> bool:
    return bool(end[STATE] == STATE_DONE and end[STATUS] == "ok")


def decode_outcome(end: Any) -> Outcome:
    """(success, value or exception) of an end."""
    try:
        if _is_success(end):
            return True, _payload.decode_value(end[RESULT])
        return False, exception_of(end)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return False, _undecodable(end[ID], error)


def without_user(end: Any) -> Any:
    """An end that may be kept by its own user, without a cycle."""
    return (None,) + end[1:]


def _undecodable(number: Any, error: BaseException) -> BaseException:
    broken = exceptions.RemoteError(
        f"the result of task {number} cannot be unpickled here: {error!r}",
        f"{type(error).__module__}.{type(error).__qualname__}")
    broken.__cause__ = error
    return broken


def call_back(callback: Callable[[Any], object], value: Any) -> None:
    """Runs a callback of the user's; its exception is logged."""
    try:
        callback(value)
    except KeyboardInterrupt:
        raise
    except BaseException:
        _log.exception("hostpool: a callback failed: %r", callback)


# ---------------------------------------------------------------- one call

class ApplyResult(_hostpool.Flag):
    """The result of Pool.apply_async()."""

    __slots__ = ("_pool", "_connection", "_job", "_callback", "_error_callback", "_end", "_data",
                 "_node", "_attempt", "_outcome", "_has_called", "__dict__", "__weakref__")

    def __init__(self, pool: Any, callback: Optional[Callable[[Any], object]] = None,
                 error_callback: Optional[Callable[[BaseException], object]] = None) -> None:
        self._pool = pool
        self._connection: Connection = pool._connection
        self._callback = callback
        self._error_callback = error_callback
        self._end: Any = None         # of a failure
        self._data: Any = None        # of a success, not yet unpickled
        self._node: Optional[str] = None
        self._attempt = 0
        self._outcome: Optional[Outcome] = None
        self._has_called = False
        self._job: int = pool._enter(self)

    # ------------------------------------------------------------ from the connection

    def _ended(self, end: Any) -> None:
        if self:
            return
        self._node = end[NODE]
        self._attempt = end[ATTEMPT]
        if end[STATE] == STATE_DONE and end[STATUS] == "ok":
            self._data = _NOTHING if end[RESULT] is None else end[RESULT]
        else:
            self._end = without_user(end)
        if self._callback is not None or self._error_callback is not None:
            self._call_back(self._decoded())
        pool = self._pool
        self.set()
        if pool is not None:
            pool._leave(self._job)
            if end[ID]:
                pool._ledger.delivered(end[ID], 1, len(end[RESULT] or b""))
            self._pool = None

    def _fail(self, error: BaseException) -> None:
        """Ends it here: it could not be submitted, or the pool was terminated."""
        if self:
            return
        with _decode_lock:
            if self._outcome is None:
                self._outcome = (False, error)
        self._call_back(self._outcome)
        pool = self._pool
        self.set()
        if pool is not None:
            pool._leave(self._job)
            self._pool = None

    def _forked(self, error: BaseException) -> None:
        """In a forked child: it never comes."""
        self._callback = self._error_callback = None
        self._outcome = (False, error)
        self._pool = None
        self.set()

    def _call_back(self, outcome: Outcome) -> None:
        if self._has_called:
            return
        self._has_called = True
        callback = self._callback if outcome[0] else self._error_callback
        self._callback = self._error_callback = None
        if callback is not None:
            call_back(callback, outcome[1])

    def _decoded(self) -> Outcome:
        outcome = self._outcome
        if outcome is None:
            end, data = self._end, self._data
            if end is not None:
                outcome = decode_outcome(self._with_node(end))
            elif data is not None:
                try:
                    outcome = (True, _payload.decode_value(data))
                except KeyboardInterrupt:
                    raise
                except BaseException as error:
                    outcome = (False, _undecodable(super().id, error))
            with _decode_lock:
                if self._outcome is None:  # no other thread was faster
                    self._outcome = outcome
                    self._end = self._data = None
                outcome = self._outcome
            assert outcome is not None
        return outcome

    def _with_node(self, end: Any) -> Any:
        """Broadcast ends do not say where the task ran; what has no other text should."""
        if end[NODE] is None and end[ID] and end[RESULT] is None:
            self._node = self._find_node(end[ID])
            return end[:NODE] + (self._node,) + end[NODE + 1:]
        return end

    def _find_node(self, number: int) -> Optional[str]:
        connection = self._connection
        if not connection.may_wait():
            return None
        try:
            return connection.call(connection.hub.task_state, number, LOOK_SECONDS)[3]
        except exceptions.HostpoolError:  # forgotten by now
            return None

    # ------------------------------------------------------------ multiprocessing's

    def ready(self) -> bool:
        """Whether the call has ended."""
        return self.is_set()

    def successful(self) -> bool:
        """Whether it ended without an exception. ValueError: it has not ended."""
        if not self:
            raise ValueError(f"{self!r} not ready")
        return self._decoded()[0]

    def wait(self, timeout: Optional[float] = None) -> None:
        """Waits until the call has ended, at most timeout seconds."""
        if not self:
            self._connection.wait(self, timeout)

    def get(self, timeout: Optional[float] = None) -> Any:
        """The value, or raises the call's exception. TimeoutError (multiprocessing's): not ended
        within timeout seconds."""
        if not self:
            self._connection.wait(self, timeout)
            if not self:
                raise TimeoutError
        is_success, value = self._outcome or self._decoded()
        if is_success:
            return value
        raise value

    __class_getitem__ = classmethod(types.GenericAlias)

    # ------------------------------------------------------------ hostpool's

    def wait_accepted(self, timeout: Optional[float] = None) -> bool:
        """Waits until the broker has the task, on its disk if the pool is durable."""
        return bool(self._connection.call(self._connection.hub.wait_accepted, self, timeout))

    @property
    def id(self) -> Any:
        """The task's id, good for hostpool.attach() in any process; waits until the broker has the
        task. None: it could not be submitted."""
        number = super().id
        if number is None and not self:
            self.wait_accepted()
            number = super().id
        return number

    @property
    def host(self) -> Optional[str]:
        """Name of the worker that ran, or runs, it; None: none did yet."""
        if self and self._node is None and super().id is not None:
            self._node = self._find_node(self.id)
        return self._node if self else cast(Optional[str], self._state_now()[3])

    @property
    def attempts(self) -> int:
        """How often it was started."""
        if self:
            return self._attempt
        return int(self._state_now()[2])

    def _state_now(self) -> Any:
        return self._connection.call(self._connection.hub.task_state, self.id)

    def _ranges(self) -> list[tuple[int, int]]:
        number = self.id
        return [] if number is None else [(number, 1)]

    def _cancel(self, how: int, grace: float) -> dict[str, int]:
        ranges = [] if self else self._ranges()
        if not ranges:
            return {}
        hub = self._connection.hub
        return self._connection.call(hub.cancel, ranges, how=how, grace_s=grace)

    def cancel(self, grace: float = 10.0) -> bool:
        """Cancels it: if it runs, with SIGTERM and, grace seconds later, SIGKILL. get() then raises
        TaskCancelled. False: it has ended."""
        counts = self._cancel(CANCEL_FORCE, grace)
        return bool(counts.get("cancelled") or counts.get("cancelling"))

    def cancel_queued(self) -> bool:
        """Cancels it if it does not run yet. True: it never will, and get() raises TaskCancelled."""
        return bool(self._cancel(CANCEL_QUEUED, 0.0).get("cancelled"))


AsyncResult = ApplyResult


# ---------------------------------------------------------------- map

class _Slice(_hostpool.Flag):
    """Chunks of a map that were submitted together. numbers: of the chunks, or their first.

    _ended may be called again for an end it has seen (after a KeyboardInterrupt), so `hits` counts
    before an end is stored, and may come out too high, never too low.
    """

    __slots__ = ("result", "numbers", "ends", "hits")

    def __init__(self, result: "MapResult", numbers: Any, count: int) -> None:
        self.result = result
        self.numbers = numbers
        self.ends: list[Any] = [None] * count
        self.hits = 0

    def number(self, index: int) -> int:
        """Number of a chunk."""
        numbers = self.numbers
        return numbers + index if type(numbers) is int else int(numbers[index])

    def _ended(self, end: Any) -> None:
        index = end[INDEX]
        ends = self.ends
        if ends is None or ends[index] is not None:
            return
        self.hits += 1
        if end[STATE] == STATE_DONE and end[STATUS] == "ok":
            ends[index] = end[RESULT]
        else:
            self.result._chunk_failed(self.number(index), without_user(end))
            ends[index] = _FAILED
        if self.hits >= len(ends) and None not in ends:
            self.result._slice_ended(self)


class _Failed:
    """Stands for the result of a chunk that failed."""

    def __len__(self) -> int:
        return 0


_FAILED = _Failed()


class MapResult(ApplyResult):
    """The result of Pool.map_async() and starmap_async()."""

    __slots__ = ("_chunksize", "_length", "_items", "_slices", "_late", "_is_fed", "_first_error",
                 "_errors", "_is_single", "_ids", "_lock")

    def __init__(self, pool: Any, chunksize: int, length: int,
                 callback: Optional[Callable[[Any], object]] = None,
                 error_callback: Optional[Callable[[BaseException], object]] = None) -> None:
        super().__init__(pool, callback, error_callback)
        self._chunksize = chunksize
        self._length = length
        self._is_single = chunksize == 1
        self._items: list[Any] = []
        self._slices: set[_Slice] = set()
        self._late: list[_Slice] = []
        self._is_fed = False
        self._first_error: Any = None  # an exception, or the end of a task
        self._errors: dict[int, Any] = {}
        self._ids: list[_Slice] = []
        self._lock = threading.RLock()
        if length == 0:  # ready at once, without callbacks, as multiprocessing
            self._outcome = (True, [])
            self.set()
            pool._leave(self._job)
            self._pool = None

    # ------------------------------------------------------------ from the connection

    def _add(self, numbers: Any, count: int) -> _Slice:
        part = _Slice(self, numbers, count)
        self._slices.add(part)
        self._ids.append(part)
        return part

    def _not_submitted(self, part: _Slice, error: BaseException) -> None:
        for index in range(len(part.ends)):
            self._chunk_failed(part.number(index), error)
        part.ends = [_FAILED] * len(part.ends)
        self._slice_ended(part)

    def _chunk_failed(self, number: int, end: Any) -> None:
        """end: of the task, or the exception."""
        self._errors[number] = end
        if self._first_error is None:
            self._first_error = end

    def _slice_ended(self, part: _Slice) -> None:
        if part not in self._slices:
            return
        size = len(part.ends[0] or b"") if part.ends else 0  # of one for all: large or not
        if part not in self._late:
            self._late.append(part)
        if not self._is_fed or len(self._slices) > 1:
            self._take_late()
        if self._pool is not None:
            for _, first, count in part.ids():
                self._pool._ledger.delivered(first, count, size)
        self._slices.discard(part)
        self._end_if_complete()

    def _fed(self) -> None:
        """All chunks have been submitted."""
        self._is_fed = True
        self._end_if_complete()

    def _end_if_complete(self) -> None:
        if not self._is_fed or self._slices or self:
            return
        if self._first_error is not None:
            self._items, self._late = [], []
        if self._callback is not None or self._error_callback is not None:
            self._call_back(self._decoded())
        pool = self._pool
        self.set()
        if pool is not None:
            pool._leave(self._job)
            self._pool = None

    def _take_late(self) -> None:
        """Decodes the slices that have ended, into the list of results."""
        while self._late:
            part = self._late[0]
            if part.ends is not None and self._first_error is None:
                self._decode_slice(part)
            part.ends = cast(Any, None)
            del self._late[0]

    def _decode_slice(self, part: _Slice) -> None:
        if not self._items:
            self._items = [None] * self._length
        loads, items, size = _payload.decode_value, self._items, self._chunksize
        ends = part.ends
        try:
            if self._is_single and type(part.numbers) is int:
                first = part.numbers
                items[first:first + len(ends)] = [loads(data) for data in ends]
                return
            for index, data in enumerate(ends):
                if data is _FAILED:  # decoded before an interrupt
                    continue
                number = part.number(index)
                if self._is_single:
                    items[number] = loads(data)
                else:
                    items[number * size:(number + 1) * size] = loads(data)
                ends[index] = _FAILED
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            broken = exceptions.RemoteError(f"a result cannot be unpickled here: {error!r}")
            broken.__cause__ = error
            self._chunk_failed(part.number(0), broken)

    def _exception(self, end: Any) -> BaseException:
        if isinstance(end, BaseException):
            return end
        error = decode_outcome(self._with_node(end))[1]
        assert isinstance(error, BaseException)
        return error

    def _decoded(self) -> Outcome:
        if self._outcome is None:
            with self._lock:
                if self._outcome is None:
                    self._take_late()
                    if self._first_error is not None:
                        self._outcome = (False, self._exception(self._first_error))
                        self._items = []
                    else:
                        self._outcome = (True, self._items)
        outcome = self._outcome
        assert outcome is not None
        return outcome

    # ------------------------------------------------------------ hostpool's

    def errors(self) -> list[tuple[int, BaseException, Optional[str], int]]:
        """(index of the item, exception, host, attempts) of each chunk that failed so far. The index
        is that of the item that raised, or of the chunk's first where that is not known."""
        found = []
        for number, end in list(self._errors.items()):
            index = number * self._chunksize
            error = self._exception(end)
            if isinstance(end, BaseException):
                found.append((index, end, None, 0))
                continue
            if end[NODE] is None:
                end = end[:NODE] + (getattr(error, "host", None),) + end[NODE + 1:]
            if end[RESULT] is not None and _payload.is_error(end[RESULT]):
                info = _payload.decode_error(end[RESULT])[2]
                index += info.get("item") or 0
                end = end[:NODE] + (end[NODE] or info.get("node"),) + end[NODE + 1:]
            found.append((index, error, end[NODE], end[ATTEMPT]))
        return sorted(found, key=lambda row: row[0])

    def wait_accepted(self, timeout: Optional[float] = None) -> bool:
        """Waits until the broker has all tasks of the map."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self._is_fed and not self:
            if end is not None and time.monotonic() >= end:
                return False
            self._connection.wait(self, 0.01)
        hub = self._connection.hub
        for part in self._ids:
            left = None if end is None else max(0.0, end - time.monotonic())
            if not self._connection.call(hub.wait_accepted, part, left):
                return False
        return True

    @property
    def id(self) -> Any:
        """A word that names all tasks of the map, good for hostpool.attach() in any process; waits
        until the broker has them. See docs/multiprocessing.md for its form."""
        self.wait_accepted()
        ranges = []
        for part in self._ids:
            for index, first, count in part.ids():
                ranges.append((part.number(index), first, count))
        return format_map_id(self._length, self._chunksize, ranges)

    def _ranges(self) -> list[tuple[int, int]]:
        self.wait_accepted()
        return [(first, count) for part in self._ids for _, first, count in part.ids()]

    @property
    def host(self) -> Optional[str]:
        """Maps run on many hosts: None."""
        return None

    @property
    def attempts(self) -> int:
        """Maps have many tasks: 0."""
        return 0


def format_map_id(length: int, chunksize: int, ranges: list[tuple[int, int, int]]) -> str:
    """map:LENGTH:CHUNKSIZE:NUMBER@FIRST+COUNT,... — NUMBER: of the first chunk of a range of ids."""
    joined: list[list[int]] = []
    for number, first, count in sorted(ranges):
        last = joined[-1] if joined else None
        if last and last[0] + last[2] == number and last[1] + last[2] == first:
            last[2] += count
        else:
            joined.append([number, first, count])
    return (f"map:{length}:{chunksize}:"
            + ",".join(f"{number}@{first}+{count}" for number, first, count in joined))


def parse_map_id(text: str) -> tuple[int, int, list[tuple[int, int, int]]]:
    """(length, chunksize, [(number, first, count)]) of format_map_id's text."""
    found = re.fullmatch(r"map:(\d+):(\d+):((?:\d+@\d+\+\d+)(?:,\d+@\d+\+\d+)*)?", text)
    if found is None:
        raise ValueError(f"not the id of a task or a map: {text!r}")
    ranges = []
    for part in (found[3] or "").split(","):
        if part:
            number, first, count = re.split(r"[@+]", part)
            ranges.append((int(number), int(first), int(count)))
    return int(found[1]), int(found[2]), ranges


# ---------------------------------------------------------------- imap

class _Item(_hostpool.Flag):
    """One call of an imap. stream becomes None when its end was taken."""

    __slots__ = ("stream", "index", "size", "data", "end")

    def __init__(self, stream: "Stream", index: int, size: int) -> None:
        self.stream: Optional[Stream] = stream
        self.index = index
        self.size = size
        self.data: Any = None  # of a success
        self.end: Any = None   # of a failure: the end, or an exception

    def _ended(self, end: Any) -> None:
        stream = self.stream
        if stream is None:
            return
        if end[STATE] == STATE_DONE and end[STATUS] == "ok" and end[RESULT] is not None:
            self.data = data = end[RESULT]
            size = len(data)
            self.size += size
            stream.bytes += size
        else:
            self.end = without_user(end)
        if end[ID]:
            stream.ledger.delivered(end[ID], 1, len(end[RESULT] or b""))
        stream._arrived(self)

    def value(self) -> Any:
        """What the call returned; raises what it raised."""
        if self.end is None:
            try:
                return _payload.decode_value(self.data)
            except Exception as error:
                raise _undecodable(super().id, error) from error
        if isinstance(self.end, BaseException):
            raise self.end
        is_success, value = decode_outcome(self.end)
        if is_success:
            return value
        raise value


# Iterables that cannot wait for anything, and do not change the world: fed where it suits.
_DIRECT = (range, list, tuple, str, bytes, dict, set, frozenset)


class Stream:
    """The work of an imap: takes items from the iterable, submits them, keeps what has arrived.

    At most `limit` calls are submitted and not taken by the consumer. The default limit grows while
    calls are small, and is always at least 4 for each process. close() of the pool, or the end of
    the consumer, lifts it.
    """

    BYTES_MAX = 32 << 20
    ITEMS_MAX = 4096

    def __init__(self, pool: "Pool", function: Any, kind: int, items: Iterable[Any],
                 is_direct: bool, limit: Optional[int], least: int, chunksize: int) -> None:
        self.pool: Any = pool
        self.connection = pool._connection
        self.ledger: Any = pool._ledger
        self.function = function
        self.kind = kind
        self.is_direct = is_direct
        self.is_adaptive = limit is None
        self.least = least
        self.most = max(least, 64, self.ITEMS_MAX // chunksize)
        self.limit: float = max(least, 64) if limit is None else limit
        self.lock = threading.Lock()       # of feeding
        self.take_lock = threading.Lock()
        self.signal = _hostpool.Flag()     # something has arrived, or the end is known
        self.credit = threading.Event()    # for the feeding thread
        self.ready: dict[int, "_Item"] = {}
        self.submitted = 0
        self.taken = 0
        self.bytes: int = 0
        self.length: Optional[int] = None
        self.error: Optional[BaseException] = None  # of the pool
        self.is_discarding = False
        self.has_thread = False
        self.grow_at = 0
        self.feed_at: float = 0  # so many taken: submit more
        self.items: Optional[Iterator[Any]] = None
        self.source = items

    # ------------------------------------------------------------ feeding

    def start(self) -> None:
        """Begins to submit."""
        if self.is_direct:
            self.items = iter(self.source)
            self.source = ()
            self.feed()
        else:
            self._start_thread()

    def _start_thread(self) -> None:
        if not self.has_thread and self.length is None:
            self.has_thread = True
            threading.Thread(target=self._run, name="hostpool-feeder", daemon=True).start()

    def _room(self) -> float:
        if self.is_adaptive and self.bytes > self.BYTES_MAX:
            return self.least - (self.submitted - self.taken)
        return self.limit - (self.submitted - self.taken)

    def feed(self) -> None:
        """Submits what there is room for, if nobody else does. For direct iterables."""
        if not self.is_direct or self.has_thread:
            self.feed_at = float("inf")
            return
        if self.length is not None or not self.lock.acquire(blocking=False):
            return
        try:
            while self.length is None:
                room = self._room()
                if room < 1 or (self.submitted and room < self.limit / 4):
                    break
                self._feed_some(int(min(room, 256)))
            self.feed_at = self.submitted - 3 * self.limit // 4
        finally:
            self.lock.release()

    def _feed_some(self, count: int) -> None:
        """Takes up to count items, or as many as are 1 MiB, and submits them."""
        payloads: list[Any] = []
        users: list[_Item] = []
        total = 0
        assert self.items is not None
        try:
            while len(users) < count and total < 1 << 20:
                payload, item = self._next()
                if payload is not None:
                    payloads.append(payload)
                    users.append(item)
                    total += item.size
        except _Exhausted:
            pass
        if payloads:
            self._submit(payloads, users)
        self._finish_if_fed()

    def _next(self) -> tuple[Any, Any]:
        """The next call's payload and its item; (None, item): it has failed here. _Exhausted: there
        are none."""
        assert self.items is not None
        if self.error is not None:
            self._set_length(self.submitted)
            raise _Exhausted
        try:
            value = next(self.items)
        except StopIteration:
            self._set_length(self.submitted)
            raise _Exhausted from None
        except Exception as error:  # of the iterable: in its place
            self._set_failed(error)
            self._set_length(self.submitted)
            raise _Exhausted from None
        try:
            payload = self.pool._encoder.encode(self.function, self.kind, value)
        except Exception as error:
            self._set_failed(error)
            return None, None
        size = len(payload) if type(payload) is bytes else sum(map(_size, payload))
        item = _Item(self, self.submitted, size)
        self.submitted += 1
        self.bytes += size
        return payload, item

    def _submit(self, payloads: list[Any], users: list[_Item]) -> None:
        hub, options = self.connection.hub, self.pool._options
        try:
            if len(payloads) > 1 and all(type(payload) is bytes for payload in payloads):
                hub.submit_many(options, payloads, users)
            else:
                for payload, item in zip(payloads, users):
                    hub.submit(options, payload, item)
        except Exception as error:
            failure = (exceptions.from_status(getattr(error, "status", ""), str(error))
                       if isinstance(error, _hostpool.error) else error)
            for item in users:
                item.end = failure
                self._arrived(item)

    def _set_failed(self, error: BaseException) -> None:
        item = _Item(self, self.submitted, 0)
        item.end = error
        self.submitted += 1
        self._arrived(item)

    def _set_length(self, length: int) -> None:
        self.length = length
        self.items = None
        self.function = None
        self.signal.set()

    def _finish_if_fed(self) -> None:
        if self.length is not None and self.pool is not None:
            pool, self.pool = self.pool, None
            pool._feed_ended(self)

    def _run(self) -> None:
        """The feeding thread: for iterables that may block, and when nobody calls next()."""
        with self.lock:
            try:
                if self.items is None and self.length is None:
                    self.items = iter(self.source)
                    self.source = ()
                while self.length is None:
                    if self._room() >= 1:
                        self._feed_some(256 if self.is_direct else 1)
                        continue
                    self.credit.clear()
                    if self.error is not None:
                        self._set_length(self.submitted)
                    elif self._room() < 1:
                        self.credit.wait()
            except Exception as error:  # of iter()
                self._set_failed(error)
                self._set_length(self.submitted)
        self._finish_if_fed()

    # ------------------------------------------------------------ from the connection

    def _arrived(self, item: _Item) -> None:
        if self.is_discarding:
            with self.take_lock:
                self._take(item)
            return
        self.ready[item.index] = item
        self.signal.set()

    # ------------------------------------------------------------ consuming

    def _take(self, item: _Item) -> None:
        item.stream = None
        self.taken += 1
        self.bytes -= item.size
        if self.is_adaptive and self.taken >= self.grow_at:
            self._adapt(item)
        if self.has_thread:
            self.credit.set()

    def _adapt(self, item: _Item) -> None:
        average = max(item.size, 64, self.bytes / max(1, self.submitted - self.taken))
        fitting = max(self.least, min(self.most, self.BYTES_MAX / average))
        if self.limit != float("inf"):
            self.limit = int(min(fitting, self.limit * 2))
        self.grow_at = self.taken + int(min(self.limit, self.most)) // 2

    def release(self) -> None:
        """Lifts the limit: nobody may be left who takes results, and all items must be run."""
        if self.length is None:
            self.is_adaptive = False
            self.limit = float("inf")
            self._start_thread()
            self.credit.set()

    def discard(self) -> None:
        """The consumer is gone: results are not kept, but all items are run."""
        self.is_discarding = True
        for index in list(self.ready):
            item = self.ready.pop(index, None)
            if item is not None:
                with self.take_lock:
                    self._take(item)
        if self.length is None:
            self._start_thread()
            self.credit.set()

    def fail(self, error: BaseException) -> None:
        """The pool was terminated."""
        self.error = error
        self.credit.set()
        self.signal.set()
        if not self.has_thread and self.length is None and self.lock.acquire(blocking=False):
            try:
                self._set_length(self.submitted)
            finally:
                self.lock.release()
            self._finish_if_fed()

    def forked(self, error: BaseException) -> None:
        """In a forked child: nothing comes any more."""
        self.lock, self.take_lock = threading.Lock(), threading.Lock()
        self.error = error
        self.pool = self.items = None
        self.length = self.submitted
        self.is_direct = False

    def is_over(self) -> bool:
        """All was taken."""
        return self.length is not None and self.taken >= self.length


class _Exhausted(Exception):
    """There are no more items."""


def _size(piece: Any) -> int:
    return int(memoryview(piece).nbytes)


class IMapIterator:
    """The result of Pool.imap()."""

    _is_ordered = True

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._queue: deque[_Item] = deque()
        self._next_index = 0

    def __iter__(self) -> "IMapIterator":
        return self

    def __del__(self) -> None:
        stream = getattr(self, "_stream", None)
        if stream is not None and not sys.is_finalizing():
            stream.discard()

    def _poll(self) -> Optional[_Item]:
        stream = self._stream
        item = stream.ready.pop(self._next_index, None)
        if item is not None:
            self._next_index += 1
        return item

    def _take(self) -> Optional[_Item]:
        with self._stream.take_lock:
            item = self._poll()
            if item is not None:
                self._stream._take(item)
            return item

    def next(self, timeout: Optional[float] = None) -> Any:
        """The next value, or raises its exception. TimeoutError (multiprocessing's): it did not come
        within timeout seconds; a later next() can get it."""
        stream = self._stream
        end_time = None if timeout is None else time.monotonic() + timeout
        while True:
            item = self._take()
            if item is not None:
                break
            stream.signal.clear()
            item = self._take()
            if item is not None:
                break
            if stream.is_over():
                stream.signal.set()
                raise StopIteration
            if stream.error is not None:
                stream.signal.set()
                raise stream.error
            self._wait(end_time)
        if stream.taken >= stream.feed_at:
            stream.feed()
        return item.value()

    def _wait(self, end_time: Optional[float]) -> None:
        stream = self._stream
        if end_time is None:
            stream.connection.wait(stream.signal, None)
            return
        left = end_time - time.monotonic()
        if left <= 0 or not stream.connection.wait(stream.signal, left):
            if not stream.signal:
                raise TimeoutError from None

    def __next__(self) -> Any:
        return self.next()


class IMapUnorderedIterator(IMapIterator):
    """The result of Pool.imap_unordered()."""

    _is_ordered = False

    def _poll(self) -> Optional[_Item]:
        queue = self._queue
        if not queue:
            ready = self._stream.ready
            for index in list(ready):
                queue.append(ready.pop(index))
        return queue.popleft() if queue else None
