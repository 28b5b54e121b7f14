# SPDX-License-Identifier: BSD-2-Clause
"""A million tasks waiting: memory, nothing lost over kill -9, and then the right answers.

HP_SCALE_SINGLE sets how many tasks are submitted in messages of their own (default 400,000: the
suite has a minute); HP_SCALE_FULL=1 submits the whole million that way as well.
"""
import os
import pathlib
import subprocess
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

import pool  # noqa: E402
import wire_ref  # noqa: E402

QUEUES = [f"q{i}" for i in range(20)]
PAUSED = QUEUES[7]
MIB = 1 << 20
IN_FLIGHT = 8 * MIB # 300,000 tasks in memory would take at least 28
SMALL, LARGE = 100_000, 1_000_000
FULL = os.environ.get("HP_SCALE_FULL") == "1"
SINGLE = LARGE if FULL else int(os.environ.get("HP_SCALE_SINGLE", 400_000))


def submit(one, mode, queue, count):
    """count squares, the first of 0 in each queue; tasks per second."""
    done = subprocess.run(
        [pool.find_program(pool.BUILD / "tests/field/noops"), one.broker.host, mode, str(count),
         "square", queue], stdout=subprocess.PIPE, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout
    return float(done.stdout.split("per_second ")[1].split()[0])


def counts(one):
    with one.client() as client:
        return {q["name"]: q["ready"] for q in client.call("queue.list")["queues"]}


def restart(one):
    one.broker.kill()
    begin_s = time.monotonic()
    one.broker.start()
    one.wait_ready(120)
    return time.monotonic() - begin_s


def fill(one, mode, total, runs):
    """Submits to all queues in turns, each turn numbers from 0 on; prints rates."""
    rates = []
    for queue in QUEUES:
        rates.append(submit(one, mode, queue, total // len(QUEUES)))
        runs.append(total // len(QUEUES))
    print(f"{mode}: {total} more, queue by queue {min(rates):,.0f} to {max(rates):,.0f} tasks/s, "
          f"last {rates[-1]:,.0f}; broker {pool.rss_bytes(one.broker.pid) / MIB:.1f} MiB")


def right_answer(task_id, runs):
    """The square of the task's place in its run; ids are given out run by run."""
    index = task_id - 1
    for count in runs:
        if index < count:
            return index * index
        index -= count
    raise AssertionError(task_id)


def drain_some(one, expected_per_queue, runs):
    """Workers take tasks, the paused queue stays; the first answers of queues are right."""
    one.add_worker("w1", slots=2)
    one.add_worker("w2", slots=2)
    one.wait_workers()
    with one.client(60) as client:
        def drained():
            ready = counts(one)
            assert ready[PAUSED] == expected_per_queue
            return sum(ready.values()) < (len(QUEUES) - 0.5) * expected_per_queue

        pool.until(drained, "workers take tasks", 60)
        # Ids were given out queue by queue, so the first ones are among those that ran.
        done = [task for task in pool.get_tasks(client, range(1, 20001)).values()
                if task["state"] == pool.DONE]
        assert done
        for task in done:
            assert wire_ref.unpack(task["end"]["result"]) == right_answer(task["id"], runs), task
        print(f"checked {len(done)} answers")


@pytest.fixture
def one(tmp_path):
    with pool.Pool(tmp_path, ["--log-level", "warn"]) as a_pool:
        yield a_pool.start()


def scale(one, mode, total):
    with one.client() as client:
        client.call("queue.pause", name=PAUSED, paused=True)
    small, runs = min(SMALL, total), []
    fill(one, mode, small, runs)
    small_rss = pool.rss_bytes(one.broker.pid)
    if total > small:
        fill(one, mode, total - small, runs)
    large_rss = pool.rss_bytes(one.broker.pid)
    print(f"broker: {small_rss / MIB:.1f} MiB with {small}, {large_rss / MIB:.1f} MiB with {total}")
    assert large_rss < 256 * MIB
    # Single submits have up to some MiB in flight between sockets and disk; whether the first
    # 100,000 met that peak is a matter of timing.
    assert large_rss <= 1.2 * small_rss + IN_FLIGHT
    wanted = {queue: total // len(QUEUES) for queue in QUEUES}
    assert counts(one) == wanted
    print(f"ready {restart(one):.2f} s after kill -9 and start, "
          f"{pool.rss_bytes(one.broker.pid) / MIB:.1f} MiB")
    assert counts(one) == wanted
    drain_some(one, total // len(QUEUES), runs)


def test_groups(one):
    scale(one, "groups", LARGE)


def test_single_submits(one):
    scale(one, "alone", SINGLE)
