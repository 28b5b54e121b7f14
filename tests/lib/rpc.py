# SPDX-License-Identifier: BSD-2-Clause
"""A MessagePack-RPC client of a page, on python3-msgpack: it knows only the frames of hostpool.

So it is a second opinion on the protocol: nothing here was generated from proto/hostpool.toml.
"""
import os
import socket
import time

import msgpack

STATES = ("blocked delayed ready leased running waiting cancelling buried done failed cancelled "
          "expired gone unknown").split()
STATE = {name: number for number, name in enumerate(STATES, 1)}
FINAL = {STATE["done"], STATE["failed"], STATE["cancelled"], STATE["expired"]}
COMMAND, FUNCTION = 1, 2


class RpcError(Exception):
    """The broker answered with an error; `code` is its word."""

    def __init__(self, error):
        super().__init__(error)
        self.code = error["code"] if isinstance(error, dict) else str(error).split(":", 1)[0]


class Client:
    """One connection. `hello` greets; `call` waits for its reply and keeps notifications."""

    def __init__(self, port, host="127.0.0.1", timeout=30):
        self.timeout = timeout
        self.socket = socket.create_connection((host, port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=1 << 26)
        self.message_id = 0
        self.number = 0
        self.replies = {}
        self.notifications = []
        self.session = None

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def hello(self, session=True, events=False, **fields):
        if session is True:
            session = os.urandom(16)
        if session:
            self.session = fields["session"] = session
        reply = self.call("hello", client="tests", version=1, events=events, **fields)
        self.number = reply.get("last_number", 0)
        return reply

    def send(self, method, **fields):
        """Sends a request and returns its id."""
        self.message_id += 1
        self.socket.sendall(msgpack.packb([0, self.message_id, method, [fields]]))
        return self.message_id

    def notify(self, method, **fields):
        self.socket.sendall(msgpack.packb([2, method, [fields]]))

    def _receive(self, end):
        """Takes in what comes until the time `end`; raises EOFError, TimeoutError."""
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError("no message from the broker")
        self.socket.settimeout(left)
        try:
            data = self.socket.recv(1 << 16)
        except socket.timeout as error:
            raise TimeoutError("no message from the broker") from error
        if not data:
            raise EOFError("the broker closed the connection")
        self.unpacker.feed(data)
        for message in self.unpacker:
            if message[0] == 1:
                self.replies[message[1]] = (message[2], message[3])
            else:
                self.notifications.append((message[1], message[2][0]))

    def reply(self, message_id):
        end = time.monotonic() + self.timeout
        while message_id not in self.replies:
            self._receive(end)
        error, result = self.replies.pop(message_id)
        if error is not None:
            raise RpcError(error)
        return result

    def call(self, method, **fields):
        return self.reply(self.send(method, **fields))

    def notification(self, method, wanted=lambda fields: True):
        """Waits for a notification and takes it off the list."""
        end = time.monotonic() + self.timeout
        while True:
            for i, (name, fields) in enumerate(self.notifications):
                if name == method and wanted(fields):
                    del self.notifications[i]
                    return fields
            self._receive(end)

    # What most tests do.

    def submit(self, payloads=None, **options):
        """Submits and returns the ids."""
        fields = {"options": options}
        if payloads is not None:
            fields["payloads"] = payloads
        if self.session:
            self.number += 1
            fields["number"] = self.number
        reply = self.call("task.submit", **fields)
        return list(range(reply["first"], reply["first"] + reply["count"]))

    def run_command(self, *argv, payload=b"", **options):
        """Submits a command; returns its id."""
        return self.submit([payload], kind=COMMAND, argv=list(argv), **options)[0]

    def wait(self, ids, timeout_ms=60000):
        """Waits until all have ended; returns their statuses in order."""
        reply = self.call("task.wait", ids=ids, timeout_ms=timeout_ms)
        assert not reply["timed_out"], [(t["id"], STATES[t["state"] - 1]) for t in reply["tasks"]]
        return reply["tasks"]

    def get(self, task_id):
        return self.call("task.get", ids=[task_id])["tasks"][0]

    def counters(self):
        return {c["name"]: c["value"] for c in self.call("broker.status")["counters"]}
