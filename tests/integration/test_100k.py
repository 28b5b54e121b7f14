# SPDX-License-Identifier: BSD-2-Clause
"""100,000 function tasks through libhostpool, pipelined, to two slots: every result is checked."""
import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

import pool  # noqa: E402


@pytest.mark.parametrize("function", ["noop", "square"])
def test_100k(tmp_path, function):
    with pool.Pool(tmp_path) as one:
        one.start()
        one.add_worker("w1", slots=2)
        one.wait_workers()
        done = subprocess.run(
            [pool.find_program(pool.BUILD / "tests/field/noops"), one.broker.host, "pipelined",
             "100000", function], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=250, check=False)
        print(done.stdout)
        assert done.returncode == 0 and "tasks 100000 " in done.stdout and "wrong 0" in done.stdout
        with one.client() as client:
            queue, = client.call("queue.list")["queues"]
            assert (queue["ready"], queue["running"], queue["done"]) == (0, 0, 100000)
        assert one.stop_workers() == [] and one.broker.stop() == 0
        assert not one.leftovers()
