# SPDX-License-Identifier: BSD-2-Clause
"""hostpool for asyncio.

    import asyncio
    from hostpool import aio

    async def main():
        async with aio.Pool(4) as pool:
            print(await pool.apply(pow, (2, 10)))
            async for result in pool.imap_unordered(abs, range(-5, 0)):
                print(result)

    asyncio.run(main())

The event loop is never blocked: submits wait for the broker in a thread when its window is full.
Cancelling an awaiting task cancels the call on the farm.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Any, Optional, Union

from . import multiprocessing as _mp

__all__ = ["Pool"]

_DONE = object()


def _settle(loop: asyncio.AbstractEventLoop, future: "asyncio.Future[Any]", is_error: bool,
            value: Any) -> None:
    def in_loop() -> None:
        if future.done():
            return
        if is_error:
            future.set_exception(value)
        else:
            future.set_result(value)

    try:
        loop.call_soon_threadsafe(in_loop)
    except RuntimeError:  # the loop was closed: nobody awaits the future any more
        pass


class Pool:
    """multiprocessing.Pool with coroutines; the arguments are those of hostpool's Pool."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._make = functools.partial(_mp.Pool, *args, **kwargs)
        self._pool: Any = None

    async def __aenter__(self) -> "Pool":
        await self._get()
        return self

    async def __aexit__(self, kind: Optional[type[BaseException]], value: Optional[BaseException],
                        traceback: Optional[TracebackType]) -> None:
        if kind is None:
            self.close()
        else:
            await self._in_thread(self._pool.terminate)
        await self.join()

    @staticmethod
    async def _in_thread(call: Callable[..., Any], *args: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, functools.partial(call, *args))

    async def _get(self) -> Any:
        if self._pool is None:
            self._pool = await self._in_thread(self._make)
        return self._pool

    async def _call(self, method: str, *args: Any) -> Any:
        pool = await self._get()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        start = functools.partial(getattr(pool, method), *args,
                                  callback=functools.partial(_settle, loop, future, False),
                                  error_callback=functools.partial(_settle, loop, future, True))
        result = await self._in_thread(start)
        if getattr(result, "_length", 1) == 0:  # an empty map ends without a callback
            return result.get()
        try:
            return await future
        except asyncio.CancelledError:
            await asyncio.shield(self._in_thread(result.cancel))
            raise

    async def apply(self, func: Callable[..., Any], args: tuple[Any, ...] = (),
                    kwds: Optional[dict[str, Any]] = None) -> Any:
        """Runs func(*args, **kwds) on the farm and gives its result."""
        return await self._call("apply_async", func, args, kwds or {})

    async def map(self, func: Callable[..., Any], iterable: Iterable[Any],
                  chunksize: Optional[int] = None) -> list[Any]:
        """Results in the order of the items; the first exception if one failed."""
        result: list[Any] = await self._call("map_async", func, iterable, chunksize)
        return result

    async def starmap(self, func: Callable[..., Any], iterable: Iterable[Any],
                      chunksize: Optional[int] = None) -> list[Any]:
        """As map, with each item a tuple of arguments."""
        result: list[Any] = await self._call("starmap_async", func, iterable, chunksize)
        return result

    def imap(self, func: Callable[..., Any], iterable: Union[Iterable[Any], AsyncIterable[Any]], *,
             buffersize: int = 64) -> AsyncIterator[Any]:
        """Results in order; at most buffersize calls are ahead of what was consumed."""
        return self._stream(func, iterable, buffersize, True)

    def imap_unordered(self, func: Callable[..., Any],
                       iterable: Union[Iterable[Any], AsyncIterable[Any]], *,
                       buffersize: int = 64) -> AsyncIterator[Any]:
        """Results as they come."""
        return self._stream(func, iterable, buffersize, False)

    async def _stream(self, func: Callable[..., Any],
                      iterable: Union[Iterable[Any], AsyncIterable[Any]], buffersize: int,
                      is_ordered: bool) -> AsyncIterator[Any]:
        if buffersize < 1:
            raise ValueError("buffersize must be at least 1")
        items = _as_async(iterable)
        running: list[asyncio.Task[Any]] = []
        try:
            item = await _next(items)
            while item is not _DONE or running:
                while item is not _DONE and len(running) < buffersize:
                    running.append(asyncio.ensure_future(self.apply(func, (item,))))
                    item = await _next(items)
                if not is_ordered:
                    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    ended = [task for task in running if task.done()]
                    running = [task for task in running if not task.done()]
                    for task in ended:
                        yield task.result()
                else:
                    yield await running.pop(0)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def close(self) -> None:
        """No more calls; those submitted are run."""
        if self._pool is not None:
            self._pool.close()

    def terminate(self) -> None:
        """Ends all calls."""
        if self._pool is not None:
            self._pool.terminate()

    async def join(self) -> None:
        """Waits until the pool, closed or terminated before, has ended."""
        if self._pool is not None:
            await self._in_thread(self._pool.join)


async def _as_async(iterable: Union[Iterable[Any], AsyncIterable[Any]]) -> AsyncIterator[Any]:
    if isinstance(iterable, AsyncIterable):
        async for item in iterable:
            yield item
    else:
        for item in iterable:
            yield item


async def _next(items: AsyncIterator[Any]) -> Any:
    try:
        return await items.__anext__()
    except StopAsyncIteration:
        return _DONE
