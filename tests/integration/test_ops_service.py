# SPDX-License-Identifier: BSD-2-Clause
"""Restarts under load, a herd that comes back, a disk that stalls, descriptors that are out.

HP_OPS_RESTARTS: restarts of broker and workers under load (a campaign: 1000).
"""
import contextlib
import os
import pathlib
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

import pool  # noqa: E402
import procs  # noqa: E402
import rpc  # noqa: E402

RESTARTS = int(os.environ.get("HP_OPS_RESTARTS", "6"))
OPS = pathlib.Path(__file__).resolve().parents[1] / "ops"
SCRIPT = 'echo x >> "$GO.starts"; while [ ! -e "$GO" ]; do sleep 0.05; done; echo "end"'


def long_task(client, go, **more):
    return client.run_command("/bin/sh", "-c", SCRIPT, env=[f"GO={go}"], **more)


def states(client, ids):
    return {t["state"] for t in client.call("task.get", ids=ids)["tasks"]}


def is_leased(client, ids):
    return states(client, ids) <= {rpc.STATE["leased"], rpc.STATE["running"]}


# ---------------------------------------------------------------------------------------- restarts
def test_restarts_under_load(tmp_path):
    """SIGTERM, exit, start, of broker and workers in turn: a client that retries sees no error."""
    with pool.Pool(tmp_path, ["--lease", "5s", "--heartbeat", "1s"]) as one:
        one.start()
        for name in ("w1", "w2"):
            one.add_worker(name, slots=2, flags=["--drain-timeout", "10s"])
        one.wait_workers()
        go, journal = tmp_path / "go", tmp_path / "journal.load"
        with one.client(60) as client:
            first = client.call("task.submit", options={
                "kind": pool.COMMAND, "argv": ["/bin/sh", "-c", SCRIPT], "env": [f"GO={go}"],
                "need_tags": []})["first"]
        load = pool.Process(one, "load", [
            procs.BUILD / "tests" / "field" / "load", one.broker.host, secrets.token_hex(16),
            journal, "1", one.id, tmp_path, "200"]).start()
        try:
            pool.until(lambda: journal.exists() and journal.read_text().count("\n") > 20, "load")
            for number in range(RESTARTS):
                before = journal.stat().st_size
                # The worker that runs the long task is left alone: it would wait for that.
                held = [n for n, w in one.nodes().items() if w["used"] and go.with_name(
                    "go.starts").exists()]
                if number % 3 == 2 and len(held) < 2:
                    name = next(n for n in one.workers if n not in held)
                    assert one.workers[name].stop(40) == 0
                    one.workers[name].start()
                else:
                    assert one.broker.stop(30) == 0, one.broker.log_text()[-2000:]
                    one.broker.start()  # at once, on the same port
                    one.wait_ready()
                one.wait_workers()
                pool.until(lambda size=before: journal.stat().st_size > size, "the load goes on")
                assert load.is_alive(), load.log_text()
            go.touch()
            load.signal(signal.SIGTERM)
            assert load.wait(90) == 0, load.log_text()
            with one.client(60) as client:
                task = pool.wait_tasks(client, [first])[first]
                assert task["state"] == pool.DONE and task["attempt"] == 1, task
                assert client.call("broker.check")["ok"]
        finally:
            load.kill()
        failed = [line for line in journal.read_text().splitlines() if line.startswith("F ")]
        assert not failed, failed[:5]
        assert (tmp_path / "go.starts").read_text() == "x\n", "it was started again"
        assert one.stop_workers() == [] and one.broker.stop() == 0


def test_stop_with_long_tasks(broker, worker_factory, client, tmp_path):
    """The broker does not wait for tasks; they go on at the worker, and land afterwards."""
    worker_factory(broker, slots=4)
    procs.wait_workers(client, 1)
    go = tmp_path / "go"
    ids = [long_task(client, go, at_most_once=i == 0) for i in range(3)]
    procs.wait_until(lambda: is_leased(client, ids), "they run")
    assert broker.stop() == 0 and broker.events("stopped")
    go.touch()  # they end while there is no broker
    broker.start()  # at once on the same port
    with rpc.Client(broker.port) as after:
        after.hello()
        assert [t["state"] for t in after.wait(ids)] == [rpc.STATE["done"]] * 3
        assert {t["attempt"] for t in after.call("task.get", ids=ids)["tasks"]} == {1}
    assert (tmp_path / "go.starts").read_text() == "x\n" * 3


