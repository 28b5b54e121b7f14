# SPDX-License-Identifier: BSD-2-Clause
"""Pools when calls go wrong: each ends, with the right exception, and the pool goes on."""
import multiprocessing
import multiprocessing.pool
import os
import pathlib
import pickle
import queue
import signal
import sys
import threading

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import fault_jobs as jobs  # noqa: E402
from farm_fixtures import *  # noqa: E402,F401,F403
from farm_fixtures import LIMIT_S, STANDARD, in_time, multiprocessing_module  # noqa: E402
import procs  # noqa: E402

hangs_there = pytest.mark.skipif(STANDARD, reason="the standard library hangs here")


def goes_on(pool):
    """The pool is fine."""
    assert pool.map_async(jobs.square, range(20)).get(LIMIT_S) == [x * x for x in range(20)]


def exceptions():
    import hostpool
    return hostpool


# ------------------------------------------------------------------------------ children that die

@hangs_there
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_child_killed_in_a_task(pools, number):
    pool = pools(2)
    result = pool.apply_async(jobs.kill_self, (int(number),))
    with pytest.raises(exceptions().WorkerLost) as caught:
        result.get(LIMIT_S)
    assert caught.value.signal == number
    assert isinstance(caught.value, multiprocessing.ProcessError)
    assert result.ready() and not result.successful()
    goes_on(pool)


@hangs_there
def test_real_segfault(pools):
    pool = pools(1)
    with pytest.raises(exceptions().WorkerLost) as caught:
        pool.apply_async(jobs.segfault).get(LIMIT_S)
    assert caught.value.signal == signal.SIGSEGV
    goes_on(pool)


@hangs_there
def test_killed_from_outside_by_pid(pools, tmp_path):
    """As the OOM killer does; the only one lost is the call that ran there."""
    pool = pools(2)
    victim = pool.apply_async(jobs.announce_and_wait, (str(tmp_path), "victim"))
    procs.wait_until((tmp_path / "victim").exists, "the task runs")
    others = [pool.apply_async(jobs.square, (x,)) for x in range(50)]
    first = int((tmp_path / "victim").read_text())
    killed = set()
    while not victim.ready():  # each attempt, if there are several
        pid = int((tmp_path / "victim").read_text())
        if pid not in killed:
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)
        victim.wait(0.02)
    with pytest.raises(exceptions().WorkerLost):
        victim.get(LIMIT_S)
    assert first in killed
    assert [other.get(LIMIT_S) for other in others] == [x * x for x in range(50)]


