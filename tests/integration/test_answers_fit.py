# SPDX-License-Identifier: BSD-2-Clause
"""Answers keep to the limits of a frame whatever is in them: one greedy or lying peer must not make
lists unreadable for everybody else. The command line refuses frames that are over a limit."""
import os

import msgpack
import pytest

import cli as lib


@pytest.fixture
def cli(broker):
    return lib.Cli(broker.address)


def connect_worker(client_factory, name, functions, slots=8):
    worker = client_factory(session=False, node=name, boot=os.urandom(16))
    worker.call("worker.register", host="h", pid=1, slots=slots, functions=functions)
    return worker


def test_options_of_many_words(cli, client):
    """Sixty tasks of 3,500 words each: more elements than a frame may have."""
    for i in range(60):
        client.submit(kind=1, argv=["echo"] + ["a"] * 3500, delay_ms=3600000, name=f"n{i}")
    shown = cli("show", "--json", "1-60")
    assert shown.code == 0, shown.err
    assert [task["id"] for task in shown.json["tasks"]] == list(range(1, 61))
    listed = cli("ls", "-q", "user=any", "state=any")
    assert len(listed.out.split()) == 60, listed


def test_workers_with_long_function_names(cli, client_factory):
    for i in range(3):
        connect_worker(client_factory, f"w{i}", [f"{k:05}" + "x" * 249 for k in range(3900)])
    listed = cli("worker", "ls", "-q")
    assert (listed.code, listed.out.split()) == (0, ["w0", "w1", "w2"]), listed.err
    assert cli("worker", "show", "w2").code == 0


def test_queues_with_long_names(cli, client):
    for i in range(4200):
        client.send("queue.pause", name=f"{i:06}" + "z" * 247, paused=True)
    client.call("broker.ping")
    listed = cli("queue", "ls", "-q")
    assert listed.code == 0, listed.err
    assert len(listed.out.split()) > 1000
    assert cli("queue", "show", "004199" + "z" * 247).code == 0


@pytest.mark.parametrize("end", [
    {"result": b"x" * 70000},        # larger than a result may be
    {"exit_code": "none"},           # of a wrong type
    {"error": 5},
    {"signal": 65}])
def test_end_record_that_nobody_could_read(cli, client, client_factory, end):
    """A worker that reports it is told stale; the task is not ended by it, and can be listed."""
    worker = connect_worker(client_factory, "liar", ["f"])
    task = client.submit([b""], kind=2, fn="f")[0]
    run = worker.notification("worker.assign")["runs"][0]
    token = {"id": task, "attempt": run["attempt"], "epoch": run["epoch"]}
    reply = worker.call("worker.done", items=[{**token, "end": msgpack.packb(end)}])
    assert reply["stale"] == [token]
    assert cli("show", task).code == 0
    reply = worker.call("worker.done", items=[{**token, "end": msgpack.packb({"result": b"y"})}])
    assert not reply.get("stale")
    assert client.wait([task])[0]["end"]["result"] == b"y"


def end_all(worker, ids):
    """Ends them with records of many keys, which readers skip."""
    end = msgpack.packb({f"k{i:02}": i for i in range(60)})
    left = set(ids)
    while left:
        for run in worker.notification("worker.assign")["runs"]:
            held = range(run["first"], run["first"] + run.get("count", 1))
            worker.call("worker.done", items=[
                {"id": i, "attempt": run["attempt"], "epoch": run["epoch"], "end": end}
                for i in held])
            left -= set(held)


def test_wait_for_many_ends(client, client_factory):
    """End records of as many keys as a map may have, for a thousand tasks in one answer."""
    worker = connect_worker(client_factory, "w", ["f"], slots=2000)
    ids = client.submit([b""] * 1000, kind=2, fn="f")
    end_all(worker, ids)
    tasks = client.wait(ids)
    assert [task["id"] for task in tasks] == ids
    assert sum(count(task) for task in tasks) < 65536
    got = client.call("task.get", ids=ids)
    assert sum(count(task) for task in got["tasks"]) < 65536 and got["next"] > ids[0]


def count(value):
    """Elements that a value takes in a frame."""
    if isinstance(value, dict):
        return 1 + sum(1 + count(item) for item in value.values())
    if isinstance(value, list):
        return 1 + sum(map(count, value))
    return 1


def test_events_of_large_ends(client_factory):
    """The same as events: many frames, each within the limits."""
    client = client_factory(events=True)
    worker = connect_worker(client_factory, "w", ["f"], slots=2000)
    ids = client.submit([b""] * 1000, kind=2, fn="f")
    end_all(worker, ids)
    seen = set()
    while len(seen) < len(ids):
        events = client.notification("task.event")["events"]
        assert count(events) < 65536
        seen.update(event["id"] for event in events)
