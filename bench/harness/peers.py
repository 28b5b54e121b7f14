# SPDX-License-Identifier: BSD-2-Clause
"""Sides that are not hostpool: what the issue compares with, each with its durability in words."""
import subprocess
import sys
import time

from harness import programs, servers
from harness.model import PEER, Show, Side

NOTHING = "nothing, all in memory"
REDIS_ALWAYS = "fsync before each answer, grouped; a worker's crash loses what it took"
BEANSTALKD_F0 = "fsync before each answer, one for each command; at least once"
RATE = (Show("rate", "tasks/s"),)
TIMES = (Show("p50_us", "us", "p50", 1), Show("p99_us", "us", "p99", 1))


def load(kind, mode, count, size=100, fetch=1, window=2000, durable=False):
    """run(context) of bench/programs/peer against a new server."""
    def run(context):
        with servers.start(kind, context.folder, durable) as (port, _):
            found = programs.load("peer", kind, mode, port, context.count(count, 50), size, fetch,
                                  window)
        return found[mode]
    return run


def server_side(name, durable, kind, run, shows, **more):
    return Side(name, durable, run, shows, kind=PEER, packages=(servers.PACKAGES[kind],), **more)


def python_pool(measure, scale_of=1.0, host=None):
    """run(context) of one measure of bench/pool on the standard library's Pool, or on a host's."""
    def run(context, address=host):
        argv = [sys.executable, programs.ROOT / "bench/pool", "--build", programs.build_folder(),
                "--only", measure, "--side", "hostpool" if address else "standard", "--scale",
                context.scale * scale_of, "--limit", programs.SECONDS_MAX]
        if address:
            argv += ["--host", address]
        return programs.run_json(argv)[measure]
    return run


def standard_pool(measure, shows, name="multiprocessing.Pool", **more):
    return Side(name, NOTHING, python_pool(measure), shows, kind=PEER, **more)


def shell(command, count):
    """run(context) of a shell line that runs $N programs: commands a second."""
    def run(context):
        number = context.count(count, 20)
        begin_s = time.monotonic()
        subprocess.run(["sh", "-c", command, "sh", str(number)], check=True, cwd=context.folder,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       timeout=programs.SECONDS_MAX)
        return {"rate": number / (time.monotonic() - begin_s)}
    return run
