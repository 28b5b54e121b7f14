# SPDX-License-Identifier: BSD-2-Clause
"""What imap and imap_unordered return."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from multiprocessing import TimeoutError
from typing import TYPE_CHECKING, Any, Optional

from . import _hostpool, _payload, exceptions
from ._outcome import (_undecodable, decode_outcome, ID, RESULT, STATE, STATE_DONE, STATUS,
                       without_user)

if TYPE_CHECKING:
    from .pool import Pool

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
        self.again: list[Any] = []  # taken from items when ^C came, and still to be submitted

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
        finally:  # ^C may come: what was taken is submitted
            try:
                if payloads:
                    self._submit(payloads, users)
            finally:
                self._finish_if_fed()

    def _next(self) -> tuple[Any, Any]:
        """The next call's payload and its item; (None, item): it has failed here. _Exhausted: there
        are none."""
        assert self.items is not None
        if self.error is not None:
            self._set_length(self.submitted)
            raise _Exhausted
        try:
            value = self.again.pop() if self.again else next(self.items)
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
        except BaseException:
            self.again.append(value)
            raise
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
        except BaseException as error:
            for item in users:
                if item.end is None and item.data is None and not item.id:
                    item.end = error  # it may have been submitted: then its end is not wanted
                    self._arrived(item)
            raise

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
        self._held: Optional[_Item] = None  # taken when ^C came

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
        """The next value, or raises its exception. TimeoutError (multiprocessing's): it did not
        come within timeout seconds; a later next() can get it."""
        stream = self._stream
        end_time = None if timeout is None else time.monotonic() + timeout
        held, self._held = self._held, None
        if held is not None:
            return held.value()
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
            try:
                stream.feed()
            except BaseException:
                self._held = item
                raise
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
