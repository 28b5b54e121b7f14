# SPDX-License-Identifier: BSD-2-Clause
"""Peers that break rules: each is closed with one logged reason, costs next to nothing, and nobody
else notices."""
import os
import socket
import struct

import msgpack
import pytest

import procs
import rpc

HELLO = msgpack.packb([0, 1, "hello", [{"client": "tests", "version": 1}]])
MIB_KB = 1024


def nested(depth):
    return b"\x91" * depth + b"\xc0"


# Bytes of a peer that never said hello.
BEFORE_HELLO = {
    "array32_header": b"\xdd\x20\x00\x00\x00",
    "array16_header": b"\xdc\xff\xff",
    "depth_33": b"\x94\x00\x01\xa5hello" + nested(33),
    "bin_4_gib": b"\x94\x00\x01\xa5hello\x91\xc6\xff\xff\xff\xff",
    "str_over_4_kib": b"\x94\x00\x01\xa5hello\x91\xda\x20\x00" + b"x" * 0x2000,
    "ext": b"\x94\x00\x01\xc7\x05\x01hello",
    "never_used_byte": b"\x94\x00\x01\xc1",
    "map_of_many": b"\x94\x00\x01\xa5hello\x91\xde\xff\xff",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00",
    "zero": b"\x00",
    "high": b"\xff\xff\xff\xff",
    "not_rpc": msgpack.packb([7, 7, 7]),
    "no_hello_first": msgpack.packb([0, 1, "broker.ping", [{}]]),
    "response_first": msgpack.packb([1, 1, None, {}]),
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "text_without_end": b"s" * 5000,
}

# Bytes behind an accepted hello.
AFTER_HELLO = {
    "array32_header": b"\xdd\x20\x00\x00\x00",
    "depth_33": b"\x94\x00\x02\xa9task.list" + nested(33),
    "bin_4_gib": b"\x94\x00\x02\xa8blob.put\x91\x81\xa4data\xc6\xff\xff\xff\xff",
    "many_elements": b"\x94\x00\x02\xa8task.get\x91\x81\xa3ids\xdd\x00\x01\x10\x00",
    "nested_arrays": b"\x94\x00\x02\xa8task.get\x91" + b"\xdc\xff\xff" * 40,
    "not_rpc": msgpack.packb([7, 7, 7]),
    "string_for_params": msgpack.packb([0, 2, "task.get", "x"]),
    "tls_later": b"\x16\x03\x01\x02\x00",
}


def read_to_end(peer, limit_s=procs.LIMIT_S):
    """Reads until the broker closes; a reset counts as that."""
    peer.settimeout(limit_s)
    data = b""
    try:
        while True:
            more = peer.recv(65536)
            if not more:
                return data
            data += more
    except ConnectionError:
        return data


def closed_lines(broker, port):
    return [line for line in broker.events("conn_closed") if f":{port} " in line]


def assert_closed(broker, peer):
    """The peer is closed, with exactly one logged reason."""
    port = peer.getsockname()[1]
    read_to_end(peer)
    procs.wait_until(lambda: closed_lines(broker, port), "a logged reason", process=broker)
    lines = closed_lines(broker, port)
    assert len(lines) == 1, lines
    assert "reason=" in lines[0]
    return lines[0]


@pytest.mark.parametrize("name", sorted(BEFORE_HELLO))
def test_before_hello(broker, client, name):
    with broker.socket() as peer:
        peer.sendall(BEFORE_HELLO[name])
        line = assert_closed(broker, peer)
    if name == "tls":
        assert "TLS is not configured" in line
    client.call("broker.ping")


@pytest.mark.parametrize("name", sorted(AFTER_HELLO))
def test_after_hello(broker, client, name):
    with broker.socket() as peer:
        peer.sendall(HELLO)
        peer.recv(4096)
        peer.sendall(AFTER_HELLO[name])
        assert_closed(broker, peer)
    client.call("broker.ping")


def test_hello_byte_by_byte(broker):
    """Slow, but complete in time: that is allowed."""
    with broker.socket() as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in HELLO:
            peer.sendall(bytes([byte]))
        assert peer.recv(4096)


def test_hello_never_completes(broker_factory):
    broker = broker_factory("--hello-time", "300ms")
    with broker.socket() as silent, broker.socket() as partial:
        partial.sendall(HELLO[:-1])
        assert_closed(broker, silent)
        assert_closed(broker, partial)


