# SPDX-License-Identifier: BSD-2-Clause
"""W1: tasks that do nothing but return their 100 bytes, pipelined, all results back."""
import threading

from harness import farm, limits, peers
from harness.model import Goal, Show, Side, Workload
from harness.peers import NOTHING, RATE

MIB = 1 << 20
STRICT, EAGER, VOLATILE = "hostpool, strict", "hostpool", "hostpool, durable=false"
SUSTAINED = "hostpool, strict, for 60 s"
GEARMAND, REDIS = "gearmand, 16 grabs", "redis AOF always, BLMPOP 64"
POOL, BEANSTALKD = "multiprocessing.Pool.apply_async", "beanstalkd -f0"


def pipelined(count, flags=(), **options):
    def run(context):
        with farm.start(context, flags=flags) as one:
            return farm.drive(one, "pipelined", context.count(count, 500), **options)["pipelined"]
    return run


class Watch(threading.Thread):
    """Notes the size of the broker's files now and then."""

    def __init__(self, one, step_s):
        super().__init__(daemon=True)
        self.one = one
        self.step_s = step_s
        self.ended = threading.Event()
        self.sizes = []

    def run(self):
        while not self.ended.wait(self.step_s):
            self.sizes.append(farm.disk_bytes(self.one) / MIB)

    def stop(self):
        self.ended.set()
        self.join()


def sustained(context):
    """Each result is read, acknowledged and given back, so the files must stop growing."""
    seconds = context.seconds(60, 3)
    with farm.start(context, flags=("--no-eager",)) as one:
        watch = Watch(one, seconds / 12)
        watch.start()
        found = farm.drive(one, "sustained", 200_000_000, seconds=int(seconds), forget=True)
        watch.stop()
    sizes = watch.sizes
    half = sizes[len(sizes) // 2]
    text = ", ".join(f"{size:.0f}" for size in sizes)
    return {**found["sustained"], "files_mib": max(sizes), "growth": max(sizes) / half,
            "notes": [f"MiB of files every {seconds / 12:.1f} s: {text}"]}


HOSTPOOL = [
    Side(STRICT, "fsync before dispatch and before the result; at least once",
         pipelined(400_000, ("--no-eager",)), RATE),
    Side(EAGER, "fsync before the acknowledgement and before the result (default settings)",
         pipelined(400_000), RATE),
    Side("hostpool, strict, empty results", "as strict; results of 0 bytes",
         pipelined(400_000, ("--no-eager",), work="noop"), RATE),
    Side(VOLATILE, NOTHING, pipelined(400_000, durable=False), RATE),
    Side(SUSTAINED, "as strict; results freed once read", sustained,
         (*RATE, Show("files_mib", "MiB", "largest files"),
          Show("growth", "times", "largest / at half time", 2)), once=True),
]
PEERS = [
    peers.server_side(GEARMAND, NOTHING, "gearmand",
                      peers.load("gearmand", "pipelined", 600_000, fetch=16), RATE),
    peers.server_side(REDIS, peers.REDIS_ALWAYS, "redis",
                      peers.load("redis", "pipelined", 300_000, fetch=64, durable=True), RATE),
    peers.standard_pool("apply", RATE, POOL),
    peers.server_side(BEANSTALKD, peers.BEANSTALKD_F0, "beanstalkd",
                      peers.load("beanstalkd", "pipelined", 6000, durable=True), RATE),
]
WORKLOAD = Workload(
    "W1", "no-op tasks of 100 bytes there and back, C client, 2 slots, every result checked",
    [*HOSTPOOL, limits.SQLITE, *PEERS],
    [Goal((STRICT, "rate"), (GEARMAND, "rate"), 1.0),
     Goal((STRICT, "rate"), (REDIS, "rate"), 2.0),
     Goal((STRICT, "rate"), (POOL, "rate"), 7.0),
     Goal((STRICT, "rate"), (BEANSTALKD, "rate"), 100.0),
     Goal((STRICT, "rate"), (limits.SQLITE.name, "rate"), 0.6),
     Goal((VOLATILE, "rate"), (GEARMAND, "rate"), 1.5),
     Goal((SUSTAINED, "rate"), (limits.SQLITE.name, "rate"), 0.6),
     Goal((SUSTAINED, "growth"), None, 1.1, at_most=True, label="stops growing")])
