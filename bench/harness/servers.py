# SPDX-License-Identifier: BSD-2-Clause
"""Servers of other projects, each started on a free port of 127.0.0.1 with a folder of its own."""
import contextlib
import os
import signal
import socket
import subprocess
import time

import pool  # of tests/lib

from harness import packages, programs

PACKAGES = {"beanstalkd": "beanstalkd", "gearmand": "gearman-job-server", "redis": "redis-server"}
SIZE_MAX = 1 << 26  # of a job of beanstalkd; its default is too small for W5
START_S = 30


def beanstalkd(port, folder, durable):
    argv = ["-l", "127.0.0.1", "-p", str(port), "-z", str(SIZE_MAX)]
    return argv + (["-b", str(folder), "-f", "0"] if durable else [])


def redis(port, folder, durable):
    argv = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", ""]
    return argv + (["--appendonly", "yes", "--appendfsync", "always"] if durable else [])


def gearmand(port, folder, durable):
    if durable:
        raise ValueError("gearmand keeps no job that returns a result")
    argv = ["-L", "127.0.0.1", "-p", str(port), "-l", str(folder / "log"), "-P",
            str(folder / "pid"), "-f", "19000", "-b", "1024"]
    return argv + (["-u", "root"] if os.geteuid() == 0 else [])


ARGUMENTS = {"beanstalkd": (beanstalkd, "beanstalkd"), "redis": (redis, "redis-server"),
             "gearmand": (gearmand, "gearmand")}


def wait_port(port, child):
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s:
        if child.poll() is not None:
            break
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.02)
    raise programs.Failed(f"{child.args[0]} does not listen")


def stop(child):
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(20)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


@contextlib.contextmanager
def start(kind, folder, durable=False):
    """(port, process id) of a server that listens."""
    arguments, name = ARGUMENTS[kind]
    path = packages.program(name)
    if path is None:
        raise programs.Failed(packages.explain([PACKAGES[kind]]))
    port = pool.free_port()
    home = folder / kind
    home.mkdir()
    with open(home / "output", "wb") as output:
        child = subprocess.Popen([path, *arguments(port, home, durable)], cwd=home,
                                 stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        wait_port(port, child)
        yield port, child.pid
    finally:
        stop(child)