def test_memory_per_peer(broker, client):
    """A hundred bad peers that stay connected as long as the broker lets them."""
    client.call("broker.ping")
    before = broker.rss_kb()
    peers = []
    openings = [BEFORE_HELLO["array32_header"], BEFORE_HELLO["bin_4_gib"], BEFORE_HELLO["depth_33"],
                b"\x94\x00\x01\xa5hello\x91\xc5\x0f\x00" + b"x" * 0xe00]
    after = [AFTER_HELLO["bin_4_gib"], AFTER_HELLO["nested_arrays"],
             AFTER_HELLO["array32_header"]]
    peak = before
    for i in range(100):
        peer = broker.socket()
        peers.append(peer)
        if i % 2:
            peer.sendall(HELLO)
            peer.recv(4096)
            peer.sendall(after[i % len(after)])
        else:
            peer.sendall(openings[i // 2 % len(openings)])
        client.call("broker.ping")
        peak = max(peak, broker.rss_kb())
    for peer in peers:
        peer.close()
    assert peak - before < 100 * MIB_KB // 10, (before, peak)  # far below 1 MiB a peer


def test_many_idle_peers(broker, client):
    client.call("broker.ping")
    before = broker.rss_kb()
    peers = [rpc.Client(broker.port) for _ in range(200)]
    for peer in peers:
        peer.hello()
    growth = broker.rss_kb() - before
    for peer in peers:
        peer.close()
    procs.wait_until(lambda: client.counters()["connections"] == 1, "the peers to be gone")
    assert growth < 200 * 16, growth  # KiB; sessions, arenas and buffers included


def test_incomplete_frame_is_not_reserved(broker, client):
    """A declared frame of nearly 1 MiB costs only the bytes that came."""
    peers = []
    client.call("broker.ping")
    before = broker.rss_kb()
    for _ in range(50):
        peer = broker.socket()
        peers.append(peer)
        peer.sendall(HELLO)
        peer.recv(4096)
        peer.sendall(b"\x94\x00\x02\xa8blob.put\x91\x81\xa4data\xc6" + struct.pack(">I", 262144))
    client.call("broker.ping")
    assert broker.rss_kb() - before < 50 * 64
    for peer in peers:
        peer.close()


def test_slow_reader(broker_factory, client_factory):
    """Replies that are not read are bounded; then the peer is no longer listened to."""
    broker = broker_factory("--output-bytes", "256K")
    other = client_factory(broker)
    ids = other.submit([b"x" * 1000] * 500, kind=rpc.FUNCTION, fn="nobody")
    before = broker.rss_kb()
    with broker.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.sendall(HELLO)
        peer.recv(4096)
        ask = msgpack.packb([0, 2, "task.get", [{"ids": ids, "options": True}]])
        peer.settimeout(0.5)
        sent = 0
        try:
            while sent < 64 << 20:
                sent += peer.send(ask * 64)
        except (socket.timeout, ConnectionError):
            pass  # the broker stopped reading, as it should, or closed
        assert sent < 64 << 20
        other.call("broker.ping")
        assert broker.rss_kb() - before < 24 * MIB_KB
    other.call("broker.ping")


def test_garbage(broker, client):
    """Random bytes after every first byte that a mode has."""
    client.call("broker.ping")
    files = broker.file_count()
    for i in range(60):
        first = [b"\x94", b"\x93", b"\xdc", b"\xdd", b"\x16", b"a"][i % 6]
        with broker.socket() as peer:
            try:
                peer.sendall(first + os.urandom(3000))
                peer.shutdown(socket.SHUT_WR)
            except ConnectionError:
                pass
            read_to_end(peer)
    client.call("broker.ping")
    assert broker.is_alive()
    procs.wait_until(lambda: broker.file_count() == files, "all descriptors to be free again")


def test_connection_cap(broker_factory, client_factory):
    broker = broker_factory("--connections", "10")
    client = client_factory(broker)
    peers = [broker.socket() for _ in range(30)]
    assert len(broker.wait_event("conn_refused", 21)) == 21
    client.call("broker.ping")
    for peer in peers:
        peer.close()
    procs.wait_until(lambda: client.counters()["connections"] == 1, "the peers to be gone")
    with rpc.Client(broker.port) as again:
        again.hello()


def test_few_descriptors(broker_factory, client_factory, tmp_path):
    """At the limit of open files the broker turns peers away, without spinning, and recovers."""
    broker = broker_factory("--connections", "400")
    client = client_factory(broker)
    import resource
    count = broker.file_count()
    hard = resource.prlimit(broker.pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(broker.pid, resource.RLIMIT_NOFILE, (count + 8, hard))
    peers = [broker.socket() for _ in range(40)]
    broker.wait_event("conn_refused")
    client.call("broker.ping")
    for peer in peers:
        peer.close()
    resource.prlimit(broker.pid, resource.RLIMIT_NOFILE, (hard, hard))

    def served():
        try:
            with rpc.Client(broker.port, timeout=2) as peer:
                peer.hello()
                return True
        except (OSError, EOFError):
            return False
    procs.wait_until(served, "the broker to accept again", process=broker)


def test_low_limit_of_files(broker_factory, client_factory):
    """Peers never take the descriptors that the database needs."""
    broker = broker_factory(prefix=["prlimit", "--nofile=64:64"])
    assert broker.wait_event("few_files")
    client = client_factory(broker)
    peers = [broker.socket() for _ in range(500)]
    broker.wait_event("conn_refused", 100)
    blob = client.call("blob.open", size=100000)["blob"]
    client.call("blob.put", blob=blob, offset=0, data=b"x" * 100000)
    client.submit([b"x"] * 100, kind=rpc.FUNCTION, fn="nobody")
    assert client.counters()["tasks_ready"] == 100
    for peer in peers:
        peer.close()
