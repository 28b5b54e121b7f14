# SPDX-License-Identifier: BSD-2-Clause
"""How the inputs of maps become calls: in slices, so that few are in memory as bytes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Optional

from . import _code, _hostpool, _payload, exceptions
from ._outcome import SLICE_BYTES, SLICE_CHUNKS
from .results import MapResult

if TYPE_CHECKING:
    from .pool import Pool

_STAR = {_payload.MAP_ONE: _payload.STAR_ONE, _payload.MAP_CHUNK: _payload.STAR_CHUNK}


def _shown(error: Exception) -> Exception:
    if isinstance(error, _hostpool.error):
        return exceptions.from_status(error.status, str(error))
    return error


def _batches(iterable: Iterable[Any], size: int) -> Iterator[Any]:
    """Chunks of an imap."""
    if type(iterable) is range or type(iterable) is list or type(iterable) is tuple:
        for start in range(0, len(iterable), size):
            yield iterable[start:start + size]
        return
    items = iter(iterable)
    while True:
        chunk = list(itertools.islice(items, size))
        if not chunk:
            return
        yield chunk


class _MapFeed:
    """Submits the chunks of a map, slice by slice, so that few are in memory as bytes."""

    def __init__(self, pool: Pool, result: MapResult, func: Callable[..., Any], iterable: Any,
                 is_star: bool) -> None:
        self.pool = pool
        self.result = result
        self.func: Any = func
        self.iterable = iterable
        self.size = result._chunksize
        self.count = -(-result._length // self.size)
        kind = _payload.MAP_ONE if self.size == 1 else _payload.MAP_CHUNK
        self.kind = _STAR[kind] if is_star else kind
        self.error: Optional[BaseException] = None

    def release(self) -> None:
        """It has no limit to lift."""

    def fail(self, error: BaseException) -> None:
        """The pool was terminated: stops."""
        self.error = error

    forked = fail

    def run(self) -> None:
        """Submits all."""
        pool, result = self.pool, self.result
        number = 0
        try:
            function = pool._encoder.function(self.func, self.count > 1)
            chunks = self._chunks()
            self.iterable = None
            while number < self.count and self.error is None:
                number = self._submit_slice(function, chunks, number)
        except Exception as error:  # of the iterable, or the function cannot be pickled
            self._failed_from(number, error)
        except BaseException:  # ^C: nobody will ask for it, nor may join() wait for it
            pool._leave(result._job)
            raise
        finally:
            result._fed()
            pool._feed_ended(self)

    def _failed_from(self, number: int, error: Exception) -> None:
        if number < self.count:
            self.result._not_submitted(self.result._add(number, 1), _shown(error))

    def _chunks(self) -> Iterator[Any]:
        iterable, size = self.iterable, self.size
        if size == 1:
            return iter(iterable)
        return _batches(iterable, size)

    def _submit_slice(self, function: Any, chunks: Iterator[Any], first: int) -> int:
        """Submits chunks from number first on; returns the first that it did not."""
        pool, result = self.pool, self.result
        encode, kind = pool._encoder.encode, self.kind
        payloads: list[Any] = []
        failed: list[tuple[int, Exception]] = []
        number, total = first, 0
        broken: Optional[Exception] = None
        end = min(self.count, first + SLICE_CHUNKS)
        while number < end and total < SLICE_BYTES:
            try:
                chunk = next(chunks)
            except StopIteration:
                self.count = number  # it was shorter than it said
                break
            except Exception as error:
                broken = error
                break
            try:
                payload = encode(function, kind, chunk)
                payloads.append(payload)
                total += len(payload) if type(payload) is bytes else _code.size_of(payload)
                if type(payload) is not bytes:
                    self._send(payloads[:-1], failed, first, number)
                    self._send([payload], [], number, number + 1)
                    payloads, failed, first = [], [], number + 1
            except Exception as caught:
                failed.append((number, caught))
            number += 1
        self._send(payloads, failed, first, number)
        if broken is not None:
            self._failed_from(number, broken)
            self.count = number
        return number

    def _send(self, payloads: list[Any], failed: list[tuple[int, Exception]], first: int,
              end: int) -> None:
        result = self.result
        bad = dict(failed)
        if payloads:
            numbers: Any = first if not bad else [number for number in range(first, end)
                                                  if number not in bad]
            part = result._add(numbers, len(payloads))
            hub, options = self.pool._hub, self.pool._options
            try:
                if type(payloads[0]) is bytes:
                    hub.submit_many(options, payloads, part)
                else:
                    hub.submit(options, payloads[0], part)  # of pieces: alone
            except Exception as error:
                result._not_submitted(part, _shown(error))
        for number, failure in failed:
            result._not_submitted(result._add(number, 1), failure)
