# SPDX-License-Identifier: BSD-2-Clause
"""W3: submits only: pipelined, and one synchronous submit at a time."""
from harness import farm, peers
from harness.model import Goal, Side, Workload
from harness.peers import RATE, TIMES

PIPELINED, SYNC = "hostpool, pipelined", "hostpool, one at a time"
REDIS, REDIS_SYNC = "redis AOF always, pipelined", "redis AOF always, one at a time"
BEANSTALKD, BEANSTALKD_SYNC = "beanstalkd -f0, pipelined", "beanstalkd -f0, one at a time"
DURABLE = "fsync before the acknowledgement"


def submits(mode, count):
    def run(context):
        with farm.start(context, workers=0) as one:
            return farm.drive(one, mode, context.count(count, 200))[mode]
    return run


def server(name, kind, mode, count, durable, shows):
    return peers.server_side(name, durable, kind, peers.load(kind, mode, count, durable=True),
                             shows)


WORKLOAD = Workload(
    "W3", "durable submits of 100 bytes, acknowledged; no workers",
    [Side(PIPELINED, DURABLE, submits("submit", 1_000_000), RATE),
     Side(SYNC, DURABLE, submits("sync", 3000), TIMES),
     server(REDIS, "redis", "submit", 400_000, peers.REDIS_ALWAYS, RATE),
     server(REDIS_SYNC, "redis", "sync", 3000, peers.REDIS_ALWAYS, TIMES),
     server(BEANSTALKD, "beanstalkd", "submit", 10_000, peers.BEANSTALKD_F0, RATE),
     server(BEANSTALKD_SYNC, "beanstalkd", "sync", 3000, peers.BEANSTALKD_F0, TIMES)],
    [Goal((PIPELINED, "rate"), (REDIS, "rate"), 1.5),
     Goal((SYNC, "p50_us"), (BEANSTALKD_SYNC, "p50_us"), 1.5, at_most=True,
          label="beanstalkd -f0 (aim 1.0)")])
