# SPDX-License-Identifier: BSD-2-Clause
"""The process that keeps a private broker and its workers: `python -I -S _farm.py`.

It is a child of the program that uses them. It starts them, says when they are ready, and ends them
and removes their folder when it is told to, or when that program has ended, in whatever way: it
watches the program by a pidfd. They end with it in any case (parent-death signal).

Arguments: JSON with owner (pid), folder, broker (argv), worker (argv; {broker} and {number} are
replaced), workers (count), environment. Output: one line of JSON: {"host": ...} or {"error": ...}.
"""

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time

START_S = 30.0
STOP_S = 5.0
PR_SET_PDEATHSIG = 1


def _die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Farm:
    def __init__(self, plan):
        self.plan = plan
        self.folder = plan["folder"]
        self.processes = []
        self.is_asked_to_end = False
        self.owner_fd = -1
        try:
            self.owner_fd = os.pidfd_open(plan["owner"])
        except (AttributeError, OSError):
            pass

    def owner_is_gone(self):
        if os.getppid() != self.plan["owner"]:
            return True
        return self.owner_fd >= 0 and bool(select.select([self.owner_fd], [], [], 0)[0])

    def sleep(self, seconds):
        """Until something happens, at most so long."""
        try:
            if self.owner_fd >= 0:
                select.select([self.owner_fd], [], [], seconds)
            else:
                time.sleep(min(seconds, 0.5))
        except InterruptedError:
            pass

    def start(self, argv, name):
        with open(os.path.join(self.folder, name + ".log"), "ab") as log:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, close_fds=True,
                start_new_session=True, env=self.plan["environment"],
                preexec_fn=_die_with_parent)
        process.log = os.path.join(self.folder, name + ".log")
        self.processes.append(process)
        return process

    def check(self, until):
        if self.is_asked_to_end or self.owner_is_gone():
            raise SystemExit(0)
        for process in self.processes:
            if process.poll() is not None:
                raise RuntimeError("%s has ended (%s): %s" % (
                    os.path.basename(process.args[0]), process.returncode, _tail(process.log)))
        if time.monotonic() > until:
            raise RuntimeError("broker and workers were not ready in time: %s"
                               % _tail(self.processes[-1].log))

    def wait_port(self, until):
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

    def run(self):
        until = time.monotonic() + START_S
        self.start(self.plan["broker"], "broker")
        host = "127.0.0.1:%d" % self.wait_port(until)
        for number in range(1, self.plan["workers"] + 1):
            words = [word.replace("{broker}", host).replace("{number}", str(number))
                     for word in self.plan["worker"]]
            self.start(words, "worker%d" % number)
        return host

    def watch(self):
        while not self.is_asked_to_end and not self.owner_is_gone():
            self.sleep(3600.0)

    def stop(self):
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


def _tail(path):
    try:
        with open(path, "rb") as file:
            return file.read()[-2000:].decode("utf-8", "replace")
    except OSError:
        return ""


def main():
    farm = Farm(json.loads(sys.argv[1]))

    def end(number, frame):
        farm.is_asked_to_end = True
    # A byte for each signal ends the select() in sleep at once.
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    signal.set_wakeup_fd(write_fd)
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sleep_fds = [fd for fd in (farm.owner_fd, read_fd) if fd >= 0]

    def sleep(seconds):
        limit = seconds if farm.owner_fd >= 0 else min(seconds, 0.5)
        if read_fd in select.select(sleep_fds, [], [], limit)[0]:
            os.read(read_fd, 64)
    farm.sleep = sleep
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
