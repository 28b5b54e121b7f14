# SPDX-License-Identifier: BSD-2-Clause
"""Pools while brokers, workers and clients die, and on workers that lack the program's files."""
import concurrent.futures
import functools
import os
import pathlib
import shlex
import signal
import sys
import types

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import fault_jobs as jobs  # noqa: E402
from farm_fixtures import *  # noqa: E402,F401,F403
from farm_fixtures import LIMIT_S, STANDARD, connected, in_time, pyfarm  # noqa: E402
import procs  # noqa: E402
from test_data_and_clients import HEAD  # noqa: E402

pytestmark = pytest.mark.skipif(STANDARD, reason="is about farms")
CLOSING = 2
QUICK_LEASES = ("--lease", "1500ms", "--heartbeat", "300ms")


def lines_of(path):
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def pool_of(own_farm):
    """pool_of(...) makes a Pool on this test's farm."""
    import hostpool
    made = []
    with connected(own_farm):
        def make(*args, **more):
            made.append(hostpool.Pool(*args, **more))
            return made[-1]
        yield make
        for pool in made:
            pool.terminate()
            assert in_time(pool.join), "join hangs"


# ------------------------------------------------------------------------------ the broker dies

def test_terminate_when_the_broker_is_gone(own_farm, pool_of, tmp_path, monkeypatch):
    """What waits ends, whether its calls had all been submitted or not; and join() ends."""
    import hostpool.pool
    monkeypatch.setattr(hostpool.pool, "END_SECONDS", 0.5)
    own_farm.add_worker()
    pool = pool_of(2)
    result = pool.map_async(jobs.hold_all, [(tmp_path, i) for i in range(4)], 1)
    iterator = pool.imap(jobs.hold_all, [(tmp_path, i) for i in range(4, 8)])
    assert result.id and not pool._feeds
    own_farm.broker.kill()
    assert in_time(pool.terminate)
    for wait in (result.get, iterator.next):
        with pytest.raises(hostpool.PoolTerminated):
            wait(LIMIT_S)
    assert in_time(pool.join)


def test_terminate_frees_who_waits_to_submit(own_farm, pool_of, monkeypatch):
    """Calls beyond the window wait for the broker; terminate() on another thread ends that."""
    import hostpool.pool
    monkeypatch.setattr(hostpool.pool, "END_SECONDS", 0.5)
    own_farm.add_worker()
    pool = pool_of(2)
    own_farm.broker.kill()
    results = []
    mapped = []

    def submit(data):
        while True:
            results.append(pool.apply_async(len, (data,)))

    def call_map(data):
        mapped.append(pool.map_async(len, [data] * 200, 1))

    data = bytes(1 << 20)
    with concurrent.futures.ThreadPoolExecutor() as threads:
        submitting = threads.submit(submit, data)
        threads.submit(call_map, data)
        stays = None
        while stays != len(results):  # waits: a call is copied in far less
            stays = len(results)
            assert not concurrent.futures.wait([submitting], 1).done
        assert in_time(pool.terminate)
        with pytest.raises(ValueError, match="not running"):
            submitting.result(LIMIT_S)
    for result in results + mapped:
        with pytest.raises(hostpool.PoolTerminated):
            result.get(LIMIT_S)
    assert in_time(pool.join)


def test_broker_killed_in_the_middle_of_a_map(own_farm, pool_of, tmp_path):
    own_farm.add_worker()
    pool = pool_of(2)
    job = functools.partial(jobs.squares_slowly, str(tmp_path))
    iterator = pool.imap(job, range(100))
    assert [iterator.next(LIMIT_S) for _ in range(20)] == [x * x for x in range(20)]
    result = pool.map_async(job, range(100), 1)
    own_farm.broker.kill()
    assert not result.ready()
    own_farm.broker.start()
    (tmp_path / "go").touch()
    assert result.get(LIMIT_S) == [x * x for x in range(100)]
    assert list(iterator) == [x * x for x in range(20, 100)]
    assert pool.apply_async(jobs.square, (12,)).get(LIMIT_S) == 144, "the pool lives on"
    pool.close()
    assert in_time(pool.join)


