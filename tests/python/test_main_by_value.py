# SPDX-License-Identifier: BSD-2-Clause
"""What programs do at the top of __main__: globals that an initializer sets, scripts without a
guard; and tasks that fork."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from farm_fixtures import *  # noqa: E402,F401,F403
from farm_fixtures import STANDARD  # noqa: E402

pytestmark = pytest.mark.skipif(STANDARD, reason="the standard library's children are forks")

HEAD = """
import os, sys
from hostpool.multiprocessing import Pool
"""

GLOBALS = HEAD + """
VALUE = 5
table = {}
seen = []

def set_up(value):
    global VALUE
    VALUE = value
    table["key"] = value

def rebind(value):
    global VALUE
    VALUE = value

def value(_):
    return VALUE, table["key"], len(seen)

class Reader:
    def __call__(self, _):
        seen.append(VALUE)
        return VALUE, table["key"], len(seen)

if __name__ == "__main__":
    with Pool(1, set_up, (77,)) as pool:
        print(pool.map(value, [0]), pool.map(Reader(), [0]), pool.map(value, [0]))
        if "plain" not in sys.argv:
            print(pool.apply(lambda: (VALUE, table["key"], len(seen))))
        pool.apply(rebind, (9,))
        print(pool.apply(value, (0,)))
"""
WITHOUT = "import sys; sys.modules['cloudpickle'] = None\n"


@pytest.mark.parametrize("how", ["by value", "plain"])
def test_functions_of_main_share_its_globals(program, shared_farm, how):
    text = (WITHOUT if how == "plain" else "") + GLOBALS
    code, out, err = program(text, how, farm=shared_farm).finish()
    lines = ["[(77, 77, 0)] [(77, 77, 1)] [(77, 77, 1)]", "(77, 77, 1)", "(9, 77, 1)"]
    if how == "plain":
        del lines[1]
    assert (code, out.splitlines(), err) == (0, lines, "")


REDEFINED = HEAD + """
def twice(x):
    return 2 * x
LIMIT = 1
if __name__ == "__main__":
    with Pool(1) as pool:
        print(pool.apply(lambda: (twice(3), LIMIT)))
        def twice(x):
            return 20 * x
        LIMIT = 2
        print(pool.apply(lambda: (twice(3), LIMIT)))
"""


def test_what_is_defined_again_in_main_is_new_in_the_child(program, shared_farm):
    code, out, err = program(REDEFINED, farm=shared_farm).finish()
    assert (code, out.splitlines(), err) == (0, ["(6, 1)", "(60, 2)"], "")


ATTACHED = HEAD + """
MINE = sys.argv[1]
def helper():
    return MINE
def task():
    return helper()
if __name__ == "__main__":
    pool = Pool.attach(int(sys.argv[2]))
    print(pool.apply(task))
"""
SHARED_POOL = HEAD + """
import subprocess
MINE = "owner"
def helper():
    return MINE
def task():
    return helper()
if __name__ == "__main__":
    with Pool(1) as pool:
        print(pool.apply(task))
        with open("other.py", "w") as file:
            file.write(sys.argv[1])
        print(subprocess.check_output([sys.executable, "other.py", "guest", str(pool.id)],
                                      text=True).strip())
        print(pool.apply(task), pool.apply(lambda: helper()))
"""


def test_programs_on_one_pool_keep_their_globals_apart(program, shared_farm):
    code, out, err = program(SHARED_POOL, ATTACHED, farm=shared_farm).finish()
    assert (code, out.splitlines(), err) == (0, ["owner", "guest", "owner owner"], "")


UNGUARDED = HEAD + """
def square(x):
    return x * x
pool = Pool(2)
try:
    print(pool.map(square, range(3)))
except Exception as error:
    print(type(error).__name__, "__main__" in str(error))
"""


@pytest.mark.parametrize("before, line", [("", "[0, 1, 4]"), (WITHOUT, "InitializerError True")])
def test_script_without_a_guard(program, shared_farm, before, line):
    code, out, err = program(before + UNGUARDED, farm=shared_farm).finish()
    assert (code, out.splitlines()) == (0, [line])


FORKS = HEAD + """
def forked():
    return os.getpid(), os.fork()

def raises_in_a_fork():
    if os.fork() == 0:
        raise ValueError("in the fork")
    os.wait()
    return os.getpid()

class Leaves(Exception):
    def __reduce__(self):
        sys.exit(3)

def leaves():
    raise Leaves("text")

if __name__ == "__main__":
    with Pool(1) as pool:
        pids = [pool.apply(forked)[0] for _ in range(5)] + [pool.apply(raises_in_a_fork)]
        print(len(set(pids)))
        try:
            pool.apply(leaves)
        except Exception as error:
            print(type(error).__name__, "text" in str(error), pool.apply(os.getpid) == pids[0])
"""


def test_a_task_forks_and_the_fork_comes_back(program, shared_farm):
    """Only the child itself answers; the pool goes on."""
    code, out, err = program(FORKS, farm=shared_farm).finish()
    assert (code, out.splitlines(), err) == (0, ["1", "RemoteError True True"], "")


FAILED = HEAD + """
def bad():
    raise RuntimeError("no set-up")

if __name__ == "__main__":
    pool = Pool(1, bad)
    for _ in range(3):
        try:
            pool.apply(abs, (1,))
        except Exception as error:
            print(type(error).__name__, "no set-up" in str(error))
    pool.terminate()
"""


def test_each_call_of_a_broken_pool_says_so(program, shared_farm):
    code, out, err = program(FAILED, farm=shared_farm).finish()
    assert (code, out.splitlines(), err) == (0, ["InitializerError True"] * 3, "")


MODULE = f"""
import sys
sys.path.insert(0, {str(pathlib.Path(__file__).resolve().parent)!r})
""" + HEAD + """
import types
import lambda_jobs as jobs

made = types.ModuleType("made")
exec("x = 5\\ndouble = lambda: 2 * x", made.__dict__)
sys.modules["made"] = made

if __name__ == "__main__":
    jobs.late = "set by the program"
    late = eval("lambda: (late, value)", jobs.__dict__)
    with Pool(1, jobs.set_up, ("set in the child",)) as pool:
        print(*pool.apply(jobs.by_value))
        print(*pool.apply(jobs.by_name))
        print(*pool.apply(jobs.closure("word")))
        print(*pool.apply(late))
        print(pool.apply(made.double))
"""


def test_functions_by_value_of_a_module_share_its_globals(program, shared_farm):
    """Where the child has the module; what is missing there comes along."""
    code, out, err = program(MODULE, farm=shared_farm).finish()
    assert (code, out.splitlines(), err) == (0, [
        "set in the child 1", "set in the child 2", "word set in the child ('set in the child', 3)",
        "set by the program set in the child", "10"], "")
