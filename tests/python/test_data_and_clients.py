# SPDX-License-Identifier: BSD-2-Clause
"""Large and endless data through pools, and clients that are interrupted, fork, or just end."""
import itertools
import os
import pathlib
import signal
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import fault_jobs as jobs  # noqa: E402
from farm_fixtures import *  # noqa: E402,F401,F403
from farm_fixtures import LIMIT_S, STANDARD, in_time, pyfarm  # noqa: E402
import procs  # noqa: E402

MIB = 1 << 20
HERE = pathlib.Path(__file__).resolve().parent
HEAD = f"""
import faulthandler, os, pathlib, signal, sys, threading, time
faulthandler.register(signal.SIGUSR1, all_threads=True)
sys.path.insert(0, {str(HERE)!r})
import fault_jobs as jobs
if {STANDARD}:
    import multiprocessing
else:
    import hostpool, hostpool.multiprocessing as multiprocessing
Pool = multiprocessing.Pool
def say(*words):
    print(*words, flush=True)
"""


# ------------------------------------------------------------------------------ size

def test_results_and_arguments_of_64_mib(pools):
    pool = pools(2)
    size = 64 * MIB
    data = jobs.blob(size)
    assert pool.apply_async(jobs.blob, (size,)).get(LIMIT_S) == data
    assert pool.apply_async(jobs.size_of, (data,)).get(LIMIT_S) == size
    results = [pool.apply_async(jobs.echo, (data,)) for _ in range(3)]
    assert all(result.get(LIMIT_S) == data for result in results)
    back = pool.apply_async(jobs.echo, ((bytearray(data), [data[:100]]),)).get(LIMIT_S)
    assert isinstance(back[0], bytearray) and back == (data, [data[:100]])


@pytest.mark.parametrize("size", [0, 1, 16 * 1024, 65535, 65536, 65537, MIB - 1, MIB, 4 * MIB + 1])
def test_sizes_around_limits(pools, size):
    pool = pools(1)
    data = os.urandom(size)
    assert pool.map_async(jobs.echo, [data] * 3, 1).get(LIMIT_S) == [data] * 3
    assert pool.map_async(jobs.echo, [data] * 4, 2).get(LIMIT_S) == [data] * 4


def test_numpy_arrays(pools):
    numpy = pytest.importorskip("numpy")
    pool = pools(2)
    base = numpy.arange(3_000_000, dtype="float64").reshape(1000, 3000)
    arrays = [
        base, base[::2, ::3], base.T, numpy.asfortranarray(base), base[:1, :0], base[5, 7],
        numpy.array(3.5), numpy.arange(10, dtype=">i4"), base.astype("complex64")[:10],
        numpy.array(["a", "bcd"]), numpy.array([1, "x", None], dtype=object),
        numpy.zeros(4, dtype=[("a", "i4"), ("b", "f8")]), numpy.array([True, False]),
    ]
    for array in arrays:
        back = pool.apply_async(jobs.echo, (array,)).get(LIMIT_S)
        assert back.dtype.kind == array.dtype.kind and numpy.array_equal(back, array)
    for array in arrays[:5]:
        doubled = pool.apply_async(jobs.numpy_double, (array,)).get(LIMIT_S)
        assert numpy.array_equal(doubled, array * 2)
        doubled += 1  # what comes back is ours to write
    assert pool.apply_async(jobs.numpy_facts, (base,)).get(LIMIT_S) == \
        ("float64", (1000, 3000), float(base.sum()))


def test_numpy_in_place(pools):
    """As under the standard library: the task's copy can be written, the caller's stays."""
    numpy = pytest.importorskip("numpy")
    pool = pools(1)
    for count in (10, 100_000, 3_000_000):
        array = numpy.zeros(count)
        back = pool.apply_async(jobs.numpy_writes, (array,)).get(LIMIT_S)
        assert back.sum() == count and array.sum() == 0
        mapped = pool.map_async(jobs.numpy_writes, [array, array.copy()], 2).get(LIMIT_S)
        assert [one.sum() for one in mapped] == [count, count]