def test_broker_killed_again_and_again(own_farm, pool_of):
    own_farm.add_worker()
    pool = pool_of(2)
    for _ in range(3):
        results = [pool.apply_async(jobs.square, (x,)) for x in range(2000)]
        mapped = pool.map_async(jobs.square, range(20_000), 10)
        results[10].wait(LIMIT_S)
        own_farm.broker.kill()
        own_farm.broker.start()
        assert [result.get(LIMIT_S) for result in results] == [x * x for x in range(2000)]
        assert mapped.get(LIMIT_S) == [x * x for x in range(20_000)]


def test_calls_made_while_there_is_no_broker(own_farm, pool_of):
    own_farm.add_worker()
    pool = pool_of(2)
    assert pool.apply(jobs.square, (2,)) == 4
    own_farm.broker.kill()
    results = [pool.apply_async(jobs.square, (x,)) for x in range(100)]
    own_farm.broker.start()
    assert [result.get(LIMIT_S) for result in results] == [x * x for x in range(100)]


def test_broker_killed_under_calls_that_are_not_durable(own_farm, pool_of, tmp_path):
    """What was in memory is lost, and that is said; nothing hangs, and nothing is wrong."""
    import hostpool
    own_farm.add_worker()
    pool = pool_of(2, durable=False)
    assert pool.map(jobs.square, range(100)) == [x * x for x in range(100)]
    results = [pool.apply_async(jobs.announce_and_wait, (str(tmp_path), f"t{i}", i))
               for i in range(4)]
    procs.wait_until((tmp_path / "t0").exists, "it runs")
    own_farm.broker.kill()
    own_farm.broker.start()
    (tmp_path / "go").touch()
    for i, result in enumerate(results):
        try:
            assert result.get(LIMIT_S) == i
        except hostpool.BrokerLost as error:
            assert isinstance(error, hostpool.HostpoolError)


# ------------------------------------------------------------------------------ a worker dies

@pytest.mark.parametrize("chunk", [1, 5])
def test_worker_lost_in_the_middle_of_a_map(own_farm, pool_of, tmp_path, chunk):
    own_farm.restart_broker(*QUICK_LEASES)
    first = own_farm.add_worker("worker-1")
    own_farm.add_worker("worker-2")
    pool = pool_of()
    all_up(pool, 4)
    result = pool.map_async(functools.partial(jobs.squares_slowly, str(tmp_path)), range(100),
                            chunk)
    before = procs.descendants(first.pid)
    procs.wait_until(lambda: running_at(own_farm, "worker-1"), "worker-1 has calls")
    first.kill()
    (tmp_path / "go").touch()
    assert result.get(LIMIT_S) == [x * x for x in range(100)]
    procs.wait_until(lambda: not any(map(procs.is_running, before)), "its children died with it")
    procs.wait_until(lambda: pool.map(jobs.square, range(10)) == [x * x for x in range(10)],
                     "the other goes on")


def all_up(pool, count):
    """All children are set up; those that come late find nothing left to do."""
    assert pool.processes == count
    procs.wait_until(lambda: sum(child.is_alive() for child in pool._pool) == count, "all are up")


def running_at(farm, node):
    workers = {w["node"]: w for w in farm.call("worker.list")["workers"]}
    return workers[node].get("assigned", 0) > 0


def test_worker_lost_and_no_attempts_left(own_farm, pool_of, tmp_path):
    import hostpool
    own_farm.restart_broker(*QUICK_LEASES)
    worker = own_farm.add_worker("worker-1")
    pool = pool_of(1, max_losses=0)
    result = pool.apply_async(jobs.announce_and_wait, (str(tmp_path), "runs"))
    procs.wait_until((tmp_path / "runs").exists, "it runs")
    worker.kill()
    with pytest.raises(hostpool.WorkerLost):
        result.get(LIMIT_S)
    worker.start()
    assert pool.apply_async(jobs.square, (5,)).get(LIMIT_S) == 25, "a new worker takes the pool"


def test_pool_follows_workers_that_come(own_farm, pool_of):
    pool = pool_of()  # no worker at all: it waits
    result = pool.apply_async(jobs.square, (4,))
    assert not result.ready()
    own_farm.add_worker("worker-1", slots=1)
    assert result.get(LIMIT_S) == 16
    own_farm.add_worker("worker-2", slots=3)
    procs.wait_until(lambda: pool.processes == 4, "the pool has grown")


# ------------------------------------------------------------------------------ the client dies

