# SPDX-License-Identifier: BSD-2-Clause
"""Clients nobody here wrote: Neovim's RPC channel, pynvim, python3-msgpack, a package of npm."""
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import threading

import msgpack
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

import pool  # noqa: E402

FOREIGN = pathlib.Path(__file__).resolve().parent / "foreign"
NPM_PACKAGE = "@msgpack/msgpack@2.8.0"


@pytest.fixture
def small_pool(tmp_path):
    with pool.Pool(tmp_path) as one:
        one.start()
        one.add_worker("w1", slots=2)
        one.wait_workers()
        yield one


class Relay:
    """Passes one connection on to the broker and keeps all bytes that went by."""

    def __init__(self, address):
        self.address = address
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.host = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.sent = {"client": b"", "broker": b""}
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        client, _ = self.listener.accept()
        broker = socket.create_connection(self.address)
        back = threading.Thread(target=self.carry, args=("broker", broker, client), daemon=True)
        back.start()
        self.carry("client", client, broker)

    def carry(self, name, source, target):
        while data := source.recv(65536):
            self.sent[name] += data
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)

    def frames(self, name):
        # Neovim sends bytes as str.
        unpacker = msgpack.Unpacker(unicode_errors="surrogateescape")
        unpacker.feed(self.sent[name])
        return list(unpacker)


def run(argv, **env):
    done = subprocess.run(argv, env=dict(os.environ, **env), stdout=subprocess.PIPE, timeout=120,
                          stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, f"{argv[0]}: status {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout


def answers(text):
    return {line.split(" ", 1)[0]: json.loads(line.split(" ", 1)[1])
            for line in text.splitlines() if " " in line}


def test_neovim(small_pool, tmp_path):
    """Requests by rpcrequest. A notification is for Neovim a call of its API, so it answers
    task.event with a notification that there is no such method: proof that it came, and the broker
    must bear it."""
    relay = Relay(small_pool.broker.address)
    said = answers(run(["nvim", "--headless", "-u", "NONE", "-i", "NONE", "-n",
                        "-c", f"luafile {FOREIGN / 'client.lua'}"],
                       HP_HOST=relay.host, XDG_STATE_HOME=str(tmp_path),
                       XDG_DATA_HOME=str(tmp_path)))
    assert "failed" not in said
    assert said["hello"]["version"] == 1
    assert said["empty"] is True and said["none"] is True
    assert said["submit"]["count"] == 1
    assert said["wait"] == {"state": pool.DONE, "byte": 6}
    assert said["command"] == "from neovim\n"
    assert said["error"]["ok"] is False and "bad_request: " in said["error"]["why"]
    assert said["unknown"] == 14
    assert said["alive"] == 1
    events = [frame for frame in relay.frames("broker") if frame[:2] == [2, "task.event"]]
    ended = [task["state"] for frame in events for task in frame[2][0]["events"]]
    assert ended == [pool.DONE, pool.DONE]
    complaints = [frame for frame in relay.frames("client") if frame[:2] == [2, "nvim_error_event"]]
    assert len(complaints) == len(events) and "task.event" in complaints[0][2][1]


def test_msgpack_in_ten_lines(small_pool):
    address, port = small_pool.broker.address
    said = run([sys.executable, FOREIGN / "client_msgpack.py", address, str(port)]).splitlines()
    assert said[0] == "hello 1"
    assert sorted(said[1:3]) == ["event task.event [9]", "wait 144"]
    assert said[3].startswith("error bad_request: ") and said[3].endswith(" None")
    assert len(said) == 4


def test_pynvim(small_pool):
    """pynvim's tcp_session greets with a notification of Neovim's, its method written as bin."""
    from pynvim.msgpack_rpc import tcp_session
    session = tcp_session(*small_pool.broker.address)
    session.error_wrapper = lambda error: RuntimeError(error) # pynvim sets it for its own API
    hello = session.request("hello", {"client": "pynvim", "version": 1, "session": b"p" * 16,
                                      "events": True})
    assert hello["version"] == 1
    made = session.request("task.submit", {"number": 1, "options": {"kind": 1, "argv": ["true"]}})
    kind, method, params = session.next_message()
    assert (kind, method) == ("notification", "task.event")
    ended = [(task["id"], task["state"]) for task in params[0]["events"]]
    assert ended == [(made["first"], pool.DONE)]
    waited = session.request("task.wait", {"ids": [made["first"]]})
    assert waited["tasks"][0]["end"]["exit_code"] == 0
    with pytest.raises(RuntimeError, match="not_found: "):
        session.request("task.why", {"id": 10**9})
    assert session.request("broker.ping")["now_ms"] > 0 # params: an empty array
    session.close()


def test_node(small_pool, tmp_path):
    folder = tmp_path / "npm"
    folder.mkdir()
    npm = shutil.which("npm")
    assert npm, "npm is not installed"
    run([npm, "install", "--prefix", folder, "--no-save", "--no-audit", "--no-fund",
         "--ignore-scripts", NPM_PACKAGE])
    address, port = small_pool.broker.address
    said = answers(run(["node", FOREIGN / "client.mjs", address, str(port), folder]))
    assert said["hello"] == 1
    assert said["submit"] == 3
    assert said["wait"] == [[pool.DONE, 1], [pool.DONE, 1], [pool.DONE, 5]] or \
        [state for state, _ in said["wait"]] == [pool.DONE] * 3
    assert "bad_request: " in said["error"]
    assert said["events"] == [0, 1, 2]
