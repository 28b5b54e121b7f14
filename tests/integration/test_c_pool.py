# SPDX-License-Identifier: BSD-2-Clause
"""The hub under load from threads, and the pool of libhostpool, with real brokers and workers."""
import os
import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

import pool  # noqa: E402

HUBS = pool.BUILD / "tests/field/hubs"
EXAMPLE = pool.BUILD / "client/pool"


@pytest.fixture
def farm(tmp_path):
    with pool.Pool(tmp_path) as one:
        one.start()
        one.add_worker("w1", slots=2)
        one.wait_workers()
        yield one
        one.stop_workers()
        one.broker.stop()
        assert not one.leftovers()


def run(argv, **more):
    done = subprocess.run([str(arg) for arg in argv], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=250, check=False, **more)
    print(done.stdout)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("argv", [
    ("square", 100000, 1), ("square", 100000, 5), ("single", 2000, 1), ("single", 2000, 8),
    ("submit", 100000, 2), ("echo", 3000, 3, 3000), ("echo", 200, 3, 65537),
    ("echo", 40, 2, 3000000), ("echo", 4, 2, 16777216)], ids=str)
def test_hub(farm, argv):
    """Every result is checked; payloads over 64 KiB come back as they went, borrowed."""
    mode, count, *rest = argv
    assert f"tasks {count} " in run([pool.find_program(HUBS), farm.broker.host, mode, count, *rest])


def test_hub_broker_killed(farm):
    """The broker dies and comes back while thousands of tasks are on their way: nobody notices."""
    argv = [str(pool.find_program(HUBS)), farm.broker.host, "square", "300000", "2"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True) as child:
        with farm.client() as client:
            while not any(queue["done"] for queue in client.call("queue.list")["queues"]):
                pass
        farm.broker.kill()
        farm.broker.start()
        output, _ = child.communicate(timeout=240)
        assert child.returncode == 0, output


def test_example(farm):
    """The example: an initializer in each child, starmap, imap, close, join."""
    environment = dict(os.environ, HOSTPOOL_HOST=farm.broker.host)
    out = run([pool.find_program(EXAMPLE), 1000000], env=environment)
    assert out == "78498 primes below 1000000, in 64 ranges\n"