@pytest.mark.parametrize("count", [10, 100_000])
def test_numpy_that_may_not_be_written(pools, count):
    """Copies may be, in the task and here."""
    numpy = pytest.importorskip("numpy")
    pool = pools(1)
    base = numpy.zeros(count)
    frozen = [base.copy(), numpy.frombuffer(base.tobytes()), numpy.broadcast_to(base[:1], count)]
    for array in frozen:
        array.flags.writeable = False
        back = pool.apply_async(jobs.numpy_writes, (array,)).get(LIMIT_S)
        assert back.sum() == count and back.flags.writeable and array.sum() == 0
        back = pool.apply_async(jobs.numpy_frozen, ({"it": [array, bytes(70000)]},)).get(LIMIT_S)
        assert back["it"][0].flags.writeable and back["it"][1] == bytes(70000)


# ------------------------------------------------------------------------------ streams

MILLION = HEAD + """
import resource
count, chunk = int(sys.argv[1]), int(sys.argv[2])
class Items:
    made = 0
def items():
    for i in range(count):
        Items.made = i
        yield f"{i:0200d}"
if __name__ == "__main__":
    with Pool(2) as pool:
        list(pool.imap(jobs.size_of, ["x"] * 1000, chunksize=chunk))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        ahead = total = 0
        for i, size in enumerate(pool.imap(jobs.size_of, items(), chunksize=chunk)):
            assert size == 200
            total += 1
            ahead = max(ahead, Items.made - i)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        say(total, ahead, grown)
"""


@pytest.mark.skipif(STANDARD, reason="imap of the standard library keeps everything")
@pytest.mark.parametrize("count,chunk", [(1_000_000, 100), (100_000, 1)])
def test_a_million_items_through_imap(program, shared_farm, count, chunk):
    """The items are 200 MB, or 20; neither client nor broker nor worker hold them."""
    before = {p.name: p.rss_kb() for p in shared_farm.processes}
    one = program(MILLION, count, chunk, farm=shared_farm)
    code, out, err = one.finish(LIMIT_S * 4)
    assert code == 0, err
    total, ahead, grown_kb = map(int, out.split())
    assert total == count
    assert ahead <= 4096 * chunk and ahead * 200 < 48 * MIB, "it is slowed down to what is taken"
    assert grown_kb < 96 * 1024
    for process in shared_farm.processes:
        assert process.rss_kb() - before[process.name] < 96 * 1024, process.name


@pytest.mark.skipif(STANDARD, reason="the standard library takes all of it first")
@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
@pytest.mark.parametrize("chunk", [1, 10])
def test_endless_generator_and_early_stop(pools, method, chunk):
    pool = pools(2)
    numbers = itertools.count()
    iterator = getattr(pool, method)(jobs.square, numbers, chunksize=chunk)
    got = [next(iterator) for _ in range(500)]
    if method == "imap":
        assert got == [x * x for x in range(500)]
    del iterator
    assert next(numbers) < 100_000
    assert pool.map_async(jobs.square, range(10)).get(LIMIT_S) == [x * x for x in range(10)]
    pool.close()


def test_generator_that_raises(pools):
    pool = pools(2)

    def broken():
        yield from range(5)
        raise LookupError("in the generator")
    iterator = pool.imap(jobs.square, broken())
    assert [iterator.next(LIMIT_S) for _ in range(5)] == [0, 1, 4, 9, 16]
    with pytest.raises(LookupError, match="in the generator"):
        iterator.next(LIMIT_S)
    with pytest.raises(LookupError):
        pool.map(jobs.square, broken())
    assert pool.apply_async(jobs.square, (3,)).get(LIMIT_S) == 9


# ------------------------------------------------------------------------------ clients

INTERRUPTED = HEAD + """
if __name__ == "__main__":
    folder = sys.argv[1]
    with Pool(2) as pool:
        result = pool.apply_async(jobs.announce_and_wait, (folder, "runs", 7))
        while not os.path.exists(folder + "/runs"):
            threading.Event().wait(0.01)
        say("waiting")
        for wait in (result.get, lambda: result.get(60), lambda: result.wait(),
                     lambda: pool.apply(jobs.wait_for, (folder + "/go",)),
                     lambda: pool.map(jobs.wait_for, [folder + "/go"] * 3),
                     lambda: next(pool.imap(jobs.wait_for, [folder + "/go"]))):
            try:
                wait()
                say("came back")
            except KeyboardInterrupt:
                say("interrupted")
        say(result.ready())
        pathlib.Path(folder, "go").touch()
        say(result.get(60), pool.apply_async(jobs.square, (3,)).get(60))
"""


