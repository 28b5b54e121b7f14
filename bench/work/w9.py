# SPDX-License-Identifier: BSD-2-Clause
"""W9: 1 to 64 worker daemons with tasks that sleep a millisecond: where dispatch saturates."""
import os
import time

from harness import farm, machine
from harness.model import Goal, Show, Side, Workload

DAEMONS = (1, 2, 4, 8, 16, 32, 64)
SLOTS = 2
SECONDS = 3
FULL_CORE = 0.9  # of a core; above, or with all CPUs this busy, the machine is the bound
DURABLE = "fsync before the acknowledgement and before the result"


def sleep_ms():
    """What a sleep of a millisecond takes here."""
    times = []
    for _ in range(200):
        begin_s = time.perf_counter()
        time.sleep(0.001)
        times.append(time.perf_counter() - begin_s)
    return sorted(times)[len(times) // 2] * 1000


def own_seconds(one):
    """CPU time of all that takes part: daemons, their children, and the client once it has ended.

    What other programs take is not counted: it must not excuse a low rate."""
    return machine.own_seconds() + sum(machine.cpu_seconds(pid) for pid in one.leftovers())


def measure(context, daemons):
    slots = daemons * SLOTS
    slept_ms = sleep_ms()
    capacity = slots * 1000 / slept_ms
    # No more than two cores can end at a rate that is known to be out of reach.
    count = int(min(capacity, 60_000) * context.seconds(SECONDS, 0.3))
    with farm.start(context, slots=SLOTS, workers=daemons) as one:
        farm.drive(one, "pipelined", max(slots * 5, 50), work="sleep")  # children are up
        broker, own = machine.cpu_seconds(one.broker.pid), own_seconds(one)
        found = farm.drive(one, "pipelined", count, work="sleep")["pipelined"]
        seconds = found["seconds"]
        core = (machine.cpu_seconds(one.broker.pid) - broker) / seconds
        busy = (own_seconds(one) - own) / seconds / len(os.sched_getaffinity(0))
    share = found["rate"] / capacity
    is_full = core >= FULL_CORE or busy >= FULL_CORE
    bound = ("the broker's core" if core >= FULL_CORE else "its own use of all CPUs" if is_full
             else "the slots" if share >= 0.9 else "neither slots nor CPUs")
    return {"rate": found["rate"], "share": share, "broker_core": core, "machine_busy": busy,
            # What counts for the goal: until a core is full, the share of what the slots take.
            "share_or_full": 1.0 if is_full else share,
            "notes": [f"{slots} slots, a sleep takes {slept_ms:.2f} ms: they could take "
                      f"{capacity:,.0f} tasks/s; {share:.2f} of that was reached; bound: {bound}"]}


def name_of(daemons):
    return f"hostpool, {daemons} daemon{'s' if daemons > 1 else ''} of 2 slots"


def side(daemons):
    return Side(name_of(daemons), DURABLE, lambda context: measure(context, daemons),
                (Show("rate", "tasks/s"),
                 Show("share_or_full", "", "share of the slots, or 1: full", 2),
                 Show("broker_core", "cores", "broker", 2),
                 Show("machine_busy", "of all CPUs", "machine", 2)))


WORKLOAD = Workload(
    "W9", "tasks of 1 ms to 1 .. 64 worker daemons, every result checked",
    [side(daemons) for daemons in DAEMONS],
    [Goal((name_of(daemons), "share_or_full"), None, 0.9, label="of what the slots take")
     for daemons in DAEMONS])
