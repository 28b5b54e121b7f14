# SPDX-License-Identifier: BSD-2-Clause
"""Python programs on hostpool in tests: where the package is, and a farm for them."""
import contextlib
import os
import pathlib
import select
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import procs  # noqa: E402
import rpc  # noqa: E402

PACKAGES = procs.BUILD / "python"
WORKER_FLAGS = ("--any-interpreter", "--python", "/usr/bin/python3")


def use_package():
    """Lets this process import hostpool from the build folder."""
    if str(PACKAGES) not in sys.path:
        sys.path.insert(0, str(PACKAGES))


def environment(host=None, **more):
    """The environment of a program that uses hostpool."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("HOSTPOOL_")}
    env["PYTHONPATH"] = str(PACKAGES)
    if host:
        env["HOSTPOOL_HOST"] = host
    env.update(more)
    return env


def daemon_environment(**more):
    """Of a worker: its children must find nothing by chance that a program brought along."""
    env = environment(**more)
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    return env


@contextlib.contextmanager
def local(slots):
    """A private farm; its address."""
    use_package()
    import hostpool
    with hostpool.local(slots) as farm:
        yield farm.host


class Farm:
    """A broker and workers as processes of their own, which tests may kill."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.processes = []
        self.broker = procs.Broker(self.folder, env=daemon_environment())
        self.processes.append(self.broker)
        self.workers = {}

    @property
    def host(self):
        return self.broker.address

    def add_worker(self, name="worker-1", slots=2, flags=(), wait=True, prefix=(), env=None,
                   only=None):
        """only: instead of WORKER_FLAGS."""
        worker = procs.Worker(self.folder, self.broker, name=name, slots=slots,
                              flags=[*(WORKER_FLAGS if only is None else only), *flags],
                              prefix=prefix,
                              env=daemon_environment(**(env or {})))
        self.workers[name] = worker
        self.processes.append(worker)
        if wait:
            self.wait_workers()
        return worker

    def restart_broker(self, *flags):
        """After kill -9, with more flags from now on."""
        self.broker.kill()
        self.broker.argv += flags
        self.broker.start()

    def wait_workers(self, count=None):
        with rpc.Client(self.broker.port) as client:
            client.hello()
            procs.wait_workers(client, len(self.workers) if count is None else count)

    def call(self, method, **fields):
        with rpc.Client(self.broker.port) as client:
            client.hello()
            return client.call(method, **fields)

    def children(self):
        """Pids of all live processes below the workers."""
        return [pid for worker in self.workers.values() for pid in procs.descendants(worker.pid)]

    def end(self):
        for process in reversed(self.processes):
            process.end()


class Program:
    """A Python program of a test, with pipes; ended with the test."""

    def __init__(self, text, folder, host=None, *args, name="program.py", cwd=None, env=None):
        self.path = pathlib.Path(folder) / name
        self.path.write_text(text)
        self.errors = pathlib.Path(folder) / f"{name}.stderr"
        with open(self.errors, "wb") as errors:
            self.popen = subprocess.Popen(
                ["/usr/bin/python3", "-B", str(self.path), *map(str, args)], cwd=cwd or folder,
                env=environment(host, **(env or {})), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=errors, start_new_session=True)
        self.buffer = b""

    @property
    def pid(self):
        return self.popen.pid

    def stderr(self):
        return self.errors.read_text(errors="replace")

    def read(self, end_s):
        """More output; False at its end."""
        left_s = end_s - time.monotonic()
        if left_s <= 0 or not select.select([self.popen.stdout], [], [], left_s)[0]:
            self.hangs()
        data = os.read(self.popen.stdout.fileno(), 1 << 16)
        self.buffer += data
        return bool(data)

    def hangs(self):
        os.kill(self.pid, signal.SIGUSR1)  # faulthandler, if the program has it on, says where
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(1)
        raise AssertionError(f"it hangs; output {self.buffer.decode()!r}\n{self.stderr()}")

    def line(self, limit_s=procs.LIMIT_S):
        """The next line of its output."""
        end_s = time.monotonic() + limit_s
        while b"\n" not in self.buffer:
            if not self.read(end_s):
                raise AssertionError(f"it ended: {self.popen.wait()}\n{self.stderr()}")
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.decode()

    def finish(self, limit_s=procs.LIMIT_S):
        """(exit code, rest of stdout, stderr)"""
        end_s = time.monotonic() + limit_s
        while self.read(end_s):
            pass
        try:
            code = self.popen.wait(max(end_s - time.monotonic(), 1))
        except subprocess.TimeoutExpired:
            self.hangs()
        return code, self.buffer.decode(), self.stderr()

    def kill(self):
        self.popen.kill()
        self.popen.wait()

    def end(self):
        self.kill()
        self.popen.stdout.close()