def test_reload_of_a_bad_file_under_load(broker_factory, worker_factory, tmp_path):
    conf = tmp_path / "hostpoold.conf"
    conf.write_text("lease = 20s\n")
    broker = broker_factory("--config", conf)
    with rpc.Client(broker.port) as client:
        client.hello()
        worker_factory(broker, module=True)
        procs.wait_workers(client, 1)
        for number, bad in enumerate(["lease = nonsense\n", "no_such = 1\n", "lease = \n", "]["]):
            conf.write_text(bad)
            broker.signal(signal.SIGHUP)
            broker.wait_event("config_refused", number + 1)
            ids = client.submit([b"\x02"] * 20, kind=rpc.FUNCTION, fn="square")
            assert {t["state"] for t in client.wait(ids)} == {rpc.STATE["done"]}
        conf.write_text("lease = 20s\n")
        broker.signal(signal.SIGHUP)
        broker.wait_event("config_reloaded")


# -------------------------------------------------------------------------------------------- herd
class Herd(threading.Thread):
    """Sessions that wait for a task, and all come back the moment that the broker does."""

    def __init__(self, port, task, count):
        super().__init__(daemon=True)
        self.port, self.task, self.error = port, task, None
        self.ids = [os.urandom(16) for _ in range(count)]
        self.greeted, self.ended = 0, 0
        self.clients = [self.connect(session) for session in self.ids]

    def connect(self, session):
        client = rpc.Client(self.port, timeout=60)
        client.hello(session=session)
        self.greeted += 1
        client.asked = client.send("task.wait", ids=[self.task], timeout_ms=60000)
        return client

    def again(self, session):
        def reconnect():
            with contextlib.suppress(OSError):
                return self.connect(session)
            return None
        return procs.wait_until(reconnect, "it connects again")

    def run(self):
        try:
            for at, client in enumerate(self.clients):
                with contextlib.suppress(EOFError, OSError):
                    while True:
                        client.reply(client.asked)  # the broker stops: the connection ends
                        raise AssertionError("the wait ended early")
                client.close()
                self.clients[at] = None
            self.clients = [self.again(session) for session in self.ids]
            for client in self.clients:
                assert not client.reply(client.asked)["timed_out"]
                self.ended += 1
                client.close()
        except Exception as error:  # noqa: BLE001 - told by the test
            self.error = error


def test_herd_after_a_restart(broker_factory, worker_factory, tmp_path):
    """Rows 42 and 49: workers and clients return at once; what runs is not given out again."""
    broker = broker_factory("--lease", "2s", "--heartbeat", "300ms")
    go = tmp_path / "go"
    workers = [worker_factory(broker, name=f"w{i}", slots=2) for i in range(6)]
    with rpc.Client(broker.port) as client:
        client.hello()
        procs.wait_workers(client, len(workers))
        ids = [long_task(client, go) for _ in range(12)]
        procs.wait_until(lambda: is_leased(client, ids), "all run")
        herd = Herd(broker.port, ids[0], 300)
        herd.start()
        broker.kill()  # not announced: the leases are short
        broker.start()
        with rpc.Client(broker.port) as after:
            after.hello()
            procs.wait_workers(after, len(workers))
            procs.wait_until(lambda: herd.greeted == 600 or herd.error, "all are back")
            assert is_leased(after, ids)
            go.touch()
            assert {t["state"] for t in after.wait(ids)} == {rpc.STATE["done"]}
            assert after.counters()["lost_total"] == 0
            assert {t["attempt"] for t in after.call("task.get", ids=ids)["tasks"]} == {1}
    herd.join(procs.LIMIT_S)
    assert herd.error is None and herd.ended == 300, herd.error
    assert (tmp_path / "go.starts").read_text() == "x\n" * 12
    assert not broker.events("conn_refused")


# --------------------------------------------------------------------------------------- slow disk
@pytest.fixture
def slow_sync(tmp_path):
    """Environment of a broker whose syncs stall while the file is there."""
    shim = tmp_path / "slow_sync.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", shim, OPS / "slow_sync.c"], check=True)
    control = tmp_path / "slow"
    return control, dict(os.environ, LD_PRELOAD=str(shim), SLOW_SYNC=str(control))


