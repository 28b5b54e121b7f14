# SPDX-License-Identifier: BSD-2-Clause
"""Uses of a Pool on the fake hub; test_pool_fake.py runs each in a process of its own:
`pool_scenarios.py PACKAGES NAME`."""
import gc
import os
import pathlib
import pickle
import select
import sys
import threading
import time
import warnings
import weakref

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))


def square(x):
    return x * x


def pause(x):
    """A call that takes a while."""
    select.select([], [], [], 0.02)
    return x


def fail_if_odd(x):
    if x % 2:
        raise ValueError(f"odd {x}")
    return x


class Value:
    def __init__(self, x):
        self.x = x


def next_value(value):
    return Value(value.x + 1)


def make_pool(*args, **more):
    from hostpool.multiprocessing import Pool
    return Pool(*args, **more)


def raises(kind, function, *args, **more):
    try:
        function(*args, **more)
    except kind as error:
        return error
    raise AssertionError(f"{kind} was not raised")


def scenario_calls():
    with make_pool(2) as pool:
        assert pool.apply(divmod, (7, 3)) == (2, 1)
        assert pool.apply(int, ("11",), {"base": 2}) == 3
        assert pool.map(square, range(10)) == [x * x for x in range(10)]
        assert pool.map(square, (x for x in range(5)), 1) == [0, 1, 4, 9, 16]
        assert pool.starmap(divmod, [(7, 3), (9, 4)]) == [(2, 1), (2, 1)]
        assert pool.starmap(divmod, [(7, 3), (9, 4)], 1) == [(2, 1), (2, 1)]
        assert pool.map(square, []) == [] and list(pool.imap(square, [])) == []
        assert list(pool.imap(square, range(9), 2)) == [x * x for x in range(9)]
        assert sorted(pool.imap_unordered(square, iter(range(9)))) == [x * x for x in range(9)]
        assert pool.apply(next_value, (Value(4),)).x == 5


def scenario_arguments():
    for bad in (0, -1):
        raises(ValueError, make_pool, bad)
    for bad in (0, -1, 0.5, "12"):
        raises(ValueError, make_pool, 1, maxtasksperchild=bad)
    raises(TypeError, make_pool, initializer=1)
    with make_pool(1) as pool:
        raises(ValueError, pool.map, square, [1], 0)
        raises(ValueError, pool.imap, square, [1], 0)
        raises(ValueError, pool.imap, square, [1], buffersize=0)
        raises(ValueError, pool.join)
        raises(NotImplementedError, pickle.dumps, pool)
        assert pickle.loads(pickle.dumps(pool.handle)) == pool.handle
    raises(ValueError, pool.apply_async, square, (1,))
    raises(ValueError, pool.__enter__)


def scenario_errors():
    with make_pool(2) as pool:
        result = pool.map_async(fail_if_odd, range(6), 2)
        first = raises(ValueError, result.get)
        assert raises(ValueError, result.get) is first and not result.successful()
        assert "Traceback" in str(first.__cause__) and "attempt: 1" in str(first.__cause__)
        assert [row[0] for row in result.errors()] == [1, 3, 5]
        iterator = pool.imap(fail_if_odd, range(4))
        assert next(iterator) == 0
        assert str(raises(ValueError, iterator.next)) == "odd 1"
        assert next(iterator) == 2
        chunked = pool.imap(fail_if_odd, range(4), 2)
        raises(ValueError, next, chunked)
        raises(StopIteration, next, chunked)
        raises(TypeError, pool.apply, square, (threading.Lock(),))
        raises(TypeError, pool.map, square, [1, threading.Lock()], 1)
        from hostpool import WorkerExit
        assert raises(WorkerExit, pool.apply, sys.exit, (3,)).code == 3