def test_interrupt_in_get(program, shared_farm, tmp_path):
    """^C comes through at once, and neither the task nor the pool suffers."""
    one = program(INTERRUPTED, tmp_path, farm=shared_farm)
    assert one.line() == "waiting"
    for _ in range(6):
        # The signal may come just before the program waits; then it is interrupted there all the
        # same, because the try begins before.
        procs.wait_until(lambda: state_of(one.pid) == "S", "it sleeps")
        os.kill(one.pid, signal.SIGINT)
        assert one.line() == "interrupted"
    code, out, err = one.finish()
    assert (code, out) == (0, "False\n7 9\n"), err


def state_of(pid):
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


INTERRUPTED_END = HEAD + """
if __name__ == "__main__":
    with Pool(2) as pool:
        pool.map_async(jobs.wait_for, [sys.argv[1] + "/go"] * 4, 1)
        pids = pool.map_async(jobs.pid, []).get(60)
        say("waiting")
        pool.apply_async(jobs.wait_for, (sys.argv[1] + "/go",)).get()
"""


def test_interrupt_ends_the_program(program, shared_farm, tmp_path):
    one = program(INTERRUPTED_END, tmp_path, farm=shared_farm)
    assert one.line() == "waiting"
    procs.wait_until(lambda: state_of(one.pid) == "S", "it sleeps")
    os.kill(one.pid, signal.SIGINT)
    code, _, err = one.finish()
    assert code in (1, 130, -signal.SIGINT) and "KeyboardInterrupt" in err


FORKS = HEAD + """
if __name__ == "__main__":
    pool = Pool(2)
    assert pool.map(jobs.square, range(10)) == [x * x for x in range(10)]
    outstanding = [pool.apply_async(jobs.square, (i,)) for i in range(200)]
    pid = os.fork()
    if pid == 0:
        # The child's own pool works; the parent's it leaves alone.
        with Pool(2) as mine:
            right = mine.map(jobs.square, range(20)) == [x * x for x in range(20)]
            right = right and mine.apply(jobs.add, (1, 2)) == 3
        say("child", right)
        if sys.argv[1] == "exit":
            sys.exit(0)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    say("status", status)
    assert [r.get(60) for r in outstanding] == [i * i for i in range(200)]
    assert pool.map(jobs.square, range(10)) == [x * x for x in range(10)]
    pool.close()
    pool.join()
    say("parent True")
"""


@pytest.mark.skipif(STANDARD, reason="the standard library may hang here")
@pytest.mark.parametrize("end", ["_exit", "exit"])
def test_fork_in_the_client(program, shared_farm, end):
    code, out, err = program(FORKS, end, farm=shared_farm).finish()
    assert (code, out.splitlines()) == (0, ["child True", "status 0", "parent True"]), err


FORK_WITH_RESULTS = HEAD + """
from hostpool import PoolTerminated
if __name__ == "__main__":
    folder = sys.argv[1]
    with Pool(2) as pool:
        one = pool.apply_async(jobs.hold, (folder, 0))
        some = pool.map_async(jobs.hold_all, [(folder, 1)])
        streams = [pool.imap(jobs.hold_all, [(folder, 2), (folder, 3)]),
                   pool.imap(jobs.hold_all, [(folder, 4), (folder, 5)], chunksize=2),
                   pool.imap_unordered(jobs.hold_all, [(folder, 6)])]
        pid = os.fork()
        if pid == 0:
            waits = [one.get, some.get, some.wait_accepted, lambda: some.id,
                     *(lambda it=it: next(it) for it in streams)]
            for number, wait in enumerate(waits):
                try:
                    say("child", number, wait())
                except PoolTerminated:
                    pass
            os._exit(0)
        say(os.waitpid(pid, 0)[1])
        open(os.path.join(folder, "go"), "w").close()
        say(one.get(60), some.get(60), *(list(it) for it in streams))
"""


@pytest.mark.skipif(STANDARD, reason="the standard library hangs here")
def test_what_the_parent_waits_for_in_a_forked_child(program, shared_farm, tmp_path):
    code, out, err = program(FORK_WITH_RESULTS, tmp_path, farm=shared_farm).finish()
    assert (code, out.splitlines()) == (0, ["0", "0 [1] [2, 3] [4, 5] [6]"]), err


