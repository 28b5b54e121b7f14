# SPDX-License-Identifier: BSD-2-Clause
"""Backups under load, cut short, on a full disk; what is started on one is held for the operator.

HP_OPS_BACKUPS: how many under load (a campaign: 1000).
"""
import json
import os
import pathlib
import subprocess
import threading

import pytest

import procs
import rpc

BACKUPS = int(os.environ.get("HP_OPS_BACKUPS", "6"))


def cli(broker, *args):
    env = {**os.environ, "HOSTPOOL_HOST": broker.address} if broker else os.environ
    return subprocess.run([procs.program("hostpool"), *map(str, args)], capture_output=True,
                          text=True, timeout=procs.LIMIT_S, env=env, check=False)


class Load(threading.Thread):
    """Submits as fast as it is answered; `acked` grows with each acknowledged task."""

    def __init__(self, broker, worker_function="square"):
        super().__init__(daemon=True)
        self.client = rpc.Client(broker.port)
        self.client.hello()
        self.fn = worker_function
        self.acked, self.ending, self.error = [], threading.Event(), None

    def run(self):
        try:
            number = 0
            while not self.ending.is_set():
                number += 1
                reply = self.client.call("task.submit", number=number, acked_up_to=number - 1,
                                         payloads=[b"\x07"] * 5,
                                         options={"kind": rpc.FUNCTION, "fn": self.fn})
                self.acked += range(reply["first"], reply["first"] + reply["count"])
        except Exception as error:  # noqa: BLE001 - told by stop()
            self.error = error

    def stop(self):
        self.ending.set()
        self.join(procs.LIMIT_S)
        assert self.error is None, self.error


def fill(client, groups=40, size=60000):
    """Makes the database some MB large; nobody runs these tasks."""
    for _ in range(groups):
        client.submit([os.urandom(size)] * 2, kind=rpc.FUNCTION, fn="nobody", queue="filler")


def statuses(client, ids):
    found, left = {}, list(ids)
    while left:
        piece = left[:1000]
        reply = client.call("task.get", ids=piece)
        found.update((t["id"], rpc.STATES[t["state"] - 1]) for t in reply["tasks"])
        # An answer may be cut: it says where to go on.
        done = piece.index(reply["next"]) if reply.get("next") else len(piece)
        left = left[done:]
    return found


def restored(broker_factory, path):
    """A broker on a copy: it lies where Broker looks for `name`.data."""
    assert path.name.endswith(".data")
    return broker_factory(name=path.name[:-5])


def test_backups_under_load_are_prefixes(broker, worker_factory, client, tmp_path, broker_factory):
    worker_factory(broker, module=True)
    procs.wait_workers(client, 1)
    fill(client)
    load = Load(broker)
    load.start()
    procs.wait_until(lambda: len(load.acked) > 100, "the load runs")
    meanwhile = 0
    for number in range(BACKUPS):
        path = tmp_path / f"copy{number}.data"
        before = list(load.acked)
        done = cli(broker, "broker", "backup", "--json", path)
        after = list(load.acked)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["tasks"] >= len(before) + 80
        assert load.error is None, load.error
        meanwhile += len(after) - len(before)
        assert not path.with_name(path.name + ".part").exists()
        check = cli(None, "broker", "check", path)
        assert check.returncode == 0, check.stdout
        if number + 1 < BACKUPS and number % 50 > 0:
            continue  # the check reads every row; some are looked at through a broker
        copy = restored(broker_factory, path)
        with rpc.Client(copy.port) as reader:
            reader.hello(session=False)
            found = statuses(reader, after)
        there = [i for i in after if found[i] not in ("unknown", "gone")]
        assert there == after[:len(there)], "not a prefix of what was acknowledged"
        assert set(before) <= set(there), "a task acknowledged before the backup is missing"
        assert copy.stop() == 0
    assert meanwhile > 0, "nothing was acknowledged during backups: not paced"
    load.stop()
    assert client.call("broker.check")["ok"]