def scenario_iterable_that_raises():
    def numbers():
        yield 1
        yield 2
        raise KeyError("here")

    class Liar:
        def __len__(self):
            return 3

        def __iter__(self):
            return numbers()
    with make_pool(1) as pool:
        raises(KeyError, pool.map, square, numbers())
        error = raises(KeyError, pool.map, square, Liar(), 1)
        assert error.__cause__ is None
        for method in (pool.imap, pool.imap_unordered):
            iterator = method(square, numbers())
            got = []
            for _ in range(3):
                try:
                    got.append(next(iterator))
                except KeyError:
                    got.append("error")
            assert sorted(map(str, got)) == ["1", "4", "error"]
            raises(StopIteration, next, iterator)


def scenario_callbacks():
    seen = []
    with make_pool(2) as pool:
        result = pool.apply_async(square, (3,), callback=lambda v: seen.append((v, result.ready())))
        result.wait()
        assert seen == [(9, False)]
        pool.map_async(fail_if_odd, [1, 2], error_callback=seen.append).wait()
        assert isinstance(seen[1], ValueError)

        def bad(_):
            raise RuntimeError("of the callback")
        assert pool.apply_async(square, (3,), callback=bad).get() == 9
        pool.map_async(square, [], callback=seen.append).wait()
        assert len(seen) == 2
        chain = threading.Event()
        pool.apply_async(square, (2,), callback=lambda v: pool.apply_async(
            square, (v,), callback=lambda w: chain.set()))
        assert chain.wait(20)


def scenario_timeouts():
    from hostpool.multiprocessing import TimeoutError
    with make_pool(1) as pool:
        result = pool.apply_async(time.sleep, (0.3,))
        raises(TimeoutError, result.get, 0.01)
        raises(ValueError, result.successful)
        assert not result.ready() and result.wait(0.01) is None
        assert result.get(20) is None and result.successful()
        iterator = pool.imap(pause, [5])
        try:
            assert iterator.next(0.0001) == 5
        except TimeoutError:
            assert iterator.next(20) == 5
        raises(StopIteration, iterator.next, 1)


def scenario_terminate():
    from hostpool import PoolTerminated
    pool = make_pool(2)
    iterator = pool.imap(pause, iter(range(1000)))
    next(iterator)
    results = [pool.apply_async(pause, (x,)) for x in range(200)]
    mapped = pool.map_async(pause, range(500), 1)
    threading.Timer(0.05, pool.terminate).start()
    raises(PoolTerminated, mapped.get)
    raises(PoolTerminated, results[-1].get)
    raises(PoolTerminated, lambda: list(iterator))
    pool.join()
    raises(PoolTerminated, results[-1].get)
    pool.terminate()


def scenario_close_lifts_bounds():
    for items in (range(3000), iter(range(3000)), list(range(3000))):
        for method in ("imap", "imap_unordered"):
            pool = make_pool(2)
            iterator = getattr(pool, method)(square, items, buffersize=4)
            pool.close()
            raises(ValueError, pool.apply, square, (1,))
            pool.join()
            if not isinstance(items, (range, list)):
                assert sorted(iterator) == [x * x for x in range(3000)]
                break
            assert sorted(iterator) == [x * x for x in range(3000)]


def scenario_nobody_consumes():
    """close() and join() run all items of an imap whose iterator was dropped."""
    folder = os.environ["SCENARIO_FOLDER"]
    for number, items in enumerate((range(50), iter(range(50)))):
        pool = make_pool(2)
        pool.imap_unordered(touch, ((folder, number, x) for x in items), buffersize=2)
        pool.close()
        pool.join()
    assert len(os.listdir(folder)) == 100


def touch(where):
    folder, number, x = where
    pathlib.Path(folder, f"{number}-{x}").touch()


def scenario_lazy():
    taken = []

    def numbers():
        for x in range(100_000):
            taken.append(x)
            yield x
    with make_pool(2) as pool:
        iterator = pool.imap(square, numbers(), buffersize=5)
        for x in range(50):
            assert next(iterator) == x * x
            assert len(taken) <= x + 7
        iterator = pool.imap(square, numbers())
        next(iterator)
        pool.map(pause, range(20), 1)  # time in which a greedy one would take more
        assert len(taken) < 10_000


