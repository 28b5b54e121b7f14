# SPDX-License-Identifier: BSD-2-Clause
"""A stand-in for the extension: a hub without a broker, whose calls run in forked processes.

install() puts it in the place of hostpool._hostpool, before hostpool's other modules are imported.
It keeps to the extension's rules as far as the pure Python parts can see them: one end for each
task, handlers on a thread of its own, ids in order. Nothing is durable, no process is replaced.
"""
import itertools
import os
import queue
import select
import shutil
import signal
import struct
import sys
import tempfile
import threading
import time
import traceback
import types

DONE, FAILED, CANCELLED = 9, 10, 11
ERROR, SIGNAL, INIT_FAILED, POOL_ENDED, CANCEL = 1, 3, 19, 20, 16
CLOSING, ENDING, ENDED = 2, 3, 4


class error(Exception):
    def __init__(self, text="", status=""):
        super().__init__(text)
        self.status = status


class Flag:
    __slots__ = ("_set", "_ids")

    def __new__(cls, *args, **kwds):
        self = object.__new__(cls)
        self._set, self._ids = False, []
        return self

    def __init__(self, *args, **kwds):
        pass

    def __bool__(self):
        return self._set

    is_set = __bool__

    def set(self):
        with _changed:
            self._set = True
            _changed.notify_all()

    def clear(self):
        self._set = False

    def ids(self):
        return list(self._ids)

    @property
    def id(self):
        return self._ids[0][1] if self._ids else None


_changed = threading.Condition()


class Options:
    def __init__(self, **options):
        self.__dict__.update(options)

    def end(self):
        """Nobody waits for room here."""


class _Content:
    def __init__(self, folder):
        self.folder, self.seeds = folder, {}

    def seed(self, digest, data):
        self.seeds[digest] = data

    def fetch(self, digest):
        if digest in self.seeds:
            return self.seeds[digest]
        until = time.monotonic() + 10
        while time.monotonic() < until:
            try:
                with open(os.path.join(self.folder, digest.hex()), "rb") as file:
                    return file.read()
            except OSError:
                select.select([], [], [], 0.005)  # the parent is writing it
        raise LookupError(digest.hex())

    def add_modules(self, modules):
        pass