@pytest.mark.skipif(STANDARD, reason="the standard library hangs here")
def test_join_in_a_callback(pools):
    """It is refused: what it waits for comes on the callback's own thread."""
    pool = pools(1)
    raised = []

    def join(_):
        pool.close()
        with pytest.raises(RuntimeError, match="callback") as caught:
            pool.join()
        raised.append(caught.value)
    assert pool.apply_async(jobs.square, (3,), callback=join).get(LIMIT_S) == 9
    assert in_time(pool.join) and len(raised) == 1


@pytest.mark.skipif(STANDARD, reason="the standard library hangs here")
def test_terminate_with_an_iterable_that_blocks(pools):
    pool = pools(1)
    blocks = threading.Event()

    def items():
        yield 3
        blocks.wait()
    iterator = pool.imap(jobs.square, items())
    assert iterator.next(LIMIT_S) == 9
    pool.terminate()
    assert in_time(pool.join)
    import hostpool
    with pytest.raises(hostpool.PoolTerminated):
        iterator.next(LIMIT_S)
    blocks.set()


PRIVATE = HEAD + """
sys.path.insert(0, str(pathlib.Path(jobs.__file__).parents[1] / "lib"))
import procs, pyfarm
def of(word):
    for pid in procs.descendants(os.getpid()):
        if procs.command_line(pid)[0].endswith(word):
            return pid
if __name__ == "__main__":
    folder = sys.argv[2]
    with Pool(2) as pool:
        result = pool.map_async(jobs.hold_all, [(folder, i) for i in range(6)], 1)
        for _ in range(2):
            old = procs.wait_until(lambda: of(sys.argv[1]))
            os.kill(old, signal.SIGKILL)
            procs.wait_until(lambda: of(sys.argv[1]) not in (None, old))
        open(os.path.join(folder, "go"), "w").close()
        say(result.get(60))
        say(pool.apply(jobs.square, (6,)))
"""


@pytest.mark.skipif(STANDARD, reason="is about farms")
@pytest.mark.parametrize("name", ["hostpoold", "hostpool-worker"])
def test_killed_daemons_of_a_private_farm(program, tmp_path, name):
    """They are started again, on the same data."""
    code, out, err = program(PRIVATE, name, tmp_path).finish()
    assert (code, out.splitlines()) == (0, ["[0, 1, 2, 3, 4, 5]", "36"]), err


INTERRUPTS_PICKLING = HEAD + """
class Item:
    hit = False
    def __init__(self, number):
        self.number = number
    def __reduce__(self):
        if self.number == 150 and not Item.hit:
            Item.hit = True
            os.kill(os.getpid(), signal.SIGINT)
        return Item, (self.number,)
def number_of(item):
    return item.number
if __name__ == "__main__":
    pool = Pool(2)
    items = [Item(i) for i in range(300)]
    got = []
    iterator = pool.imap(number_of, [Item(0)])
    try:
        if sys.argv[1] == "apply":
            pool.apply(number_of, (items[150],))
        elif sys.argv[1] == "map":
            pool.map(number_of, items)
        else:
            iterator = pool.imap(number_of, items)
            for number in iterator:
                got.append(number)
    except KeyboardInterrupt:
        say("interrupted")
    got.extend(iterator)
    if sys.argv[1] == "imap":
        say(got == list(range(300)))
    pool.close()
    pool.join()
    say("joined")
"""


@pytest.mark.skipif(STANDARD, reason="the standard library may hang here")
@pytest.mark.parametrize("how", ["apply", "map", "imap"])
def test_interrupt_while_arguments_are_pickled(program, shared_farm, how):
    """Nothing is lost of a stream, and join() waits for nothing that was never submitted."""
    code, out, err = program(INTERRUPTS_PICKLING, how, farm=shared_farm).finish()
    lines = ["interrupted", *(["True"] if how == "imap" else []), "joined"]
    assert (code, out.splitlines()) == (0, lines), err


