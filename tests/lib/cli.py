# SPDX-License-Identifier: BSD-2-Clause
"""The program hostpool in tests: run to its end, or in the background, with pipes or a terminal."""
import json
import os
import pty
import select
import signal
import subprocess
import time

import procs


class Result:
    def __init__(self, code, out, err):
        self.code = code
        self.out = out
        self.err = err

    @property
    def json(self):
        return json.loads(self.out)

    def __repr__(self):
        return f"<exit {self.code}, out {self.out[:2000]!r}, err {self.err[:2000]!r}>"


class Cli:
    """Calls of hostpool for one broker: cli("submit", "--", "true") gives a Result."""

    def __init__(self, host=None, cwd=None, env=None):
        self.host = host
        self.cwd = cwd
        self.env = {k: v for k, v in os.environ.items()
                    if not k.startswith("HOSTPOOL_") and k not in ("COLUMNS", "NO_COLOR")}
        if host is not None:
            self.env["HOSTPOOL_HOST"] = host
        self.env["TZ"] = "UTC"
        self.env.update(env or {})

    def argv(self, args):
        return [procs.program("hostpool"), *map(str, args)]

    def bytes(self, *args, stdin=b"", **env):
        done = subprocess.run(self.argv(args), input=stdin, capture_output=True, cwd=self.cwd,
                              env={**self.env, **env}, timeout=procs.LIMIT_S * 3)
        return Result(done.returncode, done.stdout, done.stderr)

    def __call__(self, *args, stdin="", **env):
        data = stdin if isinstance(stdin, bytes) else stdin.encode()
        done = self.bytes(*args, stdin=data, **env)
        return Result(done.code, done.out.decode(), done.err.decode())

    def ok(self, *args, **more):
        """As a call, but it must succeed; gives standard output."""
        done = self(*args, **more)
        assert done.code == 0, (args, done)
        return done.out

    def start(self, *args, **more):
        """In the background, in a process group of its own; unbuffered, for read_line."""
        return subprocess.Popen(self.argv(args), bufsize=0, stdin=more.pop("stdin",
                                                                           subprocess.DEVNULL),
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self.cwd,
                                env={**self.env, **more}, start_new_session=True)

    def terminal(self, *args, **env):
        """In a terminal of 120 columns: a Terminal."""
        return Terminal(self.argv(args), self.cwd, {**self.env, "COLUMNS": "120", **env})

    def state(self, task):
        return self(("show"), "--json", task).json["tasks"][0]["state"]

    def wait_state(self, task, *states):
        procs.wait_until(lambda: self.state(task) in states, f"task {task} in {states}")


class Terminal:
    """A program with a pseudo-terminal as its input and outputs."""

    def __init__(self, argv, cwd, env):
        pid, self.fd = pty.fork()
        if pid == 0:
            if cwd:
                os.chdir(cwd)
            os.execve(argv[0], argv, env)
        self.pid = pid
        self.seen = b""
        self.code = None

    def read_until(self, text, limit_s=procs.LIMIT_S):
        wanted = text.encode()
        end = time.monotonic() + limit_s
        while wanted not in self.seen:
            if not self._read(end):
                raise AssertionError(f"no {text!r} in {self.seen!r}")
        return self.seen.decode(errors="replace")

    def _read(self, end):
        left = end - time.monotonic()
        if left <= 0 or not select.select([self.fd], [], [], left)[0]:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # the other side is closed
            return False
        self.seen += data
        return bool(data)

    def type(self, text):
        os.write(self.fd, text.encode())

    def end(self, limit_s=procs.LIMIT_S):
        """Reads to the end; gives the exit code (128+N for signals)."""
        end = time.monotonic() + limit_s
        while self._read(end):
            pass
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        self.end()


def read_line(process):
    """A line of the standard output of a process of Cli.start."""
    ready = select.select([process.stdout], [], [], procs.LIMIT_S)[0]
    assert ready, "no line"
    return process.stdout.readline().decode()


def finish(process, limit_s=procs.LIMIT_S):
    """Waits for a process of Cli.start: a Result."""
    out, err = process.communicate(timeout=limit_s)
    return Result(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))