def _read(fd, size):
    parts = []
    while size:
        part = os.read(fd, min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _write(fd, data):
    view = memoryview(struct.pack("<Q", len(data)) + data)
    while view:
        view = view[os.write(fd, view[:1 << 20]):]


def _receive(fd):
    return _read(fd, struct.unpack("<Q", _read(fd, 8))[0])


def _flat(payload):
    if isinstance(payload, (tuple, list)):
        return b"".join(bytes(piece) for piece in payload)
    return bytes(payload)


def _child(pool, inward, outward):
    from hostpool import _payload
    from multiprocessing.pool import MaybeEncodingError
    content = _Content(pool.folder)
    info = {"host": "fake", "node": "fake", "attempt": 1, "pid": os.getpid(), "kind": "error"}
    try:
        setup = _payload.decode_setup(pool.setup)
        setup["main"] = setup.get("main") or (b"", "", "")  # __main__ is here already
        _payload.enter(setup, content)
        if setup.get("init") is not None:
            _payload.decode_call(setup["init"], content)()
        _write(outward, b"\x01")
    except BaseException:
        _write(outward, b"\x00" + traceback.format_exc().encode())
        return
    while True:
        try:
            payload = _receive(inward)
        except EOFError:
            return
        try:
            value = _payload.decode_call(payload, content)()
            try:
                answer = b"\x01" + _flat(_payload.encode_result(value))
            except Exception as caught:
                raise MaybeEncodingError(caught, value) from None
        except BaseException as caught:
            kind = "exit" if isinstance(caught, SystemExit) else "error"
            answer = b"\x00" + _payload.encode_error(
                caught, traceback.format_exc(), dict(info, kind=kind))
        _write(outward, answer)


class _Pool:
    def __init__(self, hub, number, count, setup):
        self.hub, self.id, self.setup = hub, number, setup
        self.folder = os.path.join(hub.folder, str(number))
        os.mkdir(self.folder)
        self.calls = queue.SimpleQueue()
        self.phase = 1
        self.live = 0
        self.error = None
        self.pids = {}
        self.threads = [threading.Thread(target=self.serve, daemon=True) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def serve(self):
        in_read, in_write = os.pipe()
        out_read, out_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(in_write)
                _child(self, in_read, out_write)
            finally:
                os._exit(0)
        os.close(in_read)
        os.close(out_write)
        self.pids[threading.current_thread()] = pid
        try:
            first = _receive(out_read)
            if first[:1] == b"\x00":
                self.error = first[1:].decode()
        except EOFError:
            self.error = "died"
        while True:
            call = user = payload = answer = None
            call = self.calls.get()
            if call is None:
                break
            number, payload, user, index = call
            if self.error is not None:
                self.end(number, user, index, FAILED, INIT_FAILED, None, self.error)
                continue
            try:
                _write(in_write, payload)
                answer = _receive(out_read)
            except (EOFError, OSError):
                self.end(number, user, index, FAILED,
                         POOL_ENDED if self.phase >= ENDING else SIGNAL, None, None, 9)
                continue
            is_ok = answer[:1] == b"\x01"
            self.end(number, user, index, DONE if is_ok else FAILED, 0 if is_ok else ERROR,
                     answer[1:], None if is_ok else "error")
        os.close(in_write)
        os.close(out_read)
        os.kill(pid, signal.SIGKILL)  # other children have copies of its pipe
        os.waitpid(pid, 0)
        self.pids.pop(threading.current_thread(), None)
        if not self.pids:
            self.phase = ENDED
            with _changed:
                _changed.notify_all()

    def end(self, number, user, index, state, reason, result, text, signal_number=0):
        with self.hub.lock:
            self.live -= 1
            is_over = self.phase == CLOSING and not self.live
        self.hub.ends.put((user, number, state, reason, 1, "fake", result, text, None,
                           signal_number, 0, b"", b"", "ok", "", index))
        if is_over:
            self.stop()

    def stop(self):
        for _ in self.threads:
            self.calls.put(None)

    def finish(self, terminate):
        with self.hub.lock:
            if self.phase >= ENDING:
                return
            self.phase = ENDING if terminate else CLOSING
            live = self.live
        if terminate:
            while True:
                try:
                    call = self.calls.get_nowait()
                except queue.Empty:
                    break
                if call is not None:
                    self.end(call[0], call[2], call[3], FAILED, POOL_ENDED, None, None)
            for pid in list(self.pids.values()):
                os.kill(pid, signal.SIGKILL)
        if terminate or not live:
            self.stop()


class Hub:
    def __init__(self, host=None, token=None, token_file=None, name=None, handler=None):
        self.host = host or "fake:1"
        self.handler = handler
        self.folder = tempfile.mkdtemp(prefix="hostpool-fake-")
        self.lock = threading.RLock()
        self.numbers = itertools.count(1)
        self.pools = {}
        self.kept = {}
        self.forgotten = []
        self.ends = queue.SimpleQueue()
        threading.Thread(target=self._deliver, daemon=True).start()

    def _deliver(self):
        while True:
            end = self.ends.get()
            if end is None:
                return
            self.kept[end[1]] = (None,) + end[1:]
            self.handler([end])
            del end
            with _changed:
                _changed.notify_all()

    def submit(self, options, payload, user=None, timeout=None):
        self._submit(options, payload, user, 0)

    def submit_many(self, options, payloads, users=None, timeout=None):
        for index, payload in enumerate(payloads):
            user = users[index] if isinstance(users, list) else users
            self._submit(options, payload, user, index)

    def _submit(self, options, payload, user, index):
        pool = self.pools.get(options.pool)
        with self.lock:
            if pool is None or pool.phase != 1:
                raise error("the pool is closed", "illegal_state")
            pool.live += 1
        number = next(self.numbers)
        user._ids.append((index, number, 1))
        pool.calls.put((number, _flat(payload), user, index))

    def attach(self, first, count, users=None):
        for index in range(count):
            user = users[index] if isinstance(users, list) else users
            end = self.kept[first + index]
            self.ends.put((user,) + end[1:15] + (index,))

    def wait(self, flag, timeout=None):
        until = None if timeout is None else time.monotonic() + timeout
        with _changed:
            while not flag:
                left = 1.0 if until is None else until - time.monotonic()
                if left <= 0:
                    return False
                _changed.wait(min(left, 1.0))
        return True

    def wait_accepted(self, flag, timeout=None):
        return True

    def flush(self, timeout=None):
        return True

    def forget(self, ranges):
        self.forgotten.extend(ranges)

    def pool_open(self, options, payload, timeout=None):
        number = next(self.numbers)
        self.pools[number] = _Pool(self, number, options.processes or 2, payload)
        return number

    def pool_info(self, number, wait_s=0, timeout=None):
        if number not in self.pools:
            raise error("no such pool", "not_found")
        pool = self.pools[number]
        threading.Event().wait(wait_s)  # what the broker's answer takes
        return {"id": number, "phase": pool.phase, "processes": len(pool.threads),
                "live": pool.live, "detached": False, "error": pool.error,
                "children": [("fake", pid) for pid in list(pool.pids.values())]}

    def pool_end(self, number, terminate=False, timeout=None):
        self.pools[number].finish(terminate)

    def pool_detach(self, number, on=True, timeout=None):
        pass

    def pool_put(self, number, digest, data, timeout=None):
        path = os.path.join(self.pools[number].folder, digest.hex())
        with open(path + ".new", "wb") as file:
            file.write(data)
        os.rename(path + ".new", path)
        return False

    def task_state(self, number, timeout=None):
        end = self.kept.get(number)
        return (end[2], end[3], end[4], end[5]) if end else (3, 0, 0, None)

    def task_wait(self, ranges, timeout=None):
        pool = self.pools[ranges[0][0]]
        with _changed:
            while pool.phase != ENDED:
                _changed.wait(0.05)
        return True

    def cancel(self, ranges, how=0, grace_s=10.0, reason=None):
        return {"cancelled": 0, "cancelling": 0, "too_late": len(ranges), "unknown": 0}

    def workers(self, timeout=None):
        return [{"name": "fake", "slots": 2, "state": 1}]

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def after_fork(self):
        pass


def install():
    """Puts the fake in the extension's place; the package must be importable from its sources."""
    module = types.ModuleType("hostpool._hostpool")
    for item in (error, Flag, Options, Hub):
        setattr(module, item.__name__, item)
    module.version = "fake"
    sys.modules["hostpool._hostpool"] = module
    os.environ["HOSTPOOL_HOST"] = "fake:1"
    import hostpool
    hostpool._hostpool = module
    return module
