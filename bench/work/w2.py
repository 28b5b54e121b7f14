# SPDX-License-Identifier: BSD-2-Clause
"""W2: one task at a time, from its submit to its result; on all CPUs, and all on one."""
from harness import farm, peers
from harness.model import Goal, Side, Workload
from harness.peers import NOTHING, TIMES

DURABLE, VOLATILE = "hostpool", "hostpool, durable=false"
PYTHON = "hostpool, Python, durable=false"
REDIS_ALWAYS, BEANSTALKD, REDIS = "redis AOF always", "beanstalkd -f0", "redis"
POOL = "multiprocessing.Pool.apply"
EAGER = "fsync before the result; dispatch does not wait for it (default settings)"


def single(count, **options):
    def run(context):
        with farm.start(context) as one:
            return farm.drive(one, "single", context.count(count, 200), **options)["single"]
    return run


def python_single(context):
    with farm.start(context) as one:
        return peers.python_pool("one-nd", host=one.broker.host)(context)


def sides(one_cpu):
    end = ", one CPU" if one_cpu else ""
    return [
        Side(DURABLE + end, EAGER, single(5000), TIMES, one_cpu=one_cpu),
        Side(VOLATILE + end, NOTHING, single(20_000, durable=False), TIMES, one_cpu=one_cpu),
        Side(PYTHON + end, NOTHING, python_single, TIMES, one_cpu=one_cpu),
        peers.server_side(REDIS_ALWAYS + end, peers.REDIS_ALWAYS, "redis",
                          peers.load("redis", "single", 3000, durable=True), TIMES,
                          one_cpu=one_cpu),
        peers.server_side(BEANSTALKD + end, peers.BEANSTALKD_F0, "beanstalkd",
                          peers.load("beanstalkd", "single", 2000, durable=True), TIMES,
                          one_cpu=one_cpu),
        peers.server_side(REDIS + end, NOTHING, "redis", peers.load("redis", "single", 20_000),
                          TIMES, one_cpu=one_cpu),
        peers.standard_pool("one", TIMES, POOL + end, one_cpu=one_cpu),
    ]


WORKLOAD = Workload(
    "W2", "one task of 100 bytes at a time, submit to result, C client, every result checked",
    [*sides(False), *sides(True)],
    [Goal((DURABLE, "p50_us"), (REDIS_ALWAYS, "p50_us"), 0.9, at_most=True,
          label="redis AOF always (aim 0.75)"),
     Goal((DURABLE, "p50_us"), (BEANSTALKD, "p50_us"), 0.7, at_most=True),
     Goal((DURABLE, "p99_us"), (DURABLE, "p50_us"), 3.0, at_most=True),
     Goal((VOLATILE, "p50_us"), (POOL, "p50_us"), 1.8, at_most=True),
     Goal((VOLATILE, "p50_us"), (REDIS, "p50_us"), 1.0, at_most=True, label="redis (aim)"),
     Goal((PYTHON, "p50_us"), (POOL, "p50_us"), 1.8, at_most=True)])
