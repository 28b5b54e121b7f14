# SPDX-License-Identifier: BSD-2-Clause
"""Pools whose children run functions of C modules: the whole way from a plain protocol client over
broker and worker to the children and back, faults included."""
import os
import signal

import msgpack
import pytest

import procs
import rpc
from procs import wait_until as until

CALL, POOL = 3, 4
DONE, FAILED, CANCELLED = (rpc.STATE[name] for name in ("done", "failed", "cancelled"))
CHILD_SIGNAL, INIT_FAILED, POOL_ENDED = 4, 19, 20
CLOSE, TERMINATE = 0, 1
MODULE = procs.BUILD / "worker/sdk/hp_test_pool.so"
EXAMPLE = procs.BUILD / "worker/sdk/example.so"


class NativePool:
    """A pool of language c, by raw calls."""

    def __init__(self, client, payload=b"", **options):
        self.client = client
        self.id = client.submit([payload], kind=POOL, language="c", **options)[0]

    def submit(self, fn, payloads, **options):
        return self.client.submit(payloads, kind=CALL, pool=self.id, fn=fn, **options)

    def run(self, fn, payloads, **options):
        return self.client.wait(self.submit(fn, payloads, **options))

    def info(self, wait_ms=20000):
        return self.client.call("pool.info", pool=self.id, wait_ms=wait_ms)

    def pids(self):
        return sorted(child["pid"] for child in self.info()["children"])

    def wait_pids(self, count):
        return until(lambda: len(self.pids()) == count and self.pids(), f"{count} children are up")

    def end(self, how=CLOSE):
        self.client.call("pool.end", pool=self.id, how=how)
        return self.client.wait([self.id])[0]


def results(client, tasks):
    found, ids = [], [task["id"] for task in tasks]
    while ids:  # an answer holds what fits, and names the first that does not
        reply = client.call("task.get", ids=ids)
        rest = ids.index(reply["next"]) if reply.get("next") else len(ids)
        assert rest > 0
        found += [task["end"].get("result", b"") for task in reply["tasks"][:rest]]
        ids = ids[rest:]
    return found


@pytest.fixture
def worker(broker_factory, worker_factory, client_factory):
    broker = broker_factory()
    made = worker_factory(broker, slots=2, module=EXAMPLE, flags=["--module", str(MODULE),
                                                                  "--python", "none"])
    made.client = client_factory(broker)
    made.broker = broker
    procs.wait_workers(made.client, 1)
    return made


@pytest.fixture
def client(worker):
    return worker.client


def test_calls(client):
    one = NativePool(client, processes=3)
    payloads = [msgpack.packb([n]) for n in range(500)]
    tasks = one.run("square", payloads)
    assert {task["state"] for task in tasks} == {DONE}
    assert [msgpack.unpackb(r) for r in results(client, tasks)] == [n * n for n in range(500)]
    pids = one.wait_pids(3)
    assert one.end()["state"] == DONE
    until(lambda: not any(map(procs.is_running, pids)), "the children have ended")


def test_each_child_is_set_up(client):
    one = NativePool(client, b"some data", fn="pool.set_up", processes=2)
    tasks = one.run("pool.data", [b""] * 50)
    assert set(results(client, tasks)) == {b"some data"}
    assert one.end()["state"] == DONE


@pytest.mark.parametrize("how, text", [(b"fail", "there is no such data"),
                                       (b"die", "the data are damaged")])
def test_set_up_fails(client, how, text):
    one = NativePool(client, how, fn="pool.set_up", processes=2)
    task = one.run("pool.data", [b""])[0]
    assert (task["state"], task["reason"]) == (FAILED, INIT_FAILED), task
    pool = client.wait([one.id])[0]
    assert (pool["state"], pool["reason"]) == (FAILED, INIT_FAILED), pool
    assert text in client.get(one.id)["end"]["error"]


def test_a_call_that_kills_its_child(client):
    one = NativePool(client, processes=2)
    good = one.submit("square", [msgpack.packb([7])] * 200)
    bad = one.submit("crash", [b""] * 12)
    more = one.submit("square", [msgpack.packb([7])] * 200)
    for task in client.wait(bad):
        assert (task["state"], task["reason"]) == (FAILED, CHILD_SIGNAL), task
    end = client.get(bad[0])["end"]
    assert end["signal"] == signal.SIGSEGV
    assert b"crash: about to touch" in end["err"]
    assert {task["state"] for task in client.wait(good + more)} == {DONE}
    one.wait_pids(2)
    assert one.end()["state"] == DONE


def test_calls_per_child(client):
    one = NativePool(client, processes=2, calls_per_child=5)
    first = one.wait_pids(2)
    assert {task["state"] for task in one.run("noop", [b""] * 500)} == {DONE}
    assert not set(first) & set(one.wait_pids(2))
    assert one.end()["state"] == DONE


def test_terminate(client):
    one = NativePool(client, processes=2)
    tasks = one.submit("pool.hang", [b""] * 4, kill_grace_ms=200)
    pids = one.wait_pids(2)
    pool = one.end(TERMINATE)
    assert pool["state"] == CANCELLED
    for task in client.wait(tasks):
        assert (task["state"], task["reason"]) == (FAILED, POOL_ENDED), task
    until(lambda: not any(map(procs.is_running, pids)), "the children have ended")


def test_terminate_while_it_is_set_up(client, worker):
    one = NativePool(client, b"hang", fn="pool.set_up", processes=2)
    tasks = one.submit("pool.data", [b""] * 4)
    until(lambda: len(procs.descendants(worker.pid)) == 2 + 2 + 2,
          "two helpers, two children of functions, and two that are being set up")
    one.end(TERMINATE)
    assert {task["reason"] for task in client.wait(tasks)} == {POOL_ENDED}
    after = NativePool(client, processes=32)  # all that the worker can have
    assert len(after.wait_pids(32)) == 32
    assert after.end()["state"] == DONE


