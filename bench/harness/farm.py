# SPDX-License-Identifier: BSD-2-Clause
"""hostpool for a measurement: the shipped binaries with their default settings, on a new database.

Import it after programs.use_build: tests/lib/pool.py looks for the binaries when it is imported.
"""
import contextlib
import time

import pool  # of tests/lib

from harness import programs

MIB = 1 << 20


@contextlib.contextmanager
def start(context, slots=2, workers=1, flags=()):
    """A broker and workers of 2 slots; ends them in order."""
    with pool.Pool(context.folder / "farm", flags) as farm:
        farm.start()
        for number in range(workers):
            farm.add_worker(f"w{number}", slots=slots)
        farm.wait_workers()
        yield farm
        if farm.stop_workers() or farm.broker.stop() != 0:
            raise programs.Failed("a daemon of hostpool did not end in order")


def drive(farm, mode, count, **options):
    """Puts load on it; its figures by name. Wrong results are an error."""
    words = [f"{name}={yes_no(value)}" for name, value in options.items()]
    return programs.load("drive", farm.broker.host, mode, count, *words)


def yes_no(value):
    return {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value


def rss_bytes(farm):
    return pool.rss_bytes(farm.broker.pid)


def disk_bytes(farm):
    """Of the broker's data folder."""
    total = 0
    for path in farm.broker.data.rglob("*"):
        with contextlib.suppress(OSError):  # it may be gone by now
            total += path.stat().st_blocks * 512
    return total


def done_count(client, queue="default"):
    """Tasks of the queue that ended well since the broker started."""
    found = [q["done"] for q in client.call("queue.list")["queues"] if q["name"] == queue]
    return found[0] if found else 0


def dispatch_rate(farm, count, timeout_s=300):
    """Tasks a second while `count` waiting ones are taken, without the first and last tenth."""
    marks = [(time.monotonic(), 0)]
    with farm.client(60) as client:
        for share in (0.1, 0.9):
            goal = int(count * share)
            pool.until(lambda goal=goal: done_count(client) >= goal, f"{goal} are done",
                       timeout_s)
            marks.append((time.monotonic(), done_count(client)))
    # Few tasks are done before they are seen: then the whole time counts.
    begin, end = marks[1 if marks[2][1] - marks[1][1] >= count / 4 else 0], marks[2]
    return (end[1] - begin[1]) / (end[0] - begin[0])
