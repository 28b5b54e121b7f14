#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Runs a command, and ends whatever it leaves behind: a broken program's children may escape from
their group and session, and would be found by the next test. SIGTERM: the time is up.

Exit status: that of the command; 200 if a signal ended it."""
import ctypes
import os
import pathlib
import signal
import subprocess
import sys

PR_SET_CHILD_SUBREAPER = 36
DIED = 200


class Stopped(Exception):
    pass


def stop(_number, _frame):
    raise Stopped


def children():
    text = pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii")
    return [int(word) for word in text.split()]


def end_all():
    """Each round ends our children; theirs become ours."""
    left = children()
    while left:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass
        left = children()


def main():
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGTERM, stop)
    child = subprocess.Popen(sys.argv[1:])
    status = DIED
    try:
        status = child.wait()
    except Stopped:
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end_all()
    return status if status >= 0 else DIED


if __name__ == "__main__":
    sys.exit(main())
