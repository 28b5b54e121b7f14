# SPDX-License-Identifier: BSD-2-Clause
"""W6: ten million waiting tasks of 100 bytes: memory, rates beside an empty queue's, restart."""
import struct
import time

import pool  # of tests/lib

from harness import farm, programs, servers
from harness.model import Goal, PEER, Show, Side, Workload
from harness.peers import NOTHING

DEEP, EMPTY = "hostpool, deep queue", "hostpool, empty queue"
DEPTH, DRAINED, PEER_DEPTH = 10_000_000, 400_000, 1_000_000
SAMPLES = 1000
DURABLE = "fsync before the acknowledgement"


def check_some(one, first, count):
    """Results of tasks spread over those that were drained: each must be its own payload."""
    step = max(count // SAMPLES, 1)
    ids = list(range(first, first + count, step))
    with one.client(60) as client:
        pool.wait_ended(client, ids)
        tasks = pool.get_tasks(client, ids)
        for task_id in ids:
            result = pool.result_of(client, tasks[task_id])
            if result != struct.pack("<Q", task_id - 1) + b"x" * 92:
                raise programs.Failed(f"a wrong result of task {task_id}")


def drain(one, count):
    one.add_worker("w1", slots=2)
    rate = farm.dispatch_rate(one, count)
    check_some(one, 1, count)
    return rate


def empty(context):
    """Submit and dispatch when nothing else waits."""
    count = context.count(DRAINED, 1000)
    with farm.start(context, workers=0) as one:
        found = farm.drive(one, "submit", count)
        return {"submit": found["submit"]["rate"], "dispatch": drain(one, count)}


def restart_seconds(one):
    """From kill -9 until it answers again."""
    one.broker.kill()
    begin_s = time.monotonic()
    one.broker.start()
    one.wait_ready(300)
    return time.monotonic() - begin_s


def deep(context):
    count, drained = context.count(DEPTH, 20_000), context.count(DRAINED, 1000)
    with farm.start(context, workers=0) as one:
        before = farm.rss_bytes(one)
        found = farm.drive(one, "submit", count)
        full = farm.rss_bytes(one)
        figures = {
            "submit": found["submit"]["rate"],
            "submit_first_tenth": found["submit_first_tenth"]["rate"],
            "submit_last_tenth": found["submit_last_tenth"]["rate"],
            "rss_mib": full / farm.MIB, "bytes_a_task": (full - before) / count,
            "disk_bytes_a_task": farm.disk_bytes(one) / count,
            "restart_s": restart_seconds(one),
            "restarted_rss_mib": farm.rss_bytes(one) / farm.MIB}
        with one.client(60) as client:
            ready = sum(queue["ready"] for queue in client.call("queue.list")["queues"])
        if ready != count:
            raise programs.Failed(f"{ready} tasks of {count} after the restart")
        figures["dispatch"] = drain(one, drained)
        return {**figures, "notes": [f"{count:,} tasks were queued, then {drained:,} drained"]}


def server_depth(kind):
    def run(context):
        count = context.count(PEER_DEPTH, 10_000)
        with servers.start(kind, context.folder) as (port, pid):
            before = pool.rss_bytes(pid)
            found = programs.load("peer", kind, "submit", port, count, 100)
            return {"bytes_a_task": (pool.rss_bytes(pid) - before) / count,
                    "submit": found["submit"]["rate"]}
    return run


def server(kind):
    return Side(kind, NOTHING, server_depth(kind),
                (Show("bytes_a_task", "bytes", "memory a task"),
                 Show("submit", "tasks/s", "submit")), kind=PEER,
                packages=(servers.PACKAGES[kind],))


WORKLOAD = Workload(
    "W6", "10,000,000 queued tasks of 100 bytes (1,000,000 with --quick; peers 1,000,000)",
    [Side(DEEP, DURABLE, deep,
          (Show("rss_mib", "MiB", "broker memory", 1),
           Show("bytes_a_task", "bytes", "memory a task", 1),
           Show("disk_bytes_a_task", "bytes", "disk a task"),
           Show("submit_last_tenth", "tasks/s", "submit, last tenth"),
           Show("dispatch", "tasks/s", "dispatch"),
           Show("restart_s", "s", "ready after kill -9", 2)), once=True),
     Side(EMPTY, DURABLE, empty,
          (Show("submit", "tasks/s", "submit"), Show("dispatch", "tasks/s", "dispatch"))),
     server("redis"), server("beanstalkd")],
    [Goal((DEEP, "rss_mib"), None, 256, at_most=True, label="absolute", unit="MiB"),
     Goal((DEEP, "submit_last_tenth"), (EMPTY, "submit"), 0.9),
     Goal((DEEP, "dispatch"), (EMPTY, "dispatch"), 0.9),
     Goal((DEEP, "restart_s"), None, 5.0, at_most=True, label="absolute", unit="s")])