def test_backup_cut_short_by_a_crash(broker, client, tmp_path, broker_factory):
    fill(client, 120)
    path = tmp_path / "copy.data"
    part = tmp_path / "copy.data.part"
    client.send("broker.backup", path=str(path))
    procs.wait_until(part.exists, "the backup is under way", process=broker)
    broker.kill()
    if not path.exists():  # it was faster than the kill: then it is whole
        assert part.exists()
    broker.start()
    if not path.exists():
        assert cli(broker, "broker", "backup", path).returncode == 0, "the rest is in the way"
    assert not part.exists()
    assert cli(None, "broker", "check", path).returncode == 0
    again = cli(broker, "broker", "backup", path)
    assert again.returncode != 0 and "exists" in again.stderr


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2M", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_backup_to_a_full_disk(broker, client, small_disk):
    fill(client)
    done = cli(broker, "broker", "backup", small_disk / "copy")
    assert done.returncode not in (0, 2), done
    assert "full" in done.stderr or "space" in done.stderr, done.stderr
    assert os.listdir(small_disk) == []
    assert client.submit([b"a"], kind=rpc.FUNCTION, fn="nobody")  # and it serves on
    assert client.call("broker.check")["ok"]


def test_restored_copy_is_held(broker, worker_factory, client, tmp_path, broker_factory):
    """Rows 38 and 81: nothing runs again by itself, ids are new, the old broker is refused."""
    worker = worker_factory(broker, module=True)
    procs.wait_workers(client, 1)
    log = tmp_path / "ran"
    client.call("worker.drain", node="worker", on=True)
    script = f"echo $HOSTPOOL_TASK_ID >> {log}"
    once = [client.run_command("/bin/sh", "-c", script) for _ in range(5)]
    later = client.run_command("/bin/sh", "-c", script, delay_ms=1)
    path = tmp_path / "copy.data"
    assert cli(broker, "broker", "backup", path).returncode == 0
    client.call("worker.drain", node="worker", on=False)
    after = client.run_command("/bin/sh", "-c", script)
    client.wait([*once, later, after])
    assert sorted(map(int, log.read_text().split())) == sorted([*once, later, after])
    assert broker.stop() == 0

    # The copy in its place: what it holds is waiting, though it has run.
    copy = broker_factory(name="copy", listen=f"127.0.0.1:{broker.port}")
    assert "hostpool queue resume" in copy.wait_event("restored")[0]
    with rpc.Client(copy.port) as peer:
        hello = peer.hello()
        assert hello["epoch"] > 1000000
        peer.call("worker.drain", node="worker", on=False)
        procs.wait_workers(peer, 1)
        queue, = [q for q in peer.call("queue.list")["queues"] if q["name"] == "default"]
        assert queue["paused"]
        assert "paused" in " ".join(peer.call("task.why", id=once[0])["lines"])
        assert statuses(peer, [after])[after] == "unknown", "made after the copy"
        other = peer.submit([b"\x03"], kind=rpc.FUNCTION, fn="square", queue="other")
        assert other[0] >= 1000000000, "an id that the old broker may have given out"
        peer.wait(other)  # new queues are served
        assert set(statuses(peer, [*once, later]).values()) <= {"ready", "delayed"}
        procs.wait_until(lambda: not (path / "hostpool.restored").exists(), "it is taken over")
    copy.kill()
    copy.start()  # held over restarts, and not a copy any more
    with rpc.Client(copy.port) as peer:
        assert peer.hello()["epoch"] == hello["epoch"] + 1
        peer.call("task.cancel", ids=once[1:])
        assert cli(copy, "queue", "resume", "default").returncode == 0
        peer.wait([once[0], later])
    ran = sorted(map(int, log.read_text().split()))
    assert ran == sorted([*once, later, after, once[0], later]), "only what was released"
    assert copy.stop() == 0

    # The old broker comes back: the worker knows a later one, and takes nothing from it.
    broker.start()
    with rpc.Client(broker.port) as peer:
        peer.hello()
        task = peer.run_command("/bin/sh", "-c", script)
        procs.wait_until(lambda: "older copy" in worker.log(), "the worker refuses the old broker")
        assert statuses(peer, [task])[task] == "ready"
        assert not [w for w in peer.call("worker.list")["workers"] if w["state"] == 1]
    assert str(task) not in log.read_text().split()
