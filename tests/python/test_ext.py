# SPDX-License-Identifier: BSD-2-Clause
"""The extension hostpool._hostpool against a real broker and C functions, and its binary form."""
import glob
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

import procs  # noqa: E402

PACKAGE = procs.BUILD / "python"
sys.path.insert(0, str(PACKAGE))

from hostpool import _hostpool  # noqa: E402

LIMIT_S = 60
DONE, FAILED = 9, 10
USER, ID, STATE, REASON, ATTEMPT, NODE, RESULT, ERROR = range(8)
STATUS, TEXT, INDEX = 13, 14, 15


class Wanted(_hostpool.Flag):
    """A task whose end is kept."""

    end = None


def keep(ends):
    for end in ends:
        user = end[USER]
        if user is not None and not user.is_set():
            user.end = end[:USER] + (None,) + end[USER + 1:]
            user.set()


@pytest.fixture(scope="module")
def farm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("farm")
    broker = procs.Broker(folder)
    worker = procs.Worker(folder, broker, module=True, slots=2)
    yield broker
    worker.end()
    broker.end()


@pytest.fixture
def hub(farm):
    hub = _hostpool.Hub(host=farm.address, name="test", handler=keep)
    yield hub
    hub.close()


ECHO = _hostpool.Options(kind="function", fn="echo")
SLEEP = _hostpool.Options(kind="function", fn="sleep_ms")
SLEEP_1S = b"\x91\xcd\x03\xe8"  # msgpack: [1000]


def call(hub, payload, options=ECHO):
    task = Wanted()
    hub.submit(options, payload, task, LIMIT_S)
    assert hub.wait(task, LIMIT_S)
    return task.end


def rss_kb():
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise AssertionError


# ---------------------------------------------------------------- the file

def test_only_limited_api():
    """Undefined Py* symbols are those of CPython's stable ABI (buffers: stable since 3.11)."""
    out = subprocess.run(["nm", "-D", "--undefined-only", _hostpool.__file__], check=True,
                         capture_output=True, text=True).stdout
    names = set(re.findall(r"\b_?Py\w+", out))
    assert "PyObject_GetBuffer" in names
    assert not [name for name in names if name.startswith("_Py") and name not in (
        "_Py_NoneStruct", "_Py_TrueStruct", "_Py_FalseStruct", "_Py_Dealloc")]


def test_nothing_exported_but_the_module():
    out = subprocess.run(["nm", "-D", "--defined-only", _hostpool.__file__], check=True,
                         capture_output=True, text=True).stdout
    assert re.findall(r" T (\w+)", out) == ["PyInit__hostpool"]


def interpreters():
    found = {}
    for pattern in ("/usr/bin/python3.*", "/usr/local/bin/python3.*",
                    os.path.expanduser("~/.pyenv/versions/3.*/bin/python3.*")):
        for path in sorted(glob.glob(pattern)):
            match = re.search(r"/python3\.(\d+)$", path)
            if match and int(match[1]) >= 9:
                found[int(match[1])] = path
    return list(found.values()) or ["/usr/bin/python3"]


@pytest.mark.parametrize("python", interpreters())
def test_every_interpreter(python, farm):
    program = (
        "import sys; from hostpool import _hostpool as h, _child\n"
        "f = h.Flag(); got = []\n"
        "def handler(ends): got.extend(ends); [end[0].set() for end in ends]\n"
        f"hub = h.Hub(host={farm.address!r}, handler=handler)\n"
        "hub.submit(h.Options(kind='function', fn='echo'), b'x' * 100000, f, 60)\n"
        "assert hub.wait(f, 60) and bytes(got[0][6]) == b'x' * 100000, got\n"
        "print('fine')\n")
    done = subprocess.run([python, "-c", program], env={**os.environ, "PYTHONPATH": str(PACKAGE)},
                          capture_output=True, text=True, timeout=LIMIT_S)
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr


