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
PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Farm:
    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.folder = plan["folder"]
        self.processes: list[subprocess.Popen[bytes]] = []
        self.words: list[list[str]] = []
        self.started: list[float] = []
        self.failures: list[int] = []
        self.logs: list[str] = []
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

    def launch(self, argv: list[str], path: str) -> subprocess.Popen[bytes]:
        with open(path, "ab") as log:
            return subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, close_fds=True,
                start_new_session=True, env=self.plan["environment"],
                preexec_fn=_die_with_parent)

    def start(self, argv: list[str], name: str) -> None:
        path = os.path.join(self.folder, name + ".log")
        self.processes.append(self.launch(argv, path))
        self.words.append(argv)
        self.started.append(time.monotonic())
        self.failures.append(0)
        self.logs.append(path)

    def check(self, until: float) -> None:
        if self.is_asked_to_end or self.owner_is_gone():
            raise SystemExit(0)
        for process, log in zip(self.processes, self.logs):
            if process.poll() is not None:
                raise RuntimeError("%s: it has ended (%s): %s" % (
                    os.path.basename(log), process.returncode, _tail(log)))
        if time.monotonic() > until:
            raise RuntimeError("broker and workers were not ready in time: %s"
                               % _tail(self.logs[-1]))

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
        self.words[0] = [host if word == "127.0.0.1:0" else word for word in self.words[0]]
        for number in range(1, self.plan["workers"] + 1):
            words = [word.replace("{broker}", host).replace("{number}", str(number))
                     for word in self.plan["worker"]]
            self.start(words, "worker%d" % number)
        return host

    def revive(self, index: int) -> float:
        """Starts it again if it has ended. Seconds until it is to be looked at again."""
        now = time.monotonic()
        if self.processes[index].poll() is None:
            return 3600.0
        age = now - self.started[index]
        if age > 10.0:
            self.failures[index] = 0
        wait = min(5.0, 0.1 * (1 << min(6, self.failures[index]))) if self.failures[index] else 0.0
        if age < wait:
            return wait - age
        self.failures[index] += 1
        self.processes[index] = self.launch(self.words[index], self.logs[index])
        self.started[index] = now
        return 3600.0

    def watch(self) -> None:
        while not self.is_asked_to_end and not self.owner_is_gone():
            self.sleep(min(self.revive(index) for index in range(len(self.processes))))

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
        until = time.monotonic() + STOP_S
        for process in reversed(self.processes):
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
