# SPDX-License-Identifier: BSD-2-Clause
# Ten lines of Python with python3-msgpack: client_msgpack.py HOST PORT
import socket, sys, msgpack
sock, frames = socket.create_connection((sys.argv[1], int(sys.argv[2]))), msgpack.Unpacker()
def call(msgid, method, params):
    sock.sendall(msgpack.packb([0, msgid, method, [params]]))
    for _ in range(9):
        while (frame := next(frames, None)) is None: frames.feed(sock.recv(65536))
        if frame[0] == 1: return frame
        print("event", frame[1], [task["state"] for task in frame[2][0]["events"]])
greeting = {"client": "ten lines", "version": 1, "session": b"s" * 16, "events": True}
print("hello", call(1, "hello", greeting)[3]["version"])
task = {"options": {"kind": 2, "fn": "square"}, "payloads": [msgpack.packb([12])]}
first = call(2, "task.submit", task)[3]["first"]
ended, = call(3, "task.wait", {"ids": [first]})[3]["tasks"]
print("wait", msgpack.unpackb(ended["end"]["result"]))
print("error", call(4, "task.why", {"id": "x"})[2], call(5, "broker.ping", {})[2])
