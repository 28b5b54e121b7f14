# SPDX-License-Identifier: BSD-2-Clause
"""Peers that are slow, of another version, or look for a broker that has moved."""
import os
import socket
import subprocess

import msgpack
import pytest

import procs
import rpc

HELLO = msgpack.packb([0, 1, "hello", [{"client": "tests", "version": 1}]])
DONE = rpc.STATE["done"]


# ---------------------------------------------------------------- slow peers


def test_a_thousand_peers_that_never_finish_their_hello(broker_factory, worker_factory,
                                                        client_factory):
    """A byte each, or a byte now and then: whoever is honest works on, and each of them is closed
    when its time is over."""
    broker = broker_factory("--hello-time", "3s")
    worker_factory(broker, module=True)
    client = client_factory(broker)
    procs.wait_workers(client, 1)
    before = broker.rss_kb()
    peers = [broker.socket() for _ in range(1000)]
    honest = 0
    for i, peer in enumerate(peers):
        peer.sendall(HELLO[:1 + i % (len(HELLO) - 1)])
        if i % 50 == 0:
            with rpc.Client(broker.port) as other:
                other.hello()
                ids = other.submit([b"\x91\x07"] * 10, kind=rpc.FUNCTION, fn="square")
                honest += sum(task["state"] == DONE for task in other.wait(ids))
    assert honest == 200
    assert broker.rss_kb() - before < 16 << 10
    for peer in peers[::10]:
        try:
            peer.sendall(b"\x00")  # not the next byte of a hello: that changes nothing
        except ConnectionError:
            pass
    procs.wait_until(lambda: client.counters()["connections"] == 2, "they are closed")
    assert len([line for line in broker.events("conn_closed") if "reason=" in line]) >= 1000
    ids = client.submit([b"\x91\x07"], kind=rpc.FUNCTION, fn="square")
    assert client.wait(ids)[0]["state"] == DONE
    for peer in peers:
        peer.close()


def test_reader_of_single_bytes(broker_factory, worker_factory, client_factory):
    """Events and bodies for a peer that takes a byte at a time wait at most in --output-bytes."""
    broker = broker_factory("--output-bytes", "256K")
    worker_factory(broker, slots=2, module=True)
    other = client_factory(broker)
    procs.wait_workers(other, 1)
    session = os.urandom(16)
    hello = msgpack.packb([0, 1, "hello", [{"client": "slow", "version": 1, "events": True,
                                            "session": session}]])
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        peer.connect(("127.0.0.1", broker.port))
        peer.sendall(hello)
        assert peer.recv(1)
        before = broker.rss_kb()
        peak = 0
        payloads = [bytes([i % 256]) * 4000 for i in range(50)]
        for number in range(1, 41):  # 8 MB of results, each of which is an event for the peer
            peer.sendall(msgpack.packb([0, number + 1, "task.submit", [{
                "number": number, "payloads": payloads, "acked_up_to": number - 1,
                "options": {"kind": rpc.FUNCTION, "fn": "echo"}}]]))
            assert peer.recv(1)
            ids = other.submit(payloads, kind=rpc.FUNCTION, fn="echo")
            assert {task["state"] for task in other.wait(ids)} == {DONE}
            peak = max(peak, broker.rss_kb() - before)
        assert peak < 14 << 10, peak  # of which 8 MiB are the database's page cache
        procs.wait_until(lambda: other.counters()["tasks_ready"] == 0, "all have run")
    # Nothing is lost by it: whoever comes back for the session's results finds them.
    listed = other.call("task.list", limit=1)["tasks"]
    last = other.get(listed[0]["id"])
    assert last["state"] == DONE and len(last["end"]["result"]) == 4000


# ---------------------------------------------------------------- other versions


@pytest.mark.parametrize("version", [1, 2, 77, 2**32 - 1])
def test_version_of_a_later_peer(broker, worker_factory, client_factory, version):
    """The lower of both versions is spoken; what this one does not know is skipped."""
    worker_factory(module=True)
    later = client_factory(hello=False)
    reply = later.call("hello", client="later", version=version, session=os.urandom(16),
                       colour="green", shapes=[{"a": 1}, [None, 2.5]], near_by={"x": b"y"})
    assert reply["version"] == 1
    made = later.call("task.submit", number=1, payloads=[b"\x91\x07"], urgency=3,
                      options={"kind": rpc.FUNCTION, "fn": "square", "flavour": "sweet"})
    assert later.wait([made["first"]])[0]["state"] == DONE
    later.notify("task.wiggle", ids=[1])
    with pytest.raises(rpc.RpcError) as caught:
        later.call("task.wiggle", ids=[1])
    assert caught.value.code == "unknown_method"
    assert later.get(made["first"])["state"] == DONE