def test_zygote_says_what_is_missing(tmp_path):
    package = tmp_path / "hostpool"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "_zygote.py").write_text((PACKAGE / "hostpool" / "_zygote.py").read_text())
    done = subprocess.run([sys.executable, "-m", "hostpool._zygote"], capture_output=True, cwd="/",
                          text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 69
    assert re.fullmatch(r"hostpool: \S+ cannot load hostpool's extension: .*\n", done.stderr)


# ---------------------------------------------------------------- options and flags

def test_options_are_checked():
    with pytest.raises(ValueError, match="kind"):
        _hostpool.Options(kind="nothing")
    with pytest.raises(TypeError, match="colour"):
        _hostpool.Options(colour=1)
    with pytest.raises(ValueError):
        _hostpool.Options(priority=1 << 40)
    with pytest.raises(OverflowError):
        _hostpool.Options(pool=-1)
    with pytest.raises((TypeError, ValueError)):
        _hostpool.Options(fn="a\0b")
    _hostpool.Options(kind="command", argv=["a", "b"], env=None, durable=False, run_at_ms=-1)


def test_flag():
    flag = _hostpool.Flag()
    assert not flag and not flag.is_set() and flag.id is None and flag.ids() == []
    flag.set()
    assert flag and flag.is_set()
    flag.clear()
    assert not flag


# ---------------------------------------------------------------- calls

def test_echo(hub):
    end = call(hub, b"hello")
    assert (end[STATE], end[RESULT], end[STATUS], end[INDEX]) == (DONE, b"hello", "ok", 0)
    assert end[NODE] in ("worker", None) and end[ATTEMPT] == 1
    assert call(hub, b"")[RESULT] == b""


def test_error(hub):
    end = call(hub, b"\x91\xa4oops", _hostpool.Options(kind="function", fn="fail"))
    assert end[STATE] == FAILED and end[RESULT] is None and "oops" in end[ERROR]


def test_refused_submit(hub):
    end = call(hub, b"", _hostpool.Options(kind="function", fn="echo", queue="no such name!" * 40))
    assert end[ID] == 0 and end[STATUS] != "ok" and end[TEXT]


def test_pieces_and_buffers(hub):
    assert call(hub, (b"ab", bytearray(b"cd"), memoryview(b"ef")))[RESULT] == b"abcdef"
    with pytest.raises(TypeError):
        hub.submit(ECHO, "text", None)
    with pytest.raises(TypeError):
        hub.submit(ECHO, (b"a", 1), None)
    assert hub.outstanding == 0


def test_large_is_lent_and_owned(hub):
    data = bytearray(os.urandom(1 << 20))
    end = call(hub, (b"head", data))
    result = memoryview(end[RESULT])
    assert not result.readonly and result[4:] == data and result[:4] == b"head"
    hub.flush(LIMIT_S)
    data.append(1)  # BufferError if it were still lent
    result[0] = 0


def test_submit_many_with_one_flag(hub):
    class Many(_hostpool.Flag):
        pass
    flag, got = Many(), []

    def handler(ends):
        got.extend((end[INDEX], end[RESULT]) for end in ends)
        if len(got) == 1000:
            flag.set()
    other = _hostpool.Hub(host=hub.host, handler=handler)
    other.submit_many(ECHO, [b"%d" % i for i in range(1000)], flag)
    assert other.wait(flag, LIMIT_S)
    assert sorted(got) == [(i, b"%d" % i) for i in range(1000)]
    assert sum(count for _, _, count in flag.ids()) == 1000 and flag.id == flag.ids()[0][1]
    other.close()


def test_submit_many_with_users(hub):
    tasks = [Wanted() for _ in range(100)]
    hub.submit_many(ECHO, [b"%d" % i for i in range(100)], tasks)
    assert all(hub.wait(task, LIMIT_S) for task in tasks)
    assert [task.end[RESULT] for task in tasks] == [b"%d" % i for i in range(100)]
    with pytest.raises(ValueError):
        hub.submit_many(ECHO, [b""], [None, None])


def test_others_calls(hub):
    task = Wanted()
    hub.submit(ECHO, b"mine", task)
    assert hub.wait_accepted(task, LIMIT_S)
    assert hub.task_wait([task.id], LIMIT_S)
    assert hub.get(task.id, LIMIT_S)[RESULT] == b"mine"
    assert hub.task_state(task.id)[0] == DONE
    assert hub.cancel([(task.id, 1)])["too_late"] == 1
    assert hub.workers()[0]["node"] == "worker"
    again = Wanted()
    hub.attach(task.id, 1, again)
    assert again.id == task.id
    assert hub.wait(again, LIMIT_S) and again.end[RESULT] == b"mine"
    hub.forget([(task.id, 1)])
    hub.ping()
    with pytest.raises(_hostpool.error) as caught:
        hub.pool_info(task.id)
    assert caught.value.status == "not_found"


def test_unreachable():
    hub = _hostpool.Hub(host="127.0.0.1:1", handler=keep)
    with pytest.raises(_hostpool.error) as caught:
        hub.ping(timeout=0.2)
    assert caught.value.status == "unreachable"
    task = Wanted()
    hub.submit(ECHO, b"", task)
    assert not hub.wait(task, 0.1)
    hub.close()
    with pytest.raises(_hostpool.error) as caught:
        hub.wait(task)
    assert caught.value.status == "stopped"


# ---------------------------------------------------------------- waiting

def test_interrupt_while_waiting(hub):
    task = Wanted()
    hub.submit(SLEEP, SLEEP_1S, task)
    begun = threading.Event()
    main = threading.main_thread().ident

    def interrupt():
        begun.wait()
        signal.pthread_kill(main, signal.SIGINT)
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        begun.set()
        hub.wait(task)
    thread.join()
    assert hub.wait(task, LIMIT_S)


def test_interrupted_handler_loses_nothing(farm):
    calls = []

    def handler(ends):
        calls.append(len(ends))
        if len(calls) == 1:
            signal.raise_signal(signal.SIGINT)
        keep(ends)
    hub = _hostpool.Hub(host=farm.address, handler=handler)
    task = Wanted()
    hub.submit(ECHO, b"x", task)
    try:
        hub.wait(task, LIMIT_S)
    except KeyboardInterrupt:
        pass
    assert hub.wait(task, LIMIT_S) and task.end[RESULT] == b"x"
    hub.close()


def test_broken_handler_is_shown(farm, monkeypatch):
    shown = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: shown.append(args.exc_value))
    done = _hostpool.Flag()

    def handler(ends):
        done.set()
        raise ZeroDivisionError
    hub = _hostpool.Hub(host=farm.address, handler=handler)
    hub.submit(ECHO, b"x", None)
    assert hub.wait(done, LIMIT_S)
    hub.close()
    assert [type(error) for error in shown] == [ZeroDivisionError]


