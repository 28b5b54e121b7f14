# SPDX-License-Identifier: BSD-2-Clause
"""A concurrent.futures.Executor whose workers are anywhere.

    from hostpool import Executor
    with Executor() as executor:
        print(list(executor.map(pow, range(10), range(10))))

It differs from ProcessPoolExecutor where that one loses work: a worker that dies fails only the
call it ran (with WorkerLost), and the executor stays usable.
"""

from __future__ import annotations

import functools
import itertools
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor as _BaseExecutor
from concurrent.futures import Future as _BaseFuture
from typing import Any, Optional, TypeVar

from .exceptions import TaskCancelled
from .multiprocessing import Pool

__all__ = ["Executor", "Future"]

_T = TypeVar("_T")


class Future(_BaseFuture):  # type: ignore[type-arg]
    """A concurrent.futures.Future which asks the broker before it says that it is cancelled."""

    _hostpool_result: Any = None

    @property
    def id(self) -> Optional[int]:
        """The task's id, good for hostpool.attach in any process; None before it is accepted."""
        result = self._hostpool_result
        return None if result is None else result.id

    def cancel(self) -> bool:
        """Cancels the call if it waits at the broker: True if it never will run. One that was given
        to a worker ahead of others does, and False is returned."""
        if self.cancelled():
            return True
        if self.done():
            return False
        result = self._hostpool_result
        if result is not None and not result.cancel_queued():
            return False
        return self._cancelled()

    def _cancelled(self) -> bool:
        """It will never run. Its end may tell so, on another thread, while cancel() still waits."""
        if not super().cancel():
            return self.cancelled()
        own: Any = self  # a Future's condition and state have no types
        with own._condition:
            if own._state == "CANCELLED":
                self.set_running_or_notify_cancel()
        return True


def _settle(reference: "weakref.ref[Future]", owner: "weakref.ref[Executor]", is_error: bool,
            value: Any) -> None:
    future = reference()
    executor = owner()
    if executor is not None:
        executor._ended(future)
    if future is None:
        return
    try:
        if is_error and isinstance(value, TaskCancelled) and future._cancelled():
            return
        if future.cancelled() or future.done() or not future.set_running_or_notify_cancel():
            return
        if is_error:
            future.set_exception(value)
        else:
            future.set_result(value)
    except Exception:  # cancelled by another thread between the look and the call
        if not future.done():
            raise


def _run_chunk(fn: Callable[..., _T], chunk: list[tuple[Any, ...]]) -> list[_T]:
    """What the executor's map runs in a child."""
    return [fn(*args) for args in chunk]


def _chunks(iterables: tuple[Iterable[Any], ...], size: int) -> Iterator[list[tuple[Any, ...]]]:
    items = zip(*iterables)
    while chunk := list(itertools.islice(items, size)):
        yield chunk


def _results(futures: "list[Future]", end: Optional[float]) -> Iterator[list[Any]]:
    futures.reverse()
    try:
        while futures:
            future = futures.pop()
            left = None if end is None else end - time.monotonic()
            try:
                yield future.result(left)
            finally:
                future.cancel()
                del future
    finally:
        for future in futures:
            future.cancel()


class Executor(_BaseExecutor):
    """Runs calls in the children of one hostpool Pool.

    max_workers: children, over all hosts; None: one for each slot of the farm.
    initializer, initargs: called once in each child. max_tasks_per_child: a child is replaced after
    this many calls. Further keywords are those of hostpool.multiprocessing.Pool (durable=...).
    """

    def __init__(self, max_workers: Optional[int] = None, mp_context: Any = None,
                 initializer: Optional[Callable[..., object]] = None,
                 initargs: tuple[Any, ...] = (), *, max_tasks_per_child: Optional[int] = None,
                 **pool_options: Any) -> None:
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        del mp_context  # the children are hostpool's whatever the local start method is
        self._pool = Pool(max_workers, initializer, initargs, max_tasks_per_child, **pool_options)
        self._lock = threading.Lock()
        self._open: set[Future] = set()
        self._is_shut_down = False

    @property
    def pool(self) -> Any:
        """The Pool behind it."""
        return self._pool

    def _ended(self, future: Optional[Future]) -> None:
        if future is not None:
            with self._lock:
                self._open.discard(future)

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future:
        """Submits fn(*args, **kwargs). It is durable once the future's id is not None."""
        if not callable(fn):
            raise TypeError(f"submit needs a callable, not {type(fn).__name__}")
        future = Future()
        with self._lock:
            if self._is_shut_down:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._open.add(future)
        reference, owner = weakref.ref(future), weakref.ref(self)
        try:
            future._hostpool_result = self._pool.apply_async(
                fn, args, kwargs,
                callback=functools.partial(_settle, reference, owner, False),
                error_callback=functools.partial(_settle, reference, owner, True))
        except BaseException:
            self._ended(future)
            raise
        return future

    def map(self, fn: Callable[..., _T], *iterables: Iterable[Any],
            timeout: Optional[float] = None, chunksize: int = 1,
            buffersize: Optional[int] = None) -> Iterator[_T]:
        """Like the built-in map, but the calls run side by side; results come in order.

        chunksize: items per call sent to a child. buffersize: submit at most this many items ahead
        of what was consumed; None: all at once. timeout: seconds, for all of it.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        end = None if timeout is None else time.monotonic() + timeout
        run = functools.partial(_run_chunk, fn)
        chunks = _chunks(iterables, chunksize)
        if buffersize is None:
            futures = [self.submit(run, chunk) for chunk in chunks]
            return itertools.chain.from_iterable(_results(futures, end))
        ahead = max(1, buffersize // chunksize)
        first = [self.submit(run, chunk) for chunk in itertools.islice(chunks, ahead)]
        return itertools.chain.from_iterable(self._buffered(run, chunks, first, end))

    def _buffered(self, run: Callable[..., list[_T]], chunks: Iterator[list[tuple[Any, ...]]],
                  futures: list[Future], end: Optional[float]) -> Iterator[list[_T]]:
        try:
            while futures:
                future = futures.pop(0)
                left = None if end is None else end - time.monotonic()
                result: list[_T] = future.result(left)
                for chunk in itertools.islice(chunks, 1):
                    futures.append(self.submit(run, chunk))
                yield result
        finally:
            for future in futures:
                future.cancel()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """No more calls. wait: until all have ended. cancel_futures: those that wait at the broker
        never run; short ones are given to workers ahead, and run."""
        with self._lock:
            self._is_shut_down = True
            futures = list(self._open)
        if cancel_futures:
            for future in futures:
                future.cancel()
        self._pool.close()
        if wait:
            self._pool.join()
