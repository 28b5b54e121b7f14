# SPDX-License-Identifier: BSD-2-Clause
"""What can go wrong with a call besides the call's own exception.

All of them are multiprocessing.ProcessError, so that programs written for multiprocessing catch
them. Where multiprocessing has a class of its own (TimeoutError, MaybeEncodingError,
RemoteTraceback), hostpool raises that very class.
"""

from __future__ import annotations

import signal as _signal
from multiprocessing import ProcessError, TimeoutError
from multiprocessing.pool import MaybeEncodingError, RemoteTraceback  # type: ignore[attr-defined]
from typing import Any, Optional

__all__ = [
    "BrokerError", "BrokerLost", "HostpoolError", "InitializerError", "MaybeEncodingError",
    "PoolTerminated", "ProcessError", "QuotaExceeded", "RemoteError", "RemoteTraceback",
    "TaskCancelled", "TaskGone", "TaskTimeout", "TimeoutError", "WorkerExit", "WorkerLost",
]


class HostpoolError(ProcessError):
    """Base of hostpool's own exceptions."""


class WorkerLost(HostpoolError):
    """The process, or the host, that ran the task has died, and the task has no attempts left.

    signal: number of the signal that killed the child, or None. oom: it was killed for want of
    memory. host: where. peak_rss: most memory it had, in bytes, or None. attempts: how often the
    task was started.
    """

    def __init__(self, text: str = "", *, signal: Optional[int] = None, oom: bool = False,
                 host: Optional[str] = None, peak_rss: Optional[int] = None,
                 attempts: int = 0) -> None:
        super().__init__(text or _describe_loss(signal, oom, host, peak_rss, attempts))
        self.signal = signal
        self.oom = oom
        self.host = host
        self.peak_rss = peak_rss
        self.attempts = attempts

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), self.args, self.__dict__)


class WorkerExit(HostpoolError):
    """The task ended its process: sys.exit(code), os._exit(code). code: what it gave."""

    def __init__(self, code: Any = None, text: str = "", *, host: Optional[str] = None) -> None:
        super().__init__(text or f"the task exited with {code!r}"
                         + (f" on {host}" if host else ""))
        self.code = code
        self.host = host

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), self.args, self.__dict__)


class InitializerError(HostpoolError):
    """No child of the pool could be set up: its initializer fails. The pool is broken."""


class PoolTerminated(HostpoolError):
    """The pool was terminated before the task had ended, or another client had ended it before the
    task was submitted."""


class TaskCancelled(HostpoolError):
    """The task was cancelled."""


class TaskTimeout(HostpoolError):
    """The task ran, or waited, longer than its options allow."""


class TaskGone(HostpoolError):
    """The broker does not know the task (any more): its result was forgotten, or never existed."""


class RemoteError(HostpoolError):
    """An exception of the task that cannot be rebuilt here; the text says all that is known.

    type_name: its class, as "module.Class", or "".
    """

    def __init__(self, text: str = "", type_name: str = "") -> None:
        super().__init__(text)
        self.type_name = type_name

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), self.args, self.__dict__)


class BrokerError(HostpoolError):
    """The broker refuses, or the client library fails. status: the word for it."""

    def __init__(self, text: str = "", status: str = "") -> None:
        super().__init__(text)
        self.status = status

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), self.args, self.__dict__)


class BrokerLost(BrokerError, OSError):
    """The broker cannot be reached, or has lost the task in a restart (durable=False)."""

    def __init__(self, text: str = "", status: str = "broker_lost") -> None:
        OSError.__init__(self, text)
        self.status = status


class QuotaExceeded(BrokerError):
    """A limit of the broker is reached; nothing was stored."""


def _rebuild(kind: type, args: tuple[Any, ...], attributes: dict[str, Any]) -> BaseException:
    error: BaseException = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


def _describe_loss(signal: Optional[int], oom: bool, host: Optional[str], peak_rss: Optional[int],
                   attempts: int) -> str:
    if oom:
        what = "the task was killed for want of memory"
    elif signal:
        try:
            what = f"the task's process was killed by {_signal.Signals(signal).name}"
        except ValueError:
            what = f"the task's process was killed by signal {signal}"
    else:
        what = "the worker that ran the task was lost"
    if host:
        what += f" on {host}"
    if peak_rss:
        what += f" (peak memory {peak_rss >> 20} MiB)"
    if attempts > 1:
        what += f", attempt {attempts}"
    return what


_LOST = frozenset(("broker_lost", "unreachable", "stopped", "session_lost", "protocol", "draining"))
_QUOTA = frozenset(("busy", "too_big", "no_memory"))

# What to do about it: the word for it, a word of the broker's sentence, and the advice.
_ADVICE = {
    "denied": ("token", "give the broker's with hostpool.connect(token_file=...) or "
                        "HOSTPOOL_TOKEN_FILE; the operator has it"),
    "version": ("version", "update hostpool here, or the broker there"),
}


def from_status(status: str, text: str) -> HostpoolError:
    """The exception for a status word of the client library."""
    if status in _LOST:
        return BrokerLost(text or status, status)
    if status in _QUOTA:
        return QuotaExceeded(text or status, status)
    if status == "not_found":
        return TaskGone(text or "the broker does not know it")
    if status == "timeout":
        return BrokerLost(text or "the broker did not answer in time", status)
    text = text or status
    if status in _ADVICE and _ADVICE[status][0] in text:
        text = f"{text}: {_ADVICE[status][1]}"
    return BrokerError(text, status)