KEEPER_KILLED = HEAD + """
sys.path.insert(0, str(pathlib.Path(jobs.__file__).parents[1] / "lib"))
import procs, pyfarm
if __name__ == "__main__":
    folder = sys.argv[1]
    with Pool(2) as pool:
        result = pool.map_async(jobs.hold_all, [(folder, i) for i in range(6)], 1)
        iterator = pool.imap(jobs.hold_all, [(folder, 7)])
        assert result.id
        all_pids = procs.descendants(os.getpid())
        keeper, = [pid for pid in all_pids
                   if "_farm.py" in " ".join(procs.command_line(pid)).split("{")[0]]
        os.kill(keeper, signal.SIGKILL)
        for wait in (result.get, iterator.next):
            try:
                say(wait())
            except (hostpool.BrokerLost, hostpool.PoolTerminated) as error:
                say(type(error).__name__)
        pool.join()
        procs.wait_until(lambda: not any(map(procs.is_running, all_pids)))
    with Pool(2) as pool:
        say(pool.apply(jobs.square, (6,)))
"""


@pytest.mark.skipif(STANDARD, reason="is about farms")
def test_killed_keeper_of_a_private_farm(program, tmp_path):
    """All that waits ends, nothing is left, and the next pool has a new farm."""
    code, out, err = program(KEEPER_KILLED, tmp_path).finish()
    assert (code, out.splitlines()) == (0, ["BrokerLost", "BrokerLost", "36"]), err


FORKED_BY_MULTIPROCESSING = HEAD + """
import multiprocessing as standard
def in_process(number, queue):
    with Pool(1) as pool:
        queue.put((number, pool.apply(jobs.square, (number,))))
if __name__ == "__main__":
    context = standard.get_context("fork")
    with Pool(1) as pool:
        pool.apply(jobs.square, (1,))
        queue = context.SimpleQueue()
        processes = [context.Process(target=in_process, args=(i, queue)) for i in range(3)]
        for process in processes:
            process.start()
        say(sorted(queue.get() for _ in processes))
        for process in processes:
            process.join()
        say([process.exitcode for process in processes], pool.apply(jobs.square, (5,)))
"""


def test_pools_in_forked_processes(program, shared_farm):
    code, out, err = program(FORKED_BY_MULTIPROCESSING, farm=shared_farm).finish()
    assert (code, out) == (0, "[(0, 0), (1, 1), (2, 4)]\n[0, 0, 0] 25\n"), err


FORGETS = HEAD + """
if __name__ == "__main__":
    pool = Pool(2)
    say(pool.map(jobs.square, range(5)))
    results = [pool.apply_async(jobs.square, (i,)) for i in range(1000)]
"""


def test_a_program_that_forgets_its_pool_ends(program, shared_farm):
    code, out, err = program(FORGETS, farm=shared_farm).finish()
    assert (code, out) == (0, "[0, 1, 4, 9, 16]\n"), err
    assert "Traceback" not in err, err


MAIN = HEAD + """
FACTOR = 3
class Point:
    def __init__(self, x):
        self.x = x
    def __eq__(self, other):
        return self.x == other.x
def times(x):
    return FACTOR * x
def move(point):
    return Point(point.x + 1)
if __name__ == "__main__":
    with Pool(2) as pool:
        say(pool.map(times, range(5)), pool.map(move, [Point(1)]) == [Point(2)])
        if not hasattr(multiprocessing, "Process") or "hostpool" in sys.modules:
            factor = 7
            say(pool.map(lambda x: factor * x, range(3)))
"""


def test_functions_and_classes_of_main(program, shared_farm):
    code, out, err = program(MAIN, farm=shared_farm).finish()
    lines = ["[0, 3, 6, 9, 12] True"] + ([] if STANDARD else ["[0, 7, 14]"])
    assert (code, out.splitlines(), err) == (0, lines, "")


ALONE = HEAD + """
if __name__ == "__main__":
    with Pool() as pool:
        say(pool.map(jobs.square, range(5)), len(pool._pool) >= 1)
        say(*pool.map(jobs.where, range(1))[0][1:])
"""


@pytest.mark.skipif(STANDARD, reason="is about farms")
def test_pool_without_any_broker(program):
    """A private farm, which is gone with the program."""
    one = program(ALONE)
    first = one.line()
    assert first == "[0, 1, 4, 9, 16] True"
    pids = [int(word) for word in one.line().split()]
    code, _, err = one.finish()
    assert (code, err) == (0, "")
    procs.wait_until(lambda: not any(map(procs.is_running, pids)), "children and zygote are gone")


def test_with_leaves_nothing_behind(pools):
    pool = pools(2)
    pids = set(pool.map(jobs.pid, range(20), 1))
    pool.close()
    assert in_time(pool.join)
    procs.wait_until(lambda: not any(map(procs.is_running, pids)), "the children are gone")
