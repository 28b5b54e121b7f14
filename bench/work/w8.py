# SPDX-License-Identifier: BSD-2-Clause
"""W8: what peers cost that do nothing: idle connections, and workers that only report."""
import contextlib
import resource
import signal
import socket
import time

import msgpack
import pool  # of tests/lib

from harness import farm, machine, programs, servers
from harness.model import Goal, PEER, Show, Side, Workload

# The broker takes 10,000 connections with its default settings; the bench needs one to look.
CONNECTIONS, WORKERS = 9_998, 1_000
FILES_NEEDED = CONNECTIONS + 200
IDLE_S = 15
IDLE, REPORTING = "hostpool, 10,000 connections", "hostpool, 1,000 workers"
NO_TASKS = "no tasks"
# What is said first, and how the answer begins if all is well.
HELLOS = {
    "hostpool": (msgpack.packb([0, 1, "hello", [{"client": "idle 1", "version": 1}]]),
                 msgpack.packb([1, 1, None, None])[:-1]),
    "beanstalkd": (b"list-tube-used\r\n", b"USING"),
    "redis": (b"PING\r\n", b"+PONG"),
}


def raise_file_limit():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES_NEEDED:
        raise programs.Failed(f"needs {FILES_NEEDED} open files; ulimit -Hn says {hard}")
    if soft != resource.RLIM_INFINITY and soft < FILES_NEEDED:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES_NEEDED, hard))


def connect_many(stack, port, kind, count):
    """Connections that have said hello, and were answered."""
    found = []
    hello, answer = HELLOS[kind]
    for _ in range(count):
        one = stack.enter_context(socket.create_connection(("127.0.0.1", port), 20))
        one.sendall(hello)
        if not one.recv(65536).startswith(answer):
            raise programs.Failed(f"refused after {len(found)} connections")
        found.append(one)
    return found


def check_open(connections):
    """None was closed meanwhile. (What the peer said without being asked is fine.)"""
    for one in connections:
        one.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            if one.recv(65536) == b"":
                raise programs.Failed("an idle connection was closed")


def cpu_percent(pid, seconds):
    """Of one core, while nothing is asked of it."""
    before, begin_s = machine.cpu_seconds(pid), time.monotonic()
    time.sleep(seconds)
    return 100 * (machine.cpu_seconds(pid) - before) / (time.monotonic() - begin_s)


def measure_idle(pid, port, kind, count, seconds):
    with contextlib.ExitStack() as stack:
        before = pool.rss_bytes(pid)
        connections = connect_many(stack, port, kind, count)
        used = (pool.rss_bytes(pid) - before) / count
        percent = cpu_percent(pid, seconds)
        check_open(connections)
    return {"bytes": used, "cpu_percent": percent}


def idle(context):
    raise_file_limit()
    with farm.start(context, workers=0) as one:
        return measure_idle(one.broker.pid, one.broker.address[1], "hostpool",
                            context.count(CONNECTIONS, 20), context.seconds(IDLE_S, 2))


def end_all(one):
    """All daemons at once: one after the other would take a while."""
    for worker in one.workers.values():
        worker.signal(signal.SIGTERM)
    if any(worker.wait(120) != 0 for worker in one.workers.values()):
        raise programs.Failed("a worker daemon did not end in order")


def reporting(context):
    """Real daemons, of one slot each."""
    raise_file_limit()
    count = context.count(WORKERS, 5)
    with farm.start(context, workers=0) as one:
        before = farm.rss_bytes(one)
        for number in range(count):
            one.add_worker(f"w{number}", slots=1)
        one.wait_workers(300)
        time.sleep(context.seconds(10, 1))  # they settle
        pid = one.broker.pid
        figures = {"bytes": (farm.rss_bytes(one) - before) / count,
                   "cpu_percent": cpu_percent(pid, context.seconds(2 * IDLE_S, 2)),
                   "worker_kib": pool.rss_bytes(one.workers["w0"].pid) / 1024}
        one.wait_workers()  # and all are there
        end_all(one)
        return figures


def server_idle(kind):
    def run(context):
        raise_file_limit()
        with servers.start(kind, context.folder) as (port, pid):
            return measure_idle(pid, port, kind, context.count(CONNECTIONS, 20),
                                context.seconds(IDLE_S, 2))
    return run


SHOWS = (Show("bytes", "bytes", "memory each"), Show("cpu_percent", "% of a core", "CPU", 2))
WORKLOAD = Workload(
    "W8", "10,000 idle connections; 1,000 worker daemons without tasks",
    [Side(IDLE, NO_TASKS, idle, SHOWS, once=True),
     Side(REPORTING, NO_TASKS, reporting,
          (*SHOWS, Show("worker_kib", "KiB", "memory of a daemon")), once=True),
     *(Side(f"{kind}, 10,000 connections", NO_TASKS, server_idle(kind), SHOWS, kind=PEER,
            packages=(servers.PACKAGES[kind],), once=True) for kind in ("beanstalkd", "redis"))],
    [Goal((IDLE, "bytes"), None, 4096, at_most=True, label="each", unit="bytes"),
     Goal((REPORTING, "bytes"), None, 4096, at_most=True, label="each", unit="bytes"),
     Goal((IDLE, "cpu_percent"), None, 0.1, at_most=True, label="none, but for rounding",
          unit="%"),
     Goal((REPORTING, "cpu_percent"), None, 1.0, at_most=True, label="heartbeats", unit="%")])