def test_slow_disk(slow_sync, broker_factory, worker_factory, client_factory, tmp_path):
    """Row 18: a stall of two leases; nobody is taken for dead, and all of it lands."""
    control, env = slow_sync
    broker = broker_factory("--lease", "2s", "--heartbeat", "300ms", env=env)
    worker = worker_factory(broker, slots=3, module=True)
    client = client_factory(broker)
    procs.wait_workers(client, 1)
    go = tmp_path / "go"
    ids = [long_task(client, go) for _ in range(2)]
    procs.wait_until(lambda: is_leased(client, ids), "they run")
    control.write_text("4500")
    stalled = client.send("task.submit", number=client.number + 1, payloads=[b"\x09"],
                          options={"kind": rpc.FUNCTION, "fn": "square"})
    with rpc.Client(broker.port) as other:  # who asks for nothing from the disk is answered
        other.hello(session=False)
        for _ in range(20):
            assert other.call("broker.ping")["now_ms"] > 0
            assert [w["state"] for w in other.call("worker.list")["workers"]] == [1]
    reply = client.reply(stalled)
    client.number += 1
    control.unlink()
    go.touch()
    tasks = client.wait([*ids, reply["first"]])
    assert {t["state"] for t in tasks} == {rpc.STATE["done"]}
    assert {t["attempt"] for t in client.call("task.get", ids=ids)["tasks"]} == {1}
    counters = client.counters()
    assert counters["lost_total"] == counters["stale_total"] == counters["retried_total"] == 0
    assert not broker.events("worker_offline") and worker.is_alive()
    assert (tmp_path / "go.starts").read_text() == "x\n" * 2


# ------------------------------------------------------------------------------------- descriptors
def test_broker_with_few_descriptors(broker_factory, worker_factory, client_factory, tmp_path):
    """Row 20: 64 descriptors, 1,000 connects: no spin, tasks flow, and it takes peers again."""
    broker = broker_factory(prefix=["prlimit", "--nofile=64:64"])
    assert broker.events("few_files")
    worker = worker_factory(broker, module=True)
    client = client_factory(broker)
    procs.wait_workers(client, 1)
    trace = tmp_path / "accepts"
    tracer = subprocess.Popen(["strace", "-f", "-qq", "-e", "trace=accept4,epoll_wait", "-o", trace,
                               "-p", str(broker.pid)], stderr=subprocess.DEVNULL)
    crowd = []
    try:
        for _ in range(1000):
            peer = socket.socket()
            peer.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                peer.connect(("127.0.0.1", broker.port))
            crowd.append(peer)
        for _ in range(10):
            ids = client.submit([b"\x03"] * 50, kind=rpc.FUNCTION, fn="square")
            ids.append(client.run_command("true"))
            assert {t["state"] for t in client.wait(ids)} == {rpc.STATE["done"]}
        assert broker.is_alive() and broker.file_count() <= 64
    finally:
        for peer in crowd:
            peer.close()

    def again():
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            with rpc.Client(broker.port, timeout=5) as late:
                return late.hello()
        return None
    procs.wait_until(again, "new peers are taken again")
    tracer.send_signal(signal.SIGINT)
    tracer.wait(procs.LIMIT_S)
    accepts = len(re.findall(r"accept4\(", trace.read_text()))
    assert 0 < accepts < 6000, f"{accepts} accepts for 1,001 connects: it spins"
    assert worker.stop() == 0 and broker.stop() == 0


def test_worker_with_few_descriptors(broker, worker_factory, client):
    """It runs what it can; nothing is lost, and it does not end."""
    worker = worker_factory(broker, module=True, slots=8, prefix=["prlimit", "--nofile=64:64"])
    procs.wait_workers(client, 1)
    ids = [client.run_command("/bin/sh", "-c", "sleep 0.1; echo ok") for _ in range(120)]
    ids += client.submit([b"\x03"] * 200, kind=rpc.FUNCTION, fn="square")
    assert {t["state"] for t in client.wait(ids)} == {rpc.STATE["done"]}
    assert worker.is_alive() and worker.stop() == 0
    more = worker_factory(broker, name="more", slots=40, prefix=["prlimit", "--nofile=64:64"])
    assert more.wait() == 1 and "LimitNOFILE" in more.log() and "--slots" in more.log()
