# SPDX-License-Identifier: BSD-2-Clause
"""W5: 64 tasks with 16 MiB in and out, 4 under way at a time; MB/s counts both directions."""
from harness import farm, limits, peers
from harness.model import Goal, Show, Side, Workload
from harness.peers import NOTHING

SIZE = 16 << 20
WINDOW = 4
MB = (Show("rate", "MB/s"),)
DURABLE, VOLATILE = "hostpool", "hostpool, durable=false"
PYTHON, PYTHON_VOLATILE = "hostpool, Python", "hostpool, Python, durable=false"
POOL, BEANSTALKD, GEARMAND = "multiprocessing.Pool", "beanstalkd -f0", "gearmand"
SYNCED = "payload and result written and synced before they are acknowledged"


def megabytes(found):
    """MB/s, in and out, of a rate of tasks."""
    return {**found, "rate": found["rate"] * 2 * SIZE / 1e6}


def stream(**options):
    def run(context):
        with farm.start(context) as one:
            found = farm.drive(one, "stream", context.count(64, WINDOW), bytes=SIZE, window=WINDOW,
                               **options)
            return megabytes(found["stream"])
    return run


def python_stream(measure):
    def run(context):
        with farm.start(context) as one:
            return peers.python_pool(measure, host=one.broker.host)(context)
    return run


def server(kind, durable=False):
    def run(context):
        found = peers.load(kind, "pipelined", max(64, int(WINDOW / context.scale)), size=SIZE,
                           window=WINDOW, durable=durable)
        return megabytes(found(context))
    return run


def lower_bar(figures):
    """What the durable side must reach: the peers' bar or the disk's, whichever is lower."""
    rates = {name: one.get("rate") for name, one in figures.items()}
    if not all(rates.get(name) for name in (POOL, BEANSTALKD, limits.DISK.name)):
        return None
    return min(max(rates[POOL], 2 * rates[BEANSTALKD]), 0.8 * rates[limits.DISK.name])


WORKLOAD = Workload(
    "W5", "64 tasks of 16 MiB in and out, 4 at a time, 2 slots, every byte checked",
    [Side(DURABLE, SYNCED, stream(), MB),
     Side(VOLATILE, NOTHING, stream(durable=False, forget=True), MB),
     Side(PYTHON, SYNCED, python_stream("big"), MB),
     Side(PYTHON_VOLATILE, NOTHING, python_stream("big-nd"), MB),
     limits.DISK,
     peers.standard_pool("big", MB, POOL),
     peers.server_side(BEANSTALKD, peers.BEANSTALKD_F0, "beanstalkd", server("beanstalkd", True),
                       MB),
     peers.server_side(GEARMAND, NOTHING, "gearmand", server("gearmand"), MB)],
    [Goal((DURABLE, "rate"), lower_bar, 1.0,
          label="lower of (Pool, 2 x beanstalkd -f0), 0.8 x disk"),
     Goal((DURABLE, "rate"), (POOL, "rate"), 1.0),
     Goal((DURABLE, "rate"), (BEANSTALKD, "rate"), 2.0),
     Goal((DURABLE, "rate"), (limits.DISK.name, "rate"), 0.8),
     Goal((VOLATILE, "rate"), (GEARMAND, "rate"), 1.0),
     Goal((VOLATILE, "rate"), (POOL, "rate"), 2.4),
     Goal((PYTHON, "rate"), (POOL, "rate"), 1.0),
     Goal((PYTHON_VOLATILE, "rate"), (POOL, "rate"), 2.4)])