@pytest.mark.parametrize("version, code", [(0, "version"), (None, "bad_request"),
                                           (-1, "bad_request"), (2**32, "bad_request"),
                                           ("1", "bad_request")])
def test_version_that_is_none(broker, client, client_factory, version, code):
    peer = client_factory(hello=False)
    with pytest.raises(rpc.RpcError) as caught:
        peer.call("hello", client="odd", **({} if version is None else {"version": version}))
    assert caught.value.code == code
    with pytest.raises((EOFError, ConnectionError)):
        peer.call("broker.ping")
    client.call("broker.ping")


# ---------------------------------------------------------------- a broker that moves


class Names:
    """A hosts file of some processes: they see it in the place of this host's."""

    def __init__(self, path):
        self.path = path
        self.set()
        self.prefix = ["unshare", "--mount", "sh", "-c",
                       f'mount --bind "{path}" /etc/hosts && exec "$@"', "sh"]

    def set(self, *addresses):
        lines = "".join(f"{address} broker.test\n" for address in addresses)
        # In place, as the mount is of the file; and never empty meanwhile.
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
        size = os.write(file, f"127.0.0.1 localhost\n{lines}".encode())
        os.ftruncate(file, size)
        os.close(file)


@pytest.fixture
def names(tmp_path):
    return Names(tmp_path / "hosts")


def listen_at(broker, address):
    at = broker.argv.index("--listen") + 1
    broker.argv[at] = f"{address}:0"
    broker.start()


def test_broker_moves_to_another_address(broker_factory, worker_factory, names, tmp_path):
    """Worker and client have only its name. Each connect asks for it anew and tries all addresses
    that it has: some are dead, one is of another family."""
    broker = broker_factory(listen="127.0.0.2:0")
    names.set("127.0.0.2")
    worker = worker_factory(f"broker.test:{broker.port}", prefix=names.prefix)
    with rpc.Client(broker.port, host="127.0.0.2") as client:
        client.hello()
        procs.wait_workers(client, 1)
    begun, go = tmp_path / "begun", tmp_path / "go"
    waiting = subprocess.Popen(
        [*names.prefix, procs.program("hostpool"), "-H", f"broker.test:{broker.port}", "run", "--",
         "sh", "-c", f"touch {begun}; while ! test -e {go}; do sleep 0.02; done; echo survived"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    procs.wait_until(begun.exists, "the client's command runs")
    try:
        for address, known in (("127.0.0.3", ["127.0.0.3"]),
                               ("127.0.0.4", ["127.0.0.8", "::2", "127.0.0.9", "127.0.0.4"]),
                               ("[::1]", ["127.0.0.8", "::1"])):
            broker.kill()
            names.set(*known)
            listen_at(broker, address)
            with rpc.Client(broker.port, host=address.strip("[]")) as client:
                client.hello()
                procs.wait_workers(client, 1)
                task = client.run_command("echo", address)
                assert client.wait([task])[0]["end"]["out"] == f"{address}\n".encode()
        go.touch()
        out, err = waiting.communicate(timeout=procs.LIMIT_S)
        assert (waiting.returncode, out) == (0, "survived\n"), err
    finally:
        waiting.kill()
        waiting.wait()
    assert worker.is_alive()


def test_name_that_is_not_known_yet(broker_factory, worker_factory, names):
    """A worker that starts before its broker has a name, or while the resolver gives none."""
    broker = broker_factory(listen="127.0.0.2:0")
    worker = worker_factory(f"broker.test:{broker.port}", prefix=names.prefix)
    procs.wait_until(lambda: "broker.test" in worker.log() and "no connection" in worker.log(),
                     "its first try failed", process=worker)
    names.set("127.0.0.2")
    with rpc.Client(broker.port, host="127.0.0.2") as client:
        client.hello()
        procs.wait_workers(client, 1)
        assert client.wait([client.run_command("true")])[0]["state"] == DONE
