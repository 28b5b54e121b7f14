# SPDX-License-Identifier: BSD-2-Clause
"""Large arguments and results when broker and worker share a host, and when they may not know."""
import os
import pathlib
import random
import sys
import threading

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from farm_fixtures import *  # noqa: E402,F401,F403
from farm_fixtures import LIMIT_S, connected, in_time  # noqa: E402
import procs  # noqa: E402
import pyfarm  # noqa: E402

WORD = "content goes by descriptor"
SIZES = [65535, 65537, 300000, 5 << 20, 16 << 20]


def near_jobs():
    """Functions of __main__'s kind: they travel by value."""
    def echo(data):
        return data

    def double(data):
        return data + data
    return echo, double


def data_of(size, seed):
    return random.Random(seed).randbytes(size)


def is_near(worker):
    return WORD in worker.log()


def open_memory(pid):
    """How many memory files of results and payloads a process has open."""
    count = 0
    for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        try:
            count += any(name in os.readlink(entry) for name in ("hp-result", "hp-near"))
        except OSError:
            pass  # it was closed meanwhile
    return count


def passed(worker):
    """Bytes that have gone through a process by read and write: not by descriptor."""
    lines = pathlib.Path(f"/proc/{worker.pid}/io").read_text().split("\n")
    count = dict(line.split(": ") for line in lines if line)
    return int(count["rchar"]), int(count["wchar"])


@pytest.mark.parametrize("flags", [(), ("--near=no",)], ids=["near", "far"])
@pytest.mark.parametrize("durable", [True, False])
def test_echo(own_farm, flags, durable):
    import hostpool.multiprocessing as multiprocessing
    worker = own_farm.add_worker(flags=["--log-level", "debug", *flags])
    echo, double = near_jobs()
    with connected(own_farm):
        pool = multiprocessing.Pool(2, durable=durable)
        for size in SIZES:
            data = data_of(size, size)
            assert pool.apply_async(echo, (data,)).get(LIMIT_S) == data
        before = passed(worker) + passed(own_farm.broker)
        several = [data_of(1 << 20, seed) for seed in range(12)]
        assert list(pool.imap(double, several)) == [data + data for data in several]
        after = passed(worker) + passed(own_farm.broker)
        read, written, heard, _ = (now - then for now, then in zip(after, before))
        if flags:
            assert read > 12 << 20 and heard > 24 << 20
        else:  # what comes from the broker's disk is read for its digest
            assert read < (13 << 20 if durable else 2 << 20) and written < 2 << 20
            assert heard < 4 << 20
        procs.wait_until(lambda: open_memory(worker.pid) == 0, "the worker keeps nothing")
        pool.terminate()
        assert in_time(pool.join), "join hangs"
    assert is_near(worker) == (not flags)


def test_large_initializer(own_farm):
    """What children are set up with goes the same way, for each child from one file."""
    import hostpool.multiprocessing as multiprocessing
    worker = own_farm.add_worker(flags=["--log-level", "debug"])
    data = data_of(3 << 20, 3)

    def keep(what):
        import builtins
        builtins.kept_by_test = what

    def kept(_):
        import builtins
        return builtins.kept_by_test
    with connected(own_farm):
        pool = multiprocessing.Pool(2, keep, (data,), maxtasksperchild=1)
        assert pool.map_async(kept, range(6), chunksize=1).get(LIMIT_S) == [data] * 6
        pool.terminate()
        assert in_time(pool.join), "join hangs"
    assert is_near(worker)


def test_broker_dies_between(own_farm):
    """Results that were given to the broker that is gone are given to the next one."""
    import hostpool.multiprocessing as multiprocessing
    worker = own_farm.add_worker(flags=["--log-level", "debug"])
    echo, _ = near_jobs()
    several = [data_of(2 << 20, seed) for seed in range(24)]
    with connected(own_farm):
        pool = multiprocessing.Pool(2)
        got = {}
        enough = threading.Event()

        def ended(index):
            def take(result):
                got[index] = result
                if len(got) == 4:
                    enough.set()
            return take
        asked = [pool.apply_async(echo, (data,), callback=ended(index))
                 for index, data in enumerate(several)]
        assert enough.wait(LIMIT_S)
        own_farm.restart_broker()
        assert [one.get(LIMIT_S) for one in asked] == several
        procs.wait_until(lambda: open_memory(worker.pid) == 0, "the worker keeps nothing")
        pool.terminate()
        assert in_time(pool.join), "join hangs"
    assert worker.log().count(WORD) >= 2  # negotiated with each


def test_worker_dies_between(own_farm):
    """Another one starts with the calls that the first had, whose payloads it is lent again."""
    import hostpool.multiprocessing as multiprocessing
    own_farm.add_worker(flags=["--log-level", "debug"])
    echo, _ = near_jobs()
    several = [data_of(2 << 20, seed) for seed in range(12)]
    with connected(own_farm):
        pool = multiprocessing.Pool(2, max_losses=5, child_losses=5)
        asked = [pool.apply_async(echo, (data,)) for data in several]
        assert asked[0].get(LIMIT_S) == several[0]
        worker = own_farm.workers["worker-1"]
        worker.kill()
        worker.start()
        assert [one.get(LIMIT_S) for one in asked] == several
        pool.terminate()
        assert in_time(pool.join), "join hangs"
