# SPDX-License-Identifier: BSD-2-Clause
"""A child of a pool: set up once, then one call after the other until its worker ends it.

What tasks see: multiprocessing.current_process() is named HostPoolWorker-PID and is no daemon, so a
task may start processes; SIGINT is a KeyboardInterrupt in the task that runs (and an error of that
task alone); SIGTERM ends the child; stdin is empty; what is printed belongs to the task.
"""

from __future__ import annotations

import atexit
import faulthandler
import gc
import itertools
import multiprocessing.pool
import multiprocessing.process
import multiprocessing.util
import os
import re
import signal
import socket
import sys
import threading
import traceback
from dataclasses import dataclass
from typing import Any, NoReturn, Optional

from . import _payload
from ._content import Content

TEXT_BYTES_MAX = 4096

_MaybeEncodingError: Any = getattr(multiprocessing.pool, "MaybeEncodingError")
_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


@dataclass(frozen=True)
class Task:
    """The task that runs."""

    id: int
    attempt: int  # 1 for the first
    epoch: int    # fencing token: grows with each attempt, over all tasks
    index: int    # in its array
    pool: int     # id of its pool


class _State:
    port: Any = None
    # What port.next() gave for the call that runs: (is_init, payload, id, attempt, epoch, ...).
    call: Optional[tuple[Any, ...]] = None
    # In a process that a task forked: the port is its parent's.
    is_fork = False


_state = _State()


def current_task() -> Optional[Task]:
    """The task that runs in this process; None outside of tasks."""
    call = _state.call
    if call is None or call[0]:
        return None
    return Task(call[2], call[3], call[4], call[5], call[6])


def waits(on: bool) -> None:
    """Tells the worker that the task waits for other tasks, so that another child may run."""
    port = _state.port
    if port is not None:
        port.waits(on)


# ---------------------------------------------------------------- errors

def _traceback_of(exc: BaseException) -> str:
    """As Python prints it, from the task's own first frame on."""
    trace = exc.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_HERE):
        trace = trace.tb_next
    try:
        return "".join(traceback.format_exception(type(exc), exc, trace))
    except Exception:  # a broken __str__, for example
        return f"{type(exc).__name__}\n"


def _line_of(exc: BaseException) -> str:
    try:
        text = str(exc)
    except Exception:
        text = "(its text cannot be made)"
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def _cut(text: str) -> bytes:
    return text.encode("utf-8", "replace")[:TEXT_BYTES_MAX].decode("utf-8", "ignore").encode()


def _report(port: Any, exc: BaseException, call: tuple[Any, ...]) -> None:
    """Ends the call with this exception."""
    is_exit = isinstance(exc, SystemExit)
    where = _traceback_of(exc)
    info = {
        "host": socket.gethostname(),
        "node": os.environ.get("HOSTPOOL_NODE", ""),
        "attempt": call[3],
        "pid": os.getpid(),
        "kind": "exit" if is_exit else "error",
    }
    text = _line_of(exc)
    if isinstance(exc, SystemExit):
        text = f"the task called sys.exit({exc.code!r})"
    if call[0]:
        text = f"{text}\n{where[-3000:]}"
    data = _payload.encode_error(exc, where, info)
    _flush()
    port.done(False, _cut(text), data)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # closed, replaced or None: the task's own doing
            pass


# ---------------------------------------------------------------- set-up

_VERSIONED = re.compile(r"python\d+(\.\d+)*$|python\d+\.zip$|lib-dynload$")


def _is_usable(folder: str) -> bool:
    """Whether an entry of the client's sys.path is for this Python: not a standard library, nor
    packages for another version."""
    own = "python%d.%d" % sys.version_info[:2]
    parts = [part for part in folder.split(os.sep) if part]
    if not parts or _VERSIONED.match(parts[-1]):
        return False
    if any(re.match(r"python\d+\.\d+$", part) and part != own for part in parts):
        return False
    return os.path.isdir(folder)


def _check_interpreter(asked: Optional[str]) -> None:
    """Raises if the pool asked for an interpreter, and this is another: its worker has no such, or
    does not allow it. The same under another name will do, but not the one that a virtual
    environment's links to."""
    own = sys.executable or ""
    if asked is None or asked == own:
        return
    if (os.path.realpath(asked) != os.path.realpath(own)
            or os.path.realpath(os.path.dirname(asked)) != os.path.realpath(os.path.dirname(own))):
        why = ("does not allow it (--any-interpreter)" if os.access(asked, os.X_OK)
               else "does not have it")
        raise RuntimeError(f"the pool asks for the interpreter {asked}, and this worker {why}: its "
                           f"own is {own}")


