# SPDX-License-Identifier: BSD-2-Clause
"""Results of tasks that other processes submitted."""

from __future__ import annotations

import itertools
from typing import Any, Optional, Union

from . import _config
from ._config import Connection
from .results import ApplyResult, MapResult, parse_map_id

__all__ = ["attach"]


class _Attached:
    """What results need of a pool, without one."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._ledger = self
        self._jobs = itertools.count()

    def _enter(self, result: Any) -> int:
        return next(self._jobs)

    def _leave(self, job: int) -> None:
        """Nothing waits for it."""

    def delivered(self, first: int, count: int = 1, size: int = 0) -> None:
        """Results stay where they are: another process may attach, too."""


def attach(id: Union[int, str], connection: Optional[Connection] = None) -> ApplyResult:
    """The result of the task, or map, with this id (AsyncResult.id), submitted by any process, on
    any host. get() raises TaskGone if the broker does not keep the result any more."""
    connection = connection or _config.default_connection()
    owner = _Attached(connection)
    if isinstance(id, str) and not id.isdigit():
        return _attach_map(owner, id)
    result = ApplyResult(owner)
    connection.call(connection.hub.attach, int(id), 1, [result])
    return result


def _attach_map(owner: _Attached, text: str) -> MapResult:
    length, chunksize, ranges = parse_map_id(text)
    result = MapResult(owner, chunksize, length)
    for number, first, count in ranges:
        part = result._add(number, count)
        owner._connection.call(owner._connection.hub.attach, first, count, part)
    if length:
        result._fed()
    return result
