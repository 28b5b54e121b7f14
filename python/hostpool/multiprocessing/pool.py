# SPDX-License-Identifier: BSD-2-Clause
"""The names of multiprocessing.pool: hostpool's Pool and results; ThreadPool is the standard
one."""

from __future__ import annotations

from multiprocessing.pool import ThreadPool
from typing import Any

from ..exceptions import MaybeEncodingError, RemoteTraceback
from ..pool import CLOSE, INIT, RUN, TERMINATE, Pool
from .._streams import IMapIterator, IMapUnorderedIterator
from ..results import ApplyResult, AsyncResult, MapResult

__all__ = [
    "CLOSE", "INIT", "RUN", "TERMINATE", "ApplyResult", "AsyncResult", "IMapIterator",
    "IMapUnorderedIterator", "MapResult", "MaybeEncodingError", "Pool", "RemoteTraceback",
    "ThreadPool",
]


def __getattr__(name: str) -> Any:
    import multiprocessing.pool as standard
    return getattr(standard, name)
