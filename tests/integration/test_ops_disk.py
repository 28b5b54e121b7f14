# SPDX-License-Identifier: BSD-2-Clause
"""Small disks that get full: broker, worker's spool, logs. HP_OPS_FILLS: fill and free cycles."""
import os
import subprocess
import threading

import pytest

import procs
import rpc

FILLS = int(os.environ.get("HP_OPS_FILLS", "2"))
# Runs until the file "go" is there.
SCRIPT = 'while [ ! -e "$GO" ]; do sleep 0.05; done; echo "done $HOSTPOOL_TASK_ID"'


def mount(folder, size, kind="tmpfs"):
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if kind == "tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", folder],
                       check=True)
        return
    image = folder.with_suffix(".image")
    with open(image, "wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, folder], check=True)
    subprocess.run(["rmdir", folder / "lost+found"], check=True)


@pytest.fixture
def disk(tmp_path, processes):
    """disk(size, kind) makes a disk at the data folder of a broker (or elsewhere); needs root."""
    mounted = []

    def make(size, kind="tmpfs", at="broker.data"):
        mount(tmp_path / at, size, kind)
        mounted.append(tmp_path / at)
        return tmp_path / at
    yield make
    for process in reversed(processes):
        process.end()
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(path):
    """Takes all space that is left."""
    with open(path, "ab", buffering=0) as filler:
        for size in (1 << 18, 1 << 12, 1):
            try:
                while True:
                    filler.write(bytes(size))
            except OSError:
                continue


def try_submit(client, payloads=(b"x",), **options):
    """The ids, or None if it was refused as busy."""
    options = {"kind": rpc.FUNCTION, "fn": "nobody", **options}
    try:
        reply = client.call("task.submit", number=client.number + 1, acked_up_to=client.number,
                            payloads=list(payloads), options=options)
    except rpc.RpcError as error:
        assert error.code == "busy" and "disk" in str(error), error
        return None
    client.number += 1
    return list(range(reply["first"], reply["first"] + reply["count"]))


def fresh_submit(broker):
    """As try_submit, by a client that comes just now and does not wait long."""
    with rpc.Client(broker.port, timeout=20) as client:
        client.hello()
        return try_submit(client)


@pytest.mark.parametrize("size, kind", [("1M", "tmpfs"), ("4M", "tmpfs"), ("16M", "tmpfs"),
                                        (24 << 20, "ext4")])
def test_filled_by_the_broker_itself(size, kind, disk, broker_factory, worker_factory,
                                     client_factory, tmp_path):
    """With its defaults: tasks are taken, then refused in words; what runs still ends and lands."""
    disk(size, kind)
    broker = broker_factory()
    client = client_factory(broker)
    worker_factory(broker, slots=4)
    procs.wait_workers(client, 1)
    go = tmp_path / "go"
    running = [client.run_command("/bin/sh", "-c", SCRIPT, env=[f"GO={go}"]) for _ in range(4)]
    kept = []
    while True:
        ids = try_submit(client, [os.urandom(8000)] * 3)
        if ids is None:
            break
        kept += ids
    assert kept, "refused from the start"
    assert fresh_submit(broker) is None, "a new client is told at once"
    go.touch()
    for task, status in zip(running, client.wait(running)):
        assert status["state"] == rpc.STATE["done"], status
        assert client.call("task.get", ids=[task], end=True)["tasks"][0]["end"]["out"]
    client.call("task.cancel", ids=kept)
    assert {t["state"] for t in client.wait(kept[-1000:])} == {rpc.STATE["cancelled"]}
    assert client.call("broker.check")["ok"]
    assert broker.stop() == 0


def test_fill_and_free_cycles(disk, broker_factory, worker_factory, client_factory, tmp_path):
    """No restart is needed, and nothing acknowledged is lost."""
    folder = disk("16M")
    broker = broker_factory()
    client = client_factory(broker)
    worker_factory(broker, module=True)
    procs.wait_workers(client, 1)
    acked = []
    for cycle in range(FILLS):
        go = tmp_path / f"go{cycle}"
        running = [client.run_command("/bin/sh", "-c", SCRIPT, env=[f"GO={go}"]) for _ in range(2)]
        procs.wait_until(lambda: all(client.get(i)["state"] >= rpc.STATE["leased"]
                                     for i in running), "they run")
        fill(folder / "filler")

        def refused():
            ids = try_submit(client, [b"\x05"], fn="square")
            acked.extend(ids or [])
            return ids is None
        procs.wait_until(refused, "submits are refused")
        assert fresh_submit(broker) is None
        go.touch()
        client.wait(running)  # results still land
        (folder / "filler").unlink()
        procs.wait_until(lambda: not refused(), "submits are taken again")
        acked += running
    assert {t["state"] for t in client.wait(acked)} == {rpc.STATE["done"]}
    assert client.call("broker.status")["epoch"] == 1, "it was not restarted"
    broker.kill()
    broker.start()
    with rpc.Client(broker.port) as after:
        after.hello(session=False)
        assert {t["state"] for t in after.call("task.get", ids=acked)["tasks"]} == {
            rpc.STATE["done"]}
        assert after.call("broker.check")["ok"]


def test_new_clients_while_a_commit_waits_for_space(disk, broker_factory, client_factory):
    """The commit that found the disk full is repeated until there is space; others are told."""
    folder = disk("12M")
    broker = broker_factory("--wal-size", "1M", "--ballast", "64K")
    client = client_factory(broker)
    ids = client.submit([b"first"], kind=rpc.FUNCTION, fn="nobody")
    for _ in range(50):  # until a commit comes before the broker looks at the free space
        known = len(broker.events("disk_low"))  # before: it may look, and say so, at once
        fill(folder / "filler")
        stuck = []
        for number in range(client.number + 1, client.number + 13):
            stuck.append(client.send("task.submit", number=number, payloads=[os.urandom(60000)] * 6,
                                     options={"kind": rpc.FUNCTION, "fn": "nobody"}))
        broker.wait_event("disk_low", known + 1)
        assert fresh_submit(broker) is None, "a new client is told at once"
        (folder / "filler").unlink()
        replies = []
        for message in stuck:
            try:
                reply = client.reply(message)
                replies.append(range(reply["first"], reply["first"] + reply["count"]))
            except rpc.RpcError as error:
                assert error.code in ("busy", "out_of_order"), error
        client.number += len(replies)
        broker.wait_event("disk_ok", known + 1)
        ids += [i for run in replies for i in run]
        if replies:
            break
    assert replies, "no commit met the full disk"
    procs.wait_until(lambda: try_submit(client), "submits are taken again")
    found = client.call("task.get", ids=ids)["tasks"]
    assert {t["state"] for t in found} == {rpc.STATE["ready"]}


def test_spool_disk_full(disk, broker_factory, worker_factory, client_factory):
    """The worker cannot spool results: it keeps them in memory, and they land."""
    folder = disk("1M", at="worker.state")
    broker = broker_factory("--lease", "5s", "--heartbeat", "500ms")
    client = client_factory(broker)
    worker = worker_factory(broker, slots=4)
    procs.wait_workers(client, 1)
    ids = [client.run_command("/bin/sh", "-c", "sleep 1.2; echo here") for _ in range(4)]
    procs.wait_until(lambda: all(client.get(i)["state"] >= rpc.STATE["leased"] for i in ids),
                     "they run")
    fill(folder / "filler")
    assert broker.stop() == 0  # so that results must wait
    procs.wait_until(lambda: not procs.descendants(worker.pid, "sh"), "they have ended")
    assert worker.is_alive()
    broker.start()
    with rpc.Client(broker.port) as after:
        after.hello()
        assert {t["state"] for t in after.wait(ids)} == {rpc.STATE["done"]}
        (folder / "filler").unlink()
        task = after.run_command("true")
        assert after.wait([task])[0]["state"] == rpc.STATE["done"]
    assert worker.stop() == 0


def run_some(client, count=300):
    ids = client.submit([b"\x04"] * count, kind=rpc.FUNCTION, fn="square")
    ids += [client.run_command("true") for _ in range(5)]
    assert {t["state"] for t in client.wait(ids)} == {rpc.STATE["done"]}


def test_log_disk_full(disk, broker_factory, worker_factory, client_factory, tmp_path):
    """Row 23: what cannot be logged is lost, and nothing else is."""
    logs = disk("1M", at="logs")
    (tmp_path / "broker.log").symlink_to(logs / "broker.log")
    (tmp_path / "worker.log").symlink_to(logs / "worker.log")
    broker = broker_factory("--log-level", "trace")
    worker = worker_factory(broker, module=True, flags=["--log-level", "trace"])
    client = client_factory(broker)
    procs.wait_workers(client, 1)
    fill(logs / "filler")
    run_some(client)
    (logs / "filler").unlink()
    run_some(client)
    assert worker.stop() == 0 and broker.stop() == 0
    assert broker.events("stopped"), "it logs again"


def test_log_pipe_full(tmp_path, processes):
    """A reader of the log that stands still: the broker does not wait for it."""
    reader, writer = os.pipe()
    data = tmp_path / "broker.data"
    child = subprocess.Popen(
        [procs.program("hostpoold"), "--data-dir", data, "--listen", "127.0.0.1:0",
         "--log-level", "trace"], stdin=subprocess.DEVNULL, stdout=writer, stderr=writer)
    os.close(writer)
    try:
        port = procs.wait_until(
            lambda: (data / "hostpoold.port").exists() and
            int((data / "hostpoold.port").read_text() or 0), "its port")
        with rpc.Client(port) as client:
            client.hello()
            worker = procs.Worker(tmp_path, f"127.0.0.1:{port}", module=True)
            processes.append(worker)
            procs.wait_workers(client, 1)
            for _ in range(40):  # far more lines than the pipe has room for
                run_some(client, 50)
        assert worker.stop() == 0
        child.terminate()
        drained = threading.Thread(target=lambda: os.read(reader, 1), daemon=True)
        drained.start()
        assert child.wait(procs.LIMIT_S) == 0
    finally:
        os.close(reader)
        if child.poll() is None:
            child.kill()
            child.wait()