LEAVES = HEAD + """
if __name__ == "__main__":
    folder, how = sys.argv[1:]
    pool = hostpool.Pool(2, orphan_timeout=1.0, durable=how != "memory")
    result = pool.apply_async(jobs.announce_and_wait, (folder, "runs", 11))
    results = [pool.apply_async(jobs.square, (i,)) for i in range(100)]
    mapped = pool.map_async(jobs.square, range(100), chunksize=7)
    result.wait_accepted()
    while not os.path.exists(folder + "/runs"):
        threading.Event().wait(0.01)
    if how.startswith("detach"):
        pool.detach()
    say(pool.id, result.id, results[-1].id, mapped.id)
    if how == "detach and end":
        sys.exit(0)
    threading.Event().wait()
"""


def leave(program, farm, tmp_path, how):
    """A program that made calls and is gone; (pool id, id of the call that runs, of a waiting one,
    of a map), pid of its child."""
    one = program(LEAVES, tmp_path, how, farm=farm)
    pool_id, first, last, mapped = one.line().split()
    if how == "detach and end":
        assert one.finish()[0] == 0
    else:
        one.kill()
    return int(pool_id), int(first), int(last), mapped, int((tmp_path / "runs").read_text())


@pytest.mark.parametrize("how", ["detach", "detach and end"])
def test_detach_and_attach_from_another_process(own_farm, pool_of, program, tmp_path, how):
    import hostpool
    own_farm.add_worker()
    pool_id, first, last, mapped, pid = leave(program, own_farm, tmp_path, how)
    assert procs.is_running(pid)
    pool = hostpool.Pool.attach(pool_id)
    assert pool.apply_async(jobs.square, (6,)).get(LIMIT_S) == 36
    assert hostpool.attach(last).get(LIMIT_S) == 99 * 99
    assert hostpool.attach(mapped).get(LIMIT_S) == [x * x for x in range(100)]
    waiting = hostpool.attach(first)
    assert not waiting.ready()
    (tmp_path / "go").touch()
    assert waiting.get(LIMIT_S) == 11 and hostpool.attach(first).get(LIMIT_S) == 11
    own_farm.broker.kill()
    own_farm.broker.start()
    assert hostpool.attach(first).get(LIMIT_S) == 11, "tomorrow, too"
    pool.close()
    assert in_time(pool.join)
    procs.wait_until(lambda: not procs.is_running(pid), "a closed pool's children end")


def test_client_killed_without_detach(own_farm, pool_of, program, tmp_path):
    """A durable pool is closed: what it was given runs, its results stay, its children end."""
    import hostpool
    own_farm.add_worker()
    pool_id, first, last, _, pid = leave(program, own_farm, tmp_path, "killed")
    procs.wait_until(lambda: own_farm.call("pool.info", pool=pool_id)["state"] >= CLOSING,
                     "it is closed after a time")
    (tmp_path / "go").touch()
    assert hostpool.attach(first).get(LIMIT_S) == 11
    assert hostpool.attach(last).get(LIMIT_S) == 99 * 99
    procs.wait_until(lambda: not procs.is_running(pid), "the pool's children are gone")


def test_client_killed_with_a_pool_in_memory(own_farm, pool_of, program, tmp_path):
    own_farm.add_worker()
    *_, pid = leave(program, own_farm, tmp_path, "memory")
    procs.wait_until(lambda: not procs.is_running(pid), "the pool is terminated")


# ------------------------------------------------------------------------------ code

USER = """
import sys
sys.path.insert(0, ".")
import mylib, mypackage.inner
from hostpool.multiprocessing import Pool

if __name__ == "__main__":
    with Pool(1) as pool:
        print(pool.map(mylib.triple, range(5)))
        print(pool.apply(mypackage.inner.deep, (4,)))
        import late
        print(pool.apply(late.late, ()))
        print(pool.apply(mylib.files_here, ()))
    with Pool(1, mylib.prepare, (5,)) as pool:
        print(pool.apply(mylib.prepared, ()))
"""
USER_FILES = {
    "mylib.py": """
import os
import helper
STATE = []
def triple(x):
    return helper.FACTOR * x
def files_here():
    return sorted(os.listdir(os.path.dirname(os.path.abspath(helper.__file__))))
def prepare(x):
    STATE.append(x)
def prepared():
    return STATE
""",
    "helper.py": "FACTOR = 3\n",
    "late.py": "def late():\n    return 'late'\n",
    "mypackage/__init__.py": "BASE = 100\n",
    "mypackage/inner.py": "from . import BASE\nfrom .other import add\n"
                          "def deep(x):\n    return add(BASE, x)\n",
    "mypackage/other.py": "def add(a, b):\n    return a + b\n",
}


