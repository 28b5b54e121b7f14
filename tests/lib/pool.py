# SPDX-License-Identifier: BSD-2-Clause
"""A broker and workers as real processes: start, kill, stop, restart, and count what is left.

All processes of a pool carry HP_TEST_POOL=<id of the pool> in their environment, so leftovers()
finds what nobody ended. Only processes that a pool started are ever signalled, by their process id.
"""

import contextlib
import os
import pathlib
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time

import msgpack

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "lib"))

import wire_ref  # noqa: E402

BUILD = pathlib.Path(os.environ.get("HP_BUILD", ROOT / "build"))
HOSTPOOLD = BUILD / "server" / "hostpoold"
WORKER = BUILD / "worker" / "hostpool-worker"
EXAMPLE = BUILD / "worker" / "sdk" / "example.so"
FINAL = {9: "done", 10: "failed", 11: "cancelled", 12: "expired"}
DONE, FAILED = 9, 10
COMMAND, FUNCTION = 1, 2


class Timeout(AssertionError):
    """A condition did not come true in time."""


def until(condition, what, timeout_s=30.0, step_s=0.02):
    """Wait until condition() is true; its value. Looks every step_s."""
    end = time.monotonic() + timeout_s
    pause = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= end:
            raise Timeout(f"not within {timeout_s:g} s: {what}")
        pause.wait(step_s)


def find_program(path):
    assert path.exists(), f"{path} is not there: build first, and set HP_BUILD"
    return str(path)


def read_proc(pid, name):
    try:
        return pathlib.Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def rss_bytes(pid):
    """Resident memory of a process."""
    for line in read_proc(pid, "status").decode().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no process {pid}")


