# SPDX-License-Identifier: BSD-2-Clause
"""Daemons as child processes: a log file each, waited for by condition, ended by pid."""
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("HP_BUILD") or os.environ.get("HOSTPOOL_BUILD")
                     or ROOT / "build").resolve()
LIMIT_S = 60  # of one wait; slow machines and sanitizers included

_tick = threading.Event()  # never set: a wait for it is the pause between two looks


def wait_until(condition, what="the condition", limit_s=LIMIT_S, process=None):
    """Looks at `condition` until it gives something true, and returns that."""
    end = time.monotonic() + limit_s
    while True:
        value = condition()
        if value:
            return value
        if process is not None and process.popen.poll() is not None:
            raise AssertionError(f"{process.name} ended with {process.popen.returncode} before "
                                 f"{what}:\n{process.log()[-3000:]}")
        if time.monotonic() >= end:
            tail = process.log()[-3000:] if process is not None else ""
            raise AssertionError(f"waited {limit_s} s in vain for {what}\n{tail}")
        _tick.wait(0.01)


def program(name):
    """Path of a built program."""
    folder = {"hostpoold": "server", "hostpool-worker": "worker", "hostpool": "cli"}[name]
    return str(BUILD / folder / name)


class Process:
    """A child in a process group of its own, with its output in a file."""

    def __init__(self, name, argv, log_path, env=None, cwd=None):
        self.name = name
        self.log_path = pathlib.Path(log_path)
        with open(self.log_path, "ab") as log:
            self.popen = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                          env=env, cwd=cwd, start_new_session=True)
        self.pid = self.popen.pid

    def log(self):
        return self.log_path.read_text(errors="replace")

    def events(self, name):
        """Log lines of an event."""
        return [line for line in self.log().splitlines() if f" {name} " in line + " "]

    def wait_event(self, name, count=1, limit_s=LIMIT_S):
        return wait_until(lambda: len(self.events(name)) >= count and self.events(name),
                          f"log event {name}", limit_s, self)

    def is_alive(self):
        return self.popen.poll() is None

    def signal(self, number):
        if self.is_alive():
            os.kill(self.pid, number)

    def wait(self, limit_s=LIMIT_S):
        try:
            return self.popen.wait(limit_s)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"{self.name} does not end:\n{self.log()[-3000:]}") from error

    def stop(self, limit_s=LIMIT_S):
        """SIGTERM; returns the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(limit_s)

    def kill(self):
        """SIGKILL of this process alone, as a crash would."""
        self.signal(signal.SIGKILL)
        return self.popen.wait()

    def end(self):
        """For the end of a test: gone, whatever its state."""
        self.signal(signal.SIGCONT)
        self.kill()

    def rss_kb(self):
        """Resident memory of its own (not of shared files), in KiB."""
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1])
        raise AssertionError("no RssAnon")

    def file_count(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))


class Broker(Process):
    """hostpoold on a port of the kernel's choice. `start` may be called again after it ended."""

    def __init__(self, folder, *flags, name="broker", env=None, listen="127.0.0.1:0", prefix=()):
        self.folder = pathlib.Path(folder)
        self.data_dir = self.folder / f"{name}.data"
        self.port_path = self.data_dir / "hostpoold.port"
        self.argv = [*prefix, program("hostpoold"), "--listen", listen, "--data-dir",
                     str(self.data_dir), *map(str, flags)]
        self.env = env
        self.port = 0
        super().__init__(name, self.argv, self.folder / f"{name}.log", env)
        self._ready()

    def _ready(self):
        def port():
            # Not an old file: the broker removes it before it opens its ports.
            if f"pid={self.pid} " not in self.log():
                return 0
            try:
                return int(self.port_path.read_text() or 0)
            except (FileNotFoundError, ValueError):
                return 0
        self.port = wait_until(port, "its port file", process=self)

    def start(self, same_port=True):
        """Starts it again, by default on the port it had, so that its peers find it."""
        assert not self.is_alive()
        argv = list(self.argv)
        if same_port:
            at = argv.index("--listen") + 1
            argv[at] = argv[at].rsplit(":", 1)[0] + f":{self.port}"
        super().__init__(self.name, argv, self.log_path, self.env)
        self._ready()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def socket(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT_S)


class Worker(Process):
    """hostpool-worker for a broker (an object or "HOST:PORT")."""

    def __init__(self, folder, broker, name="worker", slots=2, module=None, flags=(), env=None,
                 prefix=()):
        self.folder = pathlib.Path(folder)
        self.node = name
        self.state_dir = self.folder / f"{name}.state"
        address = broker if isinstance(broker, str) else broker.address
        self.argv = [*prefix, program("hostpool-worker"), "--broker", address, "--node", name,
                     "--slots", str(slots), "--state-dir", str(self.state_dir), *map(str, flags)]
        if module is True:
            module = BUILD / "worker" / "sdk" / "example.so"
        if module:
            self.argv += ["--module", str(module)]
        self.env = env
        super().__init__(name, self.argv, self.folder / f"{name}.log", env)

    def start(self):
        assert not self.is_alive()
        super().__init__(self.name, self.argv, self.log_path, self.env)


def stat(pid):
    """State, parent and the rest of /proc/PID/stat behind the name; None: it is gone."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:  # it may end at any moment, between two reads, too
        return None


def is_running(pid):
    words = stat(pid)
    return words is not None and words[0] != "Z"


def descendants(pid, name=None):
    """Live processes below a process (with that name), zombies left out."""
    parents = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        words = stat(entry)
        if words is not None and words[0] != "Z":
            parents.setdefault(int(words[1]), []).append(int(entry))
    found, look = [], [pid]
    while look:
        below = parents.get(look.pop(), ())
        found += below
        look += below
    return [one for one in found if name in (None, comm(one))]


def command_line(pid):
    """Words of a process's command line; one empty one: it is gone."""
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return [""]


def comm(pid):
    """Name of a process; empty: it is gone."""
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def wait_workers(client, count, limit_s=LIMIT_S):
    """Waits until so many workers are online."""
    def online():
        workers = client.call("worker.list")["workers"]
        return len([w for w in workers if w["state"] == 1]) >= count
    wait_until(online, f"{count} workers online", limit_s)
