# SPDX-License-Identifier: BSD-2-Clause
"""Interpreters that the worker starts for pools: many, missing ones, and such as never get ready.

What children run is left to tests/python: here they are only set up, with nothing."""
import os
import signal
import sys

import pytest

import procs
import rpc
from procs import wait_until as until

POOL = 4
DONE, FAILED = rpc.STATE["done"], rpc.STATE["failed"]
INIT_FAILED = 19
CLOSE, TERMINATE = 0, 1
LANGUAGE = "python%d.%d" % sys.version_info[:2]
RUN_AT_ONCE = 16  # interpreters of one worker

pytestmark = pytest.mark.skipif(not (procs.BUILD / "python/hostpool").is_dir(),
                                reason="built without the Python package")


@pytest.fixture
def worker(broker_factory, worker_factory, client_factory):
    broker = broker_factory()
    made = worker_factory(broker, flags=["--any-interpreter", "--python", "none"])
    made.client = client_factory(broker)
    procs.wait_workers(made.client, 1)
    return made


def open_pool(client, interpreter, processes=1):
    return client.submit([b""], kind=POOL, language=LANGUAGE, interpreter=str(interpreter),
                         processes=processes)[0]


def info(client, pool):
    return client.call("pool.info", pool=pool, wait_ms=20000)


def end(client, pool, how=CLOSE):
    client.call("pool.end", pool=pool, how=how)
    return client.wait([pool])[0]


def test_more_than_run_at_once(worker, tmp_path):
    """One that nobody uses any more makes room for the next."""
    client = worker.client
    for number in range(RUN_AT_ONCE + 2):
        path = tmp_path / f"python{number}"
        path.symlink_to(sys.executable)
        pool = open_pool(client, path)
        until(lambda: len(info(client, pool)["children"]) == 1, "its child is up")
        assert end(client, pool)["state"] == DONE


@pytest.mark.parametrize("content, text", [
    (None, "No such file or directory"),
    ("#!/bin/sh\necho this is no Python >&2\nexit 3\n", "this is no Python"),
    ("#!/bin/sh\nkill -9 $$\n", "signal 9"),
    ("neither script nor program\n", "Exec format error"),
])
def test_that_cannot_be(worker, tmp_path, content, text):
    path = tmp_path / "python3"
    if content is not None:
        path.write_text(content)
        path.chmod(0o755)
    pool = open_pool(worker.client, path)
    ended = worker.client.wait([pool])[0]
    assert (ended["state"], ended["reason"]) == (FAILED, INIT_FAILED), ended
    error = worker.client.get(pool)["end"]["error"]
    assert text in error and str(path) in error, error


@pytest.fixture
def sleeper(tmp_path):
    path = tmp_path / "python3"
    path.write_text("#!/bin/sh\nexec sleep 100000\n")
    path.chmod(0o755)
    return path


def test_that_hangs(worker, sleeper, tmp_path):
    """The pool can be terminated, and others have their interpreters meanwhile."""
    client = worker.client
    pool = open_pool(client, sleeper, 4)
    until(lambda: len(procs.descendants(worker.pid)) == 2, "the spawner, and what sleeps")
    good = tmp_path / "good"
    good.symlink_to(sys.executable)
    other = open_pool(client, good)
    until(lambda: len(info(client, other)["children"]) == 1, "the other pool is up")
    end(client, pool, TERMINATE)
    assert end(client, other)["state"] == DONE


def test_that_hangs_at_the_end_of_the_worker(worker, sleeper):
    open_pool(worker.client, sleeper, 4)
    until(lambda: len(procs.descendants(worker.pid)) == 2, "the spawner, and what sleeps")
    pids = procs.descendants(worker.pid)
    assert worker.stop() == 0
    assert not any(map(procs.is_running, pids))


def test_killed_while_children_wait_for_it(worker, sleeper):
    pool = open_pool(worker.client, sleeper)
    until(lambda: len(procs.descendants(worker.pid)) == 2, "the spawner, and what sleeps")
    spawner = min(procs.descendants(worker.pid))
    for _ in range(3):  # then this worker is given up
        found = until(lambda: [pid for pid in procs.descendants(worker.pid) if pid != spawner],
                      "it sleeps")
        os.kill(found[0], 9)
        until(lambda: not procs.is_running(found[0]), "it is gone")
    ended = worker.client.wait([pool])[0]
    assert (ended["state"], ended["reason"]) == (FAILED, INIT_FAILED), ended


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_that_hangs_when_the_worker_starts(broker, worker_factory, sleeper, number):
    """The worker's own interpreter is asked what it is; whatever ends the worker ends it, too."""
    worker = worker_factory(broker, flags=["--python", sleeper])
    pids = until(lambda: len(procs.descendants(worker.pid)) == 2 and procs.descendants(worker.pid),
                 "the spawner, and what sleeps")
    os.kill(worker.pid, number)
    until(lambda: not any(map(procs.is_running, pids)), "all are gone")
