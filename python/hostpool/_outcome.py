# SPDX-License-Identifier: BSD-2-Clause
"""How tasks have ended, as Python sees it: places in the tuples of ends, and exceptions."""

from __future__ import annotations

import logging
import re
import signal
import threading
from collections.abc import Callable
from typing import Any, Optional

from . import _payload, exceptions
from .exceptions import RemoteTraceback

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


# How the broker refuses calls of a pool that could not be set up anywhere, or that somebody else
# has ended.
_POOL_FAILED = re.compile(r"pool \d+: it failed: ")
_POOL_ENDED = re.compile(r"pool \d+: it (was terminated|is closed|was closed and has ended)")


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
        if end[STATUS] == "not_found" or (state >= STATE_GONE and end[STATUS] != "broker_lost"):
            return exceptions.TaskGone(end[TEXT] or "the broker does not keep the task any more")
        if end[STATUS] == "illegal_state" and _POOL_FAILED.match(end[TEXT] or ""):
            return exceptions.InitializerError(end[TEXT])  # as its earlier calls
        if end[STATUS] == "illegal_state" and _POOL_ENDED.match(end[TEXT] or ""):
            return exceptions.PoolTerminated(end[TEXT])
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
