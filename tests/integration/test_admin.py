# SPDX-License-Identifier: BSD-2-Clause
"""Text admin: what a person with netcat gets."""
import socket

import pytest

import procs
import rpc

TOKEN = "a-token-for-tests-0123456789"


def ask(port, text, host="127.0.0.1"):
    """Sends lines, reads to the end."""
    with socket.create_connection((host, port), timeout=procs.LIMIT_S) as peer:
        peer.sendall(text.encode())
        peer.shutdown(socket.SHUT_WR)
        data = b""
        while True:
            more = peer.recv(65536)
            if not more:
                return data.decode()
            data += more


def own_address():
    """An address of this host that is not the loopback one, or None."""
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        probe.connect(("192.0.2.1", 9))  # sends nothing
        address = probe.getsockname()[0]
    except OSError:
        return None
    finally:
        probe.close()
    return None if address.startswith("127.") else address


def test_commands(broker, client):
    client.submit([b""] * 3, kind=rpc.FUNCTION, fn="nobody", queue="letters")
    assert ask(broker.port, "ping\n") == "pong\n"
    assert "status" in ask(broker.port, "help\r\n")
    status = ask(broker.port, "status\n")
    assert "hostpoold" in status and "tasks_ready=3" in status and "commits" in status
    queues = ask(broker.port, "queues\n")
    assert "letters" in queues and "ready=3" in queues
    assert "0 workers" in ask(broker.port, "workers\n")
    assert ask(broker.port, "ping\nping\nquit\nping\n") == "pong\npong\n"
    assert ask(broker.port, "ping") == "pong\n"  # without the newline, too


@pytest.mark.parametrize("line", ["drop everything", "GET / HTTP/1.1", "status now", "PING"])
def test_first_unknown_line_closes(broker, line):
    answer = ask(broker.port, f"ping\n{line}\nping\n")
    assert answer.startswith("pong\nunknown command") and answer.count("pong") == 1
    broker.wait_event("conn_closed")


def test_stays_open(broker):
    with broker.socket() as peer:
        lines = peer.makefile("rw", newline="\n")
        for _ in range(3):
            lines.write("ping\n")
            lines.flush()
            assert lines.readline() == "pong\n"


def test_wrong_token(broker_factory, tmp_path):
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    broker = broker_factory("--token-file", path)
    assert ask(broker.port, "ping\n") == "pong\n"  # this host needs none
    assert ask(broker.port, f"auth {TOKEN}\nping\n") == "ok\npong\n"
    assert ask(broker.port, "auth wrong\nping\n") == "denied\n"


def test_from_another_address(broker_factory, tmp_path):
    address = own_address()
    if address is None:
        pytest.skip("this host has no address but the loopback one")
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    broker = broker_factory("--token-file", path, listen="0.0.0.0:0")
    assert ask(broker.port, "ping\n", address).startswith("denied")
    assert ask(broker.port, f"auth {TOKEN}\nping\n", address) == "ok\npong\n"
    assert ask(broker.port, f"auth {TOKEN}x\n", address) == "denied\n"