def processes_with(mark):
    """Process ids, without zombies, whose environment has this text."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and mark.encode() in read_proc(entry, "environ"):
            found.append(int(entry))
    return found


def free_port(address="127.0.0.1"):
    with socket.socket() as sock:
        sock.bind((address, 0))
        return sock.getsockname()[1]


class Process:
    """One program that may be killed and started again with the same arguments."""

    def __init__(self, pool, name, argv):
        self.pool = pool
        self.name = name
        self.argv = [str(word) for word in argv]
        self.log = pool.folder / f"{name}.log"
        self.child = None

    def start(self, **env):
        assert self.child is None
        env = dict(os.environ, HP_TEST_POOL=self.pool.id, **env)
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env,
                cwd=self.pool.folder)
        return self

    @property
    def pid(self):
        return self.child.pid

    def is_alive(self):
        return self.child is not None and self.child.poll() is None

    def signal(self, number):
        if self.is_alive():
            self.child.send_signal(number)

    def wait(self, timeout_s=30):
        status = self.child.wait(timeout_s)
        self.child = None
        return status

    def kill(self):
        """kill -9, and reap."""
        if self.child is not None:
            with contextlib.suppress(ProcessLookupError):
                self.child.kill()
            return self.wait()
        return None

    def stop(self, timeout_s=30):
        """SIGTERM; the exit status. A process that does not end is killed, and that is an error."""
        if self.child is None:
            return None
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            return self.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Timeout(f"{self.name} did not end within {timeout_s} s of SIGTERM") from None

    def log_text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Broker(Process):
    def __init__(self, pool, address, port, flags, prefix):
        self.address = (address, port)
        self.data = pool.folder / "broker"
        super().__init__(pool, "broker", [
            *prefix, find_program(HOSTPOOLD), "--data-dir", self.data,
            "--listen", f"{address}:{port}", *flags])

    @property
    def host(self):
        return "%s:%d" % self.address


class Client(wire_ref.Client):
    """The same with python3-msgpack, which is faster by far, and without a record of all frames."""

    def __init__(self, address, timeout_s=30):
        super().__init__(address, timeout_s)
        self.unpacker = msgpack.Unpacker(max_buffer_size=1 << 24)

    def send(self, frame):
        self.socket.sendall(frame)

    def read_frame(self):
        while True:
            for frame in self.unpacker:
                return frame
            data = self.socket.recv(1 << 18)
            if not data:
                raise ConnectionError("the peer closed the connection")
            self.unpacker.feed(data)


class Pool:
    """A broker and its workers in one folder; use as a context manager."""

    def __init__(self, folder, flags=(), address="127.0.0.1", port=None, prefix=(), token=None):
        self.id = secrets.token_hex(8)
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.token = token
        self.broker = Broker(self, address, port or free_port(), flags, prefix)
        self.workers = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def start(self, timeout_s=30):
        self.broker.start()
        self.wait_ready(timeout_s)
        return self

    def client(self, timeout_s=30, **hello):
        """A connection which has said hello."""
        client = Client(self.broker.address, timeout_s)
        try:
            if self.token:
                hello["token"] = self.token
            client.hello = client.call("hello", client="test 1", version=1, **hello)
        except BaseException:
            client.close()
            raise
        return client

    def is_ready(self):
        assert self.broker.is_alive(), f"the broker ended:\n{self.broker.log_text()[-4000:]}"
        try:
            with self.client(5) as client:
                return client.call("broker.ping")["now_ms"] > 0
        except (OSError, wire_ref.WireError):
            return False

    def wait_ready(self, timeout_s=30):
        until(self.is_ready, "the broker answers", timeout_s)

    def add_worker(self, name, slots=2, flags=(), prefix=()):
        """Defines and starts a worker daemon."""
        worker = Process(self, name, [
            *prefix, find_program(WORKER), "--broker", self.broker.host, "--node", name,
            "--slots", slots, "--module", find_program(EXAMPLE),
            "--state-dir", self.folder / f"{name}.state", *flags])
        self.workers[name] = worker
        return worker.start()

    def nodes(self):
        """Workers as the broker sees them, by name."""
        with self.client() as client:
            return {w["node"]: w for w in client.call("worker.list")["workers"]}

    def wait_workers(self, timeout_s=30):
        def online():
            for worker in self.workers.values():
                assert worker.is_alive(), f"{worker.name} ended:\n{worker.log_text()[-4000:]}"
            return sum(w["state"] == 1 for w in self.nodes().values()) == len(self.workers)

        until(online, "all workers are online", timeout_s)

    def leftovers(self):
        """Live processes that this pool or its tasks started; the children we wait for included."""
        return processes_with(f"HP_TEST_POOL={self.id}")

    def stop_workers(self, timeout_s=30):
        statuses = [worker.stop(timeout_s) for worker in self.workers.values()]
        return [status for status in statuses if status not in (None, 0)]

    def end(self):
        """Ends everything, the hard way if need be."""
        processes = [*self.workers.values(), self.broker]
        for process in processes:
            if process.child is not None and process.child.poll() is not None:
                print(f"{process.name} had ended with {process.child.returncode}:\n"
                      f"{process.log_text()[-4000:]}")
        for process in processes:
            process.kill()
        with contextlib.suppress(Timeout):
            until(lambda: not self.leftovers(), "children end with their daemon", 5)
        for pid in self.leftovers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def get_tasks(client, ids, **more):
    """task.get for any number of ids, in pieces; {id: task}."""
    tasks, ids = {}, list(ids)
    while ids:
        piece = ids[:2048]
        reply = client.call("task.get", ids=piece, **more)
        for task in reply["tasks"]:
            tasks[task["id"]] = task
        asked_again = reply.get("next")
        done = piece if not asked_again else piece[:piece.index(asked_again)]
        assert done, "an answer that is cut before its first task"
        ids = ids[len(done):]
    return tasks


def wait_ended(client, ids, timeout_s=60):
    """Waits until all have ended, as long as some do."""
    end = time.monotonic() + timeout_s
    for at in range(0, len(ids), 512):
        waiting = ids[at:at + 512]
        while waiting:
            left_ms = int(1000 * (end - time.monotonic()))
            if left_ms <= 0:
                raise Timeout(f"{len(waiting)} tasks or more of {len(ids)}, {waiting[:3]} ..., "
                              f"have not ended: none has for {timeout_s} s")
            reply = client.call("task.wait", ids=waiting, timeout_ms=min(left_ms, 20000),
                                end=False)
            ended = {task["id"] for task in reply["tasks"] if task["state"] >= DONE}
            if ended:
                waiting = [i for i in waiting if i not in ended]
                end = time.monotonic() + timeout_s


def wait_tasks(client, ids, timeout_s=60):
    """The same; {id: task} with end records."""
    ids = list(ids)
    wait_ended(client, ids, timeout_s)
    return get_tasks(client, ids)


def blob(client, blob_id):
    """All bytes of a blob."""
    data = b""
    while True:
        reply = client.call("blob.get", blob=blob_id, offset=len(data))
        data += reply["data"]
        if len(data) >= reply["size"] or not reply["data"]:
            return data


def result_of(client, task):
    """The bytes of a function's result."""
    end = task.get("end", {})
    return blob(client, end["result_blob"]) if end.get("result_blob") else end.get("result", b"")


def output_of(client, task):
    """What a command wrote to stdout."""
    end = task.get("end", {})
    return blob(client, end["out_blob"]) if end.get("out_blob") else end.get("out", b"")
