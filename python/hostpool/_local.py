# SPDX-License-Identifier: BSD-2-Clause
"""A private broker with workers on this host, for one program."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, Optional

from . import _config, exceptions

__all__ = ["LocalFarm", "local"]

READY_SECONDS = 60.0


def _find(program: str, folder: str) -> str:
    """A daemon: in HOSTPOOL_BIN_DIR, beside the package's build folder, in PATH, or installed."""
    here = os.path.dirname(os.path.abspath(__file__))
    candidates = []
    given = os.environ.get("HOSTPOOL_BIN_DIR")
    if given:
        candidates += [os.path.join(given, program), os.path.join(given, folder, program)]
    candidates.append(os.path.join(here, os.pardir, os.pardir, folder, program))
    found = shutil.which(program)
    if found:
        candidates.append(found)
    prefix = here
    while os.path.dirname(prefix) != prefix:
        prefix = os.path.dirname(prefix)
        candidates += [os.path.join(prefix, "bin", program), os.path.join(prefix, "sbin", program)]
    for path in candidates:
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return os.path.abspath(path)
    raise exceptions.BrokerLost(
        f"hostpool: {program} is not installed (no broker is configured, so a private one was to "
        "be started). Give the broker's address in HOSTPOOL_HOST, or the daemons' folder in "
        "HOSTPOOL_BIN_DIR", "unreachable")


class LocalFarm:
    """A private broker with workers. They end with close(), and with this process, however it ends.

    connection: to the broker. host: its address, for other processes of this host.
    """

    def __init__(self, slots: Optional[int] = None, workers: int = 1) -> None:
        _config.check_not_importing_main()
        if slots is not None and slots < 1:
            raise ValueError("slots must be at least 1")
        if workers < 1:
            raise ValueError("workers must be at least 1")
        self.slots = slots or os.cpu_count() or 1
        self._pid = os.getpid()
        self._folder = tempfile.mkdtemp(prefix="hostpool-local-")
        self._process: Any = None
        self.host = ""
        try:
            self._start(workers)
        except BaseException:
            self._stop()
            raise
        self.connection = _config.connection_to(self.host)
        self.connection.farm = self
        try:
            self._wait_workers(workers)
        except BaseException:
            _config.dropped(self.connection)
            self._stop()
            raise
        atexit.register(self._at_exit)
        threading.Thread(target=self._watch, args=(self._process,), name="hostpool-farm",
                         daemon=True).start()

    def _plan(self, workers: int) -> dict[str, Any]:
        folder = self._folder
        environment = {key: value for key, value in os.environ.items()
                       if key not in ("HOSTPOOL_HOST", "HOSTPOOL_TOKEN", "HOSTPOOL_TOKEN_FILE")}
        package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        paths = [package, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
        return {
            "owner": os.getpid(), "folder": folder, "workers": workers,
            "environment": environment,
            "broker": [_find("hostpoold", "server"), "--data-dir", os.path.join(folder, "broker"),
                       "--listen", "127.0.0.1:0", "--log-level", "warn"],
            "worker": [_find("hostpool-worker", "worker"), "--broker", "{broker}",
                       "--node", "local{number}", "--slots", str(-(-self.slots // workers)),
                       "--state-dir", os.path.join(folder, "worker{number}"),
                       "--drain-timeout", "1s", "--log-level", "warn",
                       *self._python_flags()],
        }

    @staticmethod
    def _python_flags() -> list[str]:
        return ["--any-interpreter", "--python", sys.executable]

    def _start(self, workers: int) -> None:
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_farm.py")
        process: Any = subprocess.Popen(
            [sys.executable, "-I", "-S", script, json.dumps(self._plan(workers))],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
        self._process = process
        with process.stdout as output:
            line = output.readline()
        answer = json.loads(line) if line else {"error": "it did not start"}
        if "error" in answer:
            raise exceptions.BrokerLost(
                f"hostpool: no private broker: {answer['error']}", "unreachable")
        self.host = answer["host"]

    def _watch(self, process: Any) -> None:
        """Waits for the end of the process that keeps the farm. It ends unasked only if it was
        killed, and takes broker and workers with it."""
        process.wait()
        if self._process is not process:
            return
        self._process = None
        error = exceptions.BrokerLost("the private broker and its workers were killed",
                                      "broker_lost")
        _config.forget(self.connection)
        for pool in list(self.connection.pools):
            pool._lose(error)
        self.connection.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait_workers(self, workers: int) -> None:
        until = time.monotonic() + READY_SECONDS
        while self.connection.online_count() < workers:
            if time.monotonic() > until or self._process.poll() is not None:
                raise exceptions.BrokerLost(
                    "hostpool: the private broker's workers did not come up", "unreachable")
            time.sleep(0.002)

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        """Ends broker and workers, and removes all they have."""
        if os.getpid() != self._pid or self._process is None:
            return
        atexit.unregister(self._at_exit)
        _config.dropped(self.connection)
        self._stop()

    def _at_exit(self) -> None:
        _config.hush_daemons()
        self.close()

    def __enter__(self) -> "LocalFarm":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<hostpool.LocalFarm {self.host or 'closed'} slots={self.slots}>"


_lock = threading.Lock()


def local(slots: Optional[int] = None, workers: int = 1) -> LocalFarm:
    """Starts a private broker with workers on this host, and uses it for new pools.

    slots: of all workers together; None: the CPUs of this host. Pool() does this by itself where no
    broker is configured. Everything ends with the program, or with close(), or `with`.
    """
    farm = LocalFarm(slots, workers)
    _config.use(farm.connection)
    return farm