def test_children_outlive_the_broker(worker, client_factory):
    one = NativePool(worker.client, processes=2)
    pids = one.wait_pids(2)
    worker.client.call("pool.detach", pool=one.id)
    worker.broker.kill()
    worker.broker.start()
    client = one.client = client_factory(worker.broker)
    procs.wait_workers(client, 1)
    assert one.wait_pids(2) == pids
    assert {task["state"] for task in one.run("square", [msgpack.packb([7])] * 100)} == {DONE}
    assert one.end()["state"] == DONE


def test_the_broker_dies_in_the_middle(worker, client_factory):
    """Calls that run go on, and their ends are told to the broker that comes back."""
    one = NativePool(worker.client, processes=2)
    pids = one.wait_pids(2)
    worker.client.call("pool.detach", pool=one.id)
    running = one.submit("sleep_ms", [msgpack.packb([1500])] * 2)
    waiting = one.submit("square", [msgpack.packb([7])] * 300)
    until(lambda: all(worker.client.get(id)["state"] == 5 for id in running), "both run")
    for _ in range(2):
        worker.broker.kill()
        worker.broker.start()
        client = one.client = client_factory(worker.broker)
    tasks = client.wait(running + waiting)
    assert {task["state"] for task in tasks} == {DONE}
    assert {task["attempt"] for task in tasks if task["id"] in running} == {1}
    assert one.wait_pids(2) == pids
    assert one.end()["state"] == DONE


def test_the_worker_dies_in_the_middle(worker, worker_factory):
    """Another one has the pool's children then, and runs again what the first one ran."""
    client = worker.client
    one = NativePool(client, processes=2)
    one.wait_pids(2)
    running = one.submit("sleep_ms", [msgpack.packb([1500])] * 2)
    waiting = one.submit("square", [msgpack.packb([7])] * 200)
    until(lambda: all(client.get(id)["state"] == 5 for id in running), "both run")
    children = procs.descendants(worker.pid)
    worker_factory(worker.broker, name="second", module=EXAMPLE,
                   flags=["--module", str(MODULE), "--python", "none"])
    procs.wait_workers(client, 2)
    worker.kill()
    until(lambda: not any(map(procs.is_running, children)), "its children are gone, too")
    worker.start()  # tells the broker at once that what its predecessor ran is lost
    assert {task["state"] for task in client.wait(running + waiting)} == {DONE}
    assert {client.get(id)["attempt"] for id in running} == {2}
    one.wait_pids(2)
    assert one.end()["state"] == DONE


def test_as_many_as_there_may_be(worker_factory, worker):
    """64 children, each replaced after each call, and all slots in use."""
    worker_factory(worker.broker, name="large", slots=2, module=EXAMPLE,
                   flags=["--module", str(MODULE), "--python", "none", "--children-max", "64"])
    procs.wait_workers(worker.client, 2)
    one = NativePool(worker.client, processes=90, calls_per_child=2)
    one.wait_pids(90)
    tasks = one.run("square", [msgpack.packb([7])] * 500)
    assert {task["state"] for task in tasks} == {DONE}
    one.wait_pids(90)
    assert one.end()["state"] == DONE


def test_drain(worker, tmp_path):
    one = NativePool(worker.client, processes=2)
    pids = one.wait_pids(2)
    task = one.submit("sleep_ms", [msgpack.packb([700])])
    until(lambda: worker.client.get(task[0])["state"] == 5, "it runs")
    assert worker.stop() == 0
    assert worker.client.wait(task)[0]["state"] == DONE
    assert not any(map(procs.is_running, pids))


def test_what_is_printed(client):
    one = NativePool(client, processes=1)
    tasks = one.run("pool.say", [b"one", b"two"])
    for task, word in zip(tasks, ("one", "two")):
        end = client.get(task["id"])["end"]
        assert end["err"] == f"err: {word}\n".encode()
    assert one.end()["state"] == DONE


def test_large_results_that_are_not_durable(client):
    one = NativePool(client, processes=2)
    tasks = one.run("big", [msgpack.packb([300000])] * 4, durable=False)
    want = bytes(i % 251 for i in range(300000))
    for task in tasks:
        assert task["state"] == DONE
        blob = client.get(task["id"])["end"]["result_blob"]
        data = b""
        while len(data) < len(want):
            data += client.call("blob.get", blob=blob, offset=len(data))["data"]
        assert data == want
    assert one.end()["state"] == DONE


def test_many_children_and_short_calls(client):
    """What is under way stays bounded: nothing goes to the worker only to be handed back."""
    one = NativePool(client, processes=32)
    one.wait_pids(32)
    for _ in range(5):
        tasks = one.submit("noop", [b""] * 8000)
        for first in range(0, 8000, 500):
            assert {t["state"] for t in client.wait(tasks[first:first + 500])} == {DONE}
    released = [value for name, value in client.counters().items() if "release" in name]
    assert sum(released) < 4000, client.counters()
    assert one.end()["state"] == DONE


def test_killed_children_are_replaced(client):
    one = NativePool(client, processes=2)
    for _ in range(8):
        pids = one.wait_pids(2)
        os.kill(pids[0], signal.SIGKILL)
        until(lambda: pids[0] not in one.pids(), "the dead one is gone")
    one.wait_pids(2)
    assert {task["state"] for task in one.run("noop", [b""] * 50)} == {DONE}
    assert one.end()["state"] == DONE