def test_flag_set_by_another_thread(hub):
    flag = _hostpool.Flag()
    thread = threading.Thread(target=flag.set)
    thread.start()
    assert hub.wait(flag, LIMIT_S)
    thread.join()


def test_threads(hub):
    wrong = []

    def work(name):
        for i in range(300):
            payload = b"%d:%d" % (name, i)
            if call(hub, payload)[RESULT] != payload:
                wrong.append(payload)
    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and hub.outstanding == 0


def test_fork(hub):
    assert call(hub, b"before")[RESULT] == b"before"
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            hub.after_fork()
            code = 0 if call(hub, b"child")[RESULT] == b"child" else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert call(hub, b"parent")[RESULT] == b"parent"


# ---------------------------------------------------------------- ends

@pytest.mark.parametrize("ending", [
    "",                                       # tasks under way
    "hub.close()",
    "del hub",
    "threading.Thread(target=hub.wait, args=(h.Flag(),), daemon=True).start()",
    "os.kill(os.getpid(), 15)",
])
def test_exit_of_the_program(farm, ending):
    program = (
        "import os, threading; from hostpool import _hostpool as h\n"
        f"hub = h.Hub(host={farm.address!r}, handler=lambda ends: None)\n"
        "o = h.Options(kind='function', fn='echo')\n"
        "for i in range(2000): hub.submit(o, b'x', hub)\n"
        f"{ending}\n")
    done = subprocess.run([sys.executable, "-X", "faulthandler", "-c", program],
                          env={**os.environ, "PYTHONPATH": str(PACKAGE)}, capture_output=True,
                          text=True, timeout=LIMIT_S)
    assert done.stderr == "" and done.returncode in (0, -15)


def test_dropped_in_its_own_handler(farm):
    """The last reference to a hub goes away on its own thread."""
    gone = threading.Event()

    held = []

    class Handler:
        def __call__(self, ends):
            held.clear()

        def __del__(self):
            gone.set()
    held.append(_hostpool.Hub(host=farm.address, handler=Handler()))
    held[0].submit(ECHO, b"x", None)
    assert gone.wait(LIMIT_S)


def test_memory_stays_flat(hub):
    def many(count):
        tasks = [Wanted() for _ in range(count)]
        for task in tasks:
            hub.submit(ECHO, b"some bytes", task)
        for task in tasks:
            assert hub.wait(task, LIMIT_S)
    many(20000)
    many(20000)
    sizes = []  # each depends on how far the ends had come when it was read, by some MB
    for _ in range(12):
        many(20000)
        sizes.append(rss_kb())
    assert min(sizes[-3:]) - min(sizes[:3]) < 6144  # of 180,000 calls: 35 bytes each
    user = Wanted()
    references = sys.getrefcount(user)
    hub.submit(ECHO, b"", user)
    assert hub.wait(user, LIMIT_S)
    user.end = None
    assert sys.getrefcount(user) == references
