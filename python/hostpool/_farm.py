# SPDX-License-Identifier: BSD-2-Clause
"""The process that keeps a private broker and its workers: `python -I -S _farm.py`.

It is a child of the program that uses them. It starts them, says when they are ready, and ends them
and removes their folder when it is told to, or when that program has ended, in whatever way: it
watches the program by a pidfd. They end with it in any case (parent-death signal). One of them that
ends by itself is started again, so that nobody waits for what never comes.

Arguments: JSON with owner (pid), folder, broker (argv), worker (argv; {broker} and {number} are
replaced), workers (count), environment. Output: one line of JSON: {"host": ...} or {"error": ...}.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

START_S = 30.0
STOP_S = 5.0
WATCH_S = 3600.0      # signals and the owner's end are told
RESTART_S = 0.1       # the pause before a restart, doubled by each failure in a row
RESTART_MAX_S = 5.0
STEADY_S = 10.0       # who ran for so long has not failed at its start
PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Daemon:
    """A process that is started again if it ends by itself."""

    def __init__(self, argv: list[str], log: str, environment: dict[str, str]) -> None:
        self.argv = argv
        self.log = log
        self.environment = environment
        self.failures = 0  # in a row
        self.launch()

    def launch(self) -> None:
        self.started = time.monotonic()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, close_fds=True,
                start_new_session=True, env=self.environment, preexec_fn=_die_with_parent)

    def revive(self) -> float:
        """Starts it again if it has ended, ever later. Seconds until it is to be looked at."""
        if self.process.poll() is None:
            return WATCH_S
        age = time.monotonic() - self.started
        if age > STEADY_S:
            self.failures = 0
        wait = min(RESTART_MAX_S, RESTART_S * (1 << min(6, self.failures))) if self.failures else 0
        if age < wait:
            return wait - age
        self.failures += 1
        self.launch()
        return WATCH_S


class Farm:
    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.folder = plan["folder"]
        self.daemons: list[Daemon] = []
        self.is_asked_to_end = False
        self.owner_fd = -1
        self.signal_fd = -1
        try:
            self.owner_fd = os.pidfd_open(plan["owner"])
        except (AttributeError, OSError):
            pass

    def owner_is_gone(self) -> bool:
        if os.getppid() != self.plan["owner"]:
            return True
        return self.owner_fd >= 0 and bool(select.select([self.owner_fd], [], [], 0)[0])

    def end(self, number: int, frame: object) -> None:
        """The handler of SIGTERM."""
        self.is_asked_to_end = True

    def sleep(self, seconds: float) -> None:
        """Until a signal, or the end of the owner, at most so long."""
        fds = [fd for fd in (self.owner_fd, self.signal_fd) if fd >= 0]
        limit = seconds if self.owner_fd >= 0 else min(seconds, 0.5)
        if self.signal_fd in select.select(fds, [], [], limit)[0]:
            os.read(self.signal_fd, 64)

    def take_signals(self) -> None:
        """A byte for each signal ends the select() in sleep at once."""
        self.signal_fd, write_fd = os.pipe()
        os.set_blocking(write_fd, False)
        signal.set_wakeup_fd(write_fd)
        signal.signal(signal.SIGTERM, self.end)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def start(self, argv: list[str], name: str) -> None:
        path = os.path.join(self.folder, name + ".log")
        self.daemons.append(Daemon(argv, path, self.plan["environment"]))

    def check(self, until: float) -> None:
        if self.is_asked_to_end or self.owner_is_gone():
            raise SystemExit(0)
        for daemon in self.daemons:
            if daemon.process.poll() is not None:
                raise RuntimeError("%s: it has ended (%s): %s" % (
                    os.path.basename(daemon.log), daemon.process.returncode, _tail(daemon.log)))
        if time.monotonic() > until:
            raise RuntimeError("broker and workers were not ready in time: %s"
                               % _tail(self.daemons[-1].log))

    def wait_port(self, until: float) -> int:
        path = os.path.join(self.folder, "broker", "hostpoold.port")
        while True:
            try:
                with open(path) as file:
                    text = file.read()
                if text.endswith("\n"):
                    return int(text.split()[0])
            except (OSError, ValueError):
                pass
            self.check(until)
            self.sleep(0.005)

    def run(self) -> str:
        until = time.monotonic() + START_S
        self.start(self.plan["broker"], "broker")
        host = "127.0.0.1:%d" % self.wait_port(until)
        broker = self.daemons[0]  # if it is started again, workers look for it there
        broker.argv = [host if word == "127.0.0.1:0" else word for word in broker.argv]
        for number in range(1, self.plan["workers"] + 1):
            words = [word.replace("{broker}", host).replace("{number}", str(number))
                     for word in self.plan["worker"]]
            self.start(words, "worker%d" % number)
        return host

    def watch(self) -> None:
        while not self.is_asked_to_end and not self.owner_is_gone():
            self.sleep(min(daemon.revive() for daemon in self.daemons))

    def stop(self) -> None:
        processes = [daemon.process for daemon in reversed(self.daemons)]
        for process in processes:
            process.terminate()
        until = time.monotonic() + STOP_S
        for process in processes:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def _tail(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read()[-2000:].decode("utf-8", "replace")
    except OSError:
        return ""


def main() -> None:
    farm = Farm(json.loads(sys.argv[1]))
    farm.take_signals()
    try:
        print(json.dumps({"host": farm.run()}), flush=True)
        sys.stdout.close()
        farm.watch()
    except RuntimeError as error:
        print(json.dumps({"error": str(error)}), flush=True)
    finally:
        farm.stop()


if __name__ == "__main__":
    main()
