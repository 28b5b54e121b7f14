# SPDX-License-Identifier: BSD-2-Clause
"""What the tests of faults run in children. A module of the tests' own folder, on purpose."""
import os
import pathlib
import resource
import signal
import socket
import sys
import threading

MARK = {"set_up": 0}


def square(x):
    return x * x


def add(a, b):
    return a + b


def echo(x):
    return x


def pid(_=None):
    return os.getpid()


def where(_=None):
    return socket.gethostname(), os.getpid(), os.getppid()


def set_up(value):
    MARK["set_up"] += value


def marked(_=None):
    return os.getpid(), MARK["set_up"]


def wait_for(path, value=None):
    """Runs until a file is there. A condition of the test's making, not a sleep."""
    tick = threading.Event()
    while not os.path.exists(path):
        tick.wait(0.01)
    return value


def announce_and_wait(folder, name, value=None):
    """Says that it runs (a file named after it holds its pid), then waits for the file `go`."""
    folder = pathlib.Path(folder)
    part = folder / f".{name}.{os.getpid()}"
    part.write_text(f"{os.getpid()}\n")
    part.rename(folder / name)
    return wait_for(folder / "go", value)


def hold(folder, x):
    return announce_and_wait(folder, f"begun-{x}", x)


def hold_first(item):
    """Only number 0 is long."""
    return hold(*item) if item[1] == 0 else item[1]


def hold_all(item):
    return hold(*item)


def count_line(folder, x):
    """x squared; the run is noted in a file."""
    with open(pathlib.Path(folder) / "runs", "a", encoding="ascii") as file:
        file.write(f"{x}\n")
    return x * x


def squares_slowly(folder, x):
    """x squared, but only once `go` is there for the second half of the numbers."""
    if x >= 50:
        wait_for(pathlib.Path(folder) / "go")
    return x * x


def kill_self(number=signal.SIGKILL):
    os.kill(os.getpid(), number)
    threading.Event().wait()


def kill_self_once(folder, x):
    """Dies the first time it is called."""
    path = pathlib.Path(folder) / "died"
    if not path.exists():
        path.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    return x * x


def segfault():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import ctypes
    ctypes.string_at(0)


def exit_hard(code):
    os._exit(code)


def exit_soft(code):
    sys.exit(code)


def hog():
    """Takes memory up to a limit, then dies as the kernel's OOM killer would have it."""
    blocks = []
    try:
        resource.setrlimit(resource.RLIMIT_AS, (512 << 20, resource.RLIM_INFINITY))
        while True:
            blocks.append(bytearray(16 << 20))
    except MemoryError:
        os.kill(os.getpid(), signal.SIGKILL)


KEPT = []


def close_and_open():
    """As a program does that becomes a daemon."""
    os.closerange(3, 256)
    KEPT.extend(open(os.devnull, "rb") for _ in range(100))
    return len(KEPT)


def large_or_die(x):
    """Eight bytes that name the call, and so on; every 50th kills its process."""
    if x % 50 == 49:
        os.kill(os.getpid(), signal.SIGKILL)
    return x.to_bytes(8, "big") * 9000


def use_up_descriptors():
    """Opens files until there is no number left for another; they stay open."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    try:
        while True:
            KEPT.append(open(os.devnull, "rb"))
    except OSError:
        return len(KEPT)


def memory_error():
    resource.setrlimit(resource.RLIMIT_AS, (512 << 20, resource.getrlimit(resource.RLIMIT_AS)[1]))
    try:
        return len(bytearray(1 << 34))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)


class NeedsTwo(Exception):
    """Cannot be unpickled: its arguments are not those of __init__."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


class Unpicklable(Exception):
    def __reduce__(self):
        raise TypeError("never pickled")


class NoText(Exception):
    def __str__(self):
        raise RuntimeError("no text either")


class Stops(BaseException):
    pass


def raise_needs_two():
    raise NeedsTwo("one", "two")


def raise_unpicklable():
    raise Unpicklable("here")


def raise_no_text():
    raise NoText()


def raise_base():
    raise Stops("base")


def raise_interrupt():
    raise KeyboardInterrupt


def raise_stop_iteration():
    raise StopIteration("of a task")


def raise_with_cause():
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise ValueError("outer") from error


def fail_if(x):
    if x % 10 == 7:
        raise ValueError(f"bad {x}")
    return x


def unpicklable_value():
    return lambda: 42


class LoadsBadly:
    """A value that pickles, and fails when it is unpickled."""

    def __reduce__(self):
        return _explode, ()


def _explode():
    raise RuntimeError("it explodes when unpickled")


def loads_badly():
    return LoadsBadly()


def blob(size):
    return bytes(range(256)) * (size // 256)


def size_of(data):
    return len(data)


def init_fails(text):
    raise RuntimeError(text)


def init_kills():
    os.kill(os.getpid(), signal.SIGKILL)


def init_exits():
    sys.exit(3)


def numpy_double(array):
    return array * 2


def numpy_facts(array):
    array = array + 0
    return str(array.dtype), array.shape, float(array.sum())


def numpy_frozen(value):
    """The same, and what is in it may not be written to."""
    value["it"][0].flags.writeable = False
    return value


def numpy_writes(array):
    """In place: arguments are the task's own."""
    array += 1
    return array


def print_both(text):
    print(text)
    print(text, file=sys.stderr)
    return len(text)


def nested_map(processes, count):
    from hostpool.multiprocessing import Pool
    with Pool(processes) as pool:
        return sum(pool.map(square, range(count)))


def nested_depth(depth):
    """A pool in a pool in a pool ..."""
    if depth == 0:
        return 1
    from hostpool.multiprocessing import Pool
    with Pool(1) as pool:
        return 1 + pool.apply(nested_depth, (depth - 1,))


def through_handle(handle, x):
    """Uses the pool it runs in."""
    if x == 0:
        return 0
    from hostpool import Pool
    return x + Pool.attach(handle).apply(through_handle, (handle, x - 1))


def fork_child(x):
    """Starts a process of multiprocessing inside a task."""
    import multiprocessing
    queue = multiprocessing.get_context("fork").SimpleQueue()
    process = multiprocessing.get_context("fork").Process(target=_put_square, args=(queue, x))
    process.start()
    value = queue.get()
    process.join()
    return value, process.exitcode


def _put_square(queue, x):
    queue.put(x * x)


def current():
    import hostpool
    import multiprocessing
    task = hostpool.current_task()
    return multiprocessing.current_process().name, os.getpid(), task.attempt, task.id


def sums(table, x):
    return id(table), sum(table) + x


def wait_in_order(folder, x):
    """Waits for the file of its number."""
    return wait_for(pathlib.Path(folder) / f"go{x}", x)
