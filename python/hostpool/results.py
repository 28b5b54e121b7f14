# SPDX-License-Identifier: BSD-2-Clause
"""What the asynchronous methods of a Pool return."""

from __future__ import annotations

import re
import threading
import time
import types
from collections.abc import Callable
from multiprocessing import TimeoutError
from typing import TYPE_CHECKING, Any, Optional, cast

from . import _hostpool, _payload, exceptions
from ._outcome import (_decode_lock, _NOTHING, _undecodable, ATTEMPT, call_back, CANCEL_FORCE,
                       CANCEL_QUEUED, decode_outcome, ID, INDEX, LOOK_SECONDS, NODE, Outcome,
                       RESULT, STATE, STATE_DONE, STATUS, without_user)

if TYPE_CHECKING:
    from ._config import Connection

__all__ = ["ApplyResult", "AsyncResult", "MapResult"]

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
        """Cancels it if it waits at the broker, given to no worker yet. True: it never will run,
        and get() raises TaskCancelled."""
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
                 "_errors", "_is_single", "_ids", "_lock", "_lost")

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
        self._lost: Optional[BaseException] = None
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
        """(index of the item, exception, host, attempts) of each chunk that failed so far. The
        index is that of the item that raised, or of the chunk's first where that is not known."""
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

    def _forked(self, error: BaseException) -> None:
        super()._forked(error)
        self._lost = error

    def wait_accepted(self, timeout: Optional[float] = None) -> bool:
        """Waits until the broker has all tasks of the map."""
        if self._lost is not None:
            raise self._lost
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
    """map:LENGTH:CHUNKSIZE:NUMBER@FIRST+COUNT,... — NUMBER: of the first chunk of a range of
    ids."""
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