def scenario_attach_and_ids():
    import hostpool
    with make_pool(2) as pool:
        result = pool.apply_async(square, (5,))
        assert isinstance(result.id, int) and result.get() == 25
        assert hostpool.attach(result.id).get() == 25
        mapped = pool.map_async(square, range(10), 3)
        mapped.wait()
        assert hostpool.attach(mapped.id).get() == mapped.get()
        other = hostpool.Pool.attach(pool.handle)
        with other:
            assert other.apply(square, (3,)) == 9
        assert pool.apply(square, (4,)) == 16


def scenario_forgets():
    with make_pool(2) as pool:
        hub = pool._hub
        pool.map(square, range(100), 1)
        assert not hub.forgotten
    assert sum(count for _, count in hub.forgotten) == 100
    with make_pool(2, keep_results=True) as pool:
        pool.map(square, range(100), 1)
    assert sum(count for _, count in hub.forgotten) == 100


def scenario_detach_keeps_what_has_arrived():
    pool = make_pool(2)
    assert pool.map(square, range(100), 1) and pool.apply(square, (3,)) == 9
    pool.detach()
    assert pool.apply(square, (4,)) == 16
    pool._at_exit()
    assert not pool._hub.forgotten and pool.apply(square, (5,)) == 25
    pool.close()
    pool.join()
    assert not pool._hub.forgotten


def scenario_no_references_stay():
    class Thing:
        pass
    gc.disable()
    with make_pool(1) as pool:
        result = pool.apply_async(square, (3,))
        result.get()
        reference = weakref.ref(result)
        del result
        pool.apply(square, (4,))  # the batch of ends that named it is over
        assert reference() is None
        mapped = pool.map_async(square, range(5), 1)
        mapped.get()
        reference = weakref.ref(mapped)
        del mapped
        gc.collect()
        assert reference() is None
        assert not pool._cache and not pool._feeds


def scenario_resource_warning():
    pool = make_pool(1)
    pool.apply(square, (2,))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del pool
        gc.collect()
    assert any("unclosed running multiprocessing pool" in str(w.message) for w in caught)


def scenario_fork():
    pool = make_pool(1)
    waiting = pool.apply_async(time.sleep, (0.3,))
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            assert "forked" in str(raises(ValueError, pool.apply, square, (1,)))
            raises(Exception, waiting.get, 5)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert pool.apply(square, (5,)) == 25 and waiting.get() is None
    pool.terminate()
    pool.join()


def scenario_threads():
    with make_pool(2) as pool:
        wrong = []

        def use(base):
            for x in range(base, base + 50):
                if pool.apply(square, (x,)) != x * x:
                    wrong.append(x)
            if sum(pool.imap_unordered(square, range(300))) != sum(x * x for x in range(300)):
                wrong.append("imap")
        threads = [threading.Thread(target=use, args=(i * 100,)) for i in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


def scenario_names():
    import multiprocessing
    import hostpool.multiprocessing as mine
    from hostpool.multiprocessing.pool import AsyncResult, ThreadPool, RUN
    import hostpool.multiprocessing.connection
    assert hostpool.multiprocessing.connection is multiprocessing.connection
    assert mine.Queue is not None and mine.util is multiprocessing.util
    assert mine.Process is multiprocessing.Process
    context = mine.get_context("hostpool")
    assert mine.get_context() is context and mine.get_context("spawn").get_start_method() == "spawn"
    raises(ValueError, mine.get_context, "nonsense")
    queue = context.Queue()
    process = context.Process(target=queue.put, args=(5,))
    process.start()
    assert queue.get(timeout=20) == 5
    process.join()
    pool = context.Pool(3)
    assert pool._state == RUN and len(pool._pool) == 3 and pool._processes == 3
    assert all(child.pid and child.is_alive() for child in pool._pool)
    assert isinstance(pool.apply_async(square, (1,)), AsyncResult)
    pool.close()
    pool.join()
    with ThreadPool(2) as threads:
        assert threads.map(square, [2]) == [4]


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    import fake_hub
    fake_hub.install()
    globals()["scenario_" + sys.argv[2]]()
    print("fine")
