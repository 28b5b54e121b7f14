# SPDX-License-Identifier: BSD-2-Clause
"""W4: a map of x * x, in Python as multiprocessing.Pool does it, and in C."""
from harness import farm, peers
from harness.model import Goal, Show, Side, Workload

ITEMS = (Show("rate", "items/s"),)
DEFAULT, SINGLE = "hostpool, Python, default chunks", "hostpool, Python, chunksize=1"
POOL, POOL_SINGLE = "multiprocessing.Pool, default chunks", "multiprocessing.Pool, chunksize=1"
C_CHUNKS = "hostpool, C, hp_map_stream, 62,500 inputs a task"
C_MAP, C_POOL = "hostpool, C, hp_map", "hostpool, C, hp_pool_map"
DURABLE = "fsync before the acknowledgement and before the result"


def python_map(measure):
    def run(context):
        with farm.start(context) as one:
            return peers.python_pool(measure, host=one.broker.host)(context)
    return run


def c_map(mode, figure, **options):
    def run(context):
        with farm.start(context) as one:
            count = context.count(1_000_000, 1000)
            return farm.drive(one, mode, count, work="square", **options)[figure]
    return run


WORKLOAD = Workload(
    "W4", "map of 1,000,000 x*x (100,000 with chunksize=1), 2 slots, every result checked",
    [Side(DEFAULT, DURABLE + " of each chunk", python_map("map"), ITEMS),
     Side(SINGLE, DURABLE, python_map("map1"), ITEMS),
     Side(C_CHUNKS, DURABLE + " of each chunk", c_map("stream", "stream", chunk=62_500), ITEMS),
     Side(C_MAP, DURABLE + " of each item", c_map("map", "map"), ITEMS),
     Side(C_POOL, DURABLE + " of each item", c_map("poolmap", "pool_map"), ITEMS),
     peers.standard_pool("map", ITEMS, POOL),
     peers.standard_pool("map1", ITEMS, POOL_SINGLE)],
    [Goal((DEFAULT, "rate"), (POOL, "rate"), 1.0),
     Goal((SINGLE, "rate"), (POOL_SINGLE, "rate"), 2.0),
     Goal((C_CHUNKS, "rate"), None, 10e6, label="absolute", unit="items/s")])