@hangs_there
def test_idle_child_killed(pools):
    """In the standard library its lock on the queue stays taken."""
    pool = pools(2)
    for _ in range(3):
        for pid in set(pool.map(jobs.pid, range(20), 1)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        # A call that was sent to a child before its death was known may be lost with it: that is
        # told, and nothing hangs.
        def calm():
            try:
                return pool.apply_async(jobs.square, (3,)).get(LIMIT_S) == 9
            except exceptions().WorkerLost:
                return False
        procs.wait_until(calm, "a call goes through")
    goes_on(pool)


@hangs_there
def test_out_of_memory(pools):
    pool = pools(1)
    with pytest.raises(exceptions().WorkerLost) as caught:
        pool.apply_async(jobs.hog).get(LIMIT_S)
    assert caught.value.signal == signal.SIGKILL
    assert caught.value.peak_rss is None or caught.value.peak_rss > 64 << 20
    goes_on(pool)


@hangs_there
@pytest.mark.parametrize("durable", [True, False])
def test_killed_while_large_results_are_on_their_way(pools, durable):
    """What had ended is told, as what it was; only the call that died is lost."""
    pool = pools(2, durable=durable)
    for _ in range(3):
        results = [pool.apply_async(jobs.large_or_die, (i,)) for i in range(1000)]
        for i, result in enumerate(results):
            if i % 50 == 49:
                with pytest.raises(exceptions().WorkerLost):
                    result.get(LIMIT_S)
            else:
                assert result.get(LIMIT_S) == i.to_bytes(8, "big") * 9000


@pytest.mark.skipif(STANDARD, reason="the standard library hangs here")
def test_task_that_closes_all_descriptors(pools):
    """And opens others, which have their numbers."""
    pool = pools(1)
    assert pool.apply_async(jobs.close_and_open).get(LIMIT_S) == 100
    assert pool.apply_async(len, (bytes(300000),)).get(LIMIT_S) == 300000
    assert pool.apply_async(bytes, (300000,)).get(LIMIT_S) == bytes(300000)


@pytest.mark.skipif(STANDARD, reason="is about how large arguments travel")
def test_task_that_leaves_no_descriptors(pools):
    """Large arguments and results need one; small ones do not."""
    pool = pools(1)
    assert pool.apply(jobs.use_up_descriptors) > 10
    for _ in range(3):
        with pytest.raises(exceptions().RemoteError, match="no file descriptor free"):
            pool.apply_async(len, (bytes(300000),)).get(LIMIT_S)
        with pytest.raises(OSError, match="Too many open files"):
            pool.apply_async(bytes, (300000,)).get(LIMIT_S)
        assert pool.apply_async(jobs.square, (12,)).get(LIMIT_S) == 144


@pytest.mark.skipif(STANDARD, reason="is about workers")
def test_worker_with_few_descriptors(own_farm):
    """What goes wrong is told, and nobody gets what is another's."""
    import hostpool
    from farm_fixtures import connected
    own_farm.add_worker(slots=4, prefix=("prlimit", "--nofile=48:48"))
    data = [bytes([i]) * 200000 for i in range(200)]
    with connected(own_farm):
        pool = hostpool.Pool(4)
        results = [pool.apply_async(jobs.echo, (one,)) for one in data]
        for one, result in zip(data, results):
            try:
                assert result.get(LIMIT_S) == one
            except exceptions().RemoteError as error:
                assert "no file descriptor free" in str(error)
        assert pool.apply_async(jobs.square, (12,)).get(LIMIT_S) == 144
        pool.terminate()
        assert in_time(pool.join)


def test_memory_error_is_an_exception(pools):
    pool = pools(1)
    with pytest.raises(MemoryError):
        pool.apply_async(jobs.memory_error).get(LIMIT_S)
    goes_on(pool)


@hangs_there
@pytest.mark.parametrize("job,code", [("exit_soft", 3), ("exit_soft", 0), ("exit_soft", None),
                                      ("exit_soft", "a text"), ("exit_hard", 5),
                                      ("exit_hard", 0)])
def test_exit_in_a_task(pools, job, code):
    pool = pools(2)
    with pytest.raises(exceptions().WorkerExit) as caught:
        pool.apply_async(getattr(jobs, job), (code,)).get(LIMIT_S)
    assert caught.value.code == code
    goes_on(pool)


@hangs_there
def test_exit_in_a_chunk_of_a_map(pools):
    pool = pools(2)
    result = pool.map_async(jobs.exit_soft, [3] * 8, chunksize=2)
    with pytest.raises(exceptions().WorkerExit):
        result.get(LIMIT_S)
    goes_on(pool)


# ------------------------------------------------------------------------------ exceptions

@hangs_there
@pytest.mark.parametrize("job,text", [
    ("raise_needs_two", "one and two"), ("raise_unpicklable", "here"), ("raise_base", "base")])
def test_exceptions_that_cannot_travel(pools, job, text):
    pool = pools(2)
    result = pool.apply_async(getattr(jobs, job))
    with pytest.raises(Exception) as caught:
        result.get(LIMIT_S)
    assert isinstance(caught.value, exceptions().RemoteError), repr(caught.value)
    assert text in str(caught.value) + str(caught.value.__cause__)
    goes_on(pool)


def test_exception_whose_text_cannot_be_made(pools):
    pool = pools(1)
    with pytest.raises(jobs.NoText):
        pool.apply_async(jobs.raise_no_text).get(LIMIT_S)
    goes_on(pool)


@hangs_there
def test_exception_that_cannot_be_unpickled_in_a_map_and_an_imap(pools):
    pool = pools(2)
    with pytest.raises(exceptions().RemoteError):
        pool.map_async(raise_needs_two_for, range(4), 1).get(LIMIT_S)
    iterator = pool.imap(raise_needs_two_for, range(4))
    for x in range(4):
        if x % 2:
            with pytest.raises(exceptions().RemoteError):
                iterator.next(LIMIT_S)
        else:
            assert iterator.next(LIMIT_S) == x
    goes_on(pool)


def raise_needs_two_for(x):
    if x % 2:
        raise jobs.NeedsTwo("one", "two")
    return x


@hangs_there
def test_keyboard_interrupt_of_a_task_is_its_error(pools):
    pool = pools(1)
    with pytest.raises(BaseException) as caught:
        pool.apply_async(jobs.raise_interrupt).get(LIMIT_S)
    assert isinstance(caught.value, Exception), "it must not look like the user's own ^C"
    goes_on(pool)


def test_causes_and_remote_traceback(pools):
    pool = pools(1)
    with pytest.raises(ValueError, match="outer") as caught:
        pool.apply_async(jobs.raise_with_cause).get(LIMIT_S)
    text = str(caught.value.__cause__)
    assert type(caught.value.__cause__).__name__ == "RemoteTraceback"
    assert text.startswith('\n"""\n') and "Traceback (most recent call last)" in text
    assert "KeyError: 'inner'" in text and "direct cause" in text
    again = pool.apply_async(jobs.raise_with_cause)
    again.wait(LIMIT_S)
    first, second = [pytest.raises(ValueError, again.get).value for _ in range(2)]
    assert first is second, "the same object each time"


def test_stop_iteration_of_a_task(pools):
    pool = pools(1)
    with pytest.raises(StopIteration):
        pool.apply_async(jobs.raise_stop_iteration).get(LIMIT_S)
    goes_on(pool)


@pytest.mark.parametrize("make", ["unpicklable_value"])
def test_unpicklable_result(pools, make):
    pool = pools(1)
    for _ in range(5):
        with pytest.raises(multiprocessing.pool.MaybeEncodingError) as caught:
            pool.apply_async(getattr(jobs, make)).get(LIMIT_S)
        assert "lambda" in caught.value.value
    goes_on(pool)


@hangs_there
def test_result_that_explodes_when_unpickled(pools):
    pool = pools(1)
    with pytest.raises(Exception, match="explodes"):
        pool.apply_async(jobs.loads_badly).get(LIMIT_S)
    goes_on(pool)


@hangs_there
def test_argument_that_explodes_when_unpickled(pools):
    """In the standard library the child dies of it, and the call waits for ever."""
    pool = pools(1)
    with pytest.raises(RuntimeError, match="explodes"):
        pool.apply_async(jobs.echo, (jobs.LoadsBadly(),)).get(LIMIT_S)
    goes_on(pool)


def test_unpicklable_argument(pools):
    pool = pools(1)
    with pytest.raises((pickle.PicklingError, TypeError, AttributeError)):
        pool.apply_async(jobs.echo, (threading.Lock(),)).get(LIMIT_S)
    with pytest.raises((pickle.PicklingError, TypeError, AttributeError)):
        pool.map_async(jobs.echo, [1, threading.Lock(), 2], 1).get(LIMIT_S)
    goes_on(pool)


def test_a_chunk_ends_at_its_first_error_and_other_chunks_run(pools, tmp_path):
    pool = pools(2)
    with pytest.raises(ValueError, match="bad 7"):
        pool.map_async(jobs.fail_if, range(10), 5).get(LIMIT_S)
    iterator = pool.imap(jobs.fail_if, range(20))
    got = []
    for x in range(20):
        try:
            got.append(iterator.next(LIMIT_S))
        except ValueError as error:
            got.append(str(error))
    assert got == [x if x % 10 != 7 else f"bad {x}" for x in range(20)]
    with pytest.raises(StopIteration):
        iterator.next(LIMIT_S)


# ------------------------------------------------------------------------------ callbacks

@hangs_there
@pytest.mark.parametrize("job,which", [(jobs.square, "callback"), (jobs.fail_if,
                                                                   "error_callback")])
def test_raising_callbacks(pools, job, which, caplog):
    pool = pools(2)
    called = queue.Queue()

    def raising(value):
        called.put(value)
        raise RuntimeError("a bad callback")
    results = [pool.apply_async(job, (17,), **{which: raising}) for _ in range(5)]
    for result in results:
        if which == "callback":
            assert result.get(LIMIT_S) == 289
        else:
            with pytest.raises(ValueError, match="bad 17"):
                result.get(LIMIT_S)
        called.get(timeout=LIMIT_S)
    mapped = pool.map_async(job, [1, 2, 17], **{which: raising})
    mapped.wait(LIMIT_S)
    assert mapped.ready()
    goes_on(pool)


def test_callbacks_come_before_ready_and_may_submit(pools):
    pool = pools(2)
    seen = queue.Queue()

    def again(value):
        seen.put(value)
        if value > 1:
            pool.apply_async(jobs.echo, (value - 1,), callback=again)
    pool.apply_async(jobs.echo, (5,), callback=again)
    assert [seen.get(timeout=LIMIT_S) for _ in range(5)] == [5, 4, 3, 2, 1]
    order = []
    result = pool.apply_async(jobs.echo, (1,), callback=lambda _: order.append(result_box))
    result_box = "callback"
    result.wait(LIMIT_S)
    assert order == ["callback"]


# ------------------------------------------------------------------------------ initializers

@hangs_there
@pytest.mark.parametrize("initializer,args", [
    (jobs.init_fails, ("no licence here",)), (jobs.init_kills, ()), (jobs.init_exits, ())])
def test_failing_initializer(pools, initializer, args):
    """The pool is broken, and says so, instead of starting children without end."""
    def use():
        pool = pools(2, initializer, args)
        pool.apply_async(jobs.square, (2,)).get(LIMIT_S)
    with pytest.raises(exceptions().InitializerError) as caught:
        use()
    if args:
        assert "no licence here" in str(caught.value)
    pool = pools(1)
    goes_on(pool)


def test_initializer_runs_once_in_each_child(pools):
    pool = pools(2, jobs.set_up, (3,))
    got = set(pool.map(jobs.marked, range(50), 1))
    assert {value for _, value in got} == {3} and len(got) <= 2


def test_initializer_in_each_new_child(pools):
    pool = pools(1, jobs.set_up, (3,), 1)
    got = [pool.apply_async(jobs.marked).get(LIMIT_S) for _ in range(4)]
    assert len({pid for pid, _ in got}) == 4 and {value for _, value in got} == {3}


def test_children_replaced_after_each_call(pools):
    """Calls that are given to a child as it goes come back, and nothing else minds."""
    for _ in range(20):
        pool = pools(1, jobs.set_up, (3,), 1)
        for _ in range(4):
            assert pool.apply_async(jobs.marked).get(LIMIT_S)[1] == 3
        assert len(set(pool.map(jobs.pid, range(20), 1))) == 20
        pool.terminate()


# ------------------------------------------------------------------------------ ends of pools

@hangs_there
def test_terminate_with_outstanding_get(pools, tmp_path):
    pool = pools(2)
    results = [pool.apply_async(jobs.announce_and_wait, (str(tmp_path), f"task{i}"))
               for i in range(2)]
    waiting = [pool.apply_async(jobs.square, (i,)) for i in range(100)]
    for i in range(2):
        procs.wait_until((tmp_path / f"task{i}").exists, "it runs")
    pids = [int((tmp_path / f"task{i}").read_text()) for i in range(2)]
    caught = queue.Queue()

    def get(result):
        try:
            caught.put(result.get(LIMIT_S))
        except BaseException as error:
            caught.put(error)
    threads = [threading.Thread(target=get, args=(result,), daemon=True)
               for result in results + waiting]
    for thread in threads:
        thread.start()
    pool.terminate()
    got = [caught.get(timeout=LIMIT_S) for _ in threads]
    assert {type(error) for error in got} == {exceptions().PoolTerminated}
    assert in_time(pool.join)
    assert all(result.ready() for result in results + waiting)
    procs.wait_until(lambda: not any(map(is_there, pids)), "the children are gone")


def is_there(pid):
    import pyfarm
    return procs.is_running(pid)


@hangs_there
def test_terminate_during_imap(pools):
    pool = pools(2)
    iterator = pool.imap(jobs.square, iter(int, 1))  # an endless iterable
    assert [iterator.next(LIMIT_S) for _ in range(10)] == [0] * 10
    pool.terminate()
    with pytest.raises((exceptions().PoolTerminated, StopIteration)):
        for _ in range(1_000_000):
            iterator.next(LIMIT_S)
    assert in_time(pool.join)


def test_close_and_join_with_unconsumed_imap(pools):
    pool = pools(2)
    iterator = pool.imap(jobs.square, range(2000))
    assert iterator.next(LIMIT_S) == 0
    pool.close()
    assert in_time(pool.join)
    assert list(iterator) == [x * x for x in range(1, 2000)]
    with pytest.raises(ValueError):
        pool.apply(jobs.square, (1,))


def test_join_while_running_and_use_after_the_end(pools):
    pool = pools(1)
    with pytest.raises(ValueError, match="still running"):
        pool.join()
    pool.terminate()
    pool.terminate()
    assert in_time(pool.join)
    for use in (lambda: pool.apply(jobs.square, (1,)), lambda: pool.map(jobs.square, [1]),
                lambda: pool.imap(jobs.square, [1]), lambda: pool.starmap(jobs.add, [(1, 2)])):
        with pytest.raises(ValueError, match="not running"):
            use()


def test_maxtasksperchild_counts_chunks(pools):
    pool = pools(1, maxtasksperchild=1)
    assert len(set(pool.map(jobs.pid, range(4), 2))) == 2
    assert len(set(pool.map(jobs.pid, range(4), 1))) == 4


# ------------------------------------------------------------------------------ use by threads

def test_many_threads_on_one_pool(pools):
    pool = pools(2)
    wrong = []

    def use(number):
        try:
            for turn in range(20):
                base = number * 1000 + turn
                assert pool.apply(jobs.add, (base, 1)) == base + 1
                assert pool.map(jobs.square, range(base, base + 20)) == \
                    [x * x for x in range(base, base + 20)]
                assert sorted(pool.imap_unordered(jobs.square, range(10))) == \
                    [x * x for x in range(10)]
        except BaseException as error:
            wrong.append(error)
    threads = [threading.Thread(target=use, args=(i,), daemon=True) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S * 2)
    assert not wrong and not any(thread.is_alive() for thread in threads), wrong


def test_get_times_out_and_comes_later(pools, tmp_path):
    pool = pools(1)
    result = pool.apply_async(jobs.wait_for, (str(tmp_path / "go"), 5))
    with pytest.raises(multiprocessing.TimeoutError):
        result.get(0.05)
    assert result.wait(0.01) is None and not result.ready()
    with pytest.raises(ValueError):
        result.successful()
    iterator = pool.imap(jobs.square, [3])
    with pytest.raises(multiprocessing.TimeoutError):
        iterator.next(0.05)
    (tmp_path / "go").touch()
    assert result.get(LIMIT_S) == 5 and iterator.next(LIMIT_S) == 9


def test_children_may_start_processes(pools):
    pool = pools(1)
    if STANDARD:
        with pytest.raises(AssertionError):
            pool.apply_async(jobs.fork_child, (3,)).get(LIMIT_S)
    else:
        assert pool.apply_async(jobs.fork_child, (3,)).get(LIMIT_S) == (9, 0)


@hangs_there
def test_nested_pools(pools):
    pool = pools(2)
    got = pool.map_async(nested, [10, 20, 30, 40], 1).get(LIMIT_S * 2)
    assert got == [sum(x * x for x in range(n)) for n in (10, 20, 30, 40)]
    assert pool.apply_async(jobs.nested_depth, (4,)).get(LIMIT_S * 2) == 5


def nested(count):
    return jobs.nested_map(2, count)


@hangs_there
def test_nested_use_of_the_same_pool(pools):
    """All children of the pool wait for calls of the same pool."""
    pool = pools(2)
    results = [pool.apply_async(jobs.through_handle, (pool.handle, 4)) for _ in range(4)]
    assert [result.get(LIMIT_S * 2) for result in results] == [10] * 4


def test_module_names(pools):
    module = multiprocessing_module()
    assert module.TimeoutError is multiprocessing.TimeoutError
    assert issubclass(module.TimeoutError, module.ProcessError)
    assert module.cpu_count() >= 1
    pool = pools(1)
    if not STANDARD:
        name, pid, attempt, task_id = pool.apply_async(jobs.current).get(LIMIT_S)
        assert str(pid) in name and attempt == 1 and task_id > 0