def _set_up(payload: Any, content: Content) -> None:
    """What the pool wants of each child, its initializer at last."""
    setup = _payload.decode_setup(payload)
    _check_interpreter(setup.get("interpreter"))
    if "authkey" in setup:  # proxies of managers are unpickled with it
        multiprocessing.process.current_process().authkey = setup["authkey"]
    first = [folder for folder in setup.get("path", ())
             if isinstance(folder, str) and folder not in sys.path and _is_usable(folder)]
    sys.path[:0] = first
    _payload.enter(setup, content)
    content.add_modules(setup.get("modules") or {})
    main_source = setup.get("main")
    if main_source is not None:
        content.set_main(*main_source)
    init = setup.get("init")
    if init is not None:
        _payload.decode_call(init, content)()


def _become_process() -> None:
    """Makes multiprocessing believe what is true: a process of its own, with a parent."""
    process: Any = multiprocessing.process
    own = type(process._current_process)()  # _MainProcess, by no name of its own
    own._name = f"HostPoolWorker-{os.getpid()}"
    own._parent_pid = os.getppid()
    process._current_process = own
    process._process_counter = itertools.count(1)
    process._children = set()
    try:
        sentinel = os.pidfd_open(os.getppid())
    except (AttributeError, OSError):
        sentinel = -1
    process._parent_process = process._ParentProcess("HostPoolZygote", os.getppid(), sentinel)
    util: Any = multiprocessing.util
    util._finalizer_registry.clear()
    util._run_after_forkers()
    threading.current_thread().name = "MainThread"


def _prepare() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    streams: list[Any] = [sys.stdout, sys.stderr]
    for stream in streams:
        try:
            # A crash then takes no whole line with it.
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
        except Exception:
            pass
    try:
        faulthandler.enable()
    except Exception:
        pass
    _become_process()


# ---------------------------------------------------------------- the loop

def _forked() -> None:
    """In a process that a task forked."""
    _state.port = None
    _state.is_fork = True


def _end_fork(exc: Optional[BaseException]) -> NoReturn:
    """The task's fork came back from the task: only its parent may answer the call."""
    code = 0
    if isinstance(exc, SystemExit):
        code = _exit_code(exc)
    elif exc is not None:
        traceback.print_exception(type(exc), exc, exc.__traceback__)
        code = 1
    _flush()
    os._exit(code)


def _finish(code: int) -> NoReturn:
    """An orderly end, as that of a process of multiprocessing."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        multiprocessing.util._exit_function()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
    _flush()
    os._exit(code)


def _encode(value: Any) -> Any:
    try:
        return _payload.encode_result(value)
    except Exception as error:
        try:
            shown = repr(value)
        except Exception:
            shown = f"<{type(value).__name__}>"
        raise _MaybeEncodingError(repr(error), shown) from None


def _exit_code(exc: SystemExit) -> int:
    if exc.code is None:
        return 0
    return exc.code & 0xFF if isinstance(exc.code, int) else 1


def _run(call: tuple[Any, ...], content: Content) -> Any:
    payload = call[1]
    if isinstance(payload, OSError):
        raise payload  # its bytes could not be mapped
    if call[0]:
        _set_up(payload, content)
        return b""
    return _encode(_payload.decode_call(payload, content)())


def loop(port: Any, content: Content) -> int:
    """Runs calls until there are no more; the exit code."""
    next_call, done = port.next, port.done
    while True:
        try:
            call = next_call()
        except KeyboardInterrupt:
            continue  # nothing runs: nobody is meant
        if call is None:
            return 0
        _state.call = call
        content.pool = call[6]
        try:
            data = _run(call, content)
            if _state.is_fork:
                _end_fork(None)
            _flush()
            done(True, b"", data)
        except BaseException as exc:
            if _state.is_fork:
                _end_fork(exc)
            _report(port, exc, call)
            if isinstance(exc, SystemExit):
                return _exit_code(exc)
        data = call = _state.call = None
        if content.hub is not None:
            content.disconnect()


def main(port: Any) -> NoReturn:
    """The whole life of a child."""
    _state.port = port
    os.register_at_fork(after_in_child=_forked)
    code = 70
    try:
        _prepare()
        gc.enable()
        code = loop(port, Content())
    except BaseException:
        traceback.print_exc()
    _finish(code)