def test_worker_without_the_programs_files(own_farm, tmp_path):
    """The worker sees an empty folder where the program's modules are: a second host."""
    user = tmp_path / "user"
    for name, text in USER_FILES.items():
        (user / name).parent.mkdir(parents=True, exist_ok=True)
        (user / name).write_text(text)
    script = f"mount -t tmpfs none {shlex.quote(str(user))} && exec \"$@\""
    own_farm.add_worker(prefix=["unshare", "--mount", "sh", "-c", script, "sh"])
    one = pyfarm.Program(USER, user, own_farm.host)
    try:
        code, out, err = one.finish()
    finally:
        one.end()
    assert (code, err) == (0, "")
    assert out.splitlines() == ["[0, 3, 6, 9, 12]", "104", "late", "[]", "[5]"]


@pytest.fixture
def pretend(monkeypatch):
    """pretend((3, 8), path): the client's Python is another one."""
    import hostpool.pool

    def to(version, executable):
        other = types.SimpleNamespace(**{name: getattr(sys, name) for name in dir(sys)
                                         if not name.startswith("__")})
        other.version_info = (*version, 1, "final", 0)
        other.executable = executable
        monkeypatch.setattr(hostpool.pool, "sys", other)
    return to


@pytest.mark.parametrize("interpreter", ["/nonexistent/python3.8", "/usr/bin/python3"])
@pytest.mark.parametrize("policy", ["any interpreter", "its own"])
def test_another_python_is_refused(own_farm, pool_of, pretend, interpreter, policy):
    """Before anything runs, with what there is."""
    import hostpool
    flags = ["--any-interpreter"] if policy == "any interpreter" else []
    own_farm.add_worker(only=["--python", "/usr/bin/python3", *flags])
    pretend((3, 8), interpreter)
    with pytest.raises(hostpool.HostpoolError, match=r"python ?3\.8") as caught:
        hostpool.Pool(1).apply(jobs.square, (2,))
    if policy == "its own" or interpreter == "/usr/bin/python3":
        assert "3.11" in str(caught.value)


def test_interpreter_that_the_worker_lacks(own_farm, pool_of, pretend):
    """Its own one of the same version does."""
    own_farm.add_worker()
    pretend((3, 11), "/nonexistent/python3.11")
    assert pool_of(1).apply_async(jobs.square, (2,)).get(LIMIT_S) == 4


def test_too_many_processes_are_refused(own_farm, pool_of):
    import hostpool
    own_farm.add_worker()
    with pytest.raises(hostpool.HostpoolError, match="100000"):
        hostpool.Pool(100_000)


def test_worker_drained_in_the_middle_of_a_map(own_farm, pool_of, tmp_path):
    own_farm.add_worker("worker-1")
    own_farm.add_worker("worker-2")
    pool = pool_of()
    all_up(pool, 4)
    result = pool.map_async(functools.partial(jobs.squares_slowly, str(tmp_path)), range(100), 1)
    procs.wait_until(lambda: running_at(own_farm, "worker-1"), "worker-1 has calls")
    own_farm.workers["worker-1"].signal(signal.SIGTERM)
    (tmp_path / "go").touch()
    assert result.get(LIMIT_S) == [x * x for x in range(100)]
    assert own_farm.workers["worker-1"].wait() == 0


def test_interrupted_worker_host(own_farm, pool_of, tmp_path):
    """SIGSTOP of a whole worker: its lease ends, its calls run elsewhere, it comes back."""
    own_farm.restart_broker(*QUICK_LEASES)
    first = own_farm.add_worker("worker-1")
    own_farm.add_worker("worker-2")
    pool = pool_of()
    all_up(pool, 4)
    result = pool.map_async(functools.partial(jobs.squares_slowly, str(tmp_path)), range(100), 1)
    procs.wait_until(lambda: running_at(own_farm, "worker-1"), "worker-1 has calls")
    os.kill(first.pid, signal.SIGSTOP)
    (tmp_path / "go").touch()
    assert result.get(LIMIT_S) == [x * x for x in range(100)]
    os.kill(first.pid, signal.SIGCONT)
    procs.wait_until(lambda: pool.processes == 4, "it is back")
    assert pool.map(jobs.square, range(50), 1) == [x * x for x in range(50)]
